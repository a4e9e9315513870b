"""Each bad setting is refused by its id; the shipped defaults and a sound production are not."""

from __future__ import annotations

import ast
import base64
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import override_settings

from feeds import checks

# Only read by the checks; no connection is made with it.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")

ROOT = Path(__file__).resolve().parent.parent

PRODUCTION: dict[str, Any] = {
    "IS_PRODUCTION": True,
    "DEBUG": False,
    "SECRET_KEY": "invented-" * 8,
    "ALLOWED_HOSTS": ["feeds.bank.example"],
    "CODAT_SANDBOX": False,
    "CODAT_API_KEY": "invented0key0of0letters0and0digits",
    "CODAT_BASE_URL": "https://api.codat.io",
    "WEBHOOK_SECRETS": ["whsec_aW52ZW50ZWQgc2VjcmV0"],
    "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
    "SITE_URL": "https://feeds.bank.example",
    "CASE_NOTIFY_TO": ["support@bank.example"],
    "REQUIRE_SECOND_FACTOR": True,
    "AUDIT_SEAL_TO": ["file:///mnt/worm/seals.jsonl", "mailto:audit@bank.example", "https://a:b@vault.bank.example/s"],
    "DATABASES": {"default": {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {}}},
    "CODAT_PORTAL_URL": "https://app.codat.io",
    "INSTITUTION_NAME": "Maple Harbour Bank",
    "INSTITUTION_PHONE": "+1 555 0100",
    "CODAT_LINK_ORIGINS": ["https://*.codat.io"],
}
PROVIDER: dict[str, Any] = {
    "OIDC_ISSUER": "https://id.bank.example",
    "OIDC_CLIENT_ID": "backoffice",
    "OIDC_CLIENT_SECRET": "an invented secret",
}
DEVELOPMENT: dict[str, Any] = {
    "IS_PRODUCTION": False,
    "CODAT_SANDBOX": True,
    "CODAT_API_KEY": "sandbox-key",
    "CODAT_BASE_URL": "http://localhost:8100",
}
SOUND_TIMES: dict[str, Any] = {
    "CODAT_CONNECT_TIMEOUT": 5.0,
    "CODAT_READ_TIMEOUT": 20.0,
    "ONBOARDING_LEASE_SECONDS": 90,
    "WORKER_FROZEN_SECONDS": 180,
    "WORKER_HEARTBEAT_SECONDS": 20,
    "CODAT_ADD_ACCOUNTS_WITH": "batch",
    "CODAT_ACCOUNT_SCHEMA": "v2",
}


def queue(**changes: Any) -> dict[str, Any]:
    """The settings of the queue with some values replaced."""
    return {"Q_CLUSTER": {**django_settings.Q_CLUSTER, **changes}}


def found(**changes: Any) -> list[str]:
    """The ids that `manage.py check` would print; `changes` replace settings of a sound place."""
    with override_settings(**SOUND_TIMES | changes):
        return [message.id or "" for message in checks.settings_are_sound(app_configs=None)]


def test_a_sound_production_is_not_complained_about() -> None:
    assert found(**PRODUCTION) == []


def test_the_stand_in_on_this_machine_is_not_complained_about() -> None:
    assert found(**DEVELOPMENT) == []


def test_an_identity_provider_may_replace_passwords() -> None:
    assert found(**PRODUCTION | PROVIDER | {"PASSWORD_SIGN_IN": False}) == []


def test_put_and_v1_are_allowed_as_the_guide_has_them() -> None:
    assert found(**PRODUCTION | {"CODAT_ADD_ACCOUNTS_WITH": "put", "CODAT_ACCOUNT_SCHEMA": "v1"}) == []


def test_a_name_that_four_eyes_does_not_know_is_told_with_those_it_knows() -> None:
    with override_settings(FOUR_EYES=["unlink_conection"]):
        (message,) = checks.four_eyes_are_known()
    assert "unlink_conection" in message.msg
    assert message.hint is not None
    assert all(name in message.hint for name in checks.FOUR_EYES_NAMES)


WHOLE_HEADER = base64.b64encode(b"an-invented-key-that-was-encoded-already").decode()


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        ("feeds.E070", {"INSTITUTION_NAME": " "}),
        ("feeds.E071", {"INSTITUTION_PHONE": ""}),
        ("feeds.E072", {"INVITATION_DAYS": 91}),
        ("feeds.E073", {"INVITATION_REMIND_DAYS": 0}),
        ("feeds.E073", {"INVITATION_REMIND_DAYS": 14}),
        ("feeds.E095", {"INVITATION_STUCK_DAYS": [1, 5, 2, 1]}),
        ("feeds.E095", {"INVITATION_STUCK_DAYS": [1, 5, 0, 1, 3]}),
        ("feeds.E095", {"INVITATION_STUCK_DAYS": [1, 5, 2, 1, 91]}),
        ("feeds.E074", {"CODAT_LINK_ORIGINS": []}),
        ("feeds.E090", {"PRESSES_AT_ONCE": 0}),
        ("feeds.E074", {"CODAT_LINK_ORIGINS": ["http://link.codat.io"]}),
        ("feeds.E074", {"CODAT_LINK_ORIGINS": ["https://link.codat.io/companies"]}),
        ("feeds.E074", {"CODAT_LINK_ORIGINS": ["https://*.codat.io", "codat.io"]}),
        ("feeds.E074", {"CODAT_LINK_ORIGINS": ["https://a.codat.io; script-src *"]}),
        ("feeds.E080", {"API_CALLS_PER_MINUTE": 0}),
        ("feeds.E080", {"API_MAX_BYTES": 100}),
        ("feeds.E080", {"API_MAX_BYTES": 1_000_000}),
        ("feeds.E081", {"API_KEY_DAYS": 0}),
        ("feeds.E081", {"API_KEY_DAYS": 731}),
        ("feeds.E081", {"API_KEY_OVERLAP_DAYS": -1}),
        ("feeds.E081", {"API_KEY_OVERLAP_DAYS": 91}),
        ("feeds.E001", {"CODAT_API_KEY": ""}),
        ("feeds.E002", {"CODAT_SANDBOX": True}),
        ("feeds.E003", {"CODAT_BASE_URL": "http://api.codat.io"}),
        ("feeds.E003", {"CODAT_BASE_URL": "http://localhost:8100"}),
        ("feeds.E003", {"CODAT_BASE_URL": "api.codat.io"}),
        ("feeds.E004", {"CODAT_API_KEY": f"Basic {WHOLE_HEADER}"}),
        ("feeds.E004", {"CODAT_API_KEY": WHOLE_HEADER}),
        ("feeds.E004", {"CODAT_API_KEY": "invented0key\n"}),
        ("feeds.E005", {"CODAT_ADD_ACCOUNTS_WITH": "post"}),
        ("feeds.E006", {"CODAT_ACCOUNT_SCHEMA": "v3"}),
        ("feeds.E007", {"CODAT_READ_TIMEOUT": 26.0, "ONBOARDING_LEASE_SECONDS": 600}),
        ("feeds.E007", queue(timeout=40)),
        ("feeds.E008", {"ONBOARDING_LEASE_SECONDS": 60}),
        ("feeds.E009", queue(timeout=60.0)),
        ("feeds.E009", queue(retry="300")),
        ("feeds.E010", queue(retry=61)),
        ("feeds.E010", queue(bulk=50)),
        ("feeds.E011", queue(orm="queue")),
        ("feeds.E012", queue(save_limit=250)),
        ("feeds.E012", queue(ack_failures=False)),
        ("feeds.E012", queue(max_attempts=0)),
        ("feeds.E013", {"WORKER_FROZEN_SECONDS": 60}),
        (
            "feeds.E014",
            {"DATABASES": {"default": {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {"pool": True}}}},
        ),
        ("feeds.E015", {"SECRET_KEY": "short"}),
        ("feeds.E015", {"SECRET_KEY": ""}),
        ("feeds.E016", {"ALLOWED_HOSTS": []}),
        ("feeds.E017", {"DEBUG": True}),
        ("feeds.E026", {"CASE_DUE_HOURS": [24, 4, 72]}),
        ("feeds.E026", {"CASE_DUE_HOURS": [4, 24]}),
        ("feeds.E027", {"CASE_DIGEST_HOUR": 24}),
        ("feeds.E050", {"EMERGENCY_ACCESS_HOURS": 0}),
        ("feeds.E050", {"EMERGENCY_ACCESS_HOURS": 73}),
        ("feeds.W004", {"SITE_URL": "http://feeds.bank.example"}),
        ("feeds.W005", {"CASE_NOTIFY_TO": []}),
        ("feeds.E018", {"WEBHOOK_SECRETS": ["aW52ZW50ZWQgc2VjcmV0"]}),
        ("feeds.E018", {"WEBHOOK_SECRETS": ["whsec_aW52ZW50ZWQgc2VjcmV0", "whsec_!"]}),
        ("feeds.E018", {"WEBHOOK_SECRETS": ["whsec_"]}),
        ("feeds.E024", {"POLL_LINK_SECONDS": 0}),
        ("feeds.E024", {"POLL_RESERVE_PERCENT": 100}),
        ("feeds.E024", {"POLL_LIST_WAIT_HOURS": -1}),
        ("feeds.E024", {"POLL_LIST_WAIT_HOURS": 73}),
        ("feeds.E038", {"WEBHOOK_KEEP_DAYS": 6}),
        ("feeds.E025", {"METRICS_TOKEN": "guessed"}),
        ("feeds.E096", {"CALLOUT_FRENCH": "sometimes"}),
        ("feeds.E041", {"CODAT_PORTAL_URL": "http://app.codat.io"}),
        ("feeds.E042", {"CALLOUT_REMIND_DAYS": -1}),
        ("feeds.E030", {"FOUR_EYES": ["bulk", "unlink_conection"]}),
        ("feeds.E031", {"FOUR_EYES_BULK_ROWS": 0}),
        ("feeds.E031", {"FOUR_EYES_EXPIRE_HOURS": 0}),
        ("feeds.W001", {"DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": {}}}}),
        ("feeds.W003", {"WEBHOOK_SECRETS": []}),
        ("feeds.E040", {"AUDIT_SEAL_TO": ["seals.jsonl"]}),
        ("feeds.E040", {"AUDIT_SEAL_TO": ["https://vault.example/?bank=a", "https://vault.example/?bank=b"]}),
        ("feeds.E040", {"AUDIT_SEAL_TO": ["file://seals.jsonl"]}),
        ("feeds.E040", {"AUDIT_SEAL_TO": ["mailto:nobody"]}),
        ("feeds.E040", {"AUDIT_SEAL_TO": ["https:///path"]}),
        ("feeds.E040", {"AUDIT_SEAL_TO": ["https://[vault/path"]}),
        ("feeds.E040", {"AUDIT_SEAL_TO": ["http://vault.bank.example/seals"]}),
        ("feeds.E041", {"AUDIT_RETENTION_DAYS": 364}),
        ("feeds.W040", {"AUDIT_SEAL_TO": []}),
        ("feeds.W002", {"EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend"}),
        ("feeds.E060", {"LOGIN_FAILURE_LIMIT": 0}),
        ("feeds.E060", {"LOGIN_FAILURE_LIMIT": 1000}),
        ("feeds.E060", {"LOGIN_LOCK_MINUTES": 0}),
        ("feeds.E061", {"SESSION_IDLE_MINUTES": 1}),
        ("feeds.E061", {"SESSION_IDLE_MINUTES": 800}),
        ("feeds.E061", {"SESSION_ABSOLUTE_HOURS": 48}),
        ("feeds.E062", {"OIDC_ISSUER": "https://id.bank.example"}),
        ("feeds.E062", {**PROVIDER, "OIDC_ISSUER": "http://id.bank.example"}),
        ("feeds.E063", {"PASSWORD_SIGN_IN": False}),
        ("feeds.E064", {"TRUSTED_PROXY_COUNT": -1}),
        ("feeds.E065", {"MAX_REQUEST_BYTES": 1000}),
        ("feeds.E065", {"BULK_LIMIT": 5000}),
        ("feeds.E066", {"SESSION_COOKIE_NAME": "__Host-sessionid", "SESSION_COOKIE_SECURE": False}),
        ("feeds.W060", {"REQUIRE_SECOND_FACTOR": False}),
        ("feeds.W061", {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")}),
    ],
)
def test_a_bad_setting_is_named_by_its_id_and_nothing_else_is(expected: str, changes: dict[str, Any]) -> None:
    assert found(**PRODUCTION | changes) == [expected]


def test_a_random_key_is_not_taken_for_an_encoded_one() -> None:
    random_looking = base64.b64encode(bytes(range(128, 158))).decode()
    assert found(**PRODUCTION | {"CODAT_API_KEY": random_looking}) == []


def test_plain_http_is_for_this_machine_only() -> None:
    real = DEVELOPMENT | {"CODAT_SANDBOX": False}
    assert found(**real | {"CODAT_BASE_URL": "http://127.0.0.1:8100"}) == []
    assert found(**real | {"CODAT_BASE_URL": "http://codat.example"}) == ["feeds.E003"]


def test_the_shortest_retry_is_the_measured_formula() -> None:
    # Five tasks fetched for four workers: two rounds, and one for the task that runs already; 63 s each.
    assert checks.shortest_retry({"queue_limit": 4, "bulk": 1, "workers": 4, "timeout": 60}) == 189


def test_no_message_shows_a_secret() -> None:
    secret = f"Basic {WHOLE_HEADER}"
    with override_settings(**SOUND_TIMES | PRODUCTION | {"CODAT_API_KEY": secret, "SECRET_KEY": "tiny-but-secret"}):
        shown = " ".join(f"{m.msg} {m.hint}" for m in checks.settings_are_sound(app_configs=None))
    assert WHOLE_HEADER not in shown
    assert "tiny-but-secret" not in shown


def test_every_message_says_what_to_do() -> None:
    bad = PRODUCTION | {
        "CODAT_API_KEY": "",
        "SECRET_KEY": "",
        "ALLOWED_HOSTS": [],
        "DEBUG": True,
        "CODAT_SANDBOX": True,
    }
    with override_settings(**SOUND_TIMES | bad):
        messages = checks.settings_are_sound(app_configs=None)
    assert len(messages) >= 4
    assert all(message.hint for message in messages)


# --- .env.example ----------------------------------------------------------------------------------------------------
def variables_read() -> set[str]:
    """What settings.py and the stand-in's options read from the environment."""
    settings_source = (ROOT / "backoffice/settings.py").read_text()
    sandbox_source = (ROOT / "feeds/sandbox/options.py").read_text()
    read = re.findall(r"\benv(?:\.\w+)?\(\s*\"(\w+)\"", settings_source)
    return {*read, *re.findall(r"environment\.get\(\"(\w+)\"", sandbox_source)}


def test_every_variable_is_documented_and_no_other() -> None:
    documented = re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(documented) == variables_read()


def defaults() -> dict[str, str]:
    """The defaults that settings.py has as plain values, as one would write them in .env."""
    found = {}
    for node in ast.walk(ast.parse((ROOT / "backoffice/settings.py").read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        name, default = node.args[0], next((k.value for k in node.keywords if k.arg == "default"), None)
        if ast.unparse(node.func).startswith("env.") and isinstance(name, ast.Constant):
            found[str(name.value)] = _as_written(default)
    return {name: text for name, text in found.items() if text}


def _as_written(default: ast.expr | None) -> str:
    if not isinstance(default, ast.Constant):
        return ""
    value = default.value
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def test_the_documented_defaults_are_those_of_the_settings() -> None:
    written = dict(re.findall(r"^#([A-Z][A-Z0-9_]+)=(.+)$", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
    literal = defaults()
    assert literal["Q_RETRY"] == "300"
    assert {name: written.get(name) for name in literal if name != "EMAIL_URL"} == {
        name: text for name, text in literal.items() if name != "EMAIL_URL"
    }


def test_the_scan_of_the_settings_finds_them() -> None:
    assert {"CODAT_API_KEY", "DATABASE_URL", "SANDBOX_STRICT_OTP"} <= variables_read()


def test_the_example_says_that_secrets_may_come_from_files() -> None:
    assert "NAME_FILE" in (ROOT / ".env.example").read_text()

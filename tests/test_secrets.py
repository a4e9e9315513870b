"""No secret in the repository, and none in anything the product writes down.

To guard one more thing: a value that must stay hidden goes into `secrets_of`, a place where it might turn up into
`places`, a way through the product into `everything_done_once`.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import structlog
from django.apps import apps
from django.conf import settings as django_settings
from django.core import mail
from django.core.management import call_command
from django.db import models
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from backoffice.logs import logging_config
from backoffice.request_lines import RequestLines
from feeds import queue
from feeds.audit import Actor
from feeds.codat.errors import CodatError
from feeds.models import ApiKey, Company, Connection, SourceAccount, WebhookEvent
from feeds.services import (
    accounts,
    connections,
    credentials,
    invitation_keys,
    invitations,
    links,
    onboarding,
    seals,
    sync,
)
from feeds.states import ApiScope, InvitationPurpose
from tests import webhooks
from tests.factories import PASSWORD, CompanyFactory, SourceAccountFactory, UserFactory
from tests.leaks import tables
from tests.sandbox_process import SandboxProcess

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = ("900417733218", "4030-0556-7719")
ACCOUNTS = "/companies/{id}/connections/{id}/connectionInfo/bankFeedAccounts"
Drain = Callable[[], int]


# --- The repository --------------------------------------------------------------------------------------------------
KEY_SHAPES = {
    "private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "AWS key": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "GitHub token": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36}"),
    "live payment key": re.compile(r"\b[rs]k_live_[A-Za-z0-9]{16}"),
    "JSON web token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\."),
}
ENCODED = re.compile(r"(?:whsec_|Basic )([A-Za-z0-9+/]{20,}={0,2})")
ASSIGNED = re.compile(
    r"(?:KEY|SECRET|PASSWORD|TOKEN)[\"']?\s*[=:]\s*[\"']?([A-Za-z0-9+/_\-]{24,}={0,2})", re.IGNORECASE
)
ADDRESS = re.compile(r"[\w.+-]+@((?:[\w-]+\.)+[A-Za-z]{2,})\b")
INVENTED_DOMAIN = re.compile(r"(?:.+\.)?(?:example(?:\.(?:com|org|net))?|test|invalid|localhost)", re.IGNORECASE)
# Twenty random letters and digits have at least 3.7 bits each, all but never; words with a digit have fewer.
RANDOM_BITS = 3.7


def looks_random(text: str) -> bool:
    """Whether some part mixes letters and digits as a generator does, not as words joined by hyphens do."""
    return any(_is_mixed(part) for part in re.split(r"[-_]", text) if len(part) >= 20)


def _is_mixed(text: str) -> bool:
    kinds = [any(test(c) for c in text) for test in (str.isupper, str.islower, str.isdigit)]
    bits = -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
    return all(kinds) and bits > RANDOM_BITS


def is_readable(encoded: str) -> bool:
    """Whether base64 text stands for words, as an invented key does and a real one does not."""
    try:
        return base64.b64decode(encoded).isascii()
    except ValueError:
        return False


def suspicions(text: str) -> list[str]:
    """What in a text looks like a secret or a person's address."""
    found = [name for name, shape in KEY_SHAPES.items() if shape.search(text)]
    found += ["encoded key" for match in ENCODED.finditer(text) if not is_readable(match[1])]
    found += ["assigned key" for m in ASSIGNED.finditer(text) if not ENCODED.match(m[1]) and looks_random(m[1])]
    found += [f"address at {m[1]}" for m in ADDRESS.finditer(text) if not INVENTED_DOMAIN.fullmatch(m[1])]
    return found


def repository_texts() -> Iterator[tuple[str, str]]:
    """Name and text of every file that is, or is about to be, in the repository; not of lock files, full of hashes."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if name.startswith("requirements/") or not path.is_file():
            continue
        try:
            yield name, path.read_text()
        except UnicodeDecodeError:
            continue  # pictures and fonts


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout: there is no list of the repository's files")
def test_the_repository_holds_no_secret_and_nobodys_address() -> None:
    texts = dict(repository_texts())
    assert len(texts) > 50
    assert {name: found for name, text in texts.items() if (found := suspicions(text))} == {}


RANDOM = bytes(hash_ * 37 % 251 for hash_ in range(5, 35))


@pytest.mark.parametrize(
    "planted",
    [
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "AKIA" + "ABCDEFGH12345678",
        "ghp_" + "a1B2" * 9,
        "whsec_" + base64.b64encode(RANDOM).decode(),
        "Authorization: Basic " + base64.b64encode(RANDOM).decode(),
        "CODAT_API_KEY=" + base64.b64encode(RANDOM).decode(),
        "'api_key': '" + base64.b64encode(RANDOM).decode() + "'",
        "write to jane.doe" + "@" + "realbank.com",
    ],
)
def test_a_planted_secret_is_found(planted: str) -> None:
    assert suspicions(f"some text\n{planted}\nmore text")


# --- The product -----------------------------------------------------------------------------------------------------
class Kept:
    """Everything that was written down while the product was driven, by place, and what must not be in it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.secrets: dict[str, str] = {}
        self.logs = StringIO()
        self.lines = caplog
        """The same lines before the last net: nothing may depend on it."""
        self.shown: dict[str, str] = {}
        """Screens and outputs."""


@pytest.fixture
def kept(caplog: pytest.LogCaptureFixture) -> Iterator[Kept]:
    """Collects the log as production writes it, from the lowest level on."""
    kept = Kept(caplog)
    formatter = logging_config(level="DEBUG", as_json=True)["formatters"]["structured"]
    handler = logging.StreamHandler(kept.logs)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=formatter["foreign_pre_chain"], processors=formatter["processors"]
        )
    )
    root = logging.getLogger()
    root.addHandler(handler)
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.WARNING, logger="factory")  # the tests' own chatter
    yield kept
    root.removeHandler(handler)


def note_link(kept: Kept) -> None:
    """Remember the customer's link of the moment, and its one-time password."""
    url = Connection.objects.get().link_url
    kept.secrets[f"link {len(kept.secrets)}"] = url
    kept.secrets[f"otp {len(kept.secrets)}"] = re.search(r"otp=([^&]+)", url)[1]  # type: ignore[index]


def everything_done_once(kept: Kept, codat: SandboxProcess, drain: Drain, client: Client) -> None:
    """Drive the product through what it does, faults included."""
    user = UserFactory(role="Administrators")
    actor = Actor.person(user, source="test")
    company = CompanyFactory(legal_name="Café Québec")
    for number in NUMBERS:
        SourceAccountFactory(company=company, account_number=number)
    codat.post_fault("status", "POST", "/companies", status=500, times=1)
    codat.post_fault("status", "POST", f"{ACCOUNTS}/batch", status=400, times=1)
    onboarding.request(company, actor=actor)
    drain()
    onboarding.request(Company.objects.get(), actor=actor)
    drain()
    connection = Connection.objects.get()
    note_link(kept)
    links.refresh(connection, actor=actor)
    drain()
    note_link(kept)
    links.reveal(connection, actor=actor)
    account = SourceAccount.objects.get(account_number=NUMBERS[0])
    accounts.reveal_number(account, actor=actor)
    generated = credentials.generate(connection, actor=actor)
    kept.secrets |= {"credentials user": generated.username, "credentials password": generated.password}
    client.force_login(user)
    invite_and_press(kept, codat, actor, drain)
    call_the_api(kept, client)
    look_at_the_screens(kept, client, company)
    accounts.rename(account, name="Renamed", actor=actor)
    drain()
    codat.connect(Company.objects.get().codat_id, connection.codat_id)
    receive_a_webhook(kept, client)
    drain()
    sync.refresh_company(Company.objects.get(), actor=actor)
    accounts.disconnect(account, actor=actor, reason="closed")
    connections.unlink(Connection.objects.get(), actor=actor, reason="moved bank")
    credentials.revoke(connection, actor=actor, reason="lost")
    drain()
    accounts.delete(account, actor=actor, reason="closed")
    queue.enqueue(queue.ADVANCE, company.pk)  # stays in the queue: what a task carries is in the database too
    with pytest.raises(CodatError):
        refused_by_codat(codat, connection, actor)
    take_out(kept, company)
    kept.shown["command"] = output_of_the_command()
    sign_in(user)
    seals.seal()


def invite_and_press(kept: Kept, codat: SandboxProcess, actor: Actor, drain: Drain) -> None:
    """The invitation's link on a screen and in a mail, opened, guessed wrong, pressed in vain, and pressed."""
    company = Company.objects.get()
    invitation = invitations.invite_contact(company, purpose=InvitationPurpose.CONNECT, actor=actor)
    drain()
    mailed = re.search(r"/connect/([\w-]{43})", str(mail.outbox[-1].body))
    assert mailed is not None
    shown = invitation_keys.address(invitation, made_for=invitation_keys.SHOWN, actor=actor).url
    kept.secrets |= {"mailed key": mailed[1], "shown key": shown.rpartition("/")[2]}
    customer = Client()
    Connection.objects.update(link_url="", link_expires_at=None)
    codat.post_fault("status", "GET", "/companies/{id}/connections", status=401, times=1)
    told = customer.post("/connect/" + kept.secrets["shown key"])["Location"]
    assert "Something on our side" in customer.get(told).content.decode()
    for key in (kept.secrets["mailed key"], kept.secrets["shown key"]):
        assert customer.get(f"/connect/{key}").status_code == 200
        assert customer.post(f"/connect/{key}/opened").status_code == 204
        assert customer.post(f"/connect/{key}").status_code == 303
    assert customer.get("/connect/" + kept.secrets["shown key"][:-1]).status_code == 404
    note_link(kept)


def call_the_api(kept: Kept, client: Client) -> None:
    """A key made, replaced and sent; a link made with it; a customer refused whose account number is in the call."""
    form = {"name": "Portal", "scopes": ApiScope.values, "days": "30", "reason": "The new portal."}
    made = _api_key(client.post(reverse("admin:feeds_apikey_add"), form))
    replace = reverse("admin:feeds_apikey_action", args=[ApiKey.objects.get().pk, "rotate"])
    token = _api_key(client.post(replace, {"overlap_days": "1", "days": "30"}))
    kept.secrets |= {"replaced API key": made[13:], "API key of a program": token[13:]}
    number = Company.objects.get().customer_number
    program, headers = Client(), {"Authorization": f"Bearer {token}"}
    address = "/api/v1/connect-sessions"
    opened = program.post(address, {"customer_number": number}, content_type="application/json", headers=headers)
    kept.secrets["key of a link by the API"] = opened.json()["connect_url"].rpartition("/")[2]
    bad = {"customer_number": number, "customer": {"accounts": [{"account_number": NUMBERS[0]}]}}
    refused = program.post(address, bad, content_type="application/json", headers=headers)
    read = program.get(f"{address}/{number}", headers=headers)
    wrong = program.get(f"{address}/{number}", headers={"Authorization": f"Bearer {token}x"})
    assert (opened.status_code, refused.status_code, read.status_code, wrong.status_code) == (200, 422, 200, 401)
    kept.shown |= {"API refusal": refused.content.decode(), "API session": read.content.decode()}


def _api_key(answer: Any) -> str:
    found = re.search(r"bfk_[a-z2-7]{8}_[\w-]{43}", answer.content.decode())
    assert found is not None
    return found[0]


def sign_in(user: Any) -> None:
    """With the password one field too early, then with it in the right one."""
    door, url = Client(), reverse("admin:login")
    door.post(url, {"username": PASSWORD, "password": "x"})
    door.post(url, {"username": user.username, "password": PASSWORD})


def receive_a_webhook(kept: Kept, client: Client) -> None:
    """As Codat words them: with the customer's link and an account number; one is signed by somebody else."""
    details = {
        "connection": {"linkUrl": Connection.objects.get().link_url},
        "sourceAccount": {"accountNumber": NUMBERS[0]},
    }
    event = webhooks.envelope("connection.connected", Company.objects.get().codat_id, **details)
    assert webhooks.post(client, event).status_code == 204
    assert webhooks.post(client, event, secret=webhooks.OTHER_SECRET).status_code == 401
    stored = WebhookEvent.objects.get()
    url = reverse("admin:feeds_webhookevent_change", args=[stored.pk])
    kept.shown[url] = client.get(url).content.decode()


def take_out(kept: Kept, company: Company) -> None:
    """Everything that leaves as a file: the history, the evidence about a customer, the funnel's figures."""
    auditor = Client()
    auditor.force_login(UserFactory(role="Compliance auditors"))
    day = str(timezone.localdate())
    for name, url, form in (
        ("export", reverse("admin:feeds_auditentry_export"), {"format": "csv", "reason": "The yearly audit."}),
        (
            "evidence", reverse("admin:feeds_evidence", args=[company.pk]),
            {"start": day, "end": day, "reason": "The yearly audit."},
        ),
    ):  # fmt: skip
        answer = auditor.post(url, form)
        with ZipFile(BytesIO(b"".join(answer.streaming_content))) as pack:  # type: ignore[attr-defined]
            kept.shown |= {f"{name}: {file}": pack.read(file).decode() for file in pack.namelist()}
    kept.shown["funnel"] = auditor.get(reverse("admin:invitation_funnel_csv")).content.decode()


def look_at_the_screens(kept: Kept, client: Client, company: Company) -> None:
    """Every list, and the company's page."""
    for model in (Company, Connection, SourceAccount, *_history_models()):
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        kept.shown[url] = client.get(url).content.decode()
    url = reverse("admin:feeds_company_history", args=[company.pk])
    kept.shown[url] = client.get(url, follow=True).content.decode()
    kept.shown["home"] = client.get(reverse("admin:index")).content.decode()


def _history_models() -> list[type[models.Model]]:
    return [apps.get_model("feeds", name) for name in ("Operation", "AuditEntry")]


def refused_by_codat(codat: SandboxProcess, connection: Connection, actor: Actor) -> None:
    """A call that fails after our key was sent."""
    codat.post_fault("status", "POST", f"{ACCOUNTS}/credentials", status=403, times=1)
    credentials.generate(connection, actor=actor)


def output_of_the_command() -> str:
    """A command line run whose rows are all stored already or wrong."""
    out = StringIO()
    call_command("onboard", str(ROOT / "docs/sample/companies.csv"), "--dry-run", stdout=out, stderr=out)
    return out.getvalue()


def secrets_of(kept: Kept, codat: SandboxProcess) -> dict[str, str]:
    """Name -> a value that must be nowhere."""
    key = codat.api_key
    return {
        **kept.secrets,
        "API key": key,
        "encoded API key": base64.b64encode(key.encode()).decode(),
        "secret key": django_settings.SECRET_KEY,
        "password": PASSWORD,
        "webhook secret": codat.webhook_secret.removeprefix("whsec_"),
        **{f"account number {number}": number for number in NUMBERS},
    }


def places(kept: Kept) -> Iterator[tuple[str, str]]:
    """Name and text of everything that was written down: log, screens, mails to staff, and every table.

    The two columns that exist to hold a secret are left out: the link until it expires, and the account number.
    """
    yield "log", kept.logs.getvalue()
    yield "log before redaction", kept.lines.text
    yield from kept.shown.items()
    for message in mail.outbox:
        # The one to the customer carries the key of its page; that is what it is for.
        if kept.secrets.get("mailed key", "no key") not in str(message.body):
            yield "mail", f"{message.subject} {message.body} {getattr(message, 'alternatives', '')}"
    yield from tables()


def leaks(kept: Kept, codat: SandboxProcess) -> list[str]:
    """Which secret is where."""
    return [
        f"{secret} in {place}"
        for place, text in places(kept)
        for secret, value in secrets_of(kept, codat).items()
        if value in text
    ]


@pytest.mark.django_db
def test_what_the_product_writes_down_holds_no_secret(
    kept: Kept, codat: SandboxProcess, drain_queue: Drain, client: Client
) -> None:
    everything_done_once(kept, codat, drain_queue, client)

    texts = dict(places(kept))
    assert "codat_call" in texts["log"]  # it was really listened to
    for event in ("credentials_generated", "sign_in_failed", "signed_in", "history_exported", "evidence_pack_made"):
        assert event in texts["feeds_auditentry"]
    assert seals.verify().is_sound
    assert len(kept.secrets) == 13
    assert leaks(kept, codat) == []


@pytest.mark.django_db
def test_a_secret_that_does_get_written_down_is_found(kept: Kept, codat: SandboxProcess) -> None:
    kept.secrets["otp"] = "otp-of-this-test"
    logging.getLogger("feeds").warning("the customer's otp-of-this-test was refused")
    CompanyFactory(legal_name=f"Calls about {NUMBERS[0]}")
    kept.shown["screen"] = codat.api_key

    number = f"account number {NUMBERS[0]}"
    assert sorted(leaks(kept, codat)) == [
        "API key in screen",
        f"{number} in feeds_auditentry",
        f"{number} in feeds_company",
        "otp in log",
        "otp in log before redaction",
    ]


def test_the_last_net_of_the_log_hides_what_slips_through(kept: Kept) -> None:
    log = structlog.get_logger("feeds.test")
    log.info("slip", api_key="k-1", url="https://link.example/x?otp=9182", header="Basic c2xpcHBlZA==", note="kept")
    line: dict[str, Any] = json.loads(kept.logs.getvalue().splitlines()[-1])
    assert line["note"] == "kept"
    assert not [secret for secret in ("k-1", "9182", "c2xpcHBlZA") if secret in json.dumps(line)]


@pytest.mark.parametrize(
    ("asked", "logged"),
    [
        ("q=900417733218", "q=…3218"),
        ("q=4030-0556+7719", "q=…7719"),
        ("q=SB-1001&since=2026-11-26&until=2026-11-27", "q=SB-1001&since=2026-11-26&until=2026-11-27"),
    ],
)
def test_the_log_of_requests_has_no_long_number_that_somebody_searched_for(asked: str, logged: str) -> None:
    request = RequestFactory().get(f"/admin/feeds/sourceaccount/?{asked}")
    assert RequestLines.format_request(request) == f"GET /admin/feeds/sourceaccount/?{logged}"

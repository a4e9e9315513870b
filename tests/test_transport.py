"""What every answer carries, whatever it is an answer to, and what is not even read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.test import Client, RequestFactory
from django.urls import reverse

from backoffice.transport import ClientAddressMiddleware
from feeds.admin.companies import CompanyAdmin
from tests.factories import CompanyFactory, UserFactory
from tests.sign_in.people import add_app, log_in

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parent.parent
STRICT = {
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "font-src 'self'",
    "connect-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'", "object-src 'none'",
}  # fmt: skip


class Inline(HTMLParser):
    """Finds what a strict policy stops: scripts, styles and handlers within the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "script" and "src" not in values and values.get("type") != "application/json":
            self.found.append("<script>")
        if tag == "style" or "style" in values:
            self.found.append(f"style in <{tag}>")
        self.found += [f"{name} in <{tag}>" for name in values if name.startswith("on")]
        if (values.get("href") or "").startswith("javascript:"):
            self.found.append("javascript: link")


def answers(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    """One of every kind of page there is."""
    UserFactory(username="robin", is_superuser=True)
    nobody, staff = Client(), Client(raise_request_exception=False)
    yield "sign-in", nobody.get("/admin/login/")
    yield "refused", log_in(nobody, "robin", "wrong")
    log_in(staff, "robin")
    add_app(staff)
    half = Client()
    log_in(half, "robin")
    yield "second factor", half.get(reverse("mfa_authenticate"))
    for name in (
        "mfa_index",
        "mfa_deactivate_totp",
        "mfa_list_webauthn",
        "mfa_add_webauthn",
        "mfa_view_recovery_codes",
    ):
        yield name, staff.get(reverse(name))
    for name in ("mfa_generate_recovery_codes", "account_logout", "account_reauthenticate", "mfa_reauthenticate"):
        yield name, staff.get(reverse(name))
    yield "home", staff.get(reverse("admin:index"))
    yield "list", staff.get(reverse("admin:feeds_company_changelist"))
    yield "form", staff.get(reverse("admin:feeds_company_change", args=[CompanyFactory().pk]))
    yield "people", staff.get(reverse("admin:auth_user_changelist"))
    yield "operations", staff.get("/admin/operations/")
    yield "password", staff.get(reverse("admin:password_change"))
    yield "nothing here", nobody.get("/no-such-page/")
    yield "a form from elsewhere", Client(enforce_csrf_checks=True).post("/admin/login/")
    settings.MAX_REQUEST_BYTES = 10
    yield "too long", staff.post("/admin/login/", {"username": "x" * 20})
    settings.MAX_REQUEST_BYTES = 100_000
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 2
    yield "too many fields", staff.post("/admin/login/", {"a": 1, "b": 2, "c": 3})
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 1000
    for _ in range(5):
        locked = log_in(Client(), "nobody", "wrong")
    yield "locked", locked
    settings.ACCOUNT_RATE_LIMITS = {"login": "1/h/ip"}
    log_in(Client(), "x", REMOTE_ADDR="10.0.0.1")
    yield "too often", log_in(Client(), "x", REMOTE_ADDR="10.0.0.1")
    yield "machines", nobody.get("/healthz")
    yield "another host", nobody.get("/admin/login/", headers={"host": "evil.example"})
    yield "API keys", staff.get(reverse("admin:feeds_apikey_changelist"))
    yield "API key form", staff.get(reverse("admin:feeds_apikey_add"))
    yield "API without key", nobody.get("/api/v1/connect-sessions/1")
    yield "API, nothing here", nobody.get("/api/v1/nothing")
    yield "API, another host", nobody.get("/api/v1/nothing", headers={"host": "evil.example"})
    yield "API description", nobody.get(reverse("api:openapi-json"))
    too_long = "x" * (settings.API_MAX_BYTES + 1)
    yield "API, too long", nobody.post(reverse("api:open"), too_long, content_type="application/json")
    yield "a drawing", nobody.get("/static/feeds/icon.svg")
    yield "a script", nobody.get("/static/feeds/session.js")

    def break_down(*_args: object, **_options: object) -> None:
        raise RuntimeError("an invented fault")

    monkeypatch.setattr(CompanyAdmin, "get_queryset", break_down)
    yield "a fault", staff.get(reverse("admin:feeds_company_changelist"))


def body_of(answer: Any) -> str:
    """The text, also of a file."""
    return (b"".join(answer) if answer.streaming else answer.content).decode()


def test_every_kind_of_answer_is_strict(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    for name, answer in answers(settings, monkeypatch):
        seen[name] = answer.status_code
        policy = {part.strip() for part in answer["Content-Security-Policy"].split(";")}
        assert policy == STRICT, name
        assert answer["X-Content-Type-Options"] == "nosniff", name
        assert answer["Referrer-Policy"] == "same-origin", name
        assert answer["Cross-Origin-Opener-Policy"] == "same-origin", name
        assert answer["Cross-Origin-Resource-Policy"] == "same-origin", name
        assert "camera=()" in answer["Permissions-Policy"], name
        if answer["Content-Type"].startswith("text/html"):
            assert answer["X-Frame-Options"] == "DENY", name
            parser = Inline()
            parser.feed(body_of(answer))
            assert parser.found == [], name
    assert {status for status in seen.values()} >= {200, 400, 401, 403, 404, 413, 429, 500}, seen


@pytest.mark.parametrize(
    "page",
    ["<script>x()</script>", "<style>a{}</style>", '<p style="a">', '<a onclick="x()">', '<a href="javascript:x()">'],
)
def test_the_search_for_inline_code_finds_it(page: str) -> None:
    parser = Inline()
    parser.feed(page)
    assert parser.found


def test_what_is_too_long_is_refused_unread_and_said_so(settings: Any) -> None:
    settings.MAX_REQUEST_BYTES = 1000
    answer = Client().post("/admin/login/", {"file": "x" * 2000})
    assert answer.status_code == 413
    assert "This is too long" in answer.content.decode()


@pytest.mark.parametrize(
    ("count", "forwarded", "expected"),
    [
        (0, "203.0.113.5", "10.0.0.1"),  # nobody is believed
        (1, "203.0.113.5", "203.0.113.5"),
        (1, "6.6.6.6, 203.0.113.5", "203.0.113.5"),  # the first was made up by the browser
        (2, "6.6.6.6, 203.0.113.5, 192.0.2.1", "203.0.113.5"),
        (1, "2001:db8::7", "2001:db8::7"),
        (2, "203.0.113.5", "10.0.0.1"),  # did not come through both
        (1, "", "10.0.0.1"),
        (1, "nonsense", "10.0.0.1"),
    ],
)
def test_an_address_is_read_behind_our_own_proxies_only(
    settings: Any, count: int, forwarded: str, expected: str
) -> None:
    settings.TRUSTED_PROXY_COUNT = count
    seen = []

    def answer(request: Any) -> Any:
        seen.append(request.META["REMOTE_ADDR"])

    request = RequestFactory().get("/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR=forwarded)
    ClientAddressMiddleware(answer)(request)
    assert seen == [expected]


def test_the_lock_is_of_the_persons_address_not_of_the_proxys(settings: Any) -> None:
    settings.TRUSTED_PROXY_COUNT = 1
    log_in(Client(), "robin", "wrong", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR="6.6.6.6, 203.0.113.5")
    assert AccessAttempt.objects.get().ip_address == "203.0.113.5"


PRODUCTION = """
from django.conf import settings
settings.STORAGES["staticfiles"]["BACKEND"] = "django.contrib.staticfiles.storage.StaticFilesStorage"  # none collected
import django; django.setup()
from django.test import Client
answer = Client().get("/admin/login/", secure=True, HTTP_HOST="backoffice.example.com")
print(answer.status_code, answer["Strict-Transport-Security"])
print("cookie", answer.cookies.output())
print("policy", answer["Content-Security-Policy"])
plain = Client().get("/admin/login/", HTTP_HOST="backoffice.example.com")
print("plain", plain.status_code, plain["Location"])
"""


def test_in_production_cookies_are_bound_to_the_host_and_plain_http_is_left(tmp_path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    example = re.search(r"^PRODUCTION_EXAMPLE := (.+?)\n\n?\Z", makefile, re.MULTILINE | re.DOTALL)
    assert example is not None
    variables = dict(pair.split("=", 1) for pair in example[1].replace("\\\n", " ").split())
    variables |= {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'p.sqlite3'}",
        "DJANGO_SETTINGS_MODULE": "backoffice.settings",
        "CSP_REPORT_URL": "https://reports.bank.example/csp",
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run([sys.executable, "-c", PRODUCTION], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "200 max-age=31536000; includeSubDomains; preload" in done.stdout
    assert "__Host-csrftoken=" in done.stdout
    assert re.search(r"HttpOnly.+Path=/;.+SameSite=Lax; Secure", done.stdout)
    assert "Domain=" not in done.stdout
    assert "report-uri https://reports.bank.example/csp" in done.stdout
    assert "plain 301 https://backoffice.example.com/admin/login/" in done.stdout

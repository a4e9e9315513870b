"""The customer's page: scanners change nothing, wrong keys learn nothing, the button leads to a link that works."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
import requests
from django.db import connection as database
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.formats import date_format
from pytest_django.fixtures import Settings

from feeds import tasks
from feeds.models import AuditEntry, Company, Connection, Invitation, InvitationKey, Knock, Mail
from feeds.services import door, invitation_keys, invitations, knocks, onboarding, sync, timeline
from feeds.services.errors import Refused
from feeds.states import CalloutState, InvitationPurpose, InvitationState, MailKind, OnboardingState
from tests.factories import CalloutVersionFactory, CompanyFactory, SourceAccountFactory, UserFactory
from tests.history import last_entry
from tests.sandbox_process import ROOT, SandboxProcess
from tests.services.grid import RM

TOKEN = re.compile(rb'name="csrfmiddlewaretoken" value="[^"]+"')
"""Another in each answer, whatever the key."""
LIST_CONNECTIONS = "GET /companies/{id}/connections"


@pytest.fixture
def ready(codat: SandboxProcess, drain_queue: Callable[[], int]) -> Company:
    """A company whose link is ready, in the stand-in."""
    return onboarded(drain_queue)


def onboarded(drain_queue: Callable[[], int]) -> Company:
    """Onboard a company with two accounts."""
    company: Company = CompanyFactory(legal_name="Maple Dental Ltd.")
    SourceAccountFactory(company=company, name="Operating", account_number="4000100001")
    SourceAccountFactory(company=company, name="Savings", account_number="4000100002")
    onboarding.request(company, actor=RM)
    drain_queue()
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINK_READY
    return company


def invite(
    company: Company,
    *,
    purpose: InvitationPurpose = InvitationPurpose.CONNECT,
    language: str = "en",
    days: int | None = None,
) -> Invitation:
    """An invitation."""
    return invitations.invite(
        company,
        purpose=purpose,
        contact_name="Alex Doe",
        contact_email="alex@maple.example",
        language=language,
        actor=RM,
        days=days,
    )


def address_of(invitation: Invitation) -> str:
    """A path that opens it."""
    return urlsplit(invitation_keys.address(invitation, made_for=invitation_keys.SHOWN, actor=RM).url).path


def after_press(client: Client, address: str, data: dict[str, object] | None = None) -> str:
    """The page that a press leads to: by redirect, so that it can be reloaded and come back to."""
    answer = client.post(address, data or {})
    assert answer.status_code == 303
    assert urlsplit(answer["Location"])[:3] == ("", "", urlsplit(address).path)
    return client.get(answer["Location"]).content.decode()


def leads_to_codat(answer: HttpResponse, codat: SandboxProcess) -> bool:
    """Whether a press went through."""
    return answer.status_code == 303 and answer["Location"].startswith(codat.url)


def everything(invitation: Invitation) -> list[object]:
    """All that is stored of it."""
    return [
        Invitation.objects.filter(pk=invitation.pk).values().get(),
        Knock.objects.count(),
        AuditEntry.objects.count(),
    ]


@pytest.mark.django_db
def test_a_hundred_scanners_leave_the_invitation_untouched_and_ask_codat_nothing(
    client: Client, ready: Company, codat: SandboxProcess
) -> None:
    invitation = invite(ready)
    address = address_of(invitation)
    before, calls = everything(invitation), codat.stats()["requests"]
    for number in range(100):
        answer = client.get(address) if number % 2 else client.head(address)
        assert answer.status_code == 200
    assert everything(invitation) == before
    assert codat.stats()["requests"] == calls


@pytest.mark.django_db
def test_the_page_shows_the_customer_the_accounts_and_never_a_whole_number(client: Client, ready: Company) -> None:
    page = client.get(address_of(invite(ready))).content.decode()
    assert "Maple Dental Ltd." in page
    assert "Operating" in page
    assert "••••0001" in page
    assert "4000100001" not in page
    assert "100001" not in page
    assert "Connected: 0 of 2 accounts" in page
    assert "last seven days" in page


@pytest.mark.django_db
def test_the_page_is_as_old_as_the_oldest_reading_of_an_account(client: Client, ready: Company) -> None:
    first, second = ready.source_accounts.order_by("pk")
    first.read_at, second.read_at = datetime(2026, 11, 20, 15, tzinfo=UTC), datetime(2026, 11, 23, 15, tzinfo=UTC)
    first.save()
    second.save()
    page = client.get(address_of(invite(ready))).content.decode()
    assert "as of 20 Nov 2026, 10 a.m." in page
    assert "23 Nov 2026" not in page


@pytest.mark.django_db
def test_the_page_is_in_the_invitations_language_and_can_be_switched(client: Client, ready: Company) -> None:
    address = address_of(invite(ready, language="fr"))
    assert '<html lang="fr">' in client.get(address).content.decode()
    assert '<html lang="en">' in client.get(f"{address}?lang=en").content.decode()
    assert '<html lang="fr">' in client.get(f"{address}?lang=tlh").content.decode()
    assert '<html lang="fr">' in client.get(address, headers={"Accept-Language": "en"}).content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("asks_for", "language"), [("fr-CA,en;q=0.5", "fr"), ("en-CA,fr;q=0.5", "en"), ("es,de;q=0.5", "en"), ("", "en")]
)
def test_without_a_language_of_its_own_the_page_follows_the_browser(
    client: Client, ready: Company, asks_for: str, language: str
) -> None:
    address = address_of(invite(ready, language=""))
    other = {"en": "fr", "fr": "en"}[language]
    browser = {"headers": {"Accept-Language": asks_for}}
    assert f'<html lang="{language}">' in client.get(address, **browser).content.decode()
    assert f'<html lang="{other}">' in client.get(f"{address}?lang={other}", **browser).content.decode()


@pytest.mark.django_db
def test_no_answer_of_the_page_is_cached_indexed_framed_or_named_to_another_site(
    client: Client, ready: Company, codat: SandboxProcess
) -> None:
    address = address_of(invite(ready))
    for answer in (client.get(address), client.get("/connect/no-such-key"), client.post(address)):
        assert answer["Referrer-Policy"] == "same-origin"
        assert "noindex" in answer["X-Robots-Tag"]
        assert "no-store" in answer["Cache-Control"]
        assert answer["X-Frame-Options"] == "DENY"
        policy = answer["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
        assert f"form-action 'self' {codat.url}" in policy


@pytest.mark.django_db
def test_the_button_leads_to_a_link_that_opens_and_staff_can_see_that_it_was_pressed(
    client: Client, ready: Company
) -> None:
    invitation = invite(ready)
    answer = client.post(address_of(invitation))
    assert answer.status_code == 303
    assert requests.get(answer["Location"], timeout=10).status_code == 200
    invitation.refresh_from_db()
    assert invitation.state == InvitationState.STARTED
    assert invitation.opened_at is not None


@pytest.mark.django_db
def test_what_a_customer_does_is_history_with_where_it_came_from(client: Client, ready: Company) -> None:
    address = address_of(invite(ready))
    before = last_entry()
    client.post(f"{address}/opened", REMOTE_ADDR="192.0.2.30")
    client.post(address, REMOTE_ADDR="192.0.2.30")
    entries = list(AuditEntry.objects.filter(pk__gt=before).order_by("pk"))
    assert [entry.event or entry.fields for entry in entries] == [",opened_at,", "link_handed_over", ",started_at,"]
    for entry in entries:
        assert (entry.actor_name, entry.source, entry.remote_addr) == ("customer", "connect page", "192.0.2.30")
    opened, *pressed = [entry.cid for entry in entries]
    assert opened
    assert len(set(pressed)) == 1
    assert opened not in pressed


@pytest.mark.django_db
def test_a_press_after_the_hour_fetches_a_fresh_link(client: Client, ready: Company, codat: SandboxProcess) -> None:
    address = address_of(invite(ready))
    ready.connections.update(link_url="", link_expires_at=None)
    before = codat.requests_made(LIST_CONNECTIONS)
    answer = client.post(address)
    assert requests.get(answer["Location"], timeout=10).status_code == 200
    assert codat.requests_made(LIST_CONNECTIONS) == before + 1


@pytest.mark.django_db
def test_a_second_press_gets_the_link_that_the_first_one_opened(client: Client, ready: Company) -> None:
    address = address_of(invite(ready))
    assert client.post(address)["Location"] == client.post(address)["Location"] == Client().post(address)["Location"]


@pytest.mark.django_db
def test_a_form_from_another_site_is_refused(ready: Company) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert strict.post(address_of(invite(ready))).status_code == 403


@pytest.mark.django_db
@pytest.mark.parametrize("why", ["guessed", "altered", "revoked", "expired", "replaced"])
def test_every_key_that_opens_nothing_gets_the_same_answer(client: Client, ready: Company, why: str) -> None:
    _invitation, address = closed(ready, why)
    for ask, status in ((client.get, 404), (client.post, 303)):
        answer, unknown = ask(address), ask("/connect/never-made")
        assert answer.status_code == unknown.status_code == status
        assert TOKEN.sub(b"", answer.content) == TOKEN.sub(b"", unknown.content)
        with CaptureQueriesContext(database) as queries:
            ask(address)
        with CaptureQueriesContext(database) as as_many:
            ask("/connect/never-made")
        assert len(queries) == len(as_many)


def closed(company: Company, why: str) -> tuple[Invitation, str]:
    """An invitation, and an address that opens nothing."""
    invitation = invite(company)
    address = address_of(invitation)
    if why == "guessed":
        address = "/connect/" + "A" * 43
    elif why == "altered":
        address = address[:-1] + ("A" if address[-1] != "A" else "B")
    elif why == "revoked":
        invitations.revoke(invitation, actor=RM, reason="sent to the wrong person")
    elif why == "expired":
        Invitation.objects.filter(pk=invitation.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    else:
        invite(company)
    return invitation, address


@pytest.mark.django_db
@pytest.mark.parametrize("why", ["revoked", "expired", "replaced"])
def test_who_holds_a_link_that_has_ended_asks_for_a_new_one_and_staff_hear_of_it_once(
    client: Client, ready: Company, why: str
) -> None:
    ready.manager = UserFactory(email="robin@bank.example")
    ready.save()
    invitation, address = closed(ready, why)
    for _ in range(5):
        assert "Ask for a new link</button>" in client.get(address).content.decode()
    tasks.end_invitations()
    assert not Mail.objects.exists()

    assert "Your request is noted" in after_press(client, address)
    client.post(address)
    assert "1 asked for a new link" in tasks.end_invitations()
    client.post(address)
    assert "0 asked for a new link" in tasks.end_invitations()
    mail = Mail.objects.get(kind=MailKind.LINK_ASKED)
    assert (mail.to, mail.company) == ("robin@bank.example", ready)
    assert mail.subject == "Maple Dental Ltd. asks for a new link"
    assert address.rpartition("/")[2] not in mail.body
    told = AuditEntry.objects.get(event="invitation_link_asked_for")
    assert (told.object_pk, told.actor_name, told.company_id) == (str(invitation.pk), "customer", ready.pk)


@pytest.mark.django_db
@pytest.mark.parametrize("why", ["guessed", "altered"])
def test_a_key_that_was_never_ours_tells_nobody(client: Client, ready: Company, why: str) -> None:
    _invitation, address = closed(ready, why)
    assert "Your request is noted" in after_press(client, address)
    assert "0 asked for a new link" in tasks.end_invitations()
    assert not Mail.objects.exists()


@pytest.mark.django_db
def test_the_team_hears_of_the_customer_whom_nobody_looks_after(
    client: Client, ready: Company, settings: Settings
) -> None:
    settings.CASE_NOTIFY_TO = ["support@bank.example"]
    _invitation, address = closed(ready, "expired")
    client.post(address)
    tasks.end_invitations()
    assert Mail.objects.get().to == "support@bank.example"


@pytest.mark.django_db
def test_guessing_is_stopped_for_a_while_even_for_a_key_that_is_right(client: Client, ready: Company) -> None:
    address = address_of(invite(ready))
    for number in range(knocks.KNOCKS):
        assert client.get(f"/connect/guess-{number}").status_code == 404
    assert client.get("/connect/guess-again").status_code == 429
    assert client.get(address).status_code == 429
    assert client.get(address, REMOTE_ADDR="192.0.2.7").status_code == 200


@pytest.mark.django_db
def test_who_has_to_wait_is_told_how_long(client: Client) -> None:
    for number in range(knocks.KNOCKS):
        client.get(f"/connect/guess-{number}")
    waits = int(client.get("/connect/guess-again")["Retry-After"])
    assert 1 <= waits <= knocks.WINDOW.total_seconds() + 1


@pytest.mark.django_db
def test_the_switch_of_the_language_works_where_the_link_opens_nothing(client: Client) -> None:
    browser = {"headers": {"Accept-Language": "en-CA"}}
    page = client.get("/connect/never-made?lang=fr", **browser)
    assert "Ce lien ne fonctionne pas" in page.content.decode()
    assert page["Content-Language"] == "fr"
    asked = client.post("/connect/never-made?lang=fr", **browser)
    page = client.get(asked["Location"], **browser).content.decode()
    assert "Votre demande est notée" in page
    # And back: what was said stays said.
    switch = re.search(r'href="(\?lang=en[^"]*)"', page)
    assert switch is not None
    back = client.get("/connect/never-made" + switch[1].replace("&amp;", "&"), **browser).content.decode()
    assert "Your request is noted" in back
    for number in range(knocks.KNOCKS):
        client.get(f"/connect/guess-{number}")
    assert "Veuillez patienter" in client.get("/connect/never-made?lang=fr", **browser).content.decode()


@pytest.mark.django_db
def test_what_a_press_led_to_is_forgotten_after_a_while_and_nobody_else_can_make_the_page_say_it(
    client: Client, ready: Company, codat: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.connections.update(link_url="", link_expires_at=None)
    invitation = invite(ready)
    address = address_of(invitation)
    codat.post_fault("status", "GET", "/companies/{id}/connections", times=20, status=401)
    told = client.post(address)["Location"]
    before, calls = everything(invitation), codat.stats()["requests"]
    for _ in range(3):
        page = client.get(told)
        assert page.status_code == 200
        assert "Something on our side" in page.content.decode()
    assert (everything(invitation), codat.stats()["requests"]) == (before, calls)
    assert "Something on our side" not in client.get(told.replace("told=", "told=A")).content.decode()
    assert "Something on our side" not in client.get(f"{address}?told=fault").content.decode()
    monkeypatch.setattr("feeds.views.connect.TOLD_FOR", timedelta(seconds=-1))
    assert "Connect bank feeds</button>" in client.get(told).content.decode()


@pytest.mark.django_db
def test_a_browser_without_cookies_gets_the_customers_page_and_whom_to_call(ready: Company, settings: Settings) -> None:
    settings.INSTITUTION_PHONE = "+1 555 0100"
    strict = Client(enforce_csrf_checks=True)
    address = address_of(invite(ready))
    answer = strict.post(f"{address}?lang=fr")
    assert answer.status_code == 403
    assert "Votre navigateur ne conserve aucun témoin" in answer.content.decode()
    answer = strict.post(address)
    assert "Your browser keeps no cookie" in answer.content.decode()
    assert_is_for_customers(answer)


@pytest.mark.django_db
def test_a_fault_of_ours_shows_the_customer_no_page_of_staffs(
    ready: Company, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.INSTITUTION_PHONE = "+1 555 0100"
    address = address_of(invite(ready))

    def break_down(*_args: object, **_options: object) -> None:
        raise RuntimeError("should-not-be-seen")

    monkeypatch.setattr(door, "find", break_down)
    answer = Client(raise_request_exception=False).get(address)
    assert answer.status_code == 500
    assert "Something on our side is wrong" in answer.content.decode()
    assert "should-not-be-seen" not in answer.content.decode()
    assert_is_for_customers(answer)
    assert "Internal Server Error" in caplog.text


def assert_is_for_customers(answer: HttpResponse) -> None:
    """No page of staff's, and one that is not kept."""
    page = answer.content.decode()
    assert "+1 555 0100" in page
    assert "Back Office" not in page
    assert "/admin/" not in page
    assert "noindex" in answer["X-Robots-Tag"]
    assert "no-store" in answer["Cache-Control"]


@pytest.mark.django_db
def test_a_slash_at_the_end_of_a_link_does_no_harm_and_a_badly_copied_one_gets_the_customers_page(
    client: Client, ready: Company, codat: SandboxProcess, settings: Settings
) -> None:
    settings.INSTITUTION_PHONE = "+1 555 0100"
    address = address_of(invite(ready))
    page = client.get(f"{address}/").content.decode()
    assert "Connect bank feeds</button>" in page
    assert f'data-opened="{address}/opened"' in page
    assert leads_to_codat(client.post(f"{address}/"), codat)
    for wrong in ("/connect/", f"{address}/x", f"{address}/%20y/"):
        answer = client.get(wrong)
        assert answer.status_code == 404
        assert "This link does not work" in answer.content.decode()
        assert_is_for_customers(answer)


@pytest.mark.django_db
def test_what_is_stored_opens_nothing(client: Client, ready: Company) -> None:
    key = address_of(invite(ready)).rpartition("/")[2]
    stored = InvitationKey.objects.get().digest
    assert key not in str(list(InvitationKey.objects.values()))
    assert client.get(f"/connect/{stored}").status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"action": "status", "status": 503}, "Codat does not answer"),
        ({"action": "status", "status": 401}, "Something on our side"),
        ({"action": "status", "status": 402}, "Too many customers"),
        ({"action": "malformed"}, "Codat does not answer"),
    ],
)
def test_when_codat_gives_no_link_the_page_says_so_and_the_button_works_when_it_is_back(
    client: Client, ready: Company, codat: SandboxProcess, fault: dict[str, object], words: str, settings: Settings
) -> None:
    settings.CASE_NOTIFY_TO = ["support@bank.example"]
    ready.connections.update(link_url="", link_expires_at=None)
    address = address_of(invite(ready))
    action = str(fault.pop("action"))
    codat.post_fault(action, "GET", "/companies/{id}/connections", times=20, **fault)
    page = after_press(client, address)
    assert words in page
    assert "data-again" not in page
    client.post(address)
    assert Mail.objects.filter(kind=MailKind.DOOR_CLOSED).count() == 1  # staff are told once
    codat.clear_faults()
    assert leads_to_codat(client.post(address), codat)


@pytest.mark.django_db
def test_where_a_limit_makes_the_customer_wait_the_page_presses_again_and_gives_up_in_the_end(
    client: Client, ready: Company, codat: SandboxProcess, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CASE_NOTIFY_TO = ["support@bank.example"]
    ready.connections.update(link_url="", link_expires_at=None)
    address = address_of(invite(ready))
    codat.post_fault("status", "GET", "/companies/{id}/connections", times=20, status=429)
    waits = []
    for tries in (0, door.TRIES - 1):
        page = after_press(client, address, {"tries": tries} if tries else {})
        assert "One moment, please" in page
        assert f'name="tries" value="{tries + 1}"' in page
        again = re.search(r'data-again="(\d+)"', page)
        assert again is not None
        waits.append(int(again[1]))
    assert 2000 <= waits[0] < waits[1] < 15_000  # milliseconds
    # Who only says to have waited alarms nobody.
    assert "One moment, please" in after_press(client, address, {"tries": door.TRIES})
    assert not Mail.objects.exists()
    later = timezone.now() + timedelta(seconds=90)
    monkeypatch.setattr(timezone, "now", lambda: later)
    assert "Too many customers" in after_press(client, address, {"tries": door.TRIES})
    assert Mail.objects.get().kind == MailKind.DOOR_CLOSED
    assert "One moment" in after_press(client, address, {"tries": "9" * 30})
    codat.clear_faults()
    assert leads_to_codat(client.post(address, {"tries": 3}), codat)


@pytest.mark.django_db
def test_while_as_many_as_may_wait_for_codat_the_next_is_asked_for_a_moment_and_the_rest_goes_on(
    client: Client, ready: Company, codat: SandboxProcess, settings: Settings
) -> None:
    address = address_of(invite(ready))
    with ExitStack() as waiting:
        for _ in range(settings.PRESSES_AT_ONCE):
            waiting.enter_context(door._place_to_wait())
        # The link that we hold is handed over without asking Codat.
        assert leads_to_codat(client.post(address), codat)
        ready.connections.update(link_url="", link_expires_at=None)
        calls = codat.stats()["requests"]
        assert "One moment, please" in after_press(client, address)
        assert client.get(address).status_code == 200
        assert codat.stats()["requests"] == calls
    assert leads_to_codat(client.post(address), codat)


@pytest.mark.django_db
def test_who_was_asked_for_a_moment_gets_the_place_that_becomes_free(
    client: Client, ready: Company, codat: SandboxProcess, settings: Settings
) -> None:
    address = address_of(invite(ready))
    ready.connections.update(link_url="", link_expires_at=None)
    waiting = ExitStack()
    for _ in range(settings.PRESSES_AT_ONCE):
        waiting.enter_context(door._place_to_wait())
    leaving = threading.Timer(0.2, waiting.close)
    leaving.start()
    assert leads_to_codat(client.post(address, {"tries": 1}), codat)
    leaving.join()


@pytest.mark.parametrize("document", ["Procfile", "docs/deploy.md"])
def test_half_of_a_web_process_stays_free_however_slow_codat_is(document: str, settings: Settings) -> None:
    found = re.search(r"gunicorn .*--threads (\d+)", (ROOT / document).read_text())
    assert found is not None
    assert int(found[1]) >= 2 * settings.PRESSES_AT_ONCE


def one_stop(page: str) -> bool:
    """Whether "of Maple Dental Ltd." ends its sentence with one full stop."""
    return "<strong>Maple Dental Ltd</strong>. " in page


@pytest.mark.django_db
def test_an_invitation_that_has_served_shows_how_it_stands_and_gives_no_link_again(
    client: Client, ready: Company, codat: SandboxProcess, drain_queue: Callable[[], int]
) -> None:
    address = address_of(invite(ready))
    client.post(address)
    connection = ready.connections.get()
    codat.connect(ready.codat_id, connection.codat_id)
    sync.refresh_company(ready, actor=RM)
    page = client.get(address).content.decode()
    assert "Your bank feed is connected" in page
    assert one_stop(page)

    account = ready.source_accounts.earliest("pk")
    codat.disconnect(ready.codat_id, connection.codat_id, accountId=account.account_id, now=True)
    sync.refresh_company(ready, actor=RM)
    calls = codat.stats()["requests"]
    for page in (client.get(address).content.decode(), after_press(client, address)):
        assert "This link has done its work" in page
        assert one_stop(page)
        assert "Connected: 1 of 2 accounts" in page
        assert "<form" not in page
    assert codat.stats()["requests"] == calls
    # Staff invite to reconnect, and that one leads on.
    again = address_of(invite(ready, purpose=InvitationPurpose.RECONNECT))
    assert requests.get(client.post(again)["Location"], timeout=10).status_code == 200


@pytest.mark.django_db
def test_before_onboarding_is_done_the_page_asks_for_a_moment(client: Client) -> None:
    company = CompanyFactory(legal_name="Maple Dental Ltd.")
    address = address_of(invite(company))
    page = client.get(address).content.decode()
    assert "We are preparing" in page
    assert one_stop(page)
    assert "We are preparing" in after_press(client, address)


@pytest.mark.django_db
def test_the_page_follows_until_every_account_is_connected(
    client: Client, ready: Company, codat: SandboxProcess, drain_queue: Callable[[], int]
) -> None:
    invitation = invite(ready)
    address = address_of(invitation)
    client.post(address)
    connection = ready.connections.get()
    first = ready.source_accounts.earliest("pk").account_id

    codat.connect(ready.codat_id, connection.codat_id, accountIds=[first])
    sync.refresh_company(ready, actor=RM)
    page = client.get(address).content.decode()
    assert "Connected: 1 of 2 accounts" in page
    invitation.refresh_from_db()
    assert invitation.state == InvitationState.LINKED

    codat.connect(ready.codat_id, connection.codat_id)
    sync.refresh_company(ready, actor=RM)
    invitation.refresh_from_db()
    assert invitation.state == InvitationState.CONNECTED
    assert "Your bank feed is connected" in client.get(address).content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("language", "words"),
    [("en", "Have your QuickBooks password ready."), ("fr", "Préparez votre mot de passe QuickBooks.")],
)
def test_the_published_callout_stands_above_the_button_in_the_pages_language(
    client: Client, ready: Company, language: str, words: str
) -> None:
    address = address_of(invite(ready, language=language))
    CalloutVersionFactory(state=CalloutState.APPROVED, body_en="Not yet.", body_fr="Pas encore.")
    assert 'class="callout"' not in client.get(address).content.decode()
    CalloutVersionFactory(published=True)
    page = client.get(address).content.decode()
    assert words in page
    assert "Not yet." not in page
    assert "Pas encore." not in page


@pytest.mark.django_db
def test_the_page_takes_the_same_few_queries_whatever_stands_on_it(client: Client, ready: Company) -> None:
    CalloutVersionFactory(published=True)
    address = address_of(invite(ready))
    with CaptureQueriesContext(database) as two_accounts:
        client.get(address)
    connection = ready.connections.get()
    for _ in range(20):
        SourceAccountFactory(company=ready, connection=connection, status="pending")
    with CaptureQueriesContext(database) as many:
        client.get(address)
    # Wrong keys of the address, the key, accounts, connection, callout.
    assert len(two_accounts) == len(many) == 5


@pytest.mark.django_db
def test_an_account_that_was_added_later_is_connected_by_the_button(
    client: Client, ready: Company, codat: SandboxProcess, drain_queue: Callable[[], int]
) -> None:
    connection = ready.connections.get()
    codat.connect(ready.codat_id, connection.codat_id)
    sync.refresh_company(ready, actor=RM)
    added = SourceAccountFactory(company=ready, name="Payroll", account_number="4000100003")
    invitation = invite(ready, purpose=InvitationPurpose.ADD_ACCOUNTS)
    address = address_of(invitation)
    assert "We are preparing" in client.get(address).content.decode()

    ready.refresh_from_db()
    onboarding.request(ready, actor=RM)
    drain_queue()
    page = client.get(address).content.decode()
    assert "Connected: 2 of 3 accounts" in page
    assert "Connect bank feeds</button>" in page
    answer = client.post(address)
    assert answer.status_code == 303
    assert requests.get(answer["Location"], timeout=10).status_code == 200

    added.refresh_from_db()
    codat.connect(ready.codat_id, connection.codat_id, accountIds=[added.account_id])
    sync.refresh_company(ready, actor=RM)
    invitation.refresh_from_db()
    assert invitation.state == InvitationState.CONNECTED


@pytest.mark.django_db
def test_a_press_on_a_page_that_was_open_too_long_shows_that_all_is_done(
    client: Client, ready: Company, codat: SandboxProcess
) -> None:
    address = address_of(invite(ready))
    codat.connect(ready.codat_id, ready.connections.get().codat_id)
    sync.refresh_company(ready, actor=RM)
    assert "Your bank feed is connected" in after_press(client, address)


@pytest.mark.django_db
def test_the_script_tells_once_that_a_person_looks_at_the_page(client: Client, ready: Company) -> None:
    invitation = invite(ready)
    address = address_of(invitation)
    assert client.post(f"{address}/opened").status_code == 204
    invitation.refresh_from_db()
    first = invitation.opened_at
    client.post(f"{address}/opened")
    invitation.refresh_from_db()
    assert invitation.opened_at == first is not None
    assert client.get(f"{address}/opened").status_code == 405
    assert client.post("/connect/never-made/opened").status_code == 204


@pytest.mark.django_db(transaction=True)
def test_two_presses_at_once_end_with_one_link_that_works(
    strict_codat: SandboxProcess,
    drain_queue: Callable[[], int],
    settings: Settings,
) -> None:
    company = onboarded(drain_queue)
    company.connections.update(link_url="", link_expires_at=None)
    address = address_of(invite(company))
    answers: list[str] = []

    def press() -> None:
        browser = Client()
        while not leads_to_codat(answer := browser.post(address), strict_codat):
            assert "One moment, please" in browser.get(answer["Location"]).content.decode()
        answers.append(answer["Location"])
        database.close()

    presses = [threading.Thread(target=press) for _ in range(2)]
    for thread in presses:
        thread.start()
    for thread in presses:
        thread.join()
    assert len(set(answers)) == 1
    assert requests.get(answers[0], timeout=10).status_code == 200


@pytest.mark.skipif(database.vendor == "sqlite", reason="SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
def test_two_customers_who_meet_a_closed_codat_at_once_both_get_the_page_that_says_so(
    codat: SandboxProcess, drain_queue: Callable[[], int], settings: Settings
) -> None:
    settings.CASE_NOTIFY_TO = ["support@bank.example"]
    first, second = (address_of(invite(onboarded(drain_queue))) for _ in range(2))
    Connection.objects.update(link_url="", link_expires_at=None)
    codat.post_fault("status", "GET", "/companies/{id}/connections", times=None, status=503)
    answers: list[str] = []

    def press(address: str) -> None:
        answers.append(Client(raise_request_exception=False).post(address).headers.get("Location", ""))
        database.close()

    def another_is_quicker(execute: Callable[..., object], sql: str, *args: object) -> object:
        """Between the moment at which there was no mail yet and the one at which it is written."""
        if sql.startswith('INSERT INTO "feeds_mail"') and not answers:
            other = threading.Thread(target=press, args=[second])
            other.start()
            other.join()
        return execute(sql, *args)

    with database.execute_wrapper(another_is_quicker):
        press(first)
    assert ["told=" in it for it in answers] == [True, True]
    assert Mail.objects.get().kind == MailKind.DOOR_CLOSED


# --- Alarms ----------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_a_crowd_and_a_spent_quota_are_told_each_for_itself(
    client: Client, ready: Company, codat: SandboxProcess, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CASE_NOTIFY_TO = ["support@bank.example"]
    ready.connections.update(link_url="", link_expires_at=None)
    address = address_of(invite(ready))
    codat.post_fault("status", "GET", "/companies/{id}/connections", times=1, status=402)
    assert "Too many customers" in after_press(client, address)
    with ExitStack() as crowd:
        for _ in range(settings.PRESSES_AT_ONCE):
            crowd.enter_context(door._place_to_wait())
        assert "One moment" in after_press(client, address)
        later = timezone.now() + timedelta(seconds=90)
        monkeypatch.setattr(timezone, "now", lambda: later)
        monkeypatch.setattr(door, "LINE_PATIENCE", 0.01)
        assert "Too many customers" in after_press(client, address, {"tries": door.TRIES})
    assert Mail.objects.filter(kind=MailKind.DOOR_CLOSED).count() == 2


@pytest.mark.django_db
@pytest.mark.parametrize("comes", ["presses", "looks"])
@pytest.mark.parametrize(
    ("values", "why"),
    [
        (
            {"onboarding_state": "failed", "onboarding_error": "The country is not offered."},
            "The country is not offered.",
        ),
        ({"gone_at": timezone.now()}, "Codat no longer has this company"),
        ({"onboarding_state": "offboarded"}, "It is off-boarded."),
    ],
    ids=["failed", "gone", "off-boarded"],
)
def test_what_only_staff_can_mend_is_not_called_being_prepared_and_staff_are_told_once(
    client: Client, comes: str, values: dict[str, object], why: str
) -> None:
    company = CompanyFactory(in_codat=True, manager=UserFactory(email="robin@bank.example"))
    address = address_of(invite(company))
    Company.objects.filter(pk=company.pk).update(**values)
    page = client.get(address).content.decode()
    assert "Something on our side has to be mended first" in page
    assert f'data-opened="{address}/opened"' in page
    assert not Mail.objects.exists()  # scanners alarm nobody
    for _ in range(2):
        answer = client.post(address if comes == "presses" else f"{address}/opened")
        assert answer.status_code == (303 if comes == "presses" else 204)
    mail = Mail.objects.get()
    assert (mail.kind, mail.to, mail.company) == (MailKind.DOOR_CLOSED, "robin@bank.example", company)
    assert mail.subject.startswith(f"{company.legal_name} cannot connect: {why}")


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["queued", "working", "retrying"])
def test_a_company_that_is_made_again_is_being_prepared(client: Client, state: str) -> None:
    company = CompanyFactory(in_codat=True)
    address = address_of(invite(company))
    Company.objects.filter(pk=company.pk).update(gone_at=timezone.now(), onboarding_state=state)
    assert "We are preparing" in client.get(address).content.decode()


@pytest.mark.django_db
def test_a_link_that_vanished_meanwhile_is_not_fetched_past_those_who_wait(
    client: Client, ready: Company, codat: SandboxProcess, settings: Settings
) -> None:
    address = address_of(invite(ready))

    def vanishes(execute: Callable[..., object], sql: str, *args: object) -> object:
        """Once the company is held, the link that looked live is gone."""
        if "lease_token" in sql and sql.startswith("UPDATE"):
            database.execute_wrappers.remove(vanishes)
            Connection.objects.update(link_url="", link_expires_at=None)
        return execute(sql, *args)

    calls = codat.stats()["requests"]
    with ExitStack() as crowd:
        for _ in range(settings.PRESSES_AT_ONCE):
            crowd.enter_context(door._place_to_wait())
        database.execute_wrappers.append(vanishes)
        assert "One moment, please" in after_press(client, address)
        assert codat.stats()["requests"] == calls
    assert leads_to_codat(client.post(address), codat)


# --- Wrong keys ------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
@pytest.mark.parametrize("why", ["revoked", "expired", "replaced"])
def test_a_tab_left_open_on_a_link_that_ended_does_not_lock_its_network_out(
    client: Client, ready: Company, why: str
) -> None:
    _invitation, ended = closed(ready, why)
    for _ in range(knocks.KNOCKS + 1):
        assert client.get(ended).status_code == 404
    assert client.get(address_of(invite(ready))).status_code == 200


@pytest.mark.django_db
def test_guesses_from_one_ipv6_network_are_counted_together(client: Client, ready: Company) -> None:
    address = address_of(invite(ready))
    for number in range(knocks.KNOCKS):
        client.get(f"/connect/guess-{number}", REMOTE_ADDR=f"2001:db8:0:1::{number:x}")
    answer = client.get(address, REMOTE_ADDR="2001:db8:0:1:ffff::1")
    assert answer.status_code == 429
    assert 0 < int(answer["Retry-After"]) <= knocks.WINDOW.total_seconds()
    assert client.get(address, REMOTE_ADDR="2001:db8:0:2::1").status_code == 200


@pytest.mark.django_db
def test_an_ipv4_address_written_as_ipv6_is_itself_and_no_network(client: Client, ready: Company) -> None:
    address = address_of(invite(ready))
    for number in range(knocks.KNOCKS):
        client.get(f"/connect/guess-{number}", REMOTE_ADDR="::ffff:192.0.2.7")
    assert client.get(address, REMOTE_ADDR="192.0.2.7").status_code == 429
    assert client.get(address, REMOTE_ADDR="::ffff:192.0.2.8").status_code == 200


# --- Asking again ----------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_who_asks_again_another_day_is_heard_again_and_no_oftener(
    client: Client, ready: Company, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CASE_NOTIFY_TO = ["support@bank.example"]
    invitation = invite(ready)
    addresses = [address_of(invitation) for _ in range(2)]
    invitations.revoke(invitation, actor=RM, reason="sent to the wrong person")
    start = timezone.now()
    for hours, told in ((0, 1), (1, 0), (25, 1), (26, 0), (50, 1)):
        now = start + timedelta(hours=hours)
        monkeypatch.setattr(timezone, "now", lambda now=now: now)
        # A customer with two mails uses now the one, now the other.
        assert client.post(addresses[hours % 2]).status_code == 303
        assert f"{told} asked for a new link" in tasks.end_invitations()
    assert Mail.objects.filter(kind=MailKind.LINK_ASKED).count() == 3


@pytest.mark.django_db
def test_the_link_of_a_connected_customer_that_was_withdrawn_still_asks_for_a_new_one(
    client: Client, ready: Company, codat: SandboxProcess, settings: Settings
) -> None:
    settings.CASE_NOTIFY_TO = ["support@bank.example"]
    invitation = invite(ready)
    address = address_of(invitation)
    client.post(address)
    codat.connect(ready.codat_id, ready.connections.get().codat_id)
    sync.refresh_company(ready, actor=RM)
    assert "Your bank feed is connected" in client.get(address).content.decode()
    invitations.revoke(invitation, actor=RM, reason="The mailbox was sold.")
    assert client.get(address).status_code == 404
    assert "Your request is noted" in after_press(client, address)
    assert "1 asked for a new link" in tasks.end_invitations()
    invitation.refresh_from_db()
    assert invitation.state == InvitationState.CONNECTED
    with pytest.raises(Refused, match="opens nothing any more"):
        invitations.revoke(invitation, actor=RM, reason="Again.")
    withdrawn = next(it for it in timeline.of_company(ready).entries if it.title == "Invitation withdrawn")
    assert withdrawn.text == "The mailbox was sold. The customer was connected, and stays so."


@pytest.mark.django_db
def test_the_timeline_says_when_the_customer_asked_and_whether_a_newer_invitation_was_there(
    client: Client, ready: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    _invitation, address = closed(ready, "replaced")
    asked = timezone.now()
    client.post(address)
    monkeypatch.setattr(timezone, "now", lambda: asked + timedelta(minutes=10))
    tasks.end_invitations()
    entry = next(it for it in timeline.of_company(ready).entries if it.title == "The customer asks for a new link")
    assert f"Asked on {date_format(timezone.localtime(asked), 'DATETIME_FORMAT')}." in entry.text
    assert entry.next_step == "A newer invitation was there already: send that one again, or call."

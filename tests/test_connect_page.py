"""The customer's page: scanners change nothing, wrong keys learn nothing, the button leads to a link that works."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import requests
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from feeds.banking import mask
from feeds.models import AuditEntry, Company, Invitation, InvitationKey, Knock
from feeds.services import door, invitation_keys, invitations, onboarding, sync
from feeds.states import CalloutState, InvitationPurpose, InvitationState, OnboardingState
from tests.factories import CalloutVersionFactory, CompanyFactory, SourceAccountFactory
from tests.sandbox_process import SandboxProcess
from tests.services.grid import RM

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
    assert mask("4000100001") in page
    assert "4000100001" not in page
    assert "Connected: 0 of 2 accounts" in page
    assert "last seven days" in page


@pytest.mark.django_db
def test_the_page_is_in_the_invitations_language_and_can_be_switched(client: Client, ready: Company) -> None:
    address = address_of(invite(ready, language="fr"))
    assert '<html lang="fr">' in client.get(address).content.decode()
    assert '<html lang="en">' in client.get(f"{address}?lang=en").content.decode()
    assert '<html lang="fr">' in client.get(f"{address}?lang=tlh").content.decode()


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
    handed = AuditEntry.objects.get(event="link_handed_over")
    assert (handed.actor_name, handed.source) == ("customer", "connect page")


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
    assert client.post(address)["Location"] == client.post(address)["Location"]


@pytest.mark.django_db
def test_a_form_from_another_site_is_refused(ready: Company) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert strict.post(address_of(invite(ready))).status_code == 403


@pytest.mark.django_db
@pytest.mark.parametrize("why", ["guessed", "altered", "revoked", "expired", "replaced"])
def test_every_key_that_opens_nothing_gets_the_same_answer(client: Client, ready: Company, why: str) -> None:
    invitation = invite(ready)
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
        invite(ready)
    unknown = client.get("/connect/never-made")
    for answer in (client.get(address), client.post(address)):
        assert answer.status_code == 404
        assert answer.content == unknown.content
    with CaptureQueriesContext(database) as queries:
        client.get(address)
    with CaptureQueriesContext(database) as as_many:
        client.get("/connect/never-made")
    assert len(queries) == len(as_many)


@pytest.mark.django_db
def test_guessing_is_stopped_for_a_while_even_for_a_key_that_is_right(client: Client, ready: Company) -> None:
    address = address_of(invite(ready))
    for number in range(door.KNOCKS):
        assert client.get(f"/connect/guess-{number}").status_code == 404
    assert client.get("/connect/guess-again").status_code == 429
    assert client.get(address).status_code == 429
    assert client.get(address, REMOTE_ADDR="192.0.2.7").status_code == 200


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
        ({"action": "status", "status": 429}, "Too many customers"),
        ({"action": "status", "status": 401}, "Something on our side"),
        ({"action": "status", "status": 402}, "Too many customers"),
        ({"action": "malformed"}, "Codat does not answer"),
    ],
)
def test_when_codat_gives_no_link_the_page_says_so_and_the_button_works_when_it_is_back(
    client: Client, ready: Company, codat: SandboxProcess, fault: dict[str, object], words: str
) -> None:
    ready.connections.update(link_url="", link_expires_at=None)
    address = address_of(invite(ready))
    action = str(fault.pop("action"))
    codat.post_fault(action, "GET", "/companies/{id}/connections", times=20, **fault)
    answer = client.post(address)
    assert answer.status_code == 503
    assert words in answer.content.decode()
    codat.clear_faults()
    assert client.post(address).status_code == 303


@pytest.mark.django_db
def test_before_onboarding_is_done_the_page_asks_for_a_moment(client: Client) -> None:
    company = CompanyFactory()
    address = address_of(invite(company))
    assert "We are preparing" in client.get(address).content.decode()
    answer = client.post(address)
    assert answer.status_code == 200
    assert "still preparing" in answer.content.decode()


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
    answer = client.post(address)
    assert answer.status_code == 200
    assert "Your bank feed is connected" in answer.content.decode()


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
        answers.append(Client().post(address)["Location"])
        database.close()

    presses = [threading.Thread(target=press) for _ in range(2)]
    for thread in presses:
        thread.start()
    for thread in presses:
        thread.join()
    assert len(set(answers)) == 1
    assert requests.get(answers[0], timeout=10).status_code == 200

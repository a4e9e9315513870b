"""Connect sessions: from a customer number to a connected customer, again and again, from many places at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from django.db import connection as database
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from feeds import tasks
from feeds.models import AuditEntry, Company, Invitation, InvitationKey, Operation
from feeds.services import connect_sessions, invitation_keys, invitations, onboarding, roles, sync
from feeds.states import AccountStatus, InvitationPurpose, OnboardingState
from tests.api.conftest import ADA, MakeKey, Program, customer, request_for
from tests.api.test_problems import known, places, refused
from tests.factories import CompanyFactory, ConnectionFactory, SourceAccountFactory, UserFactory
from tests.history import last_entry
from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.django_db


def path_of(answer: Any) -> str:
    """Where the customer is sent."""
    return urlsplit(answer.json()["connect_url"]).path


# --- The whole way ---------------------------------------------------------------------------------------------------
def test_a_customer_comes_from_nothing_to_connected_without_staff(
    program: Program, client: Client, codat: SandboxProcess, drain_queue: Callable[[], int], settings: Settings
) -> None:
    answer = program.post(request_for())
    assert answer.status_code == 201
    assert answer.json()["state"] == "preparing"
    assert answer.json()["connect_url"].startswith(f"{settings.SITE_URL}/connect/")
    drain_queue()
    assert program.get("SB-2001").json()["state"] == "ready"

    assert "Juniper Hill Bakery" in client.get(path_of(answer)).content.decode()
    pressed = client.post(path_of(answer))
    assert requests.get(pressed["Location"], timeout=10).status_code == 200
    assert program.get("SB-2001").json()["state"] == "started"

    company = Company.objects.get()
    codat.connect(company.codat_id, company.connections.get().codat_id)
    sync.refresh_company(company, actor=ADA)
    connected = program.get("SB-2001").json()
    assert (connected["state"], connected["connected_accounts"], connected["total_accounts"]) == ("connected", 1, 1)
    assert Invitation.objects.get().connected_at is not None
    again = program.post({"customer_number": "SB-2001"})
    assert (again.status_code, again.json()["state"], again.json()["connect_url"]) == (200, "connected", None)


def test_with_codat_down_the_customer_is_made_and_goes_on_when_it_is_back(
    program: Program, codat: SandboxProcess, drain_queue: Callable[[], int], settings: Settings
) -> None:
    settings.ONBOARDING_RETRY_BASE_SECONDS = 60.0
    codat.post_fault("status", "POST", "/companies", status=503, times=1)
    assert program.post(request_for()).status_code == 201
    onboarding.advance(Company.objects.get().pk)
    assert Company.objects.get().onboarding_state == OnboardingState.RETRYING
    assert program.get("SB-2001").json()["state"] == "preparing"
    assert program.post({"customer_number": "SB-2001"}).json()["state"] == "preparing"
    Operation.objects.update(next_attempt_at=None)
    drain_queue()
    assert program.get("SB-2001").json()["state"] == "ready"


def test_an_answer_shows_accounts_by_their_ends_and_as_of_when(program: Program) -> None:
    company = known()
    account = company.source_accounts.get()
    account.account_number, account.read_at = "000410099871", timezone.now()
    account.save()
    answer = program.get("SB-1")
    shown = answer.json()
    assert shown["accounts"] == [{"name": account.name, "number": "••••9871", "status": "pending"}]
    assert shown["as_of"].startswith(f"{account.read_at:%Y-%m-%dT%H:%M}")
    assert shown["expires_at"] is None
    assert "00041009" not in answer.content.decode()
    assert "connect_url" not in shown


@pytest.mark.parametrize(("status", "shown"), [("", "not_sent"), ("connected", "connected"), ("dreaming", "unknown")])
def test_a_status_that_codat_adds_later_is_shown_as_unknown(program: Program, status: str, shown: str) -> None:
    company = CompanyFactory(in_codat=True, customer_number="SB-1")
    connection = ConnectionFactory(company=company) if status else None
    SourceAccountFactory(company=company, connection=connection, status=status)
    assert program.get("SB-1").json()["accounts"][0]["status"] == shown


# --- Repeating -------------------------------------------------------------------------------------------------------
def test_repeating_changes_nothing_and_every_link_works(
    program: Program, client: Client, codat: SandboxProcess, drain_queue: Callable[[], int]
) -> None:
    first = program.post(request_for())
    drain_queue()
    whole, alone = program.post(request_for()), program.post({"customer_number": "SB-2001"})
    assert (first.status_code, whole.status_code, alone.status_code) == (201, 200, 200)
    assert Company.objects.count() == Invitation.objects.count() == 1
    assert Operation.objects.filter(kind="create_company").count() == 1
    links = {path_of(answer) for answer in (first, whole, alone)}
    assert len(links) == 3
    assert {client.get(link).status_code for link in links} == {200}


def test_a_balance_that_has_moved_is_no_difference(
    program: Program, codat: SandboxProcess, drain_queue: Callable[[], int]
) -> None:
    account = customer()["accounts"][0]
    program.post(request_for())
    assert program.post(request_for(accounts=[{**account, "balance": "7.00"}])).status_code == 200
    drain_queue()
    assert program.post(request_for(accounts=[{**account, "balance": "8.00"}])).status_code == 200
    assert str(Company.objects.get().source_accounts.get().balance) == "1250.00"


def test_only_the_last_links_work_and_mailed_ones_always_do(program: Program, client: Client) -> None:
    answers = [program.post(request_for())]
    mailed = invitation_keys.address(Invitation.objects.get(), made_for=invitation_keys.MAILED, actor=ADA)
    answers += [program.post(request_for()) for _click in range(connect_sessions.LIVE_KEYS)]
    opened = [client.get(path_of(answer)).status_code for answer in answers]
    assert opened == [404] + [200] * connect_sessions.LIVE_KEYS
    assert client.get(urlsplit(mailed.url).path).status_code == 200
    live = InvitationKey.objects.exclude(made_for=invitation_keys.ENDED)
    assert live.count() == connect_sessions.LIVE_KEYS + 1


def test_a_withdrawn_invitation_is_followed_by_a_new_one(program: Program, client: Client) -> None:
    first = program.post(request_for())
    invitations.revoke(Invitation.objects.get(), actor=ADA, reason="The wrong person had it.")
    second = program.post(request_for())
    assert client.get(path_of(first)).status_code == 404
    assert client.get(path_of(second)).status_code == 200


def test_an_invitation_that_is_about_to_end_is_followed_by_a_new_one(program: Program, client: Client) -> None:
    program.post(request_for())
    Invitation.objects.update(expires_at=timezone.now() + timedelta(minutes=50), started_at=timezone.now())
    answer = program.post(request_for())
    assert client.get(path_of(answer)).status_code == 200
    assert answer.json()["expires_at"] > f"{timezone.now() + timedelta(days=13):%Y-%m-%dT%H:%M}"
    assert [it.end for it in Invitation.objects.order_by("pk")] == ["replaced", ""]


def test_an_invitation_that_staff_made_is_used_and_its_links_live_on(program: Program, client: Client) -> None:
    company = known()
    staffs = invitations.invite(
        company,
        purpose=InvitationPurpose.CONNECT,
        contact_name="Alex Doe",
        contact_email="alex@maple.example",
        language="fr",
        actor=ADA,
    )
    shown = invitation_keys.address(staffs, made_for=invitation_keys.SHOWN, actor=ADA)
    answer = program.post({"customer_number": "SB-1"})
    assert Invitation.objects.get() == staffs
    assert client.get(path_of(answer)).status_code == client.get(urlsplit(shown.url).path).status_code == 200


def test_a_customer_whom_staff_entered_is_brought_on_the_way(
    program: Program, codat: SandboxProcess, drain_queue: Callable[[], int]
) -> None:
    SourceAccountFactory(company=CompanyFactory(customer_number="SB-1"))
    assert program.get("SB-1").json()["state"] == "not_started"
    assert program.post({"customer_number": "SB-1"}).json()["state"] == "preparing"
    drain_queue()
    assert program.get("SB-1").json()["state"] == "ready"


@pytest.mark.django_db(transaction=True)
def test_two_calls_at_once_make_one_company_and_one_invitation(make_key: MakeKey) -> None:
    token, together, answers = make_key().token, threading.Barrier(4), []

    def call() -> None:
        program = Program(token)
        together.wait()
        try:
            answers.append(program.post(request_for()))
        finally:
            database.close()

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert Company.objects.count() == Invitation.objects.count() == 1
    assert Company.objects.get().source_accounts.count() == 1
    assert len({path_of(answer) for answer in answers}) == 4


def test_losing_the_race_is_a_repetition(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other call stores the customer between our look and our own storing."""
    real, store = connect_sessions.imports.store, []

    def late(table: Any, **options: Any) -> Any:
        if not store:
            store.append(1)
            CompanyFactory(customer_number="SB-2001", legal_name="Somebody quicker")
            raise connect_sessions.ChangedMeanwhile([])
        return real(table, **options)

    monkeypatch.setattr(connect_sessions.imports, "store", late)
    # What was stored inside the lost transaction is undone with it here, so the second try makes the customer.
    assert program.post(request_for()).status_code == 201
    assert Company.objects.get().legal_name == "Juniper Hill Bakery Inc."


# --- Differences -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("in_codat", [False, True], ids=["not sent", "in Codat"])
@pytest.mark.parametrize(
    ("values", "pointers"),
    [
        ({"legal_name": "Juniper Valley Bakery Inc."}, ["/customer/legal_name"]),
        ({"contact_email": "sam@juniper.example"}, ["/customer/contact_email"]),
        ({"language": "fr"}, ["/customer/language"]),
        ({"accounts": [{"account_name": "Payroll"}]}, ["/customer/accounts/0/account_name"]),
        ({"accounts": [{"currency": "CAD"}]}, ["/customer/accounts/0/currency"]),
        ({"accounts": [{"account_type": "savings"}]}, ["/customer/accounts/0/account_type"]),
        ({"accounts": [{}, {"account_number": "000410099872"}]}, ["/customer/accounts/1"]),
    ],
)
def test_a_known_customer_is_never_changed_and_differences_are_named_without_what_is_held(
    program: Program,
    codat: SandboxProcess,
    drain_queue: Callable[[], int],
    values: dict[str, Any],
    pointers: list[str],
    in_codat: bool,
) -> None:
    program.post(request_for())
    if in_codat:
        drain_queue()
    before = list(Company.objects.values()), list(Company.objects.get().source_accounts.values())
    if "accounts" in values:
        values = {"accounts": [{**customer()["accounts"][0], **account} for account in values["accounts"]]}
    answer = program.post(request_for(**values))
    assert places(refused(answer, "customer-differs")) == pointers
    assert "Juniper" not in answer.content.decode()
    assert (list(Company.objects.values()), list(Company.objects.get().source_accounts.values())) == before


def test_what_is_left_out_is_no_difference(program: Program) -> None:
    program.post(request_for(language="fr"))
    body = request_for()
    del body["customer"]["language"]
    del body["customer"]["accounts"][0]["account_open_date"]
    assert program.post(body).status_code == 200


def test_an_account_that_was_deleted_in_codat_is_a_difference(program: Program) -> None:
    program.post(request_for())
    account = Company.objects.get().source_accounts.get()
    account.gone_at = timezone.now()
    account.save()
    assert places(refused(program.post(request_for()), "customer-differs")) == ["/customer/accounts/0"]


# --- Other customers -------------------------------------------------------------------------------------------------
def test_nothing_of_another_customer_is_ever_visible(
    program: Program, codat: SandboxProcess, drain_queue: Callable[[], int]
) -> None:
    """Not even to who sends the other's own account number, name and account id."""
    other = CompanyFactory(customer_number="SECRET-9", legal_name="Quiet Pines Ltd.", contact_email="q@quiet.example")
    SourceAccountFactory(company=other, account_id="shared", account_number="000410099871", name="Quiet money")
    same = {**customer()["accounts"][0], "account_id": "shared"}
    answers = [
        program.post(request_for(legal_name="Quiet Pines Ltd.", accounts=[same])),
        program.post(request_for(legal_name="“”", accounts=[same])),
        program.post(request_for(legal_name="Other", accounts=[same])),
        program.get("SB-2001"),
        program.post(request_for("SB-3", accounts=[same, same])),
        program.post({"customer_number": "SECRET-8"}),
        program.get("SECRET-8"),
    ]
    drain_queue()
    answers += [program.get("SB-2001"), program.post({"customer_number": "SB-2001"})]
    assert [answer.status_code for answer in answers] == [201, 422, 409, 200, 422, 404, 404, 200, 200]
    told = " ".join(answer.content.decode() for answer in answers)
    for secret in ("SECRET-9", "q@quiet.example", "Quiet money", "Quiet Pines", "another manager", "also stored"):
        assert secret not in told
    other.refresh_from_db()
    assert not other.invitations.exists()


# --- Whose, and by whom ----------------------------------------------------------------------------------------------
def test_new_customers_become_the_keys_managers(make_key: MakeKey) -> None:
    rita = UserFactory(role=roles.RELATIONSHIP_MANAGERS)
    assert Program(make_key(manager=rita).token).post(request_for()).status_code == 201
    assert Company.objects.get().manager == rita


def test_a_manager_who_has_left_gets_no_new_customers(make_key: MakeKey) -> None:
    gone = UserFactory(role=roles.RELATIONSHIP_MANAGERS, is_active=False)
    assert Program(make_key(manager=gone).token).post(request_for()).status_code == 201
    assert Company.objects.get().manager is None


def test_the_history_names_the_key_and_where_it_came_from(make_key: MakeKey) -> None:
    made = make_key()
    before = last_entry()
    Program(made.token).post(request_for())
    entries = AuditEntry.objects.filter(pk__gt=before)
    assert {(it.actor_name, it.source, it.remote_addr) for it in entries} == {
        (f"API key Portal ({made.key.prefix}…)", "api", "192.0.2.10")
    }
    assert len({it.cid for it in entries} - {None, ""}) == 1
    kinds = {(it.content_type.model, it.event) for it in entries}
    assert kinds >= {("company", ""), ("sourceaccount", ""), ("invitation", ""), ("invitation", "invitation_link_made")}
    assert Invitation.objects.get().made_by_name.startswith("API key Portal")


def test_the_key_is_in_no_log_line(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    program.post(request_for())
    program.get("SB-2001")
    program.post({"customer_number": "SB-9"})
    assert caplog.records
    assert program.token not in caplog.text
    assert "000410099871" not in caplog.text


# --- What it costs ---------------------------------------------------------------------------------------------------
def test_a_call_costs_the_same_however_many_accounts_and_links_there_are(
    program: Program, django_assert_num_queries: Any
) -> None:
    company = known()
    program.post({"customer_number": "SB-1"})
    for _round in range(2):
        with django_assert_num_queries(READING):
            program.get("SB-1")
        with django_assert_num_queries(REPEATING):
            program.post({"customer_number": "SB-1"})
        SourceAccountFactory.create_batch(8, company=company, connection=company.connections.get(), status="pending")


READING, REPEATING = 8, 16


def test_an_answer_is_json_that_the_bank_can_read(program: Program) -> None:
    answer = program.post(request_for())
    assert answer["Content-Type"] == "application/json; charset=utf-8"
    assert "no-store" in answer["Cache-Control"]
    assert "Set-Cookie" not in answer.headers
    assert set(json.loads(answer.content)) == {
        "customer_number", "state", "connected_accounts", "total_accounts", "accounts", "expires_at", "as_of",
        "connect_url",
    }  # fmt: skip


def test_a_known_customer_with_nothing_left_is_no_fault_of_ours_while_onboarding_goes_on(program: Program) -> None:
    connection = ConnectionFactory(linked=True, company__onboarding_state=OnboardingState.QUEUED)
    SourceAccountFactory(company=connection.company, connection=connection, status=AccountStatus.CONNECTED)
    program.client.raise_request_exception = False
    answer = program.post({"customer_number": connection.company.customer_number})
    assert answer.status_code == 200, answer.content


def test_a_tab_with_an_older_link_of_the_application_does_not_lock_the_network_out(program: Program) -> None:
    connection = ConnectionFactory()
    SourceAccountFactory(company=connection.company, connection=connection, status=AccountStatus.PENDING)
    number = {"customer_number": connection.company.customer_number}
    tab = urlsplit(program.post(number).json()["connect_url"]).path
    for _ in range(10):
        newest = urlsplit(program.post(number).json()["connect_url"]).path
    customer = Client()
    assert customer.get(tab).status_code == 404
    for _ in range(30):
        customer.get(tab)
    assert customer.get(newest).status_code == 200
    customer.post(tab)
    assert tasks.end_invitations() == "0 ended, 1 asked for a new link, 0 keys forgotten"

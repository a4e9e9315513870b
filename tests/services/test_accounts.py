"""Source accounts in Codat: added later, refused in part, adopted, renamed, disconnected, deleted."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
import requests
from pytest_django.fixtures import Settings

from feeds.models import AuditEntry, Company, Connection, Operation, SourceAccount, StatusEvent
from feeds.services import accounts, connections, mirror, onboarding, sync
from feeds.services.errors import Refused
from feeds.states import AccountStatus, OnboardingState, OperationKind, OperationState
from tests.conftest import point_product_at
from tests.factories import CompanyFactory, SourceAccountFactory
from tests.sandbox_process import SandboxProcess
from tests.services.conftest import Onboard
from tests.services.grid import ACCOUNTS, RM
from tests.services.spoiled_batch import spoiled_batch

Drain = Callable[[], int]
BATCH, PUT = f"POST {ACCOUNTS}/batch", f"PUT {ACCOUNTS}"


def listed(codat: SandboxProcess, company: Company) -> dict[str, dict[str, Any]]:
    """The company's accounts as Codat has them, by id."""
    connection = company.connections.get(gone_at__isnull=True)
    path = f"/companies/{company.codat_id}/connections/{connection.codat_id}/connectionInfo/bankFeedAccounts"
    answer = requests.get(codat.url + path, headers=codat.authorization, timeout=10)
    return {account["id"]: account for account in answer.json()}


def add(company: Company, **fields: Any) -> SourceAccount:
    """Add an account and press Onboard."""
    account: SourceAccount = SourceAccountFactory(company=company, **fields)
    onboarding.request(company, actor=RM)
    return account


def latest(company: Company) -> Operation:
    """The latest request to add accounts."""
    return company.operations.filter(kind=OperationKind.ADD_ACCOUNTS).latest("pk")


# --- Later ones ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("linked", [False, True], ids=["PendingAuth", "Linked"])
def test_accounts_added_later_go_in_one_batch_and_nothing_else_is_written(
    linked: bool, codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    connection = company.connections.get()
    if linked:
        codat.connect(company.codat_id, connection.codat_id)
        sync.refresh_company(company, actor=RM)
    before = codat.stats()["requests"]
    SourceAccountFactory(company=company)
    added = add(company)
    drain_queue()

    after = codat.stats()["requests"]
    asked = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    # The customer of a linked one has no link any more, and needs one to connect the new account.
    assert asked == {BATCH: 1} | ({"GET /companies/{id}/connections": 1} if linked else {})
    company.refresh_from_db()
    assert company.onboarding_state == (OnboardingState.LINKED if linked else OnboardingState.LINK_READY)
    assert set(listed(codat, company)) == set(company.source_accounts.values_list("account_id", flat=True))
    assert latest(company).payload["accountIds"][-1] == added.account_id
    assert len(latest(company).payload["accountIds"]) == 2


def test_accounts_that_were_added_but_not_sent_are_shown_as_not_started(
    codat: SandboxProcess, onboard: Onboard
) -> None:
    company = onboard()
    SourceAccountFactory(company=company)
    shown = {step.title: step.meaning for step in onboarding.steps(company)}
    assert shown["Create connection"] == onboarding.THERE
    assert shown["Add source accounts"] == onboarding.NOT_STARTED


@pytest.fixture(scope="session")
def put_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """A stand-in that still takes the guide's PUT."""
    server = SandboxProcess(tmp_path_factory.mktemp("put") / "sandbox.sqlite3", "--allow-put").start()
    yield server
    server.stop()


@pytest.fixture
def put_codat(put_server: SandboxProcess, settings: Settings) -> SandboxProcess:
    """That stand-in, empty, with the product pointed at it and set to the guide's way."""
    put_server.reset()
    settings.CODAT_ADD_ACCOUNTS_WITH = "put"
    return point_product_at(put_server, settings)


def test_with_the_guides_way_the_first_accounts_are_a_batch_and_later_ones_a_put(
    put_codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    assert (put_codat.requests_made(BATCH), put_codat.requests_made(PUT)) == (1, 0)
    added = add(company)
    drain_queue()
    assert (put_codat.requests_made(BATCH), put_codat.requests_made(PUT)) == (1, 1)
    assert len(listed(put_codat, company)) == 3
    added.refresh_from_db()
    assert added.status == AccountStatus.PENDING


def test_a_put_whose_answer_was_lost_is_looked_up_and_not_sent_again(
    put_codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    put_codat.post_fault("drop_after", method="PUT")
    added = add(company)
    drain_queue()
    assert put_codat.requests_made(PUT) == 1
    added.refresh_from_db()
    assert added.is_in_codat
    assert latest(company).result == "Found in Codat."


def test_the_guides_way_where_codat_has_withdrawn_it_stops_and_says_so(
    codat: SandboxProcess, settings: Settings, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    settings.CODAT_ADD_ACCOUNTS_WITH = "put"
    add(company)
    drain_queue()
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.FAILED
    assert codat.requests_made(PUT) == 1
    assert company.onboarding_error


# --- Refused in part -------------------------------------------------------------------------------------------------
@pytest.fixture
def partly_refused(codat: SandboxProcess, db: None, drain_queue: Drain) -> Company:
    """Three accounts, of which Codat refused the one named Euros: its currency does not exist."""
    company: Company = CompanyFactory()
    SourceAccountFactory.create_batch(2, company=company)
    onboarding.request(company, actor=RM)
    # Preflight knows the currency too: it was changed behind its back.
    SourceAccountFactory(company=company, name="Euros", currency="EEE")
    drain_queue()
    company.refresh_from_db()
    return company


def test_what_codat_took_is_recorded_and_what_it_refused_is_named(
    partly_refused: Company, codat: SandboxProcess
) -> None:
    assert partly_refused.onboarding_state == OnboardingState.FAILED
    assert "refused 1 of 3 accounts" in partly_refused.onboarding_error
    assert "Euros: 'Currency' must be an ISO 4217 code." in partly_refused.onboarding_error
    refused = partly_refused.source_accounts.get(name="Euros")
    assert (refused.is_in_codat, refused.last_error) == (False, "'Currency' must be an ISO 4217 code.")
    others = partly_refused.source_accounts.exclude(name="Euros")
    assert [(account.is_in_codat, account.last_error) for account in others] == [(True, ""), (True, "")]
    assert set(listed(codat, partly_refused)) == set(others.values_list("account_id", flat=True))


def test_retry_sends_only_the_corrected_one(partly_refused: Company, codat: SandboxProcess, drain_queue: Drain) -> None:
    refused = partly_refused.source_accounts.get(name="Euros")
    refused.currency = "EUR"
    refused.save(update_fields=["currency"])
    onboarding.request(partly_refused, actor=RM)
    drain_queue()
    partly_refused.refresh_from_db()
    refused.refresh_from_db()
    assert partly_refused.onboarding_state == OnboardingState.LINK_READY
    assert latest(partly_refused).payload["accountIds"] == [refused.account_id]
    assert (refused.is_in_codat, refused.last_error) == (True, "")
    assert codat.requests_made(BATCH) == 2
    assert len(listed(codat, partly_refused)) == 3


def test_all_refused_is_the_409_array_and_named_too(codat: SandboxProcess, db: None, drain_queue: Drain) -> None:
    company: Company = CompanyFactory()
    account = SourceAccountFactory(company=company, name="Main")
    onboarding.request(company, actor=RM)
    SourceAccount.objects.filter(pk=account.pk).update(currency="EEE")
    drain_queue()
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.FAILED
    assert "refused 1 of 1 accounts" in company.onboarding_error


CREATED_WITHOUT_ACCOUNT = {"statusCode": 201, "error": None, "account": None}
PASSING = {
    "500": {"statusCode": 500, "error": "Fault"},
    "503 as text": {"statusCode": "503", "error": "Fault"},
    "429": {"statusCode": 429, "error": "Slow down"},
    "left out of the answer": None,
    "said to be created, and is not there": CREATED_WITHOUT_ACCOUNT,
}


@pytest.mark.parametrize("result", PASSING.values(), ids=PASSING.keys())
def test_one_account_that_met_a_passing_fault_is_tried_again_without_a_person(
    result: dict[str, Any] | None, codat: SandboxProcess, db: None, drain_queue: Drain
) -> None:
    company: Company = CompanyFactory()
    first, second = SourceAccountFactory.create_batch(2, company=company)
    onboarding.request(company, actor=RM)
    with spoiled_batch(codat, {second.account_id: result}) as seen:
        drain_queue()
    company.refresh_from_db()
    assert seen == [[first.account_id, second.account_id]]
    assert company.onboarding_state == OnboardingState.LINK_READY
    assert set(listed(codat, company)) == {first.account_id, second.account_id}
    assert latest(company).attempts == 2


def test_a_refused_account_that_is_echoed_is_not_taken_for_created(
    codat: SandboxProcess, db: None, drain_queue: Drain
) -> None:
    company: Company = CompanyFactory()
    first, second = SourceAccountFactory.create_batch(2, company=company)
    onboarding.request(company, actor=RM)
    echo = {"statusCode": 400, "error": "Refused", "account": {"id": second.account_id}}
    with spoiled_batch(codat, {second.account_id: echo}):
        drain_queue()
    second.refresh_from_db()
    assert (second.is_in_codat, second.last_error) == (False, "Refused")


def test_nothing_is_sent_when_the_accounts_were_removed_meanwhile(
    codat: SandboxProcess, monkeypatch: pytest.MonkeyPatch, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    account = add(company)
    codat.post_fault("status", path=f"{ACCOUNTS}/batch", status=429, retry_after=0)
    monkeypatch.setattr(onboarding, "TASK_BUDGET", -1.0)
    onboarding.advance(company.pk)
    account.delete()
    drain_queue()
    company.refresh_from_db()
    assert (latest(company).state, latest(company).result) == (OperationState.SUCCEEDED, "Nothing was left to add.")
    assert company.onboarding_state == OnboardingState.LINK_READY


# --- There already ---------------------------------------------------------------------------------------------------
def post_account(codat: SandboxProcess, company: Company, account: SourceAccount) -> None:
    """Create the account in Codat behind the product's back."""
    connection = company.connections.get()
    path = f"/companies/{company.codat_id}/connections/{connection.codat_id}/connectionInfo/bankFeedAccounts"
    body = {
        "id": account.account_id,
        "accountName": account.name,
        "accountType": "checking",
        "accountNumber": account.account_number,
        "currency": "USD",
        "balance": 0,
    }
    requests.post(codat.url + path, json=body, headers=codat.authorization, timeout=10).raise_for_status()


@pytest.mark.parametrize("others", [0, 1], ids=["all of them", "one of two"])
def test_an_account_that_codat_has_already_is_adopted(
    others: int, codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    account = SourceAccountFactory(company=company)
    SourceAccountFactory.create_batch(others, company=company)
    post_account(codat, company, account)
    onboarding.request(company, actor=RM)
    drain_queue()
    account.refresh_from_db()
    company.refresh_from_db()
    assert (account.is_in_codat, account.status, account.last_error) == (True, AccountStatus.PENDING, "")
    assert company.onboarding_state == OnboardingState.LINK_READY
    assert len(listed(codat, company)) == 3 + others


def test_a_duplicate_that_codat_answers_with_400_is_adopted_too(
    codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    account = SourceAccountFactory(company=company)
    post_account(codat, company, account)
    onboarding.request(company, actor=RM)
    taken = {"statusCode": 400, "error": "A bank account already exists with the same Id"}
    with spoiled_batch(codat, {account.account_id: taken}):
        drain_queue()
    account.refresh_from_db()
    assert account.is_in_codat


# --- Corrected between two tries -------------------------------------------------------------------------------------
def test_a_number_corrected_between_two_tries_goes_under_a_new_key(
    codat: SandboxProcess, monkeypatch: pytest.MonkeyPatch, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    account = add(company)
    codat.post_fault("drop_before", path=f"{ACCOUNTS}/batch")
    monkeypatch.setattr(onboarding, "TASK_BUDGET", -1.0)
    onboarding.advance(company.pk)
    first = latest(company)
    assert first.state == OperationState.UNKNOWN
    account.account_number = "990011223344"
    account.save(update_fields=["account_number"])
    drain_queue()
    second = latest(company)
    assert second.pk == first.pk
    assert second.state == OperationState.SUCCEEDED
    assert second.idempotency_key != first.idempotency_key
    assert listed(codat, company)[account.account_id]["accountNumber"] == "990011223344"


def test_the_same_accounts_are_tried_again_under_the_same_key(
    codat: SandboxProcess, monkeypatch: pytest.MonkeyPatch, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    add(company)
    codat.post_fault("drop_before", path=f"{ACCOUNTS}/batch")
    monkeypatch.setattr(onboarding, "TASK_BUDGET", -1.0)
    onboarding.advance(company.pk)
    key = latest(company).idempotency_key
    drain_queue()
    assert (latest(company).idempotency_key, latest(company).state) == (key, OperationState.SUCCEEDED)


# --- The guide's body ------------------------------------------------------------------------------------------------
def test_the_guides_body_is_sent_when_the_integration_is_an_old_one(
    codat: SandboxProcess, settings: Settings, db: None, drain_queue: Drain
) -> None:
    settings.CODAT_ACCOUNT_SCHEMA = "v1"
    company: Company = CompanyFactory()
    account = SourceAccountFactory(company=company, bank_code="021000021", balance=Decimal("12.34"))
    onboarding.request(company, actor=RM)
    drain_queue()
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINK_READY, company.onboarding_error
    there = listed(codat, company)[account.account_id]
    assert (there["sortCode"], there["balance"], "routingInfo" in there) == ("021000021", 12.34, False)


# --- Changes that staff ask for --------------------------------------------------------------------------------------
@pytest.fixture
def account(codat: SandboxProcess, onboard: Onboard) -> SourceAccount:
    """One of two accounts of an onboarded customer."""
    account: SourceAccount = onboard().source_accounts.earliest("pk")
    return account


def finished(operation: Operation) -> tuple[str, str]:
    """What became of a ledger row: its state, and what it says."""
    operation.refresh_from_db()
    return operation.state, operation.result or operation.error


def test_a_new_name_is_codats_first_and_ours_when_codat_has_it(
    account: SourceAccount, codat: SandboxProcess, drain_queue: Drain
) -> None:
    operation = accounts.rename(account, name="  Payroll ", actor=RM, reason="asked by the customer")
    account.refresh_from_db()
    assert account.name != "Payroll"
    drain_queue()
    account.refresh_from_db()
    assert account.name == listed(codat, account.company)[account.account_id]["accountName"] == "Payroll"
    assert finished(operation) == (OperationState.SUCCEEDED, "Renamed to Payroll.")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("  ", "Type the new name"),
        ("x" * 121, "at most 120"),
        (None, "has this name already"),
        ("Payroll 9004 1773 3218", "Give its last four digits"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str | None, why: str, db: None) -> None:
    account = SourceAccountFactory(in_codat=True, account_number="900417733218")
    with pytest.raises(Refused, match=why):
        accounts.rename(account, name=account.name if name is None else name, actor=RM)
    assert not Operation.objects.exists()


def test_a_name_of_the_greatest_length_is_taken(account: SourceAccount, drain_queue: Drain) -> None:
    accounts.rename(account, name="x" * 120, actor=RM)
    drain_queue()
    account.refresh_from_db()
    assert account.name == "x" * 120


def test_a_renaming_whose_answer_was_lost_is_done_once_more_and_keeps_one_name(
    account: SourceAccount, codat: SandboxProcess, drain_queue: Drain
) -> None:
    codat.post_fault("drop_after", method="PATCH")
    operation = accounts.rename(account, name="Payroll", actor=RM)
    drain_queue()
    assert finished(operation)[0] == OperationState.SUCCEEDED
    assert listed(codat, account.company)[account.account_id]["accountName"] == "Payroll"


def test_an_account_is_disconnected_once(account: SourceAccount, codat: SandboxProcess, drain_queue: Drain) -> None:
    operation = accounts.disconnect(account, actor=RM, reason="closed")
    with pytest.raises(Refused, match="already asked for"):
        accounts.disconnect(account, actor=RM, reason="closed")
    drain_queue()
    account.refresh_from_db()
    assert account.status == AccountStatus.DISCONNECTED
    assert listed(codat, account.company)[account.account_id]["status"] == "disconnected"
    assert finished(operation) == (OperationState.SUCCEEDED, "Set to disconnected.")
    with pytest.raises(Refused, match="disconnected already"):
        accounts.disconnect(account, actor=RM, reason="closed")


def test_a_deleted_account_stays_here_as_gone_and_its_number_can_be_added_again(
    account: SourceAccount, codat: SandboxProcess, drain_queue: Drain
) -> None:
    company = account.company
    operation = accounts.delete(account, actor=RM, reason="closed")
    drain_queue()
    account.refresh_from_db()
    assert account.gone_at is not None
    assert account.account_id not in listed(codat, company)
    assert finished(operation) == (OperationState.SUCCEEDED, "Deleted.")

    again = SourceAccount(company=company, name="Again", account_number=account.account_number)
    accounts.assign_account_id(again)
    again.save()
    onboarding.request(company, actor=RM)
    drain_queue()
    assert again.account_id in listed(codat, company)


def test_an_account_that_is_gone_already_is_deleted_all_the_same(
    account: SourceAccount, codat: SandboxProcess, drain_queue: Drain
) -> None:
    connection = account.company.connections.get()
    path = f"/companies/{account.company.codat_id}/connections/{connection.codat_id}/connectionInfo/bankFeedAccounts"
    requests.delete(f"{codat.url}{path}/{account.account_id}", headers=codat.authorization, timeout=10)
    rename = accounts.rename(account, name="Too late", actor=RM)
    delete = accounts.delete(account, actor=RM, reason="closed")
    drain_queue()
    assert finished(delete) == (OperationState.SUCCEEDED, "Was already gone in Codat.")
    state, error = finished(rename)
    assert state == OperationState.FAILED
    assert "Codat does not know this record" in error
    account.refresh_from_db()
    assert account.gone_at is not None
    for ask in (accounts.disconnect, accounts.delete):
        with pytest.raises(Refused, match="not in Codat"):
            ask(account, actor=RM, reason="closed")


def test_a_change_that_fails_does_not_touch_the_onboarding(
    account: SourceAccount, codat: SandboxProcess, drain_queue: Drain
) -> None:
    codat.post_fault("status", method="PATCH", status=400)
    accounts.rename(account, name="Payroll", actor=RM)
    drain_queue()
    account.company.refresh_from_db()
    assert account.company.onboarding_state == OnboardingState.LINK_READY
    assert account.company.onboarding_error == ""


# --- Ids and numbers -------------------------------------------------------------------------------------------------
def new_account(company: Company, number: str) -> SourceAccount:
    """An account that is not saved, with its id."""
    account = SourceAccount(company=company, name="New", account_number=number)
    accounts.assign_account_id(account)
    return account


def test_the_same_number_of_the_same_customer_gets_the_same_id_however_it_is_written(db: None) -> None:
    company = CompanyFactory()
    ids = {new_account(company, number).account_id for number in ("ca 12 34", "CA1234", " ca1234 ")}
    assert len(ids) == 1
    assert new_account(CompanyFactory(), "CA1234").account_id not in ids


def test_an_id_that_was_chosen_is_kept(db: None) -> None:
    account = SourceAccount(company=CompanyFactory(), account_number="1", account_id="chosen")
    accounts.assign_account_id(account)
    assert account.account_id == "chosen"


def test_the_old_number_of_a_corrected_account_gets_an_id_of_its_own(db: None) -> None:
    company = CompanyFactory()
    corrected = new_account(company, "1111")
    corrected.account_number = "2222"
    corrected.save()
    other = new_account(company, "1111")
    other.save()
    assert other.account_id != corrected.account_id
    assert new_account(company, "1111").account_id == other.account_id


def test_an_id_tells_nothing_of_the_number(db: None) -> None:
    company = CompanyFactory()
    identity = new_account(company, "900417733218").account_id
    assert "900417733218" not in identity
    assert uuid.UUID(identity).version == 5


def test_who_saw_a_whole_number_is_recorded_and_the_number_is_not(db: None) -> None:
    account = SourceAccountFactory(account_number="900417733218")
    assert accounts.reveal_number(account, actor=RM) == "900417733218"
    entry = AuditEntry.objects.get(event="account_number_revealed")
    assert (entry.actor_name, entry.object_pk) == (RM.name, str(account.pk))
    assert "900417733218" not in str(AuditEntry.objects.values())


def one_of(company: Company) -> tuple[SourceAccount, Connection]:
    """An account of the company that is in Codat, and its connection."""
    account = company.source_accounts.order_by("pk")[0]
    assert account.connection is not None
    return account, account.connection


def test_an_account_that_went_with_its_connection_is_deleted_without_a_fault(
    codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    account, connection = one_of(onboard())
    connections.delete(connection, actor=RM, reason="They left.")
    operation = accounts.delete(account, actor=RM, reason="They left.")
    drain_queue()
    operation.refresh_from_db()
    assert (operation.state, operation.error) == (OperationState.SUCCEEDED, "")
    assert StatusEvent.objects.filter(account=account, new="gone").count() == 1


def test_that_an_account_is_gone_is_told_once_though_a_reading_saw_it_first(
    codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    account, connection = one_of(onboard())
    operation = accounts.delete(account, actor=RM, reason="They left.")
    mirror.apply_listing(connection, [])  # a poll comes first
    drain_queue()
    operation.refresh_from_db()
    assert operation.state == OperationState.SUCCEEDED
    assert StatusEvent.objects.filter(account=account, new="gone").count() == 1

"""The ledger: its states, its patience, and what becomes of rows that cannot be done."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from django_q.models import OrmQ
from pytest_django.fixtures import Settings

from feeds.audit import Actor
from feeds.codat import errors
from feeds.models import Batch, CodatQuota, Company, Operation, SourceAccount
from feeds.services import accounts, gateway, ledger, links, mirror, onboarding, steps
from feeds.services.errors import Refused
from feeds.states import (
    OPEN_OPERATION_STATES,
    OPERATION_TRANSITIONS,
    OnboardingState,
    OperationKind,
    OperationState,
)
from tests.conftest import point_product_at
from tests.factories import CompanyFactory, ConnectionFactory, OperationFactory, SourceAccountFactory
from tests.sandbox_process import SandboxProcess
from tests.services.conftest import Onboard
from tests.services.grid import RM

Drain = Callable[[], int]
S = OperationState


# --- States ----------------------------------------------------------------------------------------------------------
ALLOWED = {
    (S.QUEUED, S.SENDING),
    (S.QUEUED, S.CANCELLED),
    (S.QUEUED, S.FAILED),
    (S.SENDING, S.SUCCEEDED),
    (S.SENDING, S.FAILED),
    (S.SENDING, S.UNKNOWN),
    (S.SENDING, S.QUEUED),
    (S.UNKNOWN, S.SENDING),
    (S.UNKNOWN, S.SUCCEEDED),
    (S.UNKNOWN, S.FAILED),
}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(S, S)))
def test_a_row_moves_only_as_it_may(old: OperationState, new: OperationState) -> None:
    operation = Operation(state=old)
    if (old, new) in ALLOWED:
        operation.move_to(new)
        assert operation.state == new
    else:
        with pytest.raises(ValueError, match="not allowed"):
            operation.move_to(new)
        assert operation.state == old


def test_every_state_has_its_moves_and_only_finished_rows_have_none() -> None:
    assert set(OPERATION_TRANSITIONS) == set(S)
    assert {state for state in S if OPERATION_TRANSITIONS[state]} == set(OPEN_OPERATION_STATES)


# --- Patience --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("attempts", [1, 2, 5, 9, 10, 50, 100, 40_000])
def test_the_wait_doubles_within_its_bounds(attempts: int, settings: Settings) -> None:
    settings.ONBOARDING_RETRY_BASE_SECONDS = 2.0
    settings.ONBOARDING_RETRY_MAX_SECONDS = 900.0
    middle = min(900.0, 2.0 * 2.0 ** (min(attempts, 100) - 1))
    waits = [ledger.backoff(attempts).total_seconds() for _try in range(200)]
    assert 0.75 * middle <= min(waits) < middle < max(waits) <= 1.25 * middle


def sending(**fields: Any) -> Operation:
    """A row that was just sent."""
    operation: Operation = OperationFactory(state=S.SENDING, attempts=1, **fields)
    return operation


def wait_of(operation: Operation) -> float:
    """Seconds until its next attempt."""
    assert operation.next_attempt_at is not None
    return (operation.next_attempt_at - timezone.now()).total_seconds()


@pytest.mark.parametrize("error", [errors.RateLimited, errors.QuotaExhausted])
def test_a_wait_that_codat_asks_for_is_kept(error: type[errors.CodatError], db: None) -> None:
    operation = sending()
    ledger.record_error(operation, error("wait", status=429, retry_after=7200), was_unknown=False)
    assert operation.state == S.QUEUED
    assert 7190 < wait_of(operation) <= 7200


def test_our_own_wait_is_kept_when_codat_asks_for_less(db: None, settings: Settings) -> None:
    settings.ONBOARDING_RETRY_BASE_SECONDS = 100.0
    operation = sending()
    ledger.record_error(operation, errors.RateLimited("wait", status=429, retry_after=1), was_unknown=False)
    assert wait_of(operation) > 70


def test_with_the_quota_used_up_work_waits_until_it_is_reset_and_then_goes_on(
    tmp_path: Path, settings: Settings, db: None, drain_queue: Drain
) -> None:
    codat = SandboxProcess(tmp_path / "sandbox.sqlite3", limits=("--per-minute", "0", "--daily-quota", "1")).start()
    try:
        point_product_at(codat, settings)
        company: Company = CompanyFactory()
        SourceAccountFactory(company=company)
        onboarding.request(company, actor=RM)
        drain_queue()
        waiting = company.operations.get(kind=OperationKind.CREATE_CONNECTION)
        resets_at = CodatQuota.objects.get().resets_at
        assert resets_at is not None
        assert waiting.next_attempt_at is not None
        assert waiting.state == S.QUEUED
        assert "Today's quota of requests to Codat is used up" in waiting.error
        assert timedelta() <= waiting.next_attempt_at - resets_at < timedelta(seconds=5)

        codat.advance(timedelta(days=1).total_seconds())
        gateway.close()  # what this process remembers of the quota goes by the real clock
        Operation.objects.update(next_attempt_at=timezone.now())
        onboarding.advance(company.pk)
        waiting.refresh_from_db()
        assert waiting.state == S.SUCCEEDED
    finally:
        codat.stop()


def test_nothing_is_sent_before_codats_wait_is_over_however_often_somebody_looks(
    codat: SandboxProcess, db: None, drain_queue: Drain
) -> None:
    company: Company = CompanyFactory()
    SourceAccountFactory(company=company)
    onboarding.request(company, actor=RM)
    codat.post_fault("status", path="/companies", status=429, retry_after=3600)
    drain_queue()
    operation = company.operations.get()
    assert operation.state == S.QUEUED
    assert wait_of(operation) > 3500
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.RETRYING
    assert company.due_at == operation.next_attempt_at
    onboarding.advance(company.pk)
    assert codat.requests_made("POST /companies") == 1
    assert onboarding.sweep() == 0

    Operation.objects.update(next_attempt_at=timezone.now())
    Company.objects.update(due_at=timezone.now())
    drain_queue()
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINK_READY


def test_a_person_who_presses_retry_does_not_wait(
    codat: SandboxProcess, db: None, settings: Settings, drain_queue: Drain
) -> None:
    settings.ONBOARDING_RETRY_BASE_SECONDS = 600.0
    company: Company = CompanyFactory()
    SourceAccountFactory(company=company)
    onboarding.request(company, actor=RM)
    codat.post_fault("status", path="/companies", status=503)
    drain_queue()
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.RETRYING
    assert wait_of(company.operations.get()) > 400

    onboarding.request(company, actor=RM)
    drain_queue()
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINK_READY


# --- Giving up -------------------------------------------------------------------------------------------------------
def test_it_gives_up_after_so_many_attempts_and_retry_begins_anew(
    codat: SandboxProcess, db: None, settings: Settings, drain_queue: Drain
) -> None:
    settings.ONBOARDING_MAX_ATTEMPTS = 3
    company: Company = CompanyFactory()
    SourceAccountFactory(company=company)
    onboarding.request(company, actor=RM)
    codat.post_fault("status", method="POST", path="/companies", status=500, times=None)
    drain_queue()
    company.refresh_from_db()
    assert codat.requests_made("POST /companies") == 3
    assert company.onboarding_state == OnboardingState.FAILED
    assert "Gave up after 3 attempts" in company.onboarding_error
    assert "Codat had a fault of its own" in company.onboarding_error
    assert company.due_at is None

    codat.clear_faults()
    onboarding.request(company, actor=RM)
    drain_queue()
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINK_READY


class WorkerDied(BaseException):
    """Stands for `kill -9`: nothing after it is carried out, not even the release of the lease."""


def test_it_gives_up_on_a_row_that_kills_its_worker_each_time(
    codat: SandboxProcess, db: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ONBOARDING_MAX_ATTEMPTS = 3
    company: Company = CompanyFactory()
    SourceAccountFactory(company=company)
    onboarding.request(company, actor=RM)
    sent = []

    def die(*_args: object) -> None:
        sent.append(1)
        raise WorkerDied

    monkeypatch.setattr(steps.STEPS[OperationKind.CREATE_COMPANY], "send", die, raising=False)
    monkeypatch.setattr(steps.STEPS[OperationKind.CREATE_COMPANY], "look", lambda *_args: None, raising=False)
    for _life in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(onboarding.leases, "release", lambda *_args, **_options: None)
            with pytest.raises(WorkerDied):
                onboarding.advance(company.pk)
        assert onboarding.advance(company.pk) == "held by another worker"
        Company.objects.update(lease_expires_at=timezone.now())
    assert onboarding.advance(company.pk) == "0 done"
    company.refresh_from_db()
    assert len(sent) == 3
    assert company.onboarding_state == OnboardingState.FAILED
    assert "Gave up after 3 attempts" in company.onboarding_error
    assert "the worker stopped each time" in company.onboarding_error


# --- Bugs of our own -------------------------------------------------------------------------------------------------
def broken(*_args: object) -> Any:
    """A bug."""
    raise RuntimeError("a bug with a secret in it")


def recorder_is_broken(*_args: object) -> Callable[[], str]:
    """A bug while the answer is written down."""
    return broken


@pytest.fixture
def patient(settings: Settings) -> None:
    """Retries wait for real, so that a hot loop would show."""
    settings.ONBOARDING_RETRY_BASE_SECONDS = 600.0


@pytest.mark.parametrize("bug", [broken, recorder_is_broken])
def test_a_bug_in_a_step_is_shown_logged_and_tried_again_later(
    bug: Callable[..., Any],
    codat: SandboxProcess,
    db: None,
    patient: None,
    drain_queue: Drain,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    company: Company = CompanyFactory()
    SourceAccountFactory(company=company)
    onboarding.request(company, actor=RM)
    with monkeypatch.context() as patch:
        patch.setattr(steps.STEPS[OperationKind.CREATE_COMPANY], "send", bug, raising=False)
        assert drain_queue() == 1
    company.refresh_from_db()
    operation = company.operations.get()
    assert company.onboarding_state == OnboardingState.RETRYING
    assert operation.state == S.UNKNOWN
    assert operation.attempts == 1
    assert "This system met a fault of its own" in company.onboarding_error
    assert "secret" not in company.onboarding_error
    assert "operation_errored" in caplog.text
    assert wait_of(operation) > 400
    assert not OrmQ.objects.exists()

    onboarding.request(company, actor=RM)
    drain_queue()
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINK_READY
    assert codat.stats()["objects"]["companies"] == 1


def test_a_bug_after_the_row_was_closed_leaves_the_row_open(
    codat: SandboxProcess, db: None, patient: None, drain_queue: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    company: Company = CompanyFactory()
    SourceAccountFactory(company=company)
    onboarding.request(company, actor=RM)
    with monkeypatch.context() as patch:
        patch.setattr(mirror, "settle_onboarding", broken)
        drain_queue()
    operation = company.operations.get()
    company.refresh_from_db()
    assert (operation.state, operation.result, company.codat_id) == (S.UNKNOWN, "", "")
    onboarding.request(company, actor=RM)
    drain_queue()
    operation.refresh_from_db()
    assert operation.result.startswith("Found in Codat")


def test_a_bug_in_the_planning_fails_the_task_and_rests(
    db: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    company: Company = CompanyFactory()
    SourceAccountFactory(company=company)
    onboarding.request(company, actor=RM)
    OrmQ.objects.all().delete()
    monkeypatch.setattr(onboarding, "_missing_step", broken)
    with pytest.raises(RuntimeError):
        onboarding.advance(company.pk)
    company.refresh_from_db()
    assert not OrmQ.objects.exists()
    assert company.lease_token is None
    assert company.due_at is not None
    rest = (company.due_at - timezone.now()).total_seconds()
    assert 0.9 * settings.ONBOARDING_REQUEUE_SECONDS < rest <= settings.ONBOARDING_REQUEUE_SECONDS


# --- Asking ----------------------------------------------------------------------------------------------------------
def test_asking_and_queueing_happen_both_or_neither(db: None) -> None:
    connection = ConnectionFactory()
    with transaction.atomic():
        links.refresh(connection, actor=RM)
        transaction.set_rollback(True)
    assert not Operation.objects.exists()
    assert not OrmQ.objects.exists()
    links.refresh(connection, actor=RM)
    assert (Operation.objects.count(), OrmQ.objects.count()) == (1, 1)


def test_the_same_thing_is_not_asked_for_twice_at_once_but_once_more_when_done(
    codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    connection = onboard().connections.get()
    links.refresh(connection, actor=RM)
    with pytest.raises(Refused, match="“Refresh link” is already asked for and not finished"):
        links.refresh(connection, actor=RM)
    drain_queue()
    links.refresh(connection, actor=RM)


def test_two_accounts_of_one_company_may_change_at_once(db: None) -> None:
    first = SourceAccountFactory(in_codat=True)
    second = SourceAccountFactory(company=first.company, connection=first.connection)
    for account in (first, second):
        accounts.disconnect(account, actor=RM, reason="closed")
    assert Operation.objects.count() == 2


def test_a_row_says_who_asked_from_where_and_why(db: None) -> None:
    account = SourceAccountFactory(in_codat=True)
    operation = accounts.delete(account, actor=Actor(name="Sam Support", source="cli"), reason="closed")
    assert (operation.requested_by_name, operation.source, operation.reason) == ("Sam Support", "cli", "closed")
    assert operation.requested_by is None


def test_the_fingerprint_of_a_body_tells_bodies_apart_and_nothing_of_them() -> None:
    body = [{"id": "1", "accountNumber": "900417733218"}]
    assert ledger.fingerprint(body) == ledger.fingerprint([{"accountNumber": "900417733218", "id": "1"}])
    assert ledger.fingerprint(body) != ledger.fingerprint([{"id": "1", "accountNumber": "900417733219"}])
    assert "900417733218" not in ledger.fingerprint(body)


# --- When the next look is due ---------------------------------------------------------------------------------------
def at(seconds: float) -> datetime:
    """That many seconds from now."""
    return timezone.now() + timedelta(seconds=seconds)


def test_nothing_is_due_when_nothing_is_owed(db: None) -> None:
    assert ledger.next_due(CompanyFactory(in_codat=True)) is None


def test_the_earliest_of_several_rows_is_due(db: None) -> None:
    company = CompanyFactory(in_codat=True)
    late, soon = at(500), at(100)
    OperationFactory(company=company, kind=OperationKind.REFRESH_LINK, next_attempt_at=late)
    OperationFactory(company=company, kind=OperationKind.UNLINK_CONNECTION, next_attempt_at=soon)
    OperationFactory(company=company, kind=OperationKind.REVOKE_CREDENTIALS, state=S.SUCCEEDED, next_attempt_at=at(1))
    assert ledger.next_due(company) == soon


def test_a_waiting_change_does_not_hold_up_the_onboarding(db: None) -> None:
    company = CompanyFactory(onboarding_state=OnboardingState.WORKING)
    OperationFactory(company=company, kind=OperationKind.UNLINK_CONNECTION, next_attempt_at=at(500))
    due = ledger.next_due(company)
    assert due is not None
    assert due <= timezone.now()


def test_a_waiting_step_holds_up_the_onboarding(db: None) -> None:
    company = CompanyFactory(onboarding_state=OnboardingState.RETRYING)
    waiting = OperationFactory(company=company, kind=OperationKind.CREATE_COMPANY, next_attempt_at=at(500))
    assert ledger.next_due(company) == waiting.next_attempt_at


# --- The task's time -------------------------------------------------------------------------------------------------
def test_a_task_whose_time_is_up_starts_nothing_more_and_the_rest_is_queued(
    codat: SandboxProcess, db: None, drain_queue: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    company: Company = CompanyFactory()
    SourceAccountFactory(company=company)
    onboarding.request(company, actor=RM)
    OrmQ.objects.all().delete()
    monkeypatch.setattr(onboarding, "TASK_BUDGET", -1.0)
    assert onboarding.advance(company.pk) == "1 done"
    assert sum(codat.stats()["requests"].values()) == 1
    assert OrmQ.objects.count() == 1
    drain_queue()
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINK_READY


def test_with_time_enough_one_task_does_it_all(codat: SandboxProcess, db: None) -> None:
    company: Company = CompanyFactory()
    SourceAccountFactory(company=company)
    onboarding.request(company, actor=RM)
    assert onboarding.advance(company.pk) == "3 done"
    assert onboarding.advance(company.pk) == "0 done"


def test_the_sweeper_queues_a_lost_task_once_a_while(codat: SandboxProcess, db: None, drain_queue: Drain) -> None:
    company: Company = CompanyFactory()
    SourceAccountFactory(company=company)
    onboarding.request(company, actor=RM)
    OrmQ.objects.all().delete()
    assert onboarding.sweep() == 0  # it may still be on its way
    Company.objects.update(due_at=timezone.now())
    assert onboarding.sweep() == 1
    assert onboarding.sweep() == 0
    drain_queue()
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINK_READY


# --- Many at once ----------------------------------------------------------------------------------------------------
def test_of_a_bulk_request_the_refused_are_named_and_the_rest_go_on(
    codat: SandboxProcess, db: None, drain_queue: Drain
) -> None:
    good, without_accounts, deleted = CompanyFactory(), CompanyFactory(), CompanyFactory()
    SourceAccountFactory(company=good)
    Company.objects.filter(pk=deleted.pk).delete()
    result = onboarding.request_many([without_accounts, deleted, good, good], label="Monday", actor=RM)
    assert result.accepted == 1
    assert [(company.pk, reason) for company, reason in result.refused] == [
        (without_accounts.pk, "Add at least one source account, then press Onboard."),
        (deleted.pk, "This company was deleted meanwhile."),
        (good.pk, "Onboarding is already on its way."),
    ]
    drain_queue()
    progress = onboarding.batch_progress(result.batch)
    assert (progress.done, progress.failed, progress.waiting, progress.total) == (1, 0, 0, 1)


def test_the_failed_of_a_batch_are_retried_and_only_they(codat: SandboxProcess, db: None, drain_queue: Drain) -> None:
    companies = [CompanyFactory() for _number in range(3)]
    for company in companies:
        SourceAccountFactory(company=company)
    codat.post_fault("status", path="/companies", status=400, times=2)
    result = onboarding.request_many(companies, label="Monday", actor=RM)
    drain_queue()
    progress = onboarding.batch_progress(result.batch)
    assert (progress.done, progress.failed, progress.waiting) == (1, 2, 0)
    SourceAccount.objects.filter(company=companies[0]).delete()  # this one cannot be retried
    assert onboarding.retry_failed(result.batch, actor=RM).accepted == 1
    drain_queue()
    progress = onboarding.batch_progress(Batch.objects.get())
    assert (progress.done, progress.failed, progress.waiting) == (2, 1, 0)


def test_the_limiter_can_be_closed_and_opens_itself_again(codat: SandboxProcess, onboard: Onboard) -> None:
    onboard()
    client = gateway.client()
    gateway.close()
    assert gateway.client() is not client
    onboard()

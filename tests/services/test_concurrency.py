"""Two people, two workers, many threads: nothing is done twice and nothing is lost."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connections, transaction
from django.utils import timezone
from django_q.models import OrmQ
from pytest_django.fixtures import Settings

from feeds.audit import Actor
from feeds.models import Approval, Company, Operation
from feeds.services import accounts, approvals, leases, ledger, links, onboarding, sync
from feeds.services.errors import LeaseLost, Refused
from feeds.states import ApprovalState, OnboardingState, OperationKind, OperationState
from tests.factories import ApprovalFactory, CompanyFactory, ConnectionFactory, SourceAccountFactory, UserFactory
from tests.queue_drain import drain
from tests.sandbox_process import SandboxProcess
from tests.services.grid import ACCOUNTS, RM, run_next_task
from tests.worker_process import WorkerProcess, wait_until

MANY = 8
WRITES = ("POST /companies", "POST /companies/{id}/connections", f"POST {ACCOUNTS}/batch")

pytestmark = pytest.mark.usefixtures("transactional_db")


def at_once(*work: Callable[[], object]) -> list[object]:
    """Do everything in a thread of its own, started together; the results in order, exceptions too."""
    barrier = threading.Barrier(len(work))

    def run(one: Callable[[], object]) -> object:
        try:
            barrier.wait(timeout=10)
            return one()
        except Exception as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(run, work))


@pytest.fixture
def company(codat: SandboxProcess) -> Company:
    """A draft with two accounts; Codat takes its time, so that threads meet."""
    codat.post_fault("delay", method="POST", delay_ms=150, times=None)
    company: Company = CompanyFactory()
    SourceAccountFactory.create_batch(2, company=company)
    return company


def assert_done_once(company: Company, codat: SandboxProcess) -> None:
    """One request of each kind, one object of each, one ledger row of each step."""
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINK_READY, company.onboarding_error
    assert {route: codat.requests_made(route) for route in WRITES} == dict.fromkeys(WRITES, 1)
    objects = codat.stats()["objects"]
    assert (objects["companies"], objects["connections"], objects["source_accounts"]) == (1, 1, 2)
    assert (
        list(company.operations.order_by("pk").values_list("state", "attempts")) == [(OperationState.SUCCEEDED, 1)] * 3
    )
    assert (company.lease_token, company.due_at) == (None, None)


# --- Threads ---------------------------------------------------------------------------------------------------------
def test_many_workers_on_one_company_do_everything_once(company: Company, codat: SandboxProcess) -> None:
    onboarding.request(company, actor=RM)
    reports = at_once(*[lambda: onboarding.advance(company.pk)] * MANY)
    assert reports.count("held by another worker") == MANY - 1
    assert reports.count("3 done") == 1
    drain()
    assert_done_once(company, codat)


def test_many_people_who_press_onboard_at_once_start_it_once(company: Company, codat: SandboxProcess) -> None:
    answers = at_once(*[lambda: onboarding.request(company, actor=RM)] * MANY)
    assert answers.count(None) == 1
    refused = [answer for answer in answers if answer is not None]
    assert {(type(answer), str(answer)) for answer in refused} == {(Refused, "Onboarding is already on its way.")}
    assert OrmQ.objects.count() == 1
    drain()
    assert_done_once(company, codat)


def test_people_and_workers_all_at_once_do_everything_once(company: Company, codat: SandboxProcess) -> None:
    def press_and_work() -> object:
        with contextlib.suppress(Refused):
            onboarding.request(company, actor=RM)
        return onboarding.advance(company.pk)

    answers = at_once(*[press_and_work] * MANY)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    drain()
    assert_done_once(company, codat)


def test_of_many_people_who_ask_for_the_same_change_one_is_heard(company: Company, codat: SandboxProcess) -> None:
    onboarding.request(company, actor=RM)
    drain()
    connection = company.connections.get()
    answers = at_once(*[lambda: links.refresh(connection, actor=RM)] * MANY)
    assert sum(isinstance(answer, Operation) for answer in answers) == 1
    assert sum(isinstance(answer, Refused) for answer in answers) == MANY - 1
    assert company.operations.filter(kind=OperationKind.REFRESH_LINK).count() == 1


def test_of_two_colleagues_who_decide_at_once_one_decides_and_it_happens_once(settings: Settings) -> None:
    settings.FOUR_EYES = ["unlink_connection"]
    approval = ApprovalFactory()
    people = [Actor.person(UserFactory(role="Support"), source="admin") for _number in range(MANY)]

    def approve(actor: Actor) -> Callable[[], object]:
        return lambda: approvals.approve(approval, actor=actor)

    def refuse(actor: Actor) -> Callable[[], object]:
        return lambda: approvals.refuse(approval, actor=actor, comment="No.")

    answers = at_once(*[approve(actor) for actor in people[::2]], *[refuse(actor) for actor in people[1::2]])
    decided = [answer for answer in answers if not isinstance(answer, Exception)]
    assert len(decided) == 1
    assert {type(answer) for answer in answers if isinstance(answer, Exception)} == {Refused}
    approval.refresh_from_db()
    assert Operation.objects.count() == (1 if approval.state == ApprovalState.DONE else 0)


def test_of_two_people_who_ask_for_the_same_at_once_one_request_is_made() -> None:
    connection = ConnectionFactory(linked=True)
    people = [Actor.person(UserFactory(role="Support"), source="admin") for _number in range(MANY)]

    def ask(actor: Actor) -> Callable[[], object]:
        return lambda: approvals.ask(
            "unlink_connection", connection, data={}, consequences=[], reason="By phone.", actor=actor
        )

    answers = at_once(*[ask(actor) for actor in people])
    assert sum(isinstance(answer, Approval) for answer in answers) == 1
    assert {type(it) for it in answers if isinstance(it, Exception)} == {approvals.AlreadyAsked}
    assert Approval.objects.count() == 1


def test_two_workers_on_one_approved_request_do_each_row_once() -> None:
    asker, decider = (Actor.person(UserFactory(role="Support"), source="admin") for _number in range(2))
    rows = ConnectionFactory.create_batch(6)
    approval = approvals.ask_many("refresh_links", rows, consequences=[], reason="Expired.", actor=asker)
    approvals.approve(approval, actor=decider)
    assert at_once(*[lambda: approvals.run_many(approval.pk)] * 3) == ["finished"] * 3
    approval.refresh_from_db()
    assert (approval.state, approval.rows_done, approval.refusals) == (ApprovalState.DONE, 6, [])
    assert Operation.objects.count() == 6


# --- Processes -------------------------------------------------------------------------------------------------------
@pytest.mark.worker
def test_two_workers_share_the_queue_and_do_everything_once(
    real_worker: WorkerProcess, codat: SandboxProcess, tmp_path: Path
) -> None:
    second = WorkerProcess(codat_url=codat.url, api_key=codat.api_key, log=tmp_path / "second.log", Q_WORKERS="2")
    second.start()
    try:
        codat.post_fault("delay", method="POST", delay_ms=100, times=None)
        companies = [CompanyFactory() for _number in range(6)]
        for company in companies:
            SourceAccountFactory.create_batch(2, company=company)
            onboarding.request(company, actor=RM)
            ledger.wake(company.pk)  # a task too many
        ready = Company.objects.filter(onboarding_state=OnboardingState.LINK_READY)
        wait_until(lambda: ready.count() == len(companies), seconds=60, what="link ready")
    finally:
        second.stop()
    assert {route: codat.requests_made(route) for route in WRITES} == dict.fromkeys(WRITES, len(companies))
    assert Operation.objects.filter(state=OperationState.SUCCEEDED, attempts=1).count() == 3 * len(companies)
    assert Operation.objects.count() == 3 * len(companies)


# --- The lease -------------------------------------------------------------------------------------------------------
def lease_of(company: Company) -> tuple[uuid.UUID | None, bool]:
    """The token, and whether the lease still runs."""
    company.refresh_from_db()
    return company.lease_token, company.lease_expires_at is not None and company.lease_expires_at > timezone.now()


def expire(company: Company) -> None:
    """Let the time of the lease pass."""
    Company.objects.filter(pk=company.pk).update(lease_expires_at=timezone.now(), due_at=timezone.now())


def test_a_lease_is_had_by_one() -> None:
    company = CompanyFactory()
    token = leases.claim(company.pk)
    assert token is not None
    assert leases.claim(company.pk) is None
    assert lease_of(company) == (token, True)
    leases.release(company.pk, token)
    assert lease_of(company) == (None, False)
    assert leases.claim(company.pk) is not None


def test_a_company_whose_worker_died_is_due_when_its_lease_ends(settings: Settings) -> None:
    company = CompanyFactory()
    leases.claim(company.pk)
    company.refresh_from_db()
    assert company.due_at == company.lease_expires_at
    assert company.due_at is not None
    assert company.due_at > timezone.now() + timedelta(seconds=settings.ONBOARDING_LEASE_SECONDS - 5)


def test_a_lease_is_renewed_by_its_holder(settings: Settings) -> None:
    company = CompanyFactory()
    token = leases.claim(company.pk)
    assert token is not None
    expire(company)
    leases.renew(company.pk, token)  # late, but nobody took it
    assert lease_of(company) == (token, True)
    assert leases.claim(company.pk) is None


def test_who_lost_the_lease_can_do_nothing_with_it() -> None:
    company = CompanyFactory()
    old = leases.claim(company.pk)
    assert old is not None
    expire(company)
    new = leases.claim(company.pk)
    with pytest.raises(LeaseLost):
        leases.renew(company.pk, old)
    for not_ours in (old, None):
        with pytest.raises(LeaseLost), transaction.atomic():
            leases.lock(company.pk, not_ours)
    leases.release(company.pk, old)
    assert lease_of(company) == (new, True)


def test_a_worker_that_was_too_slow_records_nothing_and_the_next_one_adopts_what_it_made(
    codat: SandboxProcess, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply arrives after another worker has found the lease expired and looked for itself."""
    onboarding.request(company, actor=RM)
    record = onboarding._record_success
    slow: list[str] = []

    def record_late(*args: object) -> None:
        if not slow:
            slow.append("first")
            expire(company)
            slow.append(onboarding.advance(company.pk))
        record(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(onboarding, "_record_success", record_late)
    assert onboarding.advance(company.pk) == "0 done"
    assert slow == ["first", "3 done"]
    drain()
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINK_READY
    assert codat.stats()["objects"]["companies"] == 1
    created = company.operations.get(kind=OperationKind.CREATE_COMPANY)
    assert (created.state, created.attempts) == (OperationState.SUCCEEDED, 2)
    assert created.result.startswith("Found in Codat")


# --- Interactive calls beside workers --------------------------------------------------------------------------------
class Busy:
    """A worker in the middle of a call about the company, until it is let go."""

    def __init__(self, company: Company, codat: SandboxProcess, *, method: str, path: str, milliseconds: int) -> None:
        codat.clear_faults()
        codat.post_fault("delay", method=method, path=path, delay_ms=milliseconds)
        self._pool = ThreadPoolExecutor(1)
        self._report = self._pool.submit(self._advance, company.pk)
        codat.wait_until_hit()

    @staticmethod
    def _advance(company_id: int) -> str:
        try:
            return onboarding.advance(company_id)
        finally:
            connections.close_all()

    def report(self) -> str:
        """Wait for it to finish."""
        report = self._report.result(timeout=20)
        self._pool.shutdown()
        return report


def test_a_person_is_told_that_a_worker_is_busy_or_waits_a_moment(codat: SandboxProcess, company: Company) -> None:
    onboarding.request(company, actor=RM)
    drain()
    links.refresh(company.connections.get(), actor=RM)
    busy = Busy(company, codat, method="GET", path="/companies/{id}/connections", milliseconds=900)
    company.refresh_from_db()
    with pytest.raises(Refused, match="A worker is talking to Codat about this company"):
        sync.refresh_company(company, actor=RM, patience=0.1)
    assert sync.refresh_company(company, actor=RM).changes == []  # with its usual patience
    assert busy.report() == "1 done"


def test_what_is_asked_while_a_person_holds_the_company_is_done_afterwards(
    codat: SandboxProcess, company: Company
) -> None:
    onboarding.request(company, actor=RM)
    drain()
    with leases.hold(company.pk):
        operation = links.refresh(company.connections.get(), actor=RM)
        run_next_task()
        operation.refresh_from_db()
        assert operation.state == OperationState.QUEUED
        assert not OrmQ.objects.exists()
    drain()
    operation.refresh_from_db()
    assert operation.state == OperationState.SUCCEEDED


def test_a_change_asked_for_during_the_last_step_is_not_lost(codat: SandboxProcess, company: Company) -> None:
    """Its own task finds the company held and ends; the worker looks again before it lets go."""
    onboarding.request(company, actor=RM)
    drain()
    links.refresh(company.connections.get(), actor=RM)
    OrmQ.objects.all().delete()
    busy = Busy(company, codat, method="GET", path="/companies/{id}/connections", milliseconds=600)
    asked = accounts.rename(company.source_accounts.earliest("pk"), name="Payroll", actor=RM)
    run_next_task()
    assert not OrmQ.objects.exists()
    assert busy.report() == "2 done"
    asked.refresh_from_db()
    assert asked.state == OperationState.SUCCEEDED


def test_a_change_asked_for_after_the_last_look_is_queued_on_leaving(
    codat: SandboxProcess, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    onboarding.request(company, actor=RM)
    drain()
    look = onboarding._claim_next

    def look_and_be_asked(company_id: int, token: uuid.UUID) -> object:
        found = look(company_id, token)
        if found is None:
            accounts.rename(company.source_accounts.earliest("pk"), name="Payroll", actor=RM)
            OrmQ.objects.all().delete()  # its task has found the company held
        return found

    with monkeypatch.context() as patch:
        patch.setattr(onboarding, "_claim_next", look_and_be_asked)
        assert onboarding.advance(company.pk) == "0 done"
    assert OrmQ.objects.count() == 1
    drain()
    assert Operation.objects.get(kind=OperationKind.RENAME_ACCOUNT).state == OperationState.SUCCEEDED

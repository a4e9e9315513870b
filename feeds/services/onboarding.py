"""Onboarding as a reconciler: look at what is wanted and what exists, do the next missing step, again and again.

`advance` is safe to call any number of times, from anywhere. It carries out whatever the ledger owes one company: the
steps of onboarding, which it plans itself, and changes that staff asked for. Nothing here talks to Codat inside a
transaction: lock -> decide -> commit -> call -> lock -> record.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, Q
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds import audit, mapping, queue
from feeds.audit import Actor
from feeds.codat.errors import CodatError
from feeds.models import BANK_FEEDS_PLATFORM_KEY, Batch, BatchItem, Company, Connection, Operation
from feeds.services import access, gateway, leases, ledger, link_need, mirror, polling, preflight, readings
from feeds.services.errors import LeaseLost, Refused
from feeds.services.ledger import STEP_KINDS
from feeds.services.steps import PUT, STEPS, Recorder
from feeds.states import ConnectionStatus, Meaning, OnboardingState, OperationKind, OperationState, SeenBy, Tone

log = structlog.get_logger(__name__)

FINAL_STATES = (OnboardingState.LINK_READY, OnboardingState.LINKED)
SETTLED_STATES = (*FINAL_STATES, OnboardingState.OFFBOARDED)
SWEEP_LIMIT = 500
TASK_BUDGET = 12.0
"""Seconds after which a task starts nothing more: with the longest call it stays within the queue's sixty."""


# --- Asking ----------------------------------------------------------------------------------------------------------
def request(company: Company, *, actor: Actor, batch: Batch | None = None) -> None:
    """Onboard a company, continue one that failed, or send accounts that were added since.

    Raises Refused when preflight finds an error, or when there is nothing to do.
    """
    with transaction.atomic(), audit.acting(actor):
        found = Company.objects.select_for_update().filter(pk=company.pk).first()
        if found is None:
            raise Refused(_("This company was deleted meanwhile."))
        company = found
        _refuse_unless_ready(company)
        if batch is not None:
            BatchItem.objects.get_or_create(batch=batch, company=company)
        _try_waiting_operations_now(company)
        company.onboarding_by = actor.user
        company.onboarding_by_name = actor.name
        company.onboarding_source = actor.source
        company.save(update_fields=["onboarding_by", "onboarding_by_name", "onboarding_source"])
        mirror.set_onboarding(company, OnboardingState.QUEUED)
        ledger.wake(company.pk)


def _refuse_unless_ready(company: Company) -> None:
    if company.onboarding_state in (OnboardingState.QUEUED, OnboardingState.WORKING):
        raise Refused(_("Onboarding is already on its way."))
    accounts = list(company.source_accounts.filter(gone_at__isnull=True))
    if not accounts:
        raise Refused(_("Add at least one source account, then press Onboard."))
    if company.onboarding_state in FINAL_STATES and all(account.is_in_codat for account in accounts):
        raise Refused(_("Everything is in Codat already. To hand out a link, use Refresh link."))
    errors = [finding.message for finding in preflight.check(company, accounts) if finding.level == "error"]
    if errors:
        raise Refused(" ".join(errors))


def _try_waiting_operations_now(company: Company) -> None:
    """A person who presses Retry does not wait for the backoff."""
    for operation in Operation.objects.open().filter(company=company, next_attempt_at__isnull=False):
        operation.next_attempt_at = None
        operation.save(update_fields=["next_attempt_at"])


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What became of a bulk request: those refused carry their reason, the others are on their way."""

    batch: Batch
    accepted: int
    refused: list[tuple[Company, str]]


def request_many(companies: Sequence[Company], *, label: str, actor: Actor) -> BulkResult:
    """Onboard many companies; one that is refused never stops the rest."""
    with audit.acting(actor):
        batch = Batch.objects.create(
            label=label, requested_by=actor.user, requested_by_name=actor.name, source=actor.source
        )
    refused: list[tuple[Company, str]] = []
    for company in companies:
        try:
            request(company, actor=actor, batch=batch)
        except Refused as error:
            refused.append((company, str(error)))
    return BulkResult(batch=batch, accepted=len(companies) - len(refused), refused=refused)


@dataclass(frozen=True, slots=True)
class RetryResult:
    """How many failed companies of a batch were accepted; `more`: the queue goes on with the others."""

    accepted: int
    more: bool


def retry_failed(batch: Batch, *, actor: Actor, after: int = 0) -> RetryResult:
    """Continue the companies of a batch that wait for a person and that `actor` sees: those with a key after `after`.

    At most `BULK_LIMIT` of them here, because somebody waits for the page; the queue goes on with the others.
    """
    seen = access.companies_of(actor)
    waiting = seen.filter(batch_items__batch=batch, onboarding_state=OnboardingState.FAILED, pk__gt=after)
    failed = list(waiting.order_by("pk")[: settings.BULK_LIMIT + 1])
    accepted = 0
    for company in failed[: settings.BULK_LIMIT]:
        try:
            request(company, actor=actor)
        except Refused:
            continue
        accepted += 1
    more = len(failed) > settings.BULK_LIMIT
    if more:
        user_id = actor.user.pk if actor.user is not None else 0
        queue.enqueue(queue.RETRY_BATCH, str(batch.pk), failed[-2].pk, user_id, actor.name, actor.source)
    return RetryResult(accepted, more)


def go_on_retrying(batch_id: str, after: int, user_id: int, actor_name: str, source: str) -> int:
    """The queue's part of `retry_failed`, in the name of who pressed it; how many were accepted."""
    batch = Batch.objects.filter(pk=batch_id).first()
    if batch is None:
        return 0
    actor = Actor(name=actor_name, source=source, user=User.objects.filter(pk=user_id).first())
    with audit.acting(actor):
        return retry_failed(batch, actor=actor, after=after).accepted


# --- Doing -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Claimed:
    """An operation marked as sending. `look_first`: an earlier try may have been carried out."""

    operation: Operation
    was_unknown: bool
    look_first: bool


def advance(company_id: int) -> str:
    """Carry out what is due for one company; a short report for the queue's log."""
    token = leases.claim(company_id)
    if token is None:
        return "held by another worker"
    started = time.monotonic()
    done = 0
    rest = timedelta()
    try:
        while (claimed := _claim_next(company_id, token)) is not None:
            _perform(claimed, token)
            done += 1
            if time.monotonic() - started > TASK_BUDGET:
                break  # what is left is queued again by the release of the lease
    except LeaseLost:
        log.warning("lease_lost", company=company_id)
    except Exception:
        # What cannot even be recorded on its row fails the task, which is seen; without a rest it would fail in a loop.
        rest = timedelta(seconds=settings.ONBOARDING_REQUEUE_SECONDS)
        raise
    finally:
        leases.release(company_id, token, rest=rest)
    return f"{done} done"


def _claim_next(company_id: int, token: uuid.UUID) -> _Claimed | None:
    """Decide, under lock, what to do next and commit the intent. None when nothing is due."""
    with transaction.atomic(durable=True):
        company = leases.lock(company_id, token)
        operation = _due_operation(company) or _plan(company)
        if operation is None:
            return None
        operation.company = company
        was_unknown = operation.state in (OperationState.SENDING, OperationState.UNKNOWN)
        ledger.start(operation)
        if _is_onboarding(operation):
            mirror.set_onboarding(company, OnboardingState.WORKING)
        return _Claimed(operation, was_unknown, look_first=was_unknown or _may_exist(operation))


def _due_operation(company: Company) -> Operation | None:
    """The oldest open row whose time has come; rows that cannot be tried again are closed on the way."""
    due = Q(next_attempt_at__isnull=True) | Q(next_attempt_at__lte=timezone.now())
    for operation in Operation.objects.open().filter(due, company=company).order_by("pk"):
        operation.company = company
        reason = _why_hopeless(operation)
        if not reason:
            return operation
        _close_failed(operation, reason)
    return None


def _why_hopeless(operation: Operation) -> str:
    if operation.kind == OperationKind.GENERATE_CREDENTIALS:
        # Only a web process that died leaves one open: the answer may only ever be on one screen.
        return _("The answer was lost before anyone saw it. Generate again; revoke all if the lost set worries you.")
    if operation.attempts >= settings.ONBOARDING_MAX_ATTEMPTS:
        # Only a worker that died each time gets here: an error that was recorded has been counted there.
        return ledger.gave_up(operation, operation.error)
    return ""


def _close_failed(operation: Operation, reason: str) -> None:
    onboarding = _is_onboarding(operation)
    ledger.fail(operation, reason)
    if onboarding:
        mirror.set_onboarding(operation.company, OnboardingState.FAILED, reason)


def _may_exist(operation: Operation) -> bool:
    """Whether Codat may have it already: an earlier row may have given up, or the company was there and seemed gone."""
    if operation.kind == OperationKind.CREATE_COMPANY and operation.company.codat_id:
        return True
    earlier = Operation.objects.filter(
        company=operation.company_id, kind=operation.kind, account=operation.account_id, pk__lt=operation.pk
    )
    return earlier.filter(state=OperationState.FAILED).exists()


def _is_onboarding(operation: Operation) -> bool:
    """Whether the company's onboarding waits for this row."""
    return operation.kind in STEP_KINDS and operation.company.onboarding_state in ledger.ACTIVE_ONBOARDING


def _plan(company: Company) -> Operation | None:
    """The next missing step as a new row; None when onboarding is not asked for, complete, or waits for a retry."""
    if company.onboarding_state not in ledger.ACTIVE_ONBOARDING:
        return None
    if Operation.objects.open().filter(company=company, kind__in=STEP_KINDS).exists():
        return None
    connection = mirror.live_connection(company)
    step = _missing_step(company, connection)
    if step is None:
        linked = connection is not None and connection.status == ConnectionStatus.LINKED
        mirror.set_onboarding(company, OnboardingState.LINKED if linked else OnboardingState.LINK_READY)
        return None
    kind, payload = step
    if kind == OperationKind.REFRESH_LINK and _gave_no_link(company):
        mirror.set_onboarding(company, OnboardingState.FAILED, _("Codat gave no link for this connection."))
        return None
    actor = Actor(name=company.onboarding_by_name, source=company.onboarding_source, user=company.onboarding_by)
    return ledger.write(kind, company, connection=connection, actor=actor, payload=payload)


def _gave_no_link(company: Company) -> bool:
    """Whether the link was fetched in vain: two fetches may be needed (see `mirror`), a third brings nothing more."""
    fetched = Operation.objects.filter(
        company=company,
        kind=OperationKind.REFRESH_LINK,
        state=OperationState.SUCCEEDED,
        created_at__gte=company.onboarding_changed_at or company.created_at,
    )
    return fetched.count() >= 2


def _missing_step(company: Company, connection: Connection | None) -> tuple[OperationKind, dict[str, Any]] | None:
    """What is wanted and does not exist yet, with the payload of the request that makes it."""
    if not company.is_in_codat:
        tags = mapping.company_tags(company.uid)
        return OperationKind.CREATE_COMPANY, {"name": mapping.codat_name(company.legal_name), "tags": tags}
    if connection is None:
        return OperationKind.CREATE_CONNECTION, {"platformKey": BANK_FEEDS_PLATFORM_KEY}
    accounts = company.source_accounts.filter(gone_at__isnull=True)
    missing = accounts.filter(connection__isnull=True).order_by("pk").values_list("account_id", flat=True)
    if missing:
        # The guide's PUT adds to a connection that has accounts; the first ones are always a batch.
        put = settings.CODAT_ADD_ACCOUNTS_WITH == PUT and accounts.filter(connection__isnull=False).exists()
        return OperationKind.ADD_ACCOUNTS, {"accountIds": list(missing)} | ({"method": PUT} if put else {})
    if link_need.is_needed(connection) and not connection.has_live_link(timezone.now()):
        return OperationKind.REFRESH_LINK, {}
    return None


def _perform(claimed: _Claimed, token: uuid.UUID) -> None:
    """Look if an earlier try may have been carried out, else send; then record. Never raises for Codat's sake."""
    operation = claimed.operation
    step = STEPS[operation.kind]
    client = gateway.client()
    try:
        recorder = step.look(client, operation) if claimed.look_first else None
        if recorder is None:
            leases.renew(operation.company_id, token)
            recorder = step.send(client, operation)
        _record_success(operation, token, recorder)
    except CodatError as error:
        _record_error(claimed, token, error)
    except LeaseLost:
        raise
    except Exception:
        # A bug of ours must not make a hot loop of retries, and must be seen: failed is not errored.
        log.exception("operation_errored", operation=operation.pk, kind=operation.kind)
        operation.refresh_from_db()  # the recording was rolled back
        _record_error(claimed, token, InternalFault("see the log"))


def _record_success(operation: Operation, token: uuid.UUID, recorder: Recorder) -> None:
    reference = f"operation {operation.pk}"
    with transaction.atomic(durable=True), mirror.seen_by(SeenBy.ACTION, reference):
        operation.company = leases.lock(operation.company_id, token)
        ledger.succeed(operation, recorder())
        readings.after_reading(operation.company)
        polling.bring_forward(operation.company)


def _record_error(claimed: _Claimed, token: uuid.UUID, error: CodatError) -> None:
    operation = claimed.operation
    with transaction.atomic(durable=True):
        operation.company = leases.lock(operation.company_id, token)
        onboarding = _is_onboarding(operation)
        ledger.record_error(operation, error, was_unknown=claimed.was_unknown)
        log.warning("operation_not_done", operation=operation.pk, state=operation.state, error=type(error).__name__)
        if onboarding:
            state = OnboardingState.RETRYING if operation.is_open else OnboardingState.FAILED
            mirror.set_onboarding(operation.company, state, operation.error)


class InternalFault(CodatError):
    """Not Codat's doing: our own code failed. Tried again by itself, because the cause is often passing."""

    retryable = True
    advice = gettext_lazy("This system met a fault of its own. It tries again; an administrator finds it in the log.")

    def __init__(self, message: str) -> None:
        super().__init__(message, outcome_unknown=True)


def sweep() -> int:
    """Queue again whatever is due: retries, leases of workers that died, tasks that were lost. How many companies."""
    due = Company.objects.due(timezone.now()).order_by("due_at").values_list("pk", flat=True)[:SWEEP_LIMIT]
    for company_id in due:
        with transaction.atomic():
            ledger.wake(company_id)
    return len(due)


# --- Showing ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Step:
    """One line of the progress display. `at` is when it reached this state (aware UTC)."""

    title: str
    meaning: Meaning
    at: datetime | None
    error: str
    operation: Operation | None


NOT_STARTED = Meaning(gettext_lazy("Not started"), Tone.NEUTRAL, gettext_lazy("Comes after the steps before it."))
THERE = Meaning(gettext_lazy("Done"), Tone.GOOD, gettext_lazy("It is in Codat."))


def steps(company: Company) -> list[Step]:
    """The steps of one onboarding in order: company, connection, accounts, link. Three queries."""
    latest = {
        operation.kind: operation
        for operation in Operation.objects.filter(company=company, kind__in=STEP_KINDS).order_by("pk")
    }
    connection = mirror.live_connection(company)
    accounts = list(company.source_accounts.filter(gone_at__isnull=True))
    accounts_there = bool(accounts) and all(account.is_in_codat for account in accounts)
    connected_at = connection.codat_created_at if connection else None
    link_at = connection.link_fetched_at if connection else None
    refresh = latest.get(OperationKind.REFRESH_LINK)
    if refresh and refresh.finished_at and link_at and refresh.finished_at < link_at:
        del latest[OperationKind.REFRESH_LINK]  # whatever became of it: a newer link came with another reply
    link_there = company.onboarding_state in FINAL_STATES
    return [
        _step(OperationKind.CREATE_COMPANY, latest, company.is_in_codat, company.codat_created_at),
        _step(OperationKind.CREATE_CONNECTION, latest, connection is not None, connected_at),
        _step(OperationKind.ADD_ACCOUNTS, latest, accounts_there, None),
        _step(OperationKind.REFRESH_LINK, latest, link_there, link_at, title=_("Link ready")),
    ]


def _step(
    kind: OperationKind, latest: dict[str, Operation], there: bool, since: datetime | None, *, title: str = ""
) -> Step:
    operation = latest.get(kind)
    title = title or str(kind.label)
    if operation is None or operation.state in (OperationState.SUCCEEDED, OperationState.CANCELLED):
        if there:
            return Step(title, THERE, since or (operation.finished_at if operation else None), "", operation)
        # Done once, and to be done again: an account was added since, or Codat lost what it had.
        return Step(title, NOT_STARTED, None, "", operation)
    at = operation.finished_at or operation.started_at or operation.created_at
    return Step(title, operation.state_meaning, at, operation.error, operation)


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a bulk onboarding is, counted in companies."""

    done: int
    failed: int
    waiting: int

    @property
    def total(self) -> int:
        """All companies of the batch."""
        return self.done + self.failed + self.waiting


def batch_progress(batch: Batch, actor: Actor) -> BatchProgress:
    """Count the companies of a batch that `actor` sees by what became of them. One query."""
    counts = (
        access.companies_of(actor)
        .filter(batch_items__batch=batch)
        .aggregate(
            total=Count("pk"),
            done=Count("pk", filter=Q(onboarding_state__in=SETTLED_STATES)),
            failed=Count("pk", filter=Q(onboarding_state=OnboardingState.FAILED)),
        )
    )
    waiting = counts["total"] - counts["done"] - counts["failed"]
    return BatchProgress(done=counts["done"], failed=counts["failed"], waiting=waiting)

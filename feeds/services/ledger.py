"""The Operation ledger: intent before the call, outcome after it, and when the next look is due."""

from __future__ import annotations

import json
import random
import uuid
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from feeds import audit, queue
from feeds.audit import Actor
from feeds.codat.errors import CodatError
from feeds.models import Company, Connection, Operation, SourceAccount
from feeds.services.errors import Refused
from feeds.states import OnboardingState, OperationKind, OperationState

ACTIVE_ONBOARDING = (OnboardingState.QUEUED, OnboardingState.WORKING, OnboardingState.RETRYING)
STEP_KINDS = (
    OperationKind.CREATE_COMPANY,
    OperationKind.CREATE_CONNECTION,
    OperationKind.ADD_ACCOUNTS,
    OperationKind.REFRESH_LINK,
)
"""The steps of onboarding, in order. The last is also asked for by itself."""


def fingerprint(body: Any) -> str:
    """Keyed hash of a request body (JSON-able): tells whether a retry sends the same body, without keeping it."""
    return salted_hmac("feeds.operation", json.dumps(body, sort_keys=True), algorithm="sha256").hexdigest()


def write(
    kind: OperationKind,
    company: Company,
    *,
    actor: Actor,
    payload: dict[str, Any],
    connection: Connection | None = None,
    account: SourceAccount | None = None,
    reason: str = "",
) -> Operation:
    """Add a queued row. Raises Refused when the same thing is already asked for and not finished."""
    try:
        with transaction.atomic():
            return Operation.objects.create(
                kind=kind,
                company=company,
                connection=connection,
                account=account,
                payload=payload,
                requested_by=actor.user,
                requested_by_name=actor.name,
                source=actor.source,
                reason=reason,
            )
    except IntegrityError as error:
        raise Refused(_("“%s” is already asked for and not finished.") % OperationKind(kind).label) from error


def ask(kind: OperationKind, company: Company, *, actor: Actor, **details: Any) -> Operation:
    """Add a row and queue the work, both or neither. `details` as for `write`."""
    with transaction.atomic(), audit.acting(actor):
        # A worker that is about to let go of the company either sees this row or waits until it is there.
        Company.objects.select_for_update().get(pk=company.pk)
        operation = write(kind, company, actor=actor, **details)
        wake(company.pk)
    return operation


def wake(company_id: int) -> None:
    """Queue the reconciler for a company. Should the task be lost, the company is due again a little later."""
    now = timezone.now()
    # A company under a live lease keeps its date: the holder looks again before it lets go.
    free = Q(lease_expires_at__isnull=True) | Q(lease_expires_at__lte=now)
    later = now + timedelta(seconds=settings.ONBOARDING_REQUEUE_SECONDS)
    Company.objects.filter(free, pk=company_id).update(due_at=later)
    queue.enqueue(queue.ADVANCE, company_id)


def next_due(company: Company) -> datetime | None:
    """When the reconciler has to look at this company again (aware UTC); None when nothing is owed."""
    now = timezone.now()
    owed = list(Operation.objects.open().filter(company=company).values_list("kind", "next_attempt_at"))
    times = [at or now for _kind, at in owed]
    waits_for_a_step = any(kind in STEP_KINDS for kind, _at in owed)
    if company.onboarding_state in ACTIVE_ONBOARDING and not waits_for_a_step:
        times.append(now)  # the next step is not even planned
    return min(times, default=None)


def backoff(attempts: int) -> timedelta:
    """Exponential, with jitter so that a thousand companies do not come back in the same second."""
    longest: float = settings.ONBOARDING_RETRY_MAX_SECONDS
    seconds = min(longest, settings.ONBOARDING_RETRY_BASE_SECONDS * 2 ** min(attempts - 1, 20))
    return timedelta(seconds=seconds * random.uniform(0.75, 1.25))  # noqa: S311  # jitter, not a secret


def start(operation: Operation) -> None:
    """Mark the row as sending; committed before the call is made."""
    if operation.state != OperationState.SENDING:  # a worker that died left it there
        operation.move_to(OperationState.SENDING)
    operation.attempts += 1
    operation.started_at = operation.started_at or timezone.now()
    operation.next_attempt_at = None
    operation.save(update_fields=["state", "attempts", "started_at", "next_attempt_at"])


def succeed(operation: Operation, result: str) -> None:
    """Close the row: Codat has done it."""
    operation.move_to(OperationState.SUCCEEDED)
    operation.result = result
    operation.error = ""
    operation.http_status = None
    operation.finished_at = timezone.now()
    operation.save(update_fields=["state", "result", "error", "http_status", "finished_at"])


def fail(operation: Operation, message: str) -> None:
    """Close the row: a person is needed."""
    operation.move_to(OperationState.FAILED)
    operation.error = message
    operation.finished_at = timezone.now()
    operation.save(update_fields=["state", "error", "http_status", "correlation_id", "finished_at"])


def record_error(operation: Operation, error: CodatError, *, was_unknown: bool) -> None:
    """Record what Codat answered, or that it did not, and whether and when we try again.

    A row that was ever unknown stays unknown until a look has settled it.
    """
    operation.http_status = error.status
    operation.correlation_id = error.correlation_id or ""
    if not error.retryable:
        fail(operation, error.staff_message)
        return
    if operation.attempts >= settings.ONBOARDING_MAX_ATTEMPTS:
        fail(operation, gave_up(operation, error.staff_message))
        return
    operation.move_to(OperationState.UNKNOWN if error.outcome_unknown or was_unknown else OperationState.QUEUED)
    operation.error = error.staff_message
    wait = max(backoff(operation.attempts), timedelta(seconds=error.retry_after or 0))
    operation.next_attempt_at = timezone.now() + wait
    if error.new_key_needed:
        operation.idempotency_key = uuid.uuid4()
    operation.save(
        update_fields=["state", "error", "http_status", "correlation_id", "next_attempt_at", "idempotency_key"]
    )


def gave_up(operation: Operation, last: str) -> str:
    """What staff read when a row was tried too often."""
    message = _("Gave up after %(count)d attempts. Press Retry once Codat is well again. Last answer: %(last)s")
    return message % {"count": operation.attempts, "last": last or _("none; the worker stopped each time")}

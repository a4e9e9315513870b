"""QuickBooks credentials: on one screen once, never stored. Hence the one call to Codat that is not queued."""

from __future__ import annotations

import uuid

from django.db import transaction
from django.utils.translation import gettext as _

from feeds import audit
from feeds.audit import Actor
from feeds.codat.errors import CodatError
from feeds.codat.schemas import Credentials
from feeds.models import Connection, Operation
from feeds.services import gateway, leases, ledger, links
from feeds.services.errors import Refused
from feeds.states import OperationKind, OperationState
from feeds.wording import recorded


class NotGenerated(CodatError):
    """No credentials to show. Unlike queued work nothing is tried again by itself: the usual advice would be wrong."""

    def __init__(self, cause: CodatError) -> None:
        super().__init__(
            str(cause),
            status=cause.status,
            correlation_id=cause.correlation_id,
            retry_after=cause.retry_after,
            details=cause.details,
        )
        self.was_lost = cause.outcome_unknown

    def headline(self) -> str:
        """What became of the set, and what to do."""
        if self.was_lost:
            return _(
                "Codat's answer was lost, so a set may exist that nobody saw. Generate again; revoke all if the lost "
                "set worries you."
            )
        return _("Codat could not be asked now; nothing was generated. Try again in a few minutes.")


def generate(connection: Connection, *, actor: Actor, press: uuid.UUID | None = None) -> Credentials:
    """Ask Codat for one more set of credentials and hand it to the caller; older sets stay valid.

    `press` names one press of the button: the same press never makes a second set, whether the page was reloaded or
    the button pressed twice.

    Raises CodatError (recorded in the ledger) and Refused. A lost answer is not asked for again by itself: the set
    would be one that nobody saw.
    """
    company = connection.company
    _refuse_unless_in_codat(connection)
    with audit.acting(actor), leases.hold(company.pk) as token:
        payload = {} if press is None else {"press": str(press)}
        with transaction.atomic(durable=True):
            _refuse_second_set(connection, payload)
            operation = ledger.write(
                OperationKind.GENERATE_CREDENTIALS, company, connection=connection, actor=actor, payload=payload
            )
            ledger.start(operation)
        try:
            credentials = gateway.client().generate_credentials(
                company.codat_id, connection.codat_id, idempotency_key=str(operation.idempotency_key)
            )
        except CodatError as cause:
            error = NotGenerated(cause) if cause.retryable or cause.outcome_unknown else cause
            _record_failure(operation, error)
            raise error from cause
        with transaction.atomic(durable=True):
            leases.lock(company.pk, token)
            with recorded():
                ledger.succeed(operation, _("Shown once to %s.") % actor.name)
            audit.record("credentials_generated", connection)
    return credentials


def _refuse_second_set(connection: Connection, payload: dict[str, str]) -> None:
    made = Operation.objects.filter(
        connection=connection, kind=OperationKind.GENERATE_CREDENTIALS, state=OperationState.SUCCEEDED
    )
    if payload and made.filter(payload__press=payload["press"]).exists():
        raise Refused(_("This press has made a set already, which was shown once. Start again to make another."))


def _record_failure(operation: Operation, error: CodatError) -> None:
    operation.http_status = error.status
    operation.correlation_id = error.correlation_id or ""
    with transaction.atomic(durable=True), recorded():
        ledger.fail(operation, error.staff_message)


def revoke(connection: Connection, *, actor: Actor, reason: str) -> Operation:
    """Ask for every set of the connection to be revoked. Feeds that use them stop."""
    _refuse_unless_in_codat(connection)
    return ledger.ask(
        OperationKind.REVOKE_CREDENTIALS,
        connection.company,
        connection=connection,
        actor=actor,
        payload={},
        reason=reason,
    )


def _refuse_unless_in_codat(connection: Connection) -> None:
    links.refuse_if_gone(connection)
    if not connection.company.is_in_codat:
        raise Refused(_("Codat no longer has this company."))

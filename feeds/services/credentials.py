"""QuickBooks credentials: on one screen once, never stored. Hence the one call to Codat that is not queued."""

from __future__ import annotations

from django.db import transaction
from django.utils.translation import gettext as _

from feeds import audit
from feeds.audit import Actor
from feeds.codat.errors import CodatError
from feeds.codat.schemas import Credentials
from feeds.models import Connection, Operation
from feeds.services import gateway, leases, ledger, links
from feeds.services.errors import Refused
from feeds.states import OperationKind


def generate(connection: Connection, *, actor: Actor) -> Credentials:
    """Ask Codat for one more set of credentials and hand it to the caller; older sets stay valid.

    Raises CodatError (recorded in the ledger) and Refused. A lost answer is not asked for again by itself: the set
    would be one that nobody saw.
    """
    links.refuse_if_gone(connection)
    company = connection.company
    with audit.acting(actor), leases.hold(company.pk):
        with transaction.atomic(durable=True):
            operation = ledger.write(
                OperationKind.GENERATE_CREDENTIALS, company, connection=connection, actor=actor, payload={}
            )
            ledger.start(operation)
        try:
            credentials = gateway.client().generate_credentials(
                company.codat_id, connection.codat_id, idempotency_key=str(operation.idempotency_key)
            )
        except CodatError as error:
            _record_failure(operation, error)
            raise
        with transaction.atomic(durable=True):
            ledger.succeed(operation, _("Shown once to %s.") % actor.name)
            audit.record("credentials_generated", connection)
    return credentials


def _record_failure(operation: Operation, error: CodatError) -> None:
    operation.http_status = error.status
    operation.correlation_id = error.correlation_id or ""
    with transaction.atomic(durable=True):
        ledger.fail(operation, error.staff_message)


def revoke(connection: Connection, *, actor: Actor, reason: str) -> Operation:
    """Ask for every set of the connection to be revoked. Feeds that use them stop."""
    links.refuse_if_gone(connection)
    if not connection.company.is_in_codat:
        raise Refused(_("Codat no longer has this company."))
    return ledger.ask(
        OperationKind.REVOKE_CREDENTIALS,
        connection.company,
        connection=connection,
        actor=actor,
        payload={},
        reason=reason,
    )

"""Changes of a connection that staff ask for."""

from __future__ import annotations

from django.utils.translation import gettext as _

from feeds.audit import Actor
from feeds.models import Connection, Operation
from feeds.services import ledger, links
from feeds.services.errors import Refused
from feeds.states import ConnectionStatus, OperationKind


def delete(connection: Connection, *, actor: Actor, reason: str) -> Operation:
    """Ask Codat to delete the connection, which cannot be undone. Our row stays, marked as gone."""
    links.refuse_if_gone(connection)
    return ledger.ask(
        OperationKind.DELETE_CONNECTION,
        connection.company,
        connection=connection,
        actor=actor,
        payload={},
        reason=reason,
    )


def unlink(connection: Connection, *, actor: Actor, reason: str) -> Operation:
    """Ask for the connection to be unlinked. Raises Refused unless it is `Linked`: Codat unlinks no other."""
    links.refuse_if_gone(connection)
    if connection.status != ConnectionStatus.LINKED:
        raise Refused(_("Only a Linked connection can be unlinked; this one is %s.") % connection.status)
    return ledger.ask(
        OperationKind.UNLINK_CONNECTION,
        connection.company,
        connection=connection,
        actor=actor,
        payload={"status": ConnectionStatus.UNLINKED},
        reason=reason,
    )

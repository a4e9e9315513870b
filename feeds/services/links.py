"""The customer's link: fetched, shown once to whoever asks and is recorded, forgotten when it no longer works."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import audit
from feeds.audit import Actor
from feeds.models import Connection, Operation
from feeds.services import ledger, link_need
from feeds.services.errors import Refused
from feeds.states import OperationKind


@dataclass(frozen=True, slots=True)
class RevealedLink:
    """A link on its way to one screen. `expires_at` is aware UTC."""

    url: str = field(repr=False)
    fetched_at: datetime | None
    expires_at: datetime


def refresh(connection: Connection, *, actor: Actor) -> Operation:
    """Ask the queue for a fresh link (guide: list connections). Raises Refused when no link is needed."""
    refuse_if_gone(connection)
    if not link_need.is_needed(connection):
        raise Refused(_("This connection is Linked and all its accounts work: the customer needs no link."))
    return ledger.ask(OperationKind.REFRESH_LINK, connection.company, connection=connection, actor=actor, payload={})


def refuse_if_gone(connection: Connection) -> None:
    """Raises Refused when Codat no longer has the connection."""
    if connection.gone_at is not None:
        raise Refused(_("Codat no longer has this connection. Press Onboard on the company to make a new one."))


def reveal(connection: Connection, *, actor: Actor) -> RevealedLink:
    """The link that works now, for one screen; who saw it is recorded. Raises Refused when there is none."""
    with transaction.atomic(), audit.acting(actor):
        rows = Connection.objects.select_related("company").select_for_update(of=("self",))
        connection = rows.get(pk=connection.pk)
        refuse_if_gone(connection)
        if not connection.has_live_link(timezone.now()) or connection.link_expires_at is None:
            raise Refused(_("There is no link that works now. Press Refresh link."))
        Connection.objects.filter(pk=connection.pk).update(link_shown_at=timezone.now())
        audit.record("link_revealed", connection)
        return RevealedLink(connection.link_url, connection.link_fetched_at, connection.link_expires_at)


def clear_expired() -> int:
    """Forget links that have expired or are not needed any more; how many were forgotten."""
    useless = Q(link_expires_at__lte=timezone.now()) | ~link_need.needed() | Q(gone_at__isnull=False)
    return (
        Connection.objects.filter(useless)
        .filter(link_expires_at__isnull=False)
        .update(link_url="", link_expires_at=None)
    )

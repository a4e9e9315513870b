"""Who needs a link: the one rule, asked of one connection and of many at once.

A customer needs one to connect for the first time, after an unlinking, and to reconnect an account that QuickBooks
no longer reads, although Codat goes on to call the connection Linked. `states.link_is_needed` says it of one,
`needed` of many; `tests/services/test_link_need.py` holds them equal.
"""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Q, QuerySet

from feeds.models import Connection, SourceAccount
from feeds.states import AccountStatus, ConnectionStatus, link_is_needed

ANNOTATION = "has_disconnected_account"


def needed() -> Q:
    """Connections whose customer needs a link, as the mirror shows them now."""
    return ~Q(status=ConnectionStatus.LINKED) | Q(Exists(_disconnected(OuterRef("pk"))))


def is_needed(connection: Connection) -> bool:
    """Whether this connection's customer needs a link. A query for a Linked one that did not come from `annotated`."""
    is_linked = connection.status == ConnectionStatus.LINKED
    return link_is_needed(connection.status, account_is_disconnected=is_linked and has_disconnected_account(connection))


def has_disconnected_account(connection: Connection) -> bool:
    """Whether QuickBooks has stopped reading one of its accounts. No query when it came from `annotated`."""
    known = getattr(connection, ANNOTATION, None)
    return _disconnected(connection.pk).exists() if known is None else bool(known)


def annotated(connections: QuerySet[Connection]) -> QuerySet[Connection]:
    """Connections that carry the answer, for screens that show many. Not for rows that are written afterwards."""
    return connections.annotate(**{ANNOTATION: Exists(_disconnected(OuterRef("pk")))})


def _disconnected(connection: int | OuterRef) -> QuerySet[SourceAccount]:
    return SourceAccount.objects.filter(connection=connection, gone_at__isnull=True, status=AccountStatus.DISCONNECTED)

"""Who needs a link: the one rule, asked of one connection and of many at once.

A customer needs one to connect for the first time, after an unlinking, to connect an account that was added later, and
to reconnect one that QuickBooks no longer reads; in the last two, Codat calls the connection Linked all along.
`states.link_is_needed` says it of one, `needed` of many; `tests/services/test_link_need.py` holds them equal.
"""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Q, QuerySet

from feeds.models import Company, Connection, SourceAccount
from feeds.states import UNCONNECTED, AccountStatus, ConnectionStatus, link_is_needed

UNCONNECTED_KNOWN, DISCONNECTED_KNOWN = "has_unconnected_account", "has_disconnected_account"
"""Annotations of `annotated`."""


def needed() -> Q:
    """Connections whose customer needs a link, as the mirror shows them now."""
    return ~Q(status=ConnectionStatus.LINKED) | Q(Exists(_unconnected(OuterRef("pk"))))


def is_needed(connection: Connection) -> bool:
    """Whether this connection's customer needs a link. A query for a Linked one that did not come from `annotated`."""
    is_linked = connection.status == ConnectionStatus.LINKED
    return link_is_needed(connection.status, account_is_unconnected=is_linked and has_unconnected_account(connection))


def has_nothing_left(company: Company) -> bool:
    """Whether an invitation would lead nowhere: linked, every account read by QuickBooks, none on its way to Codat."""
    connection = Connection.objects.filter(company=company, gone_at__isnull=True).first()
    if connection is None or is_needed(connection):
        return False
    return not SourceAccount.objects.filter(company=company, gone_at__isnull=True, connection__isnull=True).exists()


def has_unconnected_account(connection: Connection) -> bool:
    """Whether QuickBooks does not read one of its accounts, yet or any more. No query when it came from `annotated`."""
    known = getattr(connection, UNCONNECTED_KNOWN, None)
    return _unconnected(connection.pk).exists() if known is None else bool(known)


def has_disconnected_account(connection: Connection) -> bool:
    """Whether QuickBooks has stopped reading one of its accounts. No query when it came from `annotated`."""
    known = getattr(connection, DISCONNECTED_KNOWN, None)
    return _disconnected(connection.pk).exists() if known is None else bool(known)


def annotated(connections: QuerySet[Connection]) -> QuerySet[Connection]:
    """Connections that carry the answers, for screens that show many. Not for rows that are written afterwards."""
    pk = OuterRef("pk")
    return connections.annotate(
        **{UNCONNECTED_KNOWN: Exists(_unconnected(pk)), DISCONNECTED_KNOWN: Exists(_disconnected(pk))}
    )


def _unconnected(connection: int | OuterRef) -> QuerySet[SourceAccount]:
    return SourceAccount.objects.filter(connection=connection, gone_at__isnull=True, status__in=UNCONNECTED)


def _disconnected(connection: int | OuterRef) -> QuerySet[SourceAccount]:
    return SourceAccount.objects.filter(connection=connection, gone_at__isnull=True, status=AccountStatus.DISCONNECTED)

"""What is broken in one feed, as the mirror shows it now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.db.models import Q
from django.utils.translation import gettext as _

from feeds.models import Connection, Operation, SourceAccount, StatusEvent
from feeds.states import (
    BROKEN_CONNECTION_STATUSES,
    GONE,
    AccountStatus,
    ConnectionStatus,
    OperationKind,
    OperationState,
    account_is_broken,
    feed_is_broken,
)
from feeds.wording import recorded

WITHOUT_ACCOUNTS = "connection"
"""The broken part of a connection that is broken but offers no account."""


@dataclass(frozen=True, slots=True)
class Break:
    """What is broken: the connection's status, and the accounts that do not work."""

    status: str
    accounts: tuple[SourceAccount, ...]

    @property
    def parts(self) -> list[str]:
        """What makes this break this one: the ids of its accounts, sorted."""
        return sorted(str(account.pk) for account in self.accounts) or [WITHOUT_ACCOUNTS]

    @property
    def balance(self) -> Decimal:
        """Sum of the positive balances of the broken accounts, whatever their currencies: a size, not an amount."""
        return sum((account.balance for account in self.accounts if account.balance > 0), Decimal(0))

    @property
    def text(self) -> str:
        """One line: status and names, at most 300 characters."""
        with recorded():
            names = ", ".join(account.name for account in self.accounts) or _("no account")
        line = f"{self.status}: {names}"
        return line if len(line) <= 300 else line[:299] + "…"


def find(connection: Connection) -> Break | None:
    """What is broken now; None when nothing is. One query for a healthy feed.

    A connection that is gone from Codat is lost, and so broken, unless the company has another that was connected, or
    a colleague had it deleted: else the customer's feed has stopped, and nobody asked us.
    """
    lost = connection.gone_at is not None
    if lost and (_is_replaced(connection) or was_removed(connection)):
        return None
    offered = SourceAccount.objects.filter(connection_id=connection.pk).order_by("pk")
    if not lost:  # else they went with it
        offered = offered.filter(gone_at__isnull=True)
    accounts = list(offered.only("pk", "name", "status", "balance", "feed_start_date"))
    statuses = {account.status for account in accounts}
    may_be_broken = lost or AccountStatus.DISCONNECTED in statuses
    was_connected = may_be_broken and _was_connected(connection, accounts)
    if not feed_is_broken(connection.status, statuses, was_connected=was_connected, lost=lost):
        return None
    broken = tuple(it for it in accounts if account_is_broken(connection.status, it.status, lost=lost))
    whole = lost or connection.status in BROKEN_CONNECTION_STATUSES
    return Break(GONE if lost else connection.status if whole else AccountStatus.DISCONNECTED.value, broken)


def was_removed(connection: Connection) -> bool:
    """Whether a colleague asked Codat to delete this connection, or its whole company, and it was not refused."""
    asked = Operation.objects.exclude(state__in=(OperationState.FAILED, OperationState.CANCELLED))
    return asked.filter(
        Q(kind=OperationKind.DELETE_CONNECTION, connection=connection)
        # One of an earlier life of the company says nothing about this connection.
        | Q(kind=OperationKind.DELETE_COMPANY, created_at__gte=connection.created_at),
        company_id=connection.company_id,
    ).exists()


_CONNECTED_STATUSES = (ConnectionStatus.LINKED, *BROKEN_CONNECTION_STATUSES)


def _is_replaced(connection: Connection) -> bool:
    others = Connection.objects.filter(company_id=connection.company_id, gone_at__isnull=True)
    return others.filter(status__in=_CONNECTED_STATUSES).exists()


def _was_connected(connection: Connection, accounts: Sequence[SourceAccount]) -> bool:
    """Whether some reading showed it connected. Asked only when the present statuses do not say so."""
    if connection.status in _CONNECTED_STATUSES or any(account.feed_start_date for account in accounts):
        return True
    linked = Q(account__isnull=True, new__in=_CONNECTED_STATUSES) | Q(
        account__isnull=False, new=AccountStatus.CONNECTED
    )
    return StatusEvent.objects.filter(linked, connection=connection).exists()

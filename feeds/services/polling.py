"""When each connection's accounts are read again: its priority, its interval, and who reads it now.

`poll_due_at` is date and lease in one. Claiming a connection moves the date a little into the future, so any number of
workers share the work, and what a killed worker had claimed is due again by itself.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import IntEnum

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from feeds.models import Case, Company, Connection, SourceAccount
from feeds.services import link_need
from feeds.states import AccountStatus, CaseState, ConnectionStatus

CLAIM_FOR = timedelta(seconds=120)
"""Twice as long as the queue lets a task live."""
FIRST_RETRY = timedelta(seconds=60)
"""Doubled with each failure, up to the connection's own interval."""
JITTER = 0.1
"""Share of the daily interval, either way: what was onboarded in one hour does not stay in one hour for ever."""
UNFINISHED = (AccountStatus.PENDING, AccountStatus.CONNECTING)


class Priority(IntEnum):
    """Why Codat is called, most important first."""

    INTERACTIVE = 0
    LINK = 1
    CASE = 2
    PENDING = 3
    HEALTHY = 4


BACKGROUND = (Priority.LINK, Priority.CASE, Priority.PENDING, Priority.HEALTHY)
"""The order in which due connections are read."""


def due(priority: Priority, now: datetime) -> QuerySet[Connection]:
    """Connections whose time has come, longest overdue first: of this priority, and for HEALTHY of any."""
    members = Connection.objects.filter(gone_at__isnull=True, poll_due_at__lte=now)
    if priority in _MEMBERS:
        members = members.filter(_MEMBERS[priority](now))
    return members.order_by("poll_due_at")


def urgent(now: datetime) -> Q:
    """Connections that the poller reads at any hour: somebody waits for them."""
    return _has_link(now) | _has_case(now)


def unsettled(now: datetime) -> Q:
    """Connections whose own status is read with their accounts, unless a listing has told it."""
    return _has_case(now) | _is_pending(now)


def claim(priority: Priority, count: int) -> list[Connection]:
    """Take up to `count` due connections for CLAIM_FOR; nobody else gets them meanwhile."""
    now = timezone.now()
    with transaction.atomic():
        taken = due(priority, now).select_related("company").select_for_update(skip_locked=True, of=("self",))
        claimed = list(taken[:count])
        Connection.objects.filter(pk__in=[connection.pk for connection in claimed]).update(poll_due_at=now + CLAIM_FOR)
    return claimed


def give_back(connections: Iterable[Connection]) -> None:
    """Claimed and not read, for no fault of theirs: due again at once."""
    Connection.objects.filter(pk__in=[connection.pk for connection in connections]).update(poll_due_at=timezone.now())


def schedule(connection: Connection) -> None:
    """After a reading of its accounts: when the next is due, by what was seen. Call in the reading's transaction."""
    now = timezone.now()
    due_at = now + _interval(priority_of(connection, now), connection, now)
    Connection.objects.filter(pk=connection.pk).update(polled_at=now, poll_due_at=due_at, poll_failures=0)


def bring_forward(company: Company) -> None:
    """After anything else that changed the company's connection, such as a new link: it is read sooner, not later."""
    now = timezone.now()
    for connection in Connection.objects.filter(company=company, gone_at__isnull=True):
        due_at = now + _interval(priority_of(connection, now), connection, now)
        later = Q(poll_due_at__isnull=True) | Q(poll_due_at__gt=due_at)
        Connection.objects.filter(later, pk=connection.pk).update(poll_due_at=due_at)


def read_soon(connection_pks: Iterable[int]) -> None:
    """These connections have changed, so their accounts may have: they are read by the next poll."""
    Connection.objects.filter(pk__in=list(connection_pks), gone_at__isnull=True).update(poll_due_at=timezone.now())


def back_off(connection: Connection) -> None:
    """After a reading that failed: later and later, but no later than its interval."""
    now = timezone.now()
    failures = min(connection.poll_failures + 1, 30)
    longest = _interval(priority_of(connection, now), connection, now)
    wait = min(FIRST_RETRY * 2 ** min(failures - 1, 16) * _around_one(), longest)
    Connection.objects.filter(pk=connection.pk).update(poll_due_at=now + wait, poll_failures=failures)


def priority_of(connection: Connection, now: datetime) -> Priority:
    """Why this connection is read in the background."""
    if connection.has_live_link(now) and link_need.is_needed(connection):
        return Priority.LINK
    if Case.objects.filter(connection=connection).exclude(state=CaseState.CLOSED).exists():
        return Priority.CASE
    if connection.status == ConnectionStatus.PENDING_AUTH or _unfinished(connection.pk).exists():
        return Priority.PENDING
    return Priority.HEALTHY


def _interval(priority: Priority, connection: Connection, now: datetime) -> timedelta:
    if priority == Priority.LINK:
        return timedelta(seconds=settings.POLL_LINK_SECONDS)
    if priority == Priority.CASE:
        return timedelta(seconds=settings.POLL_CASE_SECONDS)
    hourly_until = connection.created_at + timedelta(days=settings.POLL_PENDING_HOURLY_DAYS)
    if priority == Priority.PENDING and now < hourly_until:
        return timedelta(seconds=settings.POLL_PENDING_SECONDS)
    return timedelta(seconds=settings.POLL_HEALTHY_SECONDS) * _around_one()


def _around_one() -> float:
    return random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # jitter, not a secret


def _has_link(now: datetime) -> Q:
    return Q(link_expires_at__gt=now) & ~Q(link_url="") & link_need.needed()


def _has_case(_now: datetime) -> Q:
    return Q(Exists(Case.objects.filter(connection=OuterRef("pk")).exclude(state=CaseState.CLOSED)))


def _is_pending(_now: datetime) -> Q:
    return Q(status=ConnectionStatus.PENDING_AUTH) | Q(Exists(_unfinished(OuterRef("pk"))))


def _unfinished(connection: int | OuterRef) -> QuerySet[SourceAccount]:
    return SourceAccount.objects.filter(connection=connection, gone_at__isnull=True, status__in=UNFINISHED)


_MEMBERS = {Priority.LINK: _has_link, Priority.CASE: _has_case, Priority.PENDING: _is_pending}

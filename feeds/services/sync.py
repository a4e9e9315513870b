"""Reads status from Codat: of one company by button, of recent ones by schedule."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import audit
from feeds.audit import Actor
from feeds.codat.errors import CodatError
from feeds.codat.schemas import SourceAccount as AccountReply
from feeds.models import Company, Connection, SourceAccount
from feeds.services import gateway, health, leases, mirror, readings
from feeds.services.errors import Refused
from feeds.states import AccountStatus, ConnectionStatus

log = structlog.get_logger(__name__)

REFRESH_BUDGET = 40.0
"""Seconds after which the schedule reads no further company: a queue task lives sixty."""


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """What a reading changed, one readable line each; empty when everything was as we had it."""

    changes: list[str]


def refresh_company(company: Company, *, actor: Actor) -> RefreshResult:
    """Read the company's connection and accounts from Codat now.

    While the customer holds a live link the connection itself is read only once an account has moved: each reading of
    a connection makes a new link, and Codat may kill the older one in the customer's hands.

    Raises CodatError, and Refused when a worker holds the company or it is not in Codat.
    """
    connection = mirror.live_connection(company)
    if not company.is_in_codat or connection is None:
        raise Refused(_("This company has no connection in Codat yet. Press Onboard first."))
    with audit.acting(actor), leases.hold(company.pk):
        before = _statuses(connection)
        accounts = gateway.client().list_source_accounts(company.codat_id, connection.codat_id)
        with transaction.atomic(durable=True):
            mirror.apply_listing(connection, accounts)
        if not connection.has_live_link(timezone.now()) or _has_moved(accounts):
            _read_connections(company)
        with transaction.atomic(durable=True):
            company = Company.objects.select_for_update().get(pk=company.pk)
            readings.after_reading(company)
        connection.refresh_from_db()
        after = _statuses(connection)
    return RefreshResult(
        [f"{name}: {before.get(name) or '–'} → {now}" for name, now in after.items() if before.get(name) != now]
    )


def _has_moved(accounts: list[AccountReply]) -> bool:
    return any(reply.status not in (AccountStatus.PENDING, None) for reply in accounts)


def _read_connections(company: Company) -> None:
    replies = gateway.client().list_connections(company.codat_id)
    seen = {reply.id for reply in replies}
    with transaction.atomic(durable=True):
        company = Company.objects.select_for_update().get(pk=company.pk)
        for reply in replies:
            if reply.source_type == "BankFeed" or Connection.objects.filter(codat_id=reply.id).exists():
                mirror.apply_connection(company, reply)
        for missing in Connection.objects.filter(company=company, gone_at__isnull=True).exclude(codat_id__in=seen):
            mirror.mark_gone(missing)


def _statuses(connection: Connection) -> dict[str, str]:
    named = {_("Connection"): connection.status if connection.gone_at is None else _("gone")}
    for account in SourceAccount.objects.filter(connection=connection).order_by("pk"):
        named[account.name] = account.status if account.gone_at is None else _("gone")
    return named


def refresh_recent() -> int:
    """Read companies that were onboarded lately and are not fully connected yet, oldest reading first; how many.

    One company that fails never stops the rest; when Codat as a whole is away, the next minute tries again.
    """
    now = timezone.now()
    unfinished = ~Q(status=ConnectionStatus.LINKED) | Q(source_accounts__status__in=_UNFINISHED)
    recent = (
        Connection.objects.filter(
            unfinished,
            gone_at__isnull=True,
            company__onboarding_changed_at__gte=now - timedelta(days=settings.STATUS_REFRESH_DAYS),
        )
        .exclude(polled_at__gt=now - timedelta(seconds=settings.STATUS_REFRESH_SECONDS))
        .select_related("company")
        .order_by(F("polled_at").asc(nulls_first=True), "pk")
        .distinct()
    )
    deadline = time.monotonic() + REFRESH_BUDGET
    read = 0
    for connection in recent[:1000]:
        if time.monotonic() > deadline:
            break
        Connection.objects.filter(pk=connection.pk).update(polled_at=timezone.now())
        try:
            refresh_company(connection.company, actor=audit.current_actor())
        except (CodatError, Refused) as error:
            log.warning("refresh_not_done", company=connection.company_id, error=type(error).__name__)
            continue
        read += 1
    if read or not recent.exists():
        health.beat(health.POLL)
    return read


_UNFINISHED = (AccountStatus.PENDING, AccountStatus.CONNECTING)

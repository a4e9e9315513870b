"""Reads status from Codat: of one company by button, of recent ones by schedule."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import audit, mapping
from feeds.audit import Actor
from feeds.codat.errors import CodatError, Forbidden, NotFound, PaymentRequired, Unauthorized
from feeds.codat.schemas import SourceAccount as AccountReply
from feeds.models import Company, Connection, SourceAccount
from feeds.services import gateway, health, leases, mirror
from feeds.services.errors import Refused
from feeds.states import AccountStatus, ConnectionStatus

log = structlog.get_logger(__name__)

REFRESH_BUDGET = 12.0
"""Seconds after which the schedule reads no further company: the longest call still ends within the queue's sixty."""


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """What a reading changed, one readable line each; empty when everything was as we had it."""

    changes: list[str]


def refresh_company(company: Company, *, actor: Actor, patience: float = 3.0) -> RefreshResult:
    """Read the company's connection and accounts from Codat now.

    While the customer holds a live link the connection itself is read only once an account shows that the link has
    served: each reading of a connection makes a new link, and Codat may kill the older one in the customer's hands.

    Raises CodatError, and Refused when a worker holds the company for more than `patience` seconds or it is not in
    Codat.
    """
    if not company.is_in_codat:
        raise Refused(_("This company is not in Codat yet. Press Onboard first."))
    with audit.acting(actor), leases.hold(company.pk, patience=patience) as token:
        before = _statuses(company)
        if _read_accounts(company, token):
            _read_connections(company, token)
        after = _statuses(company)
    return RefreshResult(
        [f"{key[0]}: {before.get(key) or '–'} → {now}" for key, now in after.items() if before.get(key) != now]
    )


def _read_accounts(company: Company, token: uuid.UUID) -> bool:
    """Read the accounts of the live connection; whether the connection has to be read as well."""
    connection = mirror.live_connection(company)
    if connection is None:
        return True
    try:
        replies = gateway.client().list_source_accounts(company.codat_id, connection.codat_id)
    except NotFound:
        return True  # the list of connections tells whether it is the connection or the company that is gone
    link_is_out = connection.has_live_link(timezone.now()) and not _has_served(connection, replies)
    with transaction.atomic(durable=True):
        leases.lock(company.pk, token)
        mirror.apply_listing(connection, replies)
    return not link_is_out


def _has_served(connection: Connection, replies: list[AccountReply]) -> bool:
    """Whether the accounts say that the customer has used the link: one is connected that was not, or anew.

    An account can stay `connected` on a connection that was unlinked; on one that was never linked it cannot.
    """
    held = {account.account_id: account for account in SourceAccount.objects.filter(connection=connection)}
    for reply in replies:
        if reply.status != AccountStatus.CONNECTED:
            continue
        account = held.get(reply.id)
        was_connected = account is not None and account.status == AccountStatus.CONNECTED
        same_feed = account is not None and account.feed_start_date == reply.feed_start_date
        if connection.status == ConnectionStatus.PENDING_AUTH or not (was_connected and same_feed):
            return True
    return False


def _read_connections(company: Company, token: uuid.UUID) -> None:
    """Read the list of connections, which is complete: the one we hold is gone when it is not there."""
    leases.renew(company.pk, token)
    try:
        replies = gateway.client().list_connections(company.codat_id)
    except NotFound:
        if _is_listed(company, token):
            raise
        with transaction.atomic(durable=True):
            mirror.mark_company_gone(leases.lock(company.pk, token))
        return
    with transaction.atomic(durable=True):
        company = leases.lock(company.pk, token)
        connection = mirror.live_connection(company)
        if connection is not None and all(reply.id != connection.codat_id for reply in replies):
            mirror.mark_connection_gone(connection)
            connection = None
        for reply in filter(mapping.is_bank_feed, replies):
            if connection is None or reply.id == connection.codat_id:
                connection = mirror.apply_connection(company, reply)
        mirror.settle_onboarding(company)


def _is_listed(company: Company, token: uuid.UUID) -> bool:
    """Whether Codat's list has the company: one refused reading is no proof that it is gone."""
    leases.renew(company.pk, token)
    found = gateway.client().find_companies_by_tag(mapping.UID_TAG, str(company.uid))
    return any(reply.id == company.codat_id for reply in found)


def _statuses(company: Company) -> dict[tuple[str, int], str]:
    """What is shown of a reading: the connection's status, and each account's (names need not be unique)."""
    connection = mirror.live_connection(company) or company.connections.order_by("pk").last()
    named = {(_("Connection"), 0): _shown(connection)} if connection else {}
    accounts = company.source_accounts.order_by("pk")
    return named | {(account.name, account.pk): _shown(account) for account in accounts}


def _shown(row: Connection | SourceAccount) -> str:
    if row.gone_at is not None:
        return _("gone")
    return str(row.status_meaning.label)


def refresh_recent() -> int:
    """Read companies that were onboarded lately and are not fully connected yet, oldest reading first; how many.

    One company that is refused never stops the rest; when Codat is away, the next minute goes on with the others.
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
    is_well = True
    for connection in recent[:1000]:
        if time.monotonic() > deadline:
            break
        if not _is_mine(connection):
            continue
        try:
            refresh_company(connection.company, actor=audit.current_actor(), patience=0)
        except Refused:
            continue  # a worker is on it
        except CodatError as error:
            log.warning("refresh_not_done", company=connection.company_id, error=type(error).__name__)
            if error.retryable:  # Codat as a whole may be away: waiting for it once is enough
                is_well = False
                break
            is_well = is_well and not isinstance(error, Unauthorized | PaymentRequired | Forbidden)
            continue
        read += 1
    if read or is_well:
        health.beat(health.POLL)
    return read


def _is_mine(connection: Connection) -> bool:
    """Take a company for this run, against a run that overlaps: the schedule starts every minute, whatever happens."""
    polled = Connection.objects.filter(pk=connection.pk, polled_at=connection.polled_at)
    return polled.update(polled_at=timezone.now()) == 1


_UNFINISHED = (AccountStatus.PENDING, AccountStatus.CONNECTING)

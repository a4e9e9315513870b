"""Reads statuses from Codat, one company at a time: by button, by webhook, and by the poller when they are due."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import audit, queue
from feeds.audit import Actor
from feeds.codat.client import CodatClient
from feeds.codat.errors import (
    CodatError,
    LimiterBusy,
    NotFound,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    Unreachable,
)
from feeds.codat.schemas import SourceAccount as AccountReply
from feeds.models import Company, Connection, SourceAccount
from feeds.services import budget, gateway, health, leases, mirror, polling, readings, sweep
from feeds.services.errors import Refused
from feeds.services.polling import BACKGROUND, Priority
from feeds.states import AccountStatus, SeenBy

log = structlog.get_logger(__name__)

POLL_SECONDS = 20.0
"""After so long a poll begins no further reading: the slowest is two calls, and a queue task lives sixty seconds."""
CLAIM = 10
"""Connections claimed at once: few, so that workers share evenly, and what a killed one held is soon read."""
PATIENCE = timedelta(seconds=3)
"""How long another task waits for a worker before a poll gives way to it."""
CALLS_EACH = 2
"""Calls that one reading takes at most, when nothing has to be tried again."""
CODAT_IS_CLOSED = (Unreachable, RateLimited, LimiterBusy, Unauthorized, PaymentRequired)
"""Errors that every other connection would meet as well: the poll ends, and nobody is blamed."""

sweep_listing = sweep.sweep_listing


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """What a reading changed, one readable line each; empty when everything was as we had it."""

    changes: list[str]


def refresh_company(company: Company, *, actor: Actor) -> RefreshResult:
    """Read the company now, because a person asks. Raises as `read_company` does."""
    with audit.acting(actor):
        return read_company(company, how=SeenBy.ACTION)


def read_company(
    company: Company, *, how: SeenBy, reference: str = "", connection_listed: bool = False
) -> RefreshResult:
    """Read the company's accounts and connection from Codat, and do what follows from them.

    `how` and `reference` (a webhook's id) go into the timeline. `connection_listed`: the connection's status is known
    from the complete listing, so it is read only when an account has changed.

    While the customer holds a live link the connection itself is read only once an account has moved: each reading of
    a connection makes a new link, and Codat may kill the older one in the customer's hands.

    Raises CodatError, and Refused when a worker holds the company or it is not in Codat.
    """
    connection = mirror.live_connection(company)
    if not company.is_in_codat or connection is None:
        raise Refused(_("This company has no connection in Codat yet. Press Onboard first."))
    is_poll = how == SeenBy.POLL
    client = gateway.background_client() if is_poll else gateway.client()
    with leases.hold(company.pk, patience=0.0 if is_poll else 3.0), mirror.seen_by(how, reference):
        before = _statuses(connection)
        accounts = _read_accounts(client, connection)
        if connection.has_live_link(timezone.now()):
            needs_connection = accounts is None or _has_moved(accounts)
        else:
            needs_connection = not connection_listed or accounts is None or _statuses(connection) != before
        if needs_connection:
            _read_connections(client, company, keep_new_link=how == SeenBy.ACTION)
        with transaction.atomic(durable=True):
            company = Company.objects.select_for_update().get(pk=company.pk)
            readings.after_reading(company)
            connection.refresh_from_db()
            polling.schedule(connection)
        if accounts is None and connection.gone_at is None:
            # Nothing is known of the accounts, so this was no reading, whatever else was learned.
            raise NotFound("Codat lists the connection and does not find its accounts", status=404)
        after = _statuses(connection)
    return RefreshResult(
        [f"{name}: {before.get(name) or '–'} → {now}" for name, now in after.items() if before.get(name) != now]
    )


def _read_accounts(client: CodatClient, connection: Connection) -> list[AccountReply] | None:
    """Read and write the accounts; None when Codat does not know the connection, which is for a listing to settle."""
    try:
        accounts = client.list_source_accounts(connection.company.codat_id, connection.codat_id)
    except NotFound:
        return None
    with transaction.atomic(durable=True):
        Company.objects.select_for_update().get(pk=connection.company_id)
        mirror.apply_listing(connection, accounts)
    return accounts


def _has_moved(accounts: list[AccountReply]) -> bool:
    return any(reply.status not in (AccountStatus.PENDING, None) for reply in accounts)


def _read_connections(client: CodatClient, company: Company, *, keep_new_link: bool) -> None:
    replies = client.list_connections(company.codat_id)
    seen = {reply.id for reply in replies}
    with transaction.atomic(durable=True):
        company = Company.objects.select_for_update().get(pk=company.pk)
        held = {connection.codat_id: connection for connection in Connection.objects.filter(company=company)}
        for codat_id, connection in held.items():
            if codat_id not in seen and connection.gone_at is None:
                mirror.mark_gone(connection)
        for reply in replies:
            mirror.apply_listed_connection(company, held.get(reply.id), reply, keep_new_link=keep_new_link)


def _statuses(connection: Connection) -> dict[str, str]:
    named = {_("Connection"): connection.status if connection.gone_at is None else _("gone")}
    for account in SourceAccount.objects.filter(connection=connection).order_by("pk"):
        named[account.name] = account.status if account.gone_at is None else _("gone")
    return named


# --- The poller ------------------------------------------------------------------------------------------------------
def poll() -> int:
    """Read the connections that are due, most important first, for some seconds and within the budget; how many.

    A connection that fails is read later and never stops the rest. Safe to run in any number of workers at once.
    """
    deadline = time.monotonic() + POLL_SECONDS
    listed_at = sweep.listed_at()
    read = failed = 0
    with closing(_claimed_in_turn(deadline)) as claimed:
        for priority, connection in claimed:
            try:
                read_company(connection.company, how=SeenBy.POLL, connection_listed=_is_listed(priority, listed_at))
            except CODAT_IS_CLOSED as error:
                log.warning("poll_stopped", error=type(error).__name__)
                polling.give_back([connection])
                failed += 1
                break
            except (CodatError, Refused) as error:
                log.warning("poll_failed", connection=connection.pk, error=type(error).__name__)
                polling.back_off(connection)
                failed += 1
            except Exception:
                log.exception("poll_errored", connection=connection.pk)
                polling.back_off(connection)
                failed += 1
            else:
                read += 1
    if read or not failed:
        health.beat(health.POLL)
    if read and time.monotonic() > deadline and not _others_wait():
        queue.enqueue(queue.POLL)
    return read


def wake() -> bool:
    """Queue a poll when a link that is out has to be looked at; whether it was. For callers more often than a minute.

    The schedule alone would be late by up to a minute, which is much of the two that a live link may wait.
    """
    is_due = polling.due(Priority.LINK, timezone.now()).exists()
    if is_due and not queue.waiting_count(0):
        queue.enqueue(queue.POLL)
        return True
    return False


def _is_listed(priority: Priority, listed_at: datetime | None) -> bool:
    """Whether a listing as of `listed_at` is fresh enough to spare a connection of this priority its own reading."""
    limit = settings.POLL_HEALTHY_SECONDS if priority == Priority.HEALTHY else settings.POLL_PENDING_SECONDS
    return listed_at is not None and timezone.now() - listed_at <= timedelta(seconds=limit) * (1 + polling.JITTER)


def _claimed_in_turn(deadline: float) -> Generator[tuple[Priority, Connection], None, None]:
    """Due connections, claimed a few at a time. Close it, and what was claimed and not taken is given back.

    Between claims it gives way to whatever else waits for a worker.
    """
    for priority in BACKGROUND:
        while time.monotonic() < deadline and budget.may_spend(priority, CLAIM * CALLS_EACH):
            waiting = polling.claim(priority, CLAIM)
            if not waiting:
                break
            try:
                while waiting and time.monotonic() < deadline:
                    yield priority, waiting.pop(0)
            finally:
                polling.give_back(waiting)
            if _others_wait():
                return


def _others_wait() -> bool:
    """Whether some task has found no worker for longer than a free one would take to fetch it."""
    since = queue.oldest_waiting_since()
    return since is not None and since < timezone.now() - PATIENCE

"""Reads statuses from Codat, one company at a time: by button, by webhook, and by the poller when they are due."""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import audit, mapping, queue
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
from feeds.services import budget, gateway, health, leases, link_need, mirror, polling, presence, readings, sweep
from feeds.services.errors import Refused
from feeds.services.polling import BACKGROUND, Priority
from feeds.states import AccountStatus, ConnectionStatus, SeenBy

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


_Statuses = dict[tuple[str, int], str]


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """What a reading changed, one readable line each; empty when everything was as we had it."""

    changes: list[str]


def refresh_company(company: Company, *, actor: Actor, patience: float = 3.0) -> RefreshResult:
    """Read the company now, because a person asks. Raises as `read_company` does."""
    before = _statuses(company)
    with audit.acting(actor):
        try:
            return read_company(company, how=SeenBy.ACTION, patience=patience)
        except NotFound:
            if presence.settle(company, how=SeenBy.ACTION):
                raise  # Codat has the company and did not find what it has: it contradicts itself
    return _difference(before, _statuses(company))


def read_company(
    company: Company,
    *,
    how: SeenBy,
    reference: str = "",
    connection_listed: bool = False,
    patience: float | None = None,
) -> RefreshResult:
    """Read the company's accounts and connection from Codat, and do what follows from them.

    `how` and `reference` (a webhook's id) go into the timeline. `connection_listed`: the connection's status is known
    from the complete listing, so it is read only when an account has changed. `patience`: seconds to wait for a worker
    that holds the company; a poll waits for nobody.

    While the customer holds a live link the connection itself is read only once an account shows that the link has
    served: each reading of a connection makes a new link, and Codat may kill the older one in the customer's hands.

    Raises CodatError, and Refused when a worker holds the company for more than `patience` seconds or it is not in
    Codat.
    """
    if not company.is_in_codat:
        raise Refused(_("This company is not in Codat yet. Press Onboard first."))
    is_poll = how == SeenBy.POLL
    if patience is None:
        patience = 0.0 if is_poll else 3.0
    client = gateway.background_client() if is_poll else gateway.client()
    with leases.hold(company.pk, patience=patience) as token, mirror.seen_by(how, reference):
        before = _statuses(company)
        connection = mirror.live_connection(company)
        accounts = None if connection is None else _read_accounts(client, connection, token)
        changed = _statuses(company) != before
        if accounts is None or (not accounts.link_is_out and (changed or not connection_listed)):
            _read_connections(client, company, token, keep_new_link=how == SeenBy.ACTION)
        with transaction.atomic(durable=True):
            readings.after_reading(leases.lock(company.pk, token))
            if connection is not None:
                connection.refresh_from_db()
                polling.schedule(connection)
        if connection is not None and accounts is None and connection.gone_at is None:
            # Nothing is known of the accounts, so this was no reading, whatever else was learned.
            raise NotFound("Codat lists the connection and does not find its accounts", status=404)
        after = _statuses(company)
    return _difference(before, after)


def _difference(before: _Statuses, after: _Statuses) -> RefreshResult:
    return RefreshResult(
        [f"{key[0]}: {before.get(key) or '–'} → {now}" for key, now in after.items() if before.get(key) != now]
    )


@dataclass(frozen=True, slots=True)
class _AccountsRead:
    """What reading the accounts told. `link_is_out`: the customer holds a live link that has not served yet."""

    link_is_out: bool


def _read_accounts(client: CodatClient, connection: Connection, token: uuid.UUID) -> _AccountsRead | None:
    """Read and write the accounts; None when Codat does not know the connection, which is for a listing to settle."""
    company = connection.company
    try:
        replies = client.list_source_accounts(company.codat_id, connection.codat_id)
    except NotFound:
        return None
    link_is_out = connection.has_live_link(timezone.now()) and not _has_served(connection, replies)
    with transaction.atomic(durable=True):
        leases.lock(company.pk, token)
        mirror.apply_listing(connection, replies)
    return _AccountsRead(link_is_out)


def _has_served(connection: Connection, replies: list[AccountReply]) -> bool:
    """Whether the accounts say that the customer has used the link: one is connected that was not, or anew.

    On a connection that we hold as Linked the link is for the accounts that QuickBooks no longer reads: it has served
    when the last of them is connected again. Until then the customer needs it, and may have it open.

    An account can stay `connected` on a connection that was unlinked; on one that was never linked it cannot. One that
    has fallen silent since we last looked was connected in between.
    """
    if connection.status == ConnectionStatus.LINKED:
        return all(reply.status != AccountStatus.DISCONNECTED for reply in replies)
    held = {account.account_id: account for account in SourceAccount.objects.filter(connection=connection)}
    was_never_linked = connection.status == ConnectionStatus.PENDING_AUTH
    for reply in replies:
        account = held.get(reply.id)
        is_as_held = account is not None and account.status == reply.status
        if reply.status == AccountStatus.CONNECTED:
            same_feed = account is not None and account.feed_start_date == reply.feed_start_date
            if was_never_linked or not (is_as_held and same_feed):
                return True
        elif reply.status == AccountStatus.DISCONNECTED and was_never_linked and not is_as_held:
            return True
    return False


def _read_connections(client: CodatClient, company: Company, token: uuid.UUID, *, keep_new_link: bool) -> None:
    """Read the list of connections, which is complete: one that we hold is gone when it is not there."""
    leases.renew(company.pk, token)
    replies = client.list_connections(company.codat_id)
    seen = {reply.id for reply in replies}
    with transaction.atomic(durable=True):
        company = leases.lock(company.pk, token)
        held = {connection.codat_id: connection for connection in Connection.objects.filter(company=company)}
        for codat_id, connection in held.items():
            if codat_id not in seen and connection.gone_at is None:
                mirror.mark_gone(connection)
        for reply in filter(mapping.is_bank_feed, replies):
            mirror.apply_listed_connection(company, held.get(reply.id), reply, keep_new_link=keep_new_link)


def _statuses(company: Company) -> _Statuses:
    """What is shown of a reading: the connection's status, and each account's (names need not be unique)."""
    connection = mirror.live_connection(company) or company.connections.order_by("pk").last()
    named = {(_("Connection"), 0): _shown(connection)} if connection else {}
    accounts = company.source_accounts.order_by("pk")
    return named | {(account.name, account.pk): _shown(account) for account in accounts}


def _shown(row: Connection | SourceAccount) -> str:
    return str(row.status_meaning.label)


class NoLinkHeld(Refused):
    """The link that the caller saw is gone, or about to run out, and Codat was not to be asked."""


def hand_over_link(
    company: Company,
    connection: Connection,
    *,
    actor: Actor,
    reuse_for: timedelta,
    patience: float,
    may_ask: bool = True,
) -> str:
    """A link for the customer who waits for it now: the one we hold if it lives `reuse_for` longer, else a fresh one.

    Asks only when it must, because a fresh link may kill the one that the customer has open. Raises CodatError, and
    Refused when somebody holds the company for more than `patience` seconds, or when Codat gives no link; NoLinkHeld
    when it must and not `may_ask`.
    """
    held = leases.hold(company.pk, patience=patience)
    with audit.acting(actor), held as token, mirror.seen_by(SeenBy.ACTION):
        connection.refresh_from_db()
        if not connection.has_live_link(timezone.now() + reuse_for):
            if not may_ask:
                raise NoLinkHeld(_("Codat gave no link for this connection."))
            _fetch_link(company, connection, token)
        if not connection.has_live_link(timezone.now()) and link_need.is_needed(connection):
            # The first reading showed it Linked, and there are accounts left: the second one keeps their link.
            _fetch_link(company, connection, token)
        if not connection.has_live_link(timezone.now()):
            raise Refused(_("Codat gave no link for this connection."))
        with transaction.atomic():
            audit.record("link_handed_over", connection)
            Connection.objects.filter(pk=connection.pk).update(link_shown_at=timezone.now())
            polling.bring_forward(company)
        return connection.link_url


def _fetch_link(company: Company, connection: Connection, token: uuid.UUID) -> None:
    _read_connections(gateway.customer_client(), company, token, keep_new_link=True)
    with transaction.atomic(durable=True):
        readings.after_reading(leases.lock(company.pk, token))
    connection.refresh_from_db()


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

"""Brings the status of every connection up to date from Codat's list of companies, which embeds them.

A hundred thousand statuses cost twenty calls. Nearly none of them has changed since the last time, so the decoded page
is compared with a few columns of our rows, and only what differs is read, locked and written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Case, Q, TextField, Value, When
from django.db.models.functions import Cast
from django.utils import timezone

from feeds import queue
from feeds.codat import schemas
from feeds.codat.errors import IncompleteListing
from feeds.models import Company, Connection, ListingWalk
from feeds.services import listing, mirror, polling, quiet, readings
from feeds.services.listing import Outcome
from feeds.services.polling import Priority
from feeds.states import SeenBy

log = structlog.get_logger(__name__)

NAME = "sweep"
ONE_TRANSACTION = 200
"""Changed companies written together: enough to be quick, few enough that nobody waits long for their locks."""
BELIEVABLE_LOSS = 10
"""So many companies may be gone at once. More, when it is also more than half of all, is the wrong key or a fault."""


def sweep_listing() -> str:
    """Begin or go on with a sweep, for some seconds; queues its own continuation. A short report for the queue's log.

    Raises nothing for Codat's sake: a list that cannot be completed is begun anew after some minutes.
    """
    outcome = listing.run(Sweep())
    if outcome == Outcome.PAUSED:
        queue.enqueue(queue.SWEEP)
    if outcome == Outcome.WAITING:  # nothing is on its way, so nobody may count on it
        ListingWalk.objects.filter(name=NAME).update(retry_at=None)
    return outcome.value


def listed_at() -> datetime | None:
    """As of when all connections' statuses are known from a listing, or will be by one that this call has queued.

    One is queued each day, and in between when it costs fewer calls than reading each connection that is due. While a
    customer holds a link the daily one waits (see `quiet`) and no other is made: a listing makes new links, and Codat
    may end those handed out. Statuses that grow old meanwhile are read one by one, with their accounts.
    """
    now = timezone.now()
    walk, _created = ListingWalk.objects.get_or_create(name=NAME)
    if walk.retry_at is not None and walk.retry_at > now:
        return walk.complete_as_of if walk.error else now
    if not _is_worth_it(walk, now):
        return walk.complete_as_of
    if not listing.is_under_way(NAME) and not quiet.is_time(NAME):
        return walk.complete_as_of
    free = Q(retry_at__isnull=True) | Q(retry_at__lte=now)
    if ListingWalk.objects.filter(free, name=NAME).update(retry_at=now + listing.RETRY_AFTER, error=""):
        queue.enqueue(queue.SWEEP)
    return now


def _is_worth_it(walk: ListingWalk, now: datetime) -> bool:
    age = now - walk.complete_as_of if walk.complete_as_of else timedelta.max
    if age < timedelta(seconds=settings.POLL_PENDING_SECONDS):
        return False
    companies = walk.total or Company.objects.exclude(codat_id="").count()
    if age >= timedelta(seconds=settings.POLL_HEALTHY_SECONDS):
        return companies > 0
    pages = -(-companies // listing.PAGE_SIZE)
    due = polling.due(Priority.HEALTHY, now).filter(polling.unsettled(now))
    return not quiet.handed_out(now).exists() and due[: pages + 1].count() > pages


NOTHING = "[]"
"""The JSON of no errors."""


class _Row(NamedTuple):
    """What we hold of one company and one of its connections, as far as a listing shows it."""

    company_pk: int
    company_id: str
    name: str
    connection_pk: int | None
    connection_id: str | None
    status: str | None
    last_sync: str | None
    special: str | None

    def differs(self, there: Mapping[str, Any]) -> bool:
        """Whether a decoded connection is not as we hold it. What is not compared never changes without these."""
        if self.status != there.get("status") or self.special != NOTHING or there.get("dataConnectionErrors"):
            return True
        last_sync = there.get("lastSync")
        if self.last_sync is None or not isinstance(last_sync, str):
            return self.last_sync is not None or last_sync is not None
        # Up to the second: the database's text of a time is not Codat's.
        return self.last_sync[:10] != last_sync[:10] or self.last_sync[11:19] != last_sync[11:19]


class Sweep:
    """Writes what changed while it walks, and what is gone at the end."""

    name = NAME

    def __init__(self) -> None:
        self._known = 0
        self._missing: list[int | None] = []

    def begin(self, started_at: datetime) -> None:
        """Nothing to prepare."""

    def visit(self, companies: Sequence[dict[str, Any]], read_at: datetime) -> None:
        """Compare a page with our rows; write the companies that differ."""
        rows = _rows([company["id"] for company in companies])
        ours = {row.company_id: row for row in rows}
        held = {row.connection_id: row for row in rows if row.connection_id is not None}
        changed: list[tuple[int, dict[str, Any]]] = []
        for company in companies:
            row = ours.get(company["id"])
            if row is None:
                continue  # not ours: the nightly comparison offers to adopt it
            differs = row.name != company.get("name")
            for there in company.get("dataConnections") or ():
                connection = held.pop(there.get("id"), None)
                if connection is not None:
                    differs = differs or connection.differs(there)
                elif there.get("sourceType") == mirror.BANK_FEED:
                    differs = True
            if differs:
                changed.append((row.company_pk, company))
        self._known += len(ours)
        self._missing += [row.connection_pk for row in held.values()]
        # In one order, so that two sweeps never wait for each other's rows.
        changed.sort(key=lambda pair: pair[0])
        rest = iter(changed)
        while chunk := list(islice(rest, ONE_TRANSACTION)):
            _write(chunk, read_at)

    def commit(self, walk: ListingWalk) -> None:
        """Count our companies of this page, and remember the connections that they no longer have."""
        walk.known += self._known
        walk.missing_connections += self._missing
        self._known = 0
        self._missing.clear()

    def finish(self, walk: ListingWalk, seen: set[int]) -> None:
        """Mark what is gone. A reading that is newer than the walk knows better."""
        for pk in _lost_companies(walk, seen):
            _mark_company_gone(pk)
        gone = Connection.objects.filter(_older(walk), pk__in=walk.missing_connections, gone_at__isnull=True)
        for pk, company_pk in gone.values_list("pk", "company_id"):
            _mark_connection_gone(pk, company_pk)

    def abandon(self, message: str) -> None:
        """Nothing to undo: what was written is true, and nothing was concluded from what is missing."""


def _rows(codat_ids: Sequence[str]) -> list[_Row]:
    """Our rows of a page, one for each connection: one query, no model, and no column that Django has to convert."""
    # The exclusion matches nothing more; it lets the database use the index, which has it as its condition.
    companies = Company.objects.filter(codat_id__one_of=json.dumps(codat_ids)).exclude(codat_id="").order_by()
    found = companies.values_list(
        "pk",
        "codat_id",
        "codat_name",
        "connections__pk",
        "connections__codat_id",
        "connections__status",
        Cast("connections__last_sync_at", TextField()),
        _special(),
    )
    return [_Row._make(row) for row in found]


def _special() -> Case:
    """NOTHING, or a reason why the mirror has to look whatever Codat shows: errors, a link that is out, it was gone."""
    gone = Q(gone_at__isnull=False) | Q(connections__gone_at__isnull=False)
    link = ~Q(connections__link_url="") & Q(connections__link_expires_at__gt=timezone.now())
    errors = Cast("connections__errors", TextField())
    cases = (When(gone, then=Value("gone")), When(link, then=Value("link")))
    return Case(*cases, default=errors, output_field=TextField())


def _write(changed: Sequence[tuple[int, dict[str, Any]]], read_at: datetime) -> None:
    """Write some companies in one transaction; if that fails each alone, so that one never stops the rest."""
    try:
        with transaction.atomic(durable=True), mirror.seen_by(SeenBy.POLL):
            _write_together(dict(changed), read_at)
    except Exception:
        if len(changed) == 1:
            log.exception("sweep_row_errored", company=changed[0][0])
            return
        for one in changed:
            _write([one], read_at)


_OF_A_COMPANY = ("codat_id", "codat_name", "gone_at", "read_at", "onboarding_state", "onboarding_error", "legal_name")
"""What is looked at where only its connection has changed; the rest is fetched when it is needed."""


def _write_together(changed: Mapping[int, dict[str, Any]], read_at: datetime) -> None:
    ours = Company.objects.select_for_update().filter(pk__in=changed).only(*_OF_A_COMPANY)
    companies = {company.pk: company for company in ours}
    held: dict[int, dict[str, Connection]] = {pk: {} for pk in companies}
    for connection in Connection.objects.filter(company__in=companies).order_by("pk"):
        connection.company = companies[connection.company_id]
        held[connection.company_id][connection.codat_id] = connection
    before = {connection.pk: connection.status for ours in held.values() for connection in ours.values()}
    with mirror.together():
        for pk, company in companies.items():
            if company.gone_at is not None or company.codat_name != changed[pk].get("name"):
                mirror.apply_company(company, schemas.company(changed[pk], read_at))
            for item in changed[pk].get("dataConnections") or ():
                there = schemas.connection(item, read_at)
                mirror.apply_listed_connection(company, held[pk].get(there.id), there, keep_new_link=False)
    readings.after_readings([(company, held[pk].values()) for pk, company in companies.items()])
    connections = [connection for ours in held.values() for connection in ours.values()]
    polling.read_soon(it.pk for it in connections if it.status != before[it.pk])


def _older(walk: ListingWalk) -> Q:
    """Rows that no reading has touched since the walk began."""
    return Q(read_at__isnull=True) | Q(read_at__lt=walk.started_at)


def _lost_companies(walk: ListingWalk, seen: set[int]) -> list[int]:
    """Keys of our companies that the complete list does not have. Raises IncompleteListing when they are too many."""
    ours = Company.objects.filter(gone_at__isnull=True).exclude(codat_id="").order_by()
    held = ours.count()
    if held == walk.known:
        return []
    rows = ours.filter(_older(walk)).values_list("pk", "codat_id").iterator(chunk_size=listing.PAGE_SIZE)
    lost = [pk for pk, codat_id in rows if listing.key(codat_id) not in seen]
    if len(lost) > max(BELIEVABLE_LOSS, held // 2):
        raise IncompleteListing(f"GET of a listing: {len(lost)} of our {held} companies are not on it")
    return lost


def _mark_company_gone(pk: int) -> None:
    with transaction.atomic(durable=True), mirror.seen_by(SeenBy.POLL):
        company = Company.objects.select_for_update().get(pk=pk)
        mirror.mark_gone(company)
        for connection in Connection.objects.filter(company=company, gone_at__isnull=True):
            mirror.mark_gone(connection)
        readings.after_reading(company)


def _mark_connection_gone(pk: int, company_pk: int) -> None:
    with transaction.atomic(durable=True), mirror.seen_by(SeenBy.POLL):
        company = Company.objects.select_for_update().get(pk=company_pk)
        mirror.mark_gone(Connection.objects.get(pk=pk))
        readings.after_reading(company)

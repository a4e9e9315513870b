"""Brings the status of every connection up to date from Codat's list of companies, which embeds them.

A hundred thousand statuses cost twenty calls. Nearly none of them has changed since the last time, so the decoded page
is compared with a few columns of our rows, and only what differs is read, locked and written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q, TextField
from django.db.models.expressions import Combinable
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.utils import timezone

from feeds import queue
from feeds.codat import schemas
from feeds.codat.errors import IncompleteListing
from feeds.models import Company, Connection, ListingWalk
from feeds.services import listing, mirror, polling, readings
from feeds.services.listing import Outcome
from feeds.services.polling import Priority
from feeds.states import ConnectionStatus, SeenBy

log = structlog.get_logger(__name__)

NAME = "sweep"
ONE_TRANSACTION = 50
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
    return outcome.value


def listed_at() -> datetime | None:
    """As of when all connections' statuses are known from a listing, or will be by one that this call has queued.

    One is queued each day, and in between when it costs fewer calls than reading each connection that is due. While a
    customer holds a link only the daily one is: a listing makes new links, and Codat may kill those handed out.
    """
    now = timezone.now()
    walk, _created = ListingWalk.objects.get_or_create(name=NAME)
    if walk.retry_at is not None and walk.retry_at > now:
        return walk.complete_as_of if walk.error else now
    if not _is_worth_it(walk, now):
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
    return not polling.links_out(now) and due[: pages + 1].count() > pages


_COMPARED = ("status", "integrationId", "integrationKey", "sourceId", "sourceType", "platformName", "lastSync")


@dataclass(frozen=True, slots=True)
class _HeldConnection:
    """`values`: what we hold of `_COMPARED`, as Codat sent it; `errors`: the JSON of its errors."""

    pk: int
    values: tuple[str | None, ...]
    errors: str
    is_gone: bool
    has_link: bool

    def differs(self, there: Mapping[str, Any]) -> bool:
        """Whether the decoded connection says anything else than we hold. "Yes" may be wrong, "no" never is."""
        if self.is_gone or self.has_link or there.get("dataConnectionErrors") or self.errors != "[]":
            return True
        return tuple([there.get(name) for name in _COMPARED]) != self.values


@dataclass(slots=True)
class _Held:
    """What we hold of one company of the page."""

    pk: int
    name: str
    is_gone: bool
    connections: dict[str, _HeldConnection] = field(default_factory=dict)

    def differs(self, there: Mapping[str, Any]) -> bool:
        """Whether the decoded company, or one of its connections, is not as we hold it."""
        if self.is_gone or self.name != there.get("name"):
            return True
        return any(self._connection_differs(connection) for connection in _connections(there))

    def _connection_differs(self, there: Mapping[str, Any]) -> bool:
        ours = self.connections.get(str(there.get("id")))
        if ours is not None:
            return ours.differs(there)
        is_adoptable = all(connection.is_gone for connection in self.connections.values())
        return is_adoptable and there.get("sourceType") == mirror.BANK_FEED

    def missing(self, there: Mapping[str, Any]) -> Iterator[int]:
        """Keys of our connections that the decoded company does not have."""
        if not self.connections:
            return
        ids = {connection.get("id") for connection in _connections(there)}
        for codat_id, connection in self.connections.items():
            if codat_id not in ids and not connection.is_gone:
                yield connection.pk


def _connections(company: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found = company.get("dataConnections")
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else ()


class Sweep:
    """Writes what changed while it walks, and what is gone at the end."""

    name = NAME

    def __init__(self) -> None:
        self._missing: list[int] = []

    def begin(self, started_at: datetime) -> None:
        """Nothing to prepare."""

    def visit(self, companies: Sequence[dict[str, Any]], read_at: datetime) -> None:
        """Compare a page with our rows; write the companies that differ."""
        held = _held([company["id"] for company in companies])
        changed: list[tuple[int, dict[str, Any]]] = []
        for company in companies:
            ours = held.get(company["id"])
            if ours is None:
                continue  # not ours: the nightly comparison offers to adopt it
            self._missing.extend(ours.missing(company))
            if ours.differs(company):
                changed.append((ours.pk, company))
        # In one order, so that two sweeps never wait for each other's rows.
        changed.sort(key=lambda pair: pair[0])
        rest = iter(changed)
        while chunk := list(islice(rest, ONE_TRANSACTION)):
            _write(chunk, read_at)

    def commit(self, walk: ListingWalk) -> None:
        """Remember the connections that this page's companies no longer have."""
        walk.missing_connections += self._missing
        self._missing.clear()

    def finish(self, walk: ListingWalk, seen: set[int]) -> None:
        """Mark what is gone. A reading that is newer than the walk knows better."""
        older = Q(read_at__isnull=True) | Q(read_at__lt=walk.started_at)
        ours = Company.objects.filter(older, gone_at__isnull=True).exclude(codat_id="").order_by()
        held = 0
        lost: list[int] = []
        for pk, codat_id in ours.values_list("pk", "codat_id").iterator(chunk_size=listing.PAGE_SIZE):
            held += 1
            if listing.key(codat_id) not in seen:
                lost.append(pk)
        if len(lost) > max(BELIEVABLE_LOSS, held // 2):
            raise IncompleteListing(f"GET of a listing: {len(lost)} of our {held} companies are not on it")
        for pk in lost:
            _mark_company_gone(pk)
        gone = Connection.objects.filter(older, pk__in=walk.missing_connections, gone_at__isnull=True)
        for pk, company_pk in gone.values_list("pk", "company_id"):
            _mark_connection_gone(pk, company_pk)

    def abandon(self, message: str) -> None:
        """Nothing to undo: what was written is true, and nothing was concluded from what is missing."""


def _held(codat_ids: Sequence[str]) -> dict[str, _Held]:
    """Our companies of a page, with their connections, in one query and no model."""
    now = timezone.now()
    found: dict[str, _Held] = {}
    rows = Company.objects.filter(codat_id__in=codat_ids).order_by()
    for (
        pk,
        codat_id,
        name,
        gone_at,
        connection_pk,
        connection_id,
        connection_gone_at,
        link_url,
        expires_at,
        errors,
        *values,
    ) in rows.values_list("pk", "codat_id", "codat_name", "gone_at", *_COLUMNS):
        company = found.get(codat_id)
        if company is None:
            company = found[codat_id] = _Held(pk, name, gone_at is not None)
        if connection_pk is not None:
            has_link = bool(link_url) and expires_at > now and values[0] != ConnectionStatus.LINKED
            company.connections[connection_id] = _HeldConnection(
                connection_pk, tuple(values), errors, connection_gone_at is not None, has_link
            )
    return found  # fmt: skip


_COLUMNS: tuple[str | Combinable, ...] = (
    *(f"connections__{name}" for name in ("pk", "codat_id", "gone_at", "link_url", "link_expires_at")),
    # As text: decoding the JSON of every row would cost as much as all the rest.
    Cast("connections__errors", TextField()),
    *(
        f"connections__{name}"
        for name in ("status", "integration_id", "integration_key", "source_id", "source_type", "platform_name")
    ),
    KeyTextTransform("lastSync", "connections__raw"),
)


def _write(changed: Sequence[tuple[int, dict[str, Any]]], read_at: datetime) -> None:
    """Write some companies in one transaction; one that cannot be written never stops the rest."""
    pks = [pk for pk, _there in changed]
    with transaction.atomic(durable=True), mirror.seen_by(SeenBy.POLL):
        companies = {company.pk: company for company in Company.objects.select_for_update().filter(pk__in=pks)}
        connections: dict[int, dict[str, Connection]] = defaultdict(dict)
        for connection in Connection.objects.filter(company__in=pks).order_by("pk"):
            connections[connection.company_id][connection.codat_id] = connection
        moved: list[int] = []
        for pk, there in changed:
            try:
                with transaction.atomic():
                    moved += _write_one(companies[pk], connections[pk], schemas.company(there, read_at))
            except Exception:
                log.exception("sweep_row_errored", company=pk)
        polling.read_soon(moved)


def _write_one(company: Company, held: Mapping[str, Connection], reply: schemas.Company) -> list[int]:
    """Write one company's reply; the keys of its connections whose status changed."""
    before = {connection.pk: connection.status for connection in held.values()}
    if company.gone_at is not None or company.codat_name != reply.name:
        mirror.apply_company(company, reply)
    for there in reply.connections:
        mirror.apply_listed_connection(company, held.get(there.id), there, keep_new_link=False)
    readings.after_reading(company, held.values())
    return [connection.pk for connection in held.values() if before[connection.pk] != connection.status]


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

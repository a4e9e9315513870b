"""Walks Codat's complete list of companies, page by page, from where the last worker stopped.

After each page the walk's row says where it is, so a walk may be longer than a queue task lives, and a killed worker
costs one page. While one page is worked on the next is already on its way. Memory holds two pages and eight bytes for
each company.
"""

from __future__ import annotations

import gc
import time
import uuid
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Protocol

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from feeds.codat.client import MAX_PAGE_SIZE
from feeds.codat.errors import CodatError
from feeds.codat.listing import ListingProgress
from feeds.codat.schemas import CompanyPage, Quota
from feeds.models import ListingWalk
from feeds.services import budget, gateway, quiet
from feeds.services.errors import LeaseLost
from feeds.services.polling import Priority

log = structlog.get_logger(__name__)

PAGE_SIZE = MAX_PAGE_SIZE
WALK_SECONDS = 12.0
"""After so long a task asks for no further page: one call may last 45 seconds, and a queue task lives sixty."""
STALE_AFTER = timedelta(hours=1)
"""A walk that stood still for so long begins anew: its first pages are too old to be added to the others."""
RETRY_AFTER = timedelta(minutes=10)


class Outcome(StrEnum):
    """How one task's part of a walk ended."""

    COMPLETE = "complete"
    PAUSED = "paused"
    POSTPONED = "postponed: no quota to spare"
    WAITING = "waits: customers hold links"
    HELD = "held by another worker"
    FAILED = "failed"


class Walk(Protocol):
    """What is done with the pages; each method may be called in another process. `name` is the key of its row."""

    name: str

    def begin(self, started_at: datetime) -> None:
        """A new walk starts, in the transaction that says so."""

    def visit(self, companies: Sequence[dict[str, Any]], read_at: datetime) -> None:
        """Work on one page, outside any transaction. It may come twice, when a worker is killed."""

    def commit(self, walk: ListingWalk) -> None:
        """Write down what must be written exactly once for each page, in the transaction that ends the page."""

    def finish(self, walk: ListingWalk, seen: set[int]) -> None:
        """Conclude from what is missing: the list is complete. `seen` holds the `key` of each company on it."""

    def abandon(self, message: str) -> None:
        """The list could not be completed; `message` is for staff."""


def key(codat_id: str) -> int:
    """Eight bytes that stand for an id: a hundred thousand of them collide once in four billion walks."""
    return int.from_bytes(blake2b(codat_id.encode(), digest_size=8).digest())


def run(walk: Walk) -> Outcome:
    """Begin the walk or go on with it, for some seconds. Whoever is told PAUSED asks the queue to call again.

    One that is under way goes on; a new one begins when `quiet` allows it.
    """
    if not is_under_way(walk.name):
        if not budget.may_spend(Priority.HEALTHY):
            return Outcome.POSTPONED  # nothing is begun that could not read its first page
        if not quiet.is_time(walk.name):
            return Outcome.WAITING
    token = _claim(walk)
    if token is None:
        return Outcome.HELD
    try:
        with _no_cycle_collection():
            return _go_on(walk, token)
    except CodatError as error:
        log.warning("listing_failed", walk=walk.name, error=type(error).__name__)
        _fail(walk, token, error.staff_message)
        return Outcome.FAILED
    except LeaseLost:
        log.warning("lease_lost", walk=walk.name)
        return Outcome.HELD
    finally:
        _mine(walk, token).update(lease_token=None, lease_expires_at=None)


@contextmanager
def _no_cycle_collection() -> Iterator[None]:
    """Pages are trees of a hundred thousand objects: looking for cycles in them took a fifth of the walk's time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def is_under_way(name: str) -> bool:
    """Whether a walk has begun, and lately enough to go on from where it is."""
    fresh = timezone.now() - STALE_AFTER
    return ListingWalk.objects.filter(name=name, started_at__gte=fresh).exists()


def _claim(walk: Walk) -> uuid.UUID | None:
    now = timezone.now()
    token = uuid.uuid4()
    ListingWalk.objects.get_or_create(name=walk.name)
    free = Q(lease_expires_at__isnull=True) | Q(lease_expires_at__lte=now)
    with transaction.atomic():
        if not ListingWalk.objects.filter(free, name=walk.name).update(
            lease_token=token, lease_expires_at=now + _lease()
        ):
            return None
        row = ListingWalk.objects.get(name=walk.name)
        if row.started_at is None or row.started_at < now - STALE_AFTER:
            _mine(walk, token).update(
                started_at=now, next_page=1, total=0, seen=b"", known=0, missing_connections=[], waiting_since=None,
                fewest_links=None,
            )  # fmt: skip
            walk.begin(now)
    return token


def _lease() -> timedelta:
    return timedelta(seconds=settings.ONBOARDING_LEASE_SECONDS)


def _mine(walk: Walk, token: uuid.UUID) -> Any:
    return ListingWalk.objects.filter(name=walk.name, lease_token=token)


def _go_on(walk: Walk, token: uuid.UUID) -> Outcome:
    row = ListingWalk.objects.get(name=walk.name)
    progress = ListingProgress(seen=set(array("Q", bytes(row.seen))), total=row.total or None, next_page=row.next_page)
    deadline = time.monotonic() + WALK_SECONDS
    with _Pages() as pages:
        while not progress.is_complete:
            if not budget.may_spend(Priority.HEALTHY):
                return Outcome.POSTPONED
            page = pages.take(progress.next_page)
            companies = {key(company["id"]): company for company in page.companies}
            fresh = progress.take(companies, total=page.total, has_next=page.has_next)
            progress.check()
            if not progress.is_complete and time.monotonic() < deadline:
                pages.ask_for(progress.next_page)
            walk.visit([companies[identity] for identity in fresh], page.read_at)
            row.seen = bytes(row.seen) + array("Q", fresh).tobytes()
            with transaction.atomic(durable=True):
                walk.commit(row)
                _checkpoint(walk, token, row, progress)
            if time.monotonic() > deadline:
                return Outcome.PAUSED
    walk.finish(row, progress.seen)
    if not _mine(walk, token).update(
        complete_as_of=row.started_at, started_at=None, seen=b"", missing_connections=[], retry_at=None, error=""
    ):
        raise LeaseLost
    return Outcome.COMPLETE


def _checkpoint(walk: Walk, token: uuid.UUID, row: ListingWalk, progress: ListingProgress[int]) -> None:
    """Say where the walk is and start the lease's time again. Raises LeaseLost when it is no longer ours."""
    still_ours = _mine(walk, token).update(
        next_page=progress.next_page,
        total=progress.total,
        seen=row.seen,
        known=row.known,
        missing_connections=row.missing_connections,
        lease_expires_at=timezone.now() + _lease(),
    )
    if not still_ours:
        raise LeaseLost


def _fail(walk: Walk, token: uuid.UUID, message: str) -> None:
    with transaction.atomic():
        if _mine(walk, token).update(started_at=None, seen=b"", retry_at=timezone.now() + RETRY_AFTER, error=message):
            walk.abandon(message)


class _Pages:
    """Fetches one page ahead, in a thread that speaks to Codat only: the database stays with the caller's thread."""

    def __init__(self) -> None:
        self._quotas: list[Quota] = []
        self._client = gateway.listing_client(self._quotas.append)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="listing")
        self._ahead: tuple[int, Future[CompanyPage]] | None = None

    def __enter__(self) -> _Pages:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._pool.shutdown()

    def ask_for(self, number: int) -> None:
        """Let page `number` come while the caller is busy with another."""
        self._ahead = number, self._pool.submit(self._client.get_company_page, number, page_size=PAGE_SIZE)

    def take(self, number: int) -> CompanyPage:
        """Page `number`, asked for now unless it was before. Raises CodatError."""
        if self._ahead is None or self._ahead[0] != number:
            self.ask_for(number)
        assert self._ahead is not None  # noqa: S101
        try:
            return self._ahead[1].result()
        finally:
            self._ahead = None
            if self._quotas:
                gateway.remember_quota(self._quotas[-1])
                self._quotas.clear()

"""Codat's limits: so many requests per UTC day, so many per minute and client address, so many at once per company."""

import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from feeds.sandbox import events
from feeds.sandbox.clock import day_of, iso
from feeds.sandbox.replies import Refusal
from feeds.sandbox.store import Record, read_meta, write_meta

BASE = 1000


class MinuteLimit:
    """Counts requests per client address in each minute of real time; ``most`` 0 never refuses."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._minute = 0
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def spend(self, client: str) -> None:
        """Count one request.

        Raises:
            Refusal: 429 with ``Retry-After``, the minute's share is spent.
        """
        now = time.time()
        with self._lock:
            if self._minute != int(now // 60):
                self._minute, self._counts = int(now // 60), {}
            self._counts[client] = self._counts.get(client, 0) + 1
            spent = self._most and self._counts[client] > self._most
        if spent:
            raise Refusal(429, "Too many requests in a minute.", headers={"Retry-After": str(60 - int(now % 60))})

    def reset(self) -> None:
        """Forget all counts."""
        with self._lock:
            self._counts = {}


class CompanyLimit:
    """Counts requests of one company that are being answered at the same time; ``most`` 0 never refuses."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._now: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, company_id: str | None, pressure: "Pressure") -> Iterator[None]:
        """Count one request for as long as it takes.

        Raises:
            Refusal: 429, so many of the company's are under way.
        """
        if company_id is None:
            yield
            return
        with self._lock:
            self._now[company_id] += 1
            count = self._now[company_id]
        pressure.at_once(count)
        try:
            if self._most and count > self._most:
                raise Refusal(429, "Too many requests for this company at once.", headers={"Retry-After": "1"})
            yield
        finally:
            with self._lock:
                self._now[company_id] -= 1
                if not self._now[company_id]:
                    del self._now[company_id]


class Pressure:
    """The most that callers asked of the limits, whether or not these refuse: for tests that must stay below."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        with self._lock:
            self._arrived: deque[float] = deque()
            self._in_a_minute = self._at_once = self._requests = self._refused = 0

    def arrived(self) -> None:
        """Note a request, for the busiest sixty seconds, wherever they begin."""
        now = time.monotonic()
        with self._lock:
            self._requests += 1
            self._arrived.append(now)
            while self._arrived[0] <= now - 60:
                self._arrived.popleft()
            self._in_a_minute = max(self._in_a_minute, len(self._arrived))

    def at_once(self, count: int) -> None:
        """Note how many requests of one company are under way."""
        with self._lock:
            self._at_once = max(self._at_once, count)

    def refused(self) -> None:
        """Note that a request met a limit."""
        with self._lock:
            self._refused += 1

    def figures(self) -> Record:
        """Return the figures since the start, or since they were forgotten."""
        with self._lock:
            return {
                "requests": self._requests,
                "mostInAMinute": self._in_a_minute,
                "mostAtOnceForACompany": self._at_once,
                "refused": self._refused,
            }


def spend(db: sqlite3.Connection, fixed: int | None, now: float) -> tuple[dict[str, str], Refusal | None]:
    """Count one request of the day.

    Args:
        db: Open transaction.
        fixed: The day's quota, or None for Codat's rule.
        now: The stand-in's time.

    Returns:
        The headers every reply carries, and the 429 to answer when the quota was already spent.
    """
    day = day_of(now)
    reset = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    quota = BASE * (1 + linked_companies(db)) if fixed is None else fixed
    _announce_reset(db, day.isoformat(), quota, reset, now)
    db.execute("INSERT OR IGNORE INTO quota (day, used) VALUES (?, 0)", (day.isoformat(),))
    used, reached = db.execute("SELECT used, reached FROM quota WHERE day = ?", (day.isoformat(),)).fetchone()
    refusal = None
    if used >= quota:
        seconds = max(1, int(reset.timestamp() - now))
        refusal = Refusal(429, "The daily quota is spent.", headers={"Retry-After": str(seconds)})
        if not reached:
            db.execute("UPDATE quota SET reached = 1 WHERE day = ?", (day.isoformat(),))
            events.emit(db, "client.rateLimit.reached", _payload(quota, 0, reset), now)
    else:
        used += 1
        db.execute("UPDATE quota SET used = ? WHERE day = ?", (used, day.isoformat()))
    headers = {
        "X-Rate-Limit-Limit": str(quota),
        "X-Rate-Limit-Remaining": str(max(0, quota - used)),
        "X-Rate-Limit-Reset": format_datetime(reset, usegmt=True),
    }
    return headers, refusal


def linked_companies(db: sqlite3.Connection) -> int:
    """Return how many companies have a linked connection."""
    known: int | None = read_meta(db, "linked_companies")
    if known is None:
        query = "SELECT count(DISTINCT company_id) FROM connections WHERE status = 'Linked'"
        known = int(db.execute(query).fetchone()[0])
        write_meta(db, "linked_companies", known)
    return known


def _announce_reset(db: sqlite3.Connection, day: str, quota: int, reset: datetime, now: float) -> None:
    ended = db.execute("DELETE FROM quota WHERE day < ? RETURNING reached", (day,)).fetchall()
    if any(row["reached"] for row in ended):
        events.emit(db, "client.rateLimit.reset", _payload(quota, quota, reset), now)


def _payload(quota: int, remaining: int, reset: datetime) -> Record:
    return {"dailyQuota": quota, "quotaRemaining": remaining, "expiryDate": iso(reset.timestamp())}

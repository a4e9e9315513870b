"""The limiter that every process of the product shares, so that together they stay within Codat's requests a minute.

The algorithm is pyrate-limiter's GCRA; its state is one number in one row, kept by the stores below. The library's own
shared buckets were measured and set aside: `SQLiteBucket` counts and inserts in two steps (four processes got 101 of
100 slots) unless `filelock` is added, and its log buckets grow by a row for each request and rely on a background
thread that does not survive a fork.
"""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import LiteralString, Protocol, TypeAlias

import psycopg
import structlog
from psycopg_pool import ConnectionPool
from pyrate_limiter import GCRA, Decision, Duration, Rate

from .errors import LimiterBusy

log = structlog.get_logger(__name__)

STORE_TIMEOUT = 5.0
"""Seconds to wait for the store itself (a lock, a connection), not for a slot."""

Step: TypeAlias = Callable[[int, int], tuple[int, Decision]]
"""From (stored microseconds, now in milliseconds) to (microseconds to store, verdict)."""


class Limiter(Protocol):
    """What the client asks before each request."""

    def acquire(self) -> None:
        """Take one slot, waiting for it. Raises LimiterBusy when none comes in time."""


class Store(Protocol):
    """Where the shared number lives."""

    def apply(self, step: Step) -> Decision:
        """Read the number, take the step, write the result: as one, against every other process."""

    def close(self) -> None:
        """Let go of what this process holds open. The store may be used again: it opens itself."""


class SharedLimiter:
    """At most `per_minute` requests in any sixty seconds, over all processes that share `store`.

    A tenth may be sent at once and the rest is spread evenly: burst and sustained rate together make up `per_minute`,
    so that no window of a minute holds more. Safe for threads and forks as far as the store is.

    `headroom`: share of the burst, from 0 to 1, that this one leaves to the others at the store. Who has none then
    finds a slot free at any moment, however much the one with headroom has to send.
    """

    def __init__(self, store: Store, *, per_minute: int, max_wait: float, headroom: float = 0.0) -> None:
        if per_minute < 2:
            raise ValueError("per_minute must be at least 2")
        burst = max(1, per_minute // 10)
        self._store = store
        self._rate = Rate(per_minute - burst, Duration.MINUTE, burst=max(1, round(burst * (1 - headroom))))
        self._algorithm = GCRA()
        self._max_wait = max_wait

    def close(self) -> None:
        """See :meth:`Store.close`."""
        self._store.close()

    def acquire(self) -> None:
        """Take one slot, waiting up to `max_wait` seconds.

        Raises LimiterBusy when none comes, or when the store fails.
        """
        deadline = time.monotonic() + self._max_wait
        while (wait := self._try_to_acquire()) > 0:
            if time.monotonic() + wait > deadline:
                raise LimiterBusy("the shared limiter gave no slot in time", retry_after=wait)
            time.sleep(wait)

    def _try_to_acquire(self) -> float:
        """Take a slot and return 0, or return the seconds after which one may be free."""
        try:
            decision = self._store.apply(self._step)
        except (sqlite3.Error, psycopg.Error) as error:
            log.warning("codat_limiter_store_failed", error=type(error).__name__)
            # A driver's message may hold the DSN: it is not chained.
            raise LimiterBusy(f"the limiter's store failed: {type(error).__name__}", retry_after=1.0) from None
        return 0 if decision.allowed else max(1, decision.retry_after_ms or 0) / 1000

    def _step(self, stored: int, now: int) -> tuple[int, Decision]:
        # The number never lies further ahead than one interval, unless the clock was set back: then it would block for
        # as long as that.
        tat = min(stored, (now + self._rate.interval) * 1000)
        state, decision = self._algorithm.step([self._rate], (tat,), now, 1)
        return int(state[0]), decision


class SqliteStore:
    """The number in an SQLite file of its own, for all processes of one machine.

    Each call opens the file anew: nothing is shared with another thread or inherited by a fork. The number need not
    survive a power cut, so nothing is flushed to the disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._connect()) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS rate_limit (id INTEGER PRIMARY KEY CHECK (id = 1), tat INTEGER NOT NULL)"
            )
            connection.execute("INSERT OR IGNORE INTO rate_limit (id, tat) VALUES (1, 0)")

    def apply(self, step: Step) -> Decision:
        """See :meth:`Store.apply`."""
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            (stored,) = connection.execute("SELECT tat FROM rate_limit").fetchone()
            tat, decision = step(stored, time.time_ns() // 1_000_000)
            if tat != stored:
                connection.execute("UPDATE rate_limit SET tat = ?", (tat,))
            connection.execute("COMMIT")
        return decision

    def close(self) -> None:
        """Nothing stays open between calls."""

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=STORE_TIMEOUT, isolation_level=None)
        connection.execute("PRAGMA synchronous=OFF")
        return connection


class PostgresStore:
    """The number in a table of its own, for several machines. The database's clock is used: theirs may differ."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        # A pool's connections and threads do not survive a fork, so each process has its own.
        self._pools: dict[int, ConnectionPool] = {}
        with self._pool().connection() as connection:
            # Two processes that create the same table at once would collide.
            connection.execute("SELECT pg_advisory_xact_lock(hashtext('codat_rate_limit'))")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS codat_rate_limit (id integer PRIMARY KEY CHECK (id = 1), tat bigint NOT "
                "NULL)"
            )
            connection.execute("INSERT INTO codat_rate_limit (id, tat) VALUES (1, 0) ON CONFLICT DO NOTHING")

    def apply(self, step: Step) -> Decision:
        """See :meth:`Store.apply`."""
        with self._pool().connection() as connection:
            # Two statements: the clock must be read after the lock was had.
            stored = _number(connection, "SELECT tat FROM codat_rate_limit WHERE id = 1 FOR UPDATE")
            now = _number(connection, "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
            tat, decision = step(stored, now)
            if tat != stored:
                connection.execute("UPDATE codat_rate_limit SET tat = %s WHERE id = 1", (tat,))
        return decision

    def close(self) -> None:
        """Close this process's connections; those of a process it was forked from are not its own."""
        pool = self._pools.pop(os.getpid(), None)
        if pool is not None:
            pool.close()

    def _pool(self) -> ConnectionPool:
        pid = os.getpid()
        if pid not in self._pools:
            pool = ConnectionPool(
                self._dsn, min_size=0, max_size=4, timeout=STORE_TIMEOUT, open=False, name="codat-limiter"
            )
            self._pools.setdefault(pid, pool)
        self._pools[pid].open()
        return self._pools[pid]


def _number(connection: psycopg.Connection[tuple[int]], query: LiteralString) -> int:
    """The one number that `query` selects."""
    row = connection.execute(query).fetchone()
    if row is None:
        raise psycopg.DataError("the limiter's row is gone")
    return row[0]


def make_limiter(
    *,
    sqlite_path: Path | None,
    postgres_dsn: str | None,
    per_minute: int = 1000,
    max_wait: float = 10.0,
    headroom: float = 0.0,
) -> SharedLimiter:
    """Make the limiter of this deployment: in PostgreSQL when there is a DSN, else in the SQLite file.

    `per_minute`: Codat's limit for one IP address; `max_wait`: seconds a caller may wait for a slot; `headroom`: see
    :class:`SharedLimiter`. Raises ValueError when neither place is given, and the driver's error when it cannot be
    opened.
    """
    if postgres_dsn:
        return SharedLimiter(PostgresStore(postgres_dsn), per_minute=per_minute, max_wait=max_wait, headroom=headroom)
    if sqlite_path is None:
        raise ValueError("the limiter needs an SQLite path or a PostgreSQL DSN")
    return SharedLimiter(SqliteStore(sqlite_path), per_minute=per_minute, max_wait=max_wait, headroom=headroom)

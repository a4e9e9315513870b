"""What one slot of the shared limiter costs when nobody has to wait for it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

from django.db import connection
from psycopg.conninfo import make_conninfo

from feeds.codat.limiter import make_limiter
from tests.bench.registry import Figure, Options, bench

ACQUIRES = 2000
PROCESSES = 4
PLENTY = 10_000_000
"""Slots a minute: so many that no caller ever waits, so what is timed is the store."""


@bench("limiter")
def measure(options: Options) -> Iterator[Figure]:
    """Acquire slots from one process, then from four at once, in each store that this database allows."""
    for store, *place in _places(options):
        yield Figure(f"acquire, {store}", _milliseconds(*place), "ms", "one process")
        # A fork, as the worker's own processes are.
        with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
            times = pool.starmap(_milliseconds, [place] * PROCESSES, chunksize=1)
        yield Figure(f"acquire, {store}", sum(times) / len(times), "ms", f"{PROCESSES} processes at once")


def _places(options: Options) -> Iterator[tuple[str, Path | None, str | None]]:
    yield "SQLite", options.folder / "limiter.sqlite3", None
    if connection.vendor == "postgresql":
        params = connection.get_connection_params()
        known = {key: params[key] for key in ("host", "port", "user", "password", "dbname") if params.get(key)}
        yield "PostgreSQL", None, make_conninfo(**known)


def _milliseconds(sqlite_path: Path | None, postgres_dsn: str | None) -> float:
    limiter = make_limiter(sqlite_path=sqlite_path, postgres_dsn=postgres_dsn, per_minute=PLENTY)
    started = time.perf_counter()
    for _ in range(ACQUIRES):
        limiter.acquire()
    return (time.perf_counter() - started) / ACQUIRES * 1000

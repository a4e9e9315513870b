"""The sweep of a hundred thousand statuses, against merely fetching the same pages, and the official client's loop.

`python -m tests.bench.bench_sweep` prints the figures as JSON. Everything runs against one stand-in on this machine, in
one run: `ratio` is the sweep's wall time over that of fetching and decoding the pages and doing nothing with them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import django

if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    os.environ.setdefault("LOG_LEVEL", "ERROR")
    django.setup()

import requests
from codat_bankfeeds import CodatBankFeeds
from codat_bankfeeds.models import shared
from django.conf import settings
from django.db import connection as database

from feeds.models import Connection, StatusEvent
from feeds.services import listing, sweep
from feeds.states import ConnectionStatus
from tests.sandbox_process import SandboxProcess
from tests.seeded import seed

COMPANIES = int(os.environ.get("BENCH_SWEEP_COMPANIES", "100000"))
PAGE_SIZE = 5000
SAMPLE = 200
ROUNDS = 5
MIB = 1024 * 1024
Figures = dict[str, float]


def run(companies: int = COMPANIES) -> dict[str, Any]:
    """All figures, on the database that is set up and a stand-in of its own. Seconds, requests and MiB."""
    with tempfile.TemporaryDirectory() as folder:
        settings.VAR_DIR = Path(folder)
        settings.CODAT_CALLS_PER_MINUTE = 100_000
        codat = SandboxProcess(Path(folder) / "sandbox.sqlite3").start()
        settings.CODAT_BASE_URL, settings.CODAT_API_KEY = codat.url, codat.api_key
        try:
            seed(codat, companies)
            return _measure(codat, companies)
        finally:
            codat.stop()


def _measure(codat: SandboxProcess, companies: int) -> dict[str, Any]:
    """Each sweep is paired with a fetch right before it, so that both meet the same load of the machine.

    Of the rounds the quickest count: whatever else runs only ever adds time. The median of the pairs stands beside.
    """
    result: dict[str, Any] = {
        "companies": companies,
        "page_size": PAGE_SIZE,
        "official_client_seconds_per_connection": _official_client_loop(codat),
    }
    for name, share in (("0 % changed", 0), ("1 % changed", 100)):
        fetches: list[Figures] = []
        sweeps: list[Figures] = []
        for _ in range(ROUNDS):
            _age(companies // share if share else 0)
            fetches.append(_timed(lambda: _fetch_only(codat, companies)))
            sweeps.append(_sweep(codat))
        pairs = [sweep["seconds"] / fetch["seconds"] for fetch, sweep in zip(fetches, sweeps, strict=True)]
        fetch, quickest = (min(rounds, key=lambda it: it["seconds"]) for rounds in (fetches, sweeps))
        result[name] = quickest | {
            "peak_mib": max(figures["peak_mib"] for figures in sweeps),
            "fetch_seconds": fetch["seconds"],
            "fetch_cpu_seconds": fetch["cpu_seconds"],
            "ratio": quickest["seconds"] / fetch["seconds"],
            "ratio_median_of_pairs": median(pairs),
            "seconds_per_connection": quickest["seconds"] / companies,
        }
    return result


def _fetch_only(codat: SandboxProcess, companies: int) -> None:
    """The floor: every page fetched and decoded, one after the other, and forgotten."""
    with requests.Session() as session:
        session.headers.update(codat.authorization)
        for page in range(1, -(-companies // PAGE_SIZE) + 1):
            reply = session.get(f"{codat.url}/companies", params={"page": page, "pageSize": PAGE_SIZE}, timeout=60)
            assert len(json.loads(reply.content)["results"]) > 0


def _sweep(codat: SandboxProcess) -> Figures:
    """One whole sweep, in as many parts as a worker would do it in."""
    requests_before = sum(codat.stats()["requests"].values())
    events_before = StatusEvent.objects.count()
    with _peak_memory() as peak:
        timed = _timed(_sweep_to_the_end)
    return timed | {
        "requests": sum(codat.stats()["requests"].values()) - requests_before,
        "statuses_written": StatusEvent.objects.count() - events_before,
        "memory_before_mib": peak["before"],
        "peak_mib": peak["peak"],
    }


def _sweep_to_the_end() -> None:
    while (outcome := listing.run(sweep.Sweep())) == listing.Outcome.PAUSED:
        pass
    assert outcome == listing.Outcome.COMPLETE, outcome


def _age(count: int) -> None:
    """Let our rows hold an older status, so that the listing brings a change for each."""
    chosen = Connection.objects.filter(status=ConnectionStatus.LINKED).order_by("?")[:count]
    Connection.objects.filter(pk__in=list(chosen.values_list("pk", flat=True))).update(
        status=ConnectionStatus.PENDING_AUTH
    )


def _official_client_loop(codat: SandboxProcess) -> float:
    """Seconds for one connection, read as the official client's documentation shows: one call for each."""
    key = codat.authorization["Authorization"]
    with CodatBankFeeds(security=shared.Security(auth_header=key), server_url=codat.url) as client:
        chosen = list(Connection.objects.values_list("company__codat_id", "codat_id")[:SAMPLE])
        timed = _timed(lambda: [_read_one(client, *ids) for ids in chosen])
    return timed["seconds"] / len(chosen)


def _read_one(client: CodatBankFeeds, company_id: str, connection_id: str) -> None:
    assert (
        client.connections.get(request={"company_id": company_id, "connection_id": connection_id}).id == connection_id
    )


def _timed(action: Callable[[], object]) -> Figures:
    """Wall time, and this process's share of it on a processor."""
    started, cpu_started = time.perf_counter(), time.process_time()
    action()
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu_started}


@contextmanager
def _peak_memory() -> Iterator[Figures]:
    """Resident memory before, and at most during the block, in MiB; looked at every 20 ms."""
    figures = {"before": _resident(), "peak": 0.0}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            figures["peak"] = max(figures["peak"], _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield figures
    finally:
        over.set()
        watcher.join()


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def main() -> None:
    """Print the figures, measured on a database of this run's own."""
    with tempfile.TemporaryDirectory() as folder:
        before = database.settings_dict["NAME"]
        own = str(Path(folder) / "bench.sqlite3") if database.vendor == "sqlite" else f"bench_{os.getpid()}"
        database.settings_dict["TEST"] = {**database.settings_dict.get("TEST", {}), "NAME": own}
        database.creation.create_test_db(verbosity=0, autoclobber=True)
        try:
            sys.stdout.write(json.dumps(run(), indent=2) + "\n")
        finally:
            database.creation.destroy_test_db(before, verbosity=0)


if __name__ == "__main__":
    main()

"""The sweep of a hundred thousand statuses, against merely fetching the same pages, and the official client's loop.

Everything runs against one stand-in on this machine, in one run: `ratio` is the sweep's wall time over that of fetching
and decoding the pages and doing nothing with them.
"""

from __future__ import annotations

import json
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import requests
from codat_bankfeeds import CodatBankFeeds
from codat_bankfeeds.models import shared
from django.conf import settings

from feeds.models import Connection, StatusEvent
from feeds.services import listing, sweep
from feeds.states import ConnectionStatus
from tests.bench.registry import Figure, Options, bench
from tests.sandbox_process import SandboxProcess
from tests.seeded import seed

PAGE_SIZE = 5000
SAMPLE = 200
ROUNDS = 5
MIB = 1024 * 1024
Measured = dict[str, float]


@bench("sweep")
def measure(options: Options) -> Iterator[Figure]:
    """Read the status of `--statuses` connections from Codat's list, beside merely fetching it and the SDK's loop."""
    settings.CODAT_CALLS_PER_MINUTE = 100_000
    codat = SandboxProcess(options.folder / "sandbox.sqlite3").start()
    settings.CODAT_BASE_URL, settings.CODAT_API_KEY = codat.url, codat.api_key
    try:
        seed(codat, options.statuses)
        yield from _measure(codat, options.statuses)
    finally:
        codat.stop()


def _measure(codat: SandboxProcess, companies: int) -> Iterator[Figure]:
    """Each sweep is paired with a fetch right before it, so that both meet the same load of the machine.

    Of the rounds the quickest count: whatever else runs only ever adds time. The median of the pairs stands beside.
    """
    yield Figure(
        "official client's loop", _official_client_loop(codat) * 1000, "ms a connection", f"sample of {SAMPLE}"
    )
    for changed, share in (("0 % changed", 0), ("1 % changed", 100)):
        fetches: list[Measured] = []
        sweeps: list[Measured] = []
        for _ in range(ROUNDS):
            _age(companies // share if share else 0)
            fetches.append(_timed(lambda: _fetch_only(codat, companies)))
            sweeps.append(_sweep(codat))
        pairs = [sweep["seconds"] / fetch["seconds"] for fetch, sweep in zip(fetches, sweeps, strict=True)]
        fetch, sweep = (min(rounds, key=lambda it: it["seconds"]) for rounds in (fetches, sweeps))
        note = f"{companies:,} connections, {changed}"
        yield Figure("fetching and decoding only", fetch["seconds"], "s", note)
        yield Figure("sweep", sweep["seconds"], "s", note)
        yield Figure("sweep", sweep["seconds"] / companies * 1000, "ms a connection", note)
        yield Figure("sweep against fetching, best", sweep["seconds"] / fetch["seconds"], "times", note)
        yield Figure("sweep against fetching, median of pairs", median(pairs), "times", note)
        yield Figure("requests", sweep["requests"], "", f"{note}, pages of {PAGE_SIZE:,}")
        yield Figure("statuses written", sweep["statuses_written"], "", note)
        yield Figure("memory before", sweep["memory_before_mib"], "MiB", note)
        yield Figure("memory at most", max(measured["peak_mib"] for measured in sweeps), "MiB", note)


def _fetch_only(codat: SandboxProcess, companies: int) -> None:
    """The floor: every page fetched and decoded, one after the other, and forgotten."""
    with requests.Session() as session:
        session.headers.update(codat.authorization)
        for page in range(1, -(-companies // PAGE_SIZE) + 1):
            reply = session.get(f"{codat.url}/companies", params={"page": page, "pageSize": PAGE_SIZE}, timeout=60)
            assert len(json.loads(reply.content)["results"]) > 0


def _sweep(codat: SandboxProcess) -> Measured:
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


def _timed(action: Callable[[], object]) -> Measured:
    """Wall time, and this process's share of it on a processor."""
    started, cpu_started = time.perf_counter(), time.process_time()
    action()
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu_started}


@contextmanager
def _peak_memory() -> Iterator[Measured]:
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

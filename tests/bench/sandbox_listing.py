"""Pages of 5,000 out of 100,000 companies of the stand-in: their cost follows the page, not the table."""

from __future__ import annotations

import time
from collections.abc import Iterator

import requests

from tests.bench.registry import Figure, Options, bench, median_ms
from tests.sandbox_process import SandboxProcess

COMPANIES = 100_000
PAGE_SIZE = 5000
PAGES = COMPANIES // PAGE_SIZE


@bench("stand-in")
def measure(options: Options) -> Iterator[Figure]:
    """Time the first, the middle and the last page, plainly and with strict one-time passwords."""
    for mode in ((), ("--strict-otp",)):
        sandbox = SandboxProcess(options.folder / "listing.sqlite3", *mode).start()
        try:
            yield from _measure_pages(sandbox, " ".join(mode) or "default")
        finally:
            sandbox.stop()


def _measure_pages(sandbox: SandboxProcess, mode: str) -> Iterator[Figure]:
    if sandbox.stats()["objects"]["companies"] == 0:
        started = time.perf_counter()
        sandbox.control("POST", "seed", {"companies": COMPANIES, "accounts": 2, "linked": True})
        yield Figure("seeding", time.perf_counter() - started, "s", f"{COMPANIES:,} companies")
    with requests.Session() as session:
        session.headers.update(sandbox.authorization)
        for page in (1, PAGES // 2, PAGES):
            address = f"{sandbox.url}/companies?page={page}&pageSize={PAGE_SIZE}"
            elapsed = median_ms(lambda address=address: _get(session, address), rounds=5)
            yield Figure(f"page {page} of {PAGES}", elapsed, "ms", f"{PAGE_SIZE:,} companies, {mode}")


def _get(session: requests.Session, address: str) -> None:
    session.get(address, timeout=60).raise_for_status()

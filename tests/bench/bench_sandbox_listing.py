"""Times pages of 5,000 out of 100,000 companies of the stand-in: ``python -m tests.bench.bench_sandbox_listing``."""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import requests

from tests.sandbox_process import SandboxProcess

COMPANIES = 100_000
PAGE_SIZE = 5000
ROUNDS = 5


def main() -> None:
    """Seed, then time the first, the middle and the last page, plainly and with strict one-time passwords."""
    with tempfile.TemporaryDirectory() as folder:
        for mode in ((), ("--strict-otp",)):
            sandbox = SandboxProcess(Path(folder) / "bench.sqlite3", *mode).start()
            try:
                measure(sandbox, " ".join(mode) or "default")
            finally:
                sandbox.stop()


def measure(sandbox: SandboxProcess, mode: str) -> None:
    """Print the median of some rounds for each page, in milliseconds."""
    if sandbox.stats()["objects"]["companies"] == 0:
        started = time.perf_counter()
        sandbox.control("POST", "seed", {"companies": COMPANIES, "accounts": 2, "linked": True})
        say(f"seeding {COMPANIES:,} companies: {time.perf_counter() - started:.1f} s")
    with requests.Session() as session:
        session.headers.update(sandbox.authorization)
        for page in (1, COMPANIES // PAGE_SIZE // 2, COMPANIES // PAGE_SIZE):
            times = [fetch(session, f"{sandbox.url}/companies?page={page}&pageSize={PAGE_SIZE}") for _ in range(ROUNDS)]
            say(f"{mode}: page {page:2d} of {PAGE_SIZE:,}: median {statistics.median(times) * 1000:.0f} ms")


def fetch(session: requests.Session, url: str) -> float:
    """Return the seconds one complete page takes."""
    started = time.perf_counter()
    answer = session.get(url, timeout=60)
    answer.raise_for_status()
    return time.perf_counter() - started


def say(line: str) -> None:
    """Write a line of the report."""
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()

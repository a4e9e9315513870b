"""The limiter holds over threads, processes and forks."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import responses
from pyrate_limiter import Decision

from feeds.codat import CodatClient
from feeds.codat.errors import LimiterBusy
from feeds.codat.limiter import SharedLimiter, SqliteStore, Step, make_limiter

from .samples import API_KEY, BASE_URL, COMPANY, COMPANY_ID, COMPANY_URL

pytestmark = pytest.mark.postgres

POSTGRES = os.environ.get("DATABASE_URL", "")
BURST = 10

# Started as a fresh interpreter: prints how many slots it got before the limiter refused it.
TAKE_ALL = """
import sys
from pathlib import Path
from feeds.codat.limiter import make_limiter
from feeds.codat.errors import LimiterBusy
path, dsn = sys.argv[1:]
limiter = make_limiter(sqlite_path=Path(path) if path else None, postgres_dsn=dsn or None, per_minute=100, max_wait=0)
print("ready", flush=True)
sys.stdin.readline()
taken = 0
try:
    while True:
        limiter.acquire()
        taken += 1
except LimiterBusy:
    print(taken)
"""

Place = tuple[str, str]


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """(path, DSN) of an unused limiter."""
    if request.param == "sqlite":
        yield str(tmp_path / "limiter.sqlite3"), ""
        return
    if not POSTGRES.startswith("postgres"):
        pytest.skip("DATABASE_URL names no PostgreSQL")
    # A schema of its own: the limiter of whoever else uses the database is left alone.
    schema = f"limiter_test_{os.getpid()}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        yield "", psycopg.conninfo.make_conninfo(POSTGRES, options=f"-c search_path={schema}")
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


def limiter_at(place: Place, *, per_minute: int = 100, max_wait: float = 0) -> SharedLimiter:
    path, dsn = place
    return make_limiter(
        sqlite_path=Path(path) if path else None, postgres_dsn=dsn or None, per_minute=per_minute, max_wait=max_wait
    )


def take_all(limiter: SharedLimiter) -> int:
    taken = 0
    try:
        while True:
            limiter.acquire()
            taken += 1
    except LimiterBusy:
        return taken


def test_processes_share_the_slots(place: Place) -> None:
    command = [sys.executable, "-c", TAKE_ALL, *place]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    started = time.monotonic()
    taken = sum(int(process.communicate("go\n")[0]) for process in processes)

    # 100 a minute: a burst of 10, then 90 a minute; what trickles in while the processes run is allowed.
    trickle = (time.monotonic() - started) * 90 / 60 + 1
    assert BURST <= taken <= BURST + trickle


def test_threads_share_the_slots(place: Place) -> None:
    limiter = limiter_at(place)
    started = time.monotonic()

    with ThreadPoolExecutor(4) as threads:
        taken = sum(threads.map(lambda _: take_all(limiter), range(4)))

    assert BURST <= taken <= BURST + (time.monotonic() - started) * 90 / 60 + 1


def test_a_forked_child_uses_the_limiter_of_its_parent(place: Place) -> None:
    limiter = limiter_at(place)
    limiter.acquire()

    child = os.fork()
    if child == 0:
        # Nothing of pytest may run in the child.
        os._exit(take_all(limiter))
    taken_by_child = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert BURST - 1 <= taken_by_child <= BURST + 1
    assert take_all(limiter) <= 1


@pytest.mark.timeout(30)
def test_parent_and_child_use_it_at_the_same_time(place: Place) -> None:
    # On a connection they shared, each would read answers meant for the other.
    limiter = limiter_at(place, per_minute=1_000_000, max_wait=5)
    limiter.acquire()

    child = os.fork()
    try:
        for _ in range(200):
            limiter.acquire()
    finally:
        if child == 0:
            # Nothing of pytest may run in the child.
            os._exit(sys.exc_info()[0] is not None)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_it_waits_for_a_slot(place: Place) -> None:
    limiter = limiter_at(place, per_minute=600, max_wait=5)
    started = time.monotonic()

    for _ in range(60 + 9):
        limiter.acquire()

    # The burst of 60 is free; then 540 a minute, nine each second.
    assert 0.8 <= time.monotonic() - started < 5


def test_it_says_when_to_come_back(tmp_path: Path) -> None:
    limiter = limiter_at((str(tmp_path / "limiter"), ""))
    take_all(limiter)

    with pytest.raises(LimiterBusy) as caught:
        limiter.acquire()

    assert caught.value.retryable
    assert not caught.value.outcome_unknown
    assert 0 < (caught.value.retry_after or 0) <= 60 / 90


class Clock:
    """A store in memory with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000
        self.stored = 0

    def apply(self, step: Step) -> Decision:
        self.stored, decision = step(self.stored, self.now)
        return decision


@pytest.mark.parametrize("rest", [0, 60_000, 3_600_000])
def test_no_minute_ever_holds_more_than_allowed(rest: int) -> None:
    clock = Clock()
    limiter = SharedLimiter(clock, per_minute=50, max_wait=0)
    take_all(limiter)
    clock.now += rest
    sent: list[int] = []
    for _ in range(3 * 600):
        sent += [clock.now] * take_all(limiter)
        clock.now += 100

    busiest = max(sum(start <= moment < start + 60_000 for moment in sent) for start in sent)

    # Never more, and not needlessly less.
    assert 45 <= busiest <= 50


def test_a_clock_set_back_does_not_block_for_as_long() -> None:
    clock = Clock()
    limiter = SharedLimiter(clock, per_minute=100, max_wait=0)
    take_all(limiter)
    clock.now -= 24 * 3600 * 1000

    take_all(limiter)
    clock.now += 60_000

    assert take_all(limiter) > 0


def test_the_file_does_not_grow(tmp_path: Path) -> None:
    path = tmp_path / "limiter.sqlite3"
    limiter = SharedLimiter(SqliteStore(path), per_minute=1_000_000, max_wait=1)
    limiter.acquire()
    size = path.stat().st_size

    for _ in range(200):
        limiter.acquire()

    assert path.stat().st_size == size
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_store_that_fails_is_busy_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "limiter.sqlite3"
    limiter = SharedLimiter(SqliteStore(path), per_minute=100, max_wait=1)
    path.write_bytes(b"this is no database, but long enough to be taken for a broken one" * 20)

    with pytest.raises(LimiterBusy) as caught:
        limiter.acquire()

    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_limiter(sqlite_path=None, postgres_dsn=None),
        lambda: SharedLimiter(Clock(), per_minute=1, max_wait=0),
    ],
)
def test_a_limiter_that_cannot_work_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="limiter|per_minute"):
        make()


class Refusing:
    """A limiter without slots."""

    asked = 0

    def acquire(self) -> None:
        self.asked += 1
        raise LimiterBusy("full")


def test_nothing_is_sent_without_a_slot(wire: responses.RequestsMock) -> None:
    limiter = Refusing()

    with pytest.raises(LimiterBusy):
        CodatClient(BASE_URL, API_KEY, limiter=limiter).get_company(COMPANY_ID)

    assert len(wire.calls) == 0
    assert limiter.asked == 1


def test_each_try_takes_a_slot(wire: responses.RequestsMock) -> None:
    class Counting:
        slots = 0

        def acquire(self) -> None:
            self.slots += 1

    limiter = Counting()
    wire.get(COMPANY_URL, status=503)
    wire.get(COMPANY_URL, json=COMPANY)

    CodatClient(BASE_URL, API_KEY, limiter=limiter, backoff_base=0).get_company(COMPANY_ID)

    assert limiter.slots == 2

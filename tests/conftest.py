"""Fixtures every test may use."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.core.cache import cache
from django.db import connection
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pytest_django.fixtures import Settings
from pytest_django.plugin import DjangoDbBlocker

from feeds.services import gateway
from tests import lanes, leaks
from tests.chromium import chromium
from tests.emptying import delete_instead_of_flushing
from tests.history import let_tests_arrange
from tests.queue_drain import drain
from tests.sandbox_process import SandboxProcess, sandbox, sandbox_server
from tests.static_files import find_static_files_once
from tests.worker_process import WorkerProcess

__all__ = ["chromium", "sandbox", "sandbox_server"]

# How long an example takes says more about what else the machine does than about the code.
hypothesis_settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("patient")

delete_instead_of_flushing()
let_tests_arrange()
find_static_files_once()


def pytest_collection_finish() -> None:
    """What was imported and collected stays: looking for garbage in it again and again took a tenth of the suite."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str | None:
    """Say once what is left out, instead of a line for each test."""
    if _is_on_sqlite():
        return None
    return "PostgreSQL: left out is what asks no database, brings its own, or looks at how pages look"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On PostgreSQL only what has to do with it runs."""
    if not _is_on_sqlite():
        left_out = {item for item in items if _says_the_same_again(item)}
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    items[:] = lanes.dealt(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the one that counts a test's time
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A slow test waits for its turn: see `tests.lanes`."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes == 1 or not lanes.is_slow(item):
        return (yield)
    folder: Path = item.config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]
    with lanes.lane(folder, lanes.lanes_of(processes)):
        return (yield)


def _says_the_same_again(item: pytest.Item) -> bool:
    """Whether it says on PostgreSQL what it said on SQLite, minutes later."""
    return any(map(item.get_closest_marker, ("own_database", "looks"))) or not _asks_a_database(item)


def _is_on_sqlite() -> bool:
    return bool(django_settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"))


def _asks_a_database(item: pytest.Item) -> bool:
    """pytest-django lets no test near Django's database that does not say that it needs it."""
    names = {"db", "transactional_db", "live_server"} & set(getattr(item, "fixturenames", ()))
    return bool(names or item.get_closest_marker("django_db") or item.get_closest_marker("postgres"))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the one that collects what is logged
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """No test leaves a secret in a table, in the log or in a mail: see `tests.leaks`."""
    result = yield
    if not item.get_closest_marker("plants_secrets") and (found := leaks.found(item)):
        pytest.fail(f"written down by this test: {', '.join(found)}", pytrace=False)
    return result


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A database of this run's own, and on SQLite a file: real worker processes share it with the tests."""
    default = django_settings.DATABASES["default"]
    if default["ENGINE"].endswith("sqlite3"):
        name = str(tmp_path_factory.mktemp("database") / "test.sqlite3")
    else:
        name = f"test_{default['NAME']}_{os.getpid()}"
    default["TEST"] = {**default.get("TEST", {}), "NAME": name}


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """PostgreSQL drops no database that somebody is connected to: the rate limiter is, and a thread may be."""
    yield
    gateway.close()
    if not _is_on_sqlite():
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


@pytest.fixture(autouse=True)
def _quick_and_apart(settings: Settings, tmp_path: Path) -> None:
    """Retries come at once, and the rate limiter's file is this test's own."""
    settings.ONBOARDING_RETRY_BASE_SECONDS = 0.0
    settings.VAR_DIR = tmp_path
    settings.CODAT_CALLS_PER_MINUTE = 100_000
    cache.clear()  # rate limits of signing in


@pytest.fixture
def codat(sandbox: SandboxProcess, settings: Settings) -> SandboxProcess:
    """The stand-in, empty, with the product pointed at it and little patience."""
    return point_product_at(sandbox, settings)


def point_product_at(sandbox: SandboxProcess, settings: Settings) -> SandboxProcess:
    """Let the product of this test speak to `sandbox`, with little patience."""
    settings.CODAT_SANDBOX = True
    settings.CODAT_BASE_URL = sandbox.url
    settings.CODAT_API_KEY = sandbox.api_key
    settings.CODAT_CONNECT_TIMEOUT = 1.0
    settings.CODAT_READ_TIMEOUT = 1.5
    settings.WEBHOOK_SECRETS = [sandbox.webhook_secret]
    settings.CODAT_LINK_ORIGINS = [sandbox.url]
    return sandbox


@pytest.fixture(scope="session")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """A stand-in where a new link kills the older ones."""
    server = SandboxProcess(tmp_path_factory.mktemp("strict") / "sandbox.sqlite3", "--strict-otp").start()
    yield server
    server.stop()


@pytest.fixture
def strict_codat(strict_server: SandboxProcess, settings: Settings) -> SandboxProcess:
    """The strict stand-in, empty, with the product pointed at it."""
    strict_server.reset()
    return point_product_at(strict_server, settings)


@pytest.fixture
def drain_queue(db: None) -> Callable[[], int]:
    """Run everything the real queue holds, and what becomes due within seconds, in this process."""
    return drain


@pytest.fixture
def resting_worker(transactional_db: None, codat: SandboxProcess, tmp_path: Path) -> Iterator[WorkerProcess]:
    """`manage.py worker` on the test's database, against the stand-in, that the test has to start."""
    worker = WorkerProcess(codat_url=codat.url, api_key=codat.api_key, log=tmp_path / "worker.log")
    yield worker
    worker.stop()


@pytest.fixture
def real_worker(resting_worker: WorkerProcess) -> WorkerProcess:
    """The same at work: real processes that can really be killed."""
    resting_worker.start()
    return resting_worker

"""What probes are told: each part that is not well makes the whole unready, and is named."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils import timezone
from django_q.models import OrmQ
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings

from feeds import queue
from feeds.management.commands import worker
from feeds.models import Company, Heartbeat
from feeds.services import health
from tests.factories import CompanyFactory


def ready(client: Client) -> tuple[int, dict[str, Any]]:
    """Status and JSON of /readyz."""
    answer = client.get("/readyz")
    assert answer["Content-Type"] == "application/json"
    assert "no-store" in answer["Cache-Control"]
    return answer.status_code, answer.json()


@pytest.fixture
def well(db: None) -> None:
    """Everything is well: both heartbeats are fresh, nothing waits."""
    for name in (health.WORKER, health.POLL):
        health.beat(name)


def old(name: str) -> Callable[[], object]:
    """A heartbeat of an hour ago."""
    return lambda: Heartbeat.objects.filter(name=name).update(beat_at=timezone.now() - timedelta(hours=1))


def none(name: str) -> Callable[[], object]:
    """No heartbeat ever."""
    return lambda: Heartbeat.objects.filter(name=name).delete()


def stale_queue() -> None:
    """A task that nobody takes."""
    queue.enqueue(queue.HEARTBEAT)
    OrmQ.objects.update(lock=timezone.now() - timedelta(hours=1))


def overdue_company() -> None:
    """A company that the sweeper should have queued long ago."""
    CompanyFactory(due_at=timezone.now() - timedelta(hours=1))


def unapplied_migration() -> None:
    """A database that is older than the code."""
    MigrationRecorder(connection).migration_qs.filter(app="feeds").order_by("-pk")[:1].get().delete()


@pytest.mark.usefixtures("well")
def test_a_system_that_is_well_is_ready_and_says_how_well(client: Client) -> None:
    status, report = ready(client)
    assert status == 200
    assert report.pop("ok") is True
    assert {part: values["ok"] for part, values in report.items()} == dict.fromkeys(
        ("database", "migrations", "worker", "queue", "ledger", "last_good_poll"), True
    )
    assert report["queue"]["oldest_waiting_seconds"] == 0.0
    assert 0 <= report["worker"]["age_seconds"] < 60, "it beat a moment ago; how long this took says nothing"


BAD = {
    "worker silent": ("worker", old(health.WORKER)),
    "no worker yet": ("worker", none(health.WORKER)),
    "polls fail": ("last_good_poll", old(health.POLL)),
    "no poll yet": ("last_good_poll", none(health.POLL)),
    "queue stands still": ("queue", stale_queue),
    "sweeper stands still": ("ledger", overdue_company),
    "migration not applied": ("migrations", unapplied_migration),
}


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize(("part", "spoil"), BAD.values(), ids=BAD.keys())
def test_one_part_that_is_not_well_makes_it_unready_and_is_named(
    part: str, spoil: Callable[[], object], client: Client
) -> None:
    spoil()
    status, report = ready(client)
    assert status == 503
    assert report.pop("ok") is False
    assert [name for name, values in report.items() if not values["ok"]] == [part]


@pytest.mark.usefixtures("well")
def test_work_that_waits_a_little_is_no_fault(client: Client) -> None:
    queue.enqueue(queue.HEARTBEAT)
    OrmQ.objects.update(lock=timezone.now() - timedelta(minutes=3))
    CompanyFactory(due_at=timezone.now() - timedelta(minutes=3))
    status, report = ready(client)
    assert status == 200
    assert report["queue"]["oldest_waiting_seconds"] >= 180


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_database_that_is_away_is_an_answer_and_not_a_crash(
    error: type[Exception], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_args: object, **_options: object) -> None:
        raise error("connection is closed; password=hunter2")

    with monkeypatch.context() as patch:
        patch.setattr(connection, "cursor", away)
        status, report = ready(client)
    assert (status, report) == (503, {"ok": False, "database": {"ok": False}})


def test_the_process_answers_without_a_database(client: Client) -> None:
    """No `db` fixture: a query would fail the test."""
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_probe_changes_nothing(path: str, client: Client) -> None:
    assert client.post(path).status_code == 405


@pytest.mark.usefixtures("well")
def test_readiness_costs_few_queries_however_many_companies(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    CompanyFactory.create_batch(20)
    with django_assert_max_num_queries(8):
        assert health.readiness().ok


# --- The supervisor's eyes -------------------------------------------------------------------------------------------
@pytest.fixture
def supervisor(settings: Settings) -> worker.Supervisor:
    """A supervisor whose cluster started long ago."""
    settings.WORKER_FROZEN_SECONDS = 60
    supervisor = worker.Supervisor()
    supervisor.cluster_since = float("-inf")
    return supervisor


@pytest.mark.usefixtures("well")
def test_a_cluster_is_frozen_when_no_task_has_run_for_long(supervisor: worker.Supervisor) -> None:
    assert not supervisor._is_frozen()
    old(health.WORKER)()
    assert supervisor._is_frozen()
    none(health.WORKER)()
    assert supervisor._is_frozen()


@pytest.mark.django_db
def test_a_young_cluster_is_given_time(supervisor: worker.Supervisor) -> None:
    supervisor.cluster_since = worker.time.monotonic()
    assert not supervisor._is_frozen()


@pytest.mark.django_db
@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_the_supervisor_outlives_a_database_that_is_away_and_does_not_blame_the_cluster(
    error: type[Exception], supervisor: worker.Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced: list[str] = []

    def away() -> int:
        raise error

    monkeypatch.setattr(supervisor, "_is_running", lambda: True)
    monkeypatch.setattr(supervisor, "_replace_cluster", lambda *, reason: replaced.append(reason))
    monkeypatch.setattr(worker.onboarding, "sweep", away)
    monkeypatch.setattr(worker, "close_old_connections", lambda: None)
    supervisor._tick()
    assert not supervisor._is_frozen()
    assert replaced == []
    assert Company.objects.count() == 0  # the database is back, and so are we

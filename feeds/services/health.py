"""Is the system well? Heartbeats, and the readiness report for probes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from feeds import queue
from feeds.models import Company, Heartbeat

WORKER = "worker"
POLL = "poll"
FIGURES = "figures"
BEAT_EVERY = timedelta(seconds=5)
POLL_STALE_SECONDS = 600
QUEUE_STALE_SECONDS = 900
"""A bulk onboarding may keep tasks waiting for minutes; what waits longer, nobody takes."""


def beat(name: str) -> None:
    """Note that `name` is alive; written at most every few seconds."""
    now = timezone.now()
    row, created = Heartbeat.objects.get_or_create(name=name, defaults={"beat_at": now})
    if not created and row.beat_at < now - BEAT_EVERY:
        Heartbeat.objects.filter(name=name).update(beat_at=now)


def age_seconds(name: str) -> float | None:
    """Seconds since `name` last proved that it is alive; None when it never did."""
    row = Heartbeat.objects.filter(name=name).first()
    return (timezone.now() - row.beat_at).total_seconds() if row else None


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a probe is told. A part is `{"ok": bool, ...figures}`."""

    parts: dict[str, dict[str, Any]]

    @property
    def ok(self) -> bool:
        """Whether every part is well."""
        return all(part["ok"] for part in self.parts.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"ok": self.ok, **self.parts}


def readiness() -> Readiness:
    """Database, migrations, worker heartbeat, oldest waiting task, overdue companies, age of the last good poll.

    A database that fails is a part that is not well, never an exception.
    """
    try:
        pending = _pending_migrations()
        if pending:
            return Readiness({"database": {"ok": True}, "migrations": {"ok": False, "pending": pending}})
        waiting_since = queue.oldest_waiting_since()
        waiting = (timezone.now() - waiting_since).total_seconds() if waiting_since else 0.0
        return Readiness(
            {
                "database": {"ok": True},
                "migrations": {"ok": True, "pending": 0},
                "worker": _freshness(WORKER, settings.WORKER_FROZEN_SECONDS),
                "queue": {"ok": waiting < QUEUE_STALE_SECONDS, "oldest_waiting_seconds": round(waiting, 1)},
                "ledger": _overdue(),
                "last_good_poll": _freshness(POLL, POLL_STALE_SECONDS),
            }
        )
    except Error:
        return Readiness({"database": {"ok": False}})


def _overdue() -> dict[str, Any]:
    """Companies that are owed a look and do not get it: the sweeper moves the date of each it queues."""
    overdue = Company.objects.due(timezone.now() - timedelta(seconds=QUEUE_STALE_SECONDS)).count()
    return {"ok": overdue == 0, "overdue_companies": overdue}


def _freshness(name: str, limit: float) -> dict[str, Any]:
    age = age_seconds(name)
    return {"ok": age is not None and age < limit, "age_seconds": None if age is None else round(age, 1)}


def _pending_migrations() -> int:
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))

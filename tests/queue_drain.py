"""Drains the real ORM queue with the queue's own worker function, in the test's process and thread."""

from __future__ import annotations

import multiprocessing
import queue
import time
from datetime import timedelta

from django.utils import timezone
from django_q.models import OrmQ
from django_q.signing import SignedPackage
from django_q.worker import worker

from feeds.models import Company, WebhookEvent
from feeds.services import inbox, onboarding

PATIENCE_SECONDS = 20.0
SOON = timedelta(seconds=5)


def run_one(row: OrmQ) -> None:
    """Run one queued task as a worker does; a task that raises fails the test."""
    tasks: queue.Queue[object] = queue.Queue()
    # "sync": in this process, on the test's own database connection, and whatever a task raises comes through.
    tasks.put(SignedPackage.loads(row.payload) | {"sync": True})
    tasks.put("STOP")
    worker(tasks, queue.Queue(), multiprocessing.Value("f", -1), None)
    row.delete()


def drain() -> int:
    """Run queued tasks until nothing is queued and nothing becomes due within seconds; how many tasks ran.

    Between rounds it does what the supervisor does: it sweeps.
    """
    ran = 0
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        rows = list(OrmQ.objects.order_by("id"))
        for row in rows:
            run_one(row)
            ran += 1
        if rows or onboarding.sweep() or inbox.sweep():
            continue
        soon = {"due_at__lte": timezone.now() + SOON}
        if not (Company.objects.filter(**soon).exists() or WebhookEvent.objects.filter(**soon).exists()):
            return ran
        time.sleep(0.05)
    raise AssertionError("the queue did not come to rest")

"""Workers killed with -9 in the middle of a sweep: real processes on the test's database, really killed."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import pytest
from django.utils import timezone

from feeds import queue
from feeds.models import Case, Connection, ListingWalk, StatusEvent
from feeds.services import sweep
from feeds.states import ConnectionStatus
from tests.sandbox_process import SandboxProcess
from tests.seeded import seed
from tests.worker_process import WorkerProcess, wait_until

pytestmark = pytest.mark.worker

COMPANIES = 12_000
"""Three pages, the last of them short."""
BROKEN = 5
LATER = timedelta(hours=1)
"""Longer than this test lasts."""


def kill_task_processes(worker: WorkerProcess) -> None:
    """Every process that may be in the middle of the sweep, at one stroke."""
    for pid in worker.task_processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def walk() -> ListingWalk:
    """Where the sweep is."""
    return ListingWalk.objects.get(name=sweep.NAME)


def go_on() -> None:
    """What a later poll and the queue's own retry do minutes after a worker died: here as soon as its lease is over."""
    wait_until(lambda: (walk().lease_expires_at or timezone.now()) <= timezone.now(), seconds=30, what="a free lease")
    queue.enqueue(queue.SWEEP)


def test_killed_twice_during_a_sweep_it_loses_no_status_writes_none_backwards_and_doubles_no_case(
    codat: SandboxProcess, resting_worker: WorkerProcess
) -> None:
    resting_worker.environment["ONBOARDING_LEASE_SECONDS"] = "8"
    seed(codat, COMPANIES, accounts=1, with_accounts=False)
    connections = Connection.objects.select_related("company").order_by("pk")
    broken = [*connections[:BROKEN], *connections[COMPANIES - BROKEN :]]
    for connection in broken:
        codat.disconnect(connection.company.codat_id, connection.codat_id, now=True)
    codat.advance(25 * 3600)
    outdated = list(connections.values_list("pk", flat=True)[50::100])
    Connection.objects.filter(pk__in=outdated).update(status=ConnectionStatus.PENDING_AUTH)
    # As if read, after a webhook, later than any page of this sweep.
    newer = connections[7777]
    Connection.objects.filter(pk=newer.pk).update(status="Deauthorized", read_at=timezone.now() + LATER)
    Connection.objects.update(poll_due_at=timezone.now() + LATER)
    ListingWalk.objects.create(name=sweep.NAME, retry_at=timezone.now() + LATER)
    queue.enqueue(queue.SWEEP)
    codat.post_fault("delay", method="GET", path="/companies", delay_ms=2000, times=None)

    resting_worker.start()
    wait_until(lambda: walk().next_page == 2, seconds=60, what="the second page")
    kill_task_processes(resting_worker)
    go_on()
    wait_until(lambda: walk().next_page == 3, seconds=60, what="the third page")
    resting_worker.kill_everything()
    codat.clear_faults()
    resting_worker.start()
    go_on()
    wait_until(lambda: walk().complete_as_of is not None, seconds=60, what="the sweep")
    resting_worker.stop()

    others = Connection.objects.exclude(pk=newer.pk)
    unlinked = set(others.filter(status=ConnectionStatus.UNLINKED).values_list("pk", flat=True))
    assert unlinked == {connection.pk for connection in broken}
    assert others.filter(status=ConnectionStatus.LINKED).count() == COMPANIES - len(broken) - 1
    newer.refresh_from_db()
    assert newer.status == "Deauthorized"
    assert not Connection.objects.filter(gone_at__isnull=False).exists()
    told = StatusEvent.objects.values_list("connection", "new")
    assert sorted(told) == sorted(
        [*((pk, "Unlinked") for pk in unlinked), *((pk, "Linked") for pk in outdated if pk not in unlinked)]
    )
    assert sorted(Case.objects.values_list("connection", flat=True)) == sorted([*unlinked, newer.pk])

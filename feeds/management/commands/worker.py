"""`manage.py worker`: the queue's cluster under a supervisor that notices when it freezes.

django-q2's cluster can freeze for ever (an idle worker killed at the wrong moment) and still report that it works.
So the supervisor asks for the one proof that counts, a task that ran, and replaces a cluster that does not give it.
It also sweeps: what a dead cluster held is queued again as soon as its lease ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Any

import structlog
from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import Error, close_old_connections

from feeds import queue
from feeds.services import health, inbox, onboarding, sync

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.5
RESTART_PAUSE_SECONDS = 2.0
"""A cluster that dies at birth is not restarted in a hot loop."""


class Command(BaseCommand):
    """Run the worker until SIGTERM or SIGINT."""

    help = "Runs background work: the queue's cluster, watched and restarted when it dies or freezes."

    def handle(self, *args: Any, **options: Any) -> None:
        """Start the cluster and stay until told to stop."""
        Supervisor().run()


class Supervisor:
    """Keeps exactly one cluster process alive."""

    def __init__(self) -> None:
        self.stopping = False
        self.cluster: subprocess.Popen[bytes] | None = None
        self.cluster_since = -RESTART_PAUSE_SECONDS
        self.last_heartbeat_asked = 0.0
        self.last_sweep = 0.0

    def run(self) -> None:
        """Supervise until a signal says stop; then let running tasks finish."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        log.info("worker_started")
        while not self.stopping:
            self._tick()
            time.sleep(TICK_SECONDS)
        self._stop_cluster()
        log.info("worker_stopped")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _tick(self) -> None:
        if not self._is_running() and time.monotonic() - self.cluster_since >= RESTART_PAUSE_SECONDS:
            self._replace_cluster(reason="not running")
        try:
            close_old_connections()
            self._ask_for_heartbeat()
            self._sweep()
            if self._is_frozen():
                self._replace_cluster(reason="frozen")
        except Error as error:
            # The database is away: the cluster waits for it too, so it is not to blame for a missing heartbeat.
            log.warning("worker_database_away", error=type(error).__name__)
            self.cluster_since = time.monotonic()

    def _is_running(self) -> bool:
        return self.cluster is not None and self.cluster.poll() is None

    def _replace_cluster(self, *, reason: str) -> None:
        if self.cluster is not None:
            log.error("worker_cluster_replaced", reason=reason)
            self._kill_cluster()
        # A session of its own: a signal to our group must not reach the workers, who would die in mid-task.
        self.cluster = subprocess.Popen([sys.executable, sys.argv[0], "qcluster"], start_new_session=True)  # noqa: S603
        self.cluster_since = time.monotonic()

    def _kill_cluster(self) -> None:
        """The whole process group: children of a dead cluster would go on taking tasks."""
        if self.cluster is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.cluster.pid, signal.SIGKILL)
        self.cluster.wait()

    def _stop_cluster(self) -> None:
        """SIGTERM to the cluster's main process only: it lets its workers finish. Killed after the grace."""
        if self.cluster is None:
            return
        self.cluster.terminate()
        try:
            self.cluster.wait(timeout=settings.WORKER_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("worker_cluster_killed_after_grace")
        self._kill_cluster()

    def _ask_for_heartbeat(self) -> None:
        if time.monotonic() - self.last_heartbeat_asked >= settings.WORKER_HEARTBEAT_SECONDS:
            queue.enqueue(queue.HEARTBEAT)
            self.last_heartbeat_asked = time.monotonic()

    def _sweep(self) -> None:
        if time.monotonic() - self.last_sweep >= settings.WORKER_SWEEP_SECONDS:
            onboarding.sweep()
            inbox.sweep()
            sync.wake()
            self.last_sweep = time.monotonic()

    def _is_frozen(self) -> bool:
        """No task has run for so long that even the longest one must have ended."""
        limit = settings.WORKER_FROZEN_SECONDS
        if time.monotonic() - self.cluster_since < limit:
            return False
        age = health.age_seconds(health.WORKER)
        return age is None or age > limit

"""A real `manage.py worker` on the test's database: something that can really be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.db import connection

ROOT = Path(__file__).resolve().parent.parent


def wait_until(condition: Callable[[], bool], *, seconds: float = 30.0, what: str = "the condition") -> None:
    """Poll until `condition` holds; an AssertionError that names `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come true within {seconds} s")


class WorkerProcess:
    """The supervisor with its cluster. Intervals are short, so that a test sees in seconds what takes minutes."""

    def __init__(self, *, codat_url: str, api_key: str, log: Path, **environment: str) -> None:
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = {
            **os.environ,
            "ENVIRONMENT": "test",
            "DJANGO_SETTINGS_MODULE": "tests.process_settings",
            "SECRET_KEY": settings.SECRET_KEY,
            "DATABASE_URL": _database_url(),
            "CODAT_BASE_URL": codat_url,
            "CODAT_API_KEY": api_key,
            "CODAT_CONNECT_TIMEOUT": "1",
            "CODAT_READ_TIMEOUT": "20",
            "CODAT_CALLS_PER_MINUTE": "100000",
            "ONBOARDING_LEASE_SECONDS": "3",
            "ONBOARDING_REQUEUE_SECONDS": "5",
            "ONBOARDING_RETRY_BASE_SECONDS": "0.2",
            "WORKER_SWEEP_SECONDS": "1",
            "WORKER_HEARTBEAT_SECONDS": "1",
            "WORKER_FROZEN_SECONDS": "8",
            "WORKER_GRACE_SECONDS": "5",
            "Q_WORKERS": "1",
            **environment,
        }

    def start(self) -> None:
        """Start it; returns at once."""
        command = [sys.executable, "manage.py", "worker"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def descendants(self) -> list[int]:
        """Process ids of everything below the supervisor, parents first."""
        found = [self.process.pid] if self.process else []
        for pid in found:
            found.extend(children(pid))
        return found[1:]

    def task_processes(self) -> list[int]:
        """The cluster's leaf processes: those that run tasks, and the two that feed and clear the queue."""
        return [pid for pid in self.descendants() if not children(pid)]

    def kill_everything(self) -> None:
        """`kill -9` of supervisor and cluster at one stroke, as a power cut does.

        First nobody moves any more: a supervisor that sees its cluster die starts another, which would be left over.
        """
        pids = [self.process.pid] if self.process else []
        for pid in pids:
            signal_if_alive(pid, signal.SIGSTOP)
            pids.extend(set(children(pid)) - set(pids))
        for pid in pids:
            signal_if_alive(pid, signal.SIGKILL)
        if self.process:
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM to the supervisor, as an operator does; whatever is left after the grace is killed."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill_everything()
        self.process = None


def signal_if_alive(pid: int, number: signal.Signals) -> None:
    """Send a signal, unless the process is gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def kill_if_alive(pid: int) -> None:
    """SIGKILL, unless it is gone already."""
    signal_if_alive(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Direct children of a process, from /proc."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found.extend(int(child) for child in task.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _database_url() -> str:
    values = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{values['NAME']}"
    password = f":{values['PASSWORD']}" if values["PASSWORD"] else ""
    return f"postgres://{values['USER']}{password}@{values['HOST']}:{values['PORT'] or 5432}/{values['NAME']}"

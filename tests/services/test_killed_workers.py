"""Every step of the main job x a worker that dies, or a cluster that freezes, at the worst moment.

Real worker processes on the test's database, really killed; production's minutes are seconds here.
"""

from __future__ import annotations

import os
import platform
import signal
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from django_q.models import Success
from pytest_django.fixtures import Settings

from feeds.models import Company
from feeds.services import onboarding
from feeds.states import OperationState
from tests.factories import UserFactory
from tests.sandbox_process import SandboxProcess
from tests.services.grid import STEPS, GridStep, Story
from tests.worker_process import WorkerProcess, children, wait_until

pytestmark = pytest.mark.worker

# The number of the system call, by the kernel's tables.
READ = {"x86_64": "0", "aarch64": "63"}.get(platform.machine(), "unknown")


@pytest.fixture(autouse=True)
def _one_step_a_task(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """The steps before the one under test are run here, one task each; a lost task is missed after seconds."""
    monkeypatch.setattr(onboarding, "TASK_BUDGET", -1.0)
    settings.ONBOARDING_REQUEUE_SECONDS = 5


def open_page(company: Company) -> str:
    """The company's page as staff see it."""
    client = Client()
    client.force_login(UserFactory(role="Administrators"))
    return client.get(reverse("admin:feeds_company_change", args=[company.pk])).content.decode()


def task_process(worker: WorkerProcess) -> int:
    """The one process that runs tasks: the first child of the cluster's sentinel."""
    return next(pid for pid in worker.descendants() if not children(pid))


def runs_tasks(seconds: float) -> bool:
    """Whether the cluster finishes a task within that time; it is asked for a heartbeat every second."""
    before = Success.objects.count()
    try:
        wait_until(lambda: Success.objects.count() > before, seconds=seconds)
    except AssertionError:
        return False
    return True


def waits_for_a_task(pid: int) -> bool:
    """Whether a process sleeps in `read` on a pipe, as a task process does that holds the queue's lock and waits."""
    number, _, rest = Path(f"/proc/{pid}/syscall").read_text().partition(" ")
    if number != READ:
        return False
    return os.readlink(f"/proc/{pid}/fd/{int(rest.split()[0], 16)}").startswith("pipe:")


def kill_waiting(worker: WorkerProcess) -> None:
    """Kill the task process while it waits with the lock in its hand; it is stopped while that is looked up."""
    pid = task_process(worker)

    def killed() -> bool:
        os.kill(pid, signal.SIGSTOP)
        waits = waits_for_a_task(pid)
        os.kill(pid, signal.SIGKILL if waits else signal.SIGCONT)
        return waits

    wait_until(killed, seconds=20, what="a task process that waits for a task")


def freeze(worker: WorkerProcess) -> None:
    """The cluster's known way to freeze for ever: its task process dies with the queue's lock in its hand."""
    assert runs_tasks(seconds=20)
    kill_waiting(worker)
    # What was done before may still be on its way to the database.
    assert not (runs_tasks(seconds=2) and runs_tasks(seconds=3)), "the cluster could not be frozen"


@pytest.mark.parametrize("power_cut", [False, True], ids=["worker killed", "everything killed"])
@pytest.mark.parametrize("moment", ["drop_before", "drop_after"], ids=["before the call", "before the record"])
@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_worker_killed_in_mid_step_leaves_everything_exactly_once(
    step: GridStep, moment: str, power_cut: bool, codat: SandboxProcess, resting_worker: WorkerProcess
) -> None:
    """`drop_before` holds the request unprocessed while the worker is killed, `drop_after` holds the finished reply."""
    story = Story(step, codat)
    codat.post_fault(moment, method=step.method, path=step.path, delay_ms=3000)
    resting_worker.start()
    codat.wait_until_hit(within=20)
    assert story.operation().state == OperationState.SENDING

    if power_cut:
        resting_worker.kill_everything()
        resting_worker.start()
    else:
        os.kill(task_process(resting_worker), signal.SIGKILL)

    wait_until(story.is_over, seconds=60, what="the step done")
    story.assert_everything_exists_exactly_once(open_page)


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_frozen_cluster_is_replaced_and_the_step_is_done(
    step: GridStep, codat: SandboxProcess, real_worker: WorkerProcess
) -> None:
    freeze(real_worker)
    story = Story(step, codat)
    wait_until(story.is_over, seconds=60, what="the step done")
    story.assert_everything_exists_exactly_once(open_page)
    assert "reason=frozen" in real_worker.log.read_text()

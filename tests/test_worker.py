"""`manage.py worker`: real processes, really killed."""

from __future__ import annotations

import os
import signal
import time

import pytest

from feeds.audit import Actor
from feeds.models import Company, Heartbeat
from feeds.services import health, onboarding
from feeds.states import OnboardingState
from tests.factories import CompanyFactory, SourceAccountFactory
from tests.sandbox_process import SandboxProcess
from tests.worker_process import WorkerProcess, wait_until

pytestmark = pytest.mark.worker
RM = Actor(name="Rita Moreau", source="test")


def is_ready(company: Company) -> bool:
    """Whether the company has reached its link."""
    company.refresh_from_db()
    return company.onboarding_state == OnboardingState.LINK_READY


def onboard(**fields: object) -> Company:
    """A company with one account, asked to be onboarded."""
    company: Company = CompanyFactory(**fields)
    SourceAccountFactory(company=company)
    onboarding.request(company, actor=RM)
    return company


def test_a_real_worker_onboards_a_company_and_proves_that_it_is_alive(
    real_worker: WorkerProcess, codat: SandboxProcess
) -> None:
    company = onboard()
    wait_until(lambda: is_ready(company), what="link ready")
    wait_until(lambda: Heartbeat.objects.filter(name=health.WORKER).exists(), what="a heartbeat")


def test_a_worker_that_is_told_to_stop_stops_and_leaves_no_process(real_worker: WorkerProcess) -> None:
    wait_until(lambda: Heartbeat.objects.filter(name=health.WORKER).exists(), what="a heartbeat")
    family = real_worker.descendants()
    started = time.monotonic()
    real_worker.stop()
    assert time.monotonic() - started < 20
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in family), what="all processes gone")


def test_a_frozen_cluster_is_replaced_and_the_work_goes_on(real_worker: WorkerProcess, codat: SandboxProcess) -> None:
    wait_until(lambda: Heartbeat.objects.filter(name=health.WORKER).exists(), what="a heartbeat")
    for pid in real_worker.descendants():  # stopped in its tracks: alive for the system, dead for the work
        os.kill(pid, signal.SIGSTOP)
    company = onboard()
    wait_until(lambda: is_ready(company), seconds=60, what="link ready")
    assert "worker_cluster_replaced" in real_worker.log.read_text()

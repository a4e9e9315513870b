"""The main job through the real queue: `manage.py worker` against the stand-in on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

from feeds.audit import Actor
from feeds.models import Company, Heartbeat
from feeds.services import health, onboarding
from feeds.states import OnboardingState
from tests.bench.registry import Figure, Options, bench
from tests.factories import CompanyFactory, SourceAccountFactory
from tests.sandbox_process import SandboxProcess
from tests.worker_process import WorkerProcess, wait_until

ACTOR = Actor.service("bench")
ACCOUNTS_EACH = 2
SINGLES = 5
PATIENCE = 300.0
# What a deployment runs with; the tests' worker knows shorter ones.
INTERVALS = {
    "WORKER_HEARTBEAT_SECONDS": "20",
    "WORKER_FROZEN_SECONDS": "180",
    "WORKER_SWEEP_SECONDS": "10",
    "ONBOARDING_LEASE_SECONDS": "90",
    "ONBOARDING_REQUEUE_SECONDS": "120",
}


@bench("onboarding")
def measure(options: Options) -> Iterator[Figure]:
    """Onboard many companies at once, then single ones. Codat's limit per minute is lifted: it is 5 companies a second.

    Compared: a cluster of one process that runs tasks, and the default four.
    """
    sandbox = SandboxProcess(options.folder / "sandbox.sqlite3").start()
    try:
        for processes in (1, 4):
            yield from _measure_cluster(options, sandbox, processes)
    finally:
        sandbox.stop()


def _measure_cluster(options: Options, sandbox: SandboxProcess, processes: int) -> Iterator[Figure]:
    note = f"{options.companies} companies, {ACCOUNTS_EACH} accounts each, Q_WORKERS={processes}"
    sandbox.reset()
    Heartbeat.objects.all().delete()
    worker = WorkerProcess(
        codat_url=sandbox.url,
        api_key=sandbox.api_key,
        log=options.folder / f"worker-{processes}.log",
        Q_WORKERS=str(processes),
        LOG_LEVEL="WARNING",
        **INTERVALS,
    )
    worker.start()
    try:
        wait_until(lambda: Heartbeat.objects.filter(name=health.WORKER).exists(), what="a heartbeat")
        seconds, asking = _onboard(options.companies)
        calls = sum(sandbox.stats()["requests"].values())
        yield Figure("onboarding", options.companies / seconds, "companies/s", note)
        yield Figure("calls to Codat", calls / options.companies, "per company", note)
        yield Figure("asking for it", asking / options.companies * 1000, "ms per company", note)
        singles = median(_onboard(1)[0] for _ in range(SINGLES))
        yield Figure("one company, press to Link ready", singles, "s", f"median of {SINGLES}, Q_WORKERS={processes}")
    finally:
        worker.stop()


def _onboard(count: int) -> tuple[float, float]:
    """Seconds until all have their link, and seconds that asking for it took."""
    companies: list[Company] = CompanyFactory.create_batch(count)
    for company in companies:
        SourceAccountFactory.create_batch(ACCOUNTS_EACH, company=company)
    mine = Company.objects.filter(pk__in=[company.pk for company in companies])
    started = time.perf_counter()
    result = onboarding.request_many(companies, label="bench", actor=ACTOR)
    asking = time.perf_counter() - started
    assert result.accepted == count, result.refused
    wait_until(
        lambda: mine.filter(onboarding_state=OnboardingState.LINK_READY).count() == count,
        seconds=PATIENCE,
        what="link ready",
    )
    return time.perf_counter() - started, asking

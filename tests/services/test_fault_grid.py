"""Every step of the main job x every fault of the wire: once the fault is over, all is well without a person.

The stand-in is real and spoken to over HTTP; the queue is real and drained in this process. Real workers really killed
are in `test_killed_workers.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from feeds.models import Company, Operation
from feeds.services import onboarding
from feeds.states import OnboardingState, OperationKind, OperationState
from tests.factories import UserFactory
from tests.queue_drain import drain
from tests.sandbox_process import SandboxProcess
from tests.services.grid import STEPS, GridStep, Story, run_next_task

OpenPage = Callable[[Company], str]


@pytest.fixture(autouse=True)
def _one_step_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test can break the wire between two steps."""
    monkeypatch.setattr(onboarding, "TASK_BUDGET", -1.0)


@pytest.fixture
def open_page(client: Client, db: None) -> OpenPage:
    """The company's page as a relationship manager sees it."""

    def read(company: Company) -> str:
        client.force_login(UserFactory(role="Administrators"))
        return client.get(reverse("admin:feeds_company_change", args=[company.pk])).content.decode()

    return read


@pytest.fixture(params=STEPS, ids=str)
def story(request: pytest.FixtureRequest, codat: SandboxProcess, db: None) -> Story:
    """The main job, stopped before each of its steps in turn."""
    return Story(request.param, codat)


FAULTS = {
    "timeout before processing": {"action": "drop_before", "delay_ms": 2000},
    "connection dropped before processing": {"action": "drop_before"},
    "timeout after processing": {"action": "drop_after", "delay_ms": 2000},
    "reply lost after processing": {"action": "drop_after"},
    "429 with Retry-After": {"action": "status", "status": 429, "retry_after": 1},
    "500": {"action": "status", "status": 500},
    "500 after processing": {"action": "status", "status": 500, "process": True},
    "503": {"action": "status", "status": 503},
    "malformed body": {"action": "malformed"},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_after_a_passing_fault_everything_exists_exactly_once(
    story: Story, fault: dict[str, object], codat: SandboxProcess, open_page: OpenPage
) -> None:
    codat.post_fault(method=story.step.method, path=story.step.path, times=story.step.tries_per_attempt, **fault)
    drain()
    assert codat.faults()[0]["hits"] >= 1
    story.assert_everything_exists_exactly_once(open_page)


def test_while_codat_is_away_the_screen_says_so_and_afterwards_everything_exists_exactly_once(
    story: Story, codat: SandboxProcess, open_page: OpenPage
) -> None:
    codat.stop()
    try:
        run_next_task()
        operation = story.operation()
        assert operation.state == OperationState.QUEUED
        assert "Codat could not be reached; nothing was sent." in open_page(story.company)
    finally:
        codat.start()
    drain()
    story.assert_everything_exists_exactly_once(open_page)


HUMAN_FAULTS = {
    400: "Codat refused the data",
    401: "Codat refused our API key. Ask an administrator to check CODAT_API_KEY",
    402: "our plan or an unpaid bill",
    403: "Codat does not allow our account to do this",
    404: "Codat does not know this record",
    422: "Codat understood the request and refused it",
}


@pytest.mark.parametrize(("status", "advice"), HUMAN_FAULTS.items())
def test_a_fault_that_needs_a_person_stops_at_once_and_retry_continues_from_the_failed_step(
    story: Story, status: int, advice: str, codat: SandboxProcess, open_page: OpenPage
) -> None:
    step = story.step
    codat.post_fault("status", method=step.method, path=step.path, status=status, times=None)
    before = codat.requests_made(step.route)
    drain()

    assert codat.requests_made(step.route) == before + 1
    story.company.refresh_from_db()
    failed = story.operation()
    assert failed.state == OperationState.FAILED
    assert advice in failed.error
    assert failed.correlation_id
    assert failed.correlation_id in open_page(story.company)
    if step.kind != OperationKind.REFRESH_LINK:
        assert story.company.onboarding_state == OnboardingState.FAILED

    codat.clear_faults()
    done_before = {route: codat.requests_made(route) for route in earlier_routes(step)}
    story.ask_again()
    drain()
    story.assert_everything_exists_exactly_once(open_page)
    assert {route: codat.requests_made(route) for route in earlier_routes(step)} == done_before
    assert Operation.objects.filter(company=story.company, kind=step.kind).count() == 2


def earlier_routes(step: GridStep) -> list[str]:
    """The writes of the steps before this one: a retry must not repeat them."""
    return [earlier.route for earlier in STEPS[: step.before]]

"""Customers in the stand-in, for the tests of the services."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pytest_django.fixtures import Settings

from feeds.models import Company
from feeds.services import onboarding
from feeds.states import OnboardingState
from tests.conftest import point_product_at
from tests.factories import CompanyFactory, SourceAccountFactory
from tests.sandbox_process import SandboxProcess
from tests.services.grid import RM

Onboard = Callable[..., Company]


@pytest.fixture(scope="session")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """A stand-in where a new link kills the older ones."""
    server = SandboxProcess(tmp_path_factory.mktemp("strict") / "sandbox.sqlite3", "--strict-otp").start()
    yield server
    server.stop()


@pytest.fixture
def strict_codat(strict_server: SandboxProcess, settings: Settings) -> SandboxProcess:
    """The strict stand-in, empty, with the product pointed at it."""
    strict_server.reset()
    return point_product_at(strict_server, settings)


@pytest.fixture
def onboard(drain_queue: Callable[[], int]) -> Onboard:
    """Onboard a new company with two accounts, through the queue, against the stand-in that the test has chosen."""

    def make(accounts: int = 2, **fields: object) -> Company:
        company: Company = CompanyFactory(**fields)
        SourceAccountFactory.create_batch(accounts, company=company)
        onboarding.request(company, actor=RM)
        drain_queue()
        company.refresh_from_db()
        assert company.onboarding_state == OnboardingState.LINK_READY, company.onboarding_error
        return company

    return make

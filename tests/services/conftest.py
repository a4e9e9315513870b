"""Customers in the stand-in, for the tests of the services."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from feeds.models import Company
from feeds.services import onboarding
from feeds.states import OnboardingState
from tests.factories import CompanyFactory, SourceAccountFactory
from tests.services.grid import RM

Onboard = Callable[..., Company]


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

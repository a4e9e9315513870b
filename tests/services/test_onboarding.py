"""Onboarding against the stand-in over real HTTP, through the real queue."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from feeds.audit import Actor
from feeds.models import Company
from feeds.services import gateway, links, onboarding, sync
from feeds.services.errors import Refused
from feeds.states import OnboardingState
from tests.factories import CompanyFactory, SourceAccountFactory
from tests.sandbox_process import SandboxProcess

RM = Actor(name="Rita Moreau", source="test")
Drain = Callable[[], int]


@pytest.fixture
def company(db: None) -> Company:
    """A draft with two accounts."""
    company = CompanyFactory(legal_name="Café Québec (Montréal)", country="CA")
    SourceAccountFactory.create_batch(2, company=company, currency="CAD")
    return company


def test_a_company_with_two_accounts_reaches_link_ready_in_three_requests(
    company: Company, codat: SandboxProcess, drain_queue: Drain
) -> None:
    onboarding.request(company, actor=RM)
    drain_queue()

    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINK_READY
    assert company.codat_name == "Cafe Quebec Montreal"
    connection = company.connections.get()
    assert connection.status == "PendingAuth"
    assert connection.link_url
    assert set(company.source_accounts.values_list("status", flat=True)) == {"pending"}
    stats = codat.stats()
    assert sum(stats["requests"].values()) == 3
    assert stats["objects"]["companies"] == stats["objects"]["connections"] == 1
    assert stats["objects"]["source_accounts"] == 2


def test_two_presses_at_once_create_nothing_twice(company: Company, codat: SandboxProcess, drain_queue: Drain) -> None:
    onboarding.request(company, actor=RM)
    with pytest.raises(Refused, match="already on its way"):
        onboarding.request(company, actor=RM)
    drain_queue()
    assert codat.stats()["objects"]["companies"] == 1


def test_a_company_without_accounts_is_refused(db: None) -> None:
    with pytest.raises(Refused, match="Add at least one source account"):
        onboarding.request(CompanyFactory(), actor=RM)


def test_a_link_that_could_not_be_refreshed_is_forgotten_once_another_reply_brings_one(
    company: Company, codat: SandboxProcess, drain_queue: Drain
) -> None:
    onboarding.request(company, actor=RM)
    drain_queue()
    codat.post_fault("status", method="GET", status=401, times=1)
    links.refresh(company.connections.get(), actor=RM)
    drain_queue()
    assert onboarding.steps(company)[-1].meaning.label == "Failed"

    gateway.client().delete_company(Company.objects.get().codat_id)
    sync.refresh_company(Company.objects.get(), actor=RM)
    onboarding.request(company, actor=RM)
    drain_queue()
    assert onboarding.steps(Company.objects.get())[-1].meaning == onboarding.THERE

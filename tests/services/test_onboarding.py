"""Onboarding against the stand-in over real HTTP, through the real queue."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.utils import timezone

from feeds.audit import Actor
from feeds.codat import schemas
from feeds.models import Company
from feeds.services import gateway, links, onboarding, sync
from feeds.services.errors import Refused
from feeds.states import OnboardingState
from tests.factories import CompanyFactory, ConnectionFactory, SourceAccountFactory
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


class WithoutLink:
    """A Codat that knows the connection and gives no link to it."""

    def __init__(self, status: str) -> None:
        self.calls = 0
        self.status = status

    def list_connections(self, _company_id: str) -> list[schemas.Connection]:
        """The one connection. Raises RuntimeError when it is asked for ever."""
        self.calls += 1
        if self.calls > 20:
            raise RuntimeError("more than twenty calls")
        return [
            schemas.connection(
                {
                    "id": "conn-1", "status": self.status, "sourceType": "BankFeed", "platformName": "x",
                    "integrationId": "i", "integrationKey": "hcws", "sourceId": "s", "created": "2026-01-01T00:00:00Z",
                },
                timezone.now(),
            )
        ]  # fmt: skip


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("status", ["PendingAuth", "Linked"])
def test_a_link_that_codat_does_not_give_is_not_asked_for_for_ever(
    status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    company = CompanyFactory(in_codat=True, onboarding_state=OnboardingState.QUEUED)
    connection = ConnectionFactory(company=company, codat_id="conn-1", status=status)
    SourceAccountFactory(company=company, connection=connection, status="pending")
    codat = WithoutLink(status)
    monkeypatch.setattr(gateway, "client", lambda: codat)
    onboarding.advance(company.pk)
    company.refresh_from_db()
    assert codat.calls <= 3
    assert (company.onboarding_state, company.onboarding_error) == (
        OnboardingState.FAILED,
        "Codat gave no link for this connection.",
    )

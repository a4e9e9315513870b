"""What is in Codat already is adopted: after a lost reply, a restored backup, or somebody's work in the Portal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests

from feeds import mapping
from feeds.models import Company, Connection
from feeds.services import onboarding, sync
from feeds.states import OnboardingState, OperationKind, OperationState
from tests.factories import CompanyFactory, OperationFactory, SourceAccountFactory
from tests.sandbox_process import SandboxProcess
from tests.services.conftest import Onboard
from tests.services.grid import RM

Drain = Callable[[], int]


def post(codat: SandboxProcess, path: str, body: object) -> str:
    """Create something in Codat behind the product's back; its id."""
    answer = requests.post(codat.url + path, json=body, headers=codat.authorization, timeout=10)
    answer.raise_for_status()
    return str(answer.json()["id"])


def create_in_codat(codat: SandboxProcess, company: Company, name: str) -> str:
    """Create a company with our tag."""
    return post(codat, "/companies", {"name": name, "tags": mapping.company_tags(company.uid)})


@pytest.fixture
def company(db: None) -> Company:
    """A company whose creation was given up with its outcome unknown, long ago."""
    company: Company = CompanyFactory()
    SourceAccountFactory(company=company)
    OperationFactory(company=company, kind=OperationKind.CREATE_COMPANY, state=OperationState.FAILED, attempts=100)
    return company


def onboard_again(company: Company, drain_queue: Drain) -> None:
    """Press Retry and wait."""
    onboarding.request(company, actor=RM)
    drain_queue()
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINK_READY, company.onboarding_error


def test_a_company_is_found_by_its_tag_whatever_its_name(
    company: Company, codat: SandboxProcess, drain_queue: Drain
) -> None:
    there = create_in_codat(codat, company, "Another name")
    create_in_codat(codat, CompanyFactory(), company.legal_name)
    onboard_again(company, drain_queue)
    assert (company.codat_id, company.codat_name) == (there, "Another name")
    assert codat.stats()["objects"]["companies"] == 2
    created = company.operations.filter(kind=OperationKind.CREATE_COMPANY).latest("pk")
    assert created.result == "Found in Codat as “Another name”."


def test_of_two_companies_with_our_tag_the_oldest_is_adopted(
    company: Company, codat: SandboxProcess, drain_queue: Drain
) -> None:
    oldest = create_in_codat(codat, company, "First")
    codat.advance(1)
    create_in_codat(codat, company, "Second")
    onboard_again(company, drain_queue)
    assert company.codat_id == oldest


def test_a_company_that_is_not_found_is_created(company: Company, codat: SandboxProcess, drain_queue: Drain) -> None:
    onboard_again(company, drain_queue)
    assert codat.stats()["objects"]["companies"] == 1


def test_the_connection_and_the_accounts_of_an_adopted_company_are_adopted_too(
    company: Company, codat: SandboxProcess, drain_queue: Drain
) -> None:
    account = company.source_accounts.get()
    codat_id = create_in_codat(codat, company, company.legal_name)
    connection_id = post(codat, f"/companies/{codat_id}/connections", {"platformKey": "hcws"})
    body = {"id": account.account_id, "accountName": "Theirs", "accountType": "savings", "accountNumber": "1"}
    path = f"/companies/{codat_id}/connections/{connection_id}/connectionInfo/bankFeedAccounts"
    post(codat, path, body | {"currency": "USD", "balance": 0})
    onboard_again(company, drain_queue)
    assert company.connections.get().codat_id == connection_id
    assert company.source_accounts.get().is_in_codat
    there = codat.stats()["objects"]
    assert (there["companies"], there["connections"], there["source_accounts"]) == (1, 1, 1)


def test_a_connection_whose_creation_was_given_up_is_found(codat: SandboxProcess, onboard: Onboard) -> None:
    """The mirror lost the connection, Codat did not."""
    company = onboard()
    there = company.connections.get().codat_id
    forget_connection(company)
    OperationFactory(company=company, kind=OperationKind.CREATE_CONNECTION, state=OperationState.FAILED)
    onboarding.advance(company.pk)
    company.refresh_from_db()
    assert company.connections.get().codat_id == there
    assert codat.stats()["objects"]["connections"] == 1


def forget_connection(company: Company) -> None:
    """As a backup from before the connection was made."""
    company.operations.all().delete()
    company.source_accounts.update(connection=None, status="")
    Connection.objects.filter(company=company).delete()
    Company.objects.filter(pk=company.pk).update(onboarding_state=OnboardingState.QUEUED)


# --- What Codat lost -------------------------------------------------------------------------------------------------
def delete_connection(codat: SandboxProcess, company: Company) -> None:
    """Somebody deletes the connection in the Portal."""
    path = f"/companies/{company.codat_id}/connections/{company.connections.get().codat_id}"
    requests.delete(codat.url + path, headers=codat.authorization, timeout=10).raise_for_status()


def test_a_connection_that_codat_lost_is_noticed_and_retry_makes_a_new_one_with_the_same_accounts(
    codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    lost = company.connections.get()
    ids = set(company.source_accounts.values_list("account_id", flat=True))
    delete_connection(codat, company)

    result = sync.refresh_company(company, actor=RM)

    company.refresh_from_db()
    lost.refresh_from_db()
    assert result.changes[0] == "Connection: PendingAuth → gone"
    assert len(result.changes) == 3
    assert (lost.gone_at is not None, lost.link_url) == (True, "")
    assert company.onboarding_state == OnboardingState.FAILED
    assert "no longer has this company's connection" in company.onboarding_error
    shown = {step.title: step.meaning for step in onboarding.steps(company)}
    assert shown["Create company"] == onboarding.THERE
    assert shown["Create connection"] == shown["Add source accounts"] == onboarding.NOT_STARTED

    onboard_again(company, drain_queue)
    connection = company.connections.get(gone_at__isnull=True)
    assert connection.pk != lost.pk
    assert {(a.account_id, a.connection_id) for a in company.source_accounts.all()} == {
        (identity, connection.pk) for identity in ids
    }
    assert codat.stats()["objects"]["companies"] == codat.stats()["objects"]["connections"] == 1


def test_a_connection_that_somebody_made_in_its_place_is_adopted_by_a_refresh(
    codat: SandboxProcess, onboard: Onboard
) -> None:
    company = onboard()
    delete_connection(codat, company)
    replacement = post(codat, f"/companies/{company.codat_id}/connections", {"platformKey": "hcws"})
    sync.refresh_company(company, actor=RM)
    assert company.connections.get(gone_at__isnull=True).codat_id == replacement


def test_a_second_connection_in_codat_does_not_disturb_the_one_we_hold(codat: SandboxProcess, onboard: Onboard) -> None:
    company = onboard()
    ours = company.connections.get()
    post(codat, f"/companies/{company.codat_id}/connections", {"platformKey": "hcws"})
    Connection.objects.update(link_url="", link_expires_at=None)  # so that the connections are read
    sync.refresh_company(company, actor=RM)
    assert company.connections.get().codat_id == ours.codat_id


def test_a_company_that_was_gone_and_is_made_again_is_there_once(codat: SandboxProcess, drain_queue: Drain) -> None:
    company: Company = CompanyFactory(in_codat=True, onboarding_state=OnboardingState.FAILED)
    Company.objects.filter(pk=company.pk).update(gone_at=company.created_at)
    SourceAccountFactory(company=company)
    onboard_again(company, drain_queue)
    assert company.is_in_codat
    assert codat.stats()["objects"]["companies"] == 1


def test_a_connection_that_is_there_after_all_is_not_gone_and_not_made_twice(
    codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    Connection.objects.filter(company=company).update(gone_at=company.created_at)
    company.source_accounts.update(connection=None, status="")
    OperationFactory(company=company, kind=OperationKind.CREATE_CONNECTION, state=OperationState.FAILED)
    Company.objects.filter(pk=company.pk).update(onboarding_state=OnboardingState.FAILED)
    onboard_again(company, drain_queue)
    assert company.connections.get().gone_at is None
    assert codat.stats()["objects"]["connections"] == 1

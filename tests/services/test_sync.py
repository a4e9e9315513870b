"""Reading status from Codat: by button, by schedule, and when Codat is away."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_django.fixtures import Settings

from feeds.codat.errors import CodatError, NotFound
from feeds.models import AuditEntry, Company, Connection, Operation, SourceAccount
from feeds.services import gateway, leases, onboarding, sync
from feeds.services.errors import Refused
from feeds.states import AccountStatus, OnboardingState
from tests.factories import CompanyFactory, SourceAccountFactory
from tests.sandbox_process import SandboxProcess
from tests.services.conftest import Onboard
from tests.services.grid import ACCOUNTS, RM


@pytest.fixture
def company(codat: SandboxProcess, onboard: Onboard) -> Company:
    """An onboarded customer with two accounts."""
    return onboard()


def connect(codat: SandboxProcess, company: Company, **fields: object) -> None:
    """The customer's part."""
    codat.connect(company.codat_id, company.connections.get().codat_id, **fields)


def refuse_one_reading(codat: SandboxProcess) -> None:
    """Codat says once that it does not know the company, although it does."""
    for path in ("/companies/{id}/connections", ACCOUNTS):
        codat.post_fault("status", method="GET", path=path, status=404, times=1)


# --- By button -------------------------------------------------------------------------------------------------------
def test_a_refresh_says_what_changed_and_the_second_that_nothing_did(company: Company, codat: SandboxProcess) -> None:
    connect(codat, company)
    names = company.source_accounts.order_by("pk").values_list("name", flat=True)
    changes = sync.refresh_company(company, actor=RM).changes
    assert changes == ["Connection: PendingAuth → Linked", *(f"{name}: pending → connected" for name in names)]
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINKED
    assert sync.refresh_company(company, actor=RM).changes == []


def test_accounts_of_the_same_name_are_told_apart(codat: SandboxProcess, company: Company) -> None:
    company.source_accounts.update(name="Main")
    chosen = company.source_accounts.latest("pk")
    connect(codat, company, accountIds=[chosen.account_id])
    changes = sync.refresh_company(company, actor=RM).changes
    assert changes == ["Connection: PendingAuth → Linked", "Main: pending → connected"]


def test_a_linked_connection_with_one_silent_account_is_shown_as_it_is(company: Company, codat: SandboxProcess) -> None:
    connect(codat, company)
    sync.refresh_company(company, actor=RM)
    silent = company.source_accounts.earliest("pk")
    codat.disconnect(company.codat_id, company.connections.get().codat_id, accountId=silent.account_id, now=True)
    changes = sync.refresh_company(company, actor=RM).changes
    assert changes == [f"{silent.name}: connected → disconnected"]
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINKED


def test_an_account_that_codat_lost_is_gone_and_comes_back_when_it_is_listed_again(
    company: Company, codat: SandboxProcess
) -> None:
    account = company.source_accounts.earliest("pk")
    SourceAccount.objects.filter(pk=account.pk).update(account_id="never-in-codat")
    assert sync.refresh_company(company, actor=RM).changes == [f"{account.name}: pending → gone"]
    SourceAccount.objects.filter(pk=account.pk).update(account_id=account.account_id)
    assert sync.refresh_company(company, actor=RM).changes == [f"{account.name}: gone → pending"]


@pytest.mark.parametrize("fault", ["malformed", "drop_before"])
def test_a_listing_that_cannot_be_read_marks_nothing_as_gone(
    fault: str, company: Company, codat: SandboxProcess
) -> None:
    codat.post_fault(fault, method="GET", path=ACCOUNTS, times=None)
    with pytest.raises(CodatError):
        sync.refresh_company(company, actor=RM)
    assert not company.source_accounts.filter(gone_at__isnull=False).exists()
    assert company.connections.get().gone_at is None


def test_a_reading_that_changes_nothing_leaves_no_history_but_a_newer_as_of(company: Company) -> None:
    entries = AuditEntry.objects.count()
    before = company.source_accounts.earliest("pk").read_at
    sync.refresh_company(company, actor=RM)
    assert AuditEntry.objects.count() == entries
    after = company.source_accounts.earliest("pk").read_at
    assert before is not None
    assert after is not None
    assert after > before


def test_what_a_refresh_changed_is_attributed_to_who_asked(company: Company, codat: SandboxProcess) -> None:
    connect(codat, company)
    last = AuditEntry.objects.latest("pk").pk
    sync.refresh_company(company, actor=RM)
    assert set(AuditEntry.objects.filter(pk__gt=last).values_list("actor_name", "source")) == {(RM.name, RM.source)}


def test_a_status_that_codat_added_is_stored_and_shown_as_unknown(company: Company, codat: SandboxProcess) -> None:
    SourceAccount.objects.update(status="hibernating")
    account = company.source_accounts.earliest("pk")
    assert str(account.status_meaning.label) == "hibernating"
    assert f"{account.name}: hibernating → pending" in sync.refresh_company(company, actor=RM).changes


def test_a_company_that_codat_lost_is_gone_and_retry_makes_it_again(
    company: Company, codat: SandboxProcess, drain_queue: Callable[[], int]
) -> None:
    lost, names = company.codat_id, list(company.source_accounts.order_by("pk").values_list("name", flat=True))
    gateway.client().delete_company(lost)
    assert sync.refresh_company(company, actor=RM).changes == [
        "Connection: PendingAuth → gone",
        *(f"{name}: pending → not in Codat" for name in names),
    ]
    company.refresh_from_db()
    assert (company.is_in_codat, company.onboarding_state) == (False, OnboardingState.FAILED)
    assert company.onboarding_error == "Codat no longer has this company. Press Retry to make it again."
    onboarding.request(company, actor=RM)
    drain_queue()
    company.refresh_from_db()
    assert (company.is_in_codat, company.onboarding_state) == (True, OnboardingState.LINK_READY)
    assert company.codat_id != lost
    assert codat.stats()["objects"] | {"companies": 1, "connections": 1} == codat.stats()["objects"]


def test_a_company_that_seemed_gone_is_found_again_and_not_made_twice(
    company: Company, codat: SandboxProcess, drain_queue: Callable[[], int]
) -> None:
    there = company.codat_id
    Company.objects.filter(pk=company.pk).update(codat_id="00000000-0000-4000-8000-000000000000")
    company.refresh_from_db()
    sync.refresh_company(company, actor=RM)
    onboarding.request(company, actor=RM)
    drain_queue()
    company.refresh_from_db()
    assert (company.codat_id, company.onboarding_state) == (there, OnboardingState.LINK_READY)
    assert codat.requests_made("POST /companies") == 1


def test_one_refused_reading_is_no_proof_that_a_company_is_gone(company: Company, codat: SandboxProcess) -> None:
    refuse_one_reading(codat)
    with pytest.raises(NotFound):
        sync.refresh_company(company, actor=RM)
    company.refresh_from_db()
    assert (company.is_in_codat, company.onboarding_state) == (True, OnboardingState.LINK_READY)
    assert company.connections.get().gone_at is None


def test_a_company_whose_connection_we_do_not_know_is_read(company: Company) -> None:
    SourceAccount.objects.update(connection=None)
    Operation.objects.all().delete()
    Connection.objects.all().delete()
    sync.refresh_company(company, actor=RM)
    assert company.connections.get().status == "PendingAuth"


def test_a_company_that_is_not_in_codat_is_refused(db: None) -> None:
    with pytest.raises(Refused, match="not in Codat yet"):
        sync.refresh_company(CompanyFactory(), actor=RM)


def test_a_company_that_a_worker_holds_is_refused_and_left_alone(company: Company, codat: SandboxProcess) -> None:
    token = leases.claim(company.pk)
    before = codat.stats()["requests"]
    with pytest.raises(Refused, match="Try again in a moment"):
        sync.refresh_company(company, actor=RM, patience=0)
    assert codat.stats()["requests"] == before
    company.refresh_from_db()
    assert company.lease_token == token


def test_a_reading_that_took_longer_than_its_lease_is_thrown_away(
    company: Company, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account that another worker added meanwhile is not in the old list, and must not be taken for gone."""
    settings.ONBOARDING_LEASE_SECONDS = 0
    late = SourceAccountFactory(company=company, connection=company.connections.get(), status=AccountStatus.PENDING)
    client = gateway.client()
    listing = client.list_source_accounts

    def slow_listing(*ids: str) -> object:
        found = listing(*ids)
        SourceAccount.objects.filter(pk=late.pk).update(account_id="added-meanwhile")
        assert leases.claim(company.pk)  # another worker finds the lease expired
        return found

    monkeypatch.setattr(client, "list_source_accounts", slow_listing)
    with pytest.raises(Refused, match="went on with this company"):
        sync.refresh_company(company, actor=RM)
    late.refresh_from_db()
    assert late.gone_at is None

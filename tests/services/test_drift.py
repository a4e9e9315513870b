"""The nightly comparison and adopting, against the stand-in over real HTTP."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from feeds import mapping
from feeds.audit import Actor
from feeds.codat.client import CodatClient
from feeds.models import (
    AuditEntry,
    CodatQuota,
    Company,
    Connection,
    DriftFinding,
    DriftReport,
    ListingWalk,
    SourceAccount,
)
from feeds.services import drift, listing, sync
from feeds.services.errors import Refused
from feeds.states import ConnectionStatus, DriftKind, OnboardingState, SeenBy
from tests.factories import CompanyFactory, UserFactory
from tests.sandbox_process import SandboxProcess
from tests.seeded import seed

pytestmark = pytest.mark.django_db

RM = Actor(name="Rita Moreau", source="test")


@pytest.fixture
def portal(codat: SandboxProcess) -> CodatClient:
    """Somebody at the Codat Portal, who does not tell us."""
    return CodatClient(codat.url, codat.api_key)


def compare() -> DriftReport:
    """Run the comparison to its end."""
    while (outcome := drift.run()) == listing.Outcome.PAUSED:
        pass
    assert outcome == listing.Outcome.COMPLETE
    report = drift.latest()
    assert report is not None
    return report


def findings(report: DriftReport) -> list[tuple[str, str, str]]:
    """(kind, here, there) of each."""
    return list(report.findings.order_by("kind", "here", "there").values_list("kind", "here", "there"))


def account_body(account_id: str, number: str = "900100200300") -> dict[str, object]:
    """A source account as the Portal would create it."""
    return {
        "id": account_id,
        "accountName": "Savings",
        "accountType": "savings",
        "accountNumber": number,
        "currency": "CAD",
        "balance": 12.5,
        "routingInfo": {"bankCode": "000100011", "type": "bankcode"},
    }


def make_in_portal(portal: CodatClient, name: str, **tags: str) -> tuple[str, str]:
    """A company with a connection and an account; ids of the first two."""
    company = portal.create_company(name=name, tags={"origin": "portal", **tags}, idempotency_key=str(uuid.uuid4()))
    connection = portal.create_connection(company.id, idempotency_key=str(uuid.uuid4()))
    portal.create_source_account(company.id, connection.id, account_body("acc-9"), idempotency_key=str(uuid.uuid4()))
    return company.id, connection.id


def test_nothing_differs_and_the_report_says_so(codat: SandboxProcess) -> None:
    seed(codat, 30, accounts=1)
    report = compare()
    assert report.finished_at is not None
    assert report.companies_read == 30
    assert findings(report) == []


def test_every_kind_of_difference_is_found(
    codat: SandboxProcess, portal: CodatClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_SIZE", 3)
    seed(codat, 8, accounts=1)
    deleted, renamed, unlinked, unconnected, more, *_rest = Company.objects.order_by("pk")
    make_in_portal(portal, "Harbour Books")
    portal.delete_company(deleted.codat_id)
    portal.update_company(renamed.codat_id, name="Harbor Cafe", idempotency_key=str(uuid.uuid4()))
    portal.unlink_connection(unlinked.codat_id, unlinked.connections.get().codat_id, idempotency_key=str(uuid.uuid4()))
    portal.delete_connection(unconnected.codat_id, unconnected.connections.get().codat_id)
    held = more.connections.get()
    portal.create_source_account(more.codat_id, held.codat_id, account_body("extra"), idempotency_key=str(uuid.uuid4()))
    sync.read_company(more, how=SeenBy.POLL)
    calls = sum(codat.stats()["requests"].values())

    report = compare()

    assert sum(codat.stats()["requests"].values()) == calls + 3, "one call a page and none a company"
    assert report.companies_read == 8
    assert findings(report) == sorted(
        [
            (DriftKind.MISSING_HERE.value, "", "Harbour Books"),
            (DriftKind.MISSING_THERE.value, deleted.legal_name, ""),
            (DriftKind.RENAMED.value, renamed.legal_name, "Harbor Cafe"),
            (DriftKind.STATUS.value, "Linked", "Unlinked"),
            (DriftKind.STATUS.value, "Linked", "gone"),
            (DriftKind.ACCOUNTS.value, "1", "2"),
        ]
    )
    assert not Connection.objects.exclude(status=ConnectionStatus.LINKED).exists(), "it only compares"


def test_a_company_that_onboarding_has_just_created_is_no_stranger(codat: SandboxProcess, portal: CodatClient) -> None:
    company = CompanyFactory()
    portal.create_company(name="On its way", tags=mapping.company_tags(company.uid), idempotency_key=str(uuid.uuid4()))
    assert findings(compare()) == []


def test_the_name_as_codat_can_store_it_is_no_difference(codat: SandboxProcess, portal: CodatClient) -> None:
    seed(codat, 1)
    Company.objects.update(legal_name="Café Québec (Montréal)")
    company = Company.objects.get()
    portal.update_company(
        company.codat_id, name=mapping.codat_name(company.legal_name), idempotency_key=str(uuid.uuid4())
    )
    assert findings(compare()) == []


def test_a_comparison_that_was_killed_goes_on_and_finds_nothing_twice(
    codat: SandboxProcess, portal: CodatClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_SIZE", 2)
    monkeypatch.setattr(listing, "WALK_SECONDS", 0.0)
    for number in range(6):
        portal.create_company(name=f"Stranger {number}", tags={"n": str(number)}, idempotency_key=str(uuid.uuid4()))
    assert drift.run() == listing.Outcome.PAUSED

    with monkeypatch.context() as dying:
        dying.setattr(listing, "_checkpoint", _die)
        with pytest.raises(_Killed):
            drift.run()
    ListingWalk.objects.update(lease_expires_at=timezone.now())

    report = compare()
    assert [there for _kind, _here, there in findings(report)] == [f"Stranger {number}" for number in range(6)]
    assert DriftReport.objects.count() == 1


class _Killed(BaseException):
    pass


def _die(*_arguments: object) -> None:
    raise _Killed


def test_a_list_that_cannot_be_completed_is_a_report_that_says_why(codat: SandboxProcess) -> None:
    seed(codat, 2)
    codat.post_fault("malformed", method="GET", path="/companies", times=None)
    assert drift.run() == listing.Outcome.FAILED
    report = drift.latest()
    assert report is not None
    assert report.finished_at is None
    assert "could not be read" in report.error


# --- Adopting --------------------------------------------------------------------------------------------------------
def test_a_company_of_the_portal_is_adopted_with_its_connection_and_accounts(
    codat: SandboxProcess, portal: CodatClient
) -> None:
    company_id, connection_id = make_in_portal(portal, "Harbour Books", customerNumber="B-77")
    codat.connect(company_id, connection_id)
    compare()
    manager = UserFactory(role="Relationship managers")
    writes = writes_made(codat)

    company = drift.adopt(DriftFinding.objects.get(), actor=RM, manager=manager)

    assert (company.legal_name, company.customer_number, company.manager) == ("Harbour Books", "B-77", manager)
    assert (company.codat_id, company.country) == (company_id, "CA")
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINKED
    connection = company.connections.get()
    assert (connection.codat_id, connection.status, connection.link_url) == (connection_id, "Linked", "")
    account = SourceAccount.objects.get()
    assert (account.account_id, account.status, account.currency) == ("acc-9", "connected", "CAD")
    assert account.connection == connection
    assert writes_made(codat) == writes, "nothing is changed in Codat"
    entry = AuditEntry.objects.get(event="company_adopted")
    assert (entry.object_pk, entry.actor_name) == (str(company.pk), "Rita Moreau")
    assert findings(compare()) == []


def writes_made(codat: SandboxProcess) -> int:
    """Requests that may have changed something."""
    return sum(count for route, count in codat.stats()["requests"].items() if not route.startswith("GET "))


def test_without_a_number_it_gets_a_placeholder_that_staff_replace(codat: SandboxProcess, portal: CodatClient) -> None:
    company_id, _connection_id = make_in_portal(portal, "Harbour Books")
    compare()
    company = drift.adopt(DriftFinding.objects.get(), actor=RM, manager=None)
    assert company.customer_number == f"CODAT-{company_id}"


def test_it_is_adopted_once_and_never_under_a_number_that_is_taken(codat: SandboxProcess, portal: CodatClient) -> None:
    make_in_portal(portal, "Harbour Books")
    compare()
    finding = DriftFinding.objects.get()
    taken = CompanyFactory().customer_number
    with pytest.raises(Refused, match="customer number"):
        drift.adopt(finding, actor=RM, manager=None, customer_number=taken)
    stale = DriftFinding.objects.get()
    drift.adopt(finding, actor=RM, manager=None, customer_number="B-1")
    with pytest.raises(Refused, match="adopted already"):
        drift.adopt(stale, actor=RM, manager=None, customer_number="B-2")
    assert Company.objects.filter(codat_id=finding.codat_company_id).count() == 1


def test_a_company_without_a_connection_is_adopted_as_a_draft_that_can_be_onboarded(
    codat: SandboxProcess, portal: CodatClient
) -> None:
    portal.create_company(name="Bare", tags={"a": "b"}, idempotency_key=str(uuid.uuid4()))
    compare()
    company = drift.adopt(DriftFinding.objects.get(), actor=RM, manager=None)
    assert company.onboarding_state == OnboardingState.DRAFT
    assert company.is_in_codat


def test_only_what_is_missing_here_can_be_adopted(codat: SandboxProcess, portal: CodatClient) -> None:
    seed(codat, 1)
    portal.delete_company(Company.objects.get().codat_id)
    compare()
    with pytest.raises(Refused, match="nothing to adopt"):
        drift.adopt(DriftFinding.objects.get(), actor=RM, manager=None)


def an_hour_later() -> None:
    """The comparison that was begun has stood still for more than an hour."""
    for report in DriftReport.objects.all():
        DriftReport.objects.filter(pk=report.pk).update(started_at=report.started_at - timedelta(minutes=61))
    for walk in ListingWalk.objects.filter(started_at__isnull=False):
        ListingWalk.objects.filter(pk=walk.pk).update(started_at=walk.started_at - timedelta(minutes=61))


def test_a_comparison_that_had_no_quota_is_made_when_there_is_some(codat: SandboxProcess) -> None:
    seed(codat, 3, accounts=1)
    CodatQuota.objects.create(limit=1000, remaining=0, read_at=timezone.now())
    assert drift.tonight() == listing.Outcome.POSTPONED.value
    assert not DriftReport.objects.exists()
    CodatQuota.objects.all().delete()
    an_hour_later()
    assert drift.tonight() == listing.Outcome.COMPLETE.value


def test_a_comparison_whose_worker_died_is_made_the_same_night(
    codat: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """What no handler of ours catches."""

    def die(*_arguments: object) -> None:
        raise Killed

    seed(codat, 3, accounts=1)
    with monkeypatch.context() as patch:
        patch.setattr(drift, "_follow_links", die)
        with pytest.raises(Killed):
            drift.tonight()
    an_hour_later()
    assert drift.tonight() == listing.Outcome.COMPLETE.value

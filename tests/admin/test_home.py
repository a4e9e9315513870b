"""The home page of each role: what each should look at first, at a cost that does not grow with the bank."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from feeds import audit
from feeds.models import Company, Connection, Heartbeat
from feeds.services import home
from feeds.services.roles import ADMINISTRATORS, COMPLIANCE_AUDITORS, RELATIONSHIP_MANAGERS, SUPPORT
from feeds.states import AccountStatus, ConnectionStatus, OnboardingState, OperationState
from tests.factories import (
    CompanyFactory,
    ConnectionFactory,
    InvitationFactory,
    OperationFactory,
    SourceAccountFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db


def member(role: str) -> User:
    """A staff member of the role."""
    user: User = UserFactory(role=role)
    return user


def names(companies: Any) -> list[str]:
    """Legal names."""
    return [company.legal_name for company in companies]


def browser(user: User) -> Client:
    """Their browser."""
    client = Client()
    client.force_login(user)
    return client


def show(user: User) -> str:
    """The home page as they see it."""
    answer = browser(user).get(reverse("admin:index"))
    assert answer.status_code == 200
    return str(answer.content.decode())


def busy_bank(manager: User | None, count: int = 1) -> None:
    """Something for every part of the page, `count` times."""
    now = timezone.now()
    for _number in range(count):
        CompanyFactory(manager=manager, onboarding_state=OnboardingState.FAILED, onboarding_error="Codat said no.")
        expiring = ConnectionFactory(company__manager=manager, with_link=True)
        Connection.objects.filter(pk=expiring.pk).update(link_expires_at=now + timedelta(minutes=5))
        ConnectionFactory(company__manager=manager, status=ConnectionStatus.UNLINKED)
        SourceAccountFactory(in_codat=True, company__manager=manager, status=AccountStatus.DISCONNECTED)
        OperationFactory(state=OperationState.FAILED)
        # Mailed nine days ago, and never opened.
        InvitationFactory(company__manager=manager, sent_at=now - timedelta(days=9))


class TestRelationshipManager:
    def test_sees_their_own_companies_only(self) -> None:
        robin = member(RELATIONSHIP_MANAGERS)
        CompanyFactory(legal_name="Mine", manager=robin, onboarding_state=OnboardingState.FAILED)
        CompanyFactory(legal_name="Other", manager=member(RELATIONSHIP_MANAGERS), onboarding_state="failed")
        found = home.for_person(robin)
        assert found.is_mine
        assert names(found.recent or []) == ["Mine"]
        assert names(found.stuck or []) == ["Mine"]
        assert "Other" not in show(robin)

    def test_sees_links_that_are_about_to_expire_and_never_the_links(self) -> None:
        robin = member(RELATIONSHIP_MANAGERS)
        now = timezone.now()
        for name, minutes in (("Later", 45), ("Soon", 20), ("First", 5), ("Gone", -5)):
            connection = ConnectionFactory(company__legal_name=name, company__manager=robin, with_link=True)
            Connection.objects.filter(pk=connection.pk).update(link_expires_at=now + timedelta(minutes=minutes))
        found = home.for_person(robin, now)
        assert [connection.company.legal_name for connection in found.expiring or []] == ["First", "Soon"]
        assert "otp=" not in show(robin)

    def test_sees_broken_feeds(self) -> None:
        robin = member(RELATIONSHIP_MANAGERS)
        busy_bank(robin)
        found = home.for_person(robin)
        assert len(found.broken or []) == 1
        assert len(found.disconnected or []) == 1

    def test_sees_neither_history_nor_system(self) -> None:
        found = home.for_person(member(RELATIONSHIP_MANAGERS))
        assert (found.changes, found.system, found.refused) == (None, None, None)

    def test_a_count_leads_to_its_companies(self) -> None:
        robin = member(RELATIONSHIP_MANAGERS)
        link = f"{reverse('admin:feeds_company_changelist')}?onboarding_state__exact=failed&amp;manager=me"
        assert link in show(robin)

    def test_the_page_says_as_of_when(self) -> None:
        assert "Your companies," in show(member(RELATIONSHIP_MANAGERS))
        assert "as of <time" in show(member(RELATIONSHIP_MANAGERS))


@pytest.mark.parametrize("role", [SUPPORT, COMPLIANCE_AUDITORS, ADMINISTRATORS])
def test_the_other_roles_see_everybodys_companies(role: str) -> None:
    CompanyFactory(legal_name="Anybody's", manager=member(RELATIONSHIP_MANAGERS), onboarding_state="failed")
    found = home.for_person(member(role))
    assert not found.is_mine
    assert found.recent is None
    assert names(found.stuck or []) == ["Anybody's"]


def test_auditors_see_the_latest_changes_and_no_links_to_hand_over() -> None:
    auditor = member(COMPLIANCE_AUDITORS)
    audit.record("link_revealed", ConnectionFactory(with_link=True))
    found = home.for_person(auditor)
    assert found.expiring is None
    assert (found.changes or [])[0].event == "link_revealed"
    assert "otp=" not in show(auditor)


def test_support_sees_what_failed_and_not_the_history() -> None:
    OperationFactory(state=OperationState.UNKNOWN)
    OperationFactory(state=OperationState.SUCCEEDED)
    found = home.for_person(member(SUPPORT))
    assert [operation.state for operation in found.refused or []] == ["unknown"]
    assert found.changes is None


def test_administrators_see_whether_the_worker_lives() -> None:
    administrator = member(ADMINISTRATORS)
    assert "never seen" in show(administrator)
    Heartbeat.objects.create(name="worker", beat_at=timezone.now())
    assert "Last beat: worker" in show(administrator)


def test_someone_without_permissions_sees_no_part() -> None:
    stranger = UserFactory()
    found = home.for_person(stranger)
    assert [part for part in (found.counts, found.stuck, found.expiring, found.broken, found.changes) if part] == []
    assert "home-stuck" not in show(stranger)


def test_a_visitor_is_sent_to_sign_in() -> None:
    assert Client().get(reverse("admin:index")).status_code == 302


def test_counts_stop_at_their_cap() -> None:
    CompanyFactory.create_batch(4)
    assert str(home.capped_count(Company.objects.all(), cap=3)) == "3+"
    assert str(home.capped_count(Company.objects.all(), cap=4)) == "4"
    with CaptureQueriesContext(database) as captured:
        home.capped_count(Company.objects.all())
    assert f"LIMIT {home.COUNT_CAP + 1}" in captured[0]["sql"]


def test_no_list_is_longer_than_a_screen() -> None:
    robin = member(RELATIONSHIP_MANAGERS)
    busy_bank(robin, count=home.ROWS + 1)
    found = home.for_person(robin)
    lists = (found.recent, found.stuck, found.expiring, found.broken, found.disconnected)
    assert [len(rows or []) for rows in lists] == [home.ROWS] * 5


@pytest.mark.parametrize("role", [RELATIONSHIP_MANAGERS, SUPPORT, COMPLIANCE_AUDITORS, ADMINISTRATORS])
def test_it_costs_the_same_for_a_small_and_a_large_bank(role: str) -> None:
    user = member(role)
    client = browser(user)

    def queries() -> int:
        with CaptureQueriesContext(database) as captured:
            assert client.get(reverse("admin:index")).status_code == 200
        return len(captured)

    busy_bank(user)
    audit.record("link_revealed", ConnectionFactory())
    few = queries()
    busy_bank(user, count=49)
    assert queries() == few
    assert few <= 24


class TestSite:
    def test_the_sidebar_is_grouped_by_what_the_screens_are_about(self) -> None:
        boss = UserFactory(is_superuser=True)
        groups = browser(boss).get(reverse("admin:index")).context["available_apps"]
        named = {str(group["name"]): {model["object_name"] for model in group["models"]} for group in groups}
        assert named["Customers"] == {
            "Company",
            "Invitation",
            "Batch",
            "CalloutVersion",
            "AccessGrant",
            "InvitationFunnel",
        }
        assert named["Codat"] == {"Connection", "SourceAccount", "Operation", "WebhookEvent"}
        assert named["History"] == {"AuditEntry", "AuditSeal", "HistoryCheck", "HistoryExport"}
        assert named["People"] == {"User", "Group", "SignInLock", "ApiKey"}

    def test_a_group_with_nothing_to_see_is_left_out(self) -> None:
        page = show(member(RELATIONSHIP_MANAGERS))
        assert "<caption>Customers</caption>" in page
        assert "<caption>History</caption>" not in page

    @pytest.mark.parametrize(
        ("sandbox", "production", "seen", "not_seen"),
        [
            (True, False, ["SANDBOX", "Environment: test"], []),
            (False, False, ["Environment: test"], ["SANDBOX"]),
            (False, True, [], ["SANDBOX", "Environment:"]),
        ],
    )
    def test_the_banner_says_where_we_are(
        self, settings: Any, sandbox: bool, production: bool, seen: list[str], not_seen: list[str]
    ) -> None:
        settings.CODAT_SANDBOX = sandbox
        settings.IS_PRODUCTION = production
        page = str(Client().get(reverse("admin:login")).content.decode())
        assert all(text in page for text in seen)
        assert not any(text in page for text in not_seen)

    def test_no_page_carries_inline_script_or_style(self) -> None:
        page = show(UserFactory(is_superuser=True))
        assert "<style" not in page
        assert " style=" not in page
        assert "onclick" not in page

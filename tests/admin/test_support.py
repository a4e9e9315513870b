"""Incidents, drift, status changes, the timeline's page, and what home tells support."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from feeds import audit
from feeds.models import AuditEntry, Company, DriftFinding, Incident
from feeds.services import onboarding
from feeds.services.roles import RELATIONSHIP_MANAGERS, SUPPORT
from feeds.states import AccountStatus, ConnectionStatus, DriftKind, SeenBy
from tests.factories import (
    CaseEventFactory,
    CaseFactory,
    CompanyFactory,
    ConnectionFactory,
    DriftFindingFactory,
    DriftReportFactory,
    IncidentFactory,
    SourceAccountFactory,
    StatusEventFactory,
    UserFactory,
)
from tests.history import last_entry
from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.django_db


def browser(*permissions: str, **fields: Any) -> Client:
    """A signed-in browser of somebody with these permissions."""
    client = Client()
    client.force_login(UserFactory(permissions=permissions, **fields))
    return client


def messages(answer: Any) -> list[str]:
    """The messages the page shows, as text."""
    return [re.sub(r"<[^>]+>", "", str(message)) for message in answer.context["messages"]]


def page(client: Client, obj: Any) -> str:
    """The object's screen."""
    answer = client.get(reverse(f"admin:feeds_{obj._meta.model_name}_change", args=[obj.pk]))
    assert answer.status_code == 200
    return str(answer.content.decode())


class TestIncident:
    SEES = ("feeds.view_incident", "feeds.view_case")
    RELEASES = (*SEES, "feeds.release_incident")

    @staticmethod
    def url(incident: Incident) -> str:
        """Address of Release."""
        return reverse("admin:feeds_incident_action", args=[incident.pk, "release"])

    def test_its_cases_stand_in_groups_what_nobody_works_on_first(self) -> None:
        incident = IncidentFactory()
        taken = CaseFactory(incident=incident, owner=UserFactory(first_name="Kim", last_name="Lee"))
        closed, nobodys = CaseFactory(incident=incident, closed=True), CaseFactory(incident=incident)
        CaseFactory()
        text = page(browser(*self.SEES), incident)
        places = [text.index(case.company.legal_name) for case in (nobodys, taken, closed)]
        assert places == sorted(places)
        assert re.findall(r'<h2 id="group-\d">([^<]+)</h2>', text) == ["Unassigned (1)", "Taken (1)", "Closed (1)"]
        assert "Kim Lee" in text
        assert "holds its mails" in text

    def test_release_releases_it_and_the_history_says_who_and_why(self) -> None:
        incident = IncidentFactory()
        CaseFactory(incident=incident)
        client = browser(*self.RELEASES)
        assert "one summary mail" in client.get(self.url(incident)).content.decode()
        before = last_entry()
        answer = client.post(self.url(incident), {"note": "Codat was down for two hours."}, follow=True)
        assert messages(answer) == ["The incident is released."]
        incident.refresh_from_db()
        assert incident.released_at is not None
        assert incident.released_by_name == answer.wsgi_request.user.get_full_name()
        entry = AuditEntry.objects.get(content_type__model="incident", pk__gt=before)
        assert (entry.actor, entry.reason) == (answer.wsgi_request.user, "Codat was down for two hours.")
        text = page(client, incident)
        assert "Codat was down for two hours." in text
        assert self.url(incident) not in text

    def test_it_is_released_once(self) -> None:
        incident = IncidentFactory(released_at=timezone.now())
        answer = browser(*self.RELEASES).post(self.url(incident), {"note": ""}, follow=True)
        assert messages(answer) == ["This incident is released already."]

    def test_the_button_is_hidden_and_refused_without_the_permission(self) -> None:
        incident = IncidentFactory()
        assert self.url(incident) in page(browser(*self.RELEASES), incident)
        client = browser(*self.SEES)
        assert self.url(incident) not in page(client, incident)
        assert client.post(self.url(incident)).status_code == 403
        assert browser("feeds.release_incident").post(self.url(incident)).status_code == 403
        incident.refresh_from_db()
        assert incident.released_at is None

    def test_the_list_says_how_many_cases_each_has(self) -> None:
        CaseFactory.create_batch(2, incident=IncidentFactory(released_at=timezone.now()))
        IncidentFactory()
        answer = browser(*self.SEES).get(reverse("admin:feeds_incident_changelist"))
        assert [incident.case_count for incident in answer.context["cl"].result_list] == [0, 2]

    def test_fifty_cases_take_as_many_queries_as_one(self, django_assert_num_queries: Any) -> None:
        client, incident = browser(*self.RELEASES), IncidentFactory()
        CaseFactory(incident=incident)
        page(client, incident)
        with CaptureQueriesContext(database) as one:
            page(client, incident)
        CaseFactory.create_batch(49, incident=incident)
        with django_assert_num_queries(len(one)):
            page(client, incident)


class TestDrift:
    SEES = ("feeds.view_driftreport", "feeds.view_driftfinding", "feeds.view_company")
    ADOPTS = (*SEES, "feeds.adopt_company")

    @staticmethod
    def url(finding: DriftFinding) -> str:
        """Address of Adopt."""
        return reverse("admin:feeds_driftfinding_action", args=[finding.pk, "adopt"])

    @pytest.fixture
    def stranger(self, codat: SandboxProcess, drain_queue: Callable[[], int]) -> DriftFinding:
        """A company with a connection and an account that Codat has and we do not."""
        company = CompanyFactory(legal_name="Portal Bakery")
        SourceAccountFactory(company=company)
        onboarding.request(company, actor=audit.SYSTEM)
        drain_queue()
        company.refresh_from_db()
        finding: DriftFinding = DriftFindingFactory(codat_company_id=company.codat_id, there="Portal Bakery")
        Company.objects.filter(pk=company.pk).update(codat_id="")
        company.connections.update(codat_id=f"was-{company.pk}")
        return finding

    def test_a_report_says_what_differs_and_what_to_do(self) -> None:
        report = DriftReportFactory(companies_read=4212)
        company = CompanyFactory(legal_name="Harbor Bikes")
        DriftFindingFactory(report=report, there="Portal Bakery")
        DriftFindingFactory(report=report, kind=DriftKind.RENAMED, company=company, here="Harbor Bikes", there="Harbor")
        DriftFindingFactory(kind=DriftKind.STATUS, company=company)
        text = page(browser(*self.SEES), report)
        assert re.findall(r'<h2 id="kind-\w+">([^<]+)</h2>', text) == ["Only in Codat (1)", "Name differs (1)"]
        for expected in ("4212 companies were read", "Portal Bakery", "Harbor Bikes", "Correct the legal name here"):
            assert expected in text

    def test_a_report_that_was_broken_off_does_not_claim_that_nothing_differs(self) -> None:
        report = DriftReportFactory(finished_at=None, error="Codat did not answer.")
        text = page(browser(*self.SEES), report)
        assert "Codat did not answer." in text
        assert "say the same" not in text
        assert "say the same" in page(browser(*self.SEES), DriftReportFactory())

    def test_adopt_takes_the_company_over(self, stranger: DriftFinding) -> None:
        client, manager = browser(*self.ADOPTS), UserFactory(role=RELATIONSHIP_MANAGERS)
        data = {"customer_number": "PB-7", "manager": str(manager.pk)}
        answer = client.post(self.url(stranger), data, follow=True)
        company = Company.objects.get(customer_number="PB-7")
        assert messages(answer) == [f"Adopted: {company}."]
        assert (company.codat_id, company.manager) == (stranger.codat_company_id, manager)
        stranger.refresh_from_db()
        assert stranger.company == company
        adopted = AuditEntry.objects.get(event="company_adopted")
        assert (adopted.actor, adopted.object_pk) == (answer.wsgi_request.user, str(company.pk))

    def test_adopt_is_offered_on_the_report_and_only_where_it_makes_sense(self) -> None:
        report = DriftReportFactory()
        stranger = DriftFindingFactory(report=report)
        renamed = DriftFindingFactory(report=report, kind=DriftKind.RENAMED, company=CompanyFactory())
        text = page(browser(*self.ADOPTS), report)
        assert self.url(stranger) in text
        assert self.url(renamed) not in text
        answer = browser(*self.ADOPTS).post(self.url(renamed), {"customer_number": "X", "manager": "1"}, follow=True)
        assert messages(answer) == ["Only a company that is in Codat and not here can be adopted."]

    def test_it_is_hidden_and_refused_without_the_permission(self) -> None:
        report = DriftReportFactory()
        stranger = DriftFindingFactory(report=report)
        client = browser(*self.SEES)
        assert self.url(stranger) not in page(client, report)
        assert client.post(self.url(stranger), {"customer_number": "PB-7"}).status_code == 403

    def test_a_taken_customer_number_is_refused_and_what_was_typed_is_kept(self) -> None:
        CompanyFactory(customer_number="PB-7")
        manager = UserFactory(role=RELATIONSHIP_MANAGERS)
        data = {"customer_number": "PB-7", "manager": str(manager.pk)}
        answer = browser(*self.ADOPTS).post(self.url(DriftFindingFactory()), data)
        assert messages(answer) == ["Another company has the customer number PB-7."]
        text = answer.content.decode()
        assert 'value="PB-7"' in text
        assert re.search(rf'<option value="{manager.pk}" selected>', text)

    def test_what_codat_answers_is_said_on_the_page(self, stranger: DriftFinding, settings: Any) -> None:
        settings.CODAT_API_KEY = "a-wrong-key"
        data = {"customer_number": "PB-7", "manager": str(UserFactory(role=SUPPORT).pk)}
        answer = browser(*self.ADOPTS).post(self.url(stranger), data)
        assert messages(answer)[0].startswith("Codat refused our API key.")
        assert not Company.objects.filter(customer_number="PB-7").exists()


class TestStatusChanges:
    LIST = reverse("admin:feeds_statusevent_changelist")

    def test_they_are_listed_newest_first_and_filtered_by_how_they_were_seen(self) -> None:
        poll, webhook = StatusEventFactory(), StatusEventFactory(seen_by=SeenBy.WEBHOOK, reference="msg_7")
        client = browser("feeds.view_statusevent")
        assert list(client.get(self.LIST).context["cl"].result_list) == [webhook, poll]
        answer = client.get(self.LIST, {"seen_by__exact": "webhook"})
        assert list(answer.context["cl"].result_list) == [webhook]
        assert "msg_7" in answer.content.decode()

    def test_the_page_of_one_explains_the_new_status(self) -> None:
        account = SourceAccountFactory(in_codat=True, name="Payroll")
        text = page(browser("feeds.view_statusevent"), StatusEventFactory(account=account))
        assert "Payroll" in text
        assert "QuickBooks has not asked for this account for ten days" in text

    def test_what_is_gone_from_codat_is_said_in_words(self) -> None:
        text = page(browser("feeds.view_statusevent"), StatusEventFactory(new="gone"))
        assert "Codat no longer has it." in text


class TestTimelinePage:
    SEES = ("feeds.view_company", "feeds.view_connection", "feeds.view_operation", "feeds.view_case")

    @staticmethod
    def url(company: Company) -> str:
        """Address of the company's timeline."""
        return reverse("admin:feeds_company_timeline", args=[company.pk])

    def test_the_company_page_leads_to_it(self) -> None:
        company = CompanyFactory()
        assert self.url(company) in page(browser("feeds.view_company"), company)

    def test_it_is_read_page_by_page(self, monkeypatch: pytest.MonkeyPatch) -> None:
        case = CaseFactory(opened_at=timezone.now() - timedelta(days=1))
        for number in range(110):
            CaseEventFactory(case=case, text=f"note {number}.")
        client = browser(*self.SEES)
        first = client.get(self.url(case.company))
        text = first.content.decode()
        assert "note 109." in text
        assert "note 5." not in text
        assert ">Newest</a>" not in text
        (older,) = re.findall(r'href="(\?before=[^"]+)">Older<', text)
        second = client.get(self.url(case.company) + older).content.decode()
        assert "note 9." in second
        assert "connected → disconnected" in second
        assert "note 10." not in second
        assert ">Newest</a>" in second
        assert ">Older</a>" not in second

    def test_nonsense_in_the_address_shows_the_newest_page(self) -> None:
        case = CaseFactory()
        answer = browser(*self.SEES).get(self.url(case.company), {"before": "yesterday"})
        assert "connected → disconnected" in answer.content.decode()

    def test_each_reader_is_told_what_they_may_see(self) -> None:
        case = CaseFactory()
        CaseEventFactory(case=case, text="They are about to leave us.")
        text = browser("feeds.view_company", "feeds.view_connection").get(self.url(case.company)).content.decode()
        assert "connected → disconnected" in text
        assert "They are about to leave us." not in text

    def test_it_is_closed_to_those_who_may_not_see_companies(self) -> None:
        assert browser("feeds.view_case").get(self.url(CompanyFactory())).status_code == 403
        assert browser(*self.SEES).get(reverse("admin:feeds_company_timeline", args=[0])).status_code == 404

    def test_times_are_the_staff_members_and_names_are_escaped(self) -> None:
        account = SourceAccountFactory(in_codat=True, name="<b>Payroll")
        event = StatusEventFactory(account=account)
        with timezone.override("America/Vancouver"):
            text = browser(*self.SEES).get(self.url(event.company)).content.decode()
        assert "&lt;b&gt;Payroll: connected → disconnected" in text
        assert re.search(r"\d\d:\d\d:\d\d P[SD]T", text)

    def test_fifty_of_everything_takes_as_many_queries_as_one(self, django_assert_num_queries: Any) -> None:
        client, case = browser(*self.SEES), CaseFactory()

        def happen() -> None:
            CaseEventFactory(case=case)
            audit.record("link_revealed", case.connection)
            account = SourceAccountFactory(
                company=case.company, connection=case.connection, status=AccountStatus.DISCONNECTED
            )
            StatusEventFactory(account=account)

        happen()
        client.get(self.url(case.company))
        with CaptureQueriesContext(database) as one:
            client.get(self.url(case.company))
        for _ in range(49):
            happen()
        with django_assert_num_queries(len(one)):
            client.get(self.url(case.company))


class TestHome:
    def test_support_sees_its_own_unassigned_and_overdue_cases(self) -> None:
        client = Client()
        me = UserFactory(role=SUPPORT)
        client.force_login(me)
        past = timezone.now() - timedelta(hours=1)
        CaseFactory(owner=me, due_at=past)
        CaseFactory.create_batch(2)
        CaseFactory(closed=True, due_at=past)
        answer = client.get("/admin/")
        shown = answer.context["home"].cases
        assert [str(count) for count in (shown.mine, shown.unassigned, shown.overdue)] == ["1", "2", "1"]
        cases_url = reverse("admin:feeds_case_changelist")
        for tab, count in (("mine", 1), ("unassigned", 2), ("overdue", 1)):
            assert f'href="{cases_url}?list={tab}"' in answer.content.decode()
            assert client.get(cases_url, {"list": tab}).context["cl"].result_count == count

    @pytest.mark.parametrize("role", [RELATIONSHIP_MANAGERS, "Compliance auditors"])
    def test_who_works_no_cases_sees_no_numbers_of_cases(self, role: str) -> None:
        client = Client()
        client.force_login(UserFactory(role=role))
        assert client.get("/admin/").context["home"].cases is None

    def test_the_screens_of_support_stand_together_in_the_sidebar(self) -> None:
        client = Client()
        client.force_login(UserFactory(role=SUPPORT))
        groups = {group["app_label"]: group for group in client.get("/admin/").context["app_list"]}
        names = [model["object_name"] for model in groups["support"]["models"]]
        assert names == ["Case", "Incident", "Mail", "StatusEvent", "DriftReport"]


def test_a_connection_that_codat_lost_is_named_so_on_its_case() -> None:
    connection = ConnectionFactory(status=ConnectionStatus.LINKED, gone_at=timezone.now())
    text = page(browser("feeds.view_case"), CaseFactory(connection=connection))
    assert "gone from Codat" in text

"""Whose customers a manager sees, taking over, giving away, and emergency access: through the admin."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from feeds.models import AccessGrant, Approval, AuditEntry, Company, Connection, Mail, Operation
from feeds.services import approvals, roles
from feeds.services.approvals import fingerprint
from feeds.states import ApprovalState, MailKind
from tests.factories import (
    AccessGrantFactory,
    ApprovalFactory,
    BatchFactory,
    CaseFactory,
    CompanyFactory,
    ConnectionFactory,
    OperationFactory,
    SourceAccountFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

ASK = reverse("admin:feeds_accessgrant_add")
COMPANIES = reverse("admin:feeds_company_changelist")
REASON = "Rosa is away and the customer waits on the phone."


@pytest.fixture(autouse=True)
def _as_in_production(settings: Any) -> None:
    settings.RM_SEES_ALL_CUSTOMERS = False


@pytest.fixture
def robin() -> User:
    """The relationship manager whose browser `staff` is."""
    user: User = UserFactory(role=roles.RELATIONSHIP_MANAGERS, first_name="Robin", last_name="Hall")
    return user


@pytest.fixture
def rosa() -> User:
    """Another one."""
    user: User = UserFactory(role=roles.RELATIONSHIP_MANAGERS, first_name="Rosa", last_name="Marchetti")
    return user


@pytest.fixture
def staff(robin: User) -> Client:
    """Robin's browser."""
    return browser(robin)


@pytest.fixture
def hers(rosa: User) -> Company:
    """A customer of Rosa's."""
    company: Company = CompanyFactory(legal_name="Harbor Light", customer_number="HL-1", manager=rosa, in_codat=True)
    return company


def browser(user: User) -> Client:
    """A signed-in browser."""
    client = Client()
    client.force_login(user)
    return client


def page_of(company: Company) -> str:
    """The company's page."""
    return reverse("admin:feeds_company_change", args=[company.pk])


def listed(client: Client, address: str, **query: str) -> set[Any]:
    """The rows of a list page."""
    answer = client.get(address, query)
    assert answer.status_code == 200
    return set(answer.context["cl"].result_list)


def texts(answer: Any) -> list[str]:
    """The messages the page shows."""
    return [re.sub(r"<[^>]+>", "", str(message)) for message in answer.context["messages"]]


def open_for(user: User, company: Company, **values: Any) -> AccessGrant:
    """An emergency access of `user` to `company`."""
    grant: AccessGrant = AccessGrantFactory(user=user, company=company, reason=REASON, **values)
    return grant


# --- Their own -------------------------------------------------------------------------------------------------------
class TestOwnCustomers:
    def test_the_setting_is_off_unless_somebody_turns_it_on(self) -> None:
        import subprocess
        import sys

        code = "from backoffice import settings; print(settings.RM_SEES_ALL_CUSTOMERS, settings.EMERGENCY_ACCESS_HOURS)"
        environment = {"ENVIRONMENT": "test", "PATH": "/usr/bin:/bin"}
        told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert told.stdout.split() == ["False", "8"]

    def test_a_manager_sees_their_own_and_nobodys_and_all_that_hangs_on_them(
        self, staff: Client, robin: User, hers: Company
    ) -> None:
        own, nobodys = CompanyFactory(manager=robin, in_codat=True), CompanyFactory(in_codat=True)
        rows = {}
        for company in (own, nobodys, hers):
            connection = ConnectionFactory(company=company)
            account = SourceAccountFactory(company=company, connection=connection)
            rows[company] = (connection, account, OperationFactory(company=company))
        assert listed(staff, COMPANIES) == {own, nobodys}
        for place, model in enumerate(("connection", "sourceaccount", "operation")):
            address = reverse(f"admin:feeds_{model}_changelist")
            assert listed(staff, address) == {rows[own][place], rows[nobodys][place]}
            assert listed(staff, address, q=hers.customer_number) == set()
            assert listed(staff, address, q=own.customer_number) == {rows[own][place]}
        operation = rows[hers][2]
        assert listed(staff, reverse("admin:feeds_operation_changelist"), q=f"#{operation.pk}") == set()

    def test_the_setting_opens_all_of_them(self, staff: Client, hers: Company, settings: Any) -> None:
        settings.RM_SEES_ALL_CUSTOMERS = True
        assert listed(staff, COMPANIES) == {hers}

    @pytest.mark.parametrize("role", sorted(set(roles.ROLES) - {roles.RELATIONSHIP_MANAGERS}))
    def test_everybody_else_sees_all(self, role: str, hers: Company) -> None:
        assert listed(browser(UserFactory(role=role)), COMPANIES) == {hers}

    def test_anothers_page_is_as_if_it_were_not_there(self, staff: Client, hers: Company) -> None:
        answer = staff.get(page_of(hers), follow=True)
        assert answer.redirect_chain[-1][0] == reverse("admin:index")
        assert "its customer is another manager's" in texts(answer)[0]
        assert hers.legal_name not in answer.content.decode()
        assert staff.post(reverse("admin:feeds_company_action", args=[hers.pk, "onboard"])).status_code == 404
        assert staff.get(reverse("admin:feeds_company_progress", args=[hers.pk])).status_code == 404
        assert staff.get(reverse("admin:feeds_company_timeline", args=[hers.pk])).status_code == 404

    def test_a_list_action_leaves_anothers_row_alone(self, staff: Client, robin: User, hers: Company) -> None:
        own = CompanyFactory(manager=robin)
        for company in (own, hers):
            SourceAccountFactory(company=company)
        data = {"action": "onboard_selected", "_selected_action": [own.pk, hers.pk], "confirmed": "1"}
        assert "1 done" in texts(staff.post(COMPANIES, data, follow=True))
        assert set(Operation.objects.values_list("company", flat=True)) <= {own.pk}
        hers.refresh_from_db()
        assert hers.onboarding_state != "queued"

    def test_the_search_limit_is_not_used_up_by_others(self, staff: Client, robin: User, rosa: User) -> None:
        from feeds.admin.base import BackOfficeAdmin

        own = ConnectionFactory(company=CompanyFactory(legal_name="Maple One", manager=robin, in_codat=True))
        for _ in range(3):
            ConnectionFactory(company=CompanyFactory(legal_name="Maple Two", manager=rosa, in_codat=True))
        limit = pytest.MonkeyPatch()
        limit.setattr(BackOfficeAdmin, "search_company_limit", 2)
        try:
            assert listed(staff, reverse("admin:feeds_connection_changelist"), q="Maple") == {own}
        finally:
            limit.undo()

    def test_suggestions_name_no_customer_of_another(self, staff: Client, robin: User, hers: Company) -> None:
        own = CompanyFactory(legal_name="Harbor Own", manager=robin)
        query = {"app_label": "feeds", "model_name": "connection", "field_name": "company", "term": "Harbor"}
        answer = staff.get(reverse("admin:autocomplete"), query).json()
        assert [row["id"] for row in answer["results"]] == [str(own.pk)]

    def test_a_bulk_onboarding_is_its_makers_and_shows_what_they_still_see(
        self, staff: Client, robin: User, hers: Company
    ) -> None:
        mine, other = BatchFactory(requested_by=robin), BatchFactory(requested_by=hers.manager)
        own = CompanyFactory(manager=robin, onboarding_state="failed")
        Company.objects.filter(pk=hers.pk).update(onboarding_state="failed")
        for company in (own, hers):
            mine.items.create(company=company)
        assert listed(staff, reverse("admin:feeds_batch_changelist")) == {mine}
        assert staff.get(reverse("admin:feeds_batch_progress", args=[other.pk])).status_code == 404
        page = staff.get(reverse("admin:feeds_batch_progress", args=[mine.pk])).content.decode()
        assert own.legal_name in page
        assert hers.legal_name not in page
        assert "1 failed" in page

    def test_the_home_page_names_no_customer_of_another(self, staff: Client, hers: Company) -> None:
        Company.objects.filter(pk=hers.pk).update(onboarding_state="failed")
        ConnectionFactory(company=hers, status="Unlinked")
        CompanyFactory(legal_name="Of Nobody")
        page = staff.get(reverse("admin:index")).content.decode()
        assert hers.legal_name not in page
        assert re.search(r'<span class="tile-count">1</span> Without a manager', page)

    def test_a_bank_of_its_own_group_sees_no_more_than_its_own(self, hers: Company) -> None:
        labels = [
            "feeds.view_company", "feeds.view_auditentry", "feeds.view_incident", "feeds.view_operation",
            "feeds.view_case", "feeds.work_case",
        ]  # fmt: skip
        client = browser(UserFactory(permissions=labels))
        assert listed(client, COMPANIES) == set()
        case = CaseFactory(connection=ConnectionFactory(company=hers))
        address = reverse("admin:feeds_case_changelist")
        for tab in ("all", "mine", "unassigned", "overdue", "closed"):
            assert listed(client, address, list=tab) == set()
        client.post(address, {"action": "take_selected", "_selected_action": [case.pk]})
        case.refresh_from_db()
        assert case.owner is None
        assert client.get(reverse("admin:feeds_auditentry_changelist")).status_code == 403
        assert client.get(reverse("admin:feeds_incident_changelist")).status_code == 403
        assert hers.legal_name not in client.get(reverse("admin:index")).content.decode()

    def test_a_double_account_number_names_no_customer_of_another(
        self, staff: Client, robin: User, hers: Company
    ) -> None:
        SourceAccountFactory(company=hers, account_number="400011223344")
        own = CompanyFactory(manager=robin)
        SourceAccountFactory(company=own, account_number="400011223344")
        page = staff.get(reverse("admin:feeds_company_action", args=[own.pk, "onboard"])).content.decode()
        assert "is also stored for another manager&#x27;s customer" in page
        assert hers.customer_number not in page

    @pytest.mark.parametrize("model", ["company", "connection", "sourceaccount", "operation", "batch", "accessgrant"])
    def test_a_list_takes_as_many_queries_for_forty_rows_as_for_one(
        self, model: str, staff: Client, robin: User, django_assert_num_queries: Any
    ) -> None:
        address = reverse(f"admin:feeds_{model}_changelist")

        def make() -> None:
            company = CompanyFactory(manager=robin, in_codat=True)
            connection = ConnectionFactory(company=company)
            SourceAccountFactory(company=company, connection=connection)
            OperationFactory(company=company)
            BatchFactory(requested_by=robin)
            AccessGrantFactory(user=robin)

        make()
        staff.get(address)
        with CaptureQueriesContext(database) as one:
            assert len(listed(staff, address)) == 1 + (model == "company")  # the one that is open in an emergency
        for _ in range(19):
            make()
        with django_assert_num_queries(len(one)):
            assert len(listed(staff, address)) >= 20

    def test_every_screen_of_rows_that_lead_to_a_company_says_how(self) -> None:
        from django.contrib import admin

        silent = [
            model.__name__
            for model, screen in admin.site._registry.items()
            if any(
                getattr(field, "related_model", None) is Company and field.many_to_one for field in model._meta.fields
            )
            and not (screen.company_path or screen.search_company_path or screen.of_all_customers)  # type: ignore[attr-defined]
        ]
        assert silent == []


# --- Taking over and giving away -------------------------------------------------------------------------------------
class TestTakingOver:
    def url(self, company: Company) -> str:
        """The button."""
        return reverse("admin:feeds_company_action", args=[company.pk, "take-over"])

    def test_a_company_of_nobody_becomes_theirs_and_leaves_the_others_lists(
        self, staff: Client, robin: User, rosa: User
    ) -> None:
        company = CompanyFactory(in_codat=True)
        assert "You become the relationship manager of" in staff.get(self.url(company)).content.decode()
        answer = staff.post(self.url(company), follow=True)
        assert texts(answer) == [f"You look after {company} now."]
        assert listed(staff, COMPANIES) == {company}
        assert listed(browser(rosa), COMPANIES) == set()
        entry = AuditEntry.objects.filter(object_pk=str(company.pk), content_type__model="company").latest("pk")
        assert (entry.actor, entry.source, set(entry.changes)) == (robin, "admin", {"manager"})

    def test_it_is_hidden_and_refused_without_the_right(self) -> None:
        company = CompanyFactory()
        support = browser(UserFactory(role=roles.SUPPORT))
        assert "Take over" not in support.get(page_of(company)).content.decode()
        assert support.post(self.url(company)).status_code == 403
        company.refresh_from_db()
        assert company.manager is None

    def test_a_company_with_a_manager_is_not_taken(self, staff: Client, robin: User) -> None:
        own = CompanyFactory(manager=robin)
        assert texts(staff.post(self.url(own), follow=True)) == ["Robin Hall looks after this company."]

    def test_of_ticked_rows_one_that_is_taken_already_does_not_stop_the_others(
        self, staff: Client, robin: User
    ) -> None:
        free, own = CompanyFactory.create_batch(2), CompanyFactory(manager=robin)
        data = {"action": "take_over_selected", "_selected_action": [free[0].pk, own.pk, free[1].pk]}
        refusal = "This company has a manager. Ask an administrator to give it to you."
        assert texts(staff.post(COMPANIES, data, follow=True)) == [f"2 done, 1 refused: {own}: {refusal}"]
        assert set(Company.objects.filter(manager=robin)) == {*free, own}
        entries = AuditEntry.objects.filter(actor=robin, content_type__model="company", changes__has_key="manager")
        assert entries.count() == 2

    def test_the_menu_hides_and_refuses_it_without_the_right(self) -> None:
        company = CompanyFactory()
        support = browser(UserFactory(role=roles.SUPPORT))
        assert "take_over_selected" not in support.get(COMPANIES).content.decode()
        support.post(COMPANIES, {"action": "take_over_selected", "_selected_action": [company.pk]})
        company.refresh_from_db()
        assert company.manager is None


class TestGivingAway:
    def form(self, company: Company, manager: User) -> dict[str, str]:
        """What a browser posts."""
        names = ("legal_name", "customer_number", "country", "language", "contact_name", "contact_email", "notes")
        accounts = {"source_accounts-TOTAL_FORMS": "0", "source_accounts-INITIAL_FORMS": "0"}
        return {**{name: getattr(company, name) for name in names}, **accounts, "manager": str(manager.pk)}

    def test_an_administrator_gives_a_customer_to_another_and_it_is_recorded(self, rosa: User, robin: User) -> None:
        company, ahmed = CompanyFactory(manager=rosa), UserFactory(role=roles.ADMINISTRATORS)
        browser(ahmed).post(page_of(company), self.form(company, robin))
        company.refresh_from_db()
        assert company.manager == robin
        entry = AuditEntry.objects.filter(object_pk=str(company.pk), action=AuditEntry.Action.UPDATE).latest("pk")
        assert (entry.actor, list(entry.changes)) == (ahmed, ["manager"])

    def test_a_manager_who_has_left_stays_until_another_is_chosen(self, rosa: User) -> None:
        company, ahmed = CompanyFactory(manager=rosa), UserFactory(role=roles.ADMINISTRATORS)
        User.objects.filter(pk=rosa.pk).update(is_active=False)
        assert f'<option value="{rosa.pk}" selected>' in browser(ahmed).get(page_of(company)).content.decode()
        browser(ahmed).post(page_of(company), self.form(company, rosa) | {"notes": "Calls on Mondays."})
        company.refresh_from_db()
        assert (company.manager, company.notes) == (rosa, "Calls on Mondays.")
        other = CompanyFactory()
        browser(ahmed).post(page_of(other), self.form(other, rosa))
        other.refresh_from_db()
        assert other.manager is None

    def test_a_manager_neither_gives_away_nor_takes(self, staff: Client, robin: User, rosa: User) -> None:
        company = CompanyFactory(manager=robin)
        page = staff.get(page_of(company)).content.decode()
        assert 'name="manager"' not in page
        assert '<div class="readonly">Robin Hall</div>' in page
        staff.post(page_of(company), self.form(company, rosa))
        company.refresh_from_db()
        assert company.manager == robin


# --- Emergency access ------------------------------------------------------------------------------------------------
class TestAsking:
    def ask(self, client: Client, number: str = "HL-1", reason: str = REASON) -> Any:
        """Fill in the form and press the button."""
        return client.post(ASK, {"customer_number": number, "reason": reason}, follow=True)

    def test_the_customer_opens_for_the_hours_of_the_setting(
        self, staff: Client, robin: User, hers: Company, settings: Any
    ) -> None:
        settings.EMERGENCY_ACCESS_HOURS = 3
        connection = ConnectionFactory(company=hers)
        assert "For 3 hours you see and work this one customer" in staff.get(ASK).content.decode()
        answer = self.ask(staff)
        assert answer.redirect_chain == [(page_of(hers), 302)]
        grant = AccessGrant.objects.get()
        assert (grant.user, grant.company, grant.reason, grant.user_name) == (robin, hers, REASON, "Robin Hall")
        assert abs(grant.expires_at - timezone.now() - timedelta(hours=3)) < timedelta(minutes=1)
        assert listed(staff, COMPANIES) == {hers}
        assert listed(staff, reverse("admin:feeds_connection_changelist")) == {connection}

    def test_it_ends_by_the_clock_with_nothing_running(self, staff: Client, robin: User, hers: Company) -> None:
        grant = open_for(robin, hers)
        assert staff.get(page_of(hers)).status_code == 200
        AccessGrant.objects.filter(pk=grant.pk).update(
            created_at=timezone.now() - timedelta(hours=8), expires_at=timezone.now()
        )
        assert staff.get(page_of(hers)).status_code == 302
        assert listed(staff, COMPANIES) == set()

    def test_it_opens_no_other_customer_and_nobody_elses_eyes(self, staff: Client, robin: User, hers: Company) -> None:
        other = CompanyFactory(manager=hers.manager)
        open_for(robin, hers)
        assert staff.get(page_of(other)).status_code == 302
        assert listed(browser(UserFactory(role=roles.RELATIONSHIP_MANAGERS)), COMPANIES) == set()

    def test_the_history_of_person_and_customer_say_who_and_why(
        self, staff: Client, robin: User, hers: Company
    ) -> None:
        self.ask(staff)
        event = AuditEntry.objects.get(event="emergency_access")
        assert (event.object_pk, event.actor, event.reason, event.source) == (str(hers.pk), robin, REASON, "admin")
        row = AuditEntry.objects.get(content_type__model="accessgrant")
        assert (row.actor, row.reason) == (robin, REASON)

    def test_the_manager_and_the_administrators_are_told(
        self, staff: Client, hers: Company, rosa: User, drain_queue: Callable[[], int]
    ) -> None:
        ahmed = UserFactory(role=roles.ADMINISTRATORS)
        UserFactory(role=roles.ADMINISTRATORS, is_active=False)
        UserFactory(role=roles.SUPPORT)
        self.ask(staff)
        drain_queue()
        (sent,) = mail.outbox
        assert set(sent.to) == {rosa.email, ahmed.email}
        assert sent.subject == "Emergency access to Harbor Light"
        for part in (REASON, "Robin Hall", "HL-1", reverse("admin:feeds_accessgrant_changelist")):
            assert part in sent.body
        assert Mail.objects.get().kind == MailKind.EMERGENCY_ACCESS

    def test_only_the_whole_number_finds_a_customer_and_guessing_is_recorded(
        self, staff: Client, robin: User, hers: Company
    ) -> None:
        for guess in ("HL", "HL-", "hl-1", "Harbor Light", hers.codat_id):
            answer = self.ask(staff, guess)
            assert texts(answer) == [
                "There is no customer with this number. Enter the whole number, exactly as it is stored."
            ]
            assert REASON in answer.content.decode()
        assert not AccessGrant.objects.exists()
        guesses = AuditEntry.objects.filter(event="emergency_access_refused", actor=robin)
        assert [entry.additional_data["customer_number"] for entry in guesses.order_by("pk")][:2] == ["HL", "HL-"]

    def test_without_a_reason_nothing_opens(self, staff: Client, hers: Company) -> None:
        answer = self.ask(staff, reason="   ")
        assert "This field is required." in answer.content.decode()
        assert 'value="HL-1"' in answer.content.decode()
        assert not AccessGrant.objects.exists()

    def test_what_one_sees_already_is_not_opened(self, staff: Client, robin: User, hers: Company) -> None:
        own, nobodys = CompanyFactory(manager=robin), CompanyFactory()
        self.ask(staff)
        already = "You see this customer already: search for it among the companies."
        for company in (own, nobodys, hers):
            assert already in texts(self.ask(staff, company.customer_number))
        assert AccessGrant.objects.count() == 1
        assert Mail.objects.count() == 1

    @pytest.mark.parametrize("role", sorted(set(roles.ROLES) - {roles.RELATIONSHIP_MANAGERS}))
    def test_it_is_hidden_and_refused_without_the_right(self, role: str, hers: Company) -> None:
        client = browser(UserFactory(role=role))
        assert ASK not in client.get(reverse("admin:index")).content.decode()
        assert client.get(ASK).status_code == 403
        assert client.post(ASK, {"customer_number": "HL-1", "reason": REASON}).status_code == 403
        assert not AccessGrant.objects.exists()

    def test_its_pages_need_nothing_of_codat(self, staff: Client, robin: User, hers: Company, settings: Any) -> None:
        settings.CODAT_BASE_URL = "http://localhost:9"
        self.ask(staff)
        assert listed(staff, COMPANIES) == {hers}


class TestBanner:
    def test_it_stands_on_every_page_of_that_customer_and_on_no_other(
        self, staff: Client, robin: User, hers: Company
    ) -> None:
        connection = ConnectionFactory(company=hers, with_link=True)
        account = SourceAccountFactory(company=hers, connection=connection)
        operation = OperationFactory(company=hers)
        open_for(robin, hers)
        own = CompanyFactory(manager=robin)
        for address in (
            page_of(hers),
            reverse("admin:feeds_company_timeline", args=[hers.pk]),
            reverse("admin:feeds_company_action", args=[hers.pk, "show-link"]),
            reverse("admin:feeds_connection_change", args=[connection.pk]),
            reverse("admin:feeds_connection_action", args=[connection.pk, "show-link"]),
            reverse("admin:feeds_sourceaccount_change", args=[account.pk]),
            reverse("admin:feeds_operation_change", args=[operation.pk]),
        ):
            page = staff.get(address).content.decode()
            assert "EMERGENCY ACCESS" in page, address
            assert f"Reason: {REASON}" in page, address
        secret = staff.post(reverse("admin:feeds_connection_action", args=[connection.pk, "show-link"]))
        assert "EMERGENCY ACCESS" in secret.content.decode()
        for address in (page_of(own), COMPANIES, reverse("admin:index")):
            assert "EMERGENCY ACCESS" not in staff.get(address).content.decode(), address

    def test_it_is_gone_once_the_customer_is_theirs(self, staff: Client, robin: User, hers: Company) -> None:
        open_for(robin, hers)
        Company.objects.filter(pk=hers.pk).update(manager=robin)
        assert "EMERGENCY ACCESS" not in staff.get(page_of(hers)).content.decode()

    def test_who_sees_all_is_shown_none_and_pays_no_query(self, robin: User, hers: Company) -> None:
        open_for(robin, hers)
        client = browser(UserFactory(role=roles.SUPPORT))
        with CaptureQueriesContext(database) as queries:
            assert "EMERGENCY ACCESS" not in client.get(page_of(hers)).content.decode()
        assert not [query for query in queries if "feeds_accessgrant" in query["sql"]]


class TestEnding:
    LIST = reverse("admin:feeds_accessgrant_changelist")

    def url(self, grant: AccessGrant) -> str:
        """The button."""
        return reverse("admin:feeds_accessgrant_action", args=[grant.pk, "end"])

    @pytest.mark.parametrize("who", ["the one who asked", "the manager", "an administrator"])
    def test_it_ends_at_once_and_the_history_says_who(self, who: str, robin: User, hers: Company) -> None:
        grant = open_for(robin, hers)
        person = {"the one who asked": robin, "the manager": hers.manager}.get(who) or UserFactory(
            role=roles.ADMINISTRATORS
        )
        answer = browser(person).post(self.url(grant), follow=True)
        assert texts(answer) == ["The emergency access has ended."]
        assert browser(robin).get(page_of(hers)).status_code == 302
        entry = AuditEntry.objects.filter(content_type__model="accessgrant").latest("pk")
        assert (entry.actor, entry.changes["ended_by_name"][1]) == (person, person.get_full_name())

    def test_it_is_hidden_and_refused_without_the_right(self, robin: User, hers: Company) -> None:
        grant, auditor = open_for(robin, hers), browser(UserFactory(role=roles.COMPLIANCE_AUDITORS))
        screen = reverse("admin:feeds_accessgrant_change", args=[grant.pk])
        assert self.url(grant) not in auditor.get(screen).content.decode()
        assert auditor.post(self.url(grant)).status_code == 403
        assert AccessGrant.objects.in_force(timezone.now()).exists()

    def test_a_third_manager_does_not_know_of_it(self, robin: User, hers: Company) -> None:
        grant = open_for(robin, hers)
        third = browser(UserFactory(role=roles.RELATIONSHIP_MANAGERS))
        assert listed(third, self.LIST) == set()
        assert third.post(self.url(grant)).status_code == 404

    def test_what_has_ended_is_not_ended_again(self, robin: User, hers: Company) -> None:
        grant = open_for(robin, hers, ended_at=timezone.now(), ended_by_name="Rosa Marchetti")
        answer = browser(UserFactory(role=roles.ADMINISTRATORS)).post(self.url(grant), follow=True)
        assert texts(answer) == ["This emergency access has ended already."]
        grant.refresh_from_db()
        assert grant.ended_by_name == "Rosa Marchetti"

    def test_an_auditor_sees_the_list_with_states_and_reasons(self, robin: User, hers: Company) -> None:
        now = timezone.now()
        running = open_for(robin, hers)
        over = open_for(robin, hers)
        AccessGrant.objects.filter(pk=over.pk).update(created_at=now - timedelta(hours=9), expires_at=now)
        open_for(robin, hers, ended_at=now, ended_by_name="Rosa Marchetti")
        auditor = browser(UserFactory(role=roles.COMPLIANCE_AUDITORS))
        page = auditor.get(self.LIST).content.decode()
        for words in ("in force", "expired", "ended early", REASON, "Robin Hall", "Harbor Light"):
            assert words in page
        assert listed(auditor, self.LIST, now="open") == {running}
        assert listed(auditor, self.LIST, q="HL-1") == set(AccessGrant.objects.all())


# --- Four eyes and own customers -------------------------------------------------------------------------------------
class TestRequestsForApproval:
    LIST = reverse("admin:feeds_approval_changelist")
    MAY_UNLINK: ClassVar = ["feeds.unlink_connection"]

    @pytest.fixture
    def robin(self) -> User:
        """A relationship manager who may also unlink."""
        user: User = UserFactory(
            role=roles.RELATIONSHIP_MANAGERS, permissions=self.MAY_UNLINK, first_name="Robin", last_name="Hall"
        )
        return user

    def of(self, company: Company | None, **values: Any) -> Approval:
        """A request of a colleague's to unlink the company's connection."""
        made: Approval = ApprovalFactory(connection=ConnectionFactory(company=company, linked=True), **values)
        return made

    def many(self, connections: list[Connection], **values: Any) -> Approval:
        """A request to refresh the links of several."""
        rows = [[it.pk, str(it), fingerprint("refresh_links", it)] for it in connections]
        made: Approval = ApprovalFactory(
            action="refresh_links",
            target_pk=None,
            company=None,
            key="many",
            payload={"rows": rows},
            judged_on={},
            **values,
        )
        return made

    def url(self, approval: Approval, name: str = "approve") -> str:
        """A button of the request's page."""
        return reverse("admin:feeds_approval_action", args=[approval.pk, name])

    def test_a_manager_sees_those_about_customers_they_see_and_their_own(
        self, staff: Client, robin: User, hers: Company
    ) -> None:
        own, nobodys = self.of(CompanyFactory(manager=robin)), self.of(CompanyFactory())
        asked = self.of(CompanyFactory(manager=hers.manager), requested_by=robin)
        of_rosas = self.of(hers)
        many = self.many([ConnectionFactory(company=CompanyFactory(manager=hers.manager))])
        rights = ApprovalFactory(action="change_roles", company=None, target_pk=robin.pk, key="roles")
        assert listed(staff, self.LIST, list="all") == {own, nobodys, asked}
        assert listed(staff, self.LIST) == {own, nobodys}
        assert listed(staff, self.LIST, list="all", q=hers.customer_number) == set()
        support = browser(UserFactory(role=roles.SUPPORT))
        assert listed(support, self.LIST, list="all") == {own, nobodys, asked, of_rosas, many, rights}
        for hidden in (of_rosas, many, rights):
            assert staff.get(reverse("admin:feeds_approval_change", args=[hidden.pk])).status_code == 302

    def test_who_does_not_see_the_customer_neither_decides_nor_is_asked_to(
        self, staff: Client, robin: User, rosa: User, hers: Company
    ) -> None:
        approval = self.of(hers)
        assert robin not in approvals.deciders_of(approval)
        for name in ("approve", "refuse", "withdraw"):
            assert staff.post(self.url(approval, name), {"comment": "x"}).status_code == 404
        approval.refresh_from_db()
        assert approval.state == ApprovalState.REQUESTED
        why = "This is about customers that you do not see: a colleague who sees them has to decide."
        assert approvals.why_not_decide(approval, robin) == why
        assert robin in approvals.deciders_of(self.of(CompanyFactory(manager=robin)))
        assert robin in approvals.deciders_of(self.of(CompanyFactory()))

    def test_an_emergency_access_opens_the_requests_of_that_customer_and_only_while_it_lasts(
        self, staff: Client, robin: User, hers: Company
    ) -> None:
        approval, other = self.of(hers), self.of(CompanyFactory(manager=hers.manager))
        grant = open_for(robin, hers)
        assert listed(staff, self.LIST) == {approval}
        assert robin in approvals.deciders_of(approval)
        assert robin not in approvals.deciders_of(other)
        assert "EMERGENCY ACCESS" in staff.get(self.url(approval)).content.decode()
        AccessGrant.objects.filter(pk=grant.pk).update(ended_at=timezone.now(), ended_by_name="Rosa Marchetti")
        assert listed(staff, self.LIST) == set()
        assert robin not in approvals.deciders_of(approval)
        assert staff.post(self.url(approval), {"comment": ""}).status_code == 404

    def test_what_was_asked_is_not_done_for_who_no_longer_sees_the_customer(self, robin: User, hers: Company) -> None:
        grant = open_for(robin, hers)
        approval = self.of(hers, requested_by=robin)
        AccessGrant.objects.filter(pk=grant.pk).update(ended_at=timezone.now(), ended_by_name="Rosa Marchetti")
        answer = browser(UserFactory(role=roles.SUPPORT)).post(self.url(approval), {"comment": ""}, follow=True)
        assert texts(answer) == ["Robin Hall no longer sees this customer. Nothing was done."]
        assert not Operation.objects.exists()

    def test_of_many_rows_those_of_a_customer_given_away_are_refused(
        self, robin: User, rosa: User, drain_queue: Callable[[], int]
    ) -> None:
        kept, given = (ConnectionFactory(company=CompanyFactory(manager=robin, in_codat=True)) for _ in range(2))
        approval = self.many([kept, given], requested_by=robin)
        Company.objects.filter(pk=given.company.pk).update(manager=rosa)
        browser(UserFactory(role=roles.SUPPORT)).post(self.url(approval), {"comment": ""})
        approvals.run_many(approval.pk)
        approval.refresh_from_db()
        assert approval.refusals == [[str(given), "Robin Hall no longer sees this customer."]]
        assert [operation.connection for operation in Operation.objects.all()] == [kept]

    def test_ones_own_request_tells_nothing_new_of_a_customer_given_away(
        self, staff: Client, robin: User, hers: Company
    ) -> None:
        approval = self.of(hers, requested_by=robin)
        Connection.objects.filter(company=hers).update(status="Unlinked")
        for address in (reverse("admin:feeds_approval_change", args=[approval.pk]), self.url(approval)):
            page = staff.get(address).content.decode()
            assert approval.target_name in page or address == self.url(approval)
            assert "Unlinked" not in page
            assert page_of(hers) not in page

"""The company screens, through the admin as a relationship manager uses them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
import responses
from django.contrib.auth.models import User
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from feeds.banking import mask
from feeds.models import AuditEntry, Batch, Company, Operation, SourceAccount
from feeds.services import onboarding
from feeds.services.roles import ADMINISTRATORS, COMPLIANCE_AUDITORS, RELATIONSHIP_MANAGERS, SUPPORT
from feeds.states import ConnectionStatus, OnboardingState
from tests.factories import (
    AccessGrantFactory,
    BatchFactory,
    CompanyFactory,
    ConnectionFactory,
    InvitationFactory,
    SourceAccountFactory,
    UserFactory,
)
from tests.page_form import as_it_stands, fields_of
from tests.sandbox_process import SandboxProcess

ADD = "admin:feeds_company_add"
LIST = "admin:feeds_company_changelist"
PREVIEW = "admin:feeds_company_name_preview"
LONG_NUMBER = "400010009876"
JANUARY = date(2026, 1, 31)

pytestmark = pytest.mark.django_db


@pytest.fixture
def robin() -> User:
    """A relationship manager."""
    user: User = UserFactory(role=RELATIONSHIP_MANAGERS, first_name="Robin", last_name="Hall")
    return user


@pytest.fixture
def staff(robin: User) -> Client:
    """Robin's browser."""
    return browser(robin)


def browser(user: User) -> Client:
    """A signed-in browser."""
    client = Client()
    client.force_login(user)
    return client


def change_url(company: Company) -> str:
    """The company's page."""
    return reverse("admin:feeds_company_change", args=[company.pk])


def action_url(company: Company, name: str) -> str:
    """One action on the company."""
    return reverse("admin:feeds_company_action", args=[company.pk, name])


def account_fields(place: int, **values: str) -> dict[str, str]:
    """One account of the form."""
    fields = {
        "name": f"Operating {place}",
        "account_type": "checking",
        "account_number": f"40001000{place:02}",
        "currency": "CAD",
        "balance": "0.00",
        **values,
    }
    return {f"source_accounts-{place}-{name}": value for name, value in fields.items()}


def company_form(*accounts: dict[str, str], stored: int = 0, **values: str) -> dict[str, str]:
    """What a browser posts: the company and its accounts, of which the first `stored` are saved already."""
    form = {
        "legal_name": "Café Québec inc.",
        "customer_number": "CQ-1001",
        "country": "CA",
        "language": "fr",
        "manager": "",
        "contact_name": "Zoé Tremblay",
        "contact_email": "zoe@cafe.example",
        "notes": "",
        "source_accounts-TOTAL_FORMS": str(len(accounts)),
        "source_accounts-INITIAL_FORMS": str(stored),
        **values,
    }
    for account in accounts:
        form |= account
    return form


def form_of(company: Company, *accounts: dict[str, str], stored: int = 0, **values: str) -> dict[str, str]:
    """The form as it stands on the company's page."""
    shown = {
        name: str(getattr(company, name))
        for name in ("legal_name", "customer_number", "country", "language", "contact_name", "contact_email", "notes")
    }
    return company_form(*accounts, stored=stored, **{**shown, **values})


def texts(answer: Any) -> list[str]:
    """The messages the page shows."""
    return [re.sub(r"<[^>]+>", "", str(message)) for message in answer.context["messages"]]


# --- Creating --------------------------------------------------------------------------------------------------------
class TestCreating:
    def test_a_company_and_its_accounts_are_stored_together(self, staff: Client, robin: User) -> None:
        form = company_form(account_fields(0), account_fields(1, account_type="savings"))
        answer = staff.post(reverse(ADD), form, follow=True)

        company = Company.objects.get(customer_number="CQ-1001")
        assert answer.redirect_chain == [(change_url(company), 302)]
        assert (company.legal_name, company.manager, company.onboarding_state) == ("Café Québec inc.", robin, "draft")
        assert [account.account_type for account in company.source_accounts.order_by("pk")] == ["checking", "savings"]

    def test_a_managers_new_company_becomes_theirs_whoever_else_is_named(self, staff: Client, robin: User) -> None:
        assert 'name="manager"' not in staff.get(reverse(ADD)).content.decode()
        staff.post(reverse(ADD), company_form(account_fields(0), manager=str(UserFactory().pk)))
        assert Company.objects.get().manager == robin

    def test_an_administrator_who_creates_it_is_offered_as_its_manager(self) -> None:
        ahmed = UserFactory(role=ADMINISTRATORS, first_name="Ahmed", last_name="Dimassi")
        page = browser(ahmed).get(reverse(ADD)).content.decode()
        assert f'<option value="{ahmed.pk}" selected>Ahmed Dimassi</option>' in page

    def test_each_account_gets_an_id_of_its_own(self, staff: Client) -> None:
        staff.post(reverse(ADD), company_form(account_fields(0), account_fields(1)))
        ids = set(SourceAccount.objects.values_list("account_id", flat=True))
        assert len(ids) == 2
        assert "" not in ids

    def test_who_did_it_is_kept(self, staff: Client) -> None:
        staff.post(reverse(ADD), company_form(account_fields(0)))
        entries = AuditEntry.objects.filter(actor_name="Robin Hall", source="admin", event="")
        assert {entry.content_type.model for entry in entries} == {"company", "sourceaccount"}

    def test_a_routing_number_gets_the_type_that_is_usual_in_the_country(self, staff: Client) -> None:
        staff.post(reverse(ADD), company_form(account_fields(0, bank_code="00011-001")))
        assert SourceAccount.objects.get().routing_type == "bankcode"

    @pytest.mark.parametrize(
        ("fields", "where", "message"),
        [
            ({"legal_name": "★★★"}, "legal_name", "Codat can store nothing of this name."),
            ({"contact_email": "zoe"}, "contact_email", "Enter a valid email address."),
            ({"country": "MX"}, "country", "Select a valid choice."),
            ({"customer_number": "TAKEN"}, "customer_number", "Company with this Customer number already exists."),
        ],
    )
    def test_an_error_of_the_company_blocks_and_keeps_what_was_typed(
        self, staff: Client, fields: dict[str, str], where: str, message: str
    ) -> None:
        CompanyFactory(customer_number="TAKEN")
        answer = staff.post(reverse(ADD), company_form(account_fields(0), notes="Called on Monday", **fields))
        assert answer.status_code == 200
        assert answer.context["adminform"].form.errors[where][0].startswith(message)
        assert "Called on Monday" in answer.content.decode()
        assert Company.objects.count() == 1

    @pytest.mark.parametrize(
        ("fields", "where", "message"),
        [
            ({"currency": "USX"}, "currency", "“USX” is not a currency."),
            ({"account_number": "12*34"}, "account_number", "Use digits, letters, spaces and hyphens only."),
            ({"name": ""}, "name", "This field is required."),
        ],
    )
    def test_an_error_of_an_account_stands_beside_its_field(
        self, staff: Client, fields: dict[str, str], where: str, message: str
    ) -> None:
        answer = staff.post(reverse(ADD), company_form(account_fields(0), account_fields(1, **fields)))
        first, second = answer.context["inline_admin_formsets"][0].formset.forms[:2]
        assert not first.errors
        assert second.errors[where][0].startswith(message)
        assert not Company.objects.exists()

    def test_the_same_account_twice_is_an_error(self, staff: Client) -> None:
        number = {"account_number": "4000100001"}
        answer = staff.post(reverse(ADD), company_form(account_fields(0, **number), account_fields(1, **number)))
        assert answer.status_code == 200
        assert "Enter each account once." in str(answer.context["inline_admin_formsets"][0].formset.non_form_errors())
        assert not Company.objects.exists()

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"bank_code": "123"}, "Operating 0: A Canadian routing number has five digits"),
            ({"currency": "EUR"}, "Operating 0: Accounts in this country are usually in CAD, not EUR."),
            ({"account_number": LONG_NUMBER}, f"Operating 0: Account {mask(LONG_NUMBER)} is also stored for customer"),
        ],
    )
    def test_a_warning_is_shown_after_saving_and_does_not_block(
        self, staff: Client, fields: dict[str, str], message: str
    ) -> None:
        SourceAccountFactory(account_number=LONG_NUMBER)
        answer = staff.post(reverse(ADD), company_form(account_fields(0, **fields)), follow=True)
        assert Company.objects.filter(customer_number="CQ-1001").exists()
        assert any(text.startswith(message) for text in texts(answer)), texts(answer)
        assert LONG_NUMBER not in answer.content.decode()


# --- The name preview ------------------------------------------------------------------------------------------------
class TestNamePreview:
    @pytest.mark.parametrize(
        ("typed", "stored", "tone"),
        [("Café Québec", "Cafe Quebec", "warning"), ("Maple Bakery", "Maple Bakery", ""), ("★", "", "bad")],
    )
    def test_it_says_what_codat_will_store(self, staff: Client, typed: str, stored: str, tone: str) -> None:
        answer = staff.post(reverse(PREVIEW), {"legal_name": typed}).json()
        assert (answer["stored"], answer["tone"]) == (stored, tone)
        assert answer["message"].endswith(stored) or tone == "bad"

    def test_it_is_for_those_who_edit_companies(self) -> None:
        reader = browser(UserFactory(role=COMPLIANCE_AUDITORS))
        assert reader.post(reverse(PREVIEW), {"legal_name": "Café"}).status_code == 403

    def test_it_wants_the_csrf_token(self, robin: User) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(robin)
        assert client.post(reverse(PREVIEW), {"legal_name": "Café"}).status_code == 403

    def test_it_is_not_read_with_get(self, staff: Client) -> None:
        assert staff.get(reverse(PREVIEW)).status_code == 405


# --- Changing --------------------------------------------------------------------------------------------------------
class TestChanging:
    def test_the_legal_name_may_change_after_codat_has_the_company_and_the_number_may_not(self, staff: Client) -> None:
        company = CompanyFactory(in_codat=True, customer_number="CQ-7")
        answer = staff.post(
            change_url(company), form_of(company, legal_name="Maple Bakery Two", customer_number="CQ-8"), follow=True
        )
        company.refresh_from_db()
        assert (company.legal_name, company.customer_number) == ("Maple Bakery Two", "CQ-7")
        assert any("a change here is not sent" in text for text in texts(answer))

    def test_saving_does_not_undo_what_a_worker_wrote_meanwhile(
        self, staff: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        company = CompanyFactory()
        save = Company.save

        def save_late(self: Company, *args: Any, **kwargs: Any) -> None:
            Company.objects.filter(pk=self.pk).update(onboarding_state=OnboardingState.WORKING)
            save(self, *args, **kwargs)

        monkeypatch.setattr(Company, "save", save_late)
        staff.post(change_url(company), form_of(company, notes="Prefers e-mail"))
        company.refresh_from_db()
        assert (company.notes, company.onboarding_state) == ("Prefers e-mail", "working")

    def test_a_stored_number_is_not_shown_and_typing_nothing_keeps_it(self, staff: Client) -> None:
        account = SourceAccountFactory(account_number=LONG_NUMBER)
        page = staff.get(change_url(account.company)).content.decode()
        assert LONG_NUMBER not in page
        assert f'placeholder="{mask(LONG_NUMBER)}"' in page

        fields = account_fields(0, id=str(account.pk), account_number="", account_id=account.account_id, name="Payroll")
        staff.post(change_url(account.company), form_of(account.company, fields, stored=1))
        account.refresh_from_db()
        assert (account.name, account.account_number) == ("Payroll", LONG_NUMBER)

    def test_an_account_that_is_not_in_codat_can_be_taken_away(self, staff: Client) -> None:
        account = SourceAccountFactory()
        fields = account_fields(0, id=str(account.pk), account_number="", account_id=account.account_id, DELETE="on")
        staff.post(change_url(account.company), form_of(account.company, fields, stored=1))
        assert not SourceAccount.objects.exists()

    def test_an_account_in_codat_is_read_only_and_masked(self, staff: Client) -> None:
        account = SourceAccountFactory(in_codat=True, account_number=LONG_NUMBER)
        answer = staff.get(change_url(account.company))
        page = answer.content.decode()
        assert mask(LONG_NUMBER) in page
        assert LONG_NUMBER not in page
        assert answer.context["inline_admin_formsets"][0].formset.initial_form_count() == 0

    def test_an_account_that_reached_codat_meanwhile_is_not_changed(self, staff: Client) -> None:
        account = SourceAccountFactory(in_codat=True, name="Operating")
        fields = account_fields(0, id=str(account.pk), account_id=account.account_id, name="Payroll")
        answer = staff.post(change_url(account.company), form_of(account.company, fields, stored=1))
        account.refresh_from_db()
        assert account.name == "Operating"
        assert "An account on this page was sent to Codat, or removed, meanwhile." in answer.content.decode()

    def test_accounts_hold_still_while_onboarding_is_under_way(self, staff: Client) -> None:
        account = SourceAccountFactory(company__onboarding_state=OnboardingState.WORKING)
        assert staff.get(change_url(account.company)).context["inline_admin_formsets"] == []
        fields = account_fields(0, id=str(account.pk), account_number="", account_id=account.account_id, name="Payroll")
        answer = staff.post(change_url(account.company), form_of(account.company, fields, stored=1))
        assert "Onboarding is under way. Change the accounts when it has ended." in answer.content.decode()
        account.refresh_from_db()
        assert account.name != "Payroll"

    def test_the_notes_may_be_saved_while_onboarding_is_under_way(self, staff: Client) -> None:
        company = CompanyFactory(onboarding_state=OnboardingState.WORKING)
        staff.post(change_url(company), form_of(company, notes="Prefers e-mail"))
        company.refresh_from_db()
        assert company.notes == "Prefers e-mail"

    @pytest.mark.parametrize("role", [SUPPORT, COMPLIANCE_AUDITORS])
    def test_who_may_only_look_sees_masked_accounts_and_no_form(self, role: str) -> None:
        account = SourceAccountFactory(account_number=LONG_NUMBER)
        reader = browser(UserFactory(role=role))
        answer = reader.get(change_url(account.company))
        page = answer.content.decode()
        assert answer.status_code == 200
        assert LONG_NUMBER not in page
        assert mask(LONG_NUMBER) in page
        assert 'name="legal_name"' not in page
        assert reader.post(change_url(account.company), form_of(account.company)).status_code == 403

    def test_only_a_draft_may_be_deleted_and_only_by_who_may(self, staff: Client) -> None:
        boss = browser(UserFactory(is_superuser=True))
        draft, sent = CompanyFactory(), CompanyFactory(in_codat=True)
        SourceAccountFactory(company=draft)
        why = {"reason": "Entered twice."}

        def url(company: Company) -> str:
            return reverse("admin:feeds_company_action", args=[company.pk, "delete"])

        assert staff.post(url(draft), why).status_code == 403
        assert url(draft) not in staff.get(change_url(draft)).content.decode()
        assert "1 source account goes with it." in boss.get(url(draft)).content.decode()
        assert texts(boss.post(url(sent), why, follow=True)) == [
            "This company was sent to Codat: it stays, because the history names it."
        ]
        assert texts(boss.post(url(draft), why, follow=True)) == [f"Deleted: {draft}."]
        assert list(Company.objects.all()) == [sent]
        entry = AuditEntry.objects.get(content_type__model="company", action=AuditEntry.Action.DELETE)
        assert (entry.actor.is_superuser, entry.reason) == (True, "Entered twice.")

    @pytest.mark.parametrize(
        ("trace", "why"),
        [
            (InvitationFactory, "Its customer was invited: it stays, as proof of that."),
            (AccessGrantFactory, "It was opened by emergency access: it stays, as proof of that."),
        ],
    )
    def test_a_draft_that_left_a_trace_with_people_stays_and_says_why(self, trace: Any, why: str) -> None:
        draft = CompanyFactory()
        trace(company=draft)
        url = reverse("admin:feeds_company_action", args=[draft.pk, "delete"])
        answer = browser(UserFactory(is_superuser=True)).post(url, {"reason": "Entered twice."}, follow=True)
        assert texts(answer) == [why]
        assert list(Company.objects.all()) == [draft]

    def test_djangos_own_way_to_delete_is_closed(self) -> None:
        boss = browser(UserFactory(is_superuser=True))
        draft = CompanyFactory()
        assert boss.post(reverse("admin:feeds_company_delete", args=[draft.pk]), {"post": "yes"}).status_code == 403
        assert Company.objects.exists()


# --- Two people with one page open -----------------------------------------------------------------------------------
class TestTwoPeople:
    @pytest.fixture
    def company(self, robin: User) -> Company:
        """Robin's company."""
        company: Company = CompanyFactory(manager=robin, contact_email="old@cafe.example", notes="Prefers\nmornings.")
        return company

    @pytest.fixture
    def ahmed(self) -> Client:
        """The browser of an administrator."""
        return browser(UserFactory(role=ADMINISTRATORS, first_name="Ahmed", last_name="Said"))

    def save(self, client: Client, company: Company, page: dict[str, Any], **typed: str) -> Any:
        """Press Save on a page that was opened before."""
        return client.post(change_url(company), page | typed)

    def test_a_page_that_lay_open_takes_no_manager_away(self, staff: Client, robin: User, ahmed: Client) -> None:
        company = CompanyFactory(manager=None)
        page = as_it_stands(ahmed, change_url(company))
        staff.post(action_url(company, "take-over"))
        assert self.save(ahmed, company, page, notes="Called on Monday.").status_code == 302
        company.refresh_from_db()
        assert (company.manager, company.notes) == (robin, "Called on Monday.")
        entry = AuditEntry.objects.filter(content_type__model="company").latest("pk")
        assert (entry.actor_name, entry.fields) == ("Ahmed Said", ",notes,")

    def test_each_keeps_what_they_changed(self, staff: Client, ahmed: Client, company: Company) -> None:
        page = as_it_stands(staff, change_url(company))
        self.save(ahmed, company, as_it_stands(ahmed, change_url(company)), contact_email="new@cafe.example")
        assert self.save(staff, company, page, notes="Prefers e-mail.").status_code == 302
        company.refresh_from_db()
        assert (company.contact_email, company.notes) == ("new@cafe.example", "Prefers e-mail.")

    def test_what_it_is_now_ends_with_one_full_stop(self, staff: Client, ahmed: Client, company: Company) -> None:
        page = as_it_stands(staff, change_url(company))
        self.save(ahmed, company, page, notes="Calls on Mondays.")
        answer = self.save(staff, company, page, notes="Calls on Fridays.")
        assert "It is now: Calls on Mondays. Ask them" in answer.context["adminform"].form.errors["notes"][0]

    def test_what_both_changed_is_refused_once_and_says_what_it_is_now(
        self, staff: Client, ahmed: Client, company: Company
    ) -> None:
        page = as_it_stands(staff, change_url(company))
        self.save(ahmed, company, page, contact_email="new@cafe.example", contact_name="Zoé")
        typed = {"contact_email": "other@cafe.example", "notes": "Prefers e-mail."}
        answer = self.save(staff, company, page, **typed)
        assert answer.context["adminform"].form.errors == {
            "contact_email": [
                "Ahmed Said changed this after you opened the page. It is now: new@cafe.example. Ask them, or "
                "save again to replace it."
            ]
        }
        company.refresh_from_db()
        assert (company.contact_email, company.notes) == ("new@cafe.example", "Prefers\nmornings.")

        again = fields_of(answer.content.decode())
        shown = {name: again[name] for name in ("contact_email", "notes", "contact_name")}
        assert shown == {"contact_email": [typed["contact_email"]], "notes": [typed["notes"]], "contact_name": ["Zoé"]}
        assert self.save(staff, company, again).status_code == 302
        company.refresh_from_db()
        assert (company.contact_email, company.notes, company.contact_name) == (*typed.values(), "Zoé")

    def test_the_refusal_is_in_the_readers_language_and_in_its_words(
        self, staff: Client, ahmed: Client, company: Company
    ) -> None:
        staff.post(reverse("language"), {"language": "fr"})
        page = as_it_stands(staff, change_url(company))
        self.save(ahmed, company, page, time_zone="America/Toronto")
        answer = self.save(staff, company, page, time_zone="America/Halifax")
        assert answer.context["adminform"].form.errors["time_zone"] == [
            "Ahmed Said a modifié ce champ après que vous avez ouvert la page. Sa valeur est maintenant\u00a0: Toronto."
            " Consultez cette personne, ou enregistrez de nouveau pour la remplacer."
        ]

    def test_the_same_change_twice_is_no_quarrel(self, staff: Client, ahmed: Client, company: Company) -> None:
        page = as_it_stands(staff, change_url(company))
        self.save(ahmed, company, page, contact_email="new@cafe.example")
        assert self.save(staff, company, page, contact_email="new@cafe.example").status_code == 302

    def test_line_ends_are_no_change_of_somebody_elses(self, staff: Client, company: Company) -> None:
        page = as_it_stands(staff, change_url(company))
        assert self.save(staff, company, page, contact_name="Zoé").status_code == 302
        assert self.save(staff, company, as_it_stands(staff, change_url(company)), notes="Gone").status_code == 302
        company.refresh_from_db()
        assert (company.contact_name, company.notes) == ("Zoé", "Gone")

    @pytest.mark.parametrize("language", ["en", "fr"])
    def test_a_page_saved_as_it_stands_changes_nothing(self, staff: Client, company: Company, language: str) -> None:
        SourceAccountFactory(company=company, balance="1234.50", account_open_date=JANUARY)
        staff.post(reverse("language"), {"language": language})
        page, before = as_it_stands(staff, change_url(company)), AuditEntry.objects.count()
        assert self.save(staff, company, page).status_code == 302
        assert AuditEntry.objects.count() == before

    def test_accounts_keep_what_each_changed(self, staff: Client, ahmed: Client, company: Company) -> None:
        account = SourceAccountFactory(company=company, name="Operating", balance="1.00", account_open_date=None)
        page = as_it_stands(staff, change_url(company))
        mine, theirs = "source_accounts-0-name", "source_accounts-0-balance"
        self.save(ahmed, company, page, **{theirs: "2.50", "source_accounts-0-account_open_date": "2026-01-31"})
        assert self.save(staff, company, page, **{mine: "Payroll"}).status_code == 302
        account.refresh_from_db()
        assert (account.name, account.balance, account.account_open_date) == ("Payroll", Decimal("2.50"), JANUARY)
        answer = self.save(staff, company, page, **{theirs: "7.00"})
        assert "Ahmed Said changed this after you opened the page. It is now: 2.50." in answer.content.decode()

    def test_a_page_of_a_hundred_accounts_can_still_be_saved(self, staff: Client, company: Company) -> None:
        accounts = SourceAccountFactory.create_batch(100, company=company)
        page = as_it_stands(staff, change_url(company))
        answer = self.save(staff, company, page, **{"source_accounts-99-name": "The last"})
        assert answer.status_code == 302
        accounts[-1].refresh_from_db()
        assert accounts[-1].name == "The last"

    def test_no_account_number_goes_with_the_form(self, staff: Client, company: Company) -> None:
        SourceAccountFactory(company=company, account_number=LONG_NUMBER)
        page = as_it_stands(staff, change_url(company))
        assert "initial-source_accounts-0-name" in page
        assert not any(LONG_NUMBER in value for values in page.values() for value in values)
        number = "source_accounts-0-account_number"
        answer = self.save(staff, company, page, contact_email="nonsense", **{number: "550077001234"})
        held = fields_of(answer.content.decode())
        assert [name for name, values in held.items() if "550077001234" in values] == [number]
        assert LONG_NUMBER not in answer.content.decode()


# --- The page and its panel ------------------------------------------------------------------------------------------
class TestPanel:
    def panel(self, client: Client, company: Company) -> str:
        """The live panel alone."""
        answer = client.get(reverse("admin:feeds_company_progress", args=[company.pk]))
        assert answer.status_code == 200
        return answer.content.decode()

    @pytest.mark.parametrize(
        ("state", "is_live"),
        [
            (OnboardingState.DRAFT, False),
            (OnboardingState.QUEUED, True),
            (OnboardingState.WORKING, True),
            (OnboardingState.RETRYING, True),
            (OnboardingState.FAILED, False),
            (OnboardingState.LINK_READY, False),
            (OnboardingState.LINKED, False),
        ],
    )
    def test_it_is_asked_for_again_only_while_something_is_under_way(
        self, staff: Client, state: OnboardingState, is_live: bool
    ) -> None:
        panel = self.panel(staff, CompanyFactory(onboarding_state=state))
        assert (' data-live="1500"' in panel) is is_live
        assert f"Onboarding: {state.label}." in panel

    def test_it_stays_live_until_a_fresh_link_has_arrived(self, staff: Client) -> None:
        connection = ConnectionFactory()
        staff.post(action_url(connection.company, "refresh-link"))
        assert ' data-live="1500"' in self.panel(staff, connection.company)

    def test_it_is_asked_for_now_and_then_while_the_customer_may_connect(self, staff: Client) -> None:
        assert ' data-live="30000"' in self.panel(staff, ConnectionFactory(with_link=True).company)
        assert "data-live" not in self.panel(staff, ConnectionFactory().company)

    def test_the_error_is_shown_in_plain_words(self, staff: Client) -> None:
        error = "Codat refused the name. Correct it, then press Retry. Correlation id for Codat's support: 8c1f0e."
        company = CompanyFactory(onboarding_state=OnboardingState.FAILED, onboarding_error=error)
        assert "8c1f0e" in self.panel(staff, company)

    def test_the_link_is_never_on_it(self, staff: Client) -> None:
        connection = ConnectionFactory(with_link=True)
        for page in (self.panel(staff, connection.company), staff.get(change_url(connection.company)).content.decode()):
            assert "works for 59" in page
            assert connection.link_url not in page
            assert "otp=" not in page

    def test_it_is_refused_without_permission(self) -> None:
        stranger = browser(UserFactory())
        url = reverse("admin:feeds_company_progress", args=[CompanyFactory().pk])
        assert stranger.get(url).status_code == 403

    def test_a_company_that_does_not_exist_answers_404(self, staff: Client) -> None:
        assert staff.get(reverse("admin:feeds_company_progress", args=[999_999])).status_code == 404


# --- Actions ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Case:
    """One action of the company page: its permission, and the state in which it makes sense."""

    name: str
    permission: str
    label: str
    state: OnboardingState

    def __str__(self) -> str:
        return self.name

    def make(self) -> Company:
        """A company it can be done to."""
        if self.state in (OnboardingState.LINK_READY, OnboardingState.LINKED):
            connection = ConnectionFactory(with_link=True)
            SourceAccountFactory(company=connection.company, connection=connection)
            return connection.company
        return SourceAccountFactory(company__onboarding_state=self.state).company

    def staff(self, *, allowed: bool = True) -> Client:
        """Someone who sees companies, with or without the action's permission."""
        return browser(UserFactory(permissions=["feeds.view_company", *([self.permission] if allowed else [])]))


CASES = [
    Case("onboard", "feeds.onboard_company", "Onboard", OnboardingState.DRAFT),
    Case("retry", "feeds.onboard_company", "Retry", OnboardingState.FAILED),
    Case("show-link", "feeds.reveal_link", "Show link", OnboardingState.LINK_READY),
    Case("refresh-link", "feeds.refresh_link", "Refresh link", OnboardingState.LINK_READY),
    Case("refresh-status", "feeds.refresh_company", "Refresh status", OnboardingState.LINK_READY),
]
every_action = pytest.mark.parametrize("case", CASES, ids=str)


class TestActionPermissions:
    @every_action
    def test_the_button_is_there_with_the_permission(self, case: Case) -> None:
        company = case.make()
        assert action_url(company, case.name) in case.staff().get(change_url(company)).content.decode()

    @every_action
    def test_it_is_hidden_and_refused_without(self, case: Case) -> None:
        company = case.make()
        staff = case.staff(allowed=False)
        assert action_url(company, case.name) not in staff.get(change_url(company)).content.decode()
        assert staff.post(action_url(company, case.name)).status_code == 403
        assert not Operation.objects.exists()

    @every_action
    def test_the_confirmation_page_changes_nothing_and_calls_nobody(self, case: Case) -> None:
        company = case.make()
        before = Company.objects.values().get()
        with responses.RequestsMock():
            answer = case.staff().get(action_url(company, case.name))
        assert f">{case.label}</button>" in answer.content.decode()
        assert Company.objects.values().get() == before
        assert not AuditEntry.objects.filter(event="link_revealed").exists()


class TestOnboard:
    def test_it_says_what_will_be_created(self, staff: Client) -> None:
        company = CompanyFactory(legal_name="Café Québec")
        SourceAccountFactory.create_batch(2, company=company)
        sentences = staff.get(action_url(company, "onboard")).context["consequences"]
        assert sentences[0] == (
            "Created in Codat: 1 company, stored as “Cafe Quebec”, 1 connection, 2 source accounts (3 requests)."
        )

    def test_it_says_what_preflight_finds(self, staff: Client) -> None:
        account = SourceAccountFactory(bank_code="021000022", routing_type="aba")
        sentences = staff.get(action_url(account.company, "onboard")).context["consequences"]
        assert sentences[-1].startswith("Please check: The check digit of this US routing number is wrong.")

    def test_it_starts(self, staff: Client) -> None:
        account = SourceAccountFactory()
        answer = staff.post(action_url(account.company, "onboard"), follow=True)
        account.company.refresh_from_db()
        assert account.company.onboarding_state == OnboardingState.QUEUED
        assert texts(answer) == ["Onboarding has started. This page follows it."]
        entry = AuditEntry.objects.filter(actor_name="Robin Hall").latest("pk")
        assert entry.changes["onboarding_state"] == ["draft", "queued"]

    @pytest.mark.parametrize(
        ("state", "why"),
        [
            (OnboardingState.QUEUED, "Onboarding is under way."),
            (OnboardingState.FAILED, "A step has failed: correct what it names, then press Retry."),
        ],
    )
    def test_it_says_why_it_makes_no_sense_now(self, staff: Client, state: OnboardingState, why: str) -> None:
        account = SourceAccountFactory(company__onboarding_state=state)
        answer = staff.post(action_url(account.company, "onboard"))
        assert texts(answer) == [why]
        account.company.refresh_from_db()
        assert account.company.onboarding_state == state

    def test_without_accounts_there_is_nothing_to_onboard(self, staff: Client) -> None:
        company = CompanyFactory()
        answer = staff.post(action_url(company, "onboard"))
        assert texts(answer) == ["Add at least one source account and save, then press Onboard."]

    def test_an_error_of_preflight_refuses_it(self, staff: Client) -> None:
        account = SourceAccountFactory(currency="USX")
        answer = staff.post(action_url(account.company, "onboard"))
        assert "“USX” is not a currency." in texts(answer)[0]
        account.company.refresh_from_db()
        assert account.company.onboarding_state == OnboardingState.DRAFT

    def test_accounts_added_later_are_all_that_is_sent(
        self, staff: Client, codat: SandboxProcess, drain_queue: Callable[[], int]
    ) -> None:
        first = SourceAccountFactory()
        staff.post(action_url(first.company, "onboard"))
        drain_queue()
        SourceAccountFactory(company=first.company)
        sentences = staff.get(action_url(first.company, "onboard")).context["consequences"]
        assert sentences[0] == "Created in Codat: 1 source account (1 request)."
        staff.post(action_url(first.company, "onboard"))
        drain_queue()
        assert codat.stats()["objects"]["companies"] == 1
        assert first.company.source_accounts.filter(connection__isnull=True).count() == 0


class TestRetry:
    def test_it_continues_from_the_failed_step(
        self, staff: Client, codat: SandboxProcess, drain_queue: Callable[[], int]
    ) -> None:
        company = SourceAccountFactory().company
        codat.post_fault("status", "POST", "/companies/{id}/connections", status=403)
        staff.post(action_url(company, "onboard"))
        drain_queue()
        page = staff.get(change_url(company)).content.decode()
        assert "QuickBooks Online Bank Feeds is switched on" in page
        assert action_url(company, "retry") in page

        answer = staff.post(action_url(company, "retry"), follow=True)
        assert texts(answer) == ["Onboarding continues. This page follows it."]
        drain_queue()
        company.refresh_from_db()
        assert company.onboarding_state == OnboardingState.LINK_READY
        assert codat.requests_made("POST /companies") == 1

    def test_there_is_nothing_to_retry_in_a_draft(self, staff: Client) -> None:
        company = SourceAccountFactory().company
        assert texts(staff.post(action_url(company, "retry"))) == ["No step has failed."]


class TestLink:
    def test_it_is_shown_once_and_recorded(self, staff: Client) -> None:
        connection = ConnectionFactory(with_link=True)
        answer = staff.post(action_url(connection.company, "show-link"))
        assert connection.link_url.replace("&", "&amp;") in answer.content.decode()
        assert "no-store" in answer["Cache-Control"]
        assert AuditEntry.objects.get(event="link_revealed").actor_name == "Robin Hall"
        assert answer.context["object_url"] == change_url(connection.company)

    def test_an_expired_one_is_not_shown(self, staff: Client) -> None:
        connection = ConnectionFactory()
        answer = staff.post(action_url(connection.company, "show-link"))
        assert texts(answer) == ["There is no link that still works. Press Refresh link first."]

    def test_a_fresh_one_is_asked_for(self, staff: Client) -> None:
        connection = ConnectionFactory(with_link=True)
        answer = staff.post(action_url(connection.company, "refresh-link"), follow=True)
        assert texts(answer) == ["A fresh link is being fetched. This page follows it."]
        assert Operation.objects.get().kind == "refresh_link"

    def test_a_linked_customer_needs_none(self, staff: Client) -> None:
        connection = ConnectionFactory(linked=True)
        answer = staff.post(action_url(connection.company, "refresh-link"))
        assert texts(answer) == ["This connection is Linked and all its accounts work: the customer needs no link."]
        assert not Operation.objects.exists()

    def test_without_a_connection_there_is_none(self, staff: Client) -> None:
        company = CompanyFactory()
        why = "There is no connection in Codat yet. Press Onboard first."
        for name in ("show-link", "refresh-link"):
            assert texts(staff.post(action_url(company, name))) == [why]


class TestRefreshStatus:
    @pytest.fixture
    def onboarded(self, staff: Client, codat: SandboxProcess, drain_queue: Callable[[], int]) -> Company:
        """A company that is Link ready in the stand-in."""
        company: Company = SourceAccountFactory(name="Operating").company
        staff.post(action_url(company, "onboard"), follow=True)
        drain_queue()
        return company

    def test_it_shows_what_the_customer_did(self, staff: Client, codat: SandboxProcess, onboarded: Company) -> None:
        onboarded.refresh_from_db()
        codat.connect(onboarded.codat_id, onboarded.connections.get().codat_id)
        answer = staff.post(action_url(onboarded, "refresh-status"), follow=True)
        onboarded.refresh_from_db()
        assert onboarded.onboarding_state == OnboardingState.LINKED
        assert onboarded.connections.get().status == ConnectionStatus.LINKED
        assert texts(answer)[0].startswith("Read from Codat: Connection: PendingAuth → Linked; Operating: pending →")

    def test_it_says_so_when_nothing_has_changed(self, staff: Client, onboarded: Company) -> None:
        answer = staff.post(action_url(onboarded, "refresh-status"), follow=True)
        assert texts(answer) == ["Read from Codat: nothing has changed."]

    @pytest.mark.parametrize(
        ("status", "message"),
        [
            (401, "Codat refused our API key. Ask an administrator to check CODAT_API_KEY, then try again."),
            (404, "Codat does not know this record: it may have been deleted there."),
            (503, "Codat had a fault of its own."),
        ],
    )
    def test_an_error_of_codat_becomes_a_message(
        self, staff: Client, codat: SandboxProcess, onboarded: Company, status: int, message: str
    ) -> None:
        codat.post_fault("status", status=status, times=None)
        answer = staff.post(action_url(onboarded, "refresh-status"), follow=True)
        codat.clear_faults()
        assert answer.status_code == 200
        assert texts(answer)[0].startswith(message)


# --- The list --------------------------------------------------------------------------------------------------------
class TestList:
    def listed(self, client: Client, **query: str) -> set[str]:
        """Legal names of the listed companies."""
        answer = client.get(reverse(LIST), query)
        assert answer.status_code == 200
        return {company.legal_name for company in answer.context["cl"].result_list}

    @pytest.mark.parametrize("term", ["CQ-1", "Café Q", "café"])
    def test_it_is_searched_by_number_and_by_the_start_of_the_name(self, staff: Client, term: str) -> None:
        CompanyFactory(legal_name="Café Québec", customer_number="CQ-1")
        CompanyFactory(legal_name="Maple Bakery")
        assert self.listed(staff, q=term) == {"Café Québec"}

    def test_it_is_filtered_by_state_country_language_and_manager(self, staff: Client, robin: User) -> None:
        CompanyFactory(
            legal_name="Mine",
            manager=robin,
            country="CA",
            language="fr",
            onboarding_state=OnboardingState.FAILED,
        )
        CompanyFactory(legal_name="Other", manager=UserFactory())
        CompanyFactory(legal_name="Nobody's")
        assert self.listed(staff, manager="me") == {"Mine"}
        assert self.listed(staff, manager="nobody") == {"Nobody's"}
        assert self.listed(staff, onboarding_state__exact="failed") == {"Mine"}
        assert self.listed(staff, country__exact="CA") == {"Mine"}
        assert self.listed(staff, language__exact="fr") == {"Mine"}

    def test_neither_links_nor_numbers_are_in_it(self, staff: Client) -> None:
        connection = ConnectionFactory(with_link=True)
        SourceAccountFactory(company=connection.company, connection=connection, account_number=LONG_NUMBER)
        page = staff.get(reverse(LIST)).content.decode()
        assert "otp=" not in page
        assert LONG_NUMBER not in page


class TestOnboardSelected:
    def post(self, client: Client, companies: list[Company], **fields: str) -> Any:
        """The list's form with `companies` ticked."""
        ticked = [str(company.pk) for company in companies]
        return client.post(
            reverse(LIST), {"action": "onboard_selected", "_selected_action": ticked, **fields}, follow=True
        )

    def test_it_asks_first(self, staff: Client) -> None:
        company = SourceAccountFactory().company
        answer = self.post(staff, [company])
        assert "What will happen" in answer.content.decode()
        assert f'name="_selected_action" value="{company.pk}"' in answer.content.decode()
        assert not Batch.objects.exists()

    def test_one_bad_row_does_not_stop_the_others(self, staff: Client) -> None:
        good, empty, other = SourceAccountFactory().company, CompanyFactory(), SourceAccountFactory().company
        answer = self.post(staff, [good, empty, other], confirmed="yes")

        batch = Batch.objects.get()
        assert answer.redirect_chain == [(reverse("admin:feeds_batch_change", args=[batch.pk]), 302)]
        assert set(batch.companies.all()) == {good, other}
        assert set(Company.objects.filter(onboarding_state="queued")) == {good, other}
        (message,) = texts(answer)
        assert message.startswith(f"2 done, 1 refused: {empty}: Add at least one source account")
        assert batch.requested_by_name == "Robin Hall"

    def test_it_is_hidden_and_refused_without_permission(self) -> None:
        company = SourceAccountFactory().company
        reader = browser(UserFactory(role=COMPLIANCE_AUDITORS))
        assert "onboard_selected" not in reader.get(reverse(LIST)).content.decode()
        self.post(reader, [company], confirmed="yes")
        assert not Batch.objects.exists()

    def test_too_many_at_once_are_refused(self, staff: Client, settings: Any) -> None:
        settings.BULK_LIMIT = 1
        answer = self.post(staff, [SourceAccountFactory().company, SourceAccountFactory().company], confirmed="yes")
        assert texts(answer) == ["Nothing was done: select at most 1 at a time."]
        assert not Batch.objects.exists()


# --- What the pages cost ---------------------------------------------------------------------------------------------
def queries(client: Client, url: str) -> int:
    """How many queries the page takes."""
    with CaptureQueriesContext(
        database,
    ) as captured:
        assert client.get(url).status_code == 200
    return len(captured)


def full_company(accounts: int = 1, **values: Any) -> Company:
    """A company with everything the pages show."""
    company: Company = CompanyFactory(in_codat=True, **values)
    connection = ConnectionFactory(company=company, with_link=True)
    SourceAccountFactory.create_batch(accounts, company=company, connection=connection)
    SourceAccountFactory.create_batch(accounts, company=company)
    return company


class TestCost:
    def test_the_list_costs_the_same_for_one_and_for_fifty_companies(self, staff: Client, robin: User) -> None:
        full_company(manager=robin)
        few = queries(staff, reverse(LIST))
        for _count in range(49):
            full_company(manager=robin)
        assert queries(staff, reverse(LIST)) == few
        assert few <= 9

    def test_the_company_page_costs_the_same_for_one_and_for_fifty_accounts(self, staff: Client) -> None:
        few = queries(staff, change_url(full_company(accounts=1)))
        assert queries(staff, change_url(full_company(accounts=50))) == few
        assert few <= 20

    def test_the_live_panel_is_cheap(self, staff: Client) -> None:
        company = full_company(accounts=50, onboarding_state=OnboardingState.WORKING)
        BatchFactory()
        assert queries(staff, reverse("admin:feeds_company_progress", args=[company.pk])) <= 13


def test_the_reconciler_and_the_page_agree_on_what_is_final() -> None:
    assert set(onboarding.FINAL_STATES) == {OnboardingState.LINK_READY, OnboardingState.LINKED}

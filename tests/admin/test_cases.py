"""Support's screens: the worklist, the case page, and every action on a case, through the admin as staff use it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import responses
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from feeds import audit
from feeds.admin.actions import ActionsAdmin
from feeds.admin.base import CappedPaginator
from feeds.models import AuditEntry, Case, CaseEvent, Company, Connection, Operation, SourceAccount
from feeds.services import cases, onboarding, sync
from feeds.services.roles import SUPPORT
from feeds.states import (
    CASE_PLAYBOOKS,
    AccountStatus,
    CaseCause,
    CaseEventKind,
    CaseOutcome,
    CaseState,
    ConnectionStatus,
)
from tests.factories import (
    CaseEventFactory,
    CaseFactory,
    CompanyFactory,
    ConnectionFactory,
    IncidentFactory,
    SourceAccountFactory,
    StatusEventFactory,
    UserFactory,
)
from tests.history import last_entry
from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.django_db

LIST = reverse("admin:feeds_case_changelist")
SEES = ("feeds.view_case", "feeds.view_connection", "feeds.view_operation", "feeds.view_company")
CLOSED = "This case is closed. It opens again by itself when the feed breaks again."


@dataclass(frozen=True)
class Action:
    """One action on a case: its permission, and what has to be filled in."""

    name: str
    label: str
    permission: str = "feeds.work_case"
    data: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def url(self, case: Case) -> str:
        """Its address."""
        return reverse("admin:feeds_case_action", args=[case.pk, self.name])


ACTIONS = [
    Action("take", "Take"),
    Action("verify-now", "Verify now", "feeds.refresh_company"),
    Action("invite-to-reconnect", "Invite to reconnect", "feeds.invite_company"),
    Action("refresh-link", "Refresh link", "feeds.refresh_link"),
    Action("show-link", "Show link", "feeds.reveal_link"),
    Action("generate-credentials", "Generate credentials", "feeds.generate_credentials"),
    Action("revoke-credentials", "Revoke credentials", "feeds.revoke_credentials", {"reason": "They asked for it."}),
    Action("note", "Note", data={"text": "Left a message."}),
    Action("set-cause", "Set cause", data={"cause": CaseCause.QUICKBOOKS_SILENT}),
    Action("snooze", "Snooze", data={"until": "", "text": "They call back."}),
    Action("hand-over", "Hand over", data={"to": "", "text": "They speak French."}),
    Action("close", "Close", data={"outcome": CaseOutcome.NOT_WANTED, "reason": "They said so."}),
]
BY_NAME = {action.name: action for action in ACTIONS}
OF_THE_CASE = [action for action in ACTIONS if action.permission == "feeds.work_case"]
OF_OPEN_CASES = [BY_NAME[name] for name in ("take", "snooze", "hand-over", "close")]

every_action = pytest.mark.parametrize("action", ACTIONS, ids=str)
every_action_of_the_case = pytest.mark.parametrize("action", OF_THE_CASE, ids=str)
every_action_of_open_cases = pytest.mark.parametrize("action", OF_OPEN_CASES, ids=str)


def browser(*permissions: str, **fields: Any) -> Client:
    """A signed-in browser of someone who sees cases, and may do what `permissions` say."""
    client = Client()
    client.force_login(UserFactory(permissions=[*SEES, *permissions], **fields))
    return client


def broken_case(**values: Any) -> Case:
    """A case about an Unlinked connection with a live link: every action makes sense."""
    connection = ConnectionFactory(with_link=True, status=ConnectionStatus.UNLINKED)
    case: Case = CaseFactory(connection=connection, **values)
    return case


def person(client: Client) -> User:
    """Whose browser it is."""
    return User.objects.get(pk=client.session["_auth_user_id"])


def filled_in(action: Action) -> dict[str, str]:
    """What is typed: days and colleagues are only known now."""
    data = dict(action.data)
    if "until" in data:
        data["until"] = (timezone.localdate() + timedelta(days=3)).isoformat()
    if "to" in data:
        data["to"] = str(UserFactory(role=SUPPORT, first_name="Kim", last_name="Lee").pk)
    return data


def page_of(case: Case) -> str:
    """Address of the case page."""
    return reverse("admin:feeds_case_change", args=[case.pk])


def messages(answer: Any) -> list[str]:
    """The messages the page shows, as text."""
    return [re.sub(r"<[^>]+>", "", str(message)) for message in answer.context["messages"]]


def listed(client: Client, **query: str) -> list[Case]:
    """The rows of the worklist."""
    answer = client.get(LIST, query)
    assert answer.status_code == 200
    return list(answer.context["cl"].result_list)


def rows() -> list[Any]:
    """Everything an action could have changed."""
    models = (Case, CaseEvent, Connection, Operation, AuditEntry)
    return [list(model._default_manager.order_by("pk").values()) for model in models]


class TestWorklist:
    def test_overdue_cases_stand_first_then_what_is_due_next(self) -> None:
        now = timezone.now()
        later = CaseFactory(due_at=now + timedelta(hours=5))
        overdue = CaseFactory(due_at=now - timedelta(hours=5))
        sooner = CaseFactory(due_at=now + timedelta(hours=1))
        assert listed(browser()) == [overdue, sooner, later]
        page = browser().get(LIST).content.decode()
        assert page.count(">overdue</span>") == 1

    def test_the_tabs_are_mine_unassigned_all_and_closed(self) -> None:
        client = browser()
        mine = CaseFactory(owner=person(client))
        somebodys = CaseFactory(owner=UserFactory())
        nobodys = CaseFactory()
        done = CaseFactory(closed=True)
        assert listed(client, list="mine") == [mine]
        assert listed(client, list="unassigned") == [nobodys]
        assert set(listed(client)) == set(listed(client, list="all")) == {mine, somebodys, nobodys}
        assert listed(client, list="closed") == [done]
        assert listed(client, list="nonsense") == listed(client)

    def test_the_open_tab_is_marked(self) -> None:
        page = browser().get(LIST, {"list": "mine"}).content.decode()
        assert re.search(r'<a href="\?list=mine" aria-current="page">Mine</a>', page)
        assert page.count('aria-current="page">') >= 1
        assert '<a href="?list=closed">Closed</a>' in page

    def test_a_row_says_who_what_how_old_who_has_it_and_what_to_do(self) -> None:
        owner = UserFactory(first_name="Kim", last_name="Lee")
        incident = IncidentFactory()
        case = CaseFactory(
            owner=owner,
            incident=incident,
            what_is_broken="Payroll account",
            opened_at=timezone.now() - timedelta(days=3, hours=2),
            checked_at=timezone.now() - timedelta(minutes=7),
        )
        page = browser().get(LIST).content.decode()
        row = page[page.index("Payroll account") - 2000 : page.index("Payroll account") + 2000]
        for text in (case.company.customer_number, "3\xa0days", "7\xa0minutes ago", "Kim Lee", cases.next_step(case)):
            assert text in row
        assert reverse("admin:feeds_incident_change", args=[incident.pk]) in row

    @pytest.mark.parametrize("term", ["C-007", "codat-7", "Zebra"])
    def test_a_case_is_found_by_its_customer(self, term: str) -> None:
        company = CompanyFactory(customer_number="C-007", codat_id="codat-7", legal_name="Zebra Imports")
        wanted = CaseFactory(connection=ConnectionFactory(company=company))
        CaseFactory()
        assert listed(browser(), q=term) == [wanted]

    def test_the_cases_of_one_incident_can_be_listed(self) -> None:
        wanted, _other = CaseFactory(incident=IncidentFactory()), CaseFactory()
        assert listed(browser(), incident__id__exact=str(wanted.incident.pk)) == [wanted]

    def test_it_is_closed_to_those_who_may_not_see_cases(self) -> None:
        client = Client()
        client.force_login(UserFactory(permissions=["feeds.view_company"]))
        assert client.get(LIST).status_code == 403
        assert client.get(page_of(CaseFactory())).status_code == 403

    def test_even_a_superuser_cannot_edit_it_by_hand(self) -> None:
        case = CaseFactory()
        client = Client()
        client.force_login(UserFactory(is_superuser=True))
        assert client.post(page_of(case), {"state": "closed"}).status_code == 403
        assert client.get(reverse("admin:feeds_case_add")).status_code == 403
        assert client.post(reverse("admin:feeds_case_delete", args=[case.pk]), {"post": "yes"}).status_code == 403


class TestQueries:
    @pytest.mark.parametrize("tab", ["mine", "unassigned", "all", "closed"])
    def test_fifty_rows_take_as_many_queries_as_one(self, tab: str, django_assert_num_queries: Any) -> None:
        client = browser("feeds.work_case")
        incident = IncidentFactory()

        def make() -> None:
            CaseFactory(owner=person(client), incident=incident)
            CaseFactory(incident=incident)
            CaseFactory(closed=True)

        make()
        client.get(LIST, {"list": tab})  # fills the caches of content types
        with CaptureQueriesContext(database) as one:
            client.get(LIST, {"list": tab})
        for _ in range(49):
            make()
        with django_assert_num_queries(len(one)):
            found = listed(client, list=tab)
        assert len(found) == 50

    def test_no_more_rows_are_counted_than_can_be_paged_through(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(CappedPaginator, "limit", 2)
        CaseFactory.create_batch(4)
        with CaptureQueriesContext(database) as queries:
            answer = browser().get(LIST)
        counts = [query["sql"] for query in queries if query["sql"].startswith("SELECT COUNT(*) FROM (SELECT")]
        assert [sql for sql in counts if "LIMIT 3" in sql]
        assert answer.context["cl"].result_count == 2
        assert "There are more: the first 2 are listed." in answer.content.decode()

    @pytest.mark.skipif(database.vendor != "sqlite", reason="the plan of SQLite is read")
    @pytest.mark.parametrize(
        ("tab", "index"),
        [("all", "case_worklist"), ("mine", "case_owner"), ("unassigned", "case_"), ("closed", "case_closed")],
    )
    def test_the_rows_come_from_an_index_in_their_order(self, tab: str, index: str) -> None:
        client = browser()
        CaseFactory()
        CaseFactory(closed=True)
        client.get(LIST)
        with CaptureQueriesContext(database) as queries:
            client.get(LIST, {"list": tab})
        (sql,) = [
            query["sql"]
            for query in queries
            if '"feeds_case"."what_is_broken"' in query["sql"] and "ORDER BY" in query["sql"]
        ]
        with database.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
            plan = [row[3] for row in cursor.fetchall()]
        assert any(f"feeds_case USING INDEX {index}" in step for step in plan), plan

    def test_a_long_story_takes_as_many_queries_as_a_short_one(self, django_assert_num_queries: Any) -> None:
        client = browser("feeds.work_case", "feeds.refresh_company")
        case = broken_case(owner=person(client))
        CaseEventFactory(case=case)
        audit.record("link_revealed", case.connection)
        client.get(page_of(case))
        with CaptureQueriesContext(database) as short:
            client.get(page_of(case))
        for _ in range(49):
            account = SourceAccountFactory(
                company=case.company, connection=case.connection, status=AccountStatus.DISCONNECTED
            )
            StatusEventFactory(account=account)
            CaseEventFactory(case=case)
            audit.record("link_revealed", case.connection)
        with django_assert_num_queries(len(short)):
            answer = client.get(page_of(case))
        assert len(answer.context["timeline"].entries) == 30


class TestTakingFromTheList:
    def test_every_row_that_nobody_has_carries_a_button_that_takes_it(self) -> None:
        client = browser("feeds.work_case")
        case, _other = CaseFactory(), CaseFactory(owner=UserFactory())
        page = client.get(LIST).content.decode()
        assert re.findall(r'class="row-action" formaction="([^"]+)"', page) == [BY_NAME["take"].url(case)]

        # The button stands in the list's own form: what else that form holds comes with it.
        answer = client.post(BY_NAME["take"].url(case), {"action": "", "select_across": "0", "index": "0"}, follow=True)

        case.refresh_from_db()
        assert (case.state, case.owner) == (CaseState.TAKEN, person(client))
        assert messages(answer) == [f"The case of {case.company} is yours."]

    def test_there_is_no_button_for_those_who_only_look(self) -> None:
        CaseFactory()
        page = browser().get(LIST).content.decode()
        assert "row-action" not in page
        assert "take_selected" not in page

    def test_several_are_taken_at_once_and_a_bad_one_does_not_stop_the_others(self) -> None:
        client = browser("feeds.work_case")
        good, bad, good_too = CaseFactory(), CaseFactory(closed=True), CaseFactory()
        data = {"action": "take_selected", "_selected_action": [good.pk, bad.pk, good_too.pk]}
        # All three were on screen once; the one was closed meanwhile. The tab of all shows open ones only.
        answer = client.post(LIST, data, follow=True)
        assert messages(answer) == ["2 done"]
        data["_selected_action"] = [good.pk, bad.pk]
        mine = CaseFactory(owner=UserFactory())
        answer = client.post(LIST, {"action": "take_selected", "_selected_action": [good.pk, mine.pk]}, follow=True)
        assert messages(answer) == [f"1 done, 1 refused: {good}: You have this case already."]
        assert set(Case.objects.filter(owner=person(client))) == {good, good_too, mine}

    def test_taking_several_is_refused_without_the_permission(self) -> None:
        case = CaseFactory()
        browser().post(LIST, {"action": "take_selected", "_selected_action": [case.pk]})
        case.refresh_from_db()
        assert case.owner is None


class TestCasePage:
    def test_it_shows_the_facts_the_statuses_and_the_story(self) -> None:
        case = broken_case(balance_held="1234.50", cause=CaseCause.QUICKBOOKS_SILENT, times_broken=3)
        CaseEventFactory(case=case, text="They moved to a new accountant.")
        page = browser().get(page_of(case)).content.decode()
        for text in (
            case.company.legal_name,
            case.company.contact_email,
            "1,234.50",
            "QuickBooks stopped asking",
            "3 times since",
            "Unlinked",
            "disconnected",
            "as of",
            "They moved to a new accountant.",
            "on or before",
            cases.next_step(case),
        ):
            assert text in page, text
        assert "otp=" not in page

    def test_the_gap_is_ready_to_copy_in_the_customers_language_first(self) -> None:
        case = broken_case(opened_at=timezone.now() - timedelta(days=5))
        Company.objects.filter(pk=case.company_id).update(language="fr")
        page = browser().get(page_of(case)).content.decode()
        texts = re.findall(r'<textarea id="gap-(\w+)" lang="(\w+)"[^>]*>([^<]+)<', page)
        assert [(code, lang) for code, lang, _text in texts] == [("fr", "fr"), ("en", "en")]
        assert "flux bancaire" in texts[0][2]
        assert "bank feed" in texts[1][2]
        assert 'data-copy="gap-fr"' in page

    @pytest.mark.parametrize("cause", CaseCause.values)
    def test_the_actions_stand_in_the_order_of_the_playbook(self, cause: str) -> None:
        client = Client()
        client.force_login(UserFactory(is_superuser=True))
        case = broken_case(cause=cause, owner=person(client))
        names = [button.name for button in client.get(page_of(case)).context["buttons"]]
        order = [name.replace("_", "-") for name in CASE_PLAYBOOKS[cause]]
        assert [name for name in names if name in order] == order
        assert set(names) == BY_NAME.keys() - {"take"}
        assert names.index("show-link") == names.index("refresh-link") + 1
        assert names.index("set-cause") == names.index("note") + 1

    def test_a_case_that_is_not_mine_is_taken_first(self) -> None:
        client = browser("feeds.work_case", "feeds.refresh_company")
        case = broken_case(owner=UserFactory())
        assert client.get(page_of(case)).context["buttons"][0].name == "take"

    def test_without_the_permission_to_see_operations_their_story_is_left_out(self) -> None:
        case = broken_case()
        audit.record("link_revealed", case.connection)
        client = Client()
        client.force_login(UserFactory(permissions=["feeds.view_case"]))
        CaseEventFactory(case=case)
        entries = client.get(page_of(case)).context["timeline"].entries
        assert {entry.kind for entry in entries} == {"case"}


class TestPermission:
    def test_the_table_names_every_action(self) -> None:
        screen = admin.site.get_model_admin(Case)
        assert isinstance(screen, ActionsAdmin)
        assert {(it.name, str(it.label), it.permission) for it in screen.object_actions().values()} == {
            (action.name, action.label, action.permission) for action in ACTIONS
        }

    @every_action
    def test_the_button_is_there_with_the_permission_and_hidden_without(self, action: Action) -> None:
        case = broken_case()
        assert action.url(case) in browser(action.permission).get(page_of(case)).content.decode()
        assert action.url(case) not in browser().get(page_of(case)).content.decode()

    @every_action
    @pytest.mark.parametrize("method", ["get", "post"])
    def test_the_address_answers_403_without_the_permission(self, action: Action, method: str) -> None:
        case = broken_case()
        client, data = browser(), filled_in(action)
        before = rows()
        assert getattr(client, method)(action.url(case), data).status_code == 403
        assert rows() == before

    @every_action
    def test_the_address_answers_403_to_who_may_act_but_not_see(self, action: Action) -> None:
        client = Client()
        client.force_login(UserFactory(permissions=[action.permission]))
        assert client.post(action.url(broken_case()), filled_in(action)).status_code == 403

    @every_action
    def test_a_post_without_the_csrf_token_is_refused(self, action: Action) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(UserFactory(is_superuser=True))
        assert client.post(action.url(broken_case()), filled_in(action)).status_code == 403

    @every_action
    def test_get_says_what_will_happen_changes_nothing_and_calls_nobody(self, action: Action) -> None:
        case, client = broken_case(), browser(action.permission)
        before = rows()
        with responses.RequestsMock() as wire:
            answer = client.get(action.url(case))
            assert not wire.calls
        assert answer.context["consequences"]
        assert f">{action.label}</button>" in answer.content.decode()
        assert rows() == before


DONE: dict[str, Callable[[Case, Client], bool]] = {
    "take": lambda case, client: (case.state, case.owner) == (CaseState.TAKEN, person(client)),
    "note": lambda case, client: case.events.filter(kind=CaseEventKind.NOTE, text="Left a message.").exists(),
    "set-cause": lambda case, client: case.cause == CaseCause.QUICKBOOKS_SILENT,
    "snooze": lambda case, client: (
        case.state == CaseState.SNOOZED
        and case.snoozed_until is not None
        and timezone.localdate(case.snoozed_until) == timezone.localdate() + timedelta(days=3)
    ),
    "hand-over": lambda case, client: case.owner is not None and case.owner.last_name == "Lee",
    "close": lambda case, client: (
        (case.state, case.outcome, case.outcome_reason) == (CaseState.CLOSED, CaseOutcome.NOT_WANTED, "They said so.")
    ),
}


class TestWorkingACase:
    @every_action_of_the_case
    def test_it_is_done_and_told_with_the_name_of_who_did_it(self, action: Action) -> None:
        case, client = broken_case(), browser("feeds.work_case")
        answer = client.post(action.url(case), filled_in(action), follow=True)
        assert len(messages(answer)) == 1
        case.refresh_from_db()
        assert DONE[action.name](case, client), vars(case)
        event = case.events.latest("pk")
        assert event.actor_name == person(client).get_full_name()
        assert str(event.get_kind_display()) in answer.content.decode()

    @pytest.mark.parametrize("action", [it for it in OF_THE_CASE if it.name != "note"], ids=str)
    def test_the_history_says_who_did_it_and_why(self, action: Action) -> None:
        case, client = broken_case(), browser("feeds.work_case")
        data = filled_in(action)
        before = last_entry()
        client.post(action.url(case), data)
        entry = AuditEntry.objects.get(content_type__model="case", pk__gt=before)
        assert (entry.actor, entry.source, entry.object_pk) == (person(client), "admin", str(case.pk))
        assert entry.reason == data.get("reason", data.get("text", ""))

    @every_action_of_open_cases
    def test_a_closed_case_is_left_alone(self, action: Action) -> None:
        case, client = CaseFactory(closed=True), browser("feeds.work_case")
        answer = client.post(action.url(case), filled_in(action), follow=True)
        assert messages(answer) == [CLOSED]
        assert not case.events.exists()

    def test_a_case_is_not_closed_while_codat_says_broken_unless_a_reason_is_given(self) -> None:
        case, client = broken_case(), browser("feeds.work_case")
        action = BY_NAME["close"]
        assert "Codat still says broken" in client.get(action.url(case)).content.decode()
        answer = client.post(action.url(case), {"outcome": CaseOutcome.NOT_WANTED, "reason": " "})
        case.refresh_from_db()
        assert case.is_open
        (why,) = messages(answer)
        assert why.startswith("Codat still says broken: Unlinked")
        assert "Give a reason to close it all the same." in why
        # What was chosen is kept.
        page = answer.content.decode()
        assert re.search(rf'value="{CaseOutcome.NOT_WANTED}"[^>]*checked', page)
        client.post(action.url(case), {"outcome": CaseOutcome.NOT_WANTED, "reason": "They left us."})
        case.refresh_from_db()
        assert not case.is_open

    def test_what_was_typed_is_kept_when_snoozing_is_refused(self) -> None:
        case, client = broken_case(), browser("feeds.work_case")
        answer = client.post(BY_NAME["snooze"].url(case), {"until": "2020-01-01", "text": "Until the new year."})
        assert messages(answer) == ["Choose a time in the future, at most 90 days away."]
        assert 'value="2020-01-01"' in answer.content.decode()
        assert 'value="Until the new year."' in answer.content.decode()

    def test_a_case_is_handed_only_to_those_who_may_work_it(self) -> None:
        case, client = broken_case(), browser("feeds.work_case")
        stranger, gone = UserFactory(), UserFactory(role=SUPPORT, is_active=False)
        colleague = UserFactory(role=SUPPORT, first_name="Kim", last_name="Lee")
        action = BY_NAME["hand-over"]
        offered = client.get(action.url(case)).context["form"].fields["to"].queryset
        assert colleague in offered
        assert stranger not in offered
        assert gone not in offered
        answer = client.post(action.url(case), {"to": str(stranger.pk), "text": "Please."})
        assert answer.context["form"].errors["to"]
        assert "Please." in answer.content.decode()

    @pytest.mark.parametrize(
        ("name", "data", "missing"),
        [
            ("note", {"text": "  "}, "text"),
            ("set-cause", {"cause": "bad weather"}, "cause"),
            ("snooze", {"until": "soon"}, "until"),
            ("close", {"reason": "They said so."}, "outcome"),
            ("revoke-credentials", {"reason": ""}, "reason"),
        ],
    )
    def test_a_form_that_is_not_filled_in_is_shown_again(self, name: str, data: dict[str, str], missing: str) -> None:
        case, action = broken_case(), BY_NAME[name]
        client = browser(action.permission)
        before = rows()
        answer = client.post(action.url(case), data)
        assert list(answer.context["form"].errors) == [missing]
        assert rows() == before


@pytest.fixture
def customer(codat: SandboxProcess, drain_queue: Callable[[], int]) -> Company:
    """A customer of the stand-in who has connected two accounts, of which one then broke; a case is open."""
    company = CompanyFactory()
    for name in ("Checking", "Savings"):
        SourceAccountFactory(company=company, name=name)
    onboarding.request(company, actor=audit.SYSTEM)
    drain_queue()
    connection = company.connections.get()
    company.refresh_from_db()
    codat.connect(company.codat_id, connection.codat_id)
    sync.refresh_company(company, actor=audit.SYSTEM)
    broken = SourceAccount.objects.get(name="Checking")
    codat.disconnect(company.codat_id, connection.codat_id, accountId=broken.account_id, now=True)
    sync.refresh_company(company, actor=audit.SYSTEM)
    return company


class TestVerifyNow:
    def verify(self, client: Client) -> list[str]:
        """Press Verify now on the only case; the messages that follow."""
        return messages(client.post(BY_NAME["verify-now"].url(Case.objects.get()), follow=True))

    def test_it_says_that_nothing_has_changed(self, customer: Company) -> None:
        case = Case.objects.get()
        (said,) = self.verify(browser("feeds.refresh_company"))
        assert said == f"Read from Codat: nothing has changed. Still broken: {case.what_is_broken}."

    def test_it_says_what_changed_and_closes_the_case_when_the_feed_works(
        self, customer: Company, codat: SandboxProcess
    ) -> None:
        codat.connect(customer.codat_id, customer.connections.get().codat_id)
        (said,) = self.verify(browser("feeds.refresh_company"))
        assert "Checking: disconnected → connected" in said
        assert said.endswith("The feed works, and the case is closed.")
        case = Case.objects.get()
        assert (case.state, case.outcome) == (CaseState.CLOSED, CaseOutcome.RECONNECTED)

    def test_it_says_what_else_has_broken(self, customer: Company, codat: SandboxProcess) -> None:
        codat.disconnect(customer.codat_id, customer.connections.get().codat_id, now=True)
        (said,) = self.verify(browser("feeds.refresh_company"))
        assert "Savings: connected → disconnected" in said
        assert "Still broken: " in said
        assert Case.objects.get().accounts_broken == 2

    def test_what_codat_answers_is_said_in_its_own_words(self, customer: Company, settings: Any) -> None:
        settings.CODAT_API_KEY = "a-wrong-key"
        (said,) = self.verify(browser("feeds.refresh_company"))
        assert said.startswith("Codat refused our API key. Ask an administrator to check CODAT_API_KEY")

    def test_the_change_is_attributed_to_who_pressed(self, customer: Company, codat: SandboxProcess) -> None:
        codat.connect(customer.codat_id, customer.connections.get().codat_id)
        client = browser("feeds.refresh_company")
        before = last_entry()
        self.verify(client)
        changed = AuditEntry.objects.get(content_type__model="sourceaccount", pk__gt=before)
        assert (changed.actor, changed.source) == (person(client), "admin")


class TestTheConnectionsActions:
    @pytest.mark.parametrize("name", ["refresh-link", "revoke-credentials"])
    def test_what_the_queue_does_is_asked_for_and_leads_back_to_the_case(self, name: str) -> None:
        case, action = broken_case(), BY_NAME[name]
        client = browser(action.permission)
        answer = client.post(action.url(case), action.data, follow=True)
        operation = Operation.objects.get()
        assert messages(answer) == [f"Asked for; follow it here: {operation}."]
        assert (operation.connection, operation.requested_by) == (case.connection, person(client))
        assert operation.reason == action.data.get("reason", "")
        assert answer.redirect_chain == [(page_of(case), 302)]

    def test_show_link_shows_it_once_is_recorded_and_leads_back_to_the_case(self) -> None:
        case, client = broken_case(), browser("feeds.reveal_link")
        answer = client.post(BY_NAME["show-link"].url(case))
        page = answer.content.decode()
        assert f'value="{case.connection.link_url}"' in page
        assert answer["Referrer-Policy"] == "no-referrer"
        assert "no-store" in answer["Cache-Control"]
        assert f'<a href="{page_of(case)}" class="button">Done</a>' in page
        entry = AuditEntry.objects.get(event="link_revealed")
        assert (entry.actor, entry.object_pk) == (person(client), str(case.connection.pk))

    def test_credentials_are_generated_and_shown_once(self, customer: Company) -> None:
        client = browser("feeds.generate_credentials")
        answer = client.post(BY_NAME["generate-credentials"].url(Case.objects.get()))
        shown = dict(answer.context["secret"].rows)
        assert set(shown) == {"User name", "Password"}
        assert all(value in answer.content.decode() for value in shown.values())
        assert AuditEntry.objects.filter(event="credentials_generated", actor=person(client)).count() == 1

    def test_what_codat_refuses_is_said_on_the_page(self, customer: Company, settings: Any) -> None:
        settings.CODAT_API_KEY = "a-wrong-key"
        answer = browser("feeds.generate_credentials").post(BY_NAME["generate-credentials"].url(Case.objects.get()))
        assert messages(answer)[0].startswith("Codat refused our API key.")

    def test_asking_twice_is_refused(self) -> None:
        case, action = broken_case(), BY_NAME["refresh-link"]
        client = browser(action.permission)
        client.post(action.url(case))
        answer = client.post(action.url(case), follow=True)
        assert messages(answer)[-1].startswith("“Refresh link” is already asked for and not finished.")

    def test_a_connection_that_is_gone_offers_nothing_of_codats(self) -> None:
        case = broken_case()
        Connection.objects.filter(pk=case.connection_id).update(gone_at=timezone.now(), link_url="")
        client = Client()
        client.force_login(UserFactory(is_superuser=True))
        names = {button.name for button in client.get(page_of(case)).context["buttons"]}
        assert names == {action.name for action in OF_THE_CASE}

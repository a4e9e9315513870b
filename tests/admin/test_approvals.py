"""Four eyes through the admin: asking instead of doing, and the requests' own screens."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import connection as database
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from feeds import audit
from feeds.admin.actions import JUDGED_ON, ActionsAdmin
from feeds.models import Approval, AuditEntry, Case, Company, Connection, Operation, SourceAccount
from feeds.services import approvals, onboarding, sync
from feeds.services.approval_rules import BULK, RULES
from feeds.states import AccountStatus, ApprovalState, ConnectionStatus
from tests.factories import (
    ApprovalFactory,
    CaseFactory,
    CompanyFactory,
    ConnectionFactory,
    SourceAccountFactory,
    UserFactory,
)
from tests.sandbox_process import SandboxProcess

REASON = "The customer asked for it by phone."
LIST = reverse("admin:feeds_approval_changelist")
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _four_eyes(settings: Any) -> None:
    """As the product is shipped."""
    settings.FOUR_EYES = settings.PRODUCT_FOUR_EYES


def linked() -> Connection:
    """A connection of which QuickBooks reads three accounts."""
    connection: Connection = ConnectionFactory(linked=True)
    SourceAccountFactory.create_batch(
        3, company=connection.company, connection=connection, status=AccountStatus.CONNECTED
    )
    return connection


@dataclass(frozen=True)
class Rule:
    """One action that needs a colleague: its screen, its name there, how to make an object for it."""

    action: str
    model: type[Model]
    name: str
    role: str
    make: Callable[[], Any]
    says: str

    def __str__(self) -> str:
        return self.action

    def url(self, obj: Any) -> str:
        """Its address."""
        return reverse(f"admin:feeds_{self.model._meta.model_name}_action", args=[obj.pk, self.name])


RULED = [
    Rule("unlink_connection", Connection, "unlink", "Support", linked, "3 accounts stop feeding."),
    Rule("revoke_credentials", Connection, "revoke-credentials", "Support", linked, "3 accounts stop feeding."),
    Rule(
        "revoke_credentials",
        Case,
        "revoke-credentials",
        "Support",
        lambda: CaseFactory(connection=linked()),
        "3 accounts stop feeding.",
    ),
    Rule(
        "delete_account",
        SourceAccount,
        "delete",
        "Support",
        lambda: SourceAccountFactory(in_codat=True),
        "are deleted in Codat. This cannot be undone.",
    ),
    Rule("delete_connection", Connection, "delete", "Support", linked, "3 accounts stop feeding."),
    Rule(
        "delete_company_in_codat",
        Company,
        "delete-in-codat",
        "Administrators",
        lambda: linked().company,
        "3 accounts stop feeding.",
    ),
    Rule("delete_company", Company, "delete", "Administrators", CompanyFactory, "0 source accounts go with it."),
]
every_rule = pytest.mark.parametrize("rule", RULED, ids=lambda rule: f"{rule.action}-{rule.model.__name__}")


def browser(user: User) -> Client:
    """The person's browser."""
    client = Client()
    client.force_login(user)
    return client


def messages(answer: Any) -> list[str]:
    """The messages the page shows, as text."""
    return [re.sub(r"<[^>]+>", "", str(message)) for message in answer.context["messages"]]


def page(client: Client, url: str) -> str:
    """What a page shows."""
    answer = client.get(url)
    assert answer.status_code == 200
    return str(answer.content.decode())


def press(client: Client, url: str, **typed: str) -> Any:
    """Open the confirmation page, then send its form as a browser would."""
    hidden = re.search(rf'name="{JUDGED_ON}" value="(\w+)"', page(client, url))
    data = {JUDGED_ON: hidden[1]} if hidden else {}
    return client.post(url, data | {"reason": REASON} | typed, follow=True)


def decision(approval: Approval, name: str) -> str:
    """Address of a button of the request's page."""
    return reverse("admin:feeds_approval_action", args=[approval.pk, name])


def change_url(obj: Any) -> str:
    """Address of the object's screen."""
    return reverse(f"admin:{obj._meta.app_label}_{obj._meta.model_name}_change", args=[obj.pk])


# --- Asking ----------------------------------------------------------------------------------------------------------
class TestAsking:
    @every_rule
    def test_the_page_says_so_and_the_button_asks(self, rule: Rule) -> None:
        obj, asker = rule.make(), UserFactory(role=rule.role)
        client = browser(asker)
        text = page(client, rule.url(obj))
        assert "A colleague has to approve this: nothing happens until then." in text
        assert "expires in 72 hours" in text
        assert rule.says in text
        assert "Ask for approval" in text

        answer = press(client, rule.url(obj))

        approval = Approval.objects.get()
        assert messages(answer)[0] == f"Nothing was done yet: a colleague has to approve. Request #{approval.pk}"
        assert (approval.action, approval.state, approval.reason) == (rule.action, ApprovalState.REQUESTED, REASON)
        assert any(rule.says in sentence for sentence in approval.consequences)
        assert not Operation.objects.exists()
        assert type(obj)._default_manager.filter(pk=obj.pk).exists()

    @every_rule
    def test_opening_the_page_asks_nothing(self, rule: Rule) -> None:
        obj = rule.make()
        page(browser(UserFactory(role=rule.role)), rule.url(obj))
        assert not Approval.objects.exists()

    @every_rule
    def test_it_is_refused_without_the_permission(self, rule: Rule) -> None:
        obj = rule.make()
        client = browser(UserFactory(role="Compliance auditors"))
        assert client.post(rule.url(obj), {"reason": REASON}).status_code == 403
        assert not Approval.objects.exists()

    @every_rule
    def test_a_second_request_is_refused_with_a_link_to_the_first(self, rule: Rule) -> None:
        obj = rule.make()
        press(browser(UserFactory(role=rule.role, first_name="Sam", last_name="Asker")), rule.url(obj))
        client = browser(UserFactory(role=rule.role))
        assert "Sam Asker asked for this" in page(client, rule.url(obj))
        answer = press(client, rule.url(obj))
        (message,) = [str(it) for it in answer.context["messages"]]
        first = Approval.objects.get()
        assert message.startswith("This is asked for already, by Sam Asker, and not decided yet.")
        assert f'href="{change_url(first)}"' in message

    @every_rule
    def test_the_history_says_who_asked_and_why(self, rule: Rule) -> None:
        asker = UserFactory(role=rule.role)
        press(browser(asker), rule.url(rule.make()))
        entry = AuditEntry.objects.get(content_type__model="approval")
        assert (entry.actor, entry.reason, entry.source) == (asker, REASON, "admin")

    def test_what_changed_since_the_page_was_shown_is_read_again_first(self) -> None:
        connection, client = linked(), browser(UserFactory(role="Support"))
        url = reverse("admin:feeds_connection_action", args=[connection.pk, "unlink"])
        shown = re.search(rf'name="{JUDGED_ON}" value="(\w+)"', page(client, url))
        assert shown is not None
        connection.source_accounts.update(status=AccountStatus.PENDING)
        answer = client.post(url, {JUDGED_ON: shown[1], "reason": REASON}, follow=True)
        assert messages(answer) == [
            "What will happen has changed since this page was shown. Nothing was asked: read it again."
        ]
        text = answer.content.decode()
        assert "0 accounts stop feeding." in text
        assert REASON in text
        assert not Approval.objects.exists()

    def test_when_nobody_else_could_approve_it_is_said(self) -> None:
        connection = linked()
        url = reverse("admin:feeds_connection_action", args=[connection.pk, "unlink"])
        asker = UserFactory(role="Support")
        assert "Nobody else has the right to approve this now. Ask an administrator." in messages(
            press(browser(asker), url)
        )

    def test_a_rule_that_is_off_does_it_at_once(self, settings: Any) -> None:
        settings.FOUR_EYES = ["change_roles"]
        connection = linked()
        url = reverse("admin:feeds_connection_action", args=[connection.pk, "unlink"])
        press(browser(UserFactory(role="Support")), url)
        assert Operation.objects.get().connection == connection
        assert not Approval.objects.exists()

    def test_every_action_of_the_rules_is_on_a_screen(self) -> None:
        screens = [screen for screen in admin.site._registry.values() if isinstance(screen, ActionsAdmin)]
        on_screens = {action.four_eyes for screen in screens for action in screen.object_actions().values()}
        single = {name for name, rule in RULES.items() if not rule.is_many}
        assert on_screens - {""} == single - {"change_roles"}


# --- Many rows -------------------------------------------------------------------------------------------------------
class TestManyRows:
    CONNECTIONS = reverse("admin:feeds_connection_changelist")

    def test_every_list_action_on_the_site_can_be_approved(self) -> None:
        screens = [screen for screen in admin.site._registry.values() if isinstance(screen, ActionsAdmin)]
        named = {
            (screen.model, getattr(getattr(screen, name), "four_eyes", ""))
            for screen in screens
            for name in screen.actions or ()
            if isinstance(name, str)
        }
        # Taking over has none: more rows than the setting are refused.
        assert named - {(Company, "")} == {(rule.model, name) for name, rule in RULES.items() if rule.setting == BULK}
        for screen in screens:
            for name in {*(screen.actions or ())} - {"take_over_selected"}:
                action = getattr(screen, str(name))
                assert RULES[action.four_eyes].permission == action.required_permission

    def test_more_than_the_setting_is_asked_for_and_runs_when_approved(
        self, settings: Any, codat: SandboxProcess, drain_queue: Callable[[], int]
    ) -> None:
        settings.FOUR_EYES_BULK_ROWS = 2
        chosen = ConnectionFactory.create_batch(3)
        asker = browser(UserFactory(role="Support"))
        data: dict[str, Any] = {"action": "refresh_links", "_selected_action": [it.pk for it in chosen]}
        answer = asker.post(self.CONNECTIONS, data)
        text = answer.content.decode()
        assert "More than 2 at once: a colleague has to approve this" in text
        assert all(str(it) in text for it in chosen)
        assert not Approval.objects.exists()

        asker.post(self.CONNECTIONS, data | {"asked": "yes", "reason": ""})
        assert not Approval.objects.exists()
        answer = asker.post(self.CONNECTIONS, data | {"asked": "yes", "reason": REASON}, follow=True)
        approval = Approval.objects.get()
        assert "a colleague has to approve" in messages(answer)[0]
        assert [pk for pk, _name, _mark in approval.payload["rows"]] == [it.pk for it in reversed(chosen)]
        assert not Operation.objects.exists()

        decider = browser(UserFactory(role="Support"))
        answer = decider.post(decision(approval, "approve"), {"comment": ""}, follow=True)
        assert messages(answer) == ["Approved. The rows are being worked through; this page shows how far."]
        assert "0 of 3 rows are worked through." in answer.content.decode()
        drain_queue()
        assert "3 done." in page(decider, change_url(approval))
        assert Operation.objects.count() == 3

    def test_the_page_that_asks_never_does_it_when_fewer_rows_are_left(self, settings: Any) -> None:
        settings.FOUR_EYES_BULK_ROWS = 2
        chosen = ConnectionFactory.create_batch(3)
        asker = browser(UserFactory(role="Support"))
        address = f"{self.CONNECTIONS}?status={ConnectionStatus.PENDING_AUTH}"
        data: dict[str, Any] = {"action": "refresh_links", "_selected_action": [it.pk for it in chosen]}
        assert "More than 2 at once" in asker.post(address, data).content.decode()
        Connection.objects.filter(pk=chosen[0].pk).update(status=ConnectionStatus.LINKED)

        answer = asker.post(address, data | {"asked": "yes", "reason": REASON})
        assert messages(answer) == [
            "Some rows are not in this list any more. Nothing was asked: look at the rows again."
        ]
        assert (Operation.objects.count(), Approval.objects.count()) == (0, 0)
        # What the page shows now is asked for, as it says.
        data["_selected_action"] = re.findall(r'name="_selected_action" value="(\d+)"', answer.content.decode())
        assert len(data["_selected_action"]) == 2
        asker.post(address, data | {"asked": "yes", "reason": REASON})
        assert not Operation.objects.exists()
        assert len(Approval.objects.get().payload["rows"]) == 2

    def test_up_to_the_setting_it_is_done_at_once(self, settings: Any) -> None:
        settings.FOUR_EYES_BULK_ROWS = 2
        chosen = ConnectionFactory.create_batch(2)
        data: dict[str, Any] = {"action": "refresh_links", "_selected_action": [it.pk for it in chosen]}
        browser(UserFactory(role="Support")).post(self.CONNECTIONS, data)
        assert Operation.objects.count() == 2


# --- The requests' screens -------------------------------------------------------------------------------------------
class TestDeciding:
    @pytest.fixture
    def approval(self) -> Approval:
        """A request to unlink, by Sam."""
        made: Approval = ApprovalFactory(
            connection=linked(), requested_by=UserFactory(role="Support", first_name="Sam", last_name="Asker")
        )
        return made

    def test_the_page_shows_what_was_shown_and_what_is_now(self, approval: Approval) -> None:
        SourceAccount.objects.filter(company=approval.company).update(status=AccountStatus.PENDING)
        text = page(browser(UserFactory(role="Support")), change_url(approval))
        for expected in (
            "3 accounts stop feeding.",
            REASON,
            "Sam Asker",
            "Accounts that QuickBooks reads",
            "(changed)",
        ):
            assert expected in text
        assert "it will not be carried out" in text

    def test_approving_unlinks_in_codat(self, codat: SandboxProcess, drain_queue: Callable[[], int]) -> None:
        company: Company = CompanyFactory()
        SourceAccountFactory(company=company)
        onboarding.request(company, actor=audit.SYSTEM)
        drain_queue()
        company.refresh_from_db()
        connection = company.connections.get()
        codat.connect(company.codat_id, connection.codat_id)
        sync.refresh_company(company, actor=audit.SYSTEM)
        url = reverse("admin:feeds_connection_action", args=[connection.pk, "unlink"])
        press(browser(UserFactory(role="Support")), url)
        drain_queue()
        connection.refresh_from_db()
        assert connection.status == ConnectionStatus.LINKED

        approval = Approval.objects.get()
        answer = browser(UserFactory(role="Support")).post(decision(approval, "approve"), {"comment": ""}, follow=True)
        assert messages(answer)[0].startswith("Approved and done. Asked of Codat: Unlink connection #")
        drain_queue()
        connection.refresh_from_db()
        assert connection.status == ConnectionStatus.UNLINKED

    def test_the_asker_sees_no_button_and_is_refused(self, approval: Approval) -> None:
        assert approval.requested_by is not None
        client = browser(approval.requested_by)
        text = page(client, change_url(approval))
        assert decision(approval, "approve") not in text
        assert "You asked for this yourself: a colleague has to decide." in text
        answer = client.post(decision(approval, "approve"), {"comment": ""}, follow=True)
        assert messages(answer) == ["You asked for this yourself: a colleague has to decide."]
        assert not Operation.objects.exists()

    @pytest.mark.parametrize("name", ["approve", "refuse", "withdraw"])
    def test_the_buttons_are_hidden_and_refused_without_the_permission(self, approval: Approval, name: str) -> None:
        client = browser(UserFactory(role="Compliance auditors"))
        assert decision(approval, name) not in page(client, change_url(approval))
        assert client.get(decision(approval, name)).status_code == 403
        assert client.post(decision(approval, name), {"comment": "x"}).status_code == 403
        approval.refresh_from_db()
        assert approval.state == ApprovalState.REQUESTED

    def test_who_may_decide_but_not_do_it_is_refused(self, approval: Approval) -> None:
        client = browser(UserFactory(role="Relationship managers"))
        assert decision(approval, "approve") not in page(client, change_url(approval))
        answer = client.post(decision(approval, "approve"), {"comment": ""}, follow=True)
        assert messages(answer) == ["You may not do this yourself, so you cannot approve it either."]
        assert not Operation.objects.exists()

    def test_opening_the_approval_page_approves_nothing(self, approval: Approval) -> None:
        text = page(browser(UserFactory(role="Support")), decision(approval, "approve"))
        assert "3 accounts stop feeding." in text
        approval.refresh_from_db()
        assert approval.state == ApprovalState.REQUESTED
        assert not Operation.objects.exists()

    def test_a_refusal_asks_why(self, approval: Approval) -> None:
        client = browser(UserFactory(role="Support"))
        client.post(decision(approval, "refuse"), {"comment": ""})
        approval.refresh_from_db()
        assert approval.state == ApprovalState.REQUESTED
        answer = client.post(decision(approval, "refuse"), {"comment": "Wrong customer."}, follow=True)
        assert messages(answer) == ["The request is refused."]
        assert "Refused: Wrong customer." in page(client, change_url(approval))

    def test_the_asker_withdraws(self, approval: Approval) -> None:
        assert approval.requested_by is not None
        client = browser(approval.requested_by)
        assert decision(approval, "withdraw") in page(client, change_url(approval))
        assert messages(client.post(decision(approval, "withdraw"), follow=True)) == ["The request is withdrawn."]
        other = browser(UserFactory(role="Support"))
        assert decision(approval, "withdraw") not in page(other, change_url(approval))

    def test_what_failed_is_said(self, approval: Approval) -> None:
        Connection.objects.filter(pk=approval.target_pk).update(status=ConnectionStatus.UNLINKED)
        client = browser(UserFactory(role="Support"))
        answer = client.post(decision(approval, "approve"), {"comment": ""}, follow=True)
        (message,) = messages(answer)
        assert message.startswith("Changed since it was asked: Status: Linked → Unlinked.")
        assert "Not carried out" in answer.content.decode()

    def test_a_request_that_is_too_late_says_so(self, approval: Approval) -> None:
        Approval.objects.update(expires_at=timezone.now() - timedelta(minutes=1))
        client = browser(UserFactory(role="Support"))
        assert "too late" in page(client, change_url(approval))
        answer = client.post(decision(approval, "approve"), {"comment": ""}, follow=True)
        assert messages(answer) == ["Nobody decided in time. Nothing was done; if it is still wanted, ask anew."]

    def test_the_list_begins_with_what_waits_for_me(self, approval: Approval) -> None:
        ApprovalFactory(state=ApprovalState.REFUSED, finished_at=timezone.now())

        def listed(user: User, tab: str = "") -> set[int]:
            answer = browser(user).get(f"{LIST}?list={tab}" if tab else LIST)
            return {it.pk for it in answer.context["cl"].result_list}

        decider, asker = UserFactory(role="Support"), approval.requested_by
        assert asker is not None
        assert listed(decider) == {approval.pk}
        assert listed(asker) == set()
        assert listed(asker, "mine") == {approval.pk}
        assert listed(decider, "open") == {approval.pk}
        assert len(listed(decider, "all")) == 2
        assert len(listed(UserFactory(role="Compliance auditors"))) == 2

    def test_fifty_requests_take_as_many_queries_as_one(
        self, approval: Approval, django_assert_num_queries: Any
    ) -> None:
        client = browser(UserFactory(role="Support"))
        page(client, LIST)
        with CaptureQueriesContext(database) as one:
            page(client, LIST)
        ApprovalFactory.create_batch(9)
        with django_assert_num_queries(len(one)):
            page(client, LIST)

    def test_home_says_how_many_wait_for_me(self, approval: Approval) -> None:
        home = reverse("admin:index")
        assert "1 request waits for your approval" in page(browser(UserFactory(role="Support")), home)
        assert approval.requested_by is not None
        for other in (approval.requested_by, UserFactory(role="Compliance auditors")):
            assert "for your approval" not in page(browser(other), home)


# --- Roles -----------------------------------------------------------------------------------------------------------
class TestRoles:
    @pytest.fixture
    def boss(self) -> User:
        """An administrator."""
        user: User = UserFactory(role="Administrators")
        return user

    @staticmethod
    def save(client: Client, user: User, **values: Any) -> Any:
        """Post the form of a user as it stands, with `values` changed; None takes a field out."""
        data = {"username": user.username, "first_name": user.first_name, "last_name": user.last_name}
        data |= {"email": user.email, "is_active": "on", "is_staff": "on"}
        data |= {"groups": [group.pk for group in user.groups.all()]} | values
        data = {name: value for name, value in data.items() if value is not None}
        return client.post(change_url(user), data, follow=True)

    def test_the_rest_is_saved_and_the_role_is_asked_for(self, boss: User) -> None:
        user, support = UserFactory(), Group.objects.get(name="Support")
        answer = self.save(browser(boss), user, first_name="Nora", groups=[support.pk], role_reason="New in support.")
        user.refresh_from_db()
        assert user.first_name == "Nora"
        assert not user.groups.exists()
        approval = Approval.objects.get()
        assert (approval.consequences, approval.reason) == (["Roles: none → Support"], "New in support.")
        assert any("a colleague has to approve" in message for message in messages(answer))

        other = browser(UserFactory(role="Administrators"))
        assert "Roles: none → Support" in page(other, change_url(approval))
        other.post(decision(approval, "approve"), {"comment": ""})
        assert list(user.groups.all()) == [support]

    @pytest.mark.parametrize(
        ("field", "words"), [("is_active", "Active: yes → no"), ("is_staff", "May sign in here: yes → no")]
    )
    def test_the_switches_wait_too(self, boss: User, field: str, words: str) -> None:
        user = UserFactory()
        self.save(browser(boss), user, **{field: None}, role_reason="Has left.")
        user.refresh_from_db()
        assert getattr(user, field)
        assert Approval.objects.get().consequences == [words]

    def test_a_superuser_is_made_by_two_superusers(self) -> None:
        first, second = UserFactory.create_batch(2, is_superuser=True)
        user = UserFactory()
        self.save(browser(first), user, is_superuser="on", role_reason="Runs the system.")
        user.refresh_from_db()
        assert not user.is_superuser
        browser(second).post(decision(Approval.objects.get(), "approve"), {"comment": ""})
        user.refresh_from_db()
        assert user.is_superuser

    def test_without_a_reason_nothing_is_saved_and_nothing_is_lost(self, boss: User) -> None:
        user, support = UserFactory(), Group.objects.get(name="Support")
        answer = self.save(browser(boss), user, first_name="Nora", groups=[support.pk])
        assert "Say why the role changes: a colleague has to approve it." in answer.content.decode()
        assert 'value="Nora"' in answer.content.decode()
        user.refresh_from_db()
        assert user.first_name != "Nora"
        assert not Approval.objects.exists()

    def test_saving_without_a_change_of_role_asks_nobody(self, boss: User) -> None:
        user = UserFactory(role="Support")
        self.save(browser(boss), user, first_name="Nora")
        user.refresh_from_db()
        assert user.first_name == "Nora"
        assert not Approval.objects.exists()
        assert [group.name for group in user.groups.all()] == ["Support"]

    def test_a_second_change_of_the_same_person_waits_for_the_first(self, boss: User) -> None:
        user, support = UserFactory(), Group.objects.get(name="Support")
        self.save(browser(boss), user, groups=[support.pk], role_reason="New.")
        answer = self.save(browser(boss), user, first_name="Nora", is_active=None, role_reason="Left.")
        assert any(it.startswith("The role was not changed. This is asked for already") for it in messages(answer))
        user.refresh_from_db()
        assert (user.first_name, user.is_active) == ("Nora", True)

    def test_an_administrator_is_not_called_to_decide_about_superusers(
        self, boss: User, django_assert_num_queries: Any
    ) -> None:
        chief, other = UserFactory.create_batch(2, is_superuser=True)
        client, home = browser(boss), reverse("admin:index")
        page(client, LIST)
        with CaptureQueriesContext(database) as none:
            page(client, LIST)
        queries = len(none)
        self.save(browser(chief), other, is_superuser="on", is_active=None, role_reason="Has left.")
        approval = Approval.objects.get()
        with django_assert_num_queries(queries):
            assert change_url(approval) not in page(client, LIST)
        assert "for your approval" not in page(client, home)
        third = browser(UserFactory(is_superuser=True))
        assert change_url(approval) in page(third, LIST)
        assert "1 request waits for your approval" in page(third, home)

    def test_a_new_person_begins_without_a_role(self, boss: User) -> None:
        secret = "another long invented phrase"
        data = {"username": "newcomer", "usable_password": "true", "password1": secret, "password2": secret}
        data |= {"is_staff": "on", "is_superuser": "on", "groups": "1"}
        browser(boss).post(reverse("admin:auth_user_add"), data)
        user = User.objects.get(username="newcomer")
        assert (user.is_staff, user.is_superuser) == (False, False)
        assert not user.groups.exists()

    def test_a_list_of_the_requests_names_the_person(self, boss: User) -> None:
        user = UserFactory(username="nora")
        self.save(browser(boss), user, is_active=None, role_reason="Left.")
        other = UserFactory(role="Administrators")
        assert "nora" in page(browser(other), LIST)
        assert approvals.waiting_for(other).count() == 1

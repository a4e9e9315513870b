"""Every object action of connections and source accounts, through the admin as staff use it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import responses
from django.contrib import admin
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from feeds import audit
from feeds.admin.actions import ActionsAdmin
from feeds.banking import mask
from feeds.models import AuditEntry, Company, Connection, Operation, SourceAccount
from feeds.services import onboarding, sync
from feeds.states import AccountStatus, ConnectionStatus, OperationState
from tests.factories import CompanyFactory, ConnectionFactory, SourceAccountFactory, UserFactory
from tests.sandbox_process import SandboxProcess

REASON = "The customer asked for it by phone."
REASON_GIVEN = {"reason": REASON}


@dataclass(frozen=True)
class Case:
    """One action: on which screen, what it is called, what it needs."""

    model: type[Model]
    name: str
    permission: str
    label: str
    data: dict[str, str] = field(default_factory=dict)
    linked: bool = False
    """Whether the customer must have connected for it to make sense."""
    event: str = ""
    """What the change history calls it, for actions that write an event instead of a queued operation."""

    def __str__(self) -> str:
        return self.name

    @property
    def kind(self) -> str:
        """ "connection" or "sourceaccount"."""
        return str(self.model._meta.model_name)

    def make(self, **values: Any) -> Any:
        """An object it can be done to, with its mirror but without a Codat behind it."""
        if self.model is SourceAccount:
            return SourceAccountFactory(in_codat=True, **values)
        return ConnectionFactory(linked=True, **values) if self.linked else ConnectionFactory(with_link=True, **values)

    def url(self, obj: Any) -> str:
        """Its address."""
        return reverse(f"admin:feeds_{self.kind}_action", args=[obj.pk, self.name])

    def staff(self, *, allowed: bool = True) -> Client:
        """A signed-in browser of someone who sees the screen, with or without the action's permission."""
        seen = ["feeds.view_connection", "feeds.view_sourceaccount", "feeds.view_operation"]
        client = Client()
        client.force_login(UserFactory(permissions=[*seen, self.permission] if allowed else seen))
        return client


CASES = [
    Case(Connection, "refresh-link", "feeds.refresh_link", "Refresh link"),
    Case(Connection, "show-link", "feeds.reveal_link", "Show link", event="link_revealed"),
    Case(
        Connection,
        "generate-credentials",
        "feeds.generate_credentials",
        "Generate credentials",
        event="credentials_generated",
    ),
    Case(Connection, "revoke-credentials", "feeds.revoke_credentials", "Revoke credentials", REASON_GIVEN),
    Case(Connection, "unlink", "feeds.unlink_connection", "Unlink", REASON_GIVEN, linked=True),
    Case(SourceAccount, "rename", "feeds.rename_sourceaccount", "Rename", {"name": "Payroll"}),
    Case(SourceAccount, "disconnect", "feeds.disconnect_sourceaccount", "Disconnect", REASON_GIVEN),
    Case(SourceAccount, "delete", "feeds.remove_sourceaccount", "Delete in Codat", REASON_GIVEN),
    Case(
        SourceAccount,
        "show-number",
        "feeds.reveal_account_number",
        "Show whole number",
        event="account_number_revealed",
    ),
]
QUEUED = [case for case in CASES if not case.event]
NEED_REASON = [case for case in CASES if case.data == REASON_GIVEN]
BY_NAME = {case.name: case for case in CASES}

every_action = pytest.mark.parametrize("case", CASES, ids=str)
every_queued_action = pytest.mark.parametrize("case", QUEUED, ids=str)
every_action_that_asks_why = pytest.mark.parametrize("case", NEED_REASON, ids=str)


def message_texts(answer: Any) -> list[str]:
    """The messages the page shows, as text."""
    return [re.sub(r"<[^>]+>", "", str(message)) for message in answer.context["messages"]]


def rows() -> dict[str, list[dict[str, Any]]]:
    """Everything an action could have changed."""
    models = (Company, Connection, SourceAccount, Operation, AuditEntry)
    return {model.__name__: list(model._default_manager.order_by("pk").values()) for model in models}


def test_the_table_names_every_action() -> None:
    declared = {
        (model, name)
        for model in (Connection, SourceAccount)
        for name in admin.site.get_model_admin(model).object_actions()  # type: ignore[attr-defined]
    }
    assert declared == {(case.model, case.name) for case in CASES}


def test_every_action_on_the_site_names_a_permission_that_exists(db: None) -> None:
    screens = [screen for screen in admin.site._registry.values() if isinstance(screen, ActionsAdmin)]
    superuser = UserFactory(is_superuser=True)
    wanted = {action.permission for screen in screens for action in screen.object_actions().values()}
    wanted |= {
        getattr(getattr(screen, name), "required_permission", f"{name} names none")
        for screen in screens
        for name in screen.actions or ()
        if isinstance(name, str)
    }
    assert wanted
    assert wanted <= superuser.get_all_permissions()


@pytest.mark.django_db
class TestPermission:
    @every_action
    def test_the_button_is_there_with_the_permission(self, case: Case) -> None:
        obj = case.make()
        page = case.staff().get(reverse(f"admin:feeds_{case.kind}_change", args=[obj.pk])).content.decode()
        assert case.url(obj) in page
        assert case.label in page

    @every_action
    def test_the_button_is_hidden_without_the_permission(self, case: Case) -> None:
        obj = case.make()
        answer = case.staff(allowed=False).get(reverse(f"admin:feeds_{case.kind}_change", args=[obj.pk]))
        assert answer.status_code == 200
        assert case.url(obj) not in answer.content.decode()

    @every_action
    @pytest.mark.parametrize("method", ["get", "post"])
    def test_the_address_answers_403_without_the_permission(self, case: Case, method: str) -> None:
        obj = case.make()
        staff = case.staff(allowed=False)
        before = rows()
        assert getattr(staff, method)(case.url(obj), case.data).status_code == 403
        assert rows() == before

    @every_action
    def test_the_address_answers_403_to_who_may_act_but_not_see(self, case: Case) -> None:
        obj = case.make()
        client = Client()
        client.force_login(UserFactory(permissions=[case.permission]))
        assert client.post(case.url(obj), case.data).status_code == 403

    @every_action
    def test_a_visitor_is_sent_to_sign_in(self, case: Case) -> None:
        obj = case.make()
        answer = Client().post(case.url(obj), case.data)
        assert answer.status_code == 302
        assert answer["Location"].startswith(reverse("admin:login"))

    @every_action
    def test_a_post_without_the_csrf_token_is_refused(self, case: Case) -> None:
        obj = case.make()
        client = Client(enforce_csrf_checks=True)
        client.force_login(UserFactory(is_superuser=True))
        assert client.post(case.url(obj), case.data).status_code == 403


@pytest.mark.django_db
class TestConfirmationPage:
    @every_action
    def test_get_changes_nothing_and_calls_nobody(self, case: Case) -> None:
        obj = case.make()
        staff = case.staff()
        before = rows()
        with responses.RequestsMock() as wire:
            answer = staff.get(case.url(obj))
            assert not wire.calls
        assert answer.status_code == 200
        assert rows() == before

    @every_action
    def test_it_says_what_will_happen(self, case: Case) -> None:
        obj = case.make()
        answer = case.staff().get(case.url(obj))
        assert answer.context["consequences"]
        page = answer.content.decode()
        assert "What will happen" in page
        assert f">{case.label}</button>" in page

    @every_action
    def test_other_methods_are_not_allowed(self, case: Case) -> None:
        assert case.staff().put(case.url(case.make())).status_code == 405

    @every_action_that_asks_why
    def test_without_a_reason_nothing_is_done(self, case: Case) -> None:
        obj = case.make()
        answer = case.staff().post(case.url(obj), {"reason": "  "})
        assert answer.status_code == 200
        assert answer.context["form"].errors == {"reason": ["This field is required."]}
        assert not Operation.objects.exists()

    @every_action
    def test_an_object_that_is_gone_answers_404(self, case: Case) -> None:
        obj = case.make()
        url = case.url(obj).replace(f"/{obj.pk}/", "/999999/")
        assert case.staff().get(url).status_code == 404

    def test_an_unknown_action_answers_404(self) -> None:
        case = BY_NAME["unlink"]
        assert case.staff().get(case.url(case.make()).replace("unlink", "explode")).status_code == 404


WRONG_STATES: list[tuple[str, dict[str, Any], str]] = [
    (
        "refresh-link",
        {"status": ConnectionStatus.LINKED},
        "This connection is Linked and all its accounts work: the customer needs no link.",
    ),
    (
        "show-link",
        {"link_url": "", "link_expires_at": None},
        "There is no link that still works. Press Refresh link first.",
    ),
    (
        "unlink",
        {"status": ConnectionStatus.PENDING_AUTH},
        "Only a connection that is Linked can be unlinked; this one is PendingAuth.",
    ),
    ("disconnect", {"status": AccountStatus.DISCONNECTED}, "This account is already disconnected."),
    (
        "rename",
        {"connection": None, "status": ""},
        "This account is not in Codat yet: onboard its company first.",
    ),
    (
        "delete",
        {"connection": None, "status": ""},
        "This account is not in Codat yet: onboard its company first.",
    ),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("name", "values", "why"), WRONG_STATES, ids=[state[0] for state in WRONG_STATES])
class TestWrongState:
    def test_the_page_says_why_and_offers_no_button(self, name: str, values: dict[str, Any], why: str) -> None:
        case = BY_NAME[name]
        page = case.staff().get(case.url(case.make(**values))).content.decode()
        assert why in page
        assert "action-submit" not in page

    def test_a_post_is_refused_with_the_reason(self, name: str, values: dict[str, Any], why: str) -> None:
        case = BY_NAME[name]
        answer = case.staff().post(case.url(case.make(**values)), case.data, follow=True)
        assert message_texts(answer) == [why]
        assert not Operation.objects.exists()


@pytest.mark.django_db
class TestRefused:
    @every_queued_action
    def test_asking_twice_is_refused_and_keeps_what_was_typed(self, case: Case) -> None:
        obj = case.make()
        staff = case.staff()
        staff.post(case.url(obj), case.data)
        answer = staff.post(case.url(obj), case.data, follow=True)
        operation = Operation.objects.get()
        assert f"“{operation.get_kind_display()}” is already asked for and not finished." in message_texts(answer)
        for typed in case.data.values():
            assert typed in answer.content.decode()

    def test_an_account_keeps_its_name_when_the_new_one_is_the_same(self) -> None:
        case = BY_NAME["rename"]
        account = case.make()
        answer = case.staff().post(case.url(account), {"name": account.name})
        assert message_texts(answer) == ["The account has this name already."]
        assert f'value="{account.name}"' in answer.content.decode()


@pytest.fixture
def customer(codat: SandboxProcess, drain_queue: Callable[[], int]) -> Company:
    """A company with one account that is really in the stand-in, with a live link."""
    company = CompanyFactory()
    SourceAccountFactory(company=company, name="Checking")
    onboarding.request(company, actor=audit.SYSTEM)
    drain_queue()
    company.refresh_from_db()
    return company


def target(case: Case, customer: Company, codat: SandboxProcess) -> Any:
    """The customer's connection or account, in the state the action needs."""
    connection = customer.connections.get()
    if case.linked:
        codat.connect(customer.codat_id, connection.codat_id)
        sync.refresh_company(customer, actor=audit.SYSTEM)
        connection.refresh_from_db()
    return customer.source_accounts.get() if case.model is SourceAccount else connection


class TestItWorks:
    @every_queued_action
    def test_the_queue_does_it_and_the_ledger_and_the_history_say_who_and_why(
        self, case: Case, customer: Company, codat: SandboxProcess, drain_queue: Callable[[], int]
    ) -> None:
        obj = target(case, customer, codat)
        Operation.objects.all().delete()
        AuditEntry.objects.all().delete()
        staff = case.staff()

        answer = staff.post(case.url(obj), case.data, follow=True)

        operation = Operation.objects.get()
        assert message_texts(answer) == [f"Asked for; follow it here: {operation}."]
        assert reverse("admin:feeds_operation_change", args=[operation.pk]) in answer.content.decode()
        drain_queue()
        operation.refresh_from_db()
        assert operation.state == OperationState.SUCCEEDED, operation.error
        person = answer.wsgi_request.user
        assert (operation.requested_by, operation.requested_by_name) == (person, person.get_full_name())
        assert operation.reason == case.data.get("reason", "")
        asked = AuditEntry.objects.filter(object_pk=str(operation.pk), action=AuditEntry.Action.CREATE).get(
            content_type__model="operation"
        )
        assert (asked.actor, asked.actor_name, asked.source) == (person, person.get_full_name(), "admin")

    def test_refresh_link_fetches_a_newer_link(
        self, customer: Company, codat: SandboxProcess, drain_queue: Callable[[], int]
    ) -> None:
        case = BY_NAME["refresh-link"]
        connection = customer.connections.get()
        before = connection.link_url
        case.staff().post(case.url(connection))
        drain_queue()
        connection.refresh_from_db()
        assert connection.link_url
        assert connection.link_url != before

    def test_unlink_unlinks(self, customer: Company, codat: SandboxProcess, drain_queue: Callable[[], int]) -> None:
        case = BY_NAME["unlink"]
        connection = target(case, customer, codat)
        case.staff().post(case.url(connection), case.data)
        drain_queue()
        connection.refresh_from_db()
        assert connection.status == ConnectionStatus.UNLINKED

    def test_rename_changes_codat_first_and_then_ours(
        self, customer: Company, codat: SandboxProcess, drain_queue: Callable[[], int]
    ) -> None:
        case = BY_NAME["rename"]
        account = customer.source_accounts.get()
        case.staff().post(case.url(account), case.data)
        account.refresh_from_db()
        assert account.name == "Checking"
        drain_queue()
        account.refresh_from_db()
        assert account.name == "Payroll"

    def test_disconnect_disconnects(
        self, customer: Company, codat: SandboxProcess, drain_queue: Callable[[], int]
    ) -> None:
        case = BY_NAME["disconnect"]
        account = customer.source_accounts.get()
        case.staff().post(case.url(account), case.data)
        drain_queue()
        account.refresh_from_db()
        assert account.status == AccountStatus.DISCONNECTED

    def test_delete_marks_our_row_as_gone(
        self, customer: Company, codat: SandboxProcess, drain_queue: Callable[[], int]
    ) -> None:
        case = BY_NAME["delete"]
        account = customer.source_accounts.get()
        case.staff().post(case.url(account), case.data)
        drain_queue()
        account.refresh_from_db()
        assert account.gone_at is not None


class TestShownOnce:
    @pytest.mark.parametrize("case", [case for case in CASES if case.event], ids=str)
    def test_the_page_is_kept_nowhere_and_the_history_says_who_saw_it(
        self, case: Case, customer: Company, codat: SandboxProcess
    ) -> None:
        obj = target(case, customer, codat)
        staff = case.staff()

        answer = staff.post(case.url(obj))

        assert answer.status_code == 200
        assert "no-store" in answer["Cache-Control"]
        assert answer["Referrer-Policy"] == "no-referrer"
        entry = AuditEntry.objects.get(event=case.event)
        assert (entry.object_pk, entry.actor) == (str(obj.pk), answer.wsgi_request.user)

    def test_show_link_shows_the_link_with_its_countdown(self, customer: Company, codat: SandboxProcess) -> None:
        case = BY_NAME["show-link"]
        connection = customer.connections.get()
        page = case.staff().post(case.url(connection)).content.decode()
        assert f'value="{connection.link_url}"' in page
        assert f'data-expires="{connection.link_expires_at.isoformat()}"' in page  # type: ignore[union-attr]

    def test_the_link_is_on_no_other_screen(self, customer: Company, codat: SandboxProcess) -> None:
        link = customer.connections.get().link_url
        client = Client()
        client.force_login(UserFactory(is_superuser=True))
        BY_NAME["show-link"].staff().post(BY_NAME["show-link"].url(customer.connections.get()))
        names = ["connection", "sourceaccount", "operation", "auditentry", "company"]
        addresses = [reverse(f"admin:feeds_{name}_changelist") for name in names]
        for name, model in zip(names, (Connection, SourceAccount, Operation, AuditEntry, Company), strict=True):
            addresses += [reverse(f"admin:feeds_{name}_change", args=[obj.pk]) for obj in model._default_manager.all()]
        addresses += [case.url(target(case, customer, codat)) for case in CASES if not case.linked]
        for address in addresses:
            answer = client.get(address, follow=True)
            assert answer.status_code == 200, address
            assert link not in answer.content.decode(), address
            assert "otp=" not in answer.content.decode(), address

    def test_generated_credentials_are_shown_and_stored_nowhere(
        self, customer: Company, codat: SandboxProcess, caplog: pytest.LogCaptureFixture
    ) -> None:
        case = BY_NAME["generate-credentials"]
        answer = case.staff().post(case.url(customer.connections.get()))
        shown = dict(answer.context["secret"].rows)
        assert set(shown) == {"User name", "Password"}
        assert Operation.objects.get(kind="generate_credentials").state == OperationState.SUCCEEDED
        for value in shown.values():
            assert value in answer.content.decode()
            assert value not in str(rows())
            assert value not in caplog.text

    def test_show_number_shows_the_whole_number_and_the_screen_only_its_end(
        self, customer: Company, codat: SandboxProcess
    ) -> None:
        case = BY_NAME["show-number"]
        account = customer.source_accounts.get()
        staff = case.staff()
        screen = staff.get(reverse("admin:feeds_sourceaccount_change", args=[account.pk])).content.decode()
        assert account.account_number not in screen
        assert mask(account.account_number) in screen
        assert f'value="{account.account_number}"' in staff.post(case.url(account)).content.decode()
        assert account.account_number not in str(AuditEntry.objects.values_list("changes", "additional_data"))


def codat_answers(status: int) -> None:
    """Every call to Codat is answered with an error body."""
    anything = re.compile(r"https://codat\.example/.*")
    body = {"statusCode": status, "error": "The thing is wrong", "correlationId": "corr-77", "canBeRetried": "False"}
    for method in ("GET", "POST", "PATCH", "PUT", "DELETE"):
        responses.add(method, anything, json=body, status=status)


ENDING = "Codat said: “The thing is wrong”. Correlation id for Codat's support: corr-77."
UPSTREAM = {
    400: "Codat refused the data. Correct what it names below, then try again.",
    401: "Codat refused our API key. Ask an administrator to check CODAT_API_KEY, then try again.",
    402: "Codat refused the request because of our plan or an unpaid bill. Ask an administrator to settle this with "
    "Codat, then try again.",
    403: "Codat does not allow our account to do this. Ask an administrator to check in the Codat Portal that "
    "QuickBooks Online Bank Feeds is switched on, then try again.",
    422: "Codat understood the request and refused it. Correct what it names below, then try again; if nothing is "
    "wrong with the data, ask an administrator to contact Codat's support.",
}


@pytest.mark.django_db
@pytest.mark.parametrize("status", UPSTREAM)
class TestUpstreamErrors:
    @pytest.fixture(autouse=True)
    def _codat_elsewhere(self, settings: Any) -> None:
        settings.CODAT_BASE_URL = "https://codat.example"

    @every_queued_action
    @responses.activate
    def test_the_operation_says_what_codat_said_and_what_to_do(
        self, case: Case, status: int, drain_queue: Callable[[], int]
    ) -> None:
        obj = case.make()
        staff = case.staff()
        staff.post(case.url(obj), case.data)
        codat_answers(status)
        drain_queue()
        operation = Operation.objects.get()
        assert (operation.state, operation.http_status) == (OperationState.FAILED, status)
        assert operation.error == f"{UPSTREAM[status]} {ENDING}"
        page = staff.get(reverse("admin:feeds_operation_change", args=[operation.pk]))
        assert operation.error in page.content.decode().replace("&#x27;", "'")

    @responses.activate
    def test_credentials_that_codat_refuses_leave_a_message_and_a_failed_operation(self, status: int) -> None:
        case = BY_NAME["generate-credentials"]
        codat_answers(status)
        answer = case.staff().post(case.url(case.make()))
        assert message_texts(answer) == [f"{UPSTREAM[status]} {ENDING}"]
        assert Operation.objects.get().state == OperationState.FAILED

"""Lists stay quick however many rows there are, find what staff look for, and let nobody edit a mirror."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import connection as database
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from feeds import audit
from feeds.admin.base import BackOfficeAdmin, CappedPaginator, MirrorAdmin
from feeds.models import (
    ApiKey,
    Approval,
    AuditEntry,
    AuditSeal,
    AuditSealDelivery,
    CalloutVersion,
    Case,
    Connection,
    DriftFinding,
    DriftReport,
    HistoryCheck,
    HistoryExport,
    Incident,
    Invitation,
    Mail,
    Operation,
    SourceAccount,
    StatusEvent,
    WebhookEvent,
)
from feeds.services import seals
from feeds.states import (
    AccountStatus,
    CheckState,
    ConnectionStatus,
    ExportFormat,
    ExportKind,
    ExportState,
    OperationState,
    WebhookState,
)
from tests.factories import (
    ApiKeyFactory,
    ApprovalFactory,
    CalloutVersionFactory,
    CaseFactory,
    CompanyFactory,
    ConnectionFactory,
    DriftFindingFactory,
    DriftReportFactory,
    IncidentFactory,
    InvitationFactory,
    MailFactory,
    OperationFactory,
    SourceAccountFactory,
    StatusEventFactory,
    UserFactory,
    WebhookEventFactory,
)

Make = Callable[[], Any]


def make_account() -> SourceAccount:
    """An account in Codat."""
    account: SourceAccount = SourceAccountFactory(in_codat=True)
    return account


def make_disconnected() -> Connection:
    """A connection that looks Linked and is broken."""
    account = SourceAccountFactory(in_codat=True, status=AccountStatus.DISCONNECTED)
    assert account.connection is not None
    broken: Connection = account.connection
    Connection.objects.filter(pk=broken.pk).update(status=ConnectionStatus.LINKED)
    return broken


def make_entry() -> AuditEntry:
    """An event in the change history."""
    return audit.record("link_revealed", ConnectionFactory())


def make_seal() -> AuditSeal:
    """A seal over what happened since the last one, sent to one place."""
    make_entry()
    seals.seal()
    seal: AuditSeal = AuditSeal.objects.first()
    AuditSealDelivery.objects.create(seal=seal, destination="file:///var/seals", state="sent", sent_at=timezone.now())
    return seal


def make_check() -> HistoryCheck:
    """A verification that found nothing wrong."""
    now = timezone.now()
    check: HistoryCheck = HistoryCheck.objects.create(
        state=CheckState.INTACT, requested_by_name="Ada", asked_at=now, finished_at=now
    )
    return check


def make_export() -> HistoryExport:
    """An export that ended."""
    now = timezone.now()
    export: HistoryExport = HistoryExport.objects.create(
        kind=ExportKind.HISTORY, format=ExportFormat.CSV, state=ExportState.DONE, started_at=now, finished_at=now,
        requested_by_name="Ada", reason="Asked for.",
    )  # fmt: skip
    return export


def make_webhook() -> WebhookEvent:
    """A webhook that was applied to a company."""
    event: WebhookEvent = WebhookEventFactory(company=CompanyFactory(in_codat=True), state=WebhookState.APPLIED)
    return event


def make_case() -> Case:
    """A case that somebody has, and that is part of an incident."""
    case: Case = CaseFactory(owner=UserFactory(), incident=IncidentFactory(released_at=timezone.now()))
    return case


def make_incident() -> Incident:
    """An incident of two cases."""
    incident: Incident = IncidentFactory(released_at=timezone.now())
    CaseFactory.create_batch(2, incident=incident)
    return incident


def make_finding() -> DriftFinding:
    """A difference about a company that is here."""
    finding: DriftFinding = DriftFindingFactory(company=CompanyFactory())
    return finding


def make_user() -> User:
    """A member of two roles."""
    user: User = UserFactory(role="Support")
    user.groups.add(Group.objects.get(name="Administrators"))
    return user


def make_group() -> Group:
    """A role."""
    return Group.objects.create(name=f"Team {Group.objects.count()}")


LISTS: list[tuple[type[Model], Make]] = [
    (Connection, make_disconnected),
    (SourceAccount, make_account),
    (Operation, OperationFactory),
    (AuditSeal, make_seal),
    (HistoryCheck, make_check),
    (HistoryExport, make_export),
    (WebhookEvent, make_webhook),
    (Case, make_case),
    (Approval, ApprovalFactory),
    (Incident, make_incident),
    (Mail, MailFactory),
    (ApiKey, ApiKeyFactory),
    (Invitation, InvitationFactory),
    (CalloutVersion, CalloutVersionFactory),
    (StatusEvent, StatusEventFactory),
    (DriftReport, DriftReportFactory),
    (DriftFinding, make_finding),
    (User, make_user),
    (Group, make_group),
]
every_list = pytest.mark.parametrize(("model", "make"), LISTS, ids=[model.__name__ for model, _make in LISTS])
every_mirror = pytest.mark.parametrize(
    ("model", "make"),
    # The history has a list of its own kind, with tests of its own: `test_history`.
    [*(pair for pair in LISTS if pair[0] not in (User, CalloutVersion, ApiKey)), (AuditEntry, make_entry)],
    ids=lambda value: getattr(value, "__name__", ""),
)


def address(model: type[Model], page: str, *args: Any) -> str:
    """URL of a screen of the model."""
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


@pytest.fixture
def boss(db: None) -> Client:
    """A superuser's browser."""
    client = Client()
    client.force_login(UserFactory(is_superuser=True))
    return client


def listed(client: Client, model: type[Model], **query: str) -> list[Any]:
    """The rows of the list page."""
    answer = client.get(address(model, "changelist"), query)
    assert answer.status_code == 200
    return list(answer.context["cl"].result_list)


@every_list
def test_a_list_of_fifty_takes_as_many_queries_as_a_list_of_one(
    model: type[Model], make: Make, boss: Client, django_assert_num_queries: Any
) -> None:
    make()
    boss.get(address(model, "changelist"))  # fills the caches of content types
    with CaptureQueriesContext(database) as one:
        boss.get(address(model, "changelist"))
    for _ in range(49):
        make()
    with django_assert_num_queries(len(one)):
        answer = boss.get(address(model, "changelist"))
    assert answer.status_code == 200
    assert len(answer.context["cl"].result_list) == min(50, model._default_manager.count())


@every_list
def test_no_list_counts_or_skips_without_a_bound(
    model: type[Model], make: Make, boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CappedPaginator, "limit", 2)
    for _ in range(4):
        make()
    with CaptureQueriesContext(database) as queries:
        answer = boss.get(address(model, "changelist"))
    table = f'FROM "{model._meta.db_table}"'
    counts = [query["sql"] for query in queries if query["sql"].startswith("SELECT COUNT(") and table in query["sql"]]
    # What a page tells beside its list may count what a condition and its index leave over.
    unbounded = [sql for sql in counts if "LIMIT 3" not in sql and "WHERE" not in sql]
    assert any("LIMIT 3" in sql for sql in counts)
    assert not unbounded
    assert answer.context["cl"].result_count == 2


def test_a_capped_list_says_that_there_is_more(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ConnectionFactory.create_batch(2)
    more = "There are more: the newest 2 are listed."
    monkeypatch.setattr(CappedPaginator, "limit", 2)
    assert more not in boss.get(address(Connection, "changelist")).content.decode()
    ConnectionFactory()
    assert more in boss.get(address(Connection, "changelist")).content.decode()


def test_every_screen_on_the_site_is_a_tuned_one() -> None:
    others = [model for model, screen in admin.site._registry.items() if not isinstance(screen, BackOfficeAdmin)]
    assert not others
    for screen in admin.site._registry.values():
        assert screen.date_hierarchy is None
        assert screen.show_full_result_count is False


@every_mirror
class TestReadOnly:
    def test_even_a_superuser_cannot_add(self, model: type[Model], make: Make, boss: Client) -> None:
        assert boss.get(address(model, "add")).status_code == 403

    def test_even_a_superuser_cannot_change(self, model: type[Model], make: Make, boss: Client) -> None:
        assert isinstance(admin.site.get_model_admin(model), MirrorAdmin)
        assert boss.post(address(model, "change", make().pk), {"status": "Linked"}).status_code == 403

    def test_even_a_superuser_cannot_delete(self, model: type[Model], make: Make, boss: Client) -> None:
        obj = make()
        assert boss.post(address(model, "delete", obj.pk), {"post": "yes"}).status_code == 403
        boss.post(
            address(model, "changelist"), {"action": "delete_selected", "_selected_action": [obj.pk], "post": "yes"}
        )
        assert model._default_manager.filter(pk=obj.pk).exists()


@every_list
@pytest.mark.django_db
def test_a_screen_is_closed_without_the_permission_to_see_it(model: type[Model], make: Make) -> None:
    client = Client()
    client.force_login(UserFactory())
    assert client.get(address(model, "changelist")).status_code == 403
    assert client.get(address(model, "change", make().pk)).status_code == 403


class TestSearch:
    @pytest.mark.parametrize("term", ["C-007", "codat-7", "Zebra", "zebra im", "  C-007 "])
    @pytest.mark.parametrize("model", [Connection, SourceAccount, Operation])
    def test_rows_are_found_by_their_company(self, model: type[Model], term: str, boss: Client) -> None:
        wanted, other = CompanyFactory(customer_number="C-007", codat_id="codat-7", legal_name="Zebra Imports"), None
        for company in (wanted, other := CompanyFactory()):
            connection = ConnectionFactory(company=company)
            account = SourceAccountFactory(company=company, connection=connection)
            OperationFactory(company=company, connection=connection, account=account)
        assert other is not None
        found = listed(boss, model, q=term)
        assert [row.company for row in found] == [wanted]

    def test_a_connection_is_found_by_its_codat_id(self, boss: Client) -> None:
        ConnectionFactory()
        wanted = ConnectionFactory(codat_id="the-one")
        assert listed(boss, Connection, q="the-one") == [wanted]

    @pytest.mark.parametrize("form", ["{}", "#{}"])
    def test_an_operation_is_found_by_its_number(self, form: str, boss: Client) -> None:
        wanted, _other = OperationFactory(), OperationFactory()
        assert listed(boss, Operation, q=form.format(wanted.pk)) == [wanted]

    @pytest.mark.parametrize("term", ["9" * 40, "%", "'", "_"])
    @pytest.mark.parametrize("model", [Connection, SourceAccount, Operation, User])
    def test_nonsense_finds_nothing_and_breaks_nothing(self, model: type[Model], term: str, boss: Client) -> None:
        OperationFactory()
        make_account()
        assert listed(boss, model, q=term) == []

    def test_an_account_cannot_be_searched_by_its_number_because_addresses_are_logged(self, boss: Client) -> None:
        account = make_account()
        assert listed(boss, SourceAccount, q=account.account_number) == []

    def test_a_user_is_found_by_name_or_address(self, boss: Client) -> None:
        user = make_user()
        assert listed(boss, User, q=user.username) == listed(boss, User, q=user.email) == [user]


class TestFilters:
    @pytest.mark.parametrize("status", ConnectionStatus.values)
    def test_connections_by_status(self, status: str, boss: Client) -> None:
        rows = {value: ConnectionFactory(status=value) for value in ConnectionStatus.values}
        assert listed(boss, Connection, status=status) == [rows[status]]

    @pytest.mark.parametrize("status", AccountStatus.values)
    def test_accounts_by_status(self, status: str, boss: Client) -> None:
        rows = {value: SourceAccountFactory(in_codat=True, status=value) for value in AccountStatus.values}
        assert listed(boss, SourceAccount, status=status) == [rows[status]]

    def test_operations_by_state_and_kind(self, boss: Client) -> None:
        failed = OperationFactory(state=OperationState.FAILED, kind="create_company")
        OperationFactory(state=OperationState.FAILED, kind="refresh_link")
        OperationFactory(kind="create_company")
        query = {"state__exact": "failed", "kind__exact": "create_company"}
        assert listed(boss, Operation, **query) == [failed]


class TestWhatIsShown:
    def test_a_linked_connection_with_a_disconnected_account_is_shown_as_broken(self, boss: Client) -> None:
        make_disconnected()
        page = boss.get(address(Connection, "changelist")).content.decode()
        assert '<span class="pill pill-good"' in page
        assert re.search(r'<span class="pill pill-bad" title="[^"]+">account disconnected</span>', page)

    def test_a_status_that_codat_adds_later_is_shown_as_it_is(self, boss: Client) -> None:
        connection = ConnectionFactory(status="Paused<by>Codat")
        for page in (address(Connection, "changelist"), address(Connection, "change", connection.pk)):
            assert "Paused&lt;by&gt;Codat</span>" in boss.get(page).content.decode()

    def test_account_numbers_are_masked_in_the_list(self, boss: Client) -> None:
        account = make_account()
        page = boss.get(address(SourceAccount, "changelist")).content.decode()
        assert account.account_number not in page
        assert "••••" in page

    def test_an_operation_says_who_asked_why_and_what_went_wrong(self, boss: Client) -> None:
        operation = OperationFactory(
            state=OperationState.FAILED,
            error="Codat refused the name <b>.",
            correlation_id="corr-9",
            http_status=400,
            attempts=3,
            reason="They moved banks.",
        )
        page = boss.get(address(Operation, "change", operation.pk)).content.decode()
        for text in ("Codat refused the name &lt;b&gt;.", "corr-9", "Robin Staff", "They moved banks.", "Failed"):
            assert text in page


@pytest.mark.parametrize("name", ["schedule", "success", "failure", "ormq", "task"])
def test_the_queues_own_screens_are_not_on_the_site(name: str, boss: Client) -> None:
    with pytest.raises(NoReverseMatch):
        reverse(f"admin:django_q_{name}_changelist")
    assert boss.get(f"/admin/django_q/{name}/").status_code == 404

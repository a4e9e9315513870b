"""Cases: opened and closed by what Codat shows, worked by people."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.db import connection as database
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings

from feeds.audit import Actor
from feeds.models import AuditEntry, Case, Company, Connection, Incident, SourceAccount, StatusEvent
from feeds.services import cases, onboarding, sync
from feeds.services.errors import Refused
from feeds.states import (
    AccountStatus,
    CaseCause,
    CaseEventKind,
    CaseOutcome,
    CaseState,
    ConnectionStatus,
    OperationKind,
    OperationState,
    SeenBy,
)
from tests.factories import (
    CompanyFactory,
    ConnectionFactory,
    OperationFactory,
    SourceAccountFactory,
    UserFactory,
)
from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.django_db

RM = Actor(name="Rita Moreau", source="test")
TEN_DAYS = 10 * 24 * 3600
Drain = Callable[[], int]


@pytest.fixture(autouse=True)
def _team(settings: Settings) -> None:
    settings.CASE_NOTIFY_TO = ["support@bank.example"]


# --- The stand-in: a customer's feed over HTTP -----------------------------------------------------------------------
class Customer:
    """A company onboarded through the product, whose feed the stand-in can break and mend."""

    def __init__(self, codat: SandboxProcess, drain_queue: Drain) -> None:
        self.codat, self.drain_queue = codat, drain_queue
        self.company: Company = CompanyFactory()
        self.accounts = SourceAccountFactory.create_batch(2, company=self.company, balance=Decimal("1500.00"))
        onboarding.request(self.company, actor=RM)
        drain_queue()
        self.company.refresh_from_db()
        self.connection: Connection = self.company.connections.get()
        self.ids = (self.company.codat_id, self.connection.codat_id)

    def connect(self) -> None:
        """The customer finishes in QuickBooks, and we read it."""
        self.codat.connect(*self.ids)
        self.read()

    def disconnect(self, **fields: object) -> None:
        """Codat calls accounts disconnected at once, and we read it."""
        self.codat.disconnect(*self.ids, now=True, **fields)
        self.read()

    def read(self) -> None:
        """Read Codat, then do all that was queued."""
        sync.refresh_company(self.company, actor=RM)
        self.drain_queue()


@pytest.fixture
def customer(codat: SandboxProcess, drain_queue: Drain) -> Customer:
    """Link ready, not connected yet."""
    return Customer(codat, drain_queue)


def story(case: Case) -> list[str]:
    """What happened to the case, mails aside."""
    return [event.kind for event in case.events.all() if event.kind != CaseEventKind.NOTIFIED]


def test_ten_silent_days_open_exactly_one_case(customer: Customer) -> None:
    customer.connect()
    assert not Case.objects.exists()
    customer.codat.disconnect(*customer.ids)
    customer.read()
    assert not Case.objects.exists(), "nine days of silence are no break"

    customer.codat.advance(TEN_DAYS + 60)
    customer.read()
    customer.read()

    case = Case.objects.get()
    assert case.state == CaseState.OPEN
    assert case.what_is_broken == f"disconnected: {customer.accounts[0].name}, {customer.accounts[1].name}"
    assert (case.accounts_broken, case.balance_held) == (2, Decimal("3000.00"))
    assert story(case) == ["opened"]
    assert len(mail.outbox) == 1


def test_the_connection_that_turns_unlinked_a_day_later_is_the_same_break(customer: Customer) -> None:
    customer.connect()
    customer.disconnect()
    customer.codat.advance(25 * 3600)
    # Our own clock stood still: a link that the last reading brought has ended long since.
    Connection.objects.update(link_url="", link_expires_at=None)
    customer.read()
    case = Case.objects.get()
    assert case.what_is_broken.startswith("Unlinked: ")
    assert story(case) == ["opened"]


def test_reconnecting_closes_the_case(customer: Customer) -> None:
    customer.connect()
    customer.disconnect()
    customer.connect()
    case = Case.objects.get()
    assert (case.state, case.outcome) == (CaseState.CLOSED, CaseOutcome.RECONNECTED)
    assert case.recovered_at is not None
    assert story(case) == ["opened", "recovered", "closed"]


def test_five_breaks_in_an_hour_are_one_case_with_its_story_and_two_mails(customer: Customer) -> None:
    customer.connect()
    for _round in range(5):
        customer.disconnect()
        customer.connect()

    case = Case.objects.get()
    assert case.times_broken == 5
    assert story(case) == ["opened", "recovered", "closed"] + ["reopened", "recovered", "closed"] * 4
    assert [message.subject.split(":")[0] for message in mail.outbox] == ["Feed broke", "Feed works again"]


def test_a_disconnected_account_beside_a_working_one_is_a_case(customer: Customer) -> None:
    customer.connect()
    broken = customer.accounts[0]
    customer.disconnect(accountId=broken.account_id)
    assert customer.company.connections.get().status == ConnectionStatus.LINKED
    assert Case.objects.get().what_is_broken == f"disconnected: {broken.name}"


def test_a_customer_who_never_connected_has_no_case(customer: Customer) -> None:
    customer.disconnect()
    assert set(customer.company.source_accounts.values_list("status", flat=True)) == {"disconnected"}
    assert not Case.objects.exists()


# --- Observing -------------------------------------------------------------------------------------------------------
def make_feed(*statuses: str, status: str = ConnectionStatus.LINKED) -> Connection:
    """A connection with one account of each status."""
    connection: Connection = ConnectionFactory(status=status)
    for account_status in statuses:
        SourceAccountFactory(company=connection.company, connection=connection, status=account_status, balance=100)
    return connection


def turn(connection: Connection, *statuses: str) -> None:
    """Let a reading show these account statuses, in order."""
    for account, status in zip(connection.source_accounts.order_by("pk"), statuses, strict=True):
        SourceAccount.objects.filter(pk=account.pk).update(status=status)
    cases.observe(connection)


def make_case(**changes: object) -> Case:
    """A case about one disconnected account, opened by a reading."""
    cases.observe(make_feed("disconnected", "connected"))
    case = Case.objects.latest("pk")
    Case.objects.filter(pk=case.pk).update(**changes)
    return Case.objects.get(pk=case.pk)


def agent(**changes: object) -> Actor:
    """Somebody of support."""
    return Actor.person(UserFactory(role="Support", **changes), source="admin")


def person(actor: Actor) -> User:
    """The user behind an actor."""
    assert actor.user is not None
    return actor.user


def test_a_connection_that_codat_no_longer_has_is_a_case_until_another_is_connected() -> None:
    connection = make_feed("connected")
    Connection.objects.filter(pk=connection.pk).update(gone_at=timezone.now())
    connection.refresh_from_db()
    cases.observe(connection)
    case = Case.objects.get()
    assert case.what_is_broken.startswith("gone: ")

    ConnectionFactory(company=connection.company, status=ConnectionStatus.PENDING_AUTH)
    cases.observe(connection)
    case.refresh_from_db()
    assert case.is_open, "the customer has not connected the new one"

    Connection.objects.filter(company=connection.company, gone_at=None).update(status=ConnectionStatus.LINKED)
    cases.observe(connection)
    case.refresh_from_db()
    assert not case.is_open


def test_a_connection_that_was_connected_once_is_remembered_by_its_timeline() -> None:
    connection = make_feed("disconnected", status=ConnectionStatus.PENDING_AUTH)
    cases.observe(connection)
    assert not Case.objects.exists()
    StatusEvent.objects.create(
        company=connection.company, connection=connection, old="PendingAuth", new="Linked", seen_at=timezone.now(),
        seen_by=SeenBy.POLL,
    )  # fmt: skip
    cases.observe(connection)
    assert Case.objects.count() == 1


def test_an_account_that_recovers_leaves_the_case_open_for_the_other() -> None:
    connection = make_feed("disconnected", "disconnected")
    cases.observe(connection)
    turn(connection, "disconnected", "connected")
    case = Case.objects.get()
    assert case.is_open
    assert case.accounts_broken == 1
    assert case.balance_held == 100


def test_negative_balances_hold_nothing() -> None:
    connection = make_feed("disconnected", "disconnected")
    SourceAccount.objects.filter(pk=connection.source_accounts.first().pk).update(balance=-5000)
    cases.observe(connection)
    assert Case.objects.get().balance_held == 100


def test_every_reading_brings_the_figures_up_to_date_without_a_row_of_history() -> None:
    case = make_case()
    then = timezone.now() - timedelta(days=5)
    Case.objects.filter(pk=case.pk).update(broke_at=then, checked_at=then)
    history = AuditEntry.objects.count()
    cases.observe(case.connection)
    again = Case.objects.get()
    assert again.priority == case.priority + 20
    assert again.due_at == then + timedelta(hours=24)
    assert again.checked_at is not None
    assert again.checked_at > then
    assert AuditEntry.objects.count() == history


def test_it_opens_the_same_case_within_the_window_and_gives_it_back_to_its_owner() -> None:
    case = make_case()
    support = agent()
    cases.take(case, support)
    turn(case.connection, "connected", "connected")
    Case.objects.update(closed_at=timezone.now() - timedelta(hours=71))
    turn(case.connection, "disconnected", "connected")
    case = Case.objects.get()
    assert (case.state, case.owner, case.times_broken) == (CaseState.TAKEN, support.user, 2)
    assert (case.outcome, case.closed_at, case.recovered_at) == ("", None, None)


def test_it_does_not_give_it_back_to_somebody_who_left() -> None:
    case = make_case()
    support = agent()
    cases.take(case, support)
    turn(case.connection, "connected", "connected")
    User.objects.filter(pk=person(support).pk).update(is_active=False)
    turn(case.connection, "disconnected", "connected")
    assert Case.objects.get().state == CaseState.OPEN


def test_a_break_after_the_window_is_a_new_case() -> None:
    case = make_case()
    turn(case.connection, "connected", "connected")
    Case.objects.update(closed_at=timezone.now() - timedelta(hours=73))
    turn(case.connection, "disconnected", "connected")
    assert Case.objects.count() == 2
    assert story(Case.objects.latest("pk")) == ["opened"]


def test_a_case_closed_by_a_person_stays_closed_while_the_same_break_lasts() -> None:
    case = make_case()
    cases.close(case, CaseOutcome.ACCOUNT_CLOSED, agent(), reason="The account was closed in May.")
    turn(case.connection, "disconnected", "connected")
    turn(case.connection, "disconnected", "connected")
    assert [it.state for it in Case.objects.all()] == [CaseState.CLOSED]


def test_another_account_breaking_after_that_is_news() -> None:
    case = make_case()
    cases.close(case, CaseOutcome.ACCOUNT_CLOSED, agent(), reason="The account was closed in May.")
    turn(case.connection, "disconnected", "disconnected")
    case = Case.objects.get()
    assert case.is_open
    assert case.accounts_broken == 2


def test_the_settled_account_breaking_again_after_it_worked_is_news() -> None:
    case = make_case()
    cases.close(case, CaseOutcome.NOT_WANTED, agent(), reason="They said so.")
    turn(case.connection, "connected", "connected")
    assert Case.objects.get().state == CaseState.CLOSED
    turn(case.connection, "disconnected", "connected")
    assert Case.objects.get().is_open


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (OperationKind.UNLINK_CONNECTION, CaseCause.UNLINKED_BY_STAFF),
        (OperationKind.DISCONNECT_ACCOUNT, CaseCause.UNLINKED_BY_STAFF),
        (OperationKind.REVOKE_CREDENTIALS, CaseCause.CREDENTIALS_REVOKED),
        (OperationKind.REFRESH_LINK, CaseCause.UNKNOWN),
    ],
)
def test_what_a_colleague_did_lately_is_the_first_guess(kind: OperationKind, cause: CaseCause) -> None:
    connection = make_feed("disconnected")
    OperationFactory(
        company=connection.company, connection=connection, kind=kind, state=OperationState.SUCCEEDED,
        finished_at=timezone.now() - timedelta(days=11),
    )  # fmt: skip
    cases.observe(connection)
    assert Case.objects.get().cause == cause


def test_a_withdrawn_authorisation_speaks_for_itself() -> None:
    cases.observe(make_feed("connected", status=ConnectionStatus.DEAUTHORIZED))
    assert Case.objects.get().cause == CaseCause.CUSTOMER_STOPPED


@pytest.mark.parametrize(
    ("age", "accounts", "balance", "expected"),
    [
        (timedelta(0), 0, Decimal(0), 0),
        (timedelta(0), 1, Decimal(0), 10),
        (timedelta(0), 1, Decimal("0.01"), 20),
        (timedelta(0), 1, Decimal(10_000), 30),
        (timedelta(0), 3, Decimal(100_000), 60),
        (timedelta(0), 300, Decimal(10**12), 60),
        (timedelta(hours=23), 1, Decimal(0), 10),
        (timedelta(days=2), 1, Decimal(0), 18),
        (timedelta(days=400), 9, Decimal(10**9), 100),
        (timedelta(seconds=-1), 1, Decimal(0), 10),
    ],
)
def test_priority(age: timedelta, accounts: int, balance: Decimal, expected: int) -> None:
    assert cases.priority(age, accounts, balance) == expected


@pytest.mark.parametrize(("priority", "hours"), [(0, 72), (29, 72), (30, 24), (49, 24), (50, 4), (100, 4)])
def test_due_follows_priority(priority: int, hours: int) -> None:
    now = timezone.now()
    assert cases.due_at(now, priority) == now + timedelta(hours=hours)


def test_a_snoozed_case_is_not_overdue() -> None:
    now = timezone.now()
    assert cases.due_at(now, 100, now + timedelta(days=9)) == now + timedelta(days=9)


def test_observing_a_healthy_feed_takes_two_queries(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    connection = make_feed("connected", "connected", "pending")
    with django_assert_num_queries(2):
        cases.observe(connection)


def test_observing_a_feed_that_stays_broken_takes_as_many_however_many_accounts(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    connection = make_feed(*["disconnected"] * 30)
    cases.observe(connection)
    with django_assert_num_queries(7):  # a look; savepoint, both locks, a look, the figures, release
        cases.observe(connection)


# --- People ----------------------------------------------------------------------------------------------------------
def test_taking_makes_it_mine_and_is_in_the_history() -> None:
    case, support = make_case(), agent()
    cases.take(case, support)
    case.refresh_from_db()
    assert (case.state, case.owner) == (CaseState.TAKEN, support.user)
    event = case.events.get(kind=CaseEventKind.TAKEN)
    assert event.actor_name == support.name
    entry = AuditEntry.objects.filter(object_id=case.pk, actor=support.user).latest("id")
    assert entry.changes_dict["state"] == ["open", "taken"]


def test_a_colleague_may_take_it_over_but_nobody_takes_their_own() -> None:
    case, first, second = make_case(), agent(), agent()
    cases.take(case, first)
    with pytest.raises(Refused, match="already"):
        cases.take(case, first)
    cases.take(case, second)
    case.refresh_from_db()
    assert case.owner == second.user


def test_a_service_cannot_take_a_case() -> None:
    with pytest.raises(Refused, match="Only a person"):
        cases.take(make_case(), RM)


def test_handing_over_says_to_whom_and_why() -> None:
    case, first, second = make_case(), agent(), agent()
    cases.hand_over(case, person(second), first, "You know this customer.")
    case.refresh_from_db()
    assert (case.state, case.owner) == (CaseState.TAKEN, second.user)
    assert case.events.latest("id").text == f"{second.name} – You know this customer."
    assert AuditEntry.objects.filter(object_id=case.pk).latest("id").reason == "You know this customer."
    with pytest.raises(Refused, match="has this case already"):
        cases.hand_over(case, person(second), first)


@pytest.mark.parametrize(
    "colleague", [{"role": "Support", "is_active": False}, {"role": "Relationship managers"}], ids=["left", "no right"]
)
def test_it_is_handed_to_nobody_who_may_not_work_it(colleague: dict[str, object]) -> None:
    case = make_case()
    with pytest.raises(Refused, match="may not work cases"):
        cases.hand_over(case, UserFactory(**colleague), agent())
    case.refresh_from_db()
    assert case.owner is None


def test_notes_are_kept_also_after_the_end_and_an_empty_one_is_refused() -> None:
    case, support = make_case(), agent()
    cases.close(case, CaseOutcome.NOT_WANTED, support, "They said so.")
    cases.note(case, "  Called again. ", support)
    assert case.events.latest("id").text == "Called again."
    with pytest.raises(Refused, match="Write something"):
        cases.note(case, "  ", support)


def test_a_cause_is_set_once_however_often_it_is_chosen() -> None:
    case, support = make_case(), agent()
    cases.set_cause(case, CaseCause.QUICKBOOKS_SILENT, support)
    cases.set_cause(case, CaseCause.QUICKBOOKS_SILENT, support)
    assert story(case).count("cause") == 1
    with pytest.raises(Refused, match="from the list"):
        cases.set_cause(case, "bad weather", support)


def test_a_snoozed_case_comes_back_to_its_owner() -> None:
    case, support = make_case(), agent()
    cases.take(case, support)
    until = timezone.now() + timedelta(days=9)
    cases.snooze(case, until, support, "Customer is on holiday.")
    case.refresh_from_db()
    assert (case.state, case.snoozed_until, case.due_at) == (CaseState.SNOOZED, until, until)
    assert cases.wake_snoozed() == 0

    Case.objects.update(snoozed_until=timezone.now() - timedelta(seconds=1))
    assert cases.wake_snoozed() == 1
    case.refresh_from_db()
    assert (case.state, case.owner, case.snoozed_until) == (CaseState.TAKEN, support.user, None)
    assert story(case)[-2:] == ["snoozed", "woke"]
    assert cases.wake_snoozed() == 0


def test_a_snoozed_case_that_nobody_has_comes_back_to_everybody() -> None:
    case = make_case()
    cases.snooze(case, timezone.now() + timedelta(hours=1), agent())
    Case.objects.update(snoozed_until=timezone.now())
    cases.wake_snoozed()
    assert Case.objects.get().state == CaseState.OPEN


def test_readings_leave_a_snoozed_case_asleep_until_the_feed_works() -> None:
    case = make_case()
    until = timezone.now() + timedelta(days=30)
    cases.snooze(case, until, agent())
    cases.observe(case.connection)
    case.refresh_from_db()
    assert (case.state, case.due_at) == (CaseState.SNOOZED, until)
    turn(case.connection, "connected", "connected")
    assert Case.objects.get().state == CaseState.CLOSED


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(seconds=-1), timedelta(days=91)])
def test_it_snoozes_into_the_near_future_only(ahead: timedelta) -> None:
    with pytest.raises(Refused, match="in the future"):
        cases.snooze(make_case(), timezone.now() + ahead, agent())


def test_closing_is_refused_while_codat_says_broken_unless_a_reason_is_given() -> None:
    case, support = make_case(), agent()
    assert cases.still_broken(case)
    with pytest.raises(Refused, match="Codat still says broken: disconnected: .*Give a reason"):
        cases.close(case, CaseOutcome.NOT_BROKEN, support, reason="  ")
    assert Case.objects.get().is_open

    cases.close(case, CaseOutcome.UNREACHABLE, support, reason="Three calls, two letters.")
    case = Case.objects.get()
    assert (case.state, case.outcome) == (CaseState.CLOSED, CaseOutcome.UNREACHABLE)
    assert case.outcome_reason == "Three calls, two letters."
    assert AuditEntry.objects.filter(object_id=case.pk).latest("id").reason == "Three calls, two letters."


def test_closing_what_works_needs_no_reason() -> None:
    case = make_case()
    SourceAccount.objects.update(status=AccountStatus.CONNECTED)
    cases.close(case, CaseOutcome.RECONNECTED, agent())
    assert not Case.objects.get().is_open


def test_an_outcome_is_chosen_from_the_list() -> None:
    with pytest.raises(Refused, match="from the list"):
        cases.close(make_case(), "whatever", agent(), "So.")


def test_a_closed_case_is_not_worked() -> None:
    case, support, other = make_case(), agent(), agent()
    cases.close(case, CaseOutcome.NOT_WANTED, support, "They said so.")
    moves: list[Callable[[], None]] = [
        lambda: cases.take(case, support),
        lambda: cases.hand_over(case, person(other), support),
        lambda: cases.snooze(case, timezone.now() + timedelta(days=1), support),
        lambda: cases.close(case, CaseOutcome.NOT_WANTED, support, "Again."),
    ]
    for move in moves:
        with pytest.raises(Refused, match="closed"):
            move()


# --- Lists -----------------------------------------------------------------------------------------------------------
def test_the_worklist_has_overdue_cases_first_then_the_urgent() -> None:
    now = timezone.now()
    later, urgent, overdue = (
        make_case(due_at=now + timedelta(hours=2), priority=10),
        make_case(due_at=now + timedelta(hours=2), priority=50),
        make_case(due_at=now - timedelta(hours=1), priority=0),
    )
    closed = make_case()
    support = agent()
    cases.close(closed, CaseOutcome.NOT_WANTED, support, "They said so.")
    assert list(cases.worklist("all", person(support))) == [overdue, urgent, later]


def test_mine_and_unassigned_part_the_worklist() -> None:
    mine, nobodys, theirs = make_case(), make_case(), make_case()
    support, other = agent(), agent()
    cases.take(mine, support)
    cases.take(theirs, other)
    assert list(cases.worklist("mine", person(support))) == [mine]
    assert list(cases.worklist("unassigned", person(support))) == [nobodys]


def test_the_worklist_and_its_next_steps_take_one_query(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    support = agent()
    for _number in range(5):
        cases.take(make_case(), support)
    with django_assert_num_queries(1):
        rows = [
            (case.company.legal_name, case.connection.status, case.owner, cases.next_step(case))
            for case in cases.worklist("all", person(support))
        ]
    assert len(rows) == 5


@pytest.mark.skipif(database.vendor != "sqlite", reason="PostgreSQL reads small tables whole")
def test_the_worklist_is_read_in_the_order_of_its_index() -> None:
    user = UserFactory()
    assert "case_worklist" in cases.worklist("all", user)[:50].explain()
    assert "TEMP B-TREE" not in cases.worklist("all", user)[:50].explain()
    assert "case_owner" in cases.worklist("mine", user)[:50].explain()


def test_the_next_step_follows_state_and_cause() -> None:
    case, support = make_case(), agent()
    assert cases.next_step(case) == "Take it."
    cases.take(case, support)
    case.refresh_from_db()
    assert cases.next_step(case) == "Verify now, then set the cause."
    cases.set_cause(case, CaseCause.ACCOUNT_CLOSED, support)
    case.refresh_from_db()
    assert cases.next_step(case) == "Confirm with the customer, then close the case."
    cases.snooze(case, timezone.now() + timedelta(days=1), support)
    case.refresh_from_db()
    assert cases.next_step(case).startswith("Nothing until ")
    case.incident = Incident.objects.create(opened_at=timezone.now())
    assert "incident" in cases.next_step(case)
    cases.close(case, CaseOutcome.NOT_WANTED, support, "They said so.")
    case.refresh_from_db()
    assert cases.next_step(case) == "Nothing: the case is closed."


# --- At the same time ------------------------------------------------------------------------------------------------
def at_once(*calls: Callable[[], object]) -> list[object]:
    """Run the calls in threads that start together; what each returned or raised."""
    barrier = threading.Barrier(len(calls))
    results: list[object] = [None] * len(calls)

    def run(index: int, call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            results[index] = call()
        except Exception as error:
            results[index] = error
        finally:
            database.close()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.django_db(transaction=True)
def test_eight_readings_at_once_open_one_case_and_close_it_once() -> None:
    connection = make_feed("disconnected")
    assert at_once(*[lambda: cases.observe(connection)] * 8) == [None] * 8
    case = Case.objects.get()
    assert story(case) == ["opened"]

    SourceAccount.objects.update(status=AccountStatus.CONNECTED)
    assert at_once(*[lambda: cases.observe(connection)] * 8) == [None] * 8
    assert story(case) == ["opened", "recovered", "closed"]
    assert sorted(case.mails.values_list("kind", flat=True)) == ["broke", "recovered"]

    SourceAccount.objects.update(status=AccountStatus.DISCONNECTED)
    assert at_once(*[lambda: cases.observe(connection)] * 8) == [None] * 8
    assert story(Case.objects.get()) == ["opened", "recovered", "closed", "reopened"]


@pytest.mark.django_db(transaction=True)
def test_of_two_who_close_at_once_one_is_told_that_it_is_closed() -> None:
    case, first, second = make_case(), agent(), agent()
    results = at_once(
        lambda: cases.close(case, CaseOutcome.NOT_WANTED, first, "They said so."),
        lambda: cases.close(case, CaseOutcome.UNREACHABLE, second, "No answer."),
    )
    assert sorted(type(result).__name__ for result in results) == ["NoneType", "Refused"]
    assert story(case).count("closed") == 1


@pytest.mark.django_db(transaction=True)
def test_a_person_and_a_recovery_at_once_close_it_once() -> None:
    case, support = make_case(), agent()
    SourceAccount.objects.update(status=AccountStatus.CONNECTED)
    at_once(
        lambda: cases.observe(case.connection), lambda: cases.close(case, CaseOutcome.RECONNECTED, support, "Called.")
    )
    assert story(case).count("closed") == 1
    assert not Case.objects.get().is_open

"""The poller and the sweep, against the stand-in over real HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from django_q.models import OrmQ
from pytest_django.fixtures import Settings

from feeds import queue
from feeds.audit import Actor
from feeds.codat.client import CodatClient
from feeds.models import AuditEntry, Case, Company, Connection, Heartbeat, ListingWalk, SourceAccount, StatusEvent
from feeds.services import health, leases, links, listing, onboarding, polling, sweep, sync
from feeds.services.polling import Priority
from feeds.states import AccountStatus, ConnectionStatus, OnboardingState, SeenBy
from tests.factories import CompanyFactory, SourceAccountFactory
from tests.queue_drain import drain
from tests.sandbox_process import SandboxProcess
from tests.seeded import seed

pytestmark = pytest.mark.django_db

RM = Actor(name="Rita Moreau", source="test")
COMPANIES = "/companies"
CONNECTIONS = "/companies/{id}/connections"
ACCOUNTS = "/companies/{id}/connections/{id}/connectionInfo/bankFeedAccounts"


@pytest.fixture
def connection(codat: SandboxProcess) -> Connection:
    """One customer's, onboarded through the product and waiting with a live link; nothing is due."""
    company = CompanyFactory()
    SourceAccountFactory.create_batch(2, company=company)
    onboarding.request(company, actor=RM)
    drain()
    ListingWalk.objects.create(name=sweep.NAME, complete_as_of=timezone.now())
    Connection.objects.update(poll_due_at=timezone.now() + timedelta(minutes=2))
    return Connection.objects.get()


def make_due(connection: Connection) -> None:
    """Its time has come."""
    Connection.objects.filter(pk=connection.pk).update(poll_due_at=timezone.now())


def customer_connects(codat: SandboxProcess, connection: Connection) -> None:
    """In QuickBooks, with all accounts."""
    codat.connect(connection.company.codat_id, connection.codat_id)


def forget_link(connection: Connection) -> None:
    """The hour of the link is over."""
    Connection.objects.filter(pk=connection.pk).update(link_expires_at=timezone.now() - timedelta(seconds=1))
    links.clear_expired()


def due_in(connection: Connection) -> timedelta:
    """How long until its next reading."""
    connection.refresh_from_db()
    assert connection.poll_due_at is not None
    return connection.poll_due_at - timezone.now()


def about(expected: timedelta, actual: timedelta) -> bool:
    """Equal but for jitter and the time a test takes."""
    return abs(expected - actual) <= expected * 0.11 + timedelta(seconds=5)


def sweep_to_the_end() -> str:
    """All parts of one sweep, as the queue would run them."""
    while (outcome := sync.sweep_listing()) == listing.Outcome.PAUSED:
        pass
    return outcome


# --- When ------------------------------------------------------------------------------------------------------------
def test_a_connection_whose_link_is_out_is_read_every_two_minutes(connection: Connection) -> None:
    make_due(connection)
    assert sync.poll() == 1
    assert about(timedelta(minutes=2), due_in(connection))


def test_one_that_waits_without_a_link_is_read_hourly_for_two_days_and_then_daily(connection: Connection) -> None:
    forget_link(connection)
    make_due(connection)
    sync.poll()
    assert about(timedelta(hours=1), due_in(connection))

    Connection.objects.update(created_at=timezone.now() - timedelta(days=3))
    make_due(connection)
    sync.poll()
    assert about(timedelta(days=1), due_in(connection))


def test_a_connected_one_is_read_daily_and_one_with_an_open_case_hourly(
    connection: Connection, codat: SandboxProcess
) -> None:
    customer_connects(codat, connection)
    make_due(connection)
    sync.poll()
    assert about(timedelta(days=1), due_in(connection))

    codat.disconnect(connection.company.codat_id, connection.codat_id, now=True)
    make_due(connection)
    sync.poll()
    assert Case.objects.filter(connection=connection).count() == 1
    assert about(timedelta(hours=1), due_in(connection))


def test_daily_readings_do_not_stay_in_the_hour_in_which_they_began(connection: Connection) -> None:
    Connection.objects.update(status=ConnectionStatus.LINKED)
    SourceAccount.objects.update(status=AccountStatus.CONNECTED)
    seen = set()
    for _ in range(20):
        connection.refresh_from_db()
        polling.schedule(connection)
        seen.add(round(due_in(connection) / timedelta(hours=1)))
    assert len(seen) > 1
    assert min(seen) >= 21
    assert max(seen) <= 27


def test_a_fresh_link_brings_the_next_reading_forward(connection: Connection) -> None:
    forget_link(connection)
    Connection.objects.update(poll_due_at=timezone.now() + timedelta(days=1))
    links.refresh(connection, actor=RM)
    drain()
    assert about(timedelta(minutes=2), due_in(connection))


def test_the_supervisor_asks_for_a_poll_only_when_a_link_is_to_be_looked_at(connection: Connection) -> None:
    assert not sync.wake()
    make_due(connection)
    assert sync.wake()
    assert not sync.wake(), "one is waiting already"
    assert OrmQ.objects.count() == 1


# --- What ------------------------------------------------------------------------------------------------------------
def test_it_sees_the_customer_connect_and_says_how_it_knows(connection: Connection, codat: SandboxProcess) -> None:
    customer_connects(codat, connection)
    make_due(connection)
    assert sync.poll() == 1

    connection.refresh_from_db()
    assert connection.status == ConnectionStatus.LINKED
    assert set(SourceAccount.objects.values_list("status", flat=True)) == {AccountStatus.CONNECTED}
    assert Company.objects.get().onboarding_state == OnboardingState.LINKED
    seen = StatusEvent.objects.exclude(old="")
    assert {(event.seen_by, event.new) for event in seen} == {
        (SeenBy.POLL, ConnectionStatus.LINKED),
        (SeenBy.POLL, AccountStatus.CONNECTED),
    }


def test_it_costs_one_call_while_nothing_has_moved(connection: Connection, codat: SandboxProcess) -> None:
    before = sum(codat.stats()["requests"].values())
    make_due(connection)
    sync.poll()
    assert sum(codat.stats()["requests"].values()) == before + 1


def test_it_makes_no_link_that_nobody_asked_for(connection: Connection, settings: Settings) -> None:
    """A new link would pass for one that was sent, and the connection would be read every two minutes for ever."""
    forget_link(connection)
    ListingWalk.objects.update(complete_as_of=None, retry_at=timezone.now() + timedelta(hours=1), error="down")
    make_due(connection)
    assert sync.poll() == 1
    connection.refresh_from_db()
    assert connection.link_url == ""


def test_a_reading_older_than_what_we_hold_changes_nothing(connection: Connection, codat: SandboxProcess) -> None:
    customer_connects(codat, connection)
    Connection.objects.update(read_at=timezone.now() + timedelta(minutes=5))
    SourceAccount.objects.update(read_at=timezone.now() + timedelta(minutes=5))
    make_due(connection)
    sync.poll()
    connection.refresh_from_db()
    assert connection.status == ConnectionStatus.PENDING_AUTH
    assert set(SourceAccount.objects.values_list("status", flat=True)) == {AccountStatus.PENDING}


def test_a_connection_that_was_deleted_in_codat_is_gone(connection: Connection, codat: SandboxProcess) -> None:
    delete_connection(codat, connection)
    make_due(connection)
    sync.poll()
    connection.refresh_from_db()
    assert connection.gone_at is not None
    gone = StatusEvent.objects.filter(connection=connection, new="gone")
    assert gone.filter(account__isnull=True).count() == 1
    assert not connection.source_accounts.exists()  # they wait for a new one


def delete_connection(codat: SandboxProcess, connection: Connection) -> None:
    """As somebody would in the Portal."""
    CodatClient(codat.url, codat.api_key).delete_connection(connection.company.codat_id, connection.codat_id)


# --- Failures --------------------------------------------------------------------------------------------------------
def test_one_that_fails_is_read_later_and_never_stops_the_rest(codat: SandboxProcess) -> None:
    seed(codat, 5, accounts=1)
    ListingWalk.objects.create(name=sweep.NAME, complete_as_of=timezone.now())
    codat.post_fault("status", method="GET", path=ACCOUNTS, status=500, times=3)
    assert sync.poll() == 4

    failed = Connection.objects.get(poll_failures=1)
    assert timedelta(0) < due_in(failed) < timedelta(minutes=2)
    assert Heartbeat.objects.filter(name=health.POLL).exists()
    make_due(failed)
    assert sync.poll() == 1
    assert not Connection.objects.filter(poll_failures__gt=0).exists()


def test_failures_in_a_row_make_it_wait_longer_but_never_longer_than_its_interval(connection: Connection) -> None:
    forget_link(connection)
    waits = []
    for _ in range(10):
        connection.refresh_from_db()
        polling.back_off(connection)
        waits.append(due_in(connection))
    assert waits[0] < timedelta(minutes=2)
    assert waits[2] > waits[0] * 2
    assert about(timedelta(hours=1), waits[-1])


def test_while_codat_is_away_nobody_is_blamed_and_the_claims_are_given_back(codat: SandboxProcess) -> None:
    seed(codat, 3, accounts=1)
    ListingWalk.objects.create(name=sweep.NAME, complete_as_of=timezone.now())
    codat.stop()
    try:
        assert sync.poll() == 0
    finally:
        codat.start()
    assert not Heartbeat.objects.filter(name=health.POLL).exists()
    assert polling.due(Priority.HEALTHY, timezone.now()).count() == 3
    assert not Connection.objects.filter(poll_failures__gt=0).exists()
    assert sync.poll() == 3


def test_a_wrong_key_is_no_good_poll(connection: Connection, settings: Settings) -> None:
    settings.CODAT_API_KEY = "wrong"
    make_due(connection)
    assert sync.poll() == 0
    assert not Heartbeat.objects.filter(name=health.POLL).exists()


def test_with_nothing_to_read_the_poll_is_good(db: None) -> None:
    assert sync.poll() == 0
    assert Heartbeat.objects.filter(name=health.POLL).exists()


def test_a_poll_skips_a_company_that_a_worker_holds_and_reads_the_others(codat: SandboxProcess) -> None:
    seed(codat, 2, accounts=1)
    held, free = Connection.objects.order_by("pk")
    Connection.objects.update(poll_due_at=timezone.now())
    assert leases.claim(held.company_id)
    assert sync.poll() == 1
    free.refresh_from_db()
    assert free.poll_due_at is not None
    assert free.poll_due_at > timezone.now()


def test_what_is_claimed_nobody_else_gets_until_the_claim_ends(codat: SandboxProcess) -> None:
    seed(codat, 15, accounts=0)
    first = {connection.pk for connection in polling.claim(Priority.HEALTHY, 10)}
    second = {connection.pk for connection in polling.claim(Priority.HEALTHY, 10)}
    assert (len(first), len(second), first & second) == (10, 5, set())
    assert polling.claim(Priority.HEALTHY, 10) == []
    Connection.objects.update(poll_due_at=timezone.now())
    assert len(polling.claim(Priority.HEALTHY, 20)) == 15


def test_the_most_important_are_read_first(connection: Connection, codat: SandboxProcess) -> None:
    seed(codat, 3, accounts=0)
    make_due(connection)
    Connection.objects.exclude(pk=connection.pk).update(poll_due_at=timezone.now() - timedelta(days=1))
    assert [claimed.pk for claimed in polling.claim(Priority.LINK, 10)] == [connection.pk]


# --- The sweep -------------------------------------------------------------------------------------------------------
def test_a_sweep_brings_every_status_in_one_call_a_page(codat: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE_SIZE", 10)
    seed(codat, 35, accounts=1)
    changed = list(Connection.objects.select_related("company")[::10])
    for connection in changed:
        codat.disconnect(connection.company.codat_id, connection.codat_id, now=True)
    codat.advance(25 * 3600)
    before = codat.requests_made("GET /companies")

    assert sweep_to_the_end() == listing.Outcome.COMPLETE

    assert codat.requests_made("GET /companies") == before + 4
    there = statuses_there(codat)
    assert dict(Connection.objects.values_list("codat_id", "status")) == there
    assert list(there.values()).count(ConnectionStatus.UNLINKED) == len(changed)
    events = StatusEvent.objects.all()
    assert {(event.connection_id, event.new, event.seen_by) for event in events} == {
        (connection.pk, ConnectionStatus.UNLINKED, SeenBy.POLL) for connection in changed
    }
    # Their accounts are read by the next poll.
    assert polling.due(Priority.HEALTHY, timezone.now()).filter(pk__in=[c.pk for c in changed]).count() == len(changed)


def statuses_there(codat: SandboxProcess) -> dict[str, str]:
    """Connection id -> status, as the stand-in says now."""
    companies = CodatClient(codat.url, codat.api_key).iter_companies()
    return {connection.id: connection.status for company in companies for connection in company.connections}


def test_a_sweep_that_finds_nothing_new_writes_no_row(codat: SandboxProcess) -> None:
    seed(codat, 20, accounts=0)
    before = list(Connection.objects.order_by("pk").values("updated_at", "read_at", "raw"))
    sweep_to_the_end()
    assert list(Connection.objects.order_by("pk").values("updated_at", "read_at", "raw")) == before
    assert not AuditEntry.objects.exists()
    assert not StatusEvent.objects.exists()


def test_a_sweep_marks_what_is_gone_but_only_from_a_complete_list(
    codat: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_SIZE", 10)
    seed(codat, 25, accounts=0)
    lost, unconnected = Connection.objects.select_related("company")[:2]
    delete_company(codat, lost.company)
    delete_connection(codat, unconnected)
    codat.post_fault("malformed", method="GET", path=COMPANIES, times=3)
    assert sync.sweep_listing() == listing.Outcome.FAILED
    assert not Connection.objects.filter(gone_at__isnull=False).exists()

    assert sweep_to_the_end() == listing.Outcome.COMPLETE
    gone = Connection.objects.filter(gone_at__isnull=False)
    assert set(gone.values_list("pk", flat=True)) == {lost.pk, unconnected.pk}
    assert list(Company.objects.filter(gone_at__isnull=False)) == [lost.company]


def delete_company(codat: SandboxProcess, company: Company) -> None:
    """As somebody would in the Portal."""
    CodatClient(codat.url, codat.api_key).delete_company(company.codat_id)


def test_an_empty_list_is_not_believed(codat: SandboxProcess) -> None:
    """A key of another Codat account would mark every customer as gone."""
    seed(codat, 30, accounts=0)
    codat.reset()
    assert sync.sweep_listing() == listing.Outcome.FAILED
    assert not Company.objects.filter(gone_at__isnull=False).exists()


def test_a_newer_link_replaces_the_older_only_where_one_is_out(connection: Connection, codat: SandboxProcess) -> None:
    old_link = connection.link_url
    sweep_to_the_end()
    connection.refresh_from_db()
    assert connection.link_url not in ("", old_link)

    forget_link(connection)
    sweep_to_the_end()
    connection.refresh_from_db()
    assert connection.link_url == ""


def test_one_row_that_cannot_be_written_never_stops_the_others(
    codat: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(codat, 5, accounts=0)
    Connection.objects.update(status=ConnectionStatus.PENDING_AUTH)
    unlucky = Company.objects.latest("pk")
    after_readings = sweep.readings.after_readings

    def fail_for_one(readings: list[tuple[Company, Any]]) -> None:
        after_readings(readings)
        if any(company == unlucky for company, _connections in readings):
            raise ValueError("no such luck")

    monkeypatch.setattr(sweep.readings, "after_readings", fail_for_one)
    sweep_to_the_end()
    assert Connection.objects.filter(status=ConnectionStatus.LINKED).count() == 4
    assert unlucky.connections.get().status == ConnectionStatus.PENDING_AUTH


def test_a_sweep_goes_on_where_the_last_worker_stopped(codat: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE_SIZE", 10)
    monkeypatch.setattr(listing, "WALK_SECONDS", 0.0)
    seed(codat, 40, accounts=0)
    Connection.objects.update(status=ConnectionStatus.PENDING_AUTH)
    before = codat.requests_made("GET /companies")
    parts = 0
    while sync.sweep_listing() != listing.Outcome.COMPLETE:
        parts += 1
        assert parts < 50
    assert parts >= 4
    assert codat.requests_made("GET /companies") == before + 4
    assert not Connection.objects.exclude(status=ConnectionStatus.LINKED).exists()


def test_only_one_worker_walks_the_list(codat: SandboxProcess) -> None:
    seed(codat, 1)
    ListingWalk.objects.create(name=sweep.NAME, lease_expires_at=timezone.now() + timedelta(seconds=60))
    assert sync.sweep_listing() == listing.Outcome.HELD
    ListingWalk.objects.update(lease_expires_at=timezone.now())
    assert sync.sweep_listing() == listing.Outcome.COMPLETE


# --- By list, when that is cheaper -----------------------------------------------------------------------------------
def queued() -> list[str]:
    """The tasks that wait."""
    return [row.func() for row in OrmQ.objects.order_by("id")]


def test_the_first_poll_asks_for_a_sweep_and_reads_accounts_meanwhile(codat: SandboxProcess) -> None:
    seed(codat, 3, accounts=1)
    before = codat.requests_made(f"GET {CONNECTIONS}")
    assert sync.poll() == 3
    assert codat.requests_made(f"GET {CONNECTIONS}") == before
    assert queued() == [queue.SWEEP]
    sync.poll()
    assert queued() == [queue.SWEEP], "asked for once"


def test_between_the_daily_ones_a_sweep_is_made_when_it_costs_fewer_calls(
    codat: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_SIZE", 10)
    seed(codat, 25, accounts=0, linked=False)
    ListingWalk.objects.create(name=sweep.NAME, complete_as_of=timezone.now() - timedelta(hours=2), total=25)
    far = timezone.now() + timedelta(days=1)
    Connection.objects.update(poll_due_at=far)
    for few in Connection.objects.all()[:3]:
        make_due(few)
    sync.poll()
    assert queued() == [], "three calls for three pages, three for three connections"

    for more in Connection.objects.all()[:4]:
        make_due(more)
    sync.poll()
    assert queued() == [queue.SWEEP]


def test_while_a_list_cannot_be_had_connections_are_read_one_by_one(codat: SandboxProcess) -> None:
    seed(codat, 2, accounts=0)
    codat.post_fault("status", method="GET", path=COMPANIES, status=500, times=None)
    assert sync.sweep_listing() == listing.Outcome.FAILED
    before = codat.requests_made(f"GET {CONNECTIONS}")
    assert sync.poll() == 2
    assert codat.requests_made(f"GET {CONNECTIONS}") == before + 2
    assert queued() == []


# --- Every fault -----------------------------------------------------------------------------------------------------
FAULTS = {
    "timeout before processing": {"action": "drop_before", "delay_ms": 2000},
    "connection dropped": {"action": "drop_before"},
    "reply lost": {"action": "drop_after"},
    "429 with Retry-After": {"action": "status", "status": 429, "retry_after": 1},
    "500": {"action": "status", "status": 500},
    "503": {"action": "status", "status": 503},
    "401": {"action": "status", "status": 401},
    "404": {"action": "status", "status": 404},
    "malformed body": {"action": "malformed"},
}


@pytest.mark.parametrize("path", [COMPANIES, CONNECTIONS, ACCOUNTS], ids=["list", "connection", "accounts"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_once_a_fault_is_over_our_statuses_equal_codats(
    fault: dict[str, Any], path: str, codat: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_SIZE", 2)
    seed(codat, 4, accounts=2)
    connected, silent, lost, unlinked = Connection.objects.select_related("company").order_by("pk")
    Connection.objects.filter(pk=connected.pk).update(status=ConnectionStatus.PENDING_AUTH)
    codat.disconnect(silent.company.codat_id, silent.codat_id, accountId="acc-001", now=True)
    codat.disconnect(unlinked.company.codat_id, unlinked.codat_id, now=True)
    codat.advance(25 * 3600)
    delete_connection(codat, lost)
    codat.post_fault(method="GET", path=path, times=3, **fault)

    for _ in range(4):
        Connection.objects.update(poll_due_at=timezone.now())
        sync.sweep_listing()
        sync.poll()
        drain()

    assert codat.faults()[0]["hits"] >= 1
    here = Connection.objects.filter(gone_at__isnull=True)
    assert dict(here.values_list("codat_id", "status")) == statuses_there(codat)
    assert Connection.objects.get(gone_at__isnull=False) == lost
    accounts = SourceAccount.objects.filter(connection__in=here)
    assert {(a.connection_id, a.account_id): a.status for a in accounts} == {
        (connected.pk, "acc-001"): "connected",
        (connected.pk, "acc-002"): "connected",
        (silent.pk, "acc-001"): "disconnected",
        (silent.pk, "acc-002"): "connected",
        (unlinked.pk, "acc-001"): "disconnected",
        (unlinked.pk, "acc-002"): "disconnected",
    }

"""The day's quota: people always get through, the background stops in time and says what waits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_q.models import OrmQ
from pytest_django.fixtures import Settings

from feeds.audit import Actor
from feeds.codat.errors import LimiterBusy
from feeds.codat.limiter import make_limiter
from feeds.codat.schemas import Quota
from feeds.models import CodatQuota, Connection, ListingWalk
from feeds.services import budget, gateway, polling, sweep, sync
from feeds.services.polling import Priority
from feeds.services.roles import SUPPORT
from tests.factories import ConnectionFactory, UserFactory
from tests.sandbox_process import SandboxProcess
from tests.seeded import seed

pytestmark = pytest.mark.django_db

RM = Actor(name="Rita Moreau", source="test")
LIMIT = 1000


def tell(remaining: int, *, resets_in: timedelta | None = timedelta(hours=12), read: datetime | None = None) -> None:
    """Codat's last reply said so."""
    read = read or timezone.now()
    reset = None if resets_in is None else read + resets_in
    gateway.remember_quota(Quota(LIMIT, remaining, reset, read))


def lowest_that_may(priority: Priority) -> int:
    """The fewest calls that may be left for one of this priority to be made."""
    for remaining in range(LIMIT + 1):
        CodatQuota.objects.update(remaining=remaining)
        if budget.may_spend(priority):
            return remaining
    raise AssertionError(f"{priority.name} may never spend")


def test_before_codat_has_told_its_quota_everything_may_be_asked() -> None:
    assert all(budget.may_spend(priority) for priority in Priority)
    assert budget.state().limit is None


@pytest.mark.parametrize(
    ("hours_left", "urgent", "other"),
    [(24, 201, 921), (12, 201, 521), (2, 201, 201), (0.01, 201, 201)],
)
def test_urgent_calls_stop_at_the_reserve_and_others_are_spread_over_the_day(
    hours_left: float, urgent: int, other: int
) -> None:
    tell(LIMIT, resets_in=timedelta(hours=hours_left, seconds=1))
    assert lowest_that_may(Priority.INTERACTIVE) == 0
    for priority in (Priority.LINK, Priority.WEBHOOK, Priority.CASE):
        assert lowest_that_may(priority) == urgent
    assert lowest_that_may(Priority.PENDING) == pytest.approx(other, abs=2)
    assert lowest_that_may(Priority.HEALTHY) == pytest.approx(other, abs=2)


def test_the_reserve_is_a_setting(settings: Settings) -> None:
    settings.POLL_RESERVE_PERCENT = 50
    tell(LIMIT, resets_in=timedelta(minutes=1))
    assert lowest_that_may(Priority.LINK) == 501


def test_a_new_day_begins_with_the_whole_quota() -> None:
    tell(0, resets_in=timedelta(hours=1), read=timezone.now() - timedelta(hours=3))
    assert budget.may_spend(Priority.LINK)
    assert budget.state().remaining == LIMIT


def test_without_a_date_the_quota_ends_at_midnight_utc() -> None:
    read = datetime(2026, 11, 22, 13, 30, tzinfo=UTC)
    CodatQuota.objects.create(limit=LIMIT, remaining=5, resets_at=None, read_at=read)
    quota = CodatQuota.objects.get()
    assert budget._reset_of(quota) == datetime(2026, 11, 23, tzinfo=UTC)


def test_the_quota_is_noted_at_once_when_much_of_it_went() -> None:
    """Else a quick poller would run far into the reserve before it looked again."""
    tell(LIMIT)
    tell(LIMIT - 5)
    assert CodatQuota.objects.get().remaining == LIMIT
    tell(LIMIT - 11)
    assert CodatQuota.objects.get().remaining == LIMIT - 11


def test_the_state_counts_what_waits_and_since_when() -> None:
    long_due = timezone.now() - timedelta(hours=5)
    ConnectionFactory.create_batch(2, linked=True, poll_due_at=long_due)
    ConnectionFactory(with_link=True, poll_due_at=timezone.now())
    ConnectionFactory(linked=True, poll_due_at=timezone.now() + timedelta(hours=5))
    tell(900)
    assert (budget.state().postponed, budget.state().postponed_since) == (0, None)

    CodatQuota.objects.update(remaining=300)
    state = budget.state()
    assert (state.postponed, state.postponed_since) == (2, long_due), "the link is still looked at"
    assert (state.limit, state.remaining, state.reserve, state.planned) == (LIMIT, 300, 200, 100)

    CodatQuota.objects.update(remaining=150)
    assert budget.state().postponed == 3
    assert budget.state().planned == 0


# --- With a quota of 1,000 calls and 5,000 connections ---------------------------------------------------------------
@pytest.fixture
def poor_codat(tmp_path: Path, settings: Settings) -> Iterator[SandboxProcess]:
    """A stand-in that allows a thousand calls a day."""
    codat = SandboxProcess(tmp_path / "poor.sqlite3", limits=("--per-minute", "0", "--daily-quota", str(LIMIT))).start()
    settings.CODAT_BASE_URL, settings.CODAT_API_KEY = codat.url, codat.api_key
    yield codat
    codat.stop()


class Day:
    """Moves our clock and the stand-in's together. The wire's own times stay real: they only order the readings."""

    def __init__(self, codat: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
        self.codat = codat
        self.offset = timedelta(0)
        real = timezone.now
        monkeypatch.setattr(timezone, "now", lambda: real() + self.offset)

    def move(self, hours: float) -> None:
        """Some hours later."""
        self.offset += timedelta(hours=hours)
        self.codat.advance(hours * 3600)


@pytest.mark.slow
@pytest.mark.timeout(600)  # eight hundred readings over real HTTP
def test_after_a_day_of_polling_people_still_get_through_and_the_state_says_what_waits(
    poor_codat: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = Day(poor_codat, monkeypatch)
    seed(poor_codat, 5000)
    midnight = timezone.now().replace(hour=0, minute=0, second=1) + timedelta(days=1)
    day.move((midnight - timezone.now()) / timedelta(hours=1))
    Connection.objects.update(poll_due_at=timezone.now(), created_at=timezone.now() - timedelta(days=30))
    monkeypatch.setattr(sync, "POLL_SECONDS", 60.0)

    read = 0
    for _hour in range(8):
        assert sync.sweep_listing() is not None
        OrmQ.objects.all().delete()
        read += sync.poll()
        day.move(2.9)

    state = budget.state()
    assert state.remaining is not None
    assert state.remaining >= 200, "the reserve is for people"
    assert 500 < read <= 800
    assert state.postponed + state.planned >= 5000 - read
    assert state.postponed_since is not None
    assert ListingWalk.objects.get(name=sweep.NAME).complete_as_of is not None, "one call tells all statuses"
    client = Client()
    client.force_login(UserFactory(role=SUPPORT))
    page = client.get(reverse("admin:operations_page")).content.decode()
    said = re.search(r"([\d,]+) of 1,000 left: 200 kept for people.*?; ([\d,]+) postponed since", page, flags=re.DOTALL)
    assert said is not None, "the page says what waits"
    assert int(said[2].replace(",", "")) == state.postponed
    for connection in Connection.objects.select_related("company")[:20]:
        refresh = reverse("admin:feeds_company_action", args=[connection.company_id, "refresh-status"])
        answer = client.post(refresh, follow=True)
        assert [str(message) for message in answer.context["messages"]] == ["Read from Codat: nothing has changed."]


# --- Requests a minute -----------------------------------------------------------------------------------------------
def test_people_find_a_slot_free_however_much_the_poller_sends(tmp_path: Path) -> None:
    path = tmp_path / "limiter.sqlite3"
    background = make_limiter(sqlite_path=path, postgres_dsn=None, per_minute=100, max_wait=0, headroom=0.5)
    people = make_limiter(sqlite_path=path, postgres_dsn=None, per_minute=100, max_wait=0)
    for _ in range(5):
        background.acquire()
    with pytest.raises(LimiterBusy):
        background.acquire()
    for _ in range(4):
        people.acquire()


def test_the_poller_uses_the_client_that_leaves_room(codat: SandboxProcess) -> None:
    assert gateway.client() is gateway.client()
    assert gateway.background_client() is gateway.background_client()
    assert gateway.background_client() is not gateway.client()


def test_claims_are_not_made_for_what_the_budget_refuses(codat: SandboxProcess) -> None:
    connection = ConnectionFactory(linked=True, poll_due_at=timezone.now())
    ListingWalk.objects.create(name=sweep.NAME, complete_as_of=timezone.now())
    due_at = connection.poll_due_at
    tell(100)
    assert sync.poll() == 0
    connection.refresh_from_db()
    assert connection.poll_due_at == due_at
    assert polling.due(Priority.HEALTHY, timezone.now()).exists()

"""How far customers get: every invitation of the period counted honestly, times that are exact, and a bounded cost."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection as database
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase
from pytest_django.fixtures import DjangoAssertNumQueries, Settings

from feeds.models import Invitation
from feeds.services import funnel
from feeds.services.funnel import NOBODY, Cohort, Report
from feeds.services.roles import RELATIONSHIP_MANAGERS, SUPPORT
from feeds.states import InvitationEnd, InvitationState, Language
from tests.factories import CompanyFactory, InvitationFactory, UserFactory

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 26, 15, tzinfo=UTC)
MADE = NOW - timedelta(days=20)
HOUR = timedelta(hours=1)
COLUMNS = ("sent_at", "opened_at", "started_at", "linked_at", "connected_at")


def make(*hours: float | None, made_at: datetime = MADE, **values: Any) -> Invitation:
    """An invitation that reached each step so many hours after it was made; None: it has no time there."""
    times = {column: made_at + hour * HOUR for column, hour in zip(COLUMNS, hours, strict=False) if hour is not None}
    if "connected_at" in times:
        times |= {"ended_at": times["connected_at"]}
        values |= {"end": InvitationEnd.CONNECTED}
    made: Invitation = InvitationFactory(**{"expires_at": NOW + timedelta(days=1), **times, **values})
    Invitation.objects.filter(pk=made.pk).update(created_at=made_at)
    return made


def supporter() -> User:
    """Somebody who sees all customers."""
    user: User = UserFactory(role=SUPPORT)
    return user


def report(cohort: Cohort | None = None, user: User | None = None) -> Report:
    return funnel.report(cohort or Cohort(), user or supporter(), NOW)


def reached(found: Report) -> list[int]:
    return [step.reached for step in found.total.steps]


# --- Counting --------------------------------------------------------------------------------------------------------
def test_each_step_counts_who_came_at_least_so_far() -> None:
    ways: list[tuple[float, ...]] = [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4, 5)]
    for way in ways:
        make(*way)
    assert reached(report()) == [6, 5, 4, 3, 2, 1]
    assert [step.state for step in report().total.steps] == [
        InvitationState.MADE, InvitationState.SENT, InvitationState.OPENED, InvitationState.STARTED,
        InvitationState.LINKED, InvitationState.CONNECTED,
    ]  # fmt: skip


def test_a_link_that_staff_showed_passed_sent_although_it_was_never_mailed_and_is_told_as_skipped() -> None:
    make(1, 2)
    make(None, 2, 3)
    make(None, None, 3)
    found = report()
    assert reached(found) == [3, 3, 3, 2, 0, 0]
    assert [step.skipped for step in found.total.steps] == [0, 2, 1, 0, 0, 0]


def test_what_became_of_those_who_are_not_connected_adds_up() -> None:
    make(1, 2, 3, 4, 5)
    make(1)
    make(1, expires_at=NOW - HOUR)
    make(1, ended_at=NOW, end=InvitationEnd.EXPIRED, expires_at=NOW - HOUR)
    make(1, ended_at=NOW, end=InvitationEnd.REVOKED)
    make(1, ended_at=NOW, end=InvitationEnd.REPLACED)
    total = report().total
    assert total.standing == {"open": 1, "expired": 2, "revoked": 1, "replaced": 1}
    assert total.made == total.connected + sum(total.standing.values())


def test_nothing_made_is_nothing_reached() -> None:
    found = report()
    assert reached(found) == [0] * 6
    assert found.total.whole == funnel.Times(0, None, None)
    assert found.by_manager == found.by_language == []


# --- Times -----------------------------------------------------------------------------------------------------------
def test_medians_are_from_the_step_before_and_the_nearest_rank_tells_nine_in_ten() -> None:
    for hours in range(1, 11):
        make(1, 1 + hours)
    opened = report().total.steps[2].took
    assert opened.count == 10
    assert opened.median == 5.5 * HOUR
    assert opened.p90 == 9 * HOUR
    assert not opened.are_few


def test_the_whole_way_is_from_made_to_connected() -> None:
    make(1, 2, 3, 4, 48)
    assert report().total.whole == funnel.Times(1, 48 * HOUR, 48 * HOUR)
    assert report().total.whole.are_few


def test_a_step_without_a_time_of_its_own_gives_no_time_to_either_side() -> None:
    make(None, 2, 3)
    assert [step.took.count for step in report().total.steps] == [0, 0, 0, 1, 0, 0]


def test_a_mail_that_went_out_after_the_link_was_opened_makes_no_time_of_less_than_nothing() -> None:
    make(5, 2, 3)
    steps = report().total.steps
    assert [step.took.count for step in steps] == [0, 1, 0, 1, 0, 0]
    assert reached(report()) == [1, 1, 1, 1, 0, 0]


# --- Which -----------------------------------------------------------------------------------------------------------
def test_a_period_is_of_calendar_months_in_the_zone_of_the_staff() -> None:
    with timezone.override("America/Toronto"):
        # Five in the morning in UTC, and midnight in Toronto, of daylight saving time and without.
        make(made_at=datetime(2026, 9, 1, 4, tzinfo=UTC))
        make(made_at=datetime(2026, 9, 1, 3, 59, tzinfo=UTC))
        make(made_at=datetime(2026, 11, 1, 3, 59, tzinfo=UTC))
        make(made_at=datetime(2026, 11, 1, 4, tzinfo=UTC))
        found = report()
    assert found.first_day == date(2026, 9, 1)
    assert [(group.key, group.funnel.made) for group in found.by_month] == [
        (date(2026, 9, 1), 1),
        (date(2026, 10, 1), 1),
        (date(2026, 11, 1), 1),
    ]


@pytest.mark.parametrize(
    ("months", "first"),
    [(1, date(2026, 1, 1)), (3, date(2025, 11, 1)), (6, date(2025, 8, 1)), (12, date(2025, 2, 1))],
)
def test_a_period_may_begin_in_the_year_before(months: int, first: date) -> None:
    found = funnel.report(Cohort(months=months), supporter(), datetime(2026, 1, 31, 15, tzinfo=UTC))
    assert found.first_day == first
    assert len(found.by_month) == months
    assert found.by_month[-1].key == date(2026, 1, 1)


def test_filters_choose_by_manager_language_and_purpose() -> None:
    robin = UserFactory(role=RELATIONSHIP_MANAGERS)
    make(1, company=CompanyFactory(manager=robin))
    make(1, 2, language=Language.FR)
    make(1, 2, 3, purpose="reconnect")
    assert reached(report(Cohort(manager=robin.pk)))[:3] == [1, 1, 0]
    assert reached(report(Cohort(manager=NOBODY)))[:3] == [2, 2, 2]
    assert reached(report(Cohort(language="fr")))[:4] == [1, 1, 1, 0]
    assert reached(report(Cohort(purpose="reconnect")))[:4] == [1, 1, 1, 1]


def test_groups_part_the_total_and_managers_come_with_the_most_first() -> None:
    robin = UserFactory(first_name="Robin", last_name="Hall")
    make(1, company=CompanyFactory(manager=robin))
    make(1, 2, language=Language.FR, company=CompanyFactory(manager=robin))
    make(made_at=MADE - timedelta(days=30))
    found = report()
    assert [(group.label, group.funnel.made) for group in found.by_manager] == [("Robin Hall", 2), ("", 1)]
    assert [(group.key, group.funnel.made) for group in found.by_language] == [("en", 2), ("fr", 1)]
    assert [group.funnel.made for group in found.by_month] == [0, 1, 2]
    assert found.by_manager[0].funnel.steps[2].took.median == HOUR


def test_invitations_that_follow_the_browser_are_a_group_of_their_own() -> None:
    make(1, 2, language="")
    make(1, language=Language.FR)
    found = report(Cohort())
    assert [(group.key, group.label, group.funnel.made) for group in found.by_language] == [
        ("fr", "French", 1), (funnel.BROWSERS, "As the customer's browser asks", 1),
    ]  # fmt: skip
    assert reached(report(Cohort(language=funnel.BROWSERS)))[:4] == [1, 1, 1, 0]


def test_a_relationship_manager_sees_their_own_and_nobodys_customers_and_no_colleague(settings: Settings) -> None:
    settings.RM_SEES_ALL_CUSTOMERS = False
    robin, other = UserFactory(role=RELATIONSHIP_MANAGERS), UserFactory(role=RELATIONSHIP_MANAGERS)
    for manager in (robin, None, other, other):
        make(1, company=CompanyFactory(manager=manager))
    assert reached(report(user=robin))[0] == 2
    assert report(user=robin).by_manager == []
    assert reached(report(Cohort(manager=other.pk), robin))[0] == 0


# --- Cost ------------------------------------------------------------------------------------------------------------
def test_it_takes_three_queries_however_many_there_are(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    user = supporter()
    assert user.has_perm("feeds.view_all_companies")  # fills the cache of rights
    for number in range(12):
        make(1, 2, company=CompanyFactory(manager=UserFactory()), made_at=MADE - timedelta(days=5 * number))
    with django_assert_num_queries(3):
        report(user=user)


@pytest.mark.skipif(database.vendor != "sqlite", reason="PostgreSQL reads small tables whole")
def test_only_the_period_is_read() -> None:
    make(1)
    rows = funnel.cohort_of(Cohort(), supporter(), date(2026, 9, 1), NOW)
    assert "USING INDEX invitation_made (created_at>? AND created_at<?)" in rows.explain()


def test_of_very_many_the_times_are_read_of_some_evenly_over_the_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(funnel, "SAMPLE_SIZE", 10)
    for number in range(40):
        make(1 + number, made_at=MADE - timedelta(days=1.5 * number))
    found = report()
    assert found.one_in == 4
    assert reached(found)[:2] == [40, 40]
    assert found.total.steps[1].took.count == 10
    assert sum(group.funnel.steps[1].took.count for group in found.by_month) == 10
    assert all(group.funnel.steps[1].took.count for group in found.by_month)


# --- Against a plain count -------------------------------------------------------------------------------------------
hours = st.one_of(st.none(), st.integers(0, 400))


class TestAgainstAPlainCount(TestCase):
    """The same figures, counted in the plainest way there is."""

    @settings(max_examples=12)
    @given(st.lists(st.tuples(hours, hours, hours, hours), max_size=12))
    def test_counts_and_medians_are_those_of_a_plain_count(self, ways: list[tuple[int | None, ...]]) -> None:
        for way in ways:
            make(*way)
        full = [(0, *way, None) for way in ways]
        for place, step in enumerate(report().total.steps):
            assert step.reached == sum(any(hour is not None for hour in way[place:]) for way in full)
            took = [
                way[place] - way[place - 1]  # type: ignore[operator]
                for way in full
                if place and way[place] is not None and way[place - 1] is not None and way[place] >= way[place - 1]  # type: ignore[operator]
            ]
            assert step.took.count == len(took)
            assert step.took.median == (median(took) * HOUR if took else None)

"""The numbers behind the pictures. Every query is bounded: by days, by an index, or by a cap that is told.

What is cheap to count later is counted when it is asked for; what is gone when the day is over, or costs a walk over a
table, is written down once an hour by `record_day` and read back from `DailyFigure`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from math import ceil
from statistics import median

from django.db.models import Count, F, Q
from django.db.models.functions import Coalesce, TruncDate
from django.utils import timezone

from feeds.models import Case, Connection, DailyFigure
from feeds.services import health
from feeds.states import CaseOutcome, ConnectionStatus

HISTORY_DAYS = 30
REPAIR_WEEKS = 13
"""Ninety days, in whole weeks."""
REPAIR_CAP = 20_000
"""Most repairs whose times are read for one picture, newest first."""

AGE_LIMITS = (1, 3, 7, 14, 30)
"""Days at which a broken feed moves into the next group."""

CASES_OPENED = "cases_opened"
CASES_CLOSED = "cases_closed"
OTHER_STATUS = "other"
"""Statuses that Codat added after this release are counted together."""
STATUSES = (*ConnectionStatus.values, OTHER_STATUS)


@dataclass(frozen=True, slots=True)
class AgeGroup:
    """How many feeds have been broken for `from_days` up to, not including, `to_days` days (None: or longer)."""

    from_days: int
    to_days: int | None
    count: int


@dataclass(frozen=True, slots=True)
class DayFlow:
    """Cases opened and closed on one day; None where the day was not recorded."""

    day: date
    opened: int | None
    closed: int | None


@dataclass(frozen=True, slots=True)
class RepairWeek:
    """How long repairs took that ended in the week starting on `monday`; None when there was none."""

    monday: date
    repaired: int
    median: timedelta | None
    p90: timedelta | None


@dataclass(frozen=True, slots=True)
class Repairs:
    """Times to repair, oldest week first. `is_capped`: there were more than `REPAIR_CAP`; the newest were read."""

    weeks: Sequence[RepairWeek]
    is_capped: bool


@dataclass(frozen=True, slots=True)
class StatusDay:
    """Connections by status at the end of one day (`STATUSES` -> count); None where the day was not recorded."""

    day: date
    counts: dict[str, int] | None


# --- Written once an hour --------------------------------------------------------------------------------------------
def record_day() -> int:
    """Write down the figures of today, and of the days before as far as they are still shown; how many rows.

    Days before are counted again because a case that breaks anew is no longer closed. Running it twice changes nothing.
    """
    today = timezone.localdate()
    days = _days_until(today)
    rows = [
        DailyFigure(day=day, name=name, value=counts[day])
        for name, counts in ((CASES_OPENED, _per_day("opened_at", days)), (CASES_CLOSED, _per_day("closed_at", days)))
        for day in days
    ]
    rows += [
        DailyFigure(day=today, name=status_figure(status), value=value)
        for status, value in _connections_by_status().items()
    ]
    DailyFigure.objects.bulk_create(rows, update_conflicts=True, unique_fields=["name", "day"], update_fields=["value"])
    health.beat(health.FIGURES)
    return len(rows)


def status_figure(status: str) -> str:
    """Name of the daily figure that counts connections in `status`."""
    return f"connections_{status}"


# --- Read for the pictures -------------------------------------------------------------------------------------------
def broken_by_age(now: datetime) -> list[AgeGroup]:
    """Open cases of feeds that are broken at `now`, by the time since their latest break was seen. One query."""
    limits = (0, *AGE_LIMITS, None)
    groups = list(zip(limits, limits[1:], strict=False))
    counts = {}
    for index, (youngest, oldest) in enumerate(groups):
        inside = Q(broke_at__lte=now - timedelta(days=youngest or 0)) if index else Q()
        if oldest is not None:
            inside &= Q(broke_at__gt=now - timedelta(days=oldest))
        counts[f"group_{index}"] = Count("pk", filter=inside)
    found = Case.objects.open().filter(recovered_at__isnull=True).aggregate(**counts)
    return [AgeGroup(youngest or 0, oldest, found[f"group_{index}"]) for index, (youngest, oldest) in enumerate(groups)]


def opened_and_closed() -> list[DayFlow]:
    """Cases opened and closed on each of the last `HISTORY_DAYS` days, today as it stands now. Three queries."""
    today = timezone.localdate()
    days = _days_until(today)
    recorded = _recorded([CASES_OPENED, CASES_CLOSED], days)
    for name, column in ((CASES_OPENED, "opened_at"), (CASES_CLOSED, "closed_at")):
        recorded[today][name] = Case.objects.filter(**{f"{column}__gte": _start_of(today)}).count()
    return [DayFlow(day, recorded[day].get(CASES_OPENED), recorded[day].get(CASES_CLOSED)) for day in days]


def time_to_repair() -> Repairs:
    """Median and 90th percentile of the times from a break seen to a feed that works again, by week. One query.

    Only feeds that were connected again count: settling a case otherwise repairs nothing. The percentile is the nearest
    rank: a time that really occurred.
    """
    this_week = _monday_of(timezone.localdate())
    mondays = [this_week - timedelta(weeks=weeks) for weeks in reversed(range(REPAIR_WEEKS))]
    repaired = (
        Case.objects.filter(closed_at__gte=_start_of(mondays[0]), outcome=CaseOutcome.RECONNECTED)
        .order_by("-closed_at")
        .values_list("closed_at", Coalesce("recovered_at", "closed_at") - F("opened_at"))
    )
    took: dict[date, list[float]] = defaultdict(list)
    rows = list(repaired[: REPAIR_CAP + 1])
    for closed_at, time_taken in rows[:REPAIR_CAP]:
        took[_monday_of(timezone.localdate(closed_at))].append(time_taken.total_seconds())
    weeks = [_repair_week(monday, sorted(took[monday])) for monday in mondays]
    return Repairs(weeks, is_capped=len(rows) > REPAIR_CAP)


def connections_by_status() -> list[StatusDay]:
    """Connections by status on each of the last `HISTORY_DAYS` days, as recorded. One query."""
    days = _days_until(timezone.localdate())
    recorded = _recorded([status_figure(status) for status in STATUSES], days)
    return [
        StatusDay(
            day,
            {status: recorded[day].get(status_figure(status), 0) for status in STATUSES} if recorded[day] else None,
        )
        for day in days
    ]


def latest_connections() -> dict[str, int]:
    """Connections by status (`STATUSES` -> count) as last recorded, today or yesterday; empty when they were not."""
    today = timezone.localdate()
    recorded = _recorded([status_figure(status) for status in STATUSES], [today - timedelta(days=1), today])
    latest = recorded[today] or recorded[today - timedelta(days=1)]
    return {status: latest.get(status_figure(status), 0) for status in STATUSES} if latest else {}


# --- Helpers ---------------------------------------------------------------------------------------------------------
def _days_until(today: date) -> list[date]:
    return [today - timedelta(days=days) for days in reversed(range(HISTORY_DAYS))]


def _start_of(day: date) -> datetime:
    """Midnight in the zone in which staff see times."""
    return timezone.make_aware(datetime.combine(day, time.min))


def _monday_of(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _per_day(column: str, days: Sequence[date]) -> dict[date, int]:
    """How many cases have `column` on each of `days`: one query over the column's index."""
    counted = (
        Case.objects.filter(**{f"{column}__gte": _start_of(days[0])})
        .order_by()
        .annotate(day=TruncDate(column))
        .values_list("day")
        .annotate(count=Count("pk"))
    )
    return defaultdict(int, counted)


def _connections_by_status() -> dict[str, int]:
    counts = dict.fromkeys(STATUSES, 0)
    live = Connection.objects.filter(gone_at__isnull=True).order_by()
    for status, count in live.values_list("status").annotate(count=Count("pk")):
        counts[status if status in counts else OTHER_STATUS] += count
    return counts


def _recorded(names: Sequence[str], days: Sequence[date]) -> dict[date, dict[str, int]]:
    figures: dict[date, dict[str, int]] = defaultdict(dict)
    found = DailyFigure.objects.filter(name__in=names, day__range=(days[0], days[-1]))
    for name, day, value in found.values_list("name", "day", "value"):
        figures[day][name] = value
    return figures


def _repair_week(monday: date, took: Sequence[float]) -> RepairWeek:
    """`took`: seconds, sorted."""
    if not took:
        return RepairWeek(monday, 0, None, None)
    p90 = took[ceil(0.9 * len(took)) - 1]
    return RepairWeek(monday, len(took), timedelta(seconds=median(took)), timedelta(seconds=p90))

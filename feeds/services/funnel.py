"""How far customers get: of the invitations made in some months, how many reached each step, and how long it took.

Every invitation of the period is counted, in one query over the index on when it was made. Times are read of so many of
them that a median means something, evenly over the period: at most about `SAMPLE_SIZE`. No query grows with what lies
outside the period, and their number is always the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from math import ceil
from statistics import median
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Case, Count, Exists, F, IntegerField, OuterRef, Q, QuerySet, Value, When
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds.models import Company, Invitation
from feeds.services import access
from feeds.states import InvitationEnd, InvitationState, Language

STEPS: tuple[tuple[InvitationState, str], ...] = (
    (InvitationState.MADE, "created_at"),
    (InvitationState.SENT, "sent_at"),
    (InvitationState.OPENED, "opened_at"),
    (InvitationState.STARTED, "started_at"),
    (InvitationState.LINKED, "linked_at"),
    (InvitationState.CONNECTED, "connected_at"),
)
"""The steps in their order, and the column that holds when each was reached."""

MONTHS = (1, 3, 6, 12)
"""Lengths of a period that can be asked for, in calendar months, this one included."""
DEFAULT_MONTHS = 3
SAMPLE_SIZE = 10_000
"""About so many invitations at most are read for their times."""
FEW = 5
"""With fewer times than this, a median tells of those customers and not of customers."""
NOBODY = 0
"""The manager of customers that have none. No key of a user."""
BROWSERS = "browser"
"""The language of invitations that have none: the page follows the customer's browser."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Which invitations are looked at. Empty and None mean: any.

    `manager`: a user's key, or `NOBODY`; `language`: a code, or `BROWSERS`.
    """

    months: int = DEFAULT_MONTHS
    manager: int | None = None
    language: str = ""
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took: of `count` invitations that tell it. None when there is none.

    `p90` is the nearest rank: nine in ten took no longer, and one took exactly so long.
    """

    count: int
    median: timedelta | None
    p90: timedelta | None

    @property
    def are_few(self) -> bool:
        """Whether they are too few to say much."""
        return 0 < self.count < FEW


@dataclass(frozen=True, slots=True)
class Step:
    """One step: how many reached it, and how long that took since the step before.

    Whoever reached a later step has reached this one. `skipped` of them have no time of their own here: a link that
    staff showed was never mailed.
    """

    state: InvitationState
    reached: int
    skipped: int
    took: Times


@dataclass(frozen=True, slots=True)
class Funnel:
    """The steps of some invitations, the time from the first to the last, and what became of those not connected.

    `standing`: of "open", "expired", "revoked", "replaced", how many.
    """

    steps: Sequence[Step]
    whole: Times
    standing: Mapping[str, int]

    @property
    def made(self) -> int:
        """How many invitations there are."""
        return self.steps[0].reached

    @property
    def connected(self) -> int:
        """How many of them led to a connected customer."""
        return self.steps[-1].reached


@dataclass(frozen=True, slots=True)
class Group:
    """The invitations of one manager, language or month. `key`: a user's key or `NOBODY`, a code, a first day."""

    key: int | str | date
    label: str
    funnel: Funnel


@dataclass(frozen=True, slots=True)
class Report:
    """What the page tells. Made from `first_day` on (in the staff's zone), as of `as_of` (aware UTC).

    `one_in`: times were read of one in so many invitations; 1 means of all. `by_manager` is empty for who sees only
    their own customers.
    """

    cohort: Cohort
    first_day: date
    as_of: datetime
    one_in: int
    total: Funnel
    by_month: Sequence[Group]
    by_language: Sequence[Group]
    by_manager: Sequence[Group]


def report(cohort: Cohort, user: User, now: datetime | None = None) -> Report:
    """The figures of `cohort` as far as `user` sees its customers. Three queries; one more for who sees only some."""
    now = now or timezone.now()
    months = _months(cohort.months, timezone.localtime(now).date())
    rows = cohort_of(cohort, user, months[0], now)
    tallies = _count(rows, months, now)
    made = tallies.total.reached[0]
    one_in = max(1, ceil(made / SAMPLE_SIZE))
    took = _measure(rows, months, one_in) if made else _Clocks()
    sees_all = access.sees_all(user)
    names = _names(tallies.by_manager) if sees_all else {}
    return Report(
        cohort=cohort,
        first_day=months[0],
        as_of=now,
        one_in=one_in,
        total=_funnel(tallies.total, took.total),
        by_month=[
            Group(month, "", _funnel(tallies.by_month[place], took.by_month[place]))
            for place, month in enumerate(months)
        ],
        by_language=[
            Group(code or BROWSERS, str(label), _funnel(tallies.by_language[code], took.by_language[code]))
            for code, label in [*Language.choices, ("", browsers_label())]
            if tallies.by_language[code].reached[0]
        ],
        by_manager=[
            Group(key, names.get(key, ""), _funnel(tally, took.by_manager[key]))
            for key, tally in sorted(
                tallies.by_manager.items(), key=lambda it: (-it[1].reached[0], names.get(it[0], ""))
            )
            if sees_all
        ],
    )


def browsers_label() -> str:
    """What invitations without a language are called."""
    return _("As the customer's browser asks")


def cohort_of(cohort: Cohort, user: User, first_day: date, now: datetime) -> QuerySet[Invitation]:
    """The invitations of `cohort` whose customers `user` sees, made from `first_day` on."""
    rows: QuerySet[Invitation] = Invitation.objects.filter(created_at__gte=_start_of(first_day), created_at__lte=now)
    if cohort.language:
        rows = rows.filter(language="" if cohort.language == BROWSERS else cohort.language)
    if cohort.purpose:
        rows = rows.filter(purpose=cohort.purpose)
    if cohort.manager is not None:
        rows = rows.filter(company__manager=cohort.manager or None)
    return access.scope(rows, user).order_by()


def managers() -> list[User]:
    """Who manages at least one customer, by name. One query."""
    with_customers = Exists(Company.objects.filter(manager=OuterRef("pk")))
    return list(User.objects.filter(with_customers).order_by("last_name", "first_name", "username"))


# --- Counting --------------------------------------------------------------------------------------------------------
def _no_steps() -> list[int]:
    return [0] * len(STEPS)


@dataclass(slots=True)
class _Tally:
    """Sums over some cells: reached and timed by step, and ends by name."""

    reached: list[int] = field(default_factory=_no_steps)
    timed: list[int] = field(default_factory=_no_steps)
    ended: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, cell: Mapping[str, Any]) -> None:
        for place in range(len(STEPS)):
            self.reached[place] += cell[f"reached_{place}"]
            self.timed[place] += cell[f"timed_{place}"]
        for end in _ENDS:
            self.ended[end] += cell[f"end_{end}"]


@dataclass(slots=True)
class _Tallies:
    total: _Tally = field(default_factory=_Tally)
    by_month: dict[int, _Tally] = field(default_factory=lambda: defaultdict(_Tally))
    by_language: dict[str, _Tally] = field(default_factory=lambda: defaultdict(_Tally))
    by_manager: dict[int, _Tally] = field(default_factory=lambda: defaultdict(_Tally))


_ENDS = (InvitationEnd.EXPIRED, InvitationEnd.REVOKED, InvitationEnd.REPLACED)


def _count(rows: QuerySet[Invitation], months: Sequence[date], now: datetime) -> _Tallies:
    """Every row once, in one pass: as many cells as there are managers, languages and months with invitations."""
    columns = [column for _state, column in STEPS]
    figures: dict[str, Any] = {f"timed_{place}": Count(column) for place, column in enumerate(columns)}
    for place in range(len(columns) - 1):
        figures[f"reached_{place}"] = Count(Coalesce(*columns[place:]))
    figures[f"reached_{len(columns) - 1}"] = Count(columns[-1])
    # What has run out is written down some minutes later.
    over = {InvitationEnd.EXPIRED: Q(end=InvitationEnd.EXPIRED) | Q(end="", expires_at__lte=now)}
    figures |= {f"end_{end}": Count("pk", filter=over.get(end, Q(end=end))) for end in _ENDS}
    cells = rows.values("language", manager=F("company__manager"), month=_month_of(months)).annotate(**figures)
    found = _Tallies()
    for cell in cells:
        for tally in (
            found.total,
            found.by_month[cell["month"]],
            found.by_language[cell["language"]],
            found.by_manager[cell["manager"] or NOBODY],
        ):
            tally.add(cell)
    return found


# --- Measuring -------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Clock:
    """Seconds of each step since the one before, and of the whole way."""

    steps: list[list[float]] = field(default_factory=lambda: [[] for _step in STEPS])
    whole: list[float] = field(default_factory=list)

    def add(self, times: Sequence[float | None], whole: float | None) -> None:
        for held, took in zip(self.steps, times, strict=True):
            if took is not None:
                held.append(took)
        if whole is not None:
            self.whole.append(whole)


@dataclass(slots=True)
class _Clocks:
    total: _Clock = field(default_factory=_Clock)
    by_month: dict[int, _Clock] = field(default_factory=lambda: defaultdict(_Clock))
    by_language: dict[str, _Clock] = field(default_factory=lambda: defaultdict(_Clock))
    by_manager: dict[int, _Clock] = field(default_factory=lambda: defaultdict(_Clock))


def _measure(rows: QuerySet[Invitation], months: Sequence[date], one_in: int) -> _Clocks:
    """The times of one in `one_in` invitations, evenly over the period: the newest alone would tell of one month."""
    columns = [column for _state, column in STEPS]
    if one_in > 1:
        rows = rows.annotate(place=F("pk") % one_in).filter(place=0)
    read = rows.annotate(month=_month_of(months)).values_list("month", "language", "company__manager", *columns)
    found = _Clocks()
    for month, language, manager, *reached in read.iterator(chunk_size=2000):
        times = [None, *(_seconds(before, after) for before, after in zip(reached, reached[1:], strict=False))]
        whole = _seconds(reached[0], reached[-1])
        for clock in (
            found.total,
            found.by_month[month],
            found.by_language[language],
            found.by_manager[manager or NOBODY],
        ):
            clock.add(times, whole)
    return found


def _seconds(before: datetime | None, after: datetime | None) -> float | None:
    """From one step to the next; None where one has no time, or they ran backwards: mailed after it was opened."""
    if before is None or after is None or after < before:
        return None
    return (after - before).total_seconds()


def _times(seconds: list[float]) -> Times:
    if not seconds:
        return Times(0, None, None)
    seconds.sort()
    p90 = seconds[ceil(0.9 * len(seconds)) - 1]
    return Times(len(seconds), timedelta(seconds=median(seconds)), timedelta(seconds=p90))


# --- Helpers ---------------------------------------------------------------------------------------------------------
def _funnel(tally: _Tally, clock: _Clock) -> Funnel:
    steps = [
        Step(state, tally.reached[place], tally.reached[place] - tally.timed[place], _times(clock.steps[place]))
        for place, (state, _column) in enumerate(STEPS)
    ]
    standing = {end.value: tally.ended[end] for end in _ENDS}
    standing["open"] = tally.reached[0] - tally.reached[-1] - sum(standing.values())
    return Funnel(steps, _times(clock.whole), standing)


def _names(keys: Iterable[int]) -> dict[int, str]:
    people = User.objects.filter(pk__in=[key for key in keys if key != NOBODY])
    return {user.pk: user.get_full_name() or user.get_username() for user in people}


def _months(count: int, today: date) -> list[date]:
    """The first days of the last `count` months, this one last."""
    first = today.year * 12 + today.month - count
    return [date((first + place) // 12, (first + place) % 12 + 1, 1) for place in range(count)]


def _month_of(months: Sequence[date]) -> Case:
    """Which of `months` an invitation was made in. Compared, not truncated: SQLite would call Python for each row."""
    return Case(
        *(When(created_at__gte=_start_of(months[place]), then=Value(place)) for place in reversed(range(len(months)))),
        output_field=IntegerField(),
    )


def _start_of(day: date) -> datetime:
    """Midnight in the zone in which staff see times."""
    return timezone.make_aware(datetime.combine(day, time.min))

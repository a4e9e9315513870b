"""How many of the day's calls to Codat the background may still make.

Known are the quota of the last reply and the clock. A share of the quota is kept for people whatever happens; what
nobody waits for is spread over the day as well, so that a link handed out in the evening is still watched.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Min
from django.utils import timezone

from feeds.models import CodatQuota
from feeds.services import polling
from feeds.services.polling import Priority

DAY = timedelta(days=1)
HEAD_START = 0.1
"""Share of the background's calls that may be made ahead of the clock: the day has to begin with something."""


@dataclass(frozen=True, slots=True)
class BudgetState:
    """The quota and what it makes wait. `limit`, `remaining` and `read_at` are None until Codat has told its quota.

    `reserve`: calls kept for people. `planned`: calls the background may still make until `resets_at` (aware UTC).
    `postponed`: connections whose reading is due and waits for quota, the first since `postponed_since`.
    """

    limit: int | None
    remaining: int | None
    reserve: int
    planned: int
    resets_at: datetime | None
    postponed: int
    postponed_since: datetime | None
    read_at: datetime | None


def may_spend(priority: Priority, calls: int = 1) -> bool:
    """Whether `calls` more may be made for this purpose now. What a person asks for is never held back."""
    quota = CodatQuota.objects.first()
    if quota is None or priority == Priority.INTERACTIVE:
        return True
    now = timezone.now()
    return _remaining(quota, now) - calls >= _floor(quota, priority, now)


def state() -> BudgetState:
    """For the operations page: what is left, what is kept, what waits."""
    quota = CodatQuota.objects.first()
    if quota is None:
        return BudgetState(None, None, 0, 0, None, 0, None, None)
    now = timezone.now()
    remaining, reserve = _remaining(quota, now), _reserve(quota)
    postponed, since = _postponed(quota, now)
    return BudgetState(
        limit=quota.limit,
        remaining=remaining,
        reserve=reserve,
        planned=max(0, remaining - reserve),
        resets_at=_next_reset(quota, now),
        postponed=postponed,
        postponed_since=since,
        read_at=quota.read_at,
    )


def _postponed(quota: CodatQuota, now: datetime) -> tuple[int, datetime | None]:
    """How many due connections the quota does not suffice for now, and since when the first of them waits."""
    waiting = polling.due(Priority.HEALTHY, now).order_by()
    if may_spend(Priority.LINK):
        waiting = waiting.exclude(polling.urgent(now))
    affordable = max(0, _remaining(quota, now) - _floor(quota, Priority.HEALTHY, now))
    postponed = max(0, waiting.count() - affordable)
    return postponed, waiting.aggregate(since=Min("poll_due_at"))["since"] if postponed else None


def _floor(quota: CodatQuota, priority: Priority, now: datetime) -> int:
    """What must remain after a call of this priority: the reserve, and today's share of those not urgent."""
    reserve = _reserve(quota)
    if priority <= Priority.CASE:
        return reserve
    left_of_day = min(1.0, max(0.0, (_next_reset(quota, now) - now) / DAY))
    return reserve + int((quota.limit - reserve) * max(0.0, left_of_day - HEAD_START))


def _reserve(quota: CodatQuota) -> int:
    return quota.limit * int(settings.POLL_RESERVE_PERCENT) // 100


def _remaining(quota: CodatQuota, now: datetime) -> int:
    """What the last reply said; the whole quota again once that day is over."""
    return quota.remaining if now < _reset_of(quota) else quota.limit


def _next_reset(quota: CodatQuota, now: datetime) -> datetime:
    reset = _reset_of(quota)
    return reset if now < reset else _midnight_after(now)


def _reset_of(quota: CodatQuota) -> datetime:
    """When the quota that was read ends: as Codat said, else at midnight UTC."""
    return quota.resets_at or _midnight_after(quota.read_at)


def _midnight_after(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0) + DAY

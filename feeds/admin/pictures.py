"""The five pictures of the support and operations pages: which numbers, in which words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from feeds.pictures import Chart, Column, Meter, Picture, Series, bars, lines, meter, one_decimal, stacked_bars, whole
from feeds.services import figures
from feeds.services.budget import BudgetState
from feeds.services.figures import AgeGroup, DayFlow, Repairs, StatusDay
from feeds.services.operations_page import Snapshot
from feeds.states import CONNECTION_MEANINGS, ConnectionStatus, Text, Tone

HOUR = timedelta(hours=1)
LONGEST_IN_HOURS = timedelta(days=3)
"""Repair times up to this are shown in hours; longer ones in days."""

STATUS_LOOKS: dict[str, tuple[Tone, bool]] = {
    ConnectionStatus.LINKED: (Tone.GOOD, False),
    ConnectionStatus.PENDING_AUTH: (Tone.WAITING, False),
    ConnectionStatus.UNLINKED: (Tone.BAD, False),
    ConnectionStatus.DEAUTHORIZED: (Tone.BAD, True),
    figures.OTHER_STATUS: (Tone.NEUTRAL, False),
}
"""Status -> colour, and whether the bar is hollow. From the bottom of a stacked bar to its top."""


def for_support(now: datetime | None = None) -> list[Picture]:
    """What support wants to see beside the worklist. Five queries, whatever there is."""
    now = now or timezone.now()
    return [
        broken_by_age(figures.broken_by_age(now), now),
        opened_and_closed(figures.opened_and_closed(), now),
        time_to_repair(figures.time_to_repair(), now),
    ]


def for_operations(snapshot: Snapshot) -> list[Picture]:
    """Support's pictures, and those of the whole system. Six queries, whatever there is."""
    statuses = figures.connections_by_status()
    return [
        *for_support(snapshot.as_of),
        connections_by_status(statuses, snapshot.figures_beat),
        calls_used(snapshot.budget),
    ]


def broken_by_age(groups: Sequence[AgeGroup], as_of: datetime) -> Picture:
    """Broken feeds by the time since the break was seen."""
    total = sum(group.count for group in groups)
    oldest = groups[-1]
    shown = groups if total else ()
    summary = ngettext(
        "%(total)s feed is broken; %(old)s of them for %(days)s days or longer.",
        "%(total)s feeds are broken; %(old)s of them for %(days)s days or longer.",
        total,
    )
    return bars(
        Chart(
            key="broken-by-age",
            title=_("Broken feeds by age"),
            summary=summary % {"total": whole(total), "old": whole(oldest.count), "days": oldest.from_days},
            empty=_("No feed is broken that we know of."),
            x_label=_("Days since the break was seen"),
            y_label=_("Feeds"),
            columns=tuple(_age_column(group) for group in shown),
            series=(Series(_("Broken feeds"), Tone.BAD, tuple(group.count for group in shown)),),
            as_of=as_of,
            note=_("A feed may have stopped up to ten days before its break was seen."),
        )
    )


def opened_and_closed(days: Sequence[DayFlow], as_of: datetime) -> Picture:
    """Cases opened against closed, day by day."""
    opened, closed = (sum(day.opened or 0 for day in days), sum(day.closed or 0 for day in days))
    return bars(
        Chart(
            key="opened-and-closed",
            title=_("Cases opened and closed per day"),
            summary=_("In %(days)s days %(opened)s cases were opened and %(closed)s closed.")
            % {"days": len(days), "opened": whole(opened), "closed": whole(closed)},
            empty=_("No day has been recorded yet. Figures are written down once an hour."),
            x_label=_("Day"),
            y_label=_("Cases"),
            columns=tuple(_day_column(day.day) for day in days),
            series=(
                Series(_("Opened"), Tone.BAD, tuple(day.opened for day in days)),
                Series(_("Closed"), Tone.GOOD, tuple(day.closed for day in days), hollow=True),
            ),
            as_of=as_of,
            no_value=_("not recorded"),
            note=_("The last day is today so far. A case that broke anew counts on the day it was first opened."),
        )
    )


def time_to_repair(repairs: Repairs, as_of: datetime) -> Picture:
    """Median and 90th percentile of the time from a break seen to a feed that works again, week by week."""
    repaired = [week for week in repairs.weeks if week.median is not None and week.p90 is not None]
    longest = max((week.p90 for week in repaired if week.p90 is not None), default=timedelta(0))
    unit, unit_name = (HOUR, _("Hours")) if longest <= LONGEST_IN_HOURS else (24 * HOUR, _("Days"))

    def in_units(times: Sequence[timedelta | None]) -> tuple[float | None, ...]:
        return tuple(None if time is None else time / unit for time in times)

    count = sum(week.repaired for week in repairs.weeks)
    note = _("From a break seen to connected again; settled otherwise does not count.")
    if repairs.is_capped:
        note += " " + _("Only the newest %(cap)s repairs were read.") % {"cap": whole(figures.REPAIR_CAP)}
    return lines(
        Chart(
            key="time-to-repair",
            title=_("Time to repair"),
            summary=_latest_repair(repairs, count, unit, unit_name),
            empty=_("No feed was repaired in the last %(weeks)s weeks.") % {"weeks": len(repairs.weeks)},
            x_label=_("Week starting on"),
            y_label=unit_name,
            columns=tuple(_day_column(week.monday) for week in repairs.weeks),
            series=(
                Series(_("Median"), Tone.GOOD, in_units([week.median for week in repairs.weeks])),
                Series(_("Nine in ten within"), Tone.WARNING, in_units([week.p90 for week in repairs.weeks]), True),
            ),
            as_of=as_of,
            no_value=_("no repair"),
            note=note,
            format=one_decimal,
        )
    )


def calls_used(budget: BudgetState) -> Picture:
    """Calls to Codat since its quota was last reset, by all who share the API key, against the quota."""
    limit = budget.limit or 0
    used = max(0, limit - (budget.remaining or 0))
    return meter(
        Meter(
            key="calls-used",
            title=_("Codat calls used today"),
            summary=_("%(used)s of %(limit)s calls are used.") % {"used": whole(used), "limit": whole(limit)},
            empty=_("Codat has not told its quota yet: it comes with the first reply."),
            x_label=_("Calls"),
            used=used,
            total=limit,
            mark=max(0, limit - budget.reserve),
            used_label=_("Used"),
            rest_label=_("Left"),
            mark_label=_("Background polling stops"),
            as_of=budget.read_at,
            note=_("What is left beyond the mark is kept for people. Codat starts anew at midnight UTC."),
        )
    )


def connections_by_status(days: Sequence[StatusDay], as_of: datetime | None) -> Picture:
    """Connections by status at the end of each day."""
    recorded = [day.counts for day in days if day.counts is not None]
    latest = recorded[-1] if recorded else {}
    told = ", ".join(f"{_status_label(status)} {whole(latest.get(status, 0))}" for status in STATUS_LOOKS)
    return stacked_bars(
        Chart(
            key="connections-by-status",
            title=_("Connections by status"),
            summary=_("As last recorded: %(told)s.") % {"told": told},
            empty=_("No day has been recorded yet. Figures are written down once an hour."),
            x_label=_("Day"),
            y_label=_("Connections"),
            columns=tuple(_day_column(day.day) for day in days),
            series=tuple(
                Series(
                    str(_status_label(status)),
                    tone,
                    tuple(None if day.counts is None else day.counts[status] for day in days),
                    hollow,
                )
                for status, (tone, hollow) in STATUS_LOOKS.items()
            ),
            as_of=as_of,
            no_value=_("not recorded"),
            note=_("Counted once an hour; the last count of a day stays."),
        )
    )


def _age_column(group: AgeGroup) -> Column:
    if group.to_days is None:
        return Column(_("%(days)s or more") % {"days": group.from_days}, f"{group.from_days}+")
    if group.from_days == 0:
        return Column(_("under %(days)s") % {"days": group.to_days}, f"< {group.to_days}")
    span = f"{group.from_days}–{group.to_days}"
    return Column(span, span)


def _day_column(day: date) -> Column:
    return Column(day.isoformat(), date_format(day, "j M"))


def _status_label(status: str) -> Text:
    return _OTHER if status == figures.OTHER_STATUS else CONNECTION_MEANINGS[status].label


def _latest_repair(repairs: Repairs, count: int, unit: timedelta, unit_name: str) -> str:
    for week in reversed(repairs.weeks):
        if week.median is not None and week.p90 is not None:
            told = ngettext("%s feed was repaired.", "%s feeds were repaired.", count) % whole(count)
            return f"{told} " + _(
                "In the week of %(week)s half of the repairs took at most %(median)s and nine in ten at most %(p90)s"
                " %(unit)s."
            ) % {
                "week": week.monday.isoformat(),
                "median": one_decimal(week.median / unit),
                "p90": one_decimal(week.p90 / unit),
                "unit": unit_name.lower(),
            }
    return ""


_OTHER = gettext_lazy("other")

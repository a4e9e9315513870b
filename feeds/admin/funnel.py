"""Invitations: how far customers get. The figures of `services.funnel` as a picture, as tables and as a file.

A page beside the screens of models, hung into the site by `backoffice.site`: addresses and sidebar.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from typing import Any, cast

from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_safe

from feeds.admin.base import person
from feeds.models import Invitation
from feeds.pictures import FunnelChart, Picture, Stage, Table, percent, short_time, whole
from feeds.pictures import funnel as drawn
from feeds.services import access, funnel
from feeds.services.funnel import NOBODY, Cohort, Funnel, Group, Report, Times
from feeds.services.tables import Cell, as_csv
from feeds.states import INVITATION_MEANINGS, InvitationPurpose, InvitationState, Language, Text

TITLE = gettext_lazy("How far customers get")
URL_NAME = "invitation_funnel"
CSV_URL_NAME = "invitation_funnel_csv"
ANY = ("", gettext_lazy("any"))
MOST_MANAGERS = 50
"""Lines of the table by manager; the file has all of them."""


class CohortForm(forms.Form):
    """Which invitations to look at. What is left out means: the usual period, and any."""

    months = forms.TypedChoiceField(label=gettext_lazy("Made in"), coerce=int, required=False, empty_value=None)
    manager = forms.TypedChoiceField(label=gettext_lazy("Manager"), coerce=int, required=False, empty_value=None)
    language = forms.ChoiceField(label=gettext_lazy("Language"), choices=[], required=False)
    purpose = forms.ChoiceField(
        label=gettext_lazy("Purpose"), choices=[ANY, *InvitationPurpose.choices], required=False
    )

    def __init__(self, request: HttpRequest) -> None:
        super().__init__({"months": str(funnel.DEFAULT_MONTHS), **request.GET.dict()})
        months = cast(forms.TypedChoiceField, self.fields["months"])
        months.choices = [(count, _period(count)) for count in funnel.MONTHS]
        language = cast(forms.ChoiceField, self.fields["language"])
        language.choices = [ANY, *Language.choices, (funnel.BROWSERS, funnel.browsers_label())]
        if not access.sees_all(request.user):
            # Their customers are their own: there is nobody to choose.
            del self.fields["manager"]
            return
        chosen = cast(forms.TypedChoiceField, self.fields["manager"])
        people = [(user.pk, person(user)) for user in funnel.managers()]
        chosen.choices = [ANY, (NOBODY, _("without a manager")), *people]

    @property
    def cohort(self) -> Cohort:
        """What was asked for; the form must be valid."""
        asked = self.cleaned_data
        return Cohort(
            months=asked["months"] or funnel.DEFAULT_MONTHS,
            manager=asked.get("manager"),
            language=asked["language"],
            purpose=asked["purpose"],
        )

    def in_words(self) -> str:
        """The filters that are set, for a file."""
        told = []
        for name, field in self.fields.items():
            choices: Any = cast(forms.ChoiceField, field).choices
            if name != "months" and (value := self.cleaned_data[name]) not in ("", None):
                told.append(f"{field.label}: {dict(choices)[value]}")
        return "; ".join(told)


@dataclass(frozen=True, slots=True)
class StepCell:
    """What a table says of one step of one group."""

    reached: str
    share: str
    time: str


@dataclass(frozen=True, slots=True)
class Row:
    """One group: its name, its steps, and how long the whole way took."""

    label: str
    cells: Sequence[StepCell]
    whole: str


@dataclass(frozen=True, slots=True)
class Breakdown:
    """One table of groups. `note`: what it leaves out, if anything."""

    key: str
    title: str
    head: str
    rows: Sequence[Row]
    note: str = ""


# --- The pages -------------------------------------------------------------------------------------------------------
@require_safe
def view(request: HttpRequest) -> TemplateResponse:
    """The page. Raises PermissionDenied for who may not see invitations."""
    form = _asked(request)
    report = funnel.report(form.cohort, cast(User, request.user)) if form.is_valid() else None
    context = admin.site.each_context(request) | {
        "title": TITLE,
        "opts": Invitation._meta,
        "form": form,
        "report": report,
        "sees_all": access.sees_all(request.user),
        "query": request.GET.urlencode(),
    }
    if report is not None:
        context |= {
            "picture": picture(report),
            "steps": [str(_label(state)) for state, _column in funnel.STEPS],
            "breakdowns": _breakdowns(report) if report.total.made else [],
            "standing": _standing(report.total),
            "sample": _sample(report),
        }
    return TemplateResponse(request, "admin/feeds/invitation/funnel.html", context)


@require_safe
def csv_view(request: HttpRequest) -> HttpResponse:
    """The same figures as a file: totals and medians, and nothing of any one customer."""
    form = _asked(request)
    if not form.is_valid():
        # The page says what is wrong with the address.
        return HttpResponseRedirect(f"{reverse(f'admin:{URL_NAME}')}?{request.GET.urlencode()}")
    report = funnel.report(form.cohort, cast(User, request.user))
    # Some thousand lines at most, and written in the reader's language while the request still knows it.
    content = b"".join(as_csv(CSV_COLUMNS, _csv_rows(report, form.in_words())))
    response = HttpResponse(content, content_type="text/csv; charset=utf-8")
    name = f"invitations-{report.first_day:%Y-%m}-to-{report.as_of.astimezone(UTC):%Y-%m-%d}.csv"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def sidebar_entry(request: HttpRequest) -> dict[str, Any] | None:
    """The page among the screens of the sidebar, in the shape the stock templates read; None without the permission."""
    if not _may_see(request):
        return None
    return {
        "name": TITLE,
        "object_name": "InvitationFunnel",
        "admin_url": reverse(f"admin:{URL_NAME}"),
        "add_url": None,
        "view_only": True,
    }


def _may_see(request: HttpRequest) -> bool:
    return admin.site.get_model_admin(Invitation).has_view_permission(request)


def _asked(request: HttpRequest) -> CohortForm:
    if not _may_see(request):
        raise PermissionDenied
    return CohortForm(request)


# --- The picture -----------------------------------------------------------------------------------------------------
def picture(report: Report) -> Picture:
    """The funnel, with the table of every figure it was drawn from."""
    total = report.total
    return drawn(
        FunnelChart(
            key="invitations",
            title=_("From invited to connected"),
            summary=_summary(total),
            empty=_("No invitation was made in this period that fits what you chose."),
            stages=tuple(
                Stage(str(_label(step.state)), step.reached, _median(step.took) if place else "")
                for place, step in enumerate(total.steps)
            ),
            bar_label=_("Invitations that came at least this far"),
            table=Table(
                (
                    _("Step"), _("Reached"), _("Of all made"), _("Of the step before"), _("Of them, skipped it"),
                    _("Median time since the step before"), _("Nine in ten within"), _("Measured"),
                ),
                tuple(_table_row(total, place) for place in range(len(total.steps))),
            ),
            as_of=report.as_of,
            note=_("Shares are of all invitations made. Times are from the step before."),
        )
    )  # fmt: skip


def _summary(total: Funnel) -> str:
    told = ngettext(
        "Of %(made)s invitation %(connected)s led to a connected customer (%(share)s).",
        "Of %(made)s invitations %(connected)s led to a connected customer (%(share)s).",
        total.made,
    ) % {"made": whole(total.made), "connected": whole(total.connected), "share": percent(total.connected, total.made)}
    if total.whole.median is None:
        return told
    return f"{told} " + _("From made to connected: %s.") % _median(total.whole)


def _table_row(total: Funnel, place: int) -> tuple[str, ...]:
    step = total.steps[place]
    cells = (str(_label(step.state)), whole(step.reached), percent(step.reached, total.made))
    if place == 0:
        return (*cells, "—", "—", "—", "—", "—")
    took = step.took
    return (
        *cells,
        percent(step.reached, total.steps[place - 1].reached),
        whole(step.skipped),
        _time(took.median),
        _time(took.p90),
        whole(took.count),
    )


def _label(state: InvitationState) -> Text:
    return INVITATION_MEANINGS[state].label


def _time(time: timedelta | None) -> str:
    return "—" if time is None else short_time(time)


def _median(took: Times) -> str:
    """The median and of how many; that it means little, when they are few."""
    if took.median is None:
        return _("no time known")
    words = _("median %(time)s, of %(count)s: few") if took.are_few else _("median %(time)s, of %(count)s")
    return words % {"time": short_time(took.median), "count": whole(took.count)}


def _cell_time(took: Times) -> str:
    """As `_median`, for a narrow cell; nothing where no time is known."""
    if took.median is None:
        return ""
    words = _("%(time)s (%(count)s, few)") if took.are_few else _("%(time)s (%(count)s)")
    return words % {"time": short_time(took.median), "count": whole(took.count)}


# --- The tables ------------------------------------------------------------------------------------------------------
def _breakdowns(report: Report) -> list[Breakdown]:
    found = [
        Breakdown("month", _("By month"), _("Month made"), [_row(group) for group in report.by_month]),
        Breakdown("language", _("By language"), _("Language"), [_row(group) for group in report.by_language]),
    ]
    if report.by_manager:
        shown = report.by_manager[:MOST_MANAGERS]
        note = ""
        if len(report.by_manager) > len(shown):
            note = _("The %(shown)s with the most invitations of %(all)s. The file has all of them.") % {
                "shown": whole(len(shown)),
                "all": whole(len(report.by_manager)),
            }
        rows = [_row(group) for group in shown]
        found.append(Breakdown("manager", _("By relationship manager"), _("Manager"), rows, note))
    return found


def _row(group: Group) -> Row:
    made = group.funnel.made
    return Row(
        _group_label(group),
        [
            StepCell(
                whole(step.reached),
                percent(step.reached, made) if place and made else "",
                _cell_time(step.took) if place else "",
            )
            for place, step in enumerate(group.funnel.steps)
        ],
        _cell_time(group.funnel.whole) or "—",
    )


def _group_label(group: Group) -> str:
    if isinstance(group.key, date):
        return date_format(group.key, "F Y")
    return _("without a manager") if group.key == NOBODY else group.label


def _standing(total: Funnel) -> list[tuple[str, str]]:
    """What became of those that did not lead to a connected customer."""
    labels = {
        "open": _("still open"),
        "expired": _("ran out"),
        "revoked": _("withdrawn"),
        "replaced": _("replaced by a newer one"),
    }
    return [(label, whole(total.standing[name])) for name, label in labels.items()]


def _sample(report: Report) -> str:
    if report.one_in == 1:
        return _("Times are of all of them.")
    return _(
        "Counts are of all of them. They are so many that times were read of one in %(one_in)s, evenly over the period."
    ) % {"one_in": whole(report.one_in)}


def _period(months: int) -> str:
    return ngettext("this month", "the last %(months)s months", months) % {"months": months}


# --- The file --------------------------------------------------------------------------------------------------------
CSV_COLUMNS = (
    "as_of_utc", "made_from", "filters", "by", "group", "step", "reached", "percent_of_made",
    "percent_of_step_before", "skipped", "measured", "one_in", "median_seconds", "p90_seconds",
)  # fmt: skip
"""Columns of the file: a line for each step of each group. The last line of a group is the whole way."""


def _csv_rows(report: Report, filters: str) -> Iterator[tuple[Cell, ...]]:
    start = (report.as_of.astimezone(UTC).isoformat(timespec="seconds"), report.first_day.isoformat(), filters)
    everything = [("total", Group("", "", report.total))]
    everything += [("month", group) for group in report.by_month]
    everything += [("language", group) for group in report.by_language]
    everything += [("manager", group) for group in report.by_manager]
    for by, group in everything:
        name = f"{group.key:%Y-%m}" if isinstance(group.key, date) else _group_label(group) if by != "total" else ""
        steps = group.funnel.steps
        for place, step in enumerate(steps):
            before = steps[place - 1].reached if place else 0
            yield (
                *start, by, name, step.state.value, step.reached, _share(step.reached, group.funnel.made),
                _share(step.reached, before), step.skipped, *_csv_times(step.took, report),
            )  # fmt: skip
        connected = group.funnel.connected
        yield (
            *start, by, name, "made to connected", connected, _share(connected, group.funnel.made), None, None,
            *_csv_times(group.funnel.whole, report),
        )  # fmt: skip


def _share(part: int, total: int) -> Cell:
    return f"{100 * part / total:.1f}" if total else None


def _csv_times(took: Times, report: Report) -> tuple[Cell, ...]:
    seconds = [None if time is None else round(time.total_seconds()) for time in (took.median, took.p90)]
    return (took.count, report.one_in, *seconds)

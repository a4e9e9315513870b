"""Incidents: many feeds that broke together, their cases in groups, and the button that lets their mails go."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.admin.actions import ActionsAdmin, object_action
from feeds.admin.base import MirrorAdmin, status_pill, time_column
from feeds.audit import current_actor
from feeds.models import Case, Incident
from feeds.services import incidents
from feeds.states import CASE_MEANINGS, CASE_RIGHTS, CaseState, Meaning, Text, Tone

HOLDING = Meaning(
    gettext_lazy("holds its mails"),
    Tone.BAD,
    gettext_lazy("Further breaks join it, and mails about its cases wait."),
    gettext_lazy("When the fault is over, press Release."),
)
RELEASED = Meaning(gettext_lazy("released"), Tone.GOOD, gettext_lazy("New breaks are told one by one again."))
ROWS = 200
"""Cases in one group; the rest is reached by the worklist."""


class ReleaseForm(forms.Form):
    """What it was, for those who read about it later."""

    note = forms.CharField(
        label=gettext_lazy("What it was"),
        max_length=2000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
    )


def is_released(incident: Incident) -> Text:
    """Why there is nothing to release."""
    return _("This incident is released already.") if incident.released_at else ""


@admin.register(Incident)
class IncidentAdmin(ActionsAdmin[Incident], MirrorAdmin[Incident]):
    """List and page."""

    of_all_customers = True
    list_display = ("name", "now", "how_many", "released", "released_by_name")
    list_display_links = ("name",)

    released = time_column("released_at", gettext_lazy("released"))
    name = time_column("opened_at", gettext_lazy("opened"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Incident]:
        """Incidents with the number of their cases."""
        # A subquery: a join would be grouped and counted whole before the list knows how many rows it has.
        of_this = Case.objects.filter(incident=OuterRef("pk")).order_by().values("incident")
        counted = Subquery(of_this.annotate(number=Count("pk")).values("number"))
        return super().get_queryset(request).annotate(case_count=Coalesce(counted, 0))

    @admin.display(description=gettext_lazy("state"))
    def now(self, incident: Incident) -> SafeString:
        return status_pill(_state(incident))

    @admin.display(description=gettext_lazy("cases"))
    def how_many(self, incident: Incident) -> int:
        count: int = incident.case_count  # type: ignore[attr-defined]
        return count

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Incident | None = None,
    ) -> HttpResponse:
        """What is held, the Release button, and the cases by what has become of them."""
        if obj is not None:
            context |= {
                "subtitle": str(obj),
                "incident": obj,
                "state": _state(obj),
                "buttons": [button for button in self.action_buttons(request, obj) if not button.unavailable],
                "groups": _groups(obj),
                "rows": ROWS,
            }
        return super().render_change_form(request, context, add=add, change=change, form_url=form_url, obj=obj)

    @object_action(
        "release",
        gettext_lazy("Release"),
        permission=CASE_RIGHTS["release_incident"],
        form=ReleaseForm,
        consequences=lambda incident: [
            _("Owners get one summary mail instead of one mail for each of %d cases.") % incident.case_count,
            _("From now on a break is told by itself again."),
        ],
        unavailable=is_released,
    )
    def release(self, request: HttpRequest, incident: Incident, data: dict[str, Any]) -> str:
        incidents.release(incident, current_actor(), data["note"])
        return _("The incident is released.")


def _state(incident: Incident) -> Meaning:
    return RELEASED if incident.released_at else HOLDING


def _groups(incident: Incident) -> list[tuple[Meaning, list[Case]]]:
    """The cases by state: what nobody works on first. Empty groups are left out."""
    groups = [
        (CASE_MEANINGS[state], list(_cases(incident).filter(state=state)[:ROWS]))
        for state in (CaseState.OPEN, CaseState.TAKEN, CaseState.SNOOZED, CaseState.CLOSED)
    ]
    return [(meaning, found) for meaning, found in groups if found]


def _cases(incident: Incident) -> QuerySet[Case]:
    return Case.objects.filter(incident=incident).select_related("company", "owner").order_by("due_at", "pk")

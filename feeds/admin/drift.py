"""Drift: where Codat and our mirror differ, as the nightly comparison found, and what can be done about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.admin.actions import ActionsAdmin, object_action
from feeds.admin.base import MirrorAdmin, PersonField, link_column, link_to, status_pill, time_column
from feeds.audit import current_actor
from feeds.models import Company, DriftFinding, DriftReport
from feeds.services import drift
from feeds.states import DriftKind, Meaning, Text, Tone

ROWS = 100
"""Differences of one kind on the page of a report; the list of differences has the rest."""
ADOPT = "feeds.adopt_company"

UNDER_WAY = Meaning(gettext_lazy("under way"), Tone.WAITING, gettext_lazy("Codat is being read."))
BROKEN_OFF = Meaning(
    gettext_lazy("broken off"),
    Tone.BAD,
    gettext_lazy("Codat could not be read to the end: what is missing is not known."),
)
COMPLETE = Meaning(gettext_lazy("complete"), Tone.GOOD, gettext_lazy("Every company in Codat was compared."))

NEXT_STEPS: dict[DriftKind, Text] = {
    DriftKind.MISSING_HERE: gettext_lazy("Somebody made them in the Codat Portal. Adopt those that are customers."),
    DriftKind.MISSING_THERE: gettext_lazy(
        "Somebody deleted them in the Codat Portal. Ask who, then onboard them anew."
    ),
    DriftKind.RENAMED: gettext_lazy("Correct the legal name here, or the name in the Codat Portal."),
    DriftKind.STATUS: gettext_lazy("Open the company and press Refresh status."),
    DriftKind.ACCOUNTS: gettext_lazy("Open the company and press Refresh status; then compare its accounts."),
}


class AdoptForm(forms.Form):
    """What Codat does not know of a company that was made in its Portal."""

    customer_number = forms.CharField(
        label=gettext_lazy("Customer number"),
        help_text=gettext_lazy("Your bank's own number for this customer."),
        max_length=Company._meta.get_field("customer_number").max_length,
    )
    manager = PersonField(
        label=gettext_lazy("Relationship manager"),
        queryset=User.objects.filter(is_active=True, is_staff=True).order_by("last_name", "username"),
    )


def cannot_adopt(finding: DriftFinding) -> Text:
    """Why there is nothing to adopt."""
    if finding.kind != DriftKind.MISSING_HERE:
        return _("Only a company that is in Codat and not here can be adopted.")
    return _("This company is adopted already.") if finding.adopted_at else ""


@admin.register(DriftReport)
class DriftReportAdmin(MirrorAdmin[DriftReport]):
    """One comparison a night, and what it found."""

    of_all_customers = True
    list_display = ("started", "state", "companies_read", "finished")
    list_display_links = ("started",)

    started = time_column("started_at", gettext_lazy("started"))
    finished = time_column("finished_at", gettext_lazy("finished"))

    @admin.display(description=gettext_lazy("state"))
    def state(self, report: DriftReport) -> SafeString:
        return status_pill(_state(report))

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: DriftReport | None = None,
    ) -> HttpResponse:
        """The differences, kind by kind."""
        if obj is not None:
            context |= {
                "report": obj,
                "state": _state(obj),
                "groups": _groups(obj),
                "rows": ROWS,
                "may_adopt": request.user.has_perm(ADOPT) and request.user.has_perm("feeds.view_driftfinding"),
            }
        return super().render_change_form(request, context, add=add, change=change, form_url=form_url, obj=obj)


def _state(report: DriftReport) -> Meaning:
    if report.error:
        return BROKEN_OFF
    return COMPLETE if report.finished_at else UNDER_WAY


@dataclass(frozen=True)
class Group:
    """The differences of one kind, and what to do about them."""

    kind: DriftKind
    next_step: Text
    findings: list[DriftFinding]


def _groups(report: DriftReport) -> list[Group]:
    """At most `ROWS` differences of each kind; kinds without any are left out."""
    found = DriftFinding.objects.filter(report=report).select_related("company").order_by("pk")
    groups = [Group(kind, NEXT_STEPS[kind], list(found.filter(kind=kind)[:ROWS])) for kind in DriftKind]
    return [group for group in groups if group.findings]


@admin.register(DriftFinding)
class DriftFindingAdmin(ActionsAdmin[DriftFinding], MirrorAdmin[DriftFinding]):
    """One difference. A company made in the Codat Portal can be adopted from here."""

    list_display = ("__str__", "kind", "company_link", "in_report", "adopted")
    list_select_related = ("company", "report")
    list_filter = ("kind",)
    search_company_path = "company"
    search_exact = ("codat_company_id",)
    fields = ("kind", "there", "here", "company_link", "codat_company_id", "in_report", "adopted")

    adopted = time_column("adopted_at", gettext_lazy("adopted"))
    company_link = link_column("company", gettext_lazy("company"))

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Reached from its report: the sidebar has one entry for drift."""
        return False

    @admin.display(description=gettext_lazy("report"))
    def in_report(self, finding: DriftFinding) -> SafeString:
        return link_to(finding.report)

    @object_action(
        "adopt",
        gettext_lazy("Adopt"),
        permission=ADOPT,
        form=AdoptForm,
        consequences=lambda finding: [
            _("“%s” becomes a company here, with its connection and accounts as Codat has them now.") % finding.there,
            _("Nothing changes in Codat. The contact is not known there: fill it in afterwards."),
        ],
        unavailable=cannot_adopt,
    )
    def adopt(self, request: HttpRequest, finding: DriftFinding, data: dict[str, Any]) -> str:
        company = drift.adopt(
            finding, actor=current_actor(), manager=data["manager"], customer_number=data["customer_number"]
        )
        return format_html(_("Adopted: {}."), link_to(company))

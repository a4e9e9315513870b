"""Emergency access: the page on which it is asked for, and the list of who was let in where, and why."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from feeds.admin.actions import ActionsAdmin, ReasonForm, object_action
from feeds.admin.base import (
    MirrorAdmin,
    change_url,
    link_column,
    moment,
    named,
    status_explained,
    status_pill,
    time_column,
)
from feeds.audit import current_actor
from feeds.models import AccessGrant, Company
from feeds.services import access
from feeds.services.errors import Refused
from feeds.states import Text


class AskForm(ReasonForm):
    """Which customer, and why."""

    customer_number = forms.CharField(
        label=gettext_lazy("Customer number"),
        help_text=gettext_lazy("The whole number, exactly as it is stored. There is no list to choose from."),
        max_length=Company._meta.get_field("customer_number").max_length,
    )
    field_order = ("customer_number", "reason")


class InForceFilter(admin.SimpleListFilter):
    """Those that open a customer now."""

    title = gettext_lazy("state")
    parameter_name = "now"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """One choice: the others are history."""
        return [("open", _("in force"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AccessGrant]) -> QuerySet[AccessGrant]:
        """Grants in force."""
        if self.value() != "open":
            return queryset
        return queryset.filter(expires_at__gt=timezone.now(), ended_at__isnull=True)


@admin.register(AccessGrant)
class AccessGrantAdmin(ActionsAdmin[AccessGrant], MirrorAdmin[AccessGrant]):
    """List, detail, and asking. Managers see their own and those to their customers."""

    list_display = ("user_name", "customer", "since", "until", "state_now", "reason")
    list_select_related = ("company",)
    list_filter = (InForceFilter,)
    search_company_path = "company"
    search_help_text = gettext_lazy("Customer number, or the start of the legal name.")
    fieldsets = (
        (None, {"fields": ("company_link", "user_name", "reason", "state_words")}),
        (gettext_lazy("When"), {"fields": ("since", "until", "ended", "ended_by_name")}),
    )

    since = time_column("created_at", gettext_lazy("since"))
    until = time_column("expires_at", gettext_lazy("until"))
    ended = time_column("ended_at", gettext_lazy("ended early"))
    company_link = link_column("company", gettext_lazy("company"))

    def visible_to(self, request: HttpRequest, queryset: QuerySet[AccessGrant]) -> QuerySet[AccessGrant]:
        """One's own and those to one's customers, or all."""
        return access.visible_grants(request.user, queryset)

    @admin.display(description=gettext_lazy("company"))
    def customer(self, grant: AccessGrant) -> SafeString:
        return named(grant.company)

    @admin.display(description=gettext_lazy("state"))
    def state_now(self, grant: AccessGrant) -> SafeString:
        return status_pill(grant.state_at(timezone.now()))

    @admin.display(description=gettext_lazy("state"))
    def state_words(self, grant: AccessGrant) -> SafeString:
        return status_explained(grant.state_at(timezone.now()))

    # --- Asking -----------------------------------------------------------------------------------------------------
    def has_add_permission(self, request: HttpRequest) -> bool:
        """Who may break the glass, and does not see every customer anyway."""
        return request.user.has_perm(access.BREAK_GLASS)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """GET: what will happen. POST: open the customer, and go there."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = AskForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            try:
                grant = access.break_glass(actor=current_actor(), **form.cleaned_data)
            except Refused as error:
                messages.error(request, str(error))
            else:
                opened = _("You see this customer until {}. The access is recorded, and its manager is told.")
                messages.warning(request, format_html(opened, moment(grant.expires_at)))
                return HttpResponseRedirect(change_url(grant.company))
        return self._ask_page(request, form)

    def _ask_page(self, request: HttpRequest, form: AskForm) -> HttpResponse:
        hours = settings.EMERGENCY_ACCESS_HOURS
        context = {
            **self.admin_site.each_context(request),
            "title": _("Ask for emergency access"),
            "opts": self.opts,
            "form": form,
            "consequences": _consequences(hours),
        }
        return TemplateResponse(request, "admin/feeds/accessgrant/ask.html", context)

    @object_action(
        "end",
        gettext_lazy("End now"),
        permission="feeds.end_accessgrant",
        consequences=lambda grant: [
            _("%(name)s no longer sees %(company)s, from this moment on.")
            % {"name": grant.user_name, "company": grant.company}
        ],
        unavailable=access.why_not_end,
    )
    def end(self, request: HttpRequest, grant: AccessGrant, data: dict[str, Any]) -> str:
        access.end(grant, current_actor())
        return _("The emergency access has ended.")


def _consequences(hours: int) -> list[Text]:
    length = ngettext("%(count)d hour", "%(count)d hours", hours) % {"count": hours}
    return [
        _("For %(hours)s you see and work this one customer as if it were yours.") % {"hours": length},
        _("Its relationship manager and the administrators are told by mail, with your reason."),
        _("That you asked, and everything you change, is kept in the change history."),
    ]

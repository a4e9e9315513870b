"""Bulk onboardings: one click, or one file, and what has become of each of its companies."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Case, IntegerField, QuerySet, Value, When
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from feeds.admin.actions import ActionsAdmin, object_action
from feeds.admin.base import MirrorAdmin, moment
from feeds.admin.companies import REFRESH_MS
from feeds.audit import current_actor
from feeds.models import Batch
from feeds.services import access, onboarding
from feeds.states import OnboardingState, Text

ROWS = 200
"""Companies on the page of a batch: those that need a person come first, the rest is reached by the list."""


def nothing_failed(batch: Batch) -> Text:
    """Why there is nothing to retry."""
    return "" if onboarding.batch_progress(batch, current_actor()).failed else _("No company of this batch has failed.")


def _retry_consequences(batch: Batch) -> list[Text]:
    count = onboarding.batch_progress(batch, current_actor()).failed
    text = ngettext("%(count)d company is tried again.", "%(count)d companies are tried again.", count)
    return [
        text % {"count": count},
        _("Each continues from the step that failed. What is in Codat already is not created again."),
    ]


@admin.register(Batch)
class BatchAdmin(ActionsAdmin[Batch], MirrorAdmin[Batch]):
    """Read-only, with live progress."""

    list_display = ("label", "requested_by_name", "source", "asked")
    fields = readonly_fields = ("label",)

    def visible_to(self, request: HttpRequest, queryset: QuerySet[Batch]) -> QuerySet[Batch]:
        """Those the person asked for, or all."""
        return access.visible_batches(request.user, queryset)

    class Media:
        js = ("feeds/progress.js",)

    @admin.display(description=gettext_lazy("asked"))
    def asked(self, batch: Batch) -> SafeString:
        return moment(batch.created_at)

    def get_urls(self) -> list[URLPattern]:
        """The stock addresses and the live panel."""
        view = self.admin_site.admin_view(self.progress_view)
        return [path("<path:object_id>/progress/", view, name="feeds_batch_progress"), *super().get_urls()]

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Batch | None = None,
    ) -> HttpResponse:
        """The live panel is the whole page."""
        if obj is not None:
            context |= self._panel(request, obj)
        return super().render_change_form(request, context, add=add, change=change, form_url=form_url, obj=obj)

    def progress_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The live panel alone; `progress.js` asks for it until nothing waits."""
        batch = self.get_object(request, object_id)
        if batch is None:
            raise Http404
        if not self.has_view_permission(request, batch):
            raise PermissionDenied
        return render(request, "admin/feeds/batch/progress.html", self._panel(request, batch))

    def _panel(self, request: HttpRequest, batch: Batch) -> dict[str, Any]:
        """What `admin/feeds/batch/progress.html` renders."""
        progress = onboarding.batch_progress(batch, current_actor())
        needs_person_first = Case(
            When(onboarding_state=OnboardingState.FAILED, then=Value(0)),
            When(onboarding_state__in=onboarding.SETTLED_STATES, then=Value(2)),
            default=Value(1),
            output_field=IntegerField(),
        )
        # One of them may have become another manager's since.
        seen = access.companies_of(current_actor())
        companies = seen.filter(batch_items__batch=batch).order_by(needs_person_first, "pk")
        return {
            "batch": batch,
            "progress": progress,
            "companies": companies[:ROWS],
            "not_shown": max(0, progress.total - ROWS),
            "panel_buttons": [button for button in self.action_buttons(request, batch) if not button.unavailable],
            "refresh_ms": REFRESH_MS if progress.waiting else None,
        }

    @object_action(
        "retry-failed",
        gettext_lazy("Retry the failed"),
        permission="feeds.onboard_company",
        consequences=_retry_consequences,
        unavailable=nothing_failed,
    )
    def retry_failed(self, request: HttpRequest, batch: Batch, data: dict[str, Any]) -> str:
        result = onboarding.retry_failed(batch, actor=current_actor())
        count = result.accepted
        text = ngettext("%(count)d company continues.", "%(count)d companies continue.", count) % {"count": count}
        return " ".join((text, _("The others follow by themselves."))) if result.more else text

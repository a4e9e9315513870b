"""Seals over the change history: what was sealed when, where each seal was sent, and whether it all still holds."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from feeds.admin.base import EMPTY, MirrorAdmin, moment, status_explained, status_pill, time_column
from feeds.audit import current_actor
from feeds.models import AuditSeal, AuditSealDelivery, HistoryCheck
from feeds.services import history_checks, seal_delivery, seals
from feeds.services.errors import Refused
from feeds.states import CheckState, Meaning, Tone
from feeds.wording import retold

VERIFY = "feeds.verify_history"
SHOWN_OF_HASH = 12
"""Characters of a hash in a list; its page shows all."""

_DELIVERIES: dict[str, Tone] = {
    AuditSealDelivery.State.QUEUED: Tone.WAITING,
    AuditSealDelivery.State.SENT: Tone.GOOD,
    AuditSealDelivery.State.FAILED: Tone.BAD,
}


@admin.register(AuditSeal)
class AuditSealAdmin(MirrorAdmin[AuditSeal]):
    """The list, with the last verification above it and the button for the next."""

    list_display = ("number", "sealed", "range", "entries", "short_hash", "sent_to")
    list_display_links = ("number",)
    fieldsets = (
        (None, {"fields": ("number", "sealed", "range", "entries", "oldest", "newest", "sent_to")}),
        (gettext_lazy("Hashes"), {"fields": ("sha256", "previous_sha256", "entries_sha256", "version")}),
    )

    sealed = time_column("sealed_at", gettext_lazy("sealed"))
    oldest = time_column("oldest_at", gettext_lazy("oldest entry"))
    newest = time_column("newest_at", gettext_lazy("newest entry"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditSeal]:
        """Seals with where they were sent: one more query for the whole page."""
        deliveries = AuditSealDelivery.objects.order_by("pk")
        return super().get_queryset(request).prefetch_related(Prefetch("deliveries", queryset=deliveries))

    def get_urls(self) -> list[URLPattern]:
        """The stock addresses, and the button's."""
        verify = path("verify/", self.admin_site.admin_view(self.verify_view), name="feeds_auditseal_verify")
        return [verify, *super().get_urls()]

    @admin.display(description=gettext_lazy("entries by id"))
    def range(self, seal: AuditSeal) -> str:
        return f"{seal.first_entry} – {seal.last_entry}"

    @admin.display(description=gettext_lazy("hash"))
    def short_hash(self, seal: AuditSeal) -> SafeString:
        return format_html('<code title="{}">{}…</code>', seal.sha256, seal.sha256[:SHOWN_OF_HASH])

    @admin.display(description=gettext_lazy("sent to"))
    def sent_to(self, seal: AuditSeal) -> SafeString:
        sent = [
            (
                one.destination,
                status_pill(Meaning(one.get_state_display(), _DELIVERIES[one.state], one.error or "")),
                moment(one.sent_at),
            )
            for one in seal.deliveries.all()
        ]
        return format_html_join(SafeString("<br>"), "{} {} {}", sent) if sent else EMPTY

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, with what the last verification found."""
        first, since = seals.unsealed()
        latest = HistoryCheck.objects.first()
        context = {
            "latest": latest,
            "is_lost": latest is not None and history_checks.is_lost(latest),
            "unsealed_first": first,
            "unsealed_since": since,
            "not_compared": seal_delivery.unreadable(),
            "may_verify": request.user.has_perm(VERIFY),
            "is_under_way": latest is not None and latest.state == CheckState.QUEUED,
        }
        return super().changelist_view(request, context | (extra_context or {}))

    @method_decorator(require_POST)
    def verify_view(self, request: HttpRequest) -> HttpResponse:
        """Verify everything, at once or through the queue."""
        if not (self.has_view_permission(request) and request.user.has_perm(VERIFY)):
            raise PermissionDenied
        try:
            check = history_checks.ask(actor=current_actor())
        except Refused as refusal:
            messages.error(request, str(refusal))
        else:
            _say(request, check)
        return HttpResponseRedirect(reverse("admin:feeds_auditseal_changelist"))


def _say(request: HttpRequest, check: HistoryCheck) -> None:
    if check.state == CheckState.QUEUED:
        messages.success(request, _("The verification has started. Reload this page for its result."))
    elif check.state == CheckState.INTACT:
        messages.success(request, _("Verified: nothing was altered."))
    elif check.state == CheckState.ALTERED:
        messages.error(request, _("The history was altered. What was found stands below."))
    else:
        messages.warning(request, _("The verification stopped before its end: nothing is known. Try again."))


@admin.register(HistoryCheck)
class HistoryCheckAdmin(MirrorAdmin[HistoryCheck]):
    """Every verification, with its result."""

    list_display = ("asked", "requested_by_name", "result", "finished", "seals", "entries", "first_bad_seal")
    list_display_links = ("asked",)
    list_filter = ("state",)
    fieldsets = (
        (None, {"fields": ("result_words", "asked", "requested_by_name", "finished")}),
        (
            gettext_lazy("What was found"),
            {
                "fields": (
                    "seals", "entries", "purged", "unsealed", "last_seal_sha256", "first_bad_seal", "what_is_wrong",
                )
            },
        ),
    )  # fmt: skip

    asked = time_column("asked_at", gettext_lazy("asked"))
    finished = time_column("finished_at", gettext_lazy("as of"))

    @admin.display(description=gettext_lazy("result"))
    def result(self, check: HistoryCheck) -> SafeString:
        return status_pill(check.state_meaning)

    @admin.display(description=gettext_lazy("result"))
    def result_words(self, check: HistoryCheck) -> SafeString:
        return status_explained(check.state_meaning)

    @admin.display(description=gettext_lazy("what is wrong"))
    def what_is_wrong(self, check: HistoryCheck) -> SafeString:
        lines = format_html_join("", "<li>{}</li>", ((retold(problem),) for problem in check.problems))
        return format_html("<ul>{}</ul>", lines) if check.problems else EMPTY

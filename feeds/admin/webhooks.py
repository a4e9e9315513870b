"""The webhook inbox: what came, what became of it, and Apply again."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.admin.actions import ActionsAdmin, list_action, object_action
from feeds.admin.base import (
    EMPTY,
    MirrorAdmin,
    json_block,
    link_column,
    status_explained,
    status_pill,
    time_column,
    values_filter,
)
from feeds.audit import current_actor
from feeds.models import WebhookEvent
from feeds.services import inbox
from feeds.states import Text
from feeds.wording import retold


def _consequences(event: WebhookEvent) -> list[Text]:
    return [
        _("Its company is read from Codat again; every webhook of that company that waits is applied with it."),
        _("Nothing is changed in Codat, and the customer notices nothing."),
    ]


@admin.register(WebhookEvent)
class WebhookAdmin(ActionsAdmin[WebhookEvent], MirrorAdmin[WebhookEvent]):
    """List and detail. Bodies were redacted before they were stored."""

    list_display = ("event_type", "state_now", "company_link", "received", "applied", "lag")
    list_select_related = ("company",)
    list_filter = ("state", values_filter("event_type", gettext_lazy("type"), [(it, it) for it in inbox.EVENT_TYPES]))
    search_exact = ("webhook_id", "codat_company_id")
    search_company_path = "company"
    search_help_text = gettext_lazy("Webhook id, customer number, Codat company id, or the start of the legal name.")
    actions = ("apply_selected_again",)
    fieldsets = (
        (None, {"fields": ("event_type", "state_words", "plain_error")}),
        (gettext_lazy("About"), {"fields": ("company_link", "codat_company_id", "webhook_id")}),
        (gettext_lazy("When"), {"fields": ("sent", "received", "applied", "lag", "next_attempt", "attempts")}),
        (gettext_lazy("What was sent"), {"fields": ("body_text",)}),
    )

    company_link = link_column("company", gettext_lazy("company"))
    sent = time_column("generated_at", gettext_lazy("sent by Codat"))
    received = time_column("received_at", gettext_lazy("received"))
    applied = time_column("applied_at", gettext_lazy("applied"))
    next_attempt = time_column("due_at", gettext_lazy("next attempt"))

    @admin.display(description=gettext_lazy("state"))
    def state_now(self, event: WebhookEvent) -> SafeString:
        pill = status_pill(event.state_meaning)
        return format_html("{}<br>{}", pill, retold(event.error)) if event.error else pill

    @admin.display(description=gettext_lazy("state"))
    def state_words(self, event: WebhookEvent) -> SafeString:
        return status_explained(event.state_meaning)

    @admin.display(description=gettext_lazy("applied after"))
    def lag(self, event: WebhookEvent) -> str:
        if event.applied_at is None:
            return EMPTY
        return _("%s s") % number_format((event.applied_at - event.received_at).total_seconds(), decimal_pos=1)

    @admin.display(description=gettext_lazy("what went wrong"))
    def plain_error(self, event: WebhookEvent) -> str:
        return retold(event.error) or EMPTY

    @admin.display(description=gettext_lazy("body (redacted)"))
    def body_text(self, event: WebhookEvent) -> SafeString:
        return json_block(event.body)

    @object_action(
        "apply-again",
        gettext_lazy("Apply again"),
        permission="feeds.reapply_webhook",
        consequences=_consequences,
        unavailable=inbox.why_not_again,
    )
    def apply_again(self, request: HttpRequest, event: WebhookEvent, data: dict[str, Any]) -> str:
        inbox.reapply(event, actor=current_actor())
        return _("Queued: it is applied within seconds.")

    @list_action(gettext_lazy("Apply again"), permission="feeds.reapply_webhook", four_eyes="reapply_webhooks")
    def apply_selected_again(self, request: HttpRequest, events: list[WebhookEvent]) -> None:
        self.for_each(request, events, lambda event: inbox.reapply(event, actor=current_actor()))

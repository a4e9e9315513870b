"""Every change of a status that was seen, of all customers: newest first, read-only."""

from __future__ import annotations

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.admin.base import (
    SEARCH_BY_COMPANY,
    MirrorAdmin,
    link_column,
    named,
    status_explained,
    status_pill,
    time_column,
)
from feeds.models import StatusEvent
from feeds.states import Text


@admin.register(StatusEvent)
class StatusEventAdmin(MirrorAdmin[StatusEvent]):
    """List and detail."""

    list_display = ("about", "change", "seen", "seen_by", "reference")
    list_select_related = ("company", "account")
    list_filter = ("seen_by",)
    search_company_path = "company"
    search_help_text = SEARCH_BY_COMPANY
    fieldsets = (
        (None, {"fields": ("company_link", "connection_link", "account_link", "old_words", "new_words")}),
        (gettext_lazy("How we know"), {"fields": ("seen", "seen_by", "reference", "written")}),
    )

    seen = time_column("seen_at", gettext_lazy("seen"))
    written = time_column("created_at", gettext_lazy("written"))
    company_link = link_column("company", gettext_lazy("company"))
    connection_link = link_column("connection", gettext_lazy("connection"))
    account_link = link_column("account", gettext_lazy("source account"))

    @admin.display(description=gettext_lazy("of"))
    def about(self, event: StatusEvent) -> SafeString:
        part = event.account.name if event.account else _("Connection")
        return format_html('{}<br><span class="quiet">{}</span>', named(event.company), part)

    @admin.display(description=gettext_lazy("change"))
    def change(self, event: StatusEvent) -> SafeString:
        return format_html("{} → {}", event.old_label, status_pill(event.new_meaning))

    @admin.display(description=gettext_lazy("from"))
    def old_words(self, event: StatusEvent) -> Text:
        return event.old_label

    @admin.display(description=gettext_lazy("to"))
    def new_words(self, event: StatusEvent) -> SafeString:
        return status_explained(event.new_meaning)

"""The ledger: every write to Codat, who asked for it, why, and what became of it. Read-only for everybody."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from feeds.admin.base import (
    EMPTY,
    MirrorAdmin,
    json_block,
    link_column,
    moment,
    status_explained,
    status_pill,
    time_column,
)
from feeds.models import Operation
from feeds.wording import retold

LONGEST_ID = 18
"""Digits that surely fit the database's integers; a longer number is no operation."""


@admin.register(Operation)
class OperationAdmin(MirrorAdmin[Operation]):
    """List and detail."""

    list_display = ("__str__", "state_now", "company_link", "asked")
    list_select_related = ("company",)
    list_filter = ("state", "kind")
    search_company_path = "company"
    search_help_text = gettext_lazy(
        "Operation number, customer number, Codat company id, or the start of the legal name."
    )
    fieldsets = (
        (None, {"fields": ("kind", "state_words", "plain_error", "plain_result", "correlation_id", "http_status")}),
        (gettext_lazy("About"), {"fields": ("company_link", "connection_link", "account_link")}),
        (gettext_lazy("Asked by"), {"fields": ("requested_by_name", "source", "reason")}),
        (gettext_lazy("When"), {"fields": ("asked_at", "first_sent", "finished", "next_attempt", "attempts")}),
        (gettext_lazy("What was sent"), {"fields": ("payload_text", "idempotency_key")}),
    )

    company_link = link_column("company", gettext_lazy("company"))
    connection_link = link_column("connection", gettext_lazy("connection"))
    account_link = link_column("account", gettext_lazy("source account"))
    asked_at = time_column("created_at", gettext_lazy("asked"))
    first_sent = time_column("started_at", gettext_lazy("first sent"))
    finished = time_column("finished_at", gettext_lazy("finished"))
    next_attempt = time_column("next_attempt_at", gettext_lazy("next attempt"))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Operation], search_term: str
    ) -> tuple[QuerySet[Operation], bool]:
        """Also by the number that messages and screens name an operation by ("#12")."""
        found, duplicates = super().get_search_results(request, queryset, search_term)
        number = search_term.strip().removeprefix("#")
        if number.isdecimal() and len(number) <= LONGEST_ID:
            found = queryset.filter(Q(pk=int(number)) | Q(company__in=self.company_ids(request, search_term.strip())))
        return found, duplicates

    @admin.display(description=gettext_lazy("state"))
    def state_now(self, operation: Operation) -> SafeString:
        pill = status_pill(operation.state_meaning)
        return format_html("{}<br>{}", pill, retold(operation.error)) if operation.error else pill

    @admin.display(description=gettext_lazy("state"))
    def state_words(self, operation: Operation) -> SafeString:
        return status_explained(operation.state_meaning)

    @admin.display(description=gettext_lazy("asked"))
    def asked(self, operation: Operation) -> SafeString:
        return format_html("{}<br>{}", operation.requested_by_name, moment(operation.created_at))

    @admin.display(description=gettext_lazy("what went wrong"))
    def plain_error(self, operation: Operation) -> str:
        return retold(operation.error) or EMPTY

    @admin.display(description=gettext_lazy("result"))
    def plain_result(self, operation: Operation) -> str:
        return retold(operation.result) or EMPTY

    @admin.display(description=gettext_lazy("payload (redacted)"))
    def payload_text(self, operation: Operation) -> SafeString:
        return json_block(operation.payload)

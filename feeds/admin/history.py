"""The change history: who did what, when, from where, why. Nobody edits it.

The library's own list joins and counts everything (1.7 s at a million rows); this one reads one page.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from feeds.admin.base import EMPTY, MirrorAdmin, time_column, withdraw
from feeds.models import AuditEntry

withdraw("auditlog", AuditEntry)

NOTHING = (None, "", "None")
"""How the library writes that a field had no value."""


class ModelFilter(admin.SimpleListFilter):
    """Only models on this site, read from the content types that Django keeps in memory."""

    title = gettext_lazy("what")
    parameter_name = "content_type__id__exact"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[AuditEntry]) -> list[tuple[str, str]]:
        """Content type id and name."""
        models = [model for model in model_admin.admin_site._registry if model._meta.app_label in ("feeds", "auth")]
        types = ContentType.objects.get_for_models(*models)
        return sorted(
            ((str(kind.pk), str(model._meta.verbose_name)) for model, kind in types.items()), key=lambda pair: pair[1]
        )

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEntry]) -> QuerySet[AuditEntry]:
        """Entries about the chosen model."""
        chosen = self.value() or ""
        return queryset.filter(content_type_id=int(chosen)) if chosen.isdecimal() else queryset


@admin.register(AuditEntry)
class AuditEntryAdmin(MirrorAdmin[AuditEntry]):
    """Newest first. The History button of an object leads here, filtered to that object."""

    of_all_customers = True
    list_display = ("when", "who", "what", "about", "short_changes", "reason")
    list_display_links = ("when",)
    list_select_related = ("content_type",)
    list_filter = (ModelFilter, "action")
    search_exact = ("object_pk", "cid")
    search_help_text = gettext_lazy("Number of the object, or request id.")
    fieldsets = (
        (None, {"fields": ("when", "actor_name", "actor_email", "source", "remote_addr", "reason")}),
        (gettext_lazy("What"), {"fields": ("what", "about", "all_changes", "details", "cid")}),
    )
    shown_changes = 3
    """Changed fields that one row of the list shows."""

    when = time_column("timestamp", gettext_lazy("when"))

    @admin.display(description=gettext_lazy("who"))
    def who(self, entry: AuditEntry) -> SafeString:
        return format_html('{}<br><span class="quiet">{}</span>', entry.actor_name, entry.source)

    @admin.display(description=gettext_lazy("what"))
    def what(self, entry: AuditEntry) -> str:
        return entry.event.replace("_", " ") or str(entry.get_action_display())

    @admin.display(description=gettext_lazy("object"))
    def about(self, entry: AuditEntry) -> SafeString:
        kind = entry.content_type
        if kind is None:
            return format_html("{}", entry.object_repr)
        label = f"{kind.name}: {entry.object_repr}"
        try:
            url = reverse(f"admin:{kind.app_label}_{kind.model}_change", args=[entry.object_pk])
        except NoReverseMatch:
            return format_html("{}", label)
        return format_html('<a href="{}">{}</a>', url, label)

    @admin.display(description=gettext_lazy("changes"))
    def short_changes(self, entry: AuditEntry) -> SafeString:
        lines = list(_changes(entry))
        more = [(f"… (+{len(lines) - self.shown_changes})",)] if len(lines) > self.shown_changes else []
        return format_html_join(SafeString("<br>"), "{}", [*((line,) for line in lines[: self.shown_changes]), *more])

    @admin.display(description=gettext_lazy("changes"))
    def all_changes(self, entry: AuditEntry) -> SafeString:
        return format_html("<ul>{}</ul>", format_html_join("", "<li>{}</li>", ((line,) for line in _changes(entry))))

    @admin.display(description=gettext_lazy("details"))
    def details(self, entry: AuditEntry) -> str:
        return ", ".join(f"{key}: {value}" for key, value in (entry.additional_data or {}).items()) or EMPTY


def _changes(entry: AuditEntry) -> Iterator[str]:
    """One line a field: "status: PendingAuth → Linked". Of a new row, what it began with; of related rows, which."""
    model = entry.content_type.model_class() if entry.content_type else None
    names = {field.name: str(field.verbose_name) for field in model._meta.concrete_fields} if model else {}
    for field, change in (entry.changes or {}).items():
        name = names.get(field, field)
        if isinstance(change, dict):
            yield f"{name}: {change.get('operation')} {', '.join(map(str, change.get('objects', [])))}"
        elif entry.action == AuditEntry.Action.CREATE:
            if change[1] not in NOTHING:
                yield f"{name}: {change[1]}"
        else:
            before, after = change
            yield f"{name}: {before} → {after}"

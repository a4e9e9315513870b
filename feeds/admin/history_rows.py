"""Entries of the change history as the screens show them: when, who, what, about what, from what to what, why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.text import capfirst

from feeds.admin.base import change_url, story_url
from feeds.models import AuditEntry, Company
from feeds.services.changes import Change, Names, action_label, changes_of, kind_of, model_of, moment_in_words
from feeds.states import Tone, event_detail_label, event_detail_value

TIMES = {"asked_at"}
"""Details of events that are times."""
SHOWN_CHANGES = 4
"""Changed fields that one row of a list shows; the entry's own page shows all."""

_TONES: dict[int, Tone] = {
    AuditEntry.Action.CREATE: Tone.GOOD,
    AuditEntry.Action.UPDATE: Tone.WAITING,
    AuditEntry.Action.DELETE: Tone.BAD,
    AuditEntry.Action.ACCESS: Tone.NEUTRAL,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One entry, ready to be shown."""

    entry: AuditEntry
    action: str
    tone: Tone
    kind: str
    story: str
    customer: str
    customer_story: str
    changes: Sequence[Change]
    more: int
    details: Sequence[tuple[str, str]]

    @property
    def url(self) -> str:
        """Address of the entry's own page."""
        return change_url(self.entry)


def rows(entries: Sequence[AuditEntry], *, shown: int = SHOWN_CHANGES) -> list[Row]:
    """The entries with names for the rows they point to: a query for each kind of row, however many entries."""
    names = Names()
    names.learn(entries)
    return [_row(entry, names, shown) for entry in entries]


def _row(entry: AuditEntry, names: Names, shown: int) -> Row:
    changes = changes_of(entry, names)
    kind, model = kind_of(entry), model_of(entry)
    return Row(
        entry=entry,
        action=str(capfirst(action_label(entry))),
        tone=_TONES[entry.action],
        kind=str(capfirst(kind.name)) if kind else "",
        story=story_url(model, entry.object_pk) if model and entry.object_pk else "",
        customer=names.of(Company, entry.company_id) if entry.company_id and model is not Company else "",
        customer_story=story_url(Company, entry.company_id) if entry.company_id else "",
        changes=changes[:shown],
        more=max(0, len(changes) - shown),
        details=[
            (event_detail_label(key), _detail(key, value)) for key, value in (entry.additional_data or {}).items()
        ],
    )


def _detail(name: str, value: object) -> str:
    return moment_in_words(str(value)) if name in TIMES else event_detail_value(name, value)


def same_click(entry: AuditEntry) -> str:
    """Address of everything that the same request or task did; "" when the entry does not say which it was."""
    return f"{reverse('admin:feeds_auditentry_changelist')}?request={entry.cid}" if entry.cid else ""


def object_url(request: HttpRequest, obj: Any) -> str:
    """Address of an object's own screen, for those who may see it; "" otherwise."""
    if obj is None or not admin.site.is_registered(type(obj)):
        return ""
    return change_url(obj) if admin.site.get_model_admin(type(obj)).has_view_permission(request, obj) else ""

"""What an object looked like on a past day, worked out from its history.

Going forward from its beginning, a field has the value that it was last set to. Where the beginning is not in the
history (it was purged, or the object is older than the history), the next change says what the field was before it.
What cannot be known is said: fields that the history does not keep, and values that no kept entry tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.utils.text import capfirst

from feeds import audit
from feeds.models import AuditEntry, AuditPurge
from feeds.services import history
from feeds.services.changes import NO_VALUE, NOTHING, Names, field_label, field_of, in_words

MOST_ENTRIES = 5000
"""Entries of one object that are replayed; more than that no object of a bank's customer has."""


class Ground(StrEnum):
    """How a value is known."""

    SET = "set"
    """The last entry before the moment says so."""
    LATER = "later"
    """The first entry after the moment says what it was until then."""
    EMPTY = "empty"
    """The object was made without it, and nothing has set it since."""
    UNCHANGED = "unchanged"
    """No entry mentions it: it is what the row holds today."""
    UNKNOWN = "unknown"
    """No kept entry tells."""


@dataclass(frozen=True, slots=True)
class Value:
    """One field at one moment. `since` is the entry that set it, where one did."""

    field: str
    label: str
    text: str
    ground: Ground
    since: AuditEntry | None = None


@dataclass(frozen=True, slots=True)
class State:
    """An object at a moment. `exists` is None when the history cannot say."""

    at: datetime
    exists: bool | None
    values: list[Value]


@dataclass(frozen=True, slots=True)
class Row:
    """One field at two moments."""

    label: str
    first: Value
    second: Value

    @property
    def differs(self) -> bool:
        """Whether something else is known to have stood there."""
        return self.first.text != self.second.text


@dataclass(frozen=True, slots=True)
class Limits:
    """What the history cannot tell of this object."""

    not_kept: list[str]
    purged: AuditPurge | None
    beginning_is_missing: bool
    too_many: bool


class Replay:
    """The history of one object, read once, to be asked for any number of moments."""

    def __init__(self, kind: ContentType, key: str) -> None:
        """Reads at most `MOST_ENTRIES` entries, oldest first, and the row of today if it is still there."""
        self.model = kind.model_class()
        newest_first = list(history.of_object(kind, key)[: MOST_ENTRIES + 1])
        self.too_many = len(newest_first) > MOST_ENTRIES
        self.entries: list[AuditEntry] = newest_first[:MOST_ENTRIES][::-1]
        self.names = Names()
        self.names.learn(self.entries)
        self.row = row_of_today(self.model, key)
        self.fields = audit.kept_fields(self.model) or sorted(
            {name for entry in self.entries for name in entry.changes or {}}
        )

    def at(self, moment: datetime) -> State:
        """The object at `moment` (aware)."""
        before = [entry for entry in self.entries if entry.timestamp <= moment]
        after = [entry for entry in self.entries if entry.timestamp > moment]
        values = [self._value(field, before, after) for field in self.fields]
        return State(moment, self._exists(before, after), sorted(values, key=lambda value: value.label))

    def compare(self, first: datetime, second: datetime) -> list[Row]:
        """Every kept field at both moments."""
        pairs = zip(self.at(first).values, self.at(second).values, strict=True)
        return [Row(one.label, one, other) for one, other in pairs]

    def limits(self) -> Limits:
        """What is not known, to be said beside every state."""
        begun = bool(self.entries) and self.entries[0].action == AuditEntry.Action.CREATE
        names = {field.name for field in self.model._meta.concrete_fields} if self.model else set()
        # A person and the name that is kept of them have one label.
        left_out = sorted({str(field_label(self.model, name)) for name in names - set(self.fields) - {"id"}})
        return Limits(left_out, AuditPurge.objects.order_by("-id").first(), not begun, self.too_many)

    # --- One field ----------------------------------------------------------------------------------------------------
    def _value(self, field: str, before: Sequence[AuditEntry], after: Sequence[AuditEntry]) -> Value:
        label = field_label(self.model, field)
        if self._has_many(field):
            return self._members(field, label, before, after)
        setting = next((entry for entry in reversed(before) if _pair(entry, field)), None)
        if setting is not None and setting.action == AuditEntry.Action.CREATE and _pair(setting, field)[1] in NOTHING:
            return Value(field, label, NO_VALUE, Ground.EMPTY, setting)
        if setting is not None:
            return Value(field, label, self._words(field, _pair(setting, field)[1]), Ground.SET, setting)
        begun = bool(before) and before[0].action == AuditEntry.Action.CREATE
        later = next((entry for entry in after if _pair(entry, field)), None)
        was_before = _pair(later, field)[0] if later and later.action != AuditEntry.Action.CREATE else None
        # Of an object whose beginning is known, only a field that came into the product later is told this way.
        if later is not None and was_before is not None and not (begun and was_before in NOTHING):
            return Value(field, label, self._words(field, was_before), Ground.LATER, later)
        if begun:
            return Value(field, label, NO_VALUE, Ground.EMPTY, before[0])
        is_yet_to_be_made = later is not None or (bool(after) and after[0].action == AuditEntry.Action.CREATE)
        if self.row is not None and not is_yet_to_be_made and field not in audit.masked_fields(self.model):
            return Value(field, label, self._today(field), Ground.UNCHANGED)
        return Value(field, label, NO_VALUE, Ground.UNKNOWN)

    def _has_many(self, field: str) -> bool:
        return self.model is not None and any(one.name == field for one in self.model._meta.many_to_many)

    def _members(self, field: str, label: str, before: Sequence[AuditEntry], after: Sequence[AuditEntry]) -> Value:
        """Related rows: added and removed one by one since the beginning, or undone one by one from those of today."""
        begun = bool(before) and before[0].action == AuditEntry.Action.CREATE
        last = next((entry for entry in reversed(before) if _moved(entry, field)), None)
        members: set[str] = set()
        if begun:
            for entry in before:
                added, removed = _moved(entry, field) or (set(), set())
                members = (members | added) - removed
            return Value(field, label, _listed(members), Ground.SET if last else Ground.EMPTY, last)
        is_yet_to_be_made = bool(after) and after[0].action == AuditEntry.Action.CREATE
        if self.row is None or is_yet_to_be_made:
            return Value(field, label, NO_VALUE, Ground.UNKNOWN)
        members = {str(row) for row in getattr(self.row, field).all()}
        later = None
        for entry in reversed(after):
            if moved := _moved(entry, field):
                members, later = (members - moved[0]) | moved[1], entry
        ground = Ground.SET if last else Ground.LATER if later else Ground.UNCHANGED
        return Value(field, label, _listed(members), ground, last or later)

    def _words(self, field: str, value: Any) -> str:
        return in_words(self.model, field, value, self.names)

    def _today(self, field: str) -> str:
        found = field_of(self.model, field)
        if found is None:
            return NO_VALUE
        value = getattr(self.row, found.attname)
        if found.is_relation and value is not None and isinstance(related := getattr(self.row, field), Model):
            return str(related)
        return NO_VALUE if value in NOTHING else self._words(field, str(value))

    # --- The whole ----------------------------------------------------------------------------------------------------
    def _exists(self, before: Sequence[AuditEntry], after: Sequence[AuditEntry]) -> bool | None:
        if before:
            return bool(before[-1].action != AuditEntry.Action.DELETE)
        if after:
            return bool(after[0].action != AuditEntry.Action.CREATE)
        return True if self.row is not None else None


def _pair(entry: AuditEntry, field: str) -> list[Any]:
    """The field's value before and after, or nothing when the entry does not mention it."""
    change = (entry.changes or {}).get(field)
    return change if isinstance(change, list) and len(change) == 2 else []


def _moved(entry: AuditEntry, field: str) -> tuple[set[str], set[str]] | None:
    """The related rows that the entry added and removed; None when it does not mention the field."""
    change = (entry.changes or {}).get(field)
    if not isinstance(change, Mapping):
        return None
    rows = {str(row) for row in change.get("objects", ())}
    return (rows, set()) if change.get("operation") == "add" else (set(), rows)


def _listed(members: set[str]) -> str:
    return ", ".join(sorted(members)) or NO_VALUE


def row_of_today(model: type[Model] | None, key: str) -> Model | None:
    """The object as it is now; None when it is gone, or when `key` is no key of its kind."""
    if model is None:
        return None
    try:
        return model._default_manager.filter(pk=key).first()
    except (ValueError, TypeError, OverflowError, ValidationError):
        return None


def kinds() -> list[tuple[str, str]]:
    """Kinds of objects whose changes are kept: "feeds.company" and "Company", by name."""
    models = ((model._meta.label_lower, str(capfirst(model._meta.verbose_name))) for model in audit.kept_models())
    return sorted(models, key=lambda pair: pair[1])

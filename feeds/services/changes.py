"""The change history in words: which field, from what to what, as a person would say it.

Entries hold what the library stored: strings, keys of related rows, codes of choices. Names of related rows are read
once for a whole page or chunk of entries, however many of them stand on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import FieldDoesNotExist
from django.db.models import BooleanField, DateTimeField, Field, ForeignKey, JSONField, Model
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from feeds.models import AuditEntry, Company
from feeds.states import event_label

NOTHING = (None, "", "None")
"""How the library writes that a field had no value."""
NO_VALUE = "–"
MOST_NAMES = 20_000
"""Names of one kind of row that are remembered, so that an export of the whole history stays small in memory."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field of one entry. Of a new row `before` is empty, of a deleted one `after`.

    `added` and `removed` are set instead for related rows, such as a person's groups.
    """

    field: str
    label: str
    before: str
    after: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def names(self) -> str:
        """The related rows that were added or removed, in one text."""
        return ", ".join(self.added or self.removed)

    def __str__(self) -> str:
        if self.added:
            return _("%(field)s: added %(names)s") % {"field": self.label, "names": self.names}
        if self.removed:
            return _("%(field)s: removed %(names)s") % {"field": self.label, "names": self.names}
        if not self.before:
            return f"{self.label}: {self.after}"
        return f"{self.label}: {self.before} → {self.after or NO_VALUE}"


@dataclass(frozen=True, slots=True)
class _Field:
    """A field, its label and the labels of its choices, in the language of the moment."""

    field: Field[Any, Any] | None
    label: str
    choices: dict[Any, str]


class Names:
    """What the rows that entries point to are called. `learn` reads what is not known yet: a query for each model."""

    def __init__(self) -> None:
        self._known: dict[type[Model], dict[str, str]] = defaultdict(dict)
        self._fields: dict[tuple[type[Model] | None, str], _Field] = {}
        self._kinds: dict[int | None, str] = {}

    def field(self, model: type[Model] | None, name: str) -> _Field:
        """What is needed to say a field's values: looked up once, since an export says it a million times."""
        key = (model, name)
        if key not in self._fields:
            field = field_of(model, name)
            choices = {value: str(label) for value, label in field.flatchoices} if field and field.choices else {}
            self._fields[key] = _Field(field, field_label(model, name), choices)
        return self._fields[key]

    def learn(self, entries: Iterable[AuditEntry]) -> None:
        """Read the names of the rows that the changes of `entries` point to, and of their customers."""
        wanted: dict[type[Model], set[str]] = defaultdict(set)
        for entry in entries:
            if company_id := getattr(entry, "company_id", None):
                wanted[Company].add(str(company_id))
            for model, key in _pointers(entry):
                wanted[model].add(key)
        for model, keys in wanted.items():
            known = self._known[model]
            if len(known) > MOST_NAMES:
                known.clear()
            unknown = {key for key in keys if key not in known}
            # A row that is gone is asked for once.
            known.update(dict.fromkeys(unknown, ""))
            known.update({str(row.pk): _called(row) for row in _rows(model, unknown)})

    def kind(self, entry: AuditEntry) -> str:
        """What the entry is about, in words: "source account"; nothing for an event about no object."""
        if entry.content_type_id not in self._kinds:
            kind = kind_of(entry)
            self._kinds[entry.content_type_id] = kind.name if kind else ""
        return self._kinds[entry.content_type_id]

    def of(self, model: type[Model], key: object) -> str:
        """What the row is called, or its number when it is gone or was not asked for."""
        return self._known[model].get(str(key)) or f"#{key}"


def _rows(model: type[Model], keys: set[str]) -> Iterable[Model]:
    rows = model._default_manager.filter(pk__in=keys)
    points_to_company = any(field.name == "company" for field in model._meta.concrete_fields)
    return rows.select_related("company") if points_to_company else rows


def _called(row: Model) -> str:
    if isinstance(row, User):
        return row.get_full_name() or row.get_username()
    company = getattr(row, "company", None)
    if isinstance(company, Company):
        # How a row shows itself may hold its status of today, which says nothing of that day.
        return f"{row._meta.verbose_name} #{row.pk} ({company.legal_name})"
    return str(row)


def _pointers(entry: AuditEntry) -> Iterator[tuple[type[Model], str]]:
    model = model_of(entry)
    for name, change in (entry.changes or {}).items():
        field = field_of(model, name)
        if isinstance(field, ForeignKey) and isinstance(change, list):
            related = field.related_model
            if isinstance(related, type):
                yield from ((related, str(key)) for key in change if key not in NOTHING and str(key).isalnum())


def model_of(entry: AuditEntry) -> type[Model] | None:
    """The model an entry is about; None when the product no longer has it."""
    kind = kind_of(entry)
    return kind.model_class() if kind else None


def kind_of(entry: AuditEntry) -> ContentType | None:
    """The content type, from the few that Django keeps in memory: no query for each entry.

    None for an event about no object, such as a sign-in of somebody unknown.
    """
    if entry.content_type_id is None:
        return None
    try:
        return ContentType.objects.get_for_id(entry.content_type_id)
    except ContentType.DoesNotExist:
        return None


def field_of(model: type[Model] | None, name: str) -> Field[Any, Any] | None:
    """The model's field, or None when it no longer has it."""
    if model is None:
        return None
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    return field if isinstance(field, Field) else None


def field_label(model: type[Model] | None, name: str) -> str:
    """What the screens call a field; its name in code when the model no longer has it."""
    field = field_of(model, name)
    return str(capfirst(field.verbose_name)) if field is not None else name


def changes_of(entry: AuditEntry, names: Names) -> list[Change]:
    """What the entry says, field by field in the order of their labels. A new row's empty fields are left out."""
    model = model_of(entry)
    found = (_change(entry, model, name, change, names) for name, change in (entry.changes or {}).items())
    return sorted((change for change in found if change is not None), key=lambda change: change.label)


def _change(entry: AuditEntry, model: type[Model] | None, name: str, change: Any, names: Names) -> Change | None:
    label = names.field(model, name).label
    if isinstance(change, Mapping):
        rows = tuple(str(row) for row in change.get("objects", ()))
        is_added = change.get("operation") == "add"
        return Change(name, label, "", "", added=rows if is_added else (), removed=() if is_added else rows)
    if not isinstance(change, list | tuple) or len(change) != 2:
        return Change(name, label, "", str(change))
    before, after = (in_words(model, name, value, names) for value in change)
    if entry.action == AuditEntry.Action.CREATE:
        return Change(name, label, "", after) if after != NO_VALUE else None
    if entry.action == AuditEntry.Action.DELETE:
        return Change(name, label, before, NO_VALUE) if before != NO_VALUE else None
    return Change(name, label, before, after)


def in_words(model: type[Model] | None, name: str, value: Any, names: Names) -> str:
    """A stored value as the screens say it: the label of a choice, a name for a key, a time in the reader's zone."""
    if value in NOTHING:
        return NO_VALUE
    known = names.field(model, name)
    field, text = known.field, str(value)
    if field is None:
        return text
    if known.choices:
        return known.choices.get(value, text)
    if isinstance(field, ForeignKey):
        related = field.related_model
        return names.of(related, text) if isinstance(related, type) else text
    if isinstance(field, DateTimeField):
        return moment_in_words(text)
    if isinstance(field, JSONField) and text in ("[]", "{}"):
        return NO_VALUE
    if isinstance(field, BooleanField):
        return {"True": _("yes"), "False": _("no")}.get(text, text)
    return text


def moment_in_words(text: str) -> str:
    """A stored time in the reader's zone. The library stores times in UTC, without saying so."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    aware = at if timezone.is_aware(at) else at.replace(tzinfo=UTC)
    return date_format(timezone.localtime(aware), "Y-m-d H:i:s T")


ACTIONS: dict[int, str] = {
    AuditEntry.Action.CREATE: "create",
    AuditEntry.Action.UPDATE: "update",
    AuditEntry.Action.DELETE: "delete",
    AuditEntry.Action.ACCESS: "event",
}
"""What an entry did, as addresses and exports name it."""


def action_label(entry: AuditEntry) -> str:
    """What was done, in words: "changed", or the event ("link revealed")."""
    return event_label(entry.event) if entry.event else str(action_labels()[ACTIONS[entry.action]])


def action_labels() -> dict[str, str]:
    """Words for the actions that are no events."""
    return {"create": _("created"), "update": _("changed"), "delete": _("deleted"), "event": _("event")}

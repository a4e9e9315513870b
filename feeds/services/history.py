"""Searching the change history: every filter, its index, and pages without a count or an offset.

At a million entries a page is one walk along one index, newest first, which stops after the page. So
- every filter is a column with an index that ends in the id, or is resolved to one first (a customer's number);
- a period is turned into a range of ids, so that any of those indexes skips what lies outside it;
- a page is found by the id where the one before it ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal

from django.apps import apps
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.models import Model, Q, QuerySet
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from feeds.audit import Actor
from feeds.models import AuditEntry, Company
from feeds.services.changes import ACTIONS, action_labels, field_label
from feeds.states import event_label

PAGE = 50
"""Entries on a page."""
MOST_FOUND = 200
"""Customers, or people, that one term may stand for."""
CLOCK_SLACK = timedelta(days=2)
"""How far the order of ids and of times may differ: a transaction that takes long, a clock that was set."""

_ACTION_CODES = {name: code for code, name in ACTIONS.items()}


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for; an empty filter does not filter.

    `person`: a user name, the start of a name, or a service. `customer`: a customer number, Codat id or the start of a
    legal name. `kind`: "feeds.company". `key`: primary key of the object. `field`: name in the model. `action`: one of
    `changes.ACTIONS`, or an event. `start` and `end`: days, both inclusive, in the current zone. `request`: the id
    that all entries of one click or task share.
    """

    person: str = ""
    customer: str = ""
    kind: str = ""
    key: str = ""
    field: str = ""
    action: str = ""
    start: date | None = None
    end: date | None = None
    source: str = ""
    request: str = ""

    def as_dict(self) -> dict[str, str]:
        """The filters that are set, as addresses, manifests and records write them."""
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: value.isoformat() if isinstance(value, date) else value for name, value in values if value}


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, newest first. `older` and `newer` are where the pages beside it begin, None where there is none."""

    entries: list[AuditEntry]
    older: int | None
    newer: int | None


def find(search: Search) -> QuerySet[AuditEntry]:
    """The entries that match, newest first. A filter that stands for nothing finds nothing."""
    everything = AuditEntry.objects.order_by("-id")
    entries: QuerySet[AuditEntry] = everything.touching(search.field) if search.field else everything
    for condition in _conditions(search):
        if condition is None:
            return entries.none()
        entries = entries.filter(condition)
    return entries


def page(search: Search, *, before: int | None = None, after: int | None = None, size: int = PAGE) -> Page:
    """The newest entries that match; those older than the entry `before`; or the ones just newer than `after`."""
    return page_of(find(search), before=before, after=after, size=size)


def page_of(
    entries: QuerySet[AuditEntry], *, before: int | None = None, after: int | None = None, size: int = PAGE
) -> Page:
    """As `page`, of entries that were found already. One query: the row too many says whether there is more."""
    if after is not None:
        found = list(entries.filter(id__gt=after).order_by("id")[: size + 1])
        rows = found[:size][::-1]
        newer = rows[0].pk if len(found) > size else None
        return Page(rows, rows[-1].pk if rows else None, newer)
    found = list((entries if before is None else entries.filter(id__lt=before))[: size + 1])
    rows = found[:size]
    older = rows[-1].pk if len(found) > size else None
    return Page(rows, older, rows[0].pk if before is not None and rows else None)


# --- Filters --------------------------------------------------------------------------------------------------------
def _conditions(search: Search) -> Iterator[Q | None]:
    """One condition for each filter that is set; None for one that stands for nothing."""
    if search.person:
        yield _by(search.person)
    if search.customer:
        yield _any_of("company_id", customer_ids(search.customer))
    if search.kind:
        kind = content_type_of(search.kind)
        yield Q(content_type_id=kind.pk) if kind else None
    if search.key:
        yield Q(object_pk=search.key)
    if search.action:
        code = _ACTION_CODES.get(search.action)
        yield Q(event=search.action) if code is None else Q(action=code)
    if search.source:
        yield Q(source=search.source)
    if search.request:
        yield Q(cid=search.request)
    yield _within(search.start, search.end)


def _any_of(column: str, keys: list[int]) -> Q | None:
    """An equality where it can be one: then the index gives the order too."""
    if not keys:
        return None
    return Q(**{column: keys[0]}) if len(keys) == 1 else Q(**{f"{column}__in": keys})


def _by(term: str) -> Q:
    """Entries of the people the term finds, or else of whoever has exactly this name: a service, or a deleted user."""
    return _any_of("actor_id", person_ids(term)) or Q(actor_name=term.strip())


def person_ids(term: str) -> list[int]:
    """Primary keys of the people a term finds: by user name, or by first and last name, each from its start."""
    term = term.strip()
    exact = list(User.objects.filter(username__iexact=term).values_list("pk", flat=True)[:MOST_FOUND])
    if exact or not term:
        return exact
    match = Q(last_name__istartswith=term) | Q(first_name__istartswith=term)
    first, _space, last = term.partition(" ")
    if last:
        match |= Q(first_name__iexact=first, last_name__istartswith=last.strip())
        # "Mary Ann Smith": the last word is the last name as well.
        names, _space, surname = term.rpartition(" ")
        match |= Q(first_name__iexact=names, last_name__istartswith=surname)
    return list(User.objects.filter(match).order_by("pk").values_list("pk", flat=True)[:MOST_FOUND])


def customer_ids(term: str) -> list[int]:
    """Primary keys of the customers a term finds. One that was deleted is found by its number, in the history."""
    term = term.strip()
    for match in (
        Q(customer_number=term),
        Q(codat_id=term) & ~Q(codat_id=""),  # as the condition of the index has it
        Q(legal_name__istartswith=term),
    ):
        found = Company.objects.filter(match).order_by("-id").values_list("pk", flat=True)
        if ids := list(found[:MOST_FOUND]):
            return ids
    deletions = AuditEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(Company),
        action=AuditEntry.Action.DELETE,
        object_repr__endswith=f"({term})",
    )
    return [key for key in deletions.values_list("object_id", flat=True)[:MOST_FOUND] if key is not None]


def content_type_of(kind: str) -> ContentType | None:
    """The content type of "feeds.company"; None for anything that is no model."""
    try:
        model = apps.get_model(kind)
    except (LookupError, ValueError):
        return None
    return ContentType.objects.get_for_model(model)


def _within(start: date | None, end: date | None) -> Q:
    """The period, and the range of ids that it must lie in.

    Ids and times grow together but for `CLOCK_SLACK`, so the first entry beyond the period, found by the index of
    times, bounds the ids; the times themselves are asked for as well.
    """
    condition = Q()
    if start is not None:
        first = _beginning(start)
        condition &= Q(timestamp__gte=first)
        if (low := _first_entry_from(first - CLOCK_SLACK)) is not None:
            condition &= Q(id__gte=low)
    if end is not None:
        beyond = _beginning(end + timedelta(days=1))
        condition &= Q(timestamp__lt=beyond)
        if (high := _first_entry_from(beyond + CLOCK_SLACK)) is not None:
            condition &= Q(id__lt=high)
    return condition


def _beginning(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def _first_entry_from(at: datetime) -> int | None:
    ids = AuditEntry.objects.filter(timestamp__gte=at).order_by("timestamp", "id").values_list("id", flat=True)
    first: int | None = ids.first()
    return first


# --- Words ----------------------------------------------------------------------------------------------------------
def in_words(search: Search) -> list[tuple[str, str]]:
    """The filters as a person reads them, in the order of the form."""
    words = {
        _("Person"): search.person,
        _("Customer"): search.customer,
        _("Kind of object"): kind_in_words(search.kind),
        _("Object"): f"#{search.key}" if search.key else "",
        _("Field"): field_in_words(search.kind, search.field),
        _("Action"): action_in_words(search.action),
        pgettext("first day", "From"): search.start.isoformat() if search.start else "",
        pgettext("last day", "To"): search.end.isoformat() if search.end else "",
        _("Source"): search.source,
        _("Request or task"): search.request,
    }
    return [(label, value) for label, value in words.items() if value]


def kind_in_words(kind: str) -> str:
    """ "Source account" for "feeds.sourceaccount"."""
    model = _model(kind)
    return str(capfirst(model._meta.verbose_name)) if model else kind


def field_in_words(kind: str, field: str) -> str:
    """What the screens call a field of a kind of object."""
    return field_label(_model(kind), field) if field else ""


def action_in_words(action: str) -> str:
    """An action of a search, in words."""
    return action_labels().get(action, event_label(action))


def _model(kind: str) -> type[Model] | None:
    found = content_type_of(kind) if kind else None
    return found.model_class() if found else None


def quick_periods(today: date) -> dict[str, tuple[str, date, date]]:
    """Periods that are asked for every day: key -> label, first and last day."""
    first_of_month = today.replace(day=1)
    end_of_last = first_of_month - timedelta(days=1)
    return {
        "today": (_("Today"), today, today),
        "week": (_("7 days"), today - timedelta(days=6), today),
        "month": (_("This month"), first_of_month, today),
        "last_month": (_("Last month"), end_of_last.replace(day=1), end_of_last),
    }


# --- What there is to choose from -----------------------------------------------------------------------------------
def known_events() -> list[str]:
    """Every event that the history holds."""
    return _distinct("event")


def known_sources() -> list[str]:
    """Every source that the history holds."""
    return _distinct("source")


def known_people(sources: Iterable[str]) -> list[str]:
    """Who may be asked for: staff, and the services that `sources` name."""
    staff = User.objects.filter(is_staff=True).order_by("last_name", "first_name", "username")[:MOST_FOUND]
    names = [user.get_full_name() or user.get_username() for user in staff]
    prefix = Actor.service("").source
    return names + [source.removeprefix(prefix) for source in sources if source.startswith(prefix)]


_JUMPING = """
WITH RECURSIVE found(value) AS (
    SELECT MIN({column}) FROM {table} WHERE {column} > ''
    UNION ALL
    SELECT (SELECT MIN({column}) FROM {table} WHERE {column} > found.value) FROM found WHERE found.value IS NOT NULL
)
SELECT value FROM found WHERE value IS NOT NULL LIMIT %s
"""


def _distinct(column: Literal["event", "source"]) -> list[str]:
    """The values of an indexed column, jumping in the index from one to the next: DISTINCT would read every entry."""
    table = connection.ops.quote_name(AuditEntry._meta.db_table)
    name = connection.ops.quote_name(column)
    with connection.cursor() as cursor:
        cursor.execute(_JUMPING.format(column=name, table=table), [MOST_FOUND])
        return [row[0] for row in cursor.fetchall()]


# --- Stories --------------------------------------------------------------------------------------------------------
def of_object(kind: ContentType, key: str) -> QuerySet[AuditEntry]:
    """Everything about one object, newest first."""
    found: QuerySet[AuditEntry] = AuditEntry.objects.filter(content_type_id=kind.pk, object_pk=key).order_by("-id")
    return found


def of_customer(company_id: int) -> QuerySet[AuditEntry]:
    """Everything about one customer, newest first: its accounts, connections, operations and cases too."""
    found: QuerySet[AuditEntry] = AuditEntry.objects.filter(company_id=company_id).order_by("-id")
    return found

"""The timeline: everything that happened to a customer's feed, in one list a person can read, newest first.

Six tellings: status changes, the ledger (asked and ended), links shown, the stories of cases, and how far an invited
customer came with the mails about it. Each is read once for a page, so a page takes the same number of queries whatever
stands on it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, Q, QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds import audit
from feeds.models import AuditEntry, CaseEvent, Company, Connection, Invitation, Mail, Operation, StatusEvent
from feeds.models.invitation import invitation_title
from feeds.states import (
    INVITATION_MEANINGS,
    SILENT_DAYS,
    AccountStatus,
    CaseEventKind,
    ConnectionStatus,
    InvitationEnd,
    InvitationState,
    OperationKind,
    Text,
    Tone,
)
from feeds.wording import colon_in_words, retold

PAGE = 100
"""Entries on a page."""


class Kind(StrEnum):
    """What an entry is about; a screen asks for those its reader may see."""

    STATUS = "status"
    OPERATION = "operation"
    LINK = "link"
    CASE = "case"
    INVITATION = "invitation"


KIND_LABELS: dict[Kind, Text] = {
    Kind.STATUS: gettext_lazy("Status"),
    Kind.OPERATION: gettext_lazy("Operation"),
    Kind.LINK: gettext_lazy("Link"),
    Kind.CASE: gettext_lazy("Case"),
    Kind.INVITATION: gettext_lazy("Invitation"),
}


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where an entry stands. Entries of one moment are told apart by telling and row, so that no page loses one."""

    at: datetime
    telling: int
    pk: int

    def __str__(self) -> str:
        return f"{self.at.astimezone(UTC):%Y%m%dT%H%M%S.%f}-{self.telling}-{self.pk}"

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """The place that `str` wrote into an address; None for anything else."""
        try:
            at, telling, pk = text.split("-")
            return cls(datetime.strptime(at, "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC), int(telling), int(pk))
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the timeline. `about` is the row it tells of, where that row has a screen of its own."""

    place: Place
    kind: Kind
    tone: Tone
    title: str
    text: str = ""
    next_step: str = ""
    who: str = ""
    how: str = ""
    about: Model | None = None

    @property
    def at(self) -> datetime:
        """When (aware UTC); of a status: when the reading that showed it was asked for."""
        return self.place.at

    @property
    def kind_label(self) -> Text:
        """What the entry is about, in a word."""
        return KIND_LABELS[self.kind]


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, newest first, and the last one's place when there are older ones."""

    entries: list[Entry]
    older: Place | None


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whose timeline it is: a company's, or that of one of its connections."""

    company_id: int
    connection_id: int | None = None

    def where(self, path: str = "") -> dict[str, int]:
        """Conditions for a table that knows company and connection, itself or through `path` ("case__")."""
        if self.connection_id is not None:
            return {f"{path}connection_id": self.connection_id}
        return {f"{path}company_id": self.company_id}


@dataclass(frozen=True, slots=True)
class _Telling:
    """One of the tables, read by the time in `column`."""

    kind: Kind
    column: str
    rows: Callable[[_Subject], QuerySet[Any]]
    show: Callable[[Sequence[Any], Callable[[Any], Place]], list[Entry]]


def of_company(
    company: Company, limit: int = PAGE, *, before: Place | None = None, kinds: Collection[Kind] = frozenset(Kind)
) -> Page:
    """What happened to a company: statuses of its connections and accounts, operations, links shown, cases.

    At most `limit` entries older than `before`, and only of the `kinds` asked for.
    """
    return _page(_Subject(company.pk), limit, before, kinds)


def of_connection(
    connection: Connection, limit: int = PAGE, *, before: Place | None = None, kinds: Collection[Kind] = frozenset(Kind)
) -> Page:
    """As `of_company`, of one connection alone."""
    return _page(_Subject(connection.company_id, connection.pk), limit, before, kinds)


def _page(subject: _Subject, limit: int, before: Place | None, kinds: Collection[Kind]) -> Page:
    streams = [
        _read(telling, number, subject, limit, before)
        for number, telling in enumerate(_TELLINGS)
        if telling.kind in kinds
    ]
    newest_first = heapq.merge(*streams, key=lambda entry: entry.place, reverse=True)
    entries = list(islice(newest_first, limit + 1))
    return Page(entries[:limit], entries[limit - 1].place if len(entries) > limit else None)


def _read(telling: _Telling, number: int, subject: _Subject, limit: int, before: Place | None) -> list[Entry]:
    """Entries older than `before`, newest first: one more than a page holds, to know whether there are more."""
    rows = telling.rows(subject)
    if before is not None:
        rows = rows.filter(_older(telling.column, number, before))
    found = rows.order_by(f"-{telling.column}", "-pk")[: limit + 1]
    return telling.show(list(found), lambda row: Place(getattr(row, telling.column), number, row.pk))


def _older(column: str, number: int, before: Place) -> Q:
    earlier, same_moment = Q(**{f"{column}__lt": before.at}), Q(**{column: before.at})
    if number < before.telling:
        return earlier | same_moment
    if number == before.telling:
        return earlier | (same_moment & Q(pk__lt=before.pk))
    return earlier


def _each(show: Callable[[Any, Place], Entry]) -> Callable[[Sequence[Any], Callable[[Any], Place]], list[Entry]]:
    return lambda rows, place: [show(row, place(row)) for row in rows]


def _source(who: str, source: str) -> str:
    """From where somebody acted; a service's name says it already."""
    return "" if source == audit.Actor.service(who).source else source


# --- Status changes -------------------------------------------------------------------------------------------------
_REFERENCE = "operation "
"""How a status change names the ledger row whose reading showed it (`services.onboarding`)."""

_STOPPED_BY_STAFF = (OperationKind.DISCONNECT_ACCOUNT, OperationKind.UNLINK_CONNECTION)

_SILENCE: dict[str, Text] = {
    AccountStatus.DISCONNECTED: gettext_lazy(
        "QuickBooks has not asked for this account for ten days; it may have stopped on or before %s."
    ),
    ConnectionStatus.UNLINKED: gettext_lazy(
        "QuickBooks has not asked for any account for ten days or more; it may have stopped on or before %s."
    ),
}
"""The meaning of a status of `SILENT_DAYS`, with the day."""


def _status_rows(subject: _Subject) -> QuerySet[StatusEvent]:
    return StatusEvent.objects.filter(**subject.where()).select_related("account")


def _show_statuses(events: Sequence[StatusEvent], place: Callable[[StatusEvent], Place]) -> list[Entry]:
    numbers = {event.pk: number for event in events if (number := _operation_number(event)) is not None}
    operations = Operation.objects.in_bulk(set(numbers.values()))
    return [_status_entry(event, place(event), operations.get(numbers.get(event.pk, 0))) for event in events]


def _operation_number(event: StatusEvent) -> int | None:
    number = event.reference.removeprefix(_REFERENCE)
    return int(number) if number != event.reference and number.isdecimal() else None


def _status_entry(event: StatusEvent, place: Place, shown_by: Operation | None) -> Entry:
    meaning = event.new_meaning
    seen_by = colon_in_words().join(filter(None, (str(event.get_seen_by_display()), str(shown_by or event.reference))))
    return Entry(
        place,
        Kind.STATUS,
        meaning.tone,
        title=_("%(name)s: %(old)s → %(new)s")
        % {
            "name": event.account.name if event.account else _("Connection"),
            "old": event.old_label,
            "new": meaning.label,
        },
        text=_explain(event, shown_by),
        next_step=str(meaning.next_step),
        how=_("Seen by %s") % seen_by,
        about=shown_by,
    )


def _explain(event: StatusEvent, shown_by: Operation | None) -> str:
    """What the status means, on or before which day the feed stopped, and how late Codat usually shows it."""
    if shown_by is not None and shown_by.kind in _STOPPED_BY_STAFF:
        return _("Done from here, by a person. QuickBooks had not fallen silent.")
    meaning = event.new_meaning
    silence = _SILENCE.get(event.new)
    if silence is None:
        return " ".join(filter(None, (str(meaning.meaning), str(meaning.usual_delay))))
    stopped = timezone.localtime(event.seen_at - timedelta(days=SILENT_DAYS[event.new])).date()
    return " ".join((str(silence) % date_format(stopped), str(meaning.usual_delay)))


# --- The ledger -----------------------------------------------------------------------------------------------------
def _asked_rows(subject: _Subject) -> QuerySet[Operation]:
    return Operation.objects.filter(**subject.where()).select_related("account")


def _ended_rows(subject: _Subject) -> QuerySet[Operation]:
    return _asked_rows(subject).filter(finished_at__isnull=False)


def _asked_entry(operation: Operation, place: Place) -> Entry:
    return Entry(
        place,
        Kind.OPERATION,
        Tone.NEUTRAL,
        title=_("%s: asked for") % _named(operation),
        text=operation.reason,
        who=operation.requested_by_name,
        how=_source(operation.requested_by_name, operation.source),
        about=operation,
    )


def _ended_entry(operation: Operation, place: Place) -> Entry:
    correlation = _("Codat correlation id %s") % operation.correlation_id if operation.correlation_id else ""
    return Entry(
        place,
        Kind.OPERATION,
        operation.state_meaning.tone,
        title=f"{_named(operation)}{colon_in_words()}{operation.state_meaning.label}",
        text=retold(operation.error or operation.result),
        how=correlation,
        about=operation,
    )


def _named(operation: Operation) -> str:
    return f"{operation} ({operation.account.name})" if operation.account else str(operation)


# --- Links shown ----------------------------------------------------------------------------------------------------
_LINK_EVENTS: dict[str, tuple[Tone, Text, Text]] = {
    "link_revealed": (Tone.NEUTRAL, gettext_lazy("The customer's link was shown"), ""),
    "link_replaced": (
        Tone.WARNING,
        gettext_lazy("A reading of all connections replaced the link that was shown"),
        gettext_lazy("If the customer finds the older one closed, show the new one and hand it over."),
    ),
}


def _shown_rows(subject: _Subject) -> QuerySet[AuditEntry]:
    kind = ContentType.objects.get_for_model(Connection)
    rows: QuerySet[AuditEntry] = AuditEntry.objects.filter(content_type=kind, event__in=_LINK_EVENTS)
    if subject.connection_id is not None:
        return rows.filter(object_pk=str(subject.connection_id))
    return rows.filter(company_id=subject.company_id)


def _shown_entry(shown: AuditEntry, place: Place) -> Entry:
    tone, title, next_step = _LINK_EVENTS[shown.event]
    return Entry(
        place,
        Kind.LINK,
        tone,
        title=str(title),
        text=shown.reason,
        next_step=str(next_step),
        who=shown.actor_name,
        how=_source(shown.actor_name, shown.source),
    )


# --- Cases ----------------------------------------------------------------------------------------------------------
_CASE_TONES: dict[str, Tone] = {
    CaseEventKind.OPENED: Tone.BAD,
    CaseEventKind.REOPENED: Tone.BAD,
    CaseEventKind.RECOVERED: Tone.GOOD,
    CaseEventKind.CLOSED: Tone.GOOD,
    CaseEventKind.SNOOZED: Tone.WAITING,
    CaseEventKind.HELD: Tone.WARNING,
    CaseEventKind.JOINED_INCIDENT: Tone.WARNING,
}


def _case_rows(subject: _Subject) -> QuerySet[CaseEvent]:
    return CaseEvent.objects.filter(**subject.where("case__")).select_related("case")


def _case_entry(event: CaseEvent, place: Place) -> Entry:
    return Entry(
        place,
        Kind.CASE,
        _CASE_TONES.get(event.kind, Tone.NEUTRAL),
        title=_("Case #%(number)d: %(what)s") % {"number": event.case_id, "what": event.get_kind_display()},
        text=event.text if event.kind == CaseEventKind.NOTE else retold(event.text),
        who=event.actor_name,
        about=event.case,
    )


# --- Invitations ----------------------------------------------------------------------------------------------------
_SHOWN_TO_STAFF, _ASKED_FOR = "invitation_link_made", "invitation_link_asked_for"
_REACHED: tuple[tuple[str, InvitationState, Text], ...] = (
    ("connected_at", InvitationState.CONNECTED, gettext_lazy("The invited customer has connected every account")),
    ("linked_at", InvitationState.LINKED, gettext_lazy("The invited customer has linked QuickBooks")),
    ("started_at", InvitationState.STARTED, gettext_lazy("The invited customer pressed the button")),
    ("opened_at", InvitationState.OPENED, gettext_lazy("The invited customer opened the page")),
)
"""Column of an invitation -> what its being written means, the furthest first: one entry may have written several."""

_ENDED: dict[str, Text] = {
    InvitationEnd.REVOKED: gettext_lazy("Invitation withdrawn"),
    InvitationEnd.EXPIRED: gettext_lazy("Invitation expired"),
    InvitationEnd.REPLACED: gettext_lazy("Invitation replaced by a newer one"),
}


def _invitation_rows(subject: _Subject) -> QuerySet[AuditEntry]:
    """An invitation is the company's, so its connection tells of it as well."""
    kind = ContentType.objects.get_for_model(Invitation)
    told = Q(action=AuditEntry.Action.CREATE) | Q(event=_SHOWN_TO_STAFF, additional_data__made_for="screen")
    told |= Q(event=_ASKED_FOR)
    for column in ("end", "withdrawn_at", *(column for column, _state, _title in _REACHED)):
        told |= Q(fields__contains=f",{column},")
    rows: QuerySet[AuditEntry] = AuditEntry.objects.filter(company_id=subject.company_id, content_type=kind)
    return rows.filter(told)


def _invitation_entry(entry: AuditEntry, place: Place) -> Entry:
    title, tone, text, next_step = _what_became(entry)
    return Entry(
        place,
        Kind.INVITATION,
        tone,
        title=str(title),
        text=" ".join(filter(None, (entry.reason, str(text)))),
        next_step=str(next_step),
        who=entry.actor_name,
        how=_source(entry.actor_name, entry.source),
    )


def _whom(entry: AuditEntry) -> str:
    """What for and whom: in the reader's language, not in that of who invited."""
    written = {name: values[1] for name, values in (entry.changes or {}).items()}
    if "purpose" not in written:
        return str(entry.object_repr)
    return invitation_title(written["purpose"], written["contact_name"])


def _what_became(entry: AuditEntry) -> tuple[Text, Tone, Text, Text]:
    """Title, tone, meaning and next step of an entry about an invitation."""
    if entry.action == AuditEntry.Action.CREATE:
        return _("Invited: %s") % _whom(entry), Tone.NEUTRAL, "", ""
    if entry.event == _ASKED_FOR:
        return _what_was_asked(entry)
    if entry.event:
        return _("The invitation's link was shown"), Tone.NEUTRAL, "", ""
    for column, state, title in _REACHED:
        if f",{column}," in entry.fields:
            meaning = INVITATION_MEANINGS[state]
            return title, meaning.tone, "", meaning.next_step
    if ",withdrawn_at," in entry.fields:
        return _("Invitation withdrawn"), Tone.NEUTRAL, _("The customer was connected, and stays so."), ""
    end = (entry.changes or {}).get("end", ["", ""])[1]
    meaning = INVITATION_MEANINGS[end]
    return _ENDED[end], meaning.tone, meaning.meaning, meaning.next_step


def _what_was_asked(entry: AuditEntry) -> tuple[Text, Tone, Text, Text]:
    """The entry is written by the next task: when the customer asked is in it, and which invitation lived then."""
    details = entry.additional_data or {}
    why = [_("The one they have does not work any more.")]
    if asked_at := parse_datetime(str(details.get("asked_at", ""))):
        when = date_format(timezone.localtime(asked_at), "DATETIME_FORMAT")
        why.insert(0, _("Asked on %(when)s.") % {"when": when})
    next_step = _("Invite the customer anew, or call.")
    if details.get("newer"):
        next_step = _("A newer invitation was there already: send that one again, or call.")
    return _("The customer asks for a new link"), Tone.WARNING, " ".join(why), next_step


def _mailed_rows(subject: _Subject) -> QuerySet[Mail]:
    return Mail.objects.filter(invitation__company_id=subject.company_id, sent_at__isnull=False)


def _mailed_entry(mail: Mail, place: Place) -> Entry:
    came_back = _("It came back: it did not arrive.") if mail.bounced_at else ""
    return Entry(
        place,
        Kind.INVITATION,
        Tone.WARNING if came_back else Tone.NEUTRAL,
        title=_("Mail to the customer: %s") % mail.get_kind_display(),
        text=" ".join(filter(None, (_("To: %s") % mail.to, came_back))),
        about=mail,
    )


# In the order in which entries of one moment stand, the last on top: asked, ended, what it changed, what followed.
_TELLINGS = (
    _Telling(Kind.OPERATION, "created_at", _asked_rows, _each(_asked_entry)),
    _Telling(Kind.OPERATION, "finished_at", _ended_rows, _each(_ended_entry)),
    _Telling(Kind.LINK, "timestamp", _shown_rows, _each(_shown_entry)),
    _Telling(Kind.STATUS, "seen_at", _status_rows, _show_statuses),
    _Telling(Kind.CASE, "at", _case_rows, _each(_case_entry)),
    _Telling(Kind.INVITATION, "timestamp", _invitation_rows, _each(_invitation_entry)),
    _Telling(Kind.INVITATION, "sent_at", _mailed_rows, _each(_mailed_entry)),
)

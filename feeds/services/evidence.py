"""The evidence pack: everything that is kept about one customer and period, in one ZIP that stands by itself.

Each section is one entry of `SECTIONS`: a file, what it holds, and a function that yields its rows. What a new part of
the product keeps about customers is added there, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Model, Q
from django.template.loader import render_to_string
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.audit import Actor, without_numbers
from feeds.banking import mask
from feeds.models import (
    AccessGrant,
    Approval,
    CaseEvent,
    Company,
    Connection,
    HistoryExport,
    Invitation,
    Mail,
    Operation,
    SourceAccount,
    StatusEvent,
)
from feeds.services import approval_rules, callouts, exports, history, timeline
from feeds.services.changes import Names
from feeds.services.errors import Refused
from feeds.services.exports import COLUMNS, Delivery, row_of
from feeds.services.history import Search
from feeds.services.tables import CSV_NOTE, Cell, as_csv, as_json_lines
from feeds.services.zipstream import Packed, ZipStream
from feeds.states import CalloutEventKind, MailState, Text

LANGUAGE = "en"
"""Evidence is read by people outside the bank too: one language, whatever the one who asks has chosen."""
LONGEST = timedelta(days=3660)
"""A period beyond every retention is a slip of the keyboard."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose evidence, from the first moment of `start` to the last of `end` (days in the product's zone)."""

    company: Company
    start: date
    end: date
    through: int = 0
    """The newest entry there was when packing began: both files of the history end there."""

    @property
    def since(self) -> datetime:
        """The first moment (aware)."""
        return timezone.make_aware(datetime.combine(self.start, time.min))

    @property
    def until(self) -> datetime:
        """The first moment after the period (aware)."""
        return timezone.make_aware(datetime.combine(self.end + timedelta(days=1), time.min))

    def during(self, column: str) -> Q:
        """The condition that a time lies within the period."""
        return Q(**{f"{column}__gte": self.since, f"{column}__lt": self.until})

    def open_during(self, end: str, limit: str) -> Q:
        """The condition that something made at `created_at` was open at some moment of the period.

        It closes at `end`, or else at `limit`.
        """
        closes_later = Q(**{f"{end}__gte": self.since}) | Q(**{f"{end}__isnull": True, f"{limit}__gte": self.since})
        return closes_later & Q(created_at__lt=self.until)


Rows = Iterator[tuple[Cell, ...]]


@dataclass(frozen=True, slots=True)
class Section:
    """One file of the pack. `about` says what it holds and what it does not."""

    name: str
    title: Text
    about: Text
    columns: Sequence[str]
    rows: Callable[[Scope], Rows]


@dataclass(frozen=True, slots=True)
class Contents:
    """A section as it was packed, for the index."""

    section: Section
    file: Packed
    rows: int


def make(company: Company, start: date, end: date, *, actor: Actor, reason: str) -> Delivery:
    """Record the pack and hand out its ZIP. Raises Refused for a period that is none."""
    if end < start:
        raise Refused(_("The period ends before it begins."))
    if end - start > LONGEST:
        raise Refused(_("The period is longer than ten years. Ask for a part of it."))
    scope = Scope(company, start, end)
    filters = {"customer": company.customer_number, "start": start.isoformat(), "end": end.isoformat()}
    words = f"{company}; {start.isoformat()} – {end.isoformat()}"
    asked = exports.begin_pack(company, filters=filters, words=words, actor=actor, reason=reason)
    return Delivery(f"evidence-{asked.pk}.zip", exports.recorded(asked, actor, _in_one_language(_pack(asked, scope))))


def _in_one_language(content: Iterator[bytes]) -> Iterator[bytes]:
    """Each part is made in `LANGUAGE`; between parts the thread speaks what it spoke before."""
    while True:
        with translation.override(LANGUAGE):
            try:
                part = next(content)
            except StopIteration:
                return
        yield part


def _pack(asked: HistoryExport, scope: Scope) -> Iterator[bytes]:
    packed = ZipStream(timezone.localtime(asked.started_at))
    scope = replace(scope, through=exports.newest())
    contents = []
    for section in SECTIONS:
        counted = exports.Counted(section.rows(scope))
        try:
            yield from packed.file(f"{section.name}.csv", as_csv(section.columns, counted))
        finally:
            asked.rows += counted.count
        contents.append(Contents(section, packed.files[-1], counted.count))
    yield from packed.file("history.jsonl", as_json_lines(COLUMNS, map(exports.structured, _history_rows(scope))))
    yield from packed.file("index.html", [_index(asked, scope, contents)])
    manifest = exports.as_manifest(
        {
            **exports.made_by(asked),
            "customer": {"number": scope.company.customer_number, "legal_name": scope.company.legal_name},
            "period": {"from": scope.start.isoformat(), "to": scope.end.isoformat()},
            "sections": [_as_json(one) for one in contents],
            "files": exports.listed(packed),
            "notes": [CSV_NOTE, exports.MASK_NOTE, ABOUT_TIMES],
        }
    )
    yield from packed.file("manifest.json", [manifest])
    # What the manifest says of every other file, one hash stands for.
    asked.sha256 = packed.files[-1].sha256
    yield from packed.end()


ABOUT_TIMES = "Times in the files are UTC (ISO 8601)."


def _as_json(contents: Contents) -> dict[str, Any]:
    section = contents.section
    return {"file": contents.file.name, "title": str(section.title), "about": str(section.about), "rows": contents.rows}


def _index(asked: HistoryExport, scope: Scope, contents: Sequence[Contents]) -> bytes:
    return render_to_string(
        "feeds/evidence/index.html",
        {
            "asked": asked,
            "scope": scope,
            "contents": contents,
            "seal": exports.last_seal(),
            "zone": settings.TIME_ZONE,
            "notes": [CSV_NOTE, exports.MASK_NOTE, ABOUT_TIMES],
        },
    ).encode()


# --- Sections --------------------------------------------------------------------------------------------------------
def _at(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="seconds") if moment else None


CUSTOMER = ("part", "number", "name", "state", "as_of_utc", "gone_since_utc", "more")


def _customer_rows(scope: Scope) -> Rows:
    company = Company.objects.select_related("manager").get(pk=scope.company.pk)
    manager = (company.manager.get_full_name() or company.manager.get_username()) if company.manager else ""
    yield (
        "company",
        company.customer_number,
        company.legal_name,
        str(company.onboarding.label),
        _at(company.read_at),
        _at(company.gone_at),
        f"contact: {company.contact_name} <{company.contact_email}>; manager: {manager}; Codat id: {company.codat_id}",
    )
    for connection in Connection.objects.filter(company=company).order_by("pk"):
        more = f"Codat id: {connection.codat_id}"
        yield (
            "connection", str(connection.pk), connection.platform_name, connection.status, _at(connection.read_at),
            _at(connection.gone_at), more,
        )  # fmt: skip
    for account in SourceAccount.objects.filter(company=company).order_by("pk"):
        more = f"number: {mask(account.account_number)}; {account.get_account_type_display()}; {account.currency}"
        yield (
            "source account", str(account.pk), account.name, account.status, _at(account.read_at),
            _at(account.gone_at), more,
        )  # fmt: skip


def _history_rows(scope: Scope) -> Rows:
    found = history.find(Search(start=scope.start, end=scope.end)).filter(company_id=scope.company.pk)
    names = Names()
    for chunk in exports.read(found.filter(id__lte=scope.through)):
        names.learn(chunk)
        for entry in chunk:
            yield row_of(entry, names)


OPERATIONS = (
    "id", "what", "state", "asked_at_utc", "asked_by", "source", "reason", "account", "first_sent_at_utc",
    "finished_at_utc", "http_status", "codat_correlation_id", "result", "error", "payload",
)  # fmt: skip


def _operation_rows(scope: Scope) -> Rows:
    found = Operation.objects.filter(scope.during("created_at"), company=scope.company).select_related("account")
    for one in found.order_by("pk").iterator():
        yield (
            one.pk, str(one.get_kind_display()), str(one.state_meaning.label), _at(one.created_at),
            one.requested_by_name, one.source, without_numbers(one.reason), one.account.name if one.account else None,
            _at(one.started_at), _at(one.finished_at), one.http_status, one.correlation_id, one.result, one.error,
            json.dumps(one.payload, ensure_ascii=False, sort_keys=True),
        )  # fmt: skip


STATUSES = ("id", "seen_at_utc", "of", "from", "to", "meaning", "how", "reference", "last_seen_before_utc")


def _status_rows(scope: Scope) -> Rows:
    found = StatusEvent.objects.filter(scope.during("seen_at"), company=scope.company).select_related("account")
    for event in found.order_by("pk").iterator():
        yield (
            event.pk, _at(event.seen_at), event.account.name if event.account else "connection", event.old, event.new,
            str(event.new_meaning.meaning), str(event.get_seen_by_display()), event.reference, _at(event.old_read_at),
        )  # fmt: skip


TIMELINE = ("at_utc", "kind", "what", "text", "who", "how")


def _timeline_rows(scope: Scope) -> Rows:
    """As the screen tells it, newest first, a page at a time."""
    place: timeline.Place | None = timeline.Place(scope.until, 0, 0)
    while place is not None:
        page = timeline.of_company(scope.company, before=place)
        for entry in page.entries:
            if entry.at < scope.since:
                return
            yield _at(entry.at), str(entry.kind_label), entry.title, without_numbers(entry.text), entry.who, entry.how
        place = page.older


CASES = ("case", "at_utc", "what", "text", "who", "case_state", "cause", "outcome", "outcome_reason")


def _case_rows(scope: Scope) -> Rows:
    found = CaseEvent.objects.filter(scope.during("at"), case__company=scope.company).select_related("case")
    for event in found.order_by("case_id", "pk").iterator():
        case = event.case
        yield (
            case.pk, _at(event.at), str(event.get_kind_display()), without_numbers(event.text), event.actor_name,
            str(case.state_meaning.label), str(case.get_cause_display()), str(case.get_outcome_display()),
            without_numbers(case.outcome_reason),
        )  # fmt: skip


MAILS = (
    "id", "about", "case", "invitation", "to", "subject", "state", "written_at_utc", "sent_at_utc", "came_back_at_utc",
    "text",
)  # fmt: skip


def _mail_rows(scope: Scope) -> Rows:
    touched = scope.during("created_at") | scope.during("sent_at")
    found = Mail.objects.filter(touched, company=scope.company)
    for mail in found.order_by("pk").iterator():
        yield (
            mail.pk, str(mail.get_kind_display()), mail.case_id, mail.invitation_id, mail.to, mail.subject,
            str(MailState(mail.state).label), _at(mail.created_at), _at(mail.sent_at), _at(mail.bounced_at),
            without_numbers(mail.body),
        )  # fmt: skip


CALLOUTS = (
    "version", "published_on", "superseded_on", "title_en", "body_en", "title_fr", "body_fr", "approved_by",
    "approved_at_utc", "attestations", "last_attested_on", "last_attested_by",
)  # fmt: skip


def _callout_rows(scope: Scope) -> Rows:
    for version in callouts.published_between(scope.start, scope.end):
        events = list(version.events.all())
        approved = next((event for event in reversed(events) if event.kind == CalloutEventKind.APPROVED), None)
        attested = (event for event in events if event.kind == CalloutEventKind.ATTESTED)
        yield (
            version.pk, _day(version.published_on), _day(version.superseded_on), version.title_en, version.body_en,
            version.title_fr, version.body_fr, approved.actor_name if approved else "",
            _at(approved.at) if approved else None,
            "; ".join(f"{_at(event.at)} {event.actor_name}: {event.text}" for event in attested),
            _day(version.attested_on), version.attested_by_name,
        )  # fmt: skip


def _day(day: date | None) -> str | None:
    return day.isoformat() if day else None


APPROVALS = (
    "id", "what", "object", "state", "asked_at_utc", "asked_by", "reason", "consequences", "decided_at_utc",
    "decided_by", "comment", "finished_at_utc", "outcome", "operation",
)  # fmt: skip


def _approval_rows(scope: Scope) -> Rows:
    touched = scope.during("created_at") | scope.during("decided_at") | scope.during("finished_at")
    of_one = Q(company=scope.company)
    for one in Approval.objects.filter(touched, of_one | Q(target_pk=None)).order_by("pk").iterator():
        target, outcome = one.target_name, one.outcome
        if one.target_pk is None:
            if (name := _among_many(one, scope.company)) is None:
                continue
            # What became of the others is theirs.
            target = f"{name} ({one.target_name})"
            outcome = next((why for refused, why in one.refusals if refused == name), "")
        yield (
            one.pk, str(approval_rules.RULES[one.action].label), target, str(one.state_meaning.label),
            _at(one.created_at), one.requested_by_name, without_numbers(one.reason), " ".join(one.consequences),
            _at(one.decided_at), one.decided_by_name, without_numbers(one.comment), _at(one.finished_at),
            without_numbers(outcome), one.operation_id,
        )  # fmt: skip


def _among_many(approval: Approval, company: Company) -> str | None:
    """The names under which a customer's rows stand in a request about many; None when it is about others only."""
    names = {pk: name for pk, name, _mark in approval.payload.get("rows", ())}
    model: type[Model] = approval_rules.RULES[approval.action].model
    rows = model._default_manager.filter(pk__in=names)
    own = rows.filter(pk=company.pk) if model is Company else rows.filter(company=company)
    return "; ".join(names[row.pk] for row in own.order_by("pk")) or None


INVITATIONS = (
    "id", "purpose", "state", "contact", "language", "made_at_utc", "made_by", "expires_at_utc", "sent_at_utc",
    "reminded_at_utc", "opened_at_utc", "started_at_utc", "times_pressed", "linked_at_utc", "connected_at_utc",
    "ended_at_utc", "ended_by", "links_withdrawn_at_utc",
)  # fmt: skip


def _invitation_rows(scope: Scope) -> Rows:
    found = Invitation.objects.filter(scope.open_during("ended_at", "expires_at"), company=scope.company)
    for one in found.order_by("pk").iterator():
        yield (
            one.pk, str(one.get_purpose_display()), str(one.state_meaning.label),
            f"{one.contact_name} <{one.contact_email}>", one.language, _at(one.created_at), one.made_by_name,
            _at(one.expires_at), _at(one.sent_at), _at(one.reminded_at), _at(one.opened_at), _at(one.started_at),
            one.presses, _at(one.linked_at), _at(one.connected_at), _at(one.ended_at), str(one.get_end_display()),
            _at(one.withdrawn_at),
        )  # fmt: skip


ACCESSES = ("id", "who", "reason", "since_utc", "until_utc", "ended_early_at_utc", "ended_by")


def _access_rows(scope: Scope) -> Rows:
    found = AccessGrant.objects.filter(scope.open_during("ended_at", "expires_at"), company=scope.company)
    for grant in found.order_by("pk").iterator():
        yield (
            grant.pk, grant.user_name, without_numbers(grant.reason), _at(grant.created_at), _at(grant.expires_at),
            _at(grant.ended_at), grant.ended_by_name,
        )  # fmt: skip


SECTIONS: tuple[Section, ...] = (
    Section(
        "customer",
        gettext_lazy("The customer as it is now"),
        gettext_lazy(
            "The company, its connections and its accounts when this pack was made. What they were on an earlier day "
            "follows from the history."
        ),
        CUSTOMER,
        _customer_rows,
    ),
    Section(
        "history",
        gettext_lazy("Change history"),
        gettext_lazy(
            "Every change and event about the customer in the period: who, when, from what to what, why. history.jsonl "
            "holds the same for programs."
        ),
        COLUMNS,
        _history_rows,
    ),
    Section(
        "operations",
        gettext_lazy("Operations"),
        gettext_lazy(
            "What was asked of Codat in the period and what became of it, until this pack was made. Payloads are "
            "redacted."
        ),
        OPERATIONS,
        _operation_rows,
    ),
    Section(
        "status_changes",
        gettext_lazy("Status changes"),
        gettext_lazy(
            "Every change of a status at Codat, as we saw it. A change may be up to ten days older than the day it was "
            "seen."
        ),
        STATUSES,
        _status_rows,
    ),
    Section(
        "timeline",
        gettext_lazy("Timeline"),
        gettext_lazy("What happened to the customer's feed in one list, newest first, as staff read it."),
        TIMELINE,
        _timeline_rows,
    ),
    Section(
        "cases",
        gettext_lazy("Cases and notes"),
        gettext_lazy(
            "What support did about broken feeds in the period, step by step. The last columns say how the case stands "
            "now."
        ),
        CASES,
        _case_rows,
    ),
    Section(
        "mails",
        gettext_lazy("Mails"),
        gettext_lazy(
            "Mails to the customer, and to staff about the customer, that were written or sent in the period. Where "
            "the customer's link stood is a mark: the link is stored nowhere."
        ),
        MAILS,
        _mail_rows,
    ),
    Section(
        "invitations",
        gettext_lazy("Invitations"),
        gettext_lazy(
            "Invitations that were open at some time of the period: who was invited, and when each step was first "
            "taken, until this pack was made. The keys to them are stored nowhere."
        ),
        INVITATIONS,
        _invitation_rows,
    ),
    Section(
        "callouts",
        gettext_lazy("Callout texts"),
        gettext_lazy(
            "The texts above Get credentials on Codat's page that were published in the period, the same for every "
            "customer: who approved them, and who attested on which day that they stood in the Portal."
        ),
        CALLOUTS,
        _callout_rows,
    ),
    Section(
        "approvals",
        gettext_lazy("Approvals"),
        gettext_lazy(
            "What needed a second person: requests about the customer that were made, decided or finished in the "
            "period. Of a request about many customers, only what concerns this one."
        ),
        APPROVALS,
        _approval_rows,
    ),
    Section(
        "emergency_accesses",
        gettext_lazy("Emergency accesses"),
        gettext_lazy(
            "Who was let in, in an emergency, though the customer is another manager's; accesses that were in force at "
            "some time of the period."
        ),
        ACCESSES,
        _access_rows,
    ),
)
"""In the order of the index."""

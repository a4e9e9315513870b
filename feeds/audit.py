"""The change history: who did what, from where, why. The only importer of the audit library.

Rows that change are written by django-auditlog when they are saved, by `update`, `update_rows` and `bulk_create` when
many are written at once (the models refuse that anywhere else); events that change no row (a link shown, an account
number revealed) by `record`. All get the actor of the surrounding `acting` block. Fields are an allow-list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, replace
from functools import wraps
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

import structlog
from auditlog.diff import model_instance_diff
from auditlog.registry import auditlog
from auditlog.signals import pre_log
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser, Group, GroupManager, User, UserManager
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ObjectDoesNotExist
from django.db import models, transaction
from django.db.models import QuerySet
from django.db.models.signals import pre_save
from django.http import HttpRequest, HttpResponse
from django.utils.translation import get_language

from feeds import statements
from feeds.banking import mask
from feeds.models import (
    AccessGrant,
    ApiKey,
    Approval,
    AuditEntry,
    AuditPurge,
    AuditSeal,
    AuditSealDelivery,
    Batch,
    BatchItem,
    CalloutEvent,
    CalloutVersion,
    Case,
    CaseEvent,
    CodatQuota,
    Company,
    Connection,
    DailyFigure,
    DriftFinding,
    DriftReport,
    Heartbeat,
    HistoryCheck,
    HistoryExport,
    Incident,
    Invitation,
    InvitationKey,
    Knock,
    ListingWalk,
    Mail,
    Operation,
    Preference,
    SignInLock,
    SourceAccount,
    StatusEvent,
    WebhookEvent,
)
from feeds.models.base import AuditedQuerySet, entries_are_written
from feeds.wording import recorded

M = TypeVar("M", bound=models.Model)

LONGEST_NAME = 200
"""Of a person, whose first and last name may have 150 characters each: as many as every column for it has."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a person (`user`) or a service (no user, a name such as "worker")."""

    name: str
    source: str
    user: User | None = None
    remote_addr: str | None = None
    reason: str = ""

    @classmethod
    def person(cls, user: AbstractBaseUser | AnonymousUser, *, source: str, remote_addr: str | None = None) -> Actor:
        """The signed-in person, or "anonymous" before sign-in."""
        if not isinstance(user, User):
            return cls(name="anonymous", source=source, remote_addr=remote_addr)
        name = (user.get_full_name() or user.get_username())[:LONGEST_NAME]
        return cls(name=name, source=source, user=user, remote_addr=remote_addr)

    @classmethod
    def service(cls, name: str) -> Actor:
        """A part of the system that acts by itself, such as "worker" or "sweeper"."""
        return cls(name=name, source=f"service: {name}")


SYSTEM = Actor.service("system")
_current: ContextVar[Actor] = ContextVar("audit_actor", default=SYSTEM)


def current_actor() -> Actor:
    """The actor of the surrounding `acting` block."""
    return _current.get()


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Everything saved or recorded inside is attributed to `actor`. Blocks nest."""
    token = _current.set(actor)
    try:
        yield
    finally:
        _current.reset(token)


def record(
    event: str,
    target: models.Model | None = None,
    *,
    text: str = "",
    company: Company | None = None,
    reason: str = "",
    **details: str | int,
) -> AuditEntry:
    """Write an event that changes no row.

    `event` is a short verb phrase in snake case ("link_revealed"), `details` hold no secrets (ids, counts, states).
    An event about no row in particular, such as an export, has a `text` that says what it was about. The customer is
    the target's, unless `company` names another.
    """
    entry = _entry(target, AuditEntry.Action.ACCESS)
    entry.event = event
    entry.reason = reason
    entry.additional_data = dict(details) or None
    if target is None:
        entry.object_repr = text
    if company is not None:
        entry.company_id = company.pk
    entry.save(force_insert=True)
    return entry


def update(rows: QuerySet[Any], **values: Any) -> int:
    """What `rows.update(**values)` does, with the entries that saving each row would have written; how many rows.

    `values` are plain values, no expressions. Rows that have them already are left alone.
    """
    with transaction.atomic():
        changed = []
        for before in rows.select_for_update(of=("self",)):
            after = copy(before)
            for name, value in values.items():
                setattr(after, name, value)
            if any(getattr(before, name) != value for name, value in values.items()):
                changed.append((before, after))
        with entries_are_written():
            rows.model._default_manager.filter(pk__in=[after.pk for _before, after in changed]).update(**values)
        _add(_update_entry(before, after, values) for before, after in changed)
    return len(changed)


def update_rows(updates: Iterable[tuple[models.Model, models.Model, Mapping[str, Any]]]) -> None:
    """Save rows that changed each in its own way, with their entries in one statement.

    Each of `updates` is the row before, the row after, and the columns to save with their values.
    """
    updates = list(updates)
    with transaction.atomic():
        for model, changes in groupby(updates, key=lambda change: type(change[1])):
            statements.update_rows(model, [(after.pk, values) for _before, after, values in changes])
        _add(_update_entry(before, after, values) for before, after, values in updates)


def bulk_create(rows: Sequence[M], *, batch_size: int = 500) -> list[M]:
    """Add rows of one model, and the entries that saving each would have written."""
    if not rows:
        return []
    with transaction.atomic():
        with entries_are_written():
            made = type(rows[0])._default_manager.bulk_create(rows, batch_size=batch_size)
        _add(_entry(row, AuditEntry.Action.CREATE, model_instance_diff(None, row)) for row in made)
    return made


def _update_entry(before: models.Model, after: models.Model, fields: Collection[str]) -> AuditEntry:
    changes = model_instance_diff(before, after, fields_to_check=list(fields))
    return _entry(after, AuditEntry.Action.UPDATE, changes)


def _entry(target: models.Model | None, action: int, changes: dict[str, Any] | None = None) -> AuditEntry:
    entry: AuditEntry = AuditEntry(action=action, changes=changes)
    if target is not None:
        entry.content_type = ContentType.objects.get_for_model(target)
        entry.object_pk = str(target.pk)
        entry.object_id = target.pk if isinstance(target.pk, int) else None
        with recorded():
            entry.object_repr = str(target)
        entry.company_id = _customer(target)
    return entry


def _add(entries: Iterable[AuditEntry]) -> None:
    """Save entries of updates and creations, leaving out those in which nothing changed."""
    telling = [entry for entry in entries if entry.changes]
    for entry in telling:
        _stamp(AuditEntry, entry)
    statements.insert_rows(telling)


_CUSTOMERS: dict[type[models.Model], str] = {Company: "pk", CaseEvent: "case.company_id"}
"""Where a row names its customer, if not in `company_id`."""


def _customer(row: models.Model) -> int | None:
    try:
        found: int | None = attrgetter(_CUSTOMERS.get(type(row), "company_id"))(row)
    except AttributeError:  # a row that belongs to no customer, such as a mail to the whole team
        return None
    return found


_about: ContextVar[models.Model | None] = ContextVar("audit_about", default=None)
"""The row that the library is writing an entry about: it does not pass it on."""


def _note_row(instance: models.Model, **_kwargs: Any) -> None:
    _about.set(instance)


def _stamp(sender: type[AuditEntry], instance: AuditEntry, **_kwargs: Any) -> None:
    """Fill in who, from where and why. Nothing is ever saved twice: the database would refuse."""
    actor = current_actor()
    instance.actor_id = actor.user.pk if actor.user else None
    instance.actor_email = actor.user.email if actor.user else None
    instance.actor_name = actor.name
    instance.source = actor.source
    instance.reason = without_numbers(instance.reason or actor.reason)
    instance.remote_addr = actor.remote_addr
    instance.fields = "".join(f",{name}" for name in sorted(instance.changes)) + "," if instance.changes else ""
    for name in _FREE_TEXT & set(instance.changes or ()):
        instance.changes[name] = [without_numbers(str(value)) for value in instance.changes[name]]
    context = structlog.contextvars.get_contextvars()
    instance.cid = context.get("request_id") or context.get("task_id")
    row = _about.get()
    if row is not None and get_language() != settings.LANGUAGE_CODE and _is_about(instance, row):
        with suppress(ObjectDoesNotExist), recorded():
            instance.object_repr = str(row)
    if row is not None and instance.company_id is None and _is_about(instance, row):
        instance.company_id = _customer(row)


_FREE_TEXT = {"comment", "note", "notes", "outcome_reason", "reason"}
_LONG_NUMBER = re.compile(r"(?P<date>\b(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])\b)|\d(?:-?\d){7,}")
"""Eight digits, also as they stand on a statement, "4030-0556-7719". Dates are none."""


def without_numbers(text: str) -> str:
    """What people type, with numbers masked that may be a whole account number: this copy can never be corrected."""
    return _LONG_NUMBER.sub(lambda number: number["date"] or mask(number[0]), text)


def _is_about(entry: AuditEntry, row: models.Model) -> bool:
    kind = ContentType.objects.get_for_model(row)
    return bool(entry.content_type_id == kind.pk and str(entry.object_pk) == str(row.pk))


# --- What is kept ----------------------------------------------------------------------------------------------------
_AUDITED: dict[type[models.Model], dict[str, Any]] = {
    # Of the redirect URL an auditor may know that it changed: it is an address for the customer.
    Company: {
        "include_fields": [
            "uid", "customer_number", "legal_name", "contact_name", "contact_email", "language", "country", "time_zone",
            "manager", "notes", "redirect_url", "codat_id", "codat_name", "codat_created_at", "onboarding_state",
            "onboarding_error", "gone_at",
        ],
        "mask_fields": ["redirect_url"],
        "mask_callable": "feeds.audit.hide_value",
    },
    # The link itself is left out on purpose; that one was fetched is what an auditor may know.
    Connection: {
        "include_fields": [
            "company", "codat_id", "platform_key", "integration_id", "integration_key", "source_id", "source_type",
            "platform_name", "status", "link_fetched_at", "last_sync_at", "errors", "gone_at",
        ]
    },
    SourceAccount: {
        "include_fields": [
            "company", "connection", "account_id", "name", "account_type", "account_number", "routing_type",
            "bank_code", "sort_code", "currency", "balance", "account_open_date", "status", "feed_start_date",
            "last_error", "gone_at",
        ],
        "mask_fields": ["account_number"],
        "mask_callable": "feeds.audit.mask_value",
    },
    Operation: {
        "include_fields": [
            "company", "connection", "account", "kind", "state", "requested_by_name", "reason", "http_status",
            "correlation_id", "error", "result",
        ]
    },
    Batch: {"include_fields": ["label", "requested_by_name"]},
    # What is broken, and how urgent it is, follows from readings: the story of a case, not its history.
    Case: {
        "include_fields": [
            "company", "connection", "incident", "state", "owner", "cause", "outcome", "outcome_reason",
            "snoozed_until", "times_broken",
        ]
    },
    CalloutVersion: {
        "include_fields": [
            "title_en", "body_en", "title_fr", "body_fr", "note", "copied_from", "state", "state_by_name",
            "published_on", "superseded_on", "attested_on", "attested_by_name",
        ]
    },
    # The whole request, so that what was approved can be held against what was done.
    Approval: {
        "include_fields": [
            "action", "target_name", "company", "payload", "judged_on", "consequences", "reason", "requested_by_name",
            "expires_at", "state", "decided_by_name", "comment", "operation", "outcome",
        ]
    },
    AccessGrant: {"include_fields": ["company", "user", "reason", "expires_at", "ended_at", "ended_by_name"]},
    # Its hash is left out: that it was made is what an auditor may know.
    ApiKey: {
        "include_fields": [
            "name", "prefix", "scopes", "manager", "expires_at", "replaced_by", "revoked_at", "revoked_by_name",
        ]
    },
    Invitation: {
        "include_fields": [
            "company", "purpose", "contact_name", "contact_email", "language", "expires_at", "ended_at", "end",
            "sent_at", "reminded_at", "opened_at", "started_at", "linked_at", "connected_at", "withdrawn_at",
        ]
    },
    Incident: {"include_fields": ["opened_at", "released_at", "released_by_name", "note"]},
    Preference: {"include_fields": ["user", "language"]},
    # Of a password an auditor may know that it was changed, and by whom.
    User: {
        "include_fields": [
            "username", "password", "first_name", "last_name", "email", "is_active", "is_staff", "is_superuser",
        ],
        "mask_fields": ["password"],
        "mask_callable": "feeds.audit.hide_value",
        "m2m_fields": {"groups", "user_permissions"},
    },
    Group: {"include_fields": ["name"], "m2m_fields": {"permissions"}},
}  # fmt: skip


def mask_value(value: str) -> str:
    """For django-auditlog: what is kept of an account number."""
    return mask(value)


def hide_value(value: str) -> str:
    """For django-auditlog: nothing is kept of a password's hash, not even its end; only whether there was a value."""
    return "••••" if value not in ("", "None") else value


def kept_models() -> list[type[models.Model]]:
    """The models whose changes are kept."""
    return list(_AUDITED)


def kept_fields(model: type[models.Model] | None) -> list[str]:
    """The fields of a model whose changes are kept, in alphabetical order; none of one that is not audited."""
    options = _AUDITED.get(model, {}) if model else {}
    return sorted({*options.get("include_fields", ()), *options.get("m2m_fields", ())})


def masked_fields(model: type[models.Model] | None) -> list[str]:
    """The kept fields of which only a mask is kept."""
    options = _AUDITED.get(model, {}) if model else {}
    return sorted(options.get("mask_fields", ()))


NOT_AUDITED: dict[type[models.Model], str] = {
    AuditEntry: "is the history",
    AuditSeal: "append-only by itself, and chained",
    AuditSealDelivery: "bookkeeping of seals on their way; failures show on the page of the seals",
    AuditPurge: "append-only by itself; each is an event as well",
    BatchItem: "says which companies one click was about; that they were asked for is in each company's history",
    CalloutEvent: "a story that is only ever added to; every move of a version is in its history",
    CaseEvent: "a story that is only ever added to; what it tells is in the case's history, a note is an event",
    CodatQuota: "a reading of Codat's counter",
    DailyFigure: "counts of the day",
    DriftFinding: "result of a comparison; that a company was adopted is an event",
    DriftReport: "result of a comparison",
    HistoryCheck: "result of a verification; that it was asked for and what it found are events",
    HistoryExport: "bookkeeping of exports; that one began, ended or was broken off are events",
    Heartbeat: "proof of life of a process",
    InvitationKey: "the hash of a key; that one was made, and for what, is an event of its invitation",
    Knock: "counts wrong keys for some minutes",
    ListingWalk: "how far a reading of Codat's list has come",
    Mail: "the outbox; that one was sent, or given up, is an event",
    SignInLock: "counts failed sign-ins for some minutes; each of them, and a lock taken off, is an event",
    StatusEvent: "a log of what Codat showed, only ever added to; the status is in the history of its row",
    WebhookEvent: "the inbox, written by Codat; what it leads to is in the history of the rows, asking again an event",
}
"""Models whose rows leave no entries by themselves, and why. A model is in one of the two tables, or a test fails."""


def register_models() -> None:
    """Tell django-auditlog which fields of which models are kept (called once, when the app is ready)."""
    for model, options in _AUDITED.items():
        auditlog.register(model, **options)
        _save_whole(model)
    for manager in (UserManager, GroupManager):
        setattr(manager, "_queryset_class", AuditedQuerySet)  # noqa: B010  # private, and these are not ours to subclass
    pre_log.connect(_note_row, dispatch_uid="feeds.audit.row")
    pre_save.connect(_stamp, sender=AuditEntry, dispatch_uid="feeds.audit.stamp")
    user_logged_in.connect(_signed_in, dispatch_uid="feeds.audit.signed_in")
    user_login_failed.connect(_sign_in_failed, dispatch_uid="feeds.audit.sign_in_failed")
    user_logged_out.connect(_signed_out, dispatch_uid="feeds.audit.signed_out")


def _save_whole(model: type[models.Model]) -> None:
    """A row and its entry are saved together or not at all, whether or not the caller opened a transaction.

    Here and not in a base class: Django's own User is audited too.
    """
    save_base = model.save_base

    @wraps(save_base)
    def whole(self: models.Model, *args: Any, **options: Any) -> None:
        # No savepoint: inside somebody's transaction a failure ends that one, as it does without us.
        with transaction.atomic(savepoint=False):
            save_base(self, *args, **options)

    model.save_base = whole  # type: ignore[method-assign]


# --- Signing in and out ----------------------------------------------------------------------------------------------
def _signed_in(sender: Any, request: HttpRequest | None, user: User, **_kwargs: Any) -> None:
    with acting(_at_the_door(request, user)):
        record("signed_in", user)


def _signed_out(sender: Any, request: HttpRequest | None, user: User | None, **_kwargs: Any) -> None:
    if user is not None:
        with acting(_at_the_door(request, user)):
            record("signed_out", user)


def _sign_in_failed(sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **_kw: Any) -> None:
    """Whose name was tried. A name that nobody has is not kept: it may be a password, typed one field too early."""
    tried = User.objects.filter(username__iexact=str(credentials.get("username", ""))[:150]).first()
    with acting(replace(Actor.person(AnonymousUser(), source="admin"), remote_addr=_address(request))):
        record("sign_in_failed", tried, text="" if tried else "unknown user name")


def _at_the_door(request: HttpRequest | None, user: User) -> Actor:
    return Actor.person(user, source="admin", remote_addr=_address(request))


def _address(request: HttpRequest | None) -> str | None:
    return request.META.get("REMOTE_ADDR") if request is not None else None


class AuditMiddleware:
    """Attributes everything a request changes to the signed-in person."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Run the request inside an `acting` block."""
        actor = Actor.person(request.user, source="admin", remote_addr=request.META.get("REMOTE_ADDR"))
        with acting(actor):
            return self.get_response(request)

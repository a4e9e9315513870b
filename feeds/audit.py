"""The change history: who did what, from where, why. The only importer of the audit library.

Rows that change are written by django-auditlog when they are saved; events that change no row (a link shown, an
account number revealed) are written by `record`. Both get the actor of the surrounding `acting` block. Fields are an
allow-list.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import structlog
from auditlog.diff import model_instance_diff
from auditlog.registry import auditlog
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models.signals import pre_save
from django.http import HttpRequest, HttpResponse

from feeds.banking import mask
from feeds.models import AuditEntry, Batch, Case, Company, Connection, Incident, Invitation, Operation, SourceAccount


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
        return cls(name=user.get_full_name() or user.get_username(), source=source, user=user, remote_addr=remote_addr)

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


def record(event: str, target: models.Model, *, reason: str = "", **details: str | int) -> AuditEntry:
    """Write an event that changes no row.

    `event` is a short verb phrase in snake case ("link_revealed"), `details` hold no secrets (ids, counts, states).
    """
    entry: AuditEntry = AuditEntry.objects.create(
        content_type=ContentType.objects.get_for_model(target),
        object_pk=str(target.pk),
        object_id=target.pk if isinstance(target.pk, int) else None,
        object_repr=str(target),
        action=AuditEntry.Action.ACCESS,
        event=event,
        reason=reason,
        additional_data=dict(details) or None,
    )
    return entry


def record_updates(updates: Iterable[tuple[models.Model, models.Model, Collection[str]]]) -> None:
    """Write what saving each row would have written, for rows that were saved together.

    Each of `updates` is the row before, the row after, and the names of the fields that were saved.
    """
    entries = []
    for before, after, fields in updates:
        if changes := model_instance_diff(before, after, fields_to_check=fields):
            entry = AuditEntry(
                content_type=ContentType.objects.get_for_model(after),
                object_pk=str(after.pk),
                object_id=after.pk,
                object_repr=str(after),
                action=AuditEntry.Action.UPDATE,
                changes=changes,
            )
            _stamp(AuditEntry, entry)
            entries.append(entry)
    AuditEntry.objects.bulk_create(entries)


def _stamp(sender: type[AuditEntry], instance: AuditEntry, **_kwargs: Any) -> None:
    if not instance._state.adding:
        return
    actor = current_actor()
    instance.actor = actor.user
    instance.actor_email = actor.user.email if actor.user else None
    instance.actor_name = actor.name
    instance.source = actor.source
    instance.reason = instance.reason or actor.reason
    instance.remote_addr = actor.remote_addr
    context = structlog.contextvars.get_contextvars()
    instance.cid = context.get("request_id") or context.get("task_id")


_AUDITED: dict[type[models.Model], dict[str, Any]] = {
    # The redirect URL is left out: it is an address for the customer, and auditors see no customer's link.
    Company: {
        "include_fields": [
            "customer_number", "legal_name", "contact_name", "contact_email", "language", "country", "time_zone",
            "manager", "notes", "codat_id", "codat_name", "codat_created_at", "onboarding_state", "onboarding_error",
            "gone_at",
        ]
    },
    # The link itself is left out on purpose; that one was fetched is what an auditor may know.
    Connection: {
        "include_fields": [
            "company", "codat_id", "platform_key", "integration_id", "source_id", "status", "link_fetched_at",
            "last_sync_at", "errors", "gone_at",
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
            "company", "connection", "state", "owner", "cause", "outcome", "outcome_reason", "snoozed_until",
            "times_broken",
        ]
    },
    Invitation: {
        "include_fields": [
            "company", "purpose", "contact_name", "contact_email", "language", "expires_at", "ended_at", "end",
            "sent_at", "reminded_at", "opened_at", "started_at", "linked_at", "connected_at",
        ]
    },
    Incident: {"include_fields": ["opened_at", "released_at", "released_by_name", "note"]},
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


def hide_value(_value: str) -> str:
    """For django-auditlog: nothing is kept of a password's hash, not even its end."""
    return "••••"


def register_models() -> None:
    """Tell django-auditlog which fields of which models are kept (called once, when the app is ready)."""
    for model, options in _AUDITED.items():
        auditlog.register(model, **options)
    pre_save.connect(_stamp, sender=AuditEntry, dispatch_uid="feeds.audit.stamp")


class AuditMiddleware:
    """Attributes everything a request changes to the signed-in person."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Run the request inside an `acting` block."""
        actor = Actor.person(request.user, source="admin", remote_addr=request.META.get("REMOTE_ADDR"))
        with acting(actor):
            return self.get_response(request)

"""The ledger: every write to Codat is a row here before it is a request there."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from feeds.models.base import AuditedQuerySet
from feeds.models.company import Company
from feeds.models.connection import Connection
from feeds.models.source_account import SourceAccount
from feeds.states import (
    OPEN_OPERATION_STATES,
    OPERATION_MEANINGS,
    OPERATION_TRANSITIONS,
    Meaning,
    OperationKind,
    OperationState,
    describe,
)


class OperationQuerySet(AuditedQuerySet["Operation"]):
    """Sets of ledger rows that several rooms ask for."""

    def open(self) -> OperationQuerySet:
        """Rows that still owe Codat a call or a look."""
        return self.filter(state__in=OPEN_OPERATION_STATES)


class Operation(models.Model):
    """One write to Codat: who asked for what and why, and what became of it.

    `payload` is redacted; `fingerprint` is a keyed hash of the body as sent, so a retry knows whether it may use the
    same idempotency key (same body) or needs a new one (Codat answers 422 to the same key with another body).
    """

    company = models.ForeignKey(
        Company, verbose_name=_("company"), on_delete=models.PROTECT, related_name="operations", editable=False
    )
    connection = models.ForeignKey(
        Connection,
        verbose_name=_("connection"),
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="operations",
    )
    account = models.ForeignKey(
        SourceAccount,
        verbose_name=_("source account"),
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="operations",
    )
    kind = models.CharField(_("what"), max_length=24, choices=OperationKind.choices)
    state = models.CharField(_("state"), max_length=10, choices=OperationState.choices, default=OperationState.QUEUED)
    payload = models.JSONField(_("payload (redacted)"), default=dict, blank=True)
    fingerprint = models.CharField(max_length=64, blank=True)
    idempotency_key = models.UUIDField(_("idempotency key"), default=uuid.uuid4)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)

    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("asked by"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    requested_by_name = models.CharField(_("asked by (name)"), max_length=200, blank=True)
    source = models.CharField(_("source"), max_length=40, blank=True)
    reason = models.TextField(_("reason"), blank=True)

    http_status = models.PositiveSmallIntegerField(_("HTTP status"), null=True, blank=True)
    correlation_id = models.CharField(_("Codat correlation id"), max_length=100, blank=True)
    error = models.TextField(_("what went wrong"), blank=True)
    result = models.CharField(_("result"), max_length=300, blank=True)

    created_at = models.DateTimeField(_("asked"), auto_now_add=True)
    started_at = models.DateTimeField(_("first sent"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)
    next_attempt_at = models.DateTimeField(_("next attempt"), null=True, blank=True)

    objects = OperationQuerySet.as_manager()
    bookkeeping: ClassVar = frozenset({
        "payload", "fingerprint", "idempotency_key", "attempts", "requested_by", "source",
        "created_at", "started_at", "finished_at", "next_attempt_at",
    })  # fmt: skip

    class Meta:
        verbose_name = _("operation")
        verbose_name_plural = _("operations")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(state__in=OperationState.values), name="operation_state_known"),
            models.CheckConstraint(condition=Q(kind__in=OperationKind.values), name="operation_kind_known"),
            models.UniqueConstraint(
                fields=["company", "kind"],
                condition=Q(state__in=OPEN_OPERATION_STATES, account__isnull=True),
                name="operation_one_open_per_company_kind",
            ),
            models.UniqueConstraint(
                fields=["account", "kind"],
                condition=Q(state__in=OPEN_OPERATION_STATES, account__isnull=False),
                name="operation_one_open_per_account_kind",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["company", "-id"], name="operation_company"),
            models.Index(fields=["state", "-id"], name="operation_state"),
            models.Index(fields=["kind", "-id"], name="operation_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} #{self.pk}"

    @property
    def state_meaning(self) -> Meaning:
        """How the state is shown."""
        return describe(OPERATION_MEANINGS, self.state)

    @property
    def is_open(self) -> bool:
        """Whether this row still owes Codat a call or a look."""
        return self.state in OPEN_OPERATION_STATES

    def move_to(self, state: OperationState) -> None:
        """Set `state` (not saved). Raises ValueError on a move that `states.OPERATION_TRANSITIONS` does not allow."""
        if state not in OPERATION_TRANSITIONS[self.state]:
            raise ValueError(f"operation {self.pk}: {self.state} -> {state} is not allowed")
        self.state = state

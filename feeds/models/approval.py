"""Requests for approval: what one person asked for and another has to approve before it happens."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from feeds.models.base import TIMES, AuditedQuerySet, TimeStamped
from feeds.models.company import Company
from feeds.models.operation import Operation
from feeds.states import (
    APPROVAL_MEANINGS,
    APPROVAL_TRANSITIONS,
    OPEN_APPROVAL_STATES,
    ApprovalState,
    Meaning,
    describe,
)


class Approval(TimeStamped):
    """One request. Everything up to `expires_at` is frozen when it is made; the rest is what became of it.

    `payload` is exactly what will run: ``{"data": {field: value}}`` for one object, or ``{"rows": [[pk, name,
    fingerprint], ...]}`` for many. `judged_on` is the state of the object that the consequences were worded from.
    Neither holds secrets: each action names the fields it may freeze.
    """

    action = models.CharField(_("what"), max_length=40)
    target_type = models.ForeignKey(ContentType, on_delete=models.PROTECT, related_name="+")
    target_pk = models.BigIntegerField(_("object"), null=True, blank=True, help_text=_("Empty when there are many."))
    target_name = models.CharField(_("object"), max_length=300)
    key = models.CharField(max_length=80, help_text=_("The same for the same thing asked of the same objects."))
    company = models.ForeignKey(
        Company, verbose_name=_("company"), null=True, blank=True, on_delete=models.SET_NULL, related_name="approvals"
    )
    payload = models.JSONField(_("what will run"), default=dict)
    judged_on = models.JSONField(_("judged on"), default=dict)
    consequences = models.JSONField(_("what will happen"), default=list)
    reason = models.TextField(_("reason"))
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("asked by"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    requested_by_name = models.CharField(_("asked by (name)"), max_length=200)
    expires_at = models.DateTimeField(_("expires"))

    state = models.CharField(_("state"), max_length=10, choices=ApprovalState.choices, default=ApprovalState.REQUESTED)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("decided by"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    decided_by_name = models.CharField(_("decided by (name)"), max_length=200, blank=True)
    decided_at = models.DateTimeField(_("decided"), null=True, blank=True)
    comment = models.TextField(_("comment"), blank=True)
    rows_done = models.PositiveIntegerField(_("rows worked through"), default=0)
    refusals = models.JSONField(_("rows that were refused"), default=list, blank=True)
    operation = models.ForeignKey(
        Operation, verbose_name=_("operation"), null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    outcome = models.TextField(_("what became of it"), blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)

    objects = AuditedQuerySet["Approval"].as_manager()
    # The entries of the others say the same: who, when and of what is in each of them.
    bookkeeping: ClassVar = TIMES | {
        "target_type", "target_pk", "key", "requested_by", "decided_by", "decided_at", "rows_done", "refusals",
        "finished_at",
    }  # fmt: skip

    class Meta:
        verbose_name = _("request for approval")
        verbose_name_plural = _("requests for approval")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [
            ("decide_approval", _("Can approve or refuse what a colleague asked for")),
            ("withdraw_approval", _("Can withdraw a request of their own")),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(state__in=ApprovalState.values), name="approval_state_known"),
            models.CheckConstraint(condition=~Q(reason=""), name="approval_has_reason"),
            models.UniqueConstraint(
                fields=["action", "key"], condition=Q(state__in=OPEN_APPROVAL_STATES), name="approval_one_open_per_key"
            ),
            # The database's own word on the rule; the service gives the reason.
            models.CheckConstraint(
                condition=Q(requested_by__isnull=True)
                | Q(decided_by__isnull=True)
                | ~Q(decided_by=models.F("requested_by")),
                name="approval_by_somebody_else",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["state", "-id"], name="approval_state"),
            models.Index(fields=["requested_by", "-id"], name="approval_requested_by"),
            models.Index(fields=["expires_at"], name="approval_open", condition=Q(finished_at__isnull=True)),
        ]

    def __str__(self) -> str:
        return f"#{self.pk} {self.target_name}"

    @property
    def state_meaning(self) -> Meaning:
        """How the state is shown."""
        return describe(APPROVAL_MEANINGS, self.state)

    @property
    def is_open(self) -> bool:
        """Whether something may still happen because of it."""
        return self.state in OPEN_APPROVAL_STATES

    def is_overdue(self, now: datetime) -> bool:
        """Whether it is too late to decide."""
        return self.state == ApprovalState.REQUESTED and self.expires_at <= now

    def move_to(self, state: ApprovalState) -> None:
        """Set `state` (not saved). Raises ValueError on a move that `states.APPROVAL_TRANSITIONS` does not allow."""
        if state not in APPROVAL_TRANSITIONS[self.state]:
            raise ValueError(f"request for approval {self.pk}: {self.state} -> {state} is not allowed")
        self.state = state

"""The webhook inbox: stored once for each `webhook-id`, answered at once, applied later."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from feeds.models.company import Company
from feeds.states import WEBHOOK_MEANINGS, Meaning, WebhookState, describe


class WebhookEvent(models.Model):
    """One webhook of Codat's. `body` is redacted before it is stored: no link, no otp, no account number."""

    webhook_id = models.CharField(_("webhook id"), max_length=100, unique=True)
    event_type = models.CharField(_("type"), max_length=80)
    generated_at = models.DateTimeField(_("sent by Codat"), null=True, blank=True)
    received_at = models.DateTimeField(_("received"), auto_now_add=True)
    applied_at = models.DateTimeField(_("applied"), null=True, blank=True)
    state = models.CharField(_("state"), max_length=8, choices=WebhookState.choices, default=WebhookState.RECEIVED)
    codat_company_id = models.CharField(_("Codat company id"), max_length=64, blank=True)
    company = models.ForeignKey(
        Company, verbose_name=_("company"), null=True, blank=True, on_delete=models.SET_NULL, related_name="webhooks"
    )
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    error = models.TextField(_("what went wrong"), blank=True)
    body = models.JSONField(_("body (redacted)"), default=dict)
    due_at = models.DateTimeField(_("next attempt"), null=True, blank=True)
    postponed_since = models.DateTimeField(
        _("postponed since"), null=True, blank=True, help_text=_("It waits for quota, and for nothing else.")
    )

    class Meta:
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [("reapply_webhook", _("Can apply a webhook again"))]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(state__in=WebhookState.values), name="webhook_state_known"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["state", "-id"], name="webhook_state"),
            models.Index(fields=["due_at"], name="webhook_due", condition=Q(due_at__isnull=False)),
            models.Index(fields=["codat_company_id", "-id"], name="webhook_company"),
            models.Index(fields=["applied_at"], name="webhook_applied", condition=Q(applied_at__isnull=False)),
            models.Index(fields=["event_type", "-id"], name="webhook_type"),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} {self.webhook_id}"

    @property
    def state_meaning(self) -> Meaning:
        """How the state is shown."""
        return describe(WEBHOOK_MEANINGS, self.state)

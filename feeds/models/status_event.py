"""Every change of a status, as we saw it: the ground of the timeline and of the cases."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from feeds.models.company import Company
from feeds.models.connection import Connection
from feeds.models.source_account import SourceAccount
from feeds.states import ACCOUNT_MEANINGS, CONNECTION_MEANINGS, GONE, GONE_MEANING, Meaning, SeenBy, Text, describe


class StatusEvent(models.Model):
    """One change of one status. Written by `services.mirror` only, in the transaction that changes the status.

    `seen_at` is when the reading that showed it was asked for; the change itself may be up to ten days older.
    """

    company = models.ForeignKey(
        Company, verbose_name=_("company"), on_delete=models.CASCADE, related_name="status_events"
    )
    connection = models.ForeignKey(Connection, verbose_name=_("connection"), on_delete=models.CASCADE, related_name="+")
    account = models.ForeignKey(
        SourceAccount,
        verbose_name=_("source account"),
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="+",
    )
    old = models.CharField(_("from"), max_length=32, blank=True)
    new = models.CharField(_("to"), max_length=32, help_text=_("“gone” when Codat no longer has it."))
    seen_at = models.DateTimeField(_("seen"))
    old_read_at = models.DateTimeField(
        _("last seen before"),
        null=True,
        blank=True,
        help_text=_("The reading that last showed the old status: the change lies between the two."),
    )
    seen_by = models.CharField(_("how"), max_length=8, choices=SeenBy.choices)
    reference = models.CharField(
        _("reference"), max_length=100, blank=True, help_text=_("Webhook id or ledger row that showed it.")
    )
    created_at = models.DateTimeField(_("written"), auto_now_add=True)

    class Meta:
        verbose_name = _("status change")
        verbose_name_plural = _("status changes")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(seen_by__in=SeenBy.values), name="status_event_seen_by_known"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["company", "-id"], name="status_event_company"),
            models.Index(fields=["connection", "-id"], name="status_event_connection"),
            models.Index(fields=["account", "-id"], name="status_event_account", condition=Q(account__isnull=False)),
            models.Index(fields=["seen_by", "-id"], name="status_event_seen_by"),
        ]

    def __str__(self) -> str:
        return f"{self.old or '–'} → {self.new}"

    @property
    def new_meaning(self) -> Meaning:
        """How the new status is shown."""
        return self._meaning(self.new)

    @property
    def old_label(self) -> Text:
        """The old status in words; a dash when there was none."""
        return self._meaning(self.old).label if self.old else "–"

    def _meaning(self, status: str) -> Meaning:
        if status == GONE:
            return GONE_MEANING
        return describe(ACCOUNT_MEANINGS if self.account_id else CONNECTION_MEANINGS, status)

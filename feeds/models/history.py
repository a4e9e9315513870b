"""What was taken out of the change history, and what became of verifying it. The history itself: `audit_entry`."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from feeds.models.company import Company
from feeds.states import (
    CHECK_MEANINGS,
    EXPORT_MEANINGS,
    CheckState,
    ExportFormat,
    ExportKind,
    ExportState,
    Meaning,
    describe,
)


class HistoryExport(models.Model):
    """One file that a person took out. Written before its first byte and again after its last."""

    kind = models.CharField(_("what"), max_length=10, choices=ExportKind.choices)
    format = models.CharField(_("format"), max_length=8, choices=ExportFormat.choices)
    filters = models.JSONField(_("filters"), default=dict, blank=True)
    filters_text = models.TextField(_("asked for"), blank=True)
    company = models.ForeignKey(
        Company, verbose_name=_("company"), null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    reason = models.TextField(_("reason"))
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("taken by"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    requested_by_name = models.CharField(_("taken by (name)"), max_length=200)
    state = models.CharField(_("state"), max_length=8, choices=ExportState.choices, default=ExportState.RUNNING)
    started_at = models.DateTimeField(_("started"))
    finished_at = models.DateTimeField(_("ended"), null=True, blank=True)
    rows = models.PositiveBigIntegerField(_("rows"), default=0)
    sha256 = models.CharField(_("SHA-256"), max_length=64, blank=True, help_text=_("Of the file with the rows."))

    class Meta:
        verbose_name = _("export")
        verbose_name_plural = _("exports")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [
            ("export_history", _("Can export the change history")),
            ("make_evidence_pack", _("Can make an evidence pack about a customer")),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(state__in=ExportState.values), name="history_export_state_known"),
            models.CheckConstraint(condition=Q(kind__in=ExportKind.values), name="history_export_kind_known"),
            models.CheckConstraint(
                condition=Q(state=ExportState.RUNNING, finished_at__isnull=True)
                | (~Q(state=ExportState.RUNNING) & Q(finished_at__isnull=False)),
                name="history_export_ended_has_date",
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["company", "-id"], name="history_export_company")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} #{self.pk}"

    @property
    def state_meaning(self) -> Meaning:
        """How the state is shown."""
        return describe(EXPORT_MEANINGS, self.state)


class HistoryCheck(models.Model):
    """One verification of the seals: asked for by a person, run by the queue, kept with its result."""

    state = models.CharField(_("result"), max_length=8, choices=CheckState.choices, default=CheckState.QUEUED)
    requested_by_name = models.CharField(_("asked by"), max_length=200)
    asked_at = models.DateTimeField(_("asked"))
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    finished_at = models.DateTimeField(_("as of"), null=True, blank=True)
    seals = models.PositiveBigIntegerField(_("seals"), default=0)
    entries = models.PositiveBigIntegerField(_("entries"), default=0)
    purged = models.PositiveBigIntegerField(_("purged entries"), default=0)
    unsealed = models.PositiveBigIntegerField(_("entries not sealed yet"), default=0)
    last_seal_sha256 = models.CharField(_("hash of the last seal"), max_length=64, blank=True)
    first_bad_seal = models.PositiveBigIntegerField(_("first bad seal"), null=True, blank=True)
    problems = models.JSONField(_("what is wrong"), default=list, blank=True)

    class Meta:
        verbose_name = _("verification")
        verbose_name_plural = _("verifications")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(state__in=CheckState.values), name="history_check_state_known"),
            models.UniqueConstraint(
                fields=["state"], condition=Q(state=CheckState.QUEUED), name="history_check_one_waits"
            ),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"

    @property
    def state_meaning(self) -> Meaning:
        """How the result is shown."""
        return describe(CHECK_MEANINGS, self.state)

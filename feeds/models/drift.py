"""The nightly comparison of Codat and our mirror."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from feeds.models.company import Company
from feeds.states import DriftKind


class DriftReport(models.Model):
    """One comparison. Only a complete listing may say that something is missing."""

    started_at = models.DateTimeField(_("started"))
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)
    companies_read = models.PositiveIntegerField(_("companies read"), default=0)
    error = models.TextField(_("what went wrong"), blank=True)

    class Meta:
        verbose_name = _("drift report")
        verbose_name_plural = _("drift reports")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d}"


class DriftFinding(models.Model):
    """One difference."""

    report = models.ForeignKey(DriftReport, on_delete=models.CASCADE, related_name="findings")
    kind = models.CharField(_("what"), max_length=16, choices=DriftKind.choices)
    company = models.ForeignKey(
        Company, verbose_name=_("company"), null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    codat_company_id = models.CharField(_("Codat company id"), max_length=64, blank=True)
    here = models.CharField(_("here"), max_length=200, blank=True)
    there = models.CharField(_("in Codat"), max_length=200, blank=True)
    adopted_at = models.DateTimeField(_("adopted"), null=True, blank=True)

    class Meta:
        verbose_name = _("difference")
        verbose_name_plural = _("differences")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [("adopt_company", _("Can adopt a company that was created in the Codat Portal"))]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(kind__in=DriftKind.values), name="drift_kind_known"),
        ]
        indexes: ClassVar = [models.Index(fields=["report", "kind"], name="drift_report_kind")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.there or self.here}"

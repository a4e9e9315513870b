"""Small rows the system keeps about itself."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Heartbeat(models.Model):
    """When something last proved that it is alive. `name` is one of the constants in `services.health`."""

    name = models.CharField(_("name"), max_length=40, primary_key=True)
    beat_at = models.DateTimeField(_("last beat"))

    class Meta:
        verbose_name = _("heartbeat")
        verbose_name_plural = _("heartbeats")
        default_permissions = ("view",)
        permissions: ClassVar = [("view_operations_page", _("Can see the operations page"))]

    def __str__(self) -> str:
        return self.name


class CodatQuota(models.Model):
    """The last quota Codat told us, from its rate-limit headers (one row, shared by all processes)."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    limit = models.PositiveIntegerField(_("calls a day"))
    remaining = models.PositiveIntegerField(_("calls left"))
    resets_at = models.DateTimeField(_("resets"), null=True, blank=True)
    read_at = models.DateTimeField(_("as of"))

    class Meta:
        verbose_name = _("Codat quota")
        verbose_name_plural = _("Codat quota")
        default_permissions = ("view",)
        constraints: ClassVar = [models.CheckConstraint(condition=models.Q(id=1), name="codat_quota_single_row")]

    def __str__(self) -> str:
        return f"{self.remaining} / {self.limit}"


class DailyFigure(models.Model):
    """One number a day, such as how many connections were Linked at the end of it, or bad signatures counted."""

    day = models.DateField(_("day"))
    name = models.CharField(_("name"), max_length=60)
    value = models.BigIntegerField(_("value"), default=0)

    class Meta:
        verbose_name = _("daily figure")
        verbose_name_plural = _("daily figures")
        default_permissions = ("view",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["name", "day"], name="daily_figure_unique")]

    def __str__(self) -> str:
        return f"{self.day} {self.name}: {self.value}"

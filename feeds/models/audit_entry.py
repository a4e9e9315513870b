"""One row of the change history. Written only through `feeds.audit`."""

from __future__ import annotations

from typing import ClassVar

from auditlog.models import AbstractLogEntry
from django.db import models
from django.utils.translation import gettext_lazy as _


class AuditEntry(AbstractLogEntry):  # type: ignore[misc]  # the library ships no types
    """django-auditlog's entry plus what an auditor asks for: a name that outlives its user, source and reason."""

    actor_name = models.CharField(_("who"), max_length=200, blank=True)
    source = models.CharField(_("source"), max_length=40, blank=True)
    reason = models.TextField(_("reason"), blank=True)
    event = models.CharField(
        _("event"), max_length=40, blank=True, help_text=_("Set for events that change no row, such as showing a link.")
    )

    class Meta:
        verbose_name = _("history entry")
        verbose_name_plural = _("change history")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        indexes: ClassVar = [models.Index(fields=["content_type", "object_pk", "-id"], name="audit_object")]

    def __str__(self) -> str:
        return f"{self.timestamp:%Y-%m-%d %H:%M:%S} {self.actor_name} {self.event or self.get_action_display()}"

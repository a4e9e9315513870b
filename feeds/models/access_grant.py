"""Emergency access: one person's way, for some hours, to a customer that is another manager's."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from feeds.models.base import AuditedQuerySet
from feeds.models.company import Company
from feeds.states import ACCESS_MEANINGS, AccessState, Meaning


class AccessGrantQuerySet(AuditedQuerySet["AccessGrant"]):
    """Sets of grants that several rooms ask for."""

    def in_force(self, now: datetime) -> AccessGrantQuerySet:
        """Grants that open their customer at `now`: no job has to end them, the clock does."""
        return self.filter(expires_at__gt=now, ended_at__isnull=True)


class AccessGrant(models.Model):
    """Who was let in to which customer, why, and until when. Written by `services.access` only; never deleted."""

    company = models.ForeignKey(
        Company, verbose_name=_("company"), on_delete=models.PROTECT, related_name="access_grants"
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("who"),
        null=True,
        on_delete=models.SET_NULL,
        related_name="access_grants",
    )
    user_name = models.CharField(_("who"), max_length=200)
    reason = models.TextField(_("reason"))
    created_at = models.DateTimeField(_("since"), auto_now_add=True)
    expires_at = models.DateTimeField(_("until"))
    ended_at = models.DateTimeField(_("ended early"), null=True, blank=True)
    ended_by_name = models.CharField(_("ended by"), max_length=200, blank=True)

    objects = AccessGrantQuerySet.as_manager()
    bookkeeping: ClassVar = frozenset({"user_name", "created_at"})

    class Meta:
        verbose_name = _("emergency access")
        verbose_name_plural = _("emergency accesses")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [
            ("break_glass", _("Can open another manager's customer in an emergency")),
            ("end_accessgrant", _("Can end an emergency access before its time")),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(condition=~Q(reason=""), name="access_grant_has_reason"),
            models.CheckConstraint(condition=Q(expires_at__gt=F("created_at")), name="access_grant_ends_later"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["user", "expires_at"], name="access_grant_user"),
            models.Index(fields=["company", "-id"], name="access_grant_company"),
            models.Index(fields=["expires_at"], name="access_grant_expires"),
        ]

    def __str__(self) -> str:
        return f"{self.user_name}: {self.company.legal_name}"

    def state_at(self, now: datetime) -> Meaning:
        """How the grant stands at `now`."""
        if self.ended_at is not None:
            return ACCESS_MEANINGS[AccessState.ENDED]
        return ACCESS_MEANINGS[AccessState.IN_FORCE if self.expires_at > now else AccessState.EXPIRED]

"""Keys with which the bank's own application calls our API."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from feeds.models.base import AuditedQuerySet
from feeds.states import API_KEY_MEANINGS, ApiKeyState, Meaning


class ApiKey(models.Model):
    """One key: only its hash is kept, and the start by which people tell it apart.

    `scopes`: what it may do, names of `ApiScope` with spaces between. `manager`: whose customers become those that come
    in through it. Written by `services.api_keys` only; never deleted.
    """

    name = models.CharField(_("name"), max_length=80, help_text=_("Which program uses it, such as: business portal."))
    prefix = models.CharField(_("starts with"), max_length=12, unique=True, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    scopes = models.CharField(_("what it may do"), max_length=200)
    manager = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("manager of new customers"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    created_at = models.DateTimeField(_("made"), auto_now_add=True)
    made_by_name = models.CharField(_("made by"), max_length=200)
    expires_at = models.DateTimeField(_("expires"))
    replaced_by = models.OneToOneField(
        "self",
        verbose_name=_("replaced by"),
        null=True,
        blank=True,
        editable=False,
        on_delete=models.PROTECT,
        related_name="replaces",
    )
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)
    revoked_by_name = models.CharField(_("revoked by"), max_length=200, blank=True)

    # The calls of the minute that began at `last_used_at`: the rate limit, and when the key was last used.
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True, editable=False)
    calls = models.PositiveIntegerField(default=0, editable=False)

    objects = AuditedQuerySet["ApiKey"].as_manager()
    bookkeeping: ClassVar = frozenset({"digest", "created_at", "made_by_name", "last_used_at", "calls"})

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [("manage_api_keys", _("Can make, replace and revoke API keys"))]
        constraints: ClassVar = [
            models.CheckConstraint(condition=~Q(name=""), name="api_key_has_name"),
            models.CheckConstraint(condition=~Q(scopes=""), name="api_key_has_scope"),
            models.CheckConstraint(condition=Q(expires_at__gt=F("created_at")), name="api_key_expires_later"),
            models.CheckConstraint(
                condition=Q(revoked_at__isnull=True, revoked_by_name="")
                | (Q(revoked_at__isnull=False) & ~Q(revoked_by_name="")),
                name="api_key_revoked_by_somebody",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    def is_live(self, now: datetime) -> bool:
        """Whether it opens anything at `now`."""
        return self.revoked_at is None and self.expires_at > now

    @property
    def scope_names(self) -> list[str]:
        """What it may do, one by one."""
        return self.scopes.split()

    @property
    def state(self) -> ApiKeyState:
        """How it stands now."""
        if self.revoked_at is not None:
            return ApiKeyState.REVOKED
        if self.expires_at <= timezone.now():
            return ApiKeyState.EXPIRED
        return ApiKeyState.REPLACED if self.replaced_by_id else ApiKeyState.WORKS

    @property
    def state_meaning(self) -> Meaning:
        """How the state is shown."""
        return API_KEY_MEANINGS[self.state]

"""The mirror of a company's QuickBooks Online Bank Feeds connection in Codat."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from feeds.models.base import READING, TIMES, AuditedQuerySet, Mirrored, TimeStamped
from feeds.models.company import Company
from feeds.states import CONNECTION_MEANINGS, GONE_MEANING, ConnectionStatus, Meaning, describe

BANK_FEEDS_PLATFORM_KEY = "hcws"


class Connection(TimeStamped, Mirrored):
    """One connection. `link_url` holds the customer's link with its one-time password: see `services.links`."""

    company = models.ForeignKey(
        Company, verbose_name=_("company"), on_delete=models.PROTECT, related_name="connections", editable=False
    )
    codat_id = models.CharField(_("Codat connection id"), max_length=64, unique=True, editable=False)
    platform_key = models.CharField(_("platform key"), max_length=4, default=BANK_FEEDS_PLATFORM_KEY, editable=False)
    integration_id = models.CharField(_("integration id"), max_length=64, blank=True, editable=False)
    integration_key = models.CharField(_("integration key"), max_length=64, blank=True, editable=False)
    source_id = models.CharField(_("source id"), max_length=64, blank=True, editable=False)
    source_type = models.CharField(_("source type"), max_length=64, blank=True, editable=False)
    platform_name = models.CharField(_("platform"), max_length=120, blank=True, editable=False)
    # No choices on purpose: Codat may add a status, and we store what it says.
    status = models.CharField(_("status"), max_length=32, default=ConnectionStatus.PENDING_AUTH, editable=False)
    link_url = models.CharField(max_length=1000, blank=True, editable=False)
    link_fetched_at = models.DateTimeField(_("link fetched"), null=True, blank=True, editable=False)
    link_expires_at = models.DateTimeField(_("link expires"), null=True, blank=True, editable=False)
    link_shown_at = models.DateTimeField(
        _("link shown"), null=True, blank=True, editable=False, help_text=_("When staff last saw it, to hand it over.")
    )
    codat_created_at = models.DateTimeField(_("created in Codat"), null=True, blank=True, editable=False)
    polled_at = models.DateTimeField(_("accounts read"), null=True, blank=True, editable=False)
    # When the poller reads this connection's accounts again; claiming it moves the date, so workers share the work.
    poll_due_at = models.DateTimeField(_("next poll"), null=True, blank=True, editable=False)
    poll_failures = models.PositiveSmallIntegerField(_("polls failed in a row"), default=0, editable=False)
    accounts_in_codat = models.PositiveIntegerField(
        _("accounts in Codat"), null=True, blank=True, editable=False, help_text=_("As the last reading counted them.")
    )
    last_sync_at = models.DateTimeField(_("last sync"), null=True, blank=True, editable=False)
    errors = models.JSONField(_("errors reported by Codat"), default=list, blank=True, editable=False)

    objects = AuditedQuerySet["Connection"].as_manager()
    bookkeeping: ClassVar = TIMES | READING | {
        "link_url", "link_expires_at", "link_shown_at", "polled_at", "poll_due_at", "poll_failures",
        "accounts_in_codat", "codat_created_at",
    }  # fmt: skip

    class Meta:
        verbose_name = _("connection")
        verbose_name_plural = _("connections")
        ordering: ClassVar = ["-id"]
        permissions: ClassVar = [
            ("refresh_link", _("Can fetch a fresh customer link")),
            ("reveal_link", _("Can see a customer link")),
            ("unlink_connection", _("Can unlink a connection")),
            ("remove_connection", _("Can delete a connection in Codat")),
            ("generate_credentials", _("Can generate QuickBooks credentials")),
            ("revoke_credentials", _("Can revoke QuickBooks credentials")),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(condition=~Q(codat_id=""), name="connection_has_codat_id"),
            models.UniqueConstraint(
                fields=["company", "platform_key"],
                condition=Q(gone_at__isnull=True),
                name="connection_one_live_per_company",
            ),
            # A link without its expiry could never be cleared.
            models.CheckConstraint(
                condition=Q(link_url="") | Q(link_expires_at__isnull=False), name="connection_link_has_expiry"
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["poll_due_at"], name="connection_poll_due", condition=Q(gone_at__isnull=True)),
            models.Index(fields=["status", "-id"], name="connection_status"),
            models.Index(
                fields=["link_expires_at"], name="connection_link_expiry", condition=Q(link_expires_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.company.legal_name}: {self.status}"

    @property
    def status_meaning(self) -> Meaning:
        """How the status is shown."""
        if self.gone_at is not None:
            return GONE_MEANING
        return describe(CONNECTION_MEANINGS, self.status)

    def has_live_link(self, now: datetime) -> bool:
        """Whether we hold a link that Codat still accepts at `now`."""
        is_there = bool(self.link_url) and self.gone_at is None
        return is_there and self.link_expires_at is not None and self.link_expires_at > now

    def is_handed_out(self, now: datetime) -> bool:
        """Whether the link we hold is one that somebody was shown, so that a customer may have it."""
        if self.link_shown_at is None or self.link_fetched_at is None:
            return False
        return self.has_live_link(now) and self.link_shown_at >= self.link_fetched_at

    def has_replaced_link(self, now: datetime) -> bool:
        """Whether an older link that somebody was shown could still be tried, while Codat may have ended it."""
        if self.link_shown_at is None or self.link_fetched_at is None or self.link_expires_at is None:
            return False
        lifetime = self.link_expires_at - self.link_fetched_at
        is_older = self.link_shown_at < self.link_fetched_at
        return self.has_live_link(now) and is_older and now < self.link_shown_at + lifetime

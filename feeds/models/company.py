"""The bank's small-business customer, and its mirror in Codat."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from feeds.models.base import READING, TIMES, AuditedQuerySet, Mirrored, TimeStamped
from feeds.states import ONBOARDING_MEANINGS, Country, Language, Meaning, OnboardingState, describe

TIME_ZONES = tuple(
    (zone, zone.partition("/")[2].replace("_", " ").replace("St Johns", "St. John’s"))
    for zone in (
        "America/St_Johns", "America/Halifax", "America/Toronto", "America/New_York", "America/Winnipeg",
        "America/Chicago", "America/Regina", "America/Edmonton", "America/Denver", "America/Phoenix",
        "America/Vancouver", "America/Los_Angeles", "America/Anchorage", "Pacific/Honolulu",
    )
)  # fmt: skip
"""Zones of the United States and Canada, from east to west, by a city that people know."""


class CompanyQuerySet(AuditedQuerySet["Company"]):
    """Sets of companies that several rooms ask for."""

    def due(self, now: datetime) -> CompanyQuerySet:
        """Companies the reconciler owes a look: their time has come, or the worker that held them is gone."""
        return self.filter(due_at__lte=now)


class Company(TimeStamped, Mirrored):
    """One SMB customer.

    What the bank owns (legal name, contact, manager, notes) is edited here; what Codat owns is a read-only mirror.
    `uid` is sent to Codat as the tag `uid`: names need not be unique there, so the tag is the identity.
    """

    uid = models.UUIDField(_("uid"), default=uuid.uuid4, unique=True, editable=False)
    customer_number = models.CharField(
        _("customer number"), max_length=64, unique=True, help_text=_("Your bank's own number for this customer.")
    )
    legal_name = models.CharField(_("legal name"), max_length=200)
    contact_name = models.CharField(_("contact name"), max_length=120)
    contact_email = models.EmailField(_("contact e-mail"))
    language = models.CharField(_("language"), max_length=2, choices=Language.choices, default=Language.EN)
    country = models.CharField(_("country"), max_length=2, choices=Country.choices, default=Country.US)
    time_zone = models.CharField(
        _("time zone"),
        max_length=32,
        blank=True,
        choices=TIME_ZONES,
        help_text=_("Where the customer's day is: reminders go out by day. Empty: the bank's own zone."),
    )
    manager = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("relationship manager"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="companies",
    )
    notes = models.TextField(_("notes"), blank=True)

    codat_id = models.CharField(_("Codat company id"), max_length=64, blank=True, editable=False)
    codat_name = models.CharField(_("name stored by Codat"), max_length=200, blank=True, editable=False)
    redirect_url = models.URLField(_("redirect URL"), max_length=500, blank=True, editable=False)
    codat_created_at = models.DateTimeField(_("created in Codat"), null=True, blank=True, editable=False)

    onboarding_state = models.CharField(
        _("onboarding"), max_length=12, choices=OnboardingState.choices, default=OnboardingState.DRAFT, editable=False
    )
    onboarding_changed_at = models.DateTimeField(_("onboarding as of"), null=True, blank=True, editable=False)
    onboarding_error = models.TextField(_("what went wrong"), blank=True, editable=False)
    onboarding_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("onboarding asked by"),
        null=True,
        blank=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    onboarding_by_name = models.CharField(max_length=200, blank=True, editable=False)
    onboarding_source = models.CharField(max_length=40, blank=True, editable=False)
    due_at = models.DateTimeField(
        _("next look"), null=True, blank=True, editable=False, help_text=_("When the reconciler looks again.")
    )
    lease_token = models.UUIDField(null=True, blank=True, editable=False)
    lease_expires_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = CompanyQuerySet.as_manager()
    bookkeeping: ClassVar = TIMES | READING | {
        "due_at", "lease_token", "lease_expires_at",
        "onboarding_changed_at", "onboarding_by", "onboarding_by_name", "onboarding_source",
    }  # fmt: skip

    class Meta:
        verbose_name = _("company")
        verbose_name_plural = _("companies")
        ordering: ClassVar = ["-id"]
        permissions: ClassVar = [
            ("onboard_company", _("Can onboard a company to Codat")),
            ("refresh_company", _("Can refresh a company's status from Codat")),
            ("import_company", _("Can import companies from a file")),
            ("remove_company", _("Can delete a company in Codat")),
            ("view_all_companies", _("Can see every customer, not only their own")),
            ("take_company", _("Can take over a company that has no manager")),
            ("reassign_company", _("Can give a company to another manager")),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(country__in=Country.values), name="company_country_us_or_ca"),
            models.CheckConstraint(condition=Q(language__in=Language.values), name="company_language_en_or_fr"),
            models.CheckConstraint(condition=~Q(customer_number=""), name="company_has_customer_number"),
            models.CheckConstraint(condition=~Q(legal_name=""), name="company_has_legal_name"),
            models.CheckConstraint(
                condition=Q(onboarding_state__in=OnboardingState.values), name="company_onboarding_state_known"
            ),
            models.UniqueConstraint(fields=["codat_id"], condition=~Q(codat_id=""), name="company_codat_id_unique"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["due_at"], name="company_due", condition=Q(due_at__isnull=False)),
            models.Index(fields=["onboarding_state", "-id"], name="company_state"),
            models.Index(fields=["manager", "-id"], name="company_manager"),
            models.Index(fields=["legal_name"], name="company_legal_name"),
        ]

    def __str__(self) -> str:
        return f"{self.legal_name} ({self.customer_number})"

    @property
    def onboarding(self) -> Meaning:
        """How the onboarding state is shown."""
        return describe(ONBOARDING_MEANINGS, self.onboarding_state)

    @property
    def is_in_codat(self) -> bool:
        """Whether Codat has this company, as far as we know."""
        return bool(self.codat_id) and self.gone_at is None

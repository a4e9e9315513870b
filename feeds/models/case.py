"""Cases: one for each connection with a broken feed, until it works again or somebody settles it."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from feeds.models.base import TIMES, AuditedQuerySet, TimeStamped
from feeds.models.company import Company
from feeds.models.connection import Connection
from feeds.states import CASE_MEANINGS, CaseCause, CaseEventKind, CaseOutcome, CaseState, Meaning, describe


class Incident(TimeStamped):
    """Many feeds that broke together. While it is not released, mails about its cases are held."""

    opened_at = models.DateTimeField(_("opened"))
    released_at = models.DateTimeField(_("released"), null=True, blank=True)
    released_by_name = models.CharField(_("released by"), max_length=200, blank=True)
    note = models.TextField(_("note"), blank=True)

    objects = AuditedQuerySet["Incident"].as_manager()
    bookkeeping: ClassVar = TIMES

    class Meta:
        verbose_name = _("incident")
        verbose_name_plural = _("incidents")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [("release_incident", _("Can release an incident and the mails it holds"))]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["released_by_name"], condition=Q(released_at__isnull=True), name="incident_one_at_a_time"
            )
        ]

    def __str__(self) -> str:
        return f"{self.opened_at:%Y-%m-%d %H:%M}"


class CaseQuerySet(AuditedQuerySet["Case"]):
    """Sets of cases that several rooms ask for."""

    def open(self) -> CaseQuerySet:
        """Cases in which somebody still owes the customer something.

        Asked by date, so that the partial indexes serve: SQLite does not see that a parameter is an index's condition.
        """
        return self.filter(closed_at__isnull=True)


class Case(TimeStamped):
    """One broken feed. Opened and closed by what Codat shows; people take it, note, snooze, hand over and settle it."""

    company = models.ForeignKey(Company, verbose_name=_("company"), on_delete=models.PROTECT, related_name="cases")
    connection = models.ForeignKey(
        Connection, verbose_name=_("connection"), on_delete=models.PROTECT, related_name="cases"
    )
    incident = models.ForeignKey(
        Incident, verbose_name=_("incident"), null=True, blank=True, on_delete=models.SET_NULL, related_name="cases"
    )
    state = models.CharField(_("state"), max_length=8, choices=CaseState.choices, default=CaseState.OPEN)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("owner"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="cases",
    )
    cause = models.CharField(_("cause"), max_length=24, choices=CaseCause.choices, default=CaseCause.UNKNOWN)
    outcome = models.CharField(_("outcome"), max_length=24, choices=CaseOutcome.choices, blank=True)
    outcome_reason = models.TextField(_("reason"), blank=True)
    snoozed_until = models.DateTimeField(_("snoozed until"), null=True, blank=True)

    opened_at = models.DateTimeField(_("opened"), help_text=_("When the break was first seen."))
    broke_at = models.DateTimeField(_("last broke"), help_text=_("When the latest break was seen."))
    recovered_at = models.DateTimeField(_("works again since"), null=True, blank=True)
    closed_at = models.DateTimeField(_("closed"), null=True, blank=True)
    times_broken = models.PositiveSmallIntegerField(_("times broken"), default=1)

    what_is_broken = models.CharField(_("what is broken"), max_length=300, blank=True)
    broken_parts = models.JSONField(
        default=list,
        blank=True,
        help_text=_("Ids of the broken accounts. What a person closed a case over is not news; anything else is."),
    )
    accounts_broken = models.PositiveSmallIntegerField(_("accounts broken"), default=0)
    balance_held = models.DecimalField(_("balance held"), max_digits=18, decimal_places=2, default=Decimal(0))
    priority = models.PositiveIntegerField(_("priority"), default=0)
    due_at = models.DateTimeField(_("due"), help_text=_("Overdue cases stand first on the worklist."))
    checked_at = models.DateTimeField(_("last checked"), null=True, blank=True)
    notified_at = models.DateTimeField(_("last mail"), null=True, blank=True)
    notified_about = models.CharField(max_length=12, blank=True, help_text=_("broke or recovered"))
    notify_due_at = models.DateTimeField(
        _("next mail"), null=True, blank=True, help_text=_("When a change that came too soon after a mail is told.")
    )

    objects = CaseQuerySet.as_manager()
    # What is broken, and how urgent it is, follows from readings.
    bookkeeping: ClassVar = TIMES | {
        "opened_at", "broke_at", "recovered_at", "closed_at", "what_is_broken", "broken_parts", "accounts_broken",
        "balance_held", "priority", "due_at", "checked_at", "notified_at", "notified_about", "notify_due_at",
    }  # fmt: skip

    class Meta:
        verbose_name = _("case")
        verbose_name_plural = _("cases")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [("work_case", _("Can take, note, snooze, hand over and close cases"))]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(state__in=CaseState.values), name="case_state_known"),
            models.CheckConstraint(condition=Q(cause__in=CaseCause.values), name="case_cause_known"),
            models.CheckConstraint(condition=Q(outcome__in=[*CaseOutcome.values, ""]), name="case_outcome_known"),
            models.CheckConstraint(
                condition=Q(state=CaseState.CLOSED, closed_at__isnull=False)
                | (~Q(state=CaseState.CLOSED) & Q(closed_at__isnull=True)),
                name="case_closed_has_date",
            ),
            models.UniqueConstraint(
                fields=["connection"], condition=Q(closed_at__isnull=True), name="case_one_open_per_connection"
            ),
        ]
        indexes: ClassVar = [
            # The worklist: overdue first, then by priority.
            models.Index(fields=["due_at", "-priority"], name="case_worklist", condition=Q(closed_at__isnull=True)),
            models.Index(fields=["owner", "due_at"], name="case_owner", condition=Q(closed_at__isnull=True)),
            models.Index(fields=["connection", "-id"], name="case_connection"),
            models.Index(fields=["opened_at"], name="case_opened"),
            models.Index(fields=["closed_at"], name="case_closed", condition=Q(closed_at__isnull=False)),
            models.Index(fields=["broke_at"], name="case_broke", condition=Q(incident__isnull=True)),
            models.Index(fields=["notify_due_at"], name="case_notify_due", condition=Q(notify_due_at__isnull=False)),
            models.Index(fields=["snoozed_until"], name="case_snoozed", condition=Q(snoozed_until__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"#{self.pk} {self.company.legal_name}"

    @property
    def state_meaning(self) -> Meaning:
        """How the state is shown."""
        return describe(CASE_MEANINGS, self.state)

    @property
    def is_open(self) -> bool:
        """Whether somebody still owes the customer something."""
        return self.state != CaseState.CLOSED


class CaseEvent(models.Model):
    """One line of a case's story. Never changed."""

    case = models.ForeignKey(Case, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(_("what"), max_length=16, choices=CaseEventKind.choices)
    text = models.TextField(_("text"), blank=True)
    actor_name = models.CharField(_("who"), max_length=200)
    at = models.DateTimeField(_("when"))

    class Meta:
        verbose_name = _("case event")
        verbose_name_plural = _("case events")
        ordering: ClassVar = ["id"]
        default_permissions = ()
        indexes: ClassVar = [models.Index(fields=["case", "id"], name="case_event_case")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.text}"

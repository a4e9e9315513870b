"""The link that a customer holds: it lives for days, and opens our page, never Codat's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from feeds.models.base import TIMES, AuditedQuerySet, TimeStamped
from feeds.models.company import Company
from feeds.states import (
    INVITATION_MEANINGS,
    InvitationEnd,
    InvitationPurpose,
    InvitationState,
    Language,
    Meaning,
    describe,
)

FURTHEST = (
    ("linked_at", InvitationState.LINKED),
    ("started_at", InvitationState.STARTED),
    ("opened_at", InvitationState.OPENED),
    ("sent_at", InvitationState.SENT),
)
"""Column -> the state of an invitation that still lives and got so far, the furthest first."""


def step_since() -> Coalesce:
    """When an invitation came to the step on which it stands: the time of the furthest one. As its index has it."""
    return Coalesce(*(column for column, _state in FURTHEST), "created_at")


def invitation_title(purpose: str, contact_name: str) -> str:
    """What for and whom, in the reader's language."""
    # As written: a purpose from the history may be one that is no more.
    label = dict(InvitationPurpose.choices).get(purpose, purpose)
    return gettext("%(purpose)s: %(name)s") % {"purpose": label, "name": contact_name}


class InvitationQuerySet(AuditedQuerySet["Invitation"]):
    """Sets of invitations that several rooms ask for."""

    def live(self, now: datetime) -> InvitationQuerySet:
        """Invitations whose link opens the page."""
        return self.filter(ended_at__isnull=True, expires_at__gt=now)

    def in_state(self, state: InvitationState, now: datetime) -> InvitationQuerySet:
        """Invitations whose `state` is this one at `now`."""
        if state == InvitationState.EXPIRED:
            return self.filter(Q(end=InvitationEnd.EXPIRED) | Q(end="", expires_at__lte=now))
        if state in InvitationEnd.values:
            return self.filter(end=state)
        return self.filter(_stands_on(state), end="", expires_at__gt=now)

    def stuck(self, now: datetime, longer_than: Mapping[InvitationState, timedelta]) -> InvitationQuerySet:
        """Those that live and have stood on a step of `longer_than` for its time; `since` is when they came to it.

        Whatever the step, none can have come to it later than the shortest time ago: that is what the index is asked.
        """
        too_long = Q()
        for step, time in longer_than.items():
            too_long |= _stands_on(step) & Q(since__lte=now - time)
        rows = self.live(now).annotate(since=step_since())
        return rows.filter(too_long, since__lte=now - min(longer_than.values()))


def _stands_on(step: InvitationState) -> Q:
    """Got as far as `step`, and no further."""
    condition = Q()
    for column, reached in FURTHEST:
        condition &= Q(**{f"{column}__isnull": reached != step})
        if reached == step:
            break
    return condition


class Invitation(TimeStamped):
    """One company, one named contact, one purpose. The funnel is a row of times, each written once."""

    company = models.ForeignKey(
        Company, verbose_name=_("company"), on_delete=models.PROTECT, related_name="invitations", editable=False
    )
    purpose = models.CharField(
        _("purpose"), max_length=12, choices=InvitationPurpose.choices, default=InvitationPurpose.CONNECT
    )
    contact_name = models.CharField(_("contact name"), max_length=120)
    contact_email = models.EmailField(_("contact e-mail"))
    language = models.CharField(
        _("language"),
        max_length=2,
        choices=Language.choices,
        blank=True,
        help_text=_("Empty: the page is in the language that the customer's browser asks for."),
    )
    made_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("made by"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    made_by_name = models.CharField(_("made by"), max_length=200, blank=True)
    expires_at = models.DateTimeField(_("expires"))
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    end = models.CharField(_("ended by"), max_length=10, choices=InvitationEnd.choices, blank=True)

    sent_at = models.DateTimeField(_("sent"), null=True, blank=True)
    reminded_at = models.DateTimeField(_("reminded"), null=True, blank=True)
    opened_at = models.DateTimeField(_("opened"), null=True, blank=True)
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    linked_at = models.DateTimeField(_("linked"), null=True, blank=True)
    connected_at = models.DateTimeField(_("connected"), null=True, blank=True)
    withdrawn_at = models.DateTimeField(
        _("links withdrawn"),
        null=True,
        blank=True,
        help_text=_("Since when the links of a connected customer's invitation open nothing any more."),
    )
    presses = models.PositiveIntegerField(_("times pressed"), default=0)

    objects = InvitationQuerySet.as_manager()
    bookkeeping: ClassVar = TIMES | {"made_by", "made_by_name", "presses"}
    """Who made it is the actor of its first entry; each press is an event with the link that was handed over."""

    class Meta:
        verbose_name = _("invitation")
        verbose_name_plural = _("invitations")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [("invite_company", _("Can invite a customer and withdraw the invitation"))]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(purpose__in=InvitationPurpose.values), name="invitation_purpose_known"),
            models.CheckConstraint(condition=Q(language__in=["", *Language.values]), name="invitation_language_known"),
            models.CheckConstraint(
                condition=Q(ended_at__isnull=True, end="") | Q(ended_at__isnull=False, end__in=InvitationEnd.values),
                name="invitation_end_has_reason",
            ),
            models.UniqueConstraint(
                fields=["company", "purpose"],
                condition=Q(ended_at__isnull=True),
                name="invitation_one_live_per_purpose",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["company", "-id"], name="invitation_company"),
            models.Index(fields=["end", "-id"], name="invitation_end"),
            models.Index(fields=["expires_at"], name="invitation_expiry", condition=Q(ended_at__isnull=True)),
            models.Index(fields=["started_at"], name="invitation_started", condition=Q(ended_at__isnull=True)),
            models.Index(fields=["created_at"], name="invitation_made"),
            models.Index(step_since(), "id", name="invitation_step_since", condition=Q(ended_at__isnull=True)),
            models.Index("made_by", step_since(), "id", name="invitation_step_by", condition=Q(ended_at__isnull=True)),
        ]

    def __str__(self) -> str:
        # Written into the history, whose readers have other languages than who invited.
        return self.contact_name

    @property
    def title(self) -> str:
        """How screens name it."""
        return invitation_title(self.purpose, self.contact_name)

    def is_live(self, now: datetime) -> bool:
        """Whether its link leads the customer on at `now`."""
        return self.ended_at is None and self.expires_at > now

    def opens_page(self, now: datetime) -> bool:
        """Whether a key of it opens the page at `now`: a connected customer may still come back to see how it stands.

        Not once such a one is withdrawn.
        """
        shows_how_it_stands = self.end == InvitationEnd.CONNECTED and self.withdrawn_at is None
        return self.is_live(now) or (shows_how_it_stands and self.expires_at > now)

    @property
    def mail_language(self) -> str:
        """In which language it is mailed: a mail cannot ask the browser."""
        return self.language or self.company.language

    @property
    def state(self) -> InvitationState:
        """The furthest it came; how it ended, when it ended before the customer was connected."""
        if self.connected_at:
            return InvitationState.CONNECTED
        if self.end:
            return InvitationState(self.end)
        if self.expires_at <= timezone.now():
            return InvitationState.EXPIRED
        return next((state for column, state in FURTHEST if getattr(self, column)), InvitationState.MADE)

    @property
    def state_meaning(self) -> Meaning:
        """How the state is shown."""
        return describe(INVITATION_MEANINGS, self.state)


class InvitationKey(models.Model):
    """One key to an invitation's door: only its hash is kept.

    Each way the link leaves this system (a mail, a screen, the bank's application) carries a key of its own: the key
    itself is never stored, so it could not be sent a second time. All keys of an invitation end with it.
    """

    invitation = models.ForeignKey(
        Invitation, verbose_name=_("invitation"), on_delete=models.CASCADE, related_name="keys", editable=False
    )
    digest = models.CharField(max_length=64, unique=True, editable=False)
    made_for = models.CharField(_("made for"), max_length=20, editable=False)
    asked_at = models.DateTimeField(
        _("asked for a new link"),
        null=True,
        editable=False,
        help_text=_("When the customer did so with this key, after it had stopped working."),
    )
    staff_told = models.BooleanField(_("staff were told"), default=False, editable=False)
    told_at = models.DateTimeField(
        _("staff were told at"), null=True, editable=False, help_text=_("Of the last request that was told.")
    )
    created_at = models.DateTimeField(_("made"), auto_now_add=True)

    class Meta:
        verbose_name = _("invitation key")
        verbose_name_plural = _("invitation keys")
        default_permissions = ()
        indexes: ClassVar = [
            models.Index(
                fields=["asked_at"], name="invitation_key_asked", condition=Q(asked_at__isnull=False, staff_told=False)
            )
        ]

    def __str__(self) -> str:
        return f"{self.made_for} {self.pk}"


class Knock(models.Model):
    """How often one address came with a key that opens nothing, in one window of time. Pruned daily."""

    address = models.CharField(max_length=64, help_text=_("A keyed hash: no address is stored."))
    window = models.DateTimeField()
    count = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name = _("wrong key")
        verbose_name_plural = _("wrong keys")
        default_permissions = ()
        constraints: ClassVar = [models.UniqueConstraint(fields=["address", "window"], name="knock_one_per_window")]
        indexes: ClassVar = [models.Index(fields=["window"], name="knock_window")]

    def __str__(self) -> str:
        return f"{self.window:%Y-%m-%d %H:%M}"

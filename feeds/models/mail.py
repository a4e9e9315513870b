"""The outbox: every mail, to staff or to a customer, is a row before it is a message."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from feeds.models.base import TimeStamped
from feeds.models.case import Case
from feeds.models.company import Company
from feeds.models.invitation import Invitation
from feeds.states import MAIL_MEANINGS, MailKind, MailState, Meaning, describe


class Mail(TimeStamped):
    """One mail, written in the transaction of the change it tells, sent by the queue.

    At least once: a worker killed between handing it over and writing so leads to a second delivery, under the same
    `uid` as Message-ID. A mail that must exist only once has a `key`.

    A mail about an `invitation` goes to a customer. Its text holds a mark where the link belongs: the link is made when
    the mail is sent, and is stored nowhere.
    """

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    kind = models.CharField(_("about"), max_length=20, choices=MailKind.choices)
    key = models.CharField(max_length=80, blank=True)
    to = models.TextField(_("to"), help_text=_("Addresses, separated by commas."))
    subject = models.CharField(_("subject"), max_length=200)
    body = models.TextField(_("text"))
    html = models.TextField(_("HTML"))
    case = models.ForeignKey(
        Case, verbose_name=_("case"), null=True, blank=True, on_delete=models.CASCADE, related_name="mails"
    )
    company = models.ForeignKey(
        Company,
        verbose_name=_("company"),
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="mails",
        help_text=_("The customer it was written to or about; empty for a mail about no customer in particular."),
    )
    invitation = models.ForeignKey(
        Invitation,
        verbose_name=_("invitation"),
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="mails",
    )
    state = models.CharField(_("state"), max_length=8, choices=MailState.choices, default=MailState.QUEUED)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    next_attempt_at = models.DateTimeField(
        _("next attempt"), null=True, blank=True, help_text=_("Empty when it is finished.")
    )
    sent_at = models.DateTimeField(_("sent"), null=True, blank=True)
    error = models.TextField(_("what went wrong"), blank=True)
    bounced_at = models.DateTimeField(
        _("came back"), null=True, blank=True, help_text=_("When a colleague noted that it did not arrive.")
    )

    class Meta:
        verbose_name = _("mail")
        verbose_name_plural = _("mails")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [("resend_mail", _("Can send a mail to staff again"))]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(kind__in=MailKind.values), name="mail_kind_known"),
            models.CheckConstraint(condition=Q(state__in=MailState.values), name="mail_state_known"),
            models.CheckConstraint(
                condition=Q(state=MailState.QUEUED, next_attempt_at__isnull=False)
                | (~Q(state=MailState.QUEUED) & Q(next_attempt_at__isnull=True)),
                name="mail_waits_while_queued",
            ),
            models.UniqueConstraint(fields=["key"], condition=~Q(key=""), name="mail_key_unique"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["next_attempt_at"], name="mail_due", condition=Q(next_attempt_at__isnull=False)),
            models.Index(fields=["case", "kind", "created_at"], name="mail_case"),
            models.Index(fields=["state", "-id"], name="mail_state"),
            models.Index(fields=["to"], name="mail_bounced", condition=Q(bounced_at__isnull=False)),
            models.Index(fields=["invitation", "-id"], name="mail_invitation", condition=Q(invitation__isnull=False)),
            models.Index(fields=["company", "-id"], name="mail_company"),
            models.Index(fields=["-id"], name="mail_to_customers", condition=Q(invitation__isnull=False)),
        ]

    def __str__(self) -> str:
        return self.subject

    @property
    def about(self) -> Case | Invitation | None:
        """The row of one customer's that it tells of; None for a mail about many, such as a digest."""
        return self.case or self.invitation

    @property
    def state_meaning(self) -> Meaning:
        """How the state is shown."""
        return describe(MAIL_MEANINGS, self.state)

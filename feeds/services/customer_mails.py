"""Mails to customers about their invitation: written in the customer's language, seen by staff before they go.

What is stored has `outbox.LINK_MARK` where the link belongs: the link is made when the mail goes to the mail server.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import transaction
from django.template.loader import render_to_string
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from feeds import audit, queue
from feeds.audit import Actor
from feeds.models import Company, Invitation, Mail
from feeds.services import link_need, outbox
from feeds.services.errors import Refused
from feeds.services.invitation_keys import refuse_unless_live
from feeds.states import InvitationPurpose, MailKind, OnboardingState, Text

OFFICE_HOURS = range(9, 17)
"""Hours of a working day, in the customer's zone, in which a reminder may go out."""
MONDAY_TO_FRIDAY = range(5)


@dataclass(frozen=True, slots=True)
class Draft:
    """A mail as it would be sent now; `outbox.LINK_MARK` stands for the customer's link."""

    to: str
    subject: str
    body: str
    html: str


def kind_of(invitation: Invitation) -> MailKind:
    """Which mail hands over this invitation's link."""
    reconnects = invitation.purpose == InvitationPurpose.RECONNECT
    return MailKind.RECONNECT if reconnects else MailKind.INVITATION


def draft(kind: MailKind, invitation: Invitation) -> Draft:
    """The mail in the invitation's language."""
    # The last day of the link is one where the customer is.
    with translation.override(invitation.mail_language), timezone.override(_zone(invitation)):
        subjects = {
            MailKind.INVITATION: _("Connect your bank feed to QuickBooks"),
            MailKind.REMINDER: _("Your bank feed is not connected yet"),
            MailKind.RECONNECT: _("Please reconnect your bank feed to QuickBooks"),
            MailKind.CONNECTED: _("Your bank feed is connected"),
        }
        values = {
            "subject": subjects[kind],
            "invitation": invitation,
            "company": invitation.company,
            "institution": settings.INSTITUTION_NAME,
            "phone": settings.INSTITUTION_PHONE,
            "link": outbox.LINK_MARK,
        }
        return Draft(
            to=invitation.contact_email,
            subject=subjects[kind],
            body=render_to_string(f"feeds/mail/customer/{kind}.txt", values),
            html=render_to_string(f"feeds/mail/customer/{kind}.html", values),
        )


def send(invitation: Invitation, *, actor: Actor) -> None:
    """Mail the invitation, for the first time or again. Raises Refused when it opens nothing any more."""
    with transaction.atomic(), audit.acting(actor):
        invitation = Invitation.objects.select_for_update().select_related("company").get(pk=invitation.pk)
        refuse_unless_live(invitation)
        if _is_waiting(invitation):
            raise Refused(_("A mail of this invitation is waiting to be sent already."))
        _write(kind_of(invitation), invitation)
        audit.record("invitation_mailed", invitation)
        queue.enqueue(queue.SEND_MAILS)


def confirm(invitation: Invitation) -> None:
    """Tell the customer that every account is connected, once. Call inside the transaction that found it."""
    _write(MailKind.CONNECTED, invitation, key=f"invitation {invitation.pk} connected")
    queue.enqueue(queue.SEND_MAILS)


AT_ONCE = 500
"""Reminders that one run writes at most; the next one follows in half an hour."""


def remind() -> int:
    """Write the reminder of every invitation that is due for it; how many. One each, in the customer's office hours.

    None for a customer who has connected otherwise, with a link that staff showed or by another invitation.
    """
    now = timezone.now()
    since = now - timedelta(days=settings.INVITATION_REMIND_DAYS)
    due = Invitation.objects.live(now).filter(sent_at__lte=since, reminded_at__isnull=True).select_related("company")
    due = due.filter(company__gone_at__isnull=True).exclude(company__onboarding_state__in=_SHUT)
    # By whom it is day, before any is locked: those who sleep must not stand in the way of the others.
    rows = due.order_by("sent_at").only("company", "company__time_zone").iterator(chunk_size=2000)
    awake = [invitation.pk for invitation in rows if is_office_hour(now, _zone(invitation))]
    written = 0
    for pk in awake:
        if written == AT_ONCE:
            break
        with transaction.atomic():
            invitation = Invitation.objects.select_for_update(of=("self",)).select_related("company").get(pk=pk)
            if invitation.reminded_at or not invitation.is_live(now) or not is_office_hour(now, _zone(invitation)):
                continue
            if link_need.has_nothing_left(invitation.company) or _is_shut(invitation.company):
                continue
            invitation.reminded_at = now
            invitation.save(update_fields=["reminded_at", "updated_at"])
            if not _bounced(invitation.contact_email):
                _write(MailKind.REMINDER, invitation, key=f"invitation {invitation.pk} reminder")
                written += 1
    if written:
        queue.enqueue(queue.SEND_MAILS)
    return written


def is_office_hour(at: datetime, zone: ZoneInfo) -> bool:
    """Whether `at` is by day, on a working day, where the customer is."""
    local = at.astimezone(zone)
    return local.weekday() in MONDAY_TO_FRIDAY and local.hour in OFFICE_HOURS


def note_bounce(mail: Mail, *, actor: Actor) -> None:
    """A colleague saw that it came back: no reminder goes to that address. Raises Refused, see `why_no_bounce`."""
    with transaction.atomic(), audit.acting(actor):
        mail = Mail.objects.select_for_update().get(pk=mail.pk)
        if why := why_no_bounce(mail):
            raise Refused(str(why))
        mail.bounced_at = timezone.now()
        mail.save(update_fields=["bounced_at", "updated_at"])
        audit.record("mail_bounced", mail)


def why_no_bounce(mail: Mail) -> Text:
    """Why it cannot have come back, or need not be noted; empty when it may be."""
    if mail.invitation_id is None:
        return _("It went to staff: only of a customer's mail it is noted.")
    if mail.sent_at is None:
        return _("This mail has not been sent.")
    return _("It is noted already.") if mail.bounced_at else ""


def _write(kind: MailKind, invitation: Invitation, *, key: str = "") -> None:
    text = draft(kind, invitation)
    mail = Mail(
        kind=kind,
        key=key,
        to=text.to,
        subject=text.subject,
        body=text.body,
        html=text.html,
        invitation=invitation,
        company=invitation.company,
        next_attempt_at=timezone.now(),
    )
    outbox.store(mail)


def _bounced(address: str) -> bool:
    """Whether a mail to this address came back, whichever invitation it was about."""
    return Mail.objects.filter(to=address, bounced_at__isnull=False).exists()


_SHUT = (OnboardingState.FAILED, OnboardingState.OFFBOARDED)


def _is_shut(company: Company) -> bool:
    """Whether the link leads nowhere until staff act: it is off-boarded, was refused, or Codat no longer has it."""
    return company.gone_at is not None or company.onboarding_state in _SHUT


def _is_waiting(invitation: Invitation) -> bool:
    return invitation.mails.filter(next_attempt_at__isnull=False).exists()


def _zone(invitation: Invitation) -> ZoneInfo:
    return ZoneInfo(invitation.company.time_zone or settings.TIME_ZONE)

"""Invitations: made, renewed and withdrawn by staff; how far the customer came is read off what Codat shows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, Max, Min, OuterRef, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import audit, queue
from feeds.audit import Actor
from feeds.models import Company, Connection, Invitation, InvitationKey, SourceAccount
from feeds.services import customer_mails, link_need, outbox
from feeds.services.errors import Refused
from feeds.services.invitation_keys import CUSTOMER, TOLD_FOR
from feeds.states import AccountStatus, ConnectionStatus, InvitationEnd, InvitationPurpose, MailKind, Text

LATE = timedelta(days=1)
"""So long after an invitation ended by one of `LATE_ENDS` it still counts who had pressed before."""
LATE_ENDS = (InvitationEnd.EXPIRED, InvitationEnd.REPLACED)
"""Ends before which a customer may have gone on to Codat, whose page lives on for a while."""


def invite(
    company: Company,
    *,
    purpose: InvitationPurpose,
    contact_name: str,
    contact_email: str,
    language: str,
    actor: Actor,
    days: int | None = None,
) -> Invitation:
    """Make an invitation; one that still lives for the same purpose is replaced.

    `days`: how long it lives. `language`: of page and mails; "" lets the customer's browser decide, and mails are in
    the company's.

    Raises Refused with what `why_not` says.
    """
    if why := why_not(company):
        raise Refused(str(why))
    now = timezone.now()
    with transaction.atomic(), audit.acting(actor):
        Company.objects.select_for_update().get(pk=company.pk)
        for older in Invitation.objects.filter(company=company, purpose=purpose, ended_at__isnull=True):
            _end(older, InvitationEnd.REPLACED if older.expires_at > now else InvitationEnd.EXPIRED)
        return Invitation.objects.create(
            company=company,
            purpose=purpose,
            contact_name=contact_name,
            contact_email=contact_email,
            language=language,
            made_by=actor.user,
            made_by_name=actor.name,
            expires_at=now + timedelta(days=days or settings.INVITATION_DAYS),
        )


def why_not(company: Company) -> Text:
    """Why an invitation would lead its customer nowhere; empty when nothing speaks against it."""
    if company.gone_at is not None:
        return _("Codat no longer has this company. Press Retry on its page first, then invite.")
    if link_need.has_nothing_left(company):
        return _("Every account is connected: there is nothing to invite to.")
    return ""


def planned(company: Company, purpose: InvitationPurpose) -> Invitation:
    """The invitation that `invite_contact` would make now, for a screen that shows its mail first. Not stored."""
    return Invitation(
        company=company,
        purpose=purpose,
        contact_name=company.contact_name,
        contact_email=company.contact_email,
        language=company.language,
        expires_at=timezone.now() + timedelta(days=settings.INVITATION_DAYS),
    )


def invite_contact(company: Company, *, purpose: InvitationPurpose, actor: Actor) -> Invitation:
    """Make an invitation for the company's own contact and mail it; one click, for one company or for many.

    Raises Refused with what `why_not_contact` says, and as `invite` does.
    """
    with transaction.atomic():
        company = Company.objects.select_for_update().get(pk=company.pk)
        if why := why_not_contact(company, purpose):
            raise Refused(str(why))
        wanted = planned(company, purpose)
        invitation = invite(
            company,
            purpose=purpose,
            contact_name=wanted.contact_name,
            contact_email=wanted.contact_email,
            language=wanted.language,
            actor=actor,
        )
        customer_mails.send(invitation, actor=actor)
        return invitation


def why_not_contact(company: Company, purpose: InvitationPurpose) -> Text:
    """Why the company's contact is not invited without looking; empty when nothing speaks against it."""
    if not (company.contact_email and company.contact_name):
        return _("It has no contact with a name and an e-mail address. Fill them in on its page.")
    if not company.is_in_codat or company.gone_at is not None:
        return _("It is not in Codat. Onboard it first.")
    if why := why_not(company):
        return why
    if Invitation.objects.live(timezone.now()).filter(company=company, purpose=purpose).exists():
        return _("It has an invitation that still works. Send that one again, or renew it, on its own page.")
    return ""


def revoke(invitation: Invitation, *, actor: Actor, reason: str) -> None:
    """Its addresses open nothing from now on. Raises Refused when they already do not.

    Of a connected customer's, which shows how it stands and gives no link, how it ended stays. Keys are kept, so that
    their holder can ask for a new link.
    """
    with transaction.atomic(), audit.acting(replace(actor, reason=reason)):
        invitation = _locked(invitation)
        if why := why_not_revoke(invitation):
            raise Refused(str(why))
        if invitation.end == InvitationEnd.CONNECTED:
            invitation.withdrawn_at = timezone.now()
            invitation.save(update_fields=["withdrawn_at", "updated_at"])
        else:
            _end(invitation, InvitationEnd.REVOKED)
        audit.record("invitation_revoked", invitation, reason=reason)


def why_not_revoke(invitation: Invitation) -> Text:
    """Why there is nothing to withdraw; empty when some link of it may open the page."""
    now = timezone.now()
    if invitation.is_live(now) or (invitation.opens_page(now) and invitation.keys.exists()):
        return ""
    return _("This invitation opens nothing any more.")


def renew(invitation: Invitation, *, actor: Actor, days: int | None = None) -> Invitation:
    """Another one in its place, to the same person for the same purpose. Raises Refused."""
    if invitation.connected_at is not None:
        raise Refused(_("The customer is connected: there is nothing to renew."))
    with transaction.atomic():
        company = Company.objects.select_for_update().get(pk=invitation.company_id)
        live = Invitation.objects.live(timezone.now()).filter(company=company, purpose=invitation.purpose)
        if live.exclude(pk=invitation.pk).exists():
            # Somebody was quicker: another one would end the link that they have handed over.
            why = _("It has an invitation that still works. Send that one again, or renew it, on its own page.")
            raise Refused(why)
        return invite(
            company,
            purpose=InvitationPurpose(invitation.purpose),
            contact_name=invitation.contact_name,
            contact_email=invitation.contact_email,
            language=invitation.language,
            actor=actor,
            days=days,
        )


def end_expired() -> int:
    """Write down which invitations have run out; how many. Their addresses open nothing before it, too."""
    ended = 0
    over = Invitation.objects.filter(ended_at__isnull=True, expires_at__lte=timezone.now())
    for pk in list(over.values_list("pk", flat=True)[:1000]):
        with transaction.atomic():
            invitation = Invitation.objects.select_for_update().filter(pk=pk, ended_at__isnull=True).first()
            if invitation is not None:
                _end(invitation, InvitationEnd.EXPIRED)
                ended += 1
    return ended


def tell_of_requests() -> int:
    """Tell staff, once a day for each invitation, that its customer asks for a new link; how many were told of.

    The customer's manager, or the team where there is none.
    """
    now = timezone.now()
    asked = InvitationKey.objects.filter(asked_at__isnull=False, staff_told=False)
    told = 0
    for invitation_id in set(asked.order_by("asked_at").values_list("invitation", flat=True)[:500]):
        with transaction.atomic():
            invitation = Invitation.objects.select_for_update().get(pk=invitation_id)
            untold = invitation.keys.filter(asked_at__isnull=False, staff_told=False)
            asked_at = untold.aggregate(at=Min("asked_at"))["at"]
            if asked_at is None:
                continue
            # With another of its links it may have asked before.
            last = invitation.keys.filter(told_at__gt=asked_at - TOLD_FOR).aggregate(at=Max("told_at"))["at"]
            untold.update(staff_told=True, told_at=last or now)
            if last is None:
                _tell_of_request(invitation, asked_at)
                told += 1
    if told:
        queue.enqueue(queue.SEND_MAILS)
    return told


def staff_of(company: Company) -> list[str]:
    """Whom to write to about one customer: its manager, or the team where there is none."""
    manager = company.manager.email if company.manager is not None and company.manager.is_active else ""
    return [manager] if manager else list(settings.CASE_NOTIFY_TO)


def _tell_of_request(invitation: Invitation, asked_at: datetime) -> None:
    company = invitation.company
    newer = Invitation.objects.live(timezone.now()).filter(company=company).order_by("pk").last()
    with audit.acting(CUSTOMER):
        # A request is noted where nothing may tell a right key from a wrong one, so its entry is written later.
        audit.record(
            "invitation_link_asked_for", invitation, asked_at=asked_at.isoformat(), newer=newer.pk if newer else 0
        )
    outbox.put(
        MailKind.LINK_ASKED,
        to=staff_of(company),
        subject=lambda: _("%(company)s asks for a new link") % {"company": company.legal_name},
        context={"invitation": invitation, "company": company, "page": outbox.page_of(company)},
        company=company,
        key=f"invitation {invitation.pk} asked {asked_at:%Y-%m-%d %H:%M:%S}",
    )


# --- What follows from readings --------------------------------------------------------------------------------------
def observe(companies: Collection[Company]) -> None:
    """Write how far the customers came, by what the mirror shows. Call inside the reading's transaction.

    Who pressed shortly before the invitation ran out, or was replaced, may connect after it: `LATE`.

    Who never pressed the button may be connected all the same, by a link that staff showed or another invitation. One
    query where nobody has been invited.
    """
    linked = Connection.objects.filter(
        company=OuterRef("company"), gone_at__isnull=True, status=ConnectionStatus.LINKED
    )
    late = Q(
        end__in=LATE_ENDS,
        started_at__isnull=False,
        connected_at__isnull=True,
        ended_at__gte=timezone.now() - LATE,
    )
    waiting = Invitation.objects.filter(Exists(linked), Q(ended_at__isnull=True) | late, company__in=companies)
    confirmed: set[tuple[int, str]] = set()
    # Who pressed comes first: of several mails to one contact, theirs is written.
    for invitation in waiting.order_by(F("started_at").desc(nulls_last=True), "pk"):
        contact = (invitation.company_id, invitation.contact_email)
        if _note_progress(invitation) and contact not in confirmed and _has_heard(invitation):
            customer_mails.confirm(invitation)
            confirmed.add(contact)


def progress(company: Company) -> tuple[int, int]:
    """How many of the company's accounts QuickBooks reads, and how many there are, on their way to Codat included."""
    accounts = SourceAccount.objects.filter(company=company, gone_at__isnull=True)
    held = list(accounts.values_list("status", "connection"))
    connected = sum(status == AccountStatus.CONNECTED and connection is not None for status, connection in held)
    return connected, len(held)


def _has_heard(invitation: Invitation) -> bool:
    """Whether its customer knows of it: was mailed, or came."""
    return invitation.sent_at is not None or invitation.started_at is not None


def _note_progress(invitation: Invitation) -> bool:
    """Write it, of a company whose connection is Linked; whether every account is connected now."""
    connected, total = progress(invitation.company)
    is_connected = total > 0 and connected == total
    now, written = timezone.now(), []
    # One that is to reconnect may be Linked all along: it is the accounts that tell. What some accounts did before the
    # customer pressed tells nothing.
    if invitation.linked_at is None and connected and (invitation.started_at is not None or is_connected):
        invitation.linked_at = now
        written.append("linked_at")
    if is_connected:
        if invitation.end == InvitationEnd.REPLACED:
            # It was replaced, perhaps because somebody else had its link: that opens nothing again.
            invitation.withdrawn_at = now
            written.append("withdrawn_at")
        invitation.connected_at = invitation.ended_at = now
        invitation.end = InvitationEnd.CONNECTED
        written += ["connected_at", "ended_at", "end"]
    if written:
        invitation.save(update_fields=[*written, "updated_at"])
    return is_connected


def _locked(invitation: Invitation) -> Invitation:
    return Invitation.objects.select_for_update().get(pk=invitation.pk)


def _end(invitation: Invitation, end: InvitationEnd) -> None:
    invitation.ended_at, invitation.end = timezone.now(), end
    invitation.save(update_fields=["ended_at", "end", "updated_at"])

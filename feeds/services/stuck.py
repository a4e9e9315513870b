"""Stuck invitations: customers who came so far and no further, the longest waiting first.

Nothing is written down about them: they follow from the times an invitation carries and INVITATION_STUCK_DAYS. One that
has run out is not among them, because its link opens nothing: it is in the list of invitations as expired.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import Prefetch, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.models import Invitation, Mail
from feeds.services import access
from feeds.states import STUCK_ADVICE, STUCK_STEPS, InvitationState, MailState, Text

View = Literal["mine", "invited", "all"]
"""Of the customers one manages; that one made oneself; of all customers one sees."""

ENDS_SOON = timedelta(days=2)
"""With no more than this left, the link may run out before the customer presses."""


def limits() -> dict[InvitationState, timedelta]:
    """Step -> how long an invitation may stand on it before it is stuck."""
    return dict(zip(STUCK_STEPS, (timedelta(days=days) for days in settings.INVITATION_STUCK_DAYS), strict=True))


def worklist(view: View, user: User, now: datetime) -> QuerySet[Invitation]:
    """The stuck invitations of one view, longest waiting first; `since` is when each came to its step (aware UTC).

    Only customers whom `user` sees, whichever view.
    """
    rows: QuerySet[Any] = access.scope(Invitation.objects.stuck(now, limits()), user)
    if view == "mine":
        rows = rows.filter(company__manager=user)
    elif view == "invited":
        rows = rows.filter(made_by=user)
    return rows.order_by("since", "pk")


def with_mails(rows: QuerySet[Invitation]) -> QuerySet[Invitation]:
    """`rows`, each with what `last_mail` and `advice` read: two joins and one query more, however many rows."""
    mails = Mail.objects.only("invitation", "state", "sent_at", "bounced_at").order_by("-pk")
    related = Prefetch("mails", queryset=mails, to_attr="held_mails")
    return rows.select_related("company__manager").prefetch_related(related)


def last_mail(invitation: Invitation) -> Mail | None:
    """The newest mail about the invitation, sent or not; of a row from `with_mails`."""
    held: list[Mail] = invitation.held_mails  # type: ignore[attr-defined]  # put there by `with_mails`
    return held[0] if held else None


def advice(invitation: Invitation, now: datetime) -> Text:
    """What to do next about a row from `with_mails`."""
    mail = last_mail(invitation)
    if mail is not None and mail.bounced_at is not None:
        return _("Its mail came back: ask for the right address, and invite anew.")
    if invitation.expires_at - now <= ENDS_SOON:
        return _("Renew it: it ends soon. Then send the new one.")
    if invitation.state == InvitationState.MADE and mail is not None:
        return _UNSENT[MailState(mail.state)]
    return STUCK_ADVICE[invitation.state]


_UNSENT: dict[MailState, Text] = {
    MailState.QUEUED: gettext_lazy("Its mail waits to be sent, or an incident is open. If it stays so, show the link."),
    MailState.HELD: gettext_lazy("Its mail was held and never went out: send it again, or show its link."),
    MailState.FAILED: gettext_lazy("Its mail could not be sent: check the address, send it again, or show its link."),
    MailState.SENT: STUCK_ADVICE[InvitationState.MADE],
}
"""What to do about an invitation that was not mailed, by what became of its mail."""

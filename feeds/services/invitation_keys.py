"""The key in an invitation's address: 256 random bits, stored as a hash only.

Whoever reads this database opens nothing. A key exists in memory while it is shown or mailed, so it cannot be shown or
mailed again: each time makes another one, and all of them end with their invitation.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import audit
from feeds.audit import Actor
from feeds.models import Invitation, InvitationKey
from feeds.services.errors import Refused

CUSTOMER = Actor(name="customer", source="connect page")
"""Who acts where a customer does; at a page it is `customer_at`."""
KEY_BYTES = 32
SHOWN, MAILED, API = "screen", "mail", "api"
"""What a key was made for."""
ENDED = "ended"
"""What a key was made for that newer ones have ended: it opens nothing, but its holder guesses nothing and may ask."""
ENDED_KNOWN = 100
"""So many of those are known of one invitation."""
TOLD_FOR = timedelta(days=1)
"""So long staff are told nothing more of a customer who asks for a new link and asks again."""
KEPT_FOR = timedelta(days=90)
"""So long after its invitation would have run out, a key is known: a customer may still ask with it for a new link."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an invitation is opened, on its way to one screen or one mail. Never stored, never logged."""

    url: str = field(repr=False)
    expires_at: datetime


def customer_at(address: str) -> Actor:
    """The customer, or whoever holds the key: where from is all that can be known of them."""
    return replace(CUSTOMER, remote_addr=address or None)


def address(invitation: Invitation, *, made_for: str, actor: Actor, at_most: int = 0) -> Address:
    """Make a key and the address that it opens; that one was made, and for what, is recorded. Raises Refused.

    `at_most`: how many keys that were made for the same work at once; older ones end. 0: any number.
    """
    with transaction.atomic(), audit.acting(actor):
        invitation = Invitation.objects.select_for_update().get(pk=invitation.pk)
        refuse_unless_live(invitation)
        key = secrets.token_urlsafe(KEY_BYTES)
        InvitationKey.objects.create(invitation=invitation, digest=digest(key), made_for=made_for)
        if at_most:
            _keep_newest(invitation, made_for, at_most)
        audit.record("invitation_link_made", invitation, made_for=made_for)
    return Address(settings.SITE_URL + reverse("connect", args=[key]), invitation.expires_at)


def _keep_newest(invitation: Invitation, made_for: str, at_most: int) -> None:
    # A program that asks on each click must not fill the table: of those that ended so, only the newest are known.
    mine = InvitationKey.objects.filter(invitation=invitation, made_for__in=(made_for, ENDED)).order_by("-pk")
    older = list(mine.values_list("pk", flat=True)[at_most:])
    InvitationKey.objects.filter(pk__in=older[:ENDED_KNOWN]).update(made_for=ENDED)
    InvitationKey.objects.filter(pk__in=older[ENDED_KNOWN:]).delete()


def prune() -> int:
    """Forget keys that have opened nothing for long; how many.

    Nobody sees a difference: a forgotten key is answered as a wrong one, and as before.
    """
    over = Q(invitation__expires_at__lte=timezone.now() - KEPT_FOR)
    spent = list(InvitationKey.objects.filter(over).values_list("pk", flat=True)[:1000])
    return InvitationKey.objects.filter(pk__in=spent).delete()[0]


def ask(key: str) -> None:
    """Note that the holder of `key` asks for a new link. As many queries whether or not the key was ever one.

    Staff who were told of an earlier request within `TOLD_FOR` know, so another one is none.
    """
    now = timezone.now()
    is_news = Q(asked_at__isnull=True) | Q(staff_told=True, told_at__lte=now - TOLD_FOR)
    InvitationKey.objects.filter(is_news, digest=digest(key)).update(asked_at=now, staff_told=False)


def digest(key: str) -> str:
    """What is stored of a key. It has 256 random bits, so there is nothing to guess and no salt is needed."""
    return hashlib.sha256(key.encode()).hexdigest()


def refuse_unless_live(invitation: Invitation) -> None:
    """Raises Refused for an invitation whose addresses open nothing any more."""
    if not invitation.is_live(timezone.now()):
        raise Refused(_("This invitation opens nothing any more. Renew it, or invite the customer anew."))

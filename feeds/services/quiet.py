"""When Codat's complete list may be read: it makes new links for everybody, and Codat may end those handed out.

A list that is due waits while a customer holds a link, because a link lives an hour and nights are quiet. It does not
wait for ever: for the first half of `POLL_LIST_WAIT_HOURS` it waits for a moment without any; in the second half it
takes the first moment with no more links than the fewest of the first half; at the end it is read whatever is out. Who
then holds a link that was replaced is told on the screens that show links.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from feeds.models import Connection, ListingWalk
from feeds.services import link_need

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A list that is due and waits for links in customers' hands: since when, and until when at most (aware UTC)."""

    since: datetime
    until: datetime


def handed_out(now: datetime) -> QuerySet[Connection]:
    """Connections whose link somebody was shown, still works, and is still needed. One that nobody saw harms nobody."""
    is_live = Q(link_expires_at__gt=now, link_shown_at__gte=F("link_fetched_at"), gone_at__isnull=True)
    return Connection.objects.filter(is_live, link_need.needed()).exclude(link_url="")


def is_time(name: str) -> bool:
    """Whether the walk `name`, which is due, may begin now. When not, it is noted that it waits."""
    now = timezone.now()
    held = handed_out(now).count()
    if not held:
        return True
    walk, _created = ListingWalk.objects.get_or_create(name=name)
    if walk.waiting_since is None:
        ListingWalk.objects.filter(name=name).update(waiting_since=now, fewest_links=held)
        log.info("listing_waits", walk=name, links=held)
        return _longest_wait() <= timedelta(0)
    waited = now - walk.waiting_since
    if waited >= _longest_wait():
        return True
    fewest = held if walk.fewest_links is None else walk.fewest_links
    if waited >= _longest_wait() / 2:
        return held <= fewest
    if held < fewest:
        ListingWalk.objects.filter(name=name).update(fewest_links=held)
    return False


def waiting(walk: ListingWalk | None) -> Waiting | None:
    """How a walk waits; None when it does not."""
    if walk is None or walk.waiting_since is None:
        return None
    return Waiting(walk.waiting_since, walk.waiting_since + _longest_wait())


def _longest_wait() -> timedelta:
    return timedelta(hours=settings.POLL_LIST_WAIT_HOURS)

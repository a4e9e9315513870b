"""Counts who comes with keys that open nothing, and answers them no more for a while.

For customers' pages and the API, each for itself: who is shut out of one may still use the other.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import IPv6Address, IPv6Network, ip_address

from django.db.models import F
from django.utils import timezone
from django.utils.crypto import salted_hmac

from feeds.models import Knock

WINDOW = timedelta(minutes=10)
KNOCKS = 30
"""Wrong keys from one address in one window, after which it gets no answer until the window ends."""
CUSTOMERS, PROGRAMS = "feeds.door", "feeds.api"
"""Who knocks: the salt of what is stored of an address."""
NETWORK = 64
"""Bits of an IPv6 address that say whose it is; whoever has it chooses the others, another for each knock."""


class TooManyKnocks(Exception):
    """This address has come with too many wrong keys. `retry_after`: whole seconds until it may try again."""

    def __init__(self) -> None:
        super().__init__("too many wrong keys")
        self.retry_after = _seconds_left()


def refuse_if_too_many(address: str, *, who: str) -> None:
    """Raises TooManyKnocks when `address` has brought too many wrong keys. One query."""
    if Knock.objects.filter(address=_knocker(address, who), window=_window(), count__gte=KNOCKS).exists():
        raise TooManyKnocks


def count(address: str, *, who: str, by: int = 1) -> None:
    """Note a wrong key. `by=0` asks the database the same and notes none: the time tells nobody which it was."""
    window, knocker = _window(), _knocker(address, who)
    knocks = Knock.objects.filter(address=knocker, window=window)
    if not knocks.update(count=F("count") + by):
        Knock.objects.get_or_create(address=knocker, window=window)
        knocks.update(count=F("count") + by)


def prune() -> int:
    """Forget windows that are over; how many."""
    return Knock.objects.filter(window__lt=timezone.now() - 2 * WINDOW).delete()[0]


def _knocker(address: str, who: str) -> str:
    """A keyed hash: no address is stored."""
    return salted_hmac(who, _holder(address), algorithm="sha256").hexdigest()


def _holder(address: str) -> str:
    """Whose address it is: itself, or the network of an IPv6 one."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((int(parsed), NETWORK), strict=False))


def _window() -> datetime:
    seconds = int(WINDOW.total_seconds())
    now = int(timezone.now().timestamp())
    return datetime.fromtimestamp(now - now % seconds, tz=timezone.get_default_timezone())


def _seconds_left() -> int:
    seconds = int(WINDOW.total_seconds())
    return seconds - int(timezone.now().timestamp()) % seconds

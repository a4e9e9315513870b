"""Counts who calls the API with keys that open nothing, and answers them no more for a while.

As `door` does it for customers' pages, in the same table, which its own task prunes.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import F
from django.utils import timezone
from django.utils.crypto import salted_hmac

from feeds.models import Knock

WINDOW = timedelta(minutes=10)
KNOCKS = 30
"""Wrong keys from one address in one window, after which it gets no answer until the window ends."""


class TooManyKnocks(Exception):
    """This address has come with too many wrong keys. `retry_after`: whole seconds until it may try again."""

    def __init__(self) -> None:
        super().__init__("too many wrong keys")
        self.retry_after = _seconds_left()


def refuse_if_too_many(address: str) -> None:
    """Raises TooManyKnocks when `address` has brought too many wrong keys. One query."""
    if Knock.objects.filter(address=_knocker(address), window=_window(), count__gte=KNOCKS).exists():
        raise TooManyKnocks


def count(address: str) -> None:
    """Note a wrong key."""
    window, knocker = _window(), _knocker(address)
    knocks = Knock.objects.filter(address=knocker, window=window)
    if not knocks.update(count=F("count") + 1):
        Knock.objects.get_or_create(address=knocker, window=window)
        knocks.update(count=F("count") + 1)


def _knocker(address: str) -> str:
    """A keyed hash, another one than at the customers' door: no address is stored."""
    return salted_hmac("feeds.api", address, algorithm="sha256").hexdigest()


def _window() -> datetime:
    seconds = int(WINDOW.total_seconds())
    now = int(timezone.now().timestamp())
    return datetime.fromtimestamp(now - now % seconds, tz=timezone.get_default_timezone())


def _seconds_left() -> int:
    seconds = int(WINDOW.total_seconds())
    return seconds - int(timezone.now().timestamp()) % seconds

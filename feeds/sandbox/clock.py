"""The movable clock: real time plus an offset that survives restarts."""

import time
from datetime import UTC, date, datetime

from feeds.sandbox.store import Store, read_meta, write_meta

HOUR = 3600.0
DAY = 24 * HOUR


class Clock:
    """Tells the stand-in's time; everything that expires asks it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        with store.transaction() as db:
            self.offset: float = read_meta(db, "clock_offset", 0.0)

    def now(self) -> float:
        """Return seconds since the epoch, moved by the offset."""
        return time.time() + self.offset

    def move_to(self, offset: float) -> None:
        """Set the offset, in seconds from real time."""
        with self._store.transaction() as db:
            write_meta(db, "clock_offset", offset)
        self.offset = offset


def iso(moment: float) -> str:
    """Write a moment as Codat does: UTC, seven fractional digits, ``Z``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


def from_iso(text: str) -> float:
    """Read an ISO 8601 moment; without a zone it is UTC.

    Raises:
        ValueError: It is no ISO 8601 moment.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def day_of(moment: float) -> date:
    """Return the UTC day a moment belongs to."""
    return datetime.fromtimestamp(moment, UTC).date()

"""Cases: opened and closed by what Codat shows, worked by people."""

from __future__ import annotations

from feeds.models import Connection


def observe(connection: Connection) -> None:
    """Open, re-open or recover the connection's case from the statuses in the mirror. Idempotent."""

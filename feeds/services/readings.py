"""What follows from a reading of Codat, whoever made it: poll, webhook, button or operation.

Call inside the transaction that wrote the reading into the mirror.
"""

from __future__ import annotations

from collections.abc import Iterable

from feeds.models import Company, Connection
from feeds.services import cases, mirror


def after_reading(company: Company, connections: Iterable[Connection] | None = None) -> None:
    """Bring onboarding state and cases into line with what the mirror now says.

    `connections`: all of the company's, where the caller has them at hand.
    """
    mirror.settle_onboarding(company)
    for connection in Connection.objects.filter(company=company) if connections is None else connections:
        cases.observe(connection)

"""What follows from a reading of Codat, whoever made it: poll, webhook, button or operation.

Call inside the transaction that wrote the reading into the mirror.
"""

from __future__ import annotations

from feeds.models import Company, Connection
from feeds.services import cases, mirror, polling


def after_reading(company: Company) -> None:
    """Bring onboarding state, cases and the date of the next poll into line with what the mirror now says."""
    mirror.settle_onboarding(company)
    for connection in Connection.objects.filter(company=company):
        cases.observe(connection)
        polling.bring_forward(connection)

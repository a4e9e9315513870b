"""What follows from a reading of Codat, whoever made it: poll, webhook, button or operation.

Call inside the transaction that wrote the reading into the mirror.
"""

from __future__ import annotations

from collections.abc import Collection

from feeds.models import Company, Connection
from feeds.services import cases, invitations, mirror


def after_reading(company: Company) -> None:
    """Bring onboarding state and cases into line with what the mirror now says."""
    mirror.settle_onboarding(company)
    for connection in Connection.objects.filter(company=company):
        cases.observe(connection)
    invitations.observe([company])


def after_readings(readings: Collection[tuple[Company, Collection[Connection]]]) -> None:
    """The same for many companies, each with all its connections, in three queries where there is nothing to do."""
    concerned = cases.concerned([connection for _company, connections in readings for connection in connections])
    for company, connections in readings:
        mirror.settle_onboarding(company, connections)
        for connection in connections:
            if connection.pk in concerned:
                cases.observe(connection)
    invitations.observe([company for company, _connections in readings])

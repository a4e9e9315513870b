"""Is a company still in Codat? The one place that says no, and what goes with it."""

from __future__ import annotations

from django.db import transaction

from feeds import mapping
from feeds.codat import schemas
from feeds.codat.errors import NotFound
from feeds.models import Company, Connection
from feeds.services import gateway, leases, mirror, readings
from feeds.states import SeenBy


def settle(company: Company, *, how: SeenBy, reference: str = "") -> bool:
    """Ask Codat for the company itself (`GET /companies/{companyId}`), and tell whether it is there.

    For when a reading of what it has led nowhere. Only a 404 to this very question, and a list that is without it, mean
    gone; then everything of the company is. Any other answer is an error, or brings the company and its connections up
    to date. `how` and `reference` go into the timeline.

    Raises CodatError, and Refused when a worker holds the company.
    """
    with leases.hold(company.pk), mirror.seen_by(how, reference):
        reply = _ask(company)
        with transaction.atomic(durable=True):
            company = Company.objects.select_for_update().get(pk=company.pk)
            if reply is None:
                _mark_gone(company)
            else:
                mirror.apply_company(company, reply)
                held = {connection.codat_id: connection for connection in Connection.objects.filter(company=company)}
                for listed in reply.connections:
                    mirror.apply_listed_connection(company, held.get(listed.id), listed, keep_new_link=False)
            readings.after_reading(company)
    return reply is not None


def _ask(company: Company) -> schemas.Company | None:
    """The company as Codat has it; None when it does not. A wrong address answers 404 to everything: hence the list."""
    client = gateway.client()
    try:
        return client.get_company(company.codat_id)
    except NotFound:
        found = client.find_companies_by_tag(mapping.UID_TAG, str(company.uid))
        return next((reply for reply in found if reply.id == company.codat_id), None)


def _mark_gone(company: Company) -> None:
    for connection in Connection.objects.filter(company=company, gone_at__isnull=True):
        mirror.mark_gone(connection)
    if company.gone_at is None:
        mirror.mark_gone(company)

"""A stand-in full of invented companies, and our mirror of it as if all had been read: quick enough for thousands."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import islice

from django.utils import timezone

from feeds import mapping
from feeds.codat import schemas
from feeds.codat.client import CodatClient
from feeds.models import Company, Connection, SourceAccount
from feeds.states import ConnectionStatus, OnboardingState
from tests.sandbox_process import SandboxProcess

CHUNK = 5000


def seed(
    codat: SandboxProcess, companies: int, *, accounts: int = 0, linked: bool = True, with_accounts: bool = True
) -> None:
    """Put companies with one connection each into the stand-in, and hold the same in our mirror.

    `with_accounts`: hold the accounts too, which takes a call for each connection.
    """
    codat.control("POST", "seed", {"companies": companies, "accounts": accounts, "linked": linked})
    replies = CodatClient(codat.url, codat.api_key).iter_companies(tags="uid~seed-")
    while chunk := list(islice(replies, CHUNK)):
        _mirror(chunk)
    for connection in Connection.objects.select_related("company") if accounts and with_accounts else ():
        _mirror_accounts(codat, connection)


def _mirror(replies: list[schemas.Company]) -> None:
    state = OnboardingState.LINKED if replies[0].connections[0].status == ConnectionStatus.LINKED else None
    held = Company.objects.bulk_create(
        Company(
            customer_number=reply.tags["uid"],
            legal_name=reply.name,
            onboarding_state=state or OnboardingState.LINK_READY,
            **mapping.company_columns(reply),
        )
        for reply in replies
    )
    Connection.objects.bulk_create(_connections(held, replies))


def _connections(held: list[Company], replies: list[schemas.Company]) -> Iterator[Connection]:
    for company, reply in zip(held, replies, strict=True):
        for connection in reply.connections:
            columns = mapping.connection_columns(connection, link_lifetime=timedelta(0), link_is_needed=True)
            without_link = {name: value for name, value in columns.items() if not name.startswith("link_")}
            yield Connection(company=company, poll_due_at=timezone.now(), **without_link)


def _mirror_accounts(codat: SandboxProcess, connection: Connection) -> None:
    client = CodatClient(codat.url, codat.api_key)
    for reply in client.list_source_accounts(connection.company.codat_id, connection.codat_id):
        SourceAccount.objects.create(
            company=connection.company,
            connection=connection,
            account_id=reply.id,
            name=reply.name,
            account_number=reply.account_number,
            **mapping.source_account_columns(reply),
        )

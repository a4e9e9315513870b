"""Support's screens at the size of a large bank: a million source accounts, twenty thousand open cases.

Queries and median time of each screen; it has to take as many queries as the same screen with `FEW` cases.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from statistics import median
from typing import Any

from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from feeds.models import Case, CaseEvent, Company, Connection, SourceAccount, StatusEvent
from feeds.services.roles import SUPPORT
from feeds.states import AccountStatus, CaseEventKind, ConnectionStatus, SeenBy
from tests.bench.registry import Figure, Options, bench
from tests.factories import UserFactory

FEW = 60
ACCOUNTS_EACH = 10
ROUNDS = 5
CHUNK = 5000


@bench("worklist")
def measure(options: Options) -> Iterator[Figure]:
    """Time support's screens with `--accounts` source accounts and `--cases` open cases."""
    client = Client(SERVER_NAME="localhost")
    client.force_login(UserFactory(role=SUPPORT, username="bench"))
    _fill(companies=FEW, accounts=FEW, cases=FEW)
    few = _measure(client)
    companies = max(options.accounts // ACCOUNTS_EACH, options.cases)
    _fill(companies=companies - FEW, accounts=options.accounts - FEW, cases=options.cases - FEW)
    with database.cursor() as cursor:
        cursor.execute("ANALYZE")
    many = _measure(client)
    size = f"{options.accounts:,} accounts, {options.cases:,} open cases"
    for name, measured in many.items():
        queries, before = measured["queries"], few[name]["queries"]
        same = "as with few" if queries == before else f"WITH FEW {before:g}"
        yield Figure(name, measured["milliseconds"], "ms", f"{size}, {queries:g} queries, {same}")


def _fill(*, companies: int, accounts: int, cases: int) -> None:
    """Companies with one connection each, accounts spread over them, and open cases about the first of them."""
    now = timezone.now()
    connections = list(_connections(companies))
    for chunk in _chunks(_accounts(connections, accounts)):
        SourceAccount.objects.bulk_create(chunk)
    for chunk in _chunks(
        Case(
            company_id=connection.company_id,
            connection=connection,
            what_is_broken="disconnected: Operating account",
            opened_at=now,
            broke_at=now - timedelta(minutes=place),
            due_at=now + timedelta(minutes=cases // 2 - place),
            checked_at=now,
        )
        for place, connection in enumerate(connections[:cases])
    ):
        made = Case.objects.bulk_create(chunk)
        told = [CaseEvent(case=case, kind=CaseEventKind.OPENED, actor_name="system", at=now) for case in made]
        CaseEvent.objects.bulk_create(told)
    for chunk in _chunks(
        StatusEvent(
            company_id=connection.company_id,
            connection=connection,
            old=ConnectionStatus.PENDING_AUTH,
            new=ConnectionStatus.LINKED,
            seen_at=now,
            seen_by=SeenBy.POLL,
        )
        for connection in connections
    ):
        StatusEvent.objects.bulk_create(chunk)


def _connections(companies: int) -> Iterator[Connection]:
    first = Company.objects.count()
    for chunk in _chunks(
        Company(
            customer_number=f"B-{number:07}", legal_name=f"Maple Bakery {number} Inc.", codat_id=f"company-{number}"
        )
        for number in range(first, first + companies)
    ):
        made = Company.objects.bulk_create(chunk)
        yield from Connection.objects.bulk_create(
            Connection(company=company, codat_id=f"connection-{company.pk}", status=ConnectionStatus.LINKED)
            for company in made
        )


def _accounts(connections: list[Connection], accounts: int) -> Iterator[SourceAccount]:
    for number in range(accounts):
        connection = connections[number % len(connections)]
        is_broken = number < len(connections) and number % 5 == 0
        yield SourceAccount(
            company_id=connection.company_id,
            connection=connection,
            account_id=f"account-{number}",
            name="Operating account",
            account_number="4000100001",
            status=AccountStatus.DISCONNECTED if is_broken else AccountStatus.CONNECTED,
        )


def _chunks(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


def _measure(client: Client) -> dict[str, dict[str, float]]:
    worklist = reverse("admin:feeds_case_changelist")
    case = Case.objects.order_by("due_at").first()
    assert case is not None
    addresses = {
        "worklist, all": worklist,
        "worklist, page 2": f"{worklist}?p=2",
        "worklist, mine": f"{worklist}?list=mine",
        "worklist, unassigned": f"{worklist}?list=unassigned",
        "case page": reverse("admin:feeds_case_change", args=[case.pk]),
        "timeline of a company": reverse("admin:feeds_company_timeline", args=[case.company_id]),
        "home": reverse("admin:index"),
    }
    return {name: _visit(client, address) for name, address in addresses.items()}


def _visit(client: Client, address: str) -> dict[str, float]:
    client.get(address)  # fills the caches of content types and templates
    with CaptureQueriesContext(database) as queries:
        assert client.get(address).status_code == 200
    # Counted here: the next request empties the log.
    count = len(queries)
    assert count > 0
    seconds = []
    for _round in range(ROUNDS):
        started = time.perf_counter()
        client.get(address)
        seconds.append(time.perf_counter() - started)
    return {"queries": count, "milliseconds": round(median(seconds) * 1000, 1)}

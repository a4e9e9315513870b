"""Support's screens at the size of a large bank: a million source accounts, twenty thousand open cases.

`python -m tests.bench.bench_worklist` prints the figures as JSON: queries and median milliseconds of each screen,
beside the same screen with `FEW` cases. The queries must be the same.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import django

if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    os.environ["LOG_LEVEL"] = "ERROR"
    django.setup()

from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from feeds.models import Case, CaseEvent, Company, Connection, SourceAccount, StatusEvent
from feeds.services.roles import SUPPORT
from feeds.states import AccountStatus, CaseEventKind, ConnectionStatus, SeenBy
from tests.factories import UserFactory

COMPANIES, ACCOUNTS, CASES, FEW = 100_000, 1_000_000, 20_000, 60
ROUNDS = 5
CHUNK = 5000


def run(companies: int = COMPANIES, accounts: int = ACCOUNTS, cases: int = CASES) -> dict[str, Any]:
    """Figures by screen: queries and milliseconds with `FEW` cases and with all, on the database that is set up.

    `well` says whether every screen took the same number of queries at both sizes.
    """
    client = Client(SERVER_NAME="localhost")
    client.force_login(UserFactory(role=SUPPORT, username="bench"))
    _fill(companies=FEW, accounts=FEW, cases=FEW)
    few = _measure(client)
    _fill(companies=companies - FEW, accounts=accounts - FEW, cases=cases - FEW)
    if database.vendor == "postgresql":
        with database.cursor() as cursor:
            cursor.execute("ANALYZE")
    many = _measure(client)
    screens = {name: {"few": few[name], "many": many[name]} for name in few}
    return {
        "companies": companies,
        "accounts": accounts,
        "open_cases": cases,
        "screens": screens,
        "well": all(few[name]["queries"] == many[name]["queries"] for name in few),
    }


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


def main() -> None:
    """Print the figures, measured on a database of this run's own."""
    with tempfile.TemporaryDirectory() as folder:
        before = database.settings_dict["NAME"]
        own = str(Path(folder) / "bench.sqlite3") if database.vendor == "sqlite" else f"bench_{os.getpid()}"
        database.settings_dict["TEST"] = {**database.settings_dict.get("TEST", {}), "NAME": own}
        database.creation.create_test_db(verbosity=0, autoclobber=True)
        try:
            sys.stdout.write(json.dumps(run(), indent=2) + "\n")
        finally:
            database.creation.destroy_test_db(before, verbosity=0)


if __name__ == "__main__":
    main()

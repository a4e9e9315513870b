"""The auditor's screens at the size of years: a million entries of the change history, spread over seven.

`--rows` says how many; list, filters and search through the whole stack, then an export of all of them with its rate
and the most memory it held.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from feeds import audit
from feeds.models import Company, Connection, Operation, SourceAccount
from feeds.services import exports, history, roles
from feeds.services.history import Search
from feeds.states import ExportFormat
from tests.bench.registry import Figure, Options, bench, median_ms
from tests.factories import UserFactory
from tests.history import unguarded

YEARS = 7
CUSTOMERS = 2000
PEOPLE = 40
URL = "/admin/feeds/auditentry/"
KINDS = (Connection, Operation, SourceAccount, Company)


@bench("auditor")
def measure(options: Options) -> Iterator[Figure]:
    """Fill the history with `--rows` entries; time its list, filters and search, and an export of everything."""
    started = time.perf_counter()
    fill(options.rows)
    note = f"{options.rows:,} entries"
    yield Figure("filling the history", time.perf_counter() - started, "s", note)
    browser = Client(SERVER_NAME="localhost")
    browser.force_login(UserFactory(role=roles.COMPLIANCE_AUDITORS, username="bench-auditor"))
    for name, query in _searches():
        with CaptureQueriesContext(connection) as captured:
            rows = _get(browser, query)
        queries = len(captured)  # asked for now: the next request empties the log
        elapsed = median_ms(lambda query=query: _get(browser, query))
        yield Figure(name, elapsed, "ms", f"{note}, {queries} queries, {rows} shown")
    yield from _export(options.rows)


def _searches() -> Iterator[tuple[str, dict[str, Any]]]:
    middle = timezone.localdate() - timedelta(days=365 * YEARS // 2)
    month = {"start": middle.replace(day=1), "end": middle.replace(day=28)}
    yield "list", {}
    yield "by a person", {"person": "bench-7"}
    yield "by a service", {"person": "worker"}
    yield "by customer number", {"customer": "BENCH-77"}
    yield "by month", month
    yield "by a person in a month", month | {"person": "bench-7"}
    yield "by a service in a month", month | {"person": "worker"}
    yield "by a customer in a month", month | {"customer": "BENCH-77"}
    yield "by start of customer name", {"customer": "Bench Bakery 77"}
    yield "by a common field", {"field": "feeds.connection:status"}
    yield "by a rare field", {"field": "feeds.company:country"}
    yield "by event", {"action": "link_revealed"}
    yield "by one click", {"request": "bench-click-3"}
    yield "nothing found", {"person": "bench-7", "customer": "BENCH-77", "action": "delete"}
    found = history.page(Search(), size=1).entries[0]
    yield "deep page", {"before": found.pk // 2}


def _get(browser: Client, query: dict[str, Any]) -> int:
    answer = browser.get(URL, query)
    assert answer.status_code == 200
    assert b"errornote" not in answer.content
    return answer.content.count(b'<th scope="row">')


def _export(rows: int) -> Iterator[Figure]:
    """Everything as CSV, thrown away as it comes. The peak is the process's, so it includes what came before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    delivery = exports.export(Search(), ExportFormat.CSV, actor=audit.SYSTEM, reason="bench")
    started = time.perf_counter()
    sent = sum(map(len, delivery.content))
    elapsed = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    note = f"{rows:,} entries, {sent / 1e6:.0f} MB of ZIP in {elapsed:.0f} s"
    yield Figure("export", rows / elapsed, "rows/s", note)
    yield Figure("peak memory of the export", peak / 1024, "MB", f"{note}; {before / 1024:.0f} MB before it began")


# --- Filling ---------------------------------------------------------------------------------------------------------
def fill(rows: int) -> None:
    """Entries as if staff and workers had been at it for years, newest last. Only with the guards away: of the past."""
    people = [UserFactory(username=f"bench-{number}") for number in range(PEOPLE)]
    customers = Company.objects.bulk_create(
        Company(
            customer_number=f"BENCH-{number}",
            legal_name=f"Bench Bakery {number} Inc.",
            contact_name="Alex Doe",
            contact_email="alex@maple.example",
        )
        for number in range(CUSTOMERS)
    )
    values = {
        "rows": rows,
        "step": 365 * YEARS * 86400 / max(rows, 1),
        "person": people[0].pk,
        "people": PEOPLE,
        "customer": customers[0].pk,
        "customers": CUSTOMERS,
        **{f"kind{place}": ContentType.objects.get_for_model(model).pk for place, model in enumerate(KINDS)},
    }
    is_sqlite = connection.vendor == "sqlite"
    with unguarded(), connection.cursor() as cursor:
        cursor.execute(_FILL.format(at=_AT_SQLITE if is_sqlite else _AT, json="" if is_sqlite else "::jsonb"), values)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


_AT = "now() - interval '1 second' * (%(rows)s - n) * %(step)s"
_AT_SQLITE = "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', (-(%(rows)s - n) * %(step)s) || ' seconds')"

# Of ten entries seven are a worker's; a person's are spread over all years and customers.
_FILL = """
WITH RECURSIVE numbers(n) AS (SELECT CAST(0 AS bigint) UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < %(rows)s),
drawn AS (
    SELECT n, n %% 10 < 3 AS is_person, n %% 500 = 0 AS is_event, n %% 4 AS kind,
        %(customer)s + n * 7919 %% %(customers)s AS company_id, %(person)s + n / 10 %% %(people)s AS person_id
    FROM numbers
)
INSERT INTO feeds_auditentry (
    timestamp, content_type_id, object_pk, object_id, object_repr, action, event, changes, changes_text, fields,
    actor_id, actor_name, source, reason, cid, company_id
)
SELECT {at},
    CASE kind WHEN 0 THEN %(kind0)s WHEN 1 THEN %(kind1)s WHEN 2 THEN %(kind2)s ELSE %(kind3)s END,
    CAST(company_id AS text), company_id, 'Bench Bakery ' || company_id || ' Inc.',
    CASE WHEN is_event THEN 3 ELSE 1 END, CASE WHEN is_event THEN 'link_revealed' ELSE '' END,
    CASE
        WHEN is_event THEN NULL
        WHEN kind = 0 THEN '{{"status": ["PendingAuth", "Linked"], "last_sync_at": ["", "2026-01-01 10:00:00"]}}'{json}
        WHEN kind = 1 THEN '{{"state": ["sending", "succeeded"], "http_status": ["None", "201"]}}'{json}
        WHEN kind = 2 THEN '{{"status": ["pending", "connected"]}}'{json}
        WHEN n %% 100000 = 3 THEN '{{"country": ["US", "CA"]}}'{json}
        ELSE '{{"onboarding_state": ["working", "link_ready"]}}'{json}
    END,
    '',
    CASE
        WHEN is_event THEN '' WHEN kind = 0 THEN ',last_sync_at,status,' WHEN kind = 1 THEN ',http_status,state,'
        WHEN kind = 2 THEN ',status,' WHEN n %% 100000 = 3 THEN ',country,' ELSE ',onboarding_state,'
    END,
    CASE WHEN is_person THEN person_id END,
    CASE WHEN is_person THEN 'Robin Staff' ELSE 'worker' END,
    CASE WHEN is_person THEN 'admin' ELSE 'service: worker' END,
    CASE WHEN is_person THEN 'Asked for by the customer.' ELSE '' END,
    'bench-click-' || (n / 3), company_id
FROM drawn ORDER BY n
"""

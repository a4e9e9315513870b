"""What the screens cost with many rows: each page through the whole stack of the product, without a network."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from math import ceil

from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from feeds.admin.base import BackOfficeAdmin, CappedPaginator
from feeds.models import AuditEntry, Company, Connection, Operation, SourceAccount
from feeds.services import roles
from feeds.states import AccountStatus, ConnectionStatus, OnboardingState, OperationKind, OperationState
from tests.bench.registry import Figure, Options, bench, median_ms
from tests.factories import UserFactory

CHUNK = 5000
PREFIX = "SEED-"
ONE_IN = 50
"""One company in so many is stuck, and its account disconnected."""


@bench("pages")
def measure(options: Options) -> Iterator[Figure]:
    """Fill the database with `--rows` companies, each with connection, account, operation and history; time pages."""
    started = time.perf_counter()
    some = _fill(options.rows)
    note = f"{options.rows:,} rows"
    yield Figure("filling the database", time.perf_counter() - started, "s", note)
    browser = Client(SERVER_NAME="localhost")
    browser.force_login(UserFactory(role=roles.ADMINISTRATORS))
    for name, address in _addresses(some, options.rows):
        with CaptureQueriesContext(connection) as captured:
            _get(browser, address)
        queries = len(captured)  # asked for now: the next request empties the log
        elapsed = median_ms(lambda address=address: _get(browser, address))
        yield Figure(name, elapsed, "ms", f"{note}, {queries} queries")


def _get(browser: Client, address: str) -> None:
    answer = browser.get(address)
    assert answer.status_code == 200, f"{address}: {answer.status_code}"


def _addresses(company: Company, rows: int) -> Iterator[tuple[str, str]]:
    companies = reverse("admin:feeds_company_changelist")
    last_page = ceil(min(rows, CappedPaginator.limit) / BackOfficeAdmin.list_per_page)
    yield "home", reverse("admin:index")
    yield "companies", companies
    yield "companies, last page", f"{companies}?p={last_page}"
    yield "companies, needing attention", f"{companies}?onboarding_state__exact={OnboardingState.FAILED}"
    yield "companies, by customer number", f"{companies}?q={company.customer_number}"
    yield "companies, by start of name", f"{companies}?q=Seeded+Bakery+1"
    yield "companies, nothing found", f"{companies}?q=Zzz"
    yield "one company", reverse("admin:feeds_company_change", args=[company.pk])
    yield "connections", reverse("admin:feeds_connection_changelist")
    yield "source accounts", reverse("admin:feeds_sourceaccount_changelist")
    yield "operations", reverse("admin:feeds_operation_changelist")
    yield "change history", reverse("admin:feeds_auditentry_changelist")


def _fill(rows: int) -> Company:
    """Add the rows in bulk and return one company from the middle."""
    for start in range(0, rows, CHUNK):
        _fill_chunk(range(start, min(start + CHUNK, rows)))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return Company.objects.get(customer_number=f"{PREFIX}{rows // 2}")


def _fill_chunk(numbers: Sequence[int]) -> None:
    now = timezone.now()
    companies = Company.objects.bulk_create(
        Company(
            customer_number=f"{PREFIX}{number}",
            legal_name=f"Seeded Bakery {number} Inc.",
            contact_name="Alex Doe",
            contact_email=f"alex{number}@maple.example",
            codat_id=str(uuid.uuid4()),
            codat_name=f"Seeded Bakery {number} Inc.",
            onboarding_state=OnboardingState.LINKED if number % ONE_IN else OnboardingState.FAILED,
            onboarding_error="" if number % ONE_IN else "Codat refused the data.",
            read_at=now,
        )
        for number in numbers
    )
    connections = Connection.objects.bulk_create(
        Connection(company=company, codat_id=str(uuid.uuid4()), status=ConnectionStatus.LINKED, read_at=now)
        for company in companies
    )
    SourceAccount.objects.bulk_create(
        SourceAccount(
            company=made.company,
            connection=made,
            account_id=str(uuid.uuid4()),
            name="Operating",
            account_number=f"{4_000_000_000 + number}",
            status=AccountStatus.CONNECTED if number % ONE_IN else AccountStatus.DISCONNECTED,
            read_at=now,
        )
        for number, made in zip(numbers, connections, strict=True)
    )
    Operation.objects.bulk_create(
        Operation(
            company=company,
            kind=OperationKind.CREATE_COMPANY,
            state=OperationState.SUCCEEDED,
            requested_by_name="bench",
            finished_at=now,
        )
        for company in companies
    )
    kind = ContentType.objects.get_for_model(Company)
    AuditEntry.objects.bulk_create(
        AuditEntry(
            content_type=kind,
            object_pk=str(company.pk),
            object_id=company.pk,
            object_repr=str(company),
            action=AuditEntry.Action.CREATE,
            actor_name="bench",
            timestamp=now,
        )
        for company in companies
    )

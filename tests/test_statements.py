"""Rows written by prepared statements are the rows that Django would have written."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from django.db import connection
from django.forms import model_to_dict
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from feeds import statements
from feeds.models import AuditEntry, SourceAccount, StatusEvent
from feeds.states import SeenBy
from tests.factories import ConnectionFactory, SourceAccountFactory

pytestmark = pytest.mark.django_db


def event(new: str) -> StatusEvent:
    held = ConnectionFactory()
    return StatusEvent(
        company=held.company, connection=held, old="", new=new, seen_at=timezone.now(), seen_by=SeenBy.POLL
    )


def test_inserted_rows_are_those_that_django_inserts() -> None:
    ours, djangos = event("Linked"), event("Linked")
    djangos.connection, djangos.company, djangos.seen_at = ours.connection, ours.company, ours.seen_at
    statements.insert_rows([ours])
    djangos.save()

    inserted, saved = StatusEvent.objects.order_by("pk")
    without = {"id", "created_at"}
    assert {k: v for k, v in vars(inserted).items() if k not in without | {"_state"}} == {
        k: v for k, v in vars(saved).items() if k not in without | {"_state"}
    }


def test_an_entry_gets_what_the_database_fills_in() -> None:
    entry = AuditEntry(action=AuditEntry.Action.ACCESS, event="link_revealed", additional_data={"é": [1, None]})
    statements.insert_rows([entry])

    stored = AuditEntry.objects.get(event="link_revealed")
    assert stored.additional_data == {"é": [1, None]}
    assert stored.changes is None
    assert abs(stored.timestamp - timezone.now()) < dt.timedelta(minutes=1)


def test_rows_with_unlike_columns_are_all_inserted() -> None:
    rows = [
        AuditEntry(action=AuditEntry.Action.ACCESS, event="without an id"),
        AuditEntry(action=AuditEntry.Action.ACCESS, event="without an id", object_id=7),
    ]
    statements.insert_rows(rows)
    assert list(AuditEntry.objects.filter(event="without an id").order_by("object_id").values_list("object_id")) != []
    assert AuditEntry.objects.filter(event="without an id").count() == 2


def test_each_row_gets_its_own_values_of_every_kind() -> None:
    one, other = SourceAccountFactory(), SourceAccountFactory()
    opened, read = dt.date(2025, 2, 28), timezone.now()
    statements.update_rows(
        SourceAccount,
        [
            (one.pk, {"balance": Decimal("10.05"), "raw": {"a": ["é"]}, "account_open_date": opened, "read_at": read}),
            (other.pk, {"name": 'it\'s "quoted" 100%s', "connection": None}),
        ],
    )

    one.refresh_from_db()
    other.refresh_from_db()
    assert (one.balance, one.raw, one.account_open_date, one.read_at) == (
        Decimal("10.05"), {"a": ["é"]}, opened, read,
    )  # fmt: skip
    assert (other.name, other.connection_id) == ('it\'s "quoted" 100%s', None)


def test_rows_that_nobody_named_stay_as_they_are() -> None:
    named, other = SourceAccountFactory(), SourceAccountFactory()
    before = model_to_dict(other)
    statements.update_rows(SourceAccount, [(named.pk, {"name": "Renamed"})])
    other.refresh_from_db()
    assert model_to_dict(other) == before


def test_a_thousand_rows_alike_are_one_statement() -> None:
    rows = [event("Linked") for _ in range(3)]
    with CaptureQueriesContext(connection) as queries:
        statements.insert_rows(rows * 300)
        statements.update_rows(SourceAccount, [(pk, {"name": str(pk)}) for pk in range(1000)])
    assert len(queries) == 2


def test_nothing_to_write_asks_the_database_nothing() -> None:
    with CaptureQueriesContext(connection) as queries:
        statements.insert_rows([])
        statements.update_rows(SourceAccount, [])
    assert len(queries) == 0

"""What tests that commit leave behind is deleted after each of them.

Django's flush empties every table there is, then makes all content types and permissions anew. With some sixty tables
that is three seconds on PostgreSQL, where each truncated table is a new file, and a tenth of one on SQLite.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from django.db import connection, transaction
from django.test import TransactionTestCase

from tests.history import unguarded

KEPT = {"django_migrations", "django_content_type", "auth_permission"}
"""What the migrations wrote, and no test changes."""


def delete_instead_of_flushing() -> None:
    """Let `transactional_db`, and every fixture that stands on it, end with `delete_rows`."""
    TransactionTestCase._fixture_teardown = lambda self: delete_rows()  # type: ignore[method-assign]


def delete_rows() -> None:
    """Delete the rows of every table that has some, the change history's too.

    In one transaction: all foreign keys are checked at its end, so the order does not matter.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        tables = filled(cursor, _tables())
        if not tables:
            return
        with unguarded():
            for table in tables:
                cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")  # noqa: S608


def filled(cursor: Any, tables: Sequence[str]) -> list[str]:
    """Those of `tables` that have rows, by one query: most have none."""
    each = ", ".join(f"EXISTS (SELECT 1 FROM {connection.ops.quote_name(table)})" for table in tables)  # noqa: S608
    cursor.execute(f"SELECT {each}")  # noqa: S608
    return [table for table, has_rows in zip(tables, cursor.fetchone(), strict=True) if has_rows]


@cache
def _tables() -> list[str]:
    return sorted(set(connection.introspection.django_table_names(only_existing=True, include_views=False)) - KEPT)

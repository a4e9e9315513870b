"""What must be nowhere after any test: looked for in every table, in the log and in the mails, at the end of each.

A test rolls its rows back, so after the whole suite there is nothing left to look at: each is looked at while its rows
are there. Real workers write into the same tables. A test that plants a secret on purpose is marked `plants_secrets`.
"""

from __future__ import annotations

import base64
import re
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.core import mail
from django.db import connection
from django_q.models import OrmQ
from psycopg.pq import TransactionStatus

from backoffice.logs import hide_secrets
from tests.emptying import filled
from tests.factories import PASSWORD
from tests.sandbox_process import API_KEY, WEBHOOK_SECRET, SandboxProcess

HOLDS_ONE = {"feeds_sourceaccount": "account_number", "feeds_connection": "link_url"}
"""Table -> its one column that is there to hold a secret: the account number, and the link until it expires."""
MADE_BY_MIGRATIONS = {"auth_permission", "django_content_type", "django_migrations", "sqlite_sequence"}
SHAPES = {
    "otp": r"\botp=[\w.-]{4,}",
    "key of the API": r"\bbfk_[a-z2-7]{8}_[\w-]{43}",
    "key of a customer's page": r"/connect/[\w-]{43}",
}
ALWAYS = {
    "password": PASSWORD,
    "key for Codat": API_KEY,
    "encoded key for Codat": base64.b64encode(API_KEY.encode()).decode(),
    "webhook secret": WEBHOOK_SECRET.removeprefix("whsec_"),
    "secret key": settings.SECRET_KEY,
}
SHORTEST_NUMBER = 8
"""Of a shorter account number there are so many that it stands in any text."""


def found(item: pytest.Item) -> list[str]:
    """Which secret of a test that has just run stands where, as "password in auth_user"."""
    uses_database = bool(
        item.get_closest_marker("django_db") or {"db", "transactional_db"} & set(getattr(item, "fixturenames", ()))
    )
    values = {value: name for name, value in (*ALWAYS.items(), *_handed_out(item))}
    places = list(_told(item))
    if uses_database and _can_be_read():
        stored = list(tables())
        values |= {number: "account number" for number in _account_numbers()}
        places += stored
    return leaks(values, places)


def _can_be_read() -> bool:
    """Not after an error that undid the whole transaction: then nothing is left, and PostgreSQL answers nothing."""
    if connection.connection is None:
        return False
    return connection.vendor == "sqlite" or connection.connection.info.transaction_status != TransactionStatus.INERROR


def leaks(values: dict[str, str], places: list[tuple[str, str]]) -> list[str]:
    """`values`: a secret -> its name. `places`: name and text. Shapes are looked for as well."""
    exact = "|".join(re.escape(value) for value in sorted(values, key=len, reverse=True))
    shapes = "|".join(f"(?P<s{number}>{shape})" for number, shape in enumerate(SHAPES.values()))
    pattern = re.compile(f"{shapes}|(?P<exact>{exact})")
    names = list(SHAPES)
    met = set()
    for place, text in places:
        for match in pattern.finditer(text):
            kind = match.lastgroup or ""
            name = values[match[0]] if kind == "exact" else names[int(kind[1:])]
            # A mail to the customer is what carries the key to its page.
            if not (place == "mail" and name == "key of a customer's page"):
                met.add(f"{name} in {place}")
    return sorted(met)


def _told(item: pytest.Item) -> Iterator[tuple[str, str]]:
    """What was logged, as the last net of the log lets it through, and what was mailed."""
    for _when, kind, text in item._report_sections:
        if kind == "log":
            yield "log", hide_secrets(text)
    for message in getattr(mail, "outbox", ()):
        yield "mail", f"{message.subject}\n{message.body}\n{getattr(message, 'alternatives', '')}"


def _handed_out(item: pytest.Item) -> Iterator[tuple[str, str]]:
    """Passwords of the credentials that the stand-in of this test made."""
    for server in getattr(item, "funcargs", {}).values():
        if isinstance(server, SandboxProcess) and server.data.exists():
            with suppress(sqlite3.Error), sqlite3.connect(f"file:{server.data}?mode=ro", uri=True) as database:
                for (password,) in database.execute("SELECT password FROM credentials"):
                    yield "password of credentials", password


# --- Tables ----------------------------------------------------------------------------------------------------------
_names: list[str] = []


def tables() -> Iterator[tuple[str, str]]:
    """Each table with its rows as text, below Django: whatever state a test leaves its transaction in."""
    for table in _filled_tables():
        hidden = HOLDS_ONE.get(table)
        rows, columns = _rows(f'SELECT * FROM "{table}"')  # noqa: S608 - names of our own tables
        place = columns.index(hidden) if hidden else -1
        yield table, "\n".join(str(row if place < 0 else (*row[:place], *row[place + 1 :])) for row in rows)
        if table == "django_session":
            yield table, " ".join(str(SessionStore().decode(row[columns.index("session_data")])) for row in rows)
        if table == "django_q_ormq":
            payloads = (row[columns.index("payload")] for row in rows)
            yield table, " ".join(str(OrmQ(payload=payload).task) for payload in payloads)


def _filled_tables() -> list[str]:
    cursor = connection.connection.cursor()
    try:
        return filled(cursor, _table_names())
    finally:
        cursor.close()


def _table_names() -> list[str]:
    if not _names:
        with connection.cursor() as cursor:
            _names.extend(sorted(set(connection.introspection.table_names(cursor)) - MADE_BY_MIGRATIONS))
    return _names


def _account_numbers() -> set[str]:
    rows, _columns = _rows("SELECT DISTINCT account_number FROM feeds_sourceaccount")
    return {number for (number,) in rows if len(number) >= SHORTEST_NUMBER}


def _rows(statement: str) -> tuple[list[tuple[Any, ...]], list[str]]:
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement)
        return cursor.fetchall(), [column[0] for column in cursor.description]
    finally:
        cursor.close()

"""Fills the store in bulk, for benches and demonstrations of size; no events are recorded."""

import sqlite3
import uuid
from collections.abc import Iterator

from feeds.sandbox import accounts, connections, lifecycle
from feeds.sandbox.clock import iso
from feeds.sandbox.store import Record, dump

CHUNK = 5000


def fill(db: sqlite3.Connection, companies: int, accounts_each: int, linked: bool, now: float) -> int:
    """Add companies, each with one connection and some source accounts.

    Args:
        db: Open transaction.
        companies: How many companies; their tags are ``uid=seed-0000001`` and so on, after those already there.
        accounts_each: How many source accounts each has.
        linked: Whether the customers have connected.
        now: The stand-in's time.

    Returns:
        How many companies there are now.
    """
    first = db.execute("SELECT coalesce(max(position), 0) + 1 FROM companies").fetchone()[0]
    for start in range(first, first + companies, CHUNK):
        _fill_chunk(db, range(start, min(start + CHUNK, first + companies)), accounts_each, linked, now)
    return int(first + companies - 1)


def _fill_chunk(db: sqlite3.Connection, positions: range, accounts_each: int, linked: bool, now: float) -> None:
    made = [(position, str(uuid.uuid4()), str(uuid.uuid4())) for position in positions]
    db.executemany(
        "INSERT INTO companies VALUES (?, ?, ?, ?)",
        ((position, company, _name(position), dump(_company(position, company, now))) for position, company, _ in made),
    )
    db.executemany(
        "INSERT INTO tags VALUES (?, 'uid', ?)", ((company, _uid(position)) for position, company, _ in made)
    )
    status = connections.LINKED if linked else connections.PENDING
    db.executemany(
        "INSERT INTO connections (id, company_id, status, ever_linked, body) VALUES (?, ?, ?, ?, ?)",
        (
            (connection, company, status, linked, dump(_connection(connection, status, now)))
            for _, company, connection in made
        ),
    )
    rows = [(account["id"], account["status"], dump(account)) for account in _accounts(accounts_each, linked, now)]
    db.executemany(
        "INSERT INTO source_accounts (connection_id, id, status, body) VALUES (?, ?, ?, ?)",
        ((connection, *row) for _, _, connection in made for row in rows),
    )


def _company(position: int, company_id: str, now: float) -> Record:
    return {
        "id": company_id,
        "name": _name(position),
        "created": iso(now),
        "createdByUserName": None,
        "products": [],
        "tags": {"uid": _uid(position)},
    }


def _connection(connection_id: str, status: str, now: float) -> Record:
    connection = connections.new(connection_id, now)
    return {**connection, "status": status, "lastSync": iso(now)} if status == connections.LINKED else connection


def _accounts(count: int, linked: bool, now: float) -> Iterator[Record]:
    for number in range(1, count + 1):
        account: Record = {
            "id": f"acc-{number:03d}",
            "accountName": f"Seeded account {number}",
            "accountType": "checking",
            "accountNumber": f"{number:010d}",
            "currency": "USD",
            "balance": 100.0 * number,
            "modifiedDate": iso(now),
            "status": accounts.CONNECTED if linked else accounts.PENDING,
        }
        if linked:
            account["feedStartDate"] = lifecycle.feed_start_text(lifecycle.default_feed_start(now))
        yield account


def _name(position: int) -> str:
    return f"Seeded Company {position:07d}"


def _uid(position: int) -> str:
    return f"seed-{position:07d}"

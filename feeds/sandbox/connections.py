"""Connections of a company to QuickBooks Online Bank Feeds."""

import json
import re
import sqlite3
import uuid
from typing import Any

from feeds.sandbox import companies, events
from feeds.sandbox.clock import iso
from feeds.sandbox.links import LinkMint
from feeds.sandbox.replies import Page, Refusal, Reply
from feeds.sandbox.store import Record, dump

PENDING, LINKED, UNLINKED = "PendingAuth", "Linked", "Unlinked"
QUICKBOOKS = {
    "integrationId": "d5ad2dbc-35a6-4c0e-8bb9-0f1f4a1e6b21",
    "integrationKey": "hcws",
    "sourceId": "7bd0b1f2-6a0c-4a52-9d6b-93fd1b4f1d3e",
    "sourceType": "BankFeed",
    "platformName": "QuickBooks Online Bank Feeds",
}


def create(db: sqlite3.Connection, company_id: str, platform_key: Any, now: float) -> str:
    """Store a new connection, waiting for the customer, and return its id.

    Raises:
        Refusal: 404 no such company, 400 not the key of an integration the stand-in plays.
    """
    companies.get(db, company_id)
    if not isinstance(platform_key, str) or not re.fullmatch("[a-z]{4}", platform_key):
        raise Refusal(400, "'Platform Key' must be four lower-case letters.", "platformKey")
    if platform_key != QUICKBOOKS["integrationKey"]:
        raise Refusal(400, f"No integration has the key '{platform_key}'.", "platformKey")
    connection_id = str(uuid.uuid4())
    db.execute(
        "INSERT INTO connections (id, company_id, status, body) VALUES (?, ?, ?, ?)",
        (connection_id, company_id, PENDING, dump(new(connection_id, now))),
    )
    return connection_id


def new(connection_id: str, now: float) -> Record:
    """Return a connection as it starts."""
    return {"id": connection_id, **QUICKBOOKS, "status": PENDING, "created": iso(now), "dataConnectionErrors": []}


def get(db: sqlite3.Connection, company_id: str, connection_id: str) -> Record:
    """Return a connection as stored, without its link.

    Raises:
        Refusal: 404, no such connection of that company.
    """
    row = db.execute(
        "SELECT body FROM connections WHERE id = ? AND company_id = ?", (connection_id, company_id)
    ).fetchone()
    if row is None:
        raise Refusal(404, f"Connection with id '{connection_id}' not found.")
    connection: Record = json.loads(row["body"])
    return connection


def show(db: sqlite3.Connection, company_id: str, connection_id: str, mint: LinkMint) -> Record:
    """Return a connection with a fresh link.

    Raises:
        Refusal: 404, no such connection of that company.
    """
    return {**get(db, company_id, connection_id), "linkUrl": mint.url(company_id, connection_id)}


def listing(db: sqlite3.Connection, company_id: str, page: Page, mint: LinkMint) -> Reply:
    """Answer one page of a company's connections, each with a fresh link.

    Raises:
        Refusal: 404, no such company.
    """
    companies.get(db, company_id)
    rows = db.execute("SELECT id, body FROM connections WHERE company_id = ? ORDER BY seq", (company_id,)).fetchall()
    chosen = rows[page.first - 1 : page.last]
    shown = (f'{body[:-1]},"linkUrl":"{mint.url(company_id, connection_id)}"}}' for connection_id, body in chosen)
    return page.reply(shown, len(rows))


def save(db: sqlite3.Connection, connection: Record) -> None:
    """Store a changed connection."""
    db.execute(
        "UPDATE connections SET status = ?, body = ? WHERE id = ?",
        (connection["status"], dump(connection), connection["id"]),
    )


def delete(db: sqlite3.Connection, company_id: str, connection_id: str, mint: LinkMint, now: float) -> None:
    """Delete a connection with its source accounts and credentials.

    Raises:
        Refusal: 404, no such connection of that company.
    """
    announce(db, "connection.deleted", company_id, connection_id, mint, now)
    for table in ("source_accounts", "credentials"):
        db.execute(f"DELETE FROM {table} WHERE connection_id = ?", (connection_id,))  # noqa: S608 - constants
    db.execute("DELETE FROM connections WHERE id = ?", (connection_id,))


def announce(
    db: sqlite3.Connection, event_type: str, company_id: str, connection_id: str, mint: LinkMint, now: float
) -> None:
    """Record an event about a connection; as with Codat its payload carries a link."""
    connection = get(db, company_id, connection_id)
    connection["linkUrl"] = mint.aside(company_id, connection_id)
    company = companies.get(db, company_id)
    events.emit(db, event_type, {"referenceCompany": events.reference(company), "connection": connection}, now)

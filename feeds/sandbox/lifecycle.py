"""What happens to feeds over time: the customer connects, QuickBooks falls silent, Codat notices later."""

import secrets
import sqlite3
from collections.abc import Sequence
from datetime import date, timedelta

from feeds.sandbox import accounts, connections
from feeds.sandbox.clock import DAY, day_of, iso
from feeds.sandbox.links import LinkMint
from feeds.sandbox.replies import Refusal
from feeds.sandbox.store import Record

SILENCE = 10 * DAY
UNLINK_DELAY = DAY
DEFAULT_HISTORY, LONGEST_HISTORY = timedelta(days=7), timedelta(days=90)


def default_feed_start(now: float) -> date:
    """Return the day a feed starts unless the customer says otherwise: a week back."""
    return day_of(now) - DEFAULT_HISTORY


def feed_start_is_good(start: date, now: float) -> bool:
    """Tell whether QuickBooks takes this start: not in the future, at most 90 days back."""
    return day_of(now) - LONGEST_HISTORY <= start <= day_of(now)


def feed_start_text(start: date) -> str:
    """Write a feed start date as Codat does."""
    return f"{start.isoformat()}T00:00:00"


def connect(
    db: sqlite3.Connection,
    company_id: str,
    connection_id: str,
    account_ids: Sequence[str] | None,
    feed_start: date,
    mint: LinkMint,
    now: float,
) -> list[Record]:
    """Do what Codat does when the customer finishes in QuickBooks; ``account_ids`` None means every account.

    Raises:
        Refusal: 404 no such connection or account, 400 no account chosen.
    """
    connection = connections.get(db, company_id, connection_id)
    chosen = _chosen(db, connection_id, account_ids)
    if not chosen:
        raise Refusal(400, "No source account to connect.", "accountIds")
    for account in chosen:
        account |= {"status": accounts.CONNECTED, "feedStartDate": feed_start_text(feed_start)}
        _store(db, connection_id, account)
        accounts.announce(db, "bankFeeds.sourceAccount.connected", company_id, connection_id, account, now)
    _link(db, company_id, connection, mint, now)
    return chosen


def fall_silent(db: sqlite3.Connection, connection_id: str, account_ids: Sequence[str] | None, since: float) -> None:
    """QuickBooks stops asking for these accounts; nobody notices for ten days.

    Raises:
        Refusal: 404, no such account.
    """
    for account in _chosen(db, connection_id, account_ids):
        if account["status"] == accounts.CONNECTED:
            _store(db, connection_id, account, silent_due=since + SILENCE)


def disconnect(
    db: sqlite3.Connection, company_id: str, connection_id: str, account_ids: Sequence[str] | None, now: float
) -> None:
    """Turn accounts ``disconnected`` at a moment.

    Raises:
        Refusal: 404, no such connection or account.
    """
    connections.get(db, company_id, connection_id)
    for account in _chosen(db, connection_id, account_ids):
        if account["status"] != accounts.DISCONNECTED:
            account["status"] = accounts.DISCONNECTED
            _store(db, connection_id, account, disconnected_at=now)
            accounts.announce(db, "bankFeeds.sourceAccount.disconnected", company_id, connection_id, account, now)
    watch(db, connection_id)


def unlink(db: sqlite3.Connection, company_id: str, connection_id: str, mint: LinkMint, now: float) -> None:
    """Unlink a connection by request; its feeds then fall silent.

    Raises:
        Refusal: 404 no such connection, 400 it is not linked.
    """
    connection = connections.get(db, company_id, connection_id)
    if connection["status"] != connections.LINKED:
        raise Refusal(400, "Only a linked connection can be unlinked.", "status")
    _set_unlinked(db, company_id, connection, mint, now)
    fall_silent(db, connection_id, None, now)


def issue_credentials(db: sqlite3.Connection, connection_id: str) -> Record:
    """Add one set of credentials for QuickBooks and return it; older sets stay good."""
    username, password = f"bankfeeds-{secrets.token_hex(6)}", secrets.token_urlsafe(15)
    db.execute("INSERT INTO credentials VALUES (?, ?, ?)", (username, password, connection_id))
    return {"username": username, "password": password}


def credentials_are_good(db: sqlite3.Connection, connection_id: str, username: str, password: str) -> bool:
    """Tell whether QuickBooks would let someone in."""
    row = db.execute(
        "SELECT password FROM credentials WHERE username = ? AND connection_id = ?", (username, connection_id)
    ).fetchone()
    return row is not None and secrets.compare_digest(row["password"].encode(), password.encode())


def revoke_credentials(db: sqlite3.Connection, connection_id: str, now: float) -> None:
    """Revoke every set of a connection; the feeds that use them fall silent."""
    db.execute("DELETE FROM credentials WHERE connection_id = ?", (connection_id,))
    fall_silent(db, connection_id, None, now)


def watch(db: sqlite3.Connection, connection_id: str) -> None:
    """Plan the unlinking a day after the last account disconnected, or call it off; call after any account changed."""
    row = db.execute(
        "SELECT count(*) AS total, count(disconnected_at) AS gone, max(disconnected_at) AS last "
        "FROM source_accounts WHERE connection_id = ?",
        (connection_id,),
    ).fetchone()
    due = row["last"] + UNLINK_DELAY if row["total"] and row["gone"] == row["total"] else None
    db.execute(
        "UPDATE connections SET unlink_due = CASE status WHEN ? THEN ? END WHERE id = ?",
        (connections.LINKED, due, connection_id),
    )


def apply_due(db: sqlite3.Connection, mint: LinkMint, now: float) -> None:
    """Let everything happen that is due by ``now``, each at its own moment; two index look-ups when nothing is."""
    silent = db.execute(
        "SELECT a.id, a.connection_id, a.silent_due, n.company_id FROM source_accounts a "
        "JOIN connections n ON n.id = a.connection_id WHERE a.silent_due <= ? ORDER BY a.silent_due",
        (now,),
    ).fetchall()
    for row in silent:
        disconnect(db, row["company_id"], row["connection_id"], [row["id"]], row["silent_due"])
    due = db.execute(
        "SELECT id, company_id, unlink_due FROM connections WHERE unlink_due <= ? ORDER BY unlink_due", (now,)
    ).fetchall()
    for row in due:
        connection = connections.get(db, row["company_id"], row["id"])
        _set_unlinked(db, row["company_id"], connection, mint, row["unlink_due"])


def _chosen(db: sqlite3.Connection, connection_id: str, account_ids: Sequence[str] | None) -> list[Record]:
    if account_ids is None:
        return accounts.listing(db, connection_id)
    return [accounts.get(db, connection_id, account_id) for account_id in account_ids]


def _store(
    db: sqlite3.Connection,
    connection_id: str,
    account: Record,
    silent_due: float | None = None,
    disconnected_at: float | None = None,
) -> None:
    accounts.save(db, connection_id, account)
    db.execute(
        "UPDATE source_accounts SET silent_due = ?, disconnected_at = ? WHERE connection_id = ? AND id = ?",
        (silent_due, disconnected_at, connection_id, account["id"]),
    )


def _link(db: sqlite3.Connection, company_id: str, connection: Record, mint: LinkMint, now: float) -> None:
    connection_id = connection["id"]
    known = db.execute("SELECT ever_linked FROM connections WHERE id = ?", (connection_id,)).fetchone()["ever_linked"]
    was_linked = connection["status"] == connections.LINKED
    connections.save(db, {**connection, "status": connections.LINKED, "lastSync": iso(now)})
    db.execute("UPDATE connections SET ever_linked = 1 WHERE id = ?", (connection_id,))
    watch(db, connection_id)
    if not was_linked:
        event_type = "connection.reconnected" if known else "connection.connected"
        connections.announce(db, event_type, company_id, connection_id, mint, now)


def _set_unlinked(db: sqlite3.Connection, company_id: str, connection: Record, mint: LinkMint, now: float) -> None:
    connections.save(db, {**connection, "status": connections.UNLINKED})
    db.execute("UPDATE connections SET unlink_due = NULL WHERE id = ?", (connection["id"],))
    connections.announce(db, "connection.disconnected", company_id, connection["id"], mint, now)

"""The stand-in's own SQLite file: schema, transactions and a few small values.

One connection behind one lock: requests are short, so taking turns costs little, and every rule about uniqueness and
order holds without further thought.
"""

import json
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""A JSON object as Codat shows it."""

# `position` is dense (1..n): a page is a range of it and the total is its maximum, so no listing counts or skips rows.
# `body` is the JSON object already serialised, without what differs from reply to reply (addresses and passwords).
# Every request asks the quota for the number of linked companies: it is counted once, and the triggers forget it.
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS companies (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tags (
    company_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (company_id, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_by_value ON tags (key, value, company_id);
CREATE TABLE IF NOT EXISTS connections (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, company_id TEXT NOT NULL, status TEXT NOT NULL,
    ever_linked INTEGER NOT NULL DEFAULT 0, otp_issue INTEGER NOT NULL DEFAULT 0, unlink_due REAL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS connections_by_company ON connections (company_id, seq);
CREATE INDEX IF NOT EXISTS connections_linked ON connections (company_id) WHERE status = 'Linked';
CREATE TRIGGER IF NOT EXISTS linked_by_insert AFTER INSERT ON connections WHEN new.status = 'Linked'
    BEGIN DELETE FROM meta WHERE key = 'linked_companies'; END;
CREATE TRIGGER IF NOT EXISTS linked_by_update AFTER UPDATE OF status ON connections WHEN new.status <> old.status
    BEGIN DELETE FROM meta WHERE key = 'linked_companies'; END;
CREATE TRIGGER IF NOT EXISTS linked_by_delete AFTER DELETE ON connections WHEN old.status = 'Linked'
    BEGIN DELETE FROM meta WHERE key = 'linked_companies'; END;
CREATE INDEX IF NOT EXISTS connections_due ON connections (unlink_due) WHERE unlink_due IS NOT NULL;
CREATE TABLE IF NOT EXISTS source_accounts (
    seq INTEGER PRIMARY KEY, connection_id TEXT NOT NULL, id TEXT NOT NULL, status TEXT NOT NULL,
    silent_due REAL, disconnected_at REAL, body TEXT NOT NULL, UNIQUE (connection_id, id));
CREATE INDEX IF NOT EXISTS source_accounts_due ON source_accounts (silent_due) WHERE silent_due IS NOT NULL;
CREATE TABLE IF NOT EXISTS credentials (
    username TEXT PRIMARY KEY, password TEXT NOT NULL, connection_id TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS credentials_by_connection ON credentials (connection_id);
CREATE TABLE IF NOT EXISTS idempotency (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, body BLOB NOT NULL, headers TEXT NOT NULL,
    stored_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, type TEXT NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL,
    due REAL, copies INTEGER NOT NULL,
    attempts TEXT NOT NULL DEFAULT '[]');
CREATE INDEX IF NOT EXISTS events_due ON events (state, due);
CREATE TABLE IF NOT EXISTS requests (key TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quota (day TEXT PRIMARY KEY, used INTEGER NOT NULL, reached INTEGER NOT NULL DEFAULT 0)
    WITHOUT ROWID;
"""
TABLES = (
    "meta",
    "companies",
    "tags",
    "connections",
    "source_accounts",
    "credentials",
    "idempotency",
    "events",
    "requests",
    "quota",
)
OBJECTS = ("companies", "connections", "source_accounts", "credentials")


class Store:
    """Opens (creating when absent) the file at ``path``; ``:memory:`` keeps nothing."""

    def __init__(self, path: Path | str) -> None:
        if path != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        # A commit then survives the death of this program, though not of the machine; a stand-in needs no more.
        self._db.execute("PRAGMA synchronous = OFF")
        # In KiB. The default of 2 MB makes random keys of 100,000 companies spill to disk.
        self._db.execute("PRAGMA cache_size = -65536")
        self._db.executescript(SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the database alone; commit at the end, roll back on an exception. Not re-entrant."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file once the current transaction is over."""
        with self._lock:
            self._db.close()


def wipe(db: sqlite3.Connection) -> None:
    """Forget everything, the signing key of links included."""
    for table in TABLES:
        db.execute(f"DELETE FROM {table}")  # noqa: S608 - the names are the constants above


def read_meta(db: sqlite3.Connection, key: str, default: Any = None) -> Any:
    """Return the JSON value kept under ``key``, or ``default``."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return default if row is None else json.loads(row["value"])


def write_meta(db: sqlite3.Connection, key: str, value: Any) -> None:
    """Keep a JSON value under ``key``."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))


def next_number(db: sqlite3.Connection, key: str) -> int:
    """Return 1, 2, 3, ... for ``key``; a number is never given twice, restarts included."""
    row = db.execute(
        "INSERT INTO meta VALUES (?, '1') ON CONFLICT (key) DO UPDATE SET value = value + 1 RETURNING value", (key,)
    ).fetchone()
    return int(row["value"])


def signing_key(db: sqlite3.Connection) -> bytes:
    """Return this store's own random key, made on first use."""
    key = read_meta(db, "signing_key")
    if key is None:
        key = secrets.token_hex(32)
        write_meta(db, "signing_key", key)
    return bytes.fromhex(key)


def dump(value: Any) -> str:
    """Serialise to compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

"""Codat's ``Idempotency-Key``: one key, one request, one reply, for 90 minutes."""

import hashlib
import json
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from feeds.sandbox.clock import HOUR
from feeds.sandbox.replies import Refusal, Reply

LIFE = 1.5 * HOUR
METHODS = ("POST", "PATCH")


class Keys:
    """Knows which keys are being worked on; finished ones are in the store, committed together with the work."""

    def __init__(self) -> None:
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, key: str | None) -> Iterator[None]:
        """Mark a key as in progress.

        Raises:
            Refusal: 409, it already is.
        """
        if key is None:
            yield
            return
        with self._lock:
            if key in self._busy:
                raise Refusal(409, "A request with this idempotency key is in progress.")
            self._busy.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(key)


def key_of(method: str, header: str | None) -> str | None:
    """Return the normalised key of a request, or None when the method takes none or none was sent.

    Raises:
        Refusal: 400, the key is not a GUID.
    """
    if header is None or method not in METHODS:
        return None
    try:
        return str(uuid.UUID(header))
    except ValueError as error:
        raise Refusal(400, "The idempotency key must be a GUID.", "Idempotency-Key") from error


def fingerprint(method: str, path: str, body: bytes) -> str:
    """Return what makes two requests the same."""
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), body))).hexdigest()


def recall(db: sqlite3.Connection, key: str, print_: str, now: float) -> Reply | None:
    """Return the reply kept for a key, or None.

    Raises:
        Refusal: 422, the key was used for another request.
    """
    db.execute("DELETE FROM idempotency WHERE key = ? AND stored_at < ?", (key, now - LIFE))
    row = db.execute("SELECT * FROM idempotency WHERE key = ?", (key,)).fetchone()
    if row is None:
        return None
    if row["fingerprint"] != print_:
        raise Refusal(422, "This idempotency key was used with another request body.")
    return Reply(row["status"], row["body"], json.loads(row["headers"]))


def remember(db: sqlite3.Connection, key: str, print_: str, reply: Reply, now: float) -> None:
    """Keep a reply, server errors included; only a 429 may be tried again under the same key."""
    if reply.status != 429:
        db.execute(
            "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?, ?)",
            (key, print_, reply.status, reply.body, json.dumps(reply.headers), now),
        )

"""What happened, in the envelope of Codat's webhooks; :mod:`feeds.sandbox.webhooks` delivers it."""

import random
import sqlite3
import uuid

from feeds.sandbox.clock import iso
from feeds.sandbox.store import Record, dump, read_meta

DUE, HELD, UNSENT, DELIVERED, FAILED = "due", "held", "unsent", "delivered", "failed"


def emit(db: sqlite3.Connection, event_type: str, payload: Record, now: float) -> None:
    """Record an event in the caller's transaction.

    It is sent at once, or held for a flush when disorder is asked for, or only kept when no target is set.
    """
    target = read_meta(db, "webhook_target")
    state = UNSENT if target is None else HELD if target["shuffle"] else DUE
    event_id = str(uuid.uuid4())
    body = {"id": event_id, "eventType": event_type, "generatedDate": iso(now), "payload": payload}
    copies = 2 if target is not None and random.random() < target["duplicates"] else 1  # noqa: S311 - no secret
    db.execute(
        "INSERT INTO events (id, type, body, state, due, copies) VALUES (?, ?, ?, ?, ?, ?)",
        (event_id, event_type, dump(body), state, now, copies),
    )


def reference(company: Record) -> Record:
    """Return the ``referenceCompany`` of a payload."""
    return {"id": company["id"], "name": company["name"], "links": {}}

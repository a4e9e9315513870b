"""Delivers events, signed per Standard Webhooks: at least once, retried on Codat's schedule, never in a request."""

import json
import logging
import random
import sqlite3
import threading
from datetime import UTC, datetime

import requests
from standardwebhooks import Webhook

from feeds.sandbox import events
from feeds.sandbox.clock import Clock, iso
from feeds.sandbox.store import Record, Store, read_meta, write_meta

TIMEOUT = 15.0
RETRIES = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0)
TICK = 0.5
log = logging.getLogger(__name__)


class Sender:
    """A background thread that sends what is due by the stand-in's clock.

    Args:
        store: Where the events are.
        clock: Tells what is due.
        default_secret: ``whsec_...`` key for targets that name none.
    """

    def __init__(self, store: Store, clock: Clock, default_secret: str) -> None:
        self._store = store
        self._clock = clock
        self._default_secret = default_secret
        self._wake = threading.Event()
        # One delivery at a time: a flush and the thread must not send the same event twice.
        self._sending = threading.Lock()

    def start(self) -> None:
        """Start the thread; it dies with the program."""
        threading.Thread(target=self._run, name="webhooks", daemon=True).start()

    def wake(self) -> None:
        """Say that there may be something to send."""
        self._wake.set()

    def flush(self) -> int:
        """Send everything held or waiting for a retry, in random order when disorder is asked for.

        Returns:
            How many events were sent.
        """
        with self._sending:
            with self._store.transaction() as db:
                target = read_meta(db, "webhook_target")
                rows = _undelivered(db, (events.DUE, events.HELD), None)
            if target is None:
                return 0
            if target["shuffle"]:
                random.shuffle(rows)
            for row in rows:
                self._deliver(row, target)
            return len(rows)

    def _run(self) -> None:
        while True:
            self._wake.wait(TICK)
            self._wake.clear()
            try:
                self._send_due()
            except Exception:
                log.exception("webhook delivery failed")

    def _send_due(self) -> None:
        with self._sending:
            with self._store.transaction() as db:
                target = read_meta(db, "webhook_target")
                rows = _undelivered(db, (events.DUE,), self._clock.now()) if target else []
            for row in rows:
                self._deliver(row, target)

    def _deliver(self, row: sqlite3.Row, target: Record) -> None:
        attempts = json.loads(row["attempts"])
        secret = target["secret"] or self._default_secret
        outcomes = [_post(row["id"], row["body"], target["url"], secret) for _ in range(row["copies"])]
        now = self._clock.now()
        attempts += [{"at": iso(now), **outcome} for outcome in outcomes]
        delivered = any(200 <= (outcome["status"] or 0) < 300 for outcome in outcomes)
        failures = len(attempts) // row["copies"]
        retry = None if delivered or failures > len(RETRIES) else now + RETRIES[failures - 1]
        state = events.DELIVERED if delivered else events.FAILED if retry is None else events.DUE
        with self._store.transaction() as db:
            db.execute(
                "UPDATE events SET state = ?, due = ?, attempts = ? WHERE id = ?",
                (state, retry, json.dumps(attempts), row["id"]),
            )


def write_target(
    db: sqlite3.Connection,
    url: str | None,
    *,
    secret: str | None = None,
    duplicates: float = 0.0,
    shuffle: bool = False,
) -> None:
    """Set where events go from now on.

    Args:
        db: Open transaction.
        url: Address of the receiver; None or empty for nowhere.
        secret: ``whsec_...`` key of this target; None for the default.
        duplicates: Share of the events that are sent twice.
        shuffle: Hold events for a flush that sends them in random order.
    """
    target = {"url": url, "secret": secret, "duplicates": duplicates, "shuffle": shuffle}
    write_meta(db, "webhook_target", target if url else None)


def listing(db: sqlite3.Connection) -> list[Record]:
    """Return all events, oldest first, with what became of their delivery."""
    return [
        {**json.loads(row["body"]), "state": row["state"], "attempts": json.loads(row["attempts"])}
        for row in db.execute("SELECT body, state, attempts FROM events ORDER BY seq")
    ]


def _undelivered(db: sqlite3.Connection, states: tuple[str, ...], due: float | None) -> list[sqlite3.Row]:
    marks = ", ".join("?" * len(states))
    return db.execute(
        f"SELECT * FROM events WHERE state IN ({marks}) AND (? IS NULL OR due <= ?) ORDER BY seq",  # noqa: S608
        (*states, due, due),
    ).fetchall()


def _post(event_id: str, body: str, url: str, secret: str) -> Record:
    # Receivers refuse old signatures by their own clock, so the stamp is real time, not the stand-in's.
    stamp = datetime.now(UTC)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(stamp.timestamp())),
        "webhook-signature": Webhook(secret).sign(event_id, stamp, body),
    }
    try:
        answer = requests.post(url, data=body.encode(), headers=headers, timeout=TIMEOUT)
    except requests.RequestException as error:
        return {"status": None, "error": type(error).__name__}
    return {"status": answer.status_code, "error": None}

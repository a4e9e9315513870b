"""The parts of one running stand-in, and the transaction every request works in."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from feeds.sandbox import callout, lifecycle, store
from feeds.sandbox.clock import Clock
from feeds.sandbox.faults import Faults
from feeds.sandbox.idempotency import Keys
from feeds.sandbox.links import LinkMint
from feeds.sandbox.options import Options
from feeds.sandbox.quota import CompanyLimit, MinuteLimit, Pressure
from feeds.sandbox.webhooks import Sender, write_target


@dataclass(frozen=True)
class Work:
    """What a request works with: the open transaction, the stand-in's time and the mint of links."""

    db: sqlite3.Connection
    now: float
    mint: LinkMint


class Sandbox:
    """One stand-in: its options, its store and what lives in memory."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.store = store.Store(options.data)
        self.clock = Clock(self.store)
        self.faults = Faults()
        self.keys = Keys()
        self.minute = MinuteLimit(options.per_minute)
        self.companies = CompanyLimit(options.per_company)
        self.pressure = Pressure()
        self.sender = Sender(self.store, self.clock, options.webhook_secret)
        self._aim_webhooks()
        self._fill_portal()

    @contextmanager
    def work(self, host: str) -> Iterator[Work]:
        """Open a transaction in which everything due by now has already happened.

        Args:
            host: Host header of the request, for links when no public address is set.
        """
        with self.store.transaction() as db:
            now = self.clock.now()
            mint = LinkMint(db, now, self.options.public_url or f"http://{host}", self.options.strict_otp)
            work = Work(db, now, mint)
            lifecycle.apply_due(db, mint, now)
            yield work
            mint.supersede()
        self.sender.wake()

    def reset(self) -> None:
        """Forget everything: objects, counters, faults, clock, and any callout and webhook target but the options'."""
        with self.store.transaction() as db:
            store.wipe(db)
        self._aim_webhooks()
        self._fill_portal()
        self.clock.move_to(0.0)
        self.faults.clear()
        self.minute.reset()
        self.pressure.forget()

    def _aim_webhooks(self) -> None:
        if self.options.webhook_url is not None:
            with self.store.transaction() as db:
                write_target(db, self.options.webhook_url)

    def _fill_portal(self) -> None:
        if self.options.callout is not None:
            with self.store.transaction() as db:
                callout.begin_with(db, self.options.callout)

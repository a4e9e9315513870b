"""Control endpoints under ``/_sandbox/``: JSON in and out, no key, never counted."""

import time
from collections.abc import Callable
from datetime import date
from typing import Any

from django.http import HttpRequest, HttpResponse

from feeds.sandbox import accounts, connections, lifecycle, seed, webhooks
from feeds.sandbox.api import ROUTES, http, read_json
from feeds.sandbox.clock import from_iso, iso
from feeds.sandbox.program import Sandbox, Work
from feeds.sandbox.replies import Refusal, Reply, ok
from feeds.sandbox.store import OBJECTS, Record, read_meta

Action = Callable[[Sandbox, str, Any], Any]
"""Takes the program, the Host header and the JSON body; returns the JSON to answer, None for ``{}``."""


def show_faults(sandbox: Sandbox, host: str, body: Any) -> list[Record]:
    """``GET faults``: all faults with their hits."""
    return sandbox.faults.listing()


def add_fault(sandbox: Sandbox, host: str, body: Any) -> Record:
    """``POST faults``: see :class:`feeds.sandbox.faults.Fault`."""
    return sandbox.faults.add(body, ROUTES.keys())


def clear_faults(sandbox: Sandbox, host: str, body: Any) -> None:
    """``DELETE faults``."""
    sandbox.faults.clear()


def show_clock(sandbox: Sandbox, host: str, body: Any) -> Record:
    """``GET clock``."""
    return {"now": iso(sandbox.clock.now()), "offsetSeconds": sandbox.clock.offset}


def move_clock(sandbox: Sandbox, host: str, body: Any) -> Record:
    """``POST clock``: ``{"advance_seconds": n}``, ``{"set": iso}`` or ``{"reset": true}``; what is due happens."""
    if body.get("reset"):
        offset = 0.0
    elif "set" in body:
        offset = from_iso(body["set"]) - time.time()
    else:
        offset = sandbox.clock.offset + float(body["advance_seconds"])
    sandbox.clock.move_to(offset)
    with sandbox.work(host):
        return show_clock(sandbox, host, body)


def disconnect(sandbox: Sandbox, host: str, body: Any) -> Record:
    """``POST disconnect``: QuickBooks falls silent (``silentSince``), or with ``now`` the ten days are skipped."""
    company_id, connection_id = body["companyId"], body["connectionId"]
    account_ids = [body["accountId"]] if body.get("accountId") else None
    with sandbox.work(host) as work:
        connections.get(work.db, company_id, connection_id)
        if body.get("now"):
            lifecycle.disconnect(work.db, company_id, connection_id, account_ids, work.now)
        else:
            since = from_iso(body["silentSince"]) if body.get("silentSince") else work.now
            lifecycle.fall_silent(work.db, connection_id, account_ids, since)
            lifecycle.apply_due(work.db, work.mint, work.now)
        return _state(work, company_id, connection_id)


def connect(sandbox: Sandbox, host: str, body: Any) -> Record:
    """``POST connect``: the customer's steps without a browser; ``accountIds`` and ``feedStartDate`` may be given."""
    company_id, connection_id = body["companyId"], body["connectionId"]
    with sandbox.work(host) as work:
        start = body.get("feedStartDate")
        feed_start = date.fromisoformat(start) if start else lifecycle.default_feed_start(work.now)
        chosen = body.get("accountIds")
        lifecycle.connect(work.db, company_id, connection_id, chosen, feed_start, work.mint, work.now)
        return _state(work, company_id, connection_id)


def show_webhooks(sandbox: Sandbox, host: str, body: Any) -> Record:
    """``GET webhooks``: the target and every event with its deliveries."""
    with sandbox.store.transaction() as db:
        return {"target": read_meta(db, "webhook_target"), "events": webhooks.listing(db)}


def set_webhooks(sandbox: Sandbox, host: str, body: Any) -> None:
    """``POST webhooks``: where events go from now on; ``url`` null for nowhere."""
    with sandbox.store.transaction() as db:
        webhooks.write_target(
            db,
            body["url"],
            secret=body.get("secret"),
            duplicates=float(body.get("duplicates", 0.0)),
            shuffle=bool(body.get("shuffle", False)),
        )


def flush_webhooks(sandbox: Sandbox, host: str, body: Any) -> Record:
    """``POST webhooks/flush``: send what is held or waits for a retry, and wait for it."""
    return {"sent": sandbox.sender.flush()}


def show_stats(sandbox: Sandbox, host: str, body: Any) -> Record:
    """``GET stats``: how many objects there are, and how many requests of each kind were received."""
    with sandbox.store.transaction() as db:
        counts = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in OBJECTS}  # noqa: S608
        requests = dict(db.execute("SELECT key, count FROM requests ORDER BY key").fetchall())
    return {"objects": counts, "requests": requests}


def show_pressure(sandbox: Sandbox, host: str, body: Any) -> Record:
    """``GET pressure``: the most that was asked of Codat's limits: in any minute, and at once for one company."""
    return sandbox.pressure.figures()


def forget_pressure(sandbox: Sandbox, host: str, body: Any) -> None:
    """``DELETE pressure``: count anew, the limit of the minute too."""
    sandbox.pressure.forget()
    sandbox.minute.reset()


def reset(sandbox: Sandbox, host: str, body: Any) -> None:
    """``POST reset``: forget everything."""
    sandbox.reset()


def seed_companies(sandbox: Sandbox, host: str, body: Any) -> Record:
    """``POST seed``: ``{"companies": n, "accounts": k, "linked": bool}`` in bulk."""
    with sandbox.store.transaction() as db:
        made = seed.fill(
            db, int(body["companies"]), int(body.get("accounts", 0)), bool(body.get("linked")), sandbox.clock.now()
        )
    return {"companies": made}


ACTIONS: dict[tuple[str, str], Action] = {
    ("GET", "faults"): show_faults,
    ("POST", "faults"): add_fault,
    ("DELETE", "faults"): clear_faults,
    ("GET", "clock"): show_clock,
    ("POST", "clock"): move_clock,
    ("POST", "disconnect"): disconnect,
    ("POST", "connect"): connect,
    ("GET", "webhooks"): show_webhooks,
    ("POST", "webhooks"): set_webhooks,
    ("POST", "webhooks/flush"): flush_webhooks,
    ("GET", "stats"): show_stats,
    ("GET", "pressure"): show_pressure,
    ("DELETE", "pressure"): forget_pressure,
    ("POST", "reset"): reset,
    ("POST", "seed"): seed_companies,
}


class Control:
    """The Django view of all control endpoints."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def __call__(self, request: HttpRequest, name: str) -> HttpResponse:
        """Answer one control request; a malformed one is a 400."""
        try:
            reply = self._reply(request, name)
        except Refusal as refusal:
            reply = refusal.reply()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reply = Refusal(400, f"Malformed control request: {error!r}.").reply()
        return http(reply, {})

    def _reply(self, request: HttpRequest, name: str) -> Reply:
        action = ACTIONS.get((request.method or "GET", name))
        if action is None:
            raise Refusal(404, f"There is no {request.method} of {name}.")
        answer = action(self._sandbox, request.get_host(), read_json(request))
        return ok({} if answer is None else answer)


def _state(work: Work, company_id: str, connection_id: str) -> Record:
    connection = connections.get(work.db, company_id, connection_id)
    return {"connection": connection, "sourceAccounts": accounts.listing(work.db, connection_id)}

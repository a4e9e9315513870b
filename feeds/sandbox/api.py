"""Codat's API: from an HTTP request through limits, faults and idempotency to one operation."""

import base64
import binascii
import hmac
import json
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse

from feeds.sandbox import accounts, companies, connections, idempotency, lifecycle, quota
from feeds.sandbox.faults import DROP_AFTER, DROP_BEFORE, MALFORMED, STATUS, Fault
from feeds.sandbox.program import Sandbox, Work
from feeds.sandbox.replies import NO_CONTENT, Refusal, Reply, ok, page_of
from feeds.sandbox.store import Record

log = logging.getLogger(__name__)
PUT_WITHDRAWN = "PUT was withdrawn on 15 November 2023; use POST."


@dataclass(frozen=True)
class Call:
    """One request as an operation sees it: where it works, the ids in its path, its query and its JSON body."""

    work: Work
    ids: dict[str, str]
    path: str
    query: Callable[[str], str | None]
    body: Any
    allow_put: bool

    @property
    def db(self) -> sqlite3.Connection:
        """The open transaction."""
        return self.work.db

    @property
    def company_id(self) -> str:
        """The company in the path."""
        return self.ids["company_id"]

    @property
    def connection_id(self) -> str:
        """The connection in the path."""
        return self.ids["connection_id"]

    @property
    def fields(self) -> Record:
        """The body, which must be an object.

        Raises:
            Refusal: 400, it is not.
        """
        if not isinstance(self.body, dict):
            raise Refusal(400, "The body must be a JSON object.")
        return self.body

    def known_connection(self) -> str:
        """Return the connection's id once it is known to exist.

        Raises:
            Refusal: 404, it does not.
        """
        connections.get(self.db, self.company_id, self.connection_id)
        return self.connection_id


Operation = Callable[[Call], Reply]


def list_companies(call: Call) -> Reply:
    """``GET /companies``."""
    page = page_of(call.path, call.query, ("tags",))
    return companies.listing(call.db, page, call.work.mint, call.query("tags"))


def create_company(call: Call) -> Reply:
    """``POST /companies``."""
    company_id = companies.create(call.db, call.fields, call.work.now)
    return Reply(200, companies.show(call.db, company_id, call.work.mint))


def get_company(call: Call) -> Reply:
    """``GET /companies/{companyId}``."""
    return Reply(200, companies.show(call.db, call.company_id, call.work.mint))


def update_company(call: Call) -> Reply:
    """``PATCH /companies/{companyId}``."""
    companies.update(call.db, call.company_id, call.fields)
    return get_company(call)


def delete_company(call: Call) -> Reply:
    """``DELETE /companies/{companyId}``."""
    companies.delete(call.db, call.company_id, call.work.now)
    return NO_CONTENT


def list_connections(call: Call) -> Reply:
    """``GET /companies/{companyId}/connections``."""
    return connections.listing(call.db, call.company_id, page_of(call.path, call.query), call.work.mint)


def create_connection(call: Call) -> Reply:
    """``POST /companies/{companyId}/connections``."""
    work = call.work
    connection_id = connections.create(call.db, call.company_id, call.fields.get("platformKey"), work.now)
    connections.announce(call.db, "connection.created", call.company_id, connection_id, work.mint, work.now)
    return ok(connections.show(call.db, call.company_id, connection_id, work.mint))


def get_connection(call: Call) -> Reply:
    """``GET /companies/{companyId}/connections/{connectionId}``."""
    return ok(connections.show(call.db, call.company_id, call.connection_id, call.work.mint))


def update_connection(call: Call) -> Reply:
    """``PATCH /companies/{companyId}/connections/{connectionId}``."""
    call.known_connection()
    if call.fields.get("status") != connections.UNLINKED:
        raise Refusal(400, "'Status' can only be changed to Unlinked.", "status")
    lifecycle.unlink(call.db, call.company_id, call.connection_id, call.work.mint, call.work.now)
    return get_connection(call)


def delete_connection(call: Call) -> Reply:
    """``DELETE /companies/{companyId}/connections/{connectionId}``."""
    connections.delete(call.db, call.company_id, call.connection_id, call.work.mint, call.work.now)
    return Reply(200)


def list_accounts(call: Call) -> Reply:
    """``GET .../bankFeedAccounts``."""
    return ok(accounts.listing(call.db, call.known_connection()))


def create_account(call: Call) -> Reply:
    """``POST .../bankFeedAccounts``."""
    try:
        account = accounts.create(call.db, call.known_connection(), call.body, call.work.now)
    except Refusal as refusal:
        # Codat's description of this one operation knows no 409: there a duplicate is a 400.
        status = 400 if refusal.status == 409 else refusal.status
        raise Refusal(status, refusal.message, refusal.item) from refusal
    lifecycle.watch(call.db, call.connection_id)
    return ok(account)


def create_accounts(call: Call) -> Reply:
    """``POST .../bankFeedAccounts/batch``."""
    status, outcomes = accounts.create_batch(call.db, call.known_connection(), call.body, call.work.now)
    lifecycle.watch(call.db, call.connection_id)
    return ok(outcomes, status)


def put_accounts(call: Call) -> Reply:
    """``PUT .../bankFeedAccounts``, the guide's way; refused unless switched on."""
    if not call.allow_put:
        raise Refusal(404, PUT_WITHDRAWN)
    kept = accounts.put(call.db, call.known_connection(), call.body, call.work.now)
    lifecycle.watch(call.db, call.connection_id)
    return ok(kept)


def update_account(call: Call) -> Reply:
    """``PATCH .../bankFeedAccounts/{accountId}``."""
    account_id = call.ids["account_id"]
    connection_id = call.known_connection()
    _, disconnecting = accounts.change(call.db, connection_id, account_id, call.body, call.work.now)
    if disconnecting:
        lifecycle.disconnect(call.db, call.company_id, connection_id, [account_id], call.work.now)
    return ok(accounts.get(call.db, connection_id, account_id))


def delete_account(call: Call) -> Reply:
    """``DELETE .../bankFeedAccounts/{accountId}``."""
    accounts.delete(call.db, call.known_connection(), call.ids["account_id"])
    lifecycle.watch(call.db, call.connection_id)
    return NO_CONTENT


def create_credentials(call: Call) -> Reply:
    """``POST .../bankFeedAccounts/credentials``: adds a set, older ones stay good."""
    return ok(lifecycle.issue_credentials(call.db, call.known_connection()))


def delete_credentials(call: Call) -> Reply:
    """``DELETE .../bankFeedAccounts/credentials``: revokes all sets, so feeds that use them fall silent."""
    lifecycle.revoke_credentials(call.db, call.known_connection(), call.work.now)
    return NO_CONTENT


COMPANIES = "/companies"
COMPANY = COMPANIES + "/{id}"
CONNECTIONS = COMPANY + "/connections"
CONNECTION = CONNECTIONS + "/{id}"
ACCOUNTS = CONNECTION + "/connectionInfo/bankFeedAccounts"
ROUTES: dict[str, dict[str, Operation]] = {
    COMPANIES: {"GET": list_companies, "POST": create_company},
    COMPANY: {"GET": get_company, "PATCH": update_company, "DELETE": delete_company},
    CONNECTIONS: {"GET": list_connections, "POST": create_connection},
    CONNECTION: {"GET": get_connection, "PATCH": update_connection, "DELETE": delete_connection},
    ACCOUNTS: {"GET": list_accounts, "POST": create_account, "PUT": put_accounts},
    ACCOUNTS + "/batch": {"POST": create_accounts},
    ACCOUNTS + "/credentials": {"POST": create_credentials, "DELETE": delete_credentials},
    ACCOUNTS + "/{id}": {"PATCH": update_account, "DELETE": delete_account},
}
"""Operations by route template and method; the templates are also the keys of faults and statistics."""


class Endpoint:
    """The Django view of one route template."""

    def __init__(self, sandbox: Sandbox, template: str) -> None:
        self._sandbox = sandbox
        self._template = template
        self._operations = ROUTES[template]

    def __call__(self, request: HttpRequest, **ids: str) -> HttpResponse:
        """Answer one request, or close its connection without an answer when a fault says so."""
        method = request.method or "GET"
        self._sandbox.pressure.arrived()
        headers, overspent = self._receive(method)
        fault = self._sandbox.faults.strike(method, self._template)
        if fault.action == DROP_BEFORE:
            _sleep(fault.delay_ms)
            return hang_up(request)
        try:
            with self._sandbox.companies.hold(ids.get("company_id"), self._sandbox.pressure):
                reply = self._reply(request, method, ids, fault, overspent)
        except Refusal as refusal:
            if refusal.status == 429:
                self._sandbox.pressure.refused()
            reply = refusal.reply()
        except Exception:
            log.exception("%s %s failed", method, self._template)
            reply = Refusal(500, "The stand-in failed; see its log.").reply()
        if fault.action == DROP_AFTER:
            _sleep(fault.delay_ms)
            return hang_up(request)
        if fault.action == MALFORMED:
            reply = Reply(200, (reply.body or "{}")[: max(1, len(reply.body) // 2)])
        return http(reply, headers)

    def _receive(self, method: str) -> tuple[dict[str, str], Refusal | None]:
        with self._sandbox.store.transaction() as db:
            db.execute(
                "INSERT INTO requests VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET count = count + 1",
                (f"{method} {self._template}",),
            )
            return quota.spend(db, self._sandbox.options.daily_quota, self._sandbox.clock.now())

    def _reply(
        self, request: HttpRequest, method: str, ids: dict[str, str], fault: Fault, overspent: Refusal | None
    ) -> Reply:
        operation = self._admit(request, method, overspent)
        key = idempotency.key_of(method, request.headers.get("Idempotency-Key"))
        print_ = idempotency.fingerprint(method, request.get_full_path(), request.body)
        with self._sandbox.keys.hold(key):
            held_ms = fault.delay_ms if fault.action != DROP_AFTER else 0
            _sleep(held_ms + self._sandbox.options.latency_ms)
            with self._sandbox.work(request.get_host()) as work:
                kept = idempotency.recall(work.db, key, print_, work.now) if key else None
                if kept is not None:
                    return kept
                reply = self._perform(operation, request, ids, work, fault)
                if key:
                    idempotency.remember(work.db, key, print_, reply, work.now)
                return reply

    def _admit(self, request: HttpRequest, method: str, overspent: Refusal | None) -> Operation:
        authorize(request.headers.get("Authorization", ""), self._sandbox.options.api_key)
        self._sandbox.minute.spend(request.META["REMOTE_ADDR"])
        if overspent is not None:
            raise overspent
        operation = self._operations.get(method)
        if operation is None:
            raise Refusal(404, f"There is no {method} here.")
        return operation

    def _perform(
        self, operation: Operation, request: HttpRequest, ids: dict[str, str], work: Work, fault: Fault
    ) -> Reply:
        if fault.action != STATUS:
            return self._operate(operation, request, ids, work)
        if fault.process:
            self._operate(operation, request, ids, work)
        return fault.refusal().reply()

    def _operate(self, operation: Operation, request: HttpRequest, ids: dict[str, str], work: Work) -> Reply:
        # Operations check before they write, so a refusal leaves nothing behind and is kept like any other reply.
        try:
            call = Call(work, ids, request.path, request.GET.get, read_json(request), self._sandbox.options.allow_put)
            return operation(call)
        except Refusal as refusal:
            return refusal.reply()


def unknown(request: HttpRequest) -> HttpResponse:
    """Answer an address that is none of Codat's."""
    return http(Refusal(404, f"There is nothing at {request.path}.").reply(), {})


def authorize(header: str, api_key: str) -> None:
    """Accept ``Basic <base64 of the API key>``, also in the form ``key:``.

    Raises:
        Refusal: 401.
    """
    scheme, _, encoded = header.partition(" ")
    try:
        sent = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        sent = ""
    good = hmac.compare_digest(sent.removesuffix(":").encode(), api_key.encode())
    if scheme.lower() != "basic" or not good:
        raise Refusal(401, "Unauthorized: the API key is missing or wrong.")


def read_json(request: HttpRequest) -> Any:
    """Return the JSON body of a request, None when it has none.

    Raises:
        Refusal: 400, it is not JSON.
    """
    if not request.body:
        return None
    try:
        return json.loads(request.body)
    except ValueError as error:
        raise Refusal(400, "The body is not valid JSON.") from error


def http(reply: Reply, headers: dict[str, str]) -> HttpResponse:
    """Turn a reply into Django's response."""
    response = HttpResponse(reply.body, status=reply.status, content_type="application/json; charset=utf-8")
    for name, value in {**headers, **reply.headers, "Cache-Control": "no-store"}.items():
        response[name] = value
    return response


def hang_up(request: HttpRequest) -> HttpResponse:
    """Close the caller's connection; the response returned reaches nobody."""
    request.META["sandbox.hang_up"]()
    return HttpResponse()


def _sleep(milliseconds: int) -> None:
    if milliseconds:
        time.sleep(milliseconds / 1000)

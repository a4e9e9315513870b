"""Source accounts: the two shapes of their body, and the rules of adding, changing and deleting them."""

import json
import sqlite3
from datetime import date
from typing import Any

from feeds.sandbox import companies, connections, events
from feeds.sandbox.clock import iso
from feeds.sandbox.replies import Refusal
from feeds.sandbox.store import Record, dump

PENDING, CONNECTED, DISCONNECTED = "pending", "connected", "disconnected"
V2_TYPES = ("checking", "savings", "loan", "creditCard", "prepaidCard")
ROUTING_TYPES = frozenset(
    ("rtn", "aba", "swift", "bsb", "iban", "nz2", "trno", "sortcode", "blz", "ifsc", "bankcode", "apca", "clabe")
)
TEXTS = ("id", "accountName", "accountType", "accountNumber", "currency")
INFO_TEXTS = ("description", "nickname", "accountOpenDate")
FIXED = ("accountType", "accountNumber", "currency", "sortCode", "routingInfo")
SHOWN = (*TEXTS, "sortCode", "routingInfo", "balance", "accountInfo")
CURRENCIES = frozenset(
    """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP
    CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF
    IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD
    MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB
    RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD
    UYU UZS VED VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG
    """.split()  # noqa: SIM905 - 160 quoted codes would be harder to read
)


def check(body: Any) -> Record:
    """Return the fields of a well-formed account, in today's shape (v2) or in the guide's (v1).

    v1 has free text as ``accountType`` and requires ``sortCode``; v2 has five types and optional routing details.

    Raises:
        Refusal: 400, naming the field at fault.
    """
    if not isinstance(body, dict):
        raise Refusal(400, "A source account must be an object.")
    for name in TEXTS:
        _require_text(body, name)
    if _is_v1(body):
        _require_text(body, "sortCode")
    else:
        _check_v2(body)
    if body["currency"] not in CURRENCIES:
        raise Refusal(400, "'Currency' must be an ISO 4217 code.", "currency")
    _check_balance(body.get("balance"))
    return {name: body[name] for name in SHOWN if body.get(name) is not None}


def create(db: sqlite3.Connection, connection_id: str, body: Any, now: float) -> Record:
    """Add one account to a connection and return it.

    Raises:
        Refusal: 400 malformed, 409 its id is taken on this connection.
    """
    account = check(body)
    if find(db, connection_id, account["id"]) is not None:
        raise Refusal(409, f"A bank account already exists with the same Id: {account['id']}.", "id")
    account |= {"modifiedDate": iso(now), "status": PENDING}
    db.execute(
        "INSERT INTO source_accounts (connection_id, id, status, body) VALUES (?, ?, ?, ?)",
        (connection_id, account["id"], PENDING, dump(account)),
    )
    return account


def create_batch(db: sqlite3.Connection, connection_id: str, bodies: Any, now: float) -> tuple[int, list[Record]]:
    """Add many accounts, each on its own merits.

    Returns:
        201 all added, 207 some, 409 none; and one ``{sourceAccountId, result}`` per account, in order.

    Raises:
        Refusal: 400, not an array or an empty one.
    """
    if not isinstance(bodies, list) or not bodies:
        raise Refusal(400, "The body must be an array of source accounts.")
    outcomes = [_outcome(db, connection_id, body, now) for body in bodies]
    added = sum(outcome["result"]["statusCode"] == 201 for outcome in outcomes)
    return (201 if added == len(outcomes) else 207 if added else 409), outcomes


def put(db: sqlite3.Connection, connection_id: str, bodies: Any, now: float) -> list[Record]:
    """Add the accounts the guide's way: ids already there keep their state and take the new name.

    Raises:
        Refusal: 400, not an array or one of them malformed; then none is added.
    """
    if not isinstance(bodies, list):
        raise Refusal(400, "The body must be an array of source accounts.")
    for account in [check(body) for body in bodies]:
        known = find(db, connection_id, account["id"])
        if known is None:
            create(db, connection_id, account, now)
        else:
            save(db, connection_id, {**known, "accountName": account["accountName"], "modifiedDate": iso(now)})
    return listing(db, connection_id)


def change(db: sqlite3.Connection, connection_id: str, account_id: str, body: Any, now: float) -> tuple[Record, bool]:
    """Apply a PATCH: the name always, the balance unless connected; the fixed fields may only be repeated.

    Returns:
        The account, and whether the caller also asked to disconnect it.

    Raises:
        Refusal: 404 no such account, 400 a change that is not allowed.
    """
    account = get(db, connection_id, account_id)
    if not isinstance(body, dict) or body.get("id") != account_id:
        raise Refusal(400, "'Id' is required and must be the id in the address.", "id")
    for name in FIXED:
        if body.get(name) not in (None, account.get(name)):
            raise Refusal(400, f"'{name}' cannot be changed; delete the account and create it under a new id.", name)
    if body.get("accountName") is not None:
        _require_text(body, "accountName")
        account["accountName"] = body["accountName"]
    if body.get("balance") not in (None, account.get("balance")):
        _check_balance(body["balance"])
        if account["status"] == CONNECTED:
            raise Refusal(400, "'Balance' cannot be changed while the account is connected.", "balance")
        account["balance"] = body["balance"]
    wanted = body.get("status")
    if wanted not in (None, DISCONNECTED, account["status"]):
        raise Refusal(400, "'Status' can only be changed to disconnected.", "status")
    account["modifiedDate"] = iso(now)
    save(db, connection_id, account)
    return account, wanted == DISCONNECTED and account["status"] != DISCONNECTED


def delete(db: sqlite3.Connection, connection_id: str, account_id: str) -> None:
    """Delete an account and its mapping.

    Raises:
        Refusal: 404, no such account.
    """
    get(db, connection_id, account_id)
    db.execute("DELETE FROM source_accounts WHERE connection_id = ? AND id = ?", (connection_id, account_id))


def find(db: sqlite3.Connection, connection_id: str, account_id: str) -> Record | None:
    """Return an account, or None."""
    row = db.execute(
        "SELECT body FROM source_accounts WHERE connection_id = ? AND id = ?", (connection_id, account_id)
    ).fetchone()
    return None if row is None else json.loads(row["body"])


def get(db: sqlite3.Connection, connection_id: str, account_id: str) -> Record:
    """Return an account.

    Raises:
        Refusal: 404, no such account.
    """
    account = find(db, connection_id, account_id)
    if account is None:
        raise Refusal(404, f"Source account with id '{account_id}' not found.")
    return account


def listing(db: sqlite3.Connection, connection_id: str) -> list[Record]:
    """Return all accounts of a connection, oldest first."""
    rows = db.execute("SELECT body FROM source_accounts WHERE connection_id = ? ORDER BY seq", (connection_id,))
    return [json.loads(row["body"]) for row in rows]


def save(db: sqlite3.Connection, connection_id: str, account: Record) -> None:
    """Store a changed account."""
    db.execute(
        "UPDATE source_accounts SET status = ?, body = ? WHERE connection_id = ? AND id = ?",
        (account["status"], dump(account), connection_id, account["id"]),
    )


def announce(
    db: sqlite3.Connection, event_type: str, company_id: str, connection_id: str, account: Record, now: float
) -> None:
    """Record an event about an account."""
    company = companies.get(db, company_id)
    payload = {
        "referenceCompany": events.reference(company),
        "connectionId": connections.get(db, company_id, connection_id)["id"],
        "sourceAccount": account,
    }
    events.emit(db, event_type, payload, now)


def _outcome(db: sqlite3.Connection, connection_id: str, body: Any, now: float) -> Record:
    account_id = body.get("id") if isinstance(body, dict) else None
    try:
        result: Record = {"statusCode": 201, "error": None, "account": create(db, connection_id, body, now)}
    except Refusal as refusal:
        result = {"statusCode": refusal.status, "error": refusal.message}
    return {"sourceAccountId": account_id if isinstance(account_id, str) else None, "result": result}


def _is_v1(body: Record) -> bool:
    v2_fields = body.get("routingInfo") or body.get("accountInfo")
    return body["accountType"] not in V2_TYPES and body.get("sortCode") is not None and not v2_fields


def _check_v2(body: Record) -> None:
    if body["accountType"] not in V2_TYPES:
        raise Refusal(400, f"'Account Type' must be one of {', '.join(V2_TYPES)}.", "accountType")
    if body.get("sortCode") is not None:
        _require_text(body, "sortCode")
    _check_routing(body.get("routingInfo"))
    _check_info(body.get("accountInfo"))


def _check_routing(routing: Any) -> None:
    if routing is None:
        return
    if not isinstance(routing, dict) or not isinstance(routing.get("bankCode"), str):
        raise Refusal(400, "'Routing Info' must carry a bank code.", "routingInfo")
    if routing.get("type") not in ROUTING_TYPES:
        raise Refusal(400, "'Routing Info' has an unknown type.", "routingInfo")


def _check_info(info: Any) -> None:
    if info is None:
        return
    if not isinstance(info, dict) or not all(isinstance(info.get(name, ""), str | None) for name in INFO_TEXTS):
        raise Refusal(400, "'Account Info' is malformed.", "accountInfo")
    if info.get("availableBalance") is not None:
        _check_balance(info["availableBalance"])
    if info.get("accountOpenDate"):
        try:
            date.fromisoformat(info["accountOpenDate"][:10])
        except ValueError as error:
            raise Refusal(400, "'Account Open Date' must be a date.", "accountInfo") from error


def _require_text(body: Record, name: str) -> None:
    if not isinstance(body.get(name), str) or not body[name].strip():
        raise Refusal(400, f"'{name}' must not be empty.", name)


def _check_balance(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal(400, "'Balance' must be a number.", "balance")

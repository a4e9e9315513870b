"""Codat's schemas to our columns and back, and the names that Codat can store. Pure: no I/O, no models."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from anyascii import anyascii

from feeds.codat import redaction
from feeds.codat.redaction import Json
from feeds.codat.schemas import BANK_FEEDS_PLATFORM_KEY, Company, Connection, SourceAccount, json_number

UID_TAG = "uid"
BANK_FEED_SOURCE = "BankFeed"

CODAT_NAME = re.compile(r"^[A-Za-z0-9\s\-',&@.,?!\s]+$")
"""What Codat allows in a company's name; it silently removes every other character."""

# The nearest character that Codat allows, where there is one; all others become a space.
_NEAREST = str.maketrans({"`": "'", ";": ",", "+": "&"})
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9\-',&@.?!]+")
_SPACE_BEFORE_COMMA = re.compile(r" +,")


def codat_name(legal_name: str) -> str:
    """The name to send to Codat: ``"Café (Québec)"`` -> ``"Cafe Quebec"``.

    Transliterated and reduced to what Codat stores unchanged (:data:`CODAT_NAME`). Empty when nothing of the name can
    be kept. A name that came out of here stays as it is.
    """
    text = anyascii(legal_name).translate(_NEAREST)
    text = _NOT_ALLOWED.sub(" ", text)
    return _SPACE_BEFORE_COMMA.sub(",", text).strip()


def company_tags(uid: UUID) -> dict[str, str]:
    """The tags of our company in Codat. Names need not be unique there: the uid is the identity."""
    return {UID_TAG: str(uid)}


def is_uid(text: str) -> bool:
    """Whether a tag can be one of our uids: other systems may use the same key."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What we know of a bank account and tell Codat. Empty strings and None: not known, not sent."""

    account_id: str
    name: str
    account_type: str
    account_number: str
    currency: str
    balance: Decimal
    sort_code: str = ""
    bank_code: str = ""
    routing_type: str = ""
    open_date: date | None = None
    nickname: str = ""


def source_account_body(account: AccountFacts, *, schema: str = "v2") -> dict[str, Json]:
    """The JSON body that creates a source account.

    `schema`: ``"v2"`` is Codat's for integrations since August 2024; ``"v1"`` has the fields of the guide's example,
    all required there. Raises ValueError for another schema, or when the balance does not fit a JSON number exactly.
    """
    if schema not in ("v1", "v2"):
        raise ValueError(f"no schema {schema!r} of source accounts")
    body: dict[str, Json] = {
        "id": account.account_id,
        "accountName": account.name,
        "accountType": account.account_type,
        "accountNumber": account.account_number,
        "currency": account.currency,
        "balance": json_number(account.balance),
    }
    if schema == "v1":
        # v1 has one field for the bank's code.
        return body | {"sortCode": account.sort_code or account.bank_code}
    return body | _optional_parts(account)


def _optional_parts(account: AccountFacts) -> dict[str, Json]:
    opened = f"{account.open_date.isoformat()}T00:00:00Z" if account.open_date else ""
    # A type without a code says nothing.
    routing_type = account.routing_type if account.bank_code else ""
    return _filled(
        {
            "sortCode": account.sort_code,
            "routingInfo": _filled({"bankCode": account.bank_code, "type": routing_type}),
            "accountInfo": _filled({"nickname": account.nickname, "accountOpenDate": opened}),
        }
    )


def _filled(parts: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in parts.items() if value}


def redacted_account_body(body: Mapping[str, Any]) -> dict[str, Json]:
    """The body as the ledger may keep it: known fields only, the account number masked."""
    return redaction.SOURCE_ACCOUNT.apply(body)


def company_columns(reply: Company) -> dict[str, Any]:
    """Column values of our Company from Codat's."""
    return {
        "codat_id": reply.id,
        "codat_name": reply.name,
        # As redaction left it: a link with a password in it is not stored.
        "redirect_url": reply.raw.get("redirect") or "",
        "codat_created_at": reply.created,
        "read_at": reply.read_at,
        "raw": reply.raw,
    }


def is_bank_feed(reply: Connection) -> bool:
    """Whether Codat's connection is one to QuickBooks Online Bank Feeds; a company may have others."""
    return reply.integration_key == BANK_FEEDS_PLATFORM_KEY or reply.source_type == BANK_FEED_SOURCE


def connection_columns(reply: Connection, *, link_lifetime: timedelta, link_is_needed: bool) -> dict[str, Any]:
    """Column values of our Connection from Codat's.

    The link's columns are there only when the reply brings a link, or when no link is needed: then they are emptied. A
    link expires `link_lifetime` after it was asked for.
    """
    columns: dict[str, Any] = {
        "codat_id": reply.id,
        "integration_id": reply.integration_id,
        "integration_key": reply.integration_key,
        "source_id": reply.source_id,
        "source_type": reply.source_type,
        "platform_name": reply.platform_name,
        "status": reply.status,
        "codat_created_at": reply.created,
        "last_sync_at": reply.last_sync,
        "errors": reply.raw.get("dataConnectionErrors") or [],
        "read_at": reply.read_at,
        "raw": reply.raw,
    }
    return columns | _link_columns(reply, link_lifetime, link_is_needed)


def _link_columns(reply: Connection, lifetime: timedelta, is_needed: bool) -> dict[str, Any]:
    if not is_needed:
        return {"link_url": "", "link_fetched_at": None, "link_expires_at": None}
    if reply.link_url is None:
        return {}
    return {
        "link_url": reply.link_url,
        "link_fetched_at": reply.read_at,
        "link_expires_at": reply.read_at + lifetime,
    }


def source_account_columns(reply: SourceAccount) -> dict[str, Any]:
    """Column values of our SourceAccount from Codat's: only what Codat owns."""
    return {
        "status": reply.status or "",
        "feed_start_date": reply.feed_start_date,
        "read_at": reply.read_at,
        "raw": reply.raw,
    }

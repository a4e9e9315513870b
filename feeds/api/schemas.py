"""What is sent and what is answered. The patterns say in advance what the import and the models demand."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated

from ninja import Schema
from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema

from feeds.banking import ISO_4217
from feeds.services.connect_sessions import Opened, Session, SessionState, Wanted
from feeds.states import AccountType, Country, Language, RoutingType

CUSTOMER_NUMBER = r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,63}$"
# No control characters, none that turn the direction of writing, and no space at either end.
_HIDDEN = r"\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
_SPACES = r"\x20\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
_LINE = rf"^[^{_HIDDEN}{_SPACES}](?:[^{_HIDDEN}]*[^{_HIDDEN}{_SPACES}])?$"
_CODE = r"^[A-Za-z0-9](?:[A-Za-z0-9 \-]{0,32}[A-Za-z0-9])?$"
_EMAIL = (
    r"^[A-Za-z0-9_%+\-]+(?:\.[A-Za-z0-9_%+\-]+)*@(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}$"
)


STATES: dict[SessionState, str] = {
    SessionState.NOT_STARTED: "A colleague has entered the customer; nothing was sent to Codat. POST starts it.",
    SessionState.PREPARING: "It is being set up at Codat. The link works already, and its page says so.",
    SessionState.READY: "The customer can connect.",
    SessionState.STARTED: "The customer has pressed the button and was sent on to Codat.",
    SessionState.CONNECTED: "QuickBooks reads every account. There is nothing to open.",
    SessionState.ON_HOLD: "A colleague has asked for the end of the feed, or the customer is being made again.",
    SessionState.NEEDS_ATTENTION: "A step was refused and waits for a colleague.",
    SessionState.ENDED: "A colleague has ended the customer's feed.",
}
"""What each state says; docs/api.md has the same sentences."""


def _a_currency(code: str) -> str:
    if code not in ISO_4217:
        raise ValueError("This is not a currency of ISO 4217.")
    return code


def _a_date(text: str) -> str:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError("Write the date as 2026-01-31.")
    date.fromisoformat(text)
    return text


CustomerNumber = Annotated[
    str,
    Field(
        pattern=CUSTOMER_NUMBER,
        description="Your bank's own number for this customer. One number is one customer.",
        examples=["SB-2001"],
    ),
]
Code = Annotated[str, Field(pattern=_CODE)]
Currency = Annotated[
    str, AfterValidator(_a_currency), WithJsonSchema({"type": "string", "enum": sorted(ISO_4217), "example": "USD"})
]
IsoDate = Annotated[str, AfterValidator(_a_date), WithJsonSchema({"type": "string", "format": "date"})]


class Sent(Schema):
    """What we are sent: a name that we do not know is an error, not something to be lost silently."""

    model_config = ConfigDict(extra="forbid")


class Account(Sent):
    """A bank account to be offered to QuickBooks."""

    account_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.\-]{1,64}$",
        description="Your own name for the account in Codat, which never changes. Without it one is made.",
    )
    account_name: str = Field(pattern=_LINE, max_length=120, examples=["Operating"])
    account_type: AccountType
    account_number: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 \-]{0,32}[A-Za-z0-9]$", examples=["000410099871"])
    routing_type: RoutingType | None = None
    bank_code: Code | None = Field(None, description="US: nine digits. Canada: transit and institution, 00011-001.")
    sort_code: Code | None = None
    currency: Currency
    balance: str | None = Field(
        None,
        pattern=r"^-?[0-9]{1,12}(?:\.[0-9]{1,2})?$",
        description="As text, so that no cent is lost. Of a known account it is not looked at.",
        examples=["1250.00"],
    )
    account_open_date: IsoDate | None = None


class Customer(Sent):
    """Who the customer is: needed for a new one."""

    legal_name: str = Field(pattern=_LINE, max_length=200, examples=["Juniper Hill Bakery Inc."])
    contact_name: str = Field(pattern=_LINE, max_length=120, examples=["Alex Doe"])
    contact_email: str = Field(pattern=_EMAIL, max_length=254, examples=["alex.doe@example.com"])
    country: Country
    language: Language | None = Field(None, description="Of the customer's pages and mails. Without it: en.")
    accounts: list[Account] = Field(min_length=1, max_length=50)


class ConnectSessionRequest(Sent):
    """A customer who wants to connect."""

    customer_number: CustomerNumber
    customer: Customer | None = Field(
        None,
        description="Needed for a new customer. A known one is compared with it, and never changed.",
    )

    def wanted(self) -> Wanted | None:
        """What is said of the customer, as an import would have read it."""
        if self.customer is None:
            return None
        values = self.customer.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        accounts = values.pop("accounts")
        return Wanted(values, tuple(accounts))


class AccountState(Schema):
    """One account of the customer."""

    name: str
    number: str = Field(description="Masked: at most the last four characters are shown.", examples=["••••9871"])
    status: str = Field(
        description="Codat's status: pending, connecting, connected, disconnected or unknown; "
        "not_sent before it is in Codat. New values may come.",
        examples=["pending"],
    )


class ConnectSession(Schema):
    """How far a customer is."""

    customer_number: str
    state: SessionState = Field(
        description="\n".join(f"- `{state.value}`: {meaning}" for state, meaning in STATES.items())
    )
    connected_accounts: int = Field(ge=0, description="How many accounts QuickBooks reads.")
    total_accounts: int = Field(ge=0)
    accounts: list[AccountState]
    expires_at: datetime | None = Field(
        description="When the customer's links stop working (UTC). Null when there are none."
    )
    as_of: datetime | None = Field(
        description="When Codat was last asked about the accounts (UTC). Null before the first time."
    )

    @classmethod
    def of(cls, session: Session) -> ConnectSession:
        """As the API shows it."""
        return cls.model_validate(_shown(session))


class OpenedConnectSession(ConnectSession):
    """How far the customer is, and the link to send their browser to."""

    connect_url: str | None = Field(
        description="The customer's own page. Redirect the customer's browser there at once; never store or log it. "
        "Null when every account is connected."
    )

    @classmethod
    def of_opened(cls, opened: Opened) -> OpenedConnectSession:
        """As the API shows it."""
        url = opened.address.url if opened.address else None
        return cls.model_validate({**_shown(opened.session), "connect_url": url})


def _shown(session: Session) -> dict[str, object]:
    return {
        "customer_number": session.customer_number,
        "state": session.state,
        "connected_accounts": session.connected,
        "total_accounts": len(session.accounts),
        "accounts": [
            {"name": account.name, "number": account.number, "status": account.status} for account in session.accounts
        ],
        "expires_at": session.expires_at,
        "as_of": session.as_of,
    }


class ProblemPlace(Schema):
    """What is wrong at one place of the request."""

    pointer: str = Field(description="JSON pointer into the request.", examples=["/customer/accounts/0/bank_code"])
    detail: str


class ProblemDetails(Schema):
    """An answer that is no success (RFC 9457)."""

    type: str = Field(
        description="Which kind of problem, for programs.", examples=["urn:bank-feeds:problem:key-refused"]
    )
    title: str
    status: int
    detail: str = Field(description="What to do about it, for people.")
    errors: list[ProblemPlace]

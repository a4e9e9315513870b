"""Codat's replies as frozen values. Tolerant of what is new, strict about identity.

Unknown fields are ignored, unknown statuses kept as they are, optional fields of a wrong type read as missing; an
object without its `id` is a :class:`MalformedReply`. `read_at` is when the request was *sent*: a reading is never newer
than that. `raw` is what may be stored of the reply (see `redaction`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Generic, Protocol, TypeVar

from . import redaction
from .errors import MalformedReply
from .redaction import Json

LINKED = "Linked"
BANK_FEEDS_PLATFORM_KEY = "hcws"
"""Of QuickBooks Online Bank Feeds, as `integrationKey` of a connection too."""

_TIME = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[Tt ](?P<time>\d\d:\d\d(?::\d\d)?)(?:\.(?P<fraction>\d+))?)?"
    r"\s*(?P<zone>[Zz]|[+-]\d\d:?\d\d)?"
)


def parse_time(text: object) -> datetime | None:
    """Read one of Codat's times as aware UTC.

    Accepts a `Z`, an offset or neither (read as UTC), and any number of fractional digits (Codat sends seven; Python
    keeps six). Returns None for anything else, and for the year 1, which is how .NET writes "never".
    """
    match = _TIME.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        return None
    zone = (match["zone"] or "Z").upper()
    fraction = (match["fraction"] or "0")[:6]
    try:
        moment = datetime.fromisoformat(f"{match['date']}T{match['time'] or '00:00'}{zone}").replace(
            microsecond=int(fraction.ljust(6, "0"))
        )
        return moment.astimezone(UTC) if moment.year > 1 else None
    except (ValueError, OverflowError):
        return None


def parse_date(text: object) -> date | None:
    """Read a calendar date, as written: ``"2020-10-08"`` or the date part of a time. None for anything else."""
    match = _TIME.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        day = date.fromisoformat(match["date"])
    except ValueError:
        return None
    return day if day.year > 1 else None


def parse_money(value: object) -> Decimal | None:
    """Read an amount sent as a JSON number or as a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    try:
        amount = Decimal(value)
    except InvalidOperation:
        return None
    return amount if amount.is_finite() else None


def json_number(amount: Decimal) -> int | float:
    """Turn an amount into a JSON number without losing a cent.

    Raises ValueError where a JSON number cannot hold it exactly (beyond fifteen significant digits).
    """
    if amount == amount.to_integral_value():
        return int(amount)
    number = float(amount)
    if Decimal(repr(number)) != amount:
        raise ValueError("the amount has more digits than a JSON number keeps")
    return number


@dataclass(frozen=True, slots=True)
class ConnectionFault:
    """One entry of a connection's `dataConnectionErrors`."""

    status_code: str
    status_text: str
    message: str
    errored_at: datetime | None


@dataclass(frozen=True, slots=True)
class Connection:
    """Codat's connection (schema `Connection`).

    `status`: PendingAuth, Linked, Unlinked, Deauthorized, or what Codat adds.
    """

    id: str
    status: str
    integration_id: str
    integration_key: str
    source_id: str
    source_type: str
    platform_name: str
    link_url: str | None = field(repr=False)
    created: datetime | None
    last_sync: datetime | None
    errors: tuple[ConnectionFault, ...]
    read_at: datetime
    raw: dict[str, Json] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Company:
    """Codat's company (schema `Company`), with its connections where the reply embeds them."""

    id: str
    name: str
    description: str
    redirect: str | None = field(repr=False)
    created: datetime | None
    last_sync: datetime | None
    tags: Mapping[str, str]
    connections: tuple[Connection, ...]
    read_at: datetime
    raw: dict[str, Json] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SourceAccount:
    """Codat's source account in either shape: `SourceAccountV2`, or v1 with `sortCode` and free account types.

    `status`: pending, connecting, connected, disconnected, unknown, what Codat adds, or None.
    """

    id: str
    name: str
    account_type: str
    account_number: str = field(repr=False)
    currency: str
    balance: Decimal | None
    sort_code: str
    bank_code: str
    routing_type: str
    status: str | None
    feed_start_date: date | None
    account_open_date: date | None
    nickname: str
    modified: datetime | None
    read_at: datetime
    raw: dict[str, Json] = field(repr=False)


@dataclass(frozen=True, slots=True)
class BatchItem:
    """What became of one account of a batch. `error` is scrubbed text; `account` is there only when it was created."""

    source_account_id: str
    status_code: int
    error: str | None
    account: SourceAccount | None

    @property
    def created(self) -> bool:
        """Whether Codat created this account."""
        return 200 <= self.status_code <= 299


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a batch: one item for each account that Codat answered about."""

    items: tuple[BatchItem, ...]


class Identified(Protocol):
    """What a listing lists: something with Codat's id."""

    @property
    def id(self) -> str:
        """Unique in its listing."""


L = TypeVar("L", bound=Identified)


@dataclass(frozen=True, slots=True)
class Page(Generic[L]):
    """One page of a listing: its objects, the total over all pages, and whether Codat names a next page."""

    items: list[L]
    total: int
    has_next: bool


@dataclass(frozen=True, slots=True)
class CompanyPage:
    """One page of companies as decoded, for who reads a hundred thousand: read with :func:`company` what is needed.

    `companies` have their `id`; nothing is redacted, so no part of them may be stored or logged as it is.
    """

    companies: list[dict[str, Any]] = field(repr=False)
    total: int
    has_next: bool
    read_at: datetime


@dataclass(frozen=True, slots=True)
class Credentials:
    """A set of QuickBooks credentials: show once, never store, never log."""

    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Quota:
    """The day's quota as the last reply told it. `reset`: when `remaining` becomes `limit` again."""

    limit: int
    remaining: int
    reset: datetime | None
    read_at: datetime

    def exhausted(self, now: datetime) -> bool:
        """Whether sending at `now` can only be refused."""
        return self.remaining <= 0 and self.reset is not None and now < self.reset


def company(data: object, read_at: datetime) -> Company:
    """Read a company. Raises MalformedReply when it is no object or has no id."""
    data = _object(data, "a company")
    tags = data.get("tags")
    connections = data.get("dataConnections")
    return Company(
        id=_identity(data, "a company"),
        name=_text(data, "name"),
        description=_text(data, "description"),
        redirect=_text(data, "redirect") or None,
        created=parse_time(data.get("created")),
        last_sync=parse_time(data.get("lastSync")),
        tags={str(key): str(value) for key, value in tags.items()} if isinstance(tags, Mapping) else {},
        connections=tuple(connection(item, read_at) for item in connections) if isinstance(connections, list) else (),
        read_at=read_at,
        raw=redaction.COMPANY.apply(data),
    )


def connection(data: object, read_at: datetime) -> Connection:
    """Read a connection. Raises MalformedReply when it is no object or has no id."""
    data = _object(data, "a connection")
    faults = data.get("dataConnectionErrors")
    return Connection(
        id=_identity(data, "a connection"),
        status=_text(data, "status"),
        integration_id=_text(data, "integrationId"),
        integration_key=_text(data, "integrationKey"),
        source_id=_text(data, "sourceId"),
        source_type=_text(data, "sourceType"),
        platform_name=_text(data, "platformName"),
        link_url=_text(data, "linkUrl") or None,
        created=parse_time(data.get("created")),
        last_sync=parse_time(data.get("lastSync")),
        errors=tuple(_fault(item) for item in faults if isinstance(item, Mapping)) if isinstance(faults, list) else (),
        read_at=read_at,
        raw=redaction.CONNECTION.apply(data),
    )


def source_account(data: object, read_at: datetime) -> SourceAccount:
    """Read a source account of either shape. Raises MalformedReply when it is no object or has no id."""
    data = _object(data, "a source account")
    routing = _optional_object(data, "routingInfo")
    info = _optional_object(data, "accountInfo")
    return SourceAccount(
        id=_identity(data, "a source account"),
        name=_text(data, "accountName"),
        account_type=_text(data, "accountType"),
        account_number=_text(data, "accountNumber"),
        currency=_text(data, "currency"),
        balance=parse_money(data.get("balance")),
        sort_code=_text(data, "sortCode"),
        bank_code=_text(routing, "bankCode"),
        routing_type=_text(routing, "type"),
        status=_text(data, "status") or None,
        feed_start_date=parse_date(data.get("feedStartDate")),
        account_open_date=parse_date(info.get("accountOpenDate")),
        nickname=_text(info, "nickname"),
        modified=parse_time(data.get("modifiedDate")),
        read_at=read_at,
        raw=redaction.SOURCE_ACCOUNT.apply(data),
    )


def batch_item(data: object, read_at: datetime) -> BatchItem:
    """Read one result of a batch; its status code may be a number or a string."""
    data = _object(data, "a batch result")
    result = _optional_object(data, "result")
    account = result.get("account")
    error = _text(result, "error")
    return BatchItem(
        source_account_id=_identity(data, "a batch result", key="sourceAccountId"),
        status_code=_status_code(result.get("statusCode")),
        error=redaction.scrub(error) if error else None,
        account=source_account(account, read_at) if isinstance(account, Mapping) else None,
    )


def source_accounts(data: object, read_at: datetime) -> list[SourceAccount]:
    """Read a plain array of source accounts."""
    return [source_account(item, read_at) for item in _array(data, "source accounts")]


def batch_result(data: object, read_at: datetime) -> BatchResult:
    """Read the reply to a batch: an array of results."""
    return BatchResult(tuple(batch_item(item, read_at) for item in _array(data, "batch results")))


def credentials(data: object, _read_at: datetime) -> Credentials:
    """Read a set of credentials. Raises MalformedReply when either part is missing."""
    data = _object(data, "credentials")
    username, password = _text(data, "username"), _text(data, "password")
    if not username or not password:
        raise MalformedReply("credentials without a username or a password")
    return Credentials(username, password)


def page_of(parse: Callable[[object, datetime], L]) -> Callable[[object, datetime], Page[L]]:
    """A reader of pages whose objects are read by `parse`. It raises MalformedReply when the page has no total."""

    def parse_page(data: object, read_at: datetime) -> Page[L]:
        data = _object(data, "a page of a listing")
        total = data.get("totalResults")
        if not isinstance(total, int):
            raise MalformedReply("a page without the total of its listing")
        items = [parse(item, read_at) for item in _array(data.get("results"), "results")]
        return Page(items, total, has_next=bool(_optional_object(data, "_links").get("next")))

    return parse_page


def company_page(data: object, read_at: datetime) -> CompanyPage:
    """Read a page of companies without reading each. Raises MalformedReply when one has no id or the page no total."""
    data = _object(data, "a page of a listing")
    total = data.get("totalResults")
    if not isinstance(total, int):
        raise MalformedReply("a page without the total of its listing")
    companies = data.get("results")
    if not isinstance(companies, list) or not all(
        isinstance(item, dict) and isinstance(item.get("id"), str) and item["id"] for item in companies
    ):
        raise MalformedReply("a page whose results are no companies")
    return CompanyPage(companies, total, bool(_optional_object(data, "_links").get("next")), read_at)


def _array(data: object, what: str) -> list[object]:
    if not isinstance(data, list):
        raise MalformedReply(f"expected a list of {what}")
    return data


def _object(data: object, what: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise MalformedReply(f"expected {what}")
    return data


def _optional_object(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


def _identity(data: Mapping[str, Any], what: str, key: str = "id") -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise MalformedReply(f"{what} without its {key}")
    return value


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""


def _status_code(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise MalformedReply("a batch result without its status code") from None


def _fault(data: Mapping[str, Any]) -> ConnectionFault:
    return ConnectionFault(
        status_code=str(data.get("statusCode") or ""),
        status_text=_text(data, "statusText"),
        message=redaction.scrub(_text(data, "errorMessage")),
        errored_at=parse_time(data.get("erroredOnUtc")),
    )

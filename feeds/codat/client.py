"""The only door to Codat: one method for each endpoint that the product uses.

*The guide* in the docstrings is Codat's "Set up the QuickBooks Online Bank Feeds integration". Every method raises a
:class:`~feeds.codat.errors.CodatError`, which says what to do about it; only the additional reasons are named.
"""

import base64
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import quote

import structlog

from . import schemas
from .errors import CodatError, LimiterBusy, MalformedReply, QuotaExhausted
from .limiter import Limiter
from .listing import ListingProgress
from .schemas import (
    BANK_FEEDS_PLATFORM_KEY,
    BatchResult,
    Company,
    CompanyPage,
    Connection,
    Credentials,
    Quota,
    SourceAccount,
)
from .transport import Method, Reply, Request, Transport, read_quota, refusal, seconds_until

log = structlog.get_logger(__name__)

MAX_PAGE_SIZE = 5000

TOTAL_TIMEOUT = 45.0
"""Seconds for one call with all its tries and waits: a queue task lives sixty."""
LONGEST_WAIT = 10.0
"""Seconds we usually wait inside a call because Codat says so; longer waits are the caller's."""

_COMPANIES = "/companies"
_COMPANY = "/companies/{companyId}"
_CONNECTIONS = f"{_COMPANY}/connections"
_CONNECTION = f"{_CONNECTIONS}/{{connectionId}}"
_ACCOUNTS = f"{_CONNECTION}/connectionInfo/bankFeedAccounts"
_ACCOUNT = f"{_ACCOUNTS}/{{accountId}}"
_BATCH = f"{_ACCOUNTS}/batch"
_CREDENTIALS = f"{_ACCOUNTS}/credentials"


T = TypeVar("T")
L = TypeVar("L", bound=schemas.Identified)


def _nothing(_data: Any, _read_at: datetime) -> None:
    """For replies whose status says everything."""


def _is_success(reply: Reply) -> bool:
    return reply.ok


def _is_batch_answer(reply: Reply) -> bool:
    return reply.ok or (reply.status == 409 and isinstance(reply.data, list))


def _given(**values: T | None) -> dict[str, T]:
    """The values that were given, for bodies and queries where a missing one means "leave it"."""
    return {key: value for key, value in values.items() if value is not None}


def _path(template: str, ids: tuple[str, ...]) -> str:
    """Fill the ids into the documented path. Raises ValueError for an id that would lead to another path."""
    if any(identity in ("", ".", "..") for identity in ids):
        raise ValueError("an id is missing")
    remaining = iter(ids)
    return re.sub(r"\{\w+\}", lambda _: quote(next(remaining), safe=""), template)


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


class CodatClient:
    """Talks to one Codat account. Make one for each process and share it between threads.

    `base_url`: ``https://api.codat.io`` or the stand-in; `api_key`: as the Codat Portal shows it; `limiter`: asked for
    a slot before each request; timeouts in seconds; `get_retries`: how often a read is tried again (writes never are:
    their outcome may be unknown); `on_quota`: told the quota after each reply that carries it; `backoff_base`: seconds,
    doubled with each try; `longest_wait`: seconds waited inside a call because Codat says so.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        limiter: Limiter | None = None,
        connect_timeout: float = 5.0,
        read_timeout: float = 20.0,
        get_retries: int = 2,
        on_quota: Callable[[Quota], None] | None = None,
        backoff_base: float = 0.5,
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        encoded = base64.b64encode(api_key.encode()).decode()
        self._secrets = tuple(secret for secret in (api_key, encoded) if secret)
        self._transport = Transport(
            base_url, f"Basic {encoded}", connect_timeout=connect_timeout, read_timeout=read_timeout
        )
        self._limiter = limiter
        self._get_retries = get_retries
        self._on_quota = on_quota
        self._backoff_base = backoff_base
        self._longest_wait = longest_wait
        self._quota: Quota | None = None

    # Companies

    def create_company(
        self, *, name: str, tags: Mapping[str, str], description: str | None = None, idempotency_key: str
    ) -> Company:
        """`POST /companies`; the guide, "Create a company".

        Codat drops the characters of `name` that it does not allow: send what ``mapping.codat_name`` makes and compare
        with the reply.
        """
        body = {"name": name, "tags": dict(tags)} | _given(description=description)
        return self._call(
            schemas.company, "POST", _COMPANIES, body=body, idempotency_key=idempotency_key, refused_name=name
        )

    def get_company(self, company_id: str) -> Company:
        """`GET /companies/{companyId}`, with the company's connections."""
        return self._call(schemas.company, "GET", _COMPANY, company_id)

    def find_companies_by_tag(self, key: str, value: str) -> list[Company]:
        """`GET /companies?tags=key=value`: every company whose tag `key` is exactly `value`.

        Raises ValueError when the pair holds characters that mean something in Codat's tag query.
        """
        if any(character in key + value for character in "&|=~!"):
            raise ValueError("a tag with the characters of a query cannot be looked for")
        found = self.iter_companies(tags=f"{key}={value}")
        return [company for company in found if company.tags.get(key) == value]

    def iter_companies(self, *, page_size: int = MAX_PAGE_SIZE, tags: str | None = None) -> Iterator[Company]:
        """`GET /companies`, all pages, each company once with its connections; `tags` is a tag query of Codat's.

        Raises IncompleteListing, at the latest at its end: only an exhausted iterator may be taken for the whole list.
        """
        return self._pages(_COMPANIES, (), schemas.company, page_size, _given(tags=tags))

    def get_company_page(self, number: int, *, page_size: int = MAX_PAGE_SIZE) -> CompanyPage:
        """`GET /companies`, one page (from 1) as decoded, each company with its connections.

        A walk over the pages is complete when :class:`ListingProgress` says so.
        """
        query: dict[str, str | int] = {"page": number, "pageSize": page_size}
        return self._call(schemas.company_page, "GET", _COMPANIES, query=query)

    def update_company(
        self,
        company_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str,
    ) -> Company:
        """`PATCH /companies/{companyId}`: changes only what is given; `tags` replaces all tags.

        Raises ValueError for empty tags: Codat would wipe them, and with them the company's identity.
        """
        if tags is not None and not tags:
            raise ValueError("empty tags would wipe the company's identity in Codat")
        body = _given(name=name, description=description, tags=None if tags is None else dict(tags))
        return self._call(
            schemas.company,
            "PATCH",
            _COMPANY,
            company_id,
            body=body,
            idempotency_key=idempotency_key,
            refused_name=name or "",
        )

    def delete_company(self, company_id: str) -> None:
        """`DELETE /companies/{companyId}`: irreversible."""
        self._call(_nothing, "DELETE", _COMPANY, company_id)

    # Connections

    def create_connection(
        self, company_id: str, *, platform_key: str = BANK_FEEDS_PLATFORM_KEY, idempotency_key: str
    ) -> Connection:
        """`POST /companies/{companyId}/connections`; the guide, "Create a connection"."""
        body = {"platformKey": platform_key}
        return self._call(
            schemas.connection, "POST", _CONNECTIONS, company_id, body=body, idempotency_key=idempotency_key
        )

    def list_connections(self, company_id: str) -> list[Connection]:
        """`GET /companies/{companyId}/connections`, all pages.

        The guide's way to a fresh `link_url`, which lives one hour.
        """
        return list(self._pages(_CONNECTIONS, (company_id,), schemas.connection, MAX_PAGE_SIZE, {}))

    def get_connection(self, company_id: str, connection_id: str) -> Connection:
        """`GET /companies/{companyId}/connections/{connectionId}`, with a fresh `link_url`."""
        return self._call(schemas.connection, "GET", _CONNECTION, company_id, connection_id)

    def unlink_connection(self, company_id: str, connection_id: str, *, idempotency_key: str) -> Connection:
        """`PATCH /companies/{companyId}/connections/{connectionId}`: only a `Linked` connection can be unlinked."""
        body = {"status": "Unlinked"}
        return self._call(
            schemas.connection,
            "PATCH",
            _CONNECTION,
            company_id,
            connection_id,
            body=body,
            idempotency_key=idempotency_key,
        )

    def delete_connection(self, company_id: str, connection_id: str) -> None:
        """`DELETE /companies/{companyId}/connections/{connectionId}`: irreversible."""
        self._call(_nothing, "DELETE", _CONNECTION, company_id, connection_id)

    # Source accounts

    def list_source_accounts(self, company_id: str, connection_id: str) -> list[SourceAccount]:
        """`GET .../connectionInfo/bankFeedAccounts`: all accounts of the connection, of either shape. Not paged."""
        return self._call(schemas.source_accounts, "GET", _ACCOUNTS, company_id, connection_id)

    def create_source_account(
        self, company_id: str, connection_id: str, account: Mapping[str, object], *, idempotency_key: str
    ) -> SourceAccount:
        """`POST .../connectionInfo/bankFeedAccounts`; the guide, "Create a source account".

        `account`: as ``mapping.source_account_body`` makes it. A duplicate id is a BadRequest or a Conflict.
        """
        return self._call(
            schemas.source_account,
            "POST",
            _ACCOUNTS,
            company_id,
            connection_id,
            body=dict(account),
            idempotency_key=idempotency_key,
        )

    def create_source_accounts(
        self, company_id: str, connection_id: str, accounts: Sequence[Mapping[str, object]], *, idempotency_key: str
    ) -> BatchResult:
        """`POST .../connectionInfo/bankFeedAccounts/batch`: 201 all, 207 some, 409 none created.

        Each account's fate is in the result; a 409 with that list is no error of the call.
        """
        return self._call(
            schemas.batch_result,
            "POST",
            _BATCH,
            company_id,
            connection_id,
            body=[dict(account) for account in accounts],
            idempotency_key=idempotency_key,
            is_answer=_is_batch_answer,
        )

    def put_source_accounts(
        self, company_id: str, connection_id: str, accounts: Sequence[Mapping[str, object]]
    ) -> list[SourceAccount]:
        """`PUT .../connectionInfo/bankFeedAccounts`: the guide's way to add accounts.

        Codat withdrew it in November 2023 in favour of :meth:`create_source_accounts`.
        """
        body = [dict(account) for account in accounts]
        return self._call(schemas.source_accounts, "PUT", _ACCOUNTS, company_id, connection_id, body=body)

    def update_source_account(
        self,
        company_id: str,
        connection_id: str,
        account_id: str,
        *,
        name: str | None = None,
        status: str | None = None,
        balance: Decimal | None = None,
        idempotency_key: str,
    ) -> SourceAccount:
        """`PATCH .../connectionInfo/bankFeedAccounts/{accountId}`: changes only what is given.

        `status` can only become ``"disconnected"``; `balance` changes only while the account is not connected.
        """
        number = None if balance is None else schemas.json_number(balance)
        body = {"id": account_id} | _given(accountName=name, status=status, balance=number)
        return self._call(
            schemas.source_account,
            "PATCH",
            _ACCOUNT,
            company_id,
            connection_id,
            account_id,
            body=body,
            idempotency_key=idempotency_key,
            refused_name=name or "",
        )

    def delete_source_account(self, company_id: str, connection_id: str, account_id: str) -> None:
        """`DELETE .../connectionInfo/bankFeedAccounts/{accountId}`: also removes its mapping.

        The account in QuickBooks stays.
        """
        self._call(_nothing, "DELETE", _ACCOUNT, company_id, connection_id, account_id)

    # QuickBooks credentials

    def generate_credentials(self, company_id: str, connection_id: str, *, idempotency_key: str) -> Credentials:
        """`POST .../bankFeedAccounts/credentials`: adds a set; older sets stay valid."""
        return self._call(
            schemas.credentials,
            "POST",
            _CREDENTIALS,
            company_id,
            connection_id,
            body={},
            idempotency_key=idempotency_key,
        )

    def revoke_credentials(self, company_id: str, connection_id: str) -> None:
        """`DELETE .../bankFeedAccounts/credentials`: revokes *all* sets of the connection; feeds that use them stop."""
        self._call(_nothing, "DELETE", _CREDENTIALS, company_id, connection_id)

    # One call

    def _call(
        self,
        parse: Callable[[Any, datetime], T],
        method: Method,
        template: str,
        *ids: str,
        query: Mapping[str, str | int] | None = None,
        body: object = None,
        idempotency_key: str | None = None,
        is_answer: Callable[[Reply], bool] = _is_success,
        refused_name: str = "",
    ) -> T:
        """Send one request and parse its reply; a read is tried again while the error allows it and the time lasts."""
        request = Request(method, template, _path(template, ids), query or {}, body, idempotency_key, refused_name)
        deadline = time.monotonic() + TOTAL_TIMEOUT
        retries = 0 if request.is_write else self._get_retries
        attempt = 0
        while True:
            try:
                return self._try(request, parse, is_answer, deadline)
            except CodatError as error:
                wait = self._wait_before_retry(error, attempt)
                if attempt >= retries or wait is None or time.monotonic() + wait >= deadline:
                    raise
            time.sleep(wait)
            attempt += 1

    def _try(
        self,
        request: Request,
        parse: Callable[[Any, datetime], T],
        is_answer: Callable[[Reply], bool],
        deadline: float,
    ) -> T:
        self._refuse_without_quota(request)
        if self._limiter is not None:
            self._limiter.acquire()
        reply = self._exchange(request, deadline)
        self._note_quota(reply)
        if not is_answer(reply):
            raise refusal(request, reply, self._secrets)
        try:
            return parse(reply.data, reply.read_at)
        except MalformedReply as error:
            error.status = reply.status
            error.outcome_unknown = request.is_write
            # The same key would bring back the same unreadable reply.
            error.new_key_needed = request.idempotency_key is not None
            raise

    def _exchange(self, request: Request, deadline: float) -> Reply:
        """Do the HTTP exchange and log it in one line: no ids, no headers, no bodies."""
        line = log.bind(method=request.method, route=request.template)
        started = time.monotonic()
        try:
            reply = self._transport.exchange(request, deadline=deadline)
        except CodatError as error:
            line.warning("codat_call", error=type(error).__name__, ms=_milliseconds_since(started))
            raise
        write_line = line.info if reply.ok else line.warning
        write_line(
            "codat_call", status=reply.status, ms=_milliseconds_since(started), correlation_id=reply.correlation_id
        )
        return reply

    def _wait_before_retry(self, error: CodatError, attempt: int) -> float | None:
        """Seconds to wait before trying a read again; None when trying again now is of no use."""
        if not error.retryable or isinstance(error, QuotaExhausted | LimiterBusy):
            return None
        asked = error.retry_after or 0.0
        if asked > self._longest_wait:
            return None
        # Full jitter: many workers that failed together must not come back together.
        return asked + random.uniform(0, self._backoff_base * 2**attempt)  # noqa: S311 - no secret

    # Quota

    def _refuse_without_quota(self, request: Request) -> None:
        """Spare Codat and ourselves a request whose refusal is certain."""
        quota, now = self._quota, datetime.now(UTC)
        if quota is not None and quota.exhausted(now):
            raise QuotaExhausted(
                f"{request.method} {request.template}: not sent, no quota left",
                retry_after=seconds_until(quota.reset, now),
            )

    def _note_quota(self, reply: Reply) -> None:
        quota = read_quota(reply)
        if quota is None:
            return
        self._quota = quota
        if self._on_quota is None:
            return
        try:
            self._on_quota(quota)
        except Exception:
            # Whoever keeps the figures may fail; the call itself has succeeded and its outcome must not be lost.
            log.exception("codat_quota_observer_failed")

    # Listings

    def _pages(
        self,
        template: str,
        ids: tuple[str, ...],
        parse: Callable[[object, datetime], L],
        page_size: int,
        query: Mapping[str, str],
    ) -> Iterator[L]:
        """Yield each object of a paged listing once. Raises IncompleteListing when the pages do not add up.

        Pages are counted, not followed by their links: a link must not choose where our key is sent.
        """
        progress: ListingProgress[str] = ListingProgress()
        while not progress.is_complete:
            page_query: dict[str, str | int] = {**query, "page": progress.next_page, "pageSize": page_size}
            page = self._call(schemas.page_of(parse), "GET", template, *ids, query=page_query)
            items = {item.id: item for item in page.items}
            fresh = progress.take(items, total=page.total, has_next=page.has_next)
            yield from (items[identity] for identity in fresh)
            progress.check()

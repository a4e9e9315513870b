"""One HTTP exchange with Codat: send, read the whole reply in time, and turn every failure into a CodatError."""

import email.utils
import json
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Literal, NoReturn, TypeAlias

import requests
import urllib3
from requests.adapters import HTTPAdapter

from . import schemas
from .errors import (
    CodatError,
    ConnectionLost,
    InProgress,
    QuotaExhausted,
    RateLimited,
    ServerError,
    Timeout,
    Unreachable,
    error_class,
)
from .redaction import scrub

POOL_SIZE = 10
_CHUNK = 64 * 1024

Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `template` is the path as the documentation writes it, for logs; `path` has the ids in it."""

    method: Method
    template: str
    path: str
    query: Mapping[str, str | int]
    body: object
    idempotency_key: str | None
    refused_name: str = ""
    """The name that a refusal may be about, for the staff's message."""

    @property
    def is_write(self) -> bool:
        """Whether Codat may have changed something when the reply is lost."""
        return self.method != "GET"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply.

    `data` is its JSON with fractions as Decimal, None where there was none to read; `read_at` is when the request was
    sent.
    """

    status: int
    headers: Mapping[str, str]
    data: Any
    read_at: datetime

    @property
    def ok(self) -> bool:
        """Whether Codat did what was asked. Only the HTTP status is trusted, not the body's."""
        return 200 <= self.status <= 299

    @property
    def correlation_id(self) -> str | None:
        """What Codat's support asks for; only error bodies carry it."""
        value = self.data.get("correlationId") if isinstance(self.data, Mapping) else None
        return value if isinstance(value, str) else None


class _ApiKey(requests.auth.AuthBase):
    """Basic authentication as Codat wants it: the key alone, without a user name.

    It is given to requests as `auth`, so that a .netrc cannot replace it.
    """

    def __init__(self, header: str) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._header
        return request


class Transport:
    """A pooled session to one base URL. Nothing is retried and no redirect is followed here."""

    def __init__(self, base_url: str, authorization: str, *, connect_timeout: float, read_timeout: float) -> None:
        self._base_url = base_url.rstrip("/")
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._auth = _ApiKey(authorization)
        self._pid = os.getpid()
        self._session = self._new_session()

    def exchange(self, request: Request, *, deadline: float) -> Reply:
        """Send `request` and read its reply before `deadline` (``time.monotonic()``).

        Raises Unreachable, Timeout or ConnectionLost. A reply of any status is returned.
        """
        read_at = datetime.now(UTC)
        try:
            with self._send(request, deadline) as response:
                return Reply(response.status_code, response.headers, self._read(response, deadline), read_at)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            failure = _failure(error, request)
        # Raised here, outside the handler: the library's exception holds the request and with it our key.
        raise failure

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        session.auth = self._auth
        session.headers["Accept"] = "application/json"
        # Threads share the session: it must not change with what is received.
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=POOL_SIZE, max_retries=0))
        return session

    def _own_session(self) -> requests.Session:
        """The session of this process: a forked child must not read the replies to its parent."""
        if self._pid != os.getpid():
            self._session, self._pid = self._new_session(), os.getpid()
        return self._session

    def _send(self, request: Request, deadline: float) -> requests.Response:
        left = max(deadline - time.monotonic(), 0.001)
        headers = {"Idempotency-Key": request.idempotency_key} if request.idempotency_key else {}
        return self._own_session().request(
            request.method,
            f"{self._base_url}{request.path}",
            params=request.query,
            json=request.body,
            headers=headers,
            timeout=(min(self._connect_timeout, left), min(self._read_timeout, left)),
            allow_redirects=False,
            stream=True,
        )

    def _read(self, response: requests.Response, deadline: float) -> Any:
        """Read and parse the body, giving up at the deadline.

        The read timeout alone would let a slow trickle last for ever.
        """
        body = bytearray()
        try:
            # read1 returns what has come; iter_content would wait for a whole chunk.
            while chunk := response.raw.read1(_CHUNK, decode_content=True):
                body += chunk
                if time.monotonic() > deadline:
                    raise requests.ReadTimeout
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError):
            if response.status_code < 300:
                raise
            # A refusal is a refusal even when its explanation was lost.
            return None
        try:
            return json.loads(body, parse_float=Decimal, parse_constant=_no_constant) if body else None
        except ValueError:
            return None


def _no_constant(name: str) -> NoReturn:
    """Python's parser would accept NaN and Infinity; JSON has neither, nor has a database's JSON column."""
    raise ValueError(name)


def refusal(request: Request, reply: Reply, secrets: tuple[str, ...]) -> CodatError:
    """The error that a reply other than 2xx stands for. `secrets` are cut out of Codat's texts."""
    details = scrub("; ".join(_messages(reply.data)), secrets)
    kind = error_class(reply.status)
    retry_after = parse_retry_after(reply.headers.get("Retry-After"), reply.read_at)
    if kind is RateLimited and (quota := read_quota(reply)) is not None and quota.remaining <= 0:
        kind = QuotaExhausted
        retry_after = seconds_until(quota.reset, reply.read_at) or retry_after
    if reply.status == 409 and request.idempotency_key and "progress" in details.lower():
        kind = InProgress
    replayed = request.is_write and kind is ServerError
    return kind(
        f"{request.method} {request.template}: {reply.status}",
        status=reply.status,
        correlation_id=reply.correlation_id,
        retry_after=retry_after,
        details=details,
        refused_name=request.refused_name,
        outcome_unknown=replayed,
        new_key_needed=replayed and request.idempotency_key is not None,
    )


def read_quota(reply: Reply) -> schemas.Quota | None:
    """Read the `X-Rate-Limit-*` headers; None where they are missing or senseless."""
    try:
        limit = int(reply.headers["X-Rate-Limit-Limit"])
        remaining = int(reply.headers["X-Rate-Limit-Remaining"])
    except (KeyError, ValueError):
        return None
    return schemas.Quota(limit, remaining, _moment(reply.headers.get("X-Rate-Limit-Reset", "")), reply.read_at)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Read `Retry-After`, seconds or a date, as seconds from `now`; None where it is missing or senseless."""
    if value is None:
        return None
    if value.isascii() and value.strip().isdigit():
        return float(value)
    return seconds_until(_moment(value), now)


def seconds_until(moment: datetime | None, now: datetime) -> float | None:
    """Seconds from `now` to `moment`, never negative; None where there is no moment."""
    return None if moment is None else max(0.0, (moment - now).total_seconds())


def _moment(value: str) -> datetime | None:
    """Read a header's date: as ISO 8601, or as HTTP writes dates."""
    moment = schemas.parse_time(value)
    if moment is not None:
        return moment
    try:
        parsed = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def _messages(data: object) -> list[str]:
    """Codat's own words about a refusal: the validation messages, or else the general error."""
    if not isinstance(data, Mapping):
        return []
    validation = data.get("validation")
    found = validation.get("errors") if isinstance(validation, Mapping) else None
    items = [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []
    messages = [": ".join(str(item[key]) for key in ("itemId", "message") if item.get(key)) for item in items]
    error = data.get("error")
    return [message for message in messages if message] or ([error] if isinstance(error, str) and error else [])


def _failure(error: Exception, request: Request) -> CodatError:
    """Which failure a library's exception is, and whether the request may have reached Codat."""
    kind = _failure_class(error)
    sent = not (kind is Unreachable or isinstance(error, requests.ConnectTimeout))
    return kind(
        f"{request.method} {request.template}: {type(error).__name__}", outcome_unknown=request.is_write and sent
    )


def _failure_class(error: Exception) -> type[CodatError]:
    causes = _causes(error)
    if isinstance(error, requests.Timeout) or any(isinstance(c, urllib3.exceptions.ReadTimeoutError) for c in causes):
        return Timeout
    before_sending = (
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ProxyError,
        ssl.SSLCertVerificationError,
    )
    if any(isinstance(cause, before_sending) for cause in causes):
        return Unreachable
    return ConnectionLost


def _causes(error: BaseException) -> list[BaseException]:
    """`error` and the exceptions it wraps: requests and urllib3 keep them as arguments and reasons as well."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop()
        if isinstance(current, BaseException) and current not in found:
            found.append(current)
            waiting += [*current.args, getattr(current, "reason", None), current.__cause__, current.__context__]
    return found

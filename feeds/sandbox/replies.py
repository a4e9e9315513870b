"""What the stand-in answers: plain replies, Codat's error body, and pages of a list."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from feeds.sandbox.store import Record, dump

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 5000
RETRYABLE = {
    HTTPStatus.TOO_MANY_REQUESTS: "True",
    HTTPStatus.SERVICE_UNAVAILABLE: "True",
    500: "Unknown",
    409: "Unknown",
}


@dataclass(frozen=True)
class Reply:
    """One HTTP reply: status, JSON text (empty for none) and extra headers."""

    status: int
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """A request answered with Codat's error body.

    Args:
        status: HTTP status.
        message: What went wrong, for ``error``.
        item: The field at fault, for ``validation.errors[].itemId``.
        headers: Extra headers, e.g. ``Retry-After``.
    """

    def __init__(
        self, status: int, message: str, item: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.item = item
        self.headers = headers or {}

    def reply(self) -> Reply:
        """Return the error as Codat words it; each has its own correlation id."""
        validation: Record = {"errors": [], "warnings": []}
        if self.item is not None:
            entry = {"itemId": self.item, "message": self.message, "validatorName": "SandboxValidator"}
            validation["errors"].append(entry)
        body = {
            "statusCode": self.status,
            "service": "ClientsApi",
            "error": self.message,
            "correlationId": uuid.uuid4().hex,
            "validation": validation,
            "canBeRetried": RETRYABLE.get(self.status, "False"),
            "detailedErrorCode": 0,
        }
        return Reply(self.status, dump(body), self.headers)


def ok(value: Any, status: int = 200) -> Reply:
    """Answer a JSON value."""
    return Reply(status, dump(value))


NO_CONTENT = Reply(204)


@dataclass(frozen=True)
class Page:
    """Which part of a list is asked for (``page`` from 1) and the other query parameters, kept in the links."""

    number: int
    size: int
    path: str
    kept: dict[str, str]

    @property
    def first(self) -> int:
        """Position, from 1, of the page's first row."""
        return (self.number - 1) * self.size + 1

    @property
    def last(self) -> int:
        """Position of the page's last row, were the page full."""
        return self.number * self.size

    def reply(self, results: Iterable[str], total: int) -> Reply:
        """Answer one page of already serialised objects out of ``total``."""
        links = {"self": self._href(self.number), "current": self._href(self.number)}
        if self.last < total:
            links["next"] = self._href(self.number + 1)
        if self.number > 1:
            links["previous"] = self._href(self.number - 1)
        envelope = {"pageNumber": self.number, "pageSize": self.size, "totalResults": total, "_links": links}
        return Reply(200, '{"results":[' + ",".join(results) + "]," + dump(envelope)[1:])

    def _href(self, number: int) -> dict[str, str]:
        return {"href": f"{self.path}?{urlencode({**self.kept, 'page': number, 'pageSize': self.size})}"}


def page_of(path: str, query: Callable[[str], str | None], kept: Iterable[str] = ()) -> Page:
    """Read ``page`` and ``pageSize`` from the query.

    Raises:
        Refusal: 400, one of them is not a number in range.
    """
    number = _whole(query("page"), 1, "page", 10**9)
    size = _whole(query("pageSize"), DEFAULT_PAGE_SIZE, "pageSize", MAX_PAGE_SIZE)
    values = {name: value for name in kept if (value := query(name)) is not None}
    return Page(number, size, path, values)


def _whole(text: str | None, default: int, name: str, most: int) -> int:
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise Refusal(400, f"{name} must be a whole number from 1 to {most}.", name)
    return int(text)

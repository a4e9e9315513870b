"""Every answer that is no success: `application/problem+json` (RFC 9457), from one table that the documents follow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.http import HttpResponse

CONTENT_TYPE = "application/problem+json"
TYPE = "urn:bank-feeds:problem:"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: its name for programs, its HTTP status, and what to do about it."""

    code: str
    status: int
    title: str
    advice: str


KINDS: dict[str, Kind] = {
    kind.code: kind
    for kind in (
        Kind("malformed-request", 400, "The request cannot be read.", "Send one JSON object, in UTF-8."),
        Kind(
            "key-refused",
            401,
            "There is no key, or it opens nothing.",
            "Send Authorization: Bearer and the key. It may be mistyped, expired or revoked: an administrator of the "
            "back office sees which.",
        ),
        Kind(
            "scope-missing",
            403,
            "The key may not do this.",
            "Ask an administrator of the back office for a key that may.",
        ),
        Kind(
            "customer-unknown",
            404,
            "There is no customer with this number.",
            "To make the customer, send POST with customer.",
        ),
        Kind("no-such-address", 404, "There is nothing at this address.", "The addresses are in openapi.json."),
        Kind("method-not-allowed", 405, "This address does not know the method.", "Use one that Allow names."),
        Kind(
            "customer-differs",
            409,
            "The customer is known with other values.",
            "Nothing was changed: errors names the places. Send the customer number alone, or have a colleague correct "
            "the customer in the back office.",
        ),
        Kind(
            "customer-on-hold",
            409,
            "The customer is on hold.",
            "A colleague has asked for the end of its feed, or it is being made again. Try later.",
        ),
        Kind(
            "customer-needs-attention",
            409,
            "The customer waits for a colleague.",
            "A step of the onboarding was refused; the back office shows which. Try again when it is corrected.",
        ),
        Kind(
            "customer-ended",
            409,
            "The customer's feed was ended.",
            "If the customer comes back, a colleague presses Onboard in the back office.",
        ),
        Kind("body-too-large", 413, "The request is too long.", "Send at most 64 KiB."),
        Kind("wrong-content-type", 415, "The request is not JSON.", "Send Content-Type: application/json."),
        Kind(
            "request-invalid",
            422,
            "The request does not have the form that is asked for.",
            "errors names the places and what is wrong there.",
        ),
        Kind(
            "customer-not-accepted",
            422,
            "The customer cannot be made from these values.",
            "Nothing was stored: errors names the places and what is wrong there.",
        ),
        Kind(
            "too-many-requests",
            429,
            "Too many requests.",
            "Wait as many seconds as Retry-After says. Ask for the state with GET, not with POST.",
        ),
        Kind(
            "internal-error",
            500,
            "This system met a fault of its own.",
            "Try again later: repeating is safe. An administrator finds it in the log.",
        ),
    )
}
"""All kinds by name."""


class Problem(Exception):
    """To be answered as a problem. `errors`: JSON pointer into the body and what is wrong there, of each place."""

    def __init__(
        self, code: str, *, errors: Sequence[tuple[str, str]] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(code)
        self.kind = KINDS[code]
        self.errors = errors
        self.headers = headers or {}


def answer(problem: Problem) -> HttpResponse:
    """The problem as a response."""
    kind = problem.kind
    body = {
        "type": TYPE + kind.code,
        "title": kind.title,
        "status": kind.status,
        "detail": kind.advice,
        "errors": [{"pointer": pointer, "detail": detail} for pointer, detail in problem.errors],
    }
    content = json.dumps(body).encode()
    # Where Django's own middleware has run already, nobody else says how long it is.
    headers = {"Content-Length": str(len(content)), **problem.headers}
    return HttpResponse(content, status=kind.status, content_type=CONTENT_TYPE, headers=headers)


FOR_STATUS = {
    400: "malformed-request",
    401: "key-refused",
    403: "scope-missing",
    404: "no-such-address",
    405: "method-not-allowed",
    413: "body-too-large",
    415: "wrong-content-type",
    429: "too-many-requests",
}
"""What an answer of that status becomes which was not made here."""

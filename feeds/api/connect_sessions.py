"""The addresses: `POST /api/v1/connect-sessions`, `GET /api/v1/connect-sessions/{customer_number}`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse
from django.utils import translation
from django.utils.functional import cached_property
from ninja import NinjaAPI, Path, Status
from ninja.errors import HttpError, ValidationError
from ninja.openapi.schema import OpenAPISchema

from feeds.api import problems
from feeds.api.keys import BearerKey, address_of
from feeds.api.problems import KINDS, Kind, Problem
from feeds.api.schemas import (
    ConnectSession,
    ConnectSessionRequest,
    CustomerNumber,
    OpenedConnectSession,
    ProblemDetails,
)
from feeds.models import ApiKey
from feeds.services import api_keys, connect_sessions
from feeds.services.connect_sessions import Differs, NoSuchCustomer, NotAccepted, SessionState, Shut
from feeds.states import ApiScope

SHUT_CODES = {
    SessionState.ON_HOLD: "customer-on-hold",
    SessionState.NEEDS_ATTENTION: "customer-needs-attention",
    SessionState.ENDED: "customer-ended",
}
EVERYWHERE = ("key-refused", "scope-missing", "request-invalid", "too-many-requests", "internal-error")
OF_POST = (
    *EVERYWHERE, "malformed-request", "customer-unknown", "customer-differs", *SHUT_CODES.values(), "body-too-large",
    "wrong-content-type", "customer-not-accepted",
)  # fmt: skip
OF_GET = (*EVERYWHERE, "customer-unknown")


class Api(NinjaAPI):
    """django-ninja's, with problems described as what they are."""

    @cached_property
    def _description(self) -> OpenAPISchema:
        schema = super().get_openapi_schema()
        for path in schema["paths"].values():
            for operation in path.values():
                for status, response in operation["responses"].items():
                    if int(status) >= 400:
                        response["content"] = {problems.CONTENT_TYPE: next(iter(response["content"].values()))}
        return schema

    def get_openapi_schema(self, **_options: Any) -> OpenAPISchema:
        """The description of the API: made once, because anybody may ask for it."""
        return self._description


api = Api(
    title="Bank Feeds Back Office",
    version="1.0.0",
    description=(
        "Brings a customer of the bank to QuickBooks Online bank feeds without staff. Texts are in English; programs "
        "decide by `state` and by the `type` of a problem. Every call may be repeated: one customer number is one "
        "customer."
    ),
    urls_namespace="api",
    # The interactive pages load scripts from elsewhere, which our content security policy refuses.
    docs_url=None,
)


def _answers(codes: tuple[str, ...], **successes: Any) -> dict[Any, Any]:
    """The `response` of an operation: its successes, and a problem for each status of `codes`."""
    statuses = frozenset(KINDS[code].status for code in codes)
    return {**{int(name.removeprefix("on_")): schema for name, schema in successes.items()}, statuses: ProblemDetails}


def _described(codes: tuple[str, ...], **headers: Any) -> dict[str, Any]:
    """What the description says about the problems: their names, and the headers that come with them."""
    by_status: dict[int, list[Kind]] = {}
    for code in codes:
        by_status.setdefault(KINDS[code].status, []).append(KINDS[code])
    described: dict[int, dict[str, Any]] = {
        status: {"description": " ".join(f"`{kind.code}`: {kind.title}" for kind in kinds)}
        for status, kinds in by_status.items()
    }
    described[401]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}}
    described[429]["headers"] = {
        "Retry-After": {
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
            "required": True,
            "description": "Seconds to wait.",
        }
    }
    return {"responses": described}


@api.post(
    "/connect-sessions",
    auth=BearerKey(ApiScope.WRITE),
    response=_answers(OF_POST, on_200=OpenedConnectSession, on_201=OpenedConnectSession),
    openapi_extra=_described(OF_POST),
    summary="Bring a customer on the way, and get the link",
    url_name="open",
)
def open_connect_session(request: HttpRequest, body: ConnectSessionRequest) -> Status[OpenedConnectSession]:
    """Makes the customer if it is new (201), starts its onboarding if nobody has, and makes a link to its own page.

    Never waits for Codat. Each call makes a link of its own; the last ten of a customer work. Repeating is safe:
    calls with the same customer number make one customer, even when they come at once.
    """
    key = _key(request)
    actor = api_keys.actor(key, address=address_of(request))
    with _as_problems():
        opened = connect_sessions.open_session(body.customer_number, body.wanted(), key=key, actor=actor)
    return Status(201 if opened.is_new else 200, OpenedConnectSession.of_opened(opened))


@api.get(
    "/connect-sessions/{customer_number}",
    auth=BearerKey(ApiScope.READ),
    response=_answers(OF_GET, on_200=ConnectSession),
    openapi_extra=_described(OF_GET),
    summary="Ask how far a customer is",
    url_name="read",
)
def read_connect_session(request: HttpRequest, customer_number: Annotated[CustomerNumber, Path()]) -> ConnectSession:
    """Reads what is known here and asks Codat nothing: as often as you like, within the limit. It holds no link."""
    with _as_problems():
        return ConnectSession.of(connect_sessions.read_session(customer_number))


def _key(request: HttpRequest) -> ApiKey:
    key: ApiKey = request.auth  # type: ignore[attr-defined]  # set by the library when the key was right
    return key


@contextmanager
def _as_problems() -> Iterator[None]:
    """What a service refuses, as the API says it."""
    try:
        # Reasons are the import's own sentences. The caller is a program, whatever language its requests ask for.
        with translation.override("en"):
            yield
    except NoSuchCustomer:
        raise Problem("customer-unknown") from None
    except Differs as error:
        held = "Another value is held."
        raise Problem("customer-differs", errors=[(pointer, held) for pointer in error.pointers]) from None
    except NotAccepted as error:
        raise Problem("customer-not-accepted", errors=error.problems) from None
    except Shut as error:
        raise Problem(SHUT_CODES[error.state]) from None


# --- Errors ----------------------------------------------------------------------------------------------------------
@api.exception_handler(Problem)
def _problem(request: HttpRequest, error: Problem) -> HttpResponse:
    return problems.answer(error)


@api.exception_handler(HttpError)
def _unreadable(request: HttpRequest, error: HttpError) -> HttpResponse:
    """The library refuses a body that is no JSON."""
    return problems.answer(Problem("malformed-request"))


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """Where and what, without what was sent: it holds account numbers."""
    places = [(_pointer(found["loc"]), found["msg"].removeprefix("Value error, ")) for found in error.errors]
    return problems.answer(Problem("request-invalid", errors=places))


def _pointer(place: tuple[str | int, ...]) -> str:
    """("body", "body", "customer", "accounts", 0) -> "/customer/accounts/0"; ("path", "customer_number") likewise."""
    inside = place[2:] if place[0] == "body" else place[1:]
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in inside)

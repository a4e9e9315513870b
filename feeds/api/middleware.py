"""Below /api/ no answer is a page: what other parts of the product answer becomes a problem too."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from feeds.api import problems
from feeds.api.problems import Problem

PREFIX = "/api/"
KEPT_HEADERS = ("Allow", "Retry-After", "WWW-Authenticate")


class ApiMiddleware:
    """Stands before everything that may refuse a request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Refuse a body that is too long before a byte of it is read, then go on; nothing is stored on the way."""
        if not request.path.startswith(PREFIX):
            return self.get_response(request)
        response = self._answer(request)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    def _answer(self, request: HttpRequest) -> HttpResponse:
        announced = request.META.get("CONTENT_LENGTH") or "0"
        if announced.isdecimal() and int(announced) > settings.API_MAX_BYTES:
            return problems.answer(Problem("body-too-large"))
        response = self.get_response(request)
        if response.status_code < 400 or response.headers["Content-Type"] == problems.CONTENT_TYPE:
            return response
        code = problems.FOR_STATUS.get(response.status_code, "internal-error")
        kept = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
        return problems.answer(Problem(code, headers=kept))

"""The lines that the log has of each request."""

from __future__ import annotations

import re

from django.http import HttpRequest
from django_structlog.middlewares import RequestMiddleware

from backoffice.logs import hide_secrets

_NUMBER = re.compile(r"(?P<date>\b(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])\b)|\d(?:(?:-|\+|%20)?\d){7,}")
"""Eight digits, however a browser sends what stands between them. Dates are none."""


class RequestLines(RequestMiddleware):
    """django-structlog's, without the key in the address of a customer's page, and without long numbers.

    People type account numbers into every search box, also where nothing is found by them.
    """

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        """Method and address."""
        path, mark, query = request.get_full_path().partition("?")
        query = _NUMBER.sub(lambda number: number["date"] or f"…{number[0][-4:]}", query)
        return hide_secrets(f"{request.method} {path}{mark}{query}")

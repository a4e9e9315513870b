"""The lines that the log has of each request."""

from __future__ import annotations

from django.http import HttpRequest
from django_structlog.middlewares import RequestMiddleware

from backoffice.logs import hide_secrets


class RequestLines(RequestMiddleware):
    """django-structlog's, without the key in the address of a customer's page."""

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        """Method and address."""
        return hide_secrets(f"{request.method} {request.get_full_path()}")

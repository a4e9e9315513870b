"""Who meets a failure around the views: staff read staff's page, and a customer the customer's, with whom to call."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.csrf import csrf_failure
from django.views.defaults import server_error

from feeds.views import connect

CUSTOMERS = "/connect/"


def forged(request: HttpRequest, reason: str = "") -> HttpResponse:
    """403: a form without the cookie that belongs to it. Most often the browser keeps no cookies."""
    if request.path.startswith(CUSTOMERS):
        return connect.failed(request, "connect/no_cookie.html", status=403)
    return csrf_failure(request, reason)


def fault(request: HttpRequest) -> HttpResponse:
    """500: a mistake of ours, of which the page shows nothing."""
    if request.path.startswith(CUSTOMERS):
        return connect.failed(request, "connect/failed.html", status=500)
    return server_error(request)

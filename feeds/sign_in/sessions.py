"""How long one stays signed in: `SESSION_IDLE_MINUTES` without activity, `SESSION_ABSOLUTE_HOURS` at most."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME, logout
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import Resolver404, resolve, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from feeds.services import rights

SIGNED_IN_AT = "signed_in_at"
SEEN_AT = "seen_at"
"""Keys in the session; whole seconds since the epoch."""
NOTE_EVERY = 60
"""Seconds between two notes of being active: a page view must not cost a write."""
WARN_BEFORE = 120
"""Seconds before the end at which an open page warns."""
IDLE = "idle"
ABSOLUTE = "absolute"
NOT_SAVED = "not_saved"
BUTTONS = frozenset({"account_logout", "session_left"})
"""Names of addresses that answer whoever looks there, and to which nobody goes."""


def begin(sender: Any, request: HttpRequest, **_kwargs: Any) -> None:
    """Start both clocks; connected to Django's `user_logged_in`."""
    request.session[SIGNED_IN_AT] = request.session[SEEN_AT] = int(time.time())


def signed_in_seconds_ago(request: HttpRequest) -> float:
    """How long ago this session was signed in; without end when it never was."""
    at = request.session.get(SIGNED_IN_AT)
    return time.time() - at if isinstance(at, int) else float("inf")


def seconds_left(request: HttpRequest) -> int:
    """Seconds until this session ends if nobody does anything; 0 when it is over, or was never begun."""
    signed_in, seen = request.session.get(SIGNED_IN_AT), request.session.get(SEEN_AT)
    if not (isinstance(signed_in, int) and isinstance(seen, int)):
        return 0
    return max(0, int(min(signed_in + _absolute(), seen + _idle()) - time.time()))


def _idle() -> int:
    return int(settings.SESSION_IDLE_MINUTES * 60)


def _absolute() -> int:
    return int(settings.SESSION_ABSOLUTE_HOURS * 3600)


class SessionLimitsMiddleware:
    """Ends a session that is over, and says why on the sign-in page, which leads back to where one was."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer, note that somebody is there, or lead to the sign-in page."""
        if not request.user.is_authenticated:
            return self.get_response(request)
        if not seconds_left(request):
            # A script learns that it is over; the session stays for the person, who is then told why.
            return JsonResponse({"seconds_left": 0}, status=401) if _is_background(request) else _end(request)
        now = int(time.time())
        if not _is_background(request) and now - request.session[SEEN_AT] >= NOTE_EVERY:
            request.session[SEEN_AT] = now
        return self.get_response(request)


def _is_background(request: HttpRequest) -> bool:
    """Whether a script of a page asks by itself: a page left open must not keep its session alive."""
    by_script = request.headers.get("Sec-Fetch-Mode", "navigate") != "navigate" or "X-Requested-With" in request.headers
    return by_script and request.method in ("GET", "HEAD")


def _end(request: HttpRequest) -> HttpResponse:
    signed_in = request.session.get(SIGNED_IN_AT, 0)
    reasons = [ABSOLUTE if time.time() - signed_in >= _absolute() else IDLE]
    back = request.get_full_path()
    if request.method not in ("GET", "HEAD"):
        if not _is_page(request.path_info):
            back = _page_before(request)
        else:
            reasons.append(NOT_SAVED)
    logout(request)
    query = urlencode({REDIRECT_FIELD_NAME: back, "ended": reasons}, doseq=True)
    return HttpResponseRedirect(f"{reverse('account_login')}?{query}")


def _is_page(path: str) -> bool:
    """Whether somebody could look there. Where not, nothing was typed either: the form stands on another page."""
    try:
        name = resolve(path).view_name
    except Resolver404:
        return False
    page = rights.pages().get(name)
    return name not in BUTTONS and (page is None or page.see != rights.NOBODY)


def _page_before(request: HttpRequest) -> str:
    """The page on which the person pressed the button, as the browser says; else the home page."""
    before, home = request.headers.get("Referer", ""), reverse("admin:index")
    if not url_has_allowed_host_and_scheme(before, {request.get_host()}, require_https=request.is_secure()):
        return home
    parts = urlsplit(before)
    if not parts.netloc or parts.path == reverse("account_login") or not _is_page(parts.path):
        return home
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


@never_cache
@require_http_methods(["GET", "POST"])
def left(request: HttpRequest) -> JsonResponse:
    """Seconds until the session ends. GET only asks; POST is the button "Stay signed in"."""
    if not request.user.is_authenticated:
        return JsonResponse({"seconds_left": 0}, status=401)
    if request.method == "POST":
        request.session[SEEN_AT] = int(time.time())
    return JsonResponse({"seconds_left": seconds_left(request)})

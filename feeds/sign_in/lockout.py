"""The lock after failed sign-ins, of one name at one address; kept by django-axes."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from axes.handlers.proxy import AxesProxyHandler
from axes.helpers import get_credentials
from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.crypto import salted_hmac

NOBODY = "(nobody) "
"""Begins what is kept instead of a name that nobody has."""


def name_of(request: HttpRequest, credentials: Mapping[str, Any] | None = None) -> str:
    """The name that was tried, in one spelling: "RM" and "rm" are the same person, and so the same lock.

    Of a name that nobody has a keyed hash is kept: what was typed there may be somebody's password.
    """
    given = (credentials or {}).get("username") or request.POST.get("username") or ""
    name = unicodedata.normalize("NFKC", str(given)).strip().casefold()[:150].replace("\0", "")
    if not name or name.startswith(NOBODY) or User.objects.filter(username__iexact=name).exists():
        return name
    return NOBODY + salted_hmac("feeds.sign_in.lockout", name, algorithm="sha256").hexdigest()[:16]


def is_locked(request: HttpRequest, credentials: Mapping[str, Any]) -> bool:
    """Whether this name is locked at this address, so that the password will not be looked at."""
    return not AxesProxyHandler.is_allowed(request, get_credentials(**credentials))


def page(
    request: HttpRequest, _response: HttpResponse | None = None, credentials: Mapping[str, Any] | None = None
) -> HttpResponse:
    """What a locked-out person reads: the same whether the name exists, and whether the password was right."""
    minutes = settings.LOGIN_LOCK_MINUTES
    return HttpResponse(render_to_string("sign_in/locked.html", {"minutes": minutes}, request), status=429)

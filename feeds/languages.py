"""In which language a page is: the one the person chose, else the one this browser chose, else what it asks for.

What the person chose is kept in the database and copied into the session at sign-in, so that no page costs a query.
Another session of theirs that is open at that moment follows at its next sign-in.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.http import HttpRequest
from django.middleware.locale import LocaleMiddleware
from django.utils import translation
from django.utils.translation import gettext_noop

from feeds.services import preferences

SESSION_KEY = "language"

BORROWED = (
    gettext_noop("create"),
    gettext_noop("update"),
    gettext_noop("delete"),
    gettext_noop("access"),
    gettext_noop("actor email"),
    gettext_noop("remote address"),
    gettext_noop("Correlation ID"),
)
"""Words of libraries that bring no French of their own; here they are marked for ours."""


class PersonsLanguageMiddleware(LocaleMiddleware):
    """Django's own (cookie, then Accept-Language), after the choice of the signed-in person."""

    def process_request(self, request: HttpRequest) -> None:
        """Speak the person's language for the rest of the request. A request without a session costs no query."""
        chosen = request.session.get(SESSION_KEY)
        if chosen and translation.check_for_language(chosen):
            translation.activate(chosen)
            request.LANGUAGE_CODE = chosen
        else:
            super().process_request(request)


def remember(request: HttpRequest, language: str) -> None:
    """From the next request on, this session is in `language`."""
    request.session[SESSION_KEY] = language


def connect() -> None:
    """Let every way of signing in bring the person's language along (called once, when the app is ready)."""
    user_logged_in.connect(_bring_language, dispatch_uid="feeds.languages")


def _bring_language(sender: type[User], request: HttpRequest, user: User, **_kwargs: Any) -> None:
    if chosen := preferences.language_of(user):
        remember(request, chosen)

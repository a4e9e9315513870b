"""The customer's pages. No sign-in: the key in the address is the proof. Thin: `services.door` knows what to show.

GET and HEAD change nothing and never call Codat. Nothing here is cached, indexed, framed or named to another site.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import translation
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST

from feeds.models import Invitation
from feeds.services import callouts, door
from feeds.services.door import Closed
from feeds.states import Language

View = Callable[[HttpRequest, str], HttpResponse]
"""A view whose address holds a key."""

HEADERS = {
    # The address holds the key: no other site may be told it. Not "no-referrer": browsers then hide the origin of our
    # own form as well, and it would be refused as a forgery.
    "Referrer-Policy": "same-origin",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_STATUS = {Closed.PREPARING: 200, Closed.MOMENT: 200, Closed.BUSY: 503, Closed.CODAT_DOWN: 503, Closed.FAULT: 503}


def for_customers(view: View) -> View:
    """What every page of the customer's has in common: headers, and one answer for every key that opens nothing."""

    @wraps(view)
    @sensitive_variables("key")
    def run(request: HttpRequest, key: str) -> HttpResponse:
        try:
            response = view(request, key)
        except door.TooManyKnocks as error:
            response = _page(request, "connect/too_many.html", {}, status=429)
            response["Retry-After"] = str(error.retry_after)
        for name, value in HEADERS.items():
            response[name] = value
        # Django's own line about an answer that is no success would hold the whole address; `door` writes what matters.
        response._has_been_logged = True  # type: ignore[attr-defined]
        # As django-csp's decorator does it, which reads the settings too early. Browsers follow a form's redirect only
        # to where this says.
        response._csp_update = {"form-action": settings.CODAT_LINK_ORIGINS}  # type: ignore[attr-defined]
        return response

    return run


@never_cache
@csrf_protect
@require_http_methods(["GET", "HEAD", "POST"])
@for_customers
@sensitive_variables("key")
def connect(request: HttpRequest, key: str) -> HttpResponse:
    """GET: what will happen, and the button. POST: on to Codat, with a link fetched this moment (303).

    With a key that opens nothing the button asks for a new link.
    """
    presses = request.method == "POST"
    invitation = door.find(key, address=_address(request), asks=presses)
    if invitation is None:
        return _page(request, "connect/asked.html" if presses else "connect/no_such.html", {}, status=404)
    with translation.override(_language(request, invitation)):
        if presses:
            return _press(request, key, invitation)
        return _shown(request, key, invitation)


@never_cache
@csrf_protect
@require_POST
@for_customers
@sensitive_variables("key")
def opened(request: HttpRequest, key: str) -> HttpResponse:
    """The page's script tells that a person looks at it. 204 whether or not the key opens anything."""
    invitation = door.find(key, address=_address(request))
    if invitation is not None:
        door.opened(invitation)
    return HttpResponse(status=204)


def _shown(request: HttpRequest, key: str, invitation: Invitation) -> HttpResponse:
    page = door.page(invitation)
    return _page(
        request,
        f"connect/{page.standing.value}.html",
        {
            "page": page,
            "opened_url": reverse("connect-opened", args=[key]),
            "has_started": invitation.started_at is not None,
            "callout": callouts.words_in(translation.get_language() or Language.EN),
        },
    )


def _press(request: HttpRequest, key: str, invitation: Invitation) -> HttpResponse:
    tries = _tries(request)
    pressed = door.press(invitation, tries=tries)
    if pressed.closed is None:
        # 303: the browser asks for Codat's page with GET, and Back does not press again.
        return HttpResponse(status=303, headers={"Location": pressed.url})
    if pressed.closed in (Closed.CONNECTED, Closed.FINISHED):
        # Another device was quicker, or the page was older than it looked.
        return _shown(request, key, invitation)
    context: dict[str, object] = {"closed": pressed.closed, "again_after": pressed.again_after, "tries": tries + 1}
    return _page(request, "connect/closed.html", context, status=_STATUS[pressed.closed])


def _tries(request: HttpRequest) -> int:
    """How often the page has pressed again by itself: it says so. 0 for the customer's own press."""
    said = request.POST.get("tries", "")
    return int(said) if said in map(str, range(1, door.TRIES + 1)) else 0


def _language(request: HttpRequest, invitation: Invitation) -> str:
    """As the switch on the page says, else the invitation's, else what the browser asks for."""
    asked = request.GET.get("lang", "")
    if asked in Language.values:
        return asked
    return invitation.language or translation.get_language() or Language.EN


def _page(request: HttpRequest, template: str, context: dict[str, object], *, status: int = 200) -> HttpResponse:
    language = translation.get_language() or settings.LANGUAGE_CODE
    other = Language.FR if language == Language.EN else Language.EN
    shared = {
        "institution": settings.INSTITUTION_NAME,
        "logo": settings.INSTITUTION_LOGO,
        "phone": settings.INSTITUTION_PHONE,
        "other_language": other,
        "other_language_name": translation.get_language_info(other)["name_local"],
    }
    return render(request, template, shared | context, status=status)


def _address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))

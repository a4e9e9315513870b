"""The customer's pages. No sign-in: the key in the address is the proof. Thin: `services.door` knows what to show.

GET and HEAD change nothing and never call Codat. Every press is answered with a redirect (303), so that Back and a
reload never ask whether to send a form again. Nothing here is cached, indexed, framed or named to another site.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from datetime import timedelta
from functools import wraps

from django.conf import settings
from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import translation
from django.utils.cache import add_never_cache_headers
from django.utils.encoding import escape_uri_path
from django.utils.http import urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST

from feeds.models import Invitation
from feeds.services import callouts, door
from feeds.services.door import Closed, Standing
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
ASKED = "asked"
"""What a press on the page of a link that opens nothing leads to."""
TOLD_FOR = timedelta(minutes=10)
"""After this what a press led to is no news: its address shows the page as it is now."""
_SALT = "feeds.connect.told"


@dataclass(frozen=True, slots=True)
class Told:
    """What the last press led to, as the address of the next page carries it.

    `again_after`: milliseconds until the page presses again by itself, 0 for never; `tries`: how often it has.
    """

    what: str
    again_after: int = 0
    tries: int = 0

    def signed(self) -> str:
        """For an address: nobody else makes our page say it, and it grows old."""
        return signing.dumps(astuple(self), salt=_SALT)


def for_customers(view: View) -> View:
    """What every page of the customer's has in common: headers, and one answer for every key that opens nothing.

    The switch of the language works on all of them, whether or not the key opens anything.
    """

    @wraps(view)
    @sensitive_variables("key")
    def run(request: HttpRequest, key: str) -> HttpResponse:
        with ExitStack() as spoken:
            if chosen := _chosen_language(request):
                spoken.enter_context(translation.override(chosen))
            try:
                response = view(request, key)
            except door.TooManyKnocks as error:
                response = _page(request, "connect/too_many.html", {}, status=429)
                response["Retry-After"] = str(error.retry_after)
        # Django's own line about an answer that is no success would hold the whole address; `door` writes what matters.
        response._has_been_logged = True  # type: ignore[attr-defined]
        return finished(response)

    return run


def finished(response: HttpResponse) -> HttpResponse:
    """The answer with what every answer under `/connect/` carries."""
    for name, value in HEADERS.items():
        response[name] = value
    # As django-csp's decorator does it, which reads the settings too early. Browsers follow a form's redirect only
    # to where this says.
    response._csp_update = {"form-action": settings.CODAT_LINK_ORIGINS}  # type: ignore[attr-defined]
    return response


def failed(request: HttpRequest, template: str, *, status: int) -> HttpResponse:
    """A page of the customer's for what went wrong around the views: it reads no row and asks for no key."""
    with translation.override(_chosen_language(request) or translation.get_language()):
        response = finished(_page(request, template, {}, status=status))
    add_never_cache_headers(response)
    return response


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
    # Mail programs and people add a slash; a key has none.
    invitation = door.find(key.rstrip("/"), address=_address(request), asks=presses)
    if invitation is None:
        if presses:
            return _see(request, Told(ASKED))
        told = _told(request)
        was_asked = told is not None and told.what == ASKED
        return _page(request, "connect/asked.html" if was_asked else "connect/no_such.html", {}, status=404)
    with translation.override(_language(request, invitation)):
        return _press(request, invitation) if presses else _shown(request, key.rstrip("/"), invitation)


@never_cache
@csrf_protect
@require_POST
@for_customers
@sensitive_variables("key")
def opened(request: HttpRequest, key: str) -> HttpResponse:
    """The page's script tells that a person looks at it. 204 whether or not the key opens anything."""
    address = _address(request)
    invitation = door.find(key, address=address)
    if invitation is not None:
        door.opened(invitation, address=address)
    return HttpResponse(status=204)


def _shown(request: HttpRequest, key: str, invitation: Invitation) -> HttpResponse:
    page = door.page(invitation)
    told = _told(request)
    if told is not None and told.what in list(Closed) and page.standing in (Standing.READY, Standing.PREPARING):
        context = {"closed": told.what, "again_after": told.again_after, "tries": told.tries}
        # 200: the page is there, and a proxy in front must not put its own in the place of one that says "503".
        return _page(request, "connect/closed.html", context)
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


def _press(request: HttpRequest, invitation: Invitation) -> HttpResponse:
    tries = _tries(request)
    pressed = door.press(invitation, address=_address(request), tries=tries)
    if pressed.closed is None:
        return HttpResponse(status=303, headers={"Location": pressed.url})
    if pressed.closed in (Closed.CONNECTED, Closed.FINISHED, Closed.PREPARING):
        # Another device was quicker, or the page was older than it looked: it says so itself.
        return _see(request, None)
    return _see(request, Told(pressed.closed.value, pressed.again_after, tries + 1))


def _see(request: HttpRequest, told: Told | None) -> HttpResponse:
    """On to the page itself, which says what the press led to: that one can be reloaded and come back to."""
    query = _query(_chosen_language(request), told)
    path = escape_uri_path(request.path)
    return HttpResponse(status=303, headers={"Location": f"{path}?{query}" if query else path})


def _query(language: str, told: Told | None) -> str:
    said = {"lang": language, "told": told.signed() if told else ""}
    return urlencode({name: value for name, value in said.items() if value})


def _told(request: HttpRequest) -> Told | None:
    """What the last press led to; None when that is old, or was never said by us."""
    try:
        return Told(*signing.loads(request.GET.get("told", ""), salt=_SALT, max_age=TOLD_FOR))
    except signing.BadSignature:
        return None


def _tries(request: HttpRequest) -> int:
    """How often the page has pressed again by itself: it says so. 0 for the customer's own press."""
    said = request.POST.get("tries", "")
    return int(said) if said in map(str, range(1, door.TRIES + 1)) else 0


def _chosen_language(request: HttpRequest) -> str:
    """As the switch on the page says; empty when it was not used."""
    asked = request.GET.get("lang", "")
    return asked if asked in Language.values else ""


def _language(request: HttpRequest, invitation: Invitation) -> str:
    """As the switch on the page says, else the invitation's, else what the browser asks for."""
    return _chosen_language(request) or invitation.language or translation.get_language() or Language.EN


def _page(request: HttpRequest, template: str, context: dict[str, object], *, status: int = 200) -> HttpResponse:
    language = translation.get_language() or settings.LANGUAGE_CODE
    other = Language.FR if language == Language.EN else Language.EN
    shared = {
        "institution": settings.INSTITUTION_NAME,
        "logo": settings.INSTITUTION_LOGO,
        "phone": settings.INSTITUTION_PHONE,
        "switch": _query(other, _told(request)),
        "other_language": other,
        "other_language_name": translation.get_language_info(other)["name_local"],
    }
    response = render(request, template, shared | context, status=status)
    response["Content-Language"] = language
    return response


def _address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))

"""Pages for machines: health, metrics, the webhook inbox, the choice of language.

Thin: each asks one service for its answer.
"""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import BadRequest
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import reverse
from django.utils.crypto import constant_time_compare
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from feeds import languages
from feeds.services import health, inbox, preferences
from feeds.services import metrics as prometheus
from feeds.states import Language


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """The process answers. Touches nothing else, so a slow database does not get the process killed."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Database, migrations, worker heartbeat and age of the last good poll; 503 when one of them is not well."""
    report = health.readiness()
    return JsonResponse(report.as_dict(), status=200 if report.ok else 503)


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """The system's health for Prometheus, to who sends `METRICS_TOKEN` as bearer token.

    404 while no token is configured, 401 for a wrong or missing one.
    """
    if not settings.METRICS_TOKEN:
        raise Http404
    scheme, _space, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not constant_time_compare(token.strip(), settings.METRICS_TOKEN):
        return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
    return HttpResponse(prometheus.render(), content_type=prometheus.CONTENT_TYPE)


@never_cache
@csrf_exempt
@require_POST
def codat_webhook(request: HttpRequest) -> HttpResponse:
    """Codat's webhooks. 204 for one that is stored, now or before; the signature is the sender's proof of identity.

    401 for a bad signature, 400 for what is signed but no webhook, 413 for a body too long to read. 503 while no secret
    is configured: Codat tries again later, by when it may be.
    """
    if _content_length(request) > settings.WEBHOOK_MAX_BYTES:
        return HttpResponse(status=413)
    try:
        inbox.receive(request.headers, request.body)
    except inbox.BadSignature:
        return HttpResponse(status=401)
    except inbox.Unreadable:
        return HttpResponse(status=400)
    except inbox.NoSecret:
        return HttpResponse(status=503)
    return HttpResponse(status=204)


@never_cache
@require_POST
def choose_language(request: HttpRequest) -> HttpResponse:
    """Show pages in `language` from now on, then go back to `next`; 400 for a language that there is not.

    For a signed-in person it is kept with them. The browser keeps it too, for the pages before sign-in.
    """
    if (language := request.POST.get("language")) not in Language.values:
        raise BadRequest
    if isinstance(request.user, User):
        preferences.choose_language(request.user, Language(language))
        languages.remember(request, language)
    back = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure()):
        back = reverse("admin:index")
    response = HttpResponseRedirect(back)
    response.set_cookie(
        settings.LANGUAGE_COOKIE_NAME,
        language,
        max_age=settings.LANGUAGE_COOKIE_AGE,
        secure=settings.LANGUAGE_COOKIE_SECURE,
        httponly=settings.LANGUAGE_COOKIE_HTTPONLY,
        samesite="Lax",
    )
    return response


def _content_length(request: HttpRequest) -> int:
    """What the sender announces; without it the server hands over no body."""
    announced = request.META.get("CONTENT_LENGTH") or "0"
    return int(announced) if announced.isdecimal() else 0

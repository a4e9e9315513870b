"""Pages for machines: health, metrics, the webhook inbox. Thin: each asks one service for its answer."""

from __future__ import annotations

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from feeds.services import health, inbox
from feeds.services import metrics as prometheus


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


def _content_length(request: HttpRequest) -> int:
    """What the sender announces; without it the server hands over no body."""
    announced = request.META.get("CONTENT_LENGTH") or "0"
    return int(announced) if announced.isdecimal() else 0

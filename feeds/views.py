"""Public pages: health for machines. Thin: each asks one service and renders its answer."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from feeds.services import health


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

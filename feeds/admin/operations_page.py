"""The operations page: is everything that works in the background well, and what to do if not.

It belongs to no model, so it is hung into the site by `backoffice.site`: address, sidebar and permission.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from feeds.admin import pictures
from feeds.models import DriftReport, Incident, Mail, Operation, WebhookEvent
from feeds.services import operations_page
from feeds.services.operations_page import Part
from feeds.states import MailState, OperationState, WebhookState

TITLE = gettext_lazy("System health")
PERMISSION = "feeds.view_operations_page"
URL_NAME = "operations_page"

SCREENS: dict[str, tuple[type[Model], str]] = {
    "webhooks": (WebhookEvent, f"state__exact={WebhookState.FAILED}"),
    "operations": (Operation, f"state__exact={OperationState.UNKNOWN}"),
    "mails": (Mail, f"state__exact={MailState.FAILED}"),
    "drift": (DriftReport, ""),
    "incident": (Incident, ""),
}
"""Part -> the list where a person acts on it, and the filter that shows what to act on."""


@dataclass(frozen=True, slots=True)
class Line:
    """One part and the screen it leads to; "" when there is none, or this person may not see it."""

    part: Part
    url: str


@require_safe
def view(request: HttpRequest) -> TemplateResponse:
    """The page. Raises PermissionDenied without `PERMISSION`."""
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    snapshot = operations_page.read()
    lines = [Line(part, _url(request, part.key)) for part in operations_page.parts(snapshot)]
    context = admin.site.each_context(request) | {
        "title": TITLE,
        "snapshot": snapshot,
        "lines": lines,
        "warnings": [line for line in lines if line.part.is_warning],
        "operations": _operations(request, snapshot.as_of),
        "pictures": pictures.for_operations(snapshot),
    }
    return TemplateResponse(request, "admin/feeds/operations/page.html", context)


def sidebar_entry(request: HttpRequest) -> dict[str, Any] | None:
    """The page among the screens of the sidebar, in the shape the stock templates read; None without the permission."""
    if not request.user.has_perm(PERMISSION):
        return None
    return {
        "name": TITLE,
        "object_name": "OperationsPage",
        "admin_url": reverse(f"admin:{URL_NAME}"),
        "add_url": None,
        "view_only": True,
    }


def _url(request: HttpRequest, key: str) -> str:
    if key not in SCREENS:
        return ""
    model, query = SCREENS[key]
    if not admin.site.is_registered(model) or not admin.site.get_model_admin(model).has_view_permission(request):
        return ""
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return f"{address}?{query}" if query else address


def _operations(request: HttpRequest, now: datetime) -> Sequence[Operation]:
    """Those that wait for a look, for who may see the ledger."""
    return operations_page.operations_to_look_at(now) if request.user.has_perm("feeds.view_operation") else []

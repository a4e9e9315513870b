"""The timeline on the screens: which of it a person may see, and a company's own page of it."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

from feeds.admin.base import BackOfficeAdmin, change_url
from feeds.models import Company
from feeds.services import timeline
from feeds.services.timeline import Kind, Place

PERMISSIONS: dict[Kind, str] = {
    Kind.STATUS: "feeds.view_connection",
    Kind.OPERATION: "feeds.view_operation",
    Kind.LINK: "feeds.view_connection",
    Kind.CASE: "feeds.view_case",
    Kind.INVITATION: "feeds.view_invitation",
}
"""What one must be allowed to see to be told of it."""


def visible_kinds(user: User | AnonymousUser) -> frozenset[Kind]:
    """The parts of a timeline that `user` may see."""
    return frozenset(kind for kind, permission in PERMISSIONS.items() if user.has_perm(permission))


def timeline_page(screen: BackOfficeAdmin[Any], request: HttpRequest, company: Company) -> HttpResponse:
    """The company's timeline, a page at a time; `?before=` is the place where the page before it ended."""
    before = Place.parse(request.GET.get("before", ""))
    context = {
        **screen.admin_site.each_context(request),
        "title": _("Timeline"),
        "subtitle": company.legal_name,
        "opts": screen.opts,
        "object": company,
        "object_url": change_url(company),
        "timeline": timeline.of_company(company, before=before, kinds=visible_kinds(request.user)),
        "is_first": before is None,
    }
    return TemplateResponse(request, "admin/feeds/timeline_page.html", context)

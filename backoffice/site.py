"""The admin site: same machine as Django's, with our grouping, banner and home page.

The screens register themselves on this site, so its methods import them only when they are called.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import PasswordChangeView
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext_lazy as _

_SIDEBAR: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("customers", _("Customers"), ("Company", "Invitation", "Batch", "CalloutVersion", "AccessGrant")),
    ("approvals", _("Four eyes"), ("Approval",)),
    ("support", _("Support"), ("Case", "Incident", "Mail", "StatusEvent", "DriftReport")),
    ("codat", _("Codat"), ("Connection", "SourceAccount", "Operation", "WebhookEvent")),
    ("history", _("History"), ("AuditEntry", "AuditSeal", "HistoryCheck", "HistoryExport")),
    ("people", _("People"), ("User", "Group", "SignInLock", "ApiKey")),
)
_REST = ("system", _("System"))


class BackOfficeSite(admin.AdminSite):
    """Stock admin under another name; see `feeds.admin` for the screens."""

    site_title = _("Bank Feeds Back Office")
    site_header = _("Bank Feeds Back Office")
    index_title = _("Home")
    # The product has no public front page to go back to.
    site_url = None
    empty_value_display = "—"

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Stock context plus what the banner says: which environment, and whether Codat is the stand-in."""
        from feeds.sign_in import sessions

        return super().each_context(request) | {
            "environment": settings.ENVIRONMENT,
            "is_production": settings.IS_PRODUCTION,
            "is_sandbox": settings.CODAT_SANDBOX,
            "session_seconds_left": sessions.seconds_left(request) if request.user.is_authenticated else 0,
        }

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """The models a person may see, grouped by what they are about instead of by the app that holds them.

        With `app_label` (the page of one app) the stock grouping stays. A model nobody placed is shown under System,
        so a new screen is never lost.
        """
        stock = super().get_app_list(request, app_label)
        if app_label is not None:
            return stock
        models = {model["object_name"]: model for app in stock for model in app["models"]}
        groups = [
            _group(key, title, [models.pop(name) for name in names if name in models]) for key, title, names in _SIDEBAR
        ]
        from feeds.admin import funnel, operations_page

        page = funnel.sidebar_entry(request)
        for group in groups:
            if group["app_label"] == "customers" and page:
                group["models"].append(page)
        rest = [operations_page.sidebar_entry(request), *models.values()]
        groups.append(_group(*_REST, [entry for entry in rest if entry]))
        return [group for group in groups if group["models"]]

    def get_urls(self) -> list[Any]:
        """Stock addresses, and the pages that are no model's. First: the stock ones end with one for anything."""
        from feeds.admin import funnel, operations_page

        pages = [
            path("operations/", self.admin_view(operations_page.view), name=operations_page.URL_NAME),
            path("funnel/", self.admin_view(funnel.view), name=funnel.URL_NAME),
            path("funnel/figures.csv", self.admin_view(funnel.csv_view), name=funnel.CSV_URL_NAME),
        ]
        return [*pages, *super().get_urls()]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """The home page of the signed-in person's role."""
        from feeds.admin.home import home_context

        return super().index(request, home_context(request) | (extra_context or {}))

    def password_change(  # type: ignore[override]  # the stubs forget that it leads on
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        """As stock, with our form: the stock page lets an open session guess the password without end."""
        from feeds.sign_in.forms import OwnPasswordForm

        request.current_app = self.name
        view = PasswordChangeView.as_view(
            form_class=OwnPasswordForm,
            success_url=reverse("admin:password_change_done", current_app=self.name),
            extra_context=self.each_context(request) | (extra_context or {}),
        )
        return view(request)


def _group(key: str, title: Any, models: list[Any]) -> dict[str, Any]:
    """One entry of the sidebar, in the shape the stock templates read."""
    return {"name": title, "app_label": key, "app_url": "", "has_module_perms": True, "models": models}

"""Keys of the API: made on a page of their own, shown once, replaced and revoked."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.admin.actions import ActionsAdmin, Outcome, ReasonForm, Secret, object_action
from feeds.admin.base import (
    MirrorAdmin,
    PersonField,
    ago,
    link_column,
    person,
    status_explained,
    status_pill,
    time_column,
)
from feeds.audit import current_actor
from feeds.models import ApiKey
from feeds.services import api_keys, roles
from feeds.services.api_keys import LONGEST_DAYS, LONGEST_OVERLAP_DAYS, Made
from feeds.services.errors import Refused
from feeds.states import ApiScope

MANAGE = "feeds.manage_api_keys"


class MakeForm(ReasonForm):
    """Which program may do what, and for how long."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        help_text=gettext_lazy("Which program uses it, such as: business portal."),
        max_length=ApiKey._meta.get_field("name").max_length,
    )
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("What it may do"), choices=ApiScope.choices, widget=forms.CheckboxSelectMultiple
    )
    manager = PersonField(
        label=gettext_lazy("Manager of new customers"),
        help_text=gettext_lazy("Whose customers become those that come in through this key. Empty: nobody's."),
        queryset=User.objects.none(),
        required=False,
    )
    days = forms.IntegerField(
        label=gettext_lazy("Days"),
        help_text=gettext_lazy("How long it works. It can be replaced before, and revoked at any time."),
        min_value=1,
        max_value=LONGEST_DAYS,
    )
    field_order = ("name", "scopes", "manager", "days", "reason")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        managers = User.objects.filter(is_active=True, groups__name=roles.RELATIONSHIP_MANAGERS)
        self.fields["manager"].queryset = managers.order_by("username")  # type: ignore[attr-defined]


class RotateForm(forms.Form):
    """How long both keys work, and the new one alone."""

    overlap_days = forms.IntegerField(
        label=gettext_lazy("Days in which both work"),
        help_text=gettext_lazy("Time to put the new key into the program. 0: the old one stops at once."),
        min_value=0,
        max_value=LONGEST_OVERLAP_DAYS,
    )
    days = forms.IntegerField(label=gettext_lazy("Days of the new key"), min_value=1, max_value=LONGEST_DAYS)


def _secret(made: Made) -> Secret:
    notes = [
        _("Shown once: it is kept nowhere here. If it is lost, replace it."),
        _("Whoever has it can do as the program. Put it into the program's secrets, never into a page or a mail."),
    ]
    return Secret(_("API key"), [(_("API key"), made.token)], notes)


@admin.register(ApiKey)
class ApiKeyAdmin(ActionsAdmin[ApiKey], MirrorAdmin[ApiKey]):
    """List, detail, and the buttons that replace and revoke. Auditors read."""

    list_display = ("name", "prefix", "state_pill", "may", "expires", "last_used")
    search_exact = ("prefix",)
    search_help_text = gettext_lazy("The start of the key, such as bfk_2k4x7qma.")
    fieldsets = (
        (None, {"fields": ("name", "prefix", "state_words", "may", "manager_name")}),
        (gettext_lazy("When"), {"fields": ("made", "made_by_name", "expires", "used")}),
        (gettext_lazy("How it ended"), {"fields": ("replaced_by_link", "revoked", "revoked_by_name")}),
    )
    change_form_template = "admin/feeds/change_form.html"

    made = time_column("created_at", gettext_lazy("made"))
    expires = time_column("expires_at", gettext_lazy("expires"))
    used = time_column("last_used_at", gettext_lazy("last used, to the minute"))
    revoked = time_column("revoked_at", gettext_lazy("revoked"))
    replaced_by_link = link_column("replaced_by", gettext_lazy("replaced by"))

    @admin.display(description=gettext_lazy("last used"))
    def last_used(self, key: ApiKey) -> SafeString:
        return ago(key.last_used_at)

    @admin.display(description=gettext_lazy("manager of new customers"))
    def manager_name(self, key: ApiKey) -> str:
        return person(key.manager) or _("nobody")

    @admin.display(description=gettext_lazy("what it may do"))
    def may(self, key: ApiKey) -> SafeString:
        return format_html_join(", ", "<code>{}</code>", ((name,) for name in key.scope_names))

    @admin.display(description=gettext_lazy("state"))
    def state_pill(self, key: ApiKey) -> SafeString:
        return status_pill(key.state_meaning)

    @admin.display(description=gettext_lazy("state"))
    def state_words(self, key: ApiKey) -> SafeString:
        return status_explained(key.state_meaning)

    # --- Making -----------------------------------------------------------------------------------------------------
    def has_add_permission(self, request: HttpRequest) -> bool:
        """Who may make keys."""
        return request.user.has_perm(MANAGE)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """GET: what a key is. POST: make one, and show it this once."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = MakeForm(request.POST or None, initial={"days": settings.API_KEY_DAYS, "scopes": ApiScope.values})
        if request.method == "POST" and form.is_valid():
            try:
                made = api_keys.make(actor=current_actor(), **form.cleaned_data)
            except Refused as error:
                messages.error(request, str(error))
            else:
                return self._secret_page(request, made.key, _secret(made))
        context = {
            **self.admin_site.each_context(request),
            "title": _("Make an API key"),
            "opts": self.opts,
            "form": form,
            "consequences": [
                _("A program that has the key makes customers and links to their pages, without staff."),
                _("The key is shown once, on the next page."),
            ],
        }
        return TemplateResponse(request, "admin/feeds/apikey/make.html", context)

    @object_action(
        "rotate",
        gettext_lazy("Replace"),
        permission=MANAGE,
        form=RotateForm,
        initial=lambda _key: {"overlap_days": settings.API_KEY_OVERLAP_DAYS, "days": settings.API_KEY_DAYS},
        consequences=lambda _key: [
            _("A new key with the same rights is made and shown once."),
            _("This one stops working after the days in which both work, or when it would have expired before."),
        ],
        unavailable=api_keys.why_not_rotate,
    )
    def rotate(self, request: HttpRequest, key: ApiKey, data: dict[str, Any]) -> Outcome:
        return _secret(api_keys.rotate(key, actor=current_actor(), **data))

    @object_action(
        "revoke",
        gettext_lazy("Revoke"),
        permission=MANAGE,
        form=ReasonForm,
        consequences=lambda key: [
            _("The program that uses this key is refused from this moment on: %s.") % key.name,
            _("Links that it has handed out go on working; withdraw their invitations if they must not."),
        ],
        unavailable=api_keys.why_not_revoke,
        dangerous=True,
    )
    def revoke(self, request: HttpRequest, key: ApiKey, data: dict[str, Any]) -> Outcome:
        api_keys.revoke(key, actor=current_actor(), reason=data["reason"])
        return _("The key is revoked: it opens nothing any more.")

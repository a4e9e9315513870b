"""Users and roles. A role is a group whose permissions are declared in `services.roles`: here it is only read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.contrib.auth.forms import UserChangeForm
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.admin.actions import ActionsAdmin, Outcome, ReasonForm, explained, object_action, tell_asked
from feeds.admin.base import EMPTY, MirrorAdmin, person, time_column, withdraw
from feeds.admin.meanwhile import MeanwhileForm
from feeds.audit import current_actor
from feeds.services import approvals, people, second_factors
from feeds.services.errors import Refused
from feeds.wording import recorded

if TYPE_CHECKING:
    _StockUserAdmin = StockUserAdmin[User]
    _StockUserForm = UserChangeForm[User]
else:
    # Django's classes are generic only for type checkers.
    _StockUserAdmin = StockUserAdmin
    _StockUserForm = UserChangeForm

CHANGE_ROLES = approvals.CHANGE_ROLES

withdraw("auth", User, Group)


class UserForm(MeanwhileForm, _StockUserForm):
    """A person. Where role changes need a colleague, they are asked for with a reason and the rest is saved at once."""

    role_reason = forms.CharField(
        label=gettext_lazy("Reason for the change of role"),
        help_text=gettext_lazy("Only needed when something above changes. A colleague decides on it."),
        max_length=500,
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rights_before = people.rights(self.instance) if self.instance.pk else {}
        self.kept_back: frozenset[str] = frozenset()

    def rights_after(self) -> dict[str, Any]:
        """The rights as the form has them; what it does not offer to this person stays."""
        after = dict(self.rights_before)
        for name in people.SWITCHES:
            after[name] = bool(self.cleaned_data.get(name, after[name]))
        if people.ROLES in self.cleaned_data:
            after[people.ROLES] = sorted(group.pk for group in self.cleaned_data[people.ROLES])
        return after

    def clean(self) -> dict[str, Any]:
        """A reason is asked for only when somebody will have to decide on it."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if not approvals.is_needed(CHANGE_ROLES) or self.rights_after() == self.rights_before:
            return data
        if not data.get("role_reason", "").strip() and "role_reason" not in self.errors:
            self.add_error("role_reason", _("Say why the role changes: a colleague has to approve it."))
        return data

    def put_back(self) -> dict[str, Any]:
        """Take the change of rights out of what is saved; the rights that were asked for."""
        wanted = self.rights_after()
        self.kept_back = frozenset(people.FIELDS)
        return wanted

    def columns_typed(self) -> list[str]:
        """The columns to write: never one that was only on the screen, for a colleague may be changing it now."""
        columns = {field.name for field in self.instance._meta.concrete_fields}
        return sorted(columns & set(self.changed_data) - self.kept_back)

    def _save_m2m(self) -> None:
        """As `columns_typed`, for the roles."""
        if people.ROLES not in self.changed_data or people.ROLES in self.kept_back:
            self.cleaned_data.pop(people.ROLES, None)
        super()._save_m2m()  # type: ignore[misc]  # Django's hook


@admin.register(User)
class UserAdmin(ActionsAdmin[User], _StockUserAdmin):
    """People and their roles. Rights come from roles only, so that the list of who may do what is short."""

    form = UserForm
    list_display = ("username", "full_name", "email", "role_names", "is_active", "signed_in")
    list_filter = ("is_active", "groups")
    search_exact = ("username", "email")
    search_help_text = gettext_lazy("The whole user name or e-mail address.")
    sortable_by = ("username",)
    ordering = ("username",)
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        (gettext_lazy("Person"), {"fields": ("first_name", "last_name", "email")}),
        (gettext_lazy("Role"), {"fields": ("is_active", "is_staff", "is_superuser", "groups")}),
        (gettext_lazy("Sign-in"), {"fields": ("second_factors", "last_login", "date_joined")}),
    )
    readonly_fields = ("second_factors", "last_login", "date_joined")
    # A handful of roles are boxes to tick: the stock pair of lists is not accessible.
    filter_horizontal = ()
    change_form_template = "admin/feeds/change_form.html"

    signed_in = time_column("last_login", gettext_lazy("last sign-in"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        """Users with their roles, which the list names."""
        return super().get_queryset(request).prefetch_related("groups")

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Roles as boxes."""
        if db_field.name == people.ROLES:
            kwargs["widget"] = forms.CheckboxSelectMultiple
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Who only looks sees no password: the stock page shows the start of its hash, and a button that is refused."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None:
            return fieldsets
        if self.has_change_permission(request, obj):
            return _with_reason(fieldsets) if approvals.is_needed(CHANGE_ROLES) else fieldsets
        return [(None, {"fields": ("username",)}), *fieldsets[1:]]

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        """Only a superuser makes superusers, and nobody gives roles to themselves."""
        fields = tuple(super().get_readonly_fields(request, obj))
        if not request.user.is_superuser:
            fields += ("is_superuser",)
            if obj is not None and obj.pk == request.user.pk:
                fields += ("groups", "is_staff", "is_active")
        return fields

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """A superuser's account, password included, is for superusers only."""
        if obj is not None and obj.is_superuser and not request.user.is_superuser:
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """People are deactivated, never deleted: the ledger and the history name them."""
        return False

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """Rights are changed by a colleague's approval, where the settings say so; what else was typed now."""
        if not (change and isinstance(form, UserForm)):
            super().save_model(request, obj, form, change)
            return
        if approvals.is_needed(CHANGE_ROLES):
            before, wanted = form.rights_before, form.put_back()
            if wanted != before:
                with recorded():
                    differences = people.differences(before, wanted)
                self._ask_for_rights(request, obj, form, differences, wanted)
        obj.save(update_fields=form.columns_typed())

    def _ask_for_rights(
        self, request: HttpRequest, user: User, form: UserForm, differences: list[str], wanted: dict[str, Any]
    ) -> None:
        try:
            approval = approvals.ask(
                CHANGE_ROLES,
                user,
                data=wanted,
                consequences=differences,
                reason=form.cleaned_data["role_reason"],
                actor=current_actor(),
            )
        except Refused as error:
            messages.error(request, format_html("{} {}", _("The role was not changed."), explained(error)))
        else:
            tell_asked(request, approval)

    @object_action(
        "reset-second-factors",
        gettext_lazy("Reset second factors"),
        permission="feeds.reset_second_factors",
        form=ReasonForm,
        dangerous=True,
        four_eyes="reset_second_factors",
        unavailable=lambda user: second_factors.why_not_reset(user, by=current_actor().user),
        consequences=lambda user: [
            _("%(name)s loses: %(factors)s.")
            % {"name": person(user), "factors": ", ".join(second_factors.names_of(user)) or _("nothing")},
            _("%s is signed out everywhere.") % person(user),
            _("The password alone opens the door then, where everybody must have a second factor only to set up a new "
              "one. Make sure that it is really they who ask, by voice or in person."),
        ],
    )  # fmt: skip
    def reset_second_factors(self, request: HttpRequest, user: User, data: dict[str, Any]) -> Outcome:
        second_factors.reset(user, by=cast(User, request.user), reason=data["reason"])
        return _("%s has no second factor any more, and is signed out.") % person(user)

    @admin.display(description=gettext_lazy("second factors"))
    def second_factors(self, user: User) -> str:
        return ", ".join(second_factors.names_of(user)) or _("none")

    @admin.display(description=gettext_lazy("name"))
    def full_name(self, user: User) -> str:
        return user.get_full_name()

    @admin.display(description=gettext_lazy("roles"))
    def role_names(self, user: User) -> str:
        return ", ".join(group.name for group in user.groups.all()) or EMPTY


def _with_reason(fieldsets: Any) -> Any:
    """The part about roles asks why."""
    return [
        (title, {**part, "fields": (*part["fields"], "role_reason")} if "groups" in part["fields"] else part)
        for title, part in fieldsets
    ]


@admin.register(Group)
class GroupAdmin(MirrorAdmin[Group]):
    """Read-only: a right given by hand would not outlive the next deployment."""

    list_display = ("name",)
    ordering = ("name",)
    fields = ("name", "rights")

    @admin.display(description=gettext_lazy("rights"))
    def rights(self, group: Group) -> SafeString:
        names = group.permissions.order_by("content_type__app_label", "codename").values_list("name")
        return format_html("<ul>{}</ul>", format_html_join("", "<li>{}</li>", names))

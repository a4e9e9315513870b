"""Source accounts: the mirror of each account in Codat, with its number masked, and what can be done about it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables

from feeds.admin.actions import ActionsAdmin, ReasonForm, Secret, object_action
from feeds.admin.base import (
    SEARCH_BY_COMPANY,
    MirrorAdmin,
    as_of,
    link_column,
    status_explained,
    status_pill,
    time_column,
    values_filter,
)
from feeds.audit import current_actor
from feeds.banking import mask
from feeds.models import Operation, SourceAccount
from feeds.services import accounts
from feeds.states import AccountStatus, Text


class RenameForm(forms.Form):
    """The new name, and why if that matters."""

    name = forms.CharField(label=gettext_lazy("New name"), max_length=SourceAccount._meta.get_field("name").max_length)
    reason = forms.CharField(label=gettext_lazy("Reason"), required=False, max_length=500)


def not_in_codat(account: SourceAccount) -> Text:
    """Why nothing can be asked of Codat about this account."""
    if account.gone_at:
        return _("Codat no longer has this account.")
    return "" if account.is_in_codat else _("This account is not in Codat yet: onboard its company first.")


def not_disconnectable(account: SourceAccount) -> Text:
    """Why it cannot be disconnected."""
    if account.status == AccountStatus.DISCONNECTED:
        return _("This account is already disconnected.")
    return not_in_codat(account)


@admin.register(SourceAccount)
class SourceAccountAdmin(ActionsAdmin[SourceAccount], MirrorAdmin[SourceAccount]):
    """Read-only: before onboarding an account is edited on its company's page, afterwards by actions.

    There is no search by account number: what is searched for stands in the address, and addresses are logged.
    """

    list_display = ("name", "masked_number", "status_now", "company_link", "read")
    list_select_related = ("company",)
    list_filter = (values_filter("status", gettext_lazy("status"), AccountStatus.choices),)
    search_company_path = "company"
    search_help_text = SEARCH_BY_COMPANY
    fieldsets = (
        (None, {"fields": ("company_link", "name", "masked_number", "status_words", "feed_start_date", "last_error")}),
        (
            gettext_lazy("Account"),
            {
                "fields": (
                    "account_type",
                    "routing_type",
                    "bank_code",
                    "sort_code",
                    "currency",
                    "balance",
                    "account_open_date",
                )
            },
        ),
        (gettext_lazy("In Codat"), {"fields": ("account_id", "connection_link", "gone")}),
    )

    read = time_column("read_at", gettext_lazy("as of"))
    company_link = link_column("company", gettext_lazy("company"))
    connection_link = link_column("connection", gettext_lazy("connection"))
    gone = time_column("gone_at", gettext_lazy("gone since"))

    @admin.display(description=gettext_lazy("account number"))
    def masked_number(self, account: SourceAccount) -> str:
        return mask(account.account_number)

    @admin.display(description=gettext_lazy("status"))
    def status_now(self, account: SourceAccount) -> SafeString:
        return status_pill(account.status_meaning)

    @admin.display(description=gettext_lazy("status"))
    def status_words(self, account: SourceAccount) -> SafeString:
        return format_html(
            '{} <span class="as-of">{}</span>', status_explained(account.status_meaning), as_of(account.read_at)
        )

    @object_action(
        "rename",
        gettext_lazy("Rename"),
        permission="feeds.rename_sourceaccount",
        form=RenameForm,
        initial=lambda account: {"name": account.name},
        consequences=lambda _account: [
            _("The customer sees the new name when they connect accounts in QuickBooks."),
            _("An account that is connected already keeps the name it has in QuickBooks. The feed goes on."),
        ],
        unavailable=not_in_codat,
    )
    def rename(self, request: HttpRequest, account: SourceAccount, data: dict[str, Any]) -> Operation:
        return accounts.rename(account, name=data["name"], actor=current_actor(), reason=data["reason"])

    @object_action(
        "disconnect",
        gettext_lazy("Disconnect"),
        permission="feeds.disconnect_sourceaccount",
        form=ReasonForm,
        consequences=lambda account: [
            _("QuickBooks stops receiving transactions of %s.") % account,
            _("Nothing here can undo it: the customer must connect again in QuickBooks, with a fresh link."),
            _("On reconnecting, QuickBooks takes at most the last seven days of transactions."),
        ],
        unavailable=not_disconnectable,
        dangerous=True,
    )
    def disconnect(self, request: HttpRequest, account: SourceAccount, data: dict[str, Any]) -> Operation:
        return accounts.disconnect(account, actor=current_actor(), reason=data["reason"])

    @object_action(
        "delete",
        gettext_lazy("Delete in Codat"),
        permission="feeds.remove_sourceaccount",
        form=ReasonForm,
        consequences=lambda account: [
            _("%s and its link to QuickBooks are deleted in Codat. This cannot be undone.") % account,
            _("QuickBooks stops receiving its transactions. The account in QuickBooks and its past transactions stay."),
            _("Here the row stays, marked as gone, with its history."),
        ],
        unavailable=not_in_codat,
        dangerous=True,
        four_eyes="delete_account",
    )
    def delete(self, request: HttpRequest, account: SourceAccount, data: dict[str, Any]) -> Operation:
        return accounts.delete(account, actor=current_actor(), reason=data["reason"])

    @object_action(
        "show-number",
        gettext_lazy("Show whole number"),
        permission="feeds.reveal_account_number",
        consequences=lambda account: [
            _("The whole account number of %s is shown.") % account,
            _("That you saw it is kept in the change history."),
        ],
    )
    @sensitive_variables("rows")
    def show_number(self, request: HttpRequest, account: SourceAccount, data: dict[str, Any]) -> Secret:
        rows = [(_("Account number"), accounts.reveal_number(account, actor=current_actor()))]
        return Secret(_("Whole account number"), rows, notes=[])

"""Connections: the mirror of Codat's status, and what can be done about it. Only one action shows the link itself."""

from __future__ import annotations

import uuid
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables

from feeds.admin.actions import ActionsAdmin, ReasonForm, Secret, list_action, object_action
from feeds.admin.base import (
    EMPTY,
    SEARCH_BY_COMPANY,
    MirrorAdmin,
    as_of,
    link_column,
    link_to,
    status_explained,
    status_pill,
    time_column,
    values_filter,
)
from feeds.audit import current_actor
from feeds.models import Connection, Operation
from feeds.services import connections, credentials, link_need, links
from feeds.states import ConnectionStatus, Meaning, Text, Tone

LINK_READY = Meaning(gettext_lazy("link ready"), Tone.GOOD, gettext_lazy("The customer can open it now."))
LINK_REPLACED = Meaning(
    gettext_lazy("link replaced"),
    Tone.WARNING,
    gettext_lazy("The link that was shown before may be closed: show the new one and hand it over."),
)
LINK_EXPIRED = Meaning(gettext_lazy("link expired"), Tone.NEUTRAL, gettext_lazy("Refresh it before you hand it over."))
NO_LINK = Meaning(gettext_lazy("no link"), Tone.NEUTRAL, gettext_lazy("Refresh it to get one."))
LINK_NOT_NEEDED = Meaning(gettext_lazy("not needed"), Tone.NEUTRAL, gettext_lazy("The customer is connected."))
ACCOUNT_BROKEN = Meaning(
    gettext_lazy("account disconnected"),
    Tone.BAD,
    gettext_lazy("The connection stands, but QuickBooks no longer reads at least one of its accounts."),
)


def gone_from_codat(connection: Connection) -> Text:
    """Why nothing can be asked of a connection that Codat no longer has."""
    return _("Codat no longer has this connection.") if connection.gone_at else ""


def no_link_needed(connection: Connection) -> Text:
    """Why no link can be fetched."""
    if connection.gone_at is None and not link_need.is_needed(connection):
        return _("This connection is Linked and all its accounts work: the customer needs no link.")
    return gone_from_codat(connection)


def no_live_link(connection: Connection) -> Text:
    """Why there is no link to show."""
    if connection.has_live_link(timezone.now()):
        return ""
    return no_link_needed(connection) or _("There is no link that still works. Press Refresh link first.")


def not_linked(connection: Connection) -> Text:
    """Why it cannot be unlinked: Codat unlinks only what is linked."""
    if connection.status == ConnectionStatus.LINKED:
        return gone_from_codat(connection)
    return _("Only a connection that is Linked can be unlinked; this one is %s.") % connection.status


def link_meaning(connection: Connection) -> Meaning:
    """How the customer's link stands."""
    now = timezone.now()
    if connection.has_live_link(now):
        return LINK_REPLACED if connection.has_replaced_link(now) else LINK_READY
    if not link_need.is_needed(connection):
        return LINK_NOT_NEEDED
    return LINK_EXPIRED if connection.link_fetched_at else NO_LINK


def link_secret(connection: Connection) -> Secret:
    """The customer's link, for one page; that it was shown is recorded. Raises Refused when none works now."""
    link = links.reveal(connection, actor=current_actor())
    notes = [
        _("Hand it to %s only, and never by a public channel.") % connection.company.contact_name,
        _("The customer opens it, then connects the accounts in QuickBooks Online."),
    ]
    return Secret(_("Customer link"), [(_("Customer link"), link.url)], notes, link.expires_at)


class PressForm(forms.Form):
    """Names one press of a button whose work must not be done twice."""

    press = forms.UUIDField(required=False, widget=forms.HiddenInput)


@admin.register(Connection)
class ConnectionAdmin(ActionsAdmin[Connection], MirrorAdmin[Connection]):
    """Read-only: everything here is Codat's. `link_url` is on no screen but the page that Show link answers with."""

    list_display = ("company_name", "status_now", "link_state", "read")
    list_select_related = ("company",)
    list_filter = (values_filter("status", gettext_lazy("status"), ConnectionStatus.choices),)
    actions = ("refresh_links",)
    search_exact = ("codat_id",)
    search_company_path = "company"
    search_help_text = SEARCH_BY_COMPANY
    fieldsets = (
        (
            None,
            {"fields": ("company_link", "status_words", "link_state", "link_fetched", "link_shown", "link_expires")},
        ),
        (gettext_lazy("Accounts"), {"fields": ("accounts",)}),
        (
            gettext_lazy("In Codat"),
            {
                "fields": (
                    "codat_id",
                    "platform_name",
                    "platform_key",
                    "integration_id",
                    "source_id",
                    "codat_created",
                    "last_sync",
                    "codat_errors",
                    "gone",
                )
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Connection]:
        """Connections, knowing whether one of their accounts is broken: Codat says Linked until all of them are."""
        return link_need.annotated(super().get_queryset(request))

    read = time_column("read_at", gettext_lazy("as of"))
    company_link = link_column("company", gettext_lazy("company"))
    link_fetched = time_column("link_fetched_at", gettext_lazy("link fetched"))
    link_shown = time_column("link_shown_at", gettext_lazy("link shown"))
    link_expires = time_column("link_expires_at", gettext_lazy("link expires"))
    codat_created = time_column("codat_created_at", gettext_lazy("created in Codat"))
    last_sync = time_column("last_sync_at", gettext_lazy("last sync"))
    gone = time_column("gone_at", gettext_lazy("gone since"))

    @admin.display(description=gettext_lazy("company"))
    def company_name(self, connection: Connection) -> str:
        return str(connection.company)

    @admin.display(description=gettext_lazy("status"))
    def status_now(self, connection: Connection) -> SafeString:
        return self._with_broken(connection, status_pill(connection.status_meaning))

    @admin.display(description=gettext_lazy("status"))
    def status_words(self, connection: Connection) -> SafeString:
        return format_html(
            '{} <span class="as-of">{}</span>',
            self._with_broken(connection, status_explained(connection.status_meaning)),
            as_of(connection.read_at),
        )

    def _with_broken(self, connection: Connection, pill: SafeString) -> SafeString:
        if not link_need.has_disconnected_account(connection):
            return pill
        return format_html("{} {}", pill, status_pill(ACCOUNT_BROKEN))

    @admin.display(description=gettext_lazy("link"))
    def link_state(self, connection: Connection) -> SafeString:
        return status_pill(link_meaning(connection))

    @admin.display(description=gettext_lazy("source accounts"))
    def accounts(self, connection: Connection) -> SafeString:
        accounts = connection.source_accounts.order_by("id")
        rows = ((link_to(account), status_pill(account.status_meaning)) for account in accounts)
        return format_html("<ul>{}</ul>", format_html_join("", "<li>{} {}</li>", rows))

    @admin.display(description=gettext_lazy("errors reported by Codat"))
    def codat_errors(self, connection: Connection) -> str:
        return "; ".join(str(error.get("statusText") or error) for error in connection.errors) or EMPTY

    @object_action(
        "refresh-link",
        gettext_lazy("Refresh link"),
        permission="feeds.refresh_link",
        consequences=lambda _connection: [
            _("A fresh link is fetched from Codat. It works for one hour."),
            _("A link that you handed over before may stop working."),
        ],
        unavailable=no_link_needed,
        confirm=False,
    )
    def refresh_link(self, request: HttpRequest, connection: Connection, data: dict[str, Any]) -> Operation:
        return links.refresh(connection, actor=current_actor())

    @object_action(
        "show-link",
        gettext_lazy("Show link"),
        permission="feeds.reveal_link",
        consequences=lambda connection: [
            _("The link of %s is shown. Whoever has it can connect this customer's accounts.") % connection.company,
            _("That you saw it is kept in the change history."),
        ],
        unavailable=no_live_link,
    )
    def show_link(self, request: HttpRequest, connection: Connection, data: dict[str, Any]) -> Secret:
        return link_secret(connection)

    @object_action(
        "generate-credentials",
        gettext_lazy("Generate credentials"),
        permission="feeds.generate_credentials",
        consequences=lambda connection: [
            _("Codat makes one more set of QuickBooks credentials for %s. Older sets keep working.")
            % connection.company,
            _("The set is shown once, on the next page, and is kept nowhere here."),
        ],
        form=PressForm,
        initial=lambda connection: {"press": uuid.uuid4()},
        unavailable=gone_from_codat,
    )
    @sensitive_variables("made", "rows")
    def generate_credentials(self, request: HttpRequest, connection: Connection, data: dict[str, Any]) -> Secret:
        made = credentials.generate(connection, actor=current_actor(), press=data["press"])
        notes = [
            _("Shown once: copy both now. If they are lost, generate another set."),
            _("The customer types them in QuickBooks Online when it asks for the bank's credentials."),
        ]
        rows = [(_("User name"), made.username), (_("Password"), made.password)]
        return Secret(_("QuickBooks credentials"), rows, notes)

    @object_action(
        "revoke-credentials",
        gettext_lazy("Revoke credentials"),
        permission="feeds.revoke_credentials",
        form=ReasonForm,
        consequences=lambda connection: [
            _("All sets of QuickBooks credentials of %s stop working at once.") % connection.company,
            _("Every feed that uses them stops. The customer must connect again in QuickBooks with fresh credentials."),
        ],
        unavailable=gone_from_codat,
        dangerous=True,
    )
    def revoke_credentials(self, request: HttpRequest, connection: Connection, data: dict[str, Any]) -> Operation:
        return credentials.revoke(connection, actor=current_actor(), reason=data["reason"])

    @object_action(
        "unlink",
        gettext_lazy("Unlink"),
        permission="feeds.unlink_connection",
        form=ReasonForm,
        consequences=lambda connection: [
            _("QuickBooks stops receiving transactions from all accounts of %s.") % connection.company,
            _("Nothing here can undo it: the customer must connect again in QuickBooks, with a fresh link."),
            _("On reconnecting, QuickBooks takes at most the last seven days of transactions."),
        ],
        unavailable=not_linked,
        dangerous=True,
    )
    def unlink(self, request: HttpRequest, connection: Connection, data: dict[str, Any]) -> Operation:
        return connections.unlink(connection, actor=current_actor(), reason=data["reason"])

    @list_action(gettext_lazy("Refresh links of selected %(verbose_name_plural)s"), permission="feeds.refresh_link")
    def refresh_links(self, request: HttpRequest, chosen: list[Connection]) -> None:
        self.for_each(request, chosen, lambda connection: links.refresh(connection, actor=current_actor()))

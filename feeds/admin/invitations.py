"""Invitations: who was invited to do what, how far they came, and how to withdraw or renew the link."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.admin.actions import ActionsAdmin, ReasonForm, Secret, object_action
from feeds.admin.base import (
    SEARCH_BY_COMPANY,
    MirrorAdmin,
    change_url,
    link_column,
    status_explained,
    status_pill,
    time_column,
)
from feeds.audit import current_actor
from feeds.models import Company, Invitation
from feeds.models.invitation import InvitationQuerySet
from feeds.services import customer_mails, invitation_keys, invitations
from feeds.services.outbox import LINK_MARK
from feeds.states import INVITATION_MEANINGS, InvitationPurpose, InvitationState, Language, Text


class InviteForm(forms.Form):
    """Whom to invite, for what, in which language, for how long."""

    purpose = forms.ChoiceField(
        label=gettext_lazy("Purpose"),
        choices=InvitationPurpose.choices,
        help_text=gettext_lazy("One invitation lives for each purpose: a new one takes the place of the older."),
    )
    contact_name = forms.CharField(label=gettext_lazy("Contact name"), max_length=120)
    contact_email = forms.EmailField(label=gettext_lazy("Contact e-mail"))
    language = forms.ChoiceField(
        label=gettext_lazy("Language"),
        choices=[*Language.choices, ("", gettext_lazy("As the customer's browser asks"))],
        required=False,
        help_text=gettext_lazy("Of the page, where the customer can switch it, and of the mails. A mail cannot ask the "
                               "browser: without a language here it is in the company's."),
    )  # fmt: skip
    days = forms.IntegerField(label=gettext_lazy("Days"), min_value=1, max_value=90)


def address_secret(invitation: Invitation) -> Secret:
    """A fresh address of the invitation, for one page."""
    made = invitation_keys.address(invitation, made_for=invitation_keys.SHOWN, actor=current_actor())
    notes = [
        _("Shown once: it is kept nowhere here. Showing it again makes another one; both work."),
        _("It opens our own page, and works until it expires. Hand it to %s only.") % invitation.contact_name,
    ]
    return Secret(_("Invitation link"), [(_("Invitation link"), made.url)], notes, made.expires_at)


def _ended(invitation: Invitation) -> Text:
    if not invitation.is_live(timezone.now()):
        return _("This invitation opens nothing any more.")
    return ""


def _not_renewable(invitation: Invitation) -> Text:
    return _("The customer is connected: there is nothing to renew.") if invitation.connected_at else ""


def mail_preview(invitation: Invitation) -> str:
    """The mail as it would go now."""
    text = customer_mails.draft(customer_mails.kind_of(invitation), invitation)
    body = text.body.replace(LINK_MARK, _("(the customer's own link)"))
    return "\n".join([_("To: %s") % text.to, _("Subject: %s") % text.subject, "", body.strip()])


def contact_mail_preview(company: Company, purpose: InvitationPurpose) -> str:
    """The mail that the company's contact would get now, before there is an invitation."""
    return mail_preview(invitations.planned(company, purpose))


class StateFilter(admin.SimpleListFilter):
    """Invitations by their state, which follows from times and is no column."""

    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Every state, in the order of the funnel."""
        return [(state.value, INVITATION_MEANINGS[state].label) for state in InvitationState]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Invitation]) -> QuerySet[Invitation]:
        """Invitations in the chosen state."""
        chosen = self.value()
        if chosen not in InvitationState.values:
            return queryset
        return cast(InvitationQuerySet, queryset).in_state(InvitationState(chosen), timezone.now())


@admin.register(Invitation)
class InvitationAdmin(ActionsAdmin[Invitation], MirrorAdmin[Invitation]):
    """Read-only: an invitation is made on its company's page."""

    list_display = ("what", "company_link", "state_pill", "made", "expires")
    list_select_related = ("company",)
    list_filter = (StateFilter, "purpose", "language")
    search_company_path = "company"
    search_help_text = SEARCH_BY_COMPANY
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "company_link",
                    "purpose",
                    "contact_name",
                    "contact_email",
                    "in_language",
                    "state_words",
                    "page_opens",
                )
            },
        ),
        (
            gettext_lazy("How far the customer came"),
            {"fields": ("made", "sent", "reminded", "opened", "started", "presses", "linked", "connected")},
        ),
        (gettext_lazy("How long it lives"), {"fields": ("expires", "ended", "made_by_name")}),
    )

    company_link = link_column("company", gettext_lazy("company"))
    made = time_column("created_at", gettext_lazy("made"))
    sent = time_column("sent_at", gettext_lazy("sent"))
    reminded = time_column("reminded_at", gettext_lazy("reminded"))
    opened = time_column("opened_at", gettext_lazy("opened"))
    started = time_column("started_at", gettext_lazy("started"))
    linked = time_column("linked_at", gettext_lazy("linked"))
    connected = time_column("connected_at", gettext_lazy("connected"))
    expires = time_column("expires_at", gettext_lazy("expires"))
    ended = time_column("ended_at", gettext_lazy("ended"))

    @admin.display(description=gettext_lazy("invitation"))
    def what(self, invitation: Invitation) -> str:
        return str(invitation)

    @admin.display(description=gettext_lazy("language"))
    def in_language(self, invitation: Invitation) -> str:
        if invitation.language:
            return invitation.get_language_display()
        return _("as the customer's browser asks; mails in the company's")

    @admin.display(description=gettext_lazy("its links"))
    def page_opens(self, invitation: Invitation) -> Text:
        if why := invitations.why_not_revoke(invitation):
            return why
        if invitation.connected_at:
            return _("They show the customer that all is connected, until it expires. They connect nothing any more.")
        return _("They open the customer's page until it expires.")

    @admin.display(description=gettext_lazy("state"))
    def state_pill(self, invitation: Invitation) -> SafeString:
        return status_pill(invitation.state_meaning)

    @admin.display(description=gettext_lazy("state"))
    def state_words(self, invitation: Invitation) -> SafeString:
        return status_explained(invitation.state_meaning)

    @object_action(
        "send",
        gettext_lazy("Send by mail"),
        permission="feeds.invite_company",
        consequences=lambda invitation: [
            _("The mail below goes to %s, in the language of the invitation.") % invitation.contact_email,
            _("The link is made when the mail is sent, and is kept nowhere here."),
        ],
        preview=mail_preview,
        unavailable=_ended,
    )
    def send(self, request: HttpRequest, invitation: Invitation, data: dict[str, Any]) -> str:
        customer_mails.send(invitation, actor=current_actor())
        return _("The mail is on its way. This page shows when it was sent.")

    @object_action(
        "show-address",
        gettext_lazy("Show invitation link"),
        permission="feeds.invite_company",
        consequences=lambda invitation: [
            _("A link is made and shown once. Whoever has it can connect the accounts of %s.") % invitation.company,
            _("That you made it is kept in the change history."),
        ],
        unavailable=_ended,
    )
    def show_address(self, request: HttpRequest, invitation: Invitation, data: dict[str, Any]) -> Secret:
        return address_secret(invitation)

    @object_action(
        "revoke",
        gettext_lazy("Withdraw"),
        permission="feeds.invite_company",
        form=ReasonForm,
        consequences=lambda invitation: [
            _("Every link of this invitation stops working at once. The customer is not told."),
        ],
        unavailable=invitations.why_not_revoke,
        dangerous=True,
    )
    def revoke(self, request: HttpRequest, invitation: Invitation, data: dict[str, Any]) -> str:
        invitations.revoke(invitation, actor=current_actor(), reason=data["reason"])
        return _("The invitation is withdrawn: its links open nothing any more.")

    @object_action(
        "renew",
        gettext_lazy("Renew"),
        permission="feeds.invite_company",
        consequences=lambda invitation: [
            _("A new invitation takes the place of this one; links of this one stop working."),
        ],
        unavailable=_not_renewable,
    )
    def renew(self, request: HttpRequest, invitation: Invitation, data: dict[str, Any]) -> HttpResponse:
        fresh = invitations.renew(invitation, actor=current_actor())
        messages.success(request, _("The new invitation is made. Now send it by mail, or show its link."))
        return HttpResponseRedirect(change_url(fresh))

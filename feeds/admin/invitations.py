"""Invitations: who was invited to do what, how far they came, and how to withdraw or renew the link."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast, get_args

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from feeds.admin.actions import ActionsAdmin, ReasonForm, Secret, object_action
from feeds.admin.base import (
    SEARCH_BY_COMPANY,
    MirrorAdmin,
    ago,
    change_url,
    link_column,
    named,
    person,
    since,
    status_explained,
    status_pill,
    time_column,
)
from feeds.audit import current_actor
from feeds.models import Company, Invitation, Mail
from feeds.models.invitation import InvitationQuerySet, step_since
from feeds.services import customer_mails, funnel, invitation_keys, invitations, stuck
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


class Views(admin.SimpleListFilter):
    """Which invitations: shown as tabs above the list. All of them when nothing is chosen."""

    title = gettext_lazy("view")
    parameter_name = "list"
    default = "everything"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """The tabs, from left to right."""
        return [
            (self.default, _("All")),
            ("mine", _("Stuck: my customers")),
            ("invited", _("Stuck: invited by me")),
            ("all", _("Stuck: all I see")),
        ]

    def value(self) -> str:
        """The tab that is open."""
        chosen = super().value()
        return chosen if chosen in {str(name) for name, _title in self.lookup_choices} else self.default

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """One link for each tab; there is no other choice."""
        for name, title in self.lookup_choices:
            # A state belongs to the whole list: on the others it would leave nothing over.
            query = changelist.get_query_string({self.parameter_name: str(name)}, [StateFilter.parameter_name])
            yield {"selected": name == self.value(), "query_string": query, "display": title}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Invitation]) -> QuerySet[Invitation]:
        """The invitations of the open tab."""
        which = self.value()
        if which == self.default:
            return queryset
        return stuck.with_mails(stuck.worklist(cast(stuck.View, which), cast(User, request.user), timezone.now()))


def _mail_told(mail: Mail) -> SafeString:
    """The last mail about a stuck invitation, and what became of it."""
    if mail.bounced_at is not None:
        return format_html(_("Last mail: came back, noted {}"), ago(mail.bounced_at))
    if mail.sent_at is not None:
        return format_html(_("Last mail: {}"), ago(mail.sent_at))
    return format_html(_("Last mail: {}"), mail.state_meaning.label)


def _ends_in(invitation: Invitation) -> SafeString:
    at = invitation.expires_at
    exact = date_format(timezone.localtime(at), "Y-m-d H:i:s T")
    left = format_html('<time datetime="{}" title="{}">{}</time>', at.isoformat(), exact, timeuntil(at, depth=1))
    return format_html(_("Ends in {}"), left)


def _shows_stuck(request: HttpRequest) -> bool:
    return request.GET.get(Views.parameter_name) in get_args(stuck.View)


def stuck_in_words() -> list[tuple[Text, str]]:
    """Step -> after how many days on it an invitation is stuck."""
    return [
        (INVITATION_MEANINGS[step].label, ngettext("%(days)s day", "%(days)s days", time.days) % {"days": time.days})
        for step, time in stuck.limits().items()
    ]


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


class LanguageFilter(admin.SimpleListFilter):
    """Invitations by the language of their page; those without one follow the customer's browser."""

    title = gettext_lazy("language")
    parameter_name = "language"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Every language, and none."""
        return [*Language.choices, (funnel.BROWSERS, funnel.browsers_label())]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Invitation]) -> QuerySet[Invitation]:
        """Invitations in the chosen language."""
        chosen = self.value()
        if chosen == funnel.BROWSERS:
            return queryset.filter(language="")
        return queryset.filter(language=chosen) if chosen in Language.values else queryset


@admin.register(Invitation)
class InvitationAdmin(ActionsAdmin[Invitation], MirrorAdmin[Invitation]):
    """Read-only: an invitation is made on its company's page."""

    list_display = ("what", "company_link", "state_pill", "made", "expires")
    list_select_related = ("company",)
    list_filter = (Views, StateFilter, "purpose", LanguageFilter)
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

    # --- The lists --------------------------------------------------------------------------------------------------
    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        """Stuck ones show since when, how long they live, and what to do; who may, finds the buttons there."""
        if not _shows_stuck(request):
            return self.list_display
        what = "to_do_here" if request.user.has_perm("feeds.invite_company") else "to_do"
        return ("customer", "contact", "stands", what)

    def get_ordering(self, request: HttpRequest) -> tuple[Any, ...]:
        """The newest first; of stuck ones who waits longest."""
        return (step_since().asc(), "pk") if _shows_stuck(request) else ("-id",)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, or the stuck ones."""
        extra: dict[str, Any] = {"shows_stuck": _shows_stuck(request)}
        if extra["shows_stuck"]:
            extra |= {"title": _("Stuck invitations"), "limits": stuck_in_words(), "as_of": timezone.now()}
        return super().changelist_view(request, extra | (extra_context or {}))

    @admin.display(description=gettext_lazy("customer"))
    def customer(self, invitation: Invitation) -> SafeString:
        return named(invitation.company)

    @admin.display(description=gettext_lazy("invitation, manager"))
    def contact(self, invitation: Invitation) -> SafeString:
        manager = person(invitation.company.manager) or _("without a manager")
        return format_html('{}<br><span class="quiet">{}</span>', invitation.title, manager)

    @admin.display(description=gettext_lazy("on this step for"))
    def stands(self, invitation: Invitation) -> SafeString:
        mail = stuck.last_mail(invitation)
        return format_html(
            '{} <span class="nowrap">{}</span><br><span class="quiet">{}<br>{}</span>',
            status_pill(invitation.state_meaning),
            since(invitation.since),  # type: ignore[attr-defined]  # annotated by the worklist
            _mail_told(mail) if mail is not None else _("No mail was written."),
            _ends_in(invitation),
        )

    @admin.display(description=gettext_lazy("what to do"))
    def to_do(self, invitation: Invitation) -> str:
        return str(stuck.advice(invitation, timezone.now()))

    @admin.display(description=gettext_lazy("what to do"))
    def to_do_here(self, invitation: Invitation) -> SafeString:
        links = format_html_join(
            " ",
            '<a class="row-link" href="{}">{}<span class="visually-hidden"> {}</span></a>',
            (
                (self.action_url(invitation, name), self.object_actions()[name].label, invitation.title)
                for name in ("send", "show-address", "renew")
            ),
        )
        return format_html('{}<br><span class="row-links">{}</span>', self.to_do(invitation), links)

    # --- One invitation ---------------------------------------------------------------------------------------------
    @admin.display(description=gettext_lazy("invitation"))
    def what(self, invitation: Invitation) -> str:
        return invitation.title

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

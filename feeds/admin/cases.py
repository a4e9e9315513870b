"""Cases: support's worklist, and the page on which one broken feed is repaired."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.admin.actions import ActionButton, ActionsAdmin, ObjectAction, list_action, object_action
from feeds.admin.base import (
    EMPTY,
    SEARCH_BY_COMPANY,
    MirrorAdmin,
    PersonField,
    ago,
    link_to,
    moment,
    named,
    person,
    since,
    status_pill,
)
from feeds.admin.companies import read_from_codat
from feeds.admin.connections import ConnectionAdmin, gone_from_codat, link_meaning
from feeds.admin.invitations import contact_mail_preview
from feeds.admin.timelines import visible_kinds
from feeds.audit import current_actor
from feeds.models import Case, Connection
from feeds.services import cases, gaps, invitations, timeline
from feeds.states import (
    CASE_RIGHTS,
    CaseCause,
    CaseOutcome,
    CaseState,
    InvitationPurpose,
    Language,
    Meaning,
    Text,
    Tone,
)
from feeds.wording import retold

OVERDUE = Meaning(gettext_lazy("overdue"), Tone.BAD, gettext_lazy("It should have been settled by now."))
TIMELINE_ENTRIES = 30
"""Entries on the case page; the whole story is on the company's timeline."""
WORK = "feeds.work_case"


# --- The worklist ---------------------------------------------------------------------------------------------------
class Tabs(admin.SimpleListFilter):
    """Which part of the worklist: shown as tabs above it. The whole open list when nothing is chosen."""

    title = gettext_lazy("worklist")
    parameter_name = "list"
    default = "all"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """The tabs, from left to right."""
        return [
            ("mine", _("Mine")),
            ("unassigned", _("Unassigned")),
            ("overdue", _("Overdue")),
            ("all", _("All open")),
            ("closed", _("Closed")),
        ]

    def value(self) -> str:
        """The tab that is open."""
        chosen = super().value()
        return chosen if chosen in {str(name) for name, _title in self.lookup_choices} else self.default

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """One link for each tab; there is no other choice."""
        for name, title in self.lookup_choices:
            query = changelist.get_query_string({self.parameter_name: str(name)})
            yield {"selected": name == self.value(), "query_string": query, "display": title}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Case]) -> QuerySet[Case]:
        """The cases of the open tab."""
        which = self.value()
        if which == "closed":
            # As the condition of the index has it.
            return queryset.filter(closed_at__isnull=False)
        return cases.worklist(cast(cases.Worklist, which), cast(User, request.user))


# --- What actions ask -----------------------------------------------------------------------------------------------
class NoteForm(forms.Form):
    """What somebody did or found out."""

    text = forms.CharField(
        label=gettext_lazy("Note"),
        help_text=gettext_lazy("Everybody who sees the case can read it. Do not write account numbers or passwords."),
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 4}),
    )


class CauseForm(forms.Form):
    """Why the feed broke."""

    cause = forms.ChoiceField(label=gettext_lazy("Cause"), choices=CaseCause.choices, widget=forms.RadioSelect)


class SnoozeForm(forms.Form):
    """Until which day, and what for."""

    until = forms.DateField(
        label=gettext_lazy("Until"),
        help_text=gettext_lazy("The case comes back when that day begins."),
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )
    text = forms.CharField(label=gettext_lazy("What for"), max_length=500, required=False)


class HandOverForm(forms.Form):
    """To whom, and what they should know."""

    to = PersonField(
        label=gettext_lazy("To"),
        queryset=User.objects.with_perm(CASE_RIGHTS["take"]).filter(is_staff=True).order_by("last_name", "username"),
    )
    text = forms.CharField(
        label=gettext_lazy("What they should know"),
        max_length=2000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
    )


class CloseForm(forms.Form):
    """How the case ended."""

    outcome = forms.ChoiceField(label=gettext_lazy("Outcome"), choices=CaseOutcome.choices, widget=forms.RadioSelect)
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        help_text=gettext_lazy("Needed while Codat still says that the feed is broken. Kept in the change history."),
        max_length=500,
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
    )


# --- Actions that belong to the connection --------------------------------------------------------------------------
def on_connection(action: ObjectAction) -> ObjectAction:
    """The connection's own action, offered on its case; Done and Cancel lead back to the case."""
    return replace(
        action,
        perform=lambda screen, request, case, data: action.perform(screen, request, case.connection, data),
        consequences=lambda case: action.consequences(case.connection),
        initial=lambda case: action.initial(case.connection),
        unavailable=lambda case: action.unavailable(case.connection),
        target=lambda case: action.target(case.connection),
    )


def is_closed(case: Case) -> Text:
    """Why a case cannot be worked."""
    return "" if case.is_open else _("This case is closed. It opens again by itself when the feed breaks again.")


def cannot_invite(case: Case) -> Text:
    """Why the customer is not invited to reconnect."""
    return (
        is_closed(case)
        or gone_from_codat(case.connection)
        or invitations.why_not_contact(case.company, InvitationPurpose.RECONNECT)
    )


def cannot_verify(case: Case) -> Text:
    """Why there is nothing to read."""
    return gone_from_codat(case.connection)


def _tomorrow(_case: Case) -> dict[str, Any]:
    return {"until": timezone.localdate() + timedelta(days=1)}


def _closing(case: Case) -> list[Text]:
    sentences: list[Text] = [_("The case leaves the worklist. It opens again by itself if the feed breaks again.")]
    if cases.still_broken(case):
        still = _("Codat still says broken: %s. To close it all the same, give a reason.")
        sentences.append(still % retold(case.what_is_broken))
    return sentences


@dataclass(frozen=True)
class GapText:
    """The gap in words for the customer, in one language."""

    language: Text
    code: str
    text: str


@admin.register(Case)
class CaseAdmin(ActionsAdmin[Case], MirrorAdmin[Case]):
    """The worklist and the case page."""

    ordering = ("due_at", "-priority", "pk")
    list_display_links = ("customer",)
    list_filter = (Tabs,)
    actions = ("take_selected",)
    search_company_path = "company"
    search_help_text = SEARCH_BY_COMPANY
    playbook_neighbours = {"show-link": "refresh-link", "set-cause": "note"}
    """Actions that a playbook does not name -> the one they stand beside."""

    # --- The worklist -----------------------------------------------------------------------------------------------
    def get_queryset(self, request: HttpRequest) -> QuerySet[Case]:
        """Cases with all that a row or a page shows of others."""
        related = ("company", "connection__company", "owner", "incident")
        return super().get_queryset(request).select_related(*related)

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Overdue first; of closed cases the latest first."""
        return ("-closed_at", "-pk") if request.GET.get(Tabs.parameter_name) == "closed" else self.ordering

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        """Who may work cases takes one with one click; others see who has it."""
        owner = "owner_or_take" if request.user.has_perm(WORK) else "owner_name"
        return ("customer", "what", owner, "age", "checked", "part_of")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The worklist."""
        return super().changelist_view(request, {"title": _("Broken feeds"), **(extra_context or {})})

    @admin.display(description=gettext_lazy("customer"))
    def customer(self, case: Case) -> SafeString:
        return named(case.company)

    @admin.display(description=gettext_lazy("what is broken, next step"))
    def what(self, case: Case) -> SafeString:
        return format_html('{}<br><span class="quiet">{}</span>', retold(case.what_is_broken), cases.next_step(case))

    @admin.display(description=gettext_lazy("age"))
    def age(self, case: Case) -> SafeString:
        overdue = format_html("<br>{}", status_pill(OVERDUE)) if is_overdue(case) else ""
        return format_html("{}{}", since(case.broke_at), overdue)

    @admin.display(description=gettext_lazy("last checked"))
    def checked(self, case: Case) -> SafeString:
        return ago(case.checked_at)

    @admin.display(description=gettext_lazy("owner"))
    def owner_name(self, case: Case) -> SafeString | str:
        return person(case.owner) or EMPTY

    @admin.display(description=gettext_lazy("owner"))
    def owner_or_take(self, case: Case) -> SafeString | str:
        if case.owner or not case.is_open:
            return self.owner_name(case)
        return format_html(
            '<button type="submit" class="row-action" formaction="{}">{} {}</button>',
            self.action_url(case, "take"),
            _("Take"),
            format_html('<span class="visually-hidden">{}</span>', case),
        )

    @admin.display(description=gettext_lazy("incident"))
    def part_of(self, case: Case) -> SafeString:
        return link_to(case.incident)

    @list_action(gettext_lazy("Take selected %(verbose_name_plural)s"), permission=WORK, four_eyes="take_cases")
    def take_selected(self, request: HttpRequest, chosen: list[Case]) -> None:
        self.for_each(request, chosen, lambda case: cases.take(case, current_actor()))

    # --- The case page ----------------------------------------------------------------------------------------------
    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Case | None = None,
    ) -> HttpResponse:
        """Facts, what to do in the order of the playbook, the gap in words, and the story."""
        if obj is not None:
            context |= self._page(request, obj)
        return super().render_change_form(request, context, add=add, change=change, form_url=form_url, obj=obj)

    def _page(self, request: HttpRequest, case: Case) -> dict[str, Any]:
        """What `admin/feeds/case/change_form.html` renders."""
        gap = gaps.gap(case)
        is_mine = case.state == CaseState.TAKEN and case.owner_id == request.user.pk
        buttons = [
            button
            for button in self.action_buttons(request, case)
            if not button.unavailable and not (is_mine and button.name == "take")
        ]
        return {
            "title": _("Case"),
            "subtitle": str(case),
            "case": case,
            "overdue": OVERDUE if is_overdue(case) else None,
            "next_step": cases.next_step(case),
            "owner": person(case.owner),
            "link": link_meaning(case.connection),
            "connection_label": capfirst(Connection._meta.verbose_name),
            "accounts": list(case.connection.source_accounts.filter(gone_at__isnull=True).order_by("pk")),
            "buttons": buttons,
            "gap": gap,
            "gap_texts": [
                GapText(label, code, gaps.customer_text(gap, code)) for code, label in _own_first(case.company.language)
            ],
            "timeline": timeline.of_connection(case.connection, TIMELINE_ENTRIES, kinds=visible_kinds(request.user)),
        }

    def action_buttons(self, request: HttpRequest, obj: Case) -> list[ActionButton]:
        """In the order of the playbook for the cause; first of all, somebody has to take the case."""
        playbook = [name.replace("_", "-") for name in cases.playbook(obj.cause)]

        def place(button: ActionButton) -> tuple[int, bool]:
            if button.name == "take":
                return -1, False
            leader = self.playbook_neighbours.get(button.name, button.name)
            return playbook.index(leader), leader != button.name

        return sorted(super().action_buttons(request, obj), key=place)

    # --- Actions ----------------------------------------------------------------------------------------------------
    @object_action(
        "take",
        gettext_lazy("Take"),
        permission=WORK,
        consequences=lambda _case: [_("The case becomes yours, from whomever has it now.")],
        unavailable=is_closed,
        confirm=False,
    )
    def take(self, request: HttpRequest, case: Case, data: dict[str, Any]) -> str:
        cases.take(case, current_actor())
        return _("The case of %s is yours.") % case.company

    @object_action(
        "verify-now",
        gettext_lazy("Verify now"),
        permission="feeds.refresh_company",
        consequences=lambda _case: [_("The connection and its accounts are read from Codat; nothing changes there.")],
        unavailable=cannot_verify,
        confirm=False,
    )
    def verify_now(self, request: HttpRequest, case: Case, data: dict[str, Any]) -> str:
        seen = read_from_codat(case.company)
        case.refresh_from_db()
        if not case.is_open:
            return " ".join((seen, _("The feed works, and the case is closed.")))
        return " ".join((seen, _("Still broken: %s.") % retold(case.what_is_broken)))

    @object_action(
        "invite-to-reconnect",
        gettext_lazy("Invite to reconnect"),
        permission="feeds.invite_company",
        consequences=lambda case: [
            _("The mail below goes to %(name)s, %(address)s, in the customer's language.")
            % {"name": case.company.contact_name, "address": case.company.contact_email},
            _("Its link opens our own page for %(days)d days; Codat's link is fetched when the customer presses there.")
            % {"days": settings.INVITATION_DAYS},
            _("The timeline tells when the mail was sent, and how far the customer came."),
        ],
        unavailable=cannot_invite,
        preview=lambda case: contact_mail_preview(case.company, InvitationPurpose.RECONNECT),
    )
    def invite_to_reconnect(self, request: HttpRequest, case: Case, data: dict[str, Any]) -> str:
        purpose = InvitationPurpose.RECONNECT
        invitations.invite_contact(case.company, purpose=purpose, actor=current_actor())
        return _("The mail is on its way. The timeline tells when it was sent.")

    refresh_link = on_connection(ConnectionAdmin.refresh_link)
    show_link = on_connection(ConnectionAdmin.show_link)
    generate_credentials = on_connection(ConnectionAdmin.generate_credentials)
    revoke_credentials = on_connection(ConnectionAdmin.revoke_credentials)

    @object_action(
        "note",
        gettext_lazy("Note"),
        permission=WORK,
        form=NoteForm,
        consequences=lambda _case: [_("The note becomes part of the case's story. Notes are never changed.")],
    )
    def note(self, request: HttpRequest, case: Case, data: dict[str, Any]) -> str:
        cases.note(case, data["text"], current_actor())
        return _("The note is kept.")

    @object_action(
        "set-cause",
        gettext_lazy("Set cause"),
        permission=WORK,
        form=CauseForm,
        initial=lambda case: {"cause": case.cause},
        consequences=lambda _case: [_("The actions of the case are put in the order that helps with this cause.")],
    )
    def set_cause(self, request: HttpRequest, case: Case, data: dict[str, Any]) -> str:
        cases.set_cause(case, data["cause"], current_actor())
        return _("The cause is set: %s.") % CaseCause(data["cause"]).label

    @object_action(
        "snooze",
        gettext_lazy("Snooze"),
        permission=WORK,
        form=SnoozeForm,
        initial=_tomorrow,
        consequences=lambda _case: [_("The case is put aside. The feed is read from Codat all the same.")],
        unavailable=is_closed,
    )
    def snooze(self, request: HttpRequest, case: Case, data: dict[str, Any]) -> str:
        until = timezone.make_aware(datetime.combine(data["until"], time.min))
        cases.snooze(case, until, current_actor(), data["text"])
        return format_html(_("Snoozed until {}."), moment(until))

    @object_action(
        "hand-over",
        gettext_lazy("Hand over"),
        permission=WORK,
        form=HandOverForm,
        consequences=lambda _case: [_("The case becomes your colleague's.")],
        unavailable=is_closed,
    )
    def hand_over(self, request: HttpRequest, case: Case, data: dict[str, Any]) -> str:
        cases.hand_over(case, data["to"], current_actor(), data["text"])
        return _("%s has the case now.") % person(data["to"])

    @object_action(
        "close",
        gettext_lazy("Close"),
        permission=WORK,
        form=CloseForm,
        consequences=_closing,
        unavailable=is_closed,
    )
    def close(self, request: HttpRequest, case: Case, data: dict[str, Any]) -> str:
        cases.close(case, data["outcome"], current_actor(), data["reason"])
        return _("The case of %s is closed.") % case.company


def is_overdue(case: Case) -> bool:
    """Whether an open case should have been settled by now."""
    return case.is_open and case.due_at <= timezone.now()


def _own_first(language: str) -> list[tuple[str, Text]]:
    return sorted(Language.choices, key=lambda choice: choice[0] != language)

"""Requests for approval: what colleagues ask for, and the buttons that decide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.admin.actions import ActionsAdmin, object_action
from feeds.admin.base import (
    EMPTY,
    SEARCH_BY_COMPANY,
    MirrorAdmin,
    change_url,
    link_to,
    named,
    since,
    status_pill,
    time_column,
)
from feeds.audit import current_actor
from feeds.models import Approval
from feeds.services import approvals
from feeds.states import ApprovalState, Meaning, Text, Tone
from feeds.wording import retold

TOO_LATE = Meaning(gettext_lazy("too late"), Tone.NEUTRAL, gettext_lazy("Nobody decided in time; it is being ended."))
ROWS = 500
"""Rows of a request for many that its page names."""


class Tabs(admin.SimpleListFilter):
    """Which requests: shown as tabs above the list. Those that wait for this person when nothing is chosen."""

    title = gettext_lazy("requests")
    parameter_name = "list"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """The tabs, from left to right; who decides nothing begins with all."""
        tabs = [("mine", _("Asked by me")), ("open", _("All that wait")), ("all", _("All"))]
        if not request.user.has_perm(approvals.DECIDE):
            return [tabs[2], *tabs[:2]]
        return [("waiting", _("Waiting for me")), *tabs]

    def value(self) -> str:
        """The tab that is open."""
        names = [str(name) for name, _title in self.lookup_choices]
        chosen = super().value()
        return chosen if chosen in names else names[0]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """One link for each tab; there is no other choice."""
        for name, title in self.lookup_choices:
            query = changelist.get_query_string({self.parameter_name: str(name)})
            yield {"selected": name == self.value(), "query_string": query, "display": title}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Approval]) -> QuerySet[Approval]:
        """The requests of the open tab."""
        which = self.value()
        if which == "waiting":
            return queryset & approvals.waiting_for(cast(User, request.user))
        if which == "mine":
            return queryset.filter(requested_by=request.user.pk)
        return queryset.filter(finished_at__isnull=True) if which == "open" else queryset


class ApproveForm(forms.Form):
    """What to say beside yes."""

    comment = forms.CharField(
        label=gettext_lazy("Comment"), max_length=500, required=False, widget=forms.Textarea(attrs={"rows": 2})
    )


class RefuseForm(forms.Form):
    """Why not."""

    comment = forms.CharField(
        label=gettext_lazy("Why not"),
        help_text=gettext_lazy("Whoever asked reads it, and it is kept in the change history."),
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 3}),
    )


def not_mine_to_decide(approval: Approval) -> Text:
    """Why the signed-in person cannot decide."""
    return approvals.why_not_decide(approval, current_actor().user)


def not_mine_to_withdraw(approval: Approval) -> Text:
    """Why the signed-in person cannot withdraw it."""
    return approvals.why_not_withdraw(approval, current_actor().user)


def approval_consequences(approval: Approval) -> list[Text]:
    """What was shown to whoever asked, and what is no longer so."""
    user = current_actor().user
    seen = approvals.compared_for(user, approval) if user is not None else []
    changed = [f"{it.label}: {it.then} → {it.now}" for it in seen if it.differs]
    sentences: list[Text] = [retold(sentence) for sentence in approval.consequences]
    if changed:
        text = _("Changed since it was asked: %s. It will not be carried out; it has to be asked anew.")
        sentences.insert(0, text % "; ".join(changed))
    sentences.append(_("It happens as soon as you approve. Your name is kept beside that of whoever asked."))
    return sentences


@admin.register(Approval)
class ApprovalAdmin(ActionsAdmin[Approval], MirrorAdmin[Approval]):
    """List and page."""

    list_display = ("what", "customer", "asked_by", "age", "until", "now")
    list_display_links = ("what",)
    list_select_related = ("company",)
    list_filter = (Tabs,)
    search_company_path = "company"
    search_help_text = SEARCH_BY_COMPANY

    until = time_column("expires_at", gettext_lazy("expires"))

    def visible_to(self, request: HttpRequest, queryset: QuerySet[Approval]) -> QuerySet[Approval]:
        """About customers one sees, and one's own."""
        return approvals.visible_to(cast(User, request.user), queryset)

    @admin.display(description=gettext_lazy("what"))
    def what(self, approval: Approval) -> SafeString:
        words = approvals.object_in_words(approval)
        return format_html('{} <span class="quiet">{}</span>', approvals.label_of(approval), words)

    @admin.display(description=gettext_lazy("customer"))
    def customer(self, approval: Approval) -> SafeString:
        return named(approval.company) if approval.company else EMPTY

    @admin.display(description=gettext_lazy("asked by"))
    def asked_by(self, approval: Approval) -> str:
        return approval.requested_by_name

    @admin.display(description=gettext_lazy("age"))
    def age(self, approval: Approval) -> SafeString:
        return since(approval.created_at)

    @admin.display(description=gettext_lazy("state"))
    def now(self, approval: Approval) -> SafeString:
        return status_pill(_state(approval))

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Approval | None = None,
    ) -> HttpResponse:
        """What was asked, what it would do, what it was judged on then and now, and what became of it."""
        if obj is not None:
            context |= self._page(request, obj)
        return super().render_change_form(request, context, add=add, change=change, form_url=form_url, obj=obj)

    def _page(self, request: HttpRequest, approval: Approval) -> dict[str, Any]:
        """What `admin/feeds/approval/change_form.html` renders."""
        is_waiting = approval.state == ApprovalState.REQUESTED
        is_seen = approvals.sees_what_it_is_about(cast(User, request.user), approval)
        compared = approvals.compared_for(cast(User, request.user), approval)
        why_not = not_mine_to_decide(approval) if is_waiting and request.user.has_perm(approvals.DECIDE) else ""
        return {
            "title": approvals.label_of(approval),
            "subtitle": str(approval),
            "approval": approval,
            "what": approvals.label_of(approval),
            "state": _state(approval),
            "target": _link(approval) if is_seen else approvals.object_in_words(approval),
            "about": approvals.object_in_words(approval),
            "is_seen": is_seen,
            "buttons": [button for button in self.action_buttons(request, approval) if not button.unavailable],
            "why_not": why_not,
            "nobody_can": is_waiting and not approvals.deciders_of(approval),
            "compared": compared,
            "has_changed": is_waiting and any(it.differs for it in compared),
            "outcome": approvals.outcome_in_words(approval),
            "payload": approvals.payload_in_words(approval),
            "rows": [name for _pk, name, _mark in approval.payload.get("rows", ())][:ROWS],
            "now": timezone.now(),
        }

    @object_action(
        "approve",
        gettext_lazy("Approve"),
        permission=approvals.DECIDE,
        form=ApproveForm,
        consequences=approval_consequences,
        unavailable=not_mine_to_decide,
    )
    def approve(self, request: HttpRequest, approval: Approval, data: dict[str, Any]) -> HttpResponse:
        settled = approvals.approve(approval, actor=current_actor(), comment=data["comment"])
        if settled.state == ApprovalState.APPROVED:
            messages.success(request, _("Approved. The rows are being worked through; this page shows how far."))
        elif settled.state == ApprovalState.DONE:
            messages.success(request, _("Approved and done. %s") % approvals.outcome_in_words(settled))
        else:
            messages.error(request, approvals.outcome_in_words(settled))
        return HttpResponseRedirect(change_url(settled))

    @object_action(
        "refuse",
        gettext_lazy("Refuse"),
        permission=approvals.DECIDE,
        form=RefuseForm,
        consequences=lambda approval: [
            _("Nothing is done. %s is told, with what you write.") % approval.requested_by_name,
        ],
        unavailable=not_mine_to_decide,
    )
    def refuse(self, request: HttpRequest, approval: Approval, data: dict[str, Any]) -> str:
        approvals.refuse(approval, actor=current_actor(), comment=data["comment"])
        return _("The request is refused.")

    @object_action(
        "withdraw",
        gettext_lazy("Withdraw"),
        permission="feeds.withdraw_approval",
        consequences=lambda _approval: [_("Nothing is done, and nobody can approve it any more.")],
        unavailable=not_mine_to_withdraw,
    )
    def withdraw(self, request: HttpRequest, approval: Approval, data: dict[str, Any]) -> str:
        approvals.withdraw(approval, actor=current_actor())
        return _("The request is withdrawn.")


def _state(approval: Approval) -> Meaning:
    return TOO_LATE if approval.is_overdue(timezone.now()) else approval.state_meaning


def _link(approval: Approval) -> SafeString | str:
    """The object, with a link where it still has a page."""
    target, words = approvals.target_of(approval), approvals.object_in_words(approval)
    try:
        return link_to(target, words) if target is not None else words
    except NoReverseMatch:
        return words

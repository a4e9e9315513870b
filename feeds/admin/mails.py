"""Mails to staff and to customers: what was told to whom, what was not delivered and why, and what helps then."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.admin.actions import ActionsAdmin, object_action
from feeds.admin.base import (
    EMPTY,
    SEARCH_BY_COMPANY,
    MirrorAdmin,
    link_column,
    link_to,
    status_explained,
    status_pill,
    time_column,
)
from feeds.audit import current_actor
from feeds.models import Mail
from feeds.services import customer_mails, outbox
from feeds.services.outbox import LINK_MARK
from feeds.states import CUSTOMER_MAILS, MailKind, Text


def what_sending_again_means(mail: Mail) -> list[Text]:
    """To whom it goes, and how old its words are."""
    to = ", ".join(mail.to.split(","))
    first = _("The mail goes to %s as it was written; what it tells may have changed since.") % to
    if mail.invitation_id is not None:
        return [first, _("It goes to the customer, with a link of its own.")]
    return [first, _("The customer gets nothing: this mail is for staff.")]


class KindFilter(admin.SimpleListFilter):
    """Mails by what they tell. Who sees only what customers were told is offered only that."""

    title = gettext_lazy("kind")
    parameter_name = "kind__exact"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Every kind that the list can hold."""
        kinds = MailKind if _sees_staffs(request) else CUSTOMER_MAILS
        return [(kind.value, kind.label) for kind in kinds]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Mail]) -> QuerySet[Mail]:
        """Mails of the chosen kind."""
        return queryset.filter(kind=self.value()) if self.value() in MailKind.values else queryset


def _sees_staffs(request: HttpRequest) -> bool:
    """Whether mails to colleagues are theirs to see: those are about cases."""
    return request.user.has_perm("feeds.view_case")


@admin.register(Mail)
class MailAdmin(ActionsAdmin[Mail], MirrorAdmin[Mail]):
    """List and detail, newest first. The text is shown as it was written; nothing of it can be changed."""

    # Two lines each: as columns of their own they are cut off in French.
    list_display = ("subject", "state_now", "about", "reaches", "written", "sent")
    list_select_related = ("company", "case__company")
    list_filter = ("state", KindFilter)
    search_company_path = "company"
    search_help_text = SEARCH_BY_COMPANY
    fieldsets = (
        (None, {"fields": ("subject", "state_words", "plain_error")}),
        (gettext_lazy("About"), {"fields": ("kind", "company_link", "case_link", "invitation_link", "recipients")}),
        (gettext_lazy("When"), {"fields": ("written", "sent", "came_back", "next_attempt", "attempts")}),
        (gettext_lazy("Text"), {"fields": ("text",)}),
    )

    company_link = link_column("company", gettext_lazy("company"))
    case_link = link_column("case", gettext_lazy("case"))
    written = time_column("created_at", gettext_lazy("written"))
    sent = time_column("sent_at", gettext_lazy("sent"))
    came_back = time_column("bounced_at", gettext_lazy("came back"))
    next_attempt = time_column("next_attempt_at", gettext_lazy("next attempt"))

    def visible_to(self, request: HttpRequest, queryset: QuerySet[Mail]) -> QuerySet[Mail]:
        """Who works no cases sees what customers were told, and not what colleagues were."""
        seen = super().visible_to(request, queryset)
        return seen if _sees_staffs(request) else seen.filter(invitation__isnull=False)

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        """No mail to a customer is about a case, and its subject says what it is about."""
        hidden = set() if _sees_staffs(request) else {"about"}
        return tuple(column for column in self.list_display if column not in hidden)

    @admin.display(description=gettext_lazy("state"))
    def state_now(self, mail: Mail) -> SafeString:
        return status_pill(mail.state_meaning)

    @admin.display(description=gettext_lazy("state"))
    def state_words(self, mail: Mail) -> SafeString:
        return status_explained(mail.state_meaning)

    @admin.display(description=gettext_lazy("kind"))
    def about(self, mail: Mail) -> SafeString:
        return format_html('{}<br><span class="quiet">{}</span>', mail.get_kind_display(), link_to(mail.case))

    @admin.display(description=gettext_lazy("to"))
    def reaches(self, mail: Mail) -> SafeString:
        # An address may be as long as the column is wide: it may be broken at its @.
        addresses = (address.rpartition("@") for address in mail.to.split(","))
        to = format_html_join(", ", "{}<wbr>{}{}", addresses)
        return format_html('{}<br><span class="quiet">{}</span>', to, link_to(mail.company))

    @admin.display(description=gettext_lazy("to"))
    def recipients(self, mail: Mail) -> str:
        return ", ".join(mail.to.split(","))

    @admin.display(description=gettext_lazy("invitation"))
    def invitation_link(self, mail: Mail) -> SafeString:
        return link_to(mail.invitation, mail.invitation.title if mail.invitation else None)

    @admin.display(description=gettext_lazy("what went wrong"))
    def plain_error(self, mail: Mail) -> str:
        return mail.error or EMPTY

    @admin.display(description=gettext_lazy("text"))
    def text(self, mail: Mail) -> SafeString:
        return format_html(
            '<pre class="mail-text">{}</pre>', mail.body.replace(LINK_MARK, _("(the customer's own link)"))
        )

    @object_action(
        "send-again",
        gettext_lazy("Send again"),
        permission="feeds.resend_mail",
        consequences=what_sending_again_means,
        unavailable=outbox.why_not_again,
    )
    def send_again(self, request: HttpRequest, mail: Mail, data: dict[str, Any]) -> str:
        outbox.send_again(mail, actor=current_actor())
        return _("Queued: it is sent within a minute.")

    @object_action(
        "note-bounce",
        gettext_lazy("Note that it came back"),
        permission="feeds.invite_company",
        consequences=lambda mail: [
            _("It is noted that this mail did not arrive. No reminder goes to %s.") % mail.to,
            _("To reach the customer: correct the address on the company's page, then invite anew."),
        ],
        unavailable=customer_mails.why_no_bounce,
    )
    def note_bounce(self, request: HttpRequest, mail: Mail, data: dict[str, Any]) -> str:
        customer_mails.note_bounce(mail, actor=current_actor())
        return _("Noted: it did not arrive.")

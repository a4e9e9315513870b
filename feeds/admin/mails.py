"""Mails to staff: what was told to whom, what was not delivered and why, and Send again."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.admin.actions import ActionsAdmin, object_action
from feeds.admin.base import EMPTY, MirrorAdmin, link_column, status_explained, status_pill, time_column
from feeds.audit import current_actor
from feeds.models import Mail
from feeds.services import outbox


@admin.register(Mail)
class MailAdmin(ActionsAdmin[Mail], MirrorAdmin[Mail]):
    """List and detail, newest first. The text is shown as it was written; nothing of it can be changed."""

    list_display = ("subject", "state_now", "kind", "recipients", "written", "sent", "case_link")
    list_select_related = ("case__company",)
    list_filter = ("state", "kind")
    search_company_path = "case__company"
    search_help_text = gettext_lazy("Customer number, Codat company id, or the start of the legal name.")
    fieldsets = (
        (None, {"fields": ("subject", "state_words", "plain_error")}),
        (gettext_lazy("About"), {"fields": ("kind", "case_link", "recipients")}),
        (gettext_lazy("When"), {"fields": ("written", "sent", "next_attempt", "attempts")}),
        (gettext_lazy("Text"), {"fields": ("text",)}),
    )

    case_link = link_column("case", gettext_lazy("case"))
    written = time_column("created_at", gettext_lazy("written"))
    sent = time_column("sent_at", gettext_lazy("sent"))
    next_attempt = time_column("next_attempt_at", gettext_lazy("next attempt"))

    @admin.display(description=gettext_lazy("state"))
    def state_now(self, mail: Mail) -> SafeString:
        return status_pill(mail.state_meaning)

    @admin.display(description=gettext_lazy("state"))
    def state_words(self, mail: Mail) -> SafeString:
        return status_explained(mail.state_meaning)

    @admin.display(description=gettext_lazy("to"))
    def recipients(self, mail: Mail) -> str:
        return ", ".join(mail.to.split(","))

    @admin.display(description=gettext_lazy("what went wrong"))
    def plain_error(self, mail: Mail) -> str:
        return mail.error or EMPTY

    @admin.display(description=gettext_lazy("text"))
    def text(self, mail: Mail) -> SafeString:
        return format_html('<pre class="mail-text">{}</pre>', mail.body)

    @object_action(
        "send-again",
        gettext_lazy("Send again"),
        permission="feeds.resend_mail",
        consequences=lambda mail: [
            _("The mail goes to %s as it was written; what it tells may have changed since.")
            % ", ".join(mail.to.split(",")),
            _("The customer gets nothing: these mails are for staff."),
        ],
        unavailable=outbox.why_not_again,
    )
    def send_again(self, request: HttpRequest, mail: Mail, data: dict[str, Any]) -> str:
        outbox.send_again(mail, actor=current_actor())
        return _("Queued: it is sent within a minute.")

"""Mails, written with the change they tell and sent by the queue.

At least once: a mail is claimed for `CLAIM`, handed to the mail server, then marked as sent. A worker killed between
the last two hands it over again when its claim has run out, with the same Message-ID: at most the one mail in its hands
is doubled, none is lost. Attempts are counted at the claim, so that a mail which kills its worker ends as failed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from smtplib import SMTPException
from typing import Any
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from feeds import audit, queue
from feeds.audit import Actor
from feeds.models import AccessGrant, Approval, CalloutVersion, Case, CaseEvent, Company, Incident, Invitation, Mail
from feeds.services import invitation_keys, preferences
from feeds.services.errors import Refused
from feeds.states import CaseEventKind, MailKind, MailState

log = structlog.get_logger(__name__)

CLAIM = timedelta(minutes=5)
MAX_ATTEMPTS = 10
LONGEST_WAIT = timedelta(hours=6)
"""Between two attempts: they reach over more than a day."""
_WHITE_SPACE = re.compile(r"[^\S\N{NO-BREAK SPACE}]+")
"""A subject is one line; the space before a French colon stays one that does not break."""
KEEP_TEAM_MAILS = timedelta(days=30)
"""Those about no customer in particular, after they were sent."""
LINK_MARK = "[[connect-link]]"
"""Stands in the text of a customer's mail until it is sent: the link is made then, and stored nowhere."""
BUDGET = 40.0
"""Seconds after which no further mail is taken: a queue task lives sixty, and one mail may take `EMAIL_TIMEOUT`."""


def put(
    kind: MailKind,
    *,
    to: Sequence[str],
    subject: str | Callable[[], str],
    context: Mapping[str, Any],
    case: Case | None = None,
    company: Company | None = None,
    key: str = "",
) -> bool:
    """Write a mail from the templates `feeds/mail/<kind>.txt` and `.html`; call inside the transaction of the change.

    Each is written to in their own language: one mail for each language among the addresses. A `subject` in words of
    ours is therefore a function, called when the language is known. With a `key`, a mail that exists already is not
    written again. `company`: whom it is about, when no `case` says so. Nothing is written when there is nobody to send
    to. Whether one was written.
    """
    if not to or _is_written(key):
        return False
    written = False
    for number, (language, addresses) in enumerate(preferences.by_language(to).items()):
        with translation.override(language):
            written |= _write(
                kind,
                to=addresses,
                subject=subject if isinstance(subject, str) else subject(),
                context=context,
                case=case,
                company=case.company if case is not None else company,
                key=f"{key} {language}" if key and number else key,
            )
    return written


def store(mail: Mail) -> bool:
    """Store a new mail; False when one with its key is there, even if another process wrote it this very moment."""
    try:
        # Of its own, so that the caller's transaction goes on.
        with transaction.atomic():
            mail.save(force_insert=True)
    except IntegrityError:
        if _is_written(mail.key):
            return False
        raise
    return True


def _is_written(key: str) -> bool:
    return bool(key) and Mail.objects.filter(key=key).exists()


def _write(
    kind: MailKind,
    *,
    to: Sequence[str],
    subject: str,
    context: Mapping[str, Any],
    case: Case | None,
    company: Company | None,
    key: str,
) -> bool:
    values = {**context, "subject": subject, "site_url": settings.SITE_URL}
    mail = Mail(
        kind=kind,
        key=key,
        to=",".join(to),
        subject=_WHITE_SPACE.sub(" ", subject).strip()[:200],
        body=render_to_string(f"feeds/mail/{kind}.txt", values),
        html=render_to_string(f"feeds/mail/{kind}.html", values),
        case=case,
        company=company,
        next_attempt_at=timezone.now(),
    )
    return store(mail)


def page_of(row: Company | Approval | AccessGrant | Case | Incident | CalloutVersion) -> str:
    """The address of the row's page in the back office."""
    return settings.SITE_URL + reverse(f"admin:feeds_{row._meta.model_name}_change", args=[row.pk])


def send_due() -> int:
    """Send what is due; how many went out. One that fails never stops the rest."""
    deadline = time.monotonic() + BUDGET
    due = Mail.objects.filter(next_attempt_at__lte=timezone.now()).order_by("next_attempt_at", "pk")
    if Incident.objects.filter(released_at__isnull=True).exists():
        # Customers are told nothing while staff find out what is going on; their mails wait for the release.
        due = due.filter(invitation__isnull=True)
    sent = 0
    for mail in due[:500]:
        if time.monotonic() > deadline:
            break
        if _claim(mail):
            sent += _send(mail)
    return sent


def why_not_again(mail: Mail) -> str:
    """Why it makes no sense to send this mail again now; empty when it does."""
    if mail.state == MailState.QUEUED:
        return _("It is waiting to be sent already.")
    if mail.state == MailState.SENT:
        if mail.invitation_id is not None:
            return _("It was sent. To send another, open its invitation.")
        return _("It was sent. What it told stands on the case.") if mail.case_id else _("It was sent.")
    incident = mail.case.incident if mail.case is not None else None
    if mail.state == MailState.HELD and incident is not None and incident.released_at is None:
        return _("Its incident is open, and would hold it again. Release the incident first.")
    return ""


def send_again(mail: Mail, *, actor: Actor) -> None:
    """Try a mail anew that failed or was held, with as many attempts as a new one. Raises Refused for any other."""
    with transaction.atomic(), audit.acting(actor):
        mail = Mail.objects.select_for_update().get(pk=mail.pk)
        if reason := why_not_again(mail):
            raise Refused(reason)
        mail.state, mail.attempts, mail.error, mail.next_attempt_at = MailState.QUEUED, 0, "", timezone.now()
        mail.save(update_fields=["state", "attempts", "error", "next_attempt_at", "updated_at"])
        audit.record("mail_resent", mail, kind=mail.kind)
        queue.enqueue(queue.SEND_MAILS)


def prune() -> int:
    """Delete mails that were finished long ago; how many. Failed ones are kept.

    What was written to or about a customer is evidence, and stays as long as the change history does; the rest
    (digests, mails to the team) for `KEEP_TEAM_MAILS`.
    """
    now = timezone.now()
    of_team = Q(company=None, updated_at__lt=now - KEEP_TEAM_MAILS)
    of_customers = Q(updated_at__lt=now - timedelta(days=settings.AUDIT_RETENTION_DAYS))
    return Mail.objects.filter(of_team | of_customers, state__in=(MailState.SENT, MailState.HELD)).delete()[0]


def _claim(mail: Mail) -> bool:
    """Take the mail for a while; False when another worker was first, or when it was tried often enough."""
    now = timezone.now()
    mine = Mail.objects.filter(pk=mail.pk, next_attempt_at=mail.next_attempt_at)
    if mail.attempts >= MAX_ATTEMPTS:
        log.error("mail_given_up", mail=mail.pk)
        with transaction.atomic():
            if mine.update(state=MailState.FAILED, next_attempt_at=None, updated_at=now):
                audit.record("mail_given_up", mail, kind=mail.kind, to=mail.to)
        return False
    return bool(mine.update(attempts=mail.attempts + 1, next_attempt_at=now + CLAIM, updated_at=now))


def _send(mail: Mail) -> bool:
    try:
        link = _fresh_link(mail)
    except Refused as refusal:
        _give_up(mail, str(refusal))
        return False
    body, html = (text.replace(LINK_MARK, link) for text in (mail.body, mail.html))
    message = EmailMultiAlternatives(
        mail.subject, body, to=mail.to.split(","), headers={"Message-ID": f"<{mail.uid}@{_domain()}>"}
    )
    message.attach_alternative(html, "text/html")
    try:
        message.send()
    except (SMTPException, OSError) as error:
        log.warning("mail_not_sent", mail=mail.pk, error=type(error).__name__)
        wait = min(CLAIM * 2**mail.attempts, LONGEST_WAIT)
        now = timezone.now()
        Mail.objects.filter(pk=mail.pk).update(error=type(error).__name__, next_attempt_at=now + wait, updated_at=now)
        return False
    now = timezone.now()
    with transaction.atomic():
        Mail.objects.filter(pk=mail.pk).update(
            state=MailState.SENT, sent_at=now, next_attempt_at=None, error="", updated_at=now
        )
        audit.record("mail_sent", mail, kind=mail.kind, to=mail.to)
        if mail.case_id is not None:
            CaseEvent.objects.create(
                case_id=mail.case_id, kind=CaseEventKind.NOTIFIED, text=mail.subject, actor_name="system", at=now
            )
        if mail.invitation_id is not None:
            _note_sent(mail.invitation_id)
    return True


def _fresh_link(mail: Mail) -> str:
    """The customer's link, where the text wants one. Raises Refused when the invitation opens nothing any more."""
    if mail.invitation is None or LINK_MARK not in mail.body:
        return ""
    return invitation_keys.address(mail.invitation, made_for=invitation_keys.MAILED, actor=audit.current_actor()).url


def _give_up(mail: Mail, why: str) -> None:
    with transaction.atomic():
        Mail.objects.filter(pk=mail.pk).update(
            state=MailState.FAILED, next_attempt_at=None, error=why, updated_at=timezone.now()
        )
        audit.record("mail_given_up", mail, kind=mail.kind, to=mail.to)


def _note_sent(invitation_id: int) -> None:
    invitation = Invitation.objects.select_for_update().get(pk=invitation_id)
    if invitation.sent_at is None:
        invitation.sent_at = timezone.now()
        invitation.save(update_fields=["sent_at", "updated_at"])


def _domain() -> str:
    return urlsplit(settings.SITE_URL).hostname or "localhost"

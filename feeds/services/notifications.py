"""Mails about cases: to the owner, or to the team while nobody has the case.

One mail for each change, and of each kind at most one within `CASE_NOTIFY_COOLDOWN_MINUTES` for a case. A change that
comes sooner is told when that time is over, if it is then still the truth: a flapping feed makes two mails, not twenty.
"""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy, ngettext

from feeds import queue
from feeds.models import Case, Mail
from feeds.services import incidents, outbox
from feeds.states import CaseState, MailKind, MailState

NAMED_IN_DIGEST = 50
"""Cases a digest lists by name."""


def broke(case: Case) -> None:
    """Tell that the feed broke. Call inside the transaction that opened the case."""
    _changed(case, MailKind.BROKE)


def recovered(case: Case) -> None:
    """Tell that the feed works again. Call inside the transaction that closed the case."""
    _changed(case, MailKind.RECOVERED)


def send() -> int:
    """Everything the outbox owes now: late news, incidents before single mails, then sending. How many went out."""
    _write_late_news()
    incidents.detect()
    return outbox.send_due()


def write_digests() -> int:
    """Write the mail of the day to every owner who has something to do; how many. Once a day, however often called."""
    now = timezone.localtime()
    if now.hour < settings.CASE_DIGEST_HOUR:
        return 0
    waiting = Case.objects.filter(state=CaseState.TAKEN)
    owners = User.objects.filter(is_active=True, pk__in=waiting.values("owner")).exclude(email="")
    written = 0
    for owner in owners:
        key = f"digest {now.date()} {owner.pk}"
        with transaction.atomic():
            # One worker at a time for each owner: without the lock two could miss the other's mail.
            User.objects.select_for_update().get(pk=owner.pk)
            if not Mail.objects.filter(key=key).exists():
                _write_digest(owner, key)
                written += 1
    return written


def _changed(case: Case, kind: MailKind) -> None:
    cooldown = timedelta(minutes=settings.CASE_NOTIFY_COOLDOWN_MINUTES)
    alike = Mail.objects.filter(case=case, kind=kind, created_at__gt=timezone.now() - cooldown)
    last = alike.exclude(state=MailState.HELD).order_by("-created_at").first()
    if last is None:
        _write(case, kind)
    else:
        Case.objects.filter(pk=case.pk).update(notify_due_at=last.created_at + cooldown)
    # Also when nothing was written: breaks are counted where mails are sent.
    queue.enqueue(queue.SEND_MAILS)


def _write(case: Case, kind: MailKind) -> None:
    outbox.put(
        kind,
        to=_recipients(case),
        subject=lambda: str(_SUBJECTS[kind]) % {"company": case.company.legal_name},
        context={"case": case, "url": outbox.page_of(case)},
        case=case,
    )
    Case.objects.filter(pk=case.pk).update(notified_at=timezone.now(), notified_about=kind, notify_due_at=None)


_SUBJECTS = {
    MailKind.BROKE: gettext_lazy("Feed broke: %(company)s"),
    MailKind.RECOVERED: gettext_lazy("Feed works again: %(company)s"),
}


def _recipients(case: Case) -> list[str]:
    owner = case.owner
    if owner is not None and owner.is_active and owner.email:
        return [owner.email]
    return settings.CASE_NOTIFY_TO


def _write_late_news() -> None:
    """What was held back by the cool-down and is still so, and not what was told last."""
    for pk in Case.objects.filter(notify_due_at__lte=timezone.now()).values_list("pk", flat=True):
        with transaction.atomic():
            case = Case.objects.select_for_update().get(pk=pk)
            if case.notify_due_at is None or case.notify_due_at > timezone.now():
                continue
            kind = MailKind.BROKE if case.is_open else MailKind.RECOVERED
            if kind == case.notified_about:
                Case.objects.filter(pk=pk).update(notify_due_at=None)
            else:
                _write(case, kind)


def _write_digest(owner: User, key: str) -> None:
    cases = Case.objects.filter(owner=owner, state=CaseState.TAKEN)
    count = cases.count()
    named = cases.select_related("company").order_by("due_at", "-priority", "pk")[:NAMED_IN_DIGEST]
    counts = {
        "count": count,
        "overdue": cases.filter(due_at__lte=timezone.now()).count(),
        "unassigned": Case.objects.filter(state=CaseState.OPEN).count(),
    }
    outbox.put(
        MailKind.DIGEST,
        to=[owner.email],
        subject=lambda: ngettext("%(count)s broken feed is yours", "%(count)s broken feeds are yours", count) % counts,
        context={**counts, "rows": [(case, outbox.page_of(case)) for case in named], "now": timezone.now()},
        key=key,
    )

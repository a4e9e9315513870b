"""Incidents: many feeds that break together are one event, told once.

Decided where mails are sent, on committed rows, so that no two workers count past each other: more than
`INCIDENT_THRESHOLD` breaks within `INCIDENT_WINDOW_MINUTES` open an incident; until a person releases it, further
breaks join it and mails about its cases are held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from feeds import audit, queue
from feeds.audit import Actor
from feeds.models import Case, CaseEvent, Incident, Mail
from feeds.services import outbox
from feeds.services.errors import Refused
from feeds.states import CaseEventKind, MailKind, MailState

NAMED_IN_MAIL = 50
"""Cases a mail lists by name."""


def current() -> Incident | None:
    """The incident that is not released, if there is one."""
    return Incident.objects.filter(released_at__isnull=True).first()


def detect() -> Incident | None:
    """Open an incident if feeds break in numbers, let new breaks join, hold its mails. Safe to call at any time."""
    if current() is None and _loose_breaks(timezone.now()).count() <= settings.INCIDENT_THRESHOLD:
        return None
    with transaction.atomic():
        found = _the_open_one()
        if found is None:
            return None
        incident, is_new = found
        _join(incident)
        _hold(incident)
        if is_new:
            _announce(incident)
    return incident


def release(incident: Incident, actor: Actor, note: str = "") -> None:
    """Back to normal: one summary mail, and new breaks are told one by one again.

    Raises Refused when it is released already.
    """
    with audit.acting(replace(actor, reason=note.strip() or actor.reason)), transaction.atomic():
        incident = Incident.objects.select_for_update().get(pk=incident.pk)
        if incident.released_at is not None:
            raise Refused(_("This incident is released already."))
        _join(incident)
        _hold(incident)
        incident.released_at = timezone.now()
        incident.released_by_name = actor.name
        incident.note = note.strip() or incident.note
        incident.save()
        _summarise(incident)
        queue.enqueue(queue.SEND_MAILS)


def _loose_breaks(at: datetime) -> QuerySet[Case]:
    """Cases outside any incident whose feed broke within the window before `at`, or later."""
    window = timedelta(minutes=settings.INCIDENT_WINDOW_MINUTES)
    return Case.objects.filter(incident__isnull=True, broke_at__gt=at - window)


def _the_open_one() -> tuple[Incident, bool] | None:
    """The incident that is not released, locked, and whether it is new. The database allows one at a time.

    None when the one that was open has just been released, and what broke since makes no other.
    """
    open_ones = Incident.objects.select_for_update().filter(released_at__isnull=True)
    if (incident := open_ones.first()) is not None:
        return incident, False
    if _loose_breaks(timezone.now()).count() <= settings.INCIDENT_THRESHOLD:
        return None
    try:
        with transaction.atomic():
            return Incident.objects.create(opened_at=timezone.now()), True
    except IntegrityError:  # another worker opened it a moment ago
        return open_ones.get(), False


def _join(incident: Incident) -> None:
    # A row that somebody is working on is left for the next round, a minute later: waiting for it could deadlock.
    loose = _loose_breaks(incident.opened_at).select_for_update(skip_locked=True).order_by("pk")
    joining = list(loose.values_list("pk", flat=True))
    # In one statement, and not through `save`: thousands may join, and each has its line in the story.
    audit.update(Case.objects.filter(pk__in=joining), incident=incident)
    _tell(joining, CaseEventKind.JOINED_INCIDENT, str(incident))


def _hold(incident: Incident) -> None:
    """Mails about its cases that no worker has in its hands are not sent; the summary tells instead."""
    waiting = Mail.objects.filter(case__in=incident.cases.all(), next_attempt_at__lte=timezone.now())
    held = list(waiting.select_for_update(skip_locked=True).values_list("pk", "case_id"))
    Mail.objects.filter(pk__in=[pk for pk, _case in held]).update(
        state=MailState.HELD, next_attempt_at=None, updated_at=timezone.now()
    )
    _tell([case_id for _pk, case_id in held if case_id], CaseEventKind.HELD, str(incident))


def _tell(case_ids: Sequence[int], kind: CaseEventKind, text: str) -> None:
    now = timezone.now()
    CaseEvent.objects.bulk_create(
        [CaseEvent(case_id=pk, kind=kind, text=text, actor_name=audit.SYSTEM.name, at=now) for pk in case_ids],
        batch_size=500,
    )


def _announce(incident: Incident) -> None:
    cases = Case.objects.filter(incident=incident)
    count = cases.count()
    outbox.put(
        MailKind.INCIDENT_OPENED,
        to=settings.CASE_NOTIFY_TO,
        subject=lambda: (
            ngettext("Incident: %(count)s feed broke", "Incident: %(count)s feeds broke together", count)
            % {"count": count}
        ),
        context={"incident": incident, "url": outbox.page_of(incident), "count": count, **_named(cases)},
        key=f"incident {incident.pk} opened",
    )


def _summarise(incident: Incident) -> None:
    """One mail to the team and to every owner of a case that is still open."""
    cases = Case.objects.filter(incident=incident)
    broken = cases.open()
    owners = broken.filter(owner__is_active=True).exclude(owner__email="").values_list("owner__email", flat=True)
    counts = {"count": cases.count(), "open_count": broken.count()}
    outbox.put(
        MailKind.INCIDENT_RELEASED,
        to=sorted({*settings.CASE_NOTIFY_TO, *owners}),
        subject=lambda: _("Incident released: %(open_count)s of %(count)s feeds still broken") % counts,
        context={"incident": incident, "url": outbox.page_of(incident), **counts, **_named(broken)},
        key=f"incident {incident.pk} released",
    )


def _named(cases: QuerySet[Case]) -> dict[str, object]:
    """The most urgent cases for a mail, and how many more there are."""
    named = list(cases.select_related("company", "connection").order_by("-priority", "pk")[: NAMED_IN_MAIL + 1])
    return {"cases": named[:NAMED_IN_MAIL], "more": len(named) > NAMED_IN_MAIL}

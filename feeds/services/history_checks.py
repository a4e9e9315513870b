"""Verifying the change history on request: at once while it is short, else by the queue; each result is kept.

A verification reads every sealed entry again (`services.seals`). It changes nothing but its own row and the record that
it was asked for. A task of the queue is stopped after a minute, so a long history is read in parts: each puts down in
the row how far it came and queues the next. A part whose worker was stopped is begun again by the queue.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import audit, queue
from feeds.audit import Actor
from feeds.models import AuditEntry, AuditSeal, HistoryCheck
from feeds.services import seals
from feeds.services.errors import Refused
from feeds.states import CheckState
from feeds.wording import recorded

log = structlog.get_logger(__name__)

SHORT = 20_000
"""Entries that are verified while the person waits: a second or two."""
MOST_KEPT = 20
"""Problems that are kept with a result; the first bad batch is what matters."""
GRACE = timedelta(seconds=60)
BUDGET = 30.0
"""Seconds after which a part looks at no further seal; the one it is at, of ten thousand entries, takes some more."""


def ask(*, actor: Actor) -> HistoryCheck:
    """Verify now, or have it verified. Raises Refused while another verification is under way."""
    _give_up_lost()
    try:
        with transaction.atomic(), audit.acting(actor):
            check = HistoryCheck.objects.create(requested_by_name=actor.name, asked_at=timezone.now())
            audit.record("history_verification_asked", check)
            is_short = _about_how_many() <= SHORT
            if not is_short:
                queue.enqueue(queue.VERIFY_HISTORY, check.pk)
    except IntegrityError:
        raise Refused(_("A verification is under way already. Its result will stand here.")) from None
    if is_short:
        with audit.acting(actor):
            run(check.pk)
        check.refresh_from_db()
    return check


def run(check_id: int) -> str:
    """Verify, or go on verifying, for some seconds, and keep the result; how it stands in some words.

    Safe to run twice: while one part runs, another has nothing to do.
    """
    now = timezone.now()
    is_free = Q(started_at__isnull=True) | Q(started_at__lt=now - _longest())
    if not HistoryCheck.objects.filter(is_free, pk=check_id, state=CheckState.QUEUED).update(started_at=now):
        return "done already"
    check = HistoryCheck.objects.get(pk=check_id)
    try:
        with recorded():
            found = seals.verify(begun=_begun(check), budget=BUDGET)
    except Exception:
        # Whatever it was, the page must not say "under way" for ever.
        log.exception("history_not_verified", check=check_id)
        _end(check, CheckState.FAILED)
        return check.state
    check.seals, check.entries, check.unsealed = found.seals, found.entries, found.unsealed
    check.purged = found.purged
    check.last_seal_sha256 = found.last_seal.sha256 if found.last_seal else ""
    # Triggers and purges are looked at in each part.
    check.problems = list(dict.fromkeys([*check.problems, *(problem.text for problem in found.problems)]))[:MOST_KEPT]
    if check.first_bad_seal is None:
        check.first_bad_seal = next((problem.seal for problem in found.problems if problem.seal is not None), None)
    if not found.is_whole:
        return _go_on(check)
    _end(check, CheckState.ALTERED if check.problems else CheckState.INTACT)
    return check.state


def _begun(check: HistoryCheck) -> seals.Verification | None:
    """How far earlier parts came. A seal that is gone since then is found missing by beginning anew."""
    last = AuditSeal.objects.filter(sha256=check.last_seal_sha256).first()
    if last is None:
        return None
    return seals.Verification(
        seals.database_now(), seals=check.seals, entries=check.entries, purged=check.purged, last_seal=last
    )


def _go_on(check: HistoryCheck) -> str:
    with transaction.atomic():
        check.started_at = None
        check.save()
        queue.enqueue(queue.VERIFY_HISTORY, check.pk)
    return f"{check.seals} seals so far"


def _end(check: HistoryCheck, state: CheckState) -> None:
    check.state = state
    check.finished_at = timezone.now()
    with transaction.atomic():
        check.save()
        bad: dict[str, Any] = {"first_bad_seal": check.first_bad_seal} if check.first_bad_seal is not None else {}
        audit.record("history_verified", check, result=state.value, seals=check.seals, entries=check.entries, **bad)


def is_lost(check: HistoryCheck) -> bool:
    """Whether the worker of the part that began last must have been stopped: a task lives `Q_TIMEOUT` seconds."""
    is_running = check.state == CheckState.QUEUED and check.started_at is not None
    return bool(is_running and check.started_at and timezone.now() - check.started_at > _longest())


def _longest() -> timedelta:
    return timedelta(seconds=settings.Q_CLUSTER["timeout"]) + GRACE


def _give_up_lost() -> None:
    waiting = HistoryCheck.objects.filter(state=CheckState.QUEUED).first()
    if waiting is not None and is_lost(waiting):
        with recorded():
            why = _("Its worker was stopped before the end. verify_audit on the command line needs no worker.")
            waiting.problems = [*waiting.problems, why]
        _end(waiting, CheckState.FAILED)


def _about_how_many() -> int:
    """From the lowest id to the highest: no count."""
    ids = AuditEntry.objects.order_by("id").values_list("id", flat=True)
    first, last = ids.first(), ids.last()
    return (last or 0) - (first or 0)

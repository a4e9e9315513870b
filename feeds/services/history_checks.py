"""Verifying the change history on request: at once while it is short, else by the queue; each result is kept.

A verification reads every sealed entry again (`services.seals`). It changes nothing but its own row and the record that
it was asked for.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import audit, queue
from feeds.audit import Actor
from feeds.models import AuditEntry, HistoryCheck
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
    """Verify and keep the result; the result in a word. Safe to run twice: only the first has something to do."""
    claimed = HistoryCheck.objects.filter(pk=check_id, state=CheckState.QUEUED, started_at__isnull=True)
    if not claimed.update(started_at=timezone.now()):
        return "done already"
    check = HistoryCheck.objects.get(pk=check_id)
    try:
        with recorded():
            found = seals.verify()
    except Exception:
        # Whatever it was, the page must not say "under way" for ever.
        log.exception("history_not_verified", check=check_id)
        _end(check, CheckState.FAILED)
        return check.state
    check.seals, check.entries, check.unsealed = found.seals, found.entries, found.unsealed
    check.purged = found.purged
    check.last_seal_sha256 = found.last_seal.sha256 if found.last_seal else ""
    check.problems = [problem.text for problem in found.problems[:MOST_KEPT]]
    check.first_bad_seal = next((problem.seal for problem in found.problems if problem.seal is not None), None)
    _end(check, CheckState.INTACT if found.is_sound else CheckState.ALTERED)
    return check.state


def _end(check: HistoryCheck, state: CheckState) -> None:
    check.state = state
    check.finished_at = timezone.now()
    with transaction.atomic():
        check.save()
        bad: dict[str, Any] = {"first_bad_seal": check.first_bad_seal} if check.first_bad_seal is not None else {}
        audit.record("history_verified", check, result=state.value, seals=check.seals, entries=check.entries, **bad)


def is_lost(check: HistoryCheck) -> bool:
    """Whether its worker must have been stopped: a task lives `Q_TIMEOUT` seconds."""
    longest = timedelta(seconds=settings.Q_CLUSTER["timeout"]) + GRACE
    is_running = check.state == CheckState.QUEUED and check.started_at is not None
    return bool(is_running and check.started_at and timezone.now() - check.started_at > longest)


def _give_up_lost() -> None:
    waiting = HistoryCheck.objects.filter(state=CheckState.QUEUED).first()
    if waiting is not None and is_lost(waiting):
        with recorded():
            waiting.problems = [_("It took longer than a task may. Run verify_audit on the command line instead.")]
        _end(waiting, CheckState.FAILED)


def _about_how_many() -> int:
    """From the lowest id to the highest: no count."""
    ids = AuditEntry.objects.order_by("id").values_list("id", flat=True)
    first, last = ids.first(), ids.last()
    return (last or 0) - (first or 0)

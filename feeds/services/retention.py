"""What becomes of history that is older than the retention: a recorded purge, after which the chain still verifies.

Only whole batches go, and only such that verify: a purge must not be the way to hide that something was changed. The
seals stay for good. The database itself lets an entry go only while a recorded purge covers it.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from itertools import takewhile

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.utils.translation import gettext as _

from feeds import audit
from feeds.models import AuditPurge, AuditSeal
from feeds.services import seals
from feeds.services.errors import Refused

log = structlog.get_logger(__name__)

SEALS_AT_A_TIME = 5
"""Batches in one transaction: fifty thousand entries at most, so that nobody waits long."""
BUDGET = 40.0


def purge(*, reason: str = "") -> int:
    """Delete entries older than AUDIT_RETENTION_DAYS, in the name of the current actor; how many.

    Raises Refused, naming the batch, when one that is due does not verify: that is for people to look into first.
    """
    deadline = time.monotonic() + BUDGET
    older_than = seals.database_now() - timedelta(days=settings.AUDIT_RETENTION_DAYS)
    gone = 0
    while time.monotonic() < deadline and (due := _due(older_than)):
        gone += _purge(due, older_than, reason)
    return gone


def _due(older_than: datetime) -> list[AuditSeal]:
    last = AuditPurge.objects.order_by("-last_entry").first()
    following = AuditSeal.objects.filter(number__gt=last.last_seal if last else 0).order_by("number")
    return list(takewhile(lambda seal: seal.newest_at < older_than, following[:SEALS_AT_A_TIME]))


def _purge(due: list[AuditSeal], older_than: datetime, reason: str) -> int:
    _refuse_if_altered(due)
    before = AuditPurge.objects.order_by("-last_entry").first()
    days, actor = settings.AUDIT_RETENTION_DAYS, audit.current_actor()
    recorded = AuditPurge(
        first_entry=due[0].first_entry,
        last_entry=due[-1].last_entry,
        entries=sum(seal.entries for seal in due),
        first_seal=due[0].number,
        last_seal=due[-1].number,
        seal_sha256=due[-1].sha256,
        older_than=older_than,
        retention_days=days,
        actor_name=actor.name,
        source=actor.source,
        reason=reason or actor.reason or _("Older than %d days (AUDIT_RETENTION_DAYS).") % days,
        purged_at=seals.database_now(),
        previous_sha256=before.sha256 if before else seals.GENESIS,
    )
    recorded.sha256 = seals.hash_of(recorded)
    with transaction.atomic():
        recorded.save(force_insert=True)
        gone = _delete(recorded)
        if gone != recorded.entries:
            raise Refused(_("The batches changed while they were purged. Nothing was deleted; try again."))
        audit.record(
            "history_purged",
            recorded,
            reason=recorded.reason,
            entries=gone,
            last_seal=recorded.last_seal,
            sha256=recorded.sha256,
        )
    log.info("history_purged", entries=gone, through=recorded.last_entry)
    return gone


def _refuse_if_altered(due: list[AuditSeal]) -> None:
    before = AuditSeal.objects.filter(number=due[0].number - 1).first()
    for seal in due:
        looked = seals.Verification(seal.sealed_at)
        if problem := next(seals.check_entries(seal, before, looked, is_purged=False), None):
            raise Refused(_("Nothing is purged: %s") % problem.text)
        before = seal


def _delete(recorded: AuditPurge) -> int:
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            between = [recorded.first_entry, recorded.last_entry]
            cursor.execute("DELETE FROM feeds_auditentry WHERE id BETWEEN %s AND %s", between)
            return int(cursor.rowcount)
        cursor.execute("SELECT feeds_audit_purge(%s)", [recorded.pk])
        return int(cursor.fetchone()[0])

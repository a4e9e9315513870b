"""The task queue: the only importer of django-q2.

The ORM broker writes a task as a row of the default database, so `enqueue` inside a transaction happens if and only if
the transaction does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone
from django_q.models import OrmQ, Schedule, Success
from django_q.tasks import async_task

ADVANCE = "feeds.tasks.advance"
APPLY_WEBHOOK = "feeds.tasks.apply_webhook"
HEARTBEAT = "feeds.tasks.heartbeat"
PRUNE_WEBHOOKS = "feeds.tasks.prune_webhooks"
POLL = "feeds.tasks.poll"
SWEEP = "feeds.tasks.sweep_listing"
COMPARE = "feeds.tasks.compare_with_codat"
SEND_MAILS = "feeds.tasks.send_mails"
RETRY_BATCH = "feeds.tasks.retry_batch"
RUN_APPROVAL = "feeds.tasks.run_approval"
SEND_SEALS = "feeds.tasks.send_seals"
VERIFY_HISTORY = "feeds.tasks.verify_history"


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One recurring task, declared in code. `minutes` is the interval."""

    name: str
    func: str
    minutes: int


SCHEDULES = (
    Scheduled("Poll statuses that are due", POLL, minutes=1),
    Scheduled("Compare with Codat", COMPARE, minutes=60),
    Scheduled("Clear expired links", "feeds.tasks.clear_expired_links", minutes=1),
    Scheduled("End invitations", "feeds.tasks.end_invitations", minutes=10),
    Scheduled("Remind customers", "feeds.tasks.remind_customers", minutes=30),
    Scheduled("Record the day's figures", "feeds.tasks.record_day", minutes=60),
    Scheduled("Wake snoozed cases", "feeds.tasks.wake_snoozed_cases", minutes=1),
    Scheduled("Send mails", SEND_MAILS, minutes=1),
    Scheduled("Expire requests for approval", "feeds.tasks.tend_approvals", minutes=1),
    Scheduled("Write digests", "feeds.tasks.write_digests", minutes=10),
    Scheduled("Remind of callouts", "feeds.tasks.remind_of_callouts", minutes=60),
    Scheduled("Seal the change history", "feeds.tasks.seal_history", minutes=5),
    Scheduled("Send seals", SEND_SEALS, minutes=5),
    Scheduled("Purge old history", "feeds.tasks.purge_history", minutes=24 * 60),
    Scheduled("Prune mails", "feeds.tasks.prune_mails", minutes=24 * 60),
    Scheduled("Prune webhooks", PRUNE_WEBHOOKS, minutes=24 * 60),
    Scheduled("Tidy sign-in", "feeds.tasks.tidy_sign_in", minutes=60),
    Scheduled("Prune finished tasks", "feeds.tasks.prune_finished_tasks", minutes=24 * 60),
)


def enqueue(func: str, *args: int | str) -> None:
    """Queue the task at dotted path `func`. Arguments are ids and strings only: they are stored in the queue row."""
    async_task(func, *args)


def sync_schedules() -> list[str]:
    """Make the stored schedules equal to `SCHEDULES` and say what changed. Safe to call any number of times."""
    changes = []
    wanted = {entry.name: entry for entry in SCHEDULES}
    for stored in Schedule.objects.exclude(name__in=wanted):
        changes.append(f"removed {stored.name}")
        stored.delete()
    for entry in SCHEDULES:
        stored_rows = list(Schedule.objects.filter(name=entry.name).order_by("pk"))
        for extra in stored_rows[1:]:  # names are not unique in django-q2
            extra.delete()
            changes.append(f"removed a second {entry.name}")
        values = {"func": entry.func, "schedule_type": Schedule.MINUTES, "minutes": entry.minutes, "repeats": -1}
        if not stored_rows:
            Schedule.objects.create(name=entry.name, next_run=timezone.now(), **values)
            changes.append(f"added {entry.name}")
        elif any(getattr(stored_rows[0], field) != value for field, value in values.items()):
            # Editing an interval does not recompute the next run, so it is set here.
            Schedule.objects.filter(pk=stored_rows[0].pk).update(next_run=timezone.now(), **values)
            changes.append(f"changed {entry.name}")
    return changes


def oldest_waiting_since() -> datetime | None:
    """Since when the oldest task that no worker has taken is waiting (aware UTC); None when nothing waits."""
    now = timezone.now()
    waiting = OrmQ.objects.filter(lock__lte=now).order_by("id").first()
    return waiting.lock if waiting else None


def waiting_count(cap: int) -> int:
    """How many tasks wait for a worker, counted up to `cap` + 1."""
    count: int = OrmQ.objects.filter(lock__lte=timezone.now()).order_by()[: cap + 1].count()
    return count


def prune_finished(*, older_than: timedelta) -> int:
    """Delete records of tasks that succeeded longer ago than `older_than`; how many went. Failures are kept."""
    deleted: int = Success.objects.filter(stopped__lt=timezone.now() - older_than).delete()[0]
    return deleted

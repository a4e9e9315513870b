"""What the queue runs. Thin: ids in, one service call, a short result out. Every task is safe to run twice."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import ParamSpec

import structlog

from feeds import audit, queue
from feeds.services import (
    approvals,
    callouts,
    cases,
    customer_mails,
    drift,
    figures,
    health,
    history_checks,
    inbox,
    invitation_keys,
    invitations,
    knocks,
    links,
    lockouts,
    notifications,
    onboarding,
    outbox,
    retention,
    seal_delivery,
    seals,
    second_factors,
    sync,
)

P = ParamSpec("P")


def task(func: Callable[P, str]) -> Callable[P, str]:
    """Give a task its actor, an id on its log lines, and a heartbeat: a worker that runs anything is alive."""

    @wraps(func)
    def run(*args: P.args, **kwargs: P.kwargs) -> str:
        context = structlog.contextvars.bound_contextvars(task=func.__name__, task_id=str(uuid.uuid4()))
        with context, audit.acting(audit.Actor.service("worker")):
            health.beat(health.WORKER)
            return func(*args, **kwargs)

    return run


@task
def heartbeat() -> str:
    """Prove that a worker takes tasks from the queue."""
    return "alive"


@task
def advance(company_id: int) -> str:
    """Do whatever Codat still owes one company."""
    return onboarding.advance(company_id)


@task
def apply_webhook(webhook_pk: int, attempt: int) -> str:
    """Read from Codat what a webhook is about."""
    return inbox.apply(webhook_pk, attempt)


@task
def poll() -> str:
    """Read the statuses that are due."""
    return f"{sync.poll()} read"


@task
def sweep_listing() -> str:
    """Read the status of every connection from Codat's list of companies."""
    return sync.sweep_listing()


@task
def compare_with_codat() -> str:
    """Look for what differs between Codat and our mirror."""
    return drift.tonight()


@task
def clear_expired_links() -> str:
    """Forget customer links that no longer work."""
    return f"{links.clear_expired()} cleared"


@task
def end_invitations() -> str:
    """Write down which invitations have run out and who asks for a new link; forget old keys, and wrong ones."""
    knocks.prune()
    ended = invitations.end_expired()
    told = invitations.tell_of_requests()
    return f"{ended} ended, {told} asked for a new link, {invitation_keys.prune()} keys forgotten"


@task
def remind_customers() -> str:
    """Write the one reminder of invitations that nobody has used for some days."""
    return f"{customer_mails.remind()} reminded"


@task
def record_day() -> str:
    """Write down the figures whose history the pictures show."""
    return f"{figures.record_day()} figures"


@task
def send_mails() -> str:
    """Send what the outbox owes; breaks that come in numbers become one incident first."""
    return f"{notifications.send()} sent"


@task
def write_digests() -> str:
    """Write each owner's mail of the day, once the hour for it has come."""
    return f"{notifications.write_digests()} written"


@task
def wake_snoozed_cases() -> str:
    """Bring cases back whose snooze is over."""
    return f"{cases.wake_snoozed()} woken"


@task
def remind_of_callouts() -> str:
    """Write to those who may publish the callout when an approved one waits too long."""
    return f"{callouts.remind()} written"


@task
def run_approval(approval_pk: int) -> str:
    """Work through the rows of an approved request."""
    return approvals.run_many(approval_pk)


@task
def tend_approvals() -> str:
    """End requests that nobody decided in time."""
    return f"{approvals.tend()} tended"


@task
def seal_history() -> str:
    """Seal the change history up to now."""
    sealed = seals.seal()
    return "waiting" if sealed.waiting else f"{sealed.entries} entries under {sealed.seals} seals"


@task
def verify_history(check_id: int) -> str:
    """Recompute every seal because somebody asked."""
    return history_checks.run(check_id)


@task
def send_seals() -> str:
    """Send seals off this host."""
    return f"{seal_delivery.send_due()} sent"


@task
def purge_history() -> str:
    """Delete what is older than the retention, and record it."""
    return f"{retention.purge()} deleted"


@task
def prune_mails() -> str:
    """Keep the outbox short."""
    return f"{outbox.prune()} deleted"


@task
def prune_webhooks() -> str:
    """Keep the inbox short; goes on in another task when there is much."""
    return f"{inbox.prune()} deleted"


@task
def retry_batch(batch_id: str, after: int, user_id: int, actor_name: str, source: str) -> str:
    """Go on retrying the failed companies of a large batch, after the one with the key `after`."""
    return f"{onboarding.go_on_retrying(batch_id, after, user_id, actor_name, source)} accepted"


@task
def prune_finished_tasks() -> str:
    """Keep the queue's own records short."""
    return f"{queue.prune_finished(older_than=timedelta(days=7))} deleted"


@task
def tidy_sign_in() -> str:
    """Forget failed sign-ins and sessions that are over; seal second factors with today's key."""
    return f"{lockouts.prune()} deleted, {second_factors.reseal()} sealed again"

"""The webhook inbox: check the signature, store once, answer; later read from Codat what the webhook is about.

A webhook is only a hint where to look. Its inner status may be stale and webhooks come in no order, so nothing of it is
written into the mirror: applying one means reading its company from Codat. One reading answers every webhook of the
company that was stored before it began. Losing them all costs time only: polling reaches the same state.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NoReturn

import structlog
from django.conf import settings
from django.db import DataError, IntegrityError, transaction
from django.db.models import Count, F, Max, Min, Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext as _
from standardwebhooks import Webhook, WebhookVerificationError

from feeds import audit, queue
from feeds.audit import Actor
from feeds.codat import redaction, schemas
from feeds.codat.errors import CodatError, NotFound
from feeds.models import CodatQuota, Company, DailyFigure, StatusEvent, WebhookEvent
from feeds.services import budget, ledger, mirror, presence, sync
from feeds.services.errors import LeaseLost, Refused
from feeds.services.polling import Priority
from feeds.states import SeenBy, WebhookState

log = structlog.get_logger(__name__)

BAD_SIGNATURES = "webhooks_bad_signature"
"""Name of the daily figure that counts them; days are UTC."""
QUOTA_EVENTS = ("client.rateLimit.reached", "client.rateLimit.reset")
COMPANY_EVENTS = (
    "company.created",
    "company.deleted",
    "connection.created",
    "connection.connected",
    "connection.disconnected",
    "connection.reconnected",
    "connection.failed",
    "connection.deleted",
    "bankFeeds.sourceAccount.connected",
    "bankFeeds.sourceAccount.disconnected",
)
EVENT_TYPES = (*COMPANY_EVENTS, *QUOTA_EVENTS)
"""Event types that say something about a feed; all others are stored and left alone."""

LOST_AFTER = timedelta(minutes=5)
"""A task that did not start by then is taken for lost. Codat's largest bursts are worked off sooner."""
POSTPONED_FOR = timedelta(minutes=5)
"""When a webhook that the quota does not suffice for asks again."""
BUSY_PAUSE = timedelta(seconds=2)
"""When to look again at a company that another worker holds."""
SWEEP_LIMIT = 500
PRUNED_AT_ONCE = 1000
PRUNE_SECONDS = 20.0
"""After so long pruning goes on in another task: a queue task lives sixty."""

LONGEST_WEBHOOK_ID = 100
LONGEST_EVENT_TYPE = 80
LONGEST_COMPANY_ID = 64
"""As long as their columns."""

_HEADERS = ("id", "timestamp", "signature")
_PREFIXES = ("webhook-", "svix-")


class BadSignature(Exception):
    """Not signed by Codat, or not lately: nothing of it may be believed."""


class Unreadable(Exception):
    """Signed by Codat and still no webhook: it has no id, no type, or is no JSON object."""


class NoSecret(Exception):
    """No signing secret is configured, so no webhook can be told from a forged one."""


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a delivery. `is_new`: False when this webhook was stored already."""

    webhook_id: str
    is_new: bool


# --- Receiving -------------------------------------------------------------------------------------------------------
def receive(headers: Mapping[str, str], raw_body: bytes) -> Received:
    """Check one delivery and store it, once for each webhook id, together with the task that applies it.

    `headers`: of the request, in any case; `raw_body`: the bytes that were signed (Standard Webhooks: HMAC-SHA256 over
    `id.timestamp.body`, at most five minutes old). Raises NoSecret, BadSignature (counted) and Unreadable; then nothing
    is stored.
    """
    standard = _standard_headers(headers)
    _verify(standard, raw_body)
    try:
        event = _event(standard["webhook-id"], raw_body)
        is_new = not WebhookEvent.objects.filter(webhook_id=event.webhook_id).exists() and _store(event)
    except Unreadable as error:
        log.warning("webhook_unreadable", reason=str(error))
        raise
    log.info("webhook_received", webhook=event.webhook_id, type=event.event_type, is_new=is_new)
    return Received(event.webhook_id, is_new)


def _standard_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The three signed headers under the names of Standard Webhooks. Codat's sender, Svix, may use its own prefix."""
    lower = {name.lower(): value for name, value in headers.items()}
    for prefix in _PREFIXES:
        if all(prefix + name in lower for name in _HEADERS):
            return {f"webhook-{name}": lower[prefix + name] for name in _HEADERS}
    return {}


def _verify(headers: dict[str, str], raw_body: bytes) -> None:
    if not settings.WEBHOOK_SECRETS:
        log.error("webhook_refused_without_secret", hint="set WEBHOOK_SECRETS")
        raise NoSecret
    if not any(_is_signed(secret, headers, raw_body) for secret in settings.WEBHOOK_SECRETS):
        _count_bad_signature()
        log.warning("webhook_bad_signature")
        raise BadSignature


def _is_signed(secret: str, headers: dict[str, str], raw_body: bytes) -> bool:
    try:
        Webhook(secret).verify(raw_body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):  # ValueError: headers or body that are not even text
        return False
    return True


def _count_bad_signature() -> None:
    today: dict[str, Any] = {"name": BAD_SIGNATURES, "day": timezone.now().date()}
    # Added in the database: two processes that count at once must both count.
    if not DailyFigure.objects.filter(**today).update(value=F("value") + 1):
        DailyFigure.objects.get_or_create(**today)
        DailyFigure.objects.filter(**today).update(value=F("value") + 1)


def _event(webhook_id: str, raw_body: bytes) -> WebhookEvent:
    """The row to store. Raises Unreadable."""
    try:
        body = json.loads(raw_body, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Unreadable("no JSON") from None
    event_type = body.get("eventType") if isinstance(body, dict) else None
    if not isinstance(event_type, str) or not event_type:
        raise Unreadable("no event type")
    if len(webhook_id) > LONGEST_WEBHOOK_ID:
        raise Unreadable("an id that is too long")
    return WebhookEvent(
        webhook_id=webhook_id,
        event_type=event_type[:LONGEST_EVENT_TYPE],
        generated_at=schemas.parse_time(body.get("generatedDate")),
        codat_company_id=_company_id(body),
        body=redaction.WEBHOOK.apply(body),
        due_at=timezone.now() + LOST_AFTER,
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _company_id(body: Mapping[str, Any]) -> str:
    company = _payload(body).get("referenceCompany")
    identity = company.get("id") if isinstance(company, dict) else None
    return identity if isinstance(identity, str) and len(identity) <= LONGEST_COMPANY_ID else ""


def _payload(body: Mapping[str, Any]) -> dict[str, Any]:
    payload = body.get("payload")
    return payload if isinstance(payload, dict) else {}


def _store(event: WebhookEvent) -> bool:
    """Write the row and its task, both or neither; False when another process has just stored it."""
    try:
        with transaction.atomic():
            event.save(force_insert=True)
            queue.enqueue(queue.APPLY_WEBHOOK, event.pk, event.attempts)
    except IntegrityError:
        return False
    except DataError as error:  # text that PostgreSQL does not take, such as a NUL
        raise Unreadable("text that cannot be stored") from error
    return True


# --- Applying --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Claim:
    """The webhooks that one reading is to answer: those of `company` up to the row `through`.

    `until` marks the rows whose attempt this is; when it passes without an outcome, the sweep takes them up again.
    """

    company: Company
    event: WebhookEvent
    through: int
    until: datetime


def apply(webhook_pk: int, attempt: int) -> str:
    """Do what a webhook asks for; a short report for the queue's log. Safe to call any number of times.

    `attempt`: how many attempts the webhook had when the task was queued. A task that finds more is late: another one
    has taken the webhook along.
    """
    event = WebhookEvent.objects.filter(pk=webhook_pk, state=WebhookState.RECEIVED, attempts=attempt).first()
    if event is None:
        return "taken by another task"
    if event.event_type in QUOTA_EVENTS:
        return _apply_quota(event)
    company = Company.objects.filter(codat_id=event.codat_company_id).exclude(codat_id="").first()
    if company is None or event.event_type not in COMPANY_EVENTS:
        _finish(event, WebhookState.IGNORED)
        return "not ours"
    return _apply_to(company, event)


def _apply_to(company: Company, event: WebhookEvent) -> str:
    if not budget.may_spend(Priority.WEBHOOK, sync.CALLS_EACH):
        # Its own date lies ahead: it was moved when the task was queued.
        _postpone(_waiting(event.codat_company_id), Q(pk=event.pk))
        return "postponed: no quota to spare"
    claim = _claim(company.pk, event)
    if claim is None:
        return "put off"
    try:
        _read(claim.company, event.webhook_id)
    except CodatError as error:
        return _put_off(claim, error.staff_message, timedelta(seconds=error.retry_after or 0))
    except Refused as error:
        return _put_off(claim, str(error))
    except LeaseLost:
        return _put_off(claim, _("Another worker took the company over."))
    return f"{_settle(claim)} applied"


def _read(company: Company, webhook_id: str) -> None:
    """Bring the mirror up to date. Raises CodatError, Refused and LeaseLost."""
    if mirror.live_connection(company) is None:
        presence.settle(company, how=SeenBy.WEBHOOK, reference=webhook_id)
        return
    try:
        sync.read_company(company, how=SeenBy.WEBHOOK, reference=webhook_id)
    except NotFound:
        if presence.settle(company, how=SeenBy.WEBHOOK, reference=webhook_id):
            raise  # Codat has the company and did not find what it has: it contradicts itself, so we ask again later


def _claim(company_id: int, event: WebhookEvent) -> _Claim | None:
    """Take the webhook, and with it every other one of the company that waits; None when it has to wait.

    The row of the company is locked: claims and outcomes of one company happen one after the other.
    """
    now = timezone.now()
    with transaction.atomic(durable=True):
        company = Company.objects.select_for_update().get(pk=company_id)
        if company.lease_expires_at is not None and company.lease_expires_at > now:
            _waiting(event.codat_company_id).filter(pk=event.pk).update(due_at=now + BUSY_PAUSE)
            return None
        if event.attempts >= settings.WEBHOOK_MAX_ATTEMPTS:  # each time the worker died
            _finish(event, WebhookState.FAILED, _gave_up(event.attempts, event.error))
            return None
        until = now + timedelta(seconds=settings.ONBOARDING_LEASE_SECONDS)
        own = Q(pk=event.pk, attempts=event.attempts)
        if not _waiting(event.codat_company_id).filter(own).update(attempts=F("attempts") + 1, due_at=until):
            return None
        # Codat had changed before it sent a webhook, so a reading that starts now answers every one stored by now.
        through = _waiting(event.codat_company_id).aggregate(last=Max("pk"))["last"]
        untried_or_due = Q(attempts=0) | Q(due_at__lte=now)
        _waiting(event.codat_company_id).filter(untried_or_due, pk__lte=through).update(
            attempts=F("attempts") + 1, due_at=until
        )
    event.attempts += 1
    return _Claim(company, event, through, until)


def _postpone(events: QuerySet[WebhookEvent], also: Q | None = None) -> int:
    """Let webhooks whose time has come wait for quota; how many. That is no failed attempt, and none is lost."""
    now = timezone.now()
    due = Q(attempts=0) | Q(due_at__lte=now)
    return events.filter(due if also is None else due | also).update(
        postponed_since=Coalesce("postponed_since", now),
        due_at=now + POSTPONED_FOR,
        error=_("Postponed: what is left of Codat's quota is kept for people."),
    )


def _waiting(codat_company_id: str) -> QuerySet[WebhookEvent]:
    return WebhookEvent.objects.filter(
        codat_company_id=codat_company_id, state=WebhookState.RECEIVED, event_type__in=COMPANY_EVENTS
    )


def _settle(claim: _Claim) -> int:
    """Mark what the reading has answered; how many webhooks. One that came during the reading gets its own."""
    now = timezone.now()
    with transaction.atomic(durable=True):
        Company.objects.select_for_update().get(pk=claim.company.pk)
        waiting = _waiting(claim.event.codat_company_id)
        applied = waiting.filter(pk__lte=claim.through).update(
            state=WebhookState.APPLIED,
            applied_at=now,
            company=claim.company,
            error="",
            due_at=None,
            postponed_since=None,
        )
        put_off = waiting.filter(due_at__lte=now + BUSY_PAUSE).order_by("pk").first()
        if put_off is not None:
            _enqueue(put_off)
    return applied


def _put_off(claim: _Claim, why: str, at_least: timedelta = timedelta(0)) -> str:
    """Try again later, or give up and leave it to a person: for all webhooks whose attempt this was."""
    later = timezone.now() + max(ledger.backoff(claim.event.attempts), at_least)
    with transaction.atomic(durable=True):
        Company.objects.select_for_update().get(pk=claim.company.pk)
        tried = _waiting(claim.event.codat_company_id).filter(due_at=claim.until)
        hopeless = tried.filter(attempts__gte=settings.WEBHOOK_MAX_ATTEMPTS)
        failed = hopeless.update(
            state=WebhookState.FAILED,
            company=claim.company,
            error=_gave_up(settings.WEBHOOK_MAX_ATTEMPTS, why),
            due_at=None,
            postponed_since=None,
        )
        tried.update(company=claim.company, error=why, due_at=later, postponed_since=None)
    log.warning("webhook_not_applied", webhook=claim.event.webhook_id, attempts=claim.event.attempts, failed=failed)
    return "put off"


def _gave_up(attempts: int, last: str) -> str:
    message = _("Gave up after %(count)d attempts. Press Apply again once Codat is well again. Last answer: %(last)s")
    return message % {"count": attempts, "last": last or _("none; the worker stopped each time")}


def _finish(event: WebhookEvent, state: WebhookState, error: str = "") -> None:
    """Close one webhook, unless somebody else has."""
    WebhookEvent.objects.filter(pk=event.pk, state=WebhookState.RECEIVED).update(
        state=state,
        error=error,
        due_at=None,
        postponed_since=None,
        applied_at=timezone.now() if state == WebhookState.APPLIED else None,
    )


def _apply_quota(event: WebhookEvent) -> str:
    """`client.rateLimit.reached|reset`: keep the quota, unless we have heard of a later one."""
    payload = _payload(event.body)
    limit, remaining = payload.get("dailyQuota"), payload.get("quotaRemaining")
    if not (_is_count(limit) and _is_count(remaining)):
        _finish(event, WebhookState.FAILED, _("The webhook names no quota."))
        return "no quota in it"
    # Codat's clock may be ahead of ours; nothing was told later than it came.
    told_at = min(event.generated_at or event.received_at, event.received_at)
    values = {
        "limit": limit,
        "remaining": remaining,
        "resets_at": schemas.parse_time(payload.get("expiryDate")),
        "read_at": told_at,
    }
    with transaction.atomic():
        if not CodatQuota.objects.filter(pk=1, read_at__lt=told_at).update(**values):
            CodatQuota.objects.get_or_create(pk=1, defaults=values)
        _finish(event, WebhookState.APPLIED)
    return "quota noted"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


# --- Again -----------------------------------------------------------------------------------------------------------
def sweep() -> int:
    """Queue again what is due: retries, webhooks of workers that died, tasks that were lost. How many companies.

    One task for each company is enough: its reading takes the others along. While the quota does not suffice, those
    that were postponed are postponed again in one statement, without a task for each.
    """
    now = timezone.now()
    columns = ("codat_company_id", "attempts", "postponed_since")
    due = list(WebhookEvent.objects.filter(due_at__lte=now).order_by("due_at").only(*columns)[:SWEEP_LIMIT])
    if any(event.postponed_since for event in due) and not budget.may_spend(Priority.WEBHOOK, sync.CALLS_EACH):
        _postpone(WebhookEvent.objects.filter(due_at__lte=now, postponed_since__isnull=False))
        due = [event for event in due if event.postponed_since is None]
    one_each: dict[str, WebhookEvent] = {}
    for event in due:
        one_each.setdefault(event.codat_company_id or f"webhook {event.pk}", event)
    for event in one_each.values():
        with transaction.atomic():
            _enqueue(event)
    return len(one_each)


def _enqueue(event: WebhookEvent) -> None:
    """Queue the webhook's task. Should it be lost, the webhook is due again a little later."""
    WebhookEvent.objects.filter(pk=event.pk).update(due_at=timezone.now() + LOST_AFTER)
    queue.enqueue(queue.APPLY_WEBHOOK, event.pk, event.attempts)


def why_not_again(event: WebhookEvent) -> str:
    """Why it makes no sense to apply this webhook again now; empty when it does."""
    if event.state == WebhookState.RECEIVED:
        return _("It is waiting to be applied already.")
    if event.state == WebhookState.APPLIED:
        return _("It is applied. To read the company from Codat once more, press Refresh on the company.")
    return ""


def reapply(event: WebhookEvent, *, actor: Actor) -> None:
    """Apply a webhook that failed, or that was about a company we did not know then. Raises Refused for any other."""
    with transaction.atomic(), audit.acting(actor):
        event = WebhookEvent.objects.select_for_update().get(pk=event.pk)
        if reason := why_not_again(event):
            raise Refused(reason)
        event.state, event.attempts, event.error = WebhookState.RECEIVED, 0, ""
        event.save(update_fields=["state", "attempts", "error"])
        _enqueue(event)
        audit.record("webhook_reapplied", event, type=event.event_type)


# --- Forgetting ------------------------------------------------------------------------------------------------------
def prune() -> int:
    """Delete webhooks that were applied more than `WEBHOOK_KEEP_DAYS` ago; how many.

    Some thousands at a time; the rest in a task that is queued. What was not applied stays: a person has to see it.
    """
    old = WebhookEvent.objects.filter(
        state=WebhookState.APPLIED, applied_at__lt=timezone.now() - timedelta(days=settings.WEBHOOK_KEEP_DAYS)
    ).order_by("applied_at")
    deadline = time.monotonic() + PRUNE_SECONDS
    deleted = 0
    while pks := list(old.values_list("pk", flat=True)[:PRUNED_AT_ONCE]):
        deleted += WebhookEvent.objects.filter(pk__in=pks).delete()[0]
        if time.monotonic() > deadline:
            queue.enqueue(queue.PRUNE_WEBHOOKS)
            break
    return deleted


# --- Watching --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class InboxHealth:
    """How well webhooks come in and are applied.

    `oldest_unapplied_seconds`: None when nothing waits but what was postponed. `postponed`: webhooks that wait for
    quota, the first since `postponed_since` (aware UTC). `failed`: webhooks that wait for a person.
    `bad_signatures_today`: of the UTC day. `silent`: polling saw statuses change, and no webhook came for
    `WEBHOOK_SILENT_HOURS`: Codat's endpoint or its secret is probably wrong.
    """

    last_received_at: datetime | None
    oldest_unapplied_seconds: float | None
    failed: int
    bad_signatures_today: int
    silent: bool
    postponed: int = 0
    postponed_since: datetime | None = None


def lag() -> InboxHealth:
    """Look at the inbox. At most five queries, each answered by an index and by what is not settled yet."""
    now = timezone.now()
    last = WebhookEvent.objects.order_by("-id").values_list("received_at", flat=True).first()
    unsettled = WebhookEvent.objects.filter(state__in=(WebhookState.RECEIVED, WebhookState.FAILED)).order_by()
    has_failed = Q(state=WebhookState.FAILED)
    is_postponed = Q(state=WebhookState.RECEIVED, postponed_since__isnull=False)
    found = unsettled.aggregate(
        failed=Count("pk", filter=has_failed),
        postponed=Count("pk", filter=is_postponed),
        first_postponed=Min("postponed_since", filter=is_postponed),
        oldest=Min("received_at", filter=~has_failed & ~is_postponed),
    )
    counted = DailyFigure.objects.filter(name=BAD_SIGNATURES, day=now.date()).values_list("value", flat=True).first()
    return InboxHealth(
        last_received_at=last,
        oldest_unapplied_seconds=None if found["oldest"] is None else (now - found["oldest"]).total_seconds(),
        failed=found["failed"],
        bad_signatures_today=counted or 0,
        silent=_is_silent(last, now - timedelta(hours=settings.WEBHOOK_SILENT_HOURS)),
        postponed=found["postponed"],
        postponed_since=found["first_postponed"],
    )


def _is_silent(last_received_at: datetime | None, since: datetime) -> bool:
    if last_received_at is not None and last_received_at >= since:
        return False
    polled = StatusEvent.objects.filter(seen_by=SeenBy.POLL).order_by("-id").values_list("created_at", flat=True)
    last_polled = polled.first()
    return last_polled is not None and last_polled >= since

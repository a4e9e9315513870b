"""How the system itself is doing: read once, told in words on the operations page and in numbers at /metrics.

The number of queries is constant, and each is bounded by a cap, an index or the number of open cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Count, Q, QuerySet
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from feeds import queue
from feeds.models import Case, Connection, DriftFinding, DriftReport, Heartbeat, Incident, ListingWalk, Mail, Operation
from feeds.services import budget, health, inbox, quiet, sweep
from feeds.services.budget import BudgetState
from feeds.services.home import CappedCount, capped_count
from feeds.services.inbox import InboxHealth
from feeds.services.quiet import Waiting
from feeds.states import OPEN_OPERATION_STATES, DriftKind, MailState, Meaning, OperationState, Tone
from feeds.wording import colon_in_words

COUNT_CAP = 10_000
"""Counts stop here: more of any of these is the same news."""
ROWS = 20
STUCK_AFTER = timedelta(minutes=30)
"""An operation that is still open so long after it was asked for needs a look."""
QUEUE_SLOW = timedelta(seconds=60)
WEBHOOK_SLOW_SECONDS = 120.0
FIGURES_LATE = timedelta(hours=3)
DRIFT_LATE = timedelta(hours=36)


_BY_STATE = ("-state", "pk")
"""The order of the index on the state, read from its end. Measured: without it SQLite walks the whole ledger."""


@dataclass(frozen=True, slots=True)
class Drift:
    """The latest comparison with Codat, and what it found (kind -> count)."""

    report: DriftReport
    findings: dict[str, int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the system at one moment. Times are aware UTC; None means: never, or not known.

    `readings_due`: connections whose accounts are to be read before Codat's quota resets.
    """

    as_of: datetime
    worker_beat: datetime | None
    poll_beat: datetime | None
    list_waits: Waiting | None
    figures_beat: datetime | None
    queue_waiting: CappedCount
    queue_oldest: datetime | None
    budget: BudgetState
    readings_due: CappedCount
    inbox: InboxHealth
    operations_unknown: CappedCount
    operations_stuck: CappedCount
    mails_failed: CappedCount
    mails_held: CappedCount
    drift: Drift | None
    incident: Incident | None
    incident_cases: int
    cases: dict[str, int]


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the page: what was found, what that means, and what to do when it is not well."""

    key: str
    title: str
    tone: Tone
    value: str
    meaning: str
    as_of: datetime
    advice: str = ""

    @property
    def verdict(self) -> Meaning:
        """How the part is shown."""
        return _VERDICTS[self.tone]

    @property
    def is_warning(self) -> bool:
        """Whether somebody has to look."""
        return self.tone in (Tone.WARNING, Tone.BAD)


# --- Reading  --------------------------------------------------------------------------------------------------------
def read(now: datetime | None = None) -> Snapshot:
    """Everything the page and the metrics tell."""
    now = now or timezone.now()
    beats = dict(Heartbeat.objects.values_list("name", "beat_at"))
    incident = Incident.objects.filter(released_at__isnull=True).annotate(case_count=Count("cases")).first()
    calls = budget.state()
    open_cases = Case.objects.open().order_by()
    return Snapshot(
        as_of=now,
        worker_beat=beats.get(health.WORKER),
        poll_beat=beats.get(health.POLL),
        list_waits=quiet.waiting(ListingWalk.objects.filter(name=sweep.NAME).defer("seen").first()),
        figures_beat=beats.get(health.FIGURES),
        queue_waiting=_capped(queue.waiting_count(COUNT_CAP)),
        queue_oldest=queue.oldest_waiting_since(),
        budget=calls,
        readings_due=_readings_due(calls.resets_at),
        inbox=inbox.lag(),
        operations_unknown=capped_count(Operation.objects.filter(state=OperationState.UNKNOWN), COUNT_CAP),
        operations_stuck=_capped(_stuck(now)[: COUNT_CAP + 1].count()),
        mails_failed=capped_count(Mail.objects.filter(state=MailState.FAILED), COUNT_CAP),
        mails_held=capped_count(Mail.objects.filter(state=MailState.HELD), COUNT_CAP),
        drift=_latest_drift(),
        incident=incident,
        incident_cases=incident.case_count if incident else 0,
        cases=dict(open_cases.values_list("state").annotate(count=Count("pk"))),
    )


def operations_to_look_at(now: datetime) -> Sequence[Operation]:
    """Operations that are unknown or stuck, unknown ones first, each oldest first; at most `ROWS`."""
    wanted = Q(state=OperationState.UNKNOWN) | Q(created_at__lt=now - STUCK_AFTER)
    found = Operation.objects.filter(wanted, state__in=OPEN_OPERATION_STATES).order_by(*_BY_STATE)
    return list(found.select_related("company")[:ROWS])


def _stuck(now: datetime) -> QuerySet[Operation]:
    waiting = (OperationState.QUEUED, OperationState.SENDING)
    return Operation.objects.filter(state__in=waiting, created_at__lt=now - STUCK_AFTER).order_by(*_BY_STATE)


def _capped(found: int) -> CappedCount:
    """From a count that went up to one more than the cap."""
    return CappedCount(min(found, COUNT_CAP), found > COUNT_CAP)


def _readings_due(until: datetime | None) -> CappedCount:
    due = Connection.objects.filter(gone_at__isnull=True, poll_due_at__isnull=False)
    return capped_count(due.filter(poll_due_at__lt=until) if until else due, COUNT_CAP)


def _latest_drift() -> Drift | None:
    report = DriftReport.objects.first()
    if report is None:
        return None
    found = DriftFinding.objects.filter(report=report, adopted_at__isnull=True).order_by()
    return Drift(report, dict(found.values_list("kind").annotate(count=Count("pk"))))


# --- Words  ----------------------------------------------------------------------------------------------------------
def parts(snapshot: Snapshot) -> list[Part]:
    """The snapshot in words, in the order in which one part explains the next."""
    return [
        _worker(snapshot),
        _queue(snapshot),
        _poll(snapshot),
        _budget(snapshot),
        _inbox(snapshot),
        _operations(snapshot),
        _mails(snapshot),
        _drift(snapshot),
        _incident(snapshot),
        _figures(snapshot),
    ]


def _worker(snapshot: Snapshot) -> Part:
    age = _age(snapshot, snapshot.worker_beat)
    frozen = timedelta(seconds=settings.WORKER_FROZEN_SECONDS)
    if age is None or age > frozen:
        tone = Tone.BAD
    elif age > 3 * timedelta(seconds=settings.WORKER_HEARTBEAT_SECONDS):
        tone = Tone.WARNING
    else:
        tone = Tone.GOOD
    return Part(
        key="worker",
        title=_("Workers"),
        tone=tone,
        value=_("no sign of life yet") if age is None else _("last sign of life %s ago") % _duration(age),
        meaning=_("Workers do everything that is not done at once: onboarding, polling, webhooks, mails."),
        as_of=snapshot.as_of,
        advice=_(
            "Nothing is done in the background. See that `manage.py worker` runs and read its log; it replaces a frozen"
            " cluster by itself after %s."
        )
        % _duration(frozen),
    )


def _queue(snapshot: Snapshot) -> Part:
    age = _age(snapshot, snapshot.queue_oldest) or timedelta(0)
    if age > timedelta(seconds=settings.WORKER_FROZEN_SECONDS):
        tone = Tone.BAD
    else:
        tone = Tone.WARNING if age > QUEUE_SLOW else Tone.GOOD
    return Part(
        key="queue",
        title=_("Queue"),
        tone=tone,
        value=_("%(count)s waiting, the oldest for %(age)s") % {"count": snapshot.queue_waiting, "age": _duration(age)}
        if snapshot.queue_waiting.value
        else _("nothing waits"),
        meaning=_("Tasks that no worker has taken yet. A task should wait seconds."),
        as_of=snapshot.as_of,
        advice=_("Workers do not keep up. If they are alive, start more: raise Q_WORKERS, or run a second worker."),
    )


def _poll(snapshot: Snapshot) -> Part:
    age = _age(snapshot, snapshot.poll_beat)
    is_late = age is None or age.total_seconds() > health.POLL_STALE_SECONDS
    value = _("never") if age is None else _("%s ago") % _duration(age)
    if snapshot.list_waits is not None:
        value += _(
            "; the list of all companies waits since %(since)s for links in customers' hands, until %(until)s at most"
        ) % {"since": _clock(snapshot.list_waits.since), "until": _clock(snapshot.list_waits.until)}
    return Part(
        key="poll",
        title=_("Last good poll"),
        tone=Tone.BAD if is_late else Tone.GOOD,
        value=value,
        meaning=_("When statuses were last read from Codat by schedule. Until then they may have changed unseen."),
        as_of=snapshot.as_of,
        advice=_(
            "Statuses on screen grow old. Look at the workers, then at the quota, then at Codat's own status page."
        ),
    )


def _budget(snapshot: Snapshot) -> Part:
    state = snapshot.budget
    title = _("Codat calls")
    meaning = _(
        "Codat allows a number of calls a day. Background polling stops at the reserve, so that people can work on."
    )
    if state.limit is None or state.remaining is None or state.read_at is None:
        told = _("Codat has not told its quota yet")
        return Part("budget", title, Tone.NEUTRAL, told, meaning, snapshot.as_of)
    value = _(
        "%(left)s of %(limit)s left: %(reserve)s kept for people, %(planned)s for polling; %(due)s readings are due"
        " before the quota resets"
    ) % {
        "left": _number(state.remaining),
        "limit": _number(state.limit),
        "reserve": _number(min(state.reserve, state.remaining)),
        "planned": _number(state.planned),
        "due": snapshot.readings_due,
    }
    tone, advice = Tone.GOOD, ""
    if state.remaining <= 0:
        tone, advice = Tone.BAD, _("Codat refuses every call until the quota resets%s.") % _at(state.resets_at)
    elif state.postponed:
        value += _("; %(count)s postponed%(since)s") % {
            "count": _number(state.postponed),
            "since": "" if state.postponed_since is None else _(" since %s") % _clock(state.postponed_since),
        }
        tone = Tone.WARNING
        advice = (
            _("Polling waits for the clock, or until the quota resets%s. Webhooks and what people ask for go on.")
            if state.planned
            else _("Polling and webhooks wait until the quota resets%s. What people ask for goes on.")
        ) % _at(state.resets_at)
    elif snapshot.readings_due.value > state.planned:
        tone, advice = Tone.WARNING, _("Polling will be postponed before the day is over: see the POLL_ settings.")
    return Part("budget", title, tone, value, meaning, state.read_at, advice)


def _inbox(snapshot: Snapshot) -> Part:
    state = snapshot.inbox
    oldest = state.oldest_unapplied_seconds or 0.0
    findings = []
    if state.silent:
        findings.append(
            _("No webhook comes although statuses change: check the endpoint in the Codat Portal, and its secret here.")
        )
    if state.failed:
        findings.append(_("Some could not be applied: read why in the list of webhooks, and apply them again."))
    if oldest > WEBHOOK_SLOW_SECONDS:
        findings.append(_("Received webhooks wait too long: look at the workers and the queue."))
    if state.postponed and state.postponed_since is not None:
        findings.append(
            _("%(count)s wait for quota since %(since)s: none is lost, they are applied once Codat's quota allows.")
            % {"count": _number(state.postponed), "since": _clock(state.postponed_since)}
        )
    if state.bad_signatures_today:
        findings.append(
            _("Wrong signatures: a secret was changed at one end only, or somebody else calls the address.")
        )
    last = _("never") if state.last_received_at is None else _("%s ago") % _since(snapshot, state.last_received_at)
    value = _("last received: %(last)s; oldest not applied: %(oldest)s; %(failed)s failed; %(bad)s badly signed today")
    return Part(
        key="webhooks",
        title=_("Webhooks"),
        tone=Tone.WARNING if findings else Tone.GOOD,
        value=value
        % {
            "last": last,
            "oldest": _duration(timedelta(seconds=oldest)) if oldest else _("none"),
            "failed": _number(state.failed),
            "bad": _number(state.bad_signatures_today),
        },
        meaning=_("Codat tells changes within seconds. Without webhooks, polling still finds them, but later."),
        as_of=snapshot.as_of,
        advice=" ".join(findings),
    )


def _operations(snapshot: Snapshot) -> Part:
    unknown, stuck = snapshot.operations_unknown, snapshot.operations_stuck
    return Part(
        key="operations",
        title=_("Operations"),
        tone=Tone.WARNING if unknown.value or stuck.value else Tone.GOOD,
        value=_("%(unknown)s unknown, %(stuck)s open for more than %(limit)s")
        % {"unknown": unknown, "stuck": stuck, "limit": _duration(STUCK_AFTER)},
        meaning=_(
            "Writes to Codat. Unknown: the answer was lost, and Codat is looked at before anything is sent again."
        ),
        as_of=snapshot.as_of,
        advice=_("They go on by themselves when Codat answers. If not, open one and give its correlation id to Codat."),
    )


def _mails(snapshot: Snapshot) -> Part:
    failed = snapshot.mails_failed
    return Part(
        key="mails",
        title=_("Mails to staff"),
        tone=Tone.BAD if failed.value else Tone.GOOD,
        value=_("%(failed)s failed, %(held)s held by an incident") % {"failed": failed, "held": snapshot.mails_held},
        meaning=_("Notices of broken and repaired feeds, and the daily digest."),
        as_of=snapshot.as_of,
        advice=_("Nobody was told. Check EMAIL_URL and the addresses of the staff; the worklist has every case."),
    )


def _drift(snapshot: Snapshot) -> Part:
    title = _("Drift")
    meaning = _("Every night what Codat has is compared with what we hold.")
    if snapshot.drift is None:
        return Part("drift", title, Tone.NEUTRAL, _("not compared yet"), meaning, snapshot.as_of)
    report, found = snapshot.drift.report, snapshot.drift.findings
    as_of = report.finished_at or report.started_at
    if report.error:
        advice = _("The comparison failed: %s It runs again tonight.") % report.error
        return Part("drift", title, Tone.BAD, _("failed"), meaning, as_of, advice)
    if snapshot.as_of - as_of > DRIFT_LATE:
        told, advice = _("last done %s ago") % _since(snapshot, as_of), _("It should run every night: see the workers.")
        return Part("drift", title, Tone.WARNING, told, meaning, as_of, advice)
    if report.finished_at is None:
        return Part("drift", title, Tone.NEUTRAL, _("being compared"), meaning, as_of)
    if not found:
        return Part("drift", title, Tone.GOOD, _("no difference"), meaning, as_of)
    colon = colon_in_words()
    told = ", ".join(f"{DriftKind(kind).label}{colon}{_number(count)}" for kind, count in sorted(found.items()))
    return Part("drift", title, Tone.WARNING, told, meaning, as_of, _("Open the report and settle each difference."))


def _incident(snapshot: Snapshot) -> Part:
    incident = snapshot.incident
    title = _("Incident")
    meaning = _("Many feeds that break together are one incident. Mails about them are held until it is released.")
    if incident is None:
        return Part("incident", title, Tone.GOOD, _("none open"), meaning, snapshot.as_of)
    count = snapshot.incident_cases
    told = ngettext("open for %(age)s, %(count)s case", "open for %(age)s, %(count)s cases", count)
    return Part(
        key="incident",
        title=title,
        tone=Tone.WARNING,
        value=told % {"age": _since(snapshot, incident.opened_at), "count": _number(count)},
        meaning=meaning,
        as_of=snapshot.as_of,
        advice=_("Find out what broke at Codat or QuickBooks; release the incident when customers may be told."),
    )


def _figures(snapshot: Snapshot) -> Part:
    age = _age(snapshot, snapshot.figures_beat)
    return Part(
        key="figures",
        title=_("Daily figures"),
        tone=Tone.WARNING if age is None or age > FIGURES_LATE else Tone.GOOD,
        value=_("never recorded") if age is None else _("recorded %s ago") % _duration(age),
        meaning=_("The history in the pictures below is written down once an hour."),
        as_of=snapshot.as_of,
        advice=_(
            "A day that is not recorded stays empty in the pictures. Run `manage.py setup`, then see the workers."
        ),
    )


_VERDICTS = {
    Tone.GOOD: Meaning(gettext_lazy("well"), Tone.GOOD, gettext_lazy("Nothing to do.")),
    Tone.NEUTRAL: Meaning(gettext_lazy("not known"), Tone.NEUTRAL, gettext_lazy("Nothing to say yet.")),
    Tone.WARNING: Meaning(gettext_lazy("look"), Tone.WARNING, gettext_lazy("Somebody should look at it today.")),
    Tone.BAD: Meaning(gettext_lazy("act"), Tone.BAD, gettext_lazy("Somebody should act now.")),
}


def _age(snapshot: Snapshot, at: datetime | None) -> timedelta | None:
    return None if at is None else max(timedelta(0), snapshot.as_of - at)


def _since(snapshot: Snapshot, at: datetime) -> str:
    return _duration(max(timedelta(0), snapshot.as_of - at))


def _duration(age: timedelta) -> str:
    """A span in words; to the second while that matters."""
    seconds = round(age.total_seconds())
    if seconds < 120:
        return ngettext("%d second", "%d seconds", seconds) % seconds
    now = timezone.now()
    return timesince(now - age, now, depth=1)


def _clock(at: datetime) -> str:
    return date_format(timezone.localtime(at), "Y-m-d H:i T")


def _at(moment: datetime | None) -> str:
    return "" if moment is None else _(" at %s") % _clock(moment)


def _number(value: int) -> str:
    return number_format(value, force_grouping=True)

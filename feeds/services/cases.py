"""Cases: opened and closed by what Codat shows, worked by people.

Every reading passes through `observe`, so a healthy feed costs two queries and takes no lock. Whatever changes a case
locks its row first; observing locks the connection's row before, so one feed never gets two cases.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from feeds import audit
from feeds.audit import Actor
from feeds.models import Case, CaseEvent, Connection, Operation, SourceAccount
from feeds.services import access, breaks, notifications
from feeds.services.breaks import Break
from feeds.services.errors import Refused
from feeds.states import (
    BROKEN_CONNECTION_STATUSES,
    CASE_NEXT_STEPS,
    CASE_PLAYBOOKS,
    CASE_RIGHTS,
    CASE_TRANSITIONS,
    AccountStatus,
    CaseCause,
    CaseEventKind,
    CaseOutcome,
    CaseState,
    ConnectionStatus,
    OperationKind,
    OperationState,
)
from feeds.wording import recorded

LONGEST_SNOOZE = timedelta(days=90)
STAFF_DID_IT = {
    OperationKind.UNLINK_CONNECTION: CaseCause.UNLINKED_BY_STAFF,
    OperationKind.DISCONNECT_ACCOUNT: CaseCause.UNLINKED_BY_STAFF,
    OperationKind.REVOKE_CREDENTIALS: CaseCause.CREDENTIALS_REVOKED,
}
"""What a colleague did that breaks a feed -> the cause to start from."""
STAFF_DID_IT_WITHIN = timedelta(days=12)
"""Ten days of silence, a day until Unlinked, a day until the poll."""

Worklist = Literal["mine", "unassigned", "overdue", "all"]


# --- What Codat shows ------------------------------------------------------------------------------------------------
def observe(connection: Connection) -> None:
    """Open, re-open, follow or close the connection's case from the statuses in the mirror. Idempotent.

    Two queries when the feed is healthy and has no case. Call inside the transaction that wrote the reading.
    """
    if breaks.find(connection) is None and not _has_something_to_close(connection):
        return
    if connection.gone_at is not None and breaks.was_removed(connection):
        return  # it does not work again, it was ended: whoever deleted it has settled its case
    with transaction.atomic():
        connection = Connection.objects.select_for_update().get(pk=connection.pk)
        case = Case.objects.select_for_update().filter(connection=connection).order_by("-pk").first()
        _apply(connection, case, breaks.find(connection))


def concerned(connections: Collection[Connection]) -> set[int]:
    """Keys of those that `observe` could have anything to do for. Two queries, however many there are."""
    pks = [connection.pk for connection in connections]
    with_cases = Case.objects.filter(connection__in=pks).order_by().values_list("connection", flat=True)
    broken = SourceAccount.objects.filter(connection__in=pks, status=AccountStatus.DISCONNECTED).order_by()
    not_linked = {it.pk for it in connections if it.gone_at or it.status in BROKEN_CONNECTION_STATUSES}
    return not_linked.union(with_cases, broken.values_list("connection", flat=True))


def still_broken(case: Case) -> bool:
    """Whether the latest reading of Codat shows the case's feed broken."""
    return breaks.find(case.connection) is not None


def priority(age: timedelta, accounts: int, balance: Decimal) -> int:
    """How urgent a case is, 0 to 100: up to 30 for accounts, 30 for the balance they hold, 40 for age.

    Ten points an account; ten for any positive balance, twenty from 10,000, thirty from 100,000 (in whatever currency);
    four points a day, because after ten days most of what QuickBooks would still take back is lost.
    """
    held = 30 if balance >= 100_000 else 20 if balance >= 10_000 else 10 if balance > 0 else 0
    return min(10 * accounts, 30) + held + max(0, min(4 * age.days, 40))


def due_at(broke_at: datetime, priority: int, snoozed_until: datetime | None = None) -> datetime:
    """When a case is overdue: `CASE_DUE_HOURS` after the break, by priority (urgent from 50, high from 30)."""
    urgent, high, normal = settings.CASE_DUE_HOURS
    hours = urgent if priority >= 50 else high if priority >= 30 else normal
    due = broke_at + timedelta(hours=hours)
    return max(due, snoozed_until) if snoozed_until else due


def _has_something_to_close(connection: Connection) -> bool:
    """Whether a recovery matters: the case is open, or a person closed it while the feed was broken."""
    latest = Case.objects.filter(connection_id=connection.pk).only("state", "broken_parts").order_by("-pk").first()
    return latest is not None and (latest.is_open or bool(latest.broken_parts))


def _apply(connection: Connection, case: Case | None, found: Break | None) -> None:
    now = timezone.now()
    if case is None or not case.is_open:
        settled = set(case.broken_parts) if case else set()
        if found is not None and set(found.parts) - settled:
            _break(connection, case, found, now)
        elif case is not None:
            _keep_settled(case, settled.intersection(found.parts if found else ()))
    elif found is not None:
        _save_figures(case, _figures(found, case.broke_at, now, case.snoozed_until))
    else:
        _recover(case, now)


def _break(connection: Connection, case: Case | None, found: Break, now: datetime) -> None:
    """A break that no case has seen: the closed case is opened again if it is young enough, or a new one is."""
    figures = _figures(found, now, now)
    recent = now - timedelta(hours=settings.CASE_REOPEN_HOURS)
    if case is None or case.closed_at is None or case.closed_at < recent:
        case = Case.objects.create(
            company_id=connection.company_id,
            connection=connection,
            cause=_first_guess(connection, now),
            opened_at=now,
            broke_at=now,
            **figures,
        )
        _tell(case, CaseEventKind.OPENED, found.text)
    else:
        _move(case, CaseState.TAKEN if _has_working_owner(case) else CaseState.OPEN)
        case.closed_at = case.recovered_at = None
        case.outcome = case.outcome_reason = ""
        case.broke_at = now
        case.times_broken += 1
        if case.incident is not None and case.incident.released_at is not None:
            case.incident = None
        _set(case, **figures)
        case.save()
        _tell(case, CaseEventKind.REOPENED, found.text)
    notifications.broke(case)


def _recover(case: Case, now: datetime) -> None:
    _move(case, CaseState.CLOSED)
    _set(case, outcome=CaseOutcome.RECONNECTED, recovered_at=now, closed_at=now, checked_at=now, broken_parts=[])
    case.save()
    _tell(case, CaseEventKind.RECOVERED)
    _tell(case, CaseEventKind.CLOSED, _label(CaseOutcome.RECONNECTED))
    notifications.recovered(case)


def _keep_settled(case: Case, settled: set[str]) -> None:
    """Of what a person closed the case over, only what is still broken is old news."""
    if settled != set(case.broken_parts):
        Case.objects.filter(pk=case.pk).update(
            broken_parts=sorted(settled), recovered_at=case.recovered_at if settled else timezone.now()
        )


def _figures(found: Break, broke_at: datetime, now: datetime, snoozed_until: datetime | None = None) -> dict[str, Any]:
    urgency = priority(now - broke_at, len(found.accounts), found.balance)
    return {
        "what_is_broken": found.text,
        "broken_parts": found.parts,
        "accounts_broken": len(found.accounts),
        "balance_held": found.balance,
        "priority": urgency,
        "due_at": due_at(broke_at, urgency, snoozed_until),
        "checked_at": now,
    }


def _save_figures(case: Case, figures: dict[str, Any]) -> None:
    """Figures follow from readings: they are no part of the change history, so no `save`."""
    Case.objects.filter(pk=case.pk).update(**figures)


def _first_guess(connection: Connection, now: datetime) -> CaseCause:
    """What a colleague did to this feed lately is the likely cause; a withdrawn authorisation speaks for itself."""
    if connection.status == ConnectionStatus.DEAUTHORIZED:
        return CaseCause.CUSTOMER_STOPPED
    did = Operation.objects.filter(
        connection=connection,
        kind__in=STAFF_DID_IT,
        state=OperationState.SUCCEEDED,
        finished_at__gte=now - STAFF_DID_IT_WITHIN,
    ).last()
    return STAFF_DID_IT[OperationKind(did.kind)] if did else CaseCause.UNKNOWN


# --- What people do --------------------------------------------------------------------------------------------------
def take(case: Case, actor: Actor) -> None:
    """Make the case the actor's own, from whomever had it. Raises Refused when it is closed or theirs already."""
    owner = _person(actor)
    with _working(case, actor) as case:
        if case.state == CaseState.TAKEN and case.owner_id == owner.pk:
            raise Refused(_("You have this case already."))
        _give(case, owner)
        _tell(case, CaseEventKind.TAKEN, actor=actor)


def hand_over(case: Case, to: User, actor: Actor, text: str = "") -> None:
    """Give the case to a colleague. Raises Refused when it is closed, theirs already, or they may not work cases."""
    if not (to.is_active and to.has_perm(CASE_RIGHTS["take"])):
        raise Refused(_("%(name)s may not work cases. Choose somebody else.") % {"name": _name(to)})
    with _working(case, actor, text) as case:
        if case.owner_id == to.pk:
            raise Refused(_("%(name)s has this case already.") % {"name": _name(to)})
        _give(case, to)
        _tell(case, CaseEventKind.HANDED_OVER, " – ".join(filter(None, [_name(to), text.strip()])), actor)


def note(case: Case, text: str, actor: Actor) -> None:
    """Add a note, also to a closed case. Raises Refused when it is empty."""
    if not text.strip():
        raise Refused(_("Write something first."))
    with audit.acting(actor), transaction.atomic():
        _tell(case, CaseEventKind.NOTE, text.strip(), actor)
        audit.record("case_noted", case, reason=text.strip())


def set_cause(case: Case, cause: str, actor: Actor) -> None:
    """Set why the feed broke, also of a closed case. Raises Refused for a cause that is not on the list."""
    if cause not in CaseCause.values:
        raise Refused(_("Choose a cause from the list."))
    with _locked(case, actor) as case:
        if case.cause != cause:
            case.cause = cause
            case.save(update_fields=["cause", "updated_at"])
            _tell(case, CaseEventKind.CAUSE, _label(CaseCause(cause)), actor)


def snooze(case: Case, until: datetime, actor: Actor, text: str = "") -> None:
    """Put the case aside until then. Raises Refused when it is closed, or the time is past or over 90 days away."""
    now = timezone.now()
    if not now < until <= now + LONGEST_SNOOZE:
        raise Refused(_("Choose a time in the future, at most 90 days away."))
    with _working(case, actor, text) as case:
        _move(case, CaseState.SNOOZED)
        _set(case, snoozed_until=until, due_at=due_at(case.broke_at, case.priority, until))
        case.save(update_fields=["state", "snoozed_until", "due_at", "updated_at"])
        with recorded():
            shown = date_format(timezone.localtime(until), "SHORT_DATETIME_FORMAT")
        _tell(case, CaseEventKind.SNOOZED, " – ".join(filter(None, [shown, text.strip()])), actor)


def close(case: Case, outcome: str, actor: Actor, reason: str = "") -> None:
    """Settle the case. Raises Refused when it is closed, or when Codat still says broken and no reason is given.

    What is broken now is settled with it: only another break opens a case again.
    """
    if outcome not in CaseOutcome.values:
        raise Refused(_("Choose an outcome from the list."))
    with _working(case, actor, reason) as case:
        found = breaks.find(case.connection)
        if found is not None and not reason.strip():
            raise Refused(
                _("Codat still says broken: %(what)s. Give a reason to close it all the same.") % {"what": found.text}
            )
        _move(case, CaseState.CLOSED)
        _set(case, outcome=outcome, outcome_reason=reason.strip(), closed_at=timezone.now())
        _set(case, broken_parts=found.parts if found else [], notify_due_at=None)
        case.save()
        told = " – ".join(filter(None, [_label(CaseOutcome(outcome)), reason.strip()]))
        _tell(case, CaseEventKind.CLOSED, told, actor)


def wake_snoozed() -> int:
    """Bring back cases whose time has come, to their owner or to the list of all; how many."""
    woken = 0
    for case in Case.objects.filter(snoozed_until__lte=timezone.now()).order_by("pk"):
        with _locked(case, audit.current_actor()) as locked:
            if locked.snoozed_until is None or locked.snoozed_until > timezone.now():
                continue  # somebody took it or snoozed it again meanwhile
            _move(locked, CaseState.TAKEN if _has_working_owner(locked) else CaseState.OPEN)
            locked.save(update_fields=["state", "snoozed_until", "updated_at"])
            _tell(locked, CaseEventKind.WOKE)
            woken += 1
    return woken


# --- What people see -------------------------------------------------------------------------------------------------
def worklist(which: Worklist, user: User) -> QuerySet[Case]:
    """Open cases, overdue first: the user's own, those nobody has, those overdue, or all.

    Only of customers whom `user` sees. Ready to show: no query for each row.
    """
    related = ("company", "connection", "owner", "incident")
    cases: QuerySet[Case] = access.scope(Case.objects.open().select_related(*related), user)
    if which == "mine":
        cases = cases.filter(owner=user)
    elif which == "unassigned":
        cases = cases.filter(owner__isnull=True)
    elif which == "overdue":
        cases = cases.filter(due_at__lte=timezone.now())
    return cases.order_by("due_at", F("priority").desc(), "pk")


def next_step(case: Case) -> str:
    """What is to be done next, in one sentence. No query when the case came from `worklist`."""
    if not case.is_open:
        return _("Nothing: the case is closed.")
    if case.incident is not None and case.incident.released_at is None:
        return _("Part of an incident: wait until it is released.")
    if case.state == CaseState.SNOOZED and case.snoozed_until is not None:
        until = date_format(timezone.localtime(case.snoozed_until), "SHORT_DATETIME_FORMAT")
        return _("Nothing until %(time)s.") % {"time": until}
    if case.owner_id is None:
        return _("Take it.")
    return str(CASE_NEXT_STEPS[case.cause])


def playbook(cause: str) -> tuple[str, ...]:
    """Names of the actions of the case page, in the order in which they help with this cause."""
    return CASE_PLAYBOOKS[cause]


# --- Moves -----------------------------------------------------------------------------------------------------------
@contextmanager
def _locked(case: Case, actor: Actor, reason: str = "") -> Iterator[Case]:
    """The case's row, locked; what is saved inside is the actor's, for that reason."""
    with audit.acting(replace(actor, reason=reason.strip() or actor.reason)), transaction.atomic():
        yield (
            Case.objects.select_for_update(of=("self",))
            .select_related("company", "connection", "owner")
            .get(pk=case.pk)
        )


@contextmanager
def _working(case: Case, actor: Actor, reason: str = "") -> Iterator[Case]:
    """As `_locked`, for moves that only an open case allows."""
    with _locked(case, actor, reason) as locked:
        if not locked.is_open:
            raise Refused(_("This case is closed. It opens again by itself when the feed breaks again."))
        yield locked


def _move(case: Case, state: CaseState) -> None:
    """Set the state (not saved); a case that is not asleep has no alarm. Raises Refused on a move not allowed."""
    if state not in CASE_TRANSITIONS[case.state]:
        now = CaseState(case.state).label
        raise Refused(_("A case that is “%(now)s” cannot become “%(new)s”.") % {"now": now, "new": state.label})
    case.state = state
    if state != CaseState.SNOOZED:
        case.snoozed_until = None


def _give(case: Case, owner: User) -> None:
    _move(case, CaseState.TAKEN)
    _set(case, owner=owner, due_at=due_at(case.broke_at, case.priority))
    case.save(update_fields=["state", "owner", "snoozed_until", "due_at", "updated_at"])


def _set(case: Case, **values: Any) -> None:
    for name, value in values.items():
        setattr(case, name, value)


def _tell(case: Case, kind: CaseEventKind, text: str = "", actor: Actor = audit.SYSTEM) -> None:
    """Add a line to the story. What Codat showed is nobody's doing, whoever asked for the reading."""
    CaseEvent.objects.create(case=case, kind=kind, text=text, actor_name=actor.name, at=timezone.now())


def _label(value: CaseCause | CaseOutcome) -> str:
    with recorded():
        return str(value.label)


def _person(actor: Actor) -> User:
    if actor.user is None:
        raise Refused(_("Only a person can take a case."))
    return actor.user


def _has_working_owner(case: Case) -> bool:
    return case.owner is not None and case.owner.is_active


def _name(user: User) -> str:
    return user.get_full_name() or user.get_username()

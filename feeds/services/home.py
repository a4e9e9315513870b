"""What the home page shows. Every query is bounded: no list is longer than `ROWS`, no count walks past `COUNT_CAP`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db.models import IntegerField, Model, Prefetch, QuerySet, Subquery
from django.utils import timezone
from django.utils.formats import number_format

from feeds.models import (
    AuditEntry,
    CalloutVersion,
    Case,
    CodatQuota,
    Company,
    Connection,
    Heartbeat,
    Operation,
    SourceAccount,
)
from feeds.services import access, approvals, callouts, stuck
from feeds.states import (
    CALLOUT_RIGHTS,
    ONBOARDING_MEANINGS,
    AccountStatus,
    ConnectionStatus,
    Meaning,
    OnboardingState,
    OperationState,
)

ROWS = 10
COUNT_CAP = 1000
EXPIRING_WITHIN = timedelta(minutes=30)
STUCK_STATES = (OnboardingState.FAILED, OnboardingState.RETRYING)
BROKEN_STATUSES = (ConnectionStatus.UNLINKED, ConnectionStatus.DEAUTHORIZED)


@dataclass(frozen=True, slots=True)
class CappedCount:
    """A count that stops at a cap, because an exact one costs a walk over the whole table."""

    value: int
    is_capped: bool

    def __str__(self) -> str:
        return f"{number_format(self.value, force_grouping=True)}{'+' if self.is_capped else ''}"


def capped_count(queryset: QuerySet[Model], cap: int = COUNT_CAP) -> CappedCount:
    """Count `queryset`, reading at most `cap` + 1 rows."""
    found = queryset.order_by()[: cap + 1].count()
    return CappedCount(min(found, cap), found > cap)


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many companies stand in one onboarding state."""

    state: str
    meaning: Meaning
    count: CappedCount


@dataclass(frozen=True, slots=True)
class System:
    """What keeps the product running: the last beat of each part, and the quota Codat last told us."""

    heartbeats: Sequence[Heartbeat]
    quota: CodatQuota | None


@dataclass(frozen=True, slots=True)
class Cases:
    """The worklist in numbers: cases of one's own, of nobody, and those that should have been settled by now."""

    mine: CappedCount
    unassigned: CappedCount
    overdue: CappedCount


@dataclass(frozen=True, slots=True)
class StuckInvitations:
    """How many customers came no further, and which view of the list shows them."""

    count: CappedCount
    view: stuck.View


@dataclass(frozen=True, slots=True)
class Home:
    """One person's home page. A part the person may not see is None; a part with nothing in it is empty."""

    as_of: datetime
    is_mine: bool
    counts: Sequence[StateCount] | None = None
    recent: Sequence[Company] | None = None
    stuck: Sequence[Company] | None = None
    expiring: Sequence[Connection] | None = None
    broken: Sequence[Connection] | None = None
    disconnected: Sequence[SourceAccount] | None = None
    refused: Sequence[Operation] | None = None
    changes: Sequence[AuditEntry] | None = None
    unassigned: CappedCount | None = None
    cases: Cases | None = None
    callouts: Sequence[CalloutVersion] | None = None
    """Versions of the callout that wait for this person: to approve, or to publish."""
    approvals: CappedCount | None = None
    stuck_invitations: StuckInvitations | None = None
    system: System | None = None


def for_person(user: User, now: datetime | None = None) -> Home:
    """The home page of `user`, built from what their permissions let them see.

    Who creates companies sees their own; who watches the system or only reads (administrators, support, auditors)
    sees everybody's.
    """
    now = now or timezone.now()
    is_mine = user.has_perm("feeds.add_company") and not user.has_perm("feeds.view_heartbeat")
    sees_companies = user.has_perm("feeds.view_company")
    sees_connections = user.has_perm("feeds.view_connection")
    sees_all = access.sees_all(user)
    companies = Company.objects.filter(manager=user) if is_mine else access.visible_companies(user)
    connections: QuerySet[Connection] = Connection.objects.filter(gone_at__isnull=True).select_related("company")
    accounts: QuerySet[SourceAccount] = SourceAccount.objects.filter(gone_at__isnull=True).select_related("company")
    if is_mine:
        connections = connections.filter(company__manager=user)
        accounts = accounts.filter(company__manager=user)
    else:
        connections, accounts = access.scope(connections, user), access.scope(accounts, user)
    return Home(
        as_of=now,
        is_mine=is_mine,
        counts=_state_counts(companies) if sees_companies else None,
        recent=_recent(companies) if is_mine and sees_companies else None,
        stuck=_stuck(companies) if sees_companies else None,
        expiring=_expiring(connections, now) if user.has_perm("feeds.reveal_link") else None,
        broken=list(connections.filter(status__in=BROKEN_STATUSES)[:ROWS]) if sees_connections else None,
        disconnected=_disconnected(accounts) if user.has_perm("feeds.view_sourceaccount") else None,
        refused=_refused(user) if not is_mine and user.has_perm("feeds.view_operation") else None,
        changes=_changes() if sees_all and user.has_perm("feeds.view_auditentry") else None,
        unassigned=_unassigned() if sees_companies and user.has_perm("feeds.take_company") else None,
        cases=_cases(user, now) if user.has_perm("feeds.work_case") else None,
        callouts=callouts.waiting_for(user, ROWS) if _keeps_the_callout(user) else None,
        approvals=capped_count(approvals.waiting_for(user)) if user.has_perm(approvals.DECIDE) else None,
        stuck_invitations=_stuck_invitations(user, is_mine, now) if _invites(user) else None,
        system=_system() if user.has_perm("feeds.view_heartbeat") else None,
    )


def _keeps_the_callout(user: User) -> bool:
    return any(user.has_perm(CALLOUT_RIGHTS[move]) for move in ("approve", "publish"))


def _invites(user: User) -> bool:
    return user.has_perm("feeds.view_invitation") and user.has_perm("feeds.invite_company")


def _stuck_invitations(user: User, is_mine: bool, now: datetime) -> StuckInvitations:
    view: stuck.View = "mine" if is_mine else "all"
    return StuckInvitations(capped_count(stuck.worklist(view, user, now)), view)


def _state_counts(companies: QuerySet[Company]) -> list[StateCount]:
    return [
        StateCount(state, ONBOARDING_MEANINGS[state], capped_count(companies.filter(onboarding_state=state)))
        for state in OnboardingState
    ]


def _recent(companies: QuerySet[Company]) -> list[Company]:
    live = Connection.objects.filter(gone_at__isnull=True)
    return list(companies.prefetch_related(Prefetch("connections", queryset=live, to_attr="live_connections"))[:ROWS])


def _stuck(companies: QuerySet[Company]) -> list[Company]:
    return list(companies.filter(onboarding_state__in=STUCK_STATES)[:ROWS])


def _expiring(connections: QuerySet[Connection], now: datetime) -> list[Connection]:
    soon = connections.filter(link_expires_at__gt=now, link_expires_at__lte=now + EXPIRING_WITHIN)
    return list(soon.exclude(link_url="").order_by("link_expires_at")[:ROWS])


def _disconnected(accounts: QuerySet[SourceAccount]) -> list[SourceAccount]:
    return list(accounts.filter(status=AccountStatus.DISCONNECTED)[:ROWS])


def _refused(user: User) -> list[Operation]:
    needs_a_look = Operation.objects.filter(state__in=(OperationState.FAILED, OperationState.UNKNOWN))
    return list(access.scope(needs_a_look, user).select_related("company")[:ROWS])


def _unassigned() -> CappedCount:
    return capped_count(Company.objects.filter(manager__isnull=True))


def _changes() -> list[AuditEntry]:
    return list(AuditEntry.objects.all()[:ROWS])


class _CountOf(Subquery):
    """How many rows a query finds, as one value of another query."""

    template = "(SELECT COUNT(*) FROM (%(subquery)s) AS counted)"
    output_field = IntegerField()


def _cases(user: User, now: datetime) -> Cases:
    """Three capped counts in one query: each part reads at most `COUNT_CAP` + 1 rows of its own index."""
    is_open = access.scope(Case.objects.open().order_by(), user)
    parts = {
        "mine": is_open.filter(owner=user),
        "unassigned": is_open.filter(owner__isnull=True),
        "overdue": is_open.filter(due_at__lte=now),
    }
    counts = [_CountOf(found.values("pk")[: COUNT_CAP + 1]) for found in parts.values()]
    counted: tuple[int, ...] = User.objects.filter(pk=user.pk).values_list(*counts).get()
    capped = [CappedCount(min(count, COUNT_CAP), count > COUNT_CAP) for count in counted]
    return Cases(**dict(zip(parts, capped, strict=True)))


def _system() -> System:
    return System(heartbeats=list(Heartbeat.objects.order_by("name")), quota=CodatQuota.objects.first())

"""What the bank's own application asks for: a customer's way to QuickBooks, from nothing to a link, by its number.

`open_session` is safe to repeat: one customer number is one company and one live invitation, however often and from how
many places at once it is called. It never waits for Codat: the queue does the work, and the link opens our own page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from django.db import transaction
from django.utils import timezone

from feeds import audit
from feeds.audit import Actor
from feeds.banking import mask
from feeds.models import ApiKey, Approval, Company, Connection, Invitation, Operation, SourceAccount
from feeds.services import door, imports, invitation_keys, invitations, link_need, mirror, onboarding
from feeds.services.door import Standing
from feeds.services.errors import Refused
from feeds.services.import_files import (
    ACCOUNT_COLUMNS,
    COMPANY_COLUMNS,
    BadFile,
    ChangedMeanwhile,
    Line,
    Problem,
    Table,
)
from feeds.services.invitation_keys import Address
from feeds.states import AccountStatus, InvitationPurpose, OnboardingState, OperationKind

LIVE_KEYS = 10
"""Links of one invitation that work at once: an application that asks on each click must not make thousands."""
SHORTEST = timedelta(hours=1)
"""An invitation with less left is followed by a new one: a customer who is sent there needs time to finish."""
ENDED_BY = (OperationKind.DELETE_COMPANY, OperationKind.DELETE_CONNECTION, OperationKind.UNLINK_CONNECTION)
END_WAITS = ("delete_company", "delete_company_in_codat", "delete_connection", "unlink_connection")
"""What ends a customer's feed, when it is asked of Codat, and while a colleague has to approve it (`RULES`)."""


class SessionState(StrEnum):
    """How far a customer is, in the words of the API."""

    NOT_STARTED = "not_started"
    PREPARING = "preparing"
    READY = "ready"
    STARTED = "started"
    CONNECTED = "connected"
    ON_HOLD = "on_hold"
    NEEDS_ATTENTION = "needs_attention"
    ENDED = "ended"


SHUT = (SessionState.ON_HOLD, SessionState.NEEDS_ATTENTION, SessionState.ENDED)
"""States in which no link is made: first a colleague has to act."""


class NoSuchCustomer(Exception):
    """No company has this customer number, and the request does not say what it is."""


class Differs(Exception):
    """The customer is known with other values. `pointers` say where, and never what is held."""

    def __init__(self, pointers: list[str]) -> None:
        super().__init__("differs")
        self.pointers = pointers


class NotAccepted(Exception):
    """What the request says of a new customer cannot be right. `problems`: pointer and reason of each."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("not accepted")
        self.problems = problems


class Shut(Exception):
    """No link is made in this state."""

    def __init__(self, state: SessionState) -> None:
        super().__init__(state.value)
        self.state = state


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request says of a customer: columns of `import_files.COLUMNS`, as text. Only those that it has."""

    company: Mapping[str, str]
    accounts: tuple[Mapping[str, str], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccountLine:
    """One account: its name, the end of its number, and its status in Codat ("not_sent" before it is there)."""

    name: str
    number: str
    status: str


@dataclass(frozen=True, slots=True)
class Session:
    """How far a customer is. `expires_at`: when the links stop working; `as_of`: every account
    was read at this time or later (UTC).
    """

    customer_number: str
    state: SessionState
    accounts: list[AccountLine]
    expires_at: datetime | None
    as_of: datetime | None

    @property
    def connected(self) -> int:
        """How many accounts QuickBooks reads."""
        return sum(account.status == AccountStatus.CONNECTED for account in self.accounts)


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer to `open_session`. `address` is None for a customer who is connected: there is nothing to open."""

    session: Session
    address: Address | None
    is_new: bool


# --- Asking ----------------------------------------------------------------------------------------------------------
def read_session(customer_number: str) -> Session:
    """How far the customer is, from our own rows. Raises NoSuchCustomer."""
    company = Company.objects.filter(customer_number=customer_number).first()
    if company is None:
        raise NoSuchCustomer
    return _session(company, _invitation(company))


def open_session(customer_number: str, wanted: Wanted | None, *, key: ApiKey, actor: Actor) -> Opened:
    """Make the customer if it is new, start its onboarding if nobody has, and make a link to its connect page.

    `wanted`: who the customer is; needed for a new one, and compared with a known one, which it never changes.
    Raises NoSuchCustomer, NotAccepted, Differs and Shut; nothing is changed then.
    """
    try:
        return _open(customer_number, wanted, key=key, actor=actor)
    except ChangedMeanwhile:
        # Somebody made the same customer at the same moment. Now it is there, and this is a repetition.
        return _open(customer_number, wanted, key=key, actor=actor)


def _open(customer_number: str, wanted: Wanted | None, *, key: ApiKey, actor: Actor) -> Opened:
    with transaction.atomic(), audit.acting(actor):
        company = Company.objects.select_for_update().filter(customer_number=customer_number).first()
        is_new = company is None
        if company is None:
            company = _make(customer_number, wanted, key=key, actor=actor)
        elif wanted is not None:
            _refuse_if_different(customer_number, wanted)
        if company.onboarding_state == OnboardingState.DRAFT:
            company = _start(company, actor=actor)
        invitation = _invitation(company)
        session = _session(company, invitation)
        if session.state in SHUT:
            raise Shut(session.state)
        if session.state == SessionState.CONNECTED:
            return Opened(session, None, is_new)
        if invitation is None or invitation.expires_at - timezone.now() < SHORTEST:
            if link_need.has_nothing_left(company):
                # Every account is connected, though the onboarding is still at work: there is nothing to invite to.
                return Opened(session, None, is_new)
            invitation = _invite(company, actor=actor)
            session = _session(company, invitation)
        address = invitation_keys.address(invitation, made_for=invitation_keys.API, actor=actor, at_most=LIVE_KEYS)
        return Opened(session, address, is_new)


def _make(customer_number: str, wanted: Wanted | None, *, key: ApiKey, actor: Actor) -> Company:
    if wanted is None:
        raise NoSuchCustomer
    manager = key.manager if key.manager is not None and key.manager.is_active else None
    try:
        return imports.store(_table(customer_number, wanted), actor=actor, manager=manager).companies[0]
    except ChangedMeanwhile:
        raise
    except BadFile as error:
        raise NotAccepted([_pointed(problem) for problem in error.problems if problem.level == "error"]) from error


def _start(company: Company, *, actor: Actor) -> Company:
    try:
        onboarding.request(company, actor=actor)
    except Refused:
        # Why is for staff, who see it at the button; it may name what the caller need not know.
        raise Shut(SessionState.NEEDS_ATTENTION) from None
    return Company.objects.get(pk=company.pk)


def _invitation(company: Company) -> Invitation | None:
    live = Invitation.objects.live(timezone.now()).filter(company=company, purpose=InvitationPurpose.CONNECT)
    return live.first()


def _invite(company: Company, *, actor: Actor) -> Invitation:
    return invitations.invite(
        company,
        purpose=InvitationPurpose.CONNECT,
        contact_name=company.contact_name,
        contact_email=company.contact_email,
        language=company.language,
        actor=actor,
    )


# --- What the request says -------------------------------------------------------------------------------------------
_ACCOUNT = "/customer/accounts/{}"
_NAMES = {column.field: column.name for column in COMPANY_COLUMNS}
_ACCOUNT_NAMES = {column.field: column.name for column in ACCOUNT_COLUMNS}
MOVES_BY_ITSELF = "balance"
"""Of a customer that is known, no news: it is what it was when the account was added."""


def _table(customer_number: str, wanted: Wanted) -> Table:
    """As an import would have read it; each row is called by the place of its account in the request."""
    company = {"customer_number": customer_number, **wanted.company}
    lines = (Line(_ACCOUNT.format(place), {**company, **account}) for place, account in enumerate(wanted.accounts))
    return Table("request", tuple(lines))


def _pointed(problem: Problem) -> tuple[str, str]:
    """A problem's JSON pointer and reason."""
    if problem.column == "customer_number":
        return "/customer_number", problem.reason
    of_company = problem.column in _NAMES.values()
    return f"{'/customer' if of_company else problem.row}/{problem.column}", problem.reason


def _refuse_if_different(customer_number: str, wanted: Wanted) -> None:
    """Raises NotAccepted for values that no customer could have, and Differs for others than those that are held."""
    plan = imports.plan(_table(customer_number, wanted))
    errors = [problem for problem in plan.errors if not problem.is_frozen]
    if errors:
        raise NotAccepted([_pointed(problem) for problem in errors])
    frozen = {_pointed(problem)[0] for problem in plan.errors}
    if pointers := frozen.union(*(_differences(customer) for customer in plan.customers)):
        raise Differs(sorted(pointers))


def _differences(customer: imports.PlannedCustomer) -> Iterator[str]:
    yield from (f"/customer/{_NAMES[name]}" for name in customer.company.changed)
    for row in customer.accounts:
        if row.is_new or row.instance.gone_at is not None:
            yield row.label
        else:
            names = (_ACCOUNT_NAMES[name] for name in row.changed)
            yield from (f"{row.label}/{name}" for name in names if name != MOVES_BY_ITSELF)


# --- How far it is ---------------------------------------------------------------------------------------------------
def _session(company: Company, invitation: Invitation | None) -> Session:
    accounts = list(SourceAccount.objects.filter(company=company, gone_at__isnull=True).order_by("pk"))
    connection = mirror.live_connection(company)
    return Session(
        customer_number=company.customer_number,
        state=_state(company, connection, accounts, invitation),
        accounts=[AccountLine(it.name, mask(it.account_number), _status(it)) for it in accounts],
        expires_at=invitation.expires_at if invitation else None,
        as_of=min((it.read_at for it in accounts if it.read_at), default=None),
    )


def _state(
    company: Company, connection: Connection | None, accounts: list[SourceAccount], invitation: Invitation | None
) -> SessionState:
    if company.onboarding_state == OnboardingState.OFFBOARDED:
        return SessionState.ENDED
    if _is_on_hold(company):
        return SessionState.ON_HOLD
    if company.onboarding_state == OnboardingState.FAILED:
        return SessionState.NEEDS_ATTENTION
    if company.gone_at is not None:
        return SessionState.ON_HOLD  # it is being made again
    if company.onboarding_state == OnboardingState.DRAFT:
        return SessionState.NOT_STARTED
    standing = door.standing_of_company(company, connection, accounts)
    if standing == Standing.CONNECTED:
        return SessionState.CONNECTED
    if standing == Standing.PREPARING:
        return SessionState.PREPARING
    has_pressed = invitation is not None and invitation.started_at is not None
    return SessionState.STARTED if has_pressed else SessionState.READY


def _is_on_hold(company: Company) -> bool:
    """Whether a colleague has asked for the end of the customer's feed, and it is not decided or not done."""
    if Operation.objects.open().filter(company=company, kind__in=ENDED_BY).exists():
        return True
    return Approval.objects.filter(company=company, action__in=END_WAITS, finished_at__isnull=True).exists()


def _status(account: SourceAccount) -> str:
    if not account.is_in_codat:
        return "not_sent"
    return account.status if account.status in AccountStatus.values else AccountStatus.UNKNOWN.value

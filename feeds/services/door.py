"""The customer's side of an invitation: what the page shows, and what the button does.

Looking changes nothing and asks Codat nothing: mail scanners and previews open links all day. Only the button, a POST,
asks Codat for a link, and gives the customer the one that works now.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import structlog
from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext

from feeds import audit, queue
from feeds.banking import mask
from feeds.codat.errors import CodatError, LimiterBusy, PaymentRequired, QuotaExhausted, RateLimited
from feeds.models import Company, Connection, Invitation, InvitationKey, SourceAccount
from feeds.services import invitation_keys, invitations, knocks, link_need, mirror, outbox, sync
from feeds.services.errors import Refused
from feeds.services.invitation_keys import customer_at
from feeds.services.knocks import TooManyKnocks as TooManyKnocks
from feeds.services.onboarding import FINAL_STATES
from feeds.states import AccountStatus, MailKind, OnboardingState
from feeds.wording import retold

log = structlog.get_logger(__name__)

REUSE_FOR = timedelta(minutes=15)
"""A link with so much of its hour left is handed out again: a second press must not kill what the first one opened."""
PATIENCE = 4.0
"""Seconds that such a press waits for whoever holds the company: mostly the customer's own other press."""
SHORT_PATIENCE = 1.0
"""The same for one who gets the link that we hold, without a call."""
LINE_PATIENCE = 2.0
"""Seconds that a few of those who were asked for a moment wait for a place among those who wait for Codat."""
TRIES = 15
"""How often the page presses again by itself, a little later each time; a minute and a half in all."""
SHORTEST_WAIT = timedelta(minutes=1)
"""So long a customer must have waited before staff are told that waiting did not help, whatever the page says."""
FORGET_AFTER = timedelta(minutes=10)
"""So long after the first moment that a customer was asked for, the next one counts as the first."""
_UNDER_WAY = (OnboardingState.QUEUED, OnboardingState.WORKING, OnboardingState.RETRYING)


class Standing(StrEnum):
    """What the page has to say."""

    READY = "ready"
    PREPARING = "preparing"
    CONNECTED = "connected"
    FAULT = "fault"
    """Nothing goes on by itself: onboarding has failed, or Codat no longer has the company. Staff have to see to it."""
    FINISHED = "finished"
    """It was connected by this invitation and is no longer, or not whole: that takes a new invitation."""


class Closed(StrEnum):
    """Why the button led nowhere this time. Unless there was nothing left to do, the customer tries again."""

    CONNECTED = "connected"
    FINISHED = "finished"
    PREPARING = "preparing"
    MOMENT = "moment"
    BUSY = "busy"
    CODAT_DOWN = "codat_down"
    FAULT = "fault"


class _TooManyFetches(Exception):
    """Enough presses of this process wait for Codat."""


@dataclass(frozen=True, slots=True)
class AccountLine:
    """One account as its owner recognises it: name, last four digits, and whether QuickBooks reads it."""

    name: str
    number: str
    is_connected: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the page shows. `as_of`: every account was read at this time or later (aware UTC)."""

    invitation: Invitation
    company: Company
    standing: Standing
    accounts: list[AccountLine]
    connected: int
    as_of: datetime | None

    @property
    def total(self) -> int:
        """How many accounts there are."""
        return len(self.accounts)


@dataclass(frozen=True, slots=True)
class Pressed:
    """What became of a press: Codat's link, or why there is none.

    `again_after`: milliseconds after which the page presses again by itself; 0 when it does not.
    """

    url: str = ""
    closed: Closed | None = None
    again_after: int = 0

    def __repr__(self) -> str:
        """Without the link."""
        return f"<Pressed {self.closed or 'link'}>"


def find(key: str, *, address: str, asks: bool = False) -> Invitation | None:
    """The live invitation that `key` opens; None for a key that is wrong, withdrawn or too old, all alike.

    `address` is where the request came from; `asks`: whether the customer presses the button, which on the page of a
    link that opens nothing asks staff for a new one. Raises TooManyKnocks once it has brought too many keys that never
    were ours: who holds a link that has ended guesses nothing, and a tab left open must not lock its network out.
    """
    knocks.refuse_if_too_many(address, who=knocks.CUSTOMERS)
    found = (
        InvitationKey.objects.filter(digest=invitation_keys.digest(key)).select_related("invitation__company").first()
    )
    is_ended = found is not None and found.made_for == invitation_keys.ENDED
    if found is not None and not is_ended and found.invitation.opens_page(timezone.now()):
        return found.invitation
    # One transaction, so that committing takes the same time whether or not the key was ever one.
    with transaction.atomic():
        knocks.count(address, who=knocks.CUSTOMERS, by=0 if found else 1)
        if asks:
            invitation_keys.ask(key)
    return None


def page(invitation: Invitation) -> Page:
    """What the customer sees. Reads our own rows only."""
    company = invitation.company
    accounts = list(SourceAccount.objects.filter(company=company, gone_at__isnull=True).order_by("pk"))
    lines = [AccountLine(it.name, mask(it.account_number), it.status == AccountStatus.CONNECTED) for it in accounts]
    connection = mirror.live_connection(company)
    return Page(
        invitation=invitation,
        company=company,
        standing=_standing(invitation, connection, accounts),
        accounts=lines,
        connected=sum(line.is_connected for line in lines),
        as_of=min((it.read_at for it in accounts if it.read_at), default=None),
    )


def opened(invitation: Invitation, *, address: str) -> None:
    """A person looks at the page: told by the page itself, because scanners fetch it as well."""
    with audit.acting(customer_at(address)):
        _write_once(invitation, "opened_at")
        if page(invitation).standing == Standing.FAULT:
            _tell_of_fault(invitation.company)


def press(invitation: Invitation, *, address: str, tries: int = 0) -> Pressed:
    """Fetch the link that works now. Never raises for Codat's sake: the answer says what to show.

    `address`: where the press came from; `tries`: how often the page has pressed again by itself already.
    """
    with audit.acting(customer_at(address)):
        company = invitation.company
        connection = mirror.live_connection(company)
        standing = page(invitation).standing
        if standing == Standing.FAULT:
            _tell_of_fault(company)
            return Pressed(closed=Closed.FAULT)
        if connection is None or standing != Standing.READY:
            return Pressed(closed=Closed.PREPARING if standing == Standing.READY else Closed(standing))
        try:
            url = _link(company, connection, has_waited=tries > 0)
        except (Refused, _TooManyFetches):
            # Somebody has the company, or the reading showed that there is nothing left to connect.
            if page(invitation).standing == Standing.CONNECTED:
                return Pressed(closed=Closed.CONNECTED)
            return _in_a_moment(invitation, tries, None)
        except (QuotaExhausted, PaymentRequired) as error:
            return _shut(invitation, Closed.BUSY, error)
        except (RateLimited, LimiterBusy) as error:
            return _in_a_moment(invitation, tries, error)
        except CodatError as error:
            return _shut(invitation, Closed.CODAT_DOWN if error.retryable else Closed.FAULT, error)
        if tries:
            cache.delete(_waits(invitation))
        _note_start(invitation)
        return Pressed(url=url)


# --- How it is done --------------------------------------------------------------------------------------------------
def _standing(invitation: Invitation, connection: Connection | None, accounts: list[SourceAccount]) -> Standing:
    standing = standing_of_company(invitation.company, connection, accounts)
    has_served = invitation.connected_at is not None
    if has_served and standing != Standing.CONNECTED:
        return Standing.FINISHED
    return Standing.FAULT if standing == Standing.PREPARING and _is_at_fault(invitation.company) else standing


def _is_at_fault(company: Company) -> bool:
    """Whether it stays as it is until staff do something."""
    is_under_way = company.onboarding_state in _UNDER_WAY
    needs_staff = company.onboarding_state in (OnboardingState.FAILED, OnboardingState.OFFBOARDED)
    return needs_staff or (company.gone_at is not None and not is_under_way)


def standing_of_company(company: Company, connection: Connection | None, accounts: list[SourceAccount]) -> Standing:
    """How far our side is, whatever the invitation. `accounts`: those of the company that are not gone."""
    if connection is None or company.onboarding_state not in FINAL_STATES:
        return Standing.PREPARING
    if link_need.is_needed(connection):
        return Standing.READY
    # Nothing waits for the customer; an account that staff added may still be on its way to Codat.
    return Standing.CONNECTED if all(it.is_in_codat for it in accounts) else Standing.PREPARING


def _link(company: Company, connection: Connection, *, has_waited: bool) -> str:
    """A link that Codat accepts now. Two presses at once wait for each other, and the second gets the first one's."""
    if connection.has_live_link(timezone.now() + REUSE_FOR):
        try:
            return _hand_over(company, connection, patience=SHORT_PATIENCE, may_ask=False)
        except sync.NoLinkHeld:
            connection.refresh_from_db()  # it vanished just now: a fresh one takes a place, as any other
    with _place_to_wait(has_waited=has_waited):
        return _hand_over(company, connection, patience=PATIENCE, may_ask=True)


def _hand_over(company: Company, connection: Connection, *, patience: float, may_ask: bool) -> str:
    actor = audit.current_actor()
    return sync.hand_over_link(
        company, connection, actor=actor, reuse_for=REUSE_FOR, patience=patience, may_ask=may_ask
    )


_places = threading.BoundedSemaphore(settings.PRESSES_AT_ONCE)
_next_in_line = threading.BoundedSemaphore(max(1, settings.PRESSES_AT_ONCE // 2))


@contextmanager
def _place_to_wait(*, has_waited: bool = False) -> Iterator[None]:
    """One of the threads of this process that may wait for Codat, or for whoever holds the company.

    The others go on answering, however slow Codat is and however many press. A few who were asked for a moment before
    wait for a place to become free, so that newcomers do not overtake them. Raises _TooManyFetches.
    """
    if not (_places.acquire(blocking=False) or (has_waited and _wait_in_line())):
        raise _TooManyFetches
    try:
        yield
    finally:
        _places.release()


def _wait_in_line() -> bool:
    """Whether a place became free in time; False at once when the line is full."""
    if not _next_in_line.acquire(blocking=False):
        return False
    try:
        return _places.acquire(timeout=LINE_PATIENCE)
    finally:
        _next_in_line.release()


def _in_a_moment(invitation: Invitation, tries: int, error: CodatError | None) -> Pressed:
    """Ask for a moment, after which the page presses again; staff are told only when that did not help."""
    has_waited = _has_waited(invitation)  # asked at every moment: the first one starts the clock
    if has_waited and tries >= TRIES:
        return _shut(invitation, Closed.BUSY, error)
    # Scattered, so that a crowd does not come back as one; later each time, as the crowd is large.
    seconds = 2 + tries / 2 + random.uniform(0, 2)  # noqa: S311 - no secret
    return Pressed(closed=Closed.MOMENT, again_after=round(seconds * 1000))


def _has_waited(invitation: Invitation) -> bool:
    """Whether it is a while since this invitation was first asked for a moment: the page only says how often it was."""
    now = timezone.now().timestamp()
    since = cache.get_or_set(_waits(invitation), now, FORGET_AFTER.total_seconds())
    return now - (since or now) >= SHORTEST_WAIT.total_seconds()


def _waits(invitation: Invitation) -> str:
    return f"feeds.door.waits.{invitation.pk}"


def _note_start(invitation: Invitation) -> None:
    with transaction.atomic():
        Invitation.objects.filter(pk=invitation.pk).update(presses=F("presses") + 1)
        # Without script nobody told us that the page was looked at.
        _write_once(invitation, "opened_at", "started_at")


def _write_once(invitation: Invitation, *columns: str) -> None:
    """Write the time into those that have none. Nothing is locked for who only comes again."""
    if all(getattr(invitation, column) for column in columns):
        return
    with transaction.atomic():
        held = Invitation.objects.select_for_update().get(pk=invitation.pk)
        written = [column for column in columns if getattr(held, column) is None]
        if written and held.ended_at is None:
            for column in written:
                setattr(held, column, timezone.now())
            held.save(update_fields=[*written, "updated_at"])


def _shut(invitation: Invitation, closed: Closed, error: CodatError | None) -> Pressed:
    """Staff are told once a day for each reason: every customer who presses meanwhile has the same one."""
    log.warning("door_closed", invitation=invitation.pk, why=closed.value, error=type(error).__name__)

    def why() -> str:
        return error.staff_message if error else gettext("no link was to be had for more than a minute.")

    with transaction.atomic():
        outbox.put(
            MailKind.DOOR_CLOSED,
            to=settings.CASE_NOTIFY_TO,
            subject=lambda: gettext("Customers cannot connect: %(why)s") % {"why": why()},
            context={"why": why, "company": invitation.company, "at": timezone.now()},
            key=f"door {closed.value} {type(error).__name__ if error else 'crowd'} {timezone.now():%Y-%m-%d}",
        )
        queue.enqueue(queue.SEND_MAILS)
    return Pressed(closed=closed)


def _tell_of_fault(company: Company) -> None:
    """Tell who looks after the company, once a day, that its customer came and cannot connect."""
    log.warning("door_at_fault", company=company.pk, state=company.onboarding_state)

    def why() -> str:
        if company.onboarding_state == OnboardingState.OFFBOARDED:
            return gettext("It is off-boarded. Withdraw its invitation, or call the customer.")
        return retold(company.onboarding_error) or gettext("Codat no longer has this company.")

    with transaction.atomic():
        outbox.put(
            MailKind.DOOR_CLOSED,
            to=invitations.staff_of(company),
            subject=lambda: (
                gettext("%(company)s cannot connect: %(why)s") % {"company": company.legal_name, "why": why()}
            ),
            context={"why": why, "company": company, "at": timezone.now()},
            company=company,
            key=f"door company {company.pk} {timezone.now():%Y-%m-%d}",
        )
        queue.enqueue(queue.SEND_MAILS)

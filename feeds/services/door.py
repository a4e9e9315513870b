"""The customer's side of an invitation: what the page shows, and what the button does.

Looking changes nothing and asks Codat nothing: mail scanners and previews open links all day. Only the button, a POST,
asks Codat for a link, and gives the customer the one that works now.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext

from feeds import audit, queue
from feeds.audit import Actor
from feeds.banking import mask
from feeds.codat.errors import CodatError, LimiterBusy, PaymentRequired, RateLimited
from feeds.models import Company, Connection, Invitation, InvitationKey, Knock, SourceAccount
from feeds.services import invitation_keys, link_need, mirror, outbox, sync
from feeds.services.errors import Refused
from feeds.services.onboarding import FINAL_STATES
from feeds.states import AccountStatus, MailKind

log = structlog.get_logger(__name__)

CUSTOMER = Actor(name="customer", source="connect page")
REUSE_FOR = timedelta(minutes=15)
"""A link with so much of its hour left is handed out again: a second press must not kill what the first one opened."""
WINDOW = timedelta(minutes=10)
KNOCKS = 30
"""Wrong keys from one address in one window, after which it gets no answer until the window ends."""


class Standing(StrEnum):
    """What the page has to say."""

    READY = "ready"
    PREPARING = "preparing"
    CONNECTED = "connected"


class Closed(StrEnum):
    """Why the button led nowhere this time. Unless there was nothing left to do, the customer tries again."""

    CONNECTED = "connected"
    PREPARING = "preparing"
    BUSY = "busy"
    CODAT_DOWN = "codat_down"
    FAULT = "fault"


class TooManyKnocks(Exception):
    """This address has come with too many wrong keys."""


@dataclass(frozen=True, slots=True)
class AccountLine:
    """One account as its owner recognises it: name, last four digits, and whether QuickBooks reads it."""

    name: str
    number: str
    is_connected: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the page shows. `as_of`: when Codat was last asked about the accounts (aware UTC)."""

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
    """What became of a press: Codat's link, or why there is none."""

    url: str = ""
    closed: Closed | None = None

    def __repr__(self) -> str:
        """Without the link."""
        return f"<Pressed {self.closed or 'link'}>"


def find(key: str, *, address: str) -> Invitation | None:
    """The live invitation that `key` opens; None for a key that is wrong, withdrawn or too old, all alike.

    `address` is where the request came from. Raises TooManyKnocks once it has brought too many such keys.
    """
    knocker = _knocker(address)
    if _is_blocked(knocker):
        raise TooManyKnocks
    found = (
        InvitationKey.objects.filter(digest=invitation_keys.digest(key)).select_related("invitation__company").first()
    )
    if found is not None and _opens(found.invitation):
        return found.invitation
    _count_knock(knocker)
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
        standing=_standing(company, connection, accounts),
        accounts=lines,
        connected=sum(line.is_connected for line in lines),
        as_of=max((it.read_at for it in accounts if it.read_at), default=None),
    )


def opened(invitation: Invitation) -> None:
    """A person looks at the page: told by the page itself, because scanners fetch it as well."""
    with audit.acting(CUSTOMER):
        _write_once(invitation, "opened_at")


def press(invitation: Invitation) -> Pressed:
    """Fetch the link that works now. Never raises for Codat's sake: the answer says what to show."""
    with audit.acting(CUSTOMER):
        company = invitation.company
        connection = mirror.live_connection(company)
        standing = page(invitation).standing
        if connection is None or standing != Standing.READY:
            return Pressed(closed=Closed.CONNECTED if standing == Standing.CONNECTED else Closed.PREPARING)
        try:
            url = _link(company, connection)
        except Refused:
            # A worker has the company, or the reading showed that there is nothing left to connect.
            is_done = page(invitation).standing == Standing.CONNECTED
            return Pressed(closed=Closed.CONNECTED if is_done else Closed.BUSY)
        except (RateLimited, LimiterBusy, PaymentRequired) as error:
            return _shut(invitation, Closed.BUSY, error)
        except CodatError as error:
            return _shut(invitation, Closed.CODAT_DOWN if error.retryable else Closed.FAULT, error)
        _note_start(invitation)
        return Pressed(url=url)


def prune_knocks() -> int:
    """Forget windows that are over; how many."""
    return Knock.objects.filter(window__lt=timezone.now() - 2 * WINDOW).delete()[0]


# --- How it is done --------------------------------------------------------------------------------------------------
def _opens(invitation: Invitation) -> bool:
    """A connected customer may come back to see how it stands, as long as the invitation would have lived."""
    if invitation.connected_at is not None:
        return invitation.expires_at > timezone.now()
    return invitation.is_live(timezone.now())


def _standing(company: Company, connection: Connection | None, accounts: list[SourceAccount]) -> Standing:
    if connection is None or company.onboarding_state not in FINAL_STATES:
        return Standing.PREPARING
    if link_need.is_needed(connection):
        return Standing.READY
    # Nothing waits for the customer; an account that staff added may still be on its way to Codat.
    return Standing.CONNECTED if all(it.is_in_codat for it in accounts) else Standing.PREPARING


def _link(company: Company, connection: Connection) -> str:
    """A link that Codat accepts now. Two presses at once wait for each other, and the second gets the first one's."""
    return sync.hand_over_link(company, connection, actor=CUSTOMER, reuse_for=REUSE_FOR)


def _note_start(invitation: Invitation) -> None:
    Invitation.objects.filter(pk=invitation.pk).update(presses=F("presses") + 1)
    # Without script nobody told us that the page was looked at.
    _write_once(invitation, "opened_at")
    _write_once(invitation, "started_at")


def _write_once(invitation: Invitation, column: str) -> None:
    with transaction.atomic():
        held = Invitation.objects.select_for_update().get(pk=invitation.pk)
        if getattr(held, column) is None and held.ended_at is None:
            setattr(held, column, timezone.now())
            held.save(update_fields=[column, "updated_at"])


def _shut(invitation: Invitation, closed: Closed, error: CodatError) -> Pressed:
    """Staff are told once a day for each reason: every customer who presses meanwhile has the same one."""
    log.warning("door_closed", invitation=invitation.pk, why=closed.value, error=type(error).__name__)
    with transaction.atomic():
        outbox.put(
            MailKind.DOOR_CLOSED,
            to=settings.CASE_NOTIFY_TO,
            subject=lambda: gettext("Customers cannot connect: %(why)s") % {"why": error.staff_message},
            context={"error": error, "company": invitation.company, "at": timezone.now()},
            key=f"door {closed.value} {timezone.now():%Y-%m-%d}",
        )
        queue.enqueue(queue.SEND_MAILS)
    return Pressed(closed=closed)


def _knocker(address: str) -> str:
    return salted_hmac("feeds.door", address, algorithm="sha256").hexdigest()


def _window() -> datetime:
    seconds = int(WINDOW.total_seconds())
    now = int(timezone.now().timestamp())
    return datetime.fromtimestamp(now - now % seconds, tz=timezone.get_default_timezone())


def _is_blocked(knocker: str) -> bool:
    return Knock.objects.filter(address=knocker, window=_window(), count__gte=KNOCKS).exists()


def _count_knock(knocker: str) -> None:
    window = _window()
    knocks = Knock.objects.filter(address=knocker, window=window)
    if not knocks.update(count=F("count") + 1):
        Knock.objects.get_or_create(address=knocker, window=window)
        knocks.update(count=F("count") + 1)

"""Which dates the customer must import by file after a break.

QuickBooks stopped asking some time before Codat showed it, and at reconnection takes back at most a week. The range
that is named covers every day that may be missing: it may be a day or two too long, never too short.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from django.db.models import Q
from django.utils import timezone, translation
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from feeds.banking import mask
from feeds.models import Case, SourceAccount, StatusEvent
from feeds.services import breaks
from feeds.states import BROKEN_CONNECTION_STATUSES, GONE, SILENT_DAYS, AccountStatus, ConnectionStatus, Language

TAKEN_BACK = timedelta(days=7)
"""How far QuickBooks reaches back at reconnection. (One page of Codat's says ninety days; the guide says seven.)"""
_STANDING_STILL = (*BROKEN_CONNECTION_STATUSES, GONE)


@dataclass(frozen=True, slots=True)
class Silence:
    """One break of one account, as readings showed it (aware times).

    seen_at: the first reading that showed it broken; last_good_at: the reading before, if there was one.
    silent_days: how long QuickBooks had been silent before Codat showed it (`states.SILENT_DAYS`).
    not_before: a reading that showed the account not connected yet: it cannot have fallen silent earlier.
    reconnected_at: the first reading that showed it connected again; None while it is broken.
    """

    seen_at: datetime
    last_good_at: datetime | None = None
    silent_days: int = SILENT_DAYS[AccountStatus.DISCONNECTED]
    not_before: datetime | None = None
    reconnected_at: datetime | None = None


def missing(silence: Silence, now: datetime) -> tuple[datetime, datetime] | None:
    """From when until when transactions may be missing; None when QuickBooks takes back all of it.

    While the account is broken the answer is as if it were reconnected `now`.
    """
    last_good_at = min(silence.last_good_at or silence.seen_at, silence.seen_at)
    start = last_good_at - timedelta(days=silence.silent_days)
    if silence.not_before is not None:
        start = max(start, silence.not_before)
    end = (silence.reconnected_at or now) - TAKEN_BACK
    return (start, end) if start < end else None


@dataclass(frozen=True, slots=True)
class AccountGap:
    """The dates one account needs, both included. `number` is masked."""

    name: str
    number: str
    from_date: date
    to_date: date


@dataclass(frozen=True, slots=True)
class Gap:
    """The dates a customer must import by file, both included; no accounts and no dates when nothing is missing.

    `why` is for staff: what the dates follow from.
    """

    accounts: tuple[AccountGap, ...]
    why: str
    as_if_on: date | None = None
    """While the feed is broken: the day of reconnection that the dates assume."""

    @property
    def from_date(self) -> date | None:
        """The earliest day of any account."""
        return min((account.from_date for account in self.accounts), default=None)

    @property
    def to_date(self) -> date | None:
        """The latest day of any account."""
        return max((account.to_date for account in self.accounts), default=None)


def gap(case: Case) -> Gap:
    """What is missing because of this case, for each account; days are counted in the bank's zone (`TIME_ZONE`)."""
    now = timezone.now()
    found = breaks.find(case.connection)
    broken = {account.pk for account in found.accounts} if found else set()
    # Of the whole company: an account may have been reconnected through another connection.
    accounts = SourceAccount.objects.filter(Q(gone_at__isnull=True) | Q(pk__in=broken), company_id=case.company_id)
    events = list(StatusEvent.objects.filter(company_id=case.company_id).order_by("pk"))
    gaps = []
    for account in accounts.order_by("pk"):
        story = _of_case(silences(account.pk, events, case.connection_id), case)
        if not story and account.pk in broken:
            story = [Silence(seen_at=case.broke_at)]
        if (days := days_missing(story, now)) is not None:
            gaps.append(AccountGap(account.name, mask(account.account_number), *days))
    as_if_on = timezone.localdate(now) if broken else None
    return Gap(tuple(gaps), _why(case, as_if_on) if gaps else _("QuickBooks takes back all that is missing."), as_if_on)


def customer_text(gap: Gap, language: str) -> str:
    """What the customer is to do, plain text ready to send, in `language` (`states.Language`; else English)."""
    words = FRENCH if language == Language.FR else ENGLISH
    if not gap.accounts:
        return words.nothing
    parts = [words.opening, "\n".join(_line(account, words) for account in gap.accounts), words.steps]
    if gap.as_if_on is not None:
        parts.append(words.still_broken.format(day=words.write(gap.as_if_on)))
    return "\n\n".join(parts)


def _line(account: AccountGap, words: Words) -> str:
    values = {"name": account.name, "number": account.number, "start": words.write(account.from_date)}
    if account.from_date == account.to_date:
        return words.one_day.format(**values)
    return words.days.format(**values, end=words.write(account.to_date))


def _of_case(story: Iterable[Silence], case: Case) -> list[Silence]:
    """The breaks that lie in the case's life: earlier and later ones belong to other cases."""
    return [
        silence
        for silence in story
        if (silence.reconnected_at is None or silence.reconnected_at >= case.opened_at)
        and (case.closed_at is None or silence.seen_at <= case.closed_at)
    ]


def days_missing(story: Sequence[Silence], now: datetime) -> tuple[date, date] | None:
    """From the first to the last day that may be missing, over all breaks."""
    ranges = [found for silence in story if (found := missing(silence, now)) is not None]
    if not ranges:
        return None
    start, end = min(start for start, _end in ranges), max(end for _start, end in ranges)
    return timezone.localdate(start), timezone.localdate(end)


def silences(account_id: int, events: Iterable[StatusEvent], connection_id: int) -> list[Silence]:
    """The account's breaks, oldest first, from its company's status changes, oldest first.

    An account is silent from the moment it is `disconnected`, or gone while it was connected, or its connection as a
    whole stands still while it was connected, until it is seen connected on a connection that works.
    """
    found: list[Silence] = []
    status = ""
    connected_from: datetime | None = None
    stands_still = False
    for event in events:
        if event.account_id == account_id:
            went_with_it = event.new == GONE and status == AccountStatus.CONNECTED
            status = AccountStatus.DISCONNECTED if went_with_it else event.new
            if status == AccountStatus.CONNECTED:
                connected_from = event.old_read_at
        elif event.account_id is None and event.connection_id == connection_id:
            stands_still = event.new in _STANDING_STILL
        else:
            continue
        works = status == AccountStatus.CONNECTED and not (stands_still and event.connection_id == connection_id)
        is_broken = status == AccountStatus.DISCONNECTED or (stands_still and status == AccountStatus.CONNECTED)
        last = found[-1] if found and found[-1].reconnected_at is None else None
        if last is None and is_broken and not works:
            days = SILENT_DAYS[ConnectionStatus.UNLINKED if stands_still else AccountStatus.DISCONNECTED]
            found.append(Silence(event.seen_at, event.old_read_at, days, connected_from))
        elif last is not None and works:
            found[-1] = replace(last, reconnected_at=event.seen_at)
        elif last is not None and _came_with(event, last):
            found[-1] = replace(last, silent_days=SILENT_DAYS[ConnectionStatus.UNLINKED])
    return found


def _came_with(event: StatusEvent, silence: Silence) -> bool:
    """Whether the connection was seen standing still in the reading that showed the silence, not in a later one."""
    if event.account_id is not None or event.new not in _STANDING_STILL:
        return False
    return event.old_read_at is None or event.old_read_at <= silence.seen_at


def _why(case: Case, as_if_on: date | None) -> str:
    seen = date_format(timezone.localdate(case.broke_at))
    text = _(
        "Seen on %(seen)s. QuickBooks is silent for ten days before Codat shows an account as disconnected, eleven "
        "before a connection is Unlinked, and takes back at most seven days at reconnection."
    ) % {"seen": seen}
    if as_if_on is not None:
        text += " " + _("Still broken: the dates are as if it were reconnected on %(day)s.") % {
            "day": date_format(as_if_on)
        }
    return text


# --- What the customer reads -----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Words:
    """The customer's text in one language. Not in the catalogue: it must be there whatever the staff's language is."""

    language: str
    date_format: str
    opening: str
    days: str
    one_day: str
    steps: str
    still_broken: str
    nothing: str

    def write(self, day: date) -> str:
        """A date as people write it, such as "November 1, 2026" or "1er novembre 2026"."""
        with translation.override(self.language):
            text = date_format(day, self.date_format)
        return f"1er{text[1:]}" if self.language == Language.FR and day.day == 1 else text


ENGLISH = Words(
    language=Language.EN,
    date_format="F j, Y",
    opening="The bank feed to QuickBooks was interrupted. QuickBooks may be missing transactions of these dates:",
    days="- {name} ({number}): from {start} to {end}",
    one_day="- {name} ({number}): {start}",
    steps=(
        "Please download the transactions of these dates from your online banking as a file and upload it in "
        "QuickBooks Online, under Bank transactions. QuickBooks may hold some of them already: do not add those twice."
    ),
    still_broken=(
        "The feed is not connected yet. Connect it again in QuickBooks first: QuickBooks then fetches the last seven "
        "days itself. The dates above hold if you do so on {day}; if it is later, ask us for new ones."
    ),
    nothing="The bank feed to QuickBooks was interrupted, but no dates are missing. You do not need to import a file.",
)
FRENCH = Words(
    language=Language.FR,
    date_format="j F Y",
    opening=(
        "Le flux bancaire vers QuickBooks a été interrompu. Il est possible que des opérations manquent dans "
        "QuickBooks pour les dates suivantes :"
    ),
    days="- {name} ({number}) : du {start} au {end}",
    one_day="- {name} ({number}) : le {start}",
    steps=(
        "Veuillez télécharger les opérations de ces dates depuis votre banque en ligne, sous forme de fichier, puis "
        "importer ce fichier dans QuickBooks en ligne, sous Opérations bancaires. Certaines s’y trouvent peut-être "
        "déjà : ne les ajoutez pas une deuxième fois."
    ),
    still_broken=(
        "Le flux n’est pas encore rétabli. Reconnectez-le d’abord dans QuickBooks, qui récupérera alors lui-même les "
        "sept derniers jours. Les dates ci-dessus sont valables si vous le faites le {day}; si c’est plus tard, "
        "demandez-nous de nouvelles dates."
    ),
    nothing=(
        "Le flux bancaire vers QuickBooks a été interrompu, mais aucune date ne manque. Vous n’avez aucun fichier à "
        "importer."
    ),
)

"""The dates a customer must import: pure rules as tables and properties, then whole cases, then the words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from feeds.models import Case, Connection, SourceAccount, StatusEvent
from feeds.services import cases, gaps, mirror
from feeds.services.gaps import AccountGap, Gap, Silence, days_missing, missing, silences
from feeds.states import SeenBy
from tests.factories import ConnectionFactory, SourceAccountFactory

NOW = datetime(2026, 11, 22, 15, tzinfo=UTC)
DAY = timedelta(days=1)


def days(count: float) -> datetime:
    """So many days before now."""
    return NOW - count * DAY


# --- One silence -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("silence", "expected"),
    [
        (Silence(days(0)), (days(10), days(7))),
        (Silence(days(5)), (days(15), days(7))),
        (Silence(days(0), silent_days=11), (days(11), days(7))),
        (Silence(days(0), last_good_at=days(1)), (days(11), days(7))),
        (Silence(days(5), reconnected_at=days(2)), (days(15), days(9))),
        (Silence(days(5), not_before=days(12)), (days(12), days(7))),
        (Silence(days(3), not_before=days(5)), None),
        (Silence(days(3), not_before=days(5), reconnected_at=days(1)), None),
        # A clock that runs ahead of ours must not make the range shorter.
        (Silence(days(5), last_good_at=days(4)), (days(15), days(7))),
    ],
)
def test_what_one_silence_leaves_missing(silence: Silence, expected: tuple[datetime, datetime] | None) -> None:
    assert missing(silence, NOW) == expected


moments = st.floats(min_value=0, max_value=400).map(days)


@given(
    silence=st.builds(
        Silence,
        seen_at=moments,
        last_good_at=st.none() | moments,
        silent_days=st.sampled_from([10, 11]),
        not_before=st.none() | moments,
        reconnected_at=st.none() | moments,
    )
)
def test_whatever_was_seen_a_range_never_runs_backwards(silence: Silence) -> None:
    found = missing(silence, NOW)
    assert found is None or found[0] < found[1]
    whole_days = days_missing([silence], NOW)
    assert whole_days is None or whole_days[0] <= whole_days[1]


# --- From status changes ---------------------------------------------------------------------------------------------
def change(new: str, seen: float, *, before: float | None = None, account: int | None = 1) -> StatusEvent:
    """A status change seen so many days ago; `before`: the reading before."""
    return StatusEvent(
        account_id=account,
        connection_id=9,
        new=new,
        seen_at=days(seen),
        old_read_at=None if before is None else days(before),
        seen_by=SeenBy.POLL,
    )


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], []),
        ([change("pending", 30), change("connected", 20, before=21)], []),
        (
            [change("connected", 20, before=21), change("disconnected", 5, before=6)],
            [Silence(days(5), days(6), 10, days(21))],
        ),
        (
            [change("connected", 20), change("disconnected", 5, before=6), change("connected", 2, before=3)],
            [Silence(days(5), days(6), 10, None, days(2))],
        ),
        # Unlinked, seen together with its account: up to a day more.
        (
            [
                change("connected", 20),
                change("disconnected", 5, before=6),
                change("Unlinked", 4.9, before=6, account=None),
            ],
            [Silence(days(5), days(6), 11)],
        ),
        # Unlinked later, when the account was long known to be silent: nothing new about this account.
        (
            [
                change("connected", 20),
                change("disconnected", 5, before=6),
                change("Unlinked", 3, before=4, account=None),
            ],
            [Silence(days(5), days(6), 10)],
        ),
        # Unlinked while the account still says connected, and linked again before it ever said otherwise.
        (
            [
                change("connected", 20),
                change("Unlinked", 5, before=6, account=None),
                change("Linked", 2, before=3, account=None),
            ],
            [Silence(days(5), days(6), 11, None, days(2))],
        ),
        # Linked again, but this account is not: still silent.
        (
            [
                change("connected", 20),
                change("Unlinked", 5, before=6, account=None),
                change("disconnected", 4, before=5),
                change("Linked", 2, before=3, account=None),
            ],
            [Silence(days(5), days(6), 11)],
        ),
        # Another account of the connection.
        ([change("connected", 20), change("disconnected", 5, account=2)], []),
        # Never connected: an unlinked connection takes nothing from it.
        ([change("pending", 20), change("Unlinked", 5, account=None)], []),
    ],
)
def test_silences_are_read_from_status_changes(events: list[StatusEvent], expected: list[Silence]) -> None:
    assert silences(1, events, 9) == expected


def test_an_account_connected_through_a_new_connection_is_silent_no_more() -> None:
    events = [change("connected", 20), change("gone", 5, before=6), change("gone", 5, before=6, account=None)]
    events += [change("pending", 4), change("connected", 2, before=3)]
    for event in events[3:]:
        event.connection_id = 10
    assert [silence.reconnected_at for silence in silences(1, events, 9)] == [days(2)]


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[tuple[datetime, datetime, datetime]], list[datetime]]:
    """Breaks of one account (silent since, shown as disconnected, reconnected), and the readings of a poller.

    The first reading is before the first break, and every break is seen by one at least.
    """
    hours = st.floats(min_value=0.1, max_value=24 * 20)
    clock = days(300)
    breaks, readings = [], [clock]
    for _number in range(draw(st.integers(1, 3))):
        silent = clock + timedelta(hours=draw(hours))
        shown = silent + 10 * DAY
        seen = shown + timedelta(hours=draw(st.floats(min_value=0, max_value=24 * 9)))
        clock = seen + timedelta(hours=draw(hours))
        breaks.append((silent, shown, clock))
        readings.append(seen)
    readings += draw(st.lists(st.floats(min_value=0, max_value=200).map(days), max_size=30))
    return breaks, sorted({moment for moment in readings if moment <= NOW})


def read(
    breaks: Sequence[tuple[datetime, datetime, datetime]], readings: Sequence[datetime], unlink_after: timedelta
) -> list[StatusEvent]:
    """What the mirror writes: a row for each change, with the reading before."""
    events: list[StatusEvent] = []
    held: dict[int | None, str] = {}
    previous: datetime | None = None
    for moment in readings:
        shown = next((at for _silent, at, back in breaks if at <= moment < back), None)
        account = "connected" if shown is None else "disconnected"
        connection = "Linked" if shown is None or moment < shown + unlink_after else "Unlinked"
        for owner, status in ((1, account), (None, connection)):
            if held.get(owner) != status:
                held[owner] = status
                events.append(
                    StatusEvent(account_id=owner, connection_id=9, new=status, seen_at=moment, old_read_at=previous)
                )
        previous = moment
    return events


@given(life=lives(), unlink_after=st.floats(min_value=0, max_value=24).map(lambda hours: timedelta(hours=hours)))
def test_every_day_that_may_be_missing_is_named(
    life: tuple[list[tuple[datetime, datetime, datetime]], list[datetime]], unlink_after: timedelta
) -> None:
    breaks, readings = life
    seen = [it for it in breaks if any(it[1] <= moment < it[2] for moment in readings)]
    named = days_missing(silences(1, read(breaks, readings, unlink_after), 9), NOW)
    for silent, _shown, back in seen:
        moment, end = silent, min(back, NOW) - 7 * DAY
        while moment < end:
            assert named is not None
            assert named[0] <= timezone.localdate(moment) <= named[1]
            moment += timedelta(hours=5)


# --- Whole cases -----------------------------------------------------------------------------------------------------
@pytest.fixture
def feed(db: None) -> Connection:
    """A linked connection with two accounts, connected for long."""
    connection: Connection = ConnectionFactory(linked=True)
    for name in ("Operating", "Savings"):
        account = SourceAccountFactory(
            company=connection.company, connection=connection, name=name, account_number="000400010123456"
        )
        show(account, "connected", timezone.now() - 90 * DAY)
    return connection


def show(account: SourceAccount, status: str, seen_at: datetime, before: datetime | None = None) -> None:
    """A reading that shows this status."""
    SourceAccount.objects.filter(pk=account.pk).update(status=status)
    StatusEvent.objects.create(
        company_id=account.company_id, connection_id=account.connection_id, account=account, new=status,
        seen_at=seen_at, old_read_at=before, seen_by=SeenBy.POLL,
    )  # fmt: skip


def test_while_it_is_broken_the_dates_are_as_if_it_were_reconnected_today(feed: Connection) -> None:
    now = timezone.now()
    show(feed.source_accounts.get(name="Savings"), "disconnected", now, before=now - timedelta(hours=1))
    cases.observe(feed)
    found = gaps.gap(Case.objects.get())
    today = timezone.localdate()
    start = timezone.localdate(now - timedelta(days=10, hours=1))
    assert found.accounts == (AccountGap("Savings", "••••3456", start, today - 7 * DAY),)
    assert (found.from_date, found.to_date) == (start, today - 7 * DAY)
    assert found.as_if_on == today
    assert "Still broken" in found.why


def test_after_reconnection_the_dates_stand_still(feed: Connection) -> None:
    now = timezone.now()
    for account in feed.source_accounts.all():
        show(account, "disconnected", now - 4 * DAY)
    cases.observe(feed)
    Case.objects.update(opened_at=now - 4 * DAY, broke_at=now - 4 * DAY)
    for account in feed.source_accounts.all():
        show(account, "connected", now - 3 * DAY)
    cases.observe(feed)
    found = gaps.gap(Case.objects.get())
    assert [account.name for account in found.accounts] == ["Operating", "Savings"]
    assert found.from_date == timezone.localdate(now - 14 * DAY)
    assert found.to_date == timezone.localdate(now - 10 * DAY)
    assert found.as_if_on is None


def test_breaks_of_earlier_cases_are_not_told_again(feed: Connection) -> None:
    now = timezone.now()
    account = feed.source_accounts.get(name="Operating")
    show(account, "disconnected", now - 60 * DAY)
    show(account, "connected", now - 55 * DAY)
    show(account, "disconnected", now)
    cases.observe(feed)
    assert gaps.gap(Case.objects.get()).from_date == timezone.localdate(now - 10 * DAY)


def test_a_case_without_status_changes_counts_from_the_break(feed: Connection) -> None:
    StatusEvent.objects.all().delete()
    feed.source_accounts.update(status="disconnected")
    cases.observe(feed)
    case = Case.objects.get()
    assert gaps.gap(case).from_date == timezone.localdate(case.broke_at - 10 * DAY)


def test_accounts_that_went_with_their_company_are_named(feed: Connection) -> None:
    now = timezone.now()
    for row in (*feed.source_accounts.all(), feed):
        mirror.mark_gone(row)
    cases.observe(Connection.objects.get())
    assert Case.objects.get().accounts_broken == 2
    found = gaps.gap(Case.objects.get())
    assert [account.name for account in found.accounts] == ["Operating", "Savings"]
    assert found.from_date is not None
    assert found.from_date <= timezone.localdate(now)


def test_when_quickbooks_takes_back_everything_nothing_is_named(feed: Connection) -> None:
    now = timezone.now()
    account = feed.source_accounts.get(name="Operating")
    show(account, "connected", now - 2 * DAY, before=now - 3 * DAY)
    show(account, "disconnected", now - DAY)
    cases.observe(feed)
    found = gaps.gap(Case.objects.get())
    assert (found.accounts, found.from_date, found.to_date) == ((), None, None)
    assert "takes back all" in found.why


# --- Words -----------------------------------------------------------------------------------------------------------
GAP = Gap(
    (
        AccountGap("Operating", "••••6789", date(2026, 11, 1), date(2026, 11, 15)),
        AccountGap("Savings", "••••0042", date(2026, 8, 2), date(2026, 8, 2)),
    ),
    why="",
)


def test_the_english_text_is_ready_to_send() -> None:
    assert gaps.customer_text(GAP, "en") == (
        "The bank feed to QuickBooks was interrupted. QuickBooks may be missing transactions of these dates:\n"
        "\n"
        "- Operating (••••6789): from November 1, 2026 to November 15, 2026\n"
        "- Savings (••••0042): August 2, 2026\n"
        "\n"
        "Please download the transactions of these dates from your online banking as a file and upload it in "
        "QuickBooks Online, under Bank transactions. QuickBooks may hold some of them already: do not add those twice."
    )


def test_the_french_text_is_ready_to_send() -> None:
    text = gaps.customer_text(GAP, "fr")
    assert text.startswith("Le flux bancaire vers QuickBooks a été interrompu.")
    assert "- Operating (••••6789) : du 1er novembre 2026 au 15 novembre 2026\n" in text
    assert "- Savings (••••0042) : le 2 août 2026\n" in text
    assert text.endswith("ne les ajoutez pas une deuxième fois.")


@pytest.mark.parametrize(("language", "words"), [("en", "if you do so on November 22"), ("fr", "le faites le 22 nov")])
def test_a_feed_that_is_still_broken_is_to_be_connected_first(language: str, words: str) -> None:
    still_broken = Gap(GAP.accounts, why="", as_if_on=date(2026, 11, 22))
    assert words in gaps.customer_text(still_broken, language)


@pytest.mark.parametrize(("language", "words"), [("en", "no dates are missing"), ("fr", "aucune date ne manque")])
def test_a_customer_who_misses_nothing_is_told_so(language: str, words: str) -> None:
    assert words in gaps.customer_text(Gap((), why=""), language)


def test_a_language_that_we_do_not_speak_is_answered_in_english() -> None:
    assert gaps.customer_text(GAP, "de") == gaps.customer_text(GAP, "en")

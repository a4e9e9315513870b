"""The list of all companies waits for links in customers' hands, never for ever, and says so when it ended one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_q.models import OrmQ
from pytest_django.fixtures import Settings

from feeds import queue, tasks
from feeds.models import Connection, DriftReport, ListingWalk, StatusEvent
from feeds.services import drift, links, listing, quiet, sweep, sync, timeline
from feeds.services.roles import SUPPORT
from feeds.states import ConnectionStatus
from tests.factories import ConnectionFactory, UserFactory
from tests.sandbox.customer import connect_through, visit
from tests.sandbox_process import SandboxProcess
from tests.seeded import seed
from tests.services.conftest import Onboard
from tests.services.grid import RM

pytestmark = pytest.mark.django_db

Drain = Callable[[], int]
HOUR = timedelta(hours=1)


def hand_out(connection: Connection) -> str:
    """Show the link to somebody, who gives it to the customer."""
    return links.reveal(connection, actor=RM).url


def list_is_due(*, waiting_for: timedelta | None = None, fewest: int | None = None) -> None:
    """A day has passed since the last list; it has waited for so long already."""
    since = None if waiting_for is None else timezone.now() - waiting_for
    ListingWalk.objects.update_or_create(
        name=sweep.NAME,
        defaults={
            "complete_as_of": timezone.now() - timedelta(days=2),
            "retry_at": None,
            "waiting_since": since,
            "fewest_links": fewest,
        },
    )


def lists_read(codat: SandboxProcess) -> int:
    return codat.requests_made("GET /companies")


def a_minute(drain: Drain) -> None:
    """What the worker does each minute."""
    tasks.poll()
    tasks.clear_expired_links()
    drain()


def test_the_daily_list_waits_until_no_customer_holds_a_link(
    strict_codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    url = hand_out(company.connections.get())
    list_is_due()
    before = lists_read(strict_codat)
    for _minute in range(3):
        a_minute(drain_queue)
    assert lists_read(strict_codat) == before
    assert visit(url).status_code == 200

    # The customer connects with the very link, and the list is read at the next opportunity.
    assert connect_through(url).status_code == 200
    Connection.objects.update(poll_due_at=timezone.now())
    a_minute(drain_queue)
    a_minute(drain_queue)
    assert lists_read(strict_codat) == before + 1
    walk = ListingWalk.objects.get(name=sweep.NAME)
    assert (walk.waiting_since, walk.fewest_links) == (None, None)
    assert walk.complete_as_of is not None
    assert walk.complete_as_of > timezone.now() - HOUR


def test_while_the_list_waits_statuses_are_read_one_by_one_and_no_link_is_touched(
    strict_codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    seed(strict_codat, 2, accounts=1)
    broken = Connection.objects.select_related("company").first()
    assert broken is not None
    url = hand_out(onboard().connections.get())
    strict_codat.disconnect(broken.company.codat_id, broken.codat_id, now=True)
    strict_codat.advance(25 * 3600)
    links_again = links.refresh(Connection.objects.latest("pk"), actor=RM)  # a day has passed there, not here
    drain_queue()
    assert links_again is not None
    url = hand_out(Connection.objects.latest("pk"))
    list_is_due()
    before = lists_read(strict_codat)

    Connection.objects.update(poll_due_at=timezone.now())
    a_minute(drain_queue)

    assert lists_read(strict_codat) == before
    broken.refresh_from_db()
    assert broken.status == ConnectionStatus.UNLINKED
    assert StatusEvent.objects.filter(connection=broken, account=None, new=ConnectionStatus.UNLINKED).exists()
    assert visit(url).status_code == 200


def test_a_link_that_nobody_was_shown_does_not_stop_the_list_and_stays_true(
    strict_codat: SandboxProcess, onboard: Onboard
) -> None:
    company = onboard()
    assert company.connections.get().link_url
    assert sync.sweep_listing() == listing.Outcome.COMPLETE
    assert visit(hand_out(company.connections.get())).status_code == 200


@pytest.mark.parametrize(
    ("waited", "fewest", "held", "may"),
    [
        (None, None, 0, True),
        (None, None, 1, False),
        (timedelta(0), 5, 1, False),
        (5.9 * HOUR, 5, 1, False),  # the first half only looks
        (6.1 * HOUR, 1, 2, False),
        (6.1 * HOUR, 2, 2, True),  # as quiet as it has been
        (6.1 * HOUR, 3, 2, True),
        (11.9 * HOUR, 1, 2, False),
        (12.1 * HOUR, 1, 2, True),  # it waits no longer
    ],
)
def test_it_takes_the_quietest_moment_within_twelve_hours(
    waited: timedelta | None, fewest: int | None, held: int, may: bool, db: None
) -> None:
    ConnectionFactory.create_batch(held, handed_out=True)
    list_is_due(waiting_for=waited, fewest=fewest)
    assert quiet.is_time(sweep.NAME) is may


def test_the_fewest_of_the_first_half_are_remembered(db: None) -> None:
    out = ConnectionFactory.create_batch(3, handed_out=True)
    list_is_due()
    for expected in (3, 2, 1):
        assert not quiet.is_time(sweep.NAME)
        assert ListingWalk.objects.get(name=sweep.NAME).fewest_links == expected
        Connection.objects.filter(pk=out.pop().pk).update(link_expires_at=timezone.now())


def test_without_patience_it_never_waits(settings: Settings, db: None) -> None:
    settings.POLL_LIST_WAIT_HOURS = 0
    ConnectionFactory(handed_out=True)
    assert quiet.is_time(sweep.NAME)


def test_a_list_that_is_under_way_is_read_to_its_end(
    strict_codat: SandboxProcess, onboard: Onboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link handed out meanwhile may meet the next page: better than to read the first pages again."""
    monkeypatch.setattr(listing, "PAGE_SIZE", 2)
    monkeypatch.setattr(listing, "WALK_SECONDS", 0.0)
    seed(strict_codat, 5)
    assert sync.sweep_listing() == listing.Outcome.PAUSED
    ConnectionFactory(handed_out=True)
    while (outcome := sync.sweep_listing()) == listing.Outcome.PAUSED:
        pass
    assert outcome == listing.Outcome.COMPLETE


def test_a_list_that_finds_a_link_out_after_all_asks_again_at_the_next_poll(db: None) -> None:
    """Somebody was shown a link between the poll that queued the list and the task."""
    ConnectionFactory(handed_out=True)
    list_is_due()
    ListingWalk.objects.update(retry_at=timezone.now() + timedelta(minutes=10))
    assert sync.sweep_listing() == listing.Outcome.WAITING
    Connection.objects.update(link_expires_at=timezone.now())
    sweep.listed_at()
    assert [row.func() for row in OrmQ.objects.all()] == [queue.SWEEP]


# --- When it can wait no longer --------------------------------------------------------------------------------------
def test_who_holds_a_link_that_was_replaced_gets_the_new_one_from_a_screen_that_says_so(
    strict_codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    older = hand_out(company.connections.get())
    list_is_due(waiting_for=12.1 * HOUR, fewest=1)
    a_minute(drain_queue)
    assert visit(older).status_code == 401

    client = Client()
    client.force_login(UserFactory(role=SUPPORT))
    connection = company.connections.get()
    for row in (company, connection):
        page = client.get(reverse(f"admin:feeds_{row._meta.model_name}_change", args=[row.pk])).content.decode()
        assert "link replaced" in page
        assert "show the new one and hand it over" in page
    titles = [entry.title for entry in timeline.of_company(company).entries]
    assert "A reading of all connections replaced the link that was shown" in titles

    newer = hand_out(connection)
    assert visit(newer).status_code == 200
    page = client.get(reverse("admin:feeds_connection_change", args=[connection.pk])).content.decode()
    assert "link replaced" not in page
    assert connect_through(newer).status_code == 200


def test_a_link_that_staff_refreshed_is_not_said_to_be_replaced_by_a_reading(
    strict_codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    hand_out(company.connections.get())
    links.refresh(company.connections.get(), actor=RM)
    drain_queue()
    titles = [entry.title for entry in timeline.of_company(company).entries]
    assert "The customer's link was shown" in titles
    assert not [title for title in titles if "replaced" in title]


# --- The nightly comparison ------------------------------------------------------------------------------------------
def test_the_comparison_waits_too_and_is_made_as_soon_as_it_may(
    strict_codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    url = hand_out(onboard().connections.get())
    assert tasks.compare_with_codat() == listing.Outcome.WAITING
    assert visit(url).status_code == 200
    assert not DriftReport.objects.exists()

    Connection.objects.update(link_expires_at=timezone.now())
    assert tasks.compare_with_codat() == listing.Outcome.COMPLETE
    assert tasks.compare_with_codat() == "done lately"
    DriftReport.objects.update(started_at=timezone.now() - 24 * HOUR)
    assert tasks.compare_with_codat() == listing.Outcome.COMPLETE


def test_a_comparison_leaves_the_link_that_works_on_the_screen(strict_codat: SandboxProcess, onboard: Onboard) -> None:
    company = onboard()
    assert drift.run() == listing.Outcome.COMPLETE
    assert visit(hand_out(company.connections.get())).status_code == 200

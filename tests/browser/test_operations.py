"""The operations page in a real browser: in both themes and on a telephone, accessible and silent under the CSP."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from feeds import queue
from feeds.models import Case, CodatQuota, Connection, DailyFigure, Heartbeat
from feeds.services import figures, health
from feeds.states import CaseOutcome, CaseState, ConnectionStatus, OperationState
from tests.browser.conftest import Screens
from tests.factories import ConnectionFactory, OperationFactory, UserFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

URL = "/admin/operations/"


@pytest.fixture
def history(transactional_db: None) -> None:
    """A month of figures, twelve weeks of repairs, some broken feeds, and a few things that are not well."""
    now = timezone.now()
    today = timezone.localdate()
    Heartbeat.objects.create(name=health.WORKER, beat_at=now)
    Heartbeat.objects.create(name=health.POLL, beat_at=now - timedelta(hours=2))
    CodatQuota.objects.create(limit=6000, remaining=1900, resets_at=now + timedelta(hours=7), read_at=now)
    connections = [ConnectionFactory(status=ConnectionStatus.UNLINKED) for _ in range(24)]
    for number, connection in enumerate(connections):
        make_case(connection, broke_at=now - timedelta(days=number * number / 12))
    for week in range(0, 12, 2):
        for hours in (2 + week, 5 + week, 60 - week):
            end = now - timedelta(weeks=week // 3)
            make_case(
                connections[0],
                opened_at=end - timedelta(hours=hours),
                broke_at=end - timedelta(hours=hours),
                closed_at=end,
                state=CaseState.CLOSED,
                outcome=CaseOutcome.RECONNECTED,
            )
    figures.record_day()
    for days in range(1, 25):
        day = today - timedelta(days=days)
        counts = (420 - 9 * days, 60 + days, 12 + days % 5, days % 3, 0)
        for status, count in zip(
            figures.STATUSES[1:2] + figures.STATUSES[:1] + figures.STATUSES[2:], counts, strict=True
        ):
            DailyFigure.objects.create(day=day, name=figures.status_figure(status), value=count)
    OperationFactory(state=OperationState.UNKNOWN, error="Codat did not answer in time.")
    queue.enqueue(queue.HEARTBEAT)


def make_case(connection: Connection, **changes: object) -> None:
    """A case of the connection's company."""
    now = timezone.now()
    values = {"opened_at": changes.get("broke_at", now), "broke_at": now, "due_at": now} | changes
    Case.objects.create(company=connection.company, connection=connection, **values)


@pytest.mark.looks
def test_the_page_is_accessible_in_both_themes_and_on_a_telephone(
    history: None, window: Callable[..., Screens]
) -> None:
    UserFactory(username="sam", role="Support")
    for name, options in (
        ("light", {}),
        ("dark", {"color_scheme": "dark"}),
        ("telephone", {"width": 400}),
    ):
        screens = window(**options)
        screens.sign_in("sam")
        screens.open(URL)
        expect(screens.page.get_by_role("heading", name="System health")).to_be_visible()
        assert screens.page.get_by_role("img").count() == 5
        screens.check(f"operations-{name}")
        for summary in screens.page.locator(".picture details > summary").all():
            summary.click()
        expect(screens.page.locator(".picture table").first).to_be_visible()
        screens.check(f"operations-{name}-numbers")


@pytest.mark.looks
def test_an_empty_system_is_accessible_and_says_so(transactional_db: None, window: Callable[..., Screens]) -> None:
    UserFactory(username="sam", role="Support")
    screens = window()
    screens.sign_in("sam")
    screens.page.get_by_role("link", name="System health").click()
    expect(screens.page.get_by_text("No feed is broken that we know of.")).to_be_visible()
    expect(screens.page.get_by_text("Codat has not told its quota yet: it comes")).to_be_visible()
    screens.check("operations-empty")


def test_a_warning_leads_to_the_place_where_it_is_settled(history: None, window: Callable[..., Screens]) -> None:
    UserFactory(username="sam", role="Support")
    screens = window()
    screens.sign_in("sam")
    screens.open(URL)
    warnings = screens.page.get_by_role("region", name="What needs a look")
    expect(warnings.get_by_text("Statuses on screen grow old.")).to_be_visible()
    warnings.get_by_role("link", name="Open: Operations").click()
    screens.page.wait_for_url("**/admin/feeds/operation/?state__exact=unknown")
    expect(screens.page.get_by_text("Codat did not answer in time.")).to_be_visible()


def test_a_picture_tells_its_numbers_to_who_cannot_see_it(history: None, window: Callable[..., Screens]) -> None:
    UserFactory(username="sam", role="Support")
    screens = window()
    screens.sign_in("sam")
    screens.open(URL)
    picture = screens.page.get_by_role("img", name="Broken feeds by age")
    expect(picture).to_have_attribute("role", "img")
    expect(picture.locator("desc")).to_contain_text("24 feeds are broken")
    screens.page.locator("summary", has_text="The numbers: Broken feeds by age").press("Enter")
    expect(screens.page.get_by_role("row", name="30 or more")).to_be_visible()

"""How far customers get, and the stuck invitations, in a real browser: both themes, both languages, on a telephone."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from feeds.models import Invitation
from feeds.services.roles import RELATIONSHIP_MANAGERS, SUPPORT
from feeds.states import InvitationEnd, MailState
from tests.browser.conftest import Screens, is_cut_off
from tests.factories import CompanyFactory, InvitationFactory, MailFactory, UserFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

URL = "/admin/funnel/"
STUCK = "/admin/feeds/invitation/?list=all"
COLUMNS = ("sent_at", "opened_at", "started_at", "linked_at", "connected_at")
Window = Callable[..., Screens]


@pytest.fixture
def invitations(transactional_db: None) -> None:
    """Forty customers of two managers, invited over two months; some are connected, some are stuck."""
    now = timezone.now()
    UserFactory(username="sam", role=SUPPORT)
    managers = [
        UserFactory(first_name=first, last_name=last, role=RELATIONSHIP_MANAGERS)
        for first, last in (("Rosa", "Marchetti"), ("Maximilienne", "de la Tour-Beauregard"))
    ]
    for number in range(40):
        made_at = now - timedelta(days=1.5 * number + 2)
        steps = (5, 5, 2, 1, 4, 5, 0, 3)[number % 8]
        times = {
            column: made_at + timedelta(hours=(1 + number % 7) * (place + 1) ** 2)
            for place, column in enumerate(COLUMNS[:steps])
        }
        ends = {"ended_at": times["connected_at"], "end": InvitationEnd.CONNECTED} if steps == len(COLUMNS) else {}
        made = InvitationFactory(
            company=CompanyFactory(manager=managers[number % 3] if number % 3 < 2 else None),
            language="fr" if number % 4 == 0 else "en",
            expires_at=made_at + timedelta(days=14 if number > 8 else 30),
            **times,
            **ends,
        )
        Invitation.objects.filter(pk=made.pk).update(created_at=made_at)
        if steps:
            MailFactory(case=None, invitation=made, kind="invitation", state=MailState.SENT, sent_at=times["sent_at"])


@pytest.mark.looks
@pytest.mark.parametrize(
    ("name", "options", "french"),
    [
        ("light", {}, False),
        ("dark", {"color_scheme": "dark"}, False),
        ("telephone", {"width": 400}, False),
        ("french", {}, True),
        ("french-telephone", {"width": 400}, True),
    ],
)
def test_both_screens_are_accessible(
    invitations: None, window: Window, name: str, options: dict[str, object], french: bool
) -> None:
    screens = window(**options)
    screens.sign_in("sam")
    if french:
        screens.page.get_by_role("button", name="Français").click()
    screens.open(URL)
    expect(screens.page.locator(".picture-svg")).to_be_visible()
    screens.check(f"invitations-funnel-{name}", picture=name == "light")
    screens.open(STUCK)
    expect(screens.page.locator("#result_list tbody tr").first).to_be_visible()
    assert not is_cut_off(screens, "#changelist .results")  # what to do is its last column
    screens.check(f"invitations-stuck-{name}", picture=name == "light")


def test_from_home_to_a_stuck_customer_to_what_is_done_about_it(invitations: None, window: Window) -> None:
    screens = window()
    screens.sign_in("sam")
    page = screens.page
    page.get_by_role("link", name="Stuck invitations").click()
    page.wait_for_url("**/invitation/?list=all")
    expect(page.get_by_role("heading", name="Stuck invitations")).to_be_visible()
    page.locator("#result_list tbody tr").first.get_by_role("link", name="Renew").press("Enter")
    expect(page.get_by_text("A new invitation takes the place of this one")).to_be_visible()


def test_the_figures_are_filtered_and_taken_out(invitations: None, window: Window, tmp_path: Path) -> None:
    screens = window()
    screens.sign_in("sam")
    page = screens.page
    page.get_by_role("link", name="How far customers get").first.click()
    page.get_by_label("Language", exact=True).select_option("French")
    page.get_by_role("button", name="Show").press("Enter")
    page.wait_for_url("**language=fr**")
    expect(page.get_by_role("paragraph").filter(has_text="Of 10 invitations")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Take the figures as a CSV file").click()
    download.value.save_as(tmp_path / "figures.csv")
    with (tmp_path / "figures.csv").open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert next(row["reached"] for row in rows if (row["by"], row["step"]) == ("total", "made")) == "10"


@pytest.mark.looks
def test_nothing_yet_is_accessible_and_says_so(transactional_db: None, window: Window) -> None:
    UserFactory(username="sam", role=SUPPORT)
    screens = window()
    screens.sign_in("sam")
    screens.open(URL)
    expect(screens.page.get_by_text("No invitation was made in this period")).to_be_visible()
    screens.check("invitations-funnel-empty")
    screens.open(STUCK)
    screens.check("invitations-stuck-empty")

"""Invitations on screen: how far customers get, in words, figures and a file; and those that are stuck."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from feeds.admin import funnel as screen
from feeds.models import Invitation
from feeds.services import funnel
from feeds.services.roles import ADMINISTRATORS, COMPLIANCE_AUDITORS, RELATIONSHIP_MANAGERS, SUPPORT
from feeds.states import InvitationEnd, MailState
from tests.factories import CompanyFactory, InvitationFactory, MailFactory, UserFactory

pytestmark = pytest.mark.django_db

URL = reverse("admin:invitation_funnel")
FILE = reverse("admin:invitation_funnel_csv")
LIST = reverse("admin:feeds_invitation_changelist")
COLUMNS = ("sent_at", "opened_at", "started_at", "linked_at", "connected_at")


@pytest.fixture(autouse=True)
def _own_customers_only(settings: Settings) -> None:
    settings.RM_SEES_ALL_CUSTOMERS = False


def member(role: str, **values: Any) -> User:
    user: User = UserFactory(role=role, **values)
    return user


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def support() -> Client:
    """Somebody's browser who sees all customers, and may invite."""
    return browser(member(SUPPORT))


def invited(steps: int, *, hours: int = 1, days_ago: float = 0.5, **values: Any) -> Invitation:
    """An invitation that was made so long ago and came so many steps further, `hours` apart."""
    made_at = timezone.now() - timedelta(days=days_ago)
    times = {column: made_at + timedelta(hours=hours * (place + 1)) for place, column in enumerate(COLUMNS[:steps])}
    if steps == len(COLUMNS):
        values |= {"ended_at": times["connected_at"], "end": InvitationEnd.CONNECTED}
    made: Invitation = InvitationFactory(**times, **values)
    Invitation.objects.filter(pk=made.pk).update(created_at=made_at)
    return made


def page(client: Client, address: str = URL, **query: Any) -> str:
    answer = client.get(address, query)
    assert answer.status_code == 200
    return str(answer.content.decode())


def text_of(found: str) -> str:
    """What a person reads of it."""
    return " ".join(re.sub(r"<[^>]+>", " ", found).split())


# --- How far customers get -------------------------------------------------------------------------------------------
def test_the_page_tells_how_many_came_how_far_and_how_long_it_took() -> None:
    for _number in range(5):
        invited(5, hours=3)
    invited(2, hours=3)
    found = text_of(page(support()))
    assert "Of 6 invitations 5 led to a connected customer (83%). From made to connected: median 15 h, of 5." in found
    assert "Opened 6 100% 100% 0 3 h 3 h 6" in found
    assert "Connected 5 83% 100% 0 3 h 3 h 5" in found
    assert "median 3 h, of 6" in found
    assert "Still open 1" in found


def test_a_median_of_few_says_so() -> None:
    for _number in range(4):
        invited(1)
    assert "median 1 h, of 4: few" in page(support())
    invited(1)
    found = page(support())
    assert "median 1 h, of 5" in found
    assert ": few" not in text_of(found)


def test_no_invitation_at_all_says_so_and_draws_nothing() -> None:
    found = page(support())
    assert "No invitation was made in this period that fits what you chose." in found
    assert 'class="picture-svg"' not in found
    assert "By month" not in found


def test_it_is_broken_down_by_month_language_and_manager() -> None:
    invited(3, company=CompanyFactory(manager=member(RELATIONSHIP_MANAGERS, first_name="Ravi", last_name="Menon")))
    invited(1, language="fr")
    found = text_of(page(support()))
    assert re.search(r"By month .* By language .* By relationship manager", found)
    assert "Ravi Menon 1 1 100%" in found
    assert "without a manager 1 1 100%" in found
    assert "French 1 1 100%" in found


def test_very_many_managers_are_shown_in_part_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "MOST_MANAGERS", 2)
    for name in ("One", "Two", "Three"):
        invited(1, company=CompanyFactory(manager=UserFactory(last_name=name)))
    client = support()
    found = page(client)
    assert "The 2 with the most invitations of 3. The file has all of them." in found
    assert len({row["group"] for row in rows_of(client) if row["by"] == "manager"}) == 3


def test_times_that_were_read_of_some_only_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(funnel, "SAMPLE_SIZE", 1)
    invited(1)
    client = support()
    assert "Times are of all of them." in page(client)
    invited(1)
    assert "times were read of one in 2, evenly over the period." in page(client)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({"months": "7"}, "7 is not one of the available choices"),
        ({"language": "de"}, "de is not one of the available choices"),
        ({"manager": "999999"}, "999999 is not one of the available choices"),
        ({"manager": "'; --"}, "is not one of the available choices"),
    ],
)
def test_an_address_that_makes_no_sense_says_what_is_wrong_and_shows_no_figures(
    query: dict[str, str], why: str
) -> None:
    client = support()
    found = page(client, **query)
    assert why in found
    assert "picture-invitations" not in found
    assert client.get(FILE, query)["Location"].startswith(f"{URL}?{next(iter(query))}=")


def test_filters_are_kept_in_the_form_and_in_the_address_of_the_file() -> None:
    invited(1, language="fr")
    found = page(support(), months="6", language="fr")
    assert '<option value="6" selected>' in found
    assert '<option value="fr" selected>' in found
    assert f"{FILE}?months=6&amp;language=fr" in found


# --- Who sees what ---------------------------------------------------------------------------------------------------
def test_a_relationship_manager_sees_their_own_customers_and_no_manager_to_choose() -> None:
    robin, other = member(RELATIONSHIP_MANAGERS), member(RELATIONSHIP_MANAGERS, last_name="Secretname")
    invited(1, company=CompanyFactory(manager=robin))
    invited(1, company=CompanyFactory(manager=other))
    for query in ({}, {"manager": str(other.pk)}):
        found = page(browser(robin), **query)
        assert "Of 1 invitation 0 led" in found
        assert 'name="manager"' not in found
        assert "Secretname" not in found
    assert not [row for row in rows_of(browser(robin), manager=other.pk) if row["by"] == "manager"]
    assert "Of 2 invitations" in page(browser(member(COMPLIANCE_AUDITORS)))


@pytest.mark.parametrize("address", [URL, FILE])
def test_it_is_closed_without_the_permission_to_see_invitations(address: str) -> None:
    assert browser(UserFactory(permissions=["feeds.view_company"])).get(address).status_code == 403
    assert Client().get(address).status_code == 302
    assert support().post(address).status_code == 405


def test_it_is_found_from_the_sidebar_and_from_the_list() -> None:
    client = support()
    assert URL in page(client, reverse("admin:index"))
    assert URL in page(client, LIST)
    assert URL not in page(browser(UserFactory(permissions=["feeds.view_company"])), reverse("admin:index"))


# --- The file --------------------------------------------------------------------------------------------------------
def rows_of(client: Client, **query: Any) -> list[dict[str, str]]:
    answer = client.get(FILE, query)
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))


def test_the_file_holds_the_figures_of_the_page() -> None:
    invited(2)
    invited(1, language="fr")
    rows = rows_of(support())
    opened = next(row for row in rows if (row["by"], row["step"]) == ("total", "opened"))
    assert {
        name: opened[name] for name in ("reached", "percent_of_made", "percent_of_step_before", "median_seconds")
    } == {"reached": "1", "percent_of_made": "50.0", "percent_of_step_before": "50.0", "median_seconds": "3600"}
    assert {row["group"] for row in rows if row["by"] == "language"} == {"English", "French"}
    assert {row["filters"] for row in rows_of(support(), language="fr")} == {"Language: French"}


def test_no_spreadsheet_runs_a_managers_name_as_a_formula() -> None:
    invited(1, company=CompanyFactory(manager=UserFactory(first_name="=HYPERLINK(1)", last_name="")))
    assert "'=HYPERLINK(1)" in {row["group"] for row in rows_of(support())}


# --- Stuck invitations -----------------------------------------------------------------------------------------------
def stuck(**values: Any) -> Invitation:
    """Mailed nine days ago, and never opened."""
    return invited(1, days_ago=9, **{"expires_at": timezone.now() + timedelta(days=5, hours=1), **values})


def listed(client: Client, view: str) -> list[Invitation]:
    return list(client.get(LIST, {"list": view}).context["cl"].result_list)


def test_a_row_says_who_where_since_when_how_long_it_lives_and_what_to_do() -> None:
    robin = UserFactory(first_name="Robin", last_name="Hall")
    row = stuck(company=CompanyFactory(legal_name="Maple Dental Ltd.", manager=robin))
    MailFactory(case=None, invitation=row, kind="invitation", state=MailState.SENT, sent_at=row.sent_at)
    found = text_of(page(support(), LIST, list="all")).replace("\xa0", " ")
    for told in (
        "Stuck invitations", "Maple Dental Ltd.", "Robin Hall", "Sent", "1 week", "5 days", "1 week ago",
        "Call: did the mail arrive? Then send it again.", "Made: 1 day; Sent: 5 days; Opened: 2 days; Started: 1 day",
    ):  # fmt: skip
        assert told in found, told


def test_its_buttons_lead_to_what_they_do_for_who_may() -> None:
    row = stuck()
    addresses = [
        reverse("admin:feeds_invitation_action", args=[row.pk, name]) for name in ("send", "show-address", "renew")
    ]
    client = support()
    found = page(client, LIST, list="all")
    assert all(address in found for address in addresses)
    assert all(client.get(address).status_code == 200 for address in addresses)
    auditor = page(browser(member(COMPLIANCE_AUDITORS)), LIST, list="all")
    assert str(row.company) in auditor.replace("</span>", ")").replace('<span class="quiet nowrap">', "(")
    assert not any(address in auditor for address in addresses)


def test_the_views_are_mine_invited_by_me_and_all_and_another_managers_are_never_there() -> None:
    robin, other = member(RELATIONSHIP_MANAGERS), member(RELATIONSHIP_MANAGERS)
    mine = stuck(company=CompanyFactory(manager=robin))
    invited_by_me = stuck(company=CompanyFactory(manager=None), made_by=robin)
    theirs = stuck(company=CompanyFactory(manager=other), made_by=robin)
    client = browser(robin)
    assert listed(client, "mine") == [mine]
    assert listed(client, "invited") == [invited_by_me]
    assert listed(client, "all") == [mine, invited_by_me]
    assert listed(support(), "all") == [mine, invited_by_me, theirs]
    # Whatever else stands there is the whole list.
    assert listed(support(), "nonsense") == listed(support(), "everything") == [theirs, invited_by_me, mine]


def test_a_stuck_one_is_found_by_its_company_and_filtered_by_purpose() -> None:
    wanted = stuck(company=CompanyFactory(legal_name="Zebra Imports"), purpose="reconnect")
    stuck()
    client = support()
    for query in ({"q": "zebra"}, {"purpose__exact": "reconnect"}):
        assert list(client.get(LIST, {"list": "all", **query}).context["cl"].result_list) == [wanted]


def test_nobody_stuck_is_an_empty_list_that_says_what_it_would_hold() -> None:
    invited(1)
    found = text_of(page(support(), LIST, list="all"))
    assert "0 invitations" in found
    assert "the customer has stood on one step for longer than" in found


def test_a_tab_drops_the_state_which_would_leave_nothing_over() -> None:
    found = page(support(), LIST, state="expired", purpose__exact="connect")
    tab = next(it for it in re.findall(r'href="(\?[^"]*list=all[^"]*)"', found))
    assert "state=" not in tab
    assert "purpose__exact=connect" in tab


# --- The home page ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("role", "view", "count"), [(RELATIONSHIP_MANAGERS, "mine", 1), (SUPPORT, "all", 3), (ADMINISTRATORS, "all", 3)]
)
def test_home_counts_the_stuck_ones_and_leads_to_them(role: str, view: str, count: int) -> None:
    user = member(role)
    stuck(company=CompanyFactory(manager=user))
    stuck(company=CompanyFactory(manager=None))
    stuck(company=CompanyFactory(manager=UserFactory()))
    client = browser(user)
    found = text_of(page(client, reverse("admin:index")))
    assert f"{count} Stuck invitations" in found
    assert f"{LIST}?list={view}" in page(client, reverse("admin:index"))
    assert len(listed(client, view)) == count


def test_home_says_nothing_of_them_to_who_cannot_do_anything() -> None:
    stuck()
    assert "Stuck invitations" not in page(browser(member(COMPLIANCE_AUDITORS)), reverse("admin:index"))


# --- Cost ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("address", [URL, FILE, f"{LIST}?list=all", f"{LIST}?list=mine", f"{LIST}?list=invited"])
def test_many_rows_take_as_many_queries_as_one(address: str, django_assert_num_queries: Any) -> None:
    user = member(RELATIONSHIP_MANAGERS)
    client = browser(user)

    def one() -> None:
        row = stuck(company=CompanyFactory(manager=user), made_by=user, language="fr")
        MailFactory(case=None, invitation=row, kind="invitation", state=MailState.SENT, sent_at=timezone.now())

    def look() -> None:
        assert client.get(address).status_code == 200

    one()
    look()
    with CaptureQueriesContext(database) as few:
        look()
    for _number in range(9):
        one()
    with django_assert_num_queries(len(few)):
        look()
    assert len(few) <= 13

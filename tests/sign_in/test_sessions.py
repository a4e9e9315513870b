"""How long one stays signed in, and what one is told afterwards."""

from __future__ import annotations

import time
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from feeds.sign_in import sessions
from tests.factories import UserFactory
from tests.sign_in.people import is_in, log_in

pytestmark = pytest.mark.django_db

HOUR = 3600


@pytest.fixture
def client() -> Client:
    """Robin's browser, just signed in."""
    UserFactory(username="robin", role="Administrators")
    browser = Client()
    log_in(browser, "robin")
    return browser


def move(client: Client, *, signed_in: int = 0, seen: int = 0) -> None:
    """Let that many seconds go by since signing in, and since the person last did something."""
    session = client.session
    session[sessions.SIGNED_IN_AT] = int(time.time()) - signed_in
    session[sessions.SEEN_AT] = int(time.time()) - seen
    session.save()


def test_half_an_hour_of_nothing_ends_it_and_says_so(client: Client) -> None:
    wanted = f"{reverse('admin:auth_user_changelist')}?q=robin"
    move(client, signed_in=HOUR, seen=31 * 60)
    answer = client.get(wanted)
    query = parse_qs(urlsplit(answer["Location"]).query)
    assert query == {"next": [wanted], "ended": ["idle"]}
    page = client.get(answer["Location"]).content.decode()
    assert "You were signed out after 30 minutes without activity." in page
    assert "not saved" not in page
    assert not is_in(client)
    back = client.post(
        answer["Location"], {"username": "robin", "password": "a long invented pass phrase", "next": wanted}
    )
    assert back["Location"] == wanted


def test_activity_does_not_make_it_last_longer_than_twelve_hours(client: Client) -> None:
    move(client, signed_in=12 * HOUR - 60)
    assert is_in(client)
    move(client, signed_in=12 * HOUR)
    answer = client.get(reverse("admin:index"), follow=True)
    assert "a session lasts 12 hours at most" in answer.content.decode()


def test_what_was_sent_too_late_is_said_to_be_lost(client: Client) -> None:
    move(client, seen=31 * 60)
    answer = client.post(reverse("admin:auth_user_add"), {"username": "late"}, follow=True)
    assert "What you sent last was not saved." in answer.content.decode()


def ended(client: Client, url: str, data: dict[str, str] | None = None, **headers: str) -> dict[str, list[str]]:
    """What the way to the sign-in page says when this is sent too late."""
    move(client, seen=31 * 60)
    answer = client.post(url, data or {}, **headers)  # type: ignore[arg-type]
    assert answer.status_code == 302
    return parse_qs(urlsplit(answer["Location"]).query)


@pytest.mark.parametrize(
    ("name", "data"),
    [("language", {"language": "fr"}), ("account_logout", {}), ("admin:feeds_auditseal_verify", {})],
)
def test_a_button_pressed_too_late_leads_back_to_its_page_and_nothing_is_said_to_be_lost(
    client: Client, name: str, data: dict[str, str]
) -> None:
    wanted = f"{reverse('admin:auth_user_changelist')}?q=robin"
    query = ended(client, reverse(name), data, HTTP_REFERER=f"http://testserver{wanted}")
    assert query == {"next": [wanted], "ended": ["idle"]}
    assert log_in(client, "robin", to=wanted, follow=True).status_code == 200


@pytest.mark.parametrize(
    "before",
    ["", "https://evil.example/admin/", "//evil.example/admin/", "/admin/", "http://testserver/language",
     "http://testserver/admin/login/?next=/admin/", "http://testserver/nowhere", "http://[testserver/"],
)  # fmt: skip
def test_where_there_is_no_page_to_go_back_to_the_button_leads_home(client: Client, before: str) -> None:
    query = ended(client, reverse("language"), {"language": "fr"}, HTTP_REFERER=before)
    assert query["next"] == [reverse("admin:index")]


def test_a_form_sent_too_late_leads_back_to_itself_wherever_it_came_from(client: Client) -> None:
    form = reverse("admin:auth_user_add")
    query = ended(client, form, {"username": "late"}, HTTP_REFERER="http://testserver/admin/")
    assert query == {"next": [form], "ended": ["idle", "not_saved"]}


def test_doing_something_keeps_it_alive(client: Client) -> None:
    move(client, seen=29 * 60)
    assert is_in(client)
    assert time.time() - client.session[sessions.SEEN_AT] < 60


@pytest.mark.parametrize("header", [{"HTTP_X_REQUESTED_WITH": "fetch"}, {"HTTP_SEC_FETCH_MODE": "cors"}])
def test_a_page_that_asks_by_itself_does_not(client: Client, header: dict[str, str]) -> None:
    move(client, seen=29 * 60)
    assert client.get(reverse("admin:index"), **header).status_code == 200  # type: ignore[arg-type]
    assert time.time() - client.session[sessions.SEEN_AT] >= 29 * 60


def test_a_script_that_asks_too_late_is_refused_and_the_person_is_still_told_why(client: Client) -> None:
    move(client, seen=31 * 60)
    assert client.get(reverse("session_left"), HTTP_X_REQUESTED_WITH="fetch").status_code == 401
    assert "ended=idle" in client.get(reverse("admin:index"))["Location"]


def test_a_second_page_within_a_minute_writes_nothing(client: Client) -> None:
    move(client, seen=30)
    with CaptureQueriesContext(connection) as queries:
        client.get(reverse("admin:index"))
    assert not [query for query in queries if query["sql"].startswith(("UPDATE", "INSERT"))]


def test_asking_how_long_is_left_keeps_nothing_alive_and_the_button_does(client: Client) -> None:
    move(client, seen=29 * 60)
    asked = client.get(reverse("session_left"), HTTP_X_REQUESTED_WITH="fetch").json()
    assert 0 < asked["seconds_left"] <= 60
    assert client.post(reverse("session_left")).json()["seconds_left"] > 29 * 60
    assert Client().get(reverse("session_left")).status_code == 401


def test_the_button_reaches_no_further_than_the_end(client: Client) -> None:
    move(client, signed_in=12 * HOUR - 90)
    assert client.post(reverse("session_left")).json()["seconds_left"] <= 90


def test_every_page_carries_the_warning_and_the_sign_in_page_does_not(client: Client) -> None:
    assert 'data-seconds-left="1' in client.get(reverse("admin:index")).content.decode()
    assert "data-seconds-left" not in Client().get(reverse("admin:login")).content.decode()


def test_a_session_from_before_there_were_limits_is_over(client: Client) -> None:
    session = client.session
    del session[sessions.SEEN_AT]
    session.save()
    assert not is_in(client)


def test_the_cookie_goes_with_the_browser_and_the_row_with_the_limit(client: Client) -> None:
    cookie = client.cookies["sessionid"]
    assert (cookie["max-age"], cookie["httponly"], cookie["samesite"]) == ("", True, "Lax")
    assert 11 * HOUR < (Session.objects.get().expire_date.timestamp() - time.time()) <= 12 * HOUR

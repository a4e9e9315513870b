"""What the customer does with an invitation, in both languages, on a phone, with a Codat that kills older links."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.core import mail
from django.core.mail import EmailMessage
from django.db import connection as database
from django.utils import timezone
from playwright.sync_api import expect
from pytest_django.fixtures import Settings

from feeds import tasks
from feeds.models import Company, Connection, Invitation, Knock, Mail
from feeds.services import door, invitation_keys, knocks, onboarding
from feeds.services.roles import RELATIONSHIP_MANAGERS
from feeds.states import InvitationState, MailKind
from tests.browser.conftest import Screens, is_cut_off
from tests.factories import (
    CalloutVersionFactory,
    CompanyFactory,
    InvitationFactory,
    SourceAccountFactory,
    UserFactory,
)
from tests.sandbox_process import SandboxProcess
from tests.services.grid import RM

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

WORDS = {
    "en": {
        "hello": "Hello Alex Doe",
        "button": "Connect bank feeds",
        "get": "Get credentials",
        "continue": "Continue",
        "connect": "Connect",
        "done": "Your bank feed is connected",
        "moment": "One moment, please",
        "ask": "Ask for a new link",
        "asked": "Your request is noted",
    },
    "fr": {
        "hello": "Bonjour Alex Doe",
        "button": "Connecter les flux bancaires",
        "get": "Obtenir",
        "continue": "Continuer",
        "connect": "Connecter",
        "done": "Votre flux bancaire est connecté",
        "moment": "Un instant, s’il vous plaît",
        "ask": "Demander un nouveau lien",
        "asked": "Votre demande est notée",
    },
}
CALLOUT = {"en": "Have your QuickBooks password ready.", "fr": "Préparez votre mot de passe QuickBooks."}


@pytest.fixture
def polled_every_second() -> Iterator[None]:
    """The poller runs all the time, and finds every connection due."""
    over = threading.Event()

    def poll() -> None:
        while not over.wait(1.0):
            Connection.objects.update(poll_due_at=None)
            Connection.objects.filter(gone_at__isnull=True).update(poll_due_at="2020-01-01T00:00:00Z")
            tasks.poll()
        database.close()

    poller = threading.Thread(target=poll)
    poller.start()
    yield
    over.set()
    poller.join()


def link_in(sent: list[EmailMessage]) -> str:
    """The link in the one mail that was sent."""
    (message,) = sent
    found = re.search(r"http\S+/connect/\S+", str(message.body))
    assert found is not None
    assert found[0] not in str(list(Mail.objects.values()))
    return found[0]


@pytest.mark.parametrize("language", ["en", "fr"])
def test_a_customer_is_invited_and_connects_while_everything_is_polled(
    window: Callable[..., Screens],
    live_server: object,
    settings: Settings,
    strict_codat: SandboxProcess,
    drain_queue: Callable[[], int],
    polled_every_second: None,
    language: str,
) -> None:
    settings.SITE_URL = str(live_server)
    words = WORDS[language]
    manager = UserFactory(role=RELATIONSHIP_MANAGERS, username="robin")
    company: Company = CompanyFactory(legal_name="Maple Dental Ltd.", language=language, manager=manager)
    SourceAccountFactory(company=company, name="Operating", account_number="4000100001")
    SourceAccountFactory(company=company, name="Savings", account_number="4000100002")
    CalloutVersionFactory(published=True)
    onboarding.request(company, actor=RM)
    drain_queue()

    staff = window()
    staff.sign_in("robin")
    staff.open(f"/admin/feeds/company/{company.pk}/change/")
    staff.page.get_by_role("link", name="Invite customer").click()
    staff.check("invite")
    staff.page.get_by_role("button", name="Invite customer").click()
    staff.page.get_by_role("link", name="Send by mail").click()
    expect(staff.page.locator("pre.preview")).to_contain_text(words["hello"])
    staff.check("invitation-mail")
    staff.page.get_by_role("button", name="Send by mail").click()
    expect(staff.page.get_by_text("The mail is on its way")).to_be_visible()
    drain_queue()
    link = link_in(mail.outbox)

    customer = window(width=360)
    page = customer.page
    page.goto(link)
    customer.check(f"connect-{language}", picture=True)
    assert page.locator("html").get_attribute("lang") == language
    expect(page.get_by_role("complementary")).to_contain_text(CALLOUT[language])
    desk = window(width=1280)
    desk.page.goto(link)
    desk.check(f"connect-{language}-desktop", picture=True)
    page.get_by_role("button", name=words["button"]).click()
    if language == "fr":
        page.get_by_role("link", name="Français").click()
    page.get_by_role("button", name=words["get"]).click()
    page.get_by_role("button", name=words["continue"]).click()
    for choice in page.get_by_role("checkbox").all():
        choice.check()
    page.get_by_role("button", name=words["connect"]).click()
    expect(page.get_by_role("list")).to_contain_text("Operating")

    page.goto(link)
    expect(page.get_by_role("heading", name=words["done"])).to_be_visible(timeout=20_000)
    customer.check(f"connect-done-{language}", picture=True)
    desk.page.reload()
    desk.check(f"connect-done-{language}-desktop", picture=True)
    assert Invitation.objects.get().state == InvitationState.CONNECTED
    staff.open(f"/admin/feeds/invitation/{Invitation.objects.get().pk}/change/")
    expect(staff.page.get_by_text("Every account is connected.")).to_be_visible()
    staff.check("invitation")
    for listed in ("mail", "invitation"):
        staff.open(f"/admin/feeds/{listed}/")
        expect(staff.page.locator("#result_list tbody tr").first).to_be_visible()
        assert not is_cut_off(staff, "#changelist .results"), listed


@pytest.mark.parametrize("language", ["en", "fr"])
def test_in_a_crowd_the_page_goes_on_by_itself_and_a_link_that_has_ended_asks_for_another(
    window: Callable[..., Screens],
    live_server: object,
    settings: Settings,
    codat: SandboxProcess,
    drain_queue: Callable[[], int],
    language: str,
) -> None:
    settings.CASE_NOTIFY_TO = ["support@bank.example"]
    words = WORDS[language]
    company: Company = CompanyFactory(legal_name="Maple Dental Ltd.", language=language)
    SourceAccountFactory(company=company, name="Operating", account_number="4000100001")
    onboarding.request(company, actor=RM)
    drain_queue()
    company.connections.update(link_url="", link_expires_at=None)
    invitation = InvitationFactory(company=company, language="")
    made = invitation_keys.address(invitation, made_for=invitation_keys.SHOWN, actor=RM)
    path = urlsplit(made.url).path

    customer = window(width=360, locale={"en": "en-CA", "fr": "fr-CA"}[language])
    page = customer.page
    customer.open(path)
    assert page.locator("html").get_attribute("lang") == language
    with ExitStack() as crowd:
        for _ in range(settings.PRESSES_AT_ONCE):
            crowd.enter_context(door._place_to_wait())
        page.get_by_role("button", name=words["button"]).click()
        expect(page.get_by_role("heading", name=words["moment"])).to_be_visible()
        customer.check(f"connect-moment-{language}")
    expect(page.get_by_role("button", name="Get credentials")).to_be_visible()

    Invitation.objects.update(expires_at=timezone.now())
    customer.open(path)
    customer.problems.clear()  # the console names the answer's status
    customer.check(f"connect-no-such-{language}", picture=True)
    page.get_by_role("button", name=words["ask"]).click()
    expect(page.get_by_role("heading", name=words["asked"])).to_be_visible()
    customer.problems.clear()
    customer.check(f"connect-asked-{language}")
    tasks.end_invitations()
    assert Mail.objects.get(kind=MailKind.LINK_ASKED).company == company


@pytest.fixture
def door_of(codat: SandboxProcess, drain_queue: Callable[[], int]) -> Callable[[], tuple[Company, str]]:
    """Makes a company whose link has run out, and the path of its invitation."""

    def make() -> tuple[Company, str]:
        company: Company = CompanyFactory(legal_name="Maple Dental Ltd.")
        SourceAccountFactory(company=company, name="Operating", account_number="4000100001")
        onboarding.request(company, actor=RM)
        drain_queue()
        company.connections.update(link_url="", link_expires_at=None)
        made = invitation_keys.address(InvitationFactory(company=company), made_for=invitation_keys.SHOWN, actor=RM)
        return company, urlsplit(made.url).path

    return make


def test_back_and_reload_show_the_page_wherever_a_press_has_led(
    window: Callable[..., Screens],
    codat: SandboxProcess,
    door_of: Callable[[], tuple[Company, str]],
    settings: Settings,
) -> None:
    _company, path = door_of()
    customer = window(width=360)
    page = customer.page
    button = page.get_by_role("button", name="Connect bank feeds")
    customer.open(path)
    codat.post_fault("status", "GET", "/companies/{id}/connections", times=20, status=503)
    button.click()
    expect(page.get_by_text("Codat does not answer")).to_be_visible()
    customer.check("connect-codat-down")
    page.reload()
    expect(page.get_by_text("Codat does not answer")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("Codat does not answer")).to_be_visible()
    page.goto("about:blank")
    page.go_back()
    expect(page.get_by_text("Codat does not answer")).to_be_visible()
    for _press in range(2):
        page.go_back()
    expect(button).to_be_visible()

    codat.clear_faults()
    with ExitStack() as crowd:
        for _ in range(settings.PRESSES_AT_ONCE):
            crowd.enter_context(door._place_to_wait())
        button.click()
        expect(page.get_by_role("heading", name="One moment, please")).to_be_visible()
    # It goes on by itself; Back from there leads to the button, and not to a page that goes on by itself.
    expect(page.get_by_role("button", name="Get credentials")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("button", name="Continue connecting")).to_be_visible()
    assert "told" not in page.url


def left_open(customer: Screens, path: str) -> Screens:
    """The page of a customer who has pressed before, on a clock that the test moves."""
    Invitation.objects.update(opened_at=timezone.now(), started_at=timezone.now())
    customer.page.clock.install()
    customer.open(path)
    expect(customer.page.get_by_role("button", name="Continue connecting")).to_be_visible()
    return customer


def test_a_page_left_open_asks_no_more_once_its_link_has_ended(
    window: Callable[..., Screens], codat: SandboxProcess, door_of: Callable[[], tuple[Company, str]]
) -> None:
    _company, path = door_of()
    page = left_open(window(width=360), path).page
    Invitation.objects.update(expires_at=timezone.now())
    answers: list[int] = []
    page.on("response", lambda answer: answers.append(answer.status) if path in answer.url else None)
    page.clock.fast_forward("00:16")
    expect(page.get_by_role("heading", name="This link does not work")).to_be_visible()
    for _ in range(10):
        page.clock.fast_forward("00:16")
    assert Knock.objects.get().count <= 2


def test_a_page_left_open_on_a_network_that_has_to_wait_asks_no_more(
    window: Callable[..., Screens], codat: SandboxProcess, door_of: Callable[[], tuple[Company, str]]
) -> None:
    customer = left_open(window(width=360), door_of()[1])
    page = customer.page
    # Guessing takes a while, in which the page must not ask by itself.
    page.clock.pause_at(timezone.now() + timedelta(seconds=2))
    answers: list[int] = []
    # All but the icon, which may come late, when everything else has loaded.
    page.on("response", lambda answer: answers.append(answer.status) if "/static/" not in answer.url else None)
    for number in range(knocks.KNOCKS):
        page.context.request.get(f"{customer.base_url}/connect/guess-{number}")
    with page.expect_response("**/connect/*"):
        page.clock.fast_forward("00:16")
    for _ in range(3):
        page.clock.fast_forward("00:16")
    expect(page.get_by_role("button", name="Continue connecting")).to_be_visible()
    assert answers == [429]

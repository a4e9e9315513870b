"""What the customer does with an invitation, in both languages, on a phone, with a Codat that kills older links."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator

import pytest
from django.core import mail
from django.core.mail import EmailMessage
from django.db import connection as database
from playwright.sync_api import expect
from pytest_django.fixtures import Settings

from feeds import tasks
from feeds.models import Company, Connection, Invitation, Mail
from feeds.services import onboarding
from feeds.services.roles import RELATIONSHIP_MANAGERS
from feeds.states import InvitationState
from tests.browser.conftest import Screens
from tests.factories import CalloutVersionFactory, CompanyFactory, SourceAccountFactory, UserFactory
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
    },
    "fr": {
        "hello": "Bonjour Alex Doe",
        "button": "Connecter les flux bancaires",
        "get": "Obtenir",
        "continue": "Continuer",
        "connect": "Connecter",
        "done": "Votre flux bancaire est connecté",
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
    assert Invitation.objects.get().state == InvitationState.CONNECTED
    staff.open(f"/admin/feeds/invitation/{Invitation.objects.get().pk}/change/")
    expect(staff.page.get_by_text("Every account is connected.")).to_be_visible()
    staff.check("invitation")

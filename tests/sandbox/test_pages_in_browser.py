"""The pages in a real browser: accessible, fit for a phone, and the whole walk by clicking."""

from collections.abc import Iterator

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.sandbox.customer import Customer
from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.browser


@pytest.fixture(params=[360, 1280], ids=["phone", "desk"])
def page(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[Page]:
    # The checker is a script, which the pages' own policy rightly forbids.
    context = chromium.new_context(viewport={"width": request.param, "height": 740}, bypass_csp=True)
    yield context.new_page()
    context.close()


def check(page: Page, heading: str) -> None:
    """The page is the one meant, breaks no accessibility rule and does not scroll sideways."""
    assert page.get_by_role("heading", level=1).inner_text() == heading
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_the_customer_walks_through_by_clicking(sandbox: SandboxProcess, page: Page) -> None:
    callout = {"title_fr": "Avant de commencer", "body_fr": "Préparez votre mot de passe.", "body_en": "Be ready."}
    requests.post(f"{sandbox.url}/portal/callout", callout, timeout=10)
    customer = Customer(sandbox, "a", "b")

    page.goto(customer.link())
    check(page, "Connect your bank feed to QuickBooks Online")
    page.get_by_role("link", name="Français").click()
    check(page, "Connectez votre flux bancaire à QuickBooks Online")
    assert page.locator(".callout").inner_text().split("\n\n") == [callout["title_fr"], callout["body_fr"]]
    page.get_by_role("link", name="English").click()
    page.get_by_role("button", name="Get credentials").click()
    check(page, "Your one-time credentials")
    page.get_by_role("button", name="Continue to QuickBooks").click()
    check(page, "QuickBooks Online: choose your accounts")
    page.get_by_role("checkbox", name="Operating a").uncheck()
    page.get_by_role("button", name="Connect").click()
    check(page, "Your bank feed is connected")

    assert customer.statuses() == ("Linked", ["pending", "connected"])


def test_the_other_pages_are_accessible_too(sandbox: SandboxProcess, page: Page) -> None:
    page.goto(sandbox.url)
    check(page, "Stand-in Codat")
    page.goto(Customer(sandbox).link().split("?")[0])
    check(page, "This link has expired")
    page.goto(f"{sandbox.url}/portal/callout")
    check(page, "Manage Bank feeds")


def test_the_portals_form_shows_its_errors_and_then_saves(sandbox: SandboxProcess, page: Page) -> None:
    page.goto(f"{sandbox.url}/portal/callout")
    page.get_by_label("English body").fill("<b>Hi</b>")
    page.get_by_role("button", name="Save").click()
    check(page, "Manage Bank feeds")
    page.get_by_text("English body: plain text only, no markup.").wait_for()
    page.get_by_label("English body").fill("Hi")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("status").wait_for()
    check(page, "Manage Bank feeds")

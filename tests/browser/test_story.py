"""The main job in a real browser: a relationship manager onboards a customer, who then connects in QuickBooks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from feeds.banking import mask
from feeds.models import AuditEntry, Company
from feeds.services.roles import RELATIONSHIP_MANAGERS
from tests.browser.conftest import Screens
from tests.factories import UserFactory
from tests.sandbox_process import SandboxProcess
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.browser, pytest.mark.worker]

LINK_READY_WITHIN = 45_000
"""Milliseconds: on a busy machine the worker takes its time to start."""


def fill_account(page: Page, place: int, *, name: str, kind: str, number: str) -> None:
    """Type one bank account into the form."""
    account = page.locator(f"#source_accounts-{place}")
    account.get_by_label("Account name").fill(name)
    account.get_by_label("Type:", exact=True).select_option(kind)
    account.get_by_label("Account number").fill(number)
    account.get_by_label("Currency").fill("CAD")
    account.get_by_label("Routing number").fill("00011-001")


def connect_as_the_customer(customer: Screens, link: str) -> None:
    """Codat's page, then QuickBooks: both accounts."""
    page = customer.page
    page.goto(link)
    page.get_by_role("button", name="Get credentials").click()
    page.get_by_role("button", name="Continue").click()
    for choice in page.get_by_role("checkbox").all():
        choice.check()
    page.get_by_role("button", name="Connect").click()
    expect(page.get_by_role("list")).to_contain_text("Compte d'exploitation")


@pytest.mark.django_db(transaction=True)
def test_a_customer_is_onboarded_and_connects_in_quickbooks(
    window: Callable[..., Screens], codat: SandboxProcess, real_worker: WorkerProcess
) -> None:
    UserFactory(role=RELATIONSHIP_MANAGERS, username="robin")
    staff = window()
    page = staff.page
    staff.open("/admin/login/")
    staff.check("login", picture=True)
    staff.sign_in("robin")
    staff.check("home", picture=True)

    # The name that Codat will store stands beside the field while it is typed.
    page.get_by_role("link", name="Add company").click()
    page.get_by_label("Legal name").press_sequentially("Café Québec (Montréal) inc.")
    expect(page.locator("output.name-preview")).to_have_text("Codat will store: Cafe Quebec Montreal inc.")
    page.get_by_label("Customer number").fill("CQ-1001")
    page.get_by_label("Country").select_option("CA")
    page.get_by_label("Language").select_option("fr")
    page.get_by_label("Contact name").fill("Zoé Tremblay")
    page.get_by_label("Contact e-mail").fill("zoe@cafe.example")
    fill_account(page, 0, name="Compte d'exploitation", kind="checking", number="4000100001")
    page.get_by_role("button", name="Add another Source account").click()
    fill_account(page, 1, name="Épargne", kind="savings", number="4000100002")
    staff.check("company-form", picture=True)
    page.get_by_role("button", name="Save", exact=True).click()

    # Onboard says what it will do before it does it.
    expect(page.get_by_role("heading", name="Café Québec (Montréal) inc.")).to_be_visible()
    staff.check("company-draft", picture=True)
    page.get_by_role("link", name="Onboard", exact=True).click()
    expect(page.locator(".consequences")).to_contain_text("1 company, stored as “Cafe Quebec Montreal inc.”")
    expect(page.locator(".consequences")).to_contain_text("2 source accounts (3 requests)")
    staff.check("onboard-confirmation", picture=True)
    assert codat.requests_made("POST /companies") == 0
    real_worker.stop()
    page.get_by_role("button", name="Onboard").click()
    panel = page.get_by_role("region", name="Onboarding")
    expect(panel.locator(".panel-head .pill")).to_have_text("Queued")
    staff.check("company-queued", picture=True)

    # The page follows by itself: a mark left in it survives, so nobody has reloaded it.
    page.evaluate("document.body.dataset.neverReloaded = 'yes'")
    real_worker.start()
    expect(panel.locator(".panel-head .pill")).to_have_text("Link ready", timeout=LINK_READY_WITHIN)
    expect(page.locator("#onboarding-status")).to_contain_text("Onboarding: Link ready")
    assert page.evaluate("document.body.dataset.neverReloaded") == "yes"
    expect(page.get_by_role("region", name="In Codat")).to_contain_text(mask("4000100001"))
    assert "4000100001" not in page.content()
    staff.check("company-link-ready", picture=True)

    # The link is shown to whoever confirms, and that is recorded.
    assert "otp=" not in page.content()
    page.get_by_role("link", name="Show link").click()
    page.get_by_role("button", name="Show link").click()
    link = page.get_by_label("Customer link", exact=True).input_value()
    staff.check("link", picture=True)
    company = Company.objects.get(customer_number="CQ-1001")
    assert AuditEntry.objects.filter(event="link_revealed", actor_name__startswith="Robin").count() == 1

    connect_as_the_customer(window(), link)

    page.get_by_role("link", name="Done").click()
    page.get_by_role("button", name="Refresh status").click()
    expect(page.get_by_role("region", name="Onboarding")).to_contain_text("Linked")
    expect(page.get_by_role("region", name="In Codat").get_by_text("connected", exact=True)).to_have_count(2)
    staff.check("company-linked", picture=True)
    company.refresh_from_db()
    assert (company.onboarding_state, company.codat_name) == ("linked", "Cafe Quebec Montreal inc.")
    assert codat.stats()["objects"] | {"companies": 1, "connections": 1} == codat.stats()["objects"]

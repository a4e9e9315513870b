"""Emergency access in a real browser: asked for, seen on every page, ended; accessible wide, dark and narrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from feeds.models import AccessGrant, Company
from feeds.services.roles import COMPLIANCE_AUDITORS, RELATIONSHIP_MANAGERS
from tests.browser.conftest import Screens
from tests.factories import CompanyFactory, ConnectionFactory, UserFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

REASON = "Rosa is away and the customer waits on the phone."


@pytest.fixture
def hers(transactional_db: None, settings: Any) -> Company:
    """A customer of Rosa's, in a bank whose managers see their own."""
    settings.RM_SEES_ALL_CUSTOMERS = False
    rosa = UserFactory(role=RELATIONSHIP_MANAGERS, username="rosa", first_name="Rosa", last_name="Marchetti")
    company: Company = CompanyFactory(
        legal_name="Harbor Light Bicycles LLC", customer_number="HL-1", manager=rosa, in_codat=True
    )
    ConnectionFactory(company=company, with_link=True)
    return company


@pytest.fixture
def robin(hers: Company, window: Callable[..., Screens]) -> Screens:
    """The window of another manager."""
    UserFactory(role=RELATIONSHIP_MANAGERS, username="robin", first_name="Robin", last_name="Hall")
    screens = window()
    screens.sign_in("robin")
    return screens


def test_a_manager_opens_anothers_customer_works_it_and_gives_it_back(
    robin: Screens, hers: Company, window: Callable[..., Screens]
) -> None:
    page = robin.page
    page.get_by_role("link", name="Companies", exact=True).click()
    expect(page.get_by_text("Harbor Light Bicycles LLC")).to_have_count(0)
    robin.open(reverse("admin:index"))
    page.locator("#nav-sidebar").get_by_role("row", name="Emergency accesses").get_by_role("link", name="Add").click()
    page.wait_for_url("**/accessgrant/add/")
    robin.check("emergency-ask")
    page.get_by_label("Customer number").fill("HL-")
    page.get_by_label("Reason").fill(REASON)
    page.get_by_role("button", name="Open this customer").click()
    expect(page.locator(".messagelist")).to_contain_text("There is no customer with this number.")
    expect(page.get_by_label("Reason")).to_have_value(REASON)
    robin.check("emergency-no-such-customer")

    page.get_by_label("Customer number").fill("HL-1")
    page.get_by_role("button", name="Open this customer").click()
    expect(page.get_by_role("heading", name="Harbor Light Bicycles LLC")).to_be_visible()
    banner = page.get_by_role("complementary", name="Emergency access")
    expect(banner).to_contain_text(f"Reason: {REASON}")
    robin.check("emergency-company", picture=True)
    page.get_by_role("link", name="Timeline").click()
    page.wait_for_url("**/timeline/")
    expect(banner).to_be_visible()
    robin.check("emergency-timeline")

    banner.get_by_role("link", name="Details, or end it now").click()
    page.wait_for_url("**/accessgrant/*/change/")
    robin.check("emergency-grant")
    page.get_by_role("link", name="End now").click()
    page.wait_for_url("**/actions/end/")
    robin.check("emergency-end")
    page.get_by_role("button", name="End now").click()
    expect(page.locator(".messagelist")).to_contain_text("The emergency access has ended.")
    robin.open(reverse("admin:feeds_company_change", args=[hers.pk]))
    expect(page.locator(".messagelist")).to_contain_text("ask for emergency access")

    UserFactory(role=COMPLIANCE_AUDITORS, username="ada")
    auditor = window()
    auditor.sign_in("ada")
    auditor.open(reverse("admin:feeds_accessgrant_changelist"))
    expect(auditor.page.get_by_role("row").filter(has_text="Robin Hall")).to_contain_text(REASON)
    auditor.check("emergency-list")


def test_a_customer_of_nobody_is_taken_over(robin: Screens) -> None:
    company = CompanyFactory(legal_name="Quiet Bakery Inc.")
    page = robin.page
    robin.open(reverse("admin:index"))
    page.get_by_role("link", name="Without a manager").click()
    page.get_by_role("link", name="Quiet Bakery Inc.").click()
    expect(page.get_by_role("heading", name="Quiet Bakery Inc.")).to_be_visible()
    robin.check("company-of-nobody")
    page.get_by_role("link", name="Take over").click()
    expect(page.get_by_role("heading", name="What will happen")).to_be_visible()
    robin.check("company-take-over")
    page.get_by_role("button", name="Take over").click()
    expect(page.locator(".messagelist")).to_contain_text("You look after Quiet Bakery Inc.")
    company.refresh_from_db()
    assert company.manager is not None


@pytest.mark.looks
@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (400, "light"), (400, "dark")])
def test_the_screens_are_accessible_dark_and_narrow(
    hers: Company, window: Callable[..., Screens], width: int, scheme: str
) -> None:
    UserFactory(role=RELATIONSHIP_MANAGERS, username="robin", first_name="Robin", last_name="Hall")
    screens = window(width=width, color_scheme=scheme)
    screens.sign_in("robin")
    screens.open(reverse("admin:feeds_accessgrant_add"))
    screens.check("ask")
    screens.page.get_by_label("Customer number").fill("HL-1")
    screens.page.get_by_label("Reason").fill(REASON)
    screens.page.get_by_role("button", name="Open this customer").click()
    screens.page.wait_for_url(f"**{reverse('admin:feeds_company_change', args=[hers.pk])}")
    screens.check("company")
    grant = AccessGrant.objects.get()
    screens.open(reverse("admin:feeds_accessgrant_change", args=[grant.pk]))
    screens.check("grant")
    screens.open(reverse("admin:feeds_accessgrant_changelist"))
    screens.check("list")
    screens.open(reverse("admin:app_list", args=["feeds"]))
    screens.check("part of the sidebar")

"""The company, batch and home screens in a real browser: wide and narrow, light and dark, alive and signed out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from feeds.models import Batch, BatchItem, Company
from feeds.services.roles import ADMINISTRATORS, COMPLIANCE_AUDITORS, RELATIONSHIP_MANAGERS
from feeds.states import OnboardingState
from tests.browser.conftest import Screens
from tests.factories import BatchFactory, CompanyFactory, ConnectionFactory, SourceAccountFactory, UserFactory
from tests.sandbox_process import SandboxProcess

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

Window = Callable[..., Screens]
ERROR = (
    "Codat refused the data. Correct what it names below, then try again. Correlation id for Codat's support: 8c1f0e."
)


@pytest.fixture
def bank(transactional_db: None) -> Batch:
    """A manager, and a batch with a company in every state that the pages know."""
    robin = UserFactory(role=RELATIONSHIP_MANAGERS, username="robin")
    batch: Batch = BatchFactory(label="Selected companies (4)", requested_by_name="Robin Hall", source="admin")
    connection = ConnectionFactory(company__manager=robin, company__legal_name="Maple Bakery Inc.", with_link=True)
    SourceAccountFactory(company=connection.company, connection=connection, status="pending")
    SourceAccountFactory(company=connection.company)
    failed = SourceAccountFactory(
        company__manager=robin,
        company__legal_name="Pâtisserie du Port",
        company__onboarding_state=OnboardingState.FAILED,
        company__onboarding_error=ERROR,
    ).company
    for company in (connection.company, failed, CompanyFactory(manager=robin)):
        BatchItem.objects.create(batch=batch, company=company)
    return batch


def addresses(batch: Batch) -> list[tuple[str, str]]:
    """Name and address of every screen of these rooms."""
    ready = Company.objects.get(legal_name="Maple Bakery Inc.")
    failed = Company.objects.get(onboarding_state=OnboardingState.FAILED)
    return [
        ("home", reverse("admin:index")),
        ("company-list", reverse("admin:feeds_company_changelist")),
        ("company-add", reverse("admin:feeds_company_add")),
        ("company-ready", reverse("admin:feeds_company_change", args=[ready.pk])),
        ("company-failed", reverse("admin:feeds_company_change", args=[failed.pk])),
        ("retry-confirmation", reverse("admin:feeds_company_action", args=[failed.pk, "retry"])),
        ("batch", reverse("admin:feeds_batch_change", args=[batch.pk])),
    ]


@pytest.mark.looks
@pytest.mark.parametrize(
    ("width", "color_scheme"), [(1280, "light"), (1280, "dark"), (400, "light")], ids=["light", "dark", "narrow"]
)
def test_every_screen_is_accessible(window: Window, bank: Batch, width: int, color_scheme: str) -> None:
    staff = window(width=width, color_scheme=color_scheme)
    staff.sign_in("robin")
    suffix = "-narrow" if width < 1280 else f"-{color_scheme}"
    for name, address in addresses(bank):
        staff.open(address)
        staff.check(name + suffix)


@pytest.mark.looks
@pytest.mark.parametrize("role", [COMPLIANCE_AUDITORS, ADMINISTRATORS])
def test_those_who_watch_have_accessible_screens_too(window: Window, bank: Batch, role: str) -> None:
    UserFactory(role=role, username="watcher")
    staff = window()
    staff.sign_in("watcher")
    for name, address in addresses(bank):
        if role == ADMINISTRATORS or name in ("home", "company-list", "company-ready", "company-failed", "batch"):
            staff.open(address)
            staff.check(f"{name}-{role.split()[-1].lower()}")


def test_a_form_with_errors_is_accessible_and_keeps_what_was_typed(window: Window, bank: Batch) -> None:
    staff = window()
    staff.sign_in("robin")
    staff.open(reverse("admin:feeds_company_add"))
    staff.page.get_by_label("Legal name").fill("★★★")
    expect(staff.page.locator("output.name-preview")).to_contain_text("Codat can store nothing of this name.")
    staff.page.get_by_label("Contact name").fill("Zoé Tremblay")
    staff.page.get_by_role("button", name="Save", exact=True).click()
    expect(staff.page.get_by_text("Please correct the errors below.")).to_be_visible()
    expect(staff.page.get_by_label("Contact name")).to_have_value("Zoé Tremblay")
    staff.check("company-form-errors")


def test_several_companies_are_onboarded_and_the_page_follows(
    window: Window, bank: Batch, codat: SandboxProcess, drain_queue: Callable[[], int]
) -> None:
    for number in range(2):
        SourceAccountFactory(company__legal_name=f"Harbour Cafe {number}")
    staff = window()
    staff.sign_in("robin")
    page = staff.page
    staff.open(f"{reverse('admin:feeds_company_changelist')}?q=Harbour")
    for box in page.locator("input.action-select").all():
        box.check()
    page.get_by_label("Action:").select_option("onboard_selected")
    page.get_by_role("button", name="Run").or_(page.get_by_role("button", name="Go")).click()
    staff.check("onboard-selected-confirmation")
    page.get_by_role("button", name="Onboard selected companies").click()

    progress = page.get_by_role("region", name="Progress")
    expect(progress).to_contain_text("0 done, 0 failed, 2 waiting, of 2")
    drain_queue()
    expect(progress).to_contain_text("2 done, 0 failed, 0 waiting, of 2")
    expect(page.get_by_role("status")).to_have_text("2 done, 0 failed, 0 waiting, of 2")
    staff.check("batch-done")


def test_it_stops_asking_when_nothing_is_under_way(window: Window, bank: Batch) -> None:
    staff = window()
    staff.sign_in("robin")
    asked: list[str] = []
    staff.page.on("request", lambda request: asked.append(request.url) if "/progress/" in request.url else None)
    staff.page.clock.install()
    # The page's clock stands still while it opens, however long that takes: it must not ask before all is done.
    staff.page.clock.pause_at(timezone.now() + timedelta(seconds=1))
    staff.open(reverse("admin:feeds_batch_change", args=[bank.pk]))
    Company.objects.filter(onboarding_state=OnboardingState.DRAFT).update(onboarding_state=OnboardingState.FAILED)
    with staff.page.expect_response("**/progress/"):
        staff.page.clock.run_for(2_000)
    expect(staff.page.get_by_role("region", name="Progress")).to_contain_text("1 done, 2 failed, 0 waiting")
    staff.page.clock.run_for(60_000)
    assert len(asked) == 1


def test_a_page_left_open_shows_that_the_customer_has_connected(window: Window, bank: Batch) -> None:
    company = Company.objects.get(legal_name="Maple Bakery Inc.")
    staff = window()
    staff.sign_in("robin")
    staff.page.clock.install()
    staff.open(reverse("admin:feeds_company_change", args=[company.pk]))
    Company.objects.filter(pk=company.pk).update(onboarding_state=OnboardingState.LINKED)
    with staff.page.expect_response("**/progress/*"):
        staff.page.clock.run_for(31_000)
    expect(staff.page.locator("#onboarding-status")).to_contain_text("Onboarding: Linked")


def test_it_says_so_when_the_session_has_ended(window: Window, bank: Batch) -> None:
    company = CompanyFactory(onboarding_state=OnboardingState.WORKING)
    staff = window()
    staff.sign_in("robin")
    staff.open(reverse("admin:feeds_company_change", args=[company.pk]))
    Session.objects.all().delete()
    expect(staff.page.locator("#onboarding-status")).to_have_text("This page is no longer up to date. Reload it.")
    expect(staff.page.locator("#onboarding-status")).to_have_class("problem")


def test_it_says_so_when_the_server_is_gone_and_goes_on_when_it_is_back(window: Window, bank: Batch) -> None:
    company = CompanyFactory(onboarding_state=OnboardingState.WORKING)
    staff = window()
    staff.sign_in("robin")
    staff.open(reverse("admin:feeds_company_change", args=[company.pk]))
    staff.page.route("**/progress/", lambda route: route.abort())
    status = staff.page.locator("#onboarding-status")
    expect(status).to_have_text("The server does not answer. Trying again.")
    staff.page.unroute("**/progress/")
    Company.objects.filter(pk=company.pk).update(onboarding_state=OnboardingState.LINKED)
    expect(status).to_contain_text("Onboarding: Linked")


def test_the_keyboard_keeps_its_place_while_the_panel_changes(window: Window, bank: Batch) -> None:
    company = SourceAccountFactory(company__onboarding_state=OnboardingState.RETRYING).company
    staff = window()
    staff.sign_in("robin")
    staff.open(reverse("admin:feeds_company_change", args=[company.pk]))
    retry = staff.page.get_by_role("link", name="Retry")
    retry.focus()
    Company.objects.filter(pk=company.pk).update(onboarding_error="Codat did not answer in time.")
    expect(staff.page.get_by_text("Codat did not answer in time.")).to_be_visible()
    expect(retry).to_be_focused()


def test_the_accounts_can_be_changed_after_the_page_has_followed_a_failure(window: Window, bank: Batch) -> None:
    company = SourceAccountFactory(company__onboarding_state=OnboardingState.WORKING, name="Operating").company
    staff = window()
    staff.sign_in("robin")
    staff.open(reverse("admin:feeds_company_change", args=[company.pk]))
    expect(staff.page.get_by_role("region", name="In Codat")).to_contain_text("Operating")
    Company.objects.filter(pk=company.pk).update(onboarding_state=OnboardingState.FAILED)
    staff.page.get_by_role("link", name="Reload to add or change accounts").click()
    expect(staff.page.locator("#source_accounts-0").get_by_label("Account name")).to_have_value("Operating")

"""Support's day in a real browser: take a case, verify it, close it; every screen accessible, by keyboard too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from feeds import audit
from feeds.models import Case, Company, SourceAccount
from feeds.services import onboarding, sync
from feeds.services.roles import SUPPORT
from feeds.states import CaseCause, CaseState, ConnectionStatus, DriftKind, MailState
from tests.browser.conftest import Screens
from tests.factories import (
    CaseEventFactory,
    CaseFactory,
    CompanyFactory,
    ConnectionFactory,
    DriftFindingFactory,
    DriftReportFactory,
    IncidentFactory,
    MailFactory,
    SourceAccountFactory,
    UserFactory,
)
from tests.queue_drain import drain
from tests.sandbox_process import SandboxProcess

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

WORKLIST = reverse("admin:feeds_case_changelist")


@pytest.fixture
def customer(transactional_db: None, codat: SandboxProcess) -> Company:
    """A customer of the stand-in with two connected accounts, one of which QuickBooks no longer reads."""
    company: Company = CompanyFactory(legal_name="Harbor Light Bicycles LLC")
    for name in ("Operating", "Payroll"):
        SourceAccountFactory(company=company, name=name)
    onboarding.request(company, actor=audit.SYSTEM)
    drain()
    company.refresh_from_db()
    connection = company.connections.get()
    codat.connect(company.codat_id, connection.codat_id)
    sync.refresh_company(company, actor=audit.SYSTEM)
    broken = SourceAccount.objects.get(name="Operating")
    codat.disconnect(company.codat_id, connection.codat_id, accountId=broken.account_id, now=True)
    sync.refresh_company(company, actor=audit.SYSTEM)
    return company


@pytest.fixture
def sofie(transactional_db: None, window: Callable[..., Screens]) -> Screens:
    """The window of a member of support."""
    UserFactory(username="sofie", first_name="Sofie", last_name="Uppman", role=SUPPORT)
    screens = window()
    screens.sign_in("sofie")
    return screens


def test_a_case_is_taken_verified_and_closes_by_itself(
    customer: Company, sofie: Screens, codat: SandboxProcess
) -> None:
    page = sofie.page
    sofie.check("support-home")
    page.get_by_role("link", name="Unassigned cases").click()
    row = page.get_by_role("row").filter(has_text="Harbor Light Bicycles LLC")
    expect(row).to_contain_text("disconnected: Operating")
    sofie.check("worklist")
    row.get_by_role("button", name="Take").click()
    expect(page.get_by_text("is yours.")).to_be_visible()
    sofie.check("case-taken")

    # Nothing has happened in QuickBooks yet.
    page.get_by_role("button", name="Verify now").click()
    expect(
        page.get_by_text("Read from Codat: nothing has changed. Still broken: disconnected: Operating.")
    ).to_be_visible()

    codat.connect(customer.codat_id, customer.connections.get().codat_id)
    page.get_by_role("button", name="Verify now").click()
    message = page.locator(".messagelist")
    expect(message).to_contain_text("Operating: disconnected → connected")
    expect(message).to_contain_text("The feed works, and the case is closed.")
    story = page.get_by_role("region", name="Timeline")
    expect(story).to_contain_text("Operating: disconnected → connected")
    expect(story).to_contain_text("Works again")
    sofie.check("case-recovered")
    page.get_by_role("link", name="Whole timeline of the company").click()
    expect(page.get_by_text("Create company")).not_to_have_count(0)
    sofie.check("company-timeline")


def test_a_feed_that_codat_still_calls_linked_is_repaired_with_a_link(
    customer: Company, sofie: Screens, window: Callable[..., Screens]
) -> None:
    page = sofie.page
    sofie.open(reverse("admin:feeds_case_change", args=[Case.objects.get().pk]))
    expect(page.get_by_text("Linked", exact=True)).to_be_visible()
    page.get_by_role("button", name="Refresh link").click()
    drain()
    page.reload()
    expect(page.get_by_text("link ready")).to_be_visible()
    sofie.check("case-link-ready")
    page.get_by_role("link", name="Show link").click()
    page.get_by_role("button", name="Show link").click()
    link = page.get_by_label("Customer link", exact=True).input_value()
    page.get_by_role("link", name="Done").click()

    customers = window().page
    customers.goto(link)
    customers.get_by_role("button", name="Get credentials").click()
    customers.get_by_role("button", name="Continue").click()
    customers.get_by_role("button", name="Connect").click()
    expect(customers.get_by_text("Your bank feed is connected")).to_be_visible()

    page.get_by_role("button", name="Verify now").click()
    expect(page.locator(".messagelist")).to_contain_text("The feed works, and the case is closed.")
    expect(page.get_by_text("not needed")).to_be_visible()
    sofie.check("case-repaired")


def test_a_link_that_a_reading_replaced_is_said_so_on_every_screen_that_shows_links(sofie: Screens) -> None:
    shown = timezone.now() - timedelta(minutes=10)
    connection = ConnectionFactory(with_link=True, status=ConnectionStatus.UNLINKED, link_shown_at=shown)
    case = CaseFactory(connection=connection)
    addresses = {
        "case": reverse("admin:feeds_case_change", args=[case.pk]),
        "company": reverse("admin:feeds_company_change", args=[case.company_id]),
        "connection": reverse("admin:feeds_connection_change", args=[connection.pk]),
    }
    for name, address in addresses.items():
        sofie.open(address)
        expect(sofie.page.get_by_text("link replaced")).to_be_visible()
        sofie.check(f"{name}-link-replaced")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light")])
def test_a_failed_mail_is_found_read_and_sent_again(window: Callable[..., Screens], width: int, scheme: str) -> None:
    UserFactory(username="sofie", role=SUPPORT)
    mail = MailFactory(error="SMTPServerDisconnected")
    MailFactory(state=MailState.SENT, sent_at=timezone.now())
    screens = window(width=width, color_scheme=scheme)
    screens.sign_in("sofie")
    page = screens.page
    screens.open(f"{reverse('admin:feeds_mail_changelist')}?state__exact=failed")
    screens.check(f"mails-{width}-{scheme}")
    page.get_by_role("link", name=mail.subject).click()
    expect(page.get_by_text("A feed broke. Take the case.")).to_be_visible()
    screens.check(f"mail-{width}-{scheme}")
    page.get_by_role("link", name="Send again").click()
    screens.check(f"mail-send-again-{width}-{scheme}")
    page.get_by_role("button", name="Send again").click()
    expect(page.get_by_text("Queued: it is sent within a minute.")).to_be_visible()
    mail.refresh_from_db()
    assert mail.state == MailState.QUEUED


def test_closing_is_refused_while_codat_says_broken_and_what_was_typed_is_kept(
    customer: Company, sofie: Screens
) -> None:
    page = sofie.page
    case = Case.objects.get()
    sofie.open(reverse("admin:feeds_case_change", args=[case.pk]))
    page.get_by_role("link", name="Close", exact=True).click()
    sofie.check("case-close")
    page.get_by_label("Customer no longer wants the feed").check()
    page.get_by_role("button", name="Close").click()
    expect(page.locator(".messagelist")).to_contain_text("Codat still says broken: disconnected: Operating.")
    expect(page.get_by_label("Customer no longer wants the feed")).to_be_checked()
    sofie.check("case-close-refused")
    page.get_by_label("Reason").fill("They moved to another product.")
    page.get_by_role("button", name="Close").click()
    expect(page.locator(".messagelist")).to_contain_text("is closed.")
    sofie.check("case-closed")
    case.refresh_from_db()
    assert (case.state, case.outcome_reason) == (CaseState.CLOSED, "They moved to another product.")


def test_a_case_is_taken_and_noted_with_the_keyboard_alone(sofie: Screens) -> None:
    case = CaseFactory()
    page = sofie.page
    sofie.open(WORKLIST)
    # From the row's link, the next stop is its button: nothing stands between, nothing is skipped.
    page.get_by_role("link", name=case.company.legal_name).focus()
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    expect(focused).to_have_accessible_name(f"Take #{case.pk} {case.company.legal_name}")
    outline = focused.evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{reverse('admin:feeds_case_change', args=[case.pk])}")
    page.get_by_role("link", name="Note", exact=True).press("Enter")
    page.get_by_label("Note").focus()
    page.keyboard.type("Left a message.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Timeline")).to_contain_text("Left a message.")


def test_the_gap_is_copied_in_the_language_of_the_button(sofie: Screens) -> None:
    page = sofie.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    case = CaseFactory(opened_at=timezone.now() - timedelta(days=5))
    sofie.open(reverse("admin:feeds_case_change", args=[case.pk]))
    page.get_by_role("button", name="Copy French").click()
    expect(page.get_by_role("status").filter(has_text="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.get_by_label("Text for the customer, French").input_value()
    assert "flux bancaire" in copied


@pytest.mark.looks
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light")])
def test_every_screen_is_accessible_wide_dark_and_narrow(
    window: Callable[..., Screens], width: int, scheme: str
) -> None:
    UserFactory(username="sofie", role=SUPPORT)
    incident = IncidentFactory()
    case = CaseFactory(
        incident=incident, cause=CaseCause.QUICKBOOKS_SILENT, opened_at=timezone.now() - timedelta(days=5)
    )
    CaseFactory(incident=incident, owner=UserFactory(role=SUPPORT))
    CaseEventFactory(case=case)
    report = DriftReportFactory()
    stranger = DriftFindingFactory(report=report)
    DriftFindingFactory(report=report, kind=DriftKind.RENAMED, company=case.company, here="A", there="B")
    screens = window(width=width, color_scheme=scheme)
    screens.sign_in("sofie")
    addresses = {
        "worklist": WORKLIST,
        "case": reverse("admin:feeds_case_change", args=[case.pk]),
        **{
            f"case-{name}": reverse("admin:feeds_case_action", args=[case.pk, name])
            for name in ("set-cause", "snooze", "hand-over", "close")
        },
        "incident-list": reverse("admin:feeds_incident_changelist"),
        "incident": reverse("admin:feeds_incident_change", args=[incident.pk]),
        "incident-release": reverse("admin:feeds_incident_action", args=[incident.pk, "release"]),
        "drift-list": reverse("admin:feeds_driftreport_changelist"),
        "drift": reverse("admin:feeds_driftreport_change", args=[report.pk]),
        "drift-adopt": reverse("admin:feeds_driftfinding_action", args=[stranger.pk, "adopt"]),
        "status-changes": reverse("admin:feeds_statusevent_changelist"),
        "timeline": reverse("admin:feeds_company_timeline", args=[case.company_id]),
    }
    for name, address in addresses.items():
        screens.open(address)
        screens.check(f"{name}-{scheme}-{width}")

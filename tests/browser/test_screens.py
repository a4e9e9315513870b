"""Connections, accounts, ledger, history and users in a real browser: accessible, and silent under the CSP."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from feeds import audit
from feeds.models import Connection, SourceAccount
from feeds.states import AccountStatus, OperationState
from tests.browser.conftest import Screens
from tests.factories import ConnectionFactory, OperationFactory, SourceAccountFactory, UserFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def connection(transactional_db: None) -> Connection:
    """A connection with a live link and two accounts, one of them disconnected."""
    made: Connection = ConnectionFactory(with_link=True)
    SourceAccountFactory(company=made.company, connection=made, status=AccountStatus.PENDING)
    SourceAccountFactory(company=made.company, connection=made, status=AccountStatus.DISCONNECTED)
    return made


@pytest.fixture
def staff(connection: Connection, window: Callable[..., Screens]) -> Screens:
    """A superuser's window."""
    UserFactory(username="chief", is_superuser=True)
    screens = window()
    screens.sign_in("chief")
    return screens


@pytest.mark.looks
def test_lists_and_details_are_accessible(staff: Screens, connection: Connection) -> None:
    failed = OperationFactory(company=connection.company, state=OperationState.FAILED, error="Codat said no.")
    entry = audit.record("link_revealed", connection)
    account = connection.source_accounts.first()
    assert account is not None
    for name, pk in (
        ("feeds_connection", connection.pk),
        ("feeds_sourceaccount", account.pk),
        ("feeds_operation", failed.pk),
        ("feeds_auditentry", entry.pk),
    ):
        staff.open(reverse(f"admin:{name}_changelist"))
        staff.check(f"{name}-list")
        staff.open(reverse(f"admin:{name}_change", args=[pk]))
        staff.check(f"{name}-detail")


@pytest.mark.looks
@pytest.mark.parametrize("name", ["auth_user", "auth_group"])
def test_people_and_roles_are_accessible(staff: Screens, name: str) -> None:
    UserFactory(role="Support")
    staff.open(reverse(f"admin:{name}_changelist"))
    staff.check(f"{name}-list")


def test_the_link_is_shown_with_a_countdown_and_copied_by_a_button(staff: Screens, connection: Connection) -> None:
    page = staff.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    staff.open(reverse("admin:feeds_connection_change", args=[connection.pk]))
    page.get_by_role("link", name="Show link").click()
    staff.check("show-link-confirmation")
    page.get_by_role("button", name="Show link").click()
    expect(page.get_by_label("Customer link")).to_have_value(connection.link_url)
    expect(page.get_by_role("timer")).to_contain_text("59:")
    page.get_by_role("button", name="Copy Customer link").click()
    expect(page.get_by_role("status").filter(has_text="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == connection.link_url
    staff.check("show-link")


def test_an_expired_link_leaves_the_screen(staff: Screens, connection: Connection) -> None:
    page = staff.page
    page.clock.install()
    staff.open(reverse("admin:feeds_connection_action", args=[connection.pk, "show-link"]))
    page.get_by_role("button", name="Show link").click()
    expect(page.get_by_label("Customer link")).to_have_value(connection.link_url)
    page.clock.fast_forward("01:00:01")
    expect(page.get_by_role("timer")).to_have_text("Expired: fetch a fresh link.")
    expect(page.get_by_label("Customer link")).to_have_value("")


def focused_tag(page: Page) -> str:
    """Which element has the keyboard."""
    tag: str = page.evaluate("document.activeElement.tagName")
    return tag


def test_an_account_is_disconnected_with_the_keyboard_alone(staff: Screens, connection: Connection) -> None:
    account = SourceAccount.objects.get(status=AccountStatus.PENDING)
    page = staff.page
    staff.open(reverse("admin:feeds_sourceaccount_change", args=[account.pk]))
    page.get_by_role("link", name="Disconnect").press("Enter")
    page.wait_for_url("**/actions/disconnect/")
    staff.check("disconnect-confirmation")
    reason = page.get_by_label("Reason")
    reason.focus()
    page.keyboard.type("The customer closed the account.")
    page.keyboard.press("Tab")
    assert focused_tag(page) == "BUTTON"
    page.keyboard.press("Enter")
    expect(page.get_by_text("Asked for; follow it here")).to_be_visible()
    staff.check("sourceaccount-after-disconnect")


def test_an_action_that_makes_no_sense_now_says_why(staff: Screens, connection: Connection) -> None:
    staff.open(reverse("admin:feeds_connection_change", args=[connection.pk]))
    staff.page.get_by_role("link", name="Unlink (not available now)").click()
    expect(staff.page.get_by_text("Only a connection that is Linked can be unlinked")).to_be_visible()
    staff.check("unlink-unavailable")

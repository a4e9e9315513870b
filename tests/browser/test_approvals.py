"""Four eyes in a real browser: one asks, another approves, it is done; nobody approves their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from feeds import audit
from feeds.models import Approval, Company
from feeds.services import approvals, onboarding, sync
from feeds.services.roles import ADMINISTRATORS, SUPPORT
from feeds.states import ConnectionStatus
from tests.browser.conftest import Screens
from tests.factories import (
    ApprovalFactory,
    CompanyFactory,
    ConnectionFactory,
    SourceAccountFactory,
    UserFactory,
)
from tests.queue_drain import drain
from tests.sandbox_process import SandboxProcess

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LIST = reverse("admin:feeds_approval_changelist")


@pytest.fixture(autouse=True)
def _four_eyes(settings: Any) -> None:
    """As the product is shipped."""
    settings.FOUR_EYES = settings.PRODUCT_FOUR_EYES


@pytest.fixture
def customer(transactional_db: None, codat: SandboxProcess) -> Company:
    """A customer of the stand-in with three connected accounts."""
    company: Company = CompanyFactory(legal_name="Harbor Light Bicycles LLC")
    for name in ("Operating", "Payroll", "Savings"):
        SourceAccountFactory(company=company, name=name)
    onboarding.request(company, actor=audit.SYSTEM)
    drain()
    company.refresh_from_db()
    codat.connect(company.codat_id, company.connections.get().codat_id)
    sync.refresh_company(company, actor=audit.SYSTEM)
    return company


@pytest.fixture
def person(transactional_db: None, window: Callable[..., Screens]) -> Callable[..., Screens]:
    """Opens the window of somebody: `person("sofie", "Sofie", SUPPORT)`."""

    def open_window(username: str, first_name: str, role: str, **options: Any) -> Screens:
        UserFactory(username=username, first_name=first_name, last_name="Uppman", role=role)
        screens = window(**options)
        screens.sign_in(username)
        return screens

    return open_window


def test_one_asks_another_approves_and_it_is_done(customer: Company, person: Callable[..., Screens]) -> None:
    sofie, sam = person("sofie", "Sofie", SUPPORT), person("sam", "Sam", SUPPORT)
    connection = customer.connections.get()

    sofie.open(reverse("admin:feeds_connection_change", args=[connection.pk]))
    sofie.page.get_by_role("link", name="Unlink").click()
    expect(sofie.page.get_by_text("3 accounts stop feeding.")).to_be_visible()
    sofie.check("approval-ask", picture=True)
    sofie.page.get_by_label("Reason").fill("The customer asked for it by phone.")
    sofie.page.get_by_role("button", name="Ask for approval").click()
    expect(sofie.page.locator(".messagelist")).to_contain_text("a colleague has to approve")

    # Her own request is hers to withdraw, not to approve.
    sofie.page.locator(".messagelist").get_by_role("link").click()
    expect(sofie.page.get_by_text("You asked for this yourself: a colleague has to decide.")).to_be_visible()
    expect(sofie.page.get_by_role("link", name="Approve")).to_have_count(0)
    expect(sofie.page.get_by_role("link", name="Withdraw")).to_be_visible()
    sofie.check("approval-own")
    approval = Approval.objects.get()
    sofie.open(reverse("admin:feeds_approval_action", args=[approval.pk, "approve"]))
    expect(sofie.page.get_by_text("This cannot be done now.")).to_be_visible()
    expect(sofie.page.get_by_role("button", name="Approve")).to_have_count(0)

    sam.open("/admin/")
    sam.check("approval-home")
    sam.page.get_by_role("link", name="1 request waits for your approval").click()
    sam.check("approval-list", picture=True)
    sam.page.get_by_role("link", name="Unlink").click()
    sam.check("approval-page", picture=True)
    sam.page.get_by_role("link", name="Approve").click()
    expect(sam.page.get_by_text("3 accounts stop feeding.")).to_be_visible()
    sam.check("approval-approve")
    sam.page.get_by_role("button", name="Approve").click()
    expect(sam.page.locator(".messagelist")).to_contain_text("Approved and done.")
    sam.check("approval-done")

    drain()
    connection.refresh_from_db()
    assert connection.status == ConnectionStatus.UNLINKED
    operation = customer.operations.get(kind="unlink_connection")
    assert operation.reason.endswith("(asked by Sofie Uppman, approved by Sam Uppman)")


def test_a_role_is_asked_for_in_the_form_of_the_person(person: Callable[..., Screens]) -> None:
    agnes = person("agnes", "Agnes", ADMINISTRATORS)
    UserFactory(role=ADMINISTRATORS)
    nora = UserFactory(first_name="Nora", last_name="Lund")
    page = agnes.page
    agnes.open(reverse("admin:auth_user_change", args=[nora.pk]))
    page.get_by_label(SUPPORT, exact=True).check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Say why the role changes: a colleague has to approve it.")).to_be_visible()
    agnes.check("approval-role-reason")
    page.get_by_label("Reason for the change of role").fill("New in support.")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".messagelist")).to_contain_text("a colleague has to approve")
    page.locator(".messagelist").get_by_role("link", name="Request").click()
    expect(page.get_by_text("Roles: none → Support")).to_be_visible()
    agnes.check("approval-role")
    assert not nora.groups.exists()


@pytest.mark.looks
@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (400, "light")])
def test_every_screen_is_accessible_dark_and_narrow(
    person: Callable[..., Screens], settings: Any, width: int, scheme: str
) -> None:
    settings.FOUR_EYES_BULK_ROWS = 2
    screens = person("sofie", "Sofie", SUPPORT, width=width, color_scheme=scheme)
    waiting = ApprovalFactory()
    changed = ApprovalFactory()
    changed.company.connections.update(status=ConnectionStatus.UNLINKED)
    asker = UserFactory(role=SUPPORT)
    many = approvals.ask_many(
        "refresh_links",
        ConnectionFactory.create_batch(3),
        consequences=["A fresh link is fetched for each."],
        reason="All of them expired.",
        actor=audit.Actor.person(asker, source="admin"),
    )
    addresses = {
        "home": "/admin/",
        "list": LIST,
        "all": f"{LIST}?list=all",
        "waiting": reverse("admin:feeds_approval_change", args=[waiting.pk]),
        "changed": reverse("admin:feeds_approval_change", args=[changed.pk]),
        "many": reverse("admin:feeds_approval_change", args=[many.pk]),
        "approve": reverse("admin:feeds_approval_action", args=[changed.pk, "approve"]),
        "refuse": reverse("admin:feeds_approval_action", args=[waiting.pk, "refuse"]),
    }
    for name, address in addresses.items():
        screens.open(address)
        screens.check(f"approval-{name}-{scheme}-{width}", picture=name in ("changed", "many"))
    screens.open(reverse("admin:feeds_connection_changelist"))
    screens.page.locator("#action-toggle").check()
    screens.page.locator("select[name=action]").select_option("refresh_links")
    screens.page.locator("button[name=index]").click()
    expect(screens.page.get_by_role("button", name="Ask for approval")).to_be_visible()
    screens.check(f"approval-ask-many-{scheme}-{width}", picture=True)

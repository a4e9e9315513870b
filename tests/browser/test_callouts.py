"""The callout in a real browser: from a draft to the customer's Link page, with two people, in both languages."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page, expect
from pytest_django.fixtures import Settings

from feeds.audit import Actor
from feeds.models import CalloutVersion
from feeds.services import callouts
from feeds.services.roles import COMPLIANCE_AUDITORS, RELATIONSHIP_MANAGERS
from feeds.states import CalloutState
from tests.browser.conftest import Screens
from tests.factories import CalloutVersionFactory, UserFactory
from tests.sandbox.customer import Customer
from tests.sandbox_process import SandboxProcess

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def _two_people_publish(settings: Settings) -> None:
    """As shipped: nobody approves what they wrote."""
    settings.FOUR_EYES = ["publish_callout"]


ADD = reverse("admin:feeds_calloutversion_add")
LIST = reverse("admin:feeds_calloutversion_changelist")
TEXTS = {
    "English title": "Before you start",
    "English body": "Have your QuickBooks user name and password ready. It takes five minutes.",
    "French title": "Avant de commencer",
    "French body": "Préparez votre nom d’utilisateur et votre mot de passe QuickBooks. Cela prend cinq minutes.",
}


def manager(username: str, first_name: str, last_name: str) -> Actor:
    """A relationship manager."""
    user = UserFactory(username=username, first_name=first_name, last_name=last_name, role=RELATIONSHIP_MANAGERS)
    return Actor.person(user, source="test")


@pytest.fixture
def rosa(transactional_db: None) -> Actor:
    """Writes."""
    return manager("rosa", "Rosa", "Marchetti")


@pytest.fixture
def ravi(transactional_db: None) -> Actor:
    """Approves."""
    return manager("ravi", "Ravi", "Menon")


@pytest.fixture
def portal(codat: SandboxProcess, settings: Settings) -> SandboxProcess:
    """The stand-in, with its Portal where the checklist leads."""
    settings.CODAT_PORTAL_URL = f"{codat.url}/portal/callout"
    return codat


def publish(rosa: Actor, ravi: Actor, **texts: str) -> CalloutVersion:
    """A version that went the whole way."""
    version = callouts.create(texts, rosa)
    callouts.submit(version, rosa)
    callouts.approve(version, ravi)
    callouts.attest(version, ravi, on=timezone.localdate(), by_name="Ravi Menon")
    version.refresh_from_db()
    return version


def box(page: Page, code: str) -> list[str]:
    """What the preview shows in one language."""
    return page.locator(f".callout-box[lang={code}] p:visible").all_inner_texts()


def test_from_draft_to_the_customers_page_with_two_people(
    rosa: Actor, ravi: Actor, portal: SandboxProcess, window: Callable[..., Screens]
) -> None:
    publish(
        rosa,
        ravi,
        title_en="Before you begin",
        body_en="Have your QuickBooks password ready.",
        title_fr="Avant de commencer",
        body_fr="Préparez votre mot de passe QuickBooks.",
    )
    writing = window()
    writing.sign_in("rosa")
    page = writing.page
    writing.open(LIST)
    writing.check("callout-list")
    page.get_by_role("link", name="Add callout version").click()
    for label, text in TEXTS.items():
        page.get_by_label(label).fill(text)
    assert box(page, "fr") == [TEXTS["French title"], TEXTS["French body"]]
    page.get_by_role("button", name="Save and continue editing").click()
    expect(page.locator(".messagelist")).to_contain_text("was added successfully")
    writing.check("callout-studio", picture=True)
    address = page.url.removeprefix(writing.base_url)
    page.get_by_role("link", name="Submit", exact=True).click()
    expect(page.get_by_role("heading", name="What will happen")).to_be_visible()
    writing.check("callout-submit")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator(".messagelist")).to_contain_text("waits for approval")
    expect(page.get_by_text("a colleague has to approve it")).to_be_visible()
    expect(page.get_by_role("link", name="Approve", exact=True)).to_have_count(0)
    writing.check("callout-submitted")

    # Who wrote it does not approve it, whichever way they get to the page.
    writing.open(address.replace("change/", "actions/approve/"))
    page.get_by_role("button", name="Approve").click()
    expect(page.locator(".messagelist")).to_contain_text("Somebody else has to approve it.")
    assert CalloutVersion.objects.first().state == CalloutState.SUBMITTED  # type: ignore[union-attr]

    approving = window()
    approving.sign_in("ravi")
    page = approving.page
    expect(page.get_by_role("heading", name="The callout waits for you")).to_be_visible()
    approving.check("callout-home")
    page.get_by_role("region", name="The callout waits for you").get_by_role("link").click()
    expect(page.get_by_role("heading", name="What it changes")).to_be_visible()
    approving.check("callout-difference", picture=True)
    page.get_by_role("link", name="Approve", exact=True).click()
    expect(page.get_by_role("heading", name="What will happen")).to_be_visible()
    page.get_by_label("Comment").fill("Both languages read well.")
    approving.check("callout-approve")
    page.get_by_role("button", name="Approve").click()
    expect(page.locator(".messagelist")).to_contain_text("is approved")

    page.get_by_role("link", name="Publishing checklist").click()
    expect(page.get_by_role("button", name="Copy French body")).to_be_visible()
    approving.check("callout-checklist", picture=True)
    paste_into_the_portal(page)
    page.get_by_role("link", name="Attest").click()
    page.get_by_label("Every field in the Portal was compared").check()
    approving.check("callout-attest")
    page.get_by_role("button", name="Attest").click()
    expect(page.locator(".messagelist")).to_contain_text("last attested on")
    expect(page.locator(".messagelist")).to_contain_text("by Ravi Menon")
    expect(page.locator("body")).not_to_contain_text("live")
    approving.check("callout-published")
    page.goto(approving.base_url + reverse("admin:feeds_calloutversion_published"))
    expect(page.get_by_text("The text changed on")).to_be_visible()
    approving.check("callout-on-a-day", picture=True)

    the_customer_reads_it(page, Customer(portal, "a").link())


def paste_into_the_portal(page: Page) -> None:
    """As a person does: copy a field, paste it, the next one, save."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Open the Codat Portal").click()
    portal = opened.value
    for label, text in TEXTS.items():
        page.bring_to_front()
        page.get_by_role("button", name=f"Copy {label}").click()
        row = page.locator(".secret-row").filter(has=page.get_by_role("button", name=f"Copy {label}"))
        expect(row.get_by_role("status")).to_have_text("Copied")
        portal.bring_to_front()
        portal.get_by_label(label).press("ControlOrMeta+a")
        portal.get_by_label(label).press("ControlOrMeta+v")
        expect(portal.get_by_label(label)).to_have_value(text)
    portal.get_by_role("button", name="Save").click()
    expect(portal.get_by_role("status")).to_have_text("The callout is saved.")
    portal.close()


def the_customer_reads_it(page: Page, link: str) -> None:
    """The box on the Link page, in English, then in French."""
    page.goto(link)
    shown = page.locator(".callout")
    expect(shown.get_by_role("heading")).to_have_text(TEXTS["English title"])
    expect(shown).to_contain_text(TEXTS["English body"])
    page.get_by_role("link", name="Français").click()
    expect(shown.get_by_role("heading")).to_have_text(TEXTS["French title"])
    expect(shown).to_contain_text(TEXTS["French body"])


def test_the_counters_count_as_the_portal_does_while_somebody_types(
    rosa: Actor, window: Callable[..., Screens]
) -> None:
    screens = window()
    screens.sign_in("rosa")
    page = screens.page
    screens.open(ADD)
    title = page.get_by_label("French title")
    row = page.locator(".field-title_fr")
    expect(row).to_contain_text("0 of 50 characters")
    for text, count in (("e\u0301" * 50, 50), ("🍁" * 25, 50), ("  été ", 3)):
        title.fill(text)
        expect(row).to_contain_text(f"{count} of 50 characters")
        expect(row.get_by_role("status")).to_have_text("")
    title.fill("🍁" * 25 + "x")
    expect(row.get_by_role("status")).to_have_text("1 too many")
    screens.check("callout-too-long")

    page.get_by_role("button", name="Save", exact=True).click()
    expect(row).to_contain_text("51 characters are too many: at most 50. Take out 1.")
    expect(title).to_have_value("🍁" * 25 + "x")
    screens.problems.clear()
    screens.check("callout-refused")


def test_a_text_is_refused_by_name_and_nothing_is_lost(rosa: Actor, window: Callable[..., Screens]) -> None:
    screens = window()
    screens.sign_in("rosa")
    page = screens.page
    screens.open(ADD)
    page.get_by_label("English body").fill("Call <b>now</b>\nor write")
    page.get_by_role("button", name="Save", exact=True).click()
    row = page.locator(".field-body_en")
    expect(row).to_contain_text("Position 6, after “Call ”: markup: <b>.")
    expect(row).to_contain_text("a line break. Write one line.")
    expect(page.get_by_label("English body")).to_have_value("Call <b>now</b>\nor write")
    screens.check("callout-markup")
    assert not CalloutVersion.objects.exists()


@pytest.mark.looks
@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (400, "light")])
def test_every_screen_is_accessible_dark_and_narrow(
    rosa: Actor, ravi: Actor, window: Callable[..., Screens], width: int, scheme: str
) -> None:
    publish(rosa, ravi, title_en="Welcome", title_fr="Bienvenue")
    draft = callouts.create({"title_en": "Before you start", "body_en": "Have it ready."}, rosa)
    approved = CalloutVersionFactory(state=CalloutState.APPROVED)
    screens = window(width=width, color_scheme=scheme)
    screens.sign_in("ravi")
    addresses = {
        "list": LIST,
        "add": ADD,
        "draft": reverse("admin:feeds_calloutversion_change", args=[draft.pk]),
        "approved": reverse("admin:feeds_calloutversion_change", args=[approved.pk]),
        "difference": reverse("admin:feeds_calloutversion_difference", args=[draft.pk]),
        "checklist": reverse("admin:feeds_calloutversion_checklist", args=[approved.pk]),
        "attest": reverse("admin:feeds_calloutversion_action", args=[approved.pk, "attest"]),
        "withdraw": reverse("admin:feeds_calloutversion_action", args=[draft.pk, "withdraw"]),
        "day": reverse("admin:feeds_calloutversion_published"),
    }
    for name, address in addresses.items():
        screens.open(address)
        screens.check(f"callout-{name}-{scheme}-{width}")


def test_an_auditor_reads_everything_and_is_offered_nothing(
    rosa: Actor, ravi: Actor, window: Callable[..., Screens]
) -> None:
    version = publish(rosa, ravi, title_en="Welcome", title_fr="Bienvenue")
    UserFactory(username="ada", role=COMPLIANCE_AUDITORS)
    screens = window()
    screens.sign_in("ada")
    screens.open(reverse("admin:feeds_calloutversion_change", args=[version.pk]))
    assert box(screens.page, "fr") == ["Bienvenue"]
    expect(screens.page.get_by_text("Approved", exact=True)).to_be_visible()
    expect(screens.page.locator(".action-button")).to_have_count(0)
    expect(screens.page.get_by_role("button", name="Save")).to_have_count(0)
    screens.check("callout-auditor")

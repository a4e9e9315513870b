"""The webhook inbox in a real browser: found in the list, read, applied again; and accessible throughout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from feeds.models import WebhookEvent
from feeds.states import WebhookState
from tests.browser.conftest import Screens
from tests.factories import CompanyFactory, UserFactory, WebhookEventFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize(("width", "color_scheme"), [(1280, "light"), (1280, "dark"), (400, "light")])
def test_support_applies_a_webhook_again(width: int, color_scheme: str, window: Callable[..., Screens]) -> None:
    staff = UserFactory(role="Support")
    failed = WebhookEventFactory(
        company=CompanyFactory(in_codat=True), state=WebhookState.FAILED, attempts=12, error="Codat did not answer."
    )
    for state in (WebhookState.RECEIVED, WebhookState.APPLIED, WebhookState.IGNORED):
        WebhookEventFactory(state=state, event_type="bankFeeds.sourceAccount.disconnected")
    screens = window(width=width, color_scheme=color_scheme)
    screens.sign_in(staff.username)

    screens.open("/admin/feeds/webhookevent/")
    screens.check(f"webhooks-{width}-{color_scheme}")
    screens.open("/admin/feeds/webhookevent/?state__exact=failed")
    screens.page.get_by_role("rowheader", name="connection.connected").get_by_role("link").click()
    expect(screens.page.get_by_text("Codat did not answer.")).to_be_visible()
    screens.check(f"webhook-{width}-{color_scheme}")
    screens.page.get_by_role("link", name="Apply again").click()
    expect(screens.page.get_by_text("Its company is read from Codat again")).to_be_visible()
    screens.check(f"webhook-apply-again-{width}-{color_scheme}")
    screens.page.get_by_role("button", name="Apply again").click()
    expect(screens.page.get_by_text("Queued: it is applied within seconds.")).to_be_visible()
    failed.refresh_from_db()
    assert failed.state == WebhookState.RECEIVED
    assert WebhookEvent.objects.filter(state=WebhookState.FAILED).count() == 0

"""Keys of the API in a real browser: made, shown once, replaced, revoked; in both languages and on a narrow window."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from feeds.models import ApiKey
from feeds.services.roles import ADMINISTRATORS, RELATIONSHIP_MANAGERS
from tests.api.conftest import Program
from tests.browser.conftest import Screens
from tests.factories import UserFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("width", [1280, 400])
def test_a_key_is_made_shown_once_replaced_and_revoked(window: Callable[..., Screens], width: int) -> None:
    UserFactory(role=RELATIONSHIP_MANAGERS, first_name="Rita", last_name="Moreau")
    UserFactory(role=ADMINISTRATORS, username="ada")
    screens = window(width=width)
    page = screens.page
    screens.sign_in("ada")
    screens.open(reverse("admin:feeds_apikey_add"))
    screens.check(f"api-key-make-{width}")
    page.get_by_label("Name").fill("Business portal")
    page.get_by_label("Manager of new customers").select_option(label="Rita Moreau")
    page.get_by_label("Reason").fill("The new portal.")
    page.get_by_role("button", name="Make the key").click()
    shown = page.get_by_label("API key", exact=True)
    expect(shown).to_have_value(re.compile(r"^bfk_[a-z2-7]{8}_[\w-]{43}$"))
    screens.check(f"api-key-shown-{width}")
    assert Program(shown.input_value()).get("SB-1").status_code == 404

    page.get_by_role("link", name="Done").click()
    screens.check(f"api-key-{width}")
    page.get_by_role("link", name="Replace").click()
    screens.check(f"api-key-replace-{width}")
    page.get_by_role("button", name="Replace").click()
    expect(page.get_by_label("API key", exact=True)).to_have_value(re.compile("^bfk_"))

    screens.open(reverse("admin:feeds_apikey_change", args=[ApiKey.objects.latest("pk").pk]))
    page.get_by_role("link", name="Revoke").click()
    page.get_by_label("Reason").fill("It was in a mail.")
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("it opens nothing any more")).to_be_visible()
    screens.open(reverse("admin:feeds_apikey_changelist"))
    screens.check(f"api-keys-{width}")


def test_the_page_speaks_french(window: Callable[..., Screens]) -> None:
    UserFactory(role=ADMINISTRATORS, username="ada")
    screens = window()
    screens.sign_in("ada")
    screens.page.get_by_role("button", name="Français").click()
    screens.open(reverse("admin:feeds_apikey_add"))
    expect(screens.page.get_by_role("button", name="Créer la clé")).to_be_visible()
    screens.check("api-key-make-fr")

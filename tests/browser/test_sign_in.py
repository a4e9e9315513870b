"""Signing in as a person does it: with an app, with a passkey, locked out, timed out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.urls import reverse
from playwright.sync_api import CDPSession, Page, expect

from feeds.models import AuditEntry
from feeds.sign_in import sessions
from tests.browser.conftest import Screens
from tests.factories import PASSWORD, UserFactory
from tests.sign_in.people import code

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

Window = Callable[..., Screens]
WAYS = [(1280, "light"), (1280, "dark"), (400, "light")]


@pytest.fixture
def robin(transactional_db: None) -> User:
    """A person without a second factor."""
    user: User = UserFactory(username="robin", role="Administrators")
    return user


@pytest.fixture
def at_localhost(live_server: Any) -> str:
    """The site by a name: browsers make passkeys for no bare address."""
    return str(live_server).replace("127.0.0.1", "localhost")


def plug_in_device(page: Page) -> tuple[CDPSession, str]:
    """A virtual security key with a finger on it."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    added = devtools.send(
        "WebAuthn.addVirtualAuthenticator",
        {
            "options": {
                "protocol": "ctap2",
                "transport": "internal",
                "hasResidentKey": True,
                "hasUserVerification": True,
                "isUserVerified": True,
                "automaticPresenceSimulation": True,
            }
        },
    )
    return devtools, added["authenticatorId"]


def type_password(staff: Screens, password: str = PASSWORD, username: str = "robin") -> None:
    """The sign-in form, without waiting for the home page."""
    staff.open("/admin/login/")
    staff.page.get_by_label("Username").fill(username)
    staff.page.get_by_label("Password").fill(password)
    staff.page.get_by_role("button", name="Log in").click()


def secret_of(page: Page) -> str:
    """The key that the page shows for typing."""
    return page.locator("code.secret-value").inner_text()


def add_app(staff: Screens) -> str:
    """Set up an authenticator app; leaves the page of recovery codes open. A code of half a minute ago is used up."""
    staff.open(reverse("mfa_activate_totp"))
    secret = secret_of(staff.page)
    staff.page.get_by_label("Authenticator code").fill(code(secret, steps=-1, good_for=10.0))
    staff.page.get_by_role("button", name="Add the app").click()
    expect(staff.page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    return secret


def events() -> list[str]:
    """What this room wrote into the history, oldest first."""
    mine = ("passkey_used", "second_factor_added", "recovery_code_used", "authenticator_app_used", "sign_in_locked")
    return list(AuditEntry.objects.filter(event__in=mine).order_by("pk").values_list("event", flat=True))


@pytest.fixture
def required(settings: Any) -> None:
    """Everybody must have a second factor, as in production."""
    settings.REQUIRE_SECOND_FACTOR = True


def test_an_authenticator_app_is_set_up_and_asked_for(window: Window, robin: User, required: None) -> None:
    staff = window()
    type_password(staff)
    expect(staff.page.get_by_text("Set up a second factor first")).to_be_visible()
    staff.check("second-factors-none", picture=True)
    staff.page.get_by_role("link", name="Add an app").click()
    staff.check("second-factor-app")
    secret = add_app(staff)
    staff.check("recovery-codes")
    recovery = staff.page.locator(".recovery-codes code").first.inner_text()
    staff.page.get_by_role("link", name="I have them, go on").click()
    expect(staff.page).to_have_url(re.compile(r"/admin/$"))

    again = window()
    type_password(again)
    again.check("second-factor-asked", picture=True)
    again.page.get_by_label("Code").fill("000000")
    again.page.get_by_role("button", name="Continue").click()
    expect(again.page.get_by_text("was not accepted")).to_be_visible()
    again.check("second-factor-wrong")
    again.page.get_by_label("Code").fill(code(secret))
    again.page.get_by_role("button", name="Continue").click()
    expect(again.page).to_have_url(re.compile(r"/admin/$"))

    lost = window()
    type_password(lost)
    lost.page.get_by_label("Code").fill(recovery)
    lost.page.get_by_role("button", name="Continue").click()
    expect(lost.page).to_have_url(re.compile(r"/admin/$"))
    assert events()[-2:] == ["authenticator_app_used", "recovery_code_used"]


def test_a_passkey_is_added_asked_for_and_opens_alone(window: Window, robin: User, at_localhost: str) -> None:
    staff = window(base_url=at_localhost)
    plug_in_device(staff.page)
    staff.sign_in("robin")
    staff.open(reverse("mfa_add_webauthn"))
    staff.check("passkey-add")
    staff.page.get_by_label("Name").fill("Work phone")
    staff.page.get_by_label("Sign in with this passkey alone").check()
    staff.page.get_by_role("button", name="Add the passkey").click()
    expect(staff.page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    staff.open(reverse("mfa_index"))
    expect(staff.page.get_by_text("Work phone")).to_be_visible()
    staff.check("second-factors-passkey", picture=True)

    staff.page.context.clear_cookies()
    type_password(staff)
    staff.check("second-factor-passkey-asked")
    staff.page.get_by_role("button", name="Use a passkey").click()
    expect(staff.page).to_have_url(re.compile(r"/admin/$"))

    staff.page.context.clear_cookies()
    staff.open(f"/admin/login/?next={reverse('admin:auth_user_changelist')}")
    staff.page.get_by_role("button", name="Use a passkey").click()
    expect(staff.page).to_have_url(f"{at_localhost}{reverse('admin:auth_user_changelist')}")
    used = AuditEntry.objects.filter(event="passkey_used").order_by("pk")
    assert [entry.additional_data["purpose"] for entry in used] == ["sign-in", "sign-in without password"]
    assert [entry.actor_name for entry in used] == [robin.get_full_name()] * 2

    # An administrator shuts Robin out by disabling the password: a passkey alone stands for it.
    robin.set_unusable_password()
    robin.save()
    staff.open("/admin/")
    staff.page.get_by_role("button", name="Use a passkey").click()
    expect(staff.page.get_by_text("You cannot sign in. Ask an administrator.")).to_be_visible()


def test_a_passkey_is_renamed_and_removed(window: Window, robin: User, at_localhost: str) -> None:
    staff = window(base_url=at_localhost)
    plug_in_device(staff.page)
    staff.sign_in("robin")
    staff.open(reverse("mfa_add_webauthn"))
    staff.page.get_by_role("button", name="Add the passkey").click()
    expect(staff.page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    staff.open(reverse("mfa_list_webauthn"))
    staff.check("passkeys")
    staff.page.get_by_role("link", name="Rename").click()
    staff.check("passkey-rename")
    staff.page.get_by_label("Name").fill("Old key")
    staff.page.get_by_role("button", name="Save").click()
    staff.page.get_by_role("link", name="Remove").click()
    expect(staff.page.get_by_text("The passkey “Old key” is accepted no more.")).to_be_visible()
    staff.check("passkey-remove")
    staff.page.get_by_role("button", name="Remove the passkey").click()
    expect(staff.page.get_by_text("None.")).to_be_visible()
    assert not Authenticator.objects.exists()


def test_a_device_that_refuses_is_said_in_words(window: Window, robin: User, at_localhost: str) -> None:
    staff = window(base_url=at_localhost)
    devtools, device = plug_in_device(staff.page)
    devtools.send("WebAuthn.setUserVerified", {"authenticatorId": device, "isUserVerified": False})
    staff.open("/admin/login/")
    expect(staff.page.locator("#passkey-problem")).to_be_hidden()
    staff.page.get_by_role("button", name="Use a passkey").click()
    expect(staff.page.get_by_role("alert")).to_contain_text("The passkey was not used")
    staff.check("passkey-refused")


def test_too_many_failures_lock_and_an_administrator_unlocks(window: Window, robin: User) -> None:
    UserFactory(username="chief", role="Administrators")
    staff = window()
    for _ in range(5):
        type_password(staff, "not the password")
    expect(staff.page.get_by_role("heading", name="This sign-in is locked for now")).to_be_visible()
    staff.problems.clear()  # the browser itself reports a page with status 429
    staff.check("locked-out", picture=True)
    type_password(staff)
    expect(staff.page.get_by_role("heading", name="This sign-in is locked for now")).to_be_visible()
    staff.problems.clear()

    chief = window()
    chief.sign_in("chief")
    chief.open(reverse("admin:feeds_signinlock_changelist"))
    chief.check("failed-sign-ins", picture=True)
    chief.page.get_by_role("link", name="robin").click()
    chief.check("failed-sign-in")
    chief.page.get_by_role("link", name="Unlock").click()
    chief.check("unlock")
    chief.page.get_by_role("button", name="Unlock").click()
    expect(chief.page.get_by_text("robin may sign in again")).to_be_visible()
    type_password(staff)
    expect(staff.page).to_have_url(re.compile(r"/admin/$"))
    assert events() == ["sign_in_locked"]


def test_an_administrator_resets_second_factors(window: Window, robin: User) -> None:
    staff = window()
    staff.sign_in("robin")
    add_app(staff)
    UserFactory(username="chief", role="Administrators")
    chief = window()
    chief.sign_in("chief")
    chief.open(reverse("admin:auth_user_change", args=[robin.pk]))
    chief.check("person")
    chief.page.get_by_role("link", name="Reset second factors").click()
    chief.check("reset-second-factors")
    chief.page.get_by_label("Reason").fill("Lost the phone; known by voice.")
    chief.page.get_by_role("button", name="Reset second factors").click()
    expect(chief.page.get_by_text("has no second factor any more")).to_be_visible()
    staff.open("/admin/")
    expect(staff.page.get_by_role("heading", name="Sign in")).to_be_visible()


@pytest.mark.looks
@pytest.mark.parametrize(("width", "color_scheme"), WAYS, ids=["light", "dark", "narrow"])
def test_every_page_of_signing_in_is_accessible(window: Window, robin: User, width: int, color_scheme: str) -> None:
    staff = window(width=width, color_scheme=color_scheme)
    suffix = f"-{color_scheme}-{width}"
    type_password(staff, "not the password")
    staff.check("login-refused" + suffix)
    staff.open("/admin/login/?ended=idle&ended=not_saved&next=/admin/feeds/")
    staff.check("login-ended" + suffix)
    staff.sign_in("robin")
    add_app(staff)
    pages = ["mfa_index", "mfa_deactivate_totp", "mfa_list_webauthn", "mfa_add_webauthn", "mfa_view_recovery_codes"]
    for name in [
        *pages,
        "mfa_generate_recovery_codes",
        "account_logout",
        "account_reauthenticate",
        "mfa_reauthenticate",
    ]:
        staff.open(reverse(name))
        staff.check(name + suffix)


def end_in(seconds: int) -> None:
    """Let the only session there is end that soon."""
    (row,) = Session.objects.all()
    session = Session.get_session_store_class()(row.session_key)
    session[sessions.SEEN_AT] = int(time.time()) - 30 * 60 + seconds
    session.save()


def test_a_page_left_open_warns_and_the_button_keeps_one_signed_in(window: Window, robin: User) -> None:
    staff = window()
    staff.sign_in("robin")
    page = staff.page
    page.clock.install()
    staff.open(reverse("admin:password_change"))
    page.get_by_label("Old password").fill("half typed")
    end_in(100)
    page.clock.run_for(29 * 60_000)
    warning = page.get_by_role("alert")
    expect(warning).to_contain_text("You will be signed out within two minutes")
    staff.check("session-ends-soon", picture=True)
    page.get_by_role("button", name="Stay signed in").click()
    expect(warning).to_be_hidden()
    expect(page.get_by_label("Old password")).to_have_value("half typed")
    (row,) = Session.objects.all()
    assert time.time() - row.get_decoded()[sessions.SEEN_AT] < 60


def test_a_page_left_open_too_long_says_so_and_signing_in_leads_back(window: Window, robin: User) -> None:
    staff = window()
    staff.sign_in("robin")
    page = staff.page
    page.clock.install()
    wanted = reverse("admin:auth_user_changelist")
    staff.open(wanted)
    end_in(-1)
    page.clock.run_for(29 * 60_000)
    expect(page.get_by_role("alert")).to_contain_text("You were signed out.")
    staff.problems.clear()  # the browser itself reports the refusal
    staff.check("session-over")
    page.reload()
    expect(page.get_by_text("Signing in leads back to where you were.")).to_be_visible()
    page.get_by_label("Username").fill("robin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{staff.base_url}{wanted}")

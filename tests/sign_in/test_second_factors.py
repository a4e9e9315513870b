"""Authenticator apps and recovery codes; passkeys need a browser (tests/browser/test_sign_in.py)."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.contrib.auth.models import User
from django.core.cache import caches
from django.db import connection
from django.test import Client, TestCase
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from backoffice import settings as product
from feeds.admin.actions import JUDGED_ON
from feeds.audit import Actor
from feeds.banking import mask
from feeds.models import Approval, AuditEntry
from feeds.services import approvals, second_factors
from feeds.sign_in import sessions
from feeds.sign_in.second_factors import OPEN_WITHOUT
from feeds.sign_in.urls import urlpatterns as sign_in_urls
from tests.factories import CompanyFactory, UserFactory
from tests.sign_in.people import add_app, code, events_of, is_in, log_in, recovery_codes

pytestmark = pytest.mark.django_db

ASK = "/admin/second-factors/ask/"
MY_PAGES = [url.name or "" for url in sign_in_urls if "second-factors" in str(url.pattern)]
ABOUT_CODES = ("mfa_index", "mfa_view_recovery_codes", "mfa_generate_recovery_codes")


@pytest.fixture
def robin() -> User:
    """Somebody without a second factor."""
    user: User = UserFactory(username="robin", role="Administrators")
    return user


def signed_in(username: str = "robin") -> Client:
    """Their browser, after the password."""
    client = Client()
    log_in(client, username)
    return client


class TestSigningIn:
    """With a second factor."""

    def test_the_password_alone_opens_nothing(self, robin: User) -> None:
        add_app(signed_in())
        client = Client()
        answer = log_in(client, "robin")
        assert answer["Location"] == ASK
        assert not is_in(client)

    def test_the_code_of_the_app_opens(self, robin: User) -> None:
        secret = add_app(signed_in())
        client = Client()
        wanted = reverse("admin:auth_user_changelist")
        log_in(client, "robin", to=wanted)
        answer = client.post(ASK, {"code": code(secret)})
        assert answer["Location"] == wanted
        assert is_in(client)
        assert events_of(robin)[-1] == "authenticator_app_used"

    def test_a_code_opens_once(self, robin: User) -> None:
        secret = add_app(signed_in())
        now = code(secret)
        first, second = signed_in(), signed_in()
        assert first.post(ASK, {"code": now}).status_code == 302
        answer = second.post(ASK, {"code": now})
        assert "was not accepted" in answer.content.decode()
        assert not is_in(second)

    def test_codes_cannot_be_guessed_for_long_and_each_guess_is_in_the_history(self, robin: User) -> None:
        secret = add_app(signed_in())
        client = signed_in()
        for number in range(5):
            assert "was not accepted" in client.post(ASK, {"code": f"00000{number}"}).content.decode()
        assert "Too many tries" in client.post(ASK, {"code": code(secret)}).content.decode()
        assert not is_in(client)
        assert events_of(robin).count("second_factor_failed") == 5

    def test_a_recovery_code_opens_once(self, robin: User) -> None:
        browser = signed_in()
        add_app(browser)
        codes = recovery_codes(browser)
        assert len(codes) == 10
        first, second = signed_in(), signed_in()
        assert first.post(ASK, {"code": codes[0]}).status_code == 302
        assert is_in(first)
        assert events_of(robin)[-1] == "recovery_code_used"
        second.post(ASK, {"code": codes[0]})
        assert not is_in(second)

    def test_the_page_of_codes_is_of_no_use_before_the_password(self, robin: User) -> None:
        assert Client().get(ASK)["Location"] == reverse("account_login")


def test_used_codes_and_limits_are_known_to_every_process(settings: Any) -> None:
    settings.CACHES = product.CACHES
    assert caches["default"].add("code", "y", timeout=60)
    other = type(caches["default"])(product.CACHES["default"]["LOCATION"], {})
    assert not other.add("code", "y", timeout=60)


class TestOnesOwn:
    """What a person does with their own second factors."""

    def test_adding_and_removing_is_in_the_history(self, robin: User) -> None:
        browser = signed_in()
        add_app(browser)
        assert browser.post(reverse("mfa_deactivate_totp")).status_code == 302
        assert not Authenticator.objects.exists()
        assert events_of(robin) == ["second_factor_added", "second_factor_added"] + ["second_factor_removed"] * 2
        entry = AuditEntry.objects.filter(event="second_factor_added").last()
        assert entry is not None
        assert (entry.actor, entry.additional_data) == (robin, {"kind": "totp"})

    def test_renaming_a_passkey_is_in_the_history(self, robin: User) -> None:
        browser, data = signed_in(), {"name": "Work phone", "credential": {}}
        passkey = Authenticator.objects.create(user=robin, type="webauthn", data=data)
        for name in ("Phone 4030-0556-7719", "Phone 4030-0556-7719"):
            assert browser.post(reverse("mfa_edit_webauthn", args=[passkey.pk]), {"name": name}).status_code == 302
        passkey.refresh_from_db()
        assert passkey.data["name"] == "Phone 4030-0556-7719"
        entry = AuditEntry.objects.get(event="passkey_renamed")
        assert (entry.actor, entry.object_pk, entry.source) == (robin, str(robin.pk), "sign-in")
        assert entry.additional_data == {"before": "Work phone", "name": f"Phone {mask('4030-0556-7719')}"}

    def test_recovery_codes_are_shown_once(self, robin: User) -> None:
        browser = signed_in()
        add_app(browser)
        assert len(recovery_codes(browser)) == 10
        assert recovery_codes(browser) == []

    def test_new_recovery_codes_end_the_old_ones(self, robin: User) -> None:
        browser = signed_in()
        add_app(browser)
        old = recovery_codes(browser)
        with TestCase.captureOnCommitCallbacks(execute=True):
            assert browser.post(reverse("mfa_generate_recovery_codes")).status_code == 302
        new = recovery_codes(browser)
        assert not set(old) & set(new)
        assert events_of(robin)[-1] == "recovery_codes_made"
        client = signed_in()
        client.post(ASK, {"code": old[0]})
        assert not is_in(client)

    def test_after_a_while_one_proves_again_who_one_is(self, robin: User) -> None:
        browser = signed_in()
        session = browser.session
        session[sessions.SIGNED_IN_AT] -= 301
        session.save()
        add = reverse("mfa_activate_totp")
        answer = browser.get(add)
        confirm = reverse("account_reauthenticate")
        assert answer["Location"].startswith(confirm)
        assert browser.post(answer["Location"], {"password": "not it"}).status_code == 200
        assert browser.get(add).status_code == 302
        answer = browser.post(answer["Location"], {"password": "a long invented pass phrase"})
        assert answer["Location"] == add
        assert browser.get(add).status_code == 200

    def test_who_has_no_password_proves_it_by_signing_in_again(self, robin: User) -> None:
        robin.set_unusable_password()
        robin.save()
        browser = Client()
        browser.force_login(robin)
        session = browser.session
        session[sessions.SIGNED_IN_AT] -= 301
        session.save()
        page = browser.get(reverse("mfa_activate_totp"), follow=True)
        assert page.redirect_chain[-1][0].startswith("/admin/logout/")
        assert "sign out and in again" in page.content.decode()

    def test_pages_that_show_secrets_are_kept_by_no_browser(self, robin: User) -> None:
        browser = signed_in()
        assert "no-store" in browser.get(reverse("mfa_activate_totp"))["Cache-Control"]


class TestAtRest:
    """How secrets lie in the database."""

    def test_neither_secrets_nor_codes_can_be_read_there(self, robin: User) -> None:
        browser = signed_in()
        secret = add_app(browser)
        codes = recovery_codes(browser)
        with connection.cursor() as cursor:
            cursor.execute("SELECT data FROM mfa_authenticator")
            stored = str(cursor.fetchall())
        assert secret not in stored
        assert not [each for each in codes if each in stored]

    def test_a_new_secret_key_opens_them_with_the_old_one_beside_it_and_seals_them_again(
        self, robin: User, settings: Any
    ) -> None:
        secret = add_app(signed_in())
        old = settings.SECRET_KEY
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "a new key " * 6, [old]
        assert second_factors.reseal() == 2
        assert second_factors.reseal() == 0
        settings.SECRET_KEY_FALLBACKS = []
        client = signed_in()
        assert client.post(ASK, {"code": code(secret)}).status_code == 302

    def test_without_the_key_nothing_opens_and_one_is_told_whom_to_ask(self, robin: User, settings: Any) -> None:
        secret = add_app(signed_in())
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another key " * 5, []
        assert second_factors.reseal() == 0
        client = signed_in()
        for guess in (code(secret), code(""), "000000"):
            assert "Ask an administrator to reset it" in client.post(ASK, {"code": guess}).content.decode()
        assert not is_in(client)

    # Of a passkey nothing is sealed.
    @pytest.mark.parametrize("name", [n for n in MY_PAGES if "webauthn" not in n])
    def test_without_the_key_no_page_about_second_factors_fails(self, robin: User, settings: Any, name: str) -> None:
        add_app(signed_in())
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another key " * 5, []
        browser = Client()
        browser.force_login(robin)
        page = browser.get(reverse(name), follow=True)
        assert page.status_code == 200
        assert name not in ABOUT_CODES or "Ask an administrator to reset it" in page.content.decode()

    def test_codes_without_the_key_and_without_another_factor_lead_round_in_no_circle(
        self, robin: User, settings: Any
    ) -> None:
        browser = signed_in()
        add_app(browser)
        settings.REQUIRE_SECOND_FACTOR = True
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another key " * 5, []
        Authenticator.objects.filter(type=Authenticator.Type.TOTP).delete()
        browser = Client()
        browser.force_login(robin)
        page = browser.get(reverse("mfa_view_recovery_codes"), follow=True)
        assert page.status_code == 200
        assert "Ask an administrator to reset it" in page.content.decode()


def every_address() -> dict[str, str]:
    """Name and an example of every address of the site, with numbers where something has to stand."""
    found: dict[str, str] = {}

    def walk(resolver: URLResolver, namespace: str) -> None:
        for entry in resolver.url_patterns:
            if isinstance(entry, URLResolver):
                walk(entry, f"{namespace}{entry.namespace}:" if entry.namespace else namespace)
            elif isinstance(entry, URLPattern) and entry.name:
                name = f"{namespace}{entry.name}"
                fill = {key: 1 for key in entry.pattern.converters}
                fill |= {key: "onboard" for key in fill if key in ("action_name", "provider_id")}
                fill |= {key: 1 for key in getattr(entry.pattern, "regex").groupindex if key not in fill}  # noqa: B009
                if "app_label" in fill:
                    fill["app_label"] = "feeds"
                found[name] = reverse(name, kwargs=fill)

    walk(get_resolver(), "")
    return found


class TestWhereOneIsRequired:
    """REQUIRE_SECOND_FACTOR, as in production."""

    @pytest.fixture(autouse=True)
    def _required(self, settings: Any) -> None:
        settings.REQUIRE_SECOND_FACTOR = True

    def test_one_is_led_to_set_one_up_and_then_goes_on(self, robin: User) -> None:
        browser = Client()
        answer = log_in(browser, "robin", follow=True)
        assert answer.redirect_chain[-1][0] == reverse("mfa_index")
        assert "Set up a second factor first" in answer.content.decode()
        add_app(browser)
        assert len(recovery_codes(browser)) == 10
        assert is_in(browser)

    def test_no_other_address_answers_until_then(self, robin: User) -> None:
        browser = signed_in()
        addresses = every_address()
        assert len(addresses) > 80
        assert addresses.keys() >= OPEN_WITHOUT
        for name, address in addresses.items():
            if name in OPEN_WITHOUT or name == "admin:login" or name == "admin:logout":
                continue
            for answer in (browser.get(address), browser.post(address)):
                assert (answer.status_code, answer.get("Location")) == (302, reverse("mfa_index")), name

    def test_nothing_that_is_sent_before_is_done(self, robin: User) -> None:
        company = CompanyFactory()
        signed_in().post(reverse("admin:feeds_company_delete", args=[company.pk]), {"post": "yes"})
        company.refresh_from_db()

    def test_recovery_codes_alone_are_none(self, robin: User) -> None:
        browser = signed_in()
        add_app(browser)
        Authenticator.objects.filter(type="totp").delete()
        assert not is_in(browser)

    def test_the_last_one_cannot_be_removed(self, robin: User) -> None:
        browser = signed_in()
        add_app(browser)
        page = browser.get(reverse("mfa_deactivate_totp")).content.decode()
        assert "Add another one first" in page or "cannot deactivate" in page
        browser.post(reverse("mfa_deactivate_totp"))
        assert Authenticator.objects.filter(type="totp").exists()

    def test_where_it_is_not_required_nobody_is_asked(self, robin: User, settings: Any) -> None:
        settings.REQUIRE_SECOND_FACTOR = False
        assert is_in(signed_in())


REASON = "Lost the phone; known by voice."


def url(user: User) -> str:
    """The reset action of this person."""
    return reverse("admin:auth_user_action", args=[user.pk, "reset-second-factors"])


def chief(*permissions: str, **values: Any) -> Client:
    """An administrator's browser, or one of somebody with only these rights."""
    client = Client()
    if permissions:
        client.force_login(UserFactory(username="chief", permissions=permissions, **values))
    else:
        client.force_login(UserFactory(username="chief", role="Administrators", **values))
    return client


def ask_for_reset(client: Client, user: User) -> str:
    """Ask a colleague for it through the page; what the page said before."""
    page = client.get(url(user)).content.decode()
    shown = re.findall(rf'name="{JUDGED_ON}" value="(\w+)"', page)
    assert client.post(url(user), {JUDGED_ON: shown[0], "reason": REASON}).status_code == 302
    return page


class TestReset:
    """The action that takes second factors away."""

    def test_it_works(self, robin: User) -> None:
        theirs = signed_in()
        add_app(theirs)
        recovery_codes(theirs)
        browser = chief()
        page = browser.get(url(robin)).content.decode()
        assert "loses: authenticator app, recovery codes." in page
        assert (
            "has no second factor any more"
            in browser.post(url(robin), {"reason": REASON}, follow=True).content.decode()
        )
        assert not Authenticator.objects.exists()
        assert not is_in(theirs)
        assert is_in(signed_in())
        assert is_in(browser)

    def test_without_the_right_it_is_hidden_and_refused(self, robin: User) -> None:
        add_app(signed_in())
        browser = chief("auth.view_user", "auth.change_user")
        assert url(robin) not in browser.get(reverse("admin:auth_user_change", args=[robin.pk])).content.decode()
        assert browser.get(url(robin)).status_code == 403
        assert browser.post(url(robin), {"reason": REASON}).status_code == 403
        assert Authenticator.objects.exists()

    def test_an_auditor_may_not(self, robin: User) -> None:
        client = Client()
        client.force_login(UserFactory(role="Compliance auditors"))
        assert client.post(url(robin), {"reason": REASON}).status_code == 403

    def test_who_has_none_and_oneself_are_refused_in_words(self, robin: User) -> None:
        browser = chief()
        assert "has no second factor." in browser.post(url(robin), {"reason": REASON}).content.decode()
        own = User.objects.get(username="chief")
        add_app(signed_in("chief"))
        page = browser.post(url(own), {"reason": REASON}).content.decode()
        assert "are changed under “Second factors”" in page
        assert Authenticator.objects.filter(user=own).exists()

    def test_a_superuser_is_out_of_an_administrators_reach(self) -> None:
        superuser = UserFactory(username="root", is_superuser=True)
        add_app(signed_in("root"))
        page = chief().post(url(superuser), {"reason": REASON}).content.decode()
        assert "by superusers only" in page
        assert Authenticator.objects.filter(user=superuser).exists()

    def test_a_reason_is_asked_for_and_kept(self, robin: User) -> None:
        add_app(signed_in())
        browser = chief()
        assert browser.post(url(robin), {"reason": ""}).status_code == 200
        assert Authenticator.objects.exists()
        browser.post(url(robin), {"reason": REASON})
        entry = AuditEntry.objects.get(event="second_factors_reset")
        assert (entry.object_pk, entry.actor.username, entry.reason) == (str(robin.pk), "chief", REASON)
        assert entry.additional_data == {"factors": 2, "unbound": 0, "sessions": 1}

    def test_as_shipped_a_colleague_has_to_approve(self, robin: User, settings: Any) -> None:
        settings.FOUR_EYES = settings.PRODUCT_FOUR_EYES
        theirs = signed_in()
        add_app(theirs)
        browser = chief()
        assert "A colleague has to approve this" in ask_for_reset(browser, robin)
        assert "Nothing was done yet" in browser.get(url(robin)).content.decode()
        assert is_in(theirs)
        approval = Approval.objects.get()
        decide = reverse("admin:feeds_approval_action", args=[approval.pk, "approve"])
        assert "You asked for this yourself" in browser.post(decide, {"comment": ""}).content.decode()
        theirs.post(decide, {"comment": ""})
        assert Authenticator.objects.exists()

        other = Client()
        other.force_login(UserFactory(username="second", first_name="Sol", last_name="Two", role="Administrators"))
        page = other.post(decide, {"comment": "Called back."}, follow=True).content.decode()
        assert "has no second factor any more, and is signed out." in page
        assert not Authenticator.objects.exists()
        assert not is_in(theirs)
        entry = AuditEntry.objects.get(event="second_factors_reset")
        assert (entry.object_pk, entry.actor.username) == (str(robin.pk), "chief")
        assert entry.reason.startswith(f"{REASON} (asked by ")
        assert entry.reason.endswith("approved by Sol Two)")

    def test_factors_that_changed_meanwhile_are_asked_about_anew(self, robin: User, settings: Any) -> None:
        settings.FOUR_EYES = settings.PRODUCT_FOUR_EYES
        theirs = signed_in()
        add_app(theirs)
        ask_for_reset(chief(), robin)
        Authenticator.objects.create(user=robin, type="webauthn", data={"name": "New phone"})
        decider = UserFactory(role="Administrators")
        done = approvals.approve(Approval.objects.get(), actor=Actor.person(decider, source="admin"))
        assert done.outcome.startswith("Changed since it was asked: Passkeys: 0 → 1.")
        assert Authenticator.objects.filter(type="totp").exists()

    def test_an_administrator_cannot_even_ask_about_a_superuser(self, settings: Any) -> None:
        settings.FOUR_EYES = settings.PRODUCT_FOUR_EYES
        superuser = UserFactory(username="root", is_superuser=True)
        add_app(signed_in("root"))
        assert "by superusers only" in chief().post(url(superuser), {"reason": REASON}).content.decode()
        assert not Approval.objects.exists()

    def test_the_page_of_a_person_names_their_factors_and_shows_no_secret(self, robin: User) -> None:
        secret = add_app(signed_in())
        page = chief().get(reverse("admin:auth_user_change", args=[robin.pk])).content.decode()
        assert "authenticator app, recovery codes" in page
        assert secret not in page
        assert json.dumps(Authenticator.objects.get(type="totp").data["secret"]) not in page

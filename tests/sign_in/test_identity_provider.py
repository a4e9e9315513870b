"""OpenID Connect against an issuer on the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
import requests
import responses
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialToken
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.factories import PASSWORD, UserFactory
from tests.sign_in.people import add_app, code, events_of, is_in, log_in

pytestmark = pytest.mark.django_db

ISSUER = "https://id.bank.example"
CLIENT_SECRET = "an invented client secret"
START = "/admin/oidc/staff/login/"
BACK = "/admin/oidc/staff/login/callback/"


class Issuer:
    """A small identity provider; `claims` is whom it has at the keyboard."""

    def __init__(self, wire: responses.RequestsMock, url: str = ISSUER) -> None:
        self.claims: dict[str, Any] = {"sub": "8f2", "email": "robin@bank.example", "email_verified": True}
        self.wire = wire
        self.url = url
        config = {
            "issuer": url,
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
            "userinfo_endpoint": f"{url}/userinfo",
            "jwks_uri": f"{url}/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        }
        wire.get(f"{url}/.well-known/openid-configuration", json=config)
        wire.add_callback(responses.POST, f"{url}/token", self._token)
        wire.add_callback(responses.GET, f"{url}/userinfo", lambda _r: (200, {}, json.dumps(self.claims)))

    def _token(self, request: Any) -> tuple[int, dict[str, str], str]:
        sent = parse_qs(str(request.body))
        assert sent["client_secret"] == [CLIENT_SECRET]
        assert sent["code_verifier"]
        body = {"iss": self.url, "aud": "backoffice", "exp": 4102444800, "iat": 1, **self.claims}
        token = jwt.encode(body, "of no importance: the connection is encrypted", algorithm="HS256")
        return 200, {}, json.dumps({"access_token": "at", "token_type": "Bearer", "id_token": token})

    def sign_in(self, client: Client, to: str = "") -> Any:
        """Press the button, agree there, come back; the answer here."""
        away = urlsplit(client.get(START, {"next": to} if to else {})["Location"])
        asked = parse_qs(away.query)
        assert f"{away.scheme}://{away.netloc}{away.path}" == f"{self.url}/authorize"
        assert asked["code_challenge_method"] == ["S256"]
        assert asked["redirect_uri"] == [f"http://testserver{BACK}"]
        return client.get(BACK, {"code": "c", "state": asked["state"][0]})


@pytest.fixture
def issuer(settings: Any) -> Iterator[Issuer]:
    """The provider, and the product set up for it."""
    settings.OIDC_ISSUER, settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET = ISSUER, "backoffice", CLIENT_SECRET
    settings.OIDC_NAME = "Bank ID"
    with responses.RequestsMock(assert_all_requests_are_fired=False) as wire:
        yield Issuer(wire)


@pytest.fixture
def robin() -> User:
    """Made by an administrator, with the address that the provider knows."""
    user: User = UserFactory(username="robin", email="Robin@bank.example")
    return user


def told(client: Client) -> str:
    """The sign-in page one was led back to."""
    return client.get(reverse("account_login")).content.decode()


def test_whom_an_administrator_made_comes_in(issuer: Issuer, robin: User) -> None:
    client = Client()
    wanted = reverse("admin:password_change")
    assert issuer.sign_in(client, to=wanted)["Location"] == wanted
    assert is_in(client)
    assert events_of(robin) == ["identity_provider_bound", "identity_provider_used"]
    robin.refresh_from_db()
    assert robin.check_password(PASSWORD)


def test_the_page_offers_it_only_where_there_is_one(issuer: Issuer, settings: Any) -> None:
    assert f'href="{START}?next=/admin/feeds/"' in Client().get("/admin/login/?next=/admin/feeds/").content.decode()
    settings.OIDC_ISSUER = ""
    assert START not in told(Client())
    assert Client().get(START).status_code == 404


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "stranger@bank.example"},
        {"email_verified": False},
        {"email_verified": None},
        {"email": ""},
    ],
)
def test_nobody_else_comes_in_and_nobody_is_made(issuer: Issuer, robin: User, claims: dict[str, Any]) -> None:
    issuer.claims |= claims
    client = Client()
    assert issuer.sign_in(client)["Location"] == reverse("account_login")
    assert "Nobody here has your e-mail address." in told(client)
    assert not is_in(client)
    assert list(User.objects.all()) == [robin]
    assert not SocialAccount.objects.exists()


@pytest.mark.parametrize("lost", ["is_active", "is_staff"])
def test_who_may_no_more_does_not_come_in(issuer: Issuer, robin: User, lost: str) -> None:
    issuer.sign_in(Client())
    User.objects.filter(pk=robin.pk).update(**{lost: False})
    client = Client()
    issuer.sign_in(client)
    assert "Ask an administrator." in told(client)
    assert not is_in(client)


def test_an_address_that_two_people_have_opens_neither(issuer: Issuer, robin: User) -> None:
    UserFactory(email="robin@bank.example")
    client = Client()
    issuer.sign_in(client)
    assert not is_in(client)


def test_an_address_given_to_a_new_colleague_opens_no_old_account(issuer: Issuer, robin: User) -> None:
    issuer.sign_in(Client())
    issuer.claims["sub"] = "9a7"
    client = Client()
    issuer.sign_in(client)
    assert not is_in(client)


def test_the_same_identity_at_another_provider_is_somebody_else(issuer: Issuer, robin: User, settings: Any) -> None:
    issuer.sign_in(Client())
    settings.OIDC_ISSUER = "https://id.other.example"
    other = Issuer(issuer.wire, settings.OIDC_ISSUER)
    other.claims["email"] = "mallory@other.example"
    client = Client()
    other.sign_in(client)
    assert not is_in(client)
    other.claims |= {"email": "robin@bank.example", "sub": "77c"}
    other.sign_in(client)  # a bank that changes its provider: each is bound anew, by the verified address
    assert is_in(client)
    assert events_of(robin).count("identity_provider_bound") == 2


def test_whom_it_knows_it_knows_by_identity_whatever_the_address(issuer: Issuer, robin: User) -> None:
    issuer.sign_in(Client())
    issuer.claims["email"] = "renamed@bank.example"
    client = Client()
    issuer.sign_in(client)
    assert is_in(client)


def test_nothing_it_says_is_kept(issuer: Issuer, robin: User) -> None:
    issuer.sign_in(Client())
    issuer.sign_in(Client())
    assert SocialAccount.objects.get().extra_data == {}
    assert not SocialToken.objects.exists()


def test_a_second_factor_is_asked_for_here_too(issuer: Issuer, robin: User) -> None:
    browser = Client()
    log_in(browser, "robin")
    add_app(browser)
    client = Client()
    assert issuer.sign_in(client)["Location"] == reverse("mfa_authenticate")
    assert not is_in(client)


def test_unless_the_provider_is_trusted_to_have_asked(issuer: Issuer, robin: User, settings: Any) -> None:
    settings.OIDC_IS_SECOND_FACTOR = settings.REQUIRE_SECOND_FACTOR = True
    client = Client()
    issuer.sign_in(client)
    assert is_in(client)
    assert not Authenticator.objects.exists()
    by_password = Client()
    log_in(by_password, "robin")
    assert not is_in(by_password)


@pytest.mark.parametrize("is_trusted", [True, False])
def test_the_first_time_a_second_factor_here_comes_before_anything_is_bound(
    issuer: Issuer, robin: User, settings: Any, is_trusted: bool
) -> None:
    settings.OIDC_IS_SECOND_FACTOR = is_trusted
    browser = Client()
    log_in(browser, "robin")
    secret = add_app(browser)
    for _ in range(2):
        intruder = Client()
        assert issuer.sign_in(intruder)["Location"] == reverse("mfa_authenticate")
        assert not is_in(intruder)
        assert not SocialAccount.objects.exists()
    client = Client()
    issuer.sign_in(client)
    client.post(reverse("mfa_authenticate"), {"code": code(secret)})
    assert is_in(client)
    assert SocialAccount.objects.get().extra_data == {}
    assert events_of(robin)[-3:] == ["authenticator_app_used", "identity_provider_bound", "identity_provider_used"]
    again = Client()
    issuer.sign_in(again)
    assert is_in(again) is is_trusted


def test_a_second_identity_cannot_be_tied_to_oneself(issuer: Issuer, robin: User) -> None:
    client = Client()
    log_in(client, "robin")
    away = client.get(START, {"process": "connect"})["Location"]
    client.get(BACK, {"code": "c", "state": parse_qs(urlsplit(away).query)["state"][0]})
    assert not SocialAccount.objects.exists()


def test_an_answer_that_nobody_asked_for_is_refused(issuer: Issuer, robin: User) -> None:
    client = Client()
    assert client.get(BACK, {"code": "c", "state": "made up"})["Location"] == reverse("account_login")
    assert "It did not confirm who you are." in told(client)


@pytest.mark.parametrize("trouble", [{"status": 500}, {"body": requests.ConnectionError("no route")}, {"json": {}}])
def test_a_provider_in_trouble_is_said_in_words(robin: User, settings: Any, trouble: dict[str, Any]) -> None:
    settings.OIDC_ISSUER, settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET = ISSUER, "backoffice", CLIENT_SECRET
    client = Client()
    with responses.RequestsMock() as wire:
        wire.get(f"{ISSUER}/.well-known/openid-configuration", **trouble)
        assert client.get(START)["Location"] == reverse("account_login")
    assert "You could not be signed in" in told(client)


def test_the_provider_may_be_the_only_way(issuer: Issuer, robin: User, settings: Any) -> None:
    settings.PASSWORD_SIGN_IN = False
    client = Client()
    page = told(client)
    assert "Sign in with Bank ID" in page
    assert 'name="password"' not in page
    issuer.sign_in(client)
    assert is_in(client)

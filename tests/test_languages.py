"""Each person reads the product in the language they chose, and it stays chosen."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client
from django.urls import reverse
from django.utils import translation
from django.utils.formats import date_format

from feeds.admin.companies import CompanyAdmin
from feeds.models import AuditEntry, Preference
from feeds.services import preferences
from feeds.states import Language
from tests.factories import PASSWORD, UserFactory

pytestmark = pytest.mark.django_db

HOME = reverse("admin:index")


def sign_in(user: User, **options: object) -> Client:
    """A new browser, through the sign-in page's own machinery."""
    client = Client(**options)  # type: ignore[arg-type]
    client.force_login(user)
    return client


def choose(client: Client, language: str, *, next: str = HOME) -> str:
    """Press the button of a language; the address it leads back to."""
    answer = client.post(reverse("language"), {"language": language, "next": next})
    assert answer.status_code == 302
    return answer.headers["Location"]


def language_of(client: Client, url: str = HOME, **headers: str) -> str:
    """The `lang` of the page."""
    page = client.get(url, headers=headers).content.decode()
    return page.split('<html lang="')[1][:2]


def test_before_anybody_chose_the_browser_decides() -> None:
    assert language_of(Client(), reverse("admin:login")) == "en"
    assert language_of(Client(), reverse("admin:login"), accept_language="fr-CA,fr;q=0.9,en;q=0.8") == "fr"
    assert language_of(sign_in(UserFactory(role="Support")), accept_language="fr-CA") == "fr"


@pytest.mark.parametrize("name", ["index", "password_change", "password_change_done"])
def test_every_page_has_the_switch_and_the_way_to_ones_second_factors(name: str) -> None:
    page = sign_in(UserFactory(role="Support")).get(reverse(f"admin:{name}")).content.decode()
    assert page.count('class="language-switch"') == 1
    assert f'href="{reverse("mfa_index")}"' in page


def test_a_choice_outlives_the_session_and_reaches_another_device() -> None:
    user = UserFactory(role="Support")
    client = sign_in(user)
    choose(client, "fr")
    assert language_of(client) == "fr"
    client.logout()
    assert language_of(sign_in(user), accept_language="en") == "fr"


def test_the_choice_comes_along_through_the_sign_in_page_too() -> None:
    user = UserFactory(role="Support")
    preferences.choose_language(user, Language.FR)
    client = Client()
    client.post(reverse("admin:login"), {"username": user.username, "password": PASSWORD, "next": HOME})
    assert language_of(client) == "fr"


def test_a_choice_is_changed_not_added() -> None:
    user = UserFactory(role="Support")
    client = sign_in(user)
    choose(client, "fr")
    choose(client, "en")
    assert language_of(client, accept_language="fr") == "en"
    assert Preference.objects.get(user=user).language == "en"


def test_the_sign_in_page_offers_the_other_language_and_the_browser_remembers() -> None:
    client = Client()
    page = client.get(reverse("admin:login")).content.decode()
    assert 'value="fr" lang="fr">Français</button>' in page
    assert choose(client, "fr", next=reverse("admin:login")) == reverse("admin:login")
    page = client.get(reverse("admin:login")).content.decode()
    assert "Ouvrir une session" in page
    assert 'value="en" lang="en">English</button>' in page


def test_another_persons_browser_is_not_changed() -> None:
    one, other = UserFactory(role="Support"), UserFactory(role="Support")
    choose(sign_in(one), "fr")
    assert language_of(sign_in(other)) == "en"


def test_choosing_is_a_post_with_a_token() -> None:
    client = sign_in(UserFactory(role="Support"), enforce_csrf_checks=True)
    assert client.get(reverse("language")).status_code == 405
    assert client.post(reverse("language"), {"language": "fr"}).status_code == 403
    assert not Preference.objects.exists()


def test_a_language_that_there_is_not_is_refused_in_words() -> None:
    client = sign_in(UserFactory(role="Support"))
    answer = client.post(reverse("language"), {"language": "tlh"})
    assert answer.status_code == 400
    assert "Nothing was done." in answer.content.decode()


def test_a_foreign_address_to_go_back_to_is_not_followed() -> None:
    client = sign_in(UserFactory(role="Support"))
    for foreign in ("https://elsewhere.example/", "//elsewhere.example/", "javascript:alert(1)", ""):
        assert choose(client, "fr", next=foreign) == HOME
    assert choose(client, "fr", next="/admin/feeds/company/?q=1") == "/admin/feeds/company/?q=1"


def test_a_choice_is_in_the_change_history_with_its_author() -> None:
    user = UserFactory(role="Support")
    choose(sign_in(user), "fr")
    entry = AuditEntry.objects.get(content_type__model="preference")
    assert entry.actor == user
    assert entry.changes["language"] == ["None", "fr"]


def test_the_language_costs_no_query_on_a_page(django_assert_num_queries: object) -> None:
    user = UserFactory(role="Support")
    preferences.choose_language(user, Language.FR)
    client = sign_in(user)
    with_choice = _queries_of(client)
    Preference.objects.all().delete()
    assert with_choice == _queries_of(sign_in(user))


def _queries_of(client: Client) -> int:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        assert client.get(HOME).status_code == 200
    return len(queries)


def test_error_pages_are_in_the_persons_language(monkeypatch: pytest.MonkeyPatch) -> None:
    user = UserFactory(role="Support")
    preferences.choose_language(user, Language.FR)
    client = sign_in(user, raise_request_exception=False)
    assert language_of(client, "/no-such-page/") == "fr"
    assert "Votre rôle ne le permet pas" in client.get(reverse("admin:feeds_auditentry_changelist")).content.decode()

    def break_down(*_args: object, **_options: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(CompanyAdmin, "get_queryset", break_down)
    answer = client.get(reverse("admin:feeds_company_changelist"))
    assert answer.status_code == 500
    assert '<html lang="fr">' in answer.content.decode()

    strict = sign_in(user, enforce_csrf_checks=True)
    answer = strict.post(reverse("admin:feeds_company_changelist"))
    assert answer.status_code == 403
    assert "Rien n’a été fait" in answer.content.decode()


def test_dates_and_numbers_are_written_as_in_canada() -> None:
    from datetime import UTC, datetime

    from django.utils import translation
    from django.utils.formats import date_format, number_format

    at = datetime(2026, 11, 26, 13, 40, tzinfo=UTC)
    with translation.override("fr"):
        assert date_format(at, "DATE_FORMAT") == "26 novembre 2026"
        assert date_format(at, "SHORT_DATE_FORMAT") == "2026-11-26"
        assert number_format(1234567.5, decimal_pos=2, force_grouping=True) == "1\xa0234\xa0567,50"


def test_addresses_are_written_to_in_their_owners_language() -> None:
    french, english, silent = (UserFactory(role="Support") for _ in range(3))
    preferences.choose_language(french, Language.FR)
    preferences.choose_language(english, Language.EN)
    addresses = [french.email.upper(), english.email, silent.email, "team@bank.example"]
    assert preferences.by_language(addresses) == {
        "fr": [french.email.upper()],
        "en": [english.email, silent.email, "team@bank.example"],
    }
    assert settings.LANGUAGE_CODE == "en"
    assert mail.outbox == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [("SHORT_DATE_FORMAT", "6 Nov 2026"), ("SHORT_DATETIME_FORMAT", "6 Nov 2026, 2:05 p.m.")],
)
def test_no_date_in_english_can_be_read_as_another_day(name: str, shown: str) -> None:
    with translation.override("en"):
        assert date_format(datetime(2026, 11, 6, 14, 5, tzinfo=UTC), name) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("TIME_FORMAT", "14 h 05"),
        ("DATETIME_FORMAT", "26 novembre 2026, 14 h 05"),
        ("SHORT_DATETIME_FORMAT", "2026-11-26 14 h 05"),
    ],
)
def test_a_time_in_french_says_its_hour_once(name: str, shown: str) -> None:
    with translation.override("fr"):
        at = datetime(2026, 11, 26, 14, 5, tzinfo=UTC)
        assert date_format(at, name).replace("\N{NO-BREAK SPACE}", " ") == shown

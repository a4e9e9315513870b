"""By user name and password: who gets in, what others are told, where one lands."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from feeds.models import AuditEntry
from tests.factories import PASSWORD, UserFactory
from tests.sign_in.people import is_in, log_in

pytestmark = pytest.mark.django_db

LOGIN = "/admin/login/"


def test_the_right_password_opens_the_home_page() -> None:
    client = Client()
    UserFactory(username="robin")
    answer = log_in(client, "robin")
    assert (answer.status_code, answer["Location"]) == (302, reverse("admin:index"))
    assert is_in(client)


def test_one_is_led_to_where_one_wanted_to_go() -> None:
    UserFactory(username="robin", role="Administrators")
    client = Client()
    wanted = reverse("admin:auth_user_changelist")
    refused = client.get(wanted)
    assert refused["Location"] == f"{LOGIN}?next={wanted}"
    page = client.get(refused["Location"]).content.decode()
    assert f'<input type="hidden" name="next" value="{wanted}">' in page
    answer = client.post(LOGIN, {"username": "robin", "password": PASSWORD, "next": wanted})
    assert answer["Location"] == wanted


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
def test_nobody_is_led_away_from_here(target: str) -> None:
    UserFactory(username="robin")
    answer = Client().post(LOGIN, {"username": "robin", "password": PASSWORD, "next": target})
    assert answer["Location"] == reverse("admin:index")


def _told(client: Client, **who: Any) -> tuple[int, list[str]]:
    answer = log_in(client, **who)
    return answer.status_code, re.findall(r'<p class="errornote" role="alert">(.+?)</p>', answer.content.decode())


def test_a_wrong_password_an_unknown_name_and_somebody_who_may_not_are_told_the_same() -> None:
    UserFactory(username="robin")
    UserFactory(username="gone", is_active=False)
    UserFactory(username="outsider", is_staff=False)
    answers = [
        _told(Client(), username="robin", password="not the password"),
        _told(Client(), username="nobody", password=PASSWORD),
        _told(Client(), username="gone", password=PASSWORD),
        _told(Client(), username="outsider", password=PASSWORD),
    ]
    assert answers[0][1]
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("typed", ["robin", "ROBIN", "Robin"])
def test_a_failure_stands_in_the_story_of_whose_name_it_was_in_whatever_capitals(typed: str) -> None:
    user = UserFactory(username="robin")
    log_in(Client(), typed, "not the password")
    assert AuditEntry.objects.get(event="sign_in_failed").object_pk == str(user.pk)


@pytest.mark.parametrize("lost", ["is_active", "is_staff"])
def test_who_may_no_more_is_out_with_the_next_request(lost: str) -> None:
    user = UserFactory(username="robin")
    client = Client()
    log_in(client, "robin")
    assert is_in(client)
    User.objects.filter(pk=user.pk).update(**{lost: False})
    assert not is_in(client)


def test_signing_out_takes_a_post_and_ends_the_session() -> None:
    UserFactory(username="robin")
    client = Client()
    log_in(client, "robin")
    assert client.get("/admin/logout/").status_code == 200
    assert is_in(client)
    assert client.post(reverse("admin:logout"), follow=True).redirect_chain[-1] == (LOGIN, 302)
    assert not is_in(client)


def test_the_session_is_another_one_after_signing_in() -> None:
    UserFactory(username="robin")
    client = Client()
    client.get(LOGIN)
    client.session["planted"] = True
    client.session.save()
    before = client.session.session_key
    log_in(client, "robin")
    assert client.session.session_key != before


def test_there_is_no_other_way_to_become_somebody() -> None:
    for address in ("/admin/signup/", "/accounts/signup/", "/accounts/login/", "/admin/password_reset/"):
        assert Client().get(address).status_code in (302, 404)
        assert User.objects.count() == 0
    assert "sign up" not in Client().get(LOGIN).content.decode().lower()


def test_a_person_changes_the_password_in_the_admin_and_the_history_has_it() -> None:
    user = UserFactory(username="robin")
    client = Client()
    log_in(client, "robin")
    new = "another long invented phrase"
    data = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    assert client.post(reverse("admin:password_change"), data).status_code == 302
    assert is_in(client)
    assert AuditEntry.objects.filter(object_pk=str(user.pk), changes__has_key="password", actor=user).exists()
    assert new not in str(list(AuditEntry.objects.values_list("changes", "additional_data")))


def _change(client: Client, old: str) -> Any:
    new = "another long invented phrase"
    data = {"old_password": old, "new_password1": new, "new_password2": new}
    return client.post(reverse("admin:password_change"), data)


def test_an_open_session_does_not_guess_its_own_password_without_end_and_each_guess_is_in_the_history() -> None:
    user = UserFactory(username="robin")
    client = Client()
    log_in(client, "robin")
    answers = [_change(client, f"wrong {number}") for number in range(5)]
    assert "Your old password was entered incorrectly" in answers[3].content.decode()
    answers.append(_change(client, PASSWORD))
    for answer in answers[4:]:
        assert answer.status_code == 200
        assert "Too many tries. Wait some minutes, then try again." in answer.content.decode()
    user.refresh_from_db()
    assert user.check_password(PASSWORD)
    assert is_in(client)
    failed = AuditEntry.objects.filter(event="sign_in_failed", object_pk=str(user.pk))
    assert failed.count() == 6
    assert AuditEntry.objects.filter(event="sign_in_locked", object_pk=str(user.pk)).exists()


def test_guesses_at_ones_own_password_count_together_with_those_at_the_door() -> None:
    UserFactory(username="robin")
    client = Client()
    log_in(client, "robin")
    for number in range(5):
        _change(client, f"wrong {number}")
    assert log_in(Client(), "robin").status_code == 429
    assert client.post(reverse("account_reauthenticate"), {"password": PASSWORD}).status_code == 429


def test_where_a_name_is_guessed_at_the_page_of_ones_own_password_says_so_too(settings: Any) -> None:
    settings.ACCOUNT_RATE_LIMITS = {**settings.ACCOUNT_RATE_LIMITS, "password_failed": "3/h/key"}
    UserFactory(username="robin")
    client = Client()
    log_in(client, "robin")
    answers = [_change(client, f"wrong {number}") for number in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 7
    assert ["Too many tries" in answer.content.decode() for answer in answers] == [False] * 3 + [True] * 4


def test_where_passwords_are_switched_off_nobody_changes_one(settings: Any) -> None:
    user = UserFactory(username="robin")
    client = Client()
    log_in(client, "robin")
    settings.PASSWORD_SIGN_IN = False
    assert "Passwords are switched off here." in _change(client, PASSWORD).content.decode()
    user.refresh_from_db()
    assert user.check_password(PASSWORD)


@pytest.mark.parametrize("weak", ["short", "password1234", "robin@bank.example", "123456789012"])
def test_a_weak_password_is_refused(weak: str) -> None:
    UserFactory(username="robin", first_name="Robin", last_name="Hall")
    client = Client()
    log_in(client, "robin")
    data = {"old_password": PASSWORD, "new_password1": weak, "new_password2": weak}
    assert client.post(reverse("admin:password_change"), data).status_code == 200


def test_passwords_can_be_switched_off(settings: Any) -> None:
    settings.PASSWORD_SIGN_IN = False
    UserFactory(username="robin")
    client = Client()
    assert 'name="password"' not in client.get(LOGIN).content.decode()
    assert log_in(client, "robin").status_code == 200
    assert not is_in(client)


def test_many_addresses_together_have_few_guesses_at_one_name(settings: Any) -> None:
    settings.ACCOUNT_RATE_LIMITS = {**settings.ACCOUNT_RATE_LIMITS, "password_failed": "3/h/key"}
    UserFactory(username="robin")
    for number in range(3):
        log_in(Client(), "robin", "wrong", REMOTE_ADDR=f"10.0.0.{number}")
    answer = log_in(Client(), "ROBIN", REMOTE_ADDR="10.0.0.9")
    assert "Too many tries" in answer.content.decode()

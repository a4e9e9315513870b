"""Administrators look after people; nobody gives themselves more rights."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from tests.factories import UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def administrator() -> User:
    """Someone in the role Administrators."""
    user: User = UserFactory(role="Administrators")
    return user


@pytest.fixture
def browser(administrator: User) -> Client:
    """The administrator's browser."""
    client = Client()
    client.force_login(administrator)
    return client


def change(client: Client, user: User, **values: Any) -> Any:
    """Post the form of a user as it stands, with `values` changed."""
    data = {"username": user.username, "first_name": user.first_name, "last_name": user.last_name, "email": user.email}
    data |= {"is_active": "on", "is_staff": "on", "groups": [group.pk for group in user.groups.all()]}
    return client.post(reverse("admin:auth_user_change", args=[user.pk]), data | values)


def test_an_administrator_gives_a_role(browser: Client) -> None:
    user = UserFactory()
    support = Group.objects.get(name="Support")
    assert change(browser, user, groups=[support.pk]).status_code == 302
    assert list(user.groups.all()) == [support]


def test_an_administrator_creates_a_person(browser: Client) -> None:
    secret = "another long invented phrase"
    data = {"username": "newcomer", "usable_password": "true", "password1": secret, "password2": secret}
    assert browser.post(reverse("admin:auth_user_add"), data).status_code == 302
    assert User.objects.get(username="newcomer").check_password(secret)


def test_an_administrator_makes_no_superuser(browser: Client) -> None:
    user = UserFactory()
    change(browser, user, is_superuser="on")
    user.refresh_from_db()
    assert not user.is_superuser


def test_nobody_gives_themselves_a_role(browser: Client, administrator: User) -> None:
    support = Group.objects.get(name="Support")
    change(browser, administrator, groups=[support.pk])
    assert [group.name for group in administrator.groups.all()] == ["Administrators"]


def test_single_rights_cannot_be_given_to_a_person(browser: Client) -> None:
    user = UserFactory()
    change(browser, user, user_permissions=["1"])
    assert not user.user_permissions.exists()


@pytest.mark.parametrize("address", ["auth_user_change", "auth_user_password_change"])
def test_a_superusers_account_is_out_of_an_administrators_reach(browser: Client, address: str) -> None:
    superuser = UserFactory(is_superuser=True)
    url = reverse(f"admin:{address}", args=[superuser.pk])
    secret = "a phrase of the intruder's own"
    assert browser.post(url, {"password1": secret, "password2": secret}).status_code == 403
    superuser.refresh_from_db()
    assert not superuser.check_password(secret)


def test_people_are_deactivated_not_deleted(administrator: User) -> None:
    client = Client()
    client.force_login(UserFactory(is_superuser=True))
    assert client.post(reverse("admin:auth_user_delete", args=[administrator.pk]), {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("role", ["Relationship managers", "Support"])
def test_other_roles_see_no_users(role: str) -> None:
    client = Client()
    client.force_login(UserFactory(role=role))
    assert client.get(reverse("admin:auth_user_changelist")).status_code == 403


def test_auditors_see_users_and_change_none() -> None:
    client = Client()
    client.force_login(UserFactory(role="Compliance auditors"))
    user = UserFactory()
    assert client.get(reverse("admin:auth_user_changelist")).status_code == 200
    assert client.get(reverse("admin:auth_user_change", args=[user.pk])).status_code == 200
    assert change(client, user, first_name="Changed").status_code == 403


def test_a_role_names_its_rights() -> None:
    client = Client()
    client.force_login(UserFactory(role="Compliance auditors"))
    page = client.get(reverse("admin:auth_group_change", args=[Group.objects.get(name="Support").pk]))
    assert "Can unlink a connection" in page.content.decode()


def test_who_only_looks_at_a_person_sees_nothing_of_the_password() -> None:
    auditor = Client()
    auditor.force_login(UserFactory(role="Compliance auditors"))
    page = auditor.get(reverse("admin:auth_user_change", args=[UserFactory(username="newcomer").pk])).content.decode()
    assert "newcomer" in page
    assert "algorithm" not in page
    assert "password/" not in page.partition('id="content"')[2]

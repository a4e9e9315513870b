"""Administrators look after people; nobody gives themselves more rights."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from feeds.admin.users import UserForm
from feeds.audit import Actor
from feeds.models import Approval
from feeds.services import approvals
from feeds.states import ApprovalState
from tests.factories import UserFactory
from tests.page_form import as_it_stands, fields_of

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


# --- A page that lay open --------------------------------------------------------------------------------------------
def page_of(user: User) -> str:
    """The person's page."""
    return reverse("admin:auth_user_change", args=[user.pk])


def asked_to_switch_off(user: User, asker: User) -> Approval:
    """A request that takes the person's roles away and switches them off."""
    rights = {"groups": [], "is_active": False, "is_staff": True, "is_superuser": False}
    words, actor = ["Active: yes → no"], Actor.person(asker, source="admin")
    return approvals.ask("change_roles", user, data=rights, consequences=words, reason="Has left.", actor=actor)


@pytest.mark.parametrize("four_eyes", [True, False])
def test_a_page_that_lay_open_gives_no_right_back(
    browser: Client, administrator: User, settings: Any, four_eyes: bool
) -> None:
    settings.FOUR_EYES = settings.PRODUCT_FOUR_EYES
    user, support = UserFactory(role="Support"), Group.objects.get(name="Support")
    page = as_it_stands(browser, page_of(user))
    assert (page["is_active"], page["groups"]) == (["on"], [str(support.pk)])
    approval = asked_to_switch_off(user, administrator)
    approvals.approve(approval, actor=Actor.person(UserFactory(role="Administrators"), source="admin"))
    settings.FOUR_EYES = settings.PRODUCT_FOUR_EYES if four_eyes else []

    answer = browser.post(page_of(user), page | {"email": "new@bank.example"})
    assert answer.status_code == 302
    user.refresh_from_db()
    assert (user.email, user.is_active, list(user.groups.all())) == ("new@bank.example", False, [])
    assert list(Approval.objects.all()) == [approval]


@pytest.mark.parametrize("four_eyes", [True, False])
def test_an_approval_carried_out_while_the_form_is_saved_stands(
    browser: Client, administrator: User, settings: Any, monkeypatch: pytest.MonkeyPatch, four_eyes: bool
) -> None:
    settings.FOUR_EYES = settings.PRODUCT_FOUR_EYES if four_eyes else []
    user, colleague = UserFactory(role="Support"), UserFactory(role="Administrators")
    approval, page = asked_to_switch_off(user, administrator), as_it_stands(browser, page_of(user))
    clean = UserForm.clean

    def meanwhile(form: UserForm) -> dict[str, Any]:
        data = clean(form)
        approvals.approve(approval, actor=Actor.person(colleague, source="admin"))
        return data

    monkeypatch.setattr(UserForm, "clean", meanwhile)
    assert browser.post(page_of(user), page | {"email": "new@bank.example"}).status_code == 302
    approval.refresh_from_db()
    user.refresh_from_db()
    assert approval.state == ApprovalState.DONE
    assert (user.email, user.is_active, list(user.groups.all())) == ("new@bank.example", False, [])


def test_roles_that_two_people_change_are_refused_once_and_lost_by_nobody(browser: Client) -> None:
    user = UserFactory()
    support, auditors = (Group.objects.get(name=name) for name in ("Support", "Compliance auditors"))
    page = as_it_stands(browser, page_of(user))
    assert "groups" not in page
    other = Client()
    other.force_login(UserFactory(role="Administrators", first_name="Ahmed", last_name="Said"))
    other.post(page_of(user), page | {"groups": [support.pk]})
    answer = browser.post(page_of(user), page | {"groups": [auditors.pk]})
    assert answer.context["adminform"].form.errors["groups"] == [
        "Ahmed Said changed this after you opened the page. It is now: Support. Ask them, or save again to replace it."
    ]
    assert list(user.groups.all()) == [support]
    assert browser.post(page_of(user), fields_of(answer.content.decode())).status_code == 302
    assert list(user.groups.all()) == [auditors]


def test_nothing_of_a_password_goes_with_the_form(browser: Client) -> None:
    user = UserFactory()
    page = as_it_stands(browser, page_of(user))
    assert "initial-username" in page
    assert not [name for name in page if "password" in name]
    assert not any(user.password in value for values in page.values() for value in values)

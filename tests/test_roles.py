"""The table of roles, walked role by role, and its way into the database."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, Permission

from feeds.models import AuditEntry
from feeds.services import roles
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db

# What each role may do beside looking, as a person would say it. Everything else it may not.
MAY_DO = {
    "Relationship managers": {
        "add_company", "change_company", "import_company", "onboard_company", "refresh_company",
        "add_sourceaccount", "change_sourceaccount", "delete_sourceaccount", "reveal_account_number",
        "rename_sourceaccount", "refresh_link", "reveal_link", "decide_approval", "withdraw_approval",
        "add_calloutversion", "change_calloutversion", "submit_callout", "approve_callout", "publish_callout",
        "take_company", "break_glass", "end_accessgrant", "invite_company",
    },
    "Support": {
        "onboard_company", "refresh_company", "refresh_link", "reveal_link", "invite_company", "rename_sourceaccount",
        "disconnect_sourceaccount", "remove_sourceaccount", "remove_connection", "unlink_connection",
        "generate_credentials", "revoke_credentials", "reapply_webhook", "resend_mail", "work_case", "release_incident",
        "adopt_company", "decide_approval", "withdraw_approval",
    },
    "Compliance auditors": {"verify_history", "export_history", "make_evidence_pack"},
    "Administrators": {
        "add_company", "change_company", "delete_company", "import_company", "onboard_company", "refresh_company",
        "add_sourceaccount", "change_sourceaccount", "delete_sourceaccount", "reveal_account_number",
        "rename_sourceaccount", "disconnect_sourceaccount", "remove_sourceaccount", "refresh_link", "reveal_link",
        "remove_connection", "remove_company",
        "unlink_connection", "generate_credentials", "revoke_credentials", "add_user", "change_user",
        "reapply_webhook", "resend_mail", "work_case", "release_incident", "adopt_company", "decide_approval",
        "withdraw_approval",
        "add_calloutversion", "change_calloutversion", "submit_callout", "approve_callout", "publish_callout",
        "reset_second_factors", "unlock_signinlock", "reassign_company", "end_accessgrant", "invite_company",
        "verify_history", "manage_api_keys",
    },
}  # fmt: skip


def every_permission() -> set[str]:
    """The labels of all permissions of our app and of users and groups."""
    found = Permission.objects.filter(content_type__app_label__in=("feeds", "auth"))
    return {f"{app}.{codename}" for app, codename in found.values_list("content_type__app_label", "codename")}


@pytest.mark.parametrize("role", roles.ROLES)
def test_a_member_may_do_what_the_role_says_and_nothing_else(role: str) -> None:
    user = UserFactory(role=role)
    held = {label for label in every_permission() if user.has_perm(label)}
    assert {label.partition(".")[2] for label in held if ".view_" not in label} == MAY_DO[role]


@pytest.mark.parametrize("role", roles.ROLES)
def test_every_role_sees_companies_connections_accounts_and_the_ledger(role: str) -> None:
    user = UserFactory(role=role)
    for model in ("company", "connection", "sourceaccount", "operation", "batch", "calloutversion"):
        assert user.has_perm(f"feeds.view_{model}")


def test_all_but_relationship_managers_see_every_customer() -> None:
    readers = {role for role in roles.ROLES if UserFactory(role=role).has_perm("feeds.view_all_companies")}
    assert readers == set(roles.ROLES) - {"Relationship managers"}


def test_the_history_is_for_auditors_and_administrators() -> None:
    readers = {role for role in roles.ROLES if UserFactory(role=role).has_perm("feeds.view_auditentry")}
    assert readers == {"Compliance auditors", "Administrators"}


def test_nobody_can_alter_the_history_or_the_ledger() -> None:
    labels = set().union(*roles.ROLES.values())
    assert not [label for label in labels if label.endswith(("auditentry", "operation")) and ".view_" not in label]


def test_making_the_roles_again_changes_nothing() -> None:
    assert {change.role for change in roles.sync_roles()} == set(roles.ROLES)
    before = AuditEntry.objects.count()
    assert roles.sync_roles() == []
    assert AuditEntry.objects.count() == before


def test_a_stray_permission_is_withdrawn_and_a_lost_one_granted_and_both_are_reported() -> None:
    roles.sync_roles()
    auditors = Group.objects.get(name="Compliance auditors")
    auditors.permissions.add(Permission.objects.get(codename="reveal_link"))
    auditors.permissions.remove(Permission.objects.get(codename="view_operation"))

    (change,) = roles.sync_roles()

    assert change == roles.RoleChange(
        "Compliance auditors", created=False, granted=("feeds.view_operation",), withdrawn=("feeds.reveal_link",)
    )
    assert not auditors.permissions.filter(codename="reveal_link").exists()


def test_a_group_of_the_banks_own_is_left_alone() -> None:
    own = Group.objects.create(name="Night shift")
    own.permissions.add(Permission.objects.get(codename="view_company"))
    roles.sync_roles()
    assert own.permissions.count() == 1


def test_a_permission_that_does_not_exist_is_a_loud_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(roles.ROLES, "Support", frozenset({"feeds.fly_company"}))
    with pytest.raises(LookupError, match="feeds.fly_company"):
        roles.sync_roles()
    assert not Group.objects.exists()

"""Who may do what: the four roles as one table, and the command that makes the database agree with it.

A role is a group of Django's. The table names every permission; what it does not name is taken away, so that a right
given by hand in the admin does not outlive the next deployment unseen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.contrib.auth.models import Group, Permission
from django.db import transaction

RELATIONSHIP_MANAGERS = "Relationship managers"
SUPPORT = "Support"
COMPLIANCE_AUDITORS = "Compliance auditors"
ADMINISTRATORS = "Administrators"

_SEE_CUSTOMERS = frozenset(
    {
        "feeds.view_company",
        "feeds.view_connection",
        "feeds.view_sourceaccount",
        "feeds.view_operation",
        "feeds.view_batch",
        "feeds.view_invitation",
    }
)
_HAND_OVER_LINKS = frozenset(
    {"feeds.refresh_company", "feeds.refresh_link", "feeds.reveal_link", "feeds.invite_company"}
)
_SEE_APPROVALS = frozenset({"feeds.view_approval"})
# A decision also needs the right to do the thing oneself.
_DECIDE = _SEE_APPROVALS | {"feeds.decide_approval", "feeds.withdraw_approval"}
_ONBOARD = frozenset(
    {
        "feeds.add_company",
        "feeds.change_company",
        "feeds.import_company",
        "feeds.onboard_company",
        "feeds.add_sourceaccount",
        "feeds.change_sourceaccount",
        "feeds.delete_sourceaccount",
        "feeds.reveal_account_number",
    }
)
_REPAIR = frozenset(
    {
        "feeds.onboard_company",
        "feeds.rename_sourceaccount",
        "feeds.disconnect_sourceaccount",
        "feeds.remove_sourceaccount",
        "feeds.unlink_connection",
        "feeds.remove_connection",
        "feeds.generate_credentials",
        "feeds.revoke_credentials",
    }
)
_WORK_THE_INBOX = frozenset({"feeds.view_webhookevent", "feeds.reapply_webhook"})
# Who works no cases sees only mails to customers, and of those only to their own.
_SEE_MAILS = frozenset({"feeds.view_mail"})
_WORK_THE_OUTBOX = _SEE_MAILS | {"feeds.resend_mail"}
_SEE_CASES = frozenset({"feeds.view_case", "feeds.view_incident", "feeds.view_statusevent"})
_WORK_CASES = _SEE_CASES | {"feeds.work_case", "feeds.release_incident"}
_SEE_CALLOUTS = frozenset({"feeds.view_calloutversion"})
# Who may approve does not approve what they had a hand in: see `services.callouts`.
_KEEP_THE_CALLOUT = _SEE_CALLOUTS | {
    "feeds.add_calloutversion",
    "feeds.change_calloutversion",
    "feeds.submit_callout",
    "feeds.approve_callout",
    "feeds.publish_callout",
}
_SEE_DRIFT = frozenset({"feeds.view_driftreport", "feeds.view_driftfinding"})
_SEE_THE_SYSTEM = frozenset(
    {"feeds.view_auditentry", "feeds.view_heartbeat", "feeds.view_codatquota", "feeds.view_webhookevent"}
)
_READ_THE_HISTORY = frozenset(
    {"feeds.view_auditseal", "feeds.view_historycheck", "feeds.view_historyexport", "feeds.verify_history"}
)
_TAKE_THE_HISTORY_OUT = frozenset({"feeds.export_history", "feeds.make_evidence_pack"})
_WATCH_OPERATIONS = frozenset({"feeds.view_operations_page"})
# Whose customers one sees: without it one's own, those of nobody, and those opened in an emergency.
_SEE_ALL_CUSTOMERS = frozenset({"feeds.view_all_companies"})
_SEE_EMERGENCIES = frozenset({"feeds.view_accessgrant"})
_SEE_USERS = frozenset({"auth.view_user", "auth.view_group"})
_MANAGE_USERS = frozenset(
    {
        "auth.add_user",
        "auth.change_user",
        "feeds.reset_second_factors",
        "feeds.unlock_signinlock",
        "feeds.view_signinlock",
    }
)
# Whoever has a key can make links for every customer.
_SEE_API_KEYS = frozenset({"feeds.view_apikey"})

ROLES: dict[str, frozenset[str]] = {
    RELATIONSHIP_MANAGERS: (
        _SEE_CUSTOMERS | _HAND_OVER_LINKS | _ONBOARD | _KEEP_THE_CALLOUT | _DECIDE | _SEE_EMERGENCIES
        | _SEE_MAILS
        | {"feeds.rename_sourceaccount", "feeds.take_company", "feeds.break_glass", "feeds.end_accessgrant"}
    ),
    SUPPORT: (
        _SEE_CUSTOMERS | _HAND_OVER_LINKS | _REPAIR | _WORK_CASES | _WORK_THE_INBOX | _WATCH_OPERATIONS | _SEE_DRIFT
        | _WORK_THE_OUTBOX | _SEE_CALLOUTS | _DECIDE | _SEE_ALL_CUSTOMERS | {"feeds.adopt_company"}
    ),
    # Auditors see who did what, and neither change anything nor see a link or a whole account number.
    # Only they take the history out of the product: whoever runs it does not also carry it away.
    COMPLIANCE_AUDITORS: (
        _SEE_CUSTOMERS | _SEE_CALLOUTS | _SEE_CASES | _SEE_DRIFT | _SEE_THE_SYSTEM | _SEE_USERS | _SEE_APPROVALS
        | _SEE_ALL_CUSTOMERS | _SEE_EMERGENCIES | _READ_THE_HISTORY | _TAKE_THE_HISTORY_OUT | _SEE_API_KEYS
        | {"feeds.view_signinlock"}
    ),
    ADMINISTRATORS: (
        _SEE_CUSTOMERS | _HAND_OVER_LINKS | _ONBOARD | _REPAIR | _WORK_CASES | _SEE_THE_SYSTEM | _SEE_USERS
        | _MANAGE_USERS | _WORK_THE_INBOX | _WORK_THE_OUTBOX | _WATCH_OPERATIONS | _SEE_DRIFT | _READ_THE_HISTORY
        | _SEE_ALL_CUSTOMERS | _SEE_EMERGENCIES | _KEEP_THE_CALLOUT | _DECIDE | _SEE_API_KEYS
        | {
            "feeds.manage_api_keys",
            "feeds.adopt_company", "feeds.delete_company", "feeds.remove_company", "feeds.reassign_company",
            "feeds.end_accessgrant",
        }
    ),
}  # fmt: skip
"""Role name -> permission labels ("app.codename").

`delete_company` and `delete_sourceaccount` concern our own rows before they are in Codat; deleting there is
`remove_company`, `remove_connection` and `remove_sourceaccount`. Groups that are not in this table are left alone.
"""


@dataclass(frozen=True, slots=True)
class RoleChange:
    """What `sync_roles` did to one role."""

    role: str
    created: bool
    granted: tuple[str, ...]
    withdrawn: tuple[str, ...]


def sync_roles() -> list[RoleChange]:
    """Make the groups equal to `ROLES` and say what changed; an empty list when nothing had to. Safe to run again.

    Raises LookupError when the table names a permission that does not exist: a mistake in this module.
    """
    wanted = _permissions(label for labels in ROLES.values() for label in labels)
    with transaction.atomic():
        changes = [_sync(role, {label: wanted[label] for label in labels}) for role, labels in ROLES.items()]
    return [change for change in changes if change.created or change.granted or change.withdrawn]


def _sync(role: str, wanted: dict[str, Permission]) -> RoleChange:
    group, created = Group.objects.get_or_create(name=role)
    held = {_label(permission): permission for permission in group.permissions.select_related("content_type")}
    granted, withdrawn = wanted.keys() - held.keys(), held.keys() - wanted.keys()
    if granted:
        group.permissions.add(*(wanted[label] for label in granted))
    if withdrawn:
        group.permissions.remove(*(held[label] for label in withdrawn))
    return RoleChange(role, created, tuple(sorted(granted)), tuple(sorted(withdrawn)))


def _permissions(labels: Iterable[str]) -> dict[str, Permission]:
    needed = set(labels)
    apps = {label.partition(".")[0] for label in needed}
    found = Permission.objects.filter(content_type__app_label__in=apps).select_related("content_type")
    known = {_label(permission): permission for permission in found}
    if missing := needed - known.keys():
        raise LookupError(f"unknown permissions: {', '.join(sorted(missing))}")
    return known


def _label(permission: Permission) -> str:
    return f"{permission.content_type.app_label}.{permission.codename}"

"""What makes somebody's rights: their roles and three switches. Changed together, in words that say from and to."""

from __future__ import annotations

from typing import Any, Final

from django.contrib.auth.models import Group, User
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds import audit
from feeds.audit import Actor
from feeds.services.errors import Refused
from feeds.states import Text

SWITCHES: Final[dict[str, Text]] = {
    "is_active": gettext_lazy("Active"),
    "is_staff": gettext_lazy("May sign in here"),
    "is_superuser": gettext_lazy("Superuser"),
}
ROLES: Final = "groups"
FIELDS: Final = (ROLES, *SWITCHES)
"""The fields of a user that decide what they may do."""


def rights(user: User) -> dict[str, Any]:
    """The user's roles (sorted primary keys of groups) and switches, ready for a JSON column."""
    switches = {name: bool(getattr(user, name)) for name in SWITCHES}
    return {ROLES: sorted(user.groups.values_list("pk", flat=True)), **switches}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What changes from one set of rights (as of `rights`) to another, one sentence for each."""
    sentences = []
    if before[ROLES] != after[ROLES]:
        sentences.append(_fro_and_to(_("Roles"), _names(before[ROLES]), _names(after[ROLES])))
    for name, label in SWITCHES.items():
        if before[name] != after[name]:
            sentences.append(_fro_and_to(label, _yes_or_no(before[name]), _yes_or_no(after[name])))
    return sentences


def change_rights(user: User, after: dict[str, Any], *, actor: Actor) -> str:
    """Give the user exactly these rights; what changed, in words. Raises Refused when a role no longer exists."""
    with transaction.atomic(), audit.acting(actor):
        user = User.objects.select_for_update().get(pk=user.pk)
        before = rights(user)
        roles = list(Group.objects.filter(pk__in=after[ROLES]))
        if len(roles) != len(after[ROLES]):
            raise Refused(_("One of the roles no longer exists."))
        for name in SWITCHES:
            setattr(user, name, after[name])
        user.save(update_fields=[*SWITCHES])
        user.groups.set(roles)
    return "; ".join(differences(before, after)) or _("Nothing had to be changed.")


def _names(pks: list[int]) -> str:
    return ", ".join(Group.objects.filter(pk__in=pks).order_by("name").values_list("name", flat=True)) or _("none")


def _yes_or_no(value: bool) -> str:
    return _("yes") if value else _("no")


def _fro_and_to(label: Text, before: str, after: str) -> str:
    return _("%(what)s: %(before)s → %(after)s") % {"what": label, "before": before, "after": after}

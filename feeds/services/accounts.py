"""Source accounts: their stable ids, and changes in Codat that staff ask for."""

from __future__ import annotations

import uuid

from django.db import transaction
from django.utils.translation import gettext as _

from feeds import audit
from feeds.audit import Actor
from feeds.models import Operation, SourceAccount
from feeds.services import ledger, preflight
from feeds.services.errors import Refused
from feeds.states import AccountStatus, OperationKind

_LONGEST_NAME: int = SourceAccount._meta.get_field("name").max_length or 0


def assign_account_id(account: SourceAccount) -> None:
    """Give a new account its id (not saved): derived from customer and number, so an import run twice finds it again.

    An account that was deleted in Codat keeps its id for history, as does one whose number was corrected since; the
    same number then gets the next id.
    """
    if account.account_id:
        return
    number = _normal(account.account_number)
    others = SourceAccount.objects.filter(company=account.company_id)
    taken = {
        other.account_id
        for other in others.only("account_id", "account_number", "gone_at")
        if other.gone_at is not None or _normal(other.account_number) != number
    }
    generation = 0
    while (candidate := _derived_id(account.company.uid, number, generation)) in taken:
        generation += 1
    account.account_id = candidate


def _normal(number: str) -> str:
    return "".join(number.split()).upper()


def _derived_id(company_uid: uuid.UUID, number: str, generation: int) -> str:
    # uuid5 is a hash: the number cannot be read back from the id without the company's random uid.
    name = number if generation == 0 else f"{number}#{generation}"
    return str(uuid.uuid5(company_uid, name))


def rename(account: SourceAccount, *, name: str, actor: Actor, reason: str = "") -> Operation:
    """Ask Codat to rename the account; our own name follows when Codat has done it."""
    name = name.strip()
    if not name:
        raise Refused(_("Type the new name of the account."))
    if len(name) > _LONGEST_NAME:
        raise Refused(_("An account's name has at most %d characters.") % _LONGEST_NAME)
    if name == account.name:
        raise Refused(_("The account has this name already."))
    if preflight.holds_number(name, account.account_number):
        raise Refused(
            _("The name holds the whole account number, which must not be read there. Give its last four digits.")
        )
    return _ask(OperationKind.RENAME_ACCOUNT, account, actor=actor, reason=reason, payload={"accountName": name})


def disconnect(account: SourceAccount, *, actor: Actor, reason: str) -> Operation:
    """Ask Codat to set the account disconnected. Raises Refused when it is already."""
    if account.status == AccountStatus.DISCONNECTED:
        raise Refused(_("The account is disconnected already."))
    payload = {"status": AccountStatus.DISCONNECTED.value}
    return _ask(OperationKind.DISCONNECT_ACCOUNT, account, actor=actor, reason=reason, payload=payload)


def delete(account: SourceAccount, *, actor: Actor, reason: str) -> Operation:
    """Ask Codat to delete the account and its mapping. Our row stays, marked as gone."""
    return _ask(OperationKind.DELETE_ACCOUNT, account, actor=actor, reason=reason, payload={})


def _ask(
    kind: OperationKind, account: SourceAccount, *, actor: Actor, reason: str, payload: dict[str, str]
) -> Operation:
    if not account.is_in_codat:
        raise Refused(_("This account is not in Codat. Change it here, then press Onboard on the company."))
    return ledger.ask(
        kind,
        account.company,
        connection=account.connection,
        account=account,
        actor=actor,
        payload=payload,
        reason=reason,
    )


def reveal_number(account: SourceAccount, *, actor: Actor) -> str:
    """The whole account number, for one screen; who saw it is recorded."""
    with transaction.atomic(), audit.acting(actor):
        audit.record("account_number_revealed", account)
    return account.account_number

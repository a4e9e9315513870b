"""What may need a second person: one rule for each action, and how it is carried out once approved.

A rule calls the same service as the button does, with the frozen fields and nothing else. `fields` is an allow-list: a
form with another field cannot be frozen, so no secret gets into a payload by accident.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Model
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds import audit
from feeds.audit import Actor
from feeds.models import Batch, Case, Company, Connection, Operation, SourceAccount, WebhookEvent
from feeds.services import (
    accounts,
    cases,
    companies,
    connections,
    credentials,
    inbox,
    invitations,
    links,
    onboarding,
    people,
    second_factors,
)
from feeds.services.errors import Refused
from feeds.states import (
    ACCOUNT_MEANINGS,
    CONNECTION_MEANINGS,
    ONBOARDING_MEANINGS,
    AccountStatus,
    InvitationPurpose,
    Meaning,
    Text,
)

State = dict[str, Any]
"""What a decision is judged on: name -> value, ready for a JSON column. The names are labelled by `LABELS`."""

BULK = "bulk"
"""The name in the setting FOUR_EYES of everything that is done to many rows at once."""


def _anybody(_user: User, _target: Any, _data: dict[str, Any]) -> Text:
    return ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One action. `setting`: its name in FOUR_EYES. `permission`: what both the asking and the deciding person need.

    `run(target, data, actor)` carries it out for one object and hands back the ledger row or what was done in words;
    it may raise Refused and CodatError. `state(target)`: what the decision is judged on. `veto(decider, target, data)`:
    why this person may not decide, beyond the permission. `is_many`: it is asked for many rows, each carried out alone.
    `is_of_customer`: only who sees the customer asks, decides and has it done.
    """

    setting: str
    label: Text
    permission: str
    model: type[Model]
    run: Callable[[Any, dict[str, Any], Actor], Operation | str]
    state: Callable[[Any], State]
    fields: tuple[str, ...] = ()
    veto: Callable[[User, Any, dict[str, Any]], Text] = _anybody
    is_many: bool = False
    is_of_customer: bool = True
    words: tuple[Text, ...] = ()
    """For many: what will happen, beside how many rows it happens to."""


LABELS: dict[str, Text] = {
    "status": gettext_lazy("Status"),
    "accounts": gettext_lazy("Accounts in Codat"),
    "feeding": gettext_lazy("Accounts that QuickBooks reads"),
    "is_gone": gettext_lazy("Gone from Codat"),
    "in_codat": gettext_lazy("In Codat"),
    "onboarding": gettext_lazy("Onboarding"),
    "owner": gettext_lazy("Owner"),
    "rights": gettext_lazy("Rights"),
    "groups": gettext_lazy("Roles"),
    "apps": gettext_lazy("Authenticator apps"),
    "passkeys": gettext_lazy("Passkeys"),
    "identity_provider": gettext_lazy("Bound to the identity provider"),
    **people.SWITCHES,
}
"""Names of a state in words."""

MEANINGS: dict[tuple[type[Model], str], dict[str, Meaning]] = {
    (Company, "onboarding"): ONBOARDING_MEANINGS,
    (Connection, "status"): CONNECTION_MEANINGS,
    (SourceAccount, "status"): ACCOUNT_MEANINGS,
}
"""What the codes in a state are called. Those of many rows are compared without a word."""


# --- What a decision is judged on ------------------------------------------------------------------------------------
def _connection(connection: Connection) -> State:
    living = list(connection.source_accounts.filter(gone_at__isnull=True).values_list("status", flat=True))
    return {
        "status": connection.status,
        "accounts": len(living),
        "feeding": living.count(AccountStatus.CONNECTED),
        "is_gone": connection.gone_at is not None,
    }


def _account(account: SourceAccount) -> State:
    return {"status": account.status, "is_gone": account.gone_at is not None, "in_codat": account.is_in_codat}


def _company(company: Company) -> State:
    count = company.source_accounts.filter(gone_at__isnull=True).count()
    return {"onboarding": company.onboarding_state, "in_codat": company.is_in_codat, "accounts": count}


def _company_in_codat(company: Company) -> State:
    feeding = company.source_accounts.filter(status=AccountStatus.CONNECTED, gone_at__isnull=True).count()
    return {**_company(company), "feeding": feeding}


def _case(case: Case) -> State:
    return {"status": case.state, "owner": case.owner_id}


def _webhook(event: WebhookEvent) -> State:
    return {"status": event.state}


def _link(connection: Connection) -> State:
    return {"status": connection.status, "is_gone": connection.gone_at is not None}


# --- How it is carried out -------------------------------------------------------------------------------------------
def _onboard(company: Company, _data: dict[str, Any], actor: Actor) -> str:
    # One batch for each request: whoever asked follows it there.
    batch, _is_new = Batch.objects.get_or_create(
        label=actor.source.capitalize(),
        defaults={"requested_by": actor.user, "requested_by_name": actor.name, "source": actor.source},
    )
    onboarding.request(company, actor=actor, batch=batch)
    return ""


def _invite(company: Company, _data: dict[str, Any], actor: Actor) -> str:
    invitations.invite_contact(company, purpose=InvitationPurpose.CONNECT, actor=actor)
    return ""


def _take(case: Case, _data: dict[str, Any], actor: Actor) -> str:
    cases.take(case, actor)
    return ""


def _reapply(event: WebhookEvent, _data: dict[str, Any], actor: Actor) -> str:
    inbox.reapply(event, actor=actor)
    return ""


def _reset_second_factors(user: User, _data: dict[str, Any], actor: Actor) -> str:
    if actor.user is None:
        raise Refused(_("Only a person can ask for an approval."))
    with audit.acting(actor):
        second_factors.reset(user, by=actor.user, reason=actor.reason)
    return _("%s has no second factor any more, and is signed out.") % (user.get_full_name() or user.get_username())


def _not_oneself(decider: User, target: User, data: dict[str, Any]) -> Text:
    if decider.pk == target.pk:
        return _("Nobody decides about their own rights or second factors.")
    if (target.is_superuser or data.get("is_superuser")) and not decider.is_superuser:
        return _("Only a superuser decides about superusers.")
    return ""


INVITING_MANY = (
    gettext_lazy("For each company: an invitation to connect is made for its contact, and mailed in its language."),
    gettext_lazy("Each mail holds a link of its own to our page. It works for days, and can be withdrawn."),
)
"""What inviting many means, said on the page before it and in a request for approval."""

RULES: dict[str, Rule] = {
    "revoke_credentials": Rule(
        setting="revoke_credentials",
        label=gettext_lazy("Revoke credentials"),
        permission="feeds.revoke_credentials",
        model=Connection,
        run=lambda it, _data, actor: credentials.revoke(it, actor=actor, reason=actor.reason),
        state=_connection,
    ),
    "unlink_connection": Rule(
        setting="unlink_connection",
        label=gettext_lazy("Unlink"),
        permission="feeds.unlink_connection",
        model=Connection,
        run=lambda it, _data, actor: connections.unlink(it, actor=actor, reason=actor.reason),
        state=_connection,
    ),
    "delete_account": Rule(
        setting="delete_account",
        label=gettext_lazy("Delete account in Codat"),
        permission="feeds.remove_sourceaccount",
        model=SourceAccount,
        run=lambda it, _data, actor: accounts.delete(it, actor=actor, reason=actor.reason),
        state=_account,
    ),
    "delete_connection": Rule(
        setting="delete_connection",
        label=gettext_lazy("Delete connection in Codat"),
        permission="feeds.remove_connection",
        model=Connection,
        run=lambda it, _data, actor: connections.delete(it, actor=actor, reason=actor.reason),
        state=_connection,
    ),
    "delete_company_in_codat": Rule(
        setting="delete_company",
        label=gettext_lazy("Delete company in Codat"),
        permission="feeds.remove_company",
        model=Company,
        run=lambda it, _data, actor: companies.delete_in_codat(it, actor=actor, reason=actor.reason),
        state=_company_in_codat,
    ),
    "delete_company": Rule(
        setting="delete_company",
        label=gettext_lazy("Delete company"),
        permission="feeds.delete_company",
        model=Company,
        run=lambda it, _data, actor: companies.delete(it, actor=actor, reason=actor.reason),
        state=_company,
    ),
    "change_roles": Rule(
        setting="change_roles",
        label=gettext_lazy("Change roles"),
        permission="auth.change_user",
        model=User,
        run=lambda it, data, actor: people.change_rights(it, data, actor=actor),
        state=people.rights,
        fields=people.FIELDS,
        veto=_not_oneself,
        is_of_customer=False,
    ),
    "reset_second_factors": Rule(
        setting="reset_second_factors",
        label=gettext_lazy("Reset second factors"),
        permission="feeds.reset_second_factors",
        model=User,
        run=_reset_second_factors,
        state=second_factors.state_of,
        veto=_not_oneself,
        is_of_customer=False,
    ),
    "onboard_companies": Rule(
        setting=BULK,
        label=gettext_lazy("Onboard companies"),
        permission="feeds.onboard_company",
        model=Company,
        run=_onboard,
        state=_company,
        is_many=True,
        words=(
            gettext_lazy(
                "For each company: the company, its connection and its source accounts are created in Codat, where "
                "they are missing."
            ),
            gettext_lazy("Nothing is sent to the customers."),
        ),
    ),
    "invite_companies": Rule(
        setting=BULK,
        label=gettext_lazy("Invite companies"),
        permission="feeds.invite_company",
        model=Company,
        run=_invite,
        state=_company,
        is_many=True,
        words=INVITING_MANY,
    ),
    "refresh_links": Rule(
        setting=BULK,
        label=gettext_lazy("Refresh links"),
        permission="feeds.refresh_link",
        model=Connection,
        run=lambda it, _data, actor: links.refresh(it, actor=actor),
        state=_link,
        is_many=True,
        words=(gettext_lazy("A fresh link is fetched for each. Links that were handed over before may stop working."),),
    ),
    "take_cases": Rule(
        setting=BULK,
        label=gettext_lazy("Take cases"),
        permission="feeds.work_case",
        model=Case,
        run=_take,
        state=_case,
        is_many=True,
        words=(gettext_lazy("The cases become those of whoever asked, from whomever has them now."),),
    ),
    "reapply_webhooks": Rule(
        setting=BULK,
        label=gettext_lazy("Apply webhooks again"),
        permission="feeds.reapply_webhook",
        model=WebhookEvent,
        run=_reapply,
        state=_webhook,
        is_many=True,
        words=(gettext_lazy("What each is about is read from Codat; nothing changes there."),),
    ),
}
"""Action -> its rule."""


def company_of(target: Model) -> Company | None:
    """The customer an action is about, if there is one."""
    return target if isinstance(target, Company) else getattr(target, "company", None)

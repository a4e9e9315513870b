"""Companies that have to go: our own row before it is in Codat, the company in Codat afterwards."""

from __future__ import annotations

from dataclasses import replace

from django.db import transaction
from django.utils.translation import gettext as _

from feeds import audit
from feeds.audit import Actor
from feeds.models import Company, Mail, Operation
from feeds.services import ledger
from feeds.services.errors import Refused
from feeds.states import OnboardingState, OperationKind, Text


def why_not_deletable(company: Company) -> Text:
    """Why our row must stay, or nothing: only what never was on its way to Codat, and of no use to a customer or in an
    emergency, may go.
    """
    if company.codat_id or company.onboarding_state != OnboardingState.DRAFT:
        return _("This company was sent to Codat: it stays, because the history names it.")
    if company.invitations.exists():
        return _("Its customer was invited: it stays, as proof of that.")
    if company.access_grants.exists():
        return _("It was opened by emergency access: it stays, as proof of that.")
    return ""


def delete(company: Company, *, actor: Actor, reason: str) -> str:
    """Delete our row and its accounts; what was deleted, in words. Raises Refused when it was ever sent to Codat."""
    with transaction.atomic(), audit.acting(replace(actor, reason=reason or actor.reason)):
        held = Company.objects.select_for_update().filter(pk=company.pk).first()
        if held is None:
            raise Refused(_("This company was deleted meanwhile."))
        if why := why_not_deletable(held):
            raise Refused(str(why))
        name = str(held)
        for account in held.source_accounts.all():
            account.delete()
        # Mails to colleagues, such as that its deletion waits for approval. They are not the customer's.
        Mail.objects.filter(company=held).update(company=None)
        held.delete()
    return _("Deleted: %s.") % name


def why_not_deletable_in_codat(company: Company) -> Text:
    """Why Codat cannot be asked to delete it now, or nothing."""
    if not company.is_in_codat:
        return _("Codat does not have this company.")
    if company.onboarding_state in ledger.ACTIVE_ONBOARDING:
        return _("Onboarding is under way.")
    return ""


def delete_in_codat(company: Company, *, actor: Actor, reason: str) -> Operation:
    """Ask Codat to delete the company with its connection and accounts, which cannot be undone.

    Our rows stay, marked as gone. Raises Refused when Codat does not have it, or while it is being onboarded.
    """
    if why := why_not_deletable_in_codat(company):
        raise Refused(str(why))
    return ledger.ask(OperationKind.DELETE_COMPANY, company, actor=actor, payload={}, reason=reason)

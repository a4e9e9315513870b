"""Companies as rows of our own."""

from __future__ import annotations

from dataclasses import replace

from django.db import transaction
from django.utils.translation import gettext as _

from feeds import audit
from feeds.audit import Actor
from feeds.models import Company
from feeds.services.errors import Refused
from feeds.states import OnboardingState, Text


def why_not_deletable(company: Company) -> Text:
    """Why our row must stay, or nothing: only what never was on its way to Codat may go."""
    if company.codat_id or company.onboarding_state != OnboardingState.DRAFT:
        return _("This company was sent to Codat: it stays, because the history names it.")
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
        held.delete()
    return _("Deleted: %s.") % name

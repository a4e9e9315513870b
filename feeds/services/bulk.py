"""Onboarding many companies that were named together: start what needs it, and say how far each one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Prefetch

from feeds.audit import Actor
from feeds.models import Batch, Company, Operation, SourceAccount
from feeds.services import ledger, onboarding
from feeds.states import OnboardingState


@dataclass(frozen=True, slots=True)
class Started:
    """What `start` did: `batch` is None when nothing had to be sent; `refused` maps a company's id to the reason."""

    batch: Batch | None
    refused: dict[int, str]


@dataclass(frozen=True, slots=True)
class AccountReport:
    """One source account of a report."""

    account_id: str
    name: str
    in_codat: bool


@dataclass(frozen=True, slots=True)
class Report:
    """How far one company is. `codat_name` is the name as stored by Codat, `error` what staff read."""

    customer_number: str
    codat_name: str
    state: OnboardingState
    accounts: tuple[AccountReport, ...]
    error: str
    correlation_id: str

    @property
    def is_ready(self) -> bool:
        """Whether the customer can connect, or has."""
        return self.state in onboarding.FINAL_STATES and not self.error

    @property
    def cause(self) -> str:
        """The error without what makes it one of a kind: equal for all companies that failed for the same reason."""
        return self.error.replace(self.correlation_id, "") if self.correlation_id else self.error


def start(company_ids: Sequence[int], *, label: str, actor: Actor) -> Started:
    """Onboard those of the companies that need it; the others are left alone, so doing it again sends nothing.

    Needs it: never sent, failed, or with accounts that are not in Codat yet. `label` names the batch.
    """
    wanting = [company for company in _in_order(company_ids) if _wants_onboarding(company)]
    if not wanting:
        return Started(None, {})
    result = onboarding.request_many(wanting, label=label, actor=actor)
    return Started(result.batch, {company.pk: reason for company, reason in result.refused})


def _wants_onboarding(company: Company) -> bool:
    if company.onboarding_state in onboarding.FINAL_STATES:
        return any(not account.is_in_codat for account in _accounts(company))
    return company.onboarding_state in (OnboardingState.DRAFT, OnboardingState.FAILED)


def unfinished(company_ids: Sequence[int]) -> int:
    """How many of the companies a worker still has to do something for."""
    return Company.objects.filter(pk__in=company_ids, onboarding_state__in=ledger.ACTIVE_ONBOARDING).count()


def report(company_ids: Sequence[int], *, refused: dict[int, str]) -> list[Report]:
    """How far each company is, in the order given. `refused` as from `start`."""
    correlation_ids = dict(
        Operation.objects.filter(company__in=company_ids, correlation_id__gt="")
        .order_by("pk")
        .values_list("company_id", "correlation_id")
    )
    return [
        Report(
            customer_number=company.customer_number,
            codat_name=company.codat_name,
            state=OnboardingState(company.onboarding_state),
            accounts=tuple(
                AccountReport(account.account_id, account.name, account.is_in_codat) for account in _accounts(company)
            ),
            error=refused.get(company.pk) or company.onboarding_error,
            correlation_id=correlation_ids.get(company.pk, ""),
        )
        for company in _in_order(company_ids)
    ]


def _in_order(company_ids: Sequence[int]) -> list[Company]:
    living = SourceAccount.objects.filter(gone_at__isnull=True).order_by("pk")
    prefetch = Prefetch("source_accounts", queryset=living, to_attr="living_accounts")
    found = Company.objects.prefetch_related(prefetch).in_bulk(company_ids)
    return [found[company_id] for company_id in company_ids if company_id in found]  # a draft may be deleted meanwhile


def _accounts(company: Company) -> list[SourceAccount]:
    accounts: list[SourceAccount] = getattr(company, "living_accounts")  # noqa: B009  # the prefetch of `_in_order`
    return accounts

"""What can be known to go wrong before anything is sent to Codat.

The same findings stand beside the fields of the forms and decide in `onboarding.request` and in an import: an `error`
blocks, a `warning` is shown and overruled by going on. Nothing here changes anything; instances need not be saved.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils.translation import gettext as _

from feeds import audit, banking, mapping
from feeds.banking import Finding
from feeds.codat.schemas import json_number
from feeds.models import Company, SourceAccount
from feeds.services import access

Customer: TypeAlias = tuple[Company, Sequence[SourceAccount]]
Holders: TypeAlias = dict[str, set[str]]
"""Account number without separators -> the customer numbers that have it."""

_SEPARATORS = re.compile(r"[ \-]")
_LONG_NUMBER = 8
"""Characters of an account number that is not met by chance."""
_LONGEST_NAME: int = Company._meta.get_field("codat_name").max_length or 0


def stored_name(legal_name: str) -> str:
    """The name exactly as Codat will store it; empty when nothing of it can be kept."""
    return mapping.codat_name(legal_name)


def check(company: Company, accounts: Sequence[SourceAccount]) -> list[Finding]:
    """Everything found about one customer and the accounts offered to QuickBooks: one query, whatever their number.

    `field` is a column of the company ("legal_name") or of the account at that place ("accounts[0].bank_code"). Account
    numbers are masked in messages.
    """
    return check_many([(company, accounts)])[0]


def check_many(customers: Sequence[Customer]) -> list[list[Finding]]:
    """As `check`, for each customer of a list that is about to be stored together: still one query."""
    holders = _holders(customers)
    return [
        [*_company_findings(company), *_accounts_findings(company, accounts, holders)]
        for company, accounts in customers
    ]


def same_number(first: str, second: str) -> bool:
    """Whether two ways of writing mean one account number: spaces and hyphens do not count."""
    return _compact(first) == _compact(second)


def holds_number(text: str, number: str) -> bool:
    """Whether a text gives a whole account number away, however it is written. Short numbers stand in any text."""
    compact = _compact(number)
    return len(compact) >= _LONG_NUMBER and compact in _compact(text)


def _compact(number: str) -> str:
    return _SEPARATORS.sub("", number)


# --- The customer ----------------------------------------------------------------------------------------------------
def _company_findings(company: Company) -> Iterator[Finding]:
    if not company.customer_number.strip():
        yield _error("customer_number", "no_customer_number", _("Enter your bank's number for this customer."))
    yield from _name_findings(company)
    yield from _email_findings(company)
    yield from banking.country_findings(company.country)


def _name_findings(company: Company) -> Iterator[Finding]:
    if not company.legal_name.strip():
        yield _error("legal_name", "no_legal_name", _("Enter the customer's legal name."))
        return
    stored = stored_name(company.legal_name)
    if not stored:
        message = _("Codat can store nothing of this name. Add the name in letters A to Z.")
        yield _error("legal_name", "name_not_storable", message)
    elif len(stored) > _LONGEST_NAME:
        message = _("As Codat stores it, this name has %(length)d characters; shorten it to %(limit)d.")
        yield _error("legal_name", "name_too_long", message % {"length": len(stored), "limit": _LONGEST_NAME})
    elif company.is_in_codat and stored != company.codat_name:
        message = _("Codat keeps the name it has, “%(name)s”: a change here is not sent.")
        yield _warning("legal_name", "name_differs", message % {"name": company.codat_name})


def _email_findings(company: Company) -> Iterator[Finding]:
    try:
        validate_email(company.contact_email)
    except ValidationError:
        yield _error("contact_email", "no_email", _("Enter the e-mail address the customer is reached at."))


# --- The accounts ----------------------------------------------------------------------------------------------------
def _accounts_findings(company: Company, accounts: Sequence[SourceAccount], holders: Holders) -> Iterator[Finding]:
    ids: dict[str, int] = {}
    for index, account in enumerate(accounts):
        findings = [
            *_repeated_id(account, ids, index),
            *_number_in_the_open(account),
            *_held_elsewhere(company, account, holders),
            *banking.account_findings(country=company.country, currency=account.currency, bank_code=account.bank_code),
            *_balance_findings(account),
            *_schema_findings(account),
        ]
        for finding in findings:
            yield Finding(finding.level, f"accounts[{index}].{finding.field}", finding.code, finding.message)


def _repeated_id(account: SourceAccount, seen: dict[str, int], index: int) -> Iterator[Finding]:
    if not account.account_id:
        return
    first = seen.setdefault(account.account_id, index)
    if first != index:
        message = _("Account id “%(id)s” is already that of account %(first)d of this customer. Give each its own.")
        yield _error("account_id", "duplicate_account_id", message % {"id": account.account_id, "first": first + 1})


def _number_in_the_open(account: SourceAccount) -> Iterator[Finding]:
    """Name and id are shown, logged and kept in the history as they are. What Codat has already cannot be mended."""
    if account.is_in_codat:
        return
    if holds_number(account.name, account.account_number):
        message = _("The name holds the whole account number, which must not be read there. Give its last four digits.")
        yield _error("name", "number_in_name", message)
    if holds_number(account.account_id, account.account_number):
        message = _("The account id holds the whole account number. Leave it empty and one is made.")
        yield _error("account_id", "number_in_account_id", message)


def _held_elsewhere(company: Company, account: SourceAccount, holders: Holders) -> Iterator[Finding]:
    others = holders.get(_compact(account.account_number), set()) - {company.customer_number}
    if not others:
        return
    values = {"number": banking.mask(account.account_number), "customers": ", ".join(sorted(_nameable(others)))}
    message = _("Account %(number)s is also stored for customer %(customers)s. Make sure both really hold it.")
    if not values["customers"]:
        message = _(
            "Account %(number)s is also stored for another manager's customer. Ask an administrator whether both "
            "really hold it."
        )
    yield _warning("account_number", "number_at_another_customer", message % values)


def _nameable(numbers: set[str]) -> set[str]:
    """Those of the customers whose numbers may be told to whoever acts; one that is not stored yet is theirs."""
    actor = audit.current_actor()
    if actor.user is None or access.sees_all(actor.user):
        return numbers
    stored = set(Company.objects.filter(customer_number__in=numbers).values_list("customer_number", flat=True))
    seen = access.companies_of(actor).filter(customer_number__in=numbers).values_list("customer_number", flat=True)
    return (numbers - stored).union(seen)


def _balance_findings(account: SourceAccount) -> Iterator[Finding]:
    try:
        json_number(account.balance)
    except ValueError:
        message = _("This balance has more digits than Codat can take. Correct it.")
        yield _error("balance", "balance_too_long", message)


def _schema_findings(account: SourceAccount) -> Iterator[Finding]:
    if settings.CODAT_ACCOUNT_SCHEMA == "v1" and not (account.sort_code or account.bank_code):
        message = _("Codat asks for the bank's code with this integration. Enter the routing number.")
        yield _error("bank_code", "no_bank_code", message)


def _holders(customers: Sequence[Customer]) -> Holders:
    """Who else has these numbers, in the database and in the list itself.

    A number is looked up as it is written and without separators: both are answered by the index.
    """
    holders: Holders = defaultdict(set)
    for company, accounts in customers:
        for account in accounts:
            holders[_compact(account.account_number)].add(company.customer_number)
    stored = SourceAccount.objects.filter(account_number__in=_spellings(customers), gone_at__isnull=True)
    for number, customer_number in stored.values_list("account_number", "company__customer_number"):
        holders[_compact(number)].add(customer_number)
    return holders


def _spellings(customers: Iterable[Customer]) -> set[str]:
    numbers = {account.account_number for _company, accounts in customers for account in accounts}
    return numbers | {_compact(number) for number in numbers}


def _error(field: str, code: str, message: str) -> Finding:
    return Finding("error", field, code, message)


def _warning(field: str, code: str, message: str) -> Finding:
    return Finding("warning", field, code, message)

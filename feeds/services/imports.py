"""Customers and their accounts from a file: check every row, then store all of it or nothing.

A customer is recognised by its number; an account by its `account_id`, or, where the file names none, by its account
number. A column that is not in the file is left as it is; an empty cell means the column's default. Storing the same
file again changes nothing. What Codat keeps of an account cannot be changed by a file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.db.models import Prefetch
from django.utils.translation import gettext as _

from feeds import audit, banking
from feeds.audit import Actor
from feeds.models import Company, SourceAccount
from feeds.services import accounts as account_service
from feeds.services import preflight
from feeds.services.import_files import (
    ACCOUNT_COLUMNS,
    COMPANY_COLUMNS,
    BadFile,
    ChangedMeanwhile,
    Column,
    Line,
    Problem,
    Table,
)

Effect: TypeAlias = Literal["created", "changed", "unchanged"]
M = TypeVar("M", Company, SourceAccount)


@dataclass(frozen=True, slots=True)
class Planned(Generic[M]):
    """A customer or account as it will be stored; `changed` are the fields that get another value."""

    instance: M
    label: str
    is_new: bool
    changed: tuple[str, ...]

    @property
    def effect(self) -> Effect:
        """What storing it does."""
        if self.is_new:
            return "created"
        return "changed" if self.changed else "unchanged"


@dataclass(frozen=True, slots=True)
class PlannedCustomer:
    """A customer and the accounts that the file names for it, in the file's order."""

    company: Planned[Company]
    accounts: list[Planned[SourceAccount]]

    @property
    def labels(self) -> set[str]:
        """The rows it was read from."""
        return {self.company.label, *(row.label for row in self.accounts)}

    def effects(self) -> list[Effect]:
        """What storing does to the customer and to each account."""
        return [self.company.effect, *(row.effect for row in self.accounts)]


@dataclass(frozen=True, slots=True)
class Plan:
    """What storing a file would do, and everything that is wrong with it."""

    name: str
    customers: list[PlannedCustomer]
    problems: list[Problem]

    @property
    def errors(self) -> list[Problem]:
        """The problems that stop the import."""
        return [problem for problem in self.problems if problem.level == "error"]

    @property
    def warnings(self) -> list[Problem]:
        """The problems a person may overrule."""
        return [problem for problem in self.problems if problem.level == "warning"]

    def count(self) -> Counts:
        """How many customers and accounts are new, changed and as they were."""
        effects = [effect for customer in self.customers for effect in customer.effects()]
        return Counts(effects.count("created"), effects.count("changed"), effects.count("unchanged"))


@dataclass(frozen=True, slots=True)
class Counts:
    """Customers and accounts together."""

    created: int
    changed: int
    unchanged: int


def plan(table: Table, *, lock: bool = False, manager: User | None = None) -> Plan:
    """Compare the file with what is stored: every problem of every row, and what would be written. Stores nothing.

    `lock` holds the rows concerned until the surrounding transaction ends. `manager`: whose new customers become.
    """
    order = {line.label: position for position, line in enumerate(table.lines)}
    planner = _Planner(table, lock=lock, manager=manager)
    customers = [planner.customer(lines) for lines in _grouped(table.lines)]
    # Preflight is asked about customers whose values are sound; the others would be told the same thing twice.
    unsound = {problem.row for problem in planner.problems if problem.level == "error"}
    sound = [customer for customer in customers if not customer.labels & unsound]
    problems = sorted([*planner.problems, *_preflight(sound)], key=lambda problem: order[problem.row])
    return Plan(table.name, customers, problems)


def _grouped(lines: Sequence[Line]) -> list[list[Line]]:
    """The rows of each customer. Rows without a customer number belong to nobody else."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        number = line.values["customer_number"]
        groups.setdefault((number, "" if number else line.label), []).append(line)
    return list(groups.values())


class _Planner:
    """Knows what is stored of the file's customers, read in three queries, and collects problems."""

    def __init__(self, table: Table, *, lock: bool, manager: User | None) -> None:
        self.problems: list[Problem] = []
        self._manager_of_new = manager or _default_manager()
        numbers = {line.values["customer_number"] for line in table.lines}
        companies, stored_accounts = Company.objects.all(), SourceAccount.objects.order_by("pk")
        if lock:
            companies, stored_accounts = companies.select_for_update(), stored_accounts.select_for_update()
        prefetch = Prefetch("source_accounts", queryset=stored_accounts, to_attr="stored_accounts")
        found = companies.filter(customer_number__in=numbers).order_by("pk").prefetch_related(prefetch)
        self._companies = {company.customer_number: company for company in found}
        usernames = {line.values["manager"] for line in table.lines if line.values.get("manager")}
        managers = User.objects.filter(username__in=usernames, is_active=True)
        self._managers = {user.username: user for user in managers}

    def customer(self, lines: Sequence[Line]) -> PlannedCustomer:
        """Plan one customer from its rows, in which the customer's columns have to agree."""
        self._check_agreement(lines)
        stored = self._companies.get(lines[0].values["customer_number"])
        company = stored or Company(manager=self._manager_of_new)
        changed = self._fill(company, lines[0], COMPANY_COLUMNS)
        known: list[SourceAccount] = getattr(company, "stored_accounts", [])
        return PlannedCustomer(
            Planned(company, lines[0].label, is_new=stored is None, changed=changed),
            [self._account(company, known, line) for line in lines],
        )

    def _check_agreement(self, lines: Sequence[Line]) -> None:
        first = lines[0]
        for line in lines[1:]:
            for column in COMPANY_COLUMNS:
                here, there = line.values.get(column.name), first.values.get(column.name)
                if here != there:
                    message = _("“%(here)s” here, “%(there)s” in %(first)s: a customer's rows must agree.")
                    values = {"here": here or "", "there": there or "", "first": first.label}
                    self.problems.append(Problem(line.label, column.name, message % values))

    def _account(self, company: Company, known: Sequence[SourceAccount], line: Line) -> Planned[SourceAccount]:
        stored = self._stored_account(known, line)
        account = stored or SourceAccount(company=company)
        # An account that is recognised keeps its id, also where the file names none.
        columns = [column for column in ACCOUNT_COLUMNS if stored is None or column.name != "account_id"]
        changed = self._fill(account, line, columns)
        account_service.assign_account_id(account)
        return Planned(account, line.label, is_new=stored is None, changed=changed)

    def _stored_account(self, known: Sequence[SourceAccount], line: Line) -> SourceAccount | None:
        account_id, number = line.values.get("account_id"), line.values["account_number"]
        if account_id:
            same = [account for account in known if account.account_id == account_id]
        else:
            same = [account for account in known if preflight.same_number(account.account_number, number)]
        # Of accounts that were deleted in Codat and replaced under another id, the living one is meant.
        same = [account for account in same if account.gone_at is None] or same
        if len(same) > 1:
            message = _("This customer has more than one account with this number: say which one by its account_id.")
            self.problems.append(Problem(line.label, "account_id", message))
        elif same and same[0].gone_at is not None:
            message = _(
                "This account was deleted in Codat and is not sent again. To add it, give it another account_id."
            )
            self.problems.append(Problem(line.label, "account_id", message, level="warning"))
        return same[0] if same else None

    def _fill(self, row: Company | SourceAccount, line: Line, columns: Sequence[Column]) -> tuple[str, ...]:
        """Set the columns' fields from the line; the names of those whose value became another."""
        changed = []
        for column in columns:
            if column.name not in line.values:
                continue
            try:
                value = self._value(row, column, line.values[column.name])
            except ValidationError as error:
                self.problems += [Problem(line.label, column.name, reason) for reason in error.messages]
                continue
            before = getattr(row, column.field)
            if value != before and not self._refuse_frozen(row, column, line, before):
                setattr(row, column.field, value)
                changed.append(column.field)
        return tuple(changed)

    def _value(self, row: Company | SourceAccount, column: Column, text: str) -> Any:
        """The text as the model field understands it. Raises ValidationError."""
        if column.name == "manager":
            return self._manager(text)
        model_field = cast("models.Field[Any, Any]", row._meta.get_field(column.field))
        if not text and not column.required:
            return model_field.get_default()
        _refuse_lookalikes(column, text, [value for value, _label in model_field.flatchoices if value])
        return model_field.clean(_decimal_point(text) if column.name == "balance" else text, row)

    def _manager(self, username: str) -> User | None:
        if not username:
            return None
        try:
            return self._managers[username]
        except KeyError:
            raise ValidationError(_("There is no active user “%s”.") % username) from None

    def _refuse_frozen(self, row: Company | SourceAccount, column: Column, line: Line, before: Any) -> bool:
        """Whether the change must not be made, because Codat keeps what it was told when the account was added."""
        if not column.kept_by_codat or not isinstance(row, SourceAccount) or row.connection_id is None:
            return False
        if column.name == "account_number" and preflight.same_number(str(before), line.values[column.name]):
            return True  # written differently; what Codat was sent stays
        self.problems.append(_frozen_problem(row, column, line, before))
        return True


def _default_manager() -> User | None:
    """Who imports a new customer manages it, unless the file says otherwise."""
    user = audit.current_actor().user
    return user if isinstance(user, User) else None


def _frozen_problem(account: SourceAccount, column: Column, line: Line, before: Any) -> Problem:
    if column.name == "balance":
        return Problem(line.label, column.name, _("Not changed: the account is in Codat already."), level="warning")
    if column.name == "account_name":
        message = _("The account is in Codat as “%s”. Use Rename on the account, or write that name here.") % before
        return Problem(line.label, column.name, message, is_frozen=True)
    shown = banking.mask(str(before)) if column.name == "account_number" else before
    message = _(
        "Codat has “%(value)s” for account %(id)s and cannot change it. Write that here; or delete the account in "
        "Codat and add it here under another account_id."
    )
    message %= {"value": shown, "id": account.account_id}
    return Problem(line.label, column.name, message, is_frozen=True)


_SCIENTIFIC = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"(-?\d+),(\d{1,2})")


def _refuse_lookalikes(column: Column, text: str, choices: Sequence[str]) -> None:
    """Say more than the model field does, where people commonly go wrong. Raises ValidationError."""
    if column.name in ("account_number", "bank_code", "customer_number") and _SCIENTIFIC.fullmatch(text):
        raise ValidationError(_("Excel has shortened this number. Format the column as text and enter it again."))
    if text and choices and text not in choices:
        message = _("“%(text)s” is not one of: %(allowed)s.")
        raise ValidationError(message % {"text": text, "allowed": ", ".join(choices)})


def _decimal_point(text: str) -> str:
    match = _DECIMAL_COMMA.fullmatch(text)
    return f"{match[1]}.{match[2]}" if match else text


_ACCOUNT_FIELD = re.compile(r"accounts\[(\d+)\]\.(\w+)")


def _preflight(customers: Sequence[PlannedCustomer]) -> list[Problem]:
    """Preflight's findings, each at its row."""
    asked = [(customer.company.instance, [row.instance for row in customer.accounts]) for customer in customers]
    return [
        _placed(customer, finding)
        for customer, findings in zip(customers, preflight.check_many(asked), strict=True)
        for finding in findings
    ]


def _placed(customer: PlannedCustomer, finding: banking.Finding) -> Problem:
    match = _ACCOUNT_FIELD.fullmatch(finding.field)
    label = customer.accounts[int(match[1])].label if match else customer.company.label
    columns, field_name = (ACCOUNT_COLUMNS, match[2]) if match else (COMPANY_COLUMNS, finding.field)
    column = next(column.name for column in columns if column.field == field_name)
    return Problem(label, column, finding.message, finding.level)


# --- Storing ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Outcome:
    """What an import did. `companies` in the order of the file, those that were as they should be included."""

    companies: list[Company]
    counts: Counts
    warnings: list[Problem]


def store(table: Table, *, actor: Actor, manager: User | None = None) -> Outcome:
    """Store the file, all of it or nothing, in the name of `actor`.

    New customers, if the file names no manager for them, become those of `manager`, else of `actor`.
    Raises BadFile with every problem of every row.
    """
    try:
        with audit.acting(actor), transaction.atomic():
            planned = plan(table, lock=True, manager=manager)
            if planned.errors:
                raise BadFile(planned.problems)
            for customer in planned.customers:
                _store_customer(customer)
    except IntegrityError as error:
        message = _("Somebody changed the same customers at the same moment. Nothing was stored: try again.")
        raise ChangedMeanwhile([Problem("", "", message)]) from error
    return Outcome([customer.company.instance for customer in planned.customers], planned.count(), planned.warnings)


def _store_customer(customer: PlannedCustomer) -> None:
    _save(customer.company)
    for account in customer.accounts:
        _save(account)


def _save(row: Planned[M]) -> None:
    if row.is_new:
        row.instance.save()
    elif row.changed:
        row.instance.save(update_fields=[*row.changed, "updated_at"])

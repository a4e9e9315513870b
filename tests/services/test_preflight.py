"""What preflight finds, and how much it asks the database."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from feeds.banking import Finding
from feeds.models import Company, SourceAccount
from feeds.services import preflight
from tests.factories import CompanyFactory, ConnectionFactory, SourceAccountFactory

pytestmark = pytest.mark.django_db


def customer(**fields: Any) -> Company:
    """A sound US customer, not saved."""
    company: Company = CompanyFactory.build(**fields)
    return company


def account(company: Company, **fields: Any) -> SourceAccount:
    """A sound US account, not saved."""
    made: SourceAccount = SourceAccountFactory.build(company=company, **fields)
    return made


def found(company: Company, *accounts: SourceAccount) -> list[tuple[str, str, str]]:
    """Findings as (level, field, code)."""
    return [(it.level, it.field, it.code) for it in preflight.check(company, accounts)]


def test_a_sound_customer_has_no_findings() -> None:
    company = customer()
    assert found(company, account(company, bank_code="021000021"), account(company)) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"customer_number": " "}, ("error", "customer_number", "no_customer_number")),
        ({"legal_name": ""}, ("error", "legal_name", "no_legal_name")),
        ({"legal_name": "★★★"}, ("error", "legal_name", "name_not_storable")),
        ({"legal_name": "北" * 190}, ("error", "legal_name", "name_too_long")),
        ({"contact_email": ""}, ("error", "contact_email", "no_email")),
        ({"contact_email": "alex at maple"}, ("error", "contact_email", "no_email")),
        ({"country": "MX"}, ("error", "country", "unsupported_country")),
    ],
)
def test_a_fault_of_the_customer_is_an_error_at_its_field(fields: dict[str, str], expected: tuple[str, ...]) -> None:
    assert found(customer(**fields)) == [expected]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"bank_code": "021000022"}, ("warning", "accounts[1].bank_code", "routing_number")),
        ({"currency": "CAD"}, ("warning", "accounts[1].currency", "foreign_currency")),
        ({"currency": "USX"}, ("error", "accounts[1].currency", "unknown_currency")),
        ({"balance": Decimal("1234567890123456.78")}, ("error", "accounts[1].balance", "balance_too_long")),
        (
            {"name": "Chequing 4030 0556 7719", "account_number": "4030-0556-7719"},
            ("error", "accounts[1].name", "number_in_name"),
        ),
        (
            {"account_id": "acc-900417733218", "account_number": "900417733218"},
            ("error", "accounts[1].account_id", "number_in_account_id"),
        ),
    ],
)
def test_a_fault_of_an_account_names_the_account(fields: dict[str, Any], expected: tuple[str, ...]) -> None:
    company = customer()
    assert found(company, account(company), account(company, **fields)) == [expected]


@pytest.mark.plants_secrets
def test_what_codat_has_already_and_a_number_met_by_chance_give_nothing_away() -> None:
    company = CompanyFactory()
    known = SourceAccountFactory(
        in_codat=True, company=company, name="4030055677", account_number="4030055677", bank_code="021000021"
    )
    short = account(company, name="Branch 1007734", account_number="1007734")
    assert found(company, known, short) == []


def test_canadian_routing_numbers_are_judged_as_canadian() -> None:
    company = customer(country="CA")
    good, bad = (account(company, bank_code=code, currency="CAD") for code in ("00011-001", "021000021"))
    assert found(company, good, bad) == []  # a leading zero and eight digits: electronic form
    assert found(company, account(company, bank_code="0011-001", currency="CAD")) == [
        ("warning", "accounts[0].bank_code", "routing_number")
    ]


def test_the_same_account_id_twice_is_an_error_at_the_second() -> None:
    company = customer()
    accounts = [account(company, account_id=account_id) for account_id in ("main", "other", "main")]
    assert found(company, *accounts) == [("error", "accounts[2].account_id", "duplicate_account_id")]


def test_accounts_without_an_id_yet_are_no_duplicates() -> None:
    company = customer()
    assert found(company, account(company, account_id=""), account(company, account_id="")) == []


def test_the_same_number_at_another_customer_is_a_warning_with_the_number_masked() -> None:
    SourceAccountFactory(company__customer_number="SB-77", account_number="4000123456")
    company = customer()

    (finding,) = preflight.check(company, [account(company, account_number="4000-123 456")])

    assert (finding.level, finding.field) == ("warning", "accounts[0].account_number")
    assert "SB-77" in finding.message
    assert "•" in finding.message
    assert "4000123" not in finding.message


def test_the_customers_own_stored_account_is_no_warning() -> None:
    stored = SourceAccountFactory()
    assert found(stored.company, stored) == []


def test_an_account_that_was_deleted_elsewhere_is_no_warning() -> None:
    gone = SourceAccountFactory(in_codat=True)
    gone.gone_at = gone.read_at
    gone.save()
    company = customer()
    assert found(company, account(company, account_number=gone.account_number)) == []


def test_two_customers_of_one_list_with_the_same_number_are_both_warned() -> None:
    first, second = customer(), customer()
    pairs = [(it, [account(it, account_number="4000555666")]) for it in (first, second)]
    codes = [[finding.code for finding in findings] for findings in preflight.check_many(pairs)]
    assert codes == [["number_at_another_customer"]] * 2


def test_a_name_that_codat_will_not_learn_is_a_warning() -> None:
    company = ConnectionFactory(company__legal_name="Maple Bakery").company
    company.legal_name = "Maple Bakery and Sons"
    assert found(company) == [("warning", "legal_name", "name_differs")]


def test_the_old_schema_needs_the_banks_code(settings: Any) -> None:
    settings.CODAT_ACCOUNT_SCHEMA = "v1"
    company = customer()
    assert found(company, account(company), account(company, sort_code="123456")) == [
        ("error", "accounts[0].bank_code", "no_bank_code")
    ]


@pytest.mark.parametrize("count", [1, 40])
def test_it_asks_one_query_however_many_accounts(count: int) -> None:
    company = customer()
    accounts = [account(company) for _ in range(count)]
    with CaptureQueriesContext(connection) as queries:
        preflight.check(company, accounts)
    assert len(queries) == 1


@pytest.mark.parametrize(("legal", "stored"), [("Café Québec", "Cafe Quebec"), ("★", "")])
def test_the_stored_name_is_what_codat_would_store(legal: str, stored: str) -> None:
    assert preflight.stored_name(legal) == stored


def test_findings_are_values_that_forms_can_place() -> None:
    (finding,) = preflight.check(customer(country="MX"), [])
    assert isinstance(finding, Finding)
    assert finding.message

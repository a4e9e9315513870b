"""What is said about bank data before it is sent."""

import pytest
from faker.providers.currency import Provider

from feeds import banking


@pytest.mark.parametrize("number", ["021000021", "111000025", "322271627", "011401533"])
def test_a_us_routing_number_with_the_right_check_digit_is_fine(number: str) -> None:
    assert banking.us_routing_problem(number) is None


@pytest.mark.parametrize("digit", [digit for digit in "0123456789" if digit != "1"])
def test_any_other_check_digit_is_noticed(digit: str) -> None:
    assert "check digit" in (banking.us_routing_problem(f"02100002{digit}") or "")


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        ("02100002", "nine digits"),
        ("0210000211", "nine digits"),
        ("02100002A", "nine digits"),
        ("021 000 021", "nine digits"),
        ("", "nine digits"),
        ("112000025", "check digit"),
        ("000000000", "begins"),
        ("990000002", "check digit"),
        ("500000005", "begins"),
    ],
)
def test_a_wrong_us_routing_number_is_explained(number: str, hint: str) -> None:
    assert hint in (banking.us_routing_problem(number) or "")


@pytest.mark.parametrize("number", ["00011-001", "000100011", "12345-815"])
def test_a_canadian_routing_number_may_be_written_in_two_ways(number: str) -> None:
    assert banking.canadian_routing_problem(number) is None


@pytest.mark.parametrize(
    "number", ["00011001", "100100011", "001-00011", "0001-0001", "0001000111", "abc", "", "00011–001", "00011 - 001"]
)
def test_any_other_canadian_form_is_explained(number: str) -> None:
    problem = banking.canadian_routing_problem(number) or ""
    assert "00011-001" in problem
    assert "000100011" in problem


@pytest.mark.parametrize("number", ["00011-000", "000000011"])
def test_there_is_no_canadian_institution_zero(number: str) -> None:
    assert "institution" in (banking.canadian_routing_problem(number) or "")


@pytest.mark.parametrize(
    ("code", "country", "problem"),
    [
        ("021000021", "US", False),
        ("00011-001", "CA", False),
        ("00011-001", "US", True),
        ("021000021", "CA", False),  # nine digits from zero: it could be institution 210, transit 00021
        ("121000248", "CA", True),
        ("", "US", False),
        ("", "CA", False),
        ("anything", "MX", False),
    ],
)
def test_a_routing_number_is_judged_by_the_rules_of_its_country(code: str, country: str, problem: bool) -> None:
    findings = banking.routing_findings(code, country)

    assert bool(findings) is problem
    assert all(
        (found.level, found.field, found.code) == ("warning", "bank_code", "routing_number") for found in findings
    )


@pytest.mark.parametrize(
    ("currency", "country", "expected"),
    [
        ("USD", "US", []),
        ("CAD", "CA", []),
        ("USD", "CA", [("warning", "foreign_currency")]),
        ("EUR", "US", [("warning", "foreign_currency")]),
        ("USX", "US", [("error", "unknown_currency")]),
        ("usd", "US", [("error", "unknown_currency")]),
        ("XXX", "US", [("error", "unknown_currency")]),
        ("", "US", [("error", "unknown_currency")]),
        ("EUR", "MX", []),
    ],
)
def test_a_currency_is_known_and_usual(currency: str, country: str, expected: list[tuple[str, str]]) -> None:
    findings = banking.currency_findings(currency, country)

    assert [(found.level, found.code) for found in findings] == expected
    assert all(found.field == "currency" for found in findings)


def test_our_currencies_are_those_another_list_knows() -> None:
    others = {code for code, _ in Provider.currencies}
    assert banking.ISO_4217 - others <= {"VED"}  # the second code of Venezuela, since 2021


@pytest.mark.parametrize(("country", "fine"), [("US", True), ("CA", True), ("MX", False), ("", False)])
def test_only_two_countries_have_bank_feeds(country: str, fine: bool) -> None:
    findings = banking.country_findings(country)

    assert (findings == []) is fine
    assert all(found.level == "error" for found in findings)


def test_an_account_gathers_all_its_findings() -> None:
    findings = banking.account_findings(country="US", currency="CAD", bank_code="123")
    assert {found.code for found in findings} == {"routing_number", "foreign_currency"}


@pytest.mark.parametrize(
    "finding",
    [
        *banking.routing_findings("1", "US"),
        *banking.routing_findings("112000025", "US"),
        *banking.routing_findings("000000000", "US"),
        *banking.routing_findings("1", "CA"),
        *banking.routing_findings("00011-000", "CA"),
        *banking.currency_findings("EUR", "US"),
        *banking.currency_findings("?", "US"),
        *banking.country_findings("MX"),
    ],
    ids=lambda finding: finding.message[:30],
)
def test_every_finding_says_what_to_do(finding: banking.Finding) -> None:
    sentences = finding.message.split(". ")
    assert sentences[-1].split()[0] in {"Copy", "Compare", "Write", "Check", "Choose", "Use"}

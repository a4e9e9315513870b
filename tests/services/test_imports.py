"""Files of customers: what is read, what is refused and where, what is stored; doing it twice changes nothing."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from feeds.audit import Actor
from feeds.models import AuditEntry, Company, SourceAccount
from feeds.services import bulk, import_files, imports
from feeds.services.import_files import BadFile, Table
from feeds.states import AccountType, Country, Language
from tests.factories import CompanyFactory, ConnectionFactory, SourceAccountFactory, UserFactory
from tests.history import last_entry

SAMPLE = Path(__file__).resolve().parents[2] / "docs/sample"
CLI = Actor.service("test")

ROW = {
    "customer_number": "SB-1",
    "legal_name": "Café Québec",
    "contact_name": "Élodie Gagné",
    "contact_email": "elodie@example.com",
    "country": "CA",
    "account_name": "Compte courant",
    "account_type": "checking",
    "account_number": "1007734",
    "currency": "CAD",
}


def rows(*changes: dict[str, str]) -> list[dict[str, str]]:
    """Sound rows with some cells replaced; rows after the first are further accounts of the same customer."""
    return [ROW | {"account_number": f"100773{n}"} | change for n, change in enumerate(changes)]


def as_csv(data: list[dict[str, str]], delimiter: str = ",") -> bytes:
    """The rows as a file."""
    names = list(dict.fromkeys(name for row in data for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, delimiter=delimiter, restval="")
    writer.writeheader()
    writer.writerows(data)
    return text.getvalue().encode()


def table(*changes: dict[str, str]) -> Table:
    """The rows, read."""
    return import_files.parse_bytes("file.csv", as_csv(rows(*changes)))


def problems(*changes: dict[str, str]) -> list[tuple[str, str]]:
    """Where the errors are, as (row, column)."""
    return [(problem.row, problem.column) for problem in imports.plan(table(*changes)).errors]


def refusal(name: str, content: bytes) -> tuple[import_files.Problem, ...]:
    """What is said about a file that cannot be read."""
    with pytest.raises(BadFile) as caught:
        import_files.parse_bytes(name, content)
    return caught.value.problems


# --- Reading ---------------------------------------------------------------------------------------------------------
def test_excels_byte_order_mark_and_semicolons_are_read() -> None:
    content = b"\xef\xbb\xbf" + as_csv(rows({}), delimiter=";")
    (line,) = import_files.parse_bytes("file.csv", content).lines
    assert dict(line.values) == rows({})[0]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_refused_with_what_to_do(encoding: str) -> None:
    (problem,) = refusal("file.csv", as_csv(rows({})).decode().encode(encoding))
    assert "CSV UTF-8" in problem.reason


def test_the_row_of_a_wrong_byte_is_named() -> None:
    (problem,) = refusal("file.csv", as_csv(rows({}, {})) + b"SB-2,Caf\xe9")
    assert problem.row == "row 4"


def test_missing_unknown_and_repeated_columns_are_all_named() -> None:
    content = (
        b"customer_number,customer_number,legal_nam,contact_name,contact_email,country,account_name,account_type\nx"
    )
    said = [(problem.column, problem.reason) for problem in refusal("file.csv", content)]
    assert said == [
        ("legal_nam", "There is no such column."),
        ("customer_number", "The column is there twice."),
        ("legal_name", "The column is missing."),
        ("account_number", "The column is missing."),
        ("currency", "The column is missing."),
    ]


def test_a_row_with_too_many_cells_is_named() -> None:
    (problem,) = refusal("file.csv", as_csv(rows({}, {})) + b"one,two\n")
    assert (problem.row, "2 cells" in problem.reason) == ("row 4", True)


def test_a_quoted_line_break_does_not_shift_the_row_numbers() -> None:
    content = as_csv(rows({"notes": "first\nsecond"}, {"notes": "first\nsecond"}))
    assert [line.label for line in import_files.parse_bytes("file.csv", content).lines] == ["row 2", "row 4"]


def test_empty_lines_are_skipped() -> None:
    lines = import_files.parse_bytes("file.csv", as_csv(rows({})) + b"\n,,,,,,,,\n").lines
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("file.xlsx", b"", "must end in .csv or .json"),
        ("file.csv", b"", "The column is missing"),
        ("file.csv", ",".join(ROW).encode(), "has no rows"),
        ("file.csv", ",".join(ROW).encode() + b'\n"open', "not readable as CSV"),
        ("file.json", b"{", "not readable as JSON"),
        ("file.json", b"{}", "a list of customers"),
        ("file.json", b"[]", "has no rows"),
        ("file.json", b"[1]", "list of at least one account"),
        ("file.json", b'[{"accounts": []}]', "list of at least one account"),
        ("file.json", b'[{"accounts": [1]}]', "An account is an object"),
        ("file.json", b'[{"currency": "CAD", "accounts": [{}]}]', "does not belong here"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(name: str, content: bytes, words: str) -> None:
    assert words in refusal(name, content)[0].reason


def test_a_file_that_is_too_big_or_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_files, "MAX_ROWS", 1)
    assert "more than 1 rows" in refusal("file.csv", as_csv(rows({}, {})))[0].reason
    monkeypatch.setattr(import_files, "MAX_BYTES", 10)
    assert "bigger than" in refusal("file.csv", as_csv(rows({})))[0].reason


def test_a_file_that_is_not_there_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="No such file"):
        import_files.parse(tmp_path / "missing.csv")


def test_json_numbers_are_refused_where_zeros_would_be_lost() -> None:
    customer: dict[str, Any] = {name: ROW[name] for name in list(ROW)[:5]}
    account: dict[str, Any] = {name: ROW[name] for name in list(ROW)[5:]} | {"balance": 12.5}
    (line,) = import_files.parse_bytes("file.json", json.dumps([customer | {"accounts": [account]}]).encode()).lines
    assert line.values["balance"] == "12.5"

    account["account_number"] = 1007734
    (problem,) = refusal("file.json", json.dumps([customer | {"accounts": [account]}]).encode())
    assert (problem.row, problem.column) == ("customer 1, account 1", "account_number")


# --- Checking --------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("column", "text", "words"),
    [
        ("customer_number", "", "blank"),
        ("legal_name", "", "blank"),
        ("legal_name", "x" * 201, "200"),
        ("legal_name", "★", "letters A to Z"),
        ("contact_email", "elodie", "valid email"),
        ("country", "Canada", "not one of: US, CA"),
        ("language", "de", "not one of: en, fr"),
        ("manager", "nobody", "no active user"),
        ("account_id", "a b", "letters, digits"),
        ("account_type", "Checking", "not one of: checking, savings, loan, creditCard, prepaidCard"),
        ("account_number", "", "blank"),
        ("account_number", "1.00773E+11", "Excel"),
        ("account_number", "12/34", "digits, letters"),
        ("routing_type", "fedwire", "not one of: rtn"),
        ("currency", "", "blank"),
        ("currency", "cad", "capital letters"),
        ("currency", "CAX", "not a currency"),
        ("balance", "1,234", "decimal"),
        ("balance", "12.345", "2 decimal places"),
        ("account_open_date", "11/30/2020", "date"),
    ],
)
def test_a_wrong_cell_is_named_by_row_column_and_reason(column: str, text: str, words: str) -> None:
    (problem,) = imports.plan(table({column: text})).errors
    assert (problem.row, problem.column) == ("row 2", column)
    assert words in problem.reason


@pytest.mark.django_db
def test_every_problem_of_every_row_is_found_at_once() -> None:
    found = problems({"currency": "cad", "balance": "?"}, {}, {"customer_number": "SB-2", "country": "MX"})
    assert found == [("row 2", "currency"), ("row 2", "balance"), ("row 4", "country")]


@pytest.mark.django_db
def test_preflight_speaks_about_sound_customers_also_when_others_are_wrong() -> None:
    found = problems({"balance": "?"}, {"customer_number": "SB-2", "legal_name": "★"})
    assert found == [("row 2", "balance"), ("row 3", "legal_name")]


@pytest.mark.django_db
def test_rows_of_one_customer_that_disagree_name_both_rows() -> None:
    (problem,) = imports.plan(table({}, {}, {"contact_email": "other@example.com"})).errors
    assert (problem.row, problem.column) == ("row 4", "contact_email")
    assert "row 2" in problem.reason


@pytest.mark.django_db
def test_the_same_account_twice_in_a_file_is_an_error() -> None:
    assert problems({"account_number": "1007734"}, {"account_number": "1007734"}) == [("row 3", "account_id")]
    assert problems({"account_id": "a"}, {"account_id": "a"}) == [("row 3", "account_id")]


@pytest.mark.django_db
def test_a_warning_does_not_stop_the_file() -> None:
    outcome = imports.store(table({"currency": "USD"}), actor=CLI)
    assert [(problem.column, problem.level) for problem in outcome.warnings] == [("currency", "warning")]
    assert SourceAccount.objects.count() == 1


@pytest.mark.django_db
def test_one_wrong_row_stores_nothing() -> None:
    with pytest.raises(BadFile):
        imports.store(table({}, {"customer_number": "SB-2", "balance": "?"}), actor=CLI)
    assert not Company.objects.exists()
    assert not AuditEntry.objects.exists()


@pytest.mark.django_db
def test_checking_asks_no_more_queries_for_more_customers() -> None:
    def count(customers: int) -> int:
        many = table(*({"customer_number": f"SB-{n}"} for n in range(customers)))
        with CaptureQueriesContext(connection) as queries:
            imports.plan(many)
        return len(queries) - customers  # each new account asks once whether its derived id is free

    assert count(2) == count(30)


# --- Storing ---------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_customer_and_accounts_are_stored_as_the_file_says() -> None:
    manager = UserFactory(username="rita")
    first = {
        "language": "fr", "manager": "rita", "notes": "Prefers e-mail",
        "account_id": "main", "routing_type": "bankcode", "bank_code": "00021-829",
        "balance": "-12,50", "account_open_date": "2020-06-02",
    }  # fmt: skip
    second = {name: first[name] for name in ("language", "manager", "notes")} | {"account_type": "creditCard"}

    imports.store(table(first, second), actor=CLI)

    company = Company.objects.get(customer_number="SB-1")
    assert (company.legal_name, company.country, company.language) == ("Café Québec", Country.CA, Language.FR)
    assert (company.manager, company.notes) == (manager, "Prefers e-mail")
    card, main = company.source_accounts.all()
    assert (main.account_id, main.bank_code, main.balance) == ("main", "00021-829", Decimal("-12.50"))
    assert str(main.account_open_date) == "2020-06-02"
    assert (card.account_type, card.balance) == (AccountType.CREDIT_CARD, Decimal(0))
    assert card.account_id


@pytest.mark.django_db
def test_who_imports_a_new_customer_manages_it_unless_the_file_says_otherwise() -> None:
    me, rita = UserFactory(), UserFactory(username="rita")
    file = table({"manager": "rita"}, {"customer_number": "SB-2"})
    mine = table({"customer_number": "SB-3"})
    actor = Actor.person(me, source="test")
    imports.store(file, actor=actor)
    imports.store(mine, actor=actor)
    managers = dict(Company.objects.values_list("customer_number", "manager"))
    assert managers == {"SB-1": rita.pk, "SB-2": None, "SB-3": me.pk}


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["companies.csv", "companies.json"])
def test_the_sample_is_sound_and_storing_it_twice_changes_nothing(name: str) -> None:
    sample = import_files.parse(SAMPLE / name)
    first = imports.store(sample, actor=CLI)
    assert (first.counts.created, first.counts.changed, first.counts.unchanged) == (36, 0, 0)
    history = AuditEntry.objects.count()
    before = list(SourceAccount.objects.order_by("pk").values())

    second = imports.store(sample, actor=CLI)

    assert (second.counts.created, second.counts.changed, second.counts.unchanged) == (0, 0, 36)
    assert [company.pk for company in second.companies] == [company.pk for company in first.companies]
    assert AuditEntry.objects.count() == history
    assert list(SourceAccount.objects.order_by("pk").values()) == before


@pytest.mark.django_db
def test_both_samples_say_the_same() -> None:
    tables = [import_files.parse(SAMPLE / name) for name in ("companies.csv", "companies.json")]
    first, second = ([dict(line.values) for line in table.lines] for table in tables)
    assert first == second


@pytest.mark.django_db
def test_the_sample_shows_everything() -> None:
    imports.store(import_files.parse(SAMPLE / "companies.csv"), actor=CLI)
    assert set(SourceAccount.objects.values_list("account_type", flat=True)) == set(AccountType.values)
    assert set(Company.objects.values_list("country", flat=True)) == set(Country.values)
    assert set(Company.objects.values_list("language", flat=True)) == set(Language.values)
    assert all(email.endswith("@example.com") for email in Company.objects.values_list("contact_email", flat=True))


@pytest.mark.django_db
def test_only_what_differs_is_changed_and_the_history_says_who() -> None:
    imports.store(table({}, {}), actor=CLI)
    before = last_entry()

    outcome = imports.store(
        table({"contact_name": "Ève"}, {"contact_name": "Ève"}), actor=Actor.service("night import")
    )

    assert (outcome.counts.created, outcome.counts.changed, outcome.counts.unchanged) == (0, 1, 2)
    entry = AuditEntry.objects.get(pk__gt=before)
    assert entry.changes == {"contact_name": ["Élodie Gagné", "Ève"]}
    assert entry.actor_name == "night import"


@pytest.mark.django_db
def test_a_column_that_is_not_in_the_file_is_left_alone_and_an_empty_cell_is_the_default() -> None:
    imports.store(table({"language": "fr", "notes": "keep"}), actor=CLI)
    imports.store(table({"language": ""}), actor=CLI)
    company = Company.objects.get()
    assert (company.language, company.notes) == ("en", "keep")


@pytest.mark.django_db
def test_an_account_that_a_person_entered_is_recognised_by_its_number() -> None:
    stored = SourceAccountFactory(company__customer_number="SB-1", company__country="CA", account_number="1007-730")
    imports.store(table({}), actor=CLI)
    account = SourceAccount.objects.get()
    assert (account.pk, account.account_id) == (stored.pk, stored.account_id)


# --- Accounts that are in Codat --------------------------------------------------------------------------------------
@pytest.fixture
def in_codat(db: None) -> SourceAccount:
    """The account of `ROW`, as Codat has it."""
    imports.store(table({"balance": "5", "bank_code": "00021-829"}), actor=CLI)
    account = SourceAccount.objects.get()
    account.connection = ConnectionFactory(company=account.company)
    account.save()
    return account


@pytest.mark.parametrize(
    ("changes", "column", "words"),
    [
        ({"account_type": "savings"}, "account_type", "cannot change it"),
        ({"currency": "USD"}, "currency", "another account_id"),
        ({"bank_code": "00034-829"}, "bank_code", "cannot change it"),
        ({"account_name": "Main"}, "account_name", "Use Rename"),
    ],
)
def test_what_codat_keeps_cannot_be_changed_by_a_file(
    in_codat: SourceAccount, changes: dict[str, str], column: str, words: str
) -> None:
    (problem,) = imports.plan(table(changes)).errors
    assert (problem.row, problem.column) == ("row 2", column)
    assert words in problem.reason


def test_another_number_for_an_account_in_codat_is_refused_without_showing_the_number(in_codat: SourceAccount) -> None:
    (problem,) = imports.plan(table({"account_id": in_codat.account_id, "account_number": "9998887776"})).errors
    assert problem.column == "account_number"
    assert in_codat.account_number not in problem.reason
    assert "9998887776" not in problem.reason


def test_another_balance_of_an_account_in_codat_is_not_stored_and_said(in_codat: SourceAccount) -> None:
    outcome = imports.store(table({"balance": "99"}), actor=CLI)
    assert [(problem.column, problem.level) for problem in outcome.warnings] == [("balance", "warning")]
    in_codat.refresh_from_db()
    assert in_codat.balance == 5


def test_an_account_deleted_in_codat_is_not_brought_back_by_an_old_file(in_codat: SourceAccount) -> None:
    in_codat.gone_at = in_codat.created_at
    in_codat.save()

    outcome = imports.store(table({}), actor=CLI)

    assert SourceAccount.objects.count() == 1
    assert [problem.column for problem in outcome.warnings] == ["account_id"]


def test_an_account_deleted_in_codat_can_be_added_again_under_another_id(in_codat: SourceAccount) -> None:
    in_codat.gone_at = in_codat.created_at
    in_codat.save()
    again = table({"account_id": "main-2"})

    assert imports.store(again, actor=CLI).counts.created == 1
    assert imports.store(again, actor=CLI).counts.created == 0
    assert imports.store(table({}), actor=CLI).warnings == []  # without an id, the living one is meant


def test_further_accounts_of_a_customer_in_codat_are_added(in_codat: SourceAccount) -> None:
    outcome = imports.store(table({}, {}), actor=CLI)
    assert (outcome.counts.created, outcome.counts.unchanged) == (1, 2)


@pytest.mark.parametrize("text", ["\ud800", "a\x00b"], ids=["half a character", "a NUL"])
@pytest.mark.parametrize("column", ["customer_number", "contact_name", "account_name"])
def test_what_no_database_takes_is_named_by_row_and_column(column: str, text: str) -> None:
    is_of_account = {name: name.startswith("account") or name == "currency" for name in ROW}
    changed = ROW | {column: text}
    customer = {name: value for name, value in changed.items() if not is_of_account[name]}
    account = {name: value for name, value in changed.items() if is_of_account[name]}
    (problem,) = refusal("f.json", json.dumps([customer | {"accounts": [account]}]).encode())
    assert (problem.column, problem.reason) == (column, "The value holds a character that cannot be stored.")
    assert problem.row


def test_json_that_is_nested_without_end_is_a_problem_of_the_file() -> None:
    (problem,) = refusal("f.json", b"[" * 200_000)
    assert problem.reason.startswith("This is not readable as JSON")


@pytest.mark.django_db
def test_a_draft_that_is_deleted_while_the_command_waits_is_left_out_of_the_report() -> None:
    deleted, other = CompanyFactory(), CompanyFactory()
    keys = [deleted.pk, other.pk]
    deleted.delete()
    assert [line.customer_number for line in bulk.report(keys, refused={})] == [other.customer_number]

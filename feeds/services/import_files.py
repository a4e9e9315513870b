"""Reading the file of an import: CSV or JSON, in the columns of `COLUMNS`. Nothing is known yet about the values.

CSV has one row for each account, with the customer's columns repeated; JSON is a list of customers, each with its
`accounts`. Both become the same lines of text.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from django.utils.translation import gettext as _

from feeds.services.errors import Refused

MAX_BYTES: Final = 5 * 1024 * 1024
MAX_ROWS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the file and the model field it fills.

    `required`: the file must have it. `kept_by_codat`: cannot be changed by an import once the account is in Codat.
    """

    name: str
    of: Literal["company", "account"]
    field: str
    required: bool = False
    kept_by_codat: bool = False


COLUMNS: Final = (
    Column("customer_number", "company", "customer_number", required=True),
    Column("legal_name", "company", "legal_name", required=True),
    Column("contact_name", "company", "contact_name", required=True),
    Column("contact_email", "company", "contact_email", required=True),
    Column("country", "company", "country", required=True),
    Column("language", "company", "language"),
    Column("manager", "company", "manager"),
    Column("notes", "company", "notes"),
    Column("account_id", "account", "account_id"),
    Column("account_name", "account", "name", required=True, kept_by_codat=True),
    Column("account_type", "account", "account_type", required=True, kept_by_codat=True),
    Column("account_number", "account", "account_number", required=True, kept_by_codat=True),
    Column("routing_type", "account", "routing_type", kept_by_codat=True),
    Column("bank_code", "account", "bank_code", kept_by_codat=True),
    Column("sort_code", "account", "sort_code", kept_by_codat=True),
    Column("currency", "account", "currency", required=True, kept_by_codat=True),
    Column("balance", "account", "balance", kept_by_codat=True),
    Column("account_open_date", "account", "account_open_date", kept_by_codat=True),
)
COMPANY_COLUMNS: Final = tuple(column for column in COLUMNS if column.of == "company")
ACCOUNT_COLUMNS: Final = tuple(column for column in COLUMNS if column.of == "account")
_BY_NAME: Final = {column.name: column for column in COLUMNS}


@dataclass(frozen=True, slots=True)
class Line:
    """One account with its customer: column name -> text. `label` says where it stands ("row 7")."""

    label: str
    values: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Table:
    """A file that could be read."""

    name: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at one place of the file. Warnings do not stop the import. Never holds a whole account number.

    `is_frozen`: the value is sound, but Codat keeps another.
    """

    row: str
    column: str
    reason: str
    level: Literal["error", "warning"] = "error"
    is_frozen: bool = False

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.row, self.column) if part)
        return f"{place}: {self.reason}" if place else self.reason


class BadFile(Refused):
    """The file cannot be imported: `problems` says where and why. Nothing was stored."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class ChangedMeanwhile(BadFile):
    """Somebody stored the same customers at the same moment. Nothing was stored; trying again may help."""


def parse(path: Path) -> Table:
    """Read a .csv or .json file. Raises BadFile when it cannot be read as such, or is too big."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise bad_file(_("Cannot read %(path)s: %(reason)s.") % {"path": path, "reason": error.strerror}) from error
    return parse_bytes(path.name, content)


def parse_bytes(name: str, content: bytes) -> Table:
    """As `parse`, for content that is in memory already; the end of `name` tells the format."""
    reader = _READERS.get(Path(name).suffix.lower())
    if reader is None:
        raise bad_file(_("%(name)s: the name must end in .csv or .json.") % {"name": name})
    if len(content) > MAX_BYTES:
        limit = MAX_BYTES // 1024 // 1024
        raise bad_file(_("%(name)s is bigger than %(limit)d MiB. Split it.") % {"name": name, "limit": limit})
    lines = tuple(reader(_decoded(content)))
    if not lines:
        raise bad_file(_("%(name)s has no rows.") % {"name": name})
    if len(lines) > MAX_ROWS:
        raise bad_file(_("%(name)s has more than %(limit)d rows. Split it.") % {"name": name, "limit": MAX_ROWS})
    return Table(name, lines)


def bad_file(reason: str, row: str = "", column: str = "") -> BadFile:
    """A BadFile with one problem, to raise."""
    return BadFile([Problem(row, column, reason)])


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        message = _("The file is not in UTF-8. In Excel, save it as “CSV UTF-8 (Comma delimited)”.")
        raise bad_file(message, row=_("row %d") % row) from error


def _read_csv(text: str) -> Iterator[Line]:
    header_line = text.split("\n", 1)[0]
    # Excel writes semicolons where the comma is the decimal sign, as in French Canada.
    delimiter = ";" if header_line.count(";") > header_line.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_names(header, row=_("row 1"))
        start = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield _csv_line(_("row %d") % start, header, cells)
            start = reader.line_num + 1
    except csv.Error as error:
        raise bad_file(_("This is not readable as CSV: %s.") % error, row=_("row %d") % reader.line_num) from error


def _csv_line(label: str, header: Sequence[str], cells: Sequence[str]) -> Line:
    if len(cells) != len(header):
        message = _("The row has %(cells)d cells, the header %(names)d. Put cells that hold the separator in quotes.")
        raise bad_file(message % {"cells": len(cells), "names": len(header)}, row=label)
    named = zip(header, cells, strict=True)
    return Line(label, {name: _storable(label, name, cell.strip()) for name, cell in named})


def _storable(row: str, name: str, text: str) -> str:
    """The text, unless no database takes it: a NUL, or half of a character."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise bad_file(_("The value holds a character that cannot be stored."), row=row, column=name)
    return text


def _check_names(names: Sequence[str], row: str) -> None:
    """Raise BadFile unless these are columns we know, each once, and all required ones."""
    problems = [Problem(row, name, _("There is no such column.")) for name in names if name not in _BY_NAME]
    problems += [Problem(row, name, _("The column is there twice.")) for name in _BY_NAME if names.count(name) > 1]
    problems += [
        Problem(row, column.name, _("The column is missing."))
        for column in COLUMNS
        if column.required and column.name not in names
    ]
    if problems:
        raise BadFile(problems)


_JsonObject: TypeAlias = dict[str, Any]


def _read_json(text: str) -> Iterator[Line]:
    try:
        data = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise bad_file(_("This is not readable as JSON: %s.") % error) from error
    if not isinstance(data, list):
        raise bad_file(_("The file must hold a list of customers, each with its accounts."))
    for number, customer in enumerate(data, start=1):
        yield from _json_lines(_("customer %d") % number, customer)


def _json_lines(label: str, customer: object) -> Iterator[Line]:
    accounts = customer.get("accounts") if isinstance(customer, dict) else None
    if not isinstance(customer, dict) or not isinstance(accounts, list) or not accounts:
        raise bad_file(_("A customer is an object with a list of at least one account."), row=label, column="accounts")
    shared = _texts(label, {name: value for name, value in customer.items() if name != "accounts"}, of="company")
    for number, account in enumerate(accounts, start=1):
        row = _("%(customer)s, account %(number)d") % {"customer": label, "number": number}
        if not isinstance(account, dict):
            raise bad_file(_("An account is an object."), row=row)
        values = shared | _texts(row, account, of="account")
        _check_names(list(values), row)
        yield Line(row, values)


def _texts(row: str, data: _JsonObject, *, of: str) -> dict[str, str]:
    """The values as a CSV file would have them."""
    misplaced = [name for name in data if name in _BY_NAME and _BY_NAME[name].of != of]
    if misplaced:
        raise BadFile([Problem(row, name, _("The column does not belong here.")) for name in misplaced])
    return {name: _text(row, name, value) for name, value in data.items()}


def _text(row: str, name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _storable(row, name, value.strip())
    is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    if is_number and name == "balance":
        return str(value)
    # A number would lose its leading zeros.
    raise bad_file(_("Write the value as text, in quotes."), row=row, column=name)


_READERS: Final[Mapping[str, Callable[[str], Iterator[Line]]]] = {".csv": _read_csv, ".json": _read_json}

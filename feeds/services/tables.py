"""Rows as files: CSV that no spreadsheet runs as a formula, and JSON Lines."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence

CHUNK = 500
"""Rows that are written at once."""

_FORMULA = re.compile(r"^(?=[=+\-@\t\r])|[;\r\n]\s*(?=[=+\-@])")
"""Up to where a formula may begin: also behind a semicolon and in each line of a text, because a spreadsheet in French
cuts at semicolons, and then no quotation begins where ours do."""
BYTE_ORDER_MARK = "\ufeff"
CSV_NOTE = (
    "CSV: UTF-8 with a byte order mark, comma-separated, quoted as in RFC 4180. Where a text, a line in it or what "
    "stands behind a semicolon begins with =, +, - or @, and where a text begins with a tab or a carriage return, an "
    "apostrophe (') is put before it, so that no spreadsheet runs it as a formula."
)

Cell = str | int | None


def safe(cell: Cell) -> Cell:
    """A text that a spreadsheet would run as a formula, with an apostrophe before it; anything else as it is.

    Source: OWASP, "CSV Injection".
    """
    return _FORMULA.sub(r"\g<0>'", cell) if isinstance(cell, str) else cell


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Iterator[bytes]:
    """A CSV file, some rows at a time."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    buffer.write(BYTE_ORDER_MARK)
    writer.writerow(columns)
    for number, row in enumerate(rows, start=1):
        writer.writerow([safe(cell) for cell in row])
        if number % CHUNK == 0:
            yield _taken(buffer)
    yield _taken(buffer)


def as_json_lines(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
    """One JSON object a line, keys as in `columns`, in UTF-8."""
    buffer = io.StringIO()
    for number, row in enumerate(rows, start=1):
        buffer.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False))
        buffer.write("\n")
        if number % CHUNK == 0:
            yield _taken(buffer)
    yield _taken(buffer)


def _taken(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode()

"""Rows as files: nothing runs in a spreadsheet, and a ZIP can be read that was never held."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import zipfile
from datetime import UTC, datetime

import pytest

from feeds.services.tables import CHUNK, as_csv, as_json_lines
from feeds.services.zipstream import ZipStream


def parsed(data: bytes) -> list[list[str]]:
    """A CSV file as a spreadsheet reads it."""
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))


@pytest.mark.parametrize(
    "dangerous", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", '=HYPERLINK("http://evil.example","x")']
)
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(dangerous: str) -> None:
    data = b"".join(as_csv(["a", "b"], [[dangerous, "fine"]]))
    assert parsed(data)[1] == [f"'{dangerous}", "fine"]


@pytest.mark.parametrize("dangerous", ["x; =1+1", "x;=1+1", "first\n@SUM(A1)", "first\r\n +1"])
def test_nor_does_one_that_cuts_at_semicolons_and_knows_no_quotation_after_a_comma(dangerous: str) -> None:
    data = b"".join(as_csv(["a", "b"], [["fine", dangerous]]))
    cells = [cell.strip() for row in data.decode().splitlines() for cell in row.split(";")]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize(
    "harmless", ["x=1", "a-b", "a;b", "", "Café", "line\nbreak", "two\r\n\r\nparts", 'quote"d', "••••3218"]
)
def test_any_other_text_is_written_as_it_is(harmless: str) -> None:
    assert parsed(b"".join(as_csv(["a"], [[harmless, "end"]])))[1] == [harmless, "end"]


def test_numbers_stay_numbers_and_nothing_stays_empty() -> None:
    assert b"".join(as_csv(["a", "b"], [[-7, None]])).endswith(b"-7,\r\n")


def test_json_lines_are_one_object_a_line() -> None:
    data = b"".join(as_json_lines(["a", "b"], [["=é", {"c": [1]}], [None, 2]]))
    assert [json.loads(line) for line in data.decode().splitlines()] == [
        {"a": "=é", "b": {"c": [1]}},
        {"a": None, "b": 2},
    ]


@pytest.mark.parametrize("rows", [0, 1, CHUNK, CHUNK + 1])
def test_every_row_is_written_once_however_the_pieces_fall(rows: int) -> None:
    pieces = list(as_csv(["n"], ([number] for number in range(rows))))
    assert [row[0] for row in parsed(b"".join(pieces))] == ["n", *map(str, range(rows))]
    assert len(pieces) == rows // CHUNK + 1


def test_a_zip_that_was_sent_while_it_was_written_holds_what_was_put_in() -> None:
    packed = ZipStream(datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC))
    big = [random.Random(number).randbytes(50_000) for number in range(40)]
    pieces = [*packed.file("big.bin", iter(big)), *packed.file("é.txt", [b"x", b"y"]), *packed.end()]
    archive = zipfile.ZipFile(io.BytesIO(b"".join(pieces)))
    assert archive.testzip() is None
    assert archive.read("big.bin") == b"".join(big)
    assert archive.read("é.txt") == b"xy"
    assert archive.getinfo("big.bin").date_time == (2026, 1, 2, 3, 4, 6)
    assert [(file.name, file.size, file.sha256) for file in packed.files] == [
        ("big.bin", 2_000_000, hashlib.sha256(b"".join(big)).hexdigest()),
        ("é.txt", 2, hashlib.sha256(b"xy").hexdigest()),
    ]
    assert len(pieces) > 10

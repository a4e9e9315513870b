"""The callout that the Portal's form keeps and the Link page shows."""

import json
import re
import sqlite3
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from feeds.sandbox.store import read_meta, write_meta

MAX_TITLE, MAX_BODY = 50, 150
LANGUAGE_NAMES = {"en": "English", "fr": "French"}
MARKUP = re.compile(r"<\s*[A-Za-z/!]|&[A-Za-z#0-9]+;|[\x00-\x09\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Field:
    """One of the four texts of the form, with what is wrong with it (empty when nothing is)."""

    name: str
    label: str
    most: int
    is_body: bool
    value: str
    error: str


def fields(value_of: Callable[[str], str]) -> list[Field]:
    """Return the form's fields, each checked: plain text of at most 50 (title) or 150 (body) UTF-16 units after NFC."""
    return [
        _field(language, part, most, value_of(f"{part}_{language}"))
        for language in LANGUAGE_NAMES
        for part, most in (("title", MAX_TITLE), ("body", MAX_BODY))
    ]


def saved(db: sqlite3.Connection) -> dict[str, str]:
    """Return the saved texts by field name, e.g. ``title_fr``; empty when none was saved."""
    texts: dict[str, str] = read_meta(db, "callout", {})
    return texts


def save(db: sqlite3.Connection, checked: list[Field]) -> None:
    """Save the texts of fields without errors."""
    write_meta(db, "callout", {field.name: field.value for field in checked})


def begin_with(db: sqlite3.Connection, path: Path) -> None:
    """Save the texts of a JSON file, unless somebody saved the form already.

    Raises:
        ValueError: The form would refuse them.
    """
    if read_meta(db, "callout") is not None:
        return
    texts: dict[str, str] = json.loads(path.read_text())
    checked = fields(lambda name: texts.get(name, ""))
    if errors := [field.error for field in checked if field.error]:
        raise ValueError(f"{path}: {' '.join(errors)}")
    save(db, checked)


def length(text: str) -> int:
    """Return the length in UTF-16 units, as browsers count."""
    return len(text.encode("utf-16-le")) // 2


def _field(language: str, part: str, most: int, raw: str) -> Field:
    value = unicodedata.normalize("NFC", raw.replace("\r\n", "\n").strip())
    label = f"{LANGUAGE_NAMES[language]} {part}"
    error = ""
    if length(value) > most:
        error = f"{label}: at most {most} characters; this has {length(value)}."
    elif MARKUP.search(value):
        error = f"{label}: plain text only, no markup."
    return Field(f"{part}_{language}", label, most, part == "body", value, error)

"""A French in which every translated text stands in brackets: what shows without them was never marked.

Ours and everybody's: Django's strings pass through the same functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from django.utils.translation import trans_real

from feeds import wording

OPEN, CLOSE = "⟦", "⟧"
_CONTEXT = "\x04"

SPOKEN_ATTRIBUTES = ("aria-label", "title", "placeholder", "alt", "data-copied", "data-failed", "data-expired",
                     "data-progress-lost", "data-progress-ended", "data-summary")  # fmt: skip
SILENT_ELEMENTS = ("script", "style", "head", "textarea", "pre", "code")
_VOID = ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")


class Bracketed:
    """In place of Django's French."""

    domain = "django"

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def to_language(self) -> str:
        return "fr"

    language = to_language

    def gettext(self, message: str) -> str:
        self.asked.add(message)
        return self._bracketed(message)

    def ngettext(self, singular: str, plural: str, number: int) -> str:
        self.asked.add(singular)
        return self._bracketed(singular if number == 1 else plural)

    def _bracketed(self, message: str) -> str:
        # Without its context, as a translation is: Django takes what still has one for untranslated.
        text = message.rpartition(_CONTEXT)[2]
        return f"{OPEN}{text}{CLOSE}" if text.strip() else message


def speak(monkeypatch: pytest.MonkeyPatch) -> Bracketed:
    """From now on French is the bracketed one, for this test."""
    bracketed = Bracketed()
    monkeypatch.setitem(trans_real._translations, "fr", bracketed)
    monkeypatch.setattr(wording, "_retold", lambda text, _language: f"{OPEN}{text}{CLOSE}")
    return bracketed


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag not in _VOID:
            self._open.append(tag)
        spoken = [named.get(name) for name in SPOKEN_ATTRIBUTES]
        if tag == "input" and named.get("type") in ("submit", "button", "reset"):
            spoken.append(named.get("value"))
        self.texts.extend(text for text in spoken if text)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if data.strip() and not set(self._open).intersection(SILENT_ELEMENTS):
            self.texts.append(data)


def unmarked(html: str) -> Iterator[str]:
    """Texts that a person sees or hears, without what stands in brackets; a bracket may span elements."""
    page = _Page()
    page.feed(html.replace("<wbr>", ""))  # where a word may be broken it is still one word
    depth = 0
    for text in page.texts:
        outside = ""
        for character in text:
            if character == OPEN:
                depth += 1
            elif character == CLOSE:
                depth -= 1
            elif not depth:
                outside += character
        if text.endswith("…"):  # cut, and its closing bracket with it
            depth = 0
        if re.search(r"[^\W\d_]{2}", outside):
            yield " ".join(outside.split())

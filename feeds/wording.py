"""The product's own words in stored rows: written in one language, read in the reader's.

An error or a result is stored as text, when it happened and in the site's language whoever was at work, so that the
record says the same to everybody and an export is in one language. On screen it is told again: the catalogue knows
every sentence the product can have written, so the sentence is found by its English and shown in the reader's words.
What was not ours (what Codat said, what a person wrote) is shown as it is.
"""

from __future__ import annotations

import gettext
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from django.conf import settings
from django.utils import translation
from django.utils.translation import gettext as _

from feeds.states import (
    ACCOUNT_MEANINGS,
    GONE_MEANING,
    NOT_IN_CODAT,
    AccountStatus,
    ConnectionStatus,
    OnboardingState,
)

_PLACEHOLDER = re.compile(r"%\((?P<name>\w+)\)[sd]|%[sd]|\{\}")
_CHANGE = re.compile(r"(?P<label>[^:→]+): (?P<before>[^→]+) → (?P<after>[^→]+)")
_ONBOARDING = "Onboarding"
"""The label before a state of onboarding. Anywhere else "Draft" or "Linked" may be something else, or a name."""
_PLAIN_VALUES = ("yes", "no", "none", "gone")
_SHORTEST_START = 4
"""Letters a sentence must begin with before its first placeholder: fewer would find it in anybody's words."""
_SHORTEST_END = 12
"""Letters a sentence that begins with a name must have after it, for the same reason."""


def recorded() -> AbstractContextManager[None]:
    """A block in which text for a stored row is written: in the site's language, whoever's request it is."""
    return translation.override(settings.LANGUAGE_CODE)


def retold(text: str) -> str:
    """A stored text in the language active now, as far as it is the product's own words."""
    language = translation.get_language()
    if not text or language is None or language == settings.LANGUAGE_CODE:
        return text
    return _retold(text, language)


def colon_in_words() -> str:
    """What stands between a label and its value: French has a no-break space before the colon."""
    return _("%(label)s: %(value)s") % {"label": "", "value": ""}


def before_stop(name: str) -> str:
    """A name as it stands at the end of a sentence: the full stop of "Café du Port inc." is the sentence's too."""
    return name.removesuffix(".")


@dataclass(frozen=True)
class _Sentence:
    """One string of the catalogue that may stand in a stored text."""

    start: str
    pattern: re.Pattern[str]
    translated: tuple[str, ...]
    """Several where it counts something."""
    is_whole: bool
    """Ends with a full stop: others may follow it, and it may stand inside another."""

    def tell(self, found: re.Match[str], book: _Book) -> str:
        named = found.groupdict()
        rest = named.pop("rest_of_text", None)
        values = {name: book.value(value) for name, value in named.items()}
        number = next((int(value) for value in named.values() if value.isdecimal()), 2)
        text = self.translated[book.form(number) if len(self.translated) > 1 else 0]
        told = _PLACEHOLDER.sub(lambda place: values[_group(place, text)], text)
        return f"{told} {book.text(rest)}" if rest else told


@dataclass(frozen=True)
class _Book:
    """One language: whole texts, sentences by length of their start (longest first), and the statuses' words."""

    exact: Mapping[str, str]
    sentences: tuple[_Sentence, ...]
    statuses: Mapping[str, str]
    onboarding: Mapping[str, str]
    form: Callable[[int], int]
    """Which of a text's forms goes with a number."""

    def text(self, text: str) -> str:
        return (
            self.exact.get(text)
            or self._label_and_words(text)
            or self._changes(text)
            or self._labels(text)
            or self._sentence(text)
            or text
        )

    def value(self, value: str) -> str:
        """What stands in a placeholder: a sentence or a status may be ours, a name never is."""
        return self.statuses.get(value) or self._sentence(value, whole_only=True) or self._changes(value) or value

    def _sentence(self, text: str, *, whole_only: bool = False) -> str | None:
        for sentence in self.sentences:
            if whole_only and not sentence.is_whole:
                continue
            if text.startswith(sentence.start) and (found := sentence.pattern.fullmatch(text)):
                return sentence.tell(found, self)
        return None

    def _label_and_words(self, text: str) -> str | None:
        """What a case tells: a label and what the person wrote, or a status and the accounts that have it."""
        label, dash, words = text.partition(" – ")
        if dash and label in self.exact:
            return f"{self.exact[label]}{dash}{words}"
        status, colon, names = text.partition(": ")
        if colon and status in self.statuses:
            return f"{self.statuses[status]}{colon_in_words()}{self.exact.get(names, names)}"
        return None

    def _changes(self, text: str) -> str | None:
        """What changed, as in "Active: no → yes; Roles: none → Support": labels and words of ours, and names."""
        told = []
        for piece in text.split("; "):
            found = _CHANGE.fullmatch(piece)
            if found is None or found["label"] not in self.exact:
                return None
            label = found["label"]
            before, after = (self._plain(label, value) for value in (found["before"], found["after"]))
            told.append(f"{self.exact[label]}{colon_in_words()}{before} → {after}")
        return "; ".join(told)

    def _plain(self, label: str, value: str) -> str:
        # Not any word: a role may be called like something else on the screens.
        if label == _ONBOARDING:
            return self.onboarding.get(value, value)
        return self.statuses.get(value) or (self.exact[value] if value in _PLAIN_VALUES else value)

    def _labels(self, text: str) -> str | None:
        """Labels of fields, one after the other."""
        labels = text.split(", ")
        return ", ".join(self.exact[label] for label in labels) if all(it in self.exact for it in labels) else None


@lru_cache(maxsize=4096)
def _retold(text: str, language: str) -> str:
    book = _book(language)
    return "\n".join(book.text(line) for line in text.split("\n"))


@lru_cache
def _book(language: str) -> _Book:
    folder = Path(settings.LOCALE_PATHS[0])
    words = dict(_entries(Path(str(gettext.find("django", folder, [language])))))
    sentences = [_sentence(english, forms) for english, forms in words.items() if _is_unmistakable(english)]
    statuses, onboarding = (
        {english: words.get(english, (english,))[0] for english in labels}
        for labels in (_status_labels(), _onboarding_labels())
    )
    ordered = sorted(sentences, key=lambda it: -len(it.start))
    exact = {english: forms[-1] for english, forms in words.items() if not _PLACEHOLDER.search(english)}
    # The library has no public way to ask for it; the attribute is as old as the module.
    form = gettext.translation("django", folder, [language]).plural  # type: ignore[attr-defined]
    return _Book(exact, tuple(ordered), statuses, onboarding, form)


def _entries(compiled: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each English text of a compiled catalogue with its translation; what counts, both of its English forms with all
    of the other language's. The library reads the same file and forgets the second English form.
    """
    held = compiled.read_bytes()
    count, keys, texts = struct.unpack_from("<3I", held, 8)

    def words(table: int, number: int) -> list[str]:
        length, start = struct.unpack_from("<2I", held, table + 8 * number)
        return held[start : start + length].decode().split("\0")

    for number in range(count):
        forms = tuple(words(texts, number))
        yield from ((english, forms) for english in words(keys, number) if english and all(forms))


def _is_unmistakable(english: str) -> bool:
    """Whether a stored text that fits can only be this sentence: by how it begins, or by all that follows a name."""
    first = _PLACEHOLDER.search(english)
    if first is None or first.start() >= _SHORTEST_START:
        return True
    fixed = len(_PLACEHOLDER.sub("", english))
    if first.group().endswith("d"):
        return first.start() == 0 and fixed >= _SHORTEST_START
    return first.start() == 0 and english.endswith(".") and fixed >= _SHORTEST_END


def _status_labels() -> list[str]:
    with recorded():
        not_sent = ACCOUNT_MEANINGS[NOT_IN_CODAT]
        return [str(known.label) for known in (*ConnectionStatus, *AccountStatus, not_sent, GONE_MEANING)]


def _onboarding_labels() -> list[str]:
    with recorded():
        return [str(known.label) for known in OnboardingState]


def _sentence(english: str, translated: tuple[str, ...]) -> _Sentence:
    pieces: list[str] = []
    groups: set[str] = set()
    end = 0
    for place in _PLACEHOLDER.finditer(english):
        what, group = r"\d+" if place.group().endswith("d") else ".+?", _group(place, english)
        # One that stands there twice says twice the same.
        piece = f"(?P={group})" if group in groups else f"(?P<{group}>{what})"
        pieces += [re.escape(english[end : place.start()]), piece]
        groups.add(group)
        end = place.end()
    pieces.append(re.escape(english[end:]))
    # Sentences are joined by spaces; a label is only ever the whole text.
    is_whole = english.endswith(".")
    rest = r"(?: (?P<rest_of_text>.+))?" if is_whole else ""
    first = _PLACEHOLDER.search(english)
    start = english[: first.start()] if first else english
    return _Sentence(start, re.compile("".join(pieces) + rest), translated, is_whole)


def _group(place: re.Match[str], text: str) -> str:
    """The name of a placeholder's group: its own, or its number among those without a name."""
    name = place.group("name")
    return name or f"number_{len(_PLACEHOLDER.findall(text[: place.start()]))}"

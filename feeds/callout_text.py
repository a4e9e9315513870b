"""The rules of the callout's text: how it is counted, what is refused and where, how two texts differ.

Pure: no models, no settings, no I/O. The limits and the way of counting are those of the Portal's form: UTF-16 units
after NFC, as a browser counts. A position is counted in the same way, from 1.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

MAX_TITLE, MAX_BODY = 50, 150
MOST_NAMED = 10
"""Refusals named for one text: a pasted document would fill the screen."""
SHOWN_BEFORE = 12
"""Characters shown before the refused one, so that it is found in the text."""

_LINE_BREAKS = frozenset("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_JOINER = "\u200d"
_BREAK_AS_SENT = re.compile(r"\r\n?")
_MARKUP = re.compile(
    r"<\s*[A-Za-z/!?][^<>]{0,40}>?"  # a tag, closed or not
    r"|&[A-Za-z#0-9]+;"  # an entity
    r"|\*\*|__|\]\("  # Markdown
)


class Why(StrEnum):
    """Why a piece of text is refused."""

    TOO_LONG = "too_long"
    LINE_BREAK = "line_break"
    CONTROL = "control"
    DIRECTION = "direction"
    INVISIBLE = "invisible"
    SURROGATE = "surrogate"
    LOST = "lost"
    NO_CHARACTER = "no_character"
    MARKUP = "markup"


_SAID: Mapping[Why, str | Promise] = {
    Why.LINE_BREAK: gettext_lazy("a line break. Write one line"),
    Why.CONTROL: gettext_lazy("a control character (%(code)s). Remove it"),
    Why.DIRECTION: gettext_lazy("an invisible character that turns the direction of text (%(code)s). Remove it"),
    Why.INVISIBLE: gettext_lazy("an invisible character (%(code)s). Remove it"),
    Why.SURROGATE: gettext_lazy("half a character (%(code)s). Type the character again"),
    Why.LOST: gettext_lazy("a character that was lost in copying (%(code)s). Type it again"),
    Why.NO_CHARACTER: gettext_lazy("a code that stands for no character (%(code)s). Remove it"),
    Why.MARKUP: gettext_lazy("markup: %(shown)s. Only plain text is shown to the customer; remove it"),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing that must not be in a text. `position` counts from 1, in UTF-16 units; `shown` is the piece itself."""

    why: Why
    position: int
    shown: str
    before: str = ""
    length: int = 0
    limit: int = 0

    def __str__(self) -> str:
        if self.why is Why.TOO_LONG:
            values = {"length": self.length, "limit": self.limit, "over": self.length - self.limit}
            return _("%(length)d characters are too many: at most %(limit)d. Take out %(over)d.") % values
        said = str(_SAID[self.why]) % {"code": _code(self.shown), "shown": self.shown}
        place = {"position": self.position, "before": self.before, "said": said}
        if not self.before:
            return _("Position %(position)d: %(said)s.") % place
        return _("Position %(position)d, after “%(before)s”: %(said)s.") % place


def normalise(text: str) -> str:
    """The text as it is stored, counted and copied: without space around it, composed (NFC).

    A form sends each line break as two characters. It is one, as the counter beside the field has it: else every
    position after it would be off, and the break be refused twice.
    """
    return unicodedata.normalize("NFC", _BREAK_AS_SENT.sub("\n", text).strip())


def units(text: str) -> int:
    """Length in UTF-16 units, as browsers and the Portal count. Does not normalise."""
    return len(text) + sum(character > "\uffff" for character in text)


def refusals(text: str, limit: int) -> list[Refusal]:
    """Everything in a normalised text that is refused: its length first, then in the order of the text.

    At most `MOST_NAMED`; empty when the text is good. An empty text is good.
    """
    found = [Refusal(Why.TOO_LONG, limit + 1, "", length=units(text), limit=limit)] if units(text) > limit else []
    for place, why, shown in sorted([*_bad_characters(text), *_markup(text)]):
        if len(found) == MOST_NAMED:
            break
        before = "".join(filter(str.isprintable, text[max(0, place - SHOWN_BEFORE) : place]))
        found.append(Refusal(why, units(text[:place]) + 1, shown, before.lstrip()))
    return found


def _markup(text: str) -> Iterator[tuple[int, Why, str]]:
    for match in _MARKUP.finditer(text):
        yield match.start(), Why.MARKUP, "".join(filter(str.isprintable, match[0]))


def _bad_characters(text: str) -> Iterator[tuple[int, Why, str]]:
    for place, character in enumerate(text):
        why = _why(character)
        if why is not None and not (character == _JOINER and _joins_signs(text, place)):
            yield place, why, character


def _why(character: str) -> Why | None:
    """Why a character is refused wherever it stands; None when it is not. A joiner may be good between signs."""
    if character in _LINE_BREAKS:
        return Why.LINE_BREAK
    if character in _DIRECTION:
        return Why.DIRECTION
    if character == "\ufffd":
        return Why.LOST
    if _is_noncharacter(ord(character)):
        return Why.NO_CHARACTER
    return _BY_CATEGORY.get(unicodedata.category(character))


# Unassigned codes (Cn) are let through: next year's emoji are such to this year's Python.
_BY_CATEGORY = {"Cc": Why.CONTROL, "Cf": Why.INVISIBLE, "Cs": Why.SURROGATE, "Co": Why.NO_CHARACTER}


def _is_noncharacter(code: int) -> bool:
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF


def _joins_signs(text: str, place: int) -> bool:
    """Whether a joiner stands between two signs, as it does inside 👩‍💻: there it is part of one emoji."""
    around = text[max(0, place - 1) : place], text[place + 1 : place + 2]
    return all(sign and (sign == "\ufe0f" or unicodedata.category(sign) in ("So", "Sk", "Cn")) for sign in around)


def _code(character: str) -> str:
    return f"U+{ord(character[0]):04X}" if character else ""


# --- Differences -----------------------------------------------------------------------------------------------------
class Change(StrEnum):
    """What became of a piece of text."""

    SAME = "same"
    REMOVED = "removed"
    ADDED = "added"


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of words with one fate. The pieces of old and new, put together, are the two texts."""

    change: Change
    text: str


def difference(old: str, new: str) -> list[Piece]:
    """How `old` became `new`, word by word, removed before added; empty when both are."""
    before, after = _words(old), _words(new)
    blocks = SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes()
    pieces: list[Piece] = []
    removed = added = ""
    for place, (tag, a, b, c, d) in enumerate(blocks):
        taken, put = "".join(before[a:b]), "".join(after[c:d])
        # The space between two changed words belongs to the change: so it is one, and not two.
        is_between = bool(removed or added) and place + 1 < len(blocks)
        if tag == "equal" and not (taken.isspace() and is_between):
            pieces += [*_changed(removed, added), Piece(Change.SAME, taken)]
            removed = added = ""
        else:
            removed, added = removed + taken, added + put
    return pieces + _changed(removed, added)


def _changed(removed: str, added: str) -> list[Piece]:
    both = (Piece(Change.REMOVED, removed), Piece(Change.ADDED, added))
    return [piece for piece in both if piece.text]


def _words(text: str) -> Sequence[str]:
    """Words and the spaces between them."""
    return re.findall(r"\s+|\S+", text)

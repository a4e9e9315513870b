"""The rules of the callout's text: how it is counted, what is refused and where, how two texts differ."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from feeds.callout_text import MOST_NAMED, Change, Why, difference, normalise, refusals, units

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no defect of the rules."""
any_text = st.text()
with_halves = st.text(st.characters())
"""Any code point, unpaired surrogates too."""


def found(text: str, limit: int = 50) -> list[tuple[str, int]]:
    """What is refused, and where."""
    return [(refusal.why.value, refusal.position) for refusal in refusals(normalise(text), limit)]


# --- Counting --------------------------------------------------------------------------------------------------------
@unhurried
@given(with_halves)
@example("🍁")
@example("\ud83d\ude00")
def test_units_are_those_of_utf_16(text: str) -> None:
    assert units(text) == len(text.encode("utf-16-le", "surrogatepass")) // 2


@unhurried
@given(any_text)
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)


@pytest.mark.parametrize(("typed", "stored"), [("  Hé  ", "Hé"), ("He\u0301", "Hé"), ("\u00a0x\n", "x"), ("   ", "")])
def test_a_text_is_stored_composed_and_without_space_around_it(typed: str, stored: str) -> None:
    assert normalise(typed) == stored


# --- What is refused -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "why", "position"),
    [
        ("Hello\nworld", "line_break", 6),
        ("Hello\u2028world", "line_break", 6),
        ("Hello\x85world", "line_break", 6),
        ("a\tb", "control", 2),
        ("bell\x07!", "control", 5),
        ("nul\x00!", "control", 4),
        ("del\x7f!", "control", 4),
        ("a\u202eb", "direction", 2),
        ("a\u2066b", "direction", 2),
        ("a\u200fb", "direction", 2),
        ("a\u200bb", "invisible", 2),
        ("a\u00adb", "invisible", 2),
        ("a\u200db", "invisible", 2),
        ("\ufeffa", "invisible", 1),
        ("🏴\U000e0067", "invisible", 3),
        ("a\ud83d", "surrogate", 2),
        ("caf\ufffd", "lost", 4),
        ("a\ufdd0b", "no_character", 2),
        ("a\U0001fffeb", "no_character", 2),
        ("a\ue000b", "no_character", 2),
        ("a <b>bold", "markup", 3),
        ("a </b>", "markup", 3),
        ("a <!-- x", "markup", 3),
        ("a <? x", "markup", 3),
        ("a &amp; b", "markup", 3),
        ("a &#8211; b", "markup", 3),
        ("a **b**", "markup", 3),
        ("see [us](here)", "markup", 8),
        ("🍁🍁 <i>x", "markup", 6),
    ],
)
def test_what_is_refused_is_named_with_its_position(text: str, why: str, position: int) -> None:
    assert (why, position) in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Tom & Jerry",
        "2 < 3, 5 > 4",
        "\"quoted\" 'twice' “thrice”",
        "100 % – sûr; l’été, «guillemets»",
        "Fragen? ¿Preguntas? *",
        "🍁 👩‍💻 👨‍👩‍👧‍👦 ❤️‍🔥 🧑🏽‍🚀 🇨🇦",
        "e\u0301te\u0301",
        "日本語",
        "non\u00a0breaking",
        "www.bank.example/help_me",
    ],
)
def test_plain_text_is_not_refused(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize("sent", ["\r\n", "\r", "\n"])
def test_a_line_break_is_one_character_however_a_browser_sends_it(sent: str) -> None:
    assert found(f"Hello{sent}world<b>") == [("line_break", 6), ("markup", 12)]
    assert found(f"{'x' * 25}{sent}{'x' * 24}") == [("line_break", 26)]


def test_a_text_that_is_too_long_says_how_long_it_is_and_how_much_to_take_out() -> None:
    (refusal,) = refusals("x" * 53, 50)
    assert refusal.why is Why.TOO_LONG
    assert str(refusal) == "53 characters are too many: at most 50. Take out 3."


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Hello\nworld", "Position 6, after “Hello”: a line break. Write one line."),
        ("\u202eHi", "Position 1: an invisible character that turns the direction of text (U+202E). Remove it."),
        (
            "Read <b>this",
            "Position 6, after “Read ”: markup: <b>. Only plain text is shown to the customer; remove it.",
        ),
    ],
)
def test_the_refusal_says_what_to_do(text: str, sentence: str) -> None:
    assert [str(refusal) for refusal in refusals(text, 50)] == [sentence]


def test_a_pasted_document_does_not_fill_the_screen() -> None:
    assert len(refusals("<p>\n" * 5000, 50)) == MOST_NAMED


@unhurried
@given(with_halves)
def test_a_refusal_can_be_shown_whatever_was_pasted(text: str) -> None:
    for refusal in refusals(normalise(text), 50):
        shown = str(refusal)
        assert shown.isprintable()
        assert shown.encode()


# --- Differences -----------------------------------------------------------------------------------------------------
def test_a_difference_is_told_by_words() -> None:
    pieces = difference("Have your password ready.", "Have your QuickBooks password ready.")
    assert [(piece.change.value, piece.text) for piece in pieces] == [
        ("same", "Have your "),
        ("added", "QuickBooks "),
        ("same", "password ready."),
    ]


def test_a_word_that_stays_is_not_marked_because_more_comes_after_it() -> None:
    pieces = difference("Have it ready.", "Have it ready. Thank you.")
    assert [(piece.change.value, piece.text) for piece in pieces] == [
        ("same", "Have it ready."),
        ("added", " Thank you."),
    ]


def test_changed_words_beside_each_other_are_one_change() -> None:
    pieces = difference("Have your password", "Have some patience")
    assert [(piece.change.value, piece.text) for piece in pieces] == [
        ("same", "Have "),
        ("removed", "your password"),
        ("added", "some patience"),
    ]


def test_what_was_taken_out_comes_before_what_was_put_in() -> None:
    assert [piece.change for piece in difference("one", "two")] == [Change.REMOVED, Change.ADDED]


@unhurried
@given(any_text, any_text)
def test_the_pieces_are_the_two_texts(old: str, new: str) -> None:
    pieces = difference(old, new)
    assert "".join(piece.text for piece in pieces if piece.change != Change.ADDED) == old
    assert "".join(piece.text for piece in pieces if piece.change != Change.REMOVED) == new

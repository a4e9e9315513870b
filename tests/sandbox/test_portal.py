"""The Portal's callout form, and the box it fills on the Link page."""

from pathlib import Path

import pytest
import requests
from django.utils.html import escape

from tests.sandbox.customer import Customer
from tests.sandbox_process import ROOT, SandboxProcess

TEXTS = {
    "title_en": "Before you start",
    "body_en": "Have your QuickBooks password ready.",
    "title_fr": "Avant de commencer",
    "body_fr": "Préparez votre mot de passe QuickBooks.",
}


def save(sandbox: SandboxProcess, **texts: str) -> requests.Response:
    return requests.post(f"{sandbox.url}/portal/callout", texts, timeout=10)


def form(sandbox: SandboxProcess) -> str:
    return requests.get(f"{sandbox.url}/portal/callout", timeout=10).text


def link_page(sandbox: SandboxProcess, language: str) -> str:
    return requests.get(f"{Customer(sandbox, 'a').link()}&lang={language}", timeout=10).text


def test_no_box_is_shown_when_nothing_is_saved(sandbox: SandboxProcess) -> None:
    assert 'class="callout"' not in link_page(sandbox, "en")


@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_saved_text_is_shown_in_its_language_above_the_button(sandbox: SandboxProcess, language: str) -> None:
    assert save(sandbox, **TEXTS).status_code == 200
    page = link_page(sandbox, language)
    other = "fr" if language == "en" else "en"
    box = page.index('class="callout"')
    assert (
        box < page.index(TEXTS[f"title_{language}"], box) < page.index(TEXTS[f"body_{language}"]) < page.index("<form")
    )
    assert TEXTS[f"title_{other}"] not in page


def test_a_language_without_text_shows_no_box(sandbox: SandboxProcess) -> None:
    save(sandbox, title_en="Before you start")
    assert 'class="callout"' in link_page(sandbox, "en")
    assert 'class="callout"' not in link_page(sandbox, "fr")


def test_what_was_saved_is_in_the_form_again(sandbox: SandboxProcess) -> None:
    save(sandbox, **TEXTS)
    assert all(text in form(sandbox) for text in TEXTS.values())


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("x" * 50, True),
        ("x" * 51, False),
        ("🍁" * 25, True),
        ("🍁" * 26, False),
        ("e\u0301" * 50, True),
        ("  " + "x" * 50 + "  ", True),
    ],
    ids=["50", "51", "25 pairs", "26 pairs", "50 once composed", "50 once trimmed"],
)
def test_a_title_is_counted_in_utf_16_units_after_composition(sandbox: SandboxProcess, text: str, fits: bool) -> None:
    answer = save(sandbox, title_fr=text)
    assert answer.status_code == (200 if fits else 400)
    assert ("French title: at most 50 characters" in answer.text) is not fits


@pytest.mark.parametrize(("length", "status"), [(150, 200), (151, 400)])
def test_a_body_is_at_most_150(sandbox: SandboxProcess, length: int, status: int) -> None:
    assert save(sandbox, body_en="x" * length).status_code == status


def test_a_line_break_counts_as_one(sandbox: SandboxProcess) -> None:
    assert save(sandbox, body_en="x" * 74 + "\r\n" + "x" * 75).status_code == 200


@pytest.mark.parametrize("text", ["<b>Hi</b>", "Hi</p>", "a &amp; b", "bell\x07"])
def test_markup_is_refused(sandbox: SandboxProcess, text: str) -> None:
    answer = save(sandbox, body_en=text)
    assert answer.status_code == 400
    assert "English body: plain text only" in answer.text


@pytest.mark.parametrize("text", ["Tom & Jerry", "2 < 3", "5 > 4", "\"quoted\" 'twice'"])
def test_signs_that_are_no_markup_are_kept_and_escaped(sandbox: SandboxProcess, text: str) -> None:
    assert save(sandbox, body_en=text).status_code == 200
    assert f"<p>{escape(text)}</p>" in link_page(sandbox, "en")


def test_a_refused_form_keeps_what_was_typed_and_saves_nothing(sandbox: SandboxProcess) -> None:
    save(sandbox, **TEXTS)
    answer = save(sandbox, **{**TEXTS, "title_en": "New title", "body_en": "x" * 151})
    assert "New title" in answer.text
    assert "New title" not in form(sandbox)


def test_the_form_tells_the_browser_its_limits(sandbox: SandboxProcess) -> None:
    page = form(sandbox)
    assert page.count('maxlength="50"') == 2
    assert page.count('maxlength="150"') == 2


def test_the_form_begins_with_the_texts_of_a_file_until_somebody_saves_it(tmp_path: Path) -> None:
    begins = ("--callout", str(ROOT / "docs/sample/callout.json"))
    stand_in = SandboxProcess(tmp_path / "sandbox.sqlite3", *begins).start()
    try:
        assert "Ayez votre mot de passe QuickBooks à portée de main." in link_page(stand_in, "fr")
        save(stand_in, title_en="Ours")
        stand_in.stop()
        stand_in.start()
        assert "Ours" in form(stand_in)
        assert "Ayez votre mot de passe" not in form(stand_in)
    finally:
        stand_in.stop()

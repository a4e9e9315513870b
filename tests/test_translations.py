"""The French catalogue is complete, keeps what the English fills in, is set properly and fits the screen.

`make messages` brings it up to date and lists what is missing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

import pytest
from babel.messages import Catalog
from django.contrib import admin
from django.contrib.admin.utils import label_for_field
from django.db import models
from django.utils import translation
from django.utils.text import capfirst

from backoffice.site import _SIDEBAR
from feeds import states
from feeds.admin.actions import ActionsAdmin
from feeds.states import Meaning
from tests import catalogue
from tests.catalogue import NBSP, ROOT

ADVICE = "run `make messages`, then translate what it lists in feeds/locale/fr/LC_MESSAGES/django.po, then run it again"


# --- Complete --------------------------------------------------------------------------------------------------------
def test_every_marked_string_is_translated_and_compiled() -> None:
    assert catalogue.problems() == [], ADVICE


def test_a_new_string_would_be_missed() -> None:
    marks = catalogue.marked() | {(None, "A sentence that nobody has translated."): catalogue.Mark()}
    assert catalogue.missing(catalogue.updated(catalogue.read(), marks)) == ["A sentence that nobody has translated."]


def test_half_a_plural_is_missing() -> None:
    catalog = catalogue.French(locale="fr")
    catalog.add(("%s cat", "%s cats"), ("%s chat", ""))
    assert catalogue.missing(catalog) == ["%s cat"]


def test_a_guess_is_missing_too() -> None:
    catalog = catalogue.French(locale="fr")
    catalog.add("Dog", "Chien", flags=["fuzzy"])
    assert catalogue.missing(catalog) == ["Dog"]


def test_updating_changes_nothing_but_what_changed() -> None:
    held = catalogue.read()
    marks = catalogue.marked()
    before = catalogue.po_bytes(catalogue.updated(held, marks))
    del marks[(None, "Search")]
    after = catalogue.po_bytes(catalogue.updated(held, marks))
    assert b'msgid "Search"' in before
    removed = set(before.splitlines()) - set(after.splitlines())
    said = {line for line in removed if not line.startswith(b"#:")}
    assert {b'msgid "Search"', b'msgstr "Rechercher"'} >= said


def calls(source: str) -> Iterator[tuple[int, str | None]]:
    """Line and first text of every call that marks a string; no text where it is not written out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MARKERS:
            first = node.args[0]
            yield node.lineno, first.value if isinstance(first, ast.Constant) else None


MARKERS = {"_", "gettext", "gettext_lazy", "gettext_noop", "ngettext", "ngettext_lazy"}


def test_the_extractor_sees_every_marked_string() -> None:
    """It reads tokens: a call inside an f-string, or with a text put together at run time, is lost to it."""
    known = {text for _context, text in catalogue.marked()}
    lost = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted([*ROOT.glob("backoffice/**/*.py"), *ROOT.glob("feeds/**/*.py")])
        if not str(path.relative_to(ROOT)).startswith(catalogue.OTHERS)
        for line, text in calls(path.read_text())
        if text not in known
    ]
    assert lost == []


def test_a_lost_string_would_be_found() -> None:
    assert list(calls("""f"{_('hidden')} and {_(name)}" """)) == [(1, "hidden"), (1, None)]


SPEAKING = {"Refused", "ValidationError", "CommandError"}


def unmarked_refusals(source: str) -> Iterator[int]:
    """Lines that refuse something in words of their own instead of the catalogue's."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            is_message = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "messages"
            first = node.args[-1 if is_message else 0]
            said = first.left if isinstance(first, ast.BinOp) else first
            if (name in SPEAKING or is_message) and isinstance(said, ast.Constant | ast.JoinedStr):
                yield node.lineno


def test_nothing_is_refused_in_unmarked_words() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted(ROOT.glob("feeds/**/*.py"))
        if not str(path.relative_to(ROOT)).startswith(catalogue.OTHERS)
        for line in unmarked_refusals(path.read_text())
    ]
    assert found == []


def test_an_unmarked_refusal_would_be_found() -> None:
    source = """Refused("no"); Refused(_("no")); messages.error(request, f"{x} no"); Refused("%s" % x); Refused(why)"""
    assert len(list(unmarked_refusals(source))) == 3


def test_scripts_hold_no_words() -> None:
    """What they say comes from data attributes, which templates translate."""
    literal = re.compile(r""""([^"\n]+)"|'([^'\n]+)'|`([^`\n]+)`""")
    said = [
        f"{path.name}: {text}"
        for path in sorted((ROOT / "feeds" / "static" / "feeds").glob("*.js"))
        for line in path.read_text().splitlines()
        if not line.lstrip().startswith(("//", "*", "/*"))
        for text in map("".join, literal.findall(line))
        if re.fullmatch(r"[A-Z]?[a-z]+( [a-z]+)+[.!?]?|[A-Z][a-z]+[.!?]", text) and text != "use strict"
    ]
    assert said == []


# --- Right -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("english", "french"),
    [
        ("%(count)d companies", "les entreprises"),
        ("companies", "%(count)d entreprises"),
        ("as of {}", "en date du"),
        ("<b>%s</b>", "<i>%s</i>"),
        ("Run `make run`.", "Exécutez `make courir`."),
        (" since %s", "depuis %s"),
        ("Why?", "Pourquoi ?"),
        ("Stop; wait", "Arrêtez ; attendez"),
        ("Now: %s", "Maintenant: %s"),
        ("Now: %s", "Maintenant : %s"),
        ("“%s”", "« %s »"),
        ("“%s”", "“%s”"),
        ("the link", "l'adresse"),
    ],
)
def test_a_faulty_translation_is_named(english: str, french: str) -> None:
    assert list(catalogue.faults(english, french))


@pytest.mark.parametrize(
    ("english", "french"),
    [
        ("%(a)s of %(b)s", "sur %(b)s, %(a)s"),
        ("At 12:30: why?", f"À 12:30{NBSP}: pourquoi?"),
        ("“%s”; <b>x</b>", f"«{NBSP}%s{NBSP}»; <b>x</b>"),
        ('<a href="{}">{}</a>', '<a href="{}">{}</a>'),
        ("not yet", ""),
    ],
)
def test_a_right_translation_is_left_alone(english: str, french: str) -> None:
    assert list(catalogue.faults(english, french)) == []


@pytest.mark.parametrize(("number", "told"), [(0, "0 ligne"), (1, "1 ligne"), (2, "2 lignes"), (1_000_000, None)])
def test_french_counts_nothing_as_one(number: int, told: str | None) -> None:
    catalog = catalogue.read()
    assert (catalog.num_plurals, catalog.plural_expr) == (2, "(n > 1)")
    with translation.override("fr"):
        text = translation.ngettext("%(count)d company continues.", "%(count)d companies continue.", number)
    assert text.endswith("reprennent." if number > 1 else "reprend.")


# --- Short enough ----------------------------------------------------------------------------------------------------
def buttons() -> Iterator[object]:
    """Object actions."""
    for screen in admin.site._registry.values():
        if isinstance(screen, ActionsAdmin):
            yield from (action.label for action in screen.object_actions().values())


def choices() -> Iterator[object]:
    """List actions, in the menu above a list."""
    for screen in admin.site._registry.values():
        for name in screen.actions or ():
            method = getattr(screen, name) if isinstance(name, str) else name
            label = getattr(method, "short_description", "")
            yield str(label) % {"verbose_name_plural": screen.opts.verbose_name_plural} if label else ""


def pills() -> Iterator[object]:
    """Every label of `states`: pills, choices and filters show them."""
    for value in vars(states).values():
        if isinstance(value, type) and issubclass(value, models.TextChoices):
            yield from value.labels
        elif isinstance(value, dict):
            yield from (meaning.label for meaning in value.values() if isinstance(meaning, Meaning))


def columns() -> Iterator[object]:
    """Headings of every list."""
    for model, screen in admin.site._registry.items():
        for name in screen.list_display:
            yield capfirst(label_for_field(name, model, screen))


def entries() -> Iterator[object]:
    """The sidebar's groups and screens."""
    yield from (title for _key, title, _names in _SIDEBAR)
    yield from (capfirst(model._meta.verbose_name_plural) for model in admin.site._registry)


def labels() -> Iterator[object]:
    """Labels of fields, in forms and on pages."""
    for model in admin.site._registry:
        if model._meta.app_label == "feeds":
            yield from (getattr(field, "verbose_name", "") for field in model._meta.get_fields())


LONGEST: dict[Callable[[], Iterator[object]], int] = {
    buttons: 32,
    choices: 50,
    pills: 40,
    columns: 42,
    entries: 28,
    labels: 45,
}
"""Characters that each kind of text has room for at 1280 and at 400 pixels; longer ones break the line or the table."""


@pytest.mark.parametrize("kind", LONGEST, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("language", ["en", "fr"])
def test_what_has_little_room_is_short(kind: Callable[[], Iterator[object]], language: str) -> None:
    with translation.override(language):
        texts = {str(text) for text in kind()}
    assert len(texts) > 3, "nothing was measured"
    assert sorted(text for text in texts if len(text) > LONGEST[kind]) == []


def too_long(catalog: Catalog) -> list[str]:
    """Translations of short texts (labels, buttons, headings) that need more than twice the room and 15 characters."""
    return [
        f"{english!r}: {french!r}"
        for _name, pairs in catalogue.entries(catalog)
        for english, french in pairs
        if len(english) <= 30 and len(french) > 2 * len(english) + 15
    ]


def test_no_short_text_became_a_long_one() -> None:
    assert too_long(catalogue.read()) == []


def test_a_long_one_would_be_found() -> None:
    catalog = catalogue.French(locale="fr")
    catalog.add("Close", "Fermer définitivement ce dossier maintenant")
    assert too_long(catalog)


def test_the_glossary_names_terms_that_the_catalogue_uses() -> None:
    """Each row of docs/french.md: the English and the French stand in the catalogue."""
    text = (ROOT / "docs" / "french.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    pairs = [pair for _name, found in catalogue.entries(catalogue.read()) for pair in found]
    terms = [(english.strip(), french.strip()) for english, french, _where in rows][2:]
    assert len(terms) > 20
    unused = [
        (english, french)
        for english, french in terms
        if not any(english.lower() in source.lower() and french.lower() in told.lower() for source, told in pairs)
    ]
    assert unused == []

"""`python -m tests.catalogue`: bring the French catalogue up to date, compile it, list what is missing.

Reads Python and templates as Django's `makemessages` does, with Babel instead of the gettext programs, which a machine
with only Python and make does not have. `--check` writes nothing and fails on whatever `problems` names.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from babel.messages import Catalog, Message
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "feeds" / "locale" / "fr" / "LC_MESSAGES"
PO, MO = FOLDER / "django.po", FOLDER / "django.mo"

SOURCES = ("backoffice", "feeds", "templates")
OTHERS = ("feeds/sandbox/", "templates/sandbox/", "feeds/migrations/")
"""The stand-in has words of its own, for customers; migrations repeat what the models say."""

_SINGLE, _PLURAL = None, (1, 2)
_KEYWORDS = {
    **dict.fromkeys(("_", "gettext", "gettext_lazy", "gettext_noop"), _SINGLE),
    **dict.fromkeys(("ngettext", "ngettext_lazy"), _PLURAL),
    **dict.fromkeys(("pgettext", "pgettext_lazy"), ((1, "c"), 2)),
    **dict.fromkeys(("npgettext", "npgettext_lazy"), ((1, "c"), 2, 3)),
}
_HEADER = "French texts of the staff interface. Written by `make messages`; the glossary is docs/french.md."
# No dates and no version of Babel: they would change with every run and make every merge a conflict. Two forms as in
# Django's own French, which also counts a million as many.
_HEADERS = [
    ("Project-Id-Version", "Bank Feeds Back Office"),
    ("Language", "fr"),
    ("MIME-Version", "1.0"),
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Content-Transfer-Encoding", "8bit"),
    ("Plural-Forms", "nplurals=2; plural=(n > 1);"),
]

PLACEHOLDER = re.compile(r"%\(\w+\)[-+ #0]*\d*(?:\.\d+)?[a-z]|%[-+ #0]*\d*(?:\.\d+)?[sdf]|\{\w*\}|</?\w+[^>]*>|`[^`]*`")
"""What a translation must keep: placeholders of both kinds, tags, and code in backquotes."""

NBSP = "\N{NO-BREAK SPACE}"
_TYPOGRAPHY = {
    "a space before ; ? or ! (Canadian French has none)": re.compile(r"[\s\u202f][;?!]"),
    "no no-break space before a colon": re.compile(rf"(?<![{NBSP}\d:/]):(?![/\d])"),
    "no no-break space inside « »": re.compile(rf"«(?!{NBSP})|(?<!{NBSP})»"),
    "quotation marks that are not « »": re.compile(r'[“”"]'),
    "a straight apostrophe": re.compile(r"'"),
}


class French(Catalog):
    """A catalogue with our headers."""

    num_plurals = 2
    plural_expr = "(n > 1)"
    mime_headers = property(lambda _self: _HEADERS, lambda _self, _headers: None)


@dataclass
class Mark:
    """One string as the source marks it: its plural if it has one, the files it is in, what their authors say of it."""

    plural: str | None = None
    files: set[str] = field(default_factory=set)
    comments: list[str] = field(default_factory=list)


Key = tuple[str | None, str]
"""Context (nearly always none) and English text."""


def marked(root: Path = ROOT) -> dict[Key, Mark]:
    """Every string that the product marks for translation."""
    found: dict[Key, Mark] = {}
    for path in _files(root):
        source = path.read_text()
        name = str(path.relative_to(root))
        if path.suffix != ".py":
            # What is left of a template is not indented as Python wants it.
            source = "\n".join(line.strip() for line in templatize(source, origin=name).splitlines())
        stream = io.BytesIO(source.encode())
        options = {"encoding": "utf-8"}
        for _line, message, comments, context in extract("python", stream, _KEYWORDS, ["Translators:"], options):
            singular, plural = message if isinstance(message, tuple) else (message, None)
            mark = found.setdefault((context, singular), Mark())
            mark.plural = mark.plural or plural
            mark.files.add(name)
            mark.comments.extend(comment for comment in comments if comment not in mark.comments)
    return found


def _files(root: Path) -> Iterator[Path]:
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*")):
            name = str(path.relative_to(root))
            if path.suffix in (".py", ".html", ".txt") and not name.startswith(OTHERS):
                yield path


def read(path: Path = PO) -> Catalog:
    """The catalogue as it is in the repository; an empty one when there is none."""
    if not path.exists():
        return French(locale="fr")
    with path.open("rb") as file:
        return read_po(file, locale="fr")


def updated(held: Catalog, marks: dict[Key, Mark]) -> Catalog:
    """A catalogue of exactly the marked strings, with the translations that `held` has for them."""
    fresh = French(locale="fr", header_comment=f"# {_HEADER}", charset="utf-8", fuzzy=False)
    for (context, singular), mark in marks.items():
        before = held.get(singular, context)
        fresh.add(
            (singular, mark.plural) if mark.plural else singular,
            _translation(before, is_plural=mark.plural is not None),
            locations=[(name, 0) for name in sorted(mark.files)],
            auto_comments=mark.comments,
            context=context,
        )
    return fresh


def _translation(before: Message | None, *, is_plural: bool) -> str | tuple[str, ...]:
    text = before.string if before is not None else ""
    if is_plural:
        return text if isinstance(text, tuple) else ("", "")
    return "" if isinstance(text, tuple) else text


def po_bytes(catalog: Catalog) -> bytes:
    """The catalogue as text, sorted by its English: two branches that add strings rarely touch the same lines."""
    out = io.BytesIO()
    write_po(out, catalog, width=120, sort_output=True, include_lineno=False)
    return out.getvalue()


def mo_bytes(catalog: Catalog) -> bytes:
    """The catalogue as Django reads it."""
    out = io.BytesIO()
    write_mo(out, catalog)
    return out.getvalue()


def entries(catalog: Catalog) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each entry's English, and its pairs of English and French: one, or two where the number matters."""
    for message in catalog:
        if not message.id:
            continue
        if isinstance(message.id, tuple):
            yield message.id[0], list(zip(message.id, message.string, strict=True))
        else:
            yield message.id, [(message.id, message.string)]


def missing(catalog: Catalog) -> list[str]:
    """The English of what has no French, or only a guess."""
    guessed = {message.id if isinstance(message.id, str) else message.id[0] for message in catalog if message.fuzzy}
    return [name for name, pairs in entries(catalog) if name in guessed or not all(french for _, french in pairs)]


def broken(catalog: Catalog) -> list[str]:
    """Translations that lose or invent a placeholder, a tag or an edge, or that break the rules of typography."""
    return [f"{name!r}: {fault}" for name, pairs in entries(catalog) for pair in pairs for fault in faults(*pair)]


def faults(english: str, french: str) -> Iterator[str]:
    """What is wrong with one translation; nothing for a missing one."""
    if not french:
        return
    kept, found = Counter(PLACEHOLDER.findall(english)), Counter(PLACEHOLDER.findall(french))
    if kept != found:
        yield f"has {sorted(found)} where the English has {sorted(kept)}"
    for edge in (lambda text: text[: len(text) - len(text.lstrip())], lambda text: text[len(text.rstrip()) :]):
        if edge(english) != edge(french):
            yield "begins or ends with another space"
    prose = PLACEHOLDER.sub("x", french)
    yield from (f"has {fault}" for fault, pattern in _TYPOGRAPHY.items() if pattern.search(prose))


def problems() -> list[str]:
    """Why the catalogue in the repository must not be released as it is; empty when it may."""
    held = read()
    fresh = updated(held, marked())
    return [
        *(f"not translated: {name!r}" for name in missing(fresh)),
        *broken(fresh),
        *(["django.po is not what `make messages` writes"] if po_bytes(fresh) != PO.read_bytes() else []),
        *(["django.mo is not compiled from django.po"] if mo_bytes(fresh) != MO.read_bytes() else []),
    ]


def main(arguments: list[str]) -> int:
    """Write both files, or with `--check` none, and name what is wrong; 1 when something is."""
    parser = argparse.ArgumentParser(prog="python -m tests.catalogue", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args(arguments).check:
        fresh = updated(read(), marked())
        FOLDER.mkdir(parents=True, exist_ok=True)
        PO.write_bytes(po_bytes(fresh))
        MO.write_bytes(mo_bytes(fresh))
    found = problems()
    sys.stdout.write("".join(f"{line}\n" for line in found) or "The French catalogue is complete.\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What the documents name exists: targets, commands, variables, files, links, log lines, words of the code."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import get_commands

from feeds import audit
from feeds.services import demo

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
# Made by a run, not in the repository.
MADE = ("var", "var/", "var/backoffice.sqlite3", ".env")

LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
MAKE = re.compile(r"\bmake ([a-z]+)")
COMMAND = re.compile(r"\bmanage\.py ([a-z_]+)")
MODULE = re.compile(r"\bpython3? -m ((?:tests|feeds)[\w.]*)")
VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
FILE = re.compile(r"(?<![\w/.])(?:backoffice|docs|feeds|requirements|templates|tests|var|\.ci)/[\w./-]*")
NAME = re.compile(r"`([a-z]+(?:_[a-z]+)+)`")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
MACHINE_PATH = re.compile(r"/(?:home|Users|root|work)/\w+")
# Variables of the systems around the product.
FOREIGN = {
    "BANK_FEEDS_URL", "BANK_FEEDS_KEY", "PYTEST_ARGS", "UPDATE_SCREENSHOTS", "MIGRATION_MODULES",
    "AUDITLOG_LOGENTRY_MODEL", "CONN_MAX_AGE", "PIP_AUDIT_VULNERABILITY_SERVICE",
}  # fmt: skip

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def code_of(document: Path) -> str:
    """Everything a document sets as code."""
    return "\n".join(CODE.findall(document.read_text()))


def repository() -> tuple[Path, ...]:
    """Every file that is, or is about to be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(path for name in filter(None, listed.stdout.split("\0")) if (path := ROOT / name).is_file())


@cache
def source() -> str:
    """The product's own code."""
    files = (path for folder in ("backoffice", "feeds", "templates") for path in (ROOT / folder).rglob("*"))
    return "\n".join(path.read_text() for path in files if path.suffix in {".py", ".html", ".js"})


def anchors(document: Path) -> set[str]:
    """The fragments that lead to the headings of a document."""
    titles = HEADING.findall(document.read_text())
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def broken_links(document: Path) -> Iterator[str]:
    """Links of a document to files or headings that do not exist."""
    for match in LINK.finditer(document.read_text()):
        target, _, fragment = match["target"].partition("#")
        if target.startswith("https://"):
            continue
        path = (document.parent / target).resolve() if target else document
        if not path.exists() or (fragment and fragment not in anchors(path)):
            yield match["target"]


@every_document
def test_every_link_leads_somewhere(document: Path) -> None:
    assert list(broken_links(document)) == []


@every_document
def test_every_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(MAKE.findall(code_of(document))) - targets == set()


@every_document
def test_every_command_and_module_exists(document: Path) -> None:
    code = code_of(document)
    assert set(COMMAND.findall(code)) - get_commands().keys() == set()
    places = [ROOT / name.replace(".", "/") for name in MODULE.findall(code)]
    missing = [place for place in places if not (place / "__main__.py").exists()]
    assert [place for place in missing if not place.with_suffix(".py").exists()] == []


@every_document
def test_every_variable_is_documented_or_a_setting(document: Path) -> None:
    known = set(VARIABLE.findall((ROOT / ".env.example").read_text())) | FOREIGN
    named = {name.removesuffix("_FILE") for name in VARIABLE.findall(code_of(document))}
    assert {name for name in named - known if not hasattr(settings, name) and not hasattr(audit, name)} == set()


@every_document
def test_every_file_it_names_exists(document: Path) -> None:
    named = {name.rstrip(".") for name in FILE.findall(code_of(document))}
    assert {name for name in named if name not in MADE and not (ROOT / name).exists()} == set()


@every_document
def test_every_name_from_the_code_is_still_in_the_code(document: Path) -> None:
    # The names of metrics are put together in the code; their own test compares them with what is served.
    names = [name for name in NAME.findall(document.read_text()) if not name.startswith("bankfeeds_")]
    assert {name for name in names if not re.search(rf"\b{name}\b", source())} == set()


def test_the_map_in_the_readme_shows_every_folder_and_room_that_is_there() -> None:
    drawn = re.search(r"```\n(backoffice/.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert drawn is not None
    top = re.findall(r"^(\w+)/", drawn[1], re.MULTILINE)
    inside = re.findall(r"^  ([\w/. ]+?)(?:  | (?=[A-Z]))", drawn[1], re.MULTILINE)
    assert len(top) >= 5
    assert len(inside) >= 8
    assert [name for name in top if not (ROOT / name).is_dir()] == []
    rooms = [room for names in inside for room in names.split()]
    assert [room for room in rooms if not (ROOT / "feeds" / room).exists()] == []


def test_the_changelog_begins_with_what_is_unreleased() -> None:
    assert re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == "Unreleased"


def test_decisions_are_numbered_without_gaps_and_say_what_they_are_not_for() -> None:
    decisions = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [path.name[:5] for path in decisions] == [f"{number:04}-" for number in range(1, len(decisions) + 1)]
    for decision in decisions:
        text = decision.read_text()
        assert text.startswith(f"# {decision.name[:4]}: ")
        assert [part for part in ("**Context.**", "**Decision.**", "**Non-goals.**") if part not in text] == []


def test_setup_greets_with_what_the_readme_promises() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"`{demo.USERS[0].username}`" in readme
    assert any(company["legal_name"] in readme for company in demo.COMPANIES if company["manager"] == "rm")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout: there is no list of the repository's files")
def test_the_repository_names_no_folder_of_somebodys_machine() -> None:
    found = {}
    for path in repository():
        try:
            matches = MACHINE_PATH.findall(path.read_text())
        except UnicodeDecodeError:
            continue  # pictures and fonts
        if matches:
            found[str(path.relative_to(ROOT))] = matches
    assert found == {}

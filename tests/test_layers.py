"""Who may import whom. The rules are tables; the checker reads the source, so an import inside a function counts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ENTRY_POINTS = ("admin", "api", "views", "tasks", "management", "sign_in")
LOWER = frozenset({"models", "mapping", "banking", "queue", "audit", "states", "wording", "codat", "callout_text"})

MAY_IMPORT: dict[str, frozenset[str]] = {
    **{room: LOWER | {"services", "pictures", "languages"} for room in ENTRY_POINTS},
    # Tags are how the screens' own helpers reach their templates.
    "templatetags": LOWER | {"services", "admin"},
    # The middleware, and what the page that chooses a language shares with it.
    "languages": frozenset({"services"}),
    "services": LOWER | {"statements"},
    "models": frozenset({"states", "callout_text"}),
    "audit": frozenset({"models", "states", "banking", "statements", "wording"}),
    "statements": frozenset(),
    "queue": frozenset(),
    "mapping": frozenset({"codat"}),
    "banking": frozenset({"codat"}),
    "states": frozenset(),
    "callout_text": frozenset(),
    "wording": frozenset({"states"}),
    "pictures": frozenset({"states"}),
    "codat": frozenset(),
    "sandbox": frozenset(),
    "apps": frozenset({"audit", "checks", "sign_in", "languages"}),
    "checks": frozenset({"codat", "states"}),
    "migrations": LOWER,
}
"""Room of `feeds` -> other rooms it may import. A room may always import itself."""

KEEPERS: dict[str, frozenset[str]] = {
    "django_q": frozenset({"feeds.queue"}),
    # The model has to be a subclass of the library's; everything else goes through feeds.audit.
    "auditlog": frozenset({"feeds.audit", "feeds.models.audit_entry"}),
    "allauth": frozenset({"feeds.sign_in", "feeds.services.guesses", "feeds.services.second_factors"}),
    "axes": frozenset({"feeds.sign_in", "feeds.services.lockouts", "feeds.models.sign_in_lock"}),
    "cryptography": frozenset({"feeds.services.second_factors"}),
    "ninja": frozenset({"feeds.api"}),
    "pydantic": frozenset({"feeds.api"}),
    "prometheus_client": frozenset({"feeds.services.metrics"}),
    "requests": frozenset({"feeds.codat", "feeds.sandbox"}),
    "feeds.codat.client": frozenset({"feeds.codat", "feeds.services", "feeds.checks"}),
    # A row and its entry in the history are written together: `feeds.audit` sees to it, whoever saves the row.
    "django.db.transaction": frozenset({"feeds.services", "feeds.audit", "feeds.migrations"}),
    # Beside Codat's client only seals leave over HTTP, and the sandbox's webhooks.
    "http.client": frozenset({"feeds.services.seal_delivery"}),
    # It writes without a history: `feeds.audit` writes that too, and the timeline of the mirror is none of its own.
    "feeds.statements": frozenset({"feeds.audit", "feeds.services.mirror"}),
}
"""Module -> the only modules or packages that may import it."""

# Of Django, the client takes its translations and nothing else: no model, no setting.
CODAT_MAY_IMPORT_OF_DJANGO = "django.utils.translation"


def module_name(path: Path) -> str:
    """`feeds/models/company.py` -> "feeds.models.company"; a package is named by its folder."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, source: str) -> Iterator[str]:
    """Every module that the source imports, and every name it takes from one ("feeds" -> "feeds.queue")."""
    package = path.parent.parts
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_within(name: str, package: str) -> bool:
    """Whether `name` is `package` or something in it."""
    return name == package or name.startswith(f"{package}.")


def room_of(name: str) -> str | None:
    """The room of `feeds` that a dotted name belongs to; None for anything outside."""
    parts = name.split(".")
    return parts[1] if parts[0] == "feeds" and len(parts) > 1 else None


def violations(path: str, source: str) -> list[str]:
    """What a file imports and may not. `path` is relative to the root of the repository."""
    here = module_name(Path(path))
    return [f"{here} imports {name}" for name in imported(Path(path), source) if not _is_allowed(here, name)]


def _is_allowed(here: str, name: str) -> bool:
    room, target = room_of(here), room_of(name)
    if room is not None and is_within(name, "backoffice"):
        return False
    if target == "sandbox" and room != "sandbox":
        return False
    if room is not None and target is not None and target != room and target not in MAY_IMPORT[room]:
        return False
    if room == "codat" and is_within(name, "django") and not is_within(name, CODAT_MAY_IMPORT_OF_DJANGO):
        return False
    keepers = [allowed for module, allowed in KEEPERS.items() if is_within(name, module)]
    return all(any(is_within(here, keeper) for keeper in allowed) for allowed in keepers)


def product_files() -> list[str]:
    """Every source file of the product."""
    files = [*ROOT.glob("backoffice/**/*.py"), *ROOT.glob("feeds/**/*.py")]
    return sorted(str(file.relative_to(ROOT)) for file in files)


def test_no_file_imports_what_its_room_may_not() -> None:
    assert [found for path in product_files() for found in violations(path, (ROOT / path).read_text())] == []


def test_every_room_has_its_rule() -> None:
    rooms = {room_of(module_name(Path(path))) for path in product_files()} - {None}
    assert rooms - MAY_IMPORT.keys() == set()


def test_the_keepers_exist_and_use_what_they_keep() -> None:
    for module in ("django_q", "auditlog"):
        for keeper in KEEPERS[module]:
            path = Path(*keeper.split(".")).with_suffix(".py")
            names = imported(path, (ROOT / path).read_text())
            assert any(is_within(name, module) for name in names), f"{keeper} does not import {module}"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("feeds/models/company.py", "from feeds.services import onboarding"),
        ("feeds/models/company.py", "import feeds.codat.client"),
        ("feeds/services/links.py", "from feeds.admin.base import BackOfficeAdmin"),
        ("feeds/services/links.py", "from feeds import tasks"),
        ("feeds/tasks.py", "from feeds.admin import base"),
        ("feeds/admin/companies.py", "from feeds import views"),
        ("feeds/admin/companies.py", "def f():\n    from feeds.codat import client"),
        ("feeds/admin/companies.py", "from django.db import models, transaction"),
        ("feeds/management/commands/onboard.py", "from feeds.tasks import advance"),
        ("feeds/states.py", "from feeds.models import Company"),
        ("feeds/codat/client.py", "from feeds.states import Country"),
        ("feeds/codat/client.py", "from .. import states"),
        ("feeds/codat/client.py", "from django.conf import settings"),
        ("feeds/codat/client.py", "from django.db import models"),
        ("feeds/sandbox/api.py", "from feeds.states import Country"),
        ("feeds/sandbox/api.py", "from ..codat import schemas"),
        ("feeds/management/commands/codat_sandbox.py", "from feeds.sandbox.options import parse_options"),
        ("feeds/services/demo.py", "import feeds.sandbox"),
        ("backoffice/settings.py", "from feeds.sandbox import options"),
        ("feeds/services/health.py", "from django_q.models import OrmQ"),
        ("feeds/admin/queue.py", "import django_q"),
        ("feeds/models/company.py", "from auditlog.registry import auditlog"),
        ("feeds/services/sync.py", "import requests"),
        ("feeds/services/sync.py", "from backoffice import settings"),
        ("feeds/admin/users.py", "from allauth.mfa.models import Authenticator"),
        ("feeds/admin/users.py", "from feeds.sign_in import sessions"),
        ("feeds/services/demo.py", "from axes.models import AccessAttempt"),
    ],
)
def test_the_checker_catches(path: str, source: str) -> None:
    assert violations(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("feeds/admin/companies.py", "from feeds.services import onboarding\nfrom feeds.admin.base import status_pill"),
        ("feeds/services/sync.py", "from feeds.codat.client import CodatClient\nfrom django.db import transaction"),
        ("feeds/codat/client.py", "from .errors import CodatError\nfrom django.utils.translation import gettext"),
        ("feeds/sandbox/api.py", "from feeds.sandbox.store import Store"),
        ("feeds/queue.py", "from django_q.tasks import async_task"),
        ("feeds/models/audit_entry.py", "from auditlog.models import AbstractLogEntry"),
        ("backoffice/urls.py", "from feeds import views"),
    ],
)
def test_the_checker_lets_pass(path: str, source: str) -> None:
    assert violations(path, source) == []

"""`python -m tests.bench [names]`: run benches, each on a database of its own, and print a table.

A database is a file in a temporary folder; with DATABASE_URL set to PostgreSQL, a new database on that server.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
os.environ.setdefault("LOG_LEVEL", "ERROR")
django.setup()

from django.conf import settings  # noqa: E402
from django.db import connection  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from tests.bench import (  # noqa: E402  # they register themselves
    auditor,  # noqa: F401
    door,  # noqa: F401
    history,  # noqa: F401
    limiter,  # noqa: F401
    onboarding,  # noqa: F401
    pages,  # noqa: F401
    sandbox_listing,  # noqa: F401
    sweep,  # noqa: F401
    webhooks,  # noqa: F401
    worklist,  # noqa: F401
)
from tests.bench.registry import BENCHES, Figure, Options  # noqa: E402
from tests.history import let_tests_arrange  # noqa: E402


def main(arguments: list[str]) -> None:
    """Run what was asked for; a bench that fails ends the run with its traceback."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    let_tests_arrange()
    if unknown := set(asked.names) - BENCHES.keys():
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    console = Console()
    report = _run(asked, console)
    console.print(_table(report))
    if asked.json is not None:
        asked.json.write_text(json.dumps(report, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Time what must stay quick.")
    parser.add_argument("names", nargs="*", default=list(BENCHES), help=f"of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the figures to this file")
    parser.add_argument(
        "--rows", type=int, default=20_000, help="companies to time pages with; a million take ten minutes to fill in"
    )
    parser.add_argument("--companies", type=int, default=100, help="companies to onboard at once")
    parser.add_argument("--statuses", type=int, default=100_000, help="connections to sweep")
    parser.add_argument("--deliveries", type=int, default=10_000, help="webhooks to deliver")
    parser.add_argument("--accounts", type=int, default=1_000_000, help="source accounts behind the worklist")
    parser.add_argument("--cases", type=int, default=20_000, help="open cases on the worklist")
    parser.add_argument("--customers", type=int, default=200, help="customers at the door at once")
    parser.add_argument("--seconds", type=int, default=60, help="how long they keep coming, each of two times")
    return parser


def _options(asked: argparse.Namespace, folder: Path) -> Options:
    sizes = {field.name: getattr(asked, field.name) for field in fields(Options) if field.name != "folder"}
    return Options(folder, **sizes)


@contextmanager
def temporary_database(folder: Path) -> Iterator[None]:
    """Migrate an empty database and make it the default one; it is dropped at the end."""
    own = folder / "bench.sqlite3" if connection.vendor == "sqlite" else f"bench_{os.getpid()}"
    connection.settings_dict["TEST"] = {**connection.settings_dict.get("TEST", {}), "NAME": str(own)}
    before = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        yield
    finally:
        _end_other_sessions()
        connection.creation.destroy_test_db(before, verbosity=0)


def _end_other_sessions() -> None:
    """PostgreSQL drops no database that is in use, and the limiter's pool keeps its connections."""
    if connection.vendor == "postgresql":
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT pg_terminate_backend(pid) {others}")


def _run(asked: argparse.Namespace, console: Console) -> dict[str, Any]:
    figures: list[dict[str, Any]] = []
    for name in asked.names:
        started = time.perf_counter()
        console.print(f"{name}: {(BENCHES[name].__doc__ or '').splitlines()[0]}", highlight=False, markup=False)
        with tempfile.TemporaryDirectory() as path:
            folder = Path(path)
            settings.VAR_DIR = folder
            # What one bench leaves behind would be in the way of the next.
            with temporary_database(folder):
                circumstances = machine()
                figures += [_as_json(name, figure) for figure in BENCHES[name](_options(asked, folder))]
        console.print(f"  {time.perf_counter() - started:.1f} s", highlight=False)
    return {"machine": circumstances, "rows": asked.rows, "companies": asked.companies, "figures": figures}


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT sqlite_version()" if connection.vendor == "sqlite" else "SHOW server_version")
        version = cursor.fetchone()[0]
    return {
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "django": django.get_version(),
        "database": f"{connection.display_name} {version}",
    }


def _as_json(name: str, figure: Figure) -> dict[str, Any]:
    # Counts stay exact.
    value = figure.value if figure.value == int(figure.value) else float(f"{figure.value:.3g}")
    return {"bench": name, "figure": figure.name, "value": value, "unit": figure.unit, "note": figure.note}


def _table(report: dict[str, Any]) -> Table:
    caption = ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in report["machine"].items())
    table = Table("Bench", "Figure", "Value", "Unit", "Circumstances", caption=caption)
    table.columns[2].justify = "right"
    for row in report["figures"]:
        table.add_row(row["bench"], row["figure"], f"{row['value']:g}", row["unit"], row["note"])
    return table


if __name__ == "__main__":
    main(sys.argv[1:])

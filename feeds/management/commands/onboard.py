"""``manage.py onboard FILE``: import customers from a file and onboard them to Codat."""

from __future__ import annotations

import io
import json
import shutil
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from feeds.audit import Actor
from feeds.services import bulk, health, import_files, imports

NOT_READY: Final = 1
BAD_INPUT: Final = 2
INTERRUPTED: Final = 130
POLL_SECONDS: Final = 0.5
QUIET_SECONDS: Final = 10.0
"""How long nothing may happen before a missing worker is mentioned; a worker that just starts needs a few seconds."""
MOST_PROBLEMS_SHOWN: Final = 50
SOURCE: Final = "command line"
PERMISSIONS: Final = ("feeds.import_company", "feeds.onboard_company")


class Command(BaseCommand):
    """Checks every row, stores all or nothing, onboards through the queue. Running it again sends nothing twice.

    Exit status: 0 all ready (or, without --wait, all accepted), 1 some are not, 2 the input is wrong.
    """

    help = "Import customers and accounts from a CSV or JSON file and onboard them to Codat."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options."""
        parser.add_argument("file", type=Path, help="a .csv or .json file such as docs/sample/companies.csv")
        parser.add_argument(
            "--wait", type=float, metavar="SECONDS", help="wait until every company is ready, at most so long"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="check the file and say what would be stored; store nothing"
        )
        parser.add_argument("--json", action="store_true", dest="as_json", help="print the result as JSON")
        parser.add_argument("--as", dest="username", metavar="USERNAME", help="the user in whose name this is done")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run. Every failure is one line on stderr."""
        self.as_json: bool = options["as_json"]
        try:
            self._run(options["file"], options["wait"], options["username"], dry_run=options["dry_run"])
        except import_files.BadFile as error:
            self._refuse(error.problems)
        except DatabaseError as error:
            reason = str(error).partition("\n")[0]
            raise CommandError(_("The database cannot be used (%s). Has `migrate` been run?") % reason) from error
        except KeyboardInterrupt:
            message = _("Stopped waiting. What was accepted goes on by itself.")
            raise CommandError(message, returncode=INTERRUPTED) from None

    def _run(self, path: Path, wait: float | None, username: str | None, *, dry_run: bool) -> None:
        actor = _actor(username)
        table = import_files.parse(path)
        if dry_run:
            self._rehearse(table)
            return
        outcome = imports.store(table, actor=actor)
        self._warn(outcome.warnings)
        self._say_counts(_("%(created)d new, %(changed)d changed, %(unchanged)d as they were."), outcome.counts)
        ids = [company.pk for company in outcome.companies]
        started = bulk.start(ids, label=path.name[:200], actor=actor)
        if wait is not None:
            self._wait(ids, wait)
        self._finish(bulk.report(ids, refused=started.refused), waited=wait is not None, refused=len(started.refused))

    # --- Input -----------------------------------------------------------------------------------------------------
    def _rehearse(self, table: import_files.Table) -> None:
        planned = imports.plan(table)
        if planned.errors:
            raise import_files.BadFile(planned.problems)
        self._warn(planned.warnings)
        counts = planned.count()
        self._say_counts(
            _("Would be stored: %(created)d new, %(changed)d changed, %(unchanged)d as they were."), counts
        )
        if self.as_json:
            stored = {"created": counts.created, "changed": counts.changed, "unchanged": counts.unchanged}
            self._print_json({"dry_run": True, "rows": stored, "problems": _as_json(planned.problems)})

    def _refuse(self, problems: Sequence[import_files.Problem]) -> NoReturn:
        if self.as_json:
            self._print_json({"problems": _as_json(problems)})
        errors = [problem for problem in problems if problem.level == "error"]
        self._warn([problem for problem in problems if problem.level == "warning"])
        if len(errors) == 1:
            raise CommandError(_("%s Nothing was stored.") % errors[0], returncode=BAD_INPUT)
        self._list(errors, "")
        message = ngettext("%d problem; nothing was stored.", "%d problems; nothing was stored.", len(errors))
        raise CommandError(message % len(errors), returncode=BAD_INPUT)

    def _warn(self, warnings: Sequence[import_files.Problem]) -> None:
        self._list(warnings, _("Warning: "))

    def _list(self, problems: Sequence[import_files.Problem], prefix: str) -> None:
        for problem in problems[:MOST_PROBLEMS_SHOWN]:
            self.stderr.write(f"{prefix}{problem}", self.style.NOTICE)
        if len(problems) > MOST_PROBLEMS_SHOWN:
            self.stderr.write(_("... and %d more.") % (len(problems) - MOST_PROBLEMS_SHOWN))

    def _say_counts(self, sentence: str, counts: imports.Counts) -> None:
        values = {"created": counts.created, "changed": counts.changed, "unchanged": counts.unchanged}
        self.stderr.write(_("Customers and accounts: ") + sentence % values)

    # --- Waiting ---------------------------------------------------------------------------------------------------
    def _wait(self, ids: Sequence[int], seconds: float) -> None:
        """Return when no company waits for a worker any more, or when the time is up."""
        started = changed = time.monotonic()
        left, warned = bulk.unfinished(ids), False
        with self._bar(len(ids)) as show:
            while left and time.monotonic() - started < seconds:
                show(len(ids) - left)
                time.sleep(POLL_SECONDS)
                before, left = left, bulk.unfinished(ids)
                changed = time.monotonic() if left != before else changed
                quiet = time.monotonic() - changed > min(QUIET_SECONDS, seconds / 2)
                if quiet and not warned and not _worker_is_alive():
                    self.stderr.write(_("No worker has shown itself: is one running? Start it with `make run`."))
                    warned = True
            show(len(ids) - left)

    @contextmanager
    def _bar(self, total: int) -> Iterator[Any]:
        """A progress bar for people; silence for files and pipes."""
        if not self.stderr.isatty():
            yield lambda done: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(_("Onboarding"), total=total)
            yield lambda done: progress.update(task, completed=done)

    # --- Output ----------------------------------------------------------------------------------------------------
    def _finish(self, reports: Sequence[bulk.Report], *, waited: bool, refused: int) -> None:
        """Print what became of each company; raise CommandError unless all is as it should be."""
        causes = list(dict.fromkeys(report.cause for report in reports if report.error))
        if self.as_json:
            self._print_json({"companies": [_report_as_json(report) for report in reports]})
        else:
            self._print_table(reports, causes)
        self._explain(reports, causes)
        not_ready = [report for report in reports if not report.is_ready]
        if waited and not_ready:
            message = _("%(count)d of %(all)d companies are not ready.")
            raise CommandError(message % {"count": len(not_ready), "all": len(reports)}, returncode=NOT_READY)
        if refused:
            message = _("%(count)d of %(all)d companies were not accepted.")
            raise CommandError(message % {"count": refused, "all": len(reports)}, returncode=NOT_READY)
        if not_ready:
            self.stderr.write(_("Onboarding goes on in the background."))
            self.stderr.write(
                _("To follow it, repeat with --wait 120, or look at “Bulk onboardings” in the back office.")
            )

    def _print_table(self, reports: Sequence[bulk.Report], causes: Sequence[str]) -> None:
        table = Table(_("Customer"), _("Name stored by Codat"), _("State"), _("Accounts in Codat"), _("Error"))
        for report in reports:
            there = sum(account.in_codat for account in report.accounts)
            note = f"[{causes.index(report.cause) + 1}]" if report.error else ""
            cells = (
                report.customer_number,
                report.codat_name,
                str(report.state.label),
                f"{there}/{len(report.accounts)}",
                note,
            )
            # As it is: rich would take square brackets for markup.
            table.add_row(*(Text(cell) for cell in cells))
        buffer = io.StringIO()
        width = shutil.get_terminal_size((120, 24)).columns
        Console(file=buffer, width=width, force_terminal=self.stdout.isatty()).print(table)
        self.stdout.write(buffer.getvalue())

    def _explain(self, reports: Sequence[bulk.Report], causes: Sequence[str]) -> None:
        """Each cause once, however many companies it stopped."""
        for number, cause in enumerate(causes, start=1):
            stopped = [report for report in reports if report.error and report.cause == cause]
            counted = ngettext("%d company", "%d companies", len(stopped)) % len(stopped)
            self.stderr.write(f"[{number}] {counted}: {stopped[0].error}", self.style.ERROR)

    def _print_json(self, data: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(data, ensure_ascii=False, indent=2))


def _actor(username: str | None) -> Actor:
    """In whose name. Whoever can run this can do anything; the permission guards against naming the wrong person."""
    if username is None:
        return Actor.service(SOURCE)
    user = User.objects.filter(username=username, is_active=True).first()
    if user is None:
        raise CommandError(_("There is no active user “%s”.") % username, returncode=BAD_INPUT)
    if not user.has_perms(PERMISSIONS):
        raise CommandError(_("“%s” may not import and onboard companies.") % username, returncode=BAD_INPUT)
    return Actor.person(user, source=SOURCE)


def _worker_is_alive() -> bool:
    age = health.age_seconds(health.WORKER)
    return age is not None and age < settings.WORKER_FROZEN_SECONDS


def _as_json(problems: Sequence[import_files.Problem]) -> list[dict[str, str]]:
    return [
        {"level": problem.level, "row": problem.row, "column": problem.column, "reason": problem.reason}
        for problem in problems
    ]


def _report_as_json(report: bulk.Report) -> dict[str, Any]:
    return {
        "customer_number": report.customer_number,
        "codat_name": report.codat_name,
        "state": report.state.value,
        "ready": report.is_ready,
        "accounts": [
            {"account_id": account.account_id, "name": account.name, "in_codat": account.in_codat}
            for account in report.accounts
        ],
        "error": report.error,
    }

"""`verify_audit`: prove that nothing in the change history was altered, or name the batch in which it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from feeds.services import seal_delivery, seals


class Command(BaseCommand):
    """Recomputes every seal. Ends with 1 when something is wrong."""

    help = "Recompute every seal of the change history; name the first batch that was altered, and end with 1."

    def add_arguments(self, parser: CommandParser) -> None:
        """Seals that were sent off this host."""
        parser.add_argument(
            "--copy",
            type=Path,
            action="append",
            default=[],
            metavar="FILE",
            help="seals that were sent off this host, one JSON object a line; may be given more than once",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print what was looked at, then what is wrong."""
        found = seals.verify(copies=_copies(options["copy"]))
        self.stdout.write(
            _("%(seals)d seals, %(entries)d entries recomputed, %(purged)d purged, %(unsealed)d not sealed yet")
            % {"seals": found.seals, "entries": found.entries, "purged": found.purged, "unsealed": found.unsealed}
        )
        if found.last_seal is not None:
            self.stdout.write(
                _("last seal: %(number)d %(hash)s") % {"number": found.last_seal.number, "hash": found.last_seal.sha256}
            )
        for path in seal_delivery.unreadable():
            self.stdout.write(_("not compared with %s, which cannot be read from here") % path)
        for problem in found.problems:
            self.stderr.write(f"{problem.kind.label}: {problem.text}")
        if not found.is_sound:
            raise CommandError(_("The change history was altered. First: %s") % found.problems[0].text)
        self.stdout.write(_("Nothing was altered."))


def _copies(paths: list[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        try:
            yield from seal_delivery.read_copies(path)
        except FileNotFoundError:
            raise CommandError(_("There is no file %s.") % path) from None
        except OSError as error:
            raise CommandError(_("%(path)s cannot be read: %(why)s.") % {"path": path, "why": error.strerror}) from None

"""`seal_audit`: seal the change history now, as the schedule does every few minutes."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from feeds.services import seals


class Command(BaseCommand):
    """Seals what is not sealed yet."""

    help = "Seal what is not sealed yet of the change history. Safe to run at any time."

    def add_arguments(self, parser: CommandParser) -> None:
        """How many entries one seal covers."""
        parser.add_argument("--size", type=int, default=seals.BATCH, help="most entries under one seal")

    def handle(self, *args: Any, **options: Any) -> None:
        """Seal until nothing is left."""
        if options["size"] < 1:
            raise CommandError(_("--size is a number from 1."))
        sealed = seals.seal(size=options["size"], budget=float("inf"))
        if sealed.waiting:
            raise CommandError(_("Somebody kept writing entries; nothing was sealed. Try again in a moment."))
        self.stdout.write(
            _("%(entries)d entries under %(seals)d seals") % {"entries": sealed.entries, "seals": sealed.seals}
        )

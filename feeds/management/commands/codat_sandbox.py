"""``manage.py codat_sandbox``: start the stand-in Codat."""

import os
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Replace this process by the stand-in Codat, which is a program of its own."""

    help = "Run the stand-in Codat; takes the options of `python -m feeds.sandbox` (see its --help)."
    requires_system_checks = []

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass every argument on unread: the program knows its own options."""
        self.execute(*argv[2:])

    def execute(self, *arguments: str, **options: Any) -> None:
        """Become the program; does not return."""
        os.chdir(settings.BASE_DIR)
        os.execv(sys.executable, [sys.executable, "-m", "feeds.sandbox", *arguments])  # noqa: S606 - no shell is meant

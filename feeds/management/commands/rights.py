"""``manage.py rights``: who may do what, as the document docs/rights.md."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from feeds.services import rights


class Command(BaseCommand):
    """Prints the tables of roles, rights, addresses and actions of this release. Reads no database."""

    help = "Print who may do what, as Markdown."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run."""
        self.stdout.write(rights.as_markdown(), ending="")

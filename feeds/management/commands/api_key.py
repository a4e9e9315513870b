"""``manage.py api_key NAME``: make a key of the API and print it, once."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from feeds.audit import Actor
from feeds.services import api_keys
from feeds.services.errors import Refused
from feeds.states import ApiScope


class Command(BaseCommand):
    """For trying the API out, and for installations that are set up by a script."""

    help = "Make a key of the API and print it. It is kept nowhere: whoever needs it again makes another."

    def add_arguments(self, parser: CommandParser) -> None:
        """Name, rights, manager and days."""
        parser.add_argument("name", help="which program uses it")
        parser.add_argument("--scopes", nargs="+", choices=ApiScope.values, default=ApiScope.values)
        parser.add_argument("--manager", default="", help="user name of whose customers new ones become")
        parser.add_argument("--days", type=int, default=settings.API_KEY_DAYS)

    def handle(self, *args: Any, **options: Any) -> None:
        """Make it; nothing but the key goes to the output, so that a script can take it from there."""
        manager = None
        if options["manager"]:
            manager = User.objects.filter(username=options["manager"], is_active=True).first()
            if manager is None:
                raise CommandError(_("There is no active user “%s”.") % options["manager"])
        try:
            made = api_keys.make(
                name=options["name"],
                scopes=options["scopes"],
                manager=manager,
                days=options["days"],
                actor=Actor(name="command line", source="command line"),
            )
        except Refused as error:
            raise CommandError(str(error)) from error
        self.stdout.write(made.token)

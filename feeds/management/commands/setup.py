"""``manage.py setup``: what a new or updated installation needs after `migrate`. Safe to run any number of times."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from feeds import queue
from feeds.audit import Actor, acting
from feeds.services import approvals, demo, roles


class Command(BaseCommand):
    """Roles, schedules, and the demo where it belongs."""

    help = "Bring roles and schedules up to date; beside the stand-in Codat also demo users, companies and a callout."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run; quiet about what was right already."""
        actor = Actor.service("setup")
        with acting(actor):
            self._report_roles(roles.sync_roles())
        for change in queue.sync_schedules():
            self.stdout.write(f"Schedules: {change}.")
        if demo.is_wanted():
            demo.create(actor=actor)
            self._greet()
        else:
            self._look_for_demo_users()
        self._look_for_a_second_administrator()

    def _report_roles(self, changes: list[roles.RoleChange]) -> None:
        for change in changes:
            if change.created:
                self.stdout.write(f"Role {change.role}: made.")
                continue
            parts = (("granted", change.granted), ("withdrawn", change.withdrawn))
            done = "; ".join(f"{verb} {', '.join(labels)}" for verb, labels in parts if labels)
            self.stdout.write(f"Role {change.role}: {done}.")

    def _greet(self) -> None:
        self.stdout.write(f"\nBank Feeds Back Office: http://localhost:{settings.PORT}/")
        self.stdout.write(f"Demo logins, all with the password {settings.DEMO_PASSWORD}:")
        for user in demo.USERS:
            self.stdout.write(f"  {user.username:<8} {user.role}")

    def _look_for_a_second_administrator(self) -> None:
        """Role changes that only one person could approve are never approved."""
        if approvals.role_changes_are_stuck():
            self.stderr.write(
                "Role changes need a second person (FOUR_EYES names change_roles), and fewer than two active users "
                "could decide: nobody can be given a role. Make a second administrator with createsuperuser, or take "
                "change_roles out of FOUR_EYES."
            )

    def _look_for_demo_users(self) -> None:
        """Their password is in the documentation, so production does not start with them."""
        names = demo.left_over()
        if not names:
            return
        message = (
            f"Demo users can sign in here: {', '.join(names)}. Deactivate them, or use a database without demo data."
        )
        if settings.IS_PRODUCTION:
            raise CommandError(message)
        self.stderr.write(message)

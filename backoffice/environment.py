"""Reads settings from the environment, and refuses what cannot be meant, naming the variable and never its value."""

from __future__ import annotations

import warnings
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

YES_OR_NO = {*environ.Env.BOOLEAN_TRUE_STRINGS, "false", "off", "no", "n", "0", ""}
WANTED = {int: "a whole number", float: "a number", bool: "true or false"}


class Environment(environ.FileAwareEnv):  # type: ignore[misc]
    """django-environ's, which takes any word for "false" and gives a stack trace for a number that is none.

    A misspelt REQUIRE_SECOND_FACTOR=ture must not open the door.
    """

    def get_value(
        self, var: str, cast: Any = None, default: Any = environ.Env.NOTSET, parse_default: bool = False
    ) -> Any:
        """The value as `cast`. Raises ImproperlyConfigured when it is none, or is missing and has no default."""
        try:
            if cast is bool and str(super().get_value(var, default="")).strip().lower() not in YES_OR_NO:
                raise ValueError
            return super().get_value(var, cast, default, parse_default)
        except ValueError:
            wanted = WANTED.get(cast, "something else")
            raise ImproperlyConfigured(
                f"{var} has to be {wanted}. Correct it, or leave it out for the default (.env.example)."
            ) from None

    def db_url(self, var: str, default: Any = environ.Env.NOTSET) -> dict[str, Any]:
        """A database's address as Django's settings. Raises ImproperlyConfigured for none that the product runs on."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it prints the whole address, password included
            config: dict[str, Any] = super().db_url(var, default=default)
        if not str(config.get("ENGINE", "")).endswith(("sqlite3", "postgresql")):
            raise ImproperlyConfigured(
                f"{var} has to name a PostgreSQL database (postgres://user:password@host/name). Correct it, or leave "
                "it out for SQLite in var/."
            )
        return config

    def email_url(self, var: str, default: Any = environ.Env.NOTSET) -> dict[str, Any]:
        """A mail server's address as Django's settings. Raises ImproperlyConfigured for none that Django knows."""
        try:
            config: dict[str, Any] = super().email_url(var, default=default)
        except ImproperlyConfigured:
            raise ImproperlyConfigured(
                f"{var} has to name a mail server (smtp+tls://user:password@host:587). Correct it, or leave it out for "
                "the default (.env.example)."
            ) from None
        return config

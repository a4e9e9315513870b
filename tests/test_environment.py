"""What cannot be meant is refused by name, in one line, and the value is not repeated: it may be a secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from backoffice.environment import Environment

ROOT = Path(__file__).resolve().parent.parent

BAD = [
    ("int", "NUMBER", "ten", "NUMBER has to be a whole number."),
    ("int", "NUMBER", "", "NUMBER has to be a whole number."),
    ("float", "SECONDS", "soon", "SECONDS has to be a number."),
    ("bool", "REQUIRE_SECOND_FACTOR", "ture", "REQUIRE_SECOND_FACTOR has to be true or false."),
    ("db_url", "DATABASE_URL", "", "DATABASE_URL has to name a PostgreSQL database"),
    (
        "db_url",
        "DATABASE_URL",
        "postgre://user:hidden-word@host/name",
        "DATABASE_URL has to name a PostgreSQL database",
    ),
    ("email_url", "EMAIL_URL", "mail://user:hidden-word@host", "EMAIL_URL has to name a mail server"),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("kind", "name", "value", "message"), BAD)
def test_a_value_that_cannot_be_meant_is_refused_by_name(
    kind: str, name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured, match="leave it out") as refused:
        getattr(Environment(), kind)(name)
    assert str(refused.value).startswith(message)
    assert "hidden-word" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "meant"), [("true", True), ("On", True), ("1", True), ("no", False), ("0", False), ("", False)]
)
def test_yes_and_no_are_understood_however_they_are_written(
    value: str, meant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWITCH", value)
    assert Environment().bool("SWITCH") is meant


def test_what_is_left_out_has_its_default() -> None:
    env = Environment()
    assert (env.bool("NO_SUCH", default=True), env.int("NO_SUCH", default=3)) == (True, 3)
    with pytest.raises(ImproperlyConfigured, match="NO_SUCH"):
        env.int("NO_SUCH")


def test_the_command_line_says_it_in_one_line_and_fails() -> None:
    environment = {**os.environ, "ENVIRONMENT": "test", "CODAT_CALLS_PER_MINUTE": "many"}
    said = subprocess.run(
        [sys.executable, "manage.py", "check"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert said.stderr == (
        "Settings: CODAT_CALLS_PER_MINUTE has to be a whole number. Correct it, or leave it out for the default "
        "(.env.example).\n"
    )

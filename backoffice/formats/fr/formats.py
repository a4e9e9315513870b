"""Dates, times and numbers in French as Canada writes them: 2026-11-26, 13 h 40, 1 234,50."""

from django.conf.locale.fr_CA.formats import *  # type: ignore[import-untyped]  # noqa: F403

# Django's have a bare "h" between hour and minute, which is the hour once more, on twelve.
TIME_FORMAT = "H\N{NO-BREAK SPACE}\\h\N{NO-BREAK SPACE}i"
DATETIME_FORMAT = f"j F Y, {TIME_FORMAT}"
SHORT_DATETIME_FORMAT = f"Y-m-d {TIME_FORMAT}"

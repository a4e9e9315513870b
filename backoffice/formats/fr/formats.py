"""Dates, times and numbers in French as Canada writes them: 2026-11-26, 13 h 40, 1 234,50."""

from django.conf.locale.fr_CA.formats import *  # type: ignore[import-untyped]  # noqa: F403

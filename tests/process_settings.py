"""The product's settings for real processes of the suite: the intervals of production, minutes, are seconds here."""

from backoffice.settings import *  # noqa: F403

SILENCED_SYSTEM_CHECKS = ["feeds.E008", "feeds.E013"]  # they insist, rightly, on the minutes

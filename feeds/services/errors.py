"""What a service says when a request makes no sense now."""

from __future__ import annotations


class Refused(Exception):
    """An expected refusal. Its text is for staff and says what to do; nothing was changed."""


class LeaseLost(Exception):
    """Another worker took this company over while we were slow. What we were about to record is theirs to find."""

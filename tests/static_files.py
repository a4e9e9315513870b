"""The static files, looked for once: each test's client is a site of its own, and would look through them all again."""

from __future__ import annotations

from typing import Any

from whitenoise.middleware import WhiteNoiseMiddleware

_found: dict[str | None, dict[str, Any]] = {}


def find_static_files_once() -> None:
    """Let every site after the first have what that one found. What it knows of a file never changes."""
    look = WhiteNoiseMiddleware.add_files_from_finders

    def add(self: WhiteNoiseMiddleware) -> None:
        known = _found.get(self.static_prefix)
        if known is None:
            look(self)
            _found[self.static_prefix] = dict(self.files)
        else:
            self.files.update(known)

    WhiteNoiseMiddleware.add_files_from_finders = add

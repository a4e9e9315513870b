"""Faults to order: what goes wrong with which requests, and how often it did.

They live in memory only: a fault is of the wire, not of the state, so a restart clears them.
"""

import threading
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any

from feeds.sandbox.replies import Refusal
from feeds.sandbox.store import Record

STATUS, DROP_BEFORE, DROP_AFTER, DELAY, MALFORMED = "status", "drop_before", "drop_after", "delay", "malformed"
ANY = "*"
ACTIONS = (STATUS, DROP_BEFORE, DROP_AFTER, DELAY, MALFORMED)


@dataclass
class Fault:
    """One fault.

    Args:
        action: ``status`` answers ``status``; ``drop_before`` closes the connection unprocessed; ``drop_after``
            processes, then closes without a reply; ``delay`` answers late; ``malformed`` processes, then answers
            cut-off JSON.
        method: HTTP method, or ``*``.
        path: Route template such as ``/companies/{id}``, or ``*``.
        status: For ``status``.
        delay_ms: Held this long, in milliseconds: before the work, or before closing for ``drop_after``.
        retry_after: Seconds for the ``Retry-After`` header of ``status``.
        process: ``status`` does the work first.
        times: How many requests it strikes; None for ever.
        hits: How many it has struck; counted when the request arrives, before it is held.
    """

    action: str
    method: str = ANY
    path: str = ANY
    status: int = 503
    delay_ms: int = 0
    retry_after: int | None = None
    process: bool = False
    times: int | None = 1
    hits: int = 0

    def matches(self, method: str, path: str) -> bool:
        """Tell whether the fault still strikes such a request."""
        spent = self.times is not None and self.hits >= self.times
        return not spent and self.method in (ANY, method) and self.path in (ANY, path)

    def refusal(self) -> Refusal:
        """Return the answer of a ``status`` fault."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return Refusal(self.status, f"Injected fault: {self.status}.", headers=headers)


NO_FAULT = Fault(action="none")


@dataclass
class Faults:
    """The faults in force, first added first struck."""

    _all: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, body: Any, paths: Collection[str]) -> Record:
        """Put a fault in force, from the JSON of the control endpoint.

        Args:
            body: Fields of :class:`Fault`, except ``hits``.
            paths: The route templates there are.

        Raises:
            Refusal: 400, it could never strike as meant.
        """
        known = {item.name for item in fields(Fault)} - {"hits"}
        if not isinstance(body, dict) or not set(body) <= known or body.get("action") not in ACTIONS:
            raise Refusal(400, f"A fault takes {', '.join(sorted(known))}; action is one of {', '.join(ACTIONS)}.")
        if body.get("path", ANY) not in (ANY, *paths):
            raise Refusal(400, f"The path is {ANY} or one of {', '.join(paths)}.", "path")
        for name in ("status", "delay_ms", "retry_after", "times"):
            value = body.get(name, 0)
            if value is not None and (not isinstance(value, int) or value < 0):
                raise Refusal(400, f"'{name}' must be a whole number.", name)
        fault = Fault(**body)
        with self._lock:
            self._all.append(fault)
        return dict(vars(fault))

    def strike(self, method: str, path: str) -> Fault:
        """Return the fault that strikes this request, counting the hit, or ``NO_FAULT``."""
        with self._lock:
            for fault in self._all:
                if fault.matches(method, path):
                    fault.hits += 1
                    return fault
        return NO_FAULT

    def listing(self) -> list[Record]:
        """Return all faults since the last clearing, spent ones too, with their hits."""
        with self._lock:
            return [dict(vars(fault)) for fault in self._all]

    def clear(self) -> None:
        """Take every fault out of force."""
        with self._lock:
            self._all.clear()

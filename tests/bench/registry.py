"""What a bench is: a function that yields figures, known by a name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `note` says under which circumstances."""

    name: str
    value: float
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run was asked for: sizes, and a folder of its own that is deleted at the end."""

    folder: Path
    rows: int
    companies: int
    statuses: int
    deliveries: int
    accounts: int
    cases: int
    customers: int
    seconds: int


Bench = Callable[[Options], Iterator[Figure]]
BENCHES: dict[str, Bench] = {}


def bench(name: str) -> Callable[[Bench], Bench]:
    """Register a bench under `name`; its docstring says what is measured."""

    def register(function: Bench) -> Bench:
        BENCHES[name] = function
        return function

    return register


def median_ms(action: Callable[[], object], *, rounds: int = 7) -> float:
    """Median time of `action` in milliseconds, after one round that warms up."""
    action()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return median(times) * 1000

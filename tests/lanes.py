"""Which tests run at the same time: half of the processes begin with slow ones, and no more slow ones run at once.

A browser, a worker or a web server wants a core of its own. With one in each process everything waits for everything,
and tests give up; with all of them left to the end, one process is at work and three are idle.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, groupby
from math import ceil
from pathlib import Path

import pytest

SLOW = ("browser", "worker", "own_database", "slow")
"""Markers of tests that take long."""


def is_slow(item: pytest.Item) -> bool:
    """Whether it wants a core of its own."""
    return any(map(item.get_closest_marker, SLOW))


def dealt(items: list[pytest.Item], processes: int) -> list[pytest.Item]:
    """As many stretches of equal length as there are processes, half of them with slow tests at the beginning.

    xdist begins by giving each process a stretch, and who is done takes from the end of another's. Slow tests are dealt
    by file, because some share what takes long to make.
    """
    slow, quick = [item for item in items if is_slow(item)], [item for item in items if not is_slow(item)]
    files = [list(file) for _, file in groupby(slow, key=lambda item: item.path)]
    lanes = lanes_of(processes)
    hands = [list(chain.from_iterable(files[lane::lanes])) for lane in range(lanes)] + [[]] * (processes - lanes)
    even = ceil(len(items) / processes)
    return [item for hand in hands for item in [*hand, *_taken(quick, even - len(hand))]] + quick


def lanes_of(processes: int) -> int:
    """How many slow tests run at once."""
    return max(1, processes // 2)


def _taken(items: list[pytest.Item], count: int) -> list[pytest.Item]:
    """The first `count` of `items`, which are gone from there."""
    taken = items[: max(count, 0)]
    del items[: len(taken)]
    return taken


@contextmanager
def lane(folder: Path, lanes: int) -> Iterator[None]:
    """Wait until fewer than `lanes` slow tests run in all processes that share `folder`."""
    while True:
        for number in range(lanes):
            with (folder / f"lane-{number}").open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield
                return
        time.sleep(0.1)

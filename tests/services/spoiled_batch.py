"""A batch of source accounts of which the stand-in sees only a part: for answers that it never gives by itself."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import responses
from requests import PreparedRequest

from tests.sandbox_process import SandboxProcess

Item = dict[str, Any]
Answer = tuple[int, dict[str, str], str]


@contextmanager
def spoiled_batch(codat: SandboxProcess, items: dict[str, Item | None]) -> Iterator[list[list[str]]]:
    """Answer one batch request so: accounts in `items` are kept from Codat and answered with their `result`.

    None: the account is left out of the answer. Yields the ids of each batch that was spoiled.
    """
    seen: list[list[str]] = []

    def answer(request: PreparedRequest) -> Answer:
        bodies = json.loads(request.body or "[]")
        seen.append([body["id"] for body in bodies])
        passed_on = [body for body in bodies if body["id"] not in items]
        answers = _send(request, passed_on) if passed_on else []
        answers += [{"sourceAccountId": key, "result": result} for key, result in items.items() if result is not None]
        wire.remove(responses.POST, batch)
        return 207, {"Content-Type": "application/json"}, json.dumps(answers)

    batch = re.compile(re.escape(codat.url) + ".*/batch")
    with responses.RequestsMock() as wire:
        wire.add_passthru(codat.url)
        wire.add_callback(responses.POST, batch, callback=answer)
        yield seen


def _send(request: PreparedRequest, bodies: list[Item]) -> list[Item]:
    """Pass the rest on, around the mock."""
    assert request.url is not None
    headers = {"Authorization": str(request.headers["Authorization"]), "Content-Type": "application/json"}
    passed_on = urllib.request.Request(request.url, json.dumps(bodies).encode(), headers)  # noqa: S310
    with urllib.request.urlopen(passed_on, timeout=10) as reply:  # noqa: S310
        answers: list[Item] = json.load(reply)
    return answers

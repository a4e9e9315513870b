"""Two hundred customers at the door at once, against one gunicorn as the Procfile starts it.

Each opens the page of an invitation, lets its script tell that somebody looks, presses the button, follows the link to
the stand-in Codat, and begins anew at once, for as long as the bench lasts. Where the page asks for a moment they wait
as long as its script would. No pause is spent reading: what is measured is a crowd, and most of an answer's time is
waiting behind the others.

The stand-in refuses what Codat would (1,000 requests a minute, ten at once for one company) and kills older links; a
link that is dead, an answer that is no page or link, and a limit that was passed end the bench with an error.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from feeds.audit import Actor
from feeds.models import Company, Connection, Invitation
from feeds.services import invitation_keys, invitations
from feeds.states import InvitationPurpose
from tests.bench.registry import Figure, Options, bench
from tests.bench.web import Web
from tests.bench.webhooks import PRODUCTION_PACE
from tests.sandbox_process import CODATS_LIMITS, SandboxProcess
from tests.seeded import seed
from tests.worker_process import WorkerProcess

ACTOR = Actor.service("bench")
A_MINUTE, AT_ONCE = 1000, 10
"""Codat's limits: requests of one address in any minute, and requests of one company at the same time."""
DEVICES = 4
"""Every fifth customer comes with so many devices."""
ANSWER_WITHIN = 60.0
"""Seconds after which a browser, or the proxy in front, gives up."""
TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')
AGAIN = re.compile(r'data-again="(\d+)"')
TRIES = re.compile(r'name="tries" value="(\d+)"')


@bench("door")
def measure(options: Options) -> Iterator[Figure]:
    """Let `--customers` open and press at once for `--seconds`: with links that live, and asking Codat each time."""
    sandbox = SandboxProcess(options.folder / "sandbox.sqlite3", "--strict-otp", limits=CODATS_LIMITS).start()
    settings.CODAT_BASE_URL, settings.CODAT_API_KEY = sandbox.url, sandbox.api_key
    try:
        doors = _invite(sandbox, options.customers)
        yield from _crowd(options, sandbox, _in_families(doors), "links live an hour", lifetime=3600)
        # Less than is left of a link that is handed out again: each press fetches one. Of two devices one would then
        # end the other's, so each customer comes alone.
        yield from _crowd(options, sandbox, doors, "a fresh link for each press", lifetime=600)
    finally:
        sandbox.stop()


def _invite(sandbox: SandboxProcess, customers: int) -> list[str]:
    """The path of an invitation for each customer, of a company of its own."""
    seed(sandbox, customers, accounts=2, linked=False)
    return [
        _path(
            invitations.invite(
                company,
                purpose=InvitationPurpose.CONNECT,
                contact_name="Alex Doe",
                contact_email="alex@maple.example",
                language="en",
                actor=ACTOR,
            )
        )
        for company in Company.objects.order_by("pk")
    ]


def _in_families(doors: list[str]) -> list[str]:
    """As many devices, with some companies at several of them, which then share one link of Codat's."""
    turns = itertools.cycle([DEVICES, 1, 1, 1, 1])
    devices = itertools.chain.from_iterable([door] * next(turns) for door in doors)
    return list(itertools.islice(devices, len(doors)))


def _path(invitation: Invitation) -> str:
    return urlsplit(invitation_keys.address(invitation, made_for=invitation_keys.SHOWN, actor=ACTOR).url).path


def _crowd(
    options: Options, sandbox: SandboxProcess, doors: list[str], what: str, *, lifetime: int
) -> Iterator[Figure]:
    Connection.objects.update(link_url="", link_expires_at=None)
    sandbox.control("DELETE", "pressure")
    environment = WorkerProcess(
        codat_url=sandbox.url,
        api_key=sandbox.api_key,
        log=options.folder / "unused.log",
        **PRODUCTION_PACE | {"CODAT_CALLS_PER_MINUTE": str(A_MINUTE), "CODAT_LINK_LIFETIME_SECONDS": str(lifetime)},
    ).environment
    web = Web(environment, options.folder / "web.log")
    web.start()
    try:
        tally = asyncio.run(_run(web.url, doors, options.seconds))
    finally:
        web.stop()
    pressure = sandbox.pressure()
    yield from _figures(tally, pressure, f"{len(doors)} customers, {options.seconds} s, {what}")
    _insist(tally, pressure, (options.folder / "web.log").read_text())


def _figures(tally: Tally, pressure: dict[str, int], note: str) -> Iterator[Figure]:
    for name, seconds in tally.seconds.items():
        cuts = quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else seconds * 100
        yield Figure(f"{name}, p50", cuts[49] * 1000, "ms", note)
        yield Figure(f"{name}, p99", cuts[98] * 1000, "ms", note)
        yield Figure(f"{name}, slowest", max(seconds) * 1000, "ms", note)
        yield Figure(f"{name}, answers", len(seconds), "", note)
    yield Figure("pressed until the link, p50", quantiles(tally.waits, n=100, method="inclusive")[49], "s", note)
    yield Figure("pressed until the link, p99", quantiles(tally.waits, n=100, method="inclusive")[98], "s", note)
    yield Figure("links that opened", tally.opened, "", note)
    yield Figure("asked for a moment", tally.moments, "times", note)
    yield Figure("calls to Codat in the busiest minute", pressure["mostInAMinute"], f"of {A_MINUTE}", note)
    yield Figure("calls to Codat at once for one company", pressure["mostAtOnceForACompany"], f"of {AT_ONCE}", note)


def _insist(tally: Tally, pressure: dict[str, int], log: str) -> None:
    """Raise RuntimeError unless all went well."""
    wrong: dict[str, Any] = dict(tally.faults)
    if pressure["mostInAMinute"] > A_MINUTE or pressure["mostAtOnceForACompany"] > AT_ONCE or pressure["refused"]:
        wrong["Codat's limits"] = pressure
    if not tally.opened:
        wrong["links"] = "none opened"
    if wrong:
        raise RuntimeError(f"what must hold did not: {wrong}\n{log[-4000:]}")


# --- The crowd -------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Tally:
    """What the crowd met. Times in seconds."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"GET": [], "POST": []})
    waits: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    opened: int = 0
    moments: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole."""

    status: int
    headers: dict[str, str]
    body: str


class Broken(Exception):
    """No whole answer came."""


async def _run(url: str, doors: list[str], seconds: int) -> Tally:
    tally = Tally()
    deadline = time.monotonic() + seconds
    await asyncio.gather(*(_come_and_go(url, door, deadline, tally) for door in doors))
    return tally


async def _come_and_go(url: str, door: str, deadline: float, tally: Tally) -> None:
    while time.monotonic() < deadline:
        try:
            await _visit(url + door, deadline, tally)
        except Broken as broken:
            tally.faults[str(broken)] += 1


async def _visit(url: str, deadline: float, tally: Tally) -> None:
    page = await _timed("GET", tally, url)
    token, cookie = _form(page, "GET"), page.headers.get("set-cookie", "").partition(";")[0]
    headers = {"Cookie": cookie, "X-CSRFToken": token}
    if (await _timed("POST", tally, f"{url}/opened", headers)).status != 204:
        raise Broken("telling that somebody looks was refused")
    started = time.monotonic()
    fields = f"csrfmiddlewaretoken={token}"
    answer = await _timed("POST", tally, url, headers, fields)
    while answer.status == 303 and answer.headers["location"].startswith("/"):
        told = await _timed("GET", tally, _origin(url) + answer.headers["location"])
        again, tries = AGAIN.search(told.body), TRIES.search(told.body)
        if again is None:
            raise Broken("POST: no link, and no moment either")
        tally.moments += 1
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(int(again[1]) / 1000)
        answer = await _timed("POST", tally, url, headers, f"{fields}&tries={tries[1] if tries else 0}")
    if answer.status != 303:
        raise Broken(f"POST: {answer.status}")
    tally.waits.append(time.monotonic() - started)
    if (await _ask("GET", answer.headers["location"])).status != 200:
        raise Broken("a dead link")
    tally.opened += 1


def _origin(url: str) -> str:
    return urlsplit(url)._replace(path="", query="").geturl()


def _form(page: Answer, method: str) -> str:
    found = TOKEN.search(page.body)
    if page.status != 200 or found is None:
        raise Broken(f"{method}: {page.status}")
    return found[1]


async def _timed(method: str, tally: Tally, url: str, headers: dict[str, str] | None = None, body: str = "") -> Answer:
    started = time.monotonic()
    answer = await _ask(method, url, headers, body)
    tally.seconds[method].append(time.monotonic() - started)
    return answer


async def _ask(method: str, url: str, headers: dict[str, str] | None = None, body: str = "") -> Answer:
    """One request over a connection of its own, as a proxy makes them. Raises Broken when no whole answer came."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            return await _exchange(method, url, headers or {}, body.encode())
    except TimeoutError as error:
        raise Broken(f"{method}: no answer in {ANSWER_WITHIN:.0f} s") from error
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        raise Broken(f"{method}: {type(error).__name__}") from error


async def _exchange(method: str, url: str, headers: dict[str, str], body: bytes) -> Answer:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        head = {"Host": parts.netloc, "Connection": "close", "Content-Length": str(len(body)), **headers}
        if body:
            head["Content-Type"] = "application/x-www-form-urlencoded"
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()[:-1]
        answered = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in fields)}
        length = int(answered.get("content-length", 0))
        return Answer(int(status.split()[1]), answered, (await reader.readexactly(length)).decode())
    finally:
        writer.close()

"""Ten thousand webhooks at once.

Thirty per cent come twice or more, all are shuffled, one per cent is forged, and four senders post them to one gunicorn
as the Procfile starts it, while one worker applies them and the stand-in goes on changing. The database is SQLite in a
temporary folder, or the server of DATABASE_URL.
"""

from __future__ import annotations

import json
import os
import queue
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.bench.registry import Figure, Options, bench
from tests.bench.web import Web
from tests.sandbox_process import ROOT, WEBHOOK_SECRET, SandboxProcess

DUPLICATES, FORGED, HELD_BACK = 0.30, 0.01, 0.30
"""Shares: of the genuine deliveries, of all, and of a round's deliveries that come with the next round."""
SENDERS = 4
ANSWER_WITHIN = 15.0
"""Seconds after which Codat takes a delivery for failed."""
APPLY_WITHIN = 900.0
RUN_WITHIN = 1800.0
EVENTS_EACH = 6.5
"""Events that one company's story makes: three when it connects, two when it falls silent, one or two when it is back.
"""
FORGER = "whsec_Zm9yZ2VkLWtleS1mb3ItdGhlLWJlbmNo"
PRODUCTION_PACE = {
    "DJANGO_SETTINGS_MODULE": "backoffice.settings",
    "ONBOARDING_LEASE_SECONDS": "90",
    "ONBOARDING_REQUEUE_SECONDS": "120",
    "ONBOARDING_RETRY_BASE_SECONDS": "2",
    "WORKER_SWEEP_SECONDS": "10",
    "WORKER_HEARTBEAT_SECONDS": "20",
    "WORKER_FROZEN_SECONDS": "180",
    "WORKER_GRACE_SECONDS": "10",
    "Q_WORKERS": "4",
    "LOG_LEVEL": "WARNING",
}
"""The worker of the suite hurries; this one does not. Only Codat's limit of calls a minute is lifted."""


@bench("webhooks")
def bench_inbox(options: Options) -> Iterator[Figure]:
    """Answer and apply `--deliveries` webhooks, some double, shuffled or forged, by a real web server and worker."""
    figures = run(options.deliveries)
    note = "{deliveries:,} deliveries, {duplicates:,} duplicates, {forged} forged".format(**figures)
    if not figures["well"]:
        raise RuntimeError(f"what must hold did not: {figures}")
    yield Figure("answered, p50", figures["answer_p50_ms"], "ms", note)
    yield Figure("answered, p99", figures["answer_p99_ms"], "ms", note)
    yield Figure("answered, slowest", figures["answer_max_ms"], "ms", note)
    yield Figure("answered", figures["answers_per_second"], "a second", f"{SENDERS} senders")
    yield Figure("applied once each", figures["applied"], "webhooks", f"by {figures['readings']:,} readings")
    yield Figure("applied after, p50", figures["applied_after_p50_seconds"], "s", note)
    yield Figure("applied after, slowest", figures["applied_after_max_seconds"], "s", note)


def run(deliveries: int) -> dict[str, Any]:
    """Measure in a process of its own, which sets up Django for itself.

    Returns the figures; `well` says whether all that must hold did. Raises CalledProcessError and TimeoutExpired when
    there was no measuring.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "DATABASE_URL": os.environ.get("DATABASE_URL") or f"sqlite:///{folder}/unused.sqlite3",
            "DJANGO_SETTINGS_MODULE": "backoffice.settings",
            "ENVIRONMENT": "test",
            "LOG_LEVEL": "WARNING",
        }
        command = [sys.executable, "-m", __spec__.name, folder, str(deliveries)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True, timeout=RUN_WITHIN
        )
    # Django may have said something of its own before.
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


# --- Sending ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Delivery:
    """One webhook on its way."""

    webhook_id: str
    body: bytes
    secret: str = WEBHOOK_SECRET


@dataclass
class Senders:
    """Some threads that post what is put before them, each over a connection of its own."""

    url: str
    answers: list[tuple[int, float]] = field(default_factory=list)
    """Status (0: no answer) and seconds of each delivery."""
    waiting: queue.Queue[Delivery | None] = field(default_factory=queue.Queue)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin to send."""
        self.threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        for thread in self.threads:
            thread.start()

    def send(self, deliveries: Sequence[Delivery]) -> None:
        """Put deliveries into the line."""
        for delivery in deliveries:
            self.waiting.put(delivery)

    def finish(self) -> None:
        """Return when everything was sent."""
        for _ in self.threads:
            self.waiting.put(None)
        for thread in self.threads:
            thread.join()

    def _send(self) -> None:
        from tests.webhooks import signed

        with requests.Session() as session:
            while (delivery := self.waiting.get()) is not None:
                headers = signed(delivery.body, delivery.webhook_id, secret=delivery.secret)
                started = time.perf_counter()
                try:
                    status = session.post(self.url, data=delivery.body, headers=headers, timeout=60).status_code
                except requests.RequestException:
                    status = 0
                self.answers.append((status, time.perf_counter() - started))


@dataclass
class Mix:
    """Turns the events of the stand-in into deliveries: some twice, some forged, none in order.

    `deliveries` in all, `forged` of them. The duplicates are what is missing after the events themselves.
    """

    deliveries: int
    forged: int
    randomness: random.Random
    duplicates: int = 0
    forgeries: int = 0
    held: list[Delivery] = field(default_factory=list)
    known: list[Delivery] = field(default_factory=list)

    def round(self, events: Sequence[dict[str, Any]], share: float, *, last: bool) -> list[Delivery]:
        """The deliveries of one round. `share`: part of all duplicates and forgeries that comes with it."""
        fresh = [Delivery(event["id"], json.dumps(event).encode()) for event in events]
        self.known += fresh
        genuine = self.deliveries - self.forged
        missing = genuine - len(self.known) - self.duplicates
        again = self.randomness.choices(self.known, k=missing if last else round(genuine * DUPLICATES * share))
        self.duplicates += len(again)
        forgeries = self.forged - self.forgeries if last else round(self.forged * share)
        forged = [
            Delivery(f"forged-{self.randomness.random()}", delivery.body, FORGER)
            for delivery in self.randomness.choices(fresh, k=forgeries)
        ]
        self.forgeries += forgeries
        ready = self.held + fresh + again + forged
        self.randomness.shuffle(ready)
        keep = 0 if last else int(len(ready) * HELD_BACK)
        self.held, ready = ready[:keep], ready[keep:]
        return ready


# --- Measuring --------------------------------------------------------------------------------------------------------
def measure(folder: Path, deliveries: int) -> dict[str, Any]:
    """Everything, in a process whose Django is set up; see the module."""
    from django.db import connection

    from tests.worker_process import WorkerProcess

    _make_database(folder)
    sandbox = SandboxProcess(folder / "sandbox.sqlite3").start()
    codat = {
        "CODAT_BASE_URL": sandbox.url,
        "CODAT_API_KEY": sandbox.api_key,
        "CODAT_CALLS_PER_MINUTE": "100000",
        "WEBHOOK_SECRETS": sandbox.webhook_secret,
    }
    worker = WorkerProcess(
        codat_url=sandbox.url, api_key=sandbox.api_key, log=folder / "worker.log", **PRODUCTION_PACE, **codat
    )
    web = Web(worker.environment, folder / "web.log")
    try:
        worker.start()
        web.start()
        return _measure(sandbox, f"{web.url}/webhooks/codat", deliveries)
    finally:
        web.stop()
        worker.kill_everything()
        sandbox.stop()
        connection.creation.destroy_test_db(connection.settings_dict["NAME"], verbosity=0)


def _make_database(folder: Path) -> None:
    from django.db import connection

    values = connection.settings_dict
    name = str(folder / "bench.sqlite3") if connection.vendor == "sqlite" else f"bench_{values['NAME']}_{os.getpid()}"
    values["TEST"] = {**values["TEST"], "NAME": name}
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)


def _measure(sandbox: SandboxProcess, url: str, deliveries: int) -> dict[str, Any]:
    forged = round(deliveries * FORGED)
    unique = (deliveries - forged) * (1 - DUPLICATES)
    sandbox.control("POST", "seed", {"companies": round(unique / EVENTS_EACH), "accounts": 2, "linked": False})
    companies = _mirror_companies(sandbox)
    mix = Mix(deliveries, forged, random.Random(7))  # noqa: S311 - the same mix each time
    senders = Senders(url)
    started = time.perf_counter()
    senders.start()
    for number, (step, part) in enumerate(ROUNDS, start=1):
        for position, (company, connection) in enumerate(companies):
            step(sandbox, company, connection, position)
        events = sandbox.control("GET", "webhooks")["events"][len(mix.known) :]
        bare = [{key: event[key] for key in ("id", "eventType", "generatedDate", "payload")} for event in events]
        senders.send(mix.round(bare, part / EVENTS_EACH, last=number == len(ROUNDS)))
    senders.finish()
    sending = time.perf_counter() - started
    applying = _wait_until_applied()
    return _figures(sandbox, senders.answers, mix, sending, applying)


def _connect(sandbox: SandboxProcess, company: str, connection: str, position: int) -> None:
    sandbox.connect(company, connection)


def _fall_silent(sandbox: SandboxProcess, company: str, connection: str, position: int) -> None:
    sandbox.disconnect(company, connection, now=True)


def _come_back(sandbox: SandboxProcess, company: str, connection: str, position: int) -> None:
    """Every second one only with its first account: so the end is not the same for all."""
    sandbox.connect(company, connection, **({"accountIds": ["acc-001"]} if position % 2 else {}))


ROUNDS: tuple[tuple[Callable[[SandboxProcess, str, str, int], None], float], ...] = (
    (_connect, 3.0),
    (_fall_silent, 2.0),
    (_come_back, 1.5),
)
"""What happens to each company in each round, and how many events that makes."""


def _mirror_companies(sandbox: SandboxProcess) -> list[tuple[str, str]]:
    """Write the stand-in's companies into our mirror; their ids and their connections'."""
    from django.utils import timezone

    from feeds.models import Company, Connection, SourceAccount

    now = timezone.now()
    answer = requests.get(f"{sandbox.url}/companies?pageSize=5000", headers=sandbox.authorization, timeout=60)
    found = [(it["id"], it["dataConnections"][0]["id"]) for it in answer.json()["results"]]
    companies = Company.objects.bulk_create(
        Company(customer_number=f"B-{n}", legal_name=f"Bench {n}", codat_id=company, onboarding_state="link_ready")
        for n, (company, _connection) in enumerate(found)
    )
    connections = Connection.objects.bulk_create(
        Connection(company=company, codat_id=connection, read_at=now)
        for company, (_company, connection) in zip(companies, found, strict=True)
    )
    SourceAccount.objects.bulk_create(
        SourceAccount(
            company=connection.company,
            connection=connection,
            account_id=f"acc-{n:03d}",
            name=f"Account {n}",
            account_number=f"{n:010d}",
            status="pending",
            read_at=now,
        )
        for connection in connections
        for n in (1, 2)
    )
    return found


def _wait_until_applied() -> float:
    """Seconds until no webhook waits any more, or the patience ends."""
    from feeds.models import WebhookEvent
    from feeds.states import WebhookState

    started = time.perf_counter()
    while WebhookEvent.objects.filter(state=WebhookState.RECEIVED).exists():
        if time.perf_counter() - started > APPLY_WITHIN:
            break
        time.sleep(0.2)
    return time.perf_counter() - started


def _figures(
    sandbox: SandboxProcess, answers: list[tuple[int, float]], mix: Mix, sending: float, applying: float
) -> dict[str, Any]:
    from django.db import connection

    from feeds.models import StatusEvent, WebhookEvent
    from feeds.services import inbox
    from feeds.states import WebhookState
    from tests import twins

    readings = sandbox.requests_made("GET /companies/{id}/connections/{id}/connectionInfo/bankFeedAccounts")
    seconds = [taken for _status, taken in answers]
    rows = list(WebhookEvent.objects.values_list("state", "applied_at", "received_at", "attempts"))
    applied = [row for row in rows if row[0] == WebhookState.APPLIED]
    lags = [(at - received).total_seconds() for _state, at, received, _attempts in applied if at is not None]
    statuses = Counter(status for status, _taken in answers)
    bad = inbox.lag().bad_signatures_today
    equal = twins.here() == twins.there(sandbox)
    return {
        "database": connection.vendor,
        "deliveries": len(answers),
        "unique": len(mix.known),
        "duplicates": mix.duplicates,
        "forged": mix.forged,
        "answers": {str(status): count for status, count in sorted(statuses.items())},
        "answer_p50_ms": _milliseconds(seconds, 50),
        "answer_p99_ms": _milliseconds(seconds, 99),
        "answer_max_ms": round(max(seconds) * 1000, 1),
        "sending_seconds": round(sending, 1),
        "answers_per_second": round(len(answers) / sending, 1),
        "stored": len(rows),
        "applied": len(applied),
        "counted_bad_signatures": bad,
        "readings": readings,
        "applying_seconds_after_the_last": round(applying, 1),
        "applied_after_p50_seconds": round(statistics.median(lags), 1) if lags else None,
        "applied_after_max_seconds": round(max(lags), 1) if lags else None,
        "most_attempts": max((row[3] for row in rows), default=0),
        "status_changes": StatusEvent.objects.count(),
        "end_state_equal": equal,
        "well": (
            max(seconds) < ANSWER_WITHIN
            and statuses == Counter({204: mix.deliveries - mix.forged, 401: mix.forged})
            and len(rows) == len(applied) == len(mix.known)
            and bad == mix.forged
            and equal
        ),
    }


def _milliseconds(seconds: list[float], percentile: int) -> float:
    return round(statistics.quantiles(seconds, n=100)[percentile - 1] * 1000, 1)


def main(folder: str, deliveries: str) -> None:
    """Be the process that `run` starts: print the figures as JSON."""
    import django

    django.setup()
    from tests.history import let_tests_arrange

    let_tests_arrange()
    sys.stdout.write(json.dumps(measure(Path(folder), int(deliveries))))


if __name__ == "__main__":
    main(*sys.argv[1:])

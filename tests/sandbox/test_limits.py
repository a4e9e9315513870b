"""The API key, the quota of the day, the limit of the minute and that of one company."""

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import requests

from tests.sandbox.customer import Customer, call
from tests.sandbox_process import API_KEY, SandboxProcess

Start = Callable[..., SandboxProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a stand-in with options of its own."""
    started: list[SandboxProcess] = []

    def start_one(*arguments: str) -> SandboxProcess:
        started.append(SandboxProcess(tmp_path / f"{len(started)}.sqlite3", *arguments).start())
        return started[-1]

    yield start_one
    for server in started:
        server.stop()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Basic " + base64.b64encode(API_KEY.encode()).decode(), 200),
        ("Basic " + base64.b64encode(f"{API_KEY}:".encode()).decode(), 200),
        ("Basic " + base64.b64encode(f"{API_KEY}x".encode()).decode(), 401),
        ("Basic " + base64.b64encode(f"{API_KEY}:secret".encode()).decode(), 401),
        ("Basic " + API_KEY, 401),
        ("Basic", 401),
        ("Bearer " + base64.b64encode(API_KEY.encode()).decode(), 401),
        ("Basic //79", 401),
        (None, 401),
    ],
)
def test_the_api_key_is_sent_in_base64(sandbox: SandboxProcess, header: str | None, status: int) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = requests.get(f"{sandbox.url}/companies", headers=headers, timeout=10)
    assert answer.status_code == status
    assert "X-Rate-Limit-Remaining" in answer.headers


def test_an_address_that_is_not_codats_is_a_404_in_codats_words(sandbox: SandboxProcess) -> None:
    answer = call(sandbox, "GET", "/invoices")
    assert (answer.status_code, answer.json()["statusCode"]) == (404, 404)


def test_every_reply_carries_the_quota_of_the_day(start: Start) -> None:
    sandbox = start("--daily-quota", "5")
    answer = call(sandbox, "GET", "/companies")
    assert (answer.headers["X-Rate-Limit-Limit"], answer.headers["X-Rate-Limit-Remaining"]) == ("5", "4")
    midnight = (datetime.now(UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert parsedate_to_datetime(answer.headers["X-Rate-Limit-Reset"]) == midnight


def test_a_spent_quota_is_429_until_the_next_utc_day(start: Start) -> None:
    sandbox = start("--daily-quota", "3")
    statuses = [call(sandbox, "GET", "/companies").status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    refused = call(sandbox, "POST", "/companies", {"name": "Maple"})
    seconds = int(refused.headers["Retry-After"])
    assert 0 < seconds <= 86400
    sandbox.advance(seconds + 2)
    assert call(sandbox, "GET", "/companies").headers["X-Rate-Limit-Remaining"] == "2"
    events = sandbox.control("GET", "webhooks")["events"]
    assert [(event["eventType"], event["payload"]["quotaRemaining"]) for event in events] == [
        ("client.rateLimit.reached", 0),
        ("client.rateLimit.reset", 3),
    ]


def test_the_quota_grows_with_linked_companies(tmp_path: Path) -> None:
    sandbox = SandboxProcess(tmp_path / "sandbox.sqlite3", limits=()).start()
    try:
        customer = Customer(sandbox, "a")
        Customer(sandbox, "b")
        assert limit(sandbox) == 1000
        customer.connect()
        assert limit(sandbox) == 2000
        customer.call("PATCH", customer.connection_path, {"status": "Unlinked"})
        assert limit(sandbox) == 1000
        sandbox.control("POST", "seed", {"companies": 3, "linked": True})
        assert limit(sandbox) == 4000
    finally:
        sandbox.stop()


def test_a_client_has_so_many_requests_a_minute(start: Start) -> None:
    sandbox = start("--per-minute", "3")
    # Two minutes' share at most: the minute may turn once while this runs.
    answers = [call(sandbox, "GET", "/companies") for _ in range(7)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert answers[0].status_code == 200
    assert 1 <= int(refused[0].headers["Retry-After"]) <= 60


def test_one_company_is_asked_about_so_many_times_at_once(start: Start) -> None:
    sandbox = start("--per-company", "2", "--latency-ms", "500")
    one, other = Customer(sandbox, "a"), Customer(sandbox, "b")
    paths = [f"{one.company_path}/connections"] * 4 + [f"{other.company_path}/connections"]
    with ThreadPoolExecutor(len(paths)) as pool:
        statuses = list(pool.map(lambda path: call(sandbox, "GET", path).status_code, paths))
    assert sorted(statuses[:4]) == [200, 200, 429, 429]
    assert statuses[4] == 200
    pressure = sandbox.pressure()
    assert pressure["mostAtOnceForACompany"] >= 3
    assert pressure["refused"] == 2
    assert call(sandbox, "GET", paths[0]).status_code == 200


def test_the_pressure_on_the_limits_is_counted_and_can_be_forgotten(start: Start) -> None:
    sandbox = start("--per-minute", "3")
    sandbox.control("DELETE", "pressure")
    for _ in range(3):
        assert call(sandbox, "GET", "/companies").status_code == 200
    expected = {"requests": 3, "mostInAMinute": 3, "mostAtOnceForACompany": 0, "refused": 0}
    assert sandbox.pressure() == expected
    sandbox.control("DELETE", "pressure")
    assert sandbox.pressure() == dict.fromkeys(expected, 0)
    assert call(sandbox, "GET", "/companies").status_code == 200


def limit(sandbox: SandboxProcess) -> int:
    return int(call(sandbox, "GET", "/companies?pageSize=1").headers["X-Rate-Limit-Limit"])

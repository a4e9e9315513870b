"""Webhooks: envelopes, signatures, retries, duplicates and disorder."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from standardwebhooks import Webhook, WebhookVerificationError

from feeds.sandbox.options import parse_options
from tests.sandbox.customer import Customer
from tests.sandbox_process import WEBHOOK_SECRET, SandboxProcess

OTHER_SECRET = "whsec_YW5vdGhlci1rZXktZm9yLXRoZS1zdWl0ZQ=="


class Receiver:
    """An endpoint that keeps what it gets and answers the next of ``statuses`` (then 200)."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.delay = 0.0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(receiver.delay)
                receiver.got.append((dict(self.headers), body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def events(self, secret: str = WEBHOOK_SECRET) -> list[dict[str, Any]]:
        """Return what arrived, each signature verified."""
        return [Webhook(secret).verify(body, headers) for headers, body in self.got]

    def types(self) -> list[str]:
        return [json.loads(body)["eventType"] for _, body in self.got]

    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]

    def wait(self, count: int) -> None:
        wait_until(lambda: len(self.got) >= count)


@pytest.fixture
def receiver(sandbox: SandboxProcess) -> Iterator[Receiver]:
    made = Receiver()
    yield made
    sandbox.control("POST", "webhooks", {"url": None})
    made.close()


def aim(sandbox: SandboxProcess, receiver: Receiver, **fields: Any) -> None:
    sandbox.control("POST", "webhooks", {"url": receiver.url, **fields})


def test_a_customers_story_arrives_in_codats_envelopes(sandbox: SandboxProcess, receiver: Receiver) -> None:
    aim(sandbox, receiver)
    customer = Customer(sandbox, "a")
    customer.connect()
    sandbox.disconnect(*customer.ids.values(), now=True)
    sandbox.advance(2 * 86400)
    customer.connect()
    customer.call("DELETE", customer.connection_path)
    customer.call("DELETE", customer.company_path)
    receiver.wait(10)

    assert receiver.types() == [
        "company.created",
        "connection.created",
        "bankFeeds.sourceAccount.connected",
        "connection.connected",
        "bankFeeds.sourceAccount.disconnected",
        "connection.disconnected",
        "bankFeeds.sourceAccount.connected",
        "connection.reconnected",
        "connection.deleted",
        "company.deleted",
    ]
    events = receiver.events()
    assert all(set(event) == {"id", "eventType", "generatedDate", "payload"} for event in events)
    assert {event["payload"]["referenceCompany"]["id"] for event in events} == {customer.company["id"]}
    assert events[3]["payload"]["connection"]["status"] == "Linked"
    assert "?otp=" in events[3]["payload"]["connection"]["linkUrl"]
    account = events[2]["payload"]
    assert (account["connectionId"], account["sourceAccount"]["id"]) == (customer.connection["id"], "a")


def test_a_target_may_have_a_secret_of_its_own(sandbox: SandboxProcess, receiver: Receiver) -> None:
    aim(sandbox, receiver, secret=OTHER_SECRET)
    Customer(sandbox)
    receiver.wait(2)
    assert len(receiver.events(OTHER_SECRET)) == 2
    with pytest.raises(WebhookVerificationError):
        receiver.events()


def test_a_failed_delivery_is_retried_under_the_same_id(sandbox: SandboxProcess, receiver: Receiver) -> None:
    receiver.statuses = [500, 200, 503]
    aim(sandbox, receiver)
    Customer(sandbox)
    receiver.wait(2)
    first, second = receiver.ids()
    sandbox.advance(6)
    receiver.wait(3)
    assert receiver.ids() == [first, second, first]
    sandbox.advance(299)
    sandbox.advance(6)
    receiver.wait(4)
    assert receiver.ids()[3] == first
    wait_until(lambda: [event["state"] for event in events_of(sandbox)] == ["delivered", "delivered"])
    assert [attempt["status"] for attempt in events_of(sandbox)[0]["attempts"]] == [500, 503, 200]


def test_a_target_that_is_down_is_given_up_after_seven_retries(sandbox: SandboxProcess) -> None:
    sandbox.control("POST", "webhooks", {"url": "http://127.0.0.1:9/"})
    call_company(sandbox)
    for _ in range(8):
        sandbox.control("POST", "webhooks/flush")
    (event,) = events_of(sandbox)
    assert (event["state"], len(event["attempts"])) == ("failed", 8)


def test_duplicates_repeat_an_event_under_the_same_id(sandbox: SandboxProcess, receiver: Receiver) -> None:
    aim(sandbox, receiver, duplicates=1.0)
    call_company(sandbox)
    receiver.wait(2)
    first, second = receiver.ids()
    assert first == second


def test_disorder_holds_events_until_the_flush(sandbox: SandboxProcess, receiver: Receiver) -> None:
    aim(sandbox, receiver, shuffle=True)
    for _ in range(20):
        call_company(sandbox)
    emitted = [event["id"] for event in events_of(sandbox)]
    assert receiver.got == []
    assert sandbox.control("POST", "webhooks/flush") == {"sent": 20}
    # One chance in 20! that the random order is the original one.
    assert receiver.ids() != emitted
    assert sorted(receiver.ids()) == sorted(emitted)


def test_a_slow_target_holds_up_no_request(sandbox: SandboxProcess, receiver: Receiver) -> None:
    receiver.delay = 2.0
    aim(sandbox, receiver)
    call_company(sandbox)
    started = time.monotonic()
    call_company(sandbox)
    assert receiver.got == []
    assert time.monotonic() - started < receiver.delay
    receiver.delay = 0.0
    receiver.wait(2)


def test_without_a_target_events_are_kept_but_never_sent(sandbox: SandboxProcess, receiver: Receiver) -> None:
    call_company(sandbox)
    aim(sandbox, receiver)
    assert sandbox.control("POST", "webhooks/flush") == {"sent": 0}
    assert [event["state"] for event in events_of(sandbox)] == ["unsent"]


def call_company(sandbox: SandboxProcess) -> None:
    answer = requests.post(
        f"{sandbox.url}/companies", json={"name": "Maple"}, headers=sandbox.authorization, timeout=10
    )
    assert answer.status_code == 200


def events_of(sandbox: SandboxProcess) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = sandbox.control("GET", "webhooks")["events"]
    return events


def wait_until(condition: Callable[[], bool], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_the_program_may_be_told_at_start_where_events_go(tmp_path: Path) -> None:
    receiver = Receiver()
    made = SandboxProcess(tmp_path / "sandbox.sqlite3", "--webhook-url", receiver.url).start()
    try:
        call_company(made)
        receiver.wait(1)
        made.reset()
        call_company(made)
        receiver.wait(2)
    finally:
        made.stop()
        receiver.close()
    assert receiver.types() == ["company.created"] * 2


def test_the_address_may_come_from_the_environment() -> None:
    url = "http://127.0.0.1:8000/webhooks/codat"
    assert parse_options([], {"SANDBOX_WEBHOOK_URL": url}).webhook_url == url
    assert parse_options([], {"SANDBOX_WEBHOOK_URL": ""}).webhook_url is None

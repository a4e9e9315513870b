"""What happens over time, by the movable clock."""

from datetime import datetime

import pytest
import requests

from tests.sandbox.customer import Customer
from tests.sandbox_process import SandboxProcess

HOUR = 3600.0
DAY = 24 * HOUR


def test_a_new_connection_waits_for_the_customer(sandbox: SandboxProcess) -> None:
    assert Customer(sandbox, "a").statuses() == ("PendingAuth", ["pending"])


def test_the_customer_connects_some_accounts_and_the_connection_is_linked(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a", "b")
    customer.connect(accountIds=["b"], feedStartDate="2026-01-15")
    assert customer.statuses() == ("Linked", ["pending", "connected"])
    assert customer.call("GET", customer.accounts_path).json()[1]["feedStartDate"] == "2026-01-15T00:00:00"
    assert customer.call("GET", customer.connection_path).json()["lastSync"].endswith("Z")


def test_silence_shows_only_after_ten_days(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a", "b")
    customer.connect()
    sandbox.disconnect(*customer.ids.values(), accountId="a")
    sandbox.advance(10 * DAY - 60)
    assert customer.statuses() == ("Linked", ["connected", "connected"])
    sandbox.advance(120)
    assert customer.statuses() == ("Linked", ["disconnected", "connected"])


def test_silence_may_have_begun_before_it_was_ordered(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a")
    customer.connect()
    sandbox.disconnect(*customer.ids.values(), silentSince="2020-01-01T00:00:00Z")
    assert customer.statuses() == ("Unlinked", ["disconnected"])


def test_a_connection_unlinks_a_day_after_its_last_account_disconnected(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a", "b")
    customer.connect()
    sandbox.disconnect(*customer.ids.values(), accountId="a", now=True)
    sandbox.advance(5 * DAY)
    assert customer.statuses() == ("Linked", ["disconnected", "connected"])
    sandbox.disconnect(*customer.ids.values(), accountId="b", now=True)
    sandbox.advance(23 * HOUR)
    assert customer.statuses() == ("Linked", ["disconnected", "disconnected"])
    sandbox.advance(2 * HOUR)
    assert customer.statuses() == ("Unlinked", ["disconnected", "disconnected"])


def test_a_long_leap_lets_every_step_happen_at_its_own_time(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a")
    customer.connect()
    sandbox.disconnect(*customer.ids.values())
    start = datetime.fromisoformat(sandbox.control("GET", "clock")["now"])
    sandbox.advance(30 * DAY)
    assert customer.statuses() == ("Unlinked", ["disconnected"])
    events = sandbox.control("GET", "webhooks")["events"]
    waits = [
        round((datetime.fromisoformat(event["generatedDate"]) - start).total_seconds() / DAY, 1) for event in events
    ]
    assert [event["eventType"] for event in events[-2:]] == [
        "bankFeeds.sourceAccount.disconnected",
        "connection.disconnected",
    ]
    assert waits[-2:] == [10.0, 11.0]


def test_an_account_added_in_time_keeps_the_connection_linked(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a")
    customer.connect()
    customer.call("PATCH", f"{customer.accounts_path}/a", {"id": "a", "status": "disconnected"})
    body = {**customer.call("GET", customer.accounts_path).json()[0], "id": "b"}
    assert customer.call("POST", customer.accounts_path, body).status_code == 200
    sandbox.advance(2 * DAY)
    assert customer.statuses() == ("Linked", ["disconnected", "pending"])


def test_the_customer_can_reconnect(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a")
    customer.connect()
    sandbox.disconnect(*customer.ids.values(), now=True)
    sandbox.advance(2 * DAY)
    assert customer.statuses() == ("Unlinked", ["disconnected"])
    customer.connect()
    assert customer.statuses() == ("Linked", ["connected"])
    sandbox.advance(30 * DAY)
    assert customer.statuses() == ("Linked", ["connected"])
    types = [event["eventType"] for event in sandbox.control("GET", "webhooks")["events"]]
    assert types[-1] == "connection.reconnected"


def test_revoked_credentials_silence_the_feeds_that_used_them(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a")
    customer.connect()
    assert customer.call("DELETE", f"{customer.accounts_path}/credentials").status_code == 204
    assert customer.statuses() == ("Linked", ["connected"])
    sandbox.advance(11 * DAY + 60)
    assert customer.statuses() == ("Unlinked", ["disconnected"])


def test_the_clock_can_be_set_and_put_back(sandbox: SandboxProcess) -> None:
    shown = sandbox.control("POST", "clock", {"set": "2031-02-03T04:05:06Z"})
    assert shown["now"].startswith("2031-02-03T04:05:06")
    assert sandbox.control("POST", "clock", {"reset": True})["offsetSeconds"] == 0


@pytest.mark.parametrize("body", [{}, {"advance_seconds": "soon"}, {"set": "tomorrow"}, None, []])
def test_a_clock_that_is_told_nonsense_says_so(sandbox: SandboxProcess, body: object) -> None:
    answer = requests.post(f"{sandbox.url}/_sandbox/clock", json=body, timeout=10)
    assert answer.status_code == 400

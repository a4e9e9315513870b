"""Faults and counters to order."""

import threading
import time
from collections.abc import Callable

import pytest
import requests

from tests.sandbox.customer import ACCOUNTS, Customer, account, call
from tests.sandbox_process import SandboxProcess

CREATE = {"name": "Maple Dental Ltd"}


def test_a_status_fault_answers_codats_error_and_does_nothing(sandbox: SandboxProcess) -> None:
    sandbox.post_fault("status", "POST", "/companies", status=503, retry_after=7)
    answer = call(sandbox, "POST", "/companies", CREATE)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert answer.json()["canBeRetried"] == "True"
    assert sandbox.stats()["objects"]["companies"] == 0


def test_a_status_fault_can_come_after_the_work(sandbox: SandboxProcess) -> None:
    sandbox.post_fault("status", "POST", "/companies", status=500, process=True)
    assert call(sandbox, "POST", "/companies", CREATE).status_code == 500
    assert sandbox.stats()["objects"]["companies"] == 1


def test_a_drop_before_loses_the_request(sandbox: SandboxProcess) -> None:
    sandbox.post_fault("drop_before", "POST", "/companies")
    with pytest.raises(requests.ConnectionError):
        call(sandbox, "POST", "/companies", CREATE)
    assert sandbox.stats()["objects"]["companies"] == 0


def test_a_drop_after_loses_only_the_reply(sandbox: SandboxProcess) -> None:
    sandbox.post_fault("drop_after", "POST", "/companies")
    with pytest.raises(requests.ConnectionError):
        call(sandbox, "POST", "/companies", CREATE)
    assert sandbox.stats()["objects"]["companies"] == 1


def test_the_work_of_a_drop_after_is_visible_while_the_caller_still_waits(sandbox: SandboxProcess) -> None:
    sandbox.post_fault("drop_after", "POST", "/companies", delay_ms=1500)
    caller = threading.Thread(target=swallowed, args=(sandbox,))
    caller.start()
    sandbox.wait_until_hit()
    wait_for(lambda: sandbox.stats()["objects"]["companies"] == 1)
    assert caller.is_alive()
    caller.join()


def test_a_malformed_reply_is_a_200_that_is_no_json_though_the_work_is_done(sandbox: SandboxProcess) -> None:
    sandbox.post_fault("malformed", "POST", "/companies")
    answer = call(sandbox, "POST", "/companies", CREATE)
    assert answer.status_code == 200
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer.json()
    assert sandbox.stats()["objects"]["companies"] == 1


def test_a_held_request_keeps_no_other_waiting(sandbox: SandboxProcess) -> None:
    sandbox.post_fault("delay", "POST", "/companies", delay_ms=1500)
    held = threading.Thread(target=call, args=(sandbox, "POST", "/companies", CREATE))
    held.start()
    sandbox.wait_until_hit()
    assert call(sandbox, "GET", "/companies").json()["totalResults"] == 0
    assert held.is_alive()
    held.join()
    assert call(sandbox, "GET", "/companies").json()["totalResults"] == 1


def test_a_fault_strikes_so_many_times_and_only_its_route(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox)
    sandbox.post_fault("status", "POST", ACCOUNTS + "/batch", status=500, times=2)
    batch = [account("a")]

    def add() -> int:
        return customer.call("POST", f"{customer.accounts_path}/batch", batch).status_code

    assert customer.call("GET", customer.accounts_path).status_code == 200
    assert [add(), add(), add()] == [500, 500, 201]
    assert [fault["hits"] for fault in sandbox.faults()] == [2]


def test_a_fault_without_a_count_strikes_until_it_is_cleared(sandbox: SandboxProcess) -> None:
    sandbox.post_fault("status", status=500, times=None)
    assert [call(sandbox, "GET", "/companies").status_code for _ in range(3)] == [500] * 3
    sandbox.clear_faults()
    assert call(sandbox, "GET", "/companies").status_code == 200


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "explode"},
        {"action": "status", "colour": "red"},
        {"action": "status", "path": "/company"},
        {"action": "status", "status": "503"},
        {"action": "delay", "delay_ms": -1},
        {"action": "status", "times": "twice"},
    ],
    ids=str,
)
def test_a_fault_that_could_never_strike_as_meant_is_refused(sandbox: SandboxProcess, fault: dict[str, object]) -> None:
    answer = requests.post(f"{sandbox.url}/_sandbox/faults", json=fault, timeout=10)
    assert answer.status_code == 400
    assert sandbox.faults() == []


def test_requests_are_counted_when_received_faulted_and_refused_ones_too(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a")
    sandbox.post_fault("drop_before", "GET", "/companies/{id}")
    with pytest.raises(requests.ConnectionError):
        customer.call("GET", customer.company_path)
    requests.get(f"{sandbox.url}/companies", timeout=10)
    customer.call("PATCH", f"{customer.accounts_path}/a", {"id": "a"})
    assert sandbox.stats() == {
        "objects": {"companies": 1, "connections": 1, "source_accounts": 1, "credentials": 0},
        "requests": {
            "POST /companies": 1,
            "POST /companies/{id}/connections": 1,
            f"POST {ACCOUNTS}/batch": 1,
            "GET /companies/{id}": 1,
            "GET /companies": 1,
            f"PATCH {ACCOUNTS}/{{id}}": 1,
        },
    }


def test_a_reset_forgets_everything(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a")
    link = customer.link()
    sandbox.post_fault("status", times=None)
    sandbox.advance(1000)
    requests.post(f"{sandbox.url}/portal/callout", {"title_en": "Hello"}, timeout=10)

    sandbox.reset()

    assert sandbox.stats() == {
        "objects": {"companies": 0, "connections": 0, "source_accounts": 0, "credentials": 0},
        "requests": {},
    }
    assert sandbox.faults() == []
    assert sandbox.control("GET", "clock")["offsetSeconds"] == 0
    assert sandbox.control("GET", "webhooks") == {"target": None, "events": []}
    assert "Hello" not in requests.get(f"{sandbox.url}/portal/callout", timeout=10).text
    assert requests.get(link, timeout=10).status_code == 401


def swallowed(sandbox: SandboxProcess) -> None:
    with pytest.raises(requests.ConnectionError):
        call(sandbox, "POST", "/companies", CREATE)


def wait_for(condition: Callable[[], bool], within: float = 1.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)

"""Reads are tried again, writes never; and no call outlives its time."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import requests
import responses

from feeds.codat import CodatClient, errors
from feeds.codat import client as client_module

from .samples import ACCOUNTS_URL, API_KEY, BASE_URL, COMPANY, COMPANY_ID, COMPANY_URL, CONNECTION_ID, KEY

TRANSIENT: list[dict[str, Any]] = [
    {"status": 500},
    {"status": 503},
    {"status": 429},
    {"body": "not json"},
    {"body": requests.ConnectionError()},
    {"body": requests.ReadTimeout()},
    {"body": requests.ConnectTimeout()},
]


@pytest.mark.parametrize("fault", TRANSIENT, ids=str)
def test_a_read_is_tried_again(client: CodatClient, wire: responses.RequestsMock, fault: dict[str, Any]) -> None:
    wire.get(COMPANY_URL, **fault)
    wire.get(COMPANY_URL, json=COMPANY)

    assert client.get_company(COMPANY_ID).id == COMPANY_ID


def test_a_read_gives_up_after_its_tries(client: CodatClient, wire: responses.RequestsMock) -> None:
    wire.get(COMPANY_URL, status=503)

    with pytest.raises(errors.ServerError):
        client.get_company(COMPANY_ID)

    assert len(wire.calls) == 3


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 422, 302])
def test_a_refused_read_is_not_tried_again(client: CodatClient, wire: responses.RequestsMock, status: int) -> None:
    wire.get(COMPANY_URL, status=status)

    with pytest.raises(errors.CodatError):
        client.get_company(COMPANY_ID)

    assert len(wire.calls) == 1


WRITES: list[tuple[str, str, Callable[[CodatClient], object]]] = [
    ("POST", f"{BASE_URL}/companies", lambda c: c.create_company(name="n", tags={"a": "b"}, idempotency_key=KEY)),
    ("PATCH", COMPANY_URL, lambda c: c.update_company(COMPANY_ID, name="n", idempotency_key=KEY)),
    ("PUT", ACCOUNTS_URL, lambda c: c.put_source_accounts(COMPANY_ID, CONNECTION_ID, [])),
    ("DELETE", COMPANY_URL, lambda c: c.delete_company(COMPANY_ID)),
]


@pytest.mark.parametrize("fault", [fault for fault in TRANSIENT if "not json" not in fault.values()], ids=str)
@pytest.mark.parametrize(("method", "url", "call"), WRITES, ids=[write[0] for write in WRITES])
def test_a_write_is_sent_once(
    client: CodatClient,
    wire: responses.RequestsMock,
    fault: dict[str, Any],
    method: str,
    url: str,
    call: Callable[[CodatClient], object],
) -> None:
    wire.add(method, url, **fault)

    with pytest.raises(errors.CodatError):
        call(client)

    assert len(wire.calls) == 1


def test_it_waits_as_long_as_codat_says(client: CodatClient, wire: responses.RequestsMock) -> None:
    wire.get(COMPANY_URL, status=429, headers={"Retry-After": "1"})
    wire.get(COMPANY_URL, json=COMPANY)
    started = time.monotonic()

    client.get_company(COMPANY_ID)

    assert time.monotonic() - started >= 1


def test_a_long_wait_is_left_to_the_caller(client: CodatClient, wire: responses.RequestsMock) -> None:
    wire.get(COMPANY_URL, status=429, headers={"Retry-After": "11"})

    with pytest.raises(errors.RateLimited) as caught:
        client.get_company(COMPANY_ID)

    assert caught.value.retry_after == 11
    assert len(wire.calls) == 1


def test_retry_after_may_be_a_date(client: CodatClient, wire: responses.RequestsMock) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    wire.delete(COMPANY_URL, status=429, headers={"Retry-After": soon})

    with pytest.raises(errors.RateLimited) as caught:
        client.delete_company(COMPANY_ID)

    assert caught.value.retry_after == pytest.approx(90, abs=2)


@pytest.mark.parametrize("value", ["", "soon", "-5", "²"])
def test_a_senseless_retry_after_is_ignored(client: CodatClient, wire: responses.RequestsMock, value: str) -> None:
    wire.delete(COMPANY_URL, status=429, headers={"Retry-After": value})

    with pytest.raises(errors.RateLimited) as caught:
        client.delete_company(COMPANY_ID)

    assert caught.value.retry_after is None


def test_no_try_starts_when_the_time_of_the_call_is_over(
    wire: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "TOTAL_TIMEOUT", 0.5)
    wire.get(COMPANY_URL, status=503, headers={"Retry-After": "1"})

    with pytest.raises(errors.ServerError):
        CodatClient(BASE_URL, API_KEY).get_company(COMPANY_ID)

    assert len(wire.calls) == 1


def test_a_call_with_all_its_waits_is_shorter_than_a_queue_task() -> None:
    longest_limiter_wait = 10
    assert client_module.TOTAL_TIMEOUT + longest_limiter_wait < 60

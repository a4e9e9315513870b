"""``Idempotency-Key``: what the official client cannot see."""

import threading
import uuid

import pytest
import requests

from tests.sandbox.customer import Customer, call
from tests.sandbox_process import SandboxProcess

MINUTE = 60.0


def test_the_same_key_and_body_replays_the_first_reply(sandbox: SandboxProcess) -> None:
    key = str(uuid.uuid4())
    first = create(sandbox, key)
    again = create(sandbox, key)
    assert (again.status_code, again.json()) == (200, first.json())
    assert sandbox.stats()["objects"]["companies"] == 1


def test_a_key_is_the_same_in_any_spelling_of_the_guid(sandbox: SandboxProcess) -> None:
    key = uuid.uuid4()
    create(sandbox, str(key).upper())
    create(sandbox, key.hex)
    assert sandbox.stats()["objects"]["companies"] == 1


def test_a_patch_is_replayed_too(sandbox: SandboxProcess) -> None:
    customer, key = Customer(sandbox), str(uuid.uuid4())
    customer.call("PATCH", customer.company_path, {"description": "one"}, Idempotency_Key=key)
    customer.call("PATCH", customer.company_path, {"description": "two"})
    replayed = customer.call("PATCH", customer.company_path, {"description": "one"}, Idempotency_Key=key)
    assert replayed.json()["description"] == "one"
    assert customer.call("GET", customer.company_path).json()["description"] == "two"


def test_another_body_under_the_same_key_is_422(sandbox: SandboxProcess) -> None:
    key = str(uuid.uuid4())
    create(sandbox, key)
    assert create(sandbox, key, name="Another Ltd").status_code == 422
    assert sandbox.stats()["objects"]["companies"] == 1


def test_another_address_under_the_same_key_is_422(sandbox: SandboxProcess) -> None:
    customer, key = Customer(sandbox), str(uuid.uuid4())
    path = f"{customer.company_path}/connections"
    customer.call("POST", path, {"platformKey": "hcws"}, Idempotency_Key=key)
    other = Customer(sandbox)
    moved = other.call("POST", f"{other.company_path}/connections", {"platformKey": "hcws"}, Idempotency_Key=key)
    assert moved.status_code == 422


def test_a_key_that_is_no_guid_is_400(sandbox: SandboxProcess) -> None:
    assert create(sandbox, "order-17").status_code == 400


def test_a_get_takes_no_key(sandbox: SandboxProcess) -> None:
    assert call(sandbox, "GET", "/companies", Idempotency_Key="order-17").status_code == 200


def test_the_same_key_while_the_first_is_in_progress_is_409(sandbox: SandboxProcess) -> None:
    key = str(uuid.uuid4())
    sandbox.post_fault("delay", "POST", "/companies", delay_ms=1500)
    statuses: list[int] = []
    first = threading.Thread(target=lambda: statuses.append(create(sandbox, key).status_code))
    first.start()
    sandbox.wait_until_hit()
    assert create(sandbox, key).status_code == 409
    first.join()
    assert statuses == [200]
    assert create(sandbox, key).status_code == 200
    assert sandbox.stats()["objects"]["companies"] == 1


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_error_is_kept_and_replayed_after_the_fault_is_gone(sandbox: SandboxProcess, status: int) -> None:
    key = str(uuid.uuid4())
    sandbox.post_fault("status", "POST", "/companies", status=status)
    first = create(sandbox, key)
    again = create(sandbox, key)
    assert (first.status_code, again.status_code) == (status, status)
    assert again.json() == first.json()
    assert create(sandbox, str(uuid.uuid4())).status_code == 200


def test_a_429_is_not_kept(sandbox: SandboxProcess) -> None:
    key = str(uuid.uuid4())
    sandbox.post_fault("status", "POST", "/companies", status=429, retry_after=1)
    assert create(sandbox, key).status_code == 429
    assert create(sandbox, key).status_code == 200


def test_a_refusal_is_kept(sandbox: SandboxProcess) -> None:
    key = str(uuid.uuid4())
    first = create(sandbox, key, name="é")
    assert first.status_code == 400
    assert create(sandbox, key, name="é").json() == first.json()


def test_a_reply_that_was_lost_is_replayed(sandbox: SandboxProcess) -> None:
    key = str(uuid.uuid4())
    sandbox.post_fault("drop_after", "POST", "/companies")
    with pytest.raises(requests.ConnectionError):
        create(sandbox, key)
    assert create(sandbox, key).status_code == 200
    assert sandbox.stats()["objects"]["companies"] == 1


def test_a_request_that_never_arrived_leaves_no_key(sandbox: SandboxProcess) -> None:
    key = str(uuid.uuid4())
    sandbox.post_fault("drop_before", "POST", "/companies")
    with pytest.raises(requests.ConnectionError):
        create(sandbox, key)
    assert sandbox.stats()["objects"]["companies"] == 0
    assert create(sandbox, key, name="Another Ltd").status_code == 200


def test_a_key_is_forgotten_after_90_minutes(sandbox: SandboxProcess) -> None:
    key = str(uuid.uuid4())
    create(sandbox, key)
    sandbox.advance(89 * MINUTE)
    create(sandbox, key)
    assert sandbox.stats()["objects"]["companies"] == 1
    sandbox.advance(2 * MINUTE)
    create(sandbox, key)
    assert sandbox.stats()["objects"]["companies"] == 2


def create(sandbox: SandboxProcess, key: str, name: str = "Maple Dental Ltd") -> requests.Response:
    return call(sandbox, "POST", "/companies", {"name": name}, Idempotency_Key=key)

"""The rules of the fields, and the switch of the guide's PUT."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.sandbox.customer import Customer, account, call, guide_account
from tests.sandbox_process import SandboxProcess


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("Café (Québec)", "Caf Qubec"),
        ("O'Brien & Sons, Ltd. @Work - really?!", "O'Brien & Sons, Ltd. @Work - really?!"),
        ("A/B #1 + C_D", "AB 1  CD"),
        ("日本 Trading", " Trading"),
    ],
)
def test_characters_outside_the_alphabet_vanish_from_a_name(sandbox: SandboxProcess, sent: str, stored: str) -> None:
    company = call(sandbox, "POST", "/companies", {"name": sent}).json()
    assert company["name"] == stored
    assert call(sandbox, "GET", f"/companies/{company['id']}").json()["name"] == stored


@pytest.mark.parametrize("name", ["", "   ", "日本", None, 7])
def test_a_name_of_which_nothing_is_left_is_refused(sandbox: SandboxProcess, name: object) -> None:
    answer = call(sandbox, "POST", "/companies", {"name": name})
    assert answer.status_code == 400
    assert answer.json()["validation"]["errors"][0]["itemId"] == "name"


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        ({str(number): "x" for number in range(10)}, 200),
        ({str(number): "x" for number in range(11)}, 400),
        ({"k" * 27: "v" * 100}, 200),
        ({"k" * 28: "v"}, 400),
        ({"": "v"}, 400),
        ({"k": "v" * 101}, 400),
        ({"k": 7}, 400),
        (["uid"], 400),
    ],
)
def test_tags_keep_to_codats_limits(sandbox: SandboxProcess, tags: object, status: int) -> None:
    assert call(sandbox, "POST", "/companies", {"name": "Maple", "tags": tags}).status_code == status


def test_an_empty_tags_object_wipes_the_tags(sandbox: SandboxProcess) -> None:
    path = f"/companies/{call(sandbox, 'POST', '/companies', {'name': 'Maple', 'tags': {'uid': 'u'}}).json()['id']}"
    assert call(sandbox, "PATCH", path, {"name": "Oak"}).json()["tags"] == {"uid": "u"}
    assert call(sandbox, "PATCH", path, {"tags": {}}).json()["tags"] == {}
    assert call(sandbox, "GET", "/companies?tags=uid%3Du").json()["totalResults"] == 0


@pytest.mark.parametrize("key", [None, "HCWS", "hcw", "abcd", 7])
def test_only_the_key_of_quickbooks_bank_feeds_makes_a_connection(sandbox: SandboxProcess, key: object) -> None:
    company = Customer(sandbox).company_path
    assert call(sandbox, "POST", f"{company}/connections", {"platformKey": key}).status_code == 400


@pytest.mark.parametrize("missing", ["id", "accountName", "accountType", "accountNumber", "currency", "balance"])
def test_an_account_of_todays_shape_needs_its_fields(sandbox: SandboxProcess, missing: str) -> None:
    body = {name: value for name, value in account("a").items() if name != missing}
    assert refused_field(sandbox, body) == missing


@pytest.mark.parametrize(
    "missing", ["id", "accountName", "accountType", "accountNumber", "sortCode", "currency", "balance"]
)
def test_an_account_of_the_guides_shape_needs_its_fields(sandbox: SandboxProcess, missing: str) -> None:
    body = {name: value for name, value in guide_account("a").items() if name != missing}
    # Without a sort code it is no longer the guide's shape, and its free-text type is at fault.
    assert refused_field(sandbox, body) == ("accountType" if missing == "sortCode" else missing)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("accountType", "Credit"),
        ("currency", "usd"),
        ("currency", "ZZZ"),
        ("balance", "1.00"),
        ("balance", True),
        ("routingInfo", {"bankCode": "021000021", "type": "ABA"}),
        ("routingInfo", {"type": "aba"}),
        ("accountInfo", {"nickname": 7}),
        ("accountInfo", {"accountOpenDate": "yesterday"}),
        ("sortCode", 40004),
    ],
)
def test_a_field_outside_todays_shape_is_refused(sandbox: SandboxProcess, field: str, value: Any) -> None:
    assert refused_field(sandbox, account("a", **{field: value})) == field


@pytest.mark.parametrize("account_type", ["checking", "savings", "loan", "creditCard", "prepaidCard"])
def test_every_type_of_todays_shape_is_taken(sandbox: SandboxProcess, account_type: str) -> None:
    assert add(Customer(sandbox), account("a", accountType=account_type))["accountType"] == account_type


@pytest.mark.parametrize("account_type", ["Credit", "Debit", "checking"])
def test_free_text_is_taken_in_the_guides_shape(sandbox: SandboxProcess, account_type: str) -> None:
    assert add(Customer(sandbox), guide_account("a", accountType=account_type))["accountType"] == account_type


def test_an_account_id_is_taken_once_per_connection_only(sandbox: SandboxProcess) -> None:
    assert add(Customer(sandbox), account("a"))["status"] == "pending"
    assert add(Customer(sandbox), account("a"))["status"] == "pending"


def test_a_batch_judges_each_account_alone(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox)
    batch = [account("a"), account("a"), account("b", currency="ZZZ"), "nonsense", account("c")]
    answer = customer.call("POST", f"{customer.accounts_path}/batch", batch)
    assert answer.status_code == 207
    assert [item["result"]["statusCode"] for item in answer.json()] == [201, 409, 400, 400, 201]
    assert [item["sourceAccountId"] for item in answer.json()] == ["a", "a", "b", None, "c"]
    assert "already exists with the same Id" in answer.json()[1]["result"]["error"]


def test_fixed_fields_of_an_account_may_be_repeated_but_not_changed(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a")
    path = f"{customer.accounts_path}/a"
    assert customer.call("PATCH", path, account("a", accountName="Payroll")).json()["accountName"] == "Payroll"
    for change in ({"accountNumber": "9"}, {"accountType": "loan"}, {"currency": "CAD"}, {"routingInfo": None}):
        expected = 200 if change == {"routingInfo": None} else 400
        assert customer.call("PATCH", path, {"id": "a", **change}).status_code == expected


def test_a_change_of_an_account_needs_its_id_in_the_body(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a", "b")
    bodies: list[Any] = [{"accountName": "Payroll"}, {"id": "b", "accountName": "Payroll"}, []]
    for body in bodies:
        assert customer.call("PATCH", f"{customer.accounts_path}/a", body).status_code == 400


def test_the_balance_is_fixed_while_connected(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a")
    path = f"{customer.accounts_path}/a"
    assert customer.call("PATCH", path, {"id": "a", "balance": 5}).json()["balance"] == 5
    customer.connect()
    assert customer.call("PATCH", path, {"id": "a", "balance": 6}).status_code == 400
    assert customer.call("PATCH", path, {"id": "a", "accountName": "Payroll"}).status_code == 200


@pytest.mark.parametrize("status", ["connected", "connecting", "unknown"])
def test_an_account_can_only_be_set_disconnected(sandbox: SandboxProcess, status: str) -> None:
    customer = Customer(sandbox, "a")
    assert customer.call("PATCH", f"{customer.accounts_path}/a", {"id": "a", "status": status}).status_code == 400


def test_only_a_linked_connection_can_be_unlinked(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a")
    unlink = {"status": "Unlinked"}
    assert customer.call("PATCH", customer.connection_path, unlink).status_code == 400
    customer.connect()
    assert customer.call("PATCH", customer.connection_path, {"status": "Deauthorized"}).status_code == 400
    assert customer.call("PATCH", customer.connection_path, unlink).json()["status"] == "Unlinked"
    assert customer.call("PATCH", customer.connection_path, unlink).status_code == 400


def test_a_connection_answers_only_under_its_own_company(sandbox: SandboxProcess) -> None:
    mine, other = Customer(sandbox, "a"), Customer(sandbox)
    path = f"{other.company_path}/connections/{mine.connection['id']}"
    assert mine.call("GET", path).status_code == 404
    assert mine.call("GET", f"{path}/connectionInfo/bankFeedAccounts").status_code == 404
    assert mine.call("DELETE", path).status_code == 404


def test_deleting_a_company_deletes_what_it_owns(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox, "a", "b")
    customer.call("POST", f"{customer.accounts_path}/credentials", {})
    Customer(sandbox, "c")
    assert customer.call("DELETE", customer.company_path).status_code == 204
    assert sandbox.stats()["objects"] == {"companies": 1, "connections": 1, "source_accounts": 1, "credentials": 0}


def test_a_body_that_is_no_json_is_400(sandbox: SandboxProcess) -> None:
    answer = requests.post(f"{sandbox.url}/companies", data=b"{", headers=sandbox.authorization, timeout=10)
    assert answer.status_code == 400


def test_the_guides_put_is_refused_unless_switched_on(sandbox: SandboxProcess) -> None:
    customer = Customer(sandbox)
    answer = customer.call("PUT", customer.accounts_path, [guide_account("a")])
    assert answer.status_code == 404
    assert "withdrawn" in answer.json()["error"]


@pytest.fixture(scope="module")
def with_put(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    server = SandboxProcess(tmp_path_factory.mktemp("put") / "sandbox.sqlite3", "--allow-put").start()
    yield server
    server.stop()


def test_the_guides_put_adds_accounts_and_may_be_repeated(with_put: SandboxProcess) -> None:
    customer = Customer(with_put)
    assert ids(customer.call("PUT", customer.accounts_path, [guide_account("a")]).json()) == ["a"]
    customer.connect()
    both = [guide_account("a", accountName="Renamed"), guide_account("b")]
    answer = customer.call("PUT", customer.accounts_path, both)
    assert [(item["id"], item["accountName"], item["status"]) for item in answer.json()] == [
        ("a", "Renamed", "connected"),
        ("b", "Business credit", "pending"),
    ]


def test_the_guides_put_adds_none_when_one_is_malformed(with_put: SandboxProcess) -> None:
    customer = Customer(with_put)
    bad = [guide_account("a"), guide_account("b", currency="ZZZ")]
    assert customer.call("PUT", customer.accounts_path, bad).status_code == 400
    assert customer.call("GET", customer.accounts_path).json() == []


def add(customer: Customer, body: dict[str, Any]) -> dict[str, Any]:
    answer = customer.call("POST", customer.accounts_path, body)
    assert answer.status_code == 200
    added: dict[str, Any] = answer.json()
    return added


def refused_field(sandbox: SandboxProcess, body: dict[str, Any]) -> str:
    customer = Customer(sandbox)
    answer = customer.call("POST", customer.accounts_path, body)
    assert answer.status_code == 400
    assert customer.call("GET", customer.accounts_path).json() == []
    field: str = answer.json()["validation"]["errors"][0]["itemId"]
    return field


def ids(accounts: list[dict[str, Any]]) -> list[str]:
    return [item["id"] for item in accounts]

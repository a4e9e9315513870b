"""What each method sends, exactly, and what it makes of the reply."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
import responses
import structlog

from feeds.codat import CodatClient
from feeds.codat.schemas import Company, CompanyPage, Connection, Credentials, SourceAccount

from .samples import (
    ACCOUNT_ID,
    ACCOUNT_URL,
    ACCOUNT_V1,
    ACCOUNT_V2,
    ACCOUNTS_URL,
    AUTHORIZATION,
    BASE_URL,
    COMPANY,
    COMPANY_ID,
    COMPANY_URL,
    CONNECTION,
    CONNECTION_ID,
    CONNECTION_URL,
    CREDENTIALS,
    KEY,
    page,
)

NOTHING = object()
"""No body at all, unlike the JSON value null."""


@dataclass(frozen=True)
class Case:
    """One method: how it is called, the request it must send, the reply, and the type of the result."""

    call: Callable[[CodatClient], Any]
    method: str
    url: str
    sends: Any = NOTHING
    replies: Any = NOTHING
    status: int = 200
    result: type = type(None)
    keyed: bool = True


BODY = {"id": ACCOUNT_ID, "accountName": "Till"}
CASES = {
    "create_company": Case(
        lambda c: c.create_company(name="Cafe Quebec", tags={"uid": "u-1"}, idempotency_key=KEY),
        "POST",
        f"{BASE_URL}/companies",
        {"name": "Cafe Quebec", "tags": {"uid": "u-1"}},
        COMPANY,
        result=Company,
    ),
    "create_company with a description": Case(
        lambda c: c.create_company(name="N", tags={"uid": "u-1"}, description="A cafe", idempotency_key=KEY),
        "POST",
        f"{BASE_URL}/companies",
        {"name": "N", "tags": {"uid": "u-1"}, "description": "A cafe"},
        COMPANY,
        result=Company,
    ),
    "get_company": Case(
        lambda c: c.get_company(COMPANY_ID), "GET", COMPANY_URL, replies=COMPANY, result=Company, keyed=False
    ),
    "find_companies_by_tag": Case(
        lambda c: c.find_companies_by_tag("uid", "u-1"),
        "GET",
        f"{BASE_URL}/companies?tags=uid%3Du-1&page=1&pageSize=5000",
        replies=page(COMPANY),
        result=list,
        keyed=False,
    ),
    "iter_companies": Case(
        lambda c: list(c.iter_companies(page_size=7)),
        "GET",
        f"{BASE_URL}/companies?page=1&pageSize=7",
        replies=page(COMPANY),
        result=list,
        keyed=False,
    ),
    "get_company_page": Case(
        lambda c: c.get_company_page(3, page_size=7),
        "GET",
        f"{BASE_URL}/companies?page=3&pageSize=7",
        replies=page(COMPANY),
        result=CompanyPage,
        keyed=False,
    ),
    "update_company": Case(
        lambda c: c.update_company(COMPANY_ID, name="New", idempotency_key=KEY),
        "PATCH",
        COMPANY_URL,
        {"name": "New"},
        COMPANY,
        result=Company,
    ),
    "delete_company": Case(lambda c: c.delete_company(COMPANY_ID), "DELETE", COMPANY_URL, status=204, keyed=False),
    "create_connection": Case(
        lambda c: c.create_connection(COMPANY_ID, idempotency_key=KEY),
        "POST",
        f"{COMPANY_URL}/connections",
        {"platformKey": "hcws"},
        CONNECTION,
        result=Connection,
    ),
    "list_connections": Case(
        lambda c: c.list_connections(COMPANY_ID),
        "GET",
        f"{COMPANY_URL}/connections?page=1&pageSize=5000",
        replies=page(CONNECTION),
        result=list,
        keyed=False,
    ),
    "get_connection": Case(
        lambda c: c.get_connection(COMPANY_ID, CONNECTION_ID),
        "GET",
        CONNECTION_URL,
        replies=CONNECTION,
        result=Connection,
        keyed=False,
    ),
    "unlink_connection": Case(
        lambda c: c.unlink_connection(COMPANY_ID, CONNECTION_ID, idempotency_key=KEY),
        "PATCH",
        CONNECTION_URL,
        {"status": "Unlinked"},
        CONNECTION,
        result=Connection,
    ),
    "delete_connection": Case(
        lambda c: c.delete_connection(COMPANY_ID, CONNECTION_ID), "DELETE", CONNECTION_URL, keyed=False
    ),
    "list_source_accounts": Case(
        lambda c: c.list_source_accounts(COMPANY_ID, CONNECTION_ID),
        "GET",
        ACCOUNTS_URL,
        replies=[ACCOUNT_V2, ACCOUNT_V1],
        result=list,
        keyed=False,
    ),
    "create_source_account": Case(
        lambda c: c.create_source_account(COMPANY_ID, CONNECTION_ID, BODY, idempotency_key=KEY),
        "POST",
        ACCOUNTS_URL,
        BODY,
        ACCOUNT_V2,
        result=SourceAccount,
    ),
    "put_source_accounts": Case(
        lambda c: c.put_source_accounts(COMPANY_ID, CONNECTION_ID, [BODY]),
        "PUT",
        ACCOUNTS_URL,
        [BODY],
        [ACCOUNT_V1],
        result=list,
        keyed=False,
    ),
    "update_source_account": Case(
        lambda c: c.update_source_account(
            COMPANY_ID, CONNECTION_ID, ACCOUNT_ID, name="Safe", balance=Decimal("10.10"), idempotency_key=KEY
        ),
        "PATCH",
        ACCOUNT_URL,
        {"id": ACCOUNT_ID, "accountName": "Safe", "balance": 10.1},
        ACCOUNT_V2,
        result=SourceAccount,
    ),
    "update_source_account to disconnected": Case(
        lambda c: c.update_source_account(
            COMPANY_ID, CONNECTION_ID, ACCOUNT_ID, status="disconnected", idempotency_key=KEY
        ),
        "PATCH",
        ACCOUNT_URL,
        {"id": ACCOUNT_ID, "status": "disconnected"},
        ACCOUNT_V2,
        result=SourceAccount,
    ),
    "delete_source_account": Case(
        lambda c: c.delete_source_account(COMPANY_ID, CONNECTION_ID, ACCOUNT_ID),
        "DELETE",
        ACCOUNT_URL,
        status=204,
        keyed=False,
    ),
    "generate_credentials": Case(
        lambda c: c.generate_credentials(COMPANY_ID, CONNECTION_ID, idempotency_key=KEY),
        "POST",
        f"{ACCOUNTS_URL}/credentials",
        {},
        CREDENTIALS,
        result=Credentials,
    ),
    "revoke_credentials": Case(
        lambda c: c.revoke_credentials(COMPANY_ID, CONNECTION_ID),
        "DELETE",
        f"{ACCOUNTS_URL}/credentials",
        status=204,
        keyed=False,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_it_sends_exactly_the_documented_request(client: CodatClient, wire: responses.RequestsMock, case: Case) -> None:
    reply = {} if case.replies is NOTHING else {"json": case.replies}
    wire.add(case.method, case.url.partition("?")[0], status=case.status, **reply)

    result = case.call(client)

    request = wire.calls[0].request
    assert (request.method, request.url) == (case.method, case.url)
    assert request.headers["Authorization"] == AUTHORIZATION
    assert request.headers.get("Idempotency-Key") == (KEY if case.keyed else None)
    assert request.headers["Accept"] == "application/json"
    sent = json.loads(request.body) if request.body else NOTHING
    assert sent == case.sends
    assert request.headers.get("Content-Type") == (None if case.sends is NOTHING else "application/json")
    assert type(result) is case.result


def test_every_method_of_the_client_is_in_the_table() -> None:
    public = {name for name in vars(CodatClient) if not name.startswith("_")}
    assert public - {name.split()[0] for name in CASES} == {"create_source_accounts"}  # has tests of its own, below


@pytest.mark.parametrize("status", [201, 207, 409])
def test_a_batch_tells_the_fate_of_each_account_whatever_its_status(
    client: CodatClient, wire: responses.RequestsMock, status: int
) -> None:
    wire.post(
        f"{ACCOUNTS_URL}/batch",
        status=status,
        json=[
            {"sourceAccountId": ACCOUNT_ID, "result": {"statusCode": 201, "account": ACCOUNT_V2}},
            {"sourceAccountId": "b", "result": {"statusCode": "409", "error": "exists: 000123456789"}},
        ],
    )

    batch = client.create_source_accounts(COMPANY_ID, CONNECTION_ID, [BODY, {"id": "b"}], idempotency_key=KEY)

    assert json.loads(wire.calls[0].request.body or "") == [BODY, {"id": "b"}]
    assert wire.calls[0].request.headers["Idempotency-Key"] == KEY
    made, refused = batch.items
    assert made.created
    assert made.account is not None
    assert made.account.id == made.source_account_id == ACCOUNT_ID
    assert (refused.created, refused.status_code, refused.account) == (False, 409, None)
    assert refused.error == "exists: ••••6789"


def test_a_path_in_the_base_url_is_kept_and_its_final_slash_is_not(wire: responses.RequestsMock) -> None:
    wire.get(f"{BASE_URL}/proxy/companies/{COMPANY_ID}", json=COMPANY)

    assert CodatClient(f"{BASE_URL}/proxy/", "k").get_company(COMPANY_ID).id == COMPANY_ID


@pytest.mark.parametrize("identity", ["", ".", ".."])
def test_an_id_that_would_lead_to_another_path_is_never_sent(client: CodatClient, identity: str) -> None:
    with pytest.raises(ValueError, match="id"):
        client.delete_connection(COMPANY_ID, identity)


def test_tags_are_never_wiped(client: CodatClient) -> None:
    with pytest.raises(ValueError, match="tags"):
        client.update_company(COMPANY_ID, tags={}, idempotency_key=KEY)


def test_a_tag_query_cannot_be_widened_by_its_value(client: CodatClient) -> None:
    with pytest.raises(ValueError, match="tag"):
        client.find_companies_by_tag("uid", "x||uid!=x")


def test_only_companies_with_exactly_this_tag_are_found(client: CodatClient, wire: responses.RequestsMock) -> None:
    other = COMPANY | {"id": "other", "tags": {"uid": "u-12"}}
    bare = COMPANY | {"id": "bare", "tags": None}
    wire.get(f"{BASE_URL}/companies", json=page(COMPANY, other, bare))

    assert [company.id for company in client.find_companies_by_tag("uid", "u-1")] == [COMPANY_ID]


def test_a_netrc_cannot_replace_the_key(
    client: CodatClient, wire: responses.RequestsMock, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine codat.test login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    wire.get(COMPANY_URL, json=COMPANY)

    client.get_company(COMPANY_ID)

    assert wire.calls[0].request.headers["Authorization"] == AUTHORIZATION


def test_it_writes_one_log_line_without_ids(
    client: CodatClient, wire: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    wire.get(CONNECTION_URL, json=CONNECTION)

    with structlog.testing.capture_logs() as lines:
        client.get_connection(COMPANY_ID, CONNECTION_ID)

    (line,) = lines
    assert line.pop("ms") >= 0
    assert line == {
        "event": "codat_call",
        "log_level": "info",
        "method": "GET",
        "route": "/companies/{companyId}/connections/{connectionId}",
        "status": 200,
        "correlation_id": None,
    }

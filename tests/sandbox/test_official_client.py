"""The official client judges the stand-in: every operation the product uses, success and error."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from codat_bankfeeds.models.errors.errormessage import ErrorMessage
from codat_bankfeeds.models.errors.sdkerror import SDKError
from codat_bankfeeds.models.shared.security import Security
from codat_bankfeeds.sdk import CodatBankFeeds
from codat_bankfeeds.utils.retries import RetryConfig

from tests.sandbox.customer import account, call, guide_account
from tests.sandbox_process import SandboxProcess

# The client's annotations deny the methods it has (`companies.get`), so they are not asked.
Codat = Any
NOWHERE = "00000000-0000-4000-8000-000000000000"
PAIR = {"company_id": NOWHERE, "connection_id": NOWHERE}


def client_for(sandbox: SandboxProcess, **changes: str) -> Codat:
    header = changes.get("authorization", sandbox.authorization["Authorization"])
    # By default the client retries by itself, which would hide the first answer.
    return CodatBankFeeds(
        security=Security(auth_header=header), server_url=sandbox.url, retry_config=RetryConfig("none")
    )


@pytest.fixture
def codat(sandbox: SandboxProcess) -> Codat:
    return client_for(sandbox)


@pytest.fixture
def pair(codat: Codat) -> dict[str, str]:
    """The ids of a company and its connection."""
    company = codat.companies.create(request={"name": "Maple Dental Ltd", "tags": {"uid": "c-1"}})
    connection = codat.connections.create(request={"company_id": company.id, "request_body": {"platform_key": "hcws"}})
    return {"company_id": company.id, "connection_id": connection.id}


def v2(account_id: str) -> dict[str, Any]:
    return {
        "id": account_id,
        "account_name": "Operating",
        "account_type": "checking",
        "account_number": "0001234567",
        "currency": "USD",
        "balance": 0,
    }


def test_it_creates_reads_changes_lists_and_deletes_a_company(codat: Codat) -> None:
    created = codat.companies.create(
        request={"name": "Maple Dental Ltd", "description": "Dentist", "tags": {"uid": "a"}}
    )
    assert (created.name, created.description, created.tags) == ("Maple Dental Ltd", "Dentist", {"uid": "a"})
    assert created.redirect.endswith(created.id)

    changed = codat.companies.update(
        request={"company_id": created.id, "company_update_request": {"description": "Two dentists"}}
    )
    assert (changed.name, changed.description, changed.tags) == ("Maple Dental Ltd", "Two dentists", {"uid": "a"})

    assert codat.companies.get(request={"company_id": created.id}).name == "Maple Dental Ltd"
    codat.companies.delete(request={"company_id": created.id})
    assert codat.companies.list(request={}).total_results == 0


def test_it_pages_and_filters_companies(codat: Codat) -> None:
    for number in range(5):
        codat.companies.create(request={"name": f"Company {number}", "tags": {"uid": f"u{number}"}})

    page = codat.companies.list(request={"page": 2, "page_size": 2})

    assert [company.name for company in page.results] == ["Company 2", "Company 3"]
    assert (page.page_number, page.page_size, page.total_results) == (2, 2, 5)
    assert page.links.next.href == "/companies?page=3&pageSize=2"
    assert page.links.previous.href == "/companies?page=1&pageSize=2"
    found = codat.companies.list(request={"tags": "uid=u3"})
    assert [company.name for company in found.results] == ["Company 3"]


def test_a_listing_of_companies_embeds_their_connections(codat: Codat, pair: dict[str, str]) -> None:
    (company,) = codat.companies.list(request={}).results
    assert [connection.id for connection in company.data_connections] == [pair["connection_id"]]
    assert "?otp=" in company.data_connections[0].link_url


def test_it_creates_reads_lists_and_deletes_a_connection(codat: Codat, pair: dict[str, str]) -> None:
    connection = codat.connections.get(request=pair)
    assert (connection.integration_key, connection.status) == ("hcws", "PendingAuth")
    assert connection.platform_name == "QuickBooks Online Bank Feeds"

    listed = codat.connections.list(request={"company_id": pair["company_id"]})
    assert [item.id for item in listed.results] == [pair["connection_id"]]
    assert listed.results[0].link_url != connection.link_url

    codat.connections.delete(request=pair)
    assert codat.connections.list(request={"company_id": pair["company_id"]}).total_results == 0


def test_it_unlinks_a_linked_connection(codat: Codat, pair: dict[str, str], sandbox: SandboxProcess) -> None:
    codat.source_accounts.create(request={**pair, "request_body": v2("a")})
    sandbox.connect(*pair.values())
    assert codat.connections.get(request=pair).status == "Linked"

    assert codat.connections.unlink(request={**pair, "request_body": {"status": "Unlinked"}}).status == "Unlinked"


def test_it_adds_one_source_account(codat: Codat, pair: dict[str, str]) -> None:
    created = codat.source_accounts.create(request={**pair, "request_body": v2("a")})
    assert created is not None
    (listed,) = accounts_of(codat, pair)
    assert (listed.id, listed.status, listed.balance) == ("a", "pending", 0)


def test_it_adds_a_batch_whole_in_part_or_not_at_all(codat: Codat, pair: dict[str, str]) -> None:
    def add(*ids: str) -> Any:
        return codat.source_accounts.create_batch(request={**pair, "request_body": [v2(each) for each in ids]})

    assert outcomes(add("a", "b")) == [("a", 201), ("b", 201)]
    assert outcomes(add("b", "c")) == [("b", 409), ("c", 201)]
    with pytest.raises(SDKError) as refused:
        add("a", "b")
    assert refused.value.status_code == 409
    assert refused.value.body.startswith('[{"sourceAccountId":"a"')


def test_it_reads_the_guides_shape_of_account(codat: Codat, pair: dict[str, str], sandbox: SandboxProcess) -> None:
    call(sandbox, "POST", accounts_path(pair), guide_account("old"))
    (old,) = accounts_of(codat, pair)
    assert (old.account_type, old.sort_code, old.status) == ("Credit", "040004", "pending")


def test_it_reads_todays_shape_of_account(codat: Codat, pair: dict[str, str], sandbox: SandboxProcess) -> None:
    info = {"nickname": "Ops", "accountOpenDate": "2020-01-31", "availableBalance": 12.5}
    call(sandbox, "POST", accounts_path(pair), account("new", accountInfo=info))
    (new,) = accounts_of(codat, pair)
    assert (new.account_type, new.routing_info.bank_code, new.account_info.nickname) == ("checking", "021000021", "Ops")


def test_it_renames_disconnects_and_deletes_an_account(codat: Codat, pair: dict[str, str]) -> None:
    codat.source_accounts.create(request={**pair, "request_body": v2("a")})
    target = {**pair, "account_id": "a"}

    def change(**fields: Any) -> Any:
        return codat.source_accounts.update(request={**target, "source_account": {"id": "a", **fields}})

    assert change(account_name="Payroll").account_name == "Payroll"
    assert change(balance=12).balance == 12
    assert change(status="disconnected").status == "disconnected"
    codat.source_accounts.delete(request=target)
    assert accounts_of(codat, pair) == []


def test_it_generates_and_revokes_credentials(codat: Codat, pair: dict[str, str]) -> None:
    first, second = (codat.source_accounts.generate_credentials(request={**pair, "request_body": b"{}"}) for _ in "ab")
    assert first.username
    assert first.password
    assert first.username != second.username
    codat.source_accounts.delete_credentials(request=pair)


OPERATIONS: dict[str, Callable[[Codat], object]] = {
    "get company": lambda codat: codat.companies.get(request={"company_id": NOWHERE}),
    "update company": lambda codat: codat.companies.update(
        request={"company_id": NOWHERE, "company_update_request": {"name": "X"}}
    ),
    "delete company": lambda codat: codat.companies.delete(request={"company_id": NOWHERE}),
    "create connection": lambda codat: codat.connections.create(
        request={"company_id": NOWHERE, "request_body": {"platform_key": "hcws"}}
    ),
    "list connections": lambda codat: codat.connections.list(request={"company_id": NOWHERE}),
    "get connection": lambda codat: codat.connections.get(request=PAIR),
    "unlink connection": lambda codat: codat.connections.unlink(
        request={**PAIR, "request_body": {"status": "Unlinked"}}
    ),
    "delete connection": lambda codat: codat.connections.delete(request=PAIR),
    "list accounts": lambda codat: codat.source_accounts.list(request=PAIR),
    "create account": lambda codat: codat.source_accounts.create(request={**PAIR, "request_body": v2("a")}),
    "create batch": lambda codat: codat.source_accounts.create_batch(request={**PAIR, "request_body": [v2("a")]}),
    "update account": lambda codat: codat.source_accounts.update(
        request={**PAIR, "account_id": "a", "source_account": {"id": "a"}}
    ),
    "delete account": lambda codat: codat.source_accounts.delete(request={**PAIR, "account_id": "a"}),
    "generate credentials": lambda codat: codat.source_accounts.generate_credentials(
        request={**PAIR, "request_body": b"{}"}
    ),
    "revoke credentials": lambda codat: codat.source_accounts.delete_credentials(request=PAIR),
}
EVERY_OPERATION = {
    "list companies": lambda codat: codat.companies.list(request={}),
    "create company": lambda codat: codat.companies.create(request={"name": "Maple Dental Ltd"}),
    **OPERATIONS,
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_an_unknown_object_is_a_typed_404(codat: Codat, operation: Callable[[Codat], object]) -> None:
    assert_typed(404, "False", lambda: operation(codat))


@pytest.mark.parametrize("operation", EVERY_OPERATION.values(), ids=EVERY_OPERATION.keys())
def test_a_wrong_key_is_a_typed_401(sandbox: SandboxProcess, operation: Callable[[Codat], object]) -> None:
    stranger = client_for(sandbox, authorization="Basic d3Jvbmc=")
    assert_typed(401, "False", lambda: operation(stranger))


@pytest.mark.parametrize("status", [402, 403, 429, 500, 503])
@pytest.mark.parametrize("operation", EVERY_OPERATION.values(), ids=EVERY_OPERATION.keys())
def test_every_documented_error_is_typed(
    codat: Codat, sandbox: SandboxProcess, operation: Callable[[Codat], object], status: int
) -> None:
    sandbox.post_fault("status", status=status)
    retried = {402: "False", 403: "False", 429: "True", 500: "Unknown", 503: "True"}[status]
    assert_typed(status, retried, lambda: operation(codat))


def test_its_own_retries_get_through_a_passing_fault(codat: Codat, sandbox: SandboxProcess) -> None:
    sandbox.post_fault("status", "GET", "/companies", status=503, retry_after=0, times=2)
    assert codat.companies.list(request={}, retries=RetryConfig()).total_results == 0
    assert sandbox.requests_made("GET /companies") == 3


def test_bad_input_is_a_typed_400(codat: Codat, pair: dict[str, str]) -> None:
    target = {**pair, "request_body": v2("a")}
    codat.source_accounts.create(request=target)
    assert_typed(400, "False", lambda: codat.source_accounts.create(request=target))
    assert_typed(400, "False", lambda: codat.companies.create(request={"name": "é"}))
    assert_typed(400, "False", lambda: codat.companies.list(request={"page_size": 5001}))
    assert_typed(400, "False", lambda: codat.connections.list(request={"company_id": NOWHERE, "page": 0}))
    assert_typed(400, "False", lambda: codat.source_accounts.create_batch(request={**pair, "request_body": []}))
    assert_typed(
        400,
        "False",
        lambda: codat.source_accounts.update(
            request={**pair, "account_id": "a", "source_account": {"id": "a", "accountNumber": "999"}}
        ),
    )


def assert_typed(status: int, retried: str, operation: Callable[[], object]) -> None:
    with pytest.raises(ErrorMessage) as caught:
        operation()
    error = caught.value.data
    assert (caught.value.status_code, error.status_code, error.can_be_retried) == (status, status, retried)
    assert error.correlation_id
    assert error.error


def accounts_path(pair: dict[str, str]) -> str:
    return "/companies/{company_id}/connections/{connection_id}/connectionInfo/bankFeedAccounts".format(**pair)


def accounts_of(codat: Codat, pair: dict[str, str]) -> list[Any]:
    return list(unwrapped(codat.source_accounts.list(request=pair)))


def outcomes(answer: Any) -> list[tuple[str, int]]:
    return [(item.source_account_id, int(item.result.status_code)) for item in unwrapped(answer)]


def unwrapped(answer: Any) -> Iterator[Any]:
    for item in answer:
        yield getattr(item, "actual_instance", item)

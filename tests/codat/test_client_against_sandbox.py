"""Every method of the client over real HTTP, against the stand-in Codat."""

import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from feeds import mapping
from feeds.codat import CodatClient, errors
from feeds.codat.redaction import Json
from feeds.codat.schemas import Company, Connection, Quota
from tests.sandbox_process import SandboxProcess


def key() -> str:
    return str(uuid.uuid4())


def account(account_id: str = "acc-1", **changes: object) -> dict[str, Json]:
    facts = {
        "account_id": account_id,
        "name": "Till",
        "account_type": "checking",
        "account_number": "000123456789",
        "currency": "USD",
        "balance": Decimal("99.99"),
        "bank_code": "021000021",
        "routing_type": "rtn",
        "open_date": date(2020, 5, 6),
        "nickname": "till",
    }
    return mapping.source_account_body(mapping.AccountFacts(**(facts | changes)))  # type: ignore[arg-type]


@pytest.fixture
def codat(sandbox: SandboxProcess) -> CodatClient:
    return CodatClient(sandbox.url, sandbox.api_key, backoff_base=0, read_timeout=1)


@pytest.fixture
def company(codat: CodatClient) -> Company:
    uid = uuid.uuid4()
    return codat.create_company(name="Cafe Quebec", tags=mapping.company_tags(uid), idempotency_key=key())


@pytest.fixture
def connection(codat: CodatClient, company: Company) -> Connection:
    return codat.create_connection(company.id, idempotency_key=key())


def test_a_company_lives_its_life(codat: CodatClient) -> None:
    uid = uuid.uuid4()
    name = mapping.codat_name("Café (Québec)")

    made = codat.create_company(name=name, tags=mapping.company_tags(uid), description="d", idempotency_key=key())

    assert made.name == name
    assert made.created is not None
    assert abs(made.created - datetime.now(UTC)) < timedelta(minutes=1)
    assert codat.get_company(made.id).tags == {"uid": str(uid)}
    assert [found.id for found in codat.find_companies_by_tag("uid", str(uid))] == [made.id]
    assert codat.find_companies_by_tag("uid", str(uuid.uuid4())) == []

    renamed = codat.update_company(made.id, name="Other", idempotency_key=key())
    assert (renamed.name, renamed.description, renamed.tags) == ("Other", "d", {"uid": str(uid)})

    codat.delete_company(made.id)
    with pytest.raises(errors.NotFound):
        codat.get_company(made.id)


@pytest.mark.parametrize("name", ["O’Brien & Fils – Ltée", 'A/B "C" [D]; E: F', "Øre, Inc. (2024)!", "株式会社 例"])
def test_codat_stores_a_transliterated_name_unchanged(codat: CodatClient, name: str) -> None:
    sent = mapping.codat_name(name)
    assert codat.create_company(name=sent, tags={"uid": "u"}, idempotency_key=key()).name == sent


def test_all_companies_are_listed_with_their_connections(codat: CodatClient, connection: Connection) -> None:
    for number in range(4):
        codat.create_company(name=f"Company {number}", tags={"uid": str(number)}, idempotency_key=key())

    listed = list(codat.iter_companies(page_size=2))

    assert len(listed) == 5
    assert [each.id for company in listed for each in company.connections] == [connection.id]


def test_a_connection_lives_its_life(
    codat: CodatClient, sandbox: SandboxProcess, company: Company, connection: Connection
) -> None:
    assert (connection.status, connection.source_type) == ("PendingAuth", "BankFeed")
    assert connection.link_url
    assert [each.id for each in codat.list_connections(company.id)] == [connection.id]

    with pytest.raises(errors.CodatError) as refused:
        codat.unlink_connection(company.id, connection.id, idempotency_key=key())
    assert not refused.value.retryable

    codat.create_source_account(company.id, connection.id, account(), idempotency_key=key())
    sandbox.connect(company.id, connection.id)
    assert codat.get_connection(company.id, connection.id).status == "Linked"
    assert codat.unlink_connection(company.id, connection.id, idempotency_key=key()).status == "Unlinked"

    codat.delete_connection(company.id, connection.id)
    assert codat.list_connections(company.id) == []


def test_a_source_account_lives_its_life(
    codat: CodatClient, sandbox: SandboxProcess, company: Company, connection: Connection
) -> None:
    ids = company.id, connection.id
    made = codat.create_source_account(*ids, account("acc.1"), idempotency_key=key())

    assert (made.id, made.status, made.balance) == ("acc.1", "pending", Decimal("99.99"))
    assert (made.bank_code, made.routing_type, made.nickname) == ("021000021", "rtn", "till")
    assert made.account_open_date == date(2020, 5, 6)

    renamed = codat.update_source_account(*ids, "acc.1", name="Safe", balance=Decimal("0.10"), idempotency_key=key())
    assert (renamed.name, renamed.balance) == ("Safe", Decimal("0.1"))

    sandbox.connect(*ids)
    (connected,) = codat.list_source_accounts(*ids)
    assert connected.status == "connected"
    assert connected.feed_start_date is not None

    gone = codat.update_source_account(*ids, "acc.1", status="disconnected", idempotency_key=key())
    assert gone.status == "disconnected"
    codat.delete_source_account(*ids, "acc.1")
    assert codat.list_source_accounts(*ids) == []


def test_a_batch_creates_all_some_or_none(codat: CodatClient, company: Company, connection: Connection) -> None:
    ids = company.id, connection.id

    def fates(*accounts: dict[str, Json]) -> list[tuple[str, bool]]:
        batch = codat.create_source_accounts(*ids, accounts, idempotency_key=key())
        return [(item.source_account_id, item.created) for item in batch.items]

    assert fates(account("a"), account("b")) == [("a", True), ("b", True)]
    assert fates(account("b"), account("c")) == [("b", False), ("c", True)]
    assert fates(account("a"), account("b")) == [("a", False), ("b", False)]
    assert [each.id for each in codat.list_source_accounts(*ids)] == ["a", "b", "c"]


def test_the_guides_account_is_accepted_and_read(codat: CodatClient, company: Company, connection: Connection) -> None:
    facts = mapping.AccountFacts("v1", "Till", "Debit", "000123456789", "USD", Decimal("1.50"), sort_code="123456")
    body = mapping.source_account_body(facts, schema="v1")

    made = codat.create_source_account(company.id, connection.id, body, idempotency_key=key())

    assert (made.account_type, made.sort_code, made.balance) == ("Debit", "123456", Decimal("1.5"))


def test_the_guides_put_adds_accounts_where_it_is_still_accepted(tmp_path: Path) -> None:
    server = SandboxProcess(tmp_path / "sandbox.sqlite3", "--allow-put").start()
    try:
        client = CodatClient(server.url, server.api_key)
        company = client.create_company(name="Cafe", tags={"uid": "u"}, idempotency_key=key())
        connection = client.create_connection(company.id, idempotency_key=key())
        put = client.put_source_accounts(company.id, connection.id, [account("a"), account("b")])
        listed = client.list_source_accounts(company.id, connection.id)
    finally:
        server.stop()

    assert [each.id for each in put] == [each.id for each in listed] == ["a", "b"]


def test_the_guides_put_is_refused_by_codat_today(codat: CodatClient, company: Company, connection: Connection) -> None:
    with pytest.raises(errors.CodatError) as caught:
        codat.put_source_accounts(company.id, connection.id, [account()])

    assert not caught.value.retryable


def test_credentials_are_made_and_revoked(codat: CodatClient, company: Company, connection: Connection) -> None:
    codat.create_source_account(company.id, connection.id, account(), idempotency_key=key())

    first = codat.generate_credentials(company.id, connection.id, idempotency_key=key())
    second = codat.generate_credentials(company.id, connection.id, idempotency_key=key())

    assert (first.username, first.password) != (second.username, second.password)
    codat.revoke_credentials(company.id, connection.id)


def test_a_duplicate_account_is_refused(codat: CodatClient, company: Company, connection: Connection) -> None:
    codat.create_source_account(company.id, connection.id, account(), idempotency_key=key())

    with pytest.raises((errors.Conflict, errors.BadRequest)):
        codat.create_source_account(company.id, connection.id, account(), idempotency_key=key())


def test_the_same_key_brings_the_same_company_back(codat: CodatClient, sandbox: SandboxProcess) -> None:
    same = key()
    first = codat.create_company(name="Once", tags={"uid": "u"}, idempotency_key=same)
    again = codat.create_company(name="Once", tags={"uid": "u"}, idempotency_key=same)

    assert first.id == again.id
    assert sandbox.stats()["objects"]["companies"] == 1
    with pytest.raises(errors.Unprocessable):
        codat.create_company(name="Twice", tags={"uid": "u"}, idempotency_key=same)


def test_a_lost_reply_is_unknown_and_a_look_finds_the_company(codat: CodatClient, sandbox: SandboxProcess) -> None:
    sandbox.post_fault("drop_after", "POST", "/companies")

    with pytest.raises(errors.ConnectionLost) as lost:
        codat.create_company(name="Lost", tags={"uid": "u-7"}, idempotency_key=key())

    assert lost.value.outcome_unknown
    assert [found.name for found in codat.find_companies_by_tag("uid", "u-7")] == ["Lost"]


def test_a_server_error_needs_a_new_key(codat: CodatClient, sandbox: SandboxProcess) -> None:
    same = key()
    sandbox.post_fault("status", "POST", "/companies", status=500)
    for _ in range(2):
        # The second time there is no fault any more: the reply is replayed.
        with pytest.raises(errors.ServerError) as failed:
            codat.create_company(name="Once", tags={"uid": "u"}, idempotency_key=same)
        assert failed.value.new_key_needed

    assert codat.create_company(name="Once", tags={"uid": "u"}, idempotency_key=key()).name == "Once"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"action": "status", "status": 401}, errors.Unauthorized),
        ({"action": "status", "status": 402}, errors.PaymentRequired),
        ({"action": "status", "status": 403}, errors.Forbidden),
        ({"action": "status", "status": 429, "retry_after": 3}, errors.RateLimited),
        ({"action": "delay", "delay_ms": 1500}, errors.Timeout),
        ({"action": "malformed"}, errors.MalformedReply),
        ({"action": "drop_before"}, errors.ConnectionLost),
    ],
    ids=lambda value: value["action"] if isinstance(value, dict) else None,
)
def test_each_fault_is_the_error_it_is(
    codat: CodatClient, sandbox: SandboxProcess, fault: dict[str, object], kind: type[errors.CodatError]
) -> None:
    sandbox.control("POST", "faults", {"method": "POST", "path": "/companies"} | fault)

    with pytest.raises(errors.CodatError) as caught:
        codat.create_company(name="Cafe", tags={"uid": "u"}, idempotency_key=key())

    assert type(caught.value) is kind
    assert caught.value.retry_after == fault.get("retry_after")
    assert (caught.value.correlation_id is not None) == ("status" in fault)


def test_a_read_gets_over_a_short_fault(codat: CodatClient, sandbox: SandboxProcess, company: Company) -> None:
    sandbox.post_fault("status", "GET", "/companies/{id}", status=503, times=1)
    sandbox.post_fault("malformed", "GET", "/companies/{id}", times=1)

    assert codat.get_company(company.id).id == company.id


def test_a_wrong_key_is_refused_with_one_clear_message(sandbox: SandboxProcess) -> None:
    with pytest.raises(errors.Unauthorized) as caught:
        list(CodatClient(sandbox.url, "wrong").iter_companies())

    assert "CODAT_API_KEY" in caught.value.staff_message


def test_the_quota_is_reported_and_respected(tmp_path: Path) -> None:
    seen: list[Quota] = []
    server = SandboxProcess(tmp_path / "sandbox.sqlite3", "--daily-quota", "2").start()
    try:
        client = CodatClient(server.url, server.api_key, on_quota=seen.append)
        for _ in range(2):
            list(client.iter_companies())
        with pytest.raises(errors.QuotaExhausted) as caught:
            list(client.iter_companies())
        sent = sum(server.stats()["requests"].values())
    finally:
        server.stop()

    assert [quota.remaining for quota in seen] == [1, 0]
    assert sent == 2
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 24 * 3600

"""What is read out of a reply: tolerant of what is new, strict about identity."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st

from feeds.codat import CodatClient, schemas
from feeds.codat.errors import MalformedReply

from .samples import (
    ACCOUNT_NUMBER,
    ACCOUNT_V1,
    ACCOUNT_V2,
    ACCOUNTS_URL,
    COMPANY,
    COMPANY_ID,
    COMPANY_URL,
    CONNECTION,
    CONNECTION_ID,
    CREDENTIALS,
    KEY,
    LINK,
)

READ_AT = datetime(2026, 9, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2022-09-01T10:21:57.0807447Z", datetime(2022, 9, 1, 10, 21, 57, 80744, tzinfo=UTC)),
        ("2022-09-01T10:21:57.08074471234Z", datetime(2022, 9, 1, 10, 21, 57, 80744, tzinfo=UTC)),
        ("2022-09-01T10:21:57.5", datetime(2022, 9, 1, 10, 21, 57, 500000, tzinfo=UTC)),
        ("2022-09-01T10:21:57", datetime(2022, 9, 1, 10, 21, 57, tzinfo=UTC)),
        ("2022-09-01T10:21:57-04:00", datetime(2022, 9, 1, 14, 21, 57, tzinfo=UTC)),
        ("2022-09-01T10:21:57+0530", datetime(2022, 9, 1, 4, 51, 57, tzinfo=UTC)),
        ("2022-09-01 10:21:57z", datetime(2022, 9, 1, 10, 21, 57, tzinfo=UTC)),
        ("2022-09-01", datetime(2022, 9, 1, tzinfo=UTC)),
        ("0001-01-01T00:00:00", None),
        ("0001-01-01T00:00:00+05:00", None),
        ("2022-13-01T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (20220901, None),
    ],
)
def test_it_reads_times_in_every_form_codat_sends(text: object, expected: datetime | None) -> None:
    assert schemas.parse_time(text) == expected


@given(st.text())
def test_no_text_makes_the_time_parser_fail(text: str) -> None:
    moment = schemas.parse_time(text)
    assert moment is None or moment.tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-08-01", date(2026, 8, 1)),
        ("2026-08-01T23:30:00-05:00", date(2026, 8, 1)),
        ("0001-01-01T00:00:00", None),
        ("2026-02-30", None),
        (None, None),
    ],
)
def test_it_reads_calendar_dates_as_written(text: object, expected: date | None) -> None:
    assert schemas.parse_date(text) == expected


@given(st.decimals(min_value=-(10**12), max_value=10**12, places=2))
def test_no_cent_is_lost_in_a_json_number(amount: Decimal) -> None:
    assert Decimal(repr(schemas.json_number(amount))) == amount


def test_an_amount_that_a_json_number_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="digits"):
        schemas.json_number(Decimal("12345678901234567.89"))


def test_it_reads_a_company_with_its_connections() -> None:
    company = schemas.company(COMPANY, READ_AT)

    assert (company.id, company.name, company.tags) == (COMPANY_ID, "Cafe Quebec", {"uid": "u-1"})
    assert company.created == datetime(2026, 9, 1, 14, 21, 57, tzinfo=UTC)
    assert company.read_at is READ_AT
    (connection,) = company.connections
    assert connection.id == CONNECTION_ID


def test_it_reads_a_connection() -> None:
    connection = schemas.connection(CONNECTION, READ_AT)

    assert (connection.status, connection.source_type, connection.link_url) == ("PendingAuth", "BankFeed", LINK)
    assert connection.created == datetime(2026, 9, 1, 10, 21, 57, 80744, tzinfo=UTC)
    assert connection.last_sync == datetime(2026, 9, 2, 10, tzinfo=UTC)
    assert connection.errors[0].message == "Account ••••6789 refused, see ••••"


def test_it_reads_both_shapes_of_a_source_account() -> None:
    new = schemas.source_account(ACCOUNT_V2, READ_AT)
    old = schemas.source_account(ACCOUNT_V1, READ_AT)

    assert (new.bank_code, new.routing_type, new.nickname) == ("021000021", "rtn", "till")
    assert (new.status, new.feed_start_date) == ("pending", date(2026, 8, 1))
    assert new.account_open_date == date(2020, 5, 6)
    assert (old.sort_code, old.account_type, old.balance) == ("123456", "Debit", Decimal("0.10"))
    assert (old.status, old.feed_start_date, old.bank_code) == (None, None, "")
    assert new.account_number == old.account_number == ACCOUNT_NUMBER


def test_money_never_passes_through_binary_fractions(client: CodatClient, wire: responses.RequestsMock) -> None:
    wire.get(ACCOUNTS_URL, body=b'[{"id": "a", "balance": 0.1}]')

    (account,) = client.list_source_accounts(COMPANY_ID, CONNECTION_ID)

    assert account.balance == Decimal("0.1")
    assert account.raw == {"id": "a", "balance": "0.1"}


@pytest.mark.parametrize("status", ["Linked", "Paused", ""])
def test_an_unknown_status_is_kept_as_it_is(status: str) -> None:
    assert schemas.connection(CONNECTION | {"status": status}, READ_AT).status == status
    assert schemas.source_account(ACCOUNT_V2 | {"status": status}, READ_AT).status == (status or None)


@pytest.mark.parametrize("read", [schemas.company, schemas.connection, schemas.source_account])
@pytest.mark.parametrize("data", [None, [], "x", {}, {"id": None}, {"id": 7}, {"id": ""}])
def test_an_object_without_its_id_is_malformed(read: Any, data: object) -> None:
    with pytest.raises(MalformedReply):
        read(data, READ_AT)


KNOWN_FIELDS = sorted({*COMPANY, *CONNECTION, *ACCOUNT_V2} - {"id", "dataConnections"})
ANYTHING = st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.integers())


@pytest.mark.parametrize("read", [schemas.company, schemas.connection, schemas.source_account])
@given(fields=st.dictionaries(st.sampled_from(KNOWN_FIELDS), ANYTHING))
def test_nothing_but_the_id_can_make_an_object_unreadable(read: Any, fields: dict[str, Any]) -> None:
    assert read({"id": "x"} | fields, READ_AT).id == "x"


def test_a_company_is_malformed_when_one_of_its_connections_is() -> None:
    # Left out silently, it would look like a connection that is gone.
    with pytest.raises(MalformedReply):
        schemas.company(COMPANY | {"dataConnections": [CONNECTION, {"status": "Linked"}]}, READ_AT)


def test_credentials_without_a_part_are_malformed() -> None:
    with pytest.raises(MalformedReply):
        schemas.credentials({"username": "x"}, READ_AT)
    assert schemas.credentials(CREDENTIALS, READ_AT).username == CREDENTIALS["username"]


def test_read_at_is_when_the_request_was_sent(client: CodatClient, wire: responses.RequestsMock) -> None:
    answered: list[datetime] = []

    def answer(_request: object) -> tuple[int, dict[str, str], str]:
        answered.append(datetime.now(UTC))
        return 200, {}, '{"id": "x"}'

    wire.add_callback("GET", COMPANY_URL, answer)
    before = datetime.now(UTC)

    read_at = client.get_company(COMPANY_ID).read_at

    assert before <= read_at <= answered[0]


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"id": "x", "balance": NaN}', '{"name": "x"', '{"name": "x"}'])
def test_a_write_with_an_unreadable_reply_may_have_happened(
    client: CodatClient, wire: responses.RequestsMock, body: str
) -> None:
    wire.patch(COMPANY_URL, body=body)

    with pytest.raises(MalformedReply) as caught:
        client.update_company(COMPANY_ID, name="n", idempotency_key=KEY)

    assert caught.value.retryable
    assert caught.value.outcome_unknown
    assert caught.value.new_key_needed

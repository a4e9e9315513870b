"""Names, bodies and columns: what goes to Codat and what comes back."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds import mapping
from feeds.codat import schemas
from feeds.models import Company, Connection, SourceAccount

from .codat import samples

READ_AT = datetime(2026, 9, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("legal", "sent"),
    [
        ("Café Québec", "Cafe Quebec"),
        ("Café (Québec)", "Cafe Quebec"),
        ("Cafe\u0301 Que\u0301bec", "Cafe Quebec"),
        ("O’Brien & Fils – Ltée", "O'Brien & Fils - Ltee"),
        ("Smith (USA), Inc.", "Smith USA, Inc."),
        ('Joe\'s "Best" Pizza/Pasta', "Joe's Best Pizza Pasta"),
        ("  Two\t spaces\n", "Two spaces"),
        ("A+B; C: D", "A&B, C D"),
        ("Œuvre Łódź Straße", "Oeuvre Lodz Strasse"),
        ("Acme .NET, Inc!", "Acme .NET, Inc!"),
        ("Nº 5 #1 [x] {y} <z> |w| 100%", "No 5 1 x y z w 100"),
        ("株式会社", "ZhuShiHuiShe"),
        ("()", ""),
        ("", ""),
    ],
)
def test_a_legal_name_becomes_one_that_codat_keeps(legal: str, sent: str) -> None:
    assert mapping.codat_name(legal) == sent


@given(st.text())
def test_codat_removes_nothing_from_a_name_we_send(legal: str) -> None:
    sent = mapping.codat_name(legal)
    assert sent == "" or mapping.CODAT_NAME.fullmatch(sent)
    assert sent == " ".join(sent.split())


@given(st.text())
def test_a_name_that_was_made_for_codat_stays_as_it_is(legal: str) -> None:
    sent = mapping.codat_name(legal)
    assert mapping.codat_name(sent) == sent


def test_the_uid_is_the_tag() -> None:
    uid = UUID("6a3f2c1e-2a53-4d0f-9f1e-1c9c5b1f1a11")
    assert mapping.company_tags(uid) == {"uid": "6a3f2c1e-2a53-4d0f-9f1e-1c9c5b1f1a11"}


FULL = mapping.AccountFacts(
    account_id="acc-1",
    name="Till",
    account_type="checking",
    account_number=samples.ACCOUNT_NUMBER,
    currency="USD",
    balance=Decimal("99.99"),
    sort_code="123456",
    bank_code="021000021",
    routing_type="rtn",
    open_date=date(2020, 5, 6),
    nickname="till",
)
BARE = mapping.AccountFacts(
    account_id="acc-1",
    name="Till",
    account_type="creditCard",
    account_number="4111",
    currency="CAD",
    balance=Decimal("0.00"),
    routing_type="rtn",
)


def test_todays_body_has_what_is_known() -> None:
    assert mapping.source_account_body(FULL) == {
        "id": "acc-1",
        "accountName": "Till",
        "accountType": "checking",
        "accountNumber": samples.ACCOUNT_NUMBER,
        "currency": "USD",
        "balance": 99.99,
        "sortCode": "123456",
        "routingInfo": {"bankCode": "021000021", "type": "rtn"},
        "accountInfo": {"nickname": "till", "accountOpenDate": "2020-05-06T00:00:00Z"},
    }


def test_todays_body_leaves_out_what_is_not_known() -> None:
    assert mapping.source_account_body(BARE) == {
        "id": "acc-1",
        "accountName": "Till",
        "accountType": "creditCard",
        "accountNumber": "4111",
        "currency": "CAD",
        "balance": 0,
    }


@pytest.mark.parametrize(("sort_code", "sent"), [("123456", "123456"), ("", "021000021")])
def test_the_guides_body_has_the_guides_fields(sort_code: str, sent: str) -> None:
    facts = mapping.AccountFacts("acc-1", "Till", "Debit", "000123456789", "USD", Decimal("1"), sort_code, "021000021")

    assert mapping.source_account_body(facts, schema="v1") == {
        "id": "acc-1",
        "accountName": "Till",
        "accountType": "Debit",
        "accountNumber": "000123456789",
        "currency": "USD",
        "balance": 1,
        "sortCode": sent,
    }


def test_another_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="v3"):
        mapping.source_account_body(FULL, schema="v3")


@given(st.decimals(min_value=-(10**12), max_value=10**12, places=2))
def test_no_cent_of_a_balance_is_lost_on_the_way(balance: Decimal) -> None:
    facts = mapping.AccountFacts("a", "n", "checking", "1", "USD", balance)
    sent = json.dumps(mapping.source_account_body(facts))
    assert json.loads(sent, parse_float=Decimal)["balance"] == balance


def test_the_ledgers_body_shows_only_the_end_of_the_number() -> None:
    body = mapping.redacted_account_body(mapping.source_account_body(FULL) | {"password": "x"})

    assert body == mapping.source_account_body(FULL) | {"accountNumber": "••••6789"}


def column_names(model: Any) -> set[str]:
    return {field.name for field in model._meta.concrete_fields}


def test_the_columns_are_columns_of_our_models() -> None:
    company = mapping.company_columns(schemas.company(samples.COMPANY, READ_AT))
    connection = connection_columns()
    account = mapping.source_account_columns(schemas.source_account(samples.ACCOUNT_V2, READ_AT))

    assert set(company) <= column_names(Company)
    assert set(connection) <= column_names(Connection)
    assert set(account) <= column_names(SourceAccount)


def test_a_company_is_mirrored() -> None:
    columns = mapping.company_columns(schemas.company(samples.COMPANY, READ_AT))

    assert columns.pop("raw")["id"] == samples.COMPANY_ID
    assert columns == {
        "codat_id": samples.COMPANY_ID,
        "codat_name": "Cafe Quebec",
        "redirect_url": samples.COMPANY["redirect"],
        "codat_created_at": datetime(2026, 9, 1, 14, 21, 57, tzinfo=UTC),
        "read_at": READ_AT,
    }


def test_a_redirect_with_a_password_in_it_is_not_stored() -> None:
    company = schemas.company(samples.COMPANY | {"redirect": samples.LINK}, READ_AT)
    assert mapping.company_columns(company)["redirect_url"] == ""


def connection_columns(*, link_is_needed: bool = True, **changes: Any) -> dict[str, Any]:
    reply = schemas.connection(samples.CONNECTION | changes, READ_AT)
    return mapping.connection_columns(reply, link_lifetime=HOUR, link_is_needed=link_is_needed)


def test_a_connection_is_mirrored_with_its_errors_scrubbed() -> None:
    columns = connection_columns()

    assert (columns["codat_id"], columns["status"]) == (samples.CONNECTION_ID, "PendingAuth")
    assert columns["last_sync_at"] == datetime(2026, 9, 2, 10, tzinfo=UTC)
    assert columns["errors"][0]["errorMessage"] == "Account ••••6789 refused, see ••••"
    assert samples.OTP not in json.dumps(columns["raw"])
    assert connection_columns(dataConnectionErrors=None)["errors"] == []


def test_a_link_counts_from_when_it_was_asked_for() -> None:
    columns = connection_columns()

    assert columns["link_url"] == samples.LINK
    assert columns["link_fetched_at"] == READ_AT
    assert columns["link_expires_at"] == READ_AT + HOUR


def test_a_reply_without_a_link_leaves_ours_alone() -> None:
    assert [name for name in connection_columns(linkUrl=None) if name.startswith("link_")] == []


def test_a_linked_connection_that_needs_a_link_keeps_it() -> None:
    assert connection_columns(status="Linked")["link_url"] == samples.LINK


def test_the_link_is_emptied_when_nobody_needs_it() -> None:
    columns = connection_columns(status="Linked", link_is_needed=False)

    assert {name: value for name, value in columns.items() if name.startswith("link_")} == {
        "link_url": "",
        "link_fetched_at": None,
        "link_expires_at": None,
    }


@pytest.mark.parametrize(("status", "stored"), [("connected", "connected"), (None, ""), ("resting", "resting")])
def test_a_source_account_is_mirrored(status: str | None, stored: str) -> None:
    columns = mapping.source_account_columns(schemas.source_account(samples.ACCOUNT_V2 | {"status": status}, READ_AT))

    assert columns.pop("raw")["accountNumber"] == "••••6789"
    assert columns == {"status": stored, "feed_start_date": date(2026, 8, 1), "read_at": READ_AT}

"""Nothing secret is shown by a repr, kept in `raw`, or said by an error."""

import json
from datetime import UTC, datetime

import pytest
import requests
import responses

from feeds.codat import CodatClient, redaction, schemas
from feeds.codat.errors import CodatError

from .samples import (
    ACCOUNT_NUMBER,
    ACCOUNT_V1,
    ACCOUNT_V2,
    API_KEY,
    AUTHORIZATION,
    BASE_URL,
    COMPANY,
    COMPANY_ID,
    COMPANY_URL,
    CONNECTION,
    CREDENTIALS,
    KEY,
    LINK,
    OTP,
    refusal,
)

READ_AT = datetime(2026, 9, 5, tzinfo=UTC)
SECRETS = (OTP, "otp", LINK, ACCOUNT_NUMBER, "hunter2", API_KEY, AUTHORIZATION.split()[1], *CREDENTIALS.values())

READINGS = [
    schemas.company(COMPANY, READ_AT),
    schemas.company(COMPANY | {"redirect": LINK, "description": f"see {LINK}"}, READ_AT),
    schemas.connection(CONNECTION, READ_AT),
    schemas.source_account(ACCOUNT_V2, READ_AT),
    schemas.source_account(ACCOUNT_V1, READ_AT),
]


def leaked(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize("reading", READINGS, ids=lambda reading: type(reading).__name__)
def test_what_may_be_stored_of_a_reply_holds_no_secret(reading: schemas.Company) -> None:
    assert leaked(json.dumps(reading.raw)) == []
    assert reading.raw["id"] == reading.id


@pytest.mark.parametrize("reading", [*READINGS[:1], *READINGS[2:]], ids=lambda reading: type(reading).__name__)
def test_a_repr_shows_no_secret(reading: object) -> None:
    assert leaked(repr(reading)) == []


def test_the_repr_of_credentials_shows_neither_part() -> None:
    assert leaked(repr(schemas.credentials(CREDENTIALS, READ_AT))) == []


def test_a_field_nobody_has_allowed_is_dropped() -> None:
    raw = schemas.connection(CONNECTION, READ_AT).raw

    assert "aFieldOfTomorrow" not in raw
    assert "connectionInfo" not in raw
    assert "linkUrl" not in raw


def test_an_object_where_a_plain_value_belongs_is_dropped() -> None:
    assert redaction.CONNECTION.apply({"status": {"password": "hunter2"}, "sourceId": ["hunter2"]}) == {
        "status": None,
        "sourceId": None,
    }


def test_only_the_last_four_digits_of_an_account_number_are_kept() -> None:
    assert schemas.source_account(ACCOUNT_V2, READ_AT).raw["accountNumber"] == "••••6789"


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("000123456789", "••••6789"),
        ("1234567890", "••••7890"),
        ("12345678", "••••5678"),
        ("1234567", "••••567"),
        ("123456", "••••56"),
        ("12345", "••••5"),
        ("1234", "••••"),
        ("12", "••••"),
        ("", ""),
        ("  000123456789 ", "••••6789"),
    ],
)
def test_a_mask_shows_the_last_four_and_hides_at_least_four(number: str, shown: str) -> None:
    assert redaction.mask(number) == shown


@pytest.mark.parametrize(
    "text",
    [
        f"account {ACCOUNT_NUMBER} exists",
        "account 0001-2345 6789 exists",
        f"see {LINK} for details",
        f"the otp {OTP} is wrong",
        f"key {API_KEY} is wrong",
    ],
)
def test_codats_own_words_are_scrubbed(text: str) -> None:
    scrubbed = redaction.scrub(text, (API_KEY,))

    assert leaked(scrubbed.replace("otp", "")) == []
    assert "0001-2345" not in scrubbed


def test_words_without_secrets_stay_as_they_are() -> None:
    text = "The name of OTP Bank is required (max 200 characters, rule 42)."
    assert redaction.scrub(text) == text
    assert redaction.COMPANY.apply({"name": text}) == {"name": text}


def everything_of(error: BaseException) -> str:
    """All that a log, an error page or an error tracker would print of an exception and those it drags along."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return " ".join(f"{each!s} {each!r} {vars(each)!r} {getattr(each, 'staff_message', '')}" for each in chain)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 429, 500, 302])
def test_a_refusal_says_nothing_secret(client: CodatClient, wire: responses.RequestsMock, status: int) -> None:
    text = f"Account {ACCOUNT_NUMBER}, key {API_KEY}, {AUTHORIZATION}, link {LINK}"
    wire.post(f"{BASE_URL}/companies", status=status, json=refusal(status, text, messages=(text,)))

    with pytest.raises(CodatError) as caught:
        client.create_company(name="Cafe", tags={"uid": "u"}, idempotency_key=KEY)

    assert leaked(everything_of(caught.value)) == []


@pytest.mark.parametrize(
    "failure", [requests.ConnectionError, requests.ReadTimeout, requests.exceptions.ChunkedEncodingError]
)
def test_a_failure_of_the_wire_drags_no_request_along(
    client: CodatClient, wire: responses.RequestsMock, failure: type[Exception]
) -> None:
    wire.get(COMPANY_URL, body=failure(f"{AUTHORIZATION} {LINK}"))

    with pytest.raises(CodatError) as caught:
        client.get_company(COMPANY_ID)

    assert caught.value.__context__ is None
    assert leaked(everything_of(caught.value)) == []

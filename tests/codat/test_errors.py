"""The one table of errors, and what each says to staff."""

import pytest
import responses
from django.utils import translation
from django.utils.translation import trans_real

from feeds.codat import CodatClient, errors
from feeds.codat.errors import CodatError

from .samples import ACCOUNTS_URL, BASE_URL, COMPANY_ID, COMPANY_URL, CONNECTION_ID, KEY, refusal

TABLE: dict[int, type[CodatError]] = {
    302: errors.UnexpectedStatus,
    400: errors.BadRequest,
    401: errors.Unauthorized,
    402: errors.PaymentRequired,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.UnexpectedStatus,
    409: errors.Conflict,
    418: errors.UnexpectedStatus,
    422: errors.Unprocessable,
    429: errors.RateLimited,
    500: errors.ServerError,
    502: errors.ServerError,
    503: errors.ServerError,
    504: errors.ServerError,
    599: errors.ServerError,
}
RETRYABLE = {
    errors.Unreachable,
    errors.Timeout,
    errors.ConnectionLost,
    errors.ServerError,
    errors.MalformedReply,
    errors.IncompleteListing,
    errors.RateLimited,
    errors.QuotaExhausted,
    errors.LimiterBusy,
    errors.InProgress,
}


def every_error() -> set[type[CodatError]]:
    return {item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, CodatError)}


def create(client: CodatClient) -> CodatError:
    with pytest.raises(CodatError) as caught:
        client.create_company(name="Cafe", tags={"uid": "u"}, idempotency_key=KEY)
    return caught.value


def test_exactly_these_errors_may_be_tried_again() -> None:
    assert {error for error in every_error() if error.retryable} == RETRYABLE


@pytest.mark.parametrize(("status", "kind"), TABLE.items())
def test_the_status_decides_which_error_it_is(
    client: CodatClient, wire: responses.RequestsMock, status: int, kind: type[CodatError]
) -> None:
    # The body's own status is not trusted.
    wire.post(f"{BASE_URL}/companies", status=status, json=refusal(200))

    error = create(client)

    assert type(error) is kind
    assert error.status == status
    assert error.correlation_id == "a1b2c3d4e5"
    assert error.outcome_unknown == error.new_key_needed == (kind is errors.ServerError)
    assert len(wire.calls) == 1


@pytest.mark.parametrize("body", ["", "<html>gateway</html>", "[]", '"no"', '{"validation": 7, "error": {}}', "null"])
def test_a_refusal_counts_whatever_its_body(client: CodatClient, wire: responses.RequestsMock, body: str) -> None:
    wire.post(f"{BASE_URL}/companies", status=401, body=body)

    error = create(client)

    assert type(error) is errors.Unauthorized
    assert error.correlation_id is None


def test_a_failed_read_leaves_nothing_unknown(wire: responses.RequestsMock) -> None:
    wire.get(COMPANY_URL, status=500)

    with pytest.raises(errors.ServerError) as caught:
        CodatClient(BASE_URL, "k", get_retries=0).get_company(COMPANY_ID)

    assert not caught.value.outcome_unknown
    assert not caught.value.new_key_needed


def test_a_delete_without_a_key_needs_no_new_one(client: CodatClient, wire: responses.RequestsMock) -> None:
    wire.delete(COMPANY_URL, status=503)

    with pytest.raises(errors.ServerError) as caught:
        client.delete_company(COMPANY_ID)

    assert caught.value.outcome_unknown
    assert not caught.value.new_key_needed


def test_a_conflict_of_keys_is_in_progress_and_one_of_ids_is_not(
    client: CodatClient, wire: responses.RequestsMock
) -> None:
    text = "A request with this idempotency key is in progress."
    wire.post(f"{ACCOUNTS_URL}/batch", status=409, json=refusal(409, text))
    with pytest.raises(errors.InProgress) as in_progress:
        client.create_source_accounts(COMPANY_ID, CONNECTION_ID, [], idempotency_key=KEY)
    assert in_progress.value.retryable

    wire.post(ACCOUNTS_URL, status=409, json=refusal(409, "A bank account already exists with the same Id"))
    with pytest.raises(errors.Conflict) as conflict:
        client.create_source_account(COMPANY_ID, CONNECTION_ID, {}, idempotency_key=KEY)
    assert not conflict.value.retryable


def test_a_redirect_is_not_followed(client: CodatClient, wire: responses.RequestsMock) -> None:
    wire.get(COMPANY_URL, status=302, headers={"Location": "https://evil.test/"})

    with pytest.raises(errors.UnexpectedStatus):
        client.get_company(COMPANY_ID)

    assert len(wire.calls) == 1


@pytest.mark.parametrize("kind", sorted(every_error(), key=str))
def test_every_error_tells_staff_what_to_do(kind: type[CodatError]) -> None:
    message = kind("internal").staff_message

    does_itself = "by itself" in message or "looks again" in message
    asks = any(
        verb in message for verb in ("Ask an administrator", "ask an administrator", "try again", "Press Refresh")
    )
    assert asks or does_itself
    assert does_itself or not kind.retryable
    assert "internal" not in message
    assert "by itself" not in message or kind.retryable


def test_a_wrong_key_names_the_setting_and_the_button() -> None:
    assert errors.Unauthorized("x", correlation_id="c-1").staff_message == (
        "Codat refused our API key. Ask an administrator to check CODAT_API_KEY, then try again. "
        "Correlation id for Codat's support: c-1."
    )


def test_a_refused_name_is_named_with_codats_reason(client: CodatClient, wire: responses.RequestsMock) -> None:
    wire.post(f"{BASE_URL}/companies", status=400, json=refusal(400, messages=("Name is too long.",)))

    assert create(client).staff_message == (
        "Codat refused the name “Cafe”. Correct it, then try again. Codat said: “name: Name is too long”. "
        "Correlation id for Codat's support: a1b2c3d4e5."
    )


def test_a_refusal_about_something_else_does_not_blame_the_name(
    client: CodatClient, wire: responses.RequestsMock
) -> None:
    wire.post(f"{BASE_URL}/companies", status=400, json=refusal(400, "At most 10 tags.", validation=None))

    assert create(client).staff_message.startswith("Codat refused the data.")


def test_a_lost_outcome_is_said(client: CodatClient, wire: responses.RequestsMock) -> None:
    wire.post(f"{BASE_URL}/companies", status=500)

    assert "Codat may have carried out the request" in create(client).staff_message


def test_the_message_is_in_the_language_of_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    french = trans_real.translation("fr")._catalog._catalogs[0]  # type: ignore[attr-defined]
    monkeypatch.setitem(french, "Correlation id for Codat's support: %(id)s.", "Identifiant : %(id)s.")
    error = errors.Unauthorized("x", correlation_id="c-1")

    with translation.override("fr"):
        assert error.staff_message.endswith("Identifiant : c-1.")
    assert error.staff_message.endswith("support: c-1.")

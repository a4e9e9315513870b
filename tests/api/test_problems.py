"""Why a call is refused: each reason has its own problem, says what to do, and tells nothing of anybody else."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from feeds.api.problems import CONTENT_TYPE, KINDS
from feeds.models import ApiKey, Company, Knock
from feeds.services import api_keys, knocks
from feeds.states import ApiScope, OnboardingState, OperationKind
from tests.api.conftest import ADA, SESSIONS, MakeKey, Program, customer, request_for
from tests.factories import (
    ApprovalFactory,
    CompanyFactory,
    ConnectionFactory,
    OperationFactory,
    SourceAccountFactory,
)

pytestmark = pytest.mark.django_db


def refused(answer: Any, code: str) -> dict[str, Any]:
    """The problem that an answer is; asserts that it is this one."""
    assert answer["Content-Type"] == CONTENT_TYPE, answer.content
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"urn:bank-feeds:problem:{code}", problem
    assert answer.status_code == problem["status"] == KINDS[code].status
    assert problem["detail"] == KINDS[code].advice
    assert "no-store" in answer["Cache-Control"]
    assert answer["Content-Length"] == str(len(answer.content))
    return problem


def places(problem: dict[str, Any]) -> list[str]:
    """Where something is wrong."""
    return [place["pointer"] for place in problem["errors"]]


# --- The key ---------------------------------------------------------------------------------------------------------
def no_key(token: str) -> str:
    return ""


def a_guess(token: str) -> str:
    return "bfk_aaaaaaaa_" + "A" * 43


def no_shape(token: str) -> str:
    return "hunter2"


def an_altered_one(token: str) -> str:
    return token[:-1] + ("A" if token[-1] != "A" else "B")


def an_expired_one(token: str) -> str:
    ApiKey.objects.update(created_at=timezone.now() - timedelta(days=9), expires_at=timezone.now())
    return token


def a_revoked_one(token: str) -> str:
    api_keys.revoke(ApiKey.objects.get(), actor=ADA, reason="lost")
    return token


@pytest.mark.parametrize("bad", [no_key, a_guess, no_shape, an_altered_one, an_expired_one, a_revoked_one])
def test_every_key_that_opens_nothing_gets_the_same_answer_for_the_same_work(make_key: MakeKey, bad: Any) -> None:
    program = Program(bad(make_key().token))
    refused(Program("never-made").get("SB-1"), "key-refused")  # the window is there now
    with CaptureQueriesContext(database) as for_unknown:
        unknown = Program("never-made").get("SB-1")
    with CaptureQueriesContext(database) as for_bad:
        answer = program.get("SB-1")
    refused(answer, "key-refused")
    assert answer.content == unknown.content
    assert answer.headers["WWW-Authenticate"] == unknown.headers["WWW-Authenticate"] == 'Bearer realm="bank feeds"'
    assert len(for_bad) == len(for_unknown)
    refused(program.post(request_for()), "key-refused")
    assert not Company.objects.exists()


def test_a_key_is_compared_in_constant_time(make_key: MakeKey, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def compare(first: str, second: str) -> bool:
        compared.append(len(second))
        return False

    monkeypatch.setattr(api_keys, "constant_time_compare", compare)
    for token in (make_key().token, "bfk_aaaaaaaa_" + "A" * 43, "x"):
        refused(Program(token).get("SB-1"), "key-refused")
    assert compared == [64, 64, 64]


def test_a_key_does_only_what_it_may(make_key: MakeKey) -> None:
    reader = Program(make_key(scopes=[ApiScope.READ]).token)
    writer = Program(make_key(scopes=[ApiScope.WRITE]).token)
    refused(reader.post(request_for()), "scope-missing")
    assert not Company.objects.exists()
    assert writer.post(request_for()).status_code == 201
    refused(writer.get("SB-2001"), "scope-missing")
    assert reader.get("SB-2001").status_code == 200


def test_a_session_of_the_admin_opens_nothing(admin_client: Client) -> None:
    refused(admin_client.get(f"{SESSIONS}/SB-1"), "key-refused")


@pytest.fixture
def _the_clock_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """No minute ends while calls are counted."""
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)


@pytest.mark.usefixtures("_the_clock_stands")
def test_guessing_is_slowed_down_and_never_locks_out_a_right_key(make_key: MakeKey) -> None:
    guesser, program = Program("guess"), Program(make_key().token)
    assert guesser.address == program.address
    for _guess in range(knocks.KNOCKS):
        refused(guesser.get("SB-1"), "key-refused")
    slowed = guesser.get("SB-1")
    refused(slowed, "too-many-requests")
    assert 1 <= int(slowed["Retry-After"]) <= 600
    refused(Program("guess", address="192.0.2.77").get("SB-1"), "key-refused")
    refused(program.get("SB-1"), "customer-unknown")
    assert "192.0.2" not in str(list(Knock.objects.values()))


@pytest.mark.usefixtures("_the_clock_stands")
def test_each_key_has_its_calls_of_a_minute(make_key: MakeKey, settings: Settings) -> None:
    settings.API_CALLS_PER_MINUTE = 3
    busy, other = Program(make_key().token), Program(make_key().token)
    answers = [busy.get("SB-1") for _call in range(5)]
    assert [answer.status_code for answer in answers] == [404, 404, 404, 429, 429]
    refused(answers[-1], "too-many-requests")
    assert 1 <= int(answers[-1]["Retry-After"]) <= 60
    refused(other.get("SB-1"), "customer-unknown")
    ApiKey.objects.update(last_used_at=timezone.now() - timedelta(minutes=1))
    refused(busy.get("SB-1"), "customer-unknown")


@pytest.mark.usefixtures("_the_clock_stands")
@pytest.mark.django_db(transaction=True)
def test_calls_at_once_are_counted_one_by_one(make_key: MakeKey, settings: Settings) -> None:
    settings.API_CALLS_PER_MINUTE = 3
    token, together, statuses = make_key().token, threading.Barrier(8), []

    def call() -> None:
        program = Program(token)
        together.wait()
        try:
            statuses.append(program.get("SB-1").status_code)
        finally:
            database.close()

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(statuses) == [404] * 3 + [429] * 5


# --- The request -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("body", ["null", "{", "[" * 5000, b"\xff\xfe", '{"customer_number": 1e999999}'])
def test_what_cannot_be_read_is_refused(program: Program, body: Any) -> None:
    answer = program.post(body)
    assert answer.status_code in (400, 422), answer.content
    refused(answer, "malformed-request" if answer.status_code == 400 else "request-invalid")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/customer_number"),
        ({"customer_number": 5}, "/customer_number"),
        ({"customer_number": "../7"}, "/customer_number"),
        ({"customer_number": "SB 1"}, "/customer_number"),
        ({"customer_number": "SB-1\n"}, "/customer_number"),
        ({"customer_number": "SB-1", "manager": "rita"}, "/manager"),
        (request_for(country="FR"), "/customer/country"),
        (request_for(contact_email="alex"), "/customer/contact_email"),
        (request_for(legal_name="Juniper\x00"), "/customer/legal_name"),
        (request_for(legal_name="\u202eJuniper"), "/customer/legal_name"),
        (request_for(notes="x"), "/customer/notes"),
        (request_for(accounts=[]), "/customer/accounts"),
        (request_for(accounts=[{**customer()["accounts"][0], "currency": "DOG"}]), "/customer/accounts/0/currency"),
        (request_for(accounts=[{**customer()["accounts"][0], "balance": 12.5}]), "/customer/accounts/0/balance"),
        (
            request_for(accounts=[{**customer()["accounts"][0], "account_open_date": "2020-02-31"}]),
            "/customer/accounts/0/account_open_date",
        ),
    ],
)
def test_what_has_another_form_is_named(program: Program, body: Any, pointer: str) -> None:
    assert places(refused(program.post(body), "request-invalid")) == [pointer]
    assert not Company.objects.exists()


def test_an_answer_never_repeats_what_was_sent(program: Program) -> None:
    account = {**customer()["accounts"][0], "account_number": "000410099871!"}
    answer = program.post(request_for(accounts=[account]))
    refused(answer, "request-invalid")
    assert "000410099871" not in answer.content.decode()


def test_what_only_the_import_can_tell_is_told_in_its_words(program: Program) -> None:
    account = customer()["accounts"][0]
    problem = refused(program.post(request_for(accounts=[account, account], legal_name="“”")), "customer-not-accepted")
    assert places(problem) == ["/customer/legal_name", "/customer/accounts/1/account_id"]
    assert "letters A to Z" in problem["errors"][0]["detail"]
    assert not Company.objects.exists()


def test_answers_are_in_english_whatever_the_caller_asks_for(program: Program) -> None:
    answer = program.post(request_for(legal_name="“”"), **{"Accept-Language": "fr"})
    assert "letters A to Z" in refused(answer, "customer-not-accepted")["errors"][0]["detail"]


def test_a_body_that_is_too_long_is_refused_before_it_is_read(program: Program, settings: Settings) -> None:
    refused(program.post(" " * (settings.API_MAX_BYTES + 1)), "body-too-large")
    refused(program.post(" " * (settings.MAX_REQUEST_BYTES + 1)), "body-too-large")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml"])
def test_only_json_is_read(program: Program, content_type: str) -> None:
    refused(program.post(json.dumps(request_for()), content_type=content_type), "wrong-content-type")


@pytest.mark.parametrize(("method", "path"), [("put", ""), ("delete", "/SB-1"), ("get", ""), ("patch", "/SB-1")])
def test_other_methods_are_refused_with_those_that_are_known(program: Program, method: str, path: str) -> None:
    answer = getattr(program.client, method)(SESSIONS + path)
    refused(answer, "method-not-allowed")
    assert answer["Allow"] == ("GET" if path else "POST")


@pytest.mark.parametrize("path", ["/api/", "/api/v1/", "/api/v2/connect-sessions", "/api/v1/docs", f"{SESSIONS}/a/b"])
def test_other_addresses_are_refused_too(program: Program, path: str) -> None:
    refused(program.client.get(path), "no-such-address")


def test_a_fault_of_our_own_says_nothing_about_itself(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_number: str) -> None:
        raise RuntimeError("account 000410099871")

    monkeypatch.setattr("feeds.services.connect_sessions.read_session", broken)
    program.client.raise_request_exception = False
    answer = program.get("SB-1")
    refused(answer, "internal-error")
    assert "0004" not in answer.content.decode()


# --- The customer ----------------------------------------------------------------------------------------------------
def test_a_number_that_nobody_has_is_unknown(program: Program) -> None:
    refused(program.get("SB-1"), "customer-unknown")
    refused(program.post({"customer_number": "SB-1"}), "customer-unknown")
    assert not Company.objects.exists()


def known(**values: Any) -> Company:
    """A customer in Codat who has not connected."""
    company: Company = CompanyFactory(**{"in_codat": True, "customer_number": "SB-1"} | values)
    connection = ConnectionFactory(company=company)
    SourceAccountFactory(company=company, connection=connection, status="pending")
    return company


def asked_to_end() -> None:
    OperationFactory(company=known(), kind=OperationKind.DELETE_COMPANY)


def unlinking() -> None:
    company = known()
    OperationFactory(company=company, connection=company.connections.get(), kind=OperationKind.UNLINK_CONNECTION)


def waiting_for_a_second_person() -> None:
    ApprovalFactory(connection=known().connections.get())


def lost_and_being_made_again() -> None:
    known(gone_at=timezone.now(), onboarding_state=OnboardingState.QUEUED)


def failed() -> None:
    known(onboarding_state=OnboardingState.FAILED, onboarding_error="Codat refused our API key.")


def without_accounts() -> None:
    CompanyFactory(customer_number="SB-1")


def ended() -> None:
    known(onboarding_state=OnboardingState.OFFBOARDED, gone_at=timezone.now())


@pytest.mark.parametrize(
    ("arrange", "state", "code"),
    [
        (asked_to_end, "on_hold", "customer-on-hold"),
        (unlinking, "on_hold", "customer-on-hold"),
        (waiting_for_a_second_person, "on_hold", "customer-on-hold"),
        (lost_and_being_made_again, "on_hold", "customer-on-hold"),
        (failed, "needs_attention", "customer-needs-attention"),
        (without_accounts, "not_started", "customer-needs-attention"),
        (ended, "ended", "customer-ended"),
    ],
)
def test_a_customer_whom_a_colleague_has_in_hand_gets_no_link(
    program: Program, arrange: Any, state: str, code: str
) -> None:
    arrange()
    company = Company.objects.get()
    assert program.get("SB-1").json()["state"] == state
    problem = refused(program.post({"customer_number": "SB-1"}), code)
    assert problem["errors"] == []
    assert "API key" not in json.dumps(problem)
    assert not company.invitations.exists()
    assert Company.objects.get().onboarding_state == company.onboarding_state

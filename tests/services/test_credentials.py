"""QuickBooks credentials: on one screen once, stored nowhere, never asked for again by themselves."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.apps import apps
from django.core import serializers
from django.utils import timezone

from feeds.audit import Actor
from feeds.codat.errors import CodatError
from feeds.models import AuditEntry, Company, Connection, Operation
from feeds.services import credentials, leases, ledger, onboarding
from feeds.services.errors import Refused
from feeds.states import OperationKind, OperationState
from tests.factories import ConnectionFactory
from tests.sandbox_process import SandboxProcess
from tests.services.conftest import Onboard
from tests.services.grid import ACCOUNTS, RM

Drain = Callable[[], int]
GENERATE = f"POST {ACCOUNTS}/credentials"


@pytest.fixture
def connection(codat: SandboxProcess, onboard: Onboard) -> Connection:
    """The connection of an onboarded customer."""
    connection: Connection = onboard().connections.get()
    return connection


def generated() -> Operation:
    """The latest request for credentials."""
    return Operation.objects.filter(kind=OperationKind.GENERATE_CREDENTIALS).latest("pk")


def test_a_set_is_handed_over_and_kept_nowhere(
    connection: Connection, codat: SandboxProcess, caplog: pytest.LogCaptureFixture, drain_queue: Drain
) -> None:
    caplog.set_level(logging.DEBUG)
    first = credentials.generate(connection, actor=RM)
    second = credentials.generate(connection, actor=RM)
    drain_queue()
    assert first.username != second.username
    assert codat.stats()["objects"]["credentials"] == 2

    written = [serializers.serialize("json", model._default_manager.all()) for model in apps.get_models()]
    for secret in (first.username, first.password, second.username, second.password):
        assert not any(secret in rows for rows in written)
        assert secret not in caplog.text
        assert secret not in repr((first, second))


def test_who_generated_a_set_is_in_the_ledger_and_in_the_history(connection: Connection) -> None:
    credentials.generate(connection, actor=RM)
    operation = generated()
    assert (operation.state, operation.result) == (OperationState.SUCCEEDED, "Shown once to Rita Moreau.")
    assert (operation.requested_by_name, operation.source) == (RM.name, RM.source)
    entry = AuditEntry.objects.get(event="credentials_generated")
    assert (entry.actor_name, entry.source, entry.object_pk) == (RM.name, RM.source, str(connection.pk))


def test_one_press_makes_one_set_however_often_it_arrives(connection: Connection, codat: SandboxProcess) -> None:
    press = uuid.uuid4()
    credentials.generate(connection, actor=RM, press=press)
    with pytest.raises(Refused, match="has made a set already"):
        credentials.generate(connection, actor=RM, press=press)
    assert codat.requests_made(GENERATE) == 1
    assert credentials.generate(connection, actor=RM, press=uuid.uuid4()).password


def test_a_press_that_failed_may_be_sent_again(connection: Connection, codat: SandboxProcess) -> None:
    press = uuid.uuid4()
    codat.post_fault("status", path=f"{ACCOUNTS}/credentials", status=503)
    with pytest.raises(CodatError):
        credentials.generate(connection, actor=RM, press=press)
    assert credentials.generate(connection, actor=RM, press=press).password


LOST = {
    "answer lost": {"action": "drop_after"},
    "timeout": {"action": "drop_after", "delay_ms": 2000},
    "500 after processing": {"action": "status", "status": 500, "process": True},
    "malformed": {"action": "malformed"},
}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST.keys())
def test_a_lost_answer_is_a_failed_row_that_says_so_and_is_never_sent_again(
    fault: dict[str, object], connection: Connection, codat: SandboxProcess, drain_queue: Drain
) -> None:
    codat.post_fault(method="POST", path=f"{ACCOUNTS}/credentials", **fault)
    with pytest.raises(CodatError) as raised:
        credentials.generate(connection, actor=RM)
    drain_queue()
    onboarding.sweep()
    drain_queue()
    operation = generated()
    assert codat.requests_made(GENERATE) == 1
    assert operation.state == OperationState.FAILED
    assert operation.error == raised.value.staff_message
    assert "a set may exist that nobody saw" in operation.error
    assert "again by itself" not in operation.error
    assert "looked up" not in operation.error
    assert not AuditEntry.objects.filter(event="credentials_generated").exists()

    assert credentials.generate(connection, actor=RM).password  # a person may


def test_a_codat_that_is_busy_has_generated_nothing_and_promises_nothing(
    connection: Connection, codat: SandboxProcess
) -> None:
    codat.post_fault("status", path=f"{ACCOUNTS}/credentials", status=429, retry_after=1)
    with pytest.raises(CodatError, match="429"):
        credentials.generate(connection, actor=RM)
    assert "nothing was generated. Try again in a few minutes." in generated().error
    assert "by itself" not in generated().error
    assert (generated().state, generated().http_status) == (OperationState.FAILED, 429)


def test_a_codat_that_is_away_has_generated_nothing(connection: Connection, codat: SandboxProcess) -> None:
    codat.stop()
    try:
        with pytest.raises(CodatError):
            credentials.generate(connection, actor=RM)
    finally:
        codat.start()
    assert "nothing was generated" in generated().error


def test_a_refusal_keeps_its_own_words(connection: Connection, codat: SandboxProcess) -> None:
    codat.post_fault("status", path=f"{ACCOUNTS}/credentials", status=403)
    with pytest.raises(CodatError):
        credentials.generate(connection, actor=RM)
    assert "Codat does not allow our account to do this" in generated().error
    assert generated().correlation_id


def test_a_request_of_a_web_process_that_died_is_closed_and_not_sent(
    connection: Connection, codat: SandboxProcess, drain_queue: Drain
) -> None:
    company = connection.company
    leases.claim(company.pk)
    operation = ledger.write(OperationKind.GENERATE_CREDENTIALS, company, connection=connection, actor=RM, payload={})
    ledger.start(operation)
    Company.objects.filter(pk=company.pk).update(
        lease_expires_at=timezone.now(), due_at=timezone.now() - timedelta(seconds=1)
    )
    assert onboarding.sweep() == 1
    drain_queue()
    operation.refresh_from_db()
    assert operation.state == OperationState.FAILED
    assert "The answer was lost before anyone saw it" in operation.error
    assert codat.requests_made(GENERATE) == 0


def test_nothing_is_generated_while_a_worker_is_busy_with_the_company(
    connection: Connection, codat: SandboxProcess
) -> None:
    leases.claim(connection.company_id)
    with pytest.raises(Refused, match="Try again in a moment"):
        credentials.generate(connection, actor=RM)
    assert not Operation.objects.filter(kind=OperationKind.GENERATE_CREDENTIALS).exists()
    assert codat.requests_made(GENERATE) == 0


def test_every_set_is_revoked_by_the_queue(connection: Connection, codat: SandboxProcess, drain_queue: Drain) -> None:
    credentials.generate(connection, actor=RM)
    credentials.generate(connection, actor=RM)
    operation = credentials.revoke(connection, actor=RM, reason="mailed to the wrong person")
    assert codat.stats()["objects"]["credentials"] == 2
    drain_queue()
    operation.refresh_from_db()
    assert codat.stats()["objects"]["credentials"] == 0
    assert (operation.state, operation.reason) == (OperationState.SUCCEEDED, "mailed to the wrong person")
    assert operation.result == "All credentials of this connection are revoked."


def revoke(connection: Connection, *, actor: Actor) -> Operation:
    """Press Revoke credentials."""
    return credentials.revoke(connection, actor=actor, reason="any")


@pytest.mark.parametrize("ask", [credentials.generate, revoke])
@pytest.mark.parametrize("gone", ["connection", "company"])
def test_nothing_is_asked_for_what_codat_no_longer_has(ask: Callable[..., object], gone: str, db: None) -> None:
    connection = ConnectionFactory()
    (connection if gone == "connection" else connection.company).gone_at = timezone.now()
    with pytest.raises(Refused, match="Codat no longer has this"):
        ask(connection, actor=RM)
    assert not Operation.objects.exists()

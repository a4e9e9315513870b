"""The customer's link: what the screen shows opens, and it is nowhere but on that screen."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from datetime import timedelta

import pytest
import requests
from django.apps import apps
from django.core import serializers
from django.utils import timezone
from pytest_django.fixtures import Settings

from feeds import tasks
from feeds.codat import schemas
from feeds.models import AuditEntry, Company, Connection, Operation
from feeds.services import accounts, connections, links, mirror, onboarding, sync
from feeds.services.errors import Refused
from feeds.states import ConnectionStatus, OnboardingState, OperationState
from tests.factories import ConnectionFactory, SourceAccountFactory
from tests.sandbox_process import SandboxProcess
from tests.services.conftest import Onboard
from tests.services.grid import RM

Drain = Callable[[], int]


def status_of(url: str) -> int:
    """What the customer's browser gets."""
    return requests.get(url, timeout=10).status_code


def refresh_link(company: Company) -> None:
    """Press Refresh link."""
    links.refresh(company.connections.get(), actor=RM)


def refresh_status(company: Company) -> None:
    """Press Refresh status."""
    sync.refresh_company(company, actor=RM)


def refresh_by_schedule(company: Company) -> None:
    """What the worker does when the connection is due."""
    Connection.objects.update(poll_due_at=timezone.now())
    tasks.poll()


def add_accounts(company: Company) -> None:
    """Add an account later and press Onboard."""
    SourceAccountFactory(company=company)
    onboarding.request(company, actor=RM)


def rename_account(company: Company) -> None:
    """Rename an account in Codat."""
    account = company.source_accounts.filter(connection__isnull=False).earliest("pk")
    accounts.rename(account, name=f"{account.name} again", actor=RM)


def clear_expired(company: Company) -> None:
    """What the worker does every minute with links."""
    tasks.clear_expired_links()


def compare(company: Company) -> None:
    """The nightly comparison, which reads the list of all companies."""
    tasks.compare_with_codat()


ACTIONS = (refresh_link, refresh_status, refresh_by_schedule, add_accounts)


# --- What is shown opens ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "order", list(itertools.permutations(ACTIONS)), ids=lambda order: ", ".join(action.__name__ for action in order)
)
def test_whatever_was_done_in_whatever_order_the_link_shown_opens(
    order: tuple[Callable[[Company], None], ...],
    strict_codat: SandboxProcess,
    onboard: Onboard,
    drain_queue: Drain,
) -> None:
    company = onboard()
    for action in order:
        action(company)
        drain_queue()
        company.refresh_from_db()
        assert status_of(links.reveal(company.connections.get(), actor=RM).url) == 200


@pytest.mark.parametrize(
    "action", [refresh_status, refresh_by_schedule, compare, add_accounts, rename_account, clear_expired]
)
def test_a_link_in_the_customers_hands_survives_everything_but_a_newer_link(
    action: Callable[[Company], None],
    strict_codat: SandboxProcess,
    onboard: Onboard,
    drain_queue: Drain,
) -> None:
    company = onboard()
    handed_out = links.reveal(company.connections.get(), actor=RM).url
    action(company)
    drain_queue()
    assert status_of(handed_out) == 200


def test_with_a_strict_codat_a_newer_link_kills_the_older_and_is_the_one_shown(
    strict_codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    older = links.reveal(company.connections.get(), actor=RM).url
    refresh_link(company)
    drain_queue()
    newer = links.reveal(company.connections.get(), actor=RM).url
    assert (status_of(older), status_of(newer)) == (401, 200)


@pytest.mark.parametrize("how", ["unlinked", "fell silent"])
def test_the_link_of_a_customer_who_reconnects_survives_the_schedule_too(
    how: str, strict_codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    """Its accounts are `disconnected`, or still `connected` from before: neither says that the link has served."""
    company = onboard()
    connection = company.connections.get()
    strict_codat.connect(company.codat_id, connection.codat_id)
    refresh_status(company)
    if how == "unlinked":
        connections.unlink(company.connections.get(), actor=RM, reason="moved")
        drain_queue()
    else:
        strict_codat.disconnect(company.codat_id, connection.codat_id, now=True)
        strict_codat.advance(timedelta(days=1, seconds=1).total_seconds())
        refresh_status(company)
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINK_READY
    refresh_link(company)
    drain_queue()
    handed_out = links.reveal(company.connections.get(), actor=RM).url

    refresh_by_schedule(company)
    refresh_status(company)
    assert status_of(handed_out) == 200

    start = (timezone.now() - timedelta(days=3)).date().isoformat()
    strict_codat.connect(company.codat_id, connection.codat_id, feedStartDate=start)
    refresh_status(company)
    company.refresh_from_db()
    assert company.onboarding_state == OnboardingState.LINKED


# --- When it ends ----------------------------------------------------------------------------------------------------
def test_a_link_that_codat_no_longer_takes_is_not_shown(
    codat: SandboxProcess, settings: Settings, onboard: Onboard
) -> None:
    company = onboard()
    connection = company.connections.get()
    url = links.reveal(connection, actor=RM).url
    codat.advance(settings.CODAT_LINK_LIFETIME_SECONDS + 1)
    Connection.objects.update(link_expires_at=timezone.now())
    assert status_of(url) == 401
    with pytest.raises(Refused, match="Press Refresh link"):
        links.reveal(connection, actor=RM)


def test_a_link_is_never_held_for_longer_than_it_opens(
    codat: SandboxProcess, settings: Settings, onboard: Onboard
) -> None:
    before = timezone.now()
    revealed = links.reveal(onboard().connections.get(), actor=RM)
    assert revealed.expires_at <= timezone.now() + timedelta(seconds=settings.CODAT_LINK_LIFETIME_SECONDS)
    assert revealed.fetched_at is not None
    assert revealed.fetched_at >= before


def test_an_expired_link_is_forgotten_and_a_live_one_kept(db: None) -> None:
    live = ConnectionFactory(with_link=True)
    expired = ConnectionFactory(with_link=True, link_expires_at=timezone.now())
    gone = ConnectionFactory(with_link=True, gone_at=timezone.now())
    linked = ConnectionFactory(with_link=True, linked=True)
    assert tasks.clear_expired_links() == "3 cleared"
    for connection in (expired, gone, linked):
        connection.refresh_from_db()
        assert (connection.link_url, connection.link_expires_at) == ("", None)
    live.refresh_from_db()
    assert live.link_url
    assert tasks.clear_expired_links() == "0 cleared"


def test_the_link_is_forgotten_once_the_customer_has_connected(codat: SandboxProcess, onboard: Onboard) -> None:
    company = onboard()
    connection = company.connections.get()
    codat.connect(company.codat_id, connection.codat_id)
    refresh_status(company)
    connection.refresh_from_db()
    assert (connection.status, connection.link_url) == (ConnectionStatus.LINKED, "")
    with pytest.raises(Refused, match="no link that works"):
        links.reveal(connection, actor=RM)
    with pytest.raises(Refused, match="needs no link"):
        links.refresh(connection, actor=RM)


def test_a_gone_connection_has_no_link(db: None) -> None:
    connection = ConnectionFactory(with_link=True, gone_at=timezone.now())
    assert not connection.has_live_link(timezone.now())
    for ask in (links.reveal, links.refresh):
        with pytest.raises(Refused, match="no longer has this connection"):
            ask(connection, actor=RM)


def test_a_refresh_that_comes_too_late_says_that_no_link_is_needed(
    codat: SandboxProcess, onboard: Onboard, drain_queue: Drain
) -> None:
    company = onboard()
    operation = links.refresh(company.connections.get(), actor=RM)
    codat.connect(company.codat_id, company.connections.get().codat_id)
    drain_queue()
    operation.refresh_from_db()
    company.refresh_from_db()
    assert (operation.state, operation.result) == (OperationState.SUCCEEDED, "Already linked: no link is needed.")
    assert company.onboarding_state == OnboardingState.LINKED


# --- Older and newer readings ----------------------------------------------------------------------------------------
def reading(connection: Connection, *, age: timedelta, **fields: object) -> schemas.Connection:
    """A reply of Codat's about the connection, asked for `age` ago."""
    body = {"id": connection.codat_id, "status": "PendingAuth", "linkUrl": "https://link.example/late", **fields}
    return schemas.connection(body, timezone.now() - age)


def test_a_reading_that_arrives_late_does_not_replace_a_newer_link(db: None) -> None:
    connection = ConnectionFactory(with_link=True)
    mirror.apply_connection(connection.company, reading(connection, age=timedelta(seconds=5)))
    link = connection.link_url
    connection.refresh_from_db()
    assert connection.link_url == link


def test_a_reading_that_arrives_late_brings_no_link_back_to_a_linked_connection(db: None) -> None:
    connection = ConnectionFactory(linked=True)
    mirror.apply_connection(connection.company, reading(connection, age=timedelta(seconds=5)))
    connection.refresh_from_db()
    assert (connection.status, connection.link_url) == (ConnectionStatus.LINKED, "")


def test_the_newer_of_two_late_links_is_kept_although_the_status_is_newer_still(db: None) -> None:
    """A reply without a link is newer than the link; a link in between still replaces the one we hold."""
    connection = ConnectionFactory(with_link=True, link_fetched_at=timezone.now() - timedelta(minutes=5))
    mirror.apply_connection(connection.company, reading(connection, age=timedelta(minutes=1), status="Unlinked"))
    connection.refresh_from_db()
    assert (connection.status, connection.link_url) == (ConnectionStatus.PENDING_AUTH, "https://link.example/late")


# --- Nowhere else ----------------------------------------------------------------------------------------------------
def test_who_saw_the_link_is_recorded_and_the_link_is_not(
    codat: SandboxProcess, onboard: Onboard, drain_queue: Drain, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    company = onboard()
    refresh_link(company)
    drain_queue()
    connection = company.connections.get()
    revealed = links.reveal(connection, actor=RM)

    entry = AuditEntry.objects.get(event="link_revealed")
    assert (entry.object_pk, entry.actor_name, entry.source) == (str(connection.pk), RM.name, RM.source)
    otp = revealed.url.partition("otp=")[2]
    assert len(otp) > 10
    assert otp not in repr(revealed)
    assert otp not in caplog.text
    for model in apps.get_models():
        rows = model._default_manager.all()
        fields = [field.name for field in model._meta.fields if field.name != "link_url"]
        assert otp not in serializers.serialize("json", rows, fields=fields), model
    assert Operation.objects.filter(kind="refresh_link", state=OperationState.SUCCEEDED).exists()


def test_every_reveal_is_a_row_of_its_own_and_a_refusal_is_none(db: None) -> None:
    connection = ConnectionFactory(with_link=True)
    links.reveal(connection, actor=RM)
    links.reveal(connection, actor=RM)
    Connection.objects.update(link_expires_at=timezone.now())
    with pytest.raises(Refused):
        links.reveal(connection, actor=RM)
    assert AuditEntry.objects.filter(event="link_revealed").count() == 2

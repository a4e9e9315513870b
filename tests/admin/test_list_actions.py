"""List actions: on ticked rows, one by one; one bad row does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feeds import audit
from feeds.models import AuditEntry, Company, Connection, Operation
from feeds.services import onboarding
from feeds.states import OperationState
from tests.factories import CompanyFactory, ConnectionFactory, SourceAccountFactory, UserFactory
from tests.sandbox_process import SandboxProcess

LIST = "admin:feeds_connection_changelist"
pytestmark = pytest.mark.django_db


@pytest.fixture
def browser() -> Client:
    """Someone who may refresh links."""
    client = Client()
    client.force_login(UserFactory(permissions=["feeds.view_connection", "feeds.refresh_link"]))
    return client


def refresh(client: Client, *connections: Connection, **more: str) -> list[str]:
    """Tick the connections, choose Refresh links; the messages that follow."""
    data: dict[str, Any] = {"action": "refresh_links", "_selected_action": [it.pk for it in connections], **more}
    answer = client.post(reverse(LIST), data, follow=True)
    assert answer.status_code == 200
    return [str(message) for message in answer.context["messages"]]


def test_it_fetches_a_fresh_link_for_each(
    browser: Client, codat: SandboxProcess, drain_queue: Callable[[], int]
) -> None:
    companies: list[Company] = CompanyFactory.create_batch(2)
    for company in companies:
        SourceAccountFactory(company=company)
        onboarding.request(company, actor=audit.SYSTEM)
    drain_queue()
    before = dict(Connection.objects.values_list("pk", "link_url"))

    assert refresh(browser, *Connection.objects.all()) == ["2 done"]

    drain_queue()
    after = dict(Connection.objects.values_list("pk", "link_url"))
    assert all(after[pk] and after[pk] != before[pk] for pk in before)


def test_it_is_offered_with_the_permission(browser: Client) -> None:
    ConnectionFactory()
    assert 'value="refresh_links"' in browser.get(reverse(LIST)).content.decode()


def test_it_is_hidden_and_refused_without_the_permission() -> None:
    connection = ConnectionFactory()
    client = Client()
    client.force_login(UserFactory(permissions=["feeds.view_connection"]))
    assert "refresh_links" not in client.get(reverse(LIST)).content.decode()
    refresh(client, connection)
    assert not Operation.objects.exists()


def test_a_bad_row_does_not_stop_the_others(browser: Client) -> None:
    good = ConnectionFactory.create_batch(2)
    bad = ConnectionFactory(linked=True)
    assert refresh(browser, good[0], bad, good[1]) == [
        f"2 done, 1 refused: {bad}: This connection is Linked and all its accounts work: the customer needs no link."
    ]
    assert set(Operation.objects.values_list("connection_id", flat=True)) == {it.pk for it in good}


def test_a_reason_that_many_rows_share_stands_once_and_the_message_stays_short(browser: Client) -> None:
    linked = ConnectionFactory.create_batch(12, linked=True)
    (message,) = refresh(browser, *linked)
    assert message.count("the customer needs no link") == 1
    assert message.endswith(
        " and 2 more: This connection is Linked and all its accounts work: the customer needs no link."
    )


def test_what_codat_refuses_is_on_the_operation(
    browser: Client, codat: SandboxProcess, settings: Any, drain_queue: Callable[[], int]
) -> None:
    settings.CODAT_API_KEY = "a-wrong-key"
    refresh(browser, ConnectionFactory())
    drain_queue()
    operation = Operation.objects.get()
    assert operation.state == OperationState.FAILED
    assert operation.error.startswith(
        "Codat refused our API key. Ask an administrator to check CODAT_API_KEY, then try again."
    )


def test_the_history_says_who_asked(browser: Client) -> None:
    refresh(browser, ConnectionFactory())
    entry = AuditEntry.objects.get(content_type__model="operation")
    assert entry.actor == Operation.objects.get().requested_by
    assert entry.source == "admin"


def test_more_than_the_limit_is_refused_as_a_whole(browser: Client, settings: Any) -> None:
    settings.BULK_LIMIT = 2
    connections = ConnectionFactory.create_batch(3)
    refusal = "Nothing was done: select at most 2 at a time."
    assert refresh(browser, connections[0], select_across="1") == [refusal]
    assert not Operation.objects.exists()
    assert refresh(browser, *connections[:2]) == ["2 done"]

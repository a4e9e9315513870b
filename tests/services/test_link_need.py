"""Who needs a link, said once: the question about one connection and the one about many have the same answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import timedelta

import pytest
from django.utils import timezone

from feeds.models import Connection
from feeds.services import link_need, links, polling, quiet
from feeds.services.polling import Priority
from feeds.states import ConnectionStatus, link_is_needed
from tests.factories import ConnectionFactory, SourceAccountFactory

pytestmark = pytest.mark.django_db

ACCOUNTS: list[tuple[str, ...]] = [
    (),
    *itertools.combinations_with_replacement(("pending", "connected", "disconnected", "unknown"), 2),
]
CONNECTIONS = [*ConnectionStatus.values, "Resting"]


def feed(status: str, accounts: Sequence[str], *, gone: bool = False) -> Connection:
    """A connection with accounts of these statuses, and a live link that was handed out."""
    connection: Connection = ConnectionFactory(status=status, handed_out=True)
    for account in accounts:
        SourceAccountFactory(
            company=connection.company,
            connection=connection,
            status=account,
            gone_at=timezone.now() if gone else None,
        )
    return connection


def needed_by_query(connection: Connection) -> bool:
    return Connection.objects.filter(link_need.needed(), pk=connection.pk).exists()


@pytest.mark.parametrize("accounts", ACCOUNTS, ids=lambda accounts: "+".join(accounts) or "none")
@pytest.mark.parametrize("status", CONNECTIONS)
def test_one_connection_and_many_are_judged_alike(status: str, accounts: tuple[str, ...]) -> None:
    connection = feed(status, accounts)
    expected = link_is_needed(status, account_is_unconnected=bool({"pending", "disconnected"} & {*accounts}))
    shown = link_need.annotated(Connection.objects.all()).get()
    assert link_need.is_needed(connection) is expected
    assert link_need.is_needed(shown) is expected
    assert needed_by_query(connection) is expected
    assert expected is (status != ConnectionStatus.LINKED or "disconnected" in accounts or "pending" in accounts)


@pytest.mark.parametrize("status", ["disconnected", "pending"])
def test_an_account_that_codat_no_longer_has_needs_no_link(status: str) -> None:
    connection = feed(ConnectionStatus.LINKED, [status], gone=True)
    assert not link_need.is_needed(connection)
    assert not needed_by_query(connection)


@pytest.mark.parametrize(
    "accounts",
    [("connected",), ("connected", "disconnected"), ("connected", "pending")],
    ids=["all work", "one is broken", "one is new"],
)
@pytest.mark.parametrize("status", CONNECTIONS)
def test_the_poller_the_clearing_and_the_refresh_follow_the_rule(status: str, accounts: tuple[str, ...]) -> None:
    connection = feed(status, accounts)
    Connection.objects.update(poll_due_at=timezone.now() - timedelta(seconds=1))
    expected = link_need.is_needed(connection)

    assert (polling.priority_of(connection, timezone.now()) == Priority.LINK) is expected
    assert polling.due(Priority.LINK, timezone.now()).exists() is expected
    assert quiet.handed_out(timezone.now()).exists() is expected
    assert links.clear_expired() == (0 if expected else 1)


def test_a_screen_that_shows_many_asks_once(django_assert_num_queries: object) -> None:
    for _ in range(3):
        feed(ConnectionStatus.LINKED, ["disconnected"])
    with django_assert_num_queries(1):  # type: ignore[operator]
        assert all(link_need.is_needed(it) for it in link_need.annotated(Connection.objects.all()))

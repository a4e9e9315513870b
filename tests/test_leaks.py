"""What looks through every test for secrets finds each of them, wherever it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core import mail
from django.test import Client
from django_q.tasks import async_task

from feeds import audit
from feeds.services import invitation_keys
from tests import conftest, leaks
from tests.factories import PASSWORD, CompanyFactory, ConnectionFactory, InvitationFactory, SourceAccountFactory
from tests.sandbox_process import API_KEY
from tests.services.grid import RM

pytestmark = pytest.mark.django_db
NUMBER = "900417733218"
ACCOUNT_KEY = "bfk_" + "a" * 8 + "_" + "k" * 43


def session(client: Client, **values: str) -> None:
    """What a browser's session holds, packed as it is."""
    held = client.session
    held.update(values)
    held.save()


PLANTED: dict[str, tuple[Callable[[], Any], str]] = {
    "a column": (lambda: CompanyFactory(legal_name=f"Calls about {NUMBER}"), "account number in feeds_company"),
    "the history": (lambda: audit.record("looked_at", text=NUMBER), "account number in feeds_auditentry"),
    "JSON in a column": (
        lambda: ConnectionFactory(raw={"deep": [f"https://link.example/?otp={NUMBER}"]}), "otp in feeds_connection",
    ),
    "a session": (lambda: session(Client(), shown=PASSWORD), "password in django_session"),
    "a task that waits": (lambda: async_task("feeds.tasks.heartbeat", API_KEY), "key for Codat in django_q_ormq"),
    "a mail": (lambda: mail.send_mail("x", f"use {ACCOUNT_KEY}", None, ["a@bank.example"]), "key of the API in mail"),
    "the key of an invitation": (
        lambda: CompanyFactory(notes=invitation_keys.address(InvitationFactory(), made_for="screen", actor=RM).url),
        "key of a customer's page in feeds_auditentry",
    ),
}  # fmt: skip


@pytest.mark.plants_secrets
@pytest.mark.parametrize(("plant", "expected"), PLANTED.values(), ids=PLANTED)
def test_it_is_found(plant: Callable[[], Any], expected: str, request: pytest.FixtureRequest) -> None:
    SourceAccountFactory(account_number=NUMBER)
    assert leaks.found(request.node) == []
    plant()
    assert expected in leaks.found(request.node)


def test_the_places_that_are_there_for_it_are_none(request: pytest.FixtureRequest) -> None:
    SourceAccountFactory(account_number=NUMBER)
    ConnectionFactory(link_url="https://link.example/?otp=112233", with_link=True)
    key = invitation_keys.address(InvitationFactory(), made_for="mail", actor=RM).url
    mail.send_mail("Connect", key, None, ["alex@maple.example"])
    assert leaks.found(request.node) == []


def test_a_test_that_leaves_one_fails(request: pytest.FixtureRequest) -> None:
    SourceAccountFactory(account_number=NUMBER)
    company = CompanyFactory(notes=f"Calls about {NUMBER}")
    looking = conftest.pytest_runtest_call(request.node)
    next(looking)
    with pytest.raises(pytest.fail.Exception, match="written down by this test: account number in feeds_company"):
        looking.send(None)
    company.delete()  # else this test fails by what it tests

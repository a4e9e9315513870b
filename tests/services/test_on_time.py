"""What changes at Codat is on screen in time: within a minute by webhook, within two by polling while a link is out.

With a real worker and the intervals of production, except that the two minutes of a live link have passed already.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feeds import audit
from feeds.models import Case, Company, Connection, ListingWalk
from feeds.services import links, onboarding, sweep
from feeds.services.roles import SUPPORT
from feeds.states import CaseState
from tests.factories import CompanyFactory, SourceAccountFactory, UserFactory
from tests.queue_drain import drain
from tests.sandbox_process import SandboxProcess
from tests.webhooks import PATH
from tests.worker_process import WorkerProcess, wait_until

pytestmark = [pytest.mark.worker, pytest.mark.django_db(transaction=True)]

BY_WEBHOOK, BY_POLL = 60.0, 120.0
"""Seconds. Promises, not measurements: the tests wait so long at most."""


@pytest.fixture
def customer(transactional_db: None, codat: SandboxProcess) -> Company:
    """Two accounts, and a link in the customer's hands; the poller has just looked."""
    company: Company = CompanyFactory()
    SourceAccountFactory.create_batch(2, company=company)
    onboarding.request(company, actor=audit.SYSTEM)
    drain()
    company.refresh_from_db()
    links.reveal(company.connections.get(), actor=audit.SYSTEM)
    ListingWalk.objects.create(name=sweep.NAME, complete_as_of=timezone.now())
    Connection.objects.update(poll_due_at=timezone.now() + timedelta(hours=1))
    return company


@pytest.fixture
def worker(customer: Company, codat: SandboxProcess, tmp_path: Path) -> Any:
    """A worker that sweeps and polls as often as in production."""
    process = WorkerProcess(
        codat_url=codat.url,
        api_key=codat.api_key,
        log=tmp_path / "worker.log",
        WORKER_SWEEP_SECONDS="5",
        WORKER_HEARTBEAT_SECONDS="30",
        WORKER_FROZEN_SECONDS="120",
    )
    process.start()
    yield process
    process.stop()


class Screen:
    """The company's page and timeline, as support reads them."""

    def __init__(self, company: Company) -> None:
        self.client = Client()
        self.client.force_login(UserFactory(role=SUPPORT))
        self.company = company

    def shows(self, *texts: str) -> bool:
        """Whether the timeline says all of this."""
        answer = self.client.get(reverse("admin:feeds_company_timeline", args=[self.company.pk]))
        page = answer.content.decode()
        return all(text in page for text in texts)


def test_by_polling_while_the_customer_holds_a_link(
    customer: Company, codat: SandboxProcess, worker: WorkerProcess
) -> None:
    screen = Screen(customer)
    codat.connect(customer.codat_id, customer.connections.get().codat_id)
    Connection.objects.update(poll_due_at=timezone.now())  # the two minutes are over
    wait_until(
        lambda: screen.shows("pending → connected", "Linked", "Seen by poll"),
        seconds=BY_POLL,
        what="the change on the timeline",
    )
    assert not screen.shows("Seen by webhook")


def test_by_webhook_long_before_the_next_poll_and_so_are_a_break_and_its_end(
    customer: Company, codat: SandboxProcess, worker: WorkerProcess, live_server: Any
) -> None:
    screen = Screen(customer)
    codat.control("POST", "webhooks", {"url": f"{live_server.url}{PATH}"})
    try:
        connection_id = customer.connections.get().codat_id
        codat.connect(customer.codat_id, connection_id)
        wait_until(
            lambda: screen.shows("pending → connected", "Seen by webhook"),
            seconds=BY_WEBHOOK,
            what="the change on the timeline",
        )
        codat.disconnect(customer.codat_id, connection_id)
        codat.advance(timedelta(days=10, seconds=1).total_seconds())
        wait_until(
            lambda: screen.shows("connected → disconnected"), seconds=BY_WEBHOOK, what="the break on the timeline"
        )
        wait_until(lambda: Case.objects.open().exists(), seconds=BY_WEBHOOK, what="the case")
        codat.connect(customer.codat_id, connection_id)
        wait_until(lambda: not Case.objects.get().is_open, seconds=BY_WEBHOOK, what="the end of the case")
        assert Case.objects.get().state == CaseState.CLOSED
    finally:
        codat.control("POST", "webhooks", {"url": None})

"""What becomes of a webhook after it was answered. Codat is the stand-in, the queue is the real one."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import requests
from django.db import connection as database
from django.test import Client
from django.utils import timezone
from django_q.models import OrmQ
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from feeds import audit, queue, tasks
from feeds.models import CodatQuota, Company, Connection, DailyFigure, StatusEvent, WebhookEvent
from feeds.services import inbox, leases, onboarding, operations_page, sync
from feeds.services.polling import Priority
from feeds.states import SeenBy, WebhookState
from tests import twins
from tests.factories import (
    CompanyFactory,
    SourceAccountFactory,
    StatusEventFactory,
    WebhookEventFactory,
)
from tests.sandbox_process import SandboxProcess
from tests.webhooks import PATH, SECRET, envelope, post
from tests.worker_process import WorkerProcess, children, wait_until

Drain = Callable[[], int]
ACCOUNTS_READ = "GET /companies/{id}/connections/{id}/connectionInfo/bankFeedAccounts"
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _secret(settings: Settings) -> None:
    settings.WEBHOOK_SECRETS = [SECRET]


def onboarded(accounts: int = 2) -> Company:
    """A company in the stand-in and here, whose customer has a link."""
    company: Company = CompanyFactory()
    SourceAccountFactory.create_batch(accounts, company=company)
    onboarding.request(company, actor=audit.SYSTEM)
    while onboarding.advance(company.pk) != "0 done":
        continue
    OrmQ.objects.all().delete()
    company.refresh_from_db()
    return company


@pytest.fixture
def customer(codat: SandboxProcess, db: None) -> Company:
    """One such company."""
    return onboarded()


def ids(company: Company) -> tuple[str, str]:
    """Of the company and its connection, as the stand-in's control takes them."""
    return company.codat_id, Connection.objects.filter(company=company).latest("pk").codat_id


def arrives(event_type: str, company_id: str = "", **payload: Any) -> WebhookEvent:
    """Codat delivers a webhook now."""
    event = envelope(event_type, company_id, **payload)
    assert post(Client(), event).status_code == 204
    return WebhookEvent.objects.get(webhook_id=event["id"])


def state_of(event: WebhookEvent) -> str:
    event.refresh_from_db()
    return event.state


class TestApplied:
    def test_the_company_is_read_and_the_timeline_says_which_webhook_showed_it(
        self, customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        codat.connect(*ids(customer))
        StatusEvent.objects.all().delete()
        event = arrives("bankFeeds.sourceAccount.connected", customer.codat_id)
        drain_queue()
        event.refresh_from_db()
        assert (event.state, event.company, event.attempts, event.due_at) == (WebhookState.APPLIED, customer, 1, None)
        assert event.applied_at is not None
        assert event.applied_at >= event.received_at
        assert twins.here() == twins.there(codat)
        seen = set(StatusEvent.objects.values_list("seen_by", "reference", "new"))
        assert seen == {(SeenBy.WEBHOOK, event.webhook_id, "Linked"), (SeenBy.WEBHOOK, event.webhook_id, "connected")}

    def test_what_the_webhook_says_itself_is_not_believed(
        self, customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        before = twins.here()
        stale = {"connection": {"id": ids(customer)[1], "status": "Unlinked"}}
        account = {"id": customer.source_accounts.all()[0].account_id, "status": "disconnected"}
        event = arrives("connection.disconnected", customer.codat_id, **stale, sourceAccount=account)
        drain_queue()
        assert state_of(event) == WebhookState.APPLIED
        assert twins.here() == before

    def test_many_at_once_about_one_company_are_one_reading(
        self, customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        codat.connect(*ids(customer))
        before = codat.requests_made(ACCOUNTS_READ)
        events = [arrives("bankFeeds.sourceAccount.connected", customer.codat_id) for _ in range(20)]
        drain_queue()
        assert {state_of(event) for event in events} == {WebhookState.APPLIED}
        assert {event.attempts for event in events} == {1}
        assert codat.requests_made(ACCOUNTS_READ) == before + 1

    def test_a_task_that_runs_twice_reads_once(
        self, customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        event = arrives("connection.connected", customer.codat_id)
        before = codat.requests_made(ACCOUNTS_READ)
        drain_queue()
        assert inbox.apply(event.pk, 0) == inbox.apply(event.pk, 1) == "taken by another task"
        assert codat.requests_made(ACCOUNTS_READ) == before + 1

    @pytest.mark.parametrize("event_type", inbox.COMPANY_EVENTS)
    def test_every_kind_leads_to_a_reading(
        self, event_type: str, customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        codat.connect(*ids(customer))
        event = arrives(event_type, customer.codat_id)
        drain_queue()
        assert state_of(event) == WebhookState.APPLIED
        assert twins.here() == twins.there(codat)

    def test_a_connection_deleted_in_the_portal_is_gone(
        self, customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        delete(codat, f"/companies/{customer.codat_id}/connections/{ids(customer)[1]}")
        event = arrives("connection.deleted", customer.codat_id)
        drain_queue()
        assert state_of(event) == WebhookState.APPLIED
        assert Connection.objects.get().gone_at is not None
        customer.refresh_from_db()
        assert customer.gone_at is None

    @pytest.mark.parametrize("order", [("connection.deleted", "company.deleted"), ("company.deleted",)], ids=len)
    def test_a_company_deleted_in_the_portal_is_gone_with_all_it_has(
        self, order: tuple[str, ...], customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        delete(codat, f"/companies/{customer.codat_id}")
        for event_type in order:
            event = arrives(event_type, customer.codat_id)
            drain_queue()
            assert state_of(event) == WebhookState.APPLIED
        customer.refresh_from_db()
        assert customer.gone_at is not None
        assert not Connection.objects.filter(gone_at__isnull=True).exists()
        assert not customer.source_accounts.filter(connection__isnull=False).exists()

    def test_a_forged_or_mistaken_deletion_deletes_nothing(
        self, customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        arrives("company.deleted", customer.codat_id)
        arrives("connection.deleted", customer.codat_id)
        drain_queue()
        customer.refresh_from_db()
        assert customer.gone_at is None
        assert twins.here() == twins.there(codat)

    @pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
    def test_no_other_refusal_is_taken_for_gone(
        self, status: int, customer: Company, codat: SandboxProcess, settings: Settings, drain_queue: Drain
    ) -> None:
        settings.WEBHOOK_MAX_ATTEMPTS = 1
        codat.post_fault("status", status=status, times=1000)
        event = arrives("company.deleted", customer.codat_id)
        drain_queue()
        assert state_of(event) == WebhookState.FAILED
        customer.refresh_from_db()
        assert customer.gone_at is None
        assert Connection.objects.get().gone_at is None

    def test_a_company_still_without_a_connection_is_no_trouble(
        self, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        company = CompanyFactory()
        SourceAccountFactory(company=company)
        onboarding.request(company, actor=audit.SYSTEM)
        codat.post_fault("status", "POST", "/companies/{id}/connections", status=400, times=1)
        drain_queue()
        company.refresh_from_db()
        event = arrives("company.created", company.codat_id)
        drain_queue()
        assert state_of(event) == WebhookState.APPLIED
        company.refresh_from_db()
        assert company.gone_at is None


def delete(codat: SandboxProcess, path: str) -> None:
    """Somebody deletes it in the Portal."""
    requests.delete(codat.url + path, headers=codat.authorization, timeout=10).raise_for_status()


class TestNotOurs:
    @pytest.mark.parametrize("company_id", ["", "a-company-of-someone-else"])
    def test_a_company_we_do_not_know_is_left_alone(
        self, company_id: str, customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        CompanyFactory()  # not in Codat: its id is as empty as the webhook's
        before = codat.stats()["requests"]
        event = arrives("connection.connected", company_id)
        drain_queue()
        event.refresh_from_db()
        assert (event.state, event.company, event.due_at) == (WebhookState.IGNORED, None, None)
        assert codat.stats()["requests"] == before

    def test_an_event_of_another_kind_is_left_alone(
        self, customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        before = codat.stats()["requests"]
        event = arrives("read.completed", customer.codat_id)
        drain_queue()
        assert state_of(event) == WebhookState.IGNORED
        assert codat.stats()["requests"] == before


class TestQuota:
    @staticmethod
    def told(remaining: object, at: Any = None, limit: object = 5000) -> WebhookEvent:
        """A webhook about the quota, sent at `at`."""
        event = envelope("client.rateLimit.reached", dailyQuota=limit, quotaRemaining=remaining)
        event["payload"]["expiryDate"] = "2026-11-23T00:00:00Z"
        event["generatedDate"] = (at or timezone.now()).isoformat()
        post(Client(), event)
        return WebhookEvent.objects.get(webhook_id=event["id"])

    def test_it_is_kept_without_asking_codat(self, drain_queue: Drain) -> None:
        event = self.told(0)
        drain_queue()
        quota = CodatQuota.objects.get()
        assert (quota.limit, quota.remaining) == (5000, 0)
        assert quota.resets_at is not None
        assert quota.resets_at.isoformat() == "2026-11-23T00:00:00+00:00"
        assert state_of(event) == WebhookState.APPLIED

    def test_an_older_one_that_comes_later_does_not_win(self, drain_queue: Drain) -> None:
        now = timezone.now()
        self.told(4000, now - timedelta(seconds=5))
        drain_queue()
        late = self.told(0, now - timedelta(seconds=60))
        drain_queue()
        assert CodatQuota.objects.get().remaining == 4000
        assert state_of(late) == WebhookState.APPLIED

    def test_a_clock_that_is_ahead_does_not_make_it_newer_than_its_arrival(self, drain_queue: Drain) -> None:
        event = self.told(10, timezone.now() + timedelta(days=10))
        drain_queue()
        assert CodatQuota.objects.get().read_at == event.received_at

    @pytest.mark.parametrize("remaining", [None, "many", -1, True, 2**40])
    def test_a_quota_that_is_none_is_left_to_a_person(self, remaining: object, drain_queue: Drain) -> None:
        event = self.told(remaining)
        drain_queue()
        assert state_of(event) == WebhookState.FAILED
        assert event.error == "The webhook names no quota."
        assert not CodatQuota.objects.exists()


class TestLater:
    def test_a_company_that_a_worker_holds_is_read_when_it_is_free(
        self, customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        codat.connect(*ids(customer))
        token = leases.claim(customer.pk)
        event = arrives("connection.connected", customer.codat_id)
        assert inbox.apply(event.pk, 0) == "put off"
        event.refresh_from_db()
        assert (event.state, event.attempts) == (WebhookState.RECEIVED, 0)
        assert event.due_at is not None
        assert event.due_at < timezone.now() + timedelta(seconds=5)
        assert token is not None
        leases.release(customer.pk, token)
        drain_queue()
        assert state_of(event) == WebhookState.APPLIED

    def test_an_error_of_codats_is_said_and_tried_again(
        self, customer: Company, codat: SandboxProcess, settings: Settings, drain_queue: Drain
    ) -> None:
        settings.ONBOARDING_RETRY_BASE_SECONDS = 1000.0
        codat.connect(*ids(customer))
        codat.post_fault("status", status=503, times=1000)
        event = arrives("connection.connected", customer.codat_id)
        drain_queue()
        event.refresh_from_db()
        assert (event.state, event.attempts, event.company) == (WebhookState.RECEIVED, 1, customer)
        assert event.error.startswith("Codat had a fault of its own.")
        assert event.due_at is not None
        assert event.due_at > timezone.now() + timedelta(seconds=500)

        codat.clear_faults()
        WebhookEvent.objects.update(due_at=timezone.now())
        drain_queue()
        event.refresh_from_db()
        assert (event.state, event.attempts, event.error) == (WebhookState.APPLIED, 2, "")

    def test_codats_own_wish_to_wait_is_respected(
        self, customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        codat.post_fault("status", status=429, retry_after=3600, times=1000)
        event = arrives("connection.connected", customer.codat_id)
        drain_queue()
        event.refresh_from_db()
        assert event.due_at is not None
        assert event.due_at > timezone.now() + timedelta(seconds=3500)

    def test_after_so_many_attempts_it_is_left_to_a_person(
        self, customer: Company, codat: SandboxProcess, settings: Settings, drain_queue: Drain
    ) -> None:
        settings.WEBHOOK_MAX_ATTEMPTS = 3
        codat.post_fault("status", status=503, times=1000)
        events = [arrives("connection.connected", customer.codat_id) for _ in range(3)]
        drain_queue()
        for event in events:
            event.refresh_from_db()
            assert (event.state, event.attempts, event.due_at) == (WebhookState.FAILED, 3, None)
            assert event.error.startswith("Gave up after 3 attempts.")
            assert "Codat had a fault of its own." in event.error

    def test_while_codat_is_away_many_webhooks_of_one_company_are_one_try_each_time(
        self, customer: Company, codat: SandboxProcess, settings: Settings, drain_queue: Drain
    ) -> None:
        settings.WEBHOOK_MAX_ATTEMPTS = 2
        codat.post_fault("status", status=400, times=1000)  # not tried again inside the client
        before = codat.requests_made(ACCOUNTS_READ)
        for _ in range(10):
            arrives("connection.connected", customer.codat_id)
        drain_queue()
        assert codat.requests_made(ACCOUNTS_READ) == before + 2
        assert set(WebhookEvent.objects.values_list("state", "attempts")) == {(WebhookState.FAILED, 2)}

    def test_a_webhook_whose_worker_always_dies_is_left_to_a_person(
        self, customer: Company, settings: Settings, drain_queue: Drain
    ) -> None:
        event = WebhookEventFactory(codat_company_id=customer.codat_id, attempts=settings.WEBHOOK_MAX_ATTEMPTS)
        inbox.apply(event.pk, event.attempts)
        assert state_of(event) == WebhookState.FAILED
        assert event.error.endswith("Last answer: none; the worker stopped each time")

    def test_a_later_reading_applies_the_older_ones_that_wait_for_their_next_try(
        self, customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        older = WebhookEventFactory(
            codat_company_id=customer.codat_id, attempts=5, due_at=timezone.now() + timedelta(hours=1), error="Away."
        )
        newer = arrives("connection.connected", customer.codat_id)
        drain_queue()
        assert state_of(newer) == state_of(older) == WebhookState.APPLIED
        assert (older.error, older.attempts) == ("", 5)


CONNECTIONS_READ = "GET /companies/{id}/connections"
FAULTS: dict[str, dict[str, Any]] = {
    "500": {"action": "status", "status": 500},
    "503 and wait": {"action": "status", "status": 503, "retry_after": 1},
    "429": {"action": "status", "status": 429},
    "400": {"action": "status", "status": 400},
    "404": {"action": "status", "status": 404},
    "no answer": {"action": "drop_before"},
    "answer lost": {"action": "drop_after"},
    "too late": {"action": "delay", "delay_ms": 500},
    "half an answer": {"action": "malformed"},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("read", [ACCOUNTS_READ, CONNECTIONS_READ])
def test_whatever_goes_wrong_in_a_reading_the_webhook_is_applied_in_the_end(
    read: str, fault: str, customer: Company, codat: SandboxProcess, settings: Settings, drain_queue: Drain
) -> None:
    settings.CODAT_READ_TIMEOUT = 0.4
    codat.connect(*ids(customer))
    method, path = read.split()
    codat.post_fault(method=method, path=path, times=4, **FAULTS[fault])  # one more than the client tries by itself
    event = arrives("connection.connected", customer.codat_id)
    drain_queue()
    assert any(listed["hits"] for listed in codat.faults())
    assert state_of(event) == WebhookState.APPLIED
    customer.refresh_from_db()
    assert customer.gone_at is None
    assert twins.here() == twins.there(codat)


class TestSweep:
    def test_a_lost_task_is_queued_again(self, customer: Company, drain_queue: Drain) -> None:
        event = arrives("connection.connected", customer.codat_id)
        OrmQ.objects.all().delete()
        assert inbox.sweep() == 0
        WebhookEvent.objects.update(due_at=timezone.now() - timedelta(seconds=1))
        assert inbox.sweep() == 1
        drain_queue()
        assert state_of(event) == WebhookState.APPLIED

    def test_each_company_is_queued_once(self, db: None) -> None:
        past = timezone.now() - timedelta(seconds=1)
        for company_id in ("a", "a", "b", "", ""):
            WebhookEventFactory(codat_company_id=company_id, due_at=past)
        assert inbox.sweep() == 4
        assert OrmQ.objects.count() == 4

    def test_looking_for_nothing_is_one_query(self, django_assert_num_queries: Any) -> None:
        WebhookEventFactory(due_at=timezone.now() + timedelta(minutes=1))
        with django_assert_num_queries(1):
            assert inbox.sweep() == 0


@pytest.mark.django_db(transaction=True)
def test_a_webhook_that_comes_during_a_reading_gets_a_reading_of_its_own(
    codat: SandboxProcess, drain_queue: Drain
) -> None:
    company = onboarded()
    codat.post_fault("delay", "GET", ACCOUNTS_READ.removeprefix("GET "), delay_ms=1000, times=1)
    first = arrives("connection.created", company.codat_id)
    reading = threading.Thread(target=_apply_and_hang_up, args=[first.pk])
    reading.start()
    codat.wait_until_hit()
    codat.connect(*ids(company))
    second = arrives("connection.connected", company.codat_id)
    assert inbox.apply(second.pk, 0) == "put off"
    reading.join()
    drain_queue()
    assert state_of(first) == state_of(second) == WebhookState.APPLIED
    assert first.applied_at is not None
    assert second.applied_at is not None
    assert first.applied_at < second.applied_at
    assert twins.here() == twins.there(codat)


def _apply_and_hang_up(webhook_pk: int) -> None:
    inbox.apply(webhook_pk, 0)
    database.close()


# --- Wired for real ------------------------------------------------------------------------------------------------
@pytest.fixture
def wired(codat: SandboxProcess, live_server: Any, settings: Settings) -> SandboxProcess:
    """The stand-in sends its webhooks to us over HTTP."""
    settings.ALLOWED_HOSTS = ["*"]
    codat.control("POST", "webhooks", {"url": live_server.url + PATH})
    return codat


def delivered(codat: SandboxProcess) -> bool:
    """Whether every event of the stand-in has arrived."""
    states = [event["state"] for event in codat.control("GET", "webhooks")["events"]]
    return bool(states) and set(states) == {"delivered"}


@pytest.mark.django_db(transaction=True)
class TestWired:
    def test_what_changes_in_the_stand_in_is_here_by_webhook_alone(
        self, wired: SandboxProcess, drain_queue: Drain
    ) -> None:
        company = onboarded()
        wired.connect(*ids(company))
        wired.disconnect(*ids(company), accountId=company.source_accounts.all()[0].account_id, now=True)
        wait_until(lambda: delivered(wired), what="delivery")
        drain_queue()
        assert twins.here() == twins.there(wired)
        assert "disconnected" in str(twins.here())
        assert not WebhookEvent.objects.exclude(state=WebhookState.APPLIED).exists()

    def test_twice_each_and_in_disorder(self, wired: SandboxProcess, live_server: Any, drain_queue: Drain) -> None:
        wired.control("POST", "webhooks", {"url": live_server.url + PATH, "duplicates": 1.0, "shuffle": True})
        companies = [onboarded() for _ in range(3)]
        for company in companies:
            wired.connect(*ids(company))
        wired.disconnect(*ids(companies[0]), now=True)
        wired.advance(2 * 86400)
        sent = wired.control("POST", "webhooks/flush")["sent"]
        assert delivered(wired)
        drain_queue()
        assert WebhookEvent.objects.count() == sent
        assert not WebhookEvent.objects.exclude(state=WebhookState.APPLIED).exists()
        assert twins.here() == twins.there(wired)
        assert "Unlinked" in str(twins.here())

    def test_what_was_refused_comes_again(self, wired: SandboxProcess, settings: Settings, drain_queue: Drain) -> None:
        secrets, settings.WEBHOOK_SECRETS = settings.WEBHOOK_SECRETS, []
        company = onboarded()
        wait_until(lambda: len(attempts(wired)) >= 2, what="two refused deliveries")
        assert not WebhookEvent.objects.exists()
        settings.WEBHOOK_SECRETS = secrets
        wired.advance(6)
        wait_until(lambda: delivered(wired), what="delivery")
        assert set(attempts(wired)) == {503, 204}
        assert WebhookEvent.objects.filter(codat_company_id=company.codat_id).count() == 2


def attempts(codat: SandboxProcess) -> list[int]:
    """The statuses that the stand-in was answered with."""
    events = codat.control("GET", "webhooks")["events"]
    return [attempt["status"] for event in events for attempt in event["attempts"]]


# --- Whatever the order --------------------------------------------------------------------------------------------
CHANGES = st.lists(
    st.tuples(st.sampled_from(["connect", "disconnect", "silence and unlink"]), st.integers(0, 1), st.integers(0, 2)),
    min_size=1,
    max_size=5,
)


def change(codat: SandboxProcess, companies: list[Company], what: str, which: int, accounts: int) -> None:
    """Something happens to one of the companies: to all its accounts (2), or to one of them."""
    company = companies[which]
    some = sorted(company.source_accounts.values_list("account_id", flat=True))[accounts : accounts + 1]
    if what == "connect":
        codat.connect(*ids(company), **({"accountIds": some} if some else {}))
    else:
        codat.disconnect(*ids(company), now=True, **({"accountId": some[0]} if some else {}))
    if what == "silence and unlink":
        codat.advance(2 * 86400)


def start_anew(codat: SandboxProcess) -> None:
    """One test runs several examples: forget the one before."""
    codat.reset()
    WebhookEvent.objects.all().delete()
    Connection.objects.update(gone_at=timezone.now())


@pytest.mark.slow
@given(changes=CHANGES, randomness=st.randoms(use_true_random=False))
@examples(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_any_repetition_any_loss_ends_in_the_stand_ins_state(
    changes: list[tuple[str, int, int]], randomness: Any, codat: SandboxProcess, drain_queue: Drain
) -> None:
    start_anew(codat)
    companies = [onboarded(), onboarded()]
    for what, which, accounts in changes:
        change(codat, companies, what, which, accounts)
        to_send = [event for event in codat.control("GET", "webhooks")["events"] if randomness.random() < 0.8]
        to_send += [event for event in to_send if randomness.random() < 0.3]
        randomness.shuffle(to_send)
        for event in to_send:
            event = {key: event[key] for key in ("id", "eventType", "generatedDate", "payload")}
            assert post(Client(), event).status_code == 204
        if randomness.random() < 0.5:
            drain_queue()
    for company in companies:  # the last one is never lost
        arrives("connection.connected", company.codat_id)
    drain_queue()
    assert twins.here() == twins.there(codat)
    assert not WebhookEvent.objects.exclude(state=WebhookState.APPLIED).exists()


@examples(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
def test_when_every_webhook_is_lost_polling_ends_in_the_same_state(
    changes: list[tuple[str, int, int]], codat: SandboxProcess, drain_queue: Drain
) -> None:
    start_anew(codat)
    companies = [onboarded(), onboarded()]
    for what, which, accounts in changes:
        change(codat, companies, what, which, accounts)
    Connection.objects.update(poll_due_at=timezone.now())
    sync.poll()
    assert twins.here() == twins.there(codat)
    assert not WebhookEvent.objects.exists()


# --- Killed ----------------------------------------------------------------------------------------------------------
@pytest.mark.worker
@pytest.mark.parametrize("power_cut", [False, True], ids=["worker killed", "everything killed"])
def test_a_worker_killed_in_mid_reading_loses_nothing(
    power_cut: bool, codat: SandboxProcess, resting_worker: WorkerProcess
) -> None:
    company = onboarded()
    codat.connect(*ids(company))
    # A new connection is polled at once: here nobody but the webhooks may tell what has changed.
    Connection.objects.update(poll_due_at=timezone.now() + timedelta(hours=1))
    codat.post_fault("delay", "GET", ACCOUNTS_READ.removeprefix("GET "), delay_ms=3000)
    events = [arrives("bankFeeds.sourceAccount.connected", company.codat_id) for _ in range(3)]
    resting_worker.start()
    codat.wait_until_hit(within=20)

    if power_cut:
        resting_worker.kill_everything()
        resting_worker.start()
    else:
        os.kill(next(pid for pid in resting_worker.descendants() if not children(pid)), signal.SIGKILL)

    wait_until(lambda: {state_of(event) for event in events} == {WebhookState.APPLIED}, seconds=60, what="applied")
    assert twins.here() == twins.there(codat)
    changes = StatusEvent.objects.filter(seen_by=SeenBy.WEBHOOK).values_list("connection", "account", "new")
    assert len(changes) == len(set(changes)) == 3


# --- The budget ------------------------------------------------------------------------------------------------------
class TestBudget:
    def test_at_the_reserve_it_waits_for_quota_and_no_attempt_is_counted(
        self, customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        codat.connect(*ids(customer))
        quota_left(20)
        before = codat.requests_made(ACCOUNTS_READ)
        event = arrives("bankFeeds.sourceAccount.connected", customer.codat_id)
        drain_queue()
        event.refresh_from_db()
        assert (event.state, event.attempts) == (WebhookState.RECEIVED, 0)
        assert event.postponed_since is not None
        assert event.due_at is not None
        assert event.due_at > timezone.now() + timedelta(minutes=4)
        assert codat.requests_made(ACCOUNTS_READ) == before

    def test_it_is_applied_once_the_quota_allows(
        self, customer: Company, codat: SandboxProcess, drain_queue: Drain
    ) -> None:
        codat.connect(*ids(customer))
        quota_left(20)
        event = arrives("bankFeeds.sourceAccount.connected", customer.codat_id)
        drain_queue()
        for _again in range(3):  # as long as it does not, it stays postponed, without a task for each
            WebhookEvent.objects.update(due_at=timezone.now())
            assert inbox.sweep() == 0
        assert OrmQ.objects.count() == 0

        quota_left(900)
        WebhookEvent.objects.update(due_at=timezone.now())
        assert inbox.sweep() == 1
        drain_queue()
        event.refresh_from_db()
        assert (event.state, event.attempts, event.error) == (WebhookState.APPLIED, 1, "")
        assert event.postponed_since is None
        assert twins.here() == twins.there(codat)

    def test_it_says_since_when_and_how_many_and_is_not_taken_for_slow(
        self, customer: Company, drain_queue: Drain
    ) -> None:
        quota_left(20)
        for _ in range(2):
            arrives("connection.connected", customer.codat_id)
        drain_queue()
        WebhookEvent.objects.update(received_at=timezone.now() - timedelta(hours=5))
        health = inbox.lag()
        assert health.postponed == 2
        assert health.postponed_since is not None
        assert health.oldest_unapplied_seconds is None
        page = operations_page.parts(operations_page.read())
        said = {part.key: f"{part.value} {part.advice}" for part in page}
        assert "2 wait for quota since" in said["webhooks"]
        assert "none is lost" in said["webhooks"]
        assert "look at the workers" not in said["webhooks"]

    def test_it_comes_before_cases_and_after_links(self) -> None:
        assert Priority.LINK < Priority.WEBHOOK < Priority.CASE

    def test_news_of_the_quota_itself_always_get_through(self, drain_queue: Drain) -> None:
        quota_left(0)
        event = arrives("client.rateLimit.reset", dailyQuota=1000, quotaRemaining=1000)
        CodatQuota.objects.update(read_at=timezone.now() - timedelta(minutes=1))
        drain_queue()
        assert state_of(event) == WebhookState.APPLIED
        assert CodatQuota.objects.get().remaining == 1000


def quota_left(remaining: int) -> None:
    """Codat's last reply said so, of 1,000 calls; the day is nearly over. The reserve is 200."""
    CodatQuota.objects.update_or_create(
        pk=1,
        defaults={
            "limit": 1000,
            "remaining": remaining,
            "resets_at": timezone.now() + timedelta(hours=1),
            "read_at": timezone.now(),
        },
    )


# --- Forgotten -------------------------------------------------------------------------------------------------------
class TestPrune:
    def test_only_what_was_applied_long_ago_goes(self, settings: Settings) -> None:
        settings.WEBHOOK_KEEP_DAYS = 30
        for state in WebhookState.values:
            for days in (29, 31):
                at = timezone.now() - timedelta(days=days)
                event = WebhookEventFactory(state=state, applied_at=at if state == "applied" else None)
                WebhookEvent.objects.filter(pk=event.pk).update(received_at=at)
        assert tasks.prune_webhooks() == "1 deleted"
        left = Counter(WebhookEvent.objects.values_list("state", flat=True))
        assert left == {state: 1 if state == "applied" else 2 for state in WebhookState.values}

    def test_a_large_inbox_is_pruned_in_parts(self, monkeypatch: pytest.MonkeyPatch, drain_queue: Drain) -> None:
        monkeypatch.setattr(inbox, "PRUNED_AT_ONCE", 2)
        monkeypatch.setattr(inbox, "PRUNE_SECONDS", 0.0)
        long_ago = timezone.now() - timedelta(days=400)
        WebhookEventFactory.create_batch(5, state=WebhookState.APPLIED, applied_at=long_ago)
        assert inbox.prune() == 2
        drain_queue()
        assert not WebhookEvent.objects.exists()

    def test_it_is_scheduled(self) -> None:
        assert queue.PRUNE_WEBHOOKS in {entry.func for entry in queue.SCHEDULES}


# --- Watched ---------------------------------------------------------------------------------------------------------
class TestHealth:
    def test_an_empty_inbox_is_well(self) -> None:
        assert inbox.lag() == inbox.InboxHealth(None, None, failed=0, bad_signatures_today=0, silent=False)

    def test_it_tells_the_last_the_oldest_that_waits_and_how_many_failed(self) -> None:
        now = timezone.now()
        for state, minutes in (("received", 5), ("received", 3), ("failed", 60), ("failed", 50), ("applied", 1)):
            event = WebhookEventFactory(state=state)
            WebhookEvent.objects.filter(pk=event.pk).update(received_at=now - timedelta(minutes=minutes))
        health = inbox.lag()
        assert health.last_received_at == now - timedelta(minutes=1)
        assert health.oldest_unapplied_seconds == pytest.approx(300, abs=5)
        assert health.failed == 2

    def test_bad_signatures_of_yesterday_are_not_counted_today(self) -> None:
        today = timezone.now().date()
        DailyFigure.objects.create(name=inbox.BAD_SIGNATURES, day=today - timedelta(days=1), value=7)
        assert inbox.lag().bad_signatures_today == 0

    @pytest.mark.parametrize(
        ("polled_hours_ago", "webhook_hours_ago", "silent"),
        [(1, None, True), (1, 25, True), (1, 23, False), (25, None, False), (25, 30, False), (None, None, False)],
    )
    def test_it_is_silent_when_polling_sees_changes_and_no_webhook_comes(
        self, polled_hours_ago: int | None, webhook_hours_ago: int | None, silent: bool
    ) -> None:
        now = timezone.now()
        StatusEventFactory(seen_by=SeenBy.WEBHOOK)
        if polled_hours_ago is not None:
            seen = StatusEventFactory(seen_by=SeenBy.POLL)
            StatusEvent.objects.filter(pk=seen.pk).update(created_at=now - timedelta(hours=polled_hours_ago))
        if webhook_hours_ago is not None:
            event = WebhookEventFactory()
            WebhookEvent.objects.filter(pk=event.pk).update(received_at=now - timedelta(hours=webhook_hours_ago))
        assert inbox.lag().silent is silent

    def test_looking_takes_at_most_five_queries(self, django_assert_max_num_queries: Any) -> None:
        for state in WebhookState.values * 5:
            WebhookEventFactory(state=state)
        with django_assert_max_num_queries(5):
            inbox.lag()


def test_a_webhook_that_failed_once_is_postponed_like_the_others() -> None:
    company = CompanyFactory(in_codat=True)
    CodatQuota.objects.create(limit=1000, remaining=0, read_at=timezone.now())
    event = WebhookEventFactory(
        codat_company_id=company.codat_id, attempts=1, due_at=timezone.now() - timedelta(seconds=1)
    )
    assert inbox.sweep() == 1
    assert inbox.apply(event.pk, 1).startswith("postponed")
    event.refresh_from_db()
    assert event.postponed_since is not None

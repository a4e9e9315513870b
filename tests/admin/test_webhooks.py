"""The webhook screen: what it shows and finds, and Apply again on one webhook and on many."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_q.models import OrmQ

from feeds import audit
from feeds.models import AuditEntry, Company, WebhookEvent
from feeds.services import inbox, onboarding
from feeds.states import AccountStatus, WebhookState
from tests.factories import CompanyFactory, SourceAccountFactory, UserFactory, WebhookEventFactory
from tests.sandbox_process import SandboxProcess
from tests.webhooks import SECRET, envelope, post

LIST = "admin:feeds_webhookevent_changelist"
WAITS = "It is waiting to be applied already."
pytestmark = pytest.mark.django_db


def failed(**values: Any) -> WebhookEvent:
    """A webhook that was given up."""
    event: WebhookEvent = WebhookEventFactory(state=WebhookState.FAILED, attempts=12, error="Codat is away.", **values)
    return event


def browser(*permissions: str) -> Client:
    """Someone signed in who sees webhooks."""
    client = Client()
    client.force_login(UserFactory(permissions=["feeds.view_webhookevent", *permissions]))
    return client


@pytest.fixture
def staff() -> Client:
    """Someone who may apply webhooks again."""
    return browser("feeds.reapply_webhook")


@pytest.fixture
def customer(codat: SandboxProcess, drain_queue: Callable[[], int]) -> Company:
    """A company with one account, in the stand-in and here, not connected yet as far as we know."""
    company = CompanyFactory()
    SourceAccountFactory(company=company)
    onboarding.request(company, actor=audit.SYSTEM)
    drain_queue()
    company.refresh_from_db()
    codat.connect(company.codat_id, company.connections.get().codat_id)
    return company


def action_url(event: WebhookEvent) -> str:
    return reverse("admin:feeds_webhookevent_action", args=[event.pk, "apply-again"])


def press(client: Client, event: WebhookEvent) -> list[str]:
    """Press Apply again on the webhook's page; the messages that follow."""
    return messages(client.post(action_url(event), follow=True))


def tick(client: Client, *events: WebhookEvent) -> list[str]:
    """Tick webhooks in the list and choose Apply again; the messages that follow."""
    data = {"action": "apply_selected_again", "_selected_action": [event.pk for event in events]}
    return messages(client.post(reverse(LIST), data, follow=True))


def messages(answer: Any) -> list[str]:
    assert answer.status_code == 200
    return [str(message) for message in answer.context["messages"]]


def is_connected(company: Company) -> bool:
    """Whether our mirror shows the account as connected."""
    return company.source_accounts.get().status == AccountStatus.CONNECTED


class TestApplyAgain:
    def test_it_reads_the_company_and_the_webhook_is_applied(
        self, staff: Client, customer: Company, drain_queue: Callable[[], int]
    ) -> None:
        event = failed(codat_company_id=customer.codat_id)
        assert press(staff, event) == ["Queued: it is applied within seconds."]
        drain_queue()
        event.refresh_from_db()
        assert (event.state, event.attempts, event.error) == (WebhookState.APPLIED, 1, "")
        assert event.company == customer
        assert is_connected(customer)

    def test_one_about_a_company_that_was_adopted_since_can_be_applied(
        self, staff: Client, customer: Company, drain_queue: Callable[[], int]
    ) -> None:
        event = WebhookEventFactory(codat_company_id=customer.codat_id, state=WebhookState.IGNORED)
        press(staff, event)
        drain_queue()
        event.refresh_from_db()
        assert event.state == WebhookState.APPLIED

    def test_it_is_hidden_and_refused_without_the_permission(self) -> None:
        event, client = failed(), browser()
        page = client.get(reverse("admin:feeds_webhookevent_change", args=[event.pk])).content.decode()
        assert action_url(event) not in page
        assert client.get(action_url(event)).status_code == 403
        assert client.post(action_url(event)).status_code == 403
        event.refresh_from_db()
        assert event.state == WebhookState.FAILED
        assert not OrmQ.objects.exists()

    def test_looking_at_the_confirmation_changes_nothing(self, staff: Client) -> None:
        event = failed()
        page = staff.get(action_url(event)).content.decode()
        assert "Its company is read from Codat again" in page
        event.refresh_from_db()
        assert event.state == WebhookState.FAILED
        assert not OrmQ.objects.exists()

    @pytest.mark.parametrize(
        ("state", "why"),
        [
            (WebhookState.RECEIVED, WAITS),
            (
                WebhookState.APPLIED,
                "It is applied. To read the company from Codat once more, press Refresh on the company.",
            ),
        ],
    )
    def test_it_says_why_it_makes_no_sense_now(self, state: str, why: str, staff: Client) -> None:
        event = WebhookEventFactory(state=state)
        assert press(staff, event) == [why]
        assert not OrmQ.objects.exists()

    def test_what_codat_answers_is_on_the_webhook(
        self, staff: Client, customer: Company, settings: Any, drain_queue: Callable[[], int]
    ) -> None:
        settings.CODAT_API_KEY, settings.WEBHOOK_MAX_ATTEMPTS = "a-wrong-key", 2
        event = failed(codat_company_id=customer.codat_id)
        press(staff, event)
        drain_queue()
        event.refresh_from_db()
        assert (event.state, event.attempts) == (WebhookState.FAILED, 2)
        assert event.error.startswith(
            "Gave up after 2 attempts. Press Apply again once Codat is well again. "
            "Last answer: Codat refused our API key. Ask an administrator to check CODAT_API_KEY, then try again."
        )

    def test_the_history_says_who_pressed_it(self, staff: Client) -> None:
        event = failed()
        press(staff, event)
        entry = AuditEntry.objects.get(event="webhook_reapplied")
        assert (entry.object_pk, entry.source) == (str(event.pk), "admin")
        assert entry.actor is not None


class TestApplySelectedAgain:
    def test_each_is_applied(self, staff: Client, customer: Company, drain_queue: Callable[[], int]) -> None:
        events = [failed(codat_company_id=customer.codat_id) for _ in range(3)]
        assert tick(staff, *events) == ["3 done"]
        drain_queue()
        assert set(WebhookEvent.objects.values_list("state", flat=True)) == {WebhookState.APPLIED}
        assert is_connected(customer)

    def test_it_is_hidden_and_refused_without_the_permission(self) -> None:
        event, client = failed(), browser()
        assert "apply_selected_again" not in client.get(reverse(LIST)).content.decode()
        tick(client, event)
        event.refresh_from_db()
        assert event.state == WebhookState.FAILED

    def test_a_bad_row_does_not_stop_the_others(self, staff: Client) -> None:
        good, bad = [failed(), failed()], WebhookEventFactory()
        assert tick(staff, good[0], bad, good[1]) == [f"2 done, 1 refused: {bad}: {WAITS}"]
        assert not WebhookEvent.objects.filter(state=WebhookState.FAILED).exists()
        assert OrmQ.objects.count() == 2

    def test_what_codat_answers_is_on_each_webhook(
        self, staff: Client, customer: Company, codat: SandboxProcess, settings: Any, drain_queue: Callable[[], int]
    ) -> None:
        settings.WEBHOOK_MAX_ATTEMPTS = 1
        codat.post_fault("status", status=503, times=1000)
        events = [failed(codat_company_id=customer.codat_id) for _ in range(2)]
        tick(staff, *events)
        drain_queue()
        errors = set(WebhookEvent.objects.values_list("state", "error"))
        assert {state for state, _error in errors} == {WebhookState.FAILED}
        assert all("Codat had a fault of its own." in error for _state, error in errors)

    def test_the_history_says_who_chose_it(self, staff: Client) -> None:
        events = [failed(), failed()]
        tick(staff, *events)
        entries = AuditEntry.objects.filter(event="webhook_reapplied")
        assert {entry.object_pk for entry in entries} == {str(event.pk) for event in events}
        assert all(entry.actor is not None for entry in entries)


class TestWhatIsShown:
    def test_the_list_shows_received_applied_and_the_time_between(self, staff: Client) -> None:
        event = WebhookEventFactory(state=WebhookState.APPLIED)
        event.applied_at = event.received_at + timedelta(seconds=2.44)
        event.save()
        WebhookEventFactory()
        page = staff.get(reverse(LIST)).content.decode()
        assert re.search(r'<td class="field-lag">2\.4 s</td>', page)
        assert re.search(r'<td class="field-lag">—</td>', page)
        assert f'<time class="nowrap" datetime="{event.received_at.isoformat()}"' in page
        assert f'<time class="nowrap" datetime="{event.applied_at.isoformat()}"' in page

    def test_the_page_says_what_went_wrong_and_what_to_do(self, staff: Client) -> None:
        event = failed()
        page = staff.get(reverse("admin:feeds_webhookevent_change", args=[event.pk])).content.decode()
        for text in ("Codat is away.", "press Apply again", event.webhook_id, event.codat_company_id):
            assert text in page

    def test_no_page_shows_anything_secret(self, settings: Any, staff: Client) -> None:
        settings.WEBHOOK_SECRETS = [SECRET]
        link = "https://link.codat.example/start?otp=112233"
        account = {"id": "a-1", "accountNumber": "000123456789"}
        post(Client(), envelope("connection.connected", "c", connection={"linkUrl": link}, sourceAccount=account))
        event = WebhookEvent.objects.get()
        for url in (reverse(LIST), reverse("admin:feeds_webhookevent_change", args=[event.pk]), action_url(event)):
            page = staff.get(url).content.decode()
            assert not [secret for secret in ("112233", "000123456789", "link.codat", SECRET) if secret in page]

    @pytest.mark.parametrize("query", ["state__exact", "event_type", "q", "q company", "q codat id"])
    def test_filters_and_search_find_the_one(self, query: str, staff: Client) -> None:
        company = CompanyFactory(customer_number="C-77", codat_id="codat-77")
        wanted = failed(company=company, codat_company_id="codat-77", event_type="company.deleted", webhook_id="msg-x")
        WebhookEventFactory(company=CompanyFactory(), applied_at=timezone.now(), state=WebhookState.APPLIED)
        value = {
            "state__exact": "failed",
            "event_type": "company.deleted",
            "q": "msg-x",
            "q company": "C-77",
            "q codat id": "codat-77",
        }[query]
        answer = staff.get(reverse(LIST), {query.split()[0]: value})
        assert list(answer.context["cl"].result_list) == [wanted]

    def test_the_types_to_filter_by_are_known_without_asking_the_database(self, staff: Client) -> None:
        page = staff.get(reverse(LIST)).content.decode()
        assert all(f"event_type={event_type}" in page for event_type in inbox.EVENT_TYPES)

"""The page of a bulk onboarding: what has become of each company, and the way on for those that failed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django.fixtures import Settings

from feeds.models import AuditEntry, Batch, BatchItem, Company
from feeds.services.roles import COMPLIANCE_AUDITORS, RELATIONSHIP_MANAGERS
from feeds.states import OnboardingState
from tests.factories import BatchFactory, CompanyFactory, SourceAccountFactory, UserFactory
from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff() -> Client:
    """A relationship manager's browser."""
    return browser(RELATIONSHIP_MANAGERS)


def browser(role: str) -> Client:
    """Someone of that role, signed in."""
    client = Client()
    client.force_login(UserFactory(role=role))
    return client


def batch_of(*states: OnboardingState) -> Batch:
    """A batch with one company in each of the states."""
    batch: Batch = BatchFactory(requested_by_name="Robin Hall", source="admin")
    for state in states:
        error = "Codat refused the name." if state == OnboardingState.FAILED else ""
        company = SourceAccountFactory(company__onboarding_state=state, company__onboarding_error=error).company
        BatchItem.objects.create(batch=batch, company=company)
    return batch


def page(client: Client, batch: Batch) -> str:
    """The batch's page."""
    return str(client.get(reverse("admin:feeds_batch_change", args=[batch.pk])).content.decode())


def panel(client: Client, batch: Batch) -> str:
    """The live panel alone."""
    return str(client.get(reverse("admin:feeds_batch_progress", args=[batch.pk])).content.decode())


def retry_url(batch: Batch) -> str:
    """The action that continues what failed."""
    return reverse("admin:feeds_batch_action", args=[batch.pk, "retry-failed"])


def texts(answer: Any) -> list[str]:
    """The messages the page shows."""
    return [re.sub(r"<[^>]+>", "", str(message)) for message in answer.context["messages"]]


def test_it_counts_done_failed_and_waiting(staff: Client) -> None:
    states = (OnboardingState.LINK_READY, OnboardingState.LINKED, OnboardingState.FAILED, OnboardingState.QUEUED)
    assert "2 done, 1 failed, 1 waiting, of 4" in page(staff, batch_of(*states))


def test_those_that_need_a_person_come_first(staff: Client) -> None:
    batch = batch_of(OnboardingState.LINKED, OnboardingState.WORKING, OnboardingState.FAILED)
    pills = re.findall(r"pill-(?:good|waiting|bad)", panel(staff, batch))
    assert pills == ["pill-bad", "pill-waiting", "pill-good"]
    assert "Codat refused the name." in panel(staff, batch)


@pytest.mark.parametrize(
    ("state", "is_live"),
    [(OnboardingState.QUEUED, True), (OnboardingState.RETRYING, True), (OnboardingState.FAILED, False)],
)
def test_it_is_asked_for_again_only_while_something_waits(staff: Client, state: OnboardingState, is_live: bool) -> None:
    assert (" data-live=" in panel(staff, batch_of(state, OnboardingState.LINKED))) is is_live


def test_a_batch_that_nothing_entered_says_so(staff: Client) -> None:
    assert "Every company was refused before it could start." in page(staff, batch_of())


def test_the_failed_are_retried_and_the_others_left_alone(
    staff: Client, codat: SandboxProcess, drain_queue: Callable[[], int]
) -> None:
    batch = batch_of(OnboardingState.FAILED, OnboardingState.FAILED, OnboardingState.DRAFT)
    confirmation = staff.get(retry_url(batch))
    assert confirmation.context["consequences"][0] == "2 companies are tried again."

    answer = staff.post(retry_url(batch), follow=True)

    assert texts(answer) == ["2 companies continue."]
    assert answer.redirect_chain == [(reverse("admin:feeds_batch_change", args=[batch.pk]), 302)]
    drain_queue()
    states = sorted(batch.companies.values_list("onboarding_state", flat=True))
    assert states == ["draft", "link_ready", "link_ready"]
    assert codat.stats()["objects"]["companies"] == 2


def test_one_that_cannot_go_on_does_not_stop_the_others(staff: Client) -> None:
    batch = batch_of(OnboardingState.FAILED, OnboardingState.FAILED)
    bad = batch.companies.order_by("pk").first()
    assert bad is not None
    bad.source_accounts.all().delete()
    assert texts(staff.post(retry_url(batch), follow=True)) == ["1 company continues."]
    assert Company.objects.get(onboarding_state="queued") != bad


def test_who_retried_is_kept(staff: Client) -> None:
    staff.post(retry_url(batch_of(OnboardingState.FAILED)))
    entry = AuditEntry.objects.filter(source="admin").latest("pk")
    assert entry.changes["onboarding_state"] == ["failed", "queued"]
    assert entry.actor_name.startswith("Robin")


def test_what_the_queue_does_of_a_large_batch_is_whose_click_it_was(
    staff: Client, settings: Settings, drain_queue: Callable[[], int], codat: SandboxProcess
) -> None:
    settings.BULK_LIMIT = 1
    batch = batch_of(*[OnboardingState.FAILED] * 2)
    staff.post(retry_url(batch))
    drain_queue()
    entries = AuditEntry.objects.filter(content_type__model="company", fields__contains=",onboarding_state,")
    continued = [it for it in entries if it.changes["onboarding_state"] == ["failed", "queued"]]
    assert len(continued) == 2
    assert {it.actor_name[:5] for it in continued} == {"Robin"}


def test_of_a_large_batch_the_queue_does_what_one_page_cannot_wait_for(
    staff: Client, settings: Settings, drain_queue: Callable[[], int], codat: SandboxProcess
) -> None:
    settings.BULK_LIMIT = 2
    batch = batch_of(*[OnboardingState.FAILED] * 5)
    bad = batch.companies.order_by("pk")[2]
    bad.source_accounts.all().delete()
    answer = staff.post(retry_url(batch), follow=True)
    assert texts(answer) == ["2 companies continue. The others follow by themselves."]
    assert batch.companies.filter(onboarding_state=OnboardingState.FAILED).count() == 3
    drain_queue()
    states = sorted(batch.companies.values_list("onboarding_state", flat=True))
    assert states == ["failed", *["link_ready"] * 4]
    pressed = AuditEntry.objects.filter(source="admin", changes__onboarding_state=["failed", "queued"])
    assert pressed.count() == 4
    assert set(pressed.values_list("actor_name", flat=True)) == {pressed[0].actor_name}


def test_without_a_failure_there_is_nothing_to_retry(staff: Client) -> None:
    batch = batch_of(OnboardingState.LINKED)
    assert retry_url(batch) not in page(staff, batch)
    assert texts(staff.post(retry_url(batch))) == ["No company of this batch has failed."]


def test_retry_is_hidden_and_refused_without_permission() -> None:
    auditor = browser(COMPLIANCE_AUDITORS)
    batch = batch_of(OnboardingState.FAILED)
    assert retry_url(batch) not in page(auditor, batch)
    assert auditor.post(retry_url(batch)).status_code == 403
    assert not Company.objects.filter(onboarding_state="queued").exists()


def test_its_panel_is_refused_without_permission() -> None:
    stranger = Client()
    stranger.force_login(UserFactory())
    assert stranger.get(reverse("admin:feeds_batch_progress", args=[batch_of().pk])).status_code == 403


def test_a_batch_that_does_not_exist_answers_404(staff: Client) -> None:
    unknown = "00000000-0000-0000-0000-000000000000"
    assert staff.get(reverse("admin:feeds_batch_progress", args=[unknown])).status_code == 404


def test_a_long_batch_shows_its_beginning_and_says_how_much_more(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feeds.admin.batches.ROWS", 1)
    assert "And 2 more." in page(staff, batch_of(*[OnboardingState.LINKED] * 3))


def test_it_costs_the_same_for_one_and_for_fifty_companies(staff: Client) -> None:
    def queries(batch: Batch) -> int:
        with CaptureQueriesContext(database) as captured:
            page(staff, batch)
        return len(captured)

    few = queries(batch_of(OnboardingState.FAILED))
    assert queries(batch_of(*[OnboardingState.FAILED] * 50)) == few
    assert few <= 9


def test_the_list_costs_the_same_for_one_and_for_fifty_batches(staff: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(database) as captured:
            assert staff.get(reverse("admin:feeds_batch_changelist")).status_code == 200
        return len(captured)

    BatchFactory()
    few = queries()
    BatchFactory.create_batch(49)
    CompanyFactory()
    assert queries() == few

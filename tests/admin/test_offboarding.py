"""A customer leaves: the connection, or the whole company, is deleted in Codat on purpose. That is no broken feed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from feeds import audit
from feeds.models import AuditEntry, Case, Company, Mail, Operation
from feeds.services import onboarding, sync
from feeds.states import AccountStatus, CaseOutcome, OnboardingState, OperationState
from tests.factories import CompanyFactory, SourceAccountFactory, UserFactory
from tests.sandbox_process import SandboxProcess

REASON = "The customer moved to another bank."
pytestmark = pytest.mark.django_db
Drain = Callable[[], int]


@pytest.fixture
def customer(codat: SandboxProcess, drain_queue: Drain) -> Company:
    """A customer whose two accounts QuickBooks reads."""
    company: Company = CompanyFactory()
    SourceAccountFactory.create_batch(2, company=company)
    onboarding.request(company, actor=audit.SYSTEM)
    drain_queue()
    company.refresh_from_db()
    codat.connect(company.codat_id, company.connections.get().codat_id)
    sync.refresh_company(company, actor=audit.SYSTEM)
    return company


@pytest.fixture
def boss() -> User:
    """An administrator."""
    user: User = UserFactory(role="Administrators", first_name="Ahmed", last_name="Boss")
    return user


def browser(user: User) -> Client:
    """The person's browser."""
    client = Client()
    client.force_login(user)
    return client


def url(obj: Model, name: str) -> str:
    """Address of an action."""
    return reverse(f"admin:feeds_{obj._meta.model_name}_action", args=[obj.pk, name])


def delete_connection(company: Company, user: User) -> Any:
    """Press Delete in Codat on the connection."""
    return browser(user).post(url(company.connections.get(), "delete"), {"reason": REASON}, follow=True)


def delete_company(company: Company, user: User) -> Any:
    """Press Delete in Codat on the company."""
    return browser(user).post(url(company, "delete-in-codat"), {"reason": REASON}, follow=True)


both = pytest.mark.parametrize("delete", [delete_connection, delete_company])


@both
def test_it_is_deleted_there_and_marked_here(
    delete: Callable[[Company, User], Any],
    customer: Company,
    boss: User,
    codat: SandboxProcess,
    drain_queue: Drain,
) -> None:
    answer = delete(customer, boss)
    operation = Operation.objects.latest("pk")
    assert [re.sub(r"<[^>]+>", "", str(it)) for it in answer.context["messages"]] == [
        f"Asked for; follow it here: {operation}."
    ]
    drain_queue()
    operation.refresh_from_db()
    customer.refresh_from_db()
    assert (operation.state, operation.result) == (OperationState.SUCCEEDED, "Deleted.")
    assert customer.connections.get().gone_at is not None
    assert customer.onboarding_state == OnboardingState.OFFBOARDED
    assert (customer.gone_at is not None) == (delete is delete_company)
    objects = codat.stats()["objects"]
    assert objects["connections"] == 0
    assert objects["companies"] == (0 if delete is delete_company else 1)


@both
def test_no_case_is_opened_and_later_readings_change_nothing(
    delete: Callable[[Company, User], Any], customer: Company, boss: User, drain_queue: Drain
) -> None:
    delete(customer, boss)
    drain_queue()
    sync.sweep_listing()
    customer.refresh_from_db()
    assert not Case.objects.exists()
    assert customer.onboarding_state == OnboardingState.OFFBOARDED


@both
def test_an_open_case_is_settled_by_whoever_deleted_it_and_nobody_hears_that_the_feed_works(
    delete: Callable[[Company, User], Any], customer: Company, boss: User, codat: SandboxProcess, drain_queue: Drain
) -> None:
    account = customer.source_accounts.first()
    assert account is not None
    codat.disconnect(customer.codat_id, customer.connections.get().codat_id, accountId=account.account_id, now=True)
    sync.refresh_company(customer, actor=audit.SYSTEM)
    assert Case.objects.get().is_open
    delete(customer, boss)
    drain_queue()
    case = Case.objects.get()
    assert (case.is_open, case.outcome, case.outcome_reason) == (False, CaseOutcome.NOT_WANTED, REASON)
    assert case.events.latest("pk").actor_name == "Ahmed Boss"
    assert not Mail.objects.filter(kind="recovered").exists()


@both
def test_an_answer_that_was_lost_is_looked_for_and_counts_as_done(
    delete: Callable[[Company, User], Any], customer: Company, boss: User, codat: SandboxProcess, drain_queue: Drain
) -> None:
    codat.post_fault("drop_after", method="DELETE")
    delete(customer, boss)
    drain_queue()
    operation = Operation.objects.latest("pk")
    assert (operation.state, operation.result) == (OperationState.SUCCEEDED, "Was already gone in Codat.")
    assert operation.attempts == 2


@both
def test_what_codat_answers_is_on_the_operation(
    delete: Callable[[Company, User], Any], customer: Company, boss: User, settings: Any, drain_queue: Drain
) -> None:
    settings.CODAT_API_KEY = "a-wrong-key"
    delete(customer, boss)
    drain_queue()
    operation = Operation.objects.latest("pk")
    assert operation.state == OperationState.FAILED
    assert operation.error.startswith("Codat refused our API key.")
    customer.refresh_from_db()
    assert (customer.gone_at, customer.onboarding_state) == (None, OnboardingState.LINKED)


@both
def test_the_history_says_who_and_why(
    delete: Callable[[Company, User], Any], customer: Company, boss: User, drain_queue: Drain
) -> None:
    delete(customer, boss)
    operation = Operation.objects.latest("pk")
    assert (operation.requested_by, operation.reason) == (boss, REASON)
    entry = AuditEntry.objects.get(
        content_type__model="operation", object_pk=str(operation.pk), action=AuditEntry.Action.CREATE
    )
    assert (entry.actor, entry.source) == (boss, "admin")


def test_deleting_the_company_is_hidden_and_refused_without_the_permission(customer: Company) -> None:
    support = browser(UserFactory(role="Support"))
    address = url(customer, "delete-in-codat")
    page = support.get(reverse("admin:feeds_company_change", args=[customer.pk]))
    assert address not in page.content.decode()
    assert support.get(address).status_code == 403
    assert support.post(address, {"reason": REASON}).status_code == 403
    assert not Operation.objects.filter(kind="delete_company").exists()


def test_the_page_says_how_many_feeds_stop(customer: Company, boss: User) -> None:
    client = browser(boss)
    for address in (url(customer, "delete-in-codat"), url(customer.connections.get(), "delete")):
        page = client.get(address).content.decode()
        assert "2 accounts stop feeding." in page
        assert "This cannot be undone." in page


def test_a_company_that_codat_does_not_have_cannot_be_deleted_there(boss: User) -> None:
    answer = delete_company(CompanyFactory(), boss)
    assert [str(it) for it in answer.context["messages"]] == ["Codat does not have this company."]
    assert not Operation.objects.exists()


@both
def test_a_customer_who_comes_back_is_onboarded_again(
    delete: Callable[[Company, User], Any], customer: Company, boss: User, codat: SandboxProcess, drain_queue: Drain
) -> None:
    delete(customer, boss)
    drain_queue()
    customer.refresh_from_db()
    onboarding.request(customer, actor=audit.SYSTEM)
    drain_queue()
    customer.refresh_from_db()
    assert customer.onboarding_state == OnboardingState.LINK_READY, customer.onboarding_error
    again = customer.connections.get(gone_at__isnull=True)
    assert again.source_accounts.filter(gone_at__isnull=True).count() == 2

    # The new one is watched like any other.
    codat.connect(customer.codat_id, again.codat_id)
    sync.refresh_company(customer, actor=audit.SYSTEM)
    assert set(again.source_accounts.values_list("status", flat=True)) == {AccountStatus.CONNECTED}
    account = again.source_accounts.first()
    assert account is not None
    codat.disconnect(customer.codat_id, again.codat_id, accountId=account.account_id, now=True)
    sync.refresh_company(customer, actor=audit.SYSTEM)
    assert Case.objects.get().connection == again

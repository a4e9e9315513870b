"""The change history: who changed what, from where, and nothing that must stay hidden."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.db import models
from django.test import Client
from django.urls import reverse
from django.utils import translation

from feeds import audit, tasks
from feeds.audit import Actor
from feeds.models import (
    AccessGrant,
    ApiKey,
    Approval,
    AuditEntry,
    Batch,
    CalloutVersion,
    Case,
    Company,
    Connection,
    Incident,
    Invitation,
    Operation,
    Preference,
    SourceAccount,
)
from feeds.services import accounts, onboarding
from feeds.states import CaseCause, OperationState
from tests.factories import (
    AccessGrantFactory,
    ApiKeyFactory,
    ApprovalFactory,
    BatchFactory,
    CalloutVersionFactory,
    CaseFactory,
    CompanyFactory,
    ConnectionFactory,
    IncidentFactory,
    InvitationFactory,
    OperationFactory,
    SourceAccountFactory,
    UserFactory,
)
from tests.sandbox_process import SandboxProcess
from tests.services.grid import RM

pytestmark = pytest.mark.django_db
Drain = Callable[[], int]

CHANGES: dict[type[models.Model], tuple[Callable[[], Any], str, object]] = {
    Company: (CompanyFactory, "legal_name", "Maple Mill Inc."),
    Connection: (ConnectionFactory, "status", "Linked"),
    SourceAccount: (SourceAccountFactory, "name", "Payroll"),
    Operation: (OperationFactory, "state", OperationState.SENDING),
    Batch: (BatchFactory, "label", "Tuesday"),
    Case: (CaseFactory, "cause", CaseCause.CUSTOMER_STOPPED),
    CalloutVersion: (CalloutVersionFactory, "title_fr", "Avant"),
    Preference: (lambda: Preference.objects.create(user=UserFactory(), language="en"), "language", "fr"),
    Incident: (IncidentFactory, "note", "Codat's status page"),
    Approval: (ApprovalFactory, "comment", "As agreed with the customer."),
    Invitation: (InvitationFactory, "contact_email", "alex@bakery.example"),
    ApiKey: (ApiKeyFactory, "name", "Branch portal"),
    AccessGrant: (AccessGrantFactory, "ended_by_name", "Rosa Marchetti"),
    User: (UserFactory, "email", "robin@bank.example"),
    Group: (lambda: Group.objects.create(name="Night shift"), "name", "Day shift"),
}


def history(row: models.Model) -> Any:
    """The entries about one row, oldest first."""
    return AuditEntry.objects.get_for_object(row).order_by("pk")


# --- Who and what ----------------------------------------------------------------------------------------------------
def test_every_audited_model_is_tested_here() -> None:
    assert set(CHANGES) == set(audit._AUDITED)


@pytest.mark.parametrize("model", CHANGES, ids=lambda model: model.__name__)
def test_making_and_changing_a_row_says_who_from_where_and_what(model: type[models.Model]) -> None:
    make, field, value = CHANGES[model]
    user = UserFactory(first_name="Rita", last_name="Moreau")
    with audit.acting(Actor.person(user, source="admin", remote_addr="192.0.2.7")):
        row = make()
        before = str(getattr(row, field))
        setattr(row, field, value)
        row.save()
    created, changed = history(row)
    assert (created.action, changed.action) == (AuditEntry.Action.CREATE, AuditEntry.Action.UPDATE)
    assert changed.changes[field] == [before, str(value)]
    for entry in (created, changed):
        assert (entry.actor, entry.actor_name, entry.source) == (user, "Rita Moreau", "admin")
        assert (entry.actor_email, entry.remote_addr) == (user.email, "192.0.2.7")


@pytest.mark.parametrize("model", CHANGES, ids=lambda model: model.__name__)
def test_saving_a_row_that_did_not_change_leaves_nothing(model: type[models.Model]) -> None:
    row = CHANGES[model][0]()
    before = history(row).count()
    row.save()
    assert history(row).count() == before


def test_a_deletion_is_history_too() -> None:
    company = CompanyFactory()
    key = str(company.pk)
    company.delete()
    entry = AuditEntry.objects.filter(object_pk=key).latest("pk")
    assert entry.action == AuditEntry.Action.DELETE
    assert entry.object_repr == str(company)


def test_a_persons_groups_and_a_groups_permissions_are_history() -> None:
    user, group = UserFactory(), Group.objects.create(name="Night shift")
    user.groups.add(group)
    assert history(user).last().changes["groups"]["objects"] == ["Night shift"]
    group.permissions.add(Permission.objects.get(codename="onboard_company"))
    assert history(group).last().changes["permissions"]["operation"] == "add"


def test_that_a_password_changed_is_history_and_nothing_of_it_is() -> None:
    user = UserFactory()
    user.set_password("another invented pass phrase")
    with audit.acting(Actor.service("setup")):
        user.save()
    entry = history(user).last()
    assert (entry.actor_name, entry.changes) == ("setup", {"password": ["••••", "••••"]})


def test_a_thing_is_called_in_the_sites_language_whoever_did_it() -> None:
    with translation.override("fr"):
        operation = OperationFactory()
        name = f"Refresh link #{operation.pk}"
        audit.record("looked_at", operation)
        operation.delete()
    entries = AuditEntry.objects.filter(content_type__model="operation")
    assert set(entries.values_list("object_repr", flat=True)) == {name}


def test_the_longest_name_a_person_may_have_fits() -> None:
    person = UserFactory(first_name="F" * 150, last_name="L" * 150)
    with audit.acting(Actor.person(person, source="admin")):
        entry = audit.record("looked_at", text="it")
    assert entry.actor_name == "F" * 150 + " " + "L" * 49


# --- Hidden things ---------------------------------------------------------------------------------------------------
def test_account_numbers_are_masked_before_and_after() -> None:
    account = SourceAccountFactory(account_number="900417733218")
    account.account_number = "900417739999"
    account.save()
    assert history(account).first().changes["account_number"][1] == "••••3218"
    assert history(account).last().changes["account_number"] == ["••••3218", "••••9999"]
    account.delete()
    written = str(list(AuditEntry.objects.values()))
    assert not re.search(r"90041773\d{4}", written)


def test_a_whole_number_that_somebody_typed_into_a_text_is_masked() -> None:
    entry = audit.record("looked_at", CompanyFactory(), reason="Asked about 900417733218 on the phone, 3 times.")
    assert entry.reason == "Asked about ••••3218 on the phone, 3 times."
    company = CompanyFactory(notes="Account 900417733218")
    company.notes = "Account 900417739999"
    with audit.acting(Actor(name="Rita", source="cli", reason="from 900417733218")):
        company.save()
    assert history(company).last().changes["notes"] == ["Account ••••3218", "Account ••••9999"]
    assert not re.search(r"90041773\d{4}", str(list(AuditEntry.objects.values())))


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("As it stands on the statement: 4030-0556-7719.", "As it stands on the statement: ••••7719."),
        (
            "Since 2026-11-26 09:00:00, customers 1042 1043 1044.",
            "Since 2026-11-26 09:00:00, customers 1042 1043 1044.",
        ),
        ("2026-11-26-900417733218", "2026-11-26-••••3218"),
        ("Account 4030-05-56-7719", "Account ••••7719"),
        ("1234567 is too short", "1234567 is too short"),
    ],
)
def test_a_number_is_masked_as_people_write_it_and_a_date_is_none(typed: str, kept: str) -> None:
    request = ApprovalFactory()
    request.comment = typed
    request.save()
    assert history(request).last().changes["comment"][1] == kept


def test_an_entry_knows_its_customer_and_its_fields() -> None:
    account = SourceAccountFactory()
    account.name, account.currency = "Payroll", "CAD"
    account.save()
    for row in (account, account.company, CaseFactory(), OperationFactory()):
        assert {entry.company_id for entry in history(row)} == {getattr(row, "company_id", row.pk)}
    assert history(account).last().fields == ",currency,name,"
    assert list(AuditEntry.objects.touching("currency").filter(object_pk=str(account.pk)))[0] == history(account).last()
    assert history(UserFactory()).last().company_id is None


def test_a_corrected_number_with_the_same_end_is_still_a_change() -> None:
    account = SourceAccountFactory(account_number="900417733218")
    account.account_number = "800417733218"
    account.save()
    assert "account_number" in history(account).last().changes


def test_a_link_is_no_history_but_that_one_was_fetched_is() -> None:
    connection = ConnectionFactory()
    connection.link_url = "https://link.example/secret?otp=112233"
    connection.link_fetched_at = connection.link_expires_at = connection.read_at
    connection.save()
    assert set(history(connection).last().changes) == {"link_fetched_at"}
    connection.company.redirect_url = "https://link.example/company/secret"
    connection.company.notes = "Changed"
    connection.company.save()
    assert history(connection.company).last().changes == {"notes": ["", "Changed"], "redirect_url": ["", "••••"]}


@pytest.mark.parametrize(("model", "hidden"), [(Company, {"raw", "lease_token"}), (Operation, {"payload"})])
def test_what_is_not_on_the_list_is_not_kept(model: type[models.Model], hidden: set[str]) -> None:
    assert not hidden & set(audit._AUDITED[model]["include_fields"])
    row = CHANGES[model][0]()
    assert not hidden & set(history(row).first().changes)


def test_every_field_on_the_list_exists() -> None:
    for model, options in audit._AUDITED.items():
        names = {field.name for field in model._meta.get_fields()}
        assert set(options["include_fields"]) | set(options.get("m2m_fields", ())) <= names, model


# --- Actors ----------------------------------------------------------------------------------------------------------
def recorded() -> AuditEntry:
    """An event recorded now."""
    return audit.record("looked_at", CompanyFactory())


def test_blocks_nest_and_end() -> None:
    with audit.acting(RM):
        with audit.acting(Actor.service("worker")):
            assert recorded().actor_name == "worker"
        assert recorded().actor_name == RM.name
    assert recorded().actor_name == "system"


def test_a_block_ends_when_something_is_raised() -> None:
    with pytest.raises(ZeroDivisionError), audit.acting(RM):
        _ = 1 / 0
    assert audit.current_actor() == audit.SYSTEM


def test_nobody_in_particular_is_anonymous() -> None:
    with audit.acting(Actor.person(AnonymousUser(), source="connect", remote_addr="192.0.2.9")):
        entry = recorded()
    assert (entry.actor, entry.actor_name, entry.source, entry.remote_addr) == (
        None,
        "anonymous",
        "connect",
        "192.0.2.9",
    )


def test_a_person_without_a_name_is_called_by_the_user_name() -> None:
    user = UserFactory(username="rita", first_name="", last_name="")
    assert Actor.person(user, source="cli").name == "rita"


def test_the_name_outlives_the_user() -> None:
    user = UserFactory(first_name="Rita", last_name="Moreau")
    with audit.acting(Actor.person(user, source="admin")):
        entry = recorded()
    number = user.pk
    user.delete()
    kept = AuditEntry.objects.select_related("actor").get(pk=entry.pk)
    assert (kept.actor, kept.actor_id, kept.actor_name) == (None, number, "Rita Moreau")


def test_the_reason_of_the_actor_is_kept_unless_the_event_has_its_own() -> None:
    with audit.acting(Actor(name="Rita", source="cli", reason="quarterly check")):
        assert recorded().reason == "quarterly check"
        assert audit.record("looked_at", CompanyFactory(), reason="this one").reason == "this one"


# --- People ask, workers do ------------------------------------------------------------------------------------------
def test_what_a_task_does_is_the_workers_and_what_was_asked_is_the_persons(
    codat: SandboxProcess, drain_queue: Drain
) -> None:
    user = UserFactory(first_name="Rita", last_name="Moreau")
    company: Company = CompanyFactory()
    SourceAccountFactory(company=company)
    onboarding.request(company, actor=Actor.person(user, source="admin"))
    asked = history(company).last()
    assert (asked.changes["onboarding_state"], asked.actor, asked.actor_name) == (
        ["draft", "queued"],
        user,
        "Rita Moreau",
    )

    drain_queue()
    done = history(company).last()
    assert (done.changes["onboarding_state"], done.actor) == (["working", "link_ready"], None)
    assert (done.actor_name, done.source) == ("worker", "service: worker")
    assert done.cid
    for operation in company.operations.all():
        assert (operation.requested_by, operation.requested_by_name, operation.source) == (user, "Rita Moreau", "admin")
        assert set(history(operation).values_list("actor_name", flat=True)) == {"worker"}


def test_whoever_is_named_as_actor_is_in_the_history_of_what_they_ask() -> None:
    account = SourceAccountFactory(in_codat=True)
    operation = accounts.delete(account, actor=RM, reason="closed")
    assert set(history(operation).values_list("actor_name", "source")) == {(RM.name, RM.source)}


def test_rows_of_one_task_share_an_id_and_other_tasks_have_others(codat: SandboxProcess) -> None:
    companies = [CompanyFactory(), CompanyFactory()]
    for company in companies:
        SourceAccountFactory(company=company)
        onboarding.request(company, actor=RM)
    last = AuditEntry.objects.latest("pk").pk
    for company in companies:
        tasks.advance(company.pk)
    by_company = [
        set(AuditEntry.objects.get_for_object(company).filter(pk__gt=last).values_list("cid", flat=True))
        for company in companies
    ]
    assert [len(ids) for ids in by_company] == [1, 1]
    assert by_company[0] != by_company[1]


def test_what_a_request_changes_is_the_signed_in_persons_with_the_requests_id(client: Client) -> None:
    user = UserFactory(role="Administrators", first_name="Ada", last_name="Admin")
    client.force_login(user)
    colleague = UserFactory()
    client.post(
        reverse("admin:auth_user_change", args=[colleague.pk]),
        {"username": colleague.username, "first_name": "New", "last_name": "Name", "email": colleague.email},
        REMOTE_ADDR="192.0.2.3",
    )
    entry = history(colleague).last()
    assert (entry.actor, entry.actor_name, entry.source, entry.remote_addr) == (user, "Ada Admin", "admin", "192.0.2.3")
    assert entry.cid

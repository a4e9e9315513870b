"""Every way to write leaves a row in the history, with its actor and its source. Who adds a way adds it here.

Four tables: actions and forms of the admin, tasks of the queue, commands, all other addresses. Each is compared with
what the product has, so that a new action, task, command or address fails until it is named.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.core.management import call_command, get_commands
from django.db import models
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from feeds import audit, tasks
from feeds.audit import Actor
from feeds.models import AuditEntry, Case, Company, Connection, SourceAccount, base
from feeds.services import approvals, onboarding, outbox
from feeds.states import (
    CaseCause,
    CaseOutcome,
    CaseState,
    ConnectionStatus,
    MailKind,
    MailState,
    OnboardingState,
    WebhookState,
)
from tests import rights_walk
from tests.factories import (
    ApiKeyFactory,
    ApprovalFactory,
    BatchFactory,
    CaseFactory,
    CompanyFactory,
    ConnectionFactory,
    IncidentFactory,
    InvitationFactory,
    MailFactory,
    SourceAccountFactory,
    UserFactory,
    WebhookEventFactory,
)
from tests.history import last_entry
from tests.sandbox_process import SandboxProcess
from tests.services.grid import RM

pytestmark = pytest.mark.django_db
TESTS = Path(__file__).parent
WHY = {"reason": "They asked for it."}


def covered_by(place: str) -> str:
    """Another test looks at the history of this one: "file.py::test_name"."""
    return place


# --- Which models ----------------------------------------------------------------------------------------------------
def test_every_model_is_audited_or_says_why_not() -> None:
    ours = [*apps.get_app_config("feeds").get_models(), *apps.get_app_config("auth").get_models()]
    named = set(audit._AUDITED) | set(audit.NOT_AUDITED)
    assert {model.__name__ for model in ours if model not in named} == {"Permission"}  # made by migrations
    assert not set(audit._AUDITED) & set(audit.NOT_AUDITED)
    assert all(audit.NOT_AUDITED.values())


@pytest.mark.parametrize("model", audit._AUDITED, ids=lambda model: model.__name__)
def test_every_column_is_history_or_bookkeeping(model: type[models.Model]) -> None:
    kept = set(audit._AUDITED[model]["include_fields"])
    books = getattr(model, "bookkeeping", frozenset({"last_login", "date_joined"} if model is User else ()))
    columns = {field.name for field in model._meta.concrete_fields if not field.primary_key}
    assert kept | books == columns
    assert not kept & books


def as_the_product(source: str, **names: Any) -> Any:
    """Run an expression as if it stood in the product: tests themselves may arrange rows as they please."""
    return eval(compile(source, "feeds/services/product.py", "eval"), {"audit": audit, "timezone": timezone, **names})  # noqa: S307


@pytest.mark.parametrize("model", audit._AUDITED, ids=lambda model: model.__name__)
def test_no_audited_column_is_written_in_bulk_unseen(model: type[models.Model]) -> None:
    name = audit._AUDITED[model]["include_fields"][0]
    for source in (
        f"model.objects.update({name}=1)",
        f"model.objects.all().update({name}=1)",
        "model.objects.bulk_create([model()])",
        f"model.objects.bulk_update([model(pk=1)], ['{name}'])",
    ):
        with pytest.raises(base.Unaudited, match="without history"):
            as_the_product(source, model=model)


def test_related_rows_are_not_written_in_bulk_unseen_either() -> None:
    company = CompanyFactory()
    with pytest.raises(base.Unaudited, match="name would change without history; use audit.update"):
        as_the_product("company.source_accounts.update(name='x')", company=company)


def test_bookkeeping_is_written_in_bulk_as_before() -> None:
    connection = ConnectionFactory()
    before = last_entry()
    assert as_the_product("model.objects.update(poll_due_at=timezone.now())", model=Connection) == 1
    assert last_entry() == before
    assert Connection.objects.get(pk=connection.pk).poll_due_at is not None


def test_the_helper_writes_what_saving_each_row_would_have_written() -> None:
    cases, incident = CaseFactory.create_batch(3), IncidentFactory()
    before = last_entry()
    with audit.acting(RM):
        assert audit.update(Case.objects.all(), incident=incident) == 3
        assert audit.update(Case.objects.all(), incident=incident) == 0
    entries = AuditEntry.objects.filter(pk__gt=before)
    assert {entry.object_pk for entry in entries} == {str(case.pk) for case in cases}
    assert {(entry.fields, entry.actor_name, entry.source) for entry in entries} == {(",incident,", RM.name, RM.source)}
    assert {entry.company_id for entry in entries} == {case.company_id for case in cases}


def test_rows_made_together_have_their_entries() -> None:
    before = last_entry()
    made = audit.bulk_create([SourceAccountFactory.build(company=CompanyFactory()) for _ in range(2)])
    entries = AuditEntry.objects.filter(pk__gt=before, content_type__model="sourceaccount")
    assert {int(entry.object_pk) for entry in entries} == {account.pk for account in made}
    assert all(entry.action == AuditEntry.Action.CREATE and "account_number" in entry.changes for entry in entries)


@pytest.mark.django_db(transaction=True)
def test_a_save_that_fails_leaves_no_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    company, other = CompanyFactory(), CompanyFactory()
    before = last_entry()
    company.customer_number = other.customer_number  # the history is written first, then the database refuses
    with pytest.raises(Exception, match=r"(?i)unique"):
        company.save()
    assert last_entry() == before


# --- The admin -------------------------------------------------------------------------------------------------------
def broken() -> Case:
    """A case about a connection with a live link."""
    case: Case = CaseFactory(connection=ConnectionFactory(with_link=True, status=ConnectionStatus.UNLINKED))
    return case


def with_account(**values: Any) -> Company:
    """A company that can be onboarded."""
    company: Company = CompanyFactory(**values)
    SourceAccountFactory(company=company)
    return company


def with_link() -> Connection:
    """A connection whose link works."""
    connection: Connection = ConnectionFactory(with_link=True)
    return connection


def failed_batch() -> Any:
    """A bulk onboarding with a company to try again."""
    batch = BatchFactory()
    batch.items.create(company=with_account(onboarding_state=OnboardingState.FAILED))
    return batch


def account() -> SourceAccount:
    """One that is in Codat."""
    made: SourceAccount = SourceAccountFactory(in_codat=True)
    return made


def failed_webhook() -> Any:
    """One to apply again."""
    return WebhookEventFactory(state=WebhookState.FAILED)


def sent_to_a_customer() -> Any:
    """A mail to a customer, who may not have got it."""
    invitation = InvitationFactory()
    return MailFactory(
        case=None, invitation=invitation, kind=MailKind.INVITATION, state=MailState.SENT, sent_at=timezone.now()
    )


INVITING = {
    "purpose": "connect", "contact_name": "Alex Doe", "contact_email": "alex@maple.example", "language": "en",
    "days": "14",
}  # fmt: skip
Data = dict[str, str] | Callable[[], dict[str, str]]
OBJECT_ACTIONS: dict[str, tuple[Callable[[], Any], Data] | str] = {
    "company onboard": (with_account, {}),
    "company refresh-link": (lambda: with_link().company, {}),
    "company refresh-status": covered_by(
        "services/test_sync.py::test_what_a_refresh_changed_is_attributed_to_who_asked"
    ),
    "company retry": (lambda: with_account(onboarding_state=OnboardingState.FAILED), {}),
    "company show-link": (lambda: with_link().company, {}),
    "batch retry-failed": (failed_batch, {}),
    "connection generate-credentials": covered_by(
        "admin/test_object_actions.py::test_the_page_is_kept_nowhere_and_the_history_says_who_saw_it"
    ),
    "connection refresh-link": (with_link, {}),
    "connection revoke-credentials": (with_link, WHY),
    "connection show-link": (with_link, {}),
    "connection unlink": (lambda: ConnectionFactory(linked=True), WHY),
    "case invite-to-reconnect": (broken, {}),
    "company invite": (CompanyFactory, lambda: INVITING),
    "invitation renew": (InvitationFactory, {}),
    "invitation revoke": (InvitationFactory, WHY),
    "invitation send": (InvitationFactory, {}),
    "invitation show-address": (InvitationFactory, {}),
    "mail note-bounce": (sent_to_a_customer, {}),
    "case close": (broken, {"outcome": CaseOutcome.NOT_WANTED, **WHY}),
    "case generate-credentials": covered_by("admin/test_cases.py::credentials_generated"),
    "case hand-over": (broken, lambda: {"to": str(UserFactory(role="Support").pk), "text": ""}),
    "case note": (broken, {"text": "Left a message."}),
    "case refresh-link": (broken, {}),
    "case revoke-credentials": (broken, WHY),
    "case set-cause": (broken, {"cause": CaseCause.QUICKBOOKS_SILENT}),
    "case show-link": (broken, {}),
    "case snooze": (broken, lambda: {"until": str(timezone.localdate() + timedelta(days=3)), "text": "x"}),
    "case take": (broken, {}),
    "case verify-now": covered_by("admin/test_cases.py::test_the_change_is_attributed_to_who_pressed"),
    "driftfinding adopt": covered_by("admin/test_support.py::test_adopt_takes_the_company_over"),
    "incident release": (IncidentFactory, {"note": "Codat was down."}),
    "sourceaccount delete": (account, WHY),
    "sourceaccount disconnect": (account, WHY),
    "sourceaccount rename": (account, {"name": "Payroll"}),
    "sourceaccount show-number": (account, {}),
    "webhookevent apply-again": (failed_webhook, {}),
    **dict.fromkeys(
        (
            "calloutversion submit",
            "calloutversion approve",
            "calloutversion send-back",
            "calloutversion attest",
            "calloutversion withdraw",
            "calloutversion copy",
        ),
        covered_by("admin/test_callouts.py::test_it_leaves_its_trace_in_the_history"),
    ),
    **dict.fromkeys(
        ("approval approve", "approval refuse", "approval withdraw"),
        covered_by("test_write_paths.py::test_what_becomes_of_a_request_is_history_with_whoever_did_it"),
    ),
    **dict.fromkeys(
        ("company delete-in-codat", "connection delete"),
        covered_by("admin/test_offboarding.py::test_the_history_says_who_and_why"),
    ),
    "company delete": (CompanyFactory, WHY),
    "company take-over": (CompanyFactory, {}),
    "accessgrant end": covered_by("admin/test_access.py::test_it_ends_at_once_and_the_history_says_who"),
    "mail send-again": covered_by("admin/test_mails.py::test_the_history_says_who_pressed_it"),
    "signinlock unlock": covered_by("sign_in/test_lockout.py::test_the_history_has_who_unlocked_whom"),
    "apikey rotate": covered_by("api/test_keys_admin.py::test_replacing_shows_the_new_key_once"),
    "apikey revoke": (ApiKeyFactory, WHY),
    "user reset-second-factors": covered_by("sign_in/test_second_factors.py::test_a_reason_is_asked_for_and_kept"),
}
LIST_ACTIONS: dict[str, Callable[[], Any]] = {
    "company onboard_selected": with_account,
    "company invite_selected": lambda: CompanyFactory(in_codat=True),
    "connection refresh_links": with_link,
    "case take_selected": broken,
    "webhookevent apply_selected_again": failed_webhook,
    "company take_over_selected": CompanyFactory,
}
FORMS = {
    "apikey": "api/test_keys_admin.py::test_making_shows_the_key_once_and_keeps_it_nowhere",
    "accessgrant": "admin/test_access.py::test_the_history_of_person_and_customer_say_who_and_why",
    "calloutversion": "services/test_callouts.py::test_the_history_has_every_step_with_its_reason",
    "company": "admin/test_companies.py::test_who_did_it_is_kept",
    "user": "test_audit.py::test_what_a_request_changes_is_the_signed_in_persons_with_the_requests_id",
}
"""Screens with forms of their own: which test looks at their history."""


@pytest.fixture
def boss() -> Client:
    """The browser of somebody who may do everything."""
    client = Client()
    client.force_login(UserFactory(is_superuser=True, is_staff=True, first_name="Bo", last_name="Diaz"))
    return client


def expect_history(client: Client, before: int) -> None:
    """Something was written since `before`, all of it the signed-in person's, in one request."""
    entries = AuditEntry.objects.filter(pk__gt=before)
    person = int(client.session["_auth_user_id"])
    assert {(it.actor_id, it.actor_name, it.source) for it in entries} == {(person, "Bo Diaz", "admin")}
    assert all(it.cid and it.fields + it.event for it in entries)


@pytest.mark.parametrize(
    "name", [name for name, scenario in OBJECT_ACTIONS.items() if not isinstance(scenario, str)], ids=str
)
def test_an_object_action_leaves_history(boss: Client, name: str) -> None:
    scenario = OBJECT_ACTIONS[name]
    assert not isinstance(scenario, str)
    make, data = scenario
    obj = make()
    typed = data() if callable(data) else data
    kind, action = name.split()
    before = last_entry()
    answer = boss.post(reverse(f"admin:feeds_{kind}_action", args=[obj.pk, action]), typed)
    assert answer.status_code in (200, 302), answer
    expect_history(boss, before)


@pytest.mark.parametrize("name", LIST_ACTIONS)
def test_a_list_action_leaves_history(boss: Client, name: str) -> None:
    kind, action = name.split()
    rows = [LIST_ACTIONS[name]() for _ in range(2)]
    before = last_entry()
    data = {"action": action, "_selected_action": [str(row.pk) for row in rows], "confirmed": "1"}
    boss.post(reverse(f"admin:feeds_{kind}_changelist"), data)
    expect_history(boss, before)


def screens() -> dict[str, Any]:
    """Every screen, by the name of its model."""
    return {str(model._meta.model_name): screen for model, screen in admin.site._registry.items()}


def test_the_tables_name_every_action_and_every_form() -> None:
    request = RequestFactory().get("/")
    request.user = UserFactory(is_superuser=True, is_staff=True)
    objects, lists, forms = set(), set(), set()
    for kind, screen in screens().items():
        objects |= {f"{kind} {name}" for name in getattr(screen, "object_actions", dict)()}
        lists |= {f"{kind} {name}" for name in screen.get_actions(request)}
        if screen.has_add_permission(request) or screen.has_change_permission(request):
            forms.add(kind)
    assert objects == set(OBJECT_ACTIONS)
    assert lists == set(LIST_ACTIONS)
    assert forms == set(FORMS)


def test_what_other_tests_cover_is_covered() -> None:
    places = [*FORMS.values(), *(it for table in (OBJECT_ACTIONS, TASKS, COMMANDS, ADDRESSES) for it in table.values())]
    for place in (it for it in places if isinstance(it, str) and "::" in it):
        file, _sep, name = place.partition("::")
        assert name in (TESTS / file).read_text(), place


# --- Tasks -----------------------------------------------------------------------------------------------------------
NO_HISTORY = "writes nothing but "
TASKS: dict[str, Callable[..., str] | str] = {
    "advance": covered_by("test_audit.py::test_what_a_task_does_is_the_workers_and_what_was_asked_is_the_persons"),
    "apply_webhook": lambda connection: tasks.apply_webhook(
        WebhookEventFactory(codat_company_id=connection.company.codat_id).pk, 0
    ),
    "poll": lambda connection: tasks.poll(),
    "sweep_listing": lambda connection: tasks.sweep_listing(),
    "wake_snoozed_cases": lambda connection: tasks.wake_snoozed_cases(),
    "purge_history": covered_by("services/test_seals.py::test_what_is_older_than_the_retention_goes"),
    "send_mails": covered_by("test_write_paths.py::test_that_a_mail_was_sent_is_history_and_of_its_text_nothing"),
    "clear_expired_links": NO_HISTORY + "links that no longer work",
    "compare_with_codat": NO_HISTORY + "its report",
    "heartbeat": NO_HISTORY + "a heartbeat",
    "prune_finished_tasks": NO_HISTORY + "the queue's records",
    "prune_webhooks": NO_HISTORY + "webhooks that were applied long ago",
    "remind_of_callouts": NO_HISTORY + "mails that wait; that they are sent is in the history",
    "retry_batch": covered_by("admin/test_batches.py::test_what_the_queue_does_of_a_large_batch_is_whose_click_it_was"),
    "run_approval": covered_by("test_write_paths.py::test_what_becomes_of_many_is_history_of_whoever_asked"),
    "tend_approvals": covered_by("test_write_paths.py::test_what_becomes_of_a_request_is_history_with_whoever_did_it"),
    "tidy_sign_in": NO_HISTORY + "failed sign-ins and sessions that are over; each sign-in is in the history",
    "verify_history": covered_by("admin/test_seals.py::test_that_it_was_asked_for_and_what_was_found_is_history"),
    "prune_mails": NO_HISTORY + "mails that were sent, which the history names",
    "record_day": NO_HISTORY + "figures",
    "seal_history": NO_HISTORY + "seals",
    "send_seals": NO_HISTORY + "what became of seals on their way",
    "end_invitations": covered_by("services/test_invitations.py::test_what_has_run_out_is_written_down_once"),
    "remind_customers": covered_by("services/test_customer_mails.py::test_a_reminder_goes_once_after_some_days"),
    "write_digests": NO_HISTORY + "mails that wait; that they are sent is in the history",
}


@pytest.fixture
def connection(codat: SandboxProcess, drain_queue: Callable[[], int]) -> Connection:
    """One that the customer has linked meanwhile, with a case that slept long enough."""
    company = with_account()
    onboarding.request(company, actor=RM)
    drain_queue()
    connection = Connection.objects.select_related("company").get()
    codat.connect(connection.company.codat_id, connection.codat_id)
    Connection.objects.update(poll_due_at=timezone.now())
    past = timezone.now() - timedelta(hours=1)
    CaseFactory(state=CaseState.SNOOZED, snoozed_until=past)
    return connection


@pytest.mark.parametrize("name", [name for name, scenario in TASKS.items() if callable(scenario)])
def test_a_task_leaves_history(connection: Connection, name: str) -> None:
    run = TASKS[name]
    assert callable(run)
    before = last_entry()
    run(connection)
    entries = AuditEntry.objects.filter(pk__gt=before)
    assert {(it.actor_id, it.actor_name, it.source) for it in entries} == {(None, "worker", "service: worker")}
    assert len({it.cid for it in entries}) == 1


def test_the_table_names_every_task() -> None:
    declared = {
        name
        for name, function in inspect.getmembers(tasks, inspect.isfunction)
        if function.__module__ == tasks.__name__ and name != "task"
    }
    assert declared == set(TASKS)


def test_what_becomes_of_a_request_is_history_with_whoever_did_it() -> None:
    dana = Actor.person(UserFactory(role="Support", first_name="Dana", last_name="Decider"), source="admin")
    done, refused, withdrawn = (ApprovalFactory() for _ in range(3))
    ApprovalFactory(expires_at=timezone.now() - timedelta(minutes=1))
    asker = Actor.person(withdrawn.requested_by, source="admin")
    before = last_entry()
    approvals.approve(done, actor=dana)
    approvals.refuse(refused, actor=dana, comment="Wrong customer.")
    approvals.withdraw(withdrawn, actor=asker)
    tasks.tend_approvals()
    entries = AuditEntry.objects.filter(pk__gt=before, content_type__model="approval", fields__contains=",state,")
    told = [(it.actor_name, it.changes["state"][1]) for it in entries.order_by("pk")]
    by = dana.name
    assert told == [
        (by, "approved"), (by, "done"), (by, "refused"), (asker.name, "withdrawn"), ("worker", "expired"),
    ]  # fmt: skip


def test_what_becomes_of_many_is_history_of_whoever_asked() -> None:
    asker, decider = (UserFactory(role="Support", first_name=name) for name in ("Sam", "Dana"))
    asked = approvals.ask_many(
        "take_cases", [broken()], consequences=["Taken."], reason="All of one bank.",
        actor=Actor.person(asker, source="admin"),
    )  # fmt: skip
    approvals.approve(asked, actor=Actor.person(decider, source="admin"))
    before = last_entry()
    tasks.run_approval(asked.pk)
    entries = AuditEntry.objects.filter(pk__gt=before, content_type__model="case", fields__contains=",owner,")
    assert {(it.actor, it.source) for it in entries} == {(asker, f"approved request #{asked.pk}")}


def test_that_a_mail_was_sent_is_history_and_of_its_text_nothing(settings: Settings, mailoutbox: list[Any]) -> None:
    case = broken()
    key = {"subject": "Feed broke", "context": {"case": case, "url": "https://feeds.example"}, "case": case}
    outbox.put(MailKind.BROKE, to=["support@bank.example"], **key)  # type: ignore[arg-type]
    assert tasks.send_mails() == "1 sent"
    entry = AuditEntry.objects.get(event="mail_sent")
    assert (entry.company_id, entry.actor_name, entry.object_repr) == (case.company_id, "worker", "Feed broke")
    assert entry.additional_data == {"kind": "broke", "to": "support@bank.example"}


# --- Commands --------------------------------------------------------------------------------------------------------
COMMANDS = {
    "api_key": "api/test_keys_admin.py::test_the_command_prints_a_key_that_works_and_is_in_the_history",
    "codat_sandbox": NO_HISTORY + "the stand-in's own database",
    "rights": "reads only",
    "onboard": "test_write_paths.py::test_what_the_command_stores_is_in_the_name_it_was_given",
    "seal_audit": NO_HISTORY + "seals",
    "setup": "test_write_paths.py::test_setup_leaves_history",
    "verify_audit": "reads only",
    "worker": "runs the tasks",
}


def test_the_table_names_every_command() -> None:
    assert {name for name, app in get_commands().items() if app == "feeds"} == set(COMMANDS)


def test_what_the_command_stores_is_in_the_name_it_was_given(tmp_path: Path) -> None:
    UserFactory(username="rita", first_name="Rita", last_name="Moreau", role="Relationship managers")
    before = last_entry()
    call_command("onboard", str(TESTS.parent / "docs/sample/companies.csv"), username="rita", stdout=StringIO())
    entries = AuditEntry.objects.filter(pk__gt=before)
    assert {(it.actor_name, it.source) for it in entries} == {("Rita Moreau", "command line")}
    assert {it.content_type.model for it in entries} >= {"company", "sourceaccount", "batch"}


def test_setup_leaves_history() -> None:
    call_command("setup", verbosity=0)
    group = Group.objects.get(name="Support")
    group.permissions.clear()
    before = last_entry()
    call_command("setup", verbosity=0)
    entries = AuditEntry.objects.filter(pk__gt=before)
    assert {(it.actor_name, it.source, it.fields) for it in entries} == {("setup", "service: setup", ",permissions,")}


# --- Other addresses -------------------------------------------------------------------------------------------------
LOOKS = "shows only: "
SIGNING_IN = "test_write_paths.py::test_signing_in_and_out_and_failing_to_are_events"
FACTORS = "sign_in/test_second_factors.py::test_adding_and_removing_is_in_the_history"
ADDRESSES: dict[str, str] = {
    **dict.fromkeys(("account_login", "account_logout", "admin:login", "admin:logout"), covered_by(SIGNING_IN)),
    **dict.fromkeys(
        ("mfa_activate_totp", "mfa_deactivate_totp", "mfa_generate_recovery_codes"), covered_by(FACTORS)
    ),
    **dict.fromkeys(
        ("mfa_add_webauthn", "mfa_login_webauthn", "mfa_reauthenticate_webauthn", "mfa_remove_webauthn"),
        covered_by("browser/test_sign_in.py::test_a_passkey_is_added_asked_for_and_opens_alone"),
    ),
    "mfa_edit_webauthn": covered_by("sign_in/test_second_factors.py::test_renaming_a_passkey_is_in_the_history"),
    "mfa_authenticate": covered_by("sign_in/test_second_factors.py::test_the_code_of_the_app_opens"),
    **dict.fromkeys(
        ("openid_connect_login", "openid_connect_callback"),
        covered_by("sign_in/test_identity_provider.py::test_whom_an_administrator_made_comes_in"),
    ),
    **dict.fromkeys(
        ("account_reauthenticate", "mfa_reauthenticate"),
        covered_by("sign_in/test_second_factors.py::test_after_a_while_one_proves_again_who_one_is"),
    ),
    **dict.fromkeys(
        ("admin:password_change", "admin:auth_user_password_change"),
        covered_by("sign_in/test_password.py::test_a_person_changes_the_password_in_the_admin_and_the_history_has_it"),
    ),
    "language": covered_by("test_languages.py::test_a_choice_is_in_the_change_history_with_its_author"),
    **dict.fromkeys(
        ("connect", "connect-opened"),
        covered_by("test_connect_page.py::test_what_a_customer_does_is_history_with_where_it_came_from"),
    ),
    "api:open": covered_by(
        "api/test_connect_sessions.py::test_the_history_names_the_key_and_where_it_came_from"
    ),
    "admin:feeds_auditentry_export": covered_by(
        "admin/test_exports.py::test_it_stands_in_the_history_before_the_first_byte_and_after_the_last"
    ),
    "admin:feeds_evidence": covered_by(
        "admin/test_evidence.py::test_who_made_it_and_why_stands_in_the_history_of_the_customer"
    ),
    "admin:feeds_auditseal_verify": covered_by(
        "admin/test_seals.py::test_that_it_was_asked_for_and_what_was_found_is_history"
    ),
    "codat-webhook": NO_HISTORY + "the inbox; what it leads to is the history of the rows",
    "session_left": NO_HISTORY + "how long one's own session lasts",
    "admin:invitation_funnel_csv": LOOKS + "totals and medians of no customer (decision 0021)",
    "admin:feeds_company_name_preview": LOOKS + "how Codat would store a name",
    "mfa_view_recovery_codes": LOOKS + "codes that were just made, once; that they were made is history",
    **dict.fromkeys(
        (
            "", "healthz", "readyz", "metrics", "mfa_index", "mfa_list_webauthn", "api:openapi-json", "api:read",
            "api:api-root", "admin:operations_page", "admin:invitation_funnel", "admin:index",
            "admin:password_change_done", "admin:autocomplete", "admin:jsi18n", "admin:view_on_site",
            "admin:feeds_company_progress", "admin:feeds_company_timeline", "admin:feeds_batch_progress",
            "admin:feeds_calloutversion_published", "admin:feeds_calloutversion_difference",
            "admin:feeds_calloutversion_checklist", "admin:feeds_auditentry_state", "admin:feeds_auditentry_story",
            "admin:app_list", "admin/(?P<url>.*)$",
        ),
        LOOKS + "what it says",
    ),
}  # fmt: skip
"""Every address beside the pages of the screens' own models, which are the tables above."""


def test_the_table_names_every_other_address() -> None:
    of_screens = {f"admin:{model.replace('.', '_')}_action" for model, _name in rights_walk.actions()}
    for model in rights_walk.screens():
        app, _dot, name = model.partition(".")
        pages = ("changelist", "add", "change", "delete", "history")
        of_screens |= {f"admin:{app}_{name}_{page}" for page in pages} | {f"admin/{app}/{name}/<path:object_id>/"}
    assert {address.key for address in rights_walk.addresses()} - of_screens == set(ADDRESSES)


# --- Signing in ------------------------------------------------------------------------------------------------------
def test_signing_in_and_out_and_failing_to_are_events(client: Client) -> None:
    user = UserFactory(username="rita", first_name="Rita", last_name="Moreau")
    user.set_password("an invented pass phrase")
    user.save()
    client.post(reverse("admin:login"), {"username": "rita", "password": "wrong"}, REMOTE_ADDR="192.0.2.8")
    client.post(reverse("admin:login"), {"username": "my pass phrase", "password": "x"}, REMOTE_ADDR="192.0.2.8")
    client.post(reverse("admin:login"), {"username": "rita", "password": "an invented pass phrase"})
    client.post(reverse("admin:logout"))
    events = AuditEntry.objects.exclude(event="").order_by("pk")
    assert [(it.event, it.object_repr, it.actor_name) for it in events] == [
        ("sign_in_failed", "rita", "anonymous"),
        ("sign_in_failed", "unknown user name", "anonymous"),
        ("signed_in", "rita", "Rita Moreau"),
        ("signed_out", "rita", "Rita Moreau"),
    ]
    assert events[0].remote_addr == "192.0.2.8"
    assert "my pass phrase" not in str(list(AuditEntry.objects.values()))

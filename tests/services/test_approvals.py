"""Four eyes: who decides, what runs, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, connection, transaction
from django.utils import timezone, translation

from feeds import checks
from feeds.audit import Actor
from feeds.models import Approval, AuditEntry, Batch, Connection, Mail, Operation
from feeds.services import approvals, notifications
from feeds.services.approval_rules import RULES
from feeds.services.errors import Refused
from feeds.states import AccountStatus, ApprovalState, ConnectionStatus, MailKind, OnboardingState, OperationKind
from tests.factories import (
    ApprovalFactory,
    CompanyFactory,
    ConnectionFactory,
    SourceAccountFactory,
    UserFactory,
)

REASON = "The customer asked for it by phone."
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _four_eyes(settings: Any) -> None:
    """As the product is shipped."""
    settings.FOUR_EYES = settings.PRODUCT_FOUR_EYES


@pytest.fixture
def asker() -> User:
    """Sam of support, who asks."""
    user: User = UserFactory(role="Support", first_name="Sam", last_name="Asker")
    return user


@pytest.fixture
def decider() -> User:
    """Dana of support, who decides."""
    user: User = UserFactory(role="Support", first_name="Dana", last_name="Decider")
    return user


def acts(user: User) -> Actor:
    """The person, in the back office."""
    return Actor.person(user, source="admin")


def ask(target: Any, asker: User, action: str = "unlink_connection") -> Approval:
    """Ask for something that needs no more than a reason."""
    return approvals.ask(action, target, data={}, consequences=["It stops."], reason=REASON, actor=acts(asker))


def linked(**accounts: Any) -> Connection:
    """A connection of which QuickBooks reads three accounts."""
    connection: Connection = ConnectionFactory(linked=True)
    SourceAccountFactory.create_batch(
        3, company=connection.company, connection=connection, status=AccountStatus.CONNECTED, **accounts
    )
    return connection


# --- The rules -------------------------------------------------------------------------------------------------------
def test_the_product_is_shipped_with_every_rule_on() -> None:
    assert list(checks.FOUR_EYES_NAMES) == django_settings.PRODUCT_FOUR_EYES
    assert {rule.setting for rule in RULES.values()} <= set(checks.FOUR_EYES_NAMES)


@pytest.mark.parametrize("action", RULES)
def test_a_rule_is_on_when_the_setting_names_it(action: str, settings: Any) -> None:
    assert approvals.is_needed(action)
    settings.FOUR_EYES = [name for name in checks.FOUR_EYES_NAMES if name != RULES[action].setting]
    assert not approvals.is_needed(action)


def test_more_rows_than_the_setting_need_a_colleague(settings: Any) -> None:
    settings.FOUR_EYES_BULK_ROWS = 3
    assert [approvals.is_needed_for(rows) for rows in (3, 4)] == [False, True]
    settings.FOUR_EYES = []
    assert not approvals.is_needed_for(1000)


# --- Asking ----------------------------------------------------------------------------------------------------------
def test_asking_does_nothing_and_freezes_what_was_shown(asker: User) -> None:
    connection = linked()
    approval = ask(connection, asker)
    assert not Operation.objects.exists()
    assert approval.judged_on == {"status": "Linked", "accounts": 3, "feeding": 3, "is_gone": False}
    assert (approval.payload, approval.consequences, approval.reason) == ({"data": {}}, ["It stops."], REASON)
    assert (approval.company, approval.requested_by_name) == (connection.company, "Sam Asker")
    hours = (approval.expires_at - timezone.now()) / timedelta(hours=1)
    assert 71 < hours <= 72


def test_the_same_cannot_be_asked_twice_until_it_is_settled(asker: User, decider: User) -> None:
    connection = linked()
    first = ask(connection, asker)
    with pytest.raises(approvals.AlreadyAsked, match="by Sam Asker") as caught:
        ask(connection, decider)
    assert caught.value.approval == first
    ask(connection, decider, "revoke_credentials")  # something else of the same connection
    ask(linked(), decider)  # the same of another
    approvals.withdraw(first, actor=acts(asker))
    assert ask(connection, decider).pk != first.pk


def test_the_database_refuses_a_second_open_request_and_a_decision_by_the_asker(asker: User) -> None:
    approval = ApprovalFactory(requested_by=asker)
    copy = {"action": approval.action, "key": approval.key, "target_type": approval.target_type}
    with pytest.raises(IntegrityError), transaction.atomic():
        Approval.objects.create(reason="again", expires_at=timezone.now(), **copy)
    with pytest.raises(IntegrityError), transaction.atomic():
        Approval.objects.filter(pk=approval.pk).update(decided_by=asker)


def test_a_form_with_a_field_that_the_rule_does_not_name_cannot_be_frozen(asker: User) -> None:
    with pytest.raises(ValueError, match="password"):
        approvals.ask(
            "unlink_connection", linked(), data={"password": "x"}, consequences=[], reason=REASON, actor=acts(asker)
        )
    assert not Approval.objects.exists()


def test_a_service_cannot_ask_and_nobody_asks_without_a_reason(asker: User) -> None:
    with pytest.raises(Refused, match="Only a person"):
        approvals.ask(
            "unlink_connection", linked(), data={}, consequences=[], reason=REASON, actor=Actor.service("worker")
        )
    with pytest.raises(Refused, match="Give a reason"):
        approvals.ask("unlink_connection", linked(), data={}, consequences=[], reason="  ", actor=acts(asker))


# --- Deciding --------------------------------------------------------------------------------------------------------
def test_what_was_approved_is_carried_out_for_whoever_asked_with_both_names(asker: User, decider: User) -> None:
    connection = linked()
    approval = ask(connection, asker)
    done = approvals.approve(approval, actor=acts(decider), comment="Called back.")
    operation = Operation.objects.get()
    assert (done.state, done.operation) == (ApprovalState.DONE, operation)
    assert (operation.kind, operation.connection) == (OperationKind.UNLINK_CONNECTION, connection)
    assert (operation.requested_by, operation.requested_by_name) == (asker, "Sam Asker")
    assert operation.source == f"approved request #{approval.pk}"
    assert operation.reason == f"{REASON} (asked by Sam Asker, approved by Dana Decider)"
    assert (done.decided_by, done.comment) == (decider, "Called back.")


def test_the_history_has_the_request_the_decision_and_what_was_done(asker: User, decider: User) -> None:
    approval = ask(linked(), asker)
    approvals.approve(approval, actor=acts(decider), comment="Called back.")
    about = AuditEntry.objects.filter(content_type__model="approval").order_by("pk")
    assert [(entry.actor, entry.reason) for entry in about] == [
        (asker, REASON),
        (decider, "Called back."),
        (decider, "Called back."),
    ]
    assert [(entry.changes or {}).get("state", ["", ""])[1] for entry in about] == ["requested", "approved", "done"]
    written = AuditEntry.objects.get(content_type__model="operation")
    assert (written.actor, written.source) == (asker, f"approved request #{approval.pk}")
    assert "asked by Sam Asker, approved by Dana Decider" in written.reason


def test_nobody_approves_or_refuses_their_own(asker: User) -> None:
    approval = ask(linked(), asker)
    for decide in (approvals.approve, approvals.refuse):
        with pytest.raises(Refused, match="You asked for this yourself"):
            decide(approval, actor=acts(asker), comment="Fine.")
    assert not Operation.objects.exists()


def test_not_even_a_superuser_approves_their_own() -> None:
    boss = UserFactory(is_superuser=True)
    with pytest.raises(Refused, match="You asked for this yourself"):
        approvals.approve(ask(linked(), boss), actor=acts(boss))


@pytest.mark.parametrize(
    ("permissions", "why"),
    [
        (["feeds.unlink_connection", "feeds.view_approval"], "You may not decide about requests."),
        (["feeds.decide_approval"], "You may not do this yourself, so you cannot approve it either."),
    ],
)
def test_who_decides_may_do_it_themselves_and_may_decide(asker: User, permissions: list[str], why: str) -> None:
    approval = ask(linked(), asker)
    with pytest.raises(Refused, match=why):
        approvals.approve(approval, actor=acts(UserFactory(permissions=permissions)))
    assert not Operation.objects.exists()


def test_an_approval_counts_once(asker: User, decider: User) -> None:
    approval = ask(linked(), asker)
    approvals.approve(approval, actor=acts(decider))
    late = UserFactory(role="Administrators")
    with pytest.raises(Refused, match="settled already: Carried out, by Dana Decider"):
        approvals.approve(approval, actor=acts(late))
    with pytest.raises(Refused, match="settled already"):
        approvals.refuse(approval, actor=acts(late), comment="No.")
    assert Operation.objects.count() == 1


def test_refused_it_does_not_happen_and_the_comment_is_kept(asker: User, decider: User) -> None:
    approval = ask(linked(), asker)
    with pytest.raises(Refused, match="Say why: Sam Asker reads it"):
        approvals.refuse(approval, actor=acts(decider), comment=" ")
    refused = approvals.refuse(approval, actor=acts(decider), comment="Wrong customer.")
    assert (refused.state, refused.outcome) == (ApprovalState.REFUSED, "Refused: Wrong customer.")
    assert not Operation.objects.exists()


def test_only_the_asker_withdraws(asker: User, decider: User) -> None:
    approval = ask(linked(), asker)
    with pytest.raises(Refused, match="Only Sam Asker can withdraw it"):
        approvals.withdraw(approval, actor=acts(decider))
    assert approvals.withdraw(approval, actor=acts(asker)).state == ApprovalState.WITHDRAWN
    with pytest.raises(Refused, match="settled already: Withdrawn"):
        approvals.approve(approval, actor=acts(decider))


# --- What has changed meanwhile --------------------------------------------------------------------------------------
def test_another_number_of_accounts_is_said_and_refused(asker: User, decider: User) -> None:
    connection = linked()
    approval = ask(connection, asker)
    account = connection.source_accounts.first()
    assert account is not None
    account.status = AccountStatus.DISCONNECTED
    account.save()
    settled = approvals.approve(approval, actor=acts(decider))
    assert settled.state == ApprovalState.FAILED
    assert settled.outcome == (
        "Changed since it was asked: Accounts that QuickBooks reads: 3 → 2. Nothing was done; if it is still wanted, "
        "ask anew."
    )
    assert not Operation.objects.exists()
    ask(connection, asker)


def test_an_account_that_is_gone_already_is_not_deleted_again(asker: User, decider: User) -> None:
    account = SourceAccountFactory(in_codat=True)
    approval = ask(account, asker, "delete_account")
    account.gone_at = timezone.now()
    account.save()
    settled = approvals.approve(approval, actor=acts(decider))
    assert settled.state == ApprovalState.FAILED
    assert "Gone from Codat: no → yes" in settled.outcome


@pytest.mark.parametrize(
    ("language", "told"),
    [
        ("en", "Changed since it was asked: Onboarding: Link ready → Linked. Nothing was done; if it is still wanted, "
         "ask anew."),
        ("fr", "Modifié depuis la demande\u00a0: Intégration\u00a0: Lien prêt → Liée. Rien n’a été fait; s’il le faut "
         "encore, refaites la demande."),
    ],
)  # fmt: skip
def test_states_are_told_in_words(language: str, told: str) -> None:
    boss, other = UserFactory.create_batch(2, role="Administrators")
    company = CompanyFactory(in_codat=True)
    approval = ask(company, boss, "delete_company_in_codat")
    company.onboarding_state = OnboardingState.LINKED
    company.save()
    words = {"en": ("Link ready", "Linked"), "fr": ("Lien prêt", "Liée")}[language]
    with translation.override(language):
        [onboarding] = [it for it in approvals.compared(approval) if it.differs]
        assert (onboarding.then, onboarding.now) == words
    settled = approvals.approve(approval, actor=acts(other))
    with translation.override(language):
        assert approvals.outcome_in_words(settled) == told


def test_a_state_that_codat_added_is_shown_as_it_is() -> None:
    account = SourceAccountFactory(in_codat=True, status="paused")
    approval = ask(account, UserFactory(role="Administrators"), "delete_account")
    account.status = ""
    account.save()
    status = approvals.compared(approval)[0]
    assert (status.then, status.now, status.differs) == ("paused", "not in Codat", True)


def lose_the_role(user: User) -> None:
    """Another task."""
    user.groups.clear()


def lose_the_door(user: User) -> None:
    """No work in the back office any more; the roles were left."""
    User.objects.filter(pk=user.pk).update(is_staff=False)


def leave(user: User) -> None:
    """Another employer."""
    User.objects.filter(pk=user.pk).update(is_active=False)


every_loss = pytest.mark.parametrize("lose", [lose_the_role, lose_the_door, leave])


@every_loss
def test_an_asker_who_may_no_longer_do_it_is_not_served(
    lose: Callable[[User], None], asker: User, decider: User
) -> None:
    approval = ask(linked(), asker)
    lose(asker)
    settled = approvals.approve(approval, actor=acts(decider))
    assert (settled.state, settled.outcome) == (
        ApprovalState.FAILED,
        "Sam Asker may no longer do this. Nothing was done.",
    )
    assert not Operation.objects.exists()


def test_what_the_service_refuses_is_the_outcome_and_it_can_be_asked_anew(asker: User, decider: User) -> None:
    connection = linked()
    approval = ask(connection, asker, "revoke_credentials")
    # The same is under way already, asked for while the rule was off.
    RULES["revoke_credentials"].run(connection, {}, acts(decider))
    settled = approvals.approve(approval, actor=acts(decider))
    assert settled.state == ApprovalState.FAILED
    assert settled.outcome == "“Revoke QuickBooks credentials” is already asked for and not finished."
    assert Operation.objects.count() == 1
    ask(connection, asker, "revoke_credentials")


def test_a_draft_company_is_deleted_when_approved_and_the_request_stays(asker: User) -> None:
    boss, other = UserFactory.create_batch(2, role="Administrators")
    company = CompanyFactory(legal_name="Twice Bakery")
    approval = ask(company, boss, "delete_company")
    done = approvals.approve(approval, actor=acts(other))
    assert (done.state, done.outcome, done.company) == (ApprovalState.DONE, f"Deleted: {company}.", None)
    assert "Twice Bakery" in Approval.objects.get().target_name


# --- Time ------------------------------------------------------------------------------------------------------------
def test_a_request_ends_when_nobody_decided_in_time(asker: User, decider: User) -> None:
    late = ApprovalFactory(requested_by=asker, expires_at=timezone.now() - timedelta(minutes=1))
    fresh = ApprovalFactory(requested_by=asker)
    assert approvals.tend() == 1
    late.refresh_from_db()
    fresh.refresh_from_db()
    assert (late.state, fresh.state) == (ApprovalState.EXPIRED, ApprovalState.REQUESTED)
    assert approvals.tend() == 0


def test_a_request_that_is_too_old_is_not_carried_out_even_before_the_clock_ends_it(asker: User, decider: User) -> None:
    approval = ApprovalFactory(requested_by=asker, expires_at=timezone.now() - timedelta(seconds=1))
    settled = approvals.approve(approval, actor=acts(decider))
    assert settled.state == ApprovalState.EXPIRED
    assert not Operation.objects.exists()


def test_an_expired_request_does_not_stand_in_the_way(asker: User) -> None:
    connection = linked()
    old = ask(connection, asker)
    Approval.objects.filter(pk=old.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert ask(connection, asker).pk != old.pk
    old.refresh_from_db()
    assert old.state == ApprovalState.EXPIRED


# --- Many rows -------------------------------------------------------------------------------------------------------
def ask_links(connections: list[Connection], asker: User) -> Approval:
    """Ask for fresh links."""
    return approvals.ask_many("refresh_links", connections, consequences=[], reason=REASON, actor=acts(asker))


def test_exactly_the_frozen_rows_are_worked_through_by_the_queue(
    asker: User, decider: User, drain_queue: Callable[[], int]
) -> None:
    asked = ConnectionFactory.create_batch(4)
    approval = ask_links(asked, asker)
    ConnectionFactory()
    asked[1].status = ConnectionStatus.LINKED
    asked[1].save()
    decided = approvals.approve(approval, actor=acts(decider))
    assert decided.state == ApprovalState.APPROVED
    assert not Operation.objects.exists()
    approvals.run_many(approval.pk)
    approval.refresh_from_db()
    assert (approval.state, approval.rows_done) == (ApprovalState.DONE, 4)
    assert approval.refusals == [[str(asked[1]).replace("Linked", "PendingAuth"), "Changed since it was asked."]]
    assert approval.outcome.startswith("3 done, 1 refused: ")
    operations = Operation.objects.all()
    assert {it.connection_id for it in operations} == {asked[0].pk, asked[2].pk, asked[3].pk}
    assert {it.requested_by for it in operations} == {asker}


@every_loss
def test_who_loses_the_right_while_the_rows_wait_has_none_done(
    lose: Callable[[User], None], asker: User, decider: User
) -> None:
    approval = ask_links(ConnectionFactory.create_batch(2), asker)
    approvals.approve(approval, actor=acts(decider))
    lose(asker)
    approvals.run_many(approval.pk)
    approval.refresh_from_db()
    assert approval.outcome.startswith("0 done, 2 refused: ")
    assert {why for _name, why in approval.refusals} == {"Sam Asker may no longer do this."}
    assert not Operation.objects.exists()


def test_a_task_that_runs_twice_does_no_row_twice(asker: User, decider: User) -> None:
    approval = ask_links(ConnectionFactory.create_batch(3), asker)
    approvals.approve(approval, actor=acts(decider))
    approvals.run_many(approval.pk)
    approvals.run_many(approval.pk)
    assert Operation.objects.count() == 3


def test_a_lost_task_is_queued_again(asker: User, decider: User, drain_queue: Callable[[], int], codat: Any) -> None:
    approval = ask_links([ConnectionFactory()], asker)
    approvals.approve(approval, actor=acts(decider))
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_q_ormq")
    assert approvals.tend() == 0
    Approval.objects.filter(pk=approval.pk).update(updated_at=timezone.now() - approvals.STALLED)
    assert approvals.tend() == 1
    drain_queue()
    approval.refresh_from_db()
    assert approval.state == ApprovalState.DONE


def test_approved_onboarding_of_many_is_one_batch(asker: User, decider: User) -> None:
    companies = CompanyFactory.create_batch(2)
    for company in companies:
        SourceAccountFactory(company=company)
    approval = approvals.ask_many("onboard_companies", companies, consequences=[], reason=REASON, actor=acts(asker))
    approvals.approve(approval, actor=acts(decider))
    approvals.run_many(approval.pk)
    batch = Batch.objects.get()
    assert (batch.label, batch.requested_by) == (f"Approved request #{approval.pk}", asker)
    assert {company.onboarding_state for company in batch.companies.all()} == {OnboardingState.QUEUED}
    assert batch.companies.count() == 2


def test_the_same_rows_cannot_be_asked_for_twice(asker: User) -> None:
    rows = ConnectionFactory.create_batch(2)
    ask_links(rows, asker)
    with pytest.raises(approvals.AlreadyAsked):
        ask_links(rows[::-1], asker)


# --- Roles -----------------------------------------------------------------------------------------------------------
def ask_role(user: User, asker: User, **rights: Any) -> Approval:
    """Ask to change a person's rights."""
    before = {"groups": [], "is_active": True, "is_staff": True, "is_superuser": False}
    return approvals.ask(
        "change_roles", user, data=before | rights, consequences=["x"], reason=REASON, actor=acts(asker)
    )


def test_a_role_is_given_when_another_administrator_approves() -> None:
    boss, other = UserFactory.create_batch(2, role="Administrators")
    user = UserFactory()
    support = Group.objects.get(name="Support")
    approval = ask_role(user, boss, groups=[support.pk])
    assert not user.groups.exists()
    done = approvals.approve(approval, actor=acts(other))
    assert done.outcome == "Roles: none → Support"
    assert list(user.groups.all()) == [support]


def test_nobody_decides_about_their_own_rights() -> None:
    boss, other = UserFactory.create_batch(2, role="Administrators")
    admins = list(other.groups.values_list("pk", flat=True))
    approval = ask_role(other, boss, groups=admins, is_staff=False)
    with pytest.raises(Refused, match="Nobody decides about their own rights"):
        approvals.approve(approval, actor=acts(other))
    assert not approvals.waiting_for(other).exists()


def test_only_a_superuser_makes_a_superuser() -> None:
    boss, second = UserFactory.create_batch(2, is_superuser=True)
    administrator = UserFactory(role="Administrators")
    approval = ask_role(UserFactory(), boss, is_superuser=True)
    with pytest.raises(Refused, match="Only a superuser decides about superusers"):
        approvals.approve(approval, actor=acts(administrator))
    assert approvals.deciders_of(approval) == [second]


def test_two_people_are_needed_before_roles_can_change() -> None:
    UserFactory(role="Administrators")
    assert approvals.role_changes_are_stuck()
    UserFactory(role="Administrators")
    assert not approvals.role_changes_are_stuck()


def test_without_the_rule_one_administrator_is_enough(settings: Any) -> None:
    settings.FOUR_EYES = ["bulk"]
    assert not approvals.role_changes_are_stuck()


# --- Whom it waits for, and mails ------------------------------------------------------------------------------------
def test_a_request_waits_for_those_who_could_decide_it(asker: User, decider: User) -> None:
    approval = ask(linked(), asker)
    assert list(approvals.waiting_for(decider)) == [approval]
    for other in (asker, UserFactory(role="Relationship managers"), UserFactory(role="Compliance auditors")):
        assert not approvals.waiting_for(other).exists()
    Approval.objects.update(expires_at=timezone.now())
    assert not approvals.waiting_for(decider).exists()


@pytest.mark.parametrize(
    ("is_superuser", "after"), [(True, {"is_active": False, "is_superuser": True}), (False, {"is_superuser": True})]
)
def test_what_only_superusers_decide_waits_for_superusers(is_superuser: bool, after: dict[str, bool]) -> None:
    boss, second = UserFactory.create_batch(2, is_superuser=True)
    administrator = UserFactory(role="Administrators")
    approval = ask_role(UserFactory(is_superuser=is_superuser), boss, **after)
    other = ask_role(UserFactory(), boss, is_active=False)
    for user, waiting in ((second, [approval, other]), (administrator, [other])):
        assert list(approvals.waiting_for(user).order_by("pk")) == waiting
        assert [it for it in (approval, other) if not approvals.why_not_decide(it, user)] == waiting


def test_a_reset_of_a_superusers_factors_waits_for_superusers() -> None:
    boss, second, chief = UserFactory.create_batch(3, is_superuser=True)
    approval = ask(chief, boss, "reset_second_factors")
    assert list(approvals.waiting_for(second)) == [approval]
    assert not approvals.waiting_for(UserFactory(role="Administrators")).exists()


def test_the_people_who_can_decide_get_one_mail_and_the_asker_hears_the_end(
    asker: User, decider: User, mailoutbox: list[Any]
) -> None:
    UserFactory(role="Support", is_active=False)
    UserFactory(role="Compliance auditors")
    approval = ask(linked(), asker)
    mail = Mail.objects.get(kind=MailKind.APPROVAL_ASKED)
    assert mail.to == decider.email
    for part in (mail.body, mail.html):
        assert REASON in part
        assert "It stops." in part
        assert f"/approval/{approval.pk}/" in part
    approvals.refuse(approval, actor=acts(decider), comment="Wrong customer.")
    told = Mail.objects.get(kind=MailKind.APPROVAL_DECIDED)
    assert told.to == asker.email
    assert "Wrong customer." in told.body
    notifications.send()
    assert len(mailoutbox) == 2

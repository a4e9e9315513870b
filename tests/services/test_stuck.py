"""Stuck invitations: who has stood on one step too long, what to do next, and in which order."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection as database
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries, Settings

from feeds.models import Invitation
from feeds.services import stuck
from feeds.services.roles import RELATIONSHIP_MANAGERS, SUPPORT
from feeds.states import STUCK_STEPS, InvitationEnd, InvitationState, MailState
from tests.factories import CompanyFactory, InvitationFactory, MailFactory, UserFactory

pytestmark = pytest.mark.django_db

NOW = timezone.now()
COLUMNS = {
    InvitationState.MADE: "created_at",
    InvitationState.SENT: "sent_at",
    InvitationState.OPENED: "opened_at",
    InvitationState.STARTED: "started_at",
    InvitationState.LINKED: "linked_at",
}


def days(count: float) -> timedelta:
    return timedelta(days=count)


def stands(step: InvitationState, since: datetime, **values: Any) -> Invitation:
    """An invitation that came to `step` then, and to each step before an hour earlier."""
    times: dict[str, datetime] = {}
    for place, before in enumerate(reversed(STUCK_STEPS[: STUCK_STEPS.index(step) + 1])):
        times[COLUMNS[before]] = since - timedelta(hours=place)
    made: Invitation = InvitationFactory(**values)
    Invitation.objects.filter(pk=made.pk).update(created_at=times.pop("created_at"))
    for column, at in times.items():
        setattr(made, column, at)
    made.save(update_fields=[*times])
    return Invitation.objects.get(pk=made.pk)


def supporter() -> User:
    """Somebody who sees all customers."""
    user: User = UserFactory(role=SUPPORT)
    return user


def listed(view: stuck.View = "all", user: User | None = None) -> list[Invitation]:
    return list(stuck.worklist(view, user or supporter(), NOW))


# --- What is stuck ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", STUCK_STEPS)
def test_each_step_has_a_limit_of_its_own(step: InvitationState, settings: Settings) -> None:
    settings.INVITATION_STUCK_DAYS = [3, 4, 5, 6, 7]
    limit = days(3 + STUCK_STEPS.index(step))
    found = stands(step, NOW - limit)
    stands(step, NOW - limit + timedelta(minutes=1))
    assert found.state == step
    assert listed() == [found]
    assert listed()[0].since == NOW - limit  # type: ignore[attr-defined]


def test_the_longest_waiting_comes_first_whatever_its_step() -> None:
    second = stands(InvitationState.OPENED, NOW - days(8))
    third = stands(InvitationState.STARTED, NOW - days(2))
    first = stands(InvitationState.SENT, NOW - days(9))
    assert listed() == [first, second, third]


@pytest.mark.parametrize(
    "over",
    [
        {"ended_at": NOW, "end": InvitationEnd.REVOKED},
        {"ended_at": NOW, "end": InvitationEnd.CONNECTED, "connected_at": NOW},
        {"expires_at": NOW - timedelta(seconds=1)},
    ],
    ids=["withdrawn", "connected", "run out"],
)
def test_what_opens_nothing_any_more_is_not_stuck(over: dict[str, Any]) -> None:
    stands(InvitationState.SENT, NOW - days(9), **over)
    assert listed() == []


def test_a_link_that_staff_showed_counts_from_when_it_was_opened_though_it_was_mailed_later() -> None:
    shown = stands(InvitationState.OPENED, NOW - days(6))
    shown.sent_at = NOW - timedelta(hours=1)
    shown.save()
    (found,) = listed()
    assert found.state == InvitationState.OPENED
    assert found.since == NOW - days(6)  # type: ignore[attr-defined]


# --- Whose -----------------------------------------------------------------------------------------------------------
def test_the_views_are_of_my_customers_of_those_i_invited_and_of_all_i_see(settings: Settings) -> None:
    settings.RM_SEES_ALL_CUSTOMERS = False
    robin, other = UserFactory(role=RELATIONSHIP_MANAGERS), UserFactory(role=RELATIONSHIP_MANAGERS)
    step, since = InvitationState.SENT, NOW - days(9)
    mine = stands(step, since - days(3), company=CompanyFactory(manager=robin), made_by=other)
    nobodys = stands(step, since - days(2), company=CompanyFactory(manager=None), made_by=robin)
    theirs = stands(step, since - days(1), company=CompanyFactory(manager=other), made_by=robin)
    assert listed("mine", robin) == [mine]
    assert listed("all", robin) == [mine, nobodys]
    assert listed("invited", robin) == [nobodys]
    assert listed("all") == [mine, nobodys, theirs]


# --- What to do ------------------------------------------------------------------------------------------------------
def advised(invitation: Invitation) -> str:
    (row,) = stuck.with_mails(Invitation.objects.filter(pk=invitation.pk))
    return str(stuck.advice(row, NOW))


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (InvitationState.MADE, "Send it by mail, or show its link and hand it over."),
        (InvitationState.SENT, "Call: did the mail arrive? Then send it again."),
        (InvitationState.OPENED, "Call: the customer looked, and did not press the button."),
        (InvitationState.STARTED, "Call: ask what QuickBooks shows. The same link works again."),
        (InvitationState.LINKED, "Ask whether the other accounts are wanted; they are chosen in QuickBooks."),
    ],
)
def test_each_step_says_what_to_do(step: InvitationState, told: str) -> None:
    assert advised(stands(step, NOW - days(8))) == told


def test_one_that_ends_soon_is_renewed_and_a_mail_that_came_back_comes_before_it() -> None:
    soon = stands(InvitationState.SENT, NOW - days(8), expires_at=NOW + stuck.ENDS_SOON)
    assert advised(soon) == "Renew it: it ends soon. Then send the new one."
    mail(soon, MailState.SENT, sent_at=NOW, bounced_at=NOW)
    assert advised(soon) == "Its mail came back: ask for the right address, and invite anew."
    # Sent again meanwhile, to the right address.
    mail(soon, MailState.SENT, sent_at=NOW)
    assert advised(soon) == "Renew it: it ends soon. Then send the new one."


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (MailState.FAILED, "Its mail could not be sent: check the address, send it again, or show its link."),
        (MailState.HELD, "Its mail was held and never went out: send it again, or show its link."),
        (MailState.QUEUED, "Its mail waits to be sent, or an incident is open. If it stays so, show the link."),
    ],
)
def test_one_whose_mail_never_went_out_says_what_became_of_the_mail(state: MailState, told: str) -> None:
    made = stands(InvitationState.MADE, NOW - days(3))
    mail(made, state)
    assert advised(made) == told


def mail(invitation: Invitation, state: MailState, **values: Any) -> None:
    """A mail about the invitation."""
    waits = {"next_attempt_at": NOW} if state == MailState.QUEUED else {}
    MailFactory(case=None, invitation=invitation, kind="invitation", state=state, **waits, **values)


# --- Cost ------------------------------------------------------------------------------------------------------------
def test_many_rows_with_mails_and_managers_take_two_queries(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    user = supporter()
    for number in range(5):
        row = stands(InvitationState.SENT, NOW - days(9), company=CompanyFactory(manager=UserFactory()))
        for _mail in range(number):
            mail(row, MailState.SENT, sent_at=NOW)
    assert user.has_perm("feeds.view_all_companies")  # fills the cache of rights
    with django_assert_num_queries(2):
        rows = list(stuck.with_mails(stuck.worklist("all", user, NOW)))
        told = [(row.company.manager, stuck.last_mail(row), stuck.advice(row, NOW)) for row in rows]
    assert len(told) == 5


@pytest.mark.skipif(database.vendor != "sqlite", reason="PostgreSQL reads small tables whole")
@pytest.mark.parametrize(
    ("view", "index"),
    [("all", "invitation_step_since"), ("mine", "company_manager"), ("invited", "invitation_step_by")],
)
def test_rows_come_from_an_index_in_its_order(view: stuck.View, index: str) -> None:
    plan = stuck.worklist(view, supporter(), NOW)[:50].explain()
    assert index in plan
    # Of one manager's customers there are so few that they may be sorted.
    assert ("TEMP B-TREE" in plan) == (view == "mine")
    if view == "all":
        assert "(<expr><?)" in plan, "none that came to its step a minute ago may be read"

"""Invitations: who is invited, what replaces what, what ends by itself, and that nothing of a key is kept."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feeds import tasks
from feeds.audit import Actor
from feeds.models import AuditEntry, Company, Connection, Invitation, InvitationKey, Mail
from feeds.services import customer_mails, invitation_keys, invitations, readings, stuck
from feeds.services.errors import Refused
from feeds.states import (
    AccountStatus,
    ConnectionStatus,
    InvitationEnd,
    InvitationPurpose,
    InvitationState,
    MailKind,
    OnboardingState,
)
from tests.factories import CompanyFactory, ConnectionFactory, InvitationFactory, SourceAccountFactory, UserFactory
from tests.services.grid import RM

pytestmark = pytest.mark.django_db


def path_of(invitation: Invitation) -> str:
    """A path that opens it, or did."""
    return urlsplit(invitation_keys.address(invitation, made_for=invitation_keys.SHOWN, actor=RM).url).path


def test_what_has_run_out_is_written_down_once() -> None:
    over, live = InvitationFactory(expires_at=timezone.now()), InvitationFactory()
    assert tasks.end_invitations() == "1 ended, 0 asked for a new link, 0 keys forgotten"
    assert tasks.end_invitations() == "0 ended, 0 asked for a new link, 0 keys forgotten"
    over.refresh_from_db()
    live.refresh_from_db()
    assert (over.state, over.end, live.end) == (InvitationState.EXPIRED, InvitationEnd.EXPIRED, "")
    entry = AuditEntry.objects.filter(content_type__model="invitation", object_pk=str(over.pk)).latest("pk")
    assert (entry.fields, entry.actor_name) == (",end,ended_at,", "worker")


def test_keys_are_forgotten_long_after_their_invitation_and_the_answer_stays() -> None:
    client = Client()
    revoked, expired, long_expired, live = InvitationFactory.create_batch(4)
    connected = InvitationFactory(company=CompanyFactory(in_codat=True))
    paths = {it.pk: path_of(it) for it in (revoked, expired, long_expired, live, connected)}
    invitations.revoke(revoked, actor=RM, reason="Wrong person.")
    now = timezone.now()
    Invitation.objects.filter(pk=expired.pk).update(expires_at=now)
    Invitation.objects.filter(pk=long_expired.pk).update(expires_at=now - invitation_keys.KEPT_FOR)
    Invitation.objects.filter(pk=connected.pk).update(connected_at=now, ended_at=now, end=InvitationEnd.CONNECTED)
    before = client.post(paths[long_expired.pk])
    tasks.end_invitations()
    kept = {revoked.pk, expired.pk, live.pk, connected.pk}
    assert set(InvitationKey.objects.values_list("invitation", flat=True)) == kept
    after = client.post(paths[long_expired.pk])
    assert (before.status_code, before.content) == (after.status_code, after.content)
    assert client.get(paths[live.pk]).status_code == client.get(paths[connected.pk]).status_code == 200


def test_a_contact_is_invited_anew_once_the_older_invitation_is_over() -> None:
    old = InvitationFactory(expires_at=timezone.now() - timedelta(seconds=1))
    new = invitations.invite_contact(old.company, purpose=InvitationPurpose.CONNECT, actor=RM)
    assert new.contact_email == old.company.contact_email
    with pytest.raises(Refused, match="an invitation that still works"):
        invitations.invite_contact(old.company, purpose=InvitationPurpose.CONNECT, actor=RM)


@pytest.mark.parametrize("status", ["pending", "disconnected"])
def test_a_linked_customer_with_an_account_left_can_be_invited(status: str) -> None:
    connection = ConnectionFactory(linked=True)
    SourceAccountFactory(company=connection.company, connection=connection, status=status)
    invitations.invite_contact(connection.company, purpose=InvitationPurpose.ADD_ACCOUNTS, actor=RM)
    assert Invitation.objects.get().mails.count() == 1


def test_why_one_was_withdrawn_is_in_the_history_of_its_end() -> None:
    invitation = InvitationFactory()
    invitations.revoke(invitation, actor=Actor(name="Robin Staff", source="admin"), reason="Wrong person.")
    entry = AuditEntry.objects.filter(content_type__model="invitation", fields__contains=",end,").latest("pk")
    assert (entry.reason, entry.actor_name) == ("Wrong person.", "Robin Staff")


# --- Connected otherwise ---------------------------------------------------------------------------------------------
def waits_for_a_press(days: int = 6) -> Invitation:
    """An invitation that was mailed and that nobody opened, of a company with one account left to connect."""
    account = SourceAccountFactory(in_codat=True)
    sent_at = timezone.now() - timedelta(days=days)
    invitation: Invitation = InvitationFactory(company=account.company, sent_at=sent_at)
    return invitation


def connect_otherwise(company: Company) -> None:
    """Every account is connected, and nothing of ours was pressed: as the mirror shows it before it is looked at."""
    company.connections.update(status=ConnectionStatus.LINKED)
    company.source_accounts.update(status=AccountStatus.CONNECTED)


def test_a_customer_who_has_connected_otherwise_is_not_reminded(monkeypatch: pytest.MonkeyPatch) -> None:
    invitation = waits_for_a_press()
    connect_otherwise(invitation.company)
    monkeypatch.setattr(customer_mails, "is_office_hour", lambda _at, _zone: True)
    assert tasks.remind_customers() == "0 reminded"
    Connection.objects.update(status=ConnectionStatus.UNLINKED)
    assert tasks.remind_customers() == "1 reminded"


def test_the_next_reading_ends_the_invitation_of_who_has_connected_otherwise() -> None:
    invitation = waits_for_a_press()
    everybody = UserFactory(is_superuser=True, is_staff=True)
    assert stuck.worklist("all", everybody, timezone.now()).count() == 1
    connect_otherwise(invitation.company)
    readings.after_reading(invitation.company)
    invitation.refresh_from_db()
    assert (invitation.state, invitation.end) == (InvitationState.CONNECTED, InvitationEnd.CONNECTED)
    assert stuck.worklist("all", everybody, timezone.now()).count() == 0
    assert Mail.objects.get().kind == MailKind.CONNECTED


@pytest.mark.parametrize("end", [InvitationEnd.EXPIRED, InvitationEnd.REPLACED])
def test_who_pressed_in_time_and_connected_a_little_later_counts_and_gets_the_confirmation(end: InvitationEnd) -> None:
    now = timezone.now()
    invitation = waits_for_a_press()
    path = path_of(invitation)
    pressed = {"started_at": now - timedelta(minutes=10), "end": end, "ended_at": now - timedelta(minutes=1)}
    Invitation.objects.update(**pressed)
    connect_otherwise(invitation.company)
    readings.after_reading(invitation.company)
    invitation.refresh_from_db()
    assert invitation.state == InvitationState.CONNECTED
    assert Mail.objects.get().kind == MailKind.CONNECTED
    # Of one that was replaced the link stays shut: somebody else may hold it.
    opens = end == InvitationEnd.EXPIRED
    assert Client().get(path).status_code == (200 if opens else 404)


@pytest.mark.parametrize(
    "values",
    [
        {"started_at": None},
        {"ended_at": timezone.now() - timedelta(days=2)},
        {"end": InvitationEnd.REVOKED},
    ],
    ids=["never pressed", "long over", "withdrawn"],
)
def test_what_ended_otherwise_or_long_ago_stays_as_it_ended(values: dict[str, object]) -> None:
    now = timezone.now()
    invitation = waits_for_a_press()
    Invitation.objects.update(**{"started_at": now, "end": InvitationEnd.EXPIRED, "ended_at": now} | values)
    connect_otherwise(invitation.company)
    readings.after_reading(invitation.company)
    invitation.refresh_from_db()
    assert invitation.connected_at is None
    assert not Mail.objects.exists()


def test_what_was_connected_before_says_nothing_of_an_invitation_for_the_rest() -> None:
    invitation = waits_for_a_press()
    connect_otherwise(invitation.company)
    SourceAccountFactory(company=invitation.company, connection=invitation.company.connections.get(), status="pending")
    readings.after_reading(invitation.company)
    invitation.refresh_from_db()
    assert (invitation.state, invitation.linked_at) == (InvitationState.SENT, None)


def test_of_two_invitations_that_end_together_one_is_confirmed() -> None:
    unpressed = waits_for_a_press()
    pressed = InvitationFactory(
        company=unpressed.company, purpose=InvitationPurpose.ADD_ACCOUNTS, started_at=timezone.now()
    )
    connect_otherwise(unpressed.company)
    readings.after_reading(unpressed.company)
    assert not Invitation.objects.filter(connected_at=None).exists()
    assert Mail.objects.get().invitation == pressed


@pytest.mark.parametrize("was_mailed", [True, False])
def test_who_never_heard_of_an_invitation_gets_no_mail_about_its_end(was_mailed: bool) -> None:
    invitation = waits_for_a_press()
    if not was_mailed:
        Invitation.objects.update(sent_at=None)
    connect_otherwise(invitation.company)
    readings.after_reading(invitation.company)
    assert Mail.objects.exists() == was_mailed


@pytest.mark.parametrize("purpose", InvitationPurpose)
def test_the_form_says_that_there_is_nothing_left_to_connect(purpose: InvitationPurpose) -> None:
    connection = ConnectionFactory(linked=True)
    SourceAccountFactory(company=connection.company, connection=connection, status="connected")
    admin = Client()
    admin.force_login(UserFactory(is_superuser=True, is_staff=True))
    address = reverse("admin:feeds_company_action", args=[connection.company_id, "invite"])
    form = {"purpose": purpose, "contact_name": "Zoé Roy", "contact_email": "zoe@bakery.example", "days": 5}
    answer = admin.post(address, form, follow=True)
    assert "Every account is connected: there is nothing to invite to." in answer.content.decode()
    assert not Invitation.objects.exists()


def test_an_account_on_its_way_to_codat_keeps_the_invitation_open() -> None:
    connection = ConnectionFactory(linked=True)
    company = connection.company
    company.onboarding_state = OnboardingState.LINKED
    company.save()
    SourceAccountFactory(company=company, connection=connection, status=AccountStatus.CONNECTED)
    added = SourceAccountFactory(company=company)  # not in Codat yet
    invitation = invitations.invite_contact(company, purpose=InvitationPurpose.ADD_ACCOUNTS, actor=RM)
    path = path_of(invitation)
    tasks.send_mails()
    readings.after_reading(Company.objects.get(pk=company.pk))  # the poller comes by
    assert not Mail.objects.filter(kind=MailKind.CONNECTED).exists()
    added.connection, added.status = connection, AccountStatus.PENDING
    added.save()
    page = Client().get(path).content.decode()
    assert "Connect bank feeds" in page
    assert "done its work" not in page


def test_renewing_what_was_renewed_already_does_not_kill_the_newer_link() -> None:
    first = InvitationFactory()
    stale = Invitation.objects.get(pk=first.pk)
    second = invitations.renew(first, actor=RM)
    path = path_of(second)  # mailed by the first colleague
    with pytest.raises(Refused):
        invitations.renew(stale, actor=RM)
    assert Client().get(path).status_code == 200

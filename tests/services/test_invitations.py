"""Invitations: who is invited, what replaces what, what ends by itself, and that nothing of a key is kept."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.test import Client
from django.utils import timezone

from feeds import tasks
from feeds.audit import Actor
from feeds.models import AuditEntry, Invitation, InvitationKey
from feeds.services import invitation_keys, invitations
from feeds.services.errors import Refused
from feeds.states import InvitationEnd, InvitationPurpose, InvitationState
from tests.factories import CompanyFactory, ConnectionFactory, InvitationFactory, SourceAccountFactory
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

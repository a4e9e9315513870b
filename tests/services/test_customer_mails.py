"""Mails to customers: in their language, as staff saw them, by day, once, and with a link that is kept nowhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.core import mail as sent_mails
from django.core import serializers
from django.core.mail import EmailMultiAlternatives
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from feeds import tasks
from feeds.codat.errors import Unreachable
from feeds.models import Invitation, InvitationKey, Mail
from feeds.services import customer_mails, door, incidents, invitations, outbox
from feeds.services.door import Closed
from feeds.services.outbox import LINK_MARK
from feeds.states import InvitationPurpose, InvitationState, MailKind, MailState, OnboardingState
from tests.factories import CompanyFactory, IncidentFactory, InvitationFactory, MailFactory, UserFactory
from tests.services.grid import RM

pytestmark = pytest.mark.django_db

TORONTO = ZoneInfo("America/Toronto")
TUESDAY_NOON = datetime(2026, 12, 1, 12, tzinfo=TORONTO)
LINK = re.compile(r"http\S+/connect/[\w-]{43}")


@pytest.fixture(autouse=True)
def _places(settings: Settings) -> None:
    settings.INSTITUTION_NAME, settings.INSTITUTION_PHONE = "Maple Harbour Bank", "+1 555 0100"
    settings.SITE_URL = "https://feeds.bank.example"
    settings.CASE_NOTIFY_TO = ["support@bank.example"]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Moves the clock."""
    return lambda moment: monkeypatch.setattr(timezone, "now", lambda: moment)


def went_out() -> EmailMultiAlternatives:
    """The one mail that left."""
    (message,) = sent_mails.outbox
    assert isinstance(message, EmailMultiAlternatives)
    return message


def sent_invitation(at: datetime, *, zone: str = "America/Toronto") -> Invitation:
    """An invitation that was mailed at that time and that nobody used."""
    invitation: Invitation = InvitationFactory(
        company=CompanyFactory(in_codat=True, time_zone=zone), sent_at=at, expires_at=at + timedelta(days=30)
    )
    return invitation


# --- The text --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [MailKind.INVITATION, MailKind.REMINDER, MailKind.RECONNECT, MailKind.CONNECTED])
@pytest.mark.parametrize("language", ["en", "fr"])
def test_every_mail_is_in_the_invitations_language_and_says_from_whom_it_is(kind: MailKind, language: str) -> None:
    invitation = InvitationFactory(language=language, contact_name="Zoé O'Neil", company__legal_name="Café & Fils inc.")
    text = customer_mails.draft(kind, invitation)
    assert text.body.startswith({"en": "Hello Zoé O'Neil,", "fr": "Bonjour Zoé O'Neil,"}[language])
    assert "Café & Fils inc." in text.body
    assert "Café &amp; Fils inc." in text.html
    assert ".." not in text.body + text.html
    assert f'<html lang="{language}">' in text.html
    assert "Maple Harbour Bank" in text.body
    assert "+1 555 0100" in text.body
    assert (LINK_MARK in text.body) == (LINK_MARK in text.html) == (kind != MailKind.CONNECTED)
    other = customer_mails.draft(kind, InvitationFactory(language={"en": "fr", "fr": "en"}[language]))
    assert text.subject != other.subject


def test_the_invitations_purpose_decides_which_mail_hands_over_its_link() -> None:
    kinds = {purpose: customer_mails.kind_of(Invitation(purpose=purpose)) for purpose in InvitationPurpose}
    assert kinds == {
        InvitationPurpose.CONNECT: MailKind.INVITATION,
        InvitationPurpose.ADD_ACCOUNTS: MailKind.INVITATION,
        InvitationPurpose.RECONNECT: MailKind.RECONNECT,
    }


def test_what_is_sent_is_what_staff_saw_but_for_the_link() -> None:
    invitation = InvitationFactory(language="fr")
    seen = customer_mails.draft(MailKind.INVITATION, invitation)
    customer_mails.send(invitation, actor=RM)
    assert tasks.send_mails() == "1 sent"
    message = went_out()
    (link,) = set(LINK.findall(str(message.body)))
    html = str(message.alternatives[0][0])
    assert (message.subject, message.to) == (seen.subject, [seen.to])
    assert message.body == seen.body.replace(LINK_MARK, link)
    assert html == seen.html.replace(LINK_MARK, link)


def test_the_stored_row_opens_nothing_and_the_mailed_link_does() -> None:
    invitation = InvitationFactory()
    customer_mails.send(invitation, actor=RM)
    tasks.send_mails()
    link = LINK.findall(str(went_out().body))[0]
    key = link.rpartition("/")[2]
    assert Client().get(f"/connect/{key}").status_code == 200
    for table in (Mail, Invitation, InvitationKey):
        assert key not in serializers.serialize("json", table._default_manager.all())
    assert Client().get(f"/connect/{LINK_MARK}").status_code == 404


def test_two_mails_carry_two_links_and_both_open() -> None:
    invitation = InvitationFactory()
    for _ in range(2):
        customer_mails.send(invitation, actor=RM)
        tasks.send_mails()
    first, second = (LINK.findall(str(message.body))[0] for message in sent_mails.outbox)
    assert first != second
    for link in (first, second):
        assert Client().get(link.removeprefix("https://feeds.bank.example")).status_code == 200


# --- An invitation that ended meanwhile ------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["revoked", "expired", "replaced"])
def test_a_mail_whose_invitation_ended_before_it_went_is_not_sent(how: str) -> None:
    invitation = InvitationFactory()
    customer_mails.send(invitation, actor=RM)
    if how == "revoked":
        invitations.revoke(invitation, actor=RM, reason="Wrong person.")
    elif how == "expired":
        Invitation.objects.update(expires_at=timezone.now())
    else:
        invitations.renew(invitation, actor=RM)
    assert tasks.send_mails() == "0 sent"
    assert not sent_mails.outbox
    mail = Mail.objects.get()
    assert (mail.state, mail.next_attempt_at) == (MailState.FAILED, None)
    assert mail.error.startswith("This invitation opens nothing any more.")
    assert not InvitationKey.objects.exists()


# --- The reminder ----------------------------------------------------------------------------------------------------
def test_a_reminder_goes_once_after_some_days(at: Callable[[datetime], None]) -> None:
    invitation = sent_invitation(TUESDAY_NOON - timedelta(days=4))
    at(TUESDAY_NOON - timedelta(hours=1))
    assert tasks.remind_customers() == "0 reminded"
    at(TUESDAY_NOON)
    assert tasks.remind_customers() == "1 reminded"
    assert tasks.remind_customers() == "0 reminded"
    tasks.send_mails()
    assert went_out().subject == "Your bank feed is not connected yet"
    invitation.refresh_from_db()
    assert invitation.reminded_at == TUESDAY_NOON


@pytest.mark.parametrize(
    ("moment", "goes"),
    [
        (datetime(2026, 12, 1, 8, 59, tzinfo=TORONTO), False),
        (datetime(2026, 12, 1, 9, 0, tzinfo=TORONTO), True),
        (datetime(2026, 12, 1, 16, 59, tzinfo=TORONTO), True),
        (datetime(2026, 12, 1, 17, 0, tzinfo=TORONTO), False),
        (datetime(2026, 12, 4, 12, 0, tzinfo=TORONTO), True),
        (datetime(2026, 12, 5, 12, 0, tzinfo=TORONTO), False),
        (datetime(2026, 12, 6, 12, 0, tzinfo=TORONTO), False),
    ],
    ids=["before nine", "at nine", "before five", "at five", "Friday", "Saturday", "Sunday"],
)
def test_a_reminder_goes_by_day_on_a_working_day(moment: datetime, goes: bool, at: Callable[[datetime], None]) -> None:
    sent_invitation(TUESDAY_NOON - timedelta(days=10))
    at(moment)
    assert tasks.remind_customers() == f"{int(goes)} reminded"


def test_it_is_the_customers_day_that_counts(at: Callable[[datetime], None]) -> None:
    sent_invitation(TUESDAY_NOON - timedelta(days=10), zone="America/Vancouver")
    at(datetime(2026, 12, 1, 9, 30, tzinfo=TORONTO))  # half past six in Vancouver
    assert tasks.remind_customers() == "0 reminded"
    at(TUESDAY_NOON)
    assert tasks.remind_customers() == "1 reminded"


def test_customers_who_sleep_do_not_stand_in_the_way_of_those_who_are_awake(
    at: Callable[[datetime], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(customer_mails, "AT_ONCE", 1)
    long_ago = TUESDAY_NOON - timedelta(days=9)
    asleep = [sent_invitation(long_ago, zone="Asia/Tokyo") for _ in range(2)]
    awake = [sent_invitation(long_ago + timedelta(days=1)) for _ in range(2)]
    at(TUESDAY_NOON)
    assert [tasks.remind_customers() for _ in range(3)] == ["1 reminded", "1 reminded", "0 reminded"]
    assert not Invitation.objects.filter(pk__in=[it.pk for it in asleep], reminded_at__isnull=False).exists()
    assert Invitation.objects.filter(pk__in=[it.pk for it in awake], reminded_at=TUESDAY_NOON).count() == 2


def test_nobody_is_reminded_at_an_address_that_a_mail_came_back_from(at: Callable[[datetime], None]) -> None:
    bounced, other = (sent_invitation(TUESDAY_NOON - timedelta(days=10)) for _ in range(2))
    other.contact_email = "zoe@bakery.example"
    other.save()
    mail = MailFactory(
        case=None, invitation=bounced, to=bounced.contact_email, state=MailState.SENT, sent_at=timezone.now()
    )
    customer_mails.note_bounce(mail, actor=RM)
    at(TUESDAY_NOON)
    assert tasks.remind_customers() == "1 reminded"
    assert Mail.objects.get(kind=MailKind.REMINDER).to == "zoe@bakery.example"


@pytest.mark.parametrize(
    "values", [{"sent_at": None}, {"expires_at": TUESDAY_NOON}, {"ended_at": TUESDAY_NOON, "end": "revoked"}]
)
def test_who_was_never_mailed_or_can_no_longer_connect_is_not_reminded(
    values: dict[str, object], at: Callable[[datetime], None]
) -> None:
    invitation = sent_invitation(TUESDAY_NOON - timedelta(days=10))
    Invitation.objects.filter(pk=invitation.pk).update(**values)
    at(TUESDAY_NOON)
    assert tasks.remind_customers() == "0 reminded"


# --- Incidents -------------------------------------------------------------------------------------------------------
def test_an_open_incident_holds_mails_to_customers_and_its_release_lets_them_go() -> None:
    incident = IncidentFactory()
    invitation = InvitationFactory()
    customer_mails.send(invitation, actor=RM)
    assert tasks.send_mails() == "0 sent"
    assert not sent_mails.outbox
    assert Mail.objects.get().state == MailState.QUEUED
    incidents.release(incident, RM, "Codat was down.")
    tasks.send_mails()
    assert "alex@maple.example" in [message.to[0] for message in sent_mails.outbox]
    invitation.refresh_from_db()
    assert invitation.state == InvitationState.SENT


def test_a_mail_to_staff_is_not_held_with_them() -> None:
    IncidentFactory()
    MailFactory(case=None, kind=MailKind.DIGEST, state=MailState.QUEUED, next_attempt_at=timezone.now(), attempts=0)
    assert tasks.send_mails() == "1 sent"


# --- What staff are told ---------------------------------------------------------------------------------------------
def test_staff_hear_once_a_day_for_each_reason_that_customers_cannot_connect(
    at: Callable[[datetime], None],
) -> None:
    UserFactory(email="support@bank.example")
    invitation = InvitationFactory()
    for hours in (0, 1, 2):
        at(TUESDAY_NOON + timedelta(hours=hours))
        door._shut(invitation, Closed.CODAT_DOWN, Unreachable("timed out"))
    assert Mail.objects.filter(kind=MailKind.DOOR_CLOSED).count() == 1
    door._shut(invitation, Closed.FAULT, Unreachable("timed out"))
    assert Mail.objects.filter(kind=MailKind.DOOR_CLOSED).count() == 2
    at(TUESDAY_NOON + timedelta(days=1))
    door._shut(invitation, Closed.CODAT_DOWN, Unreachable("timed out"))
    assert Mail.objects.filter(kind=MailKind.DOOR_CLOSED).count() == 3
    assert "Customers cannot connect" in outbox_subjects()


def outbox_subjects() -> str:
    """Subjects of everything in the outbox."""
    return "; ".join(Mail.objects.values_list("subject", flat=True))


def test_a_mail_that_failed_can_be_sent_again_with_a_fresh_link() -> None:
    invitation = InvitationFactory()
    customer_mails.send(invitation, actor=RM)
    Mail.objects.update(state=MailState.FAILED, next_attempt_at=None)
    outbox.send_again(Mail.objects.get(), actor=RM)
    tasks.send_mails()
    assert LINK.search(str(went_out().body))


def test_an_off_boarded_customer_is_not_reminded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customer_mails, "is_office_hour", lambda _at, _zone: True)
    now = timezone.now()
    company = CompanyFactory(in_codat=True, gone_at=now, onboarding_state=OnboardingState.OFFBOARDED)
    InvitationFactory(company=company, sent_at=now - timedelta(days=6))
    assert tasks.remind_customers() == "0 reminded"


@pytest.mark.parametrize(
    ("zone", "day"), [("America/Vancouver", "Dec. 14, 2026"), ("America/Toronto", "Dec. 15, 2026")]
)
def test_the_last_day_is_one_on_which_the_link_works_where_the_customer_is(zone: str, day: str) -> None:
    over = datetime(2026, 12, 15, 6, 30, tzinfo=UTC)  # 01:30 in Toronto, 22:30 the day before in Vancouver
    invitation = InvitationFactory(company__time_zone=zone, expires_at=over)
    body = customer_mails.draft(MailKind.INVITATION, invitation).body
    assert f"until {day}" in body or f"until {day.replace('Dec.', 'December')}" in body, body

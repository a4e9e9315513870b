"""The outbox on screen: what was told to whom, and Send again for what was not delivered."""

from __future__ import annotations

from smtplib import SMTPServerDisconnected
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail as sent_mails
from django.core.mail.backends.locmem import EmailBackend
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django_q.models import OrmQ
from pytest_django.fixtures import Settings

from feeds.models import AuditEntry, Mail
from feeds.services import outbox
from feeds.services.roles import ADMINISTRATORS, COMPLIANCE_AUDITORS, RELATIONSHIP_MANAGERS, SUPPORT
from feeds.states import CUSTOMER_MAILS, MailKind, MailState
from tests.factories import (
    CaseFactory,
    CompanyFactory,
    ConnectionFactory,
    IncidentFactory,
    InvitationFactory,
    MailFactory,
    UserFactory,
)
from tests.queue_drain import drain

pytestmark = pytest.mark.django_db

LIST = reverse("admin:feeds_mail_changelist")


def browser(*permissions: str) -> Client:
    """Someone signed in who sees mails, those to colleagues too."""
    client = Client()
    client.force_login(UserFactory(permissions=["feeds.view_mail", "feeds.view_case", *permissions]))
    return client


@pytest.fixture
def staff() -> Client:
    """Someone who may send mails again."""
    return browser("feeds.resend_mail")


def action_url(mail: Mail) -> str:
    return reverse("admin:feeds_mail_action", args=[mail.pk, "send-again"])


def page(client: Client, mail: Mail) -> str:
    return str(client.get(reverse("admin:feeds_mail_change", args=[mail.pk])).content.decode())


def press(client: Client, mail: Mail) -> list[str]:
    """Press Send again; the messages that follow."""
    answer = client.post(action_url(mail), follow=True)
    assert answer.status_code == 200
    return [str(message) for message in answer.context["messages"]]


def held(*, released: bool) -> Mail:
    """A mail that an incident held."""
    incident = IncidentFactory(released_at=timezone.now() if released else None)
    mail: Mail = MailFactory(state=MailState.HELD, case=CaseFactory(incident=incident))
    return mail


class TestSendAgain:
    @pytest.mark.parametrize("state", [MailState.FAILED, MailState.HELD])
    def test_it_is_sent_as_it_was_written(self, state: MailState, staff: Client) -> None:
        mail = MailFactory(error="SMTPServerDisconnected") if state == MailState.FAILED else held(released=True)
        assert press(staff, mail) == ["Queued: it is sent within a minute."]
        drain()
        mail.refresh_from_db()
        assert (mail.state, mail.attempts, mail.error) == (MailState.SENT, 1, "")
        (message,) = sent_mails.outbox
        assert (message.subject, message.to, message.body) == (mail.subject, ["support@bank.example"], mail.body)

    def test_it_is_hidden_and_refused_without_the_permission(self) -> None:
        mail, client = MailFactory(), browser()
        assert action_url(mail) not in page(client, mail)
        assert client.get(action_url(mail)).status_code == 403
        assert client.post(action_url(mail)).status_code == 403
        mail.refresh_from_db()
        assert mail.state == MailState.FAILED
        assert not OrmQ.objects.exists()

    @pytest.mark.parametrize(
        ("state", "why"),
        [
            (MailState.QUEUED, "It is waiting to be sent already."),
            (MailState.SENT, "It was sent. What it told stands on the case."),
            (MailState.HELD, "Its incident is open, and would hold it again. Release the incident first."),
        ],
    )
    def test_it_says_why_it_makes_no_sense_now(self, state: MailState, why: str, staff: Client) -> None:
        waits = timezone.now() if state == MailState.QUEUED else None
        mail = held(released=False) if state == MailState.HELD else MailFactory(state=state, next_attempt_at=waits)
        assert press(staff, mail) == [why]
        mail.refresh_from_db()
        assert mail.state == state
        assert not OrmQ.objects.exists()

    def test_of_a_sent_mail_that_is_about_no_case_none_is_named(self, staff: Client) -> None:
        assert press(staff, MailFactory(state=MailState.SENT, case=None, next_attempt_at=None)) == ["It was sent."]

    def test_what_the_mail_server_answers_is_on_the_mail(self, staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_args: Any) -> int:
            raise SMTPServerDisconnected("gone")

        monkeypatch.setattr(EmailBackend, "send_messages", refuse)
        mail = MailFactory()
        press(staff, mail)
        drain()
        mail.refresh_from_db()
        assert (mail.state, mail.attempts) == (MailState.QUEUED, 1)
        assert "SMTPServerDisconnected" in page(staff, mail)
        monkeypatch.undo()

    def test_the_history_says_who_pressed_it(self, staff: Client) -> None:
        mail = MailFactory()
        press(staff, mail)
        entry = AuditEntry.objects.get(event="mail_resent")
        assert (entry.object_pk, entry.source) == (str(mail.pk), "admin")
        assert entry.actor is not None

    def test_looking_at_the_confirmation_changes_nothing(self, staff: Client) -> None:
        mail = MailFactory()
        assert "support@bank.example" in staff.get(action_url(mail)).content.decode()
        mail.refresh_from_db()
        assert mail.state == MailState.FAILED

    def test_two_who_press_at_once_send_one(self, staff: Client) -> None:
        mail = MailFactory()
        press(staff, mail)
        assert press(staff, mail) == ["It is waiting to be sent already."]
        drain()
        assert len(sent_mails.outbox) == 1


class TestWhatIsShown:
    def test_the_list_says_what_was_told_to_whom_when_and_about_what(self, staff: Client) -> None:
        mail = MailFactory(to="a@bank.example,b@bank.example", state=MailState.SENT, sent_at=timezone.now())
        found = staff.get(LIST).content.decode().replace("<wbr>", "")
        assert mail.case is not None
        for text in (mail.subject, "Sent", "Feed broke", "a@bank.example, b@bank.example", f"#{mail.case.pk}"):
            assert text in found
        assert f'datetime="{mail.sent_at.isoformat()}"' in found

    def test_the_page_shows_the_text_escaped_and_what_went_wrong(self, staff: Client) -> None:
        mail = MailFactory(body="<b>Café</b> & co", error="SMTPServerDisconnected")
        found = page(staff, mail)
        assert "&lt;b&gt;Café&lt;/b&gt; &amp; co" in found
        assert "SMTPServerDisconnected" in found
        assert "Have EMAIL_URL and the addresses checked, then press Send again." in found

    def test_filters_and_search_find_the_one(self, staff: Client) -> None:
        company = CompanyFactory(customer_number="C-77", codat_id="codat-77", in_codat=False)
        wanted = MailFactory(kind=MailKind.RECOVERED, case=CaseFactory(connection=ConnectionFactory(company=company)))
        MailFactory(state=MailState.SENT)
        for query in ({"state__exact": "failed"}, {"kind__exact": "recovered"}, {"q": "C-77"}, {"q": "codat-77"}):
            answer = staff.get(LIST, query)
            assert list(answer.context["cl"].result_list) == [wanted], query

    def test_who_may_see_and_who_may_send(self) -> None:
        for role, sees, sends in (
            (SUPPORT, True, True),
            (ADMINISTRATORS, True, True),
            (COMPLIANCE_AUDITORS, False, False),
            (RELATIONSHIP_MANAGERS, True, False),
        ):
            user = UserFactory(role=role)
            assert user.has_perm("feeds.view_mail") is sees
            assert user.has_perm("feeds.resend_mail") is sends


class TestOwnCustomers:
    """A manager sees what the customers they look after were told, and notes what came back."""

    @pytest.fixture(autouse=True)
    def _each_their_own(self, settings: Settings) -> None:
        settings.RM_SEES_ALL_CUSTOMERS = False

    @pytest.fixture
    def robin(self) -> User:
        """A manager."""
        user: User = UserFactory(role=RELATIONSHIP_MANAGERS)
        return user

    @pytest.fixture
    def manager(self, robin: User) -> Client:
        """Their browser."""
        client = Client()
        client.force_login(robin)
        return client

    def test_the_list_holds_mails_to_them_and_no_others(self, manager: Client, robin: User) -> None:
        own, nobodys = to_customer(manager=robin), to_customer(manager=None)
        others, to_staff, digest = to_customer(manager=UserFactory()), about_case(manager=robin), MailFactory(case=None)
        assert list(manager.get(LIST).context["cl"].result_list) == [nobodys, own]
        for hidden in (others, to_staff, digest):
            answer = manager.get(reverse("admin:feeds_mail_change", args=[hidden.pk]))
            assert answer.status_code == 302
        assert own.body in page(manager, own)

    def test_they_are_found_by_the_customers_name_and_number(self, manager: Client, robin: User) -> None:
        wanted = to_customer(manager=robin, legal_name="Zinnia Dental Ltd.", customer_number="C-77")
        to_customer(manager=robin)
        to_customer(manager=UserFactory(), legal_name="Zinnia Bakery Inc.")
        for term in ("Zinnia", "C-77"):
            assert list(manager.get(LIST, {"q": term}).context["cl"].result_list) == [wanted]

    def test_who_may_see_every_customer_but_works_no_cases_sees_no_mail_to_staff(
        self, manager: Client, robin: User, settings: Settings
    ) -> None:
        settings.RM_SEES_ALL_CUSTOMERS = True
        others = to_customer(manager=UserFactory())
        about_case(manager=robin)
        assert list(manager.get(LIST).context["cl"].result_list) == [others]

    def test_they_are_offered_no_column_and_no_kind_that_is_never_theirs(self, manager: Client, robin: User) -> None:
        to_customer(manager=robin)
        support = Client()
        support.force_login(UserFactory(role=SUPPORT))
        mine, everybodys = manager.get(LIST), support.get(LIST)
        assert "column-about" not in mine.content.decode()
        assert "column-about" in everybodys.content.decode()
        assert "Daily digest" not in mine.content.decode()
        assert "Daily digest" in everybodys.content.decode()
        for kind in CUSTOMER_MAILS:
            assert f"kind__exact={kind}" in mine.content.decode()

    def test_they_note_that_one_came_back_and_send_none_again(self, manager: Client, robin: User) -> None:
        own, others = to_customer(manager=robin), to_customer(manager=UserFactory())
        for mail, status in ((own, 302), (others, 404)):
            noted = manager.post(reverse("admin:feeds_mail_action", args=[mail.pk, "note-bounce"]))
            assert noted.status_code == status
            mail.refresh_from_db()
            assert (mail.bounced_at is not None) is (mail == own)
        assert manager.post(action_url(own)).status_code == 403

    def test_the_list_takes_a_query_for_the_companies_and_not_one_for_each(
        self, manager: Client, robin: User, django_assert_num_queries: Any
    ) -> None:
        to_customer(manager=robin)
        manager.get(LIST)
        with CaptureQueriesContext(database) as one:
            manager.get(LIST)
        for _ in range(9):
            to_customer(manager=robin)
        with django_assert_num_queries(len(one)):
            assert len(manager.get(LIST).context["cl"].result_list) == 10


def to_customer(**company: Any) -> Mail:
    """A mail that went to a customer."""
    invitation = InvitationFactory(company=CompanyFactory(**company))
    mail: Mail = MailFactory(
        case=None, invitation=invitation, kind=MailKind.INVITATION, state=MailState.SENT, sent_at=timezone.now()
    )
    return mail


def about_case(**company: Any) -> Mail:
    """A mail to staff about a customer's case."""
    connection = ConnectionFactory(company=CompanyFactory(in_codat=True, **company))
    mail: Mail = MailFactory(case=CaseFactory(connection=connection))
    return mail


def test_a_failed_mail_is_led_to_from_system_health() -> None:
    MailFactory()
    client = Client()
    client.force_login(UserFactory(role=SUPPORT))
    found = client.get(reverse("admin:operations_page")).content.decode()
    assert f"{LIST}?state__exact=failed" in found
    assert outbox.why_not_again(MailFactory()) == ""

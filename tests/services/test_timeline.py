"""The timeline: several tellings become one list that a person can read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection as database
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from feeds import audit
from feeds.models import AuditEntry, Company, Connection, Operation
from feeds.services import door, invitation_keys, invitations, links, onboarding, outbox, timeline
from feeds.services.timeline import Kind, Place
from feeds.states import (
    AccountStatus,
    CaseEventKind,
    ConnectionStatus,
    InvitationEnd,
    InvitationPurpose,
    OperationKind,
    OperationState,
    SeenBy,
)
from tests.factories import (
    CaseEventFactory,
    CaseFactory,
    CompanyFactory,
    ConnectionFactory,
    InvitationFactory,
    MailFactory,
    OperationFactory,
    SourceAccountFactory,
    StatusEventFactory,
)
from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ROBIN = audit.Actor(name="Robin Staff", source="admin")


def told(company: Company, **options: Any) -> list[str]:
    """The titles, newest first."""
    return [entry.title for entry in timeline.of_company(company, **options).entries]


class TestStatus:
    def test_a_disconnected_account_says_by_when_it_may_have_stopped(self) -> None:
        event = StatusEventFactory(seen_at=NOON, account__name="Operating")
        (entry,) = timeline.of_company(event.company).entries
        assert entry.title == "Operating: connected → disconnected"
        assert "QuickBooks has not asked for this account for ten days" in entry.text
        assert "it may have stopped on or before Nov. 12, 2026." in entry.text
        assert entry.next_step.startswith("Hand the customer a fresh link")

    def test_the_day_is_the_staff_members(self, settings: Any) -> None:
        event = StatusEventFactory(seen_at=datetime(2026, 11, 22, 2, tzinfo=UTC))
        with timezone.override("America/New_York"):
            (entry,) = timeline.of_company(event.company).entries
        assert "on or before Nov. 11, 2026" in entry.text

    def test_an_unlinked_connection_may_have_stopped_eleven_days_before(self) -> None:
        connection = ConnectionFactory()
        event = StatusEventFactory(
            account=None, connection=connection, old="Linked", new=ConnectionStatus.UNLINKED, seen_at=NOON
        )
        (entry,) = timeline.of_company(event.company).entries
        assert entry.title == "Connection: Linked → Unlinked"
        assert "on or before Nov. 11, 2026" in entry.text

    def test_what_staff_disconnected_was_not_silent(self) -> None:
        operation = OperationFactory(kind=OperationKind.DISCONNECT_ACCOUNT, created_at=NOON)
        event = StatusEventFactory(seen_by=SeenBy.ACTION, reference=f"operation {operation.pk}")
        entry = next(it for it in timeline.of_company(event.company).entries if it.kind == Kind.STATUS)
        assert "on or before" not in entry.text
        assert "Done from here, by a person." in entry.text
        assert (entry.how, entry.about) == (f"Seen by action: {operation}", operation)

    def test_what_a_refreshed_link_showed_was_silent(self) -> None:
        operation = OperationFactory(kind=OperationKind.REFRESH_LINK)
        event = StatusEventFactory(seen_by=SeenBy.ACTION, reference=f"operation {operation.pk}", seen_at=NOON)
        entry = next(it for it in timeline.of_company(event.company).entries if it.kind == Kind.STATUS)
        assert "on or before Nov. 12, 2026" in entry.text

    @pytest.mark.parametrize(
        ("seen_by", "reference", "how"),
        [
            (SeenBy.POLL, "", "Seen by poll"),
            (SeenBy.WEBHOOK, "msg_2b", "Seen by webhook: msg_2b"),
            (SeenBy.ACTION, "operation 999", "Seen by action: operation 999"),
        ],
    )
    def test_it_says_how_the_change_was_seen(self, seen_by: str, reference: str, how: str) -> None:
        event = StatusEventFactory(seen_by=seen_by, reference=reference)
        assert [entry.how for entry in timeline.of_company(event.company).entries] == [how]

    def test_every_known_status_has_words(self) -> None:
        account = SourceAccountFactory(in_codat=True)
        for status in [*AccountStatus.values, "gone"]:
            StatusEventFactory(account=account, new=status)
        for status in [*ConnectionStatus.values, "gone"]:
            StatusEventFactory(account=None, connection=account.connection, new=status)
        entries = timeline.of_company(account.company).entries
        assert len(entries) == 11
        assert all(entry.text and entry.next_step for entry in entries)
        assert not [entry for entry in entries if "does not know yet" in entry.text]

    def test_a_status_that_codat_adds_later_is_told_as_it_is(self) -> None:
        event = StatusEventFactory(new="paused")
        (entry,) = timeline.of_company(event.company).entries
        assert entry.title.endswith("connected → paused")
        assert "does not know yet" in entry.text


class TestOperationsAndLinks:
    def test_an_operation_is_told_when_it_is_asked_for_and_when_it_ends(self) -> None:
        operation = OperationFactory(
            state=OperationState.FAILED,
            error="Codat refused it.",
            correlation_id="corr-9",
            reason="They asked by phone.",
            source="admin",
            finished_at=timezone.now() + timedelta(seconds=1),
        )
        ended, asked = timeline.of_company(operation.company).entries
        assert (asked.title, asked.text, asked.who, asked.how) == (
            f"{operation}: asked for",
            "They asked by phone.",
            "Robin Staff",
            "admin",
        )
        assert (ended.title, ended.text, ended.how) == (
            f"{operation}: Failed",
            "Codat refused it.",
            "Codat correlation id corr-9",
        )
        assert ended.about == operation

    def test_a_link_made_and_shown_is_told_without_the_link(
        self, codat: SandboxProcess, drain_queue: Callable[[], int]
    ) -> None:
        company = CompanyFactory()
        SourceAccountFactory(company=company)
        onboarding.request(company, actor=ROBIN)
        drain_queue()
        connection = Connection.objects.get()
        links.refresh(connection, actor=ROBIN)
        drain_queue()
        links.reveal(connection, actor=ROBIN)
        page = timeline.of_company(company)
        titles = [entry.title for entry in page.entries]
        assert f"{Operation.objects.get(kind=OperationKind.REFRESH_LINK)}: Done" in titles
        shown = next(entry for entry in page.entries if entry.kind == Kind.LINK)
        assert (shown.title, shown.who, shown.how) == ("The customer's link was shown", "Robin Staff", "admin")
        assert "otp=" not in str(page)

    def test_other_history_is_not_in_it(self) -> None:
        connection = ConnectionFactory()
        audit.record("credentials_generated", connection)
        assert AuditEntry.objects.exists()
        assert told(connection.company) == []


class TestCases:
    def test_the_story_of_a_case_stands_among_the_rest(self) -> None:
        case = CaseFactory(opened_at=NOON)
        CaseEventFactory(case=case, kind=CaseEventKind.OPENED, text="Operating account", at=NOON)
        CaseEventFactory(case=case, text="Left a message.", at=NOON + timedelta(hours=1))
        assert told(case.company) == [
            f"Case #{case.pk}: Note",
            f"Case #{case.pk}: Opened",
            "Operating account: connected → disconnected",
        ]
        note = timeline.of_company(case.company).entries[0]
        assert (note.text, note.who, note.about) == ("Left a message.", "Robin Staff", case)

    def test_a_reader_is_told_only_what_they_may_see(self) -> None:
        case = CaseFactory(opened_at=NOON)
        CaseEventFactory(case=case)
        assert told(case.company, kinds={Kind.STATUS}) == ["Operating account: connected → disconnected"]


class TestWhose:
    def test_another_customers_story_is_not_in_it(self) -> None:
        mine, other = CaseFactory(), CaseFactory()
        CaseEventFactory(case=other)
        OperationFactory(company=other.company)
        audit.record("link_revealed", other.connection)
        assert len(told(mine.company)) == 1

    def test_a_connections_timeline_leaves_out_the_companys_other_connection(self) -> None:
        case = CaseFactory()
        Connection.objects.filter(pk=case.connection_id).update(gone_at=timezone.now())
        newer = ConnectionFactory(company=case.company)
        StatusEventFactory(account=None, connection=newer, new=ConnectionStatus.LINKED)
        for connection in (case.connection, newer):
            audit.record("link_revealed", connection)
            OperationFactory(company=case.company, connection=connection, state=OperationState.FAILED)
        assert len(told(case.company)) == 6
        entries = timeline.of_connection(newer).entries
        assert sorted(entry.kind for entry in entries) == [Kind.LINK, Kind.OPERATION, Kind.STATUS]


class TestPages:
    def test_pages_of_any_size_tell_everything_once_and_in_one_order(self) -> None:
        case = CaseFactory(opened_at=NOON)
        for number in range(4):
            # Several at one moment, in several tables: what one reading of Codat leaves behind.
            StatusEventFactory(account=case.connection.source_accounts.get(), seen_at=NOON, new=f"state-{number}")
            CaseEventFactory(case=case, at=NOON, text=str(number))
            CaseEventFactory(case=case, at=NOON + timedelta(minutes=number))
            OperationFactory(company=case.company, finished_at=NOON, state=OperationState.FAILED)
            audit.record("link_revealed", case.connection)
        whole = timeline.of_company(case.company)
        assert whole.older is None
        assert len(whole.entries) == 25
        assert [entry.at for entry in whole.entries] == sorted((entry.at for entry in whole.entries), reverse=True)
        for size in (1, 2, 3, 7, 24):
            read, before = [], None
            while True:
                page = timeline.of_company(case.company, size, before=before)
                read += page.entries
                if page.older is None:
                    break
                assert len(page.entries) == size
                # Through the address, as the screen does it.
                before = Place.parse(str(page.older))
            assert read == whole.entries

    @pytest.mark.parametrize("text", ["", "yesterday", "1-2", "1-2-3", "20260101T000000.0-x-1", "--", "9" * 400])
    def test_a_place_that_nobody_wrote_is_none(self, text: str) -> None:
        assert Place.parse(text) is None

    def test_fifty_entries_of_each_take_as_many_queries_as_one(self, django_assert_num_queries: Any) -> None:
        case = CaseFactory()

        def happen() -> None:
            operation = OperationFactory(
                company=case.company, state=OperationState.FAILED, finished_at=timezone.now(), kind="refresh_link"
            )
            account = SourceAccountFactory(company=case.company, connection=case.connection)
            StatusEventFactory(account=account, seen_by=SeenBy.ACTION, reference=f"operation {operation.pk}")
            CaseEventFactory(case=case)
            audit.record("link_revealed", case.connection)

        happen()
        with CaptureQueriesContext(database) as one:
            timeline.of_company(case.company, 1000)
        for _ in range(49):
            happen()
        with django_assert_num_queries(len(one)):
            page = timeline.of_company(case.company, 1000)
        assert len(page.entries) == 251
        assert len(one) == 8


class TestInvitations:
    def test_how_far_the_customer_came_is_told_with_who_did_it(self, settings: Any) -> None:
        company = CompanyFactory(in_codat=True)
        invitation = invitations.invite_contact(company, purpose=InvitationPurpose.CONNECT, actor=ROBIN)
        outbox.send_due()
        invitation_keys.address(invitation, made_for=invitation_keys.SHOWN, actor=ROBIN)
        door.opened(invitation, address="192.0.2.30")
        with audit.acting(invitation_keys.CUSTOMER):
            door._note_start(invitation)
        invitations.revoke(invitation, actor=ROBIN, reason="Wrong person.")
        entries = timeline.of_company(company, kinds={Kind.INVITATION}).entries
        assert [(entry.title, entry.who) for entry in reversed(entries)] == [
            ("Invited: Connect: Alex Doe", "Robin Staff"),
            ("Mail to the customer: Invitation", ""),
            ("The invitation's link was shown", "Robin Staff"),
            ("The invited customer opened the page", "customer"),
            ("The invited customer pressed the button", "customer"),
            ("Invitation withdrawn", "Robin Staff"),
        ]
        assert entries[0].text.startswith("Wrong person.")
        assert entries[4].about is not None

    @pytest.mark.parametrize(
        ("values", "title"),
        [
            ({"linked_at": NOON}, "The invited customer has linked QuickBooks"),
            (
                {"linked_at": NOON, "connected_at": NOON, "ended_at": NOON, "end": InvitationEnd.CONNECTED},
                "The invited customer has connected every account",
            ),
            ({"ended_at": NOON, "end": InvitationEnd.EXPIRED}, "Invitation expired"),
            ({"ended_at": NOON, "end": InvitationEnd.REPLACED}, "Invitation replaced by a newer one"),
        ],
    )
    def test_what_a_reading_or_the_clock_found_is_told_once(self, values: dict[str, Any], title: str) -> None:
        invitation = InvitationFactory()
        for name, value in values.items():
            setattr(invitation, name, value)
        invitation.save()
        assert told(invitation.company, kinds={Kind.INVITATION}) == [title, "Invited: Connect: Alex Doe"]

    def test_a_mail_that_came_back_says_so(self) -> None:
        invitation = InvitationFactory()
        MailFactory(case=None, invitation=invitation, state="sent", sent_at=NOON, bounced_at=NOON, kind="reminder")
        mailed = timeline.of_company(invitation.company, kinds={Kind.INVITATION}).entries[-1]
        assert mailed.title == "Mail to the customer: Reminder"
        assert mailed.text.endswith("It came back: it did not arrive.")

    def test_a_connection_tells_of_its_companys_invitations(self) -> None:
        connection = ConnectionFactory()
        InvitationFactory(company=connection.company)
        InvitationFactory()
        assert len(timeline.of_connection(connection, kinds={Kind.INVITATION}).entries) == 1

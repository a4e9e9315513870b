"""Invitations on screen: made, mailed, shown, renewed and withdrawn, one by one and many at once."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail as sent_mails
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation
from pytest_django.fixtures import Settings

from feeds.models import Approval, AuditEntry, Case, Company, Invitation, InvitationKey, Mail
from feeds.services import invitations
from feeds.states import InvitationEnd, InvitationPurpose, InvitationState, MailKind, MailState
from tests.factories import (
    CaseFactory,
    CompanyFactory,
    ConnectionFactory,
    InvitationFactory,
    MailFactory,
    SourceAccountFactory,
    UserFactory,
)
from tests.queue_drain import drain
from tests.services.grid import RM

pytestmark = pytest.mark.django_db

INVITE = "feeds.invite_company"
SEES = ["feeds.view_invitation", "feeds.view_company", "feeds.view_case", "feeds.view_mail"]
FORM = {
    "purpose": "connect",
    "contact_name": "Alex Doe",
    "contact_email": "alex@maple.example",
    "language": "fr",
    "days": "10",
}
ENDED = "This invitation opens nothing any more."


def browser(*permissions: str) -> Client:
    """Someone signed in who sees companies, invitations, cases and mails."""
    client = Client()
    client.force_login(UserFactory(permissions=[*SEES, *permissions]))
    return client


@pytest.fixture
def staff() -> Client:
    """Someone who may invite."""
    return browser(INVITE)


def url(obj: Any, name: str) -> str:
    return reverse(f"admin:feeds_{obj._meta.model_name}_action", args=[obj.pk, name])


def page(client: Client, obj: Any) -> str:
    return client.get(reverse(f"admin:feeds_{obj._meta.model_name}_change", args=[obj.pk])).content.decode()


def press(client: Client, obj: Any, name: str, **data: str) -> list[str]:
    """Press an action's button; the messages that follow."""
    answer = client.post(url(obj, name), data, follow=True)
    assert answer.status_code == 200
    return [str(message) for message in answer.context["messages"]]


def revoked() -> Invitation:
    """One that was withdrawn."""
    invitation: Invitation = InvitationFactory(ended_at=timezone.now(), end=InvitationEnd.REVOKED)
    return invitation


def broken(**company: Any) -> Case:
    """A case of a customer who can be invited to reconnect."""
    connection = ConnectionFactory(linked=True, company=CompanyFactory(in_codat=True, **company))
    case: Case = CaseFactory(connection=connection)
    return case


# --- What every action has -------------------------------------------------------------------------------------------
ACTIONS: list[tuple[Any, str, dict[str, str]]] = [
    (CompanyFactory, "invite", FORM),
    (InvitationFactory, "send", {}),
    (InvitationFactory, "show-address", {}),
    (InvitationFactory, "revoke", {"reason": "Wrong person."}),
    (InvitationFactory, "renew", {}),
    (broken, "invite-to-reconnect", {}),
]
every_action = pytest.mark.parametrize(("make", "name", "data"), ACTIONS, ids=[name for _make, name, _data in ACTIONS])


def everything() -> list[Any]:
    """All that an action could have changed."""
    tables = (Invitation, InvitationKey, Mail)
    return [list(table._default_manager.order_by("pk").values()) for table in tables]


@every_action
def test_it_is_hidden_and_refused_without_the_permission(make: Any, name: str, data: dict[str, str]) -> None:
    obj, client = make(), browser()
    before = everything()
    assert url(obj, name) not in page(client, obj)
    assert url(obj, name) in page(browser(INVITE), obj)
    assert client.get(url(obj, name)).status_code == 403
    assert client.post(url(obj, name), data).status_code == 403
    assert everything() == before


@every_action
def test_looking_at_what_will_happen_changes_nothing(make: Any, name: str, data: dict[str, str], staff: Client) -> None:
    obj = make()
    before = everything()
    assert "What will happen" in staff.get(url(obj, name)).content.decode()
    assert everything() == before
    assert not sent_mails.outbox


@every_action
def test_the_history_says_who_did_it(make: Any, name: str, data: dict[str, str], staff: Client) -> None:
    obj = make()
    last = AuditEntry.objects.latest("pk").pk
    press(staff, obj, name, **data)
    entries = AuditEntry.objects.filter(pk__gt=last, content_type__model="invitation")
    assert {entry.actor_id for entry in entries} == {int(staff.session["_auth_user_id"])}
    assert {entry.company_id for entry in entries} == {obj.pk if isinstance(obj, Company) else obj.company.pk}


@pytest.mark.parametrize("name", ["send", "show-address", "revoke"])
def test_one_that_has_ended_says_so_and_offers_no_button(name: str, staff: Client) -> None:
    invitation = revoked()
    assert "action-submit" not in staff.get(url(invitation, name)).content.decode()
    assert press(staff, invitation, name, reason="Wrong person.") == [ENDED]


# --- What each does --------------------------------------------------------------------------------------------------
def test_inviting_makes_one_and_leads_to_its_page_and_mails_nothing_yet(staff: Client) -> None:
    company = CompanyFactory()
    answer = staff.post(url(company, "invite"), FORM)
    invitation = Invitation.objects.get()
    assert answer["Location"] == reverse("admin:feeds_invitation_change", args=[invitation.pk])
    assert (invitation.company, invitation.contact_email, invitation.language) == (company, "alex@maple.example", "fr")
    assert timedelta(days=9) < invitation.expires_at - timezone.now() <= timedelta(days=10)
    assert invitation.state == InvitationState.MADE
    assert not Mail.objects.exists()


@pytest.mark.parametrize(
    ("field", "typed", "why"),
    [
        ("contact_email", "alex@", "Enter a valid email address."),
        ("days", "91", "Ensure this value is less than or equal to 90."),
        ("contact_name", "", "This field is required."),
    ],
)
def test_what_is_typed_wrong_is_said_and_nothing_is_lost(field: str, typed: str, why: str, staff: Client) -> None:
    answer = staff.post(url(CompanyFactory(), "invite"), FORM | {field: typed})
    found = answer.content.decode()
    assert answer.context["form"].errors == {field: [why]}
    assert 'value="10"' in found or field == "days"
    assert not Invitation.objects.exists()


def test_a_company_that_codat_lost_is_not_invited(staff: Client) -> None:
    company = CompanyFactory(in_codat=True, gone_at=timezone.now())
    assert press(staff, company, "invite", **FORM) == [
        "Codat no longer has this company. Press Retry on its page first, then invite."
    ]
    assert not Invitation.objects.exists()


def test_a_second_invitation_for_the_same_purpose_replaces_the_first(staff: Client) -> None:
    first = InvitationFactory(company=CompanyFactory())
    press(staff, first.company, "invite", **FORM)
    first.refresh_from_db()
    assert first.state == InvitationState.REPLACED
    press(staff, first.company, "invite", **FORM | {"purpose": "add_accounts"})
    assert Invitation.objects.live(timezone.now()).count() == 2


def test_the_mail_is_seen_before_it_goes_and_is_what_goes(staff: Client) -> None:
    invitation = InvitationFactory(language="fr")
    seen = staff.get(url(invitation, "send")).context["preview"]
    assert press(staff, invitation, "send") == ["The mail is on its way. This page shows when it was sent."]
    drain()
    (message,) = sent_mails.outbox
    link = re.search(r"http\S+/connect/\S+", str(message.body))
    assert link is not None
    went = str(message.body).replace(link[0], "(the customer's own link)").strip()
    assert seen == f"To: alex@maple.example\nSubject: {message.subject}\n\n{went}"
    invitation.refresh_from_db()
    assert invitation.state == InvitationState.SENT


def test_a_mail_that_waits_is_not_written_twice(staff: Client) -> None:
    invitation = InvitationFactory()
    press(staff, invitation, "send")
    assert press(staff, invitation, "send") == ["A mail of this invitation is waiting to be sent already."]
    assert Mail.objects.count() == 1


def test_the_link_is_shown_once_and_opens_the_page(staff: Client) -> None:
    invitation = InvitationFactory()
    answer = staff.post(url(invitation, "show-address"))
    found = re.search(r"/connect/([\w-]{43})", answer.content.decode())
    assert found is not None
    assert "no-store" in answer["Cache-Control"]
    assert Client().get(found[0]).status_code == 200
    assert found[1] not in page(staff, invitation)
    other = re.search(r"/connect/([\w-]{43})", staff.post(url(invitation, "show-address")).content.decode())
    assert other is not None
    assert other[1] != found[1]
    assert Client().get(found[0]).status_code == 200


def test_withdrawing_asks_why_and_closes_every_link(staff: Client) -> None:
    invitation = InvitationFactory()
    link = re.search(r"/connect/[\w-]{43}", staff.post(url(invitation, "show-address")).content.decode())
    assert link is not None
    assert staff.post(url(invitation, "revoke"), {"reason": " "}).context["form"].errors
    assert press(staff, invitation, "revoke", reason="Wrong person.") == [
        "The invitation is withdrawn: its links open nothing any more."
    ]
    assert Client().get(link[0]).status_code == 404
    assert AuditEntry.objects.get(event="invitation_revoked").reason == "Wrong person."


def test_a_connected_customers_invitation_can_be_withdrawn_and_stays_connected(staff: Client) -> None:
    invitation = InvitationFactory(company=CompanyFactory(in_codat=True))
    link = re.search(r"/connect/[\w-]{43}", staff.post(url(invitation, "show-address")).content.decode())
    assert link is not None
    now = timezone.now()
    Invitation.objects.update(connected_at=now, ended_at=now, end=InvitationEnd.CONNECTED)
    assert Client().get(link[0]).status_code == 200
    assert "They connect nothing any more." in page(staff, invitation)
    assert press(staff, invitation, "revoke", reason="The contact has left.") == [
        "The invitation is withdrawn: its links open nothing any more."
    ]
    assert Client().get(link[0]).status_code == 404
    invitation.refresh_from_db()
    assert (invitation.state, invitation.end) == (InvitationState.CONNECTED, InvitationEnd.CONNECTED)
    assert AuditEntry.objects.get(event="invitation_revoked").reason == "The contact has left."
    assert press(staff, invitation, "revoke", reason="Again.") == [ENDED]
    assert ENDED in page(staff, invitation)
    assert press(staff, invitation, "show-address") == [ENDED]


def test_what_follows_the_browser_says_so_and_is_mailed_in_the_companys_language(staff: Client) -> None:
    company = CompanyFactory(language="fr")
    staff.post(url(company, "invite"), FORM | {"language": ""})
    invitation = Invitation.objects.get()
    assert invitation.language == ""
    assert "as the customer&#x27;s browser asks; mails in the company&#x27;s" in page(staff, invitation)
    assert "Bonjour Alex Doe" in staff.get(url(invitation, "send")).context["preview"]


def test_renewing_makes_another_to_the_same_person(staff: Client) -> None:
    old = InvitationFactory(language="fr", purpose="reconnect", expires_at=timezone.now() - timedelta(days=1))
    assert press(staff, old, "renew") == ["The new invitation is made. Now send it by mail, or show its link."]
    new = Invitation.objects.live(timezone.now()).get()
    assert (new.company, new.purpose, new.contact_email, new.language) == (
        old.company,
        old.purpose,
        old.contact_email,
        "fr",
    )
    old.refresh_from_db()
    assert old.end == InvitationEnd.EXPIRED


def test_there_is_nothing_to_renew_for_a_customer_who_is_connected(staff: Client) -> None:
    now = timezone.now()
    invitation = InvitationFactory(connected_at=now, ended_at=now, end=InvitationEnd.CONNECTED)
    assert press(staff, invitation, "renew") == ["The customer is connected: there is nothing to renew."]
    assert Invitation.objects.count() == 1


# --- From a case -----------------------------------------------------------------------------------------------------
class TestReconnect:
    def test_the_mail_is_shown_goes_and_is_told_in_the_timeline(self, staff: Client) -> None:
        case = broken(legal_name="Maple Dental Ltd.")
        seen = staff.get(url(case, "invite-to-reconnect")).content.decode()
        assert "Please reconnect your bank feed to QuickBooks" in seen
        assert "no longer receives the bank transactions of Maple Dental Ltd." in seen
        assert press(staff, case, "invite-to-reconnect") == [
            "The mail is on its way. The timeline tells when it was sent."
        ]
        drain()
        invitation = Invitation.objects.get()
        assert (invitation.purpose, invitation.state) == (InvitationPurpose.RECONNECT, InvitationState.SENT)
        (message,) = sent_mails.outbox
        assert message.to == [case.company.contact_email]
        told = page(staff, case)
        assert "Invited: Reconnect: Alex Doe" in told
        assert "Mail to the customer: Invitation to reconnect" in told

    def test_it_says_why_it_makes_no_sense_now(self, staff: Client) -> None:
        closed = CaseFactory(closed=True)
        assert "This case is closed." in press(staff, closed, "invite-to-reconnect")[0]
        lost = broken()
        lost.connection.gone_at = timezone.now()
        lost.connection.save()
        assert press(staff, lost, "invite-to-reconnect") == ["Codat no longer has this connection."]
        asked = broken()
        press(staff, asked, "invite-to-reconnect")
        assert press(staff, asked, "invite-to-reconnect") == [
            "It has an invitation that still works. Send that one again, or renew it, on its own page."
        ]
        assert Invitation.objects.count() == 1


# --- Many at once ----------------------------------------------------------------------------------------------------
LIST = reverse("admin:feeds_company_changelist")


def invite_all(client: Client, *companies: Company, confirmed: bool = True) -> Any:
    """Tick the companies and choose Invite."""
    data: dict[str, Any] = {"action": "invite_selected", "_selected_action": [it.pk for it in companies]}
    return client.post(LIST, data | ({"confirmed": "yes"} if confirmed else {}), follow=True)


class TestInviteSelected:
    def test_the_page_before_shows_the_addresses_and_the_mail_in_each_language(self, staff: Client) -> None:
        companies = [CompanyFactory(in_codat=True, language=language) for language in ("en", "fr", "en")]
        answer = invite_all(staff, *companies, confirmed=False)
        found = answer.content.decode()
        assert [code for _language, code, _text in answer.context["previews"]] == ["en", "fr"]
        assert all(company.contact_email in found for company in companies)
        assert "Subject: Connect your bank feed to QuickBooks" in found
        assert everything() == [[], [], []]

    def test_each_contact_is_invited_and_mailed(self, staff: Client) -> None:
        companies = CompanyFactory.create_batch(3, in_codat=True)
        answer = invite_all(staff, *companies)
        assert [str(it) for it in answer.context["messages"]] == ["3 done"]
        drain()
        assert {message.to[0] for message in sent_mails.outbox} == {it.contact_email for it in companies}
        assert all(it.state == InvitationState.SENT for it in Invitation.objects.all())

    def test_it_is_hidden_and_refused_without_the_permission(self) -> None:
        company, client = CompanyFactory(in_codat=True), browser()
        assert "invite_selected" not in client.get(LIST).content.decode()
        invite_all(client, company)
        assert not Invitation.objects.exists()

    def test_bad_rows_are_named_and_do_not_stop_the_others(self, staff: Client) -> None:
        good, nobody, waiting, invited, done = (
            CompanyFactory(in_codat=True, legal_name="Good Inc."),
            CompanyFactory(in_codat=True, legal_name="Nobody Inc.", contact_name=""),
            CompanyFactory(legal_name="Waiting Inc."),
            CompanyFactory(in_codat=True, legal_name="Invited Inc."),
            CompanyFactory(in_codat=True, legal_name="Done Inc."),
        )
        InvitationFactory(company=invited)
        linked = ConnectionFactory(company=done, linked=True)
        SourceAccountFactory(company=done, connection=linked, status="connected")
        (message,) = invite_all(staff, nobody, good, waiting, invited, done).context["messages"]
        text = str(message)
        assert text.startswith("1 done, 4 refused")
        for why in (
            f"{nobody}: It has no contact with a name and an e-mail address. Fill them in on its page.",
            f"{waiting}: It is not in Codat. Onboard it first.",
            f"{invited}: It has an invitation that still works. Send that one again, or renew it, on its own page.",
            f"{done}: Every account is connected: there is nothing to invite to.",
        ):
            assert why in text
        assert Mail.objects.get().to == good.contact_email

    def test_more_than_one_person_may_do_alone_waits_for_a_colleague(self, staff: Client, settings: Settings) -> None:
        settings.FOUR_EYES, settings.FOUR_EYES_BULK_ROWS = ["bulk"], 1
        companies = CompanyFactory.create_batch(2, in_codat=True)
        data = {"action": "invite_selected", "_selected_action": [it.pk for it in companies]}
        staff.post(LIST, data | {"asked": "yes", "reason": "The spring campaign."})
        approval = Approval.objects.get()
        assert approval.action == "invite_companies"
        assert not Invitation.objects.exists()

    def test_the_history_says_who_invited(self, staff: Client) -> None:
        invite_all(staff, CompanyFactory(in_codat=True))
        entry = AuditEntry.objects.get(event="invitation_mailed")
        assert (entry.actor_id, entry.source) == (int(staff.session["_auth_user_id"]), "admin")


# --- The list --------------------------------------------------------------------------------------------------------
def in_every_state() -> dict[InvitationState, Invitation]:
    """One invitation in each state."""
    now = timezone.now()
    times = ("sent_at", "opened_at", "started_at", "linked_at")
    live = (InvitationState.SENT, InvitationState.OPENED, InvitationState.STARTED, InvitationState.LINKED)
    made = {InvitationState.MADE: InvitationFactory()}
    for count, state in enumerate(live, start=1):
        made[state] = InvitationFactory(**dict.fromkeys(times[:count], now))
    for state in (InvitationState.CONNECTED, InvitationState.REVOKED, InvitationState.REPLACED):
        done = {"connected_at": now} if state == InvitationState.CONNECTED else {}
        made[state] = InvitationFactory(ended_at=now, end=state, sent_at=now, **done)
    made[InvitationState.EXPIRED] = InvitationFactory(ended_at=now, end=InvitationState.EXPIRED, opened_at=now)
    return made


@pytest.mark.parametrize("state", InvitationState)
def test_the_list_is_filtered_by_state_as_each_invitation_says_it(state: InvitationState, staff: Client) -> None:
    made = in_every_state()
    overdue = InvitationFactory(expires_at=timezone.now() - timedelta(seconds=1), linked_at=timezone.now())
    answer = staff.get(reverse("admin:feeds_invitation_changelist"), {"state": state})
    wanted = {made[state], overdue} if state == InvitationState.EXPIRED else {made[state]}
    assert set(answer.context["cl"].result_list) == wanted
    assert {it.state for it in wanted} == {state}


def test_the_list_is_found_by_the_company(staff: Client) -> None:
    wanted, _other = InvitationFactory(company__customer_number="C-77"), InvitationFactory()
    answer = staff.get(reverse("admin:feeds_invitation_changelist"), {"q": "C-77"})
    assert list(answer.context["cl"].result_list) == [wanted]


@pytest.mark.parametrize("language", ["en", "fr", "browser"])
def test_the_list_is_filtered_by_language_and_by_having_none(language: str, staff: Client) -> None:
    made = {code or "browser": InvitationFactory(language=code) for code in ("en", "fr", "")}
    answer = staff.get(reverse("admin:feeds_invitation_changelist"), {"language": language})
    assert list(answer.context["cl"].result_list) == [made[language]]
    assert "As the customer&#x27;s browser asks" in answer.content.decode()


def test_the_history_names_an_invitation_in_no_language_and_the_screens_in_the_readers(staff: Client) -> None:
    company = CompanyFactory(in_codat=True)
    with translation.override("fr"):
        press(staff, company, "invite", **FORM)
    invitation = Invitation.objects.get()
    assert AuditEntry.objects.filter(object_pk=str(invitation.pk), object_repr="Alex Doe").exists()
    timeline = reverse("admin:feeds_company_timeline", args=[company.pk])
    assert "Invited: Connect: Alex Doe" in staff.get(timeline).content.decode()
    french = {"headers": {"Accept-Language": "fr-CA"}}
    assert "Connecter\u00a0: Alex Doe" in staff.get(timeline, **french).content.decode()
    listed = staff.get(reverse("admin:feeds_invitation_changelist"), **french).content.decode()
    assert "Connecter\u00a0: Alex Doe" in listed
    assert "Créée" in listed


@pytest.mark.parametrize("state", InvitationState)
def test_in_french_every_state_agrees_with_the_invitation(state: InvitationState) -> None:
    with translation.override("fr"):
        assert str(state.label).endswith("ée") or state == InvitationState.OPENED


# --- A mail that came back -------------------------------------------------------------------------------------------
def customer_mail(**values: Any) -> Mail:
    """A mail to a customer that was sent."""
    about = {"case": None, "invitation": InvitationFactory(), "kind": MailKind.INVITATION, "to": "alex@maple.example"}
    mail: Mail = MailFactory(**about | {"state": MailState.SENT, "sent_at": timezone.now()} | values)
    return mail


class TestBounce:
    def test_it_is_noted_and_shown(self, staff: Client) -> None:
        mail = customer_mail()
        assert press(staff, mail, "note-bounce") == ["Noted: it did not arrive."]
        mail.refresh_from_db()
        assert mail.bounced_at is not None
        assert f'datetime="{mail.bounced_at.isoformat()}"' in page(staff, mail)

    def test_it_is_hidden_and_refused_without_the_permission(self) -> None:
        mail, client = customer_mail(), browser()
        assert url(mail, "note-bounce") not in page(client, mail)
        assert client.get(url(mail, "note-bounce")).status_code == 403
        assert client.post(url(mail, "note-bounce")).status_code == 403
        mail.refresh_from_db()
        assert mail.bounced_at is None

    @pytest.mark.parametrize(
        ("values", "why"),
        [
            ({"invitation": None}, "It went to staff: only of a customer's mail it is noted."),
            ({"state": MailState.FAILED, "sent_at": None}, "This mail has not been sent."),
            ({"bounced_at": timezone.now()}, "It is noted already."),
        ],
        ids=["to staff", "not sent", "noted"],
    )
    def test_it_says_why_it_makes_no_sense_now(self, values: dict[str, Any], why: str, staff: Client) -> None:
        assert press(staff, customer_mail(**values), "note-bounce") == [why]

    def test_looking_at_the_confirmation_changes_nothing(self, staff: Client) -> None:
        mail = customer_mail()
        assert "No reminder goes to alex@maple.example" in staff.get(url(mail, "note-bounce")).content.decode()
        mail.refresh_from_db()
        assert mail.bounced_at is None

    def test_the_history_says_who_noted_it_of_which_customer(self, staff: Client) -> None:
        mail = customer_mail()
        press(staff, mail, "note-bounce")
        entry = AuditEntry.objects.get(event="mail_bounced")
        assert mail.invitation is not None
        assert (entry.object_pk, entry.company_id) == (str(mail.pk), mail.invitation.company_id)
        assert entry.actor_id == int(staff.session["_auth_user_id"])


def test_what_is_stored_of_a_mail_shows_no_mark_for_the_link(staff: Client) -> None:
    invitation = invitations.invite_contact(CompanyFactory(in_codat=True), purpose=InvitationPurpose.CONNECT, actor=RM)
    found = page(staff, invitation.mails.get())
    assert "(the customer&#x27;s own link)" in found
    assert "[[connect-link]]" not in found

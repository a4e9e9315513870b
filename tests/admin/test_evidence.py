"""The evidence pack: one ZIP that stands by itself, says what is in it, holds no secret and only one customer."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from datetime import UTC, timedelta
from functools import partial
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feeds import audit
from feeds.audit import Actor
from feeds.models import AuditEntry, Company, HistoryExport, Invitation, Mail
from feeds.services import (
    access,
    api_keys,
    approvals,
    callouts,
    connect_sessions,
    evidence,
    invitation_keys,
    outbox,
)
from feeds.services.approval_rules import RULES
from feeds.services.roles import ADMINISTRATORS, COMPLIANCE_AUDITORS, RELATIONSHIP_MANAGERS, SUPPORT
from feeds.states import CalloutState, ExportKind, ExportState, InvitationEnd, MailKind, MailState
from tests.factories import (
    AccessGrantFactory,
    ApprovalFactory,
    CalloutVersionFactory,
    CaseEventFactory,
    CaseFactory,
    CompanyFactory,
    ConnectionFactory,
    InvitationFactory,
    OperationFactory,
    UserFactory,
)

pytestmark = [pytest.mark.django_db, pytest.mark.plants_secrets]  # staff typed a number into their reasons
WHY = "Dispute about a feed, file 2026-17."
NUMBER = "900417733218"
OTP = "otp-918273"


@pytest.fixture
def auditor() -> Client:
    """An auditor's browser."""
    client = Client()
    client.force_login(UserFactory(role=COMPLIANCE_AUDITORS, username="ada", first_name="Ada", last_name="Underhill"))
    return client


@pytest.fixture
def company() -> Company:
    """A customer to whom everything happened today: case, notes, mail, operation, a link that works now."""
    company: Company = CompanyFactory(legal_name="Maple Bakery", customer_number="C-007", in_codat=True)
    connection = ConnectionFactory(
        company=company, linked=True, with_link=True, link_url=f"https://link.example/x?otp={OTP}"
    )
    case = CaseFactory(connection=connection, account="Operating")
    account = company.source_accounts.get()
    account.account_number = NUMBER
    account.save()
    CaseEventFactory(case=case, text="=Left a message.")
    OperationFactory(company=company, reason="They moved banks.", account=account)
    audit.record("link_revealed", connection)
    ApprovalFactory(connection=connection, reason=f"He says {NUMBER} is closed.")
    AccessGrantFactory(company=company, user_name="Eve Standin", reason=f"Asked about {NUMBER}.")
    CalloutVersionFactory(published=True)
    invitation = InvitationFactory(company=company)
    now = timezone.now()
    Mail.objects.create(
        kind=MailKind.INVITATION, to="alex@maple.example", subject="Connect your feed", html="",
        body=f"Here: {outbox.LINK_MARK}", invitation=invitation, company=company,
        state=MailState.SENT, sent_at=now,
    )  # fmt: skip
    Mail.objects.create(
        kind=MailKind.BROKE, to="sam@bank.example", subject="Feed broke: Maple", body="It broke.", html="", case=case,
        company=company, state=MailState.SENT, sent_at=now,
    )  # fmt: skip
    return company


def url(company: Company) -> str:
    """Where a pack is asked for."""
    return reverse("admin:feeds_evidence", args=[company.pk])


def asked(start: int = 30, end: int = 0, **more: str) -> dict[str, str]:
    """The form, for a period in days before today."""
    today = timezone.localdate()
    days = {"start": today - timedelta(days=start), "end": today - timedelta(days=end)}
    return {**{name: day.isoformat() for name, day in days.items()}, "reason": WHY, **more}


def pack(client: Client, company: Company, **period: int) -> zipfile.ZipFile:
    """The pack, as it is handed out."""
    answer = client.post(url(company), asked(**period))
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/zip"
    return zipfile.ZipFile(io.BytesIO(answer.getvalue()))


def table(archive: zipfile.ZipFile, name: str) -> list[dict[str, str]]:
    """The rows of a section."""
    return list(csv.DictReader(io.StringIO(archive.read(f"{name}.csv").decode("utf-8-sig"))))


def test_it_holds_every_section_an_index_and_a_manifest(auditor: Client, company: Company) -> None:
    archive = pack(auditor, company)
    assert archive.testzip() is None
    sections = [f"{section.name}.csv" for section in evidence.SECTIONS]
    assert archive.namelist() == [*sections, "history.jsonl", "index.html", "manifest.json"]
    for section in evidence.SECTIONS:
        assert table(archive, section.name), section.name


def test_the_sections_tell_what_happened(auditor: Client, company: Company) -> None:
    archive = pack(auditor, company)
    assert {row["part"] for row in table(archive, "customer")} == {"company", "connection", "source account"}
    assert {row["event"] for row in table(archive, "history")} >= {"link_revealed"}
    assert [row["reason"] for row in table(archive, "operations")] == ["They moved banks."]
    assert [row["to"] for row in table(archive, "status_changes")] == ["disconnected"]
    assert "'=Left a message." in [row["text"] for row in table(archive, "cases")]
    assert [row["subject"] for row in table(archive, "mails")] == ["Connect your feed", "Feed broke: Maple"]
    assert [row["contact"] for row in table(archive, "invitations")] == ["Alex Doe <alex@maple.example>"]
    assert [row["consequences"] for row in table(archive, "approvals")] == ["3 accounts stop feeding."]
    assert [row["who"] for row in table(archive, "emergency_accesses")] == ["Eve Standin"]
    assert [row["title_en"] for row in table(archive, "callouts")] == ["Before you start"]
    assert {row["kind"] for row in table(archive, "timeline")} == {
        "Status",
        "Operation",
        "Link",
        "Case",
        "Invitation",
    }


@pytest.mark.parametrize(
    "write", ["mail of an emergency access", "mail that an approval is asked for", "mail that was sent late"]
)
def test_a_mail_to_staff_about_the_customer_is_in_it(
    write: str, auditor: Client, company: Company, settings: Any
) -> None:
    if write == "mail of an emergency access":
        settings.RM_SEES_ALL_CUSTOMERS = False
        company.manager = UserFactory(email="rosa@bank.example")
        company.save()
        other = Actor.person(UserFactory(role=RELATIONSHIP_MANAGERS), source="admin")
        access.break_glass(actor=other, customer_number=company.customer_number, reason="Rosa is away.")
        subject = "Emergency access to Maple Bakery"
    elif write == "mail that an approval is asked for":
        UserFactory(role=SUPPORT, email="sam@bank.example")
        asking = Actor.person(UserFactory(role=SUPPORT), source="admin")
        going = company.connections.get()
        approvals.ask("delete_connection", going, data={}, consequences=["Much."], reason="Left.", actor=asking)
        subject = f"Your approval is asked for: {RULES['delete_connection'].label}, {going}"
    else:
        subject = "Connect your feed"
        Mail.objects.filter(subject=subject).update(created_at=timezone.now() - timedelta(days=20))
    assert subject in [row["subject"] for row in table(pack(auditor, company, start=5), "mails")]


def test_an_invitation_says_how_often_it_was_pressed_and_when_its_links_were_withdrawn(
    auditor: Client, company: Company
) -> None:
    withdrawn = timezone.now()
    company.invitations.update(presses=3, withdrawn_at=withdrawn)
    (row,) = table(pack(auditor, company), "invitations")
    assert (row["times_pressed"], row["links_withdrawn_at_utc"]) == (
        "3",
        withdrawn.astimezone(UTC).isoformat(timespec="seconds"),
    )


def test_what_the_banks_own_application_did_is_in_it_under_the_name_of_its_key(auditor: Client) -> None:
    key = api_keys.make(name="portal", scopes=["connect_sessions:write"], manager=None, days=9, actor=audit.SYSTEM).key
    account = {
        "account_name": "Operating", "account_type": "checking", "account_number": NUMBER, "currency": "USD",
        "bank_code": "325990015", "routing_type": "aba",
    }  # fmt: skip
    values = {"legal_name": "Portal Born", "contact_name": "Pia Born", "contact_email": "pia@born.example"}
    wanted = connect_sessions.Wanted({**values, "country": "US"}, (account,))
    connect_sessions.open_session("P-1", wanted, key=key, actor=api_keys.actor(key, address="192.0.2.9"))
    archive = pack(auditor, Company.objects.get(customer_number="P-1"))
    assert [row["made_by"] for row in table(archive, "invitations")] == [f"API key {key}"]
    rows = [row for row in table(archive, "history") if row["source"] == "api"]
    assert {(row["who"], row["ip"]) for row in rows} == {(f"API key {key}", "192.0.2.9")}
    assert {row["event"] or row["kind"] for row in rows} >= {"company", "source account", "invitation_link_made"}


def test_nothing_of_another_customer_is_in_it(auditor: Client, company: Company) -> None:
    other = CaseFactory(connection__company=CompanyFactory(legal_name="Zebra Imports", in_codat=True))
    OperationFactory(company=other.company)
    ApprovalFactory(connection=other.connection)
    AccessGrantFactory(company=other.company)
    InvitationFactory(company=other.company, contact_name="Zebra Owner")
    archive = pack(auditor, company)
    everything = b"".join(archive.read(name) for name in archive.namelist()).decode()
    assert "Zebra" not in everything
    assert {row["customer"] for row in table(archive, "history")} == {"Maple Bakery (C-007)"}


def test_nothing_outside_the_period_is_in_it(auditor: Client, company: Company) -> None:
    archive = pack(auditor, company, start=30, end=2)
    for section in evidence.SECTIONS:
        assert section.name == "customer" or table(archive, section.name) == [], section.name


def test_what_was_open_in_the_period_is_in_it_though_it_began_before(auditor: Client, company: Company) -> None:
    long_ago = timezone.now() - timedelta(days=20)
    company.invitations.update(created_at=long_ago)
    company.access_grants.update(created_at=long_ago)
    archive = pack(auditor, company, start=10, end=5)
    assert len(table(archive, "invitations")) == len(table(archive, "emergency_accesses")) == 1
    company.invitations.update(ended_at=timezone.now() - timedelta(days=11), end=InvitationEnd.REVOKED)
    company.access_grants.update(ended_at=timezone.now() - timedelta(days=11))
    archive = pack(auditor, company, start=10, end=5)
    assert table(archive, "invitations") == table(archive, "emergency_accesses") == []


def test_every_callout_that_customers_saw_in_the_period_is_in_it_with_who_stood_for_it(
    auditor: Client, company: Company
) -> None:
    first = CalloutVersionFactory(state=CalloutState.SUBMITTED, title_en="The next one")
    people = (UserFactory(role=ADMINISTRATORS, first_name=name) for name in ("Pat", "Kim"))
    approver, attester = (Actor.person(person, source="admin") for person in people)
    callouts.approve(first, approver)
    callouts.attest(first, attester, on=timezone.localdate(), by_name="Kim in the Portal")
    before, after = table(pack(auditor, company), "callouts")
    assert (before["title_en"], after["title_en"]) == ("Before you start", "The next one")
    assert before["superseded_on"] == after["published_on"] == timezone.localdate().isoformat()
    assert (after["approved_by"], after["last_attested_by"]) == (approver.name, "Kim in the Portal")
    assert attester.name in after["attestations"]


def test_of_a_request_about_many_customers_only_this_one_is_named(auditor: Client, company: Company) -> None:
    zebra, yak = CompanyFactory(legal_name="Zebra Imports"), CompanyFactory(legal_name="Yak Wool")
    asking = Actor.person(UserFactory(role=RELATIONSHIP_MANAGERS), source="admin")
    ask = partial(approvals.ask_many, "onboard_companies", consequences=["Much."], reason="All moved.", actor=asking)
    about_us, about_others = ask([company, zebra]), ask([zebra, yak])
    about_us.refusals = [[str(zebra), "Zebra is off-boarded."], [str(company), "It has no accounts."]]
    about_us.save()
    requests = {row["id"]: row for row in table(pack(auditor, company), "approvals")}
    assert str(about_others.pk) not in requests
    assert requests[str(about_us.pk)]["object"] == f"{company} (2 rows)"
    assert requests[str(about_us.pk)]["outcome"] == "It has no accounts."
    assert "Zebra" not in "".join(table(pack(auditor, company), "approvals")[-1].values())


def test_both_files_of_the_history_hold_the_same_whatever_happens_while_it_is_packed(company: Company) -> None:
    today = timezone.localdate()
    pieces = []
    for piece in evidence.make(company, today, today, actor=audit.SYSTEM, reason=WHY).content:
        if not pieces:
            company.notes = "Changed meanwhile."
            company.save()
        pieces.append(piece)
    archive = zipfile.ZipFile(io.BytesIO(b"".join(pieces)))
    lines = [json.loads(line) for line in archive.read("history.jsonl").decode().splitlines()]
    assert [str(line["id"]) for line in lines] == [row["id"] for row in table(archive, "history")]
    assert {type(line["changes"]) for line in lines} == {dict, type(None)}


def test_no_key_to_an_invitation_is_in_it(auditor: Client, company: Company) -> None:
    opened = invitation_keys.address(
        Invitation.objects.get(), made_for=invitation_keys.SHOWN, actor=Actor.service("worker")
    )
    key = opened.url.rstrip("/").rsplit("/", 1)[1]
    archive = pack(auditor, company)
    everything = b"".join(archive.read(name) for name in archive.namelist()).decode()
    assert key not in everything
    assert invitation_keys.digest(key) not in everything


def test_a_mail_to_the_customer_is_in_the_customers_history(company: Company) -> None:
    audit.record("mail_sent", Mail.objects.get(kind=MailKind.INVITATION))
    assert AuditEntry.objects.get(event="mail_sent").company_id == company.pk


def test_no_secret_and_no_whole_account_number_is_in_it(auditor: Client, company: Company) -> None:
    archive = pack(auditor, company)
    everything = b"".join(archive.read(name) for name in archive.namelist()).decode()
    assert "••••3218" in everything
    assert NUMBER not in everything
    assert OTP not in everything
    assert "link.example" not in everything


def test_the_manifest_has_the_length_and_hash_of_every_other_file(auditor: Client, company: Company) -> None:
    archive = pack(auditor, company)
    told: dict[str, Any] = json.loads(archive.read("manifest.json"))
    assert told["customer"] == {"number": "C-007", "legal_name": "Maple Bakery"}
    assert (told["made_by"], told["reason"], told["what"]) == ("Ada Underhill", WHY, "Evidence pack")
    files = {file["name"]: file for file in told["files"]}
    assert [*files, "manifest.json"] == archive.namelist()
    for name, file in files.items():
        data = archive.read(name)
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    rows = {section["file"]: section["rows"] for section in told["sections"]}
    for section in evidence.SECTIONS:
        assert rows[f"{section.name}.csv"] == len(table(archive, section.name))


def test_the_index_can_be_read_by_a_person_in_english_whoever_asks(auditor: Client, company: Company) -> None:
    answer = auditor.post(url(company), asked(), HTTP_ACCEPT_LANGUAGE="fr")
    index = zipfile.ZipFile(io.BytesIO(answer.getvalue())).read("index.html").decode()
    for words in ("Evidence pack: Maple Bakery", "C-007", WHY, "Ada Underhill", "Change history", "status_changes.csv"):
        assert words in index
    assert "<script" not in index


def test_who_made_it_and_why_stands_in_the_history_of_the_customer(auditor: Client, company: Company) -> None:
    archive = pack(auditor, company)
    started, completed = AuditEntry.objects.filter(event="evidence_pack_made").order_by("pk")
    assert (started.additional_data["stage"], completed.additional_data["stage"]) == ("started", "completed")
    assert completed.company_id == company.pk
    assert (completed.actor_name, completed.reason) == ("Ada Underhill", WHY)
    assert completed.additional_data["sha256"] == hashlib.sha256(archive.read("manifest.json")).hexdigest()
    kept = HistoryExport.objects.get()
    assert (kept.kind, kept.state, kept.company) == (ExportKind.EVIDENCE, ExportState.DONE, company)


@pytest.mark.parametrize("case", ["no reason", "backwards", "too long", "no day", "the end of time"])
def test_what_makes_no_sense_is_said_and_nothing_is_made(case: str, auditor: Client, company: Company) -> None:
    data, said = {
        "no reason": (asked() | {"reason": ""}, "This field is required."),
        "backwards": (asked(start=0, end=1), "The period ends before it begins."),
        "too long": (asked(start=4000), "The period is longer than ten years. Ask for a part of it."),
        "no day": (asked() | {"start": "x"}, "Enter a valid date."),
        "the end of time": (dict.fromkeys(("start", "end"), "9999-12-31") | {"reason": WHY}, "2999-12-31"),
    }[case]
    page = auditor.post(url(company), data).content.decode()
    assert said in page
    assert data["end"] in page  # what was typed is kept
    assert not HistoryExport.objects.exists()


@pytest.mark.parametrize("role", [RELATIONSHIP_MANAGERS, SUPPORT, ADMINISTRATORS])
def test_only_auditors_make_one(role: str, company: Company) -> None:
    client = Client()
    client.force_login(UserFactory(role=role))
    assert client.get(url(company)).status_code == 403
    assert client.post(url(company), asked()).status_code == 403
    page = client.get(reverse("admin:feeds_company_change", args=[company.pk])).content.decode()
    assert url(company) not in page
    assert not HistoryExport.objects.exists()


def test_it_is_offered_on_the_companys_page_and_in_its_story(auditor: Client, company: Company) -> None:
    assert url(company) in auditor.get(reverse("admin:feeds_company_change", args=[company.pk])).content.decode()
    story = reverse("admin:feeds_auditentry_story", args=["feeds.company", str(company.pk)])
    assert url(company) in auditor.get(story).content.decode()
    page = auditor.get(url(company)).content.decode()
    for section in evidence.SECTIONS:
        assert str(section.title) in page


def test_of_a_company_that_is_not_there_none_is_made(auditor: Client) -> None:
    assert auditor.get(reverse("admin:feeds_evidence", args=[404])).status_code == 404

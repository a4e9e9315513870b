"""Mails about cases: who gets which, how often, and the outbox that sends them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from smtplib import SMTPServerDisconnected
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.utils import timezone
from pytest_django.fixtures import Settings

from feeds.audit import Actor
from feeds.models import Case, CaseEvent, Mail, SourceAccount
from feeds.services import cases, notifications, outbox, preferences
from feeds.states import CaseOutcome, CaseState, Language, MailKind, MailState
from tests.factories import (
    CompanyFactory,
    ConnectionFactory,
    InvitationFactory,
    MailFactory,
    SourceAccountFactory,
    UserFactory,
)
from tests.worker_process import ROOT, WorkerProcess

pytestmark = pytest.mark.django_db

TEAM = "support@bank.example"
Drain = Callable[[], int]


@pytest.fixture(autouse=True)
def _team(settings: Settings) -> None:
    settings.CASE_NOTIFY_TO = [TEAM]
    settings.SITE_URL = "https://feeds.bank.example"


def break_feed(**company: Any) -> Case:
    """A feed that breaks now."""
    connection = ConnectionFactory(linked=True, company=CompanyFactory(in_codat=True, **company))
    SourceAccountFactory(
        company=connection.company, connection=connection, status="disconnected", account_number="900417733218"
    )
    cases.observe(connection)
    return Case.objects.latest("pk")


def turn(case: Case, status: str) -> None:
    """A reading shows the case's account with this status."""
    SourceAccount.objects.filter(connection=case.connection_id).update(status=status)
    cases.observe(case.connection)


def owner_of(case: Case) -> Actor:
    """Somebody who has taken the case."""
    actor = Actor.person(UserFactory(role="Support"), source="admin")
    cases.take(case, actor)
    return actor


def sent() -> list[tuple[str, str]]:
    """Recipient and subject of what left."""
    return [(message.to[0], message.subject) for message in mail.outbox]


def an_hour_passes() -> None:
    """As far as mails and what is due are concerned."""
    earlier = timedelta(minutes=60)
    for row in Mail.objects.all():
        Mail.objects.filter(pk=row.pk).update(created_at=row.created_at - earlier)
    for case in Case.objects.exclude(notify_due_at=None):
        assert case.notify_due_at is not None
        Case.objects.filter(pk=case.pk).update(notify_due_at=case.notify_due_at - earlier)


# --- Who and what ----------------------------------------------------------------------------------------------------
def test_the_team_hears_of_a_new_case_and_the_owner_of_their_own(drain_queue: Drain) -> None:
    case = break_feed(legal_name="Maple Dental Ltd")
    drain_queue()
    actor = owner_of(case)
    turn(case, "connected")
    drain_queue()
    assert actor.user is not None
    assert sent() == [
        (TEAM, "Feed broke: Maple Dental Ltd"),
        (actor.user.email, "Feed works again: Maple Dental Ltd"),
    ]
    case.refresh_from_db()
    assert case.notified_about == "recovered"
    assert [event.text for event in case.events.filter(kind="notified")] == [subject for _to, subject in sent()]


def test_the_team_hears_when_the_owner_cannot(drain_queue: Drain) -> None:
    case = break_feed()
    actor = owner_of(case)
    assert actor.user is not None
    actor.user.is_active = False
    actor.user.save()
    turn(case, "connected")
    drain_queue()
    assert {to for to, _subject in sent()} == {TEAM}


def test_without_a_team_nobody_is_written_to_and_nothing_fails(settings: Settings, drain_queue: Drain) -> None:
    settings.CASE_NOTIFY_TO = []
    break_feed()
    drain_queue()
    assert sent() == []


def test_a_mail_has_text_and_html_with_the_link_and_no_account_number(drain_queue: Drain) -> None:
    case = break_feed(legal_name="Fish & Chips <Ltd>")
    drain_queue()
    (message,) = mail.outbox
    (html,) = [part.content for part in message.alternatives]  # type: ignore[attr-defined]
    link = f"https://feeds.bank.example/admin/feeds/case/{case.pk}/change/"
    assert link in message.body
    assert f'<a href="{link}">' in html
    assert "Fish & Chips <Ltd>" in message.body
    assert "Fish &amp; Chips &lt;Ltd&gt;" in html
    assert "900417733218" not in message.body + html
    assert "3218" not in message.body + html


def test_a_name_cannot_add_a_header(drain_queue: Drain) -> None:
    break_feed(legal_name="Maple\nBcc: everybody@bank.example")
    drain_queue()
    assert mail.outbox[0].subject == "Feed broke: Maple Bcc: everybody@bank.example"
    assert mail.outbox[0].recipients() == [TEAM]


# --- How often -------------------------------------------------------------------------------------------------------
def test_a_change_that_came_too_soon_is_told_later_if_it_is_still_so(drain_queue: Drain) -> None:
    case = break_feed()
    turn(case, "connected")
    turn(case, "disconnected")
    drain_queue()
    assert [subject.split(":")[0] for _to, subject in sent()] == ["Feed broke", "Feed works again"]

    an_hour_passes()
    notifications.send()
    notifications.send()
    assert [subject.split(":")[0] for _to, subject in sent()][2:] == ["Feed broke"]


def test_what_is_no_longer_so_is_not_told(drain_queue: Drain) -> None:
    case = break_feed()
    for status in ("connected", "disconnected", "connected"):
        turn(case, status)
    an_hour_passes()
    drain_queue()
    assert len(sent()) == 2
    assert Case.objects.get().notify_due_at is None


def test_what_a_person_settled_is_not_told(drain_queue: Drain) -> None:
    case = break_feed()
    turn(case, "connected")
    turn(case, "disconnected")
    cases.close(case, CaseOutcome.NOT_WANTED, Actor.person(UserFactory(), source="admin"), "They said so.")
    an_hour_passes()
    drain_queue()
    assert len(sent()) == 2


def test_after_the_cool_down_a_change_is_told_at_once(drain_queue: Drain) -> None:
    case = break_feed()
    turn(case, "connected")
    an_hour_passes()
    turn(case, "disconnected")
    drain_queue()
    assert len(sent()) == 3


# --- Languages -------------------------------------------------------------------------------------------------------
def in_french(user: User) -> User:
    """The person has chosen French."""
    preferences.choose_language(user, Language.FR)
    return user


def test_a_mail_is_in_the_language_of_whom_it_reaches() -> None:
    case = break_feed(legal_name="Maple Dental")
    owner = owner_of(case)
    assert owner.user is not None
    in_french(owner.user)
    turn(case, "connected")
    to_the_team, to_the_owner = Mail.objects.order_by("pk")
    assert to_the_team.subject == "Feed broke: Maple Dental"
    assert "Seen: " in to_the_team.body
    assert to_the_owner.subject == "Flux rétabli\xa0: Maple Dental"
    assert "Constaté\xa0: " in to_the_owner.body
    assert '<html lang="fr">' in to_the_owner.html


def test_a_digest_is_in_its_readers_language(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = owner_of(break_feed(legal_name="Maple Dental"))
    assert owner.user is not None
    in_french(owner.user)
    clock_says(monkeypatch, 12)
    assert notifications.write_digests() == 1
    digest = Mail.objects.get(kind=MailKind.DIGEST)
    assert digest.subject == "1 flux interrompu vous est attribué"
    assert "déconnecté\xa0: " in digest.body


def test_one_news_for_several_people_is_one_mail_for_each_language(settings: Settings) -> None:
    french = in_french(UserFactory(role="Support"))
    settings.CASE_NOTIFY_TO = [TEAM, french.email, "night@bank.example"]
    break_feed(legal_name="Maple Dental")
    assert sorted((mail.to, mail.subject) for mail in Mail.objects.all()) == sorted(
        [
            (f"{TEAM},night@bank.example", "Feed broke: Maple Dental"),
            (french.email, "Flux interrompu\xa0: Maple Dental"),
        ]
    )


def test_a_mail_that_must_exist_once_exists_once_in_each_language(settings: Settings) -> None:
    french = in_french(UserFactory(role="Support"))
    case = break_feed()
    for _again in range(2):
        outbox.put(
            MailKind.BROKE,
            to=[TEAM, french.email],
            subject=lambda: "Once",
            context={"case": case, "url": "https://x.example"},
            key="once",
        )
    assert sorted(Mail.objects.filter(subject="Once").values_list("key", flat=True)) == ["once", "once fr"]


# --- The digest ------------------------------------------------------------------------------------------------------
def clock_says(monkeypatch: pytest.MonkeyPatch, hour: int) -> None:
    """The bank's wall clock, today."""
    real = timezone.localtime
    at = real().replace(hour=hour)
    monkeypatch.setattr(timezone, "localtime", lambda value=None, tz=None: at if value is None else real(value, tz))


def test_every_owner_gets_one_digest_a_day_once_the_hour_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = break_feed(legal_name="Maple Dental Ltd"), break_feed(legal_name="Birch Books Inc.")
    actor = owner_of(first)
    cases.take(second, actor)
    Case.objects.filter(pk=second.pk).update(due_at=timezone.now() - timedelta(hours=1))
    break_feed()

    clock_says(monkeypatch, 7)
    assert notifications.write_digests() == 0
    clock_says(monkeypatch, 8)
    assert notifications.write_digests() == 1
    clock_says(monkeypatch, 23)
    assert notifications.write_digests() == 0

    digest = Mail.objects.get(kind=MailKind.DIGEST)
    assert actor.user is not None
    assert (digest.to, digest.subject) == (actor.user.email, "2 broken feeds are yours")
    assert digest.body.index("Birch Books") < digest.body.index("Maple Dental"), "overdue first"
    assert "Overdue: 1" in digest.body
    assert "Taken by nobody yet: 1" in digest.body


def test_nobody_gets_a_digest_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = break_feed()
    actor = owner_of(case)
    cases.snooze(case, timezone.now() + timedelta(days=3), actor)
    clock_says(monkeypatch, 9)
    assert notifications.write_digests() == 0
    assert not Mail.objects.filter(kind=MailKind.DIGEST).exists()


# --- The outbox ------------------------------------------------------------------------------------------------------
class BrokenServer(EmailBackend):
    """A mail server that hangs up on mails to one address."""

    def send_messages(self, messages: Any) -> int:
        """Refuse or deliver."""
        if any("broken@bank.example" in message.to for message in messages):
            raise SMTPServerDisconnected("gone")
        return super().send_messages(messages)


def put(to: str = TEAM, key: str = "") -> Mail:
    """A mail that waits."""
    case = Case.objects.first() or break_feed()
    outbox.put(
        MailKind.BROKE, to=[to], subject="Feed broke", context={"case": case, "url": "https://x.example"}, key=key
    )
    return Mail.objects.latest("pk")


def due_again(row: Mail) -> datetime:
    """Let the time of the mail's next attempt come; when it would have been."""
    row.refresh_from_db()
    if row.next_attempt_at is None:
        return timezone.now()
    Mail.objects.filter(pk=row.pk).update(next_attempt_at=timezone.now())
    return row.next_attempt_at


def test_a_mail_that_cannot_be_sent_stops_no_other_and_is_tried_again(settings: Settings) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.BrokenServer"
    break_feed()
    Mail.objects.all().delete()
    bad, good = put("broken@bank.example"), put()
    assert outbox.send_due() == 1
    good.refresh_from_db()
    bad.refresh_from_db()
    assert (good.state, bad.state, bad.error) == (MailState.SENT, MailState.QUEUED, "SMTPServerDisconnected")
    assert outbox.send_due() == 0, "not at once"

    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    due_again(bad)
    assert outbox.send_due() == 1


def test_waits_grow_and_end(settings: Settings) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.BrokenServer"
    break_feed()
    Mail.objects.all().delete()
    bad = put("broken@bank.example")
    waits = []
    for _attempt in range(outbox.MAX_ATTEMPTS + 3):
        outbox.send_due()
        waits.append(due_again(bad) - timezone.now())
    bad.refresh_from_db()
    assert (bad.state, bad.attempts) == (MailState.FAILED, outbox.MAX_ATTEMPTS)
    assert waits[0] < waits[1] < waits[2]
    assert max(waits) <= outbox.LONGEST_WAIT


def test_a_mail_with_a_key_is_written_once() -> None:
    break_feed()
    assert put(key="digest 1") == put(key="digest 1")


def test_old_mails_are_forgotten_and_failed_ones_kept() -> None:
    states = (MailState.SENT, MailState.SENT, MailState.FAILED)
    sent_long_ago, sent_lately, failed_long_ago = (MailFactory(case=None, state=state) for state in states)
    _age([sent_long_ago, failed_long_ago], days=31)
    assert outbox.prune() == 1
    assert set(Mail.objects.all()) == {sent_lately, failed_long_ago}


def test_mails_of_a_customer_are_kept_as_long_as_the_history(settings: Settings) -> None:
    settings.AUDIT_RETENTION_DAYS = 400
    about_a_case = MailFactory(state=MailState.SENT)
    to_the_customer = MailFactory(case=None, invitation=InvitationFactory(), state=MailState.SENT)
    _age([about_a_case, to_the_customer], days=399)
    assert outbox.prune() == 0
    _age([about_a_case], days=401)
    assert outbox.prune() == 1
    assert Mail.objects.get() == to_the_customer


def _age(mails: list[Mail], *, days: int) -> None:
    then = timezone.now() - timedelta(days=days)
    Mail.objects.filter(pk__in=[mail.pk for mail in mails]).update(updated_at=then)


DIE_AFTER_SENDING = """
import os, signal, sys
import django
django.setup()
from django.conf import settings
from django.core.mail.backends import filebased
settings.EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
settings.EMAIL_FILE_PATH = sys.argv[1]
deliver = filebased.EmailBackend.send_messages
def deliver_and_die(self, messages):
    deliver(self, messages)
    os.kill(os.getpid(), signal.SIGKILL)
filebased.EmailBackend.send_messages = deliver_and_die
from feeds.services import outbox
outbox.send_due()
"""


@pytest.mark.django_db(transaction=True)
def test_a_worker_killed_with_a_mail_in_its_hands_doubles_that_one_and_loses_none(tmp_path: Path) -> None:
    break_feed()
    Mail.objects.all().delete()
    rows = [put(), put()]
    environment = WorkerProcess(codat_url="http://localhost:9", api_key="x", log=tmp_path / "log").environment
    command = [sys.executable, "-c", DIE_AFTER_SENDING, str(tmp_path / "mails")]
    assert subprocess.run(command, cwd=ROOT, env=environment).returncode == -9
    (delivered,) = (tmp_path / "mails").iterdir()

    assert outbox.send_due() == 1, "the one in the killed worker's hands waits until its claim runs out"
    for row in rows:
        due_again(row)
    assert outbox.send_due() == 1
    ids = [message.extra_headers["Message-ID"] for message in mail.outbox]
    assert sorted(ids) == sorted(f"<{row.uid}@feeds.bank.example>" for row in rows)
    assert str(rows[0].uid) in delivered.read_text(), "the second delivery has the first one's Message-ID"
    assert set(Mail.objects.values_list("state", flat=True)) == {MailState.SENT}


def test_the_mail_and_the_change_are_written_together_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_named: object) -> None:
        raise RuntimeError("killed here")

    connection = ConnectionFactory(linked=True)
    SourceAccountFactory(company=connection.company, connection=connection, status="disconnected")
    monkeypatch.setattr(notifications.queue, "enqueue", fail)
    with pytest.raises(RuntimeError):
        cases.observe(connection)
    assert (Case.objects.count(), CaseEvent.objects.count(), Mail.objects.count()) == (0, 0, 0)
    monkeypatch.undo()
    cases.observe(connection)
    assert (Case.objects.get().state, Mail.objects.count()) == (CaseState.OPEN, 1)

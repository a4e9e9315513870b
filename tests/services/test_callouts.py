"""The callout's way: written, submitted, approved by somebody else, attested, superseded, reminded of."""

from __future__ import annotations

import threading
from datetime import date, timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connection
from django.utils import timezone
from pytest_django.fixtures import Settings

from feeds.audit import SYSTEM, Actor
from feeds.models import AuditEntry, CalloutVersion, Mail
from feeds.services import callouts, home, outbox
from feeds.services.errors import Refused
from feeds.services.roles import COMPLIANCE_AUDITORS, RELATIONSHIP_MANAGERS, SUPPORT
from feeds.states import CalloutEventKind, CalloutState
from feeds.tasks import remind_of_callouts
from tests.factories import CalloutVersionFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _two_people_publish(settings: Settings) -> None:
    """As shipped: nobody approves what they wrote."""
    settings.FOUR_EYES = ["publish_callout"]


TEXTS = {
    "title_en": "Before you start",
    "body_en": "Have your password ready.",
    "title_fr": "Avant de commencer",
    "body_fr": "Préparez votre mot de passe.",
}


def member(role: str = RELATIONSHIP_MANAGERS, **values: Any) -> Actor:
    """Somebody of a role."""
    return Actor.person(UserFactory(role=role, **values), source="test")


@pytest.fixture
def rosa(db: None) -> Actor:
    """Writes."""
    return member(first_name="Rosa", last_name="Marchetti")


@pytest.fixture
def ravi(db: None) -> Actor:
    """Approves and publishes."""
    return member(first_name="Ravi", last_name="Menon")


def today() -> date:
    """Today, where the bank is."""
    return timezone.localdate()


def submitted(author: Actor, **texts: str) -> CalloutVersion:
    """A version that waits for approval."""
    version = callouts.create(texts or TEXTS, author)
    callouts.submit(version, author)
    return fresh(version)


def approved(author: Actor, approver: Actor, *, days_ago: int = 0, **texts: str) -> CalloutVersion:
    """A version that waits to be published, since some days."""
    version = submitted(author, **texts)
    callouts.approve(version, approver)
    at = timezone.now() - timedelta(days=days_ago)
    CalloutVersion.objects.filter(pk=version.pk).update(state_since=at)
    return fresh(version)


def published(author: Actor, approver: Actor, on: date, **texts: str) -> CalloutVersion:
    """A version that was published on a day."""
    version = approved(author, approver, days_ago=(today() - on).days, **texts)
    callouts.attest(version, approver, on=on, by_name="Ravi Menon")
    return fresh(version)


def fresh(version: CalloutVersion) -> CalloutVersion:
    """As it is stored."""
    return CalloutVersion.objects.get(pk=version.pk)


def story(version: CalloutVersion) -> list[tuple[str, str]]:
    """What happened, and by whom."""
    return [(event.kind, event.actor_name) for event in version.events.all()]


# --- The way ---------------------------------------------------------------------------------------------------------
def test_a_version_goes_from_draft_to_attested_and_every_step_is_kept(rosa: Actor, ravi: Actor) -> None:
    version = callouts.create({**TEXTS, "note": "Spring"}, rosa)
    assert (version.state, version.state_by_name) == (CalloutState.DRAFT, "Rosa Marchetti")
    callouts.edit(version, {**TEXTS, "note": "Spring", "title_en": "Before you begin"}, rosa)
    callouts.submit(version, rosa, "Please look.")
    callouts.approve(fresh(version), ravi, "Reads well.")
    callouts.attest(version, ravi, on=today(), by_name=" Ravi Menon ", comment="Seen in both languages.")

    version = fresh(version)
    assert version.state == CalloutState.PUBLISHED
    assert (version.published_on, version.attested_on, version.attested_by_name) == (today(), today(), "Ravi Menon")
    assert story(version) == [
        ("created", "Rosa Marchetti"),
        ("edited", "Rosa Marchetti"),
        ("submitted", "Rosa Marchetti"),
        ("approved", "Ravi Menon"),
        ("attested", "Ravi Menon"),
    ]
    assert version.events.get(kind=CalloutEventKind.EDITED).text == "English title"
    assert "Seen in both languages." in version.events.last().text  # type: ignore[union-attr]


def test_the_history_has_every_step_with_its_reason(rosa: Actor, ravi: Actor) -> None:
    version = submitted(rosa)
    callouts.send_back(version, ravi, "The French reads like English.")
    events = AuditEntry.objects.filter(object_pk=str(version.pk)).exclude(event="").order_by("pk")
    assert [(entry.event, entry.actor_name, entry.reason) for entry in events] == [
        ("callout_submitted", "Rosa Marchetti", ""),
        ("callout_sent_back", "Ravi Menon", "The French reads like English."),
    ]
    change = AuditEntry.objects.filter(object_pk=str(version.pk), event="").latest("pk")
    assert change.changes["state"] == ["submitted", "draft"]
    assert change.reason == "The French reads like English."


def test_saving_a_draft_that_did_not_change_is_no_edit(rosa: Actor, ravi: Actor) -> None:
    version = callouts.create(TEXTS, rosa)
    callouts.edit(version, {**TEXTS, "title_fr": "  Avant de commencer "}, ravi)
    assert story(version) == [("created", "Rosa Marchetti")]


def test_what_is_sent_back_is_a_draft_again_and_its_old_hands_stay(rosa: Actor, ravi: Actor) -> None:
    version = submitted(rosa)
    callouts.send_back(version, ravi, "Shorter, please.")
    callouts.edit(version, {"body_en": "Have it ready."}, ravi)
    callouts.submit(version, ravi)
    for hand in (rosa, ravi):
        with pytest.raises(Refused, match="Somebody else has to approve it"):
            callouts.approve(version, hand)
    callouts.approve(fresh(version), member())
    assert fresh(version).state == CalloutState.APPROVED


def test_a_copy_of_any_version_is_a_new_draft(rosa: Actor, ravi: Actor) -> None:
    old = published(rosa, ravi, today())
    draft = callouts.copy(old, ravi)
    assert (draft.is_draft, draft.copied_from, draft.texts()) == (True, old, old.texts())
    assert fresh(old).state == CalloutState.PUBLISHED
    assert draft.events.get().text == f"Copied from {old}."


@pytest.mark.parametrize("state", ["submitted", "approved", "superseded", "withdrawn"])
def test_only_a_draft_is_edited(state: str, rosa: Actor) -> None:
    version = CalloutVersionFactory(**{"superseded": True} if state == "superseded" else {"state": state})
    with pytest.raises(Refused, match="Copy it as a new draft to change the text"):
        callouts.edit(version, {"title_en": "Another"}, rosa)
    assert fresh(version).title_en == "Before you start"


@pytest.mark.parametrize("move", ["submit", "approve", "send_back", "withdraw", "attest"])
def test_a_move_that_makes_no_sense_is_refused_and_changes_nothing(move: str, rosa: Actor) -> None:
    version = CalloutVersionFactory(superseded=True)
    before = AuditEntry.objects.count()
    with pytest.raises(Refused, match="Superseded"):
        {
            "submit": lambda: callouts.submit(version, rosa),
            "approve": lambda: callouts.approve(version, rosa),
            "send_back": lambda: callouts.send_back(version, rosa, "No."),
            "withdraw": lambda: callouts.withdraw(version, rosa, "No."),
            "attest": lambda: callouts.attest(version, rosa, on=today(), by_name="Rosa"),
        }[move]()
    assert fresh(version).state == CalloutState.SUPERSEDED
    assert AuditEntry.objects.count() == before


def test_a_machine_neither_writes_nor_approves(rosa: Actor) -> None:
    with pytest.raises(Refused, match="Only a person"):
        callouts.create(TEXTS, SYSTEM)
    with pytest.raises(Refused, match="Only a person"):
        callouts.approve(submitted(rosa), SYSTEM)


def test_sending_back_and_withdrawing_ask_why(rosa: Actor, ravi: Actor) -> None:
    version = submitted(rosa)
    with pytest.raises(Refused, match="Say what should be changed"):
        callouts.send_back(version, ravi, "  ")
    with pytest.raises(Refused, match="Say why it is given up"):
        callouts.withdraw(version, rosa, "")
    callouts.withdraw(version, rosa, "Not needed.")
    assert fresh(version).state == CalloutState.WITHDRAWN


def test_a_bad_text_is_refused_by_its_field_and_reason(rosa: Actor) -> None:
    with pytest.raises(Refused, match=r"English title: Position 1: markup: <b>.*French body: 151 characters"):
        callouts.create({"title_en": "<b>Hi", "body_fr": "x" * 151}, rosa)
    assert not CalloutVersion.objects.exists()


# --- Four eyes -------------------------------------------------------------------------------------------------------
def test_nobody_approves_what_they_submitted(rosa: Actor, ravi: Actor) -> None:
    version = callouts.create(TEXTS, rosa)
    callouts.submit(version, ravi)
    with pytest.raises(Refused, match="Somebody else has to approve it"):
        callouts.approve(version, ravi)
    assert fresh(version).state == CalloutState.SUBMITTED


def test_only_the_texts_that_were_read_are_approved(rosa: Actor, ravi: Actor) -> None:
    read = submitted(rosa)
    callouts.send_back(read, ravi, "Shorter, please.")
    callouts.edit(read, {"body_fr": "Un autre texte."}, rosa)
    callouts.submit(read, rosa)
    with pytest.raises(Refused, match="The texts have changed since you read them"):
        callouts.approve(read, ravi)
    assert fresh(read).state == CalloutState.SUBMITTED
    callouts.approve(fresh(read), ravi)


def test_where_four_eyes_are_not_asked_for_the_author_may_approve(rosa: Actor, settings: Settings) -> None:
    settings.FOUR_EYES = ["revoke_credentials"]
    version = submitted(rosa)
    callouts.approve(version, rosa)
    assert fresh(version).state == CalloutState.APPROVED


# --- Both languages --------------------------------------------------------------------------------------------------
BOTH_ALIKE = ["French title is empty, and English title is not."]


@pytest.mark.parametrize(
    ("rule", "texts", "missing"),
    [
        ("both", TEXTS, []),
        ("both", {}, []),
        ("both", {"title_en": "Hi"}, BOTH_ALIKE),
        ("both", {"title_fr": "Salut"}, ["English title is empty, and French title is not."]),
        ("both", {"title_en": "Hi", "title_fr": "Salut"}, []),
        (
            "both",
            {"title_en": "Hi", "body_fr": "Salut"},
            [*BOTH_ALIKE, "English body is empty, and French body is not."],
        ),
        ("required", {"title_en": "Hi"}, BOTH_ALIKE),
        ("required", {"title_fr": "Salut"}, []),
        ("optional", {"title_en": "Hi"}, []),
    ],
)
def test_the_rule_of_languages_holds_at_submission(
    rule: str, texts: dict[str, str], missing: list[str], rosa: Actor, settings: Settings
) -> None:
    settings.CALLOUT_FRENCH = rule
    version = callouts.create(texts, rosa)
    assert callouts.missing(version) == missing
    if missing:
        with pytest.raises(Refused, match="It cannot be submitted yet") as refused:
            callouts.submit(version, rosa)
        assert all(sentence in str(refused.value) for sentence in missing)
        assert fresh(version).is_draft
    else:
        callouts.submit(version, rosa)
        assert fresh(version).state == CalloutState.SUBMITTED


# --- Attesting -------------------------------------------------------------------------------------------------------
def test_attesting_supersedes_what_was_published(rosa: Actor, ravi: Actor) -> None:
    first = published(rosa, ravi, today() - timedelta(days=9))
    second = published(rosa, ravi, today() - timedelta(days=2))
    first = fresh(first)
    assert (first.state, first.superseded_on) == (CalloutState.SUPERSEDED, second.published_on)
    assert callouts.published() == second
    assert story(first)[-1] == ("superseded", "Ravi Menon")


def test_attesting_again_says_that_it_still_stands(rosa: Actor, ravi: Actor) -> None:
    version = published(rosa, ravi, today() - timedelta(days=9))
    callouts.attest(version, rosa, on=today(), by_name="Rosa Marchetti")
    version = fresh(version)
    assert version.published_on == today() - timedelta(days=9)
    assert (version.attested_on, version.attested_by_name) == (today(), "Rosa Marchetti")


def test_the_day_is_neither_in_the_future_nor_before_the_approval(rosa: Actor, ravi: Actor) -> None:
    version = approved(rosa, ravi, days_ago=3)
    for day, why in (
        (today() + timedelta(days=1), "in the future"),
        (today() - timedelta(days=4), "It was approved on"),
    ):
        with pytest.raises(Refused, match=why):
            callouts.attest(version, ravi, on=day, by_name="Ravi Menon")
    with pytest.raises(Refused, match="Name the person"):
        callouts.attest(version, ravi, on=today(), by_name=" ")
    assert fresh(version).state == CalloutState.APPROVED


def test_the_day_is_not_before_what_was_attested_already(rosa: Actor, ravi: Actor) -> None:
    waiting = approved(rosa, ravi, days_ago=9)
    first = published(rosa, ravi, today() - timedelta(days=2))
    for version in (waiting, first):
        with pytest.raises(Refused, match=f"{first} was attested on"):
            callouts.attest(version, ravi, on=today() - timedelta(days=3), by_name="Ravi Menon")
    assert callouts.published() == first


@pytest.mark.django_db(transaction=True)
def test_two_people_who_attest_at_once_leave_one_published() -> None:
    author, other = member(), member()
    versions = [approved(author, other) for _number in range(2)]
    start = threading.Barrier(2)
    failures: list[Exception] = []

    def attest(version: CalloutVersion) -> None:
        start.wait()
        try:
            callouts.attest(version, other, on=today(), by_name="Ravi Menon")
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=attest, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(fresh(version).state for version in versions) == ["published", "superseded"]


# --- Which text on which day -----------------------------------------------------------------------------------------
def test_which_text_was_published_on_a_day(rosa: Actor, ravi: Actor) -> None:
    start = today() - timedelta(days=20)
    first = published(rosa, ravi, start)
    second = published(rosa, ravi, start + timedelta(days=10))
    callouts.create(TEXTS, rosa)

    def on(days: int) -> list[CalloutVersion]:
        return callouts.published_on(start + timedelta(days=days))

    assert on(-1) == []
    assert on(0) == on(9) == [first]
    assert on(10) == [first, second]
    assert on(11) == on(20) == [second]


def test_a_text_of_one_day_is_not_forgotten(rosa: Actor, ravi: Actor) -> None:
    versions = [published(rosa, ravi, today()) for _number in range(3)]
    assert callouts.published_on(today()) == versions


# --- Reminders -------------------------------------------------------------------------------------------------------
def test_an_approved_text_that_nobody_publishes_is_reminded_of_once_an_interval(
    rosa: Actor, ravi: Actor, settings: Settings
) -> None:
    settings.CALLOUT_REMIND_DAYS = 2
    settings.CALLOUT_NOTIFY_TO = ["web@bank.example"]
    version = approved(rosa, ravi, days_ago=1)
    assert callouts.remind() == 0
    for days, written in ((2, 1), (3, 0), (4, 1), (5, 0)):
        CalloutVersion.objects.filter(pk=version.pk).update(state_since=timezone.now() - timedelta(days=days, hours=1))
        assert remind_of_callouts() == f"{written} written"
        assert remind_of_callouts() == "0 written"
    assert [it.subject for it in Mail.objects.order_by("pk")] == [
        "Callout approved 2 days ago is not published",
        "Callout approved 4 days ago is not published",
    ]
    outbox.send_due()
    assert rosa.user is not None
    assert ravi.user is not None
    assert mail.outbox[0].to == sorted(["web@bank.example", rosa.user.email, ravi.user.email])
    assert TEXTS["title_fr"] in mail.outbox[0].body
    assert f"/admin/feeds/calloutversion/{version.pk}/change/" in mail.outbox[0].body


@pytest.mark.parametrize("days", [0, 5])
def test_no_reminder_where_it_is_switched_off_or_not_yet_due(
    days: int, rosa: Actor, ravi: Actor, settings: Settings
) -> None:
    settings.CALLOUT_REMIND_DAYS = days
    approved(rosa, ravi, days_ago=4)
    assert callouts.remind() == 0


def test_what_is_published_or_withdrawn_is_not_reminded_of(rosa: Actor, ravi: Actor) -> None:
    published(rosa, ravi, today() - timedelta(days=9))
    callouts.withdraw(approved(rosa, ravi, days_ago=9), rosa, "Not needed.")
    assert callouts.remind() == 0


def test_who_left_or_lost_the_right_is_not_written_to(rosa: Actor, ravi: Actor) -> None:
    approved(rosa, ravi, days_ago=3)
    assert rosa.user is not None
    assert ravi.user is not None
    rosa.user.groups.clear()
    ravi.user.is_active = False
    ravi.user.save()
    assert callouts.remind() == 0
    assert not Mail.objects.exists()


# --- The home page ---------------------------------------------------------------------------------------------------
def test_the_home_page_tells_what_waits_for_whom(rosa: Actor, ravi: Actor) -> None:
    mine, theirs, ready = submitted(rosa), submitted(ravi), approved(rosa, ravi)

    def shown(actor: Actor) -> Any:
        assert actor.user is not None
        return home.for_person(actor.user).callouts

    assert shown(rosa) == [theirs, ready]
    assert shown(ravi) == [mine, ready]
    assert shown(member(SUPPORT)) is None
    assert shown(member(COMPLIANCE_AUDITORS)) is None

"""Many feeds that break together: one incident, told once, until a person releases it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.core import mail
from django.utils import timezone
from pytest_django.fixtures import Settings

from feeds.audit import Actor
from feeds.models import AuditEntry, Case, CaseEvent, Connection, Incident, Mail, SourceAccount
from feeds.services import cases, incidents, notifications
from feeds.services.errors import Refused
from feeds.states import CaseEventKind, MailState
from tests.factories import ConnectionFactory, SourceAccountFactory, UserFactory
from tests.services.test_cases import at_once

pytestmark = pytest.mark.django_db

TEAM = "support@bank.example"
Drain = Callable[[], int]


@pytest.fixture(autouse=True)
def _small_numbers(settings: Settings) -> None:
    settings.CASE_NOTIFY_TO = [TEAM]
    settings.INCIDENT_THRESHOLD = 3


def make_feeds(count: int) -> list[Connection]:
    """Linked connections with one disconnected account each, not observed yet."""
    feeds = []
    for _number in range(count):
        connection = ConnectionFactory(linked=True)
        SourceAccountFactory(company=connection.company, connection=connection, status="disconnected")
        feeds.append(connection)
    return feeds


def break_feeds(count: int) -> list[Case]:
    """So many feeds break now."""
    for connection in make_feeds(count):
        cases.observe(connection)
    return list(Case.objects.order_by("-pk")[:count])


def recover(case: Case) -> None:
    """The case's feed works again."""
    SourceAccount.objects.filter(connection=case.connection_id).update(status="connected")
    cases.observe(case.connection)


def subjects() -> list[str]:
    """What left, in order."""
    return [message.subject.split(":")[0] for message in mail.outbox]


def lead() -> Actor:
    """Somebody who may release."""
    return Actor.person(UserFactory(role="Support"), source="admin")


def test_as_many_breaks_as_the_threshold_are_told_one_by_one(drain_queue: Drain) -> None:
    break_feeds(3)
    drain_queue()
    assert subjects() == ["Feed broke"] * 3
    assert incidents.current() is None


def test_one_more_is_an_incident_told_once_with_its_cases_grouped(drain_queue: Drain) -> None:
    broken = break_feeds(4)
    drain_queue()
    incident = incidents.current()
    assert incident is not None
    assert set(incident.cases.all()) == set(broken)
    (message,) = mail.outbox
    assert (message.subject, message.to) == ("Incident: 4 feeds broke together", [TEAM])
    assert f"/admin/feeds/incident/{incident.pk}/change/" in message.body
    for case in broken:
        kinds = list(case.events.values_list("kind", flat=True))
        assert kinds == ["opened", "joined_incident", "held"]


def test_breaks_long_apart_are_none(drain_queue: Drain) -> None:
    break_feeds(2)
    Case.objects.update(broke_at=timezone.now() - timedelta(minutes=61))
    break_feeds(3)
    drain_queue()
    assert incidents.current() is None


def test_what_breaks_or_recovers_meanwhile_joins_and_is_held(drain_queue: Drain) -> None:
    broken = break_feeds(4)
    drain_queue()
    mail.outbox.clear()
    (late,) = break_feeds(1)
    recover(broken[0])
    drain_queue()
    assert subjects() == []
    late.refresh_from_db()
    assert late.incident == incidents.current()
    assert set(Mail.objects.filter(case__isnull=False).values_list("state", flat=True)) == {MailState.HELD}


def test_news_of_cases_that_broke_long_before_is_not_held(drain_queue: Drain) -> None:
    (old,) = break_feeds(1)
    Case.objects.update(broke_at=timezone.now() - timedelta(days=3))
    drain_queue()
    break_feeds(4)
    recover(old)
    drain_queue()
    assert subjects() == ["Feed broke", "Feed works again", "Incident"]


def test_releasing_tells_the_rest_once_and_goes_back_to_normal(drain_queue: Drain) -> None:
    broken = break_feeds(5)
    drain_queue()
    owner, actor = lead(), lead()
    cases.take(broken[0], owner)
    recover(broken[1])
    mail.outbox.clear()
    incident = incidents.current()
    assert incident is not None
    incidents.release(incident, actor, "QuickBooks was down; it is back.")
    drain_queue()

    (message,) = mail.outbox
    assert message.subject == "Incident released: 4 of 5 feeds still broken"
    assert owner.user is not None
    assert sorted(message.to) == sorted([TEAM, owner.user.email])
    assert "QuickBooks was down" in message.body
    assert broken[0].company.legal_name in message.body
    assert broken[1].company.legal_name not in message.body
    incident.refresh_from_db()
    assert incident.released_by_name == actor.name
    entry = AuditEntry.objects.filter(object_repr=str(incident), actor=actor.user).latest("id")
    assert entry.reason == "QuickBooks was down; it is back."

    assert incidents.detect() is None, "the released breaks are not counted again"
    break_feeds(1)
    drain_queue()
    assert subjects()[1:] == ["Feed broke"]


def test_a_case_of_a_released_incident_that_breaks_again_is_told_by_itself(drain_queue: Drain) -> None:
    broken = break_feeds(4)
    drain_queue()
    incident = incidents.current()
    assert incident is not None
    incidents.release(incident, lead())
    recover(broken[0])
    SourceAccount.objects.filter(connection=broken[0].connection_id).update(status="disconnected")
    cases.observe(broken[0].connection)
    broken[0].refresh_from_db()
    assert broken[0].incident is None


def test_an_incident_is_released_once(drain_queue: Drain) -> None:
    break_feeds(4)
    drain_queue()
    incident = incidents.current()
    assert incident is not None
    incidents.release(incident, lead())
    with pytest.raises(Refused, match="released already"):
        incidents.release(incident, lead())


@pytest.mark.django_db(transaction=True)
def test_breaks_seen_by_many_workers_at_once_are_one_incident() -> None:
    feeds = make_feeds(8)
    assert at_once(*[lambda it=it: cases.observe(it) for it in feeds]) == [None] * 8  # type: ignore[misc]
    results = at_once(*[incidents.detect] * 6, *[notifications.send] * 2)
    assert not [result for result in results if isinstance(result, Exception)]
    incidents.detect()  # what a worker had locked joins in the next round

    incident = Incident.objects.get()
    assert incident.cases.count() == 8
    assert CaseEvent.objects.filter(kind=CaseEventKind.JOINED_INCIDENT).count() == 8
    assert CaseEvent.objects.filter(kind=CaseEventKind.HELD).count() == 8
    assert Mail.objects.filter(case__isnull=True).count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_who_release_at_once_one_is_told_that_it_is_released() -> None:
    break_feeds(4)
    incident = incidents.detect()
    assert incident is not None
    first, second = lead(), lead()
    results = at_once(lambda: incidents.release(incident, first), lambda: incidents.release(incident, second))
    assert sorted(type(result).__name__ for result in results) == ["NoneType", "Refused"]
    assert Mail.objects.filter(kind="incident_released").count() == 1


def test_one_that_is_released_while_mails_are_sent_is_followed_by_no_empty_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    incident = Incident.objects.create(opened_at=timezone.now())
    looked = incidents._the_open_one

    def released_first() -> tuple[Incident, bool] | None:
        incidents.release(incident, lead())
        return looked()

    monkeypatch.setattr(incidents, "_the_open_one", released_first)
    assert incidents.detect() is None
    assert list(Incident.objects.all()) == [incident]
    assert not Mail.objects.filter(kind="incident_opened").exists()

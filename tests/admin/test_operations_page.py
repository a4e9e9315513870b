"""The operations page: each part that is not well says so, and what to do; nobody sees it without the right."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from feeds import queue
from feeds.models import (
    Case,
    CodatQuota,
    Connection,
    DailyFigure,
    DriftFinding,
    DriftReport,
    Heartbeat,
    Incident,
    ListingWalk,
    Mail,
    Operation,
    StatusEvent,
    WebhookEvent,
)
from feeds.services import figures, health, inbox, operations_page, sweep
from feeds.services.operations_page import Part
from feeds.states import (
    CaseOutcome,
    CaseState,
    DriftKind,
    MailKind,
    MailState,
    OperationState,
    SeenBy,
    Tone,
    WebhookState,
)
from tests.factories import ConnectionFactory, OperationFactory, UserFactory

pytestmark = pytest.mark.django_db

URL = "/admin/operations/"
HOUR = timedelta(hours=1)


@pytest.fixture
def support() -> Client:
    """A member of support, signed in."""
    client = Client()
    client.force_login(UserFactory(role="Support"))
    return client


@pytest.fixture
def well() -> None:
    """Everything has just been done."""
    now = timezone.now()
    for name in (health.WORKER, health.POLL, health.FIGURES):
        Heartbeat.objects.create(name=name, beat_at=now)
    CodatQuota.objects.create(limit=1000, remaining=900, resets_at=now + 6 * HOUR, read_at=now)
    DriftReport.objects.create(started_at=now - HOUR, finished_at=now - HOUR, companies_read=3)


def part(key: str) -> Part:
    """One part of the page as it is now."""
    return next(it for it in operations_page.parts(operations_page.read()) if it.key == key)


def page(client: Client) -> str:
    """The page's text as a person reads it."""
    answer = client.get(URL)
    assert answer.status_code == 200
    return html.unescape(answer.content.decode())


def warnings_on(text: str) -> str:
    """The list on top of the page."""
    found = re.search(r'aria-labelledby="operations-warnings">(.*?)</section>', text, flags=re.DOTALL)
    assert found is not None
    return found[1]


def make_case(*, connection: Connection | None = None, **changes: Any) -> Case:
    """A case as the reader of statuses opens it."""
    connection = connection or ConnectionFactory()
    now = timezone.now()
    values: dict[str, Any] = {"opened_at": now, "broke_at": now, "due_at": now} | changes
    return Case.objects.create(company=connection.company, connection=connection, **values)


def make_mail(state: MailState) -> Mail:
    """A mail to staff."""
    return Mail.objects.create(kind=MailKind.BROKE, to="robin@bank.example", subject="Feed broke", state=state)


# --- Who may see it --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("role", ["Administrators", "Support"])
def test_who_watches_the_system_finds_the_page_in_the_sidebar(role: str) -> None:
    client = Client()
    client.force_login(UserFactory(role=role))
    assert f'<a href="{URL}"' in client.get(reverse("admin:index")).content.decode()
    assert client.get(URL).status_code == 200


@pytest.mark.parametrize("role", ["Relationship managers", "Compliance auditors"])
def test_who_does_not_sees_no_trace_of_it_and_is_refused(role: str) -> None:
    client = Client()
    client.force_login(UserFactory(role=role))
    assert URL not in client.get(reverse("admin:index")).content.decode()
    assert client.get(URL).status_code == 403


def test_a_stranger_is_sent_to_sign_in() -> None:
    answer = Client().get(URL)
    assert answer.status_code == 302
    assert answer["Location"].startswith(reverse("admin:login"))


def test_the_page_is_only_read(support: Client) -> None:
    assert support.post(URL).status_code == 405


def test_screens_that_a_person_may_not_see_are_not_linked(well: None) -> None:
    operation = OperationFactory(state=OperationState.UNKNOWN)
    client = Client()
    client.force_login(UserFactory(permissions=["feeds.view_operations_page"]))
    text = page(client)
    assert "1 unknown" in warnings_on(text)
    assert reverse("admin:feeds_operation_changelist") not in text
    assert reverse("admin:feeds_operation_change", args=[operation.pk]) not in text


# --- What it says ----------------------------------------------------------------------------------------------------
def test_nothing_is_complained_about_when_all_is_well(support: Client, well: None) -> None:
    assert {it.key: it.tone for it in operations_page.parts(operations_page.read())} == dict.fromkeys(
        ["worker", "queue", "poll", "budget", "webhooks", "operations", "mails", "drift", "incident", "figures"],
        Tone.GOOD,
    )
    assert "Nothing. Everything below is as it should be." in warnings_on(page(support))


def test_every_part_says_what_it_means_as_of_when_and_what_to_do(support: Client) -> None:
    text = page(support)
    for it in operations_page.parts(operations_page.read()):
        assert it.meaning in text
        if it.is_warning:
            assert it.advice
            assert it.advice in warnings_on(text)
    assert text.count("as of <time") >= 10


def test_a_new_installation_is_not_called_well(support: Client) -> None:
    assert {it.key for it in operations_page.parts(operations_page.read()) if it.is_warning} == {
        "worker", "poll", "figures",
    }  # fmt: skip


def test_a_worker_that_went_silent_is_named_with_its_remedy(support: Client, well: None) -> None:
    Heartbeat.objects.filter(name=health.WORKER).update(beat_at=timezone.now() - 2 * HOUR)
    found = part("worker")
    assert (found.tone, found.value) == (Tone.BAD, "last sign of life 2\xa0hours ago")
    assert "manage.py worker" in warnings_on(page(support))


def test_a_worker_that_is_late_is_looked_at_before_it_is_taken_for_frozen(well: None) -> None:
    late = 3 * django_settings.WORKER_HEARTBEAT_SECONDS + 5
    Heartbeat.objects.filter(name=health.WORKER).update(beat_at=timezone.now() - timedelta(seconds=late))
    assert part("worker").tone == Tone.WARNING


@pytest.mark.parametrize(("waited", "tone"), [(1, Tone.GOOD), (90, Tone.WARNING), (600, Tone.BAD)])
def test_a_queue_that_nobody_empties_is_told_by_its_oldest_task(waited: int, tone: Tone, well: None) -> None:
    for _ in range(3):
        queue.enqueue(queue.HEARTBEAT)
    queue.OrmQ.objects.update(lock=timezone.now() - timedelta(seconds=waited))
    found = part("queue")
    assert found.tone == tone
    assert found.value.startswith("3 waiting, the oldest for ")


def test_a_long_queue_is_counted_up_to_a_cap(well: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations_page, "COUNT_CAP", 2)
    for _ in range(4):
        queue.enqueue(queue.HEARTBEAT)
    assert part("queue").value.startswith("2+ waiting")


def test_a_poll_that_did_not_come_back_is_told(support: Client, well: None) -> None:
    Heartbeat.objects.filter(name=health.POLL).update(beat_at=timezone.now() - HOUR)
    assert part("poll").tone == Tone.BAD
    assert "Statuses on screen grow old." in warnings_on(page(support))


def test_a_quota_that_is_used_up_is_told_with_the_hour_of_its_reset(support: Client, well: None) -> None:
    CodatQuota.objects.update(remaining=0)
    found = part("budget")
    assert found.tone == Tone.BAD
    assert found.value.startswith("0 of 1,000 left: 0 kept for people, 0 for polling")
    assert re.search(r"until the quota resets at \d{4}-\d\d-\d\d \d\d:\d\d", warnings_on(page(support)))


def test_readings_that_wait_for_quota_are_told_with_the_time_since_when(support: Client, well: None) -> None:
    ConnectionFactory(poll_due_at=timezone.now() - HOUR)
    CodatQuota.objects.update(remaining=10)
    found = part("budget")
    assert found.tone == Tone.WARNING
    assert "; 1 postponed since " in found.value
    assert "Polling and webhooks wait until the quota resets" in warnings_on(page(support))
    assert "What people ask for goes on." in warnings_on(page(support))


def test_readings_that_only_wait_for_the_clock_hold_no_webhook_back(support: Client, well: None) -> None:
    ConnectionFactory(poll_due_at=timezone.now() - HOUR)
    CodatQuota.objects.update(limit=1000, remaining=300, resets_at=timezone.now() + 20 * HOUR)
    assert "; 1 postponed since " in part("budget").value
    assert "Webhooks and what people ask for go on." in warnings_on(page(support))


def test_webhooks_that_wait_for_quota_are_told_with_the_time_since_when(support: Client, well: None) -> None:
    make_webhook(1, WebhookState.RECEIVED, age=HOUR)
    WebhookEvent.objects.update(postponed_since=timezone.now() - HOUR)
    assert "1 wait for quota since" in warnings_on(page(support))
    assert "look at the workers" not in part("webhooks").advice


def test_a_list_that_waits_for_customers_links_says_until_when(support: Client, well: None) -> None:
    assert "the list of all companies waits" not in part("poll").value
    ListingWalk.objects.create(name=sweep.NAME, waiting_since=timezone.now() - HOUR)
    found = part("poll")
    assert "the list of all companies waits since" in found.value
    assert found.tone == Tone.GOOD


def test_more_readings_than_the_day_allows_are_told_before_they_are_postponed(well: None) -> None:
    ConnectionFactory.create_batch(3, poll_due_at=timezone.now() + HOUR)
    ConnectionFactory(poll_due_at=timezone.now() + 30 * HOUR)
    CodatQuota.objects.update(limit=10, remaining=4)
    found = part("budget")
    assert "3 readings are due before the quota resets" in found.value
    assert (found.tone, "POLL_ settings" in found.advice) == (Tone.WARNING, True)


def test_an_unknown_quota_is_neither_good_nor_bad(well: None) -> None:
    CodatQuota.objects.all().delete()
    assert part("budget").tone == Tone.NEUTRAL


def make_webhook(number: int, state: WebhookState, *, age: timedelta = timedelta(0)) -> None:
    """A webhook that came `age` ago."""
    event = WebhookEvent.objects.create(webhook_id=f"msg_{number}", event_type="connection.connected", state=state)
    WebhookEvent.objects.filter(pk=event.pk).update(received_at=timezone.now() - age)


def test_a_webhook_that_failed_is_told_with_the_list_to_apply_it_from(support: Client, well: None) -> None:
    make_webhook(1, WebhookState.FAILED)
    assert "1 failed" in part("webhooks").value
    assert f"{reverse('admin:feeds_webhookevent_changelist')}?state__exact=failed" in warnings_on(page(support))


def test_a_webhook_that_is_not_applied_in_time_is_told(well: None) -> None:
    make_webhook(1, WebhookState.RECEIVED, age=HOUR)
    found = part("webhooks")
    assert (found.tone, "wait too long" in found.advice) == (Tone.WARNING, True)


def test_a_silent_inbox_is_told_when_polling_sees_changes(support: Client, well: None) -> None:
    connection = ConnectionFactory()
    StatusEvent.objects.create(
        company=connection.company, connection=connection, new="Linked", seen_at=timezone.now(), seen_by=SeenBy.POLL
    )
    assert part("webhooks").tone == Tone.WARNING
    assert "No webhook comes although statuses change" in warnings_on(page(support))


def test_wrong_signatures_are_told(well: None) -> None:
    with pytest.raises(inbox.BadSignature):
        inbox.receive({}, b"{}")
    found = part("webhooks")
    assert "1 badly signed today" in found.value
    assert "a secret was changed at one end only" in found.advice


def test_an_operation_whose_answer_was_lost_is_listed_with_its_link(support: Client, well: None) -> None:
    unknown = OperationFactory(state=OperationState.UNKNOWN, error="Codat did not answer <in> time.")
    OperationFactory(state=OperationState.SUCCEEDED)
    text = page(support)
    assert "1 unknown, 0 open for more than" in warnings_on(text)
    assert reverse("admin:feeds_operation_change", args=[unknown.pk]) in text
    assert "Codat did not answer <in> time." in text


@pytest.mark.parametrize("state", [OperationState.QUEUED, OperationState.SENDING])
def test_an_operation_that_does_not_end_is_stuck(state: OperationState, support: Client, well: None) -> None:
    fresh, old = OperationFactory(state=state), OperationFactory(state=state)
    Operation.objects.filter(pk=old.pk).update(created_at=timezone.now() - HOUR)
    assert part("operations").value.startswith("0 unknown, 1 open")
    text = page(support)
    assert reverse("admin:feeds_operation_change", args=[old.pk]) in text
    assert reverse("admin:feeds_operation_change", args=[fresh.pk]) not in text


def test_mails_that_reached_nobody_are_told_and_held_ones_are_counted(support: Client, well: None) -> None:
    for state in (MailState.FAILED, MailState.HELD, MailState.HELD, MailState.SENT):
        make_mail(state)
    found = part("mails")
    assert (found.tone, found.value) == (Tone.BAD, "1 failed, 2 held by an incident")
    assert "Check EMAIL_URL" in warnings_on(page(support))


def test_differences_of_last_night_are_told_by_kind_without_those_that_were_adopted(well: None) -> None:
    report = DriftReport.objects.get()
    for adopted_at in (None, None, timezone.now()):
        DriftFinding.objects.create(report=report, kind=DriftKind.MISSING_HERE, adopted_at=adopted_at)
    DriftFinding.objects.create(report=report, kind=DriftKind.RENAMED)
    found = part("drift")
    assert (found.tone, found.value) == (Tone.WARNING, "Only in Codat: 2, Name differs: 1")


@pytest.mark.parametrize(
    ("changes", "tone", "told"),
    [
        ({"error": "Codat is away."}, Tone.BAD, "failed"),
        ({"finished_at": None}, Tone.NEUTRAL, "being compared"),
        ({"age": 3 * 24 * HOUR}, Tone.WARNING, "last done 3\xa0days ago"),
    ],
)
def test_a_comparison_that_did_not_end_well_is_told(changes: dict[str, Any], tone: Tone, told: str, well: None) -> None:
    age = changes.pop("age", None)
    if age:
        changes = {"started_at": timezone.now() - age, "finished_at": timezone.now() - age}
    DriftReport.objects.update(**changes)
    found = part("drift")
    assert (found.tone, found.value) == (tone, told)


def test_an_open_incident_is_told_with_its_cases(support: Client, well: None) -> None:
    incident = Incident.objects.create(opened_at=timezone.now() - 2 * HOUR)
    for _ in range(2):
        make_case(incident=incident)
    assert part("incident").value == "open for 2\xa0hours, 2 cases"
    assert reverse("admin:feeds_incident_changelist") in warnings_on(page(support))
    Incident.objects.update(released_at=timezone.now())
    assert part("incident").tone == Tone.GOOD


def test_figures_that_are_not_written_are_told(well: None) -> None:
    Heartbeat.objects.filter(name=health.FIGURES).update(beat_at=timezone.now() - 5 * HOUR)
    assert part("figures").tone == Tone.WARNING


# --- Figures ---------------------------------------------------------------------------------------------------------
def test_a_day_is_recorded_once_however_often_it_is_written_down() -> None:
    for status in ("Linked", "Linked", "PendingAuth", "AddedLater"):
        ConnectionFactory(status=status)
    ConnectionFactory(status="Linked", gone_at=timezone.now())
    figures.record_day()
    rows = figures.record_day()
    assert DailyFigure.objects.count() == rows
    assert figures.latest_connections() == {
        "PendingAuth": 1, "Linked": 2, "Unlinked": 0, "Deauthorized": 0, "other": 1,
    }  # fmt: skip
    *before, today = figures.connections_by_status()
    assert today.counts == figures.latest_connections()
    assert {day.counts for day in before} == {None}


def test_cases_are_counted_on_the_days_they_opened_and_closed_and_today_as_it_stands() -> None:
    now = timezone.now()
    yesterday = now - timedelta(days=1)
    reopened = make_case(opened_at=yesterday, state=CaseState.CLOSED, closed_at=yesterday)
    figures.record_day()
    Case.objects.filter(pk=reopened.pk).update(state=CaseState.OPEN, closed_at=None)
    make_case(opened_at=yesterday, state=CaseState.CLOSED, closed_at=now)
    figures.record_day()
    make_case()
    *_before, one, two = figures.opened_and_closed()
    assert (one.opened, one.closed) == (2, 0)
    assert (two.opened, two.closed) == (1, 1)


def test_a_day_that_was_not_recorded_is_not_taken_for_a_quiet_one() -> None:
    first, *_rest = figures.opened_and_closed()
    assert (first.opened, first.closed) == (None, None)


def test_broken_feeds_are_grouped_by_the_time_since_they_broke() -> None:
    now = timezone.now()
    for days in (0, 0.9, 1, 2.9, 3, 7, 14, 29, 30, 400):
        make_case(broke_at=now - timedelta(days=days), state=CaseState.SNOOZED)
    make_case(state=CaseState.CLOSED, closed_at=now)
    make_case(recovered_at=now)
    counts = [group.count for group in figures.broken_by_age(now)]
    assert counts == [2, 2, 1, 1, 2, 2]


def make_repair(hours: float, *, outcome: CaseOutcome = CaseOutcome.RECONNECTED) -> None:
    """A feed that broke, worked again after so many hours, and whose case was closed a little later."""
    opened_at = timezone.now() - timedelta(hours=hours)
    make_case(
        opened_at=opened_at,
        recovered_at=timezone.now(),
        closed_at=timezone.now(),
        state=CaseState.CLOSED,
        outcome=outcome,
    )


def test_times_to_repair_are_exact_and_only_repairs_count() -> None:
    for hours in (1, 2, 3, 4, 5, 6, 7, 8, 9, 100):
        make_repair(hours)
    make_repair(1000, outcome=CaseOutcome.NOT_WANTED)
    repairs = figures.time_to_repair()
    *before, week = repairs.weeks
    assert week.repaired == 10
    assert week.median is not None
    assert week.p90 is not None
    assert week.median.total_seconds() == pytest.approx(5.5 * 3600, abs=5)
    assert week.p90.total_seconds() == pytest.approx(9 * 3600, abs=5)
    assert not repairs.is_capped
    assert {earlier.median for earlier in before} == {None}


def test_repairs_beyond_the_cap_are_left_out_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "REPAIR_CAP", 2)
    for hours in (1, 2, 3):
        make_repair(hours)
    repairs = figures.time_to_repair()
    assert repairs.is_capped
    assert repairs.weeks[-1].repaired == 2


def test_the_hourly_task_writes_the_figures(drain_queue: Any) -> None:
    queue.enqueue("feeds.tasks.record_day")
    drain_queue()
    assert DailyFigure.objects.filter(name=figures.CASES_OPENED).count() == figures.HISTORY_DAYS
    assert part("figures").tone == Tone.GOOD
    assert "feeds.tasks.record_day" in [entry.func for entry in queue.SCHEDULES]


# --- Cost ------------------------------------------------------------------------------------------------------------
def fill(count: int) -> None:
    """So many rows of everything the page looks at."""
    for number in range(count):
        unknown = OperationFactory(state=OperationState.UNKNOWN)
        make_case(connection=ConnectionFactory(company=unknown.company, poll_due_at=timezone.now()))
        make_repair(5)
        make_webhook(WebhookEvent.objects.count() + number, WebhookState.FAILED)
        make_mail(MailState.FAILED)
        queue.enqueue(queue.HEARTBEAT)
        DriftFinding.objects.create(report=DriftReport.objects.get(), kind=DriftKind.RENAMED)
    figures.record_day()


def test_many_rows_take_as_many_queries_as_one(support: Client, well: None, django_assert_num_queries: Any) -> None:
    Incident.objects.create(opened_at=timezone.now())
    fill(1)
    support.get(URL)
    with CaptureQueriesContext(database) as one:
        support.get(URL)
    fill(10)
    with django_assert_num_queries(len(one)):
        assert support.get(URL).status_code == 200
    assert len(one) <= 34

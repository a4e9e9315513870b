"""The queue: transactional, its schedules declared in code, its own records kept short."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone
from django.utils.module_loading import import_string
from django_q.models import Failure, OrmQ, Schedule, Success, Task

from feeds import queue, tasks
from feeds.models import Heartbeat
from feeds.services import health
from tests.factories import CompanyFactory
from tests.queue_drain import drain, run_one

pytestmark = pytest.mark.django_db


# --- Tasks -----------------------------------------------------------------------------------------------------------
def test_a_task_is_queued_if_and_only_if_the_transaction_is_committed() -> None:
    with transaction.atomic():
        queue.enqueue(queue.HEARTBEAT)
        transaction.set_rollback(True)
    assert not OrmQ.objects.exists()
    with transaction.atomic():
        queue.enqueue(queue.HEARTBEAT)
    assert OrmQ.objects.count() == 1


def test_whatever_a_worker_runs_proves_that_it_is_alive() -> None:
    queue.enqueue(queue.ADVANCE, CompanyFactory().pk)
    assert drain() == 1
    assert health.age_seconds(health.WORKER) is not None


def test_a_task_for_a_company_that_was_deleted_ends_well() -> None:
    assert tasks.advance(999_999) == "held by another worker"


@pytest.mark.parametrize("path", [queue.ADVANCE, queue.HEARTBEAT, *(entry.func for entry in queue.SCHEDULES)])
def test_every_task_that_is_named_exists(path: str) -> None:
    assert callable(import_string(path))


def test_a_task_that_raises_fails_and_is_kept_where_staff_look() -> None:
    queue.enqueue(queue.ADVANCE, "no number")
    with pytest.raises(ValueError, match="no number"):
        run_one(OrmQ.objects.get())


def test_the_oldest_waiting_task_is_the_one_that_nobody_took() -> None:
    assert queue.oldest_waiting_since() is None
    for _number in range(3):
        queue.enqueue(queue.HEARTBEAT)
    first, second, _third = OrmQ.objects.order_by("id")
    OrmQ.objects.filter(pk=first.pk).update(lock=timezone.now() + timedelta(minutes=5))  # a worker is on it
    long_ago = timezone.now() - timedelta(hours=1)
    OrmQ.objects.filter(pk=second.pk).update(lock=long_ago)
    assert queue.oldest_waiting_since() == long_ago


# --- Schedules -------------------------------------------------------------------------------------------------------
def stored() -> set[tuple[str, str, int, str]]:
    """The schedules as the cluster reads them."""
    return set(Schedule.objects.values_list("name", "func", "minutes", "schedule_type"))


def declared() -> set[tuple[str, str, int, str]]:
    """The schedules as the code says."""
    return {(entry.name, entry.func, entry.minutes, Schedule.MINUTES) for entry in queue.SCHEDULES}


def test_the_schedules_become_what_the_code_says_and_stay_so() -> None:
    assert [change.split()[0] for change in queue.sync_schedules()] == ["added"] * len(queue.SCHEDULES)
    assert stored() == declared()
    before = list(Schedule.objects.order_by("pk").values())
    assert queue.sync_schedules() == []
    assert list(Schedule.objects.order_by("pk").values()) == before


def test_every_schedule_is_due_at_once_and_for_ever() -> None:
    queue.sync_schedules()
    for schedule in Schedule.objects.all():
        assert schedule.next_run <= timezone.now()
        assert schedule.repeats == -1


@pytest.mark.parametrize(
    "wrong", [{"minutes": 7}, {"func": "os.getcwd"}, {"schedule_type": Schedule.ONCE}, {"repeats": 3}], ids=str
)
def test_an_edited_schedule_is_put_right_and_runs_soon(wrong: dict[str, object]) -> None:
    queue.sync_schedules()
    name = queue.SCHEDULES[0].name
    Schedule.objects.filter(name=name).update(next_run=timezone.now() + timedelta(days=9), **wrong)
    assert queue.sync_schedules() == [f"changed {name}"]
    assert stored() == declared()
    assert Schedule.objects.get(name=name).next_run <= timezone.now()


def test_schedules_that_nobody_declared_and_second_ones_are_removed() -> None:
    queue.sync_schedules()
    name = queue.SCHEDULES[0].name
    Schedule.objects.create(name=name, func="os.getcwd", schedule_type=Schedule.MINUTES, minutes=1)
    Schedule.objects.create(name="Forgotten", func="os.getcwd", schedule_type=Schedule.MINUTES, minutes=1)
    assert queue.sync_schedules() == ["removed Forgotten", f"removed a second {name}"]
    assert stored() == declared()
    assert Schedule.objects.count() == len(queue.SCHEDULES)


# --- Pruning ---------------------------------------------------------------------------------------------------------
def record(identity: str, *, age: timedelta, success: bool) -> None:
    """A finished task of that age."""
    stopped = timezone.now() - age
    Task.objects.create(
        id=identity, name=identity, func=queue.HEARTBEAT, started=stopped, stopped=stopped, success=success
    )


def test_old_successes_are_pruned_and_failures_kept() -> None:
    record("old", age=timedelta(days=8), success=True)
    record("young", age=timedelta(days=6), success=True)
    record("old-failure", age=timedelta(days=80), success=False)
    assert tasks.prune_finished_tasks() == "1 deleted"
    assert list(Success.objects.values_list("name", flat=True)) == ["young"]
    assert list(Failure.objects.values_list("name", flat=True)) == ["old-failure"]
    assert tasks.prune_finished_tasks() == "0 deleted"


def test_a_heartbeat_is_written_once_in_a_few_seconds() -> None:
    health.beat("part")
    first = Heartbeat.objects.get(name="part").beat_at
    health.beat("part")
    assert Heartbeat.objects.get(name="part").beat_at == first
    Heartbeat.objects.update(beat_at=first - health.BEAT_EVERY)
    health.beat("part")
    assert Heartbeat.objects.get(name="part").beat_at >= first

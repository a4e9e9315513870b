"""What the change history costs: for each saved row, for each sealed entry, and to ask it for a field."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator

from auditlog.context import disable_auditlog
from django.contrib.contenttypes.models import ContentType
from django.db import transaction

from feeds import audit
from feeds.models import AuditEntry, Company, base
from feeds.services import seals
from tests.bench.registry import Figure, Options, bench, median_ms
from tests.factories import CompanyFactory

SAVES = 300
CHUNK = 2000
FIELDS = (",status,", ",onboarding_state,", ",errors,status,", ",legal_name,", ",owner,state,", ",gone_at,status,")


@bench("history")
def measure(options: Options) -> Iterator[Figure]:
    """Save rows with and without history, seal and verify `--rows` entries, and ask for a field that few changed."""
    yield from _saving()
    _fill(options.rows)
    note = f"{options.rows:,} entries"
    for name, act in (("sealing", lambda: seals.seal(budget=float("inf"))), ("verifying", seals.verify)):
        before = _peak_mb()
        cpu = time.process_time()
        seconds = _seconds(act)
        cpu = time.process_time() - cpu
        yield Figure(name, options.rows / seconds, "rows/s", f"{note}, memory grew by {_peak_mb() - before:.0f} MB")
        yield Figure(f"{name}, of processor time", options.rows / cpu, "rows/s", note)
    for field, who in (("notes", "few"), ("status", "half")):
        elapsed = median_ms(lambda field=field: _ask(field))
        yield Figure(f"entries that touch {field}", elapsed, "ms", f"{note}; {who} do")


def _ask(field: str) -> list[AuditEntry]:
    """A page of the list, filtered by field."""
    return list(AuditEntry.objects.touching(field)[:100])


def _saving() -> Iterator[Figure]:
    """The same saves, alternately with and without, in one run: the machine may be busy."""
    company = CompanyFactory()
    times: dict[bool, float] = {True: 0.0, False: 0.0}
    for number in range(SAVES):
        for with_history in (True, False):
            company.notes = f"{number} {with_history}"
            times[with_history] += _seconds(lambda with_history=with_history: _save(company, with_history))
    yield Figure("saving a row, with history", times[True] / SAVES * 1000, "ms", f"{SAVES} saves")
    yield Figure("saving a row, without", times[False] / SAVES * 1000, "ms", f"{SAVES} saves, alternating")
    rows = Company.objects.filter(pk__in=[CompanyFactory().pk for _ in range(SAVES)])
    with base.entries_are_written():
        without = _seconds(lambda: rows.update(notes="without"))
    seconds = _seconds(lambda: audit.update(rows, notes="with"))
    yield Figure("rows together, with history", seconds / SAVES * 1000, "ms", f"each of {SAVES}")
    yield Figure("rows together, without", without / SAVES * 1000, "ms", f"each of {SAVES}")


def _save(company: Company, with_history: bool) -> None:
    with transaction.atomic():
        if with_history:
            company.save(update_fields=["notes"])
        else:
            with disable_auditlog():
                company.save(update_fields=["notes"])


def _fill(rows: int) -> None:
    """Entries as a year of work leaves them: half are statuses, one in ten thousand touches the notes."""
    kind = ContentType.objects.get_for_model(Company)
    company = CompanyFactory()
    for start in range(0, rows, CHUNK):
        AuditEntry.objects.bulk_create(
            AuditEntry(
                content_type=kind,
                object_pk=str(number),
                object_repr=f"Seeded {number}",
                action=AuditEntry.Action.UPDATE,
                changes={"status": ["PendingAuth", "Linked"]},
                fields=",notes,"
                if number % 10_000 == 0
                else ",status,"
                if number % 2
                else FIELDS[number % len(FIELDS)],
                company_id=company.pk + number % 5000,
                actor_name="worker",
                source="service: worker",
                cid=str(number // 7),
            )
            for number in range(start, min(start + CHUNK, rows))
        )


def _fields(number: int) -> str:
    if number % 10_000 == 0:
        return ",notes,"
    return ",status," if number % 2 else FIELDS[number % len(FIELDS)]


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

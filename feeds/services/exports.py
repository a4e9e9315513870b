"""Taking the change history out: any search as CSV or JSON Lines, with a manifest, in one ZIP that is sent as it grows.

Entries are read by id, some thousand at a time, and no transaction stays open: a slow reader holds nothing back, on
SQLite no writer waits, and memory stays the same however many there are. Since entries are only ever added, the file
holds what a single query would have found when the export began.

Who took what is recorded before the first byte and again after the last, so one that was broken off is seen as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from feeds import audit, wording
from feeds.audit import Actor
from feeds.models import AuditEntry, AuditSeal, Company, HistoryExport
from feeds.services import history
from feeds.services.changes import ACTIONS, Names, changes_of
from feeds.services.history import Search
from feeds.services.tables import CSV_NOTE, Cell, as_csv, as_json_lines
from feeds.services.zipstream import ZipStream
from feeds.states import ExportFormat, ExportKind, ExportState

READ_AT_ONCE = 2000
"""Entries that are read with one query."""
SPREADSHEET_ROWS = 1_048_576
"""Rows that spreadsheet programs open; a file with more has to be read by a program, or asked for in parts."""

COLUMNS = (
    "id", "at_utc", "who", "who_email", "source", "action", "event", "kind", "object_id", "object", "customer",
    "reason", "what", "changes", "details", "request", "ip",
)  # fmt: skip
"""Columns of the file. `what` is `changes` in words; `changes` is field -> [from, to], as it is stored."""

MASK_NOTE = (
    "Account numbers are masked and secrets are left out where the history is written: they are in no export. "
    "Which fields are kept is an allow-list."
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A file on its way out: its name and its bytes, to be sent in order. Closing `content` early is recorded."""

    filename: str
    content: Iterator[bytes]


def export(search: Search, format: ExportFormat, *, actor: Actor, reason: str) -> Delivery:
    """Record the export and hand out its ZIP: the rows, oldest first, and `manifest.json`."""
    with wording.recorded():
        words = "; ".join(f"{label}: {value}" for label, value in history.in_words(search))
    asked = _begin(
        HistoryExport(
            kind=ExportKind.HISTORY,
            format=format,
            filters=search.as_dict(),
            filters_text=words,
            reason=reason,
        ),
        actor,
    )
    entries = up_to_now(history.find(search))
    return Delivery(f"change-history-{asked.pk}.zip", recorded(asked, actor, _pack(asked, entries)))


def up_to_now(entries: QuerySet[AuditEntry]) -> QuerySet[AuditEntry]:
    """Only what exists already: an export ends, even while the history grows."""
    return entries.filter(id__lte=newest())


def newest() -> int:
    """The id of the newest entry."""
    return AuditEntry.objects.order_by("-id").values_list("id", flat=True).first() or 0


# --- The record ------------------------------------------------------------------------------------------------------
def begin_pack(company: Company, *, filters: dict[str, str], words: str, actor: Actor, reason: str) -> HistoryExport:
    """Record that an evidence pack was asked for."""
    return _begin(
        HistoryExport(
            kind=ExportKind.EVIDENCE,
            format=ExportFormat.CSV,
            filters=filters,
            filters_text=words,
            company=company,
            reason=reason,
        ),
        actor,
    )


def _begin(asked: HistoryExport, actor: Actor) -> HistoryExport:
    asked.requested_by = actor.user
    asked.requested_by_name = actor.name
    asked.started_at = timezone.now()
    with transaction.atomic(), audit.acting(actor):
        asked.save()
        _record(asked, "started")
    return asked


def recorded(asked: HistoryExport, actor: Actor, content: Iterable[bytes]) -> Iterator[bytes]:
    """`content`, followed by the record of how it ended: complete, or broken off by the reader or by a fault.

    It runs after the request's own code has ended, so who acts is said here once more.
    """
    context = structlog.contextvars.get_contextvars()
    return _Recorded(asked, actor, content, {key: context[key] for key in ("request_id",) if key in context})


class _Recorded(Iterator[bytes]):
    """An iterator that is told when it is closed, even before its first byte was asked for."""

    def __init__(self, asked: HistoryExport, actor: Actor, content: Iterable[bytes], context: dict[str, Any]) -> None:
        self._asked, self._actor, self._context = asked, actor, context
        self._content = iter(content)
        self._is_open = True

    def __next__(self) -> bytes:
        try:
            # An export is in the site's language, like what it holds, whoever takes it.
            with wording.recorded():
                return next(self._content)
        except StopIteration:
            self._end(ExportState.DONE)
            raise
        except BaseException:
            self._end(ExportState.BROKEN)
            raise

    def close(self) -> None:
        """Called by the server when the reader went away, and after the last byte."""
        if isinstance(self._content, Generator):
            self._content.close()
        self._end(ExportState.BROKEN)

    def _end(self, state: ExportState) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._asked.state = state
        self._asked.finished_at = timezone.now()
        with (
            structlog.contextvars.bound_contextvars(**self._context),
            transaction.atomic(),
            audit.acting(self._actor),
        ):
            self._asked.save(update_fields=["state", "finished_at", "rows", "sha256"])
            _record(self._asked, "completed" if state == ExportState.DONE else "broken_off")


EVENTS = {ExportKind.HISTORY: "history_exported", ExportKind.EVIDENCE: "evidence_pack_made"}


def _record(asked: HistoryExport, stage: str) -> None:
    """The same event three ways: `stage` says whether it began, ended or was broken off."""
    details: dict[str, Any] = {"stage": stage, "format": asked.format, "asked_for": asked.filters_text}
    if stage != "started":
        details |= {"rows": asked.rows, "sha256": asked.sha256}
    event = EVENTS[ExportKind(asked.kind)]
    audit.record(event, asked, reason=asked.reason, **details)


# --- The rows --------------------------------------------------------------------------------------------------------
def _pack(asked: HistoryExport, entries: QuerySet[AuditEntry]) -> Iterator[bytes]:
    packed = ZipStream(timezone.localtime(asked.started_at))
    counted = Counted(_rows(entries))
    name = f"history.{asked.format}"
    try:
        yield from packed.file(name, FORMATS[ExportFormat(asked.format)](COLUMNS, counted))
    finally:
        asked.rows = counted.count  # also of one that is broken off: so many may have left
    asked.sha256 = packed.files[-1].sha256
    yield from packed.file("manifest.json", [_manifest(asked, packed, counted)])
    yield from packed.end()


FORMATS: dict[ExportFormat, Callable[[Sequence[str], Iterable[Sequence[Any]]], Iterator[bytes]]] = {
    ExportFormat.CSV: as_csv,
    ExportFormat.JSON_LINES: lambda columns, rows: as_json_lines(columns, (structured(row) for row in rows)),
}


class Counted(Iterator[tuple[Cell, ...]]):
    """Rows, counted as they pass, with the ids of the first and the last."""

    def __init__(self, rows: Iterable[tuple[Cell, ...]]) -> None:
        self._rows = iter(rows)
        self.count = 0
        self.first: Cell = None
        self.last: Cell = None

    def __next__(self) -> tuple[Cell, ...]:
        row = next(self._rows)
        self.count += 1
        self.last = row[0]
        if self.first is None:
            self.first = row[0]
        return row


def _rows(entries: QuerySet[AuditEntry]) -> Iterator[tuple[Cell, ...]]:
    names = Names()
    for chunk in read(entries):
        names.learn(chunk)
        for entry in chunk:
            yield row_of(entry, names)


def read(entries: QuerySet[AuditEntry]) -> Iterator[list[AuditEntry]]:
    """All of them, oldest first, a chunk for each query: the next one begins where the last one ended."""
    last = 0
    ordered = entries.order_by("id")
    while chunk := list(ordered.filter(id__gt=last)[:READ_AT_ONCE]):
        yield chunk
        last = chunk[-1].pk


def row_of(entry: AuditEntry, names: Names) -> tuple[Cell, ...]:
    """An entry as `COLUMNS` name it."""
    return (
        entry.pk,
        entry.timestamp.astimezone(UTC).isoformat(timespec="microseconds"),
        entry.actor_name,
        entry.actor_email,
        entry.source,
        ACTIONS[entry.action],
        entry.event,
        names.kind(entry),
        entry.object_pk,
        entry.object_repr,
        names.of(Company, entry.company_id) if entry.company_id else None,
        entry.reason,
        "; ".join(map(str, changes_of(entry, names))),
        _json(entry.changes),
        _json(entry.additional_data),
        entry.cid,
        entry.remote_addr,
    )


def _json(value: object) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


_STRUCTURED = (COLUMNS.index("changes"), COLUMNS.index("details"))


def structured(row: Sequence[Cell]) -> list[object]:
    """In JSON Lines what is JSON stays JSON."""
    return [
        json.loads(cell) if place in _STRUCTURED and isinstance(cell, str) else cell for place, cell in enumerate(row)
    ]


# --- The manifest ----------------------------------------------------------------------------------------------------
def _manifest(asked: HistoryExport, packed: ZipStream, counted: Counted) -> bytes:
    return as_manifest(
        {
            **made_by(asked),
            "rows": counted.count,
            "first_entry": counted.first,
            "last_entry": counted.last,
            "order": "by id, oldest first",
            "columns": list(COLUMNS),
            "files": listed(packed),
            "notes": [
                CSV_NOTE if asked.format == ExportFormat.CSV else "JSON Lines: UTF-8, one JSON object a line.",
                MASK_NOTE,
                f"Spreadsheets open at most {SPREADSHEET_ROWS:,} rows.",
            ],
        }
    )


def made_by(asked: HistoryExport) -> dict[str, Any]:
    """What every manifest begins with: what it is, who asked when and why, and the last seal over the history."""
    return {
        "what": str(ExportKind(asked.kind).label),
        "number": asked.pk,
        "made_by": asked.requested_by_name,
        "reason": asked.reason,
        "started_at_utc": asked.started_at.astimezone(UTC).isoformat(timespec="seconds"),
        "site": settings.SITE_URL,
        "environment": settings.ENVIRONMENT,
        "filters": asked.filters,
        "filters_in_words": asked.filters_text or "none: the whole history",
        "days_are_in_zone": settings.TIME_ZONE,
        "last_seal": last_seal(),
    }


def last_seal() -> dict[str, Any] | None:
    """The newest seal; entries after its `last_entry` are not sealed yet. None when nothing is sealed."""
    seal = AuditSeal.objects.order_by("-number").first()
    if seal is None:
        return None
    return {
        "number": seal.number,
        "sha256": seal.sha256,
        "last_entry": seal.last_entry,
        "sealed_at_utc": seal.sealed_at.astimezone(UTC).isoformat(timespec="seconds"),
    }


def listed(packed: ZipStream) -> list[dict[str, Any]]:
    """What the ZIP holds so far."""
    return [{"name": file.name, "bytes": file.size, "sha256": file.sha256} for file in packed.files]


def as_manifest(facts: dict[str, Any]) -> bytes:
    """The manifest as it stands in the ZIP."""
    return (json.dumps(facts, ensure_ascii=False, indent=2, default=str) + "\n").encode()

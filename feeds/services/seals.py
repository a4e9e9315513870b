"""Seals over the change history, and the proof that nothing in it was altered.

A seal is a SHA-256 hash over a run of entries and over the seal before it, so that one entry, or one seal, cannot be
changed without every later seal saying so. Seals sent off this host (`seal_delivery`) cannot be re-made by whoever owns
the database. The exact bytes that are hashed, format 1:

- An entry is one line: a JSON array of `COLUMNS` in that order, as Python's `json.dumps` writes it without spaces, with
  sorted keys and everything beyond ASCII escaped; times in UTC as 2026-11-26T13:15:52.123456+00:00. `entries_sha256` is
  the hash of all lines, each with its new line.
- `sha256` of the seal is the hash of one such JSON object: `HEADER`.

A row that is committed after a seal must not have a lower id than the last one sealed. On SQLite there is one writer at
a time. On PostgreSQL `feeds_audit_horizon()` waits, for two seconds at most, until nobody is in the middle of writing
entries, and returns the highest id: whoever takes an id later gets a higher one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import structlog
from django.db import DatabaseError, IntegrityError, OperationalError, connection, models, transaction
from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.models import AuditEntry, AuditPurge, AuditSeal
from feeds.services import seal_delivery

log = structlog.get_logger(__name__)

VERSION = 1
COLUMNS = (
    "id", "timestamp", "content_type_id", "object_pk", "object_id", "object_repr", "action", "event", "actor_id",
    "actor_name", "actor_email", "source", "reason", "remote_addr", "remote_port", "cid", "company_id", "fields",
    "changes", "changes_text", "additional_data", "serialized_data",
)  # fmt: skip
HEADER = (
    "version", "number", "first_entry", "last_entry", "entries", "oldest_at", "newest_at", "entries_sha256",
    "previous_sha256", "sealed_at",
)  # fmt: skip
PURGE_HEADER = (
    "first_entry", "last_entry", "entries", "first_seal", "last_seal", "seal_sha256", "older_than", "retention_days",
    "actor_name", "source", "reason", "purged_at", "previous_sha256",
)  # fmt: skip
GENESIS = "0" * 64
BATCH = 10_000
"""Most entries under one seal: so much has to be looked through when one does not verify."""
BUDGET = 40.0
"""Seconds after which no further seal is begun: a queue task lives sixty. What is left waits for the next run."""
LATE = timedelta(minutes=5)
"""How much older than an earlier entry a later one may be: statements take their time when they begin."""
MOST_PROBLEMS = 100
GUARDED = ("feeds_auditentry", "feeds_auditseal", "feeds_auditpurge")
GUARDS: dict[str, dict[str, str]] = {
    "sqlite": {
        "audit_entry_no_update": "49b00909aaed304d",
        "audit_entry_no_delete": "28627f836b7957d4",
        "audit_entry_no_replace": "584f03dfb745cf0f",
        "audit_entry_now": "c42443f3e647f041",
        "audit_entry_after_seals": "a47f06dde5a150fb",
        "audit_seal_no_update": "113eeb3d465453bb",
        "audit_seal_no_delete": "2caea5ef2fdf3896",
        "audit_seal_follows": "9290513277864484",
        "audit_purge_no_update": "31d2725397e5dacb",
        "audit_purge_no_delete": "133e32ce530526ad",
        "audit_purge_is_covered": "aeb12d8017aac8b9",
    },
    "postgresql": {
        "audit_entry_no_update": "8dcf7f55eec91a25",
        "audit_entry_no_truncate": "fa8def2755e4bdd8",
        "audit_entry_no_delete": "0b62b36cb3143170",
        "audit_entry_now": "0606ab88725e2f43",
        "audit_seal_no_change": "c1f33283df5ecbba",
        "audit_seal_follows": "fa2c132b69d8bbba",
        "audit_purge_no_change": "bc876d38f02410d6",
        "audit_purge_is_covered": "337ace97ea4468b3",
    },
}
"""Triggers that keep the history append-only, by database (migration 0013): name -> the end of a hash over what it is.

A trigger of the same name that refuses nothing is none. Who changes one in a migration puts its new hash here.
"""


# --- Hashes ----------------------------------------------------------------------------------------------------------
def canonical(value: Any) -> bytes:
    """The bytes of a value that is hashed."""
    return json.dumps(value, default=_plain, sort_keys=True, separators=(",", ":")).encode()


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return str(value)


def header(row: models.Model, names: Iterable[str]) -> dict[str, Any]:
    """The hashed columns of a seal or a purge, ready for JSON."""
    return {name: _plain(value) if isinstance(value := getattr(row, name), datetime) else value for name in names}


def hash_of(row: AuditSeal | AuditPurge) -> str:
    """The hash that the seal or the recorded purge must carry."""
    names = HEADER if isinstance(row, AuditSeal) else PURGE_HEADER
    return hashlib.sha256(canonical(header(row, names))).hexdigest()


@dataclass(slots=True)
class Digest:
    """What hashing a run of entries found. `out_of_order`: the first that is older than one before it."""

    entries: int = 0
    first: int = 0
    last: int = 0
    oldest_at: datetime | None = None
    newest_at: datetime | None = None
    out_of_order: int | None = None
    sha256: str = ""


def digest(entries: QuerySet[AuditEntry]) -> Digest:
    """Hash entries, which are ordered by id. In memory there is a page of them at a time."""
    found, hashed = Digest(), hashlib.sha256()
    for row in entries.values_list(*COLUMNS).iterator(chunk_size=1000):
        pk, at = row[0], row[1]
        hashed.update(canonical(row) + b"\n")
        found.entries += 1
        found.first = found.first or pk
        found.last = pk
        if found.newest_at is not None and at < found.newest_at - LATE:
            found.out_of_order = found.out_of_order or pk
        found.oldest_at = min(found.oldest_at or at, at)
        found.newest_at = max(found.newest_at or at, at)
    found.sha256 = hashed.hexdigest()
    return found


# --- Sealing ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Sealed:
    """What a run sealed. `waiting`: somebody was writing all the time, so nothing could be sealed."""

    seals: int
    entries: int
    waiting: bool = False


def seal(*, size: int = BATCH, budget: float = BUDGET) -> Sealed:
    """Seal what is not sealed yet, in runs of at most `size` entries. Safe to call from anywhere, any number of times.

    `budget`: seconds after which no further run is begun.
    """
    deadline = time.monotonic() + budget
    horizon = _horizon()
    if horizon is None:
        log.warning("history_not_sealed", reason="somebody kept writing entries")
        return Sealed(0, 0, waiting=True)
    seals = entries = 0
    while time.monotonic() < deadline:
        made = _seal_run(horizon, size)
        if made is None:
            break
        seals, entries = seals + 1, entries + made.entries
    return Sealed(seals, entries)


def _horizon() -> int | None:
    """The highest id below which no entry can still come; None while somebody keeps writing."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT coalesce(max(id), 0) FROM feeds_auditentry")
            return int(cursor.fetchone()[0])
        try:
            with transaction.atomic():
                cursor.execute("SELECT coalesce(feeds_audit_horizon(), 0)")
                return int(cursor.fetchone()[0])
        except OperationalError:  # lock_timeout
            return None


def _seal_run(horizon: int, size: int) -> AuditSeal | None:
    before = AuditSeal.objects.first()
    found = digest(_entries(before.last_entry if before else 0, horizon)[:size])
    if found.oldest_at is None or found.newest_at is None:  # nothing to seal
        return None
    made = AuditSeal(
        number=before.number + 1 if before else 1,
        version=VERSION,
        first_entry=found.first,
        last_entry=found.last,
        entries=found.entries,
        oldest_at=found.oldest_at,
        newest_at=found.newest_at,
        entries_sha256=found.sha256,
        previous_sha256=before.sha256 if before else GENESIS,
        sealed_at=database_now(),
    )
    made.sha256 = hash_of(made)
    try:
        with transaction.atomic():
            made.save(force_insert=True)
            seal_delivery.post(made)
    except IntegrityError:  # another worker sealed these a moment ago
        return None
    return made


def _entries(after: int, through: int) -> QuerySet[AuditEntry]:
    entries: QuerySet[AuditEntry] = AuditEntry.objects.filter(pk__gt=after, pk__lte=through).order_by("pk")
    return entries


def database_now() -> datetime:
    """The database's clock (aware UTC): seals and purges carry its time, as entries do."""
    with connection.cursor() as cursor:
        if connection.vendor != "sqlite":
            cursor.execute("SELECT clock_timestamp()")
            now: datetime = cursor.fetchone()[0]
            return now.astimezone(UTC)
        cursor.execute("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')")
        parsed = parse_datetime(cursor.fetchone()[0])
    if parsed is None:
        raise DatabaseError("the database does not tell the time")
    return parsed.replace(tzinfo=UTC)


def unsealed() -> tuple[int | None, datetime | None]:
    """The first entry without a seal and its time; (None, None) when all are sealed. Two queries by index."""
    last = AuditSeal.objects.first()
    waiting = AuditEntry.objects.filter(pk__gt=last.last_entry if last else 0).order_by("pk")
    first = waiting.values_list("pk", "timestamp").first()
    return first or (None, None)


# --- Verifying -------------------------------------------------------------------------------------------------------
class ProblemKind(models.TextChoices):
    """What is wrong with the history."""

    CHANGED = "changed", gettext_lazy("Changed")
    MISSING = "missing", gettext_lazy("Missing")
    INSERTED = "inserted", gettext_lazy("Inserted")
    BACK_DATED = "back_dated", gettext_lazy("Back-dated")
    SEAL_ALTERED = "seal_altered", gettext_lazy("Seal altered")
    SEAL_MISSING = "seal_missing", gettext_lazy("Seal missing")
    PURGE_ALTERED = "purge_altered", gettext_lazy("Recorded purge altered")
    UNGUARDED = "unguarded", gettext_lazy("Guard missing")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `seal`: the number of the batch, None if it concerns no batch in particular."""

    kind: ProblemKind
    seal: int | None
    text: str


@dataclass(slots=True)
class Verification:
    """What verifying found, in the order of the chain: the first of `problems` is the first bad batch.

    `seals` and `entries` were recomputed, `purged` entries are gone and only their seals were, `unsealed` have no seal
    yet. `as_of`: aware UTC. `is_whole`: whether the end was reached; if not, `last_seal` is where to go on.
    """

    as_of: datetime
    seals: int = 0
    entries: int = 0
    purged: int = 0
    unsealed: int = 0
    last_seal: AuditSeal | None = None
    problems: list[Problem] = field(default_factory=list)
    is_whole: bool = True

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(
    *, copies: Iterable[dict[str, Any]] = (), begun: Verification | None = None, budget: float = float("inf")
) -> Verification:
    """Recompute everything: chain, counts, ranges, hashes, order of times, recorded purges, triggers.

    `copies`: seals as they were sent off this host, for those that are no longer here. Files named by AUDIT_SEAL_TO are
    compared in any case. Stops after `MOST_PROBLEMS`. Memory does not grow with the history.

    `budget`: seconds after which no further seal is looked at; what is found then is not whole, and is `begun` for the
    call that goes on.
    """
    found = begun or Verification(database_now())
    found.is_whole = True
    checks = (
        _check_guards(),
        _check_chain(found, time.monotonic() + budget),
        _check_rest(found, copies),
    )
    problems = (problem for check in checks for problem in check)
    found.problems.extend(islice(problems, MOST_PROBLEMS))
    return found


def _check_rest(found: Verification, copies: Iterable[dict[str, Any]]) -> Iterator[Problem]:
    """What can be told only after the last seal."""
    if not found.is_whole:
        return
    yield from _check_unsealed(found)
    yield from _check_copies(seal_delivery.copies())
    yield from _check_copies(copies)


def guards() -> dict[str, str]:
    """What watches over the history's tables in this database: name -> the end of a hash over what it is."""
    return {name: hashlib.sha256(" ".join(what.split()).encode()).hexdigest()[-16:] for name, what in _watching()}


def _watching() -> list[tuple[str, str]]:
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(
                "SELECT name, tbl_name || ' ' || replace(sql, '\"', '') FROM sqlite_master"
                " WHERE type = 'trigger' AND tbl_name IN (%s, %s, %s)",
                GUARDED,
            )
        else:
            # Columns of the catalogue, because how PostgreSQL writes a trigger down differs from version to version.
            cursor.execute(
                "SELECT tgname, concat_ws(' ', relname, tgtype, tgenabled, tgqual IS NULL, proname,"
                " replace(prosrc, quote_ident(current_schema()) || '.', '')) FROM pg_trigger"
                " JOIN pg_class ON pg_class.oid = tgrelid JOIN pg_proc ON pg_proc.oid = tgfoid"
                " WHERE NOT tgisinternal AND tgrelid IN (to_regclass(%s), to_regclass(%s), to_regclass(%s))"
                " UNION ALL SELECT rulename, tablename || definition FROM pg_rules"
                " WHERE schemaname = current_schema() AND tablename IN (%s, %s, %s)",
                GUARDED * 2,
            )
        rows: list[tuple[str, str]] = cursor.fetchall()
        return rows


def _check_guards() -> Iterator[Problem]:
    there, ours = guards(), GUARDS[connection.vendor]
    for name in sorted(there.keys() | ours.keys()):
        if name not in there:
            text = _("The trigger %s is missing or switched off: the database does not refuse what it should.")
        elif name not in ours:
            text = _("On the tables of the history there is %s, which is none of ours: it may keep entries out.")
        elif there[name] != ours[name]:
            text = _("The trigger %s is switched off or another than was installed: what it refuses is not certain.")
        else:
            continue
        yield Problem(ProblemKind.UNGUARDED, None, text % name)


def _check_chain(found: Verification, deadline: float) -> Iterator[Problem]:
    purges = list(AuditPurge.objects.order_by("last_entry"))
    yield from _check_purges(purges)
    before = found.last_seal
    following = AuditSeal.objects.filter(number__gt=before.number if before else 0).order_by("number")
    for looked, seal in enumerate(following.iterator(chunk_size=500)):
        if looked and time.monotonic() > deadline:
            found.is_whole = False
            return
        expected = before.number + 1 if before else 1
        if seal.number != expected:
            yield Problem(ProblemKind.SEAL_MISSING, expected, _("Seal %d is missing.") % expected)
        elif seal.previous_sha256 != (before.sha256 if before else GENESIS):
            text = _("Seal %d does not continue the seal before it: one of the two was altered.")
            yield Problem(ProblemKind.SEAL_ALTERED, seal.number, text % seal.number)
        if seal.version != VERSION:
            text = _("Seal %d has a format that this version does not know.")
            yield Problem(ProblemKind.SEAL_ALTERED, seal.number, text % seal.number)
        elif seal.sha256 != hash_of(seal):
            text = _("Seal %d was altered: its hash is not that of its content.")
            yield Problem(ProblemKind.SEAL_ALTERED, seal.number, text % seal.number)
        yield from _check_batch(seal, before, found, purges)
        found.last_seal = before = seal
        found.seals += 1


def _check_batch(
    seal: AuditSeal, before: AuditSeal | None, found: Verification, purges: list[AuditPurge]
) -> Iterator[Problem]:
    is_purged = any(purge.first_seal <= seal.number <= purge.last_seal for purge in purges)
    counted = found.entries
    problems = list(check_entries(seal, before, found, is_purged=is_purged))
    since_we_began = AuditPurge.objects.filter(first_seal__lte=seal.number, last_seal__gte=seal.number)
    if problems and not is_purged and since_we_began.exists():
        # The nightly purge took it while we looked: no alarm.
        found.entries = counted
        problems = list(check_entries(seal, before, found, is_purged=True))
    yield from problems


def check_entries(
    seal: AuditSeal, before: AuditSeal | None, found: Verification, *, is_purged: bool
) -> Iterator[Problem]:
    """Hash the entries from the seal `before` up to the last of this one, and say how they differ from what it says."""
    there = digest(_entries(before.last_entry if before else 0, seal.last_entry))
    if is_purged:
        found.purged += seal.entries
        if there.entries:
            text = _("%(count)d entries are there although a purge says that they were deleted.")
            yield _in_batch(ProblemKind.INSERTED, seal, text % {"count": there.entries})
        return
    found.entries += there.entries
    if there.entries < seal.entries:
        text = _("%(count)d of %(entries)d entries are missing.")
        counts = {"count": seal.entries - there.entries, "entries": seal.entries}
        yield _in_batch(ProblemKind.MISSING, seal, text % counts)
    elif there.entries > seal.entries:
        text = _("%(count)d entries were added after it was sealed.")
        yield _in_batch(ProblemKind.INSERTED, seal, text % {"count": there.entries - seal.entries})
    elif (there.oldest_at, there.newest_at) != (seal.oldest_at, seal.newest_at):
        yield _in_batch(ProblemKind.BACK_DATED, seal, _("The time of at least one entry was changed."))
    elif there.sha256 != seal.entries_sha256:
        is_late = there.out_of_order is not None
        text = _("The time of entry %s was changed.") % there.out_of_order if is_late else _("An entry was changed.")
        yield _in_batch(ProblemKind.BACK_DATED if is_late else ProblemKind.CHANGED, seal, text)
    elif there.out_of_order is not None or (before is not None and seal.oldest_at < before.newest_at - LATE):
        text = _("An entry is older than those before it: it was back-dated, or the database's clock was set back.")
        yield _in_batch(ProblemKind.BACK_DATED, seal, text)


def _in_batch(kind: ProblemKind, seal: AuditSeal, what: str) -> Problem:
    where = _("Batch %(number)d (entries %(first)d to %(last)d): %(what)s")
    values = {"number": seal.number, "first": seal.first_entry, "last": seal.last_entry, "what": what}
    return Problem(kind, seal.number, where % values)


def _check_purges(purges: list[AuditPurge]) -> Iterator[Problem]:
    before = GENESIS
    seals = AuditSeal.objects.in_bulk([purge.last_seal for purge in purges], field_name="number")
    for purge in purges:
        seal = seals.get(purge.last_seal)
        is_whole = purge.sha256 == hash_of(purge) and purge.previous_sha256 == before
        is_due = purge.older_than <= purge.purged_at - timedelta(days=purge.retention_days) + LATE
        if not (is_whole and is_due and seal and seal.sha256 == purge.seal_sha256):
            text = _("The recorded purge of entries %(first)d to %(last)d was altered, or is none of ours.")
            values = {"first": purge.first_entry, "last": purge.last_entry}
            yield Problem(ProblemKind.PURGE_ALTERED, purge.last_seal, text % values)
        before = purge.sha256


def _check_unsealed(found: Verification) -> Iterator[Problem]:
    """Entries that have no seal yet can only be asked whether their times follow one another."""
    last = found.last_seal
    newest = last.newest_at if last else None
    latest = found.as_of + LATE
    rows = AuditEntry.objects.filter(pk__gt=last.last_entry if last else 0).order_by("pk")
    for pk, at in rows.values_list("pk", "timestamp").iterator(chunk_size=1000):
        found.unsealed += 1
        if at > latest:  # verifying takes its time, and people go on working
            latest = database_now() + LATE
        if (newest is not None and at < newest - LATE) or at > latest:
            text = _("Entry %d, not sealed yet, has a time that its place does not allow: it was back-dated.")
            yield Problem(ProblemKind.BACK_DATED, None, text % pk)
        newest = max(newest or at, at)


def _check_copies(copies: Iterable[dict[str, Any]]) -> Iterator[Problem]:
    """Seals that were sent elsewhere must be here, unchanged."""
    waiting = iter(copies)
    while chunk := list(islice(waiting, 500)):
        ours = AuditSeal.objects.in_bulk([copy["number"] for copy in chunk], field_name="number")
        for copy in chunk:
            number = copy["number"]
            if number not in ours:
                text = _("Seal %d was sent off this host and is not here: entries from its batch on were removed.")
                yield Problem(ProblemKind.SEAL_MISSING, number, text % number)
            elif ours[number].sha256 != copy["sha256"]:
                text = _("Seal %d is not the one that was sent off this host: the history was written anew.")
                yield Problem(ProblemKind.SEAL_ALTERED, number, text % number)

"""Seals: what is sealed cannot change, vanish, grow or move in time without `verify` naming the batch."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from pytest_django.fixtures import Settings

from feeds import audit
from feeds.models import AuditEntry, AuditPurge, AuditSeal, AuditSealDelivery
from feeds.services import retention, seal_delivery, seals
from feeds.services.errors import Refused
from feeds.services.seals import ProblemKind
from tests.factories import CompanyFactory
from tests.history import unguarded

pytestmark = pytest.mark.django_db


def write(count: int) -> list[AuditEntry]:
    """So many entries."""
    return [audit.record("looked_at", text=f"thing {number}") for number in range(count)]


@pytest.fixture
def sealed() -> list[AuditEntry]:
    """Three batches of four entries each, all sound."""
    seals.seal()
    entries = write(12)
    assert seals.seal(size=4).seals == 3
    assert seals.verify().is_sound
    return entries


def sql(statement: str, *values: object) -> int:
    """Run raw SQL as whoever owns the tables; how many rows it touched."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.rowcount


def forge(like: AuditEntry) -> None:
    """Put another entry in the place of `like`, with its id and its time."""
    overriding = "OVERRIDING SYSTEM VALUE" if connection.vendor == "postgresql" else ""
    columns = "id, object_pk, object_repr, action, changes_text, fields, actor_name, source, reason, event, timestamp"
    values = "%s, '', 'forged', 3, '', '', 'nobody', 'admin', '', 'looked_at', %s"
    with unguarded():
        sql(f"INSERT INTO feeds_auditentry ({columns}) {overriding} VALUES ({values})", like.pk, like.timestamp)  # noqa: S608


def close(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody read a file. The tests may run as root, whom no mode keeps out."""
    opened = Path.open

    def refuse(path: Path, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        if path == copy and "r" in mode:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, mode, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)


def first_problem() -> tuple[ProblemKind, int | None]:
    """What `verify` says first."""
    problem = seals.verify().problems[0]
    return problem.kind, problem.seal


def batch_of(entry: AuditEntry) -> int:
    """The number of the seal over an entry."""
    return AuditSeal.objects.filter(last_entry__gte=entry.pk).order_by("number").values_list("number", flat=True)[0]


# --- Sealing ---------------------------------------------------------------------------------------------------------
def test_every_entry_is_under_one_seal_and_each_seal_names_the_one_before(sealed: list[AuditEntry]) -> None:
    chain = list(AuditSeal.objects.order_by("number"))
    assert [seal.number for seal in chain] == list(range(1, len(chain) + 1))
    assert [seal.previous_sha256 for seal in chain] == [seals.GENESIS, *(seal.sha256 for seal in chain[:-1])]
    assert [seal.entries for seal in chain[-3:]] == [4, 4, 4]
    assert (chain[-3].first_entry, chain[-1].last_entry) == (sealed[0].pk, sealed[-1].pk)


def test_sealing_again_makes_nothing_when_nothing_was_written(sealed: list[AuditEntry]) -> None:
    assert seals.seal() == seals.Sealed(0, 0)


def test_what_has_no_seal_yet_is_counted_and_dated() -> None:
    seals.seal()
    assert seals.unsealed() == (None, None)
    (entry,) = write(1)
    assert seals.unsealed() == (entry.pk, entry.timestamp)
    assert seals.verify().unsealed == 1


def test_the_bytes_that_are_hashed_never_change() -> None:
    row = AuditSeal(
        number=2,
        version=1,
        first_entry=5,
        last_entry=9,
        entries=4,
        oldest_at=seals.parse_datetime("2026-11-26T13:15:52.123+00:00"),
        newest_at=seals.parse_datetime("2026-11-26T14:15:52+01:00"),
        entries_sha256="a" * 64,
        previous_sha256="b" * 64,
        sealed_at=seals.parse_datetime("2026-11-26T13:20:00+00:00"),
    )
    assert seals.canonical(seals.header(row, seals.HEADER)) == (
        b'{"entries":4,"entries_sha256":"' + b"a" * 64 + b'","first_entry":5,"last_entry":9,'
        b'"newest_at":"2026-11-26T13:15:52.000000+00:00","number":2,"oldest_at":"2026-11-26T13:15:52.123000+00:00",'
        b'"previous_sha256":"' + b"b" * 64 + b'","sealed_at":"2026-11-26T13:20:00.000000+00:00","version":1}'
    )
    assert seals.canonical([1, None, "é", {"b": 1, "a": [2]}]) == b'[1,null,"\\u00e9",{"a":[2],"b":1}]'


def test_every_column_of_an_entry_is_under_the_seal() -> None:
    assert {field.attname for field in AuditEntry._meta.concrete_fields} == set(seals.COLUMNS)
    assert {field.name for field in AuditSeal._meta.concrete_fields} - {"id", "sha256"} == set(seals.HEADER)
    assert {field.name for field in AuditPurge._meta.concrete_fields} - {"id", "sha256"} == set(seals.PURGE_HEADER)


# --- What verifying finds, once somebody has got past the triggers ---------------------------------------------------
Tamper = Callable[[list[AuditEntry]], Any]
TAMPERED: dict[str, tuple[Tamper, ProblemKind]] = {
    "a name": (
        lambda it: sql("UPDATE feeds_auditentry SET actor_name = 'nobody' WHERE id = %s", it[5].pk),
        ProblemKind.CHANGED,
    ),
    "a reason, through the ORM": (
        lambda it: AuditEntry.objects.filter(pk=it[5].pk).update(reason="another"),
        ProblemKind.CHANGED,
    ),
    "an entry deleted": (lambda it: sql("DELETE FROM feeds_auditentry WHERE id = %s", it[5].pk), ProblemKind.MISSING),
    "a whole batch deleted": (
        lambda it: AuditEntry.objects.filter(pk__gte=it[4].pk, pk__lte=it[7].pk).delete(),
        ProblemKind.MISSING,
    ),
    "back-dated": (
        lambda it: AuditEntry.objects.filter(pk=it[5].pk).update(timestamp=it[5].timestamp - timedelta(days=1)),
        ProblemKind.BACK_DATED,
    ),
}


@pytest.mark.parametrize(("tamper", "kind"), TAMPERED.values(), ids=TAMPERED.keys())
def test_whatever_is_done_to_an_entry_its_batch_is_named(
    sealed: list[AuditEntry], tamper: Tamper, kind: ProblemKind
) -> None:
    with unguarded():
        tamper(sealed)
    assert first_problem() == (kind, batch_of(sealed[5]))


@pytest.mark.parametrize("column", [name for name in seals.COLUMNS if name not in ("id", "timestamp")])
def test_no_column_can_be_changed_unseen(sealed: list[AuditEntry], column: str) -> None:
    value = {"action": 1, "changes": {"a": ["1", "2"]}, "remote_addr": "192.0.2.99"}.get(column)
    field = AuditEntry._meta.get_field(column.removesuffix("_id") if column != "object_id" else column)
    if value is None:
        value = {"JSONField": {"x": 1}, "CharField": "x", "TextField": "x"}.get(field.get_internal_type(), 7)
    with unguarded():
        AuditEntry.objects.filter(pk=sealed[5].pk).update(**{column: value})
    assert first_problem() == (ProblemKind.CHANGED, batch_of(sealed[5]))


def test_an_entry_slipped_into_a_gap_of_a_sealed_batch_is_found(sealed: list[AuditEntry]) -> None:
    with unguarded():
        AuditEntry.objects.filter(pk=sealed[5].pk).delete()
    forge(sealed[5])
    assert first_problem() == (ProblemKind.CHANGED, batch_of(sealed[5]))


def test_more_entries_than_the_seal_counts_were_inserted(sealed: list[AuditEntry]) -> None:
    with unguarded():
        AuditSeal.objects.filter(number=batch_of(sealed[5])).update(entries=3)
    kinds = [problem.kind for problem in seals.verify().problems]
    assert kinds == [ProblemKind.SEAL_ALTERED, ProblemKind.INSERTED]


def test_an_entry_back_dated_before_it_is_sealed_is_found(sealed: list[AuditEntry]) -> None:
    (late,) = write(1)
    with unguarded():
        AuditEntry.objects.filter(pk=late.pk).update(timestamp=late.timestamp - timedelta(hours=1))
    assert first_problem() == (ProblemKind.BACK_DATED, None)
    seals.seal()
    assert first_problem() == (ProblemKind.BACK_DATED, batch_of(late))


def test_what_people_do_while_it_is_verified_for_minutes_was_not_back_dated(sealed: list[AuditEntry]) -> None:
    began = seals.Verification(seals.database_now() - timedelta(minutes=6))
    write(1)
    assert seals.verify(begun=began).is_sound


def test_a_seal_that_was_altered_or_taken_away_is_named(sealed: list[AuditEntry]) -> None:
    number = batch_of(sealed[5])
    with unguarded():
        AuditSeal.objects.filter(number=number).update(sealed_at=seals.database_now() - timedelta(days=3))
    assert first_problem() == (ProblemKind.SEAL_ALTERED, number)
    with unguarded():
        AuditSeal.objects.filter(number=number).delete()
    assert first_problem() == (ProblemKind.SEAL_MISSING, number)


def test_a_seal_made_anew_over_changed_entries_does_not_fit_the_next(sealed: list[AuditEntry]) -> None:
    number = batch_of(sealed[5])
    forged, before = AuditSeal.objects.get(number=number), AuditSeal.objects.get(number=number - 1)
    with unguarded():
        AuditEntry.objects.filter(pk=sealed[5].pk).update(actor_name="nobody")
        forged.entries_sha256 = seals.digest(seals._entries(before.last_entry, forged.last_entry)).sha256
        forged.sha256 = seals.hash_of(forged)
        forged.save()
    assert first_problem() == (ProblemKind.SEAL_ALTERED, number + 1)


def test_a_trigger_that_is_gone_is_missed() -> None:
    table = "" if connection.vendor == "sqlite" else " ON feeds_auditentry"
    sql(f"DROP TRIGGER audit_entry_no_update{table}")
    problem = seals.verify().problems[0]
    assert problem.kind == ProblemKind.UNGUARDED
    assert "audit_entry_no_update" in problem.text


def test_the_command_says_what_it_looked_at_and_that_all_is_well(sealed: list[AuditEntry]) -> None:
    out = StringIO()
    call_command("verify_audit", stdout=out)
    assert "Nothing was altered." in out.getvalue()
    assert AuditSeal.objects.first().sha256 in out.getvalue()


def test_the_command_fails_and_names_the_batch(sealed: list[AuditEntry]) -> None:
    with unguarded():
        AuditEntry.objects.filter(pk=sealed[5].pk).update(actor_name="nobody")
    with pytest.raises(CommandError, match=f"Batch {batch_of(sealed[5])} .*: An entry was changed.") as caught:
        call_command("verify_audit", stdout=StringIO(), stderr=StringIO())
    assert caught.value.returncode == 1


def test_the_seal_command_seals() -> None:
    write(3)
    out = StringIO()
    call_command("seal_audit", "--size", "2", stdout=out)
    assert out.getvalue().startswith(f"{AuditEntry.objects.count()} entries under ")
    with pytest.raises(CommandError, match="from 1"):
        call_command("seal_audit", "--size", "0")


# --- Off the host ----------------------------------------------------------------------------------------------------
def test_a_seal_goes_to_a_file_and_the_file_tells_when_the_end_of_the_chain_is_cut_off(
    settings: Settings, tmp_path: Path, drain_queue: Callable[[], int]
) -> None:
    copy = tmp_path / "seals.jsonl"
    settings.AUDIT_SEAL_TO = [f"file://{copy}"]
    write(2)
    seals.seal()
    drain_queue()
    delivery = AuditSealDelivery.objects.get()
    assert (delivery.state, delivery.attempts, delivery.next_attempt_at) == ("sent", 1, None)
    last = AuditSeal.objects.first()
    assert json.loads(copy.read_text()) == seal_delivery.published(last)
    with unguarded():
        AuditEntry.objects.filter(pk__lte=last.last_entry, pk__gte=last.first_entry).delete()
        AuditSeal.objects.filter(pk=last.pk).delete()
    assert first_problem() == (ProblemKind.SEAL_MISSING, last.number)
    settings.AUDIT_SEAL_TO = []
    assert seals.verify().is_sound
    with pytest.raises(CommandError, match="removed"):
        call_command("verify_audit", "--copy", str(copy), stdout=StringIO(), stderr=StringIO())


def test_what_an_earlier_attempt_left_half_written_swallows_no_seal(settings: Settings, tmp_path: Path) -> None:
    copy = tmp_path / "seals.jsonl"
    settings.AUDIT_SEAL_TO = [f"file://{copy}"]
    copy.write_text('{"entries": 12, "entries_sha256": "ab')  # the disk was full
    write(1)
    seals.seal()
    write(1)
    seals.seal()
    assert seal_delivery.send_due() == 2
    assert [seal["number"] for seal in seal_delivery.read_copies(copy)] == [1, 2]


def test_a_file_that_may_only_be_added_to_is_said_not_to_be_compared(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "seals.jsonl"
    settings.AUDIT_SEAL_TO = [f"file://{copy}"]
    write(1)
    seals.seal()
    seal_delivery.send_due()
    close(copy, monkeypatch)
    out = StringIO()
    call_command("verify_audit", stdout=out)
    assert f"not compared with {copy}, which cannot be read from here" in out.getvalue()
    assert "Nothing was altered." in out.getvalue()
    with pytest.raises(CommandError, match="cannot be read: Permission denied"):
        call_command("verify_audit", "--copy", str(copy), stdout=StringIO())


def test_a_seal_goes_by_mail(settings: Settings, mailoutbox: list[Any]) -> None:
    settings.AUDIT_SEAL_TO = ["mailto:audit@bank.example"]
    write(1)
    seals.seal()
    assert seal_delivery.send_due() == 1
    (mail,) = mailoutbox
    assert mail.to == ["audit@bank.example"]
    assert AuditSeal.objects.first().sha256 in mail.subject


def test_a_destination_that_fails_is_tried_again_and_the_reason_is_kept(settings: Settings, tmp_path: Path) -> None:
    settings.AUDIT_SEAL_TO = [f"file://{tmp_path}/no/such/folder/seals", "mailto:audit@bank.example"]
    write(1)
    seals.seal()
    assert seal_delivery.send_due() == 1
    failed = AuditSealDelivery.objects.get(state="queued")
    assert (failed.error, failed.attempts) == ("FileNotFoundError", 1)
    assert failed.next_attempt_at is not None


class Vault(BaseHTTPRequestHandler):
    """A web address that takes seals, after refusing the first."""

    taken: ClassVar[list[tuple[str, str | None, dict[str, Any]]]] = []

    def do_POST(self) -> None:
        """Keep what came."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.taken.append((self.path, self.headers["Authorization"], body))
        self.send_response(503 if len(self.taken) == 1 else 204)
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        """Nothing on the screen."""


def test_a_seal_goes_to_a_web_address_until_it_is_taken(settings: Settings) -> None:
    Vault.taken.clear()
    server = HTTPServer(("127.0.0.1", 0), Vault)
    Thread(target=server.serve_forever, daemon=True).start()
    settings.AUDIT_SEAL_TO = [f"http://robin:hunter2@127.0.0.1:{server.server_port}/seals?from=here"]
    write(1)
    seals.seal()
    assert seal_delivery.send_due() == 0
    waiting = AuditSealDelivery.objects.get()
    assert (waiting.state, waiting.error) == ("queued", "The destination answered 503.")
    AuditSealDelivery.objects.update(next_attempt_at=seals.database_now())
    assert seal_delivery.send_due() == 1
    server.shutdown()
    server.server_close()
    assert AuditSealDelivery.objects.get().state == "sent"
    seal = seal_delivery.published(AuditSeal.objects.get())
    assert Vault.taken == [("/seals?from=here", "Basic cm9iaW46aHVudGVyMg==", seal)] * 2


def test_what_is_stored_of_a_destination_holds_no_password(settings: Settings) -> None:
    settings.AUDIT_SEAL_TO = ["https://robin:hunter2@vault.example:8443/seals?token=abc"]
    write(1)
    seals.seal()
    assert AuditSealDelivery.objects.get().destination == "https://vault.example:8443/seals"


# --- Retention -------------------------------------------------------------------------------------------------------
@pytest.fixture
def old(settings: Settings) -> list[AuditEntry]:
    """Two batches that are eight years old, and one of today, all sealed."""
    entries = write(6)
    with unguarded():
        for entry in AuditEntry.objects.filter(pk__lte=entries[3].pk):
            AuditEntry.objects.filter(pk=entry.pk).update(timestamp=entry.timestamp - timedelta(days=8 * 365))
    seals.seal(size=2)
    return entries


def test_what_is_purged_while_it_is_verified_is_no_alarm(
    old: list[AuditEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(_purges: list[AuditPurge]) -> list[seals.Problem]:
        retention.purge()
        return []

    entries = AuditEntry.objects.count()
    monkeypatch.setattr(seals, "_check_purges", check)
    found = seals.verify()
    gone = AuditPurge.objects.get().entries
    assert gone
    assert (found.problems, found.purged, found.entries) == ([], gone, entries - gone)


def test_what_is_older_than_the_retention_goes_and_the_chain_still_verifies(old: list[AuditEntry]) -> None:
    with audit.acting(audit.Actor.service("worker")):
        gone = retention.purge()
    assert gone == AuditPurge.objects.get().entries
    assert not AuditEntry.objects.filter(pk__lte=old[3].pk).exists()
    assert AuditEntry.objects.filter(pk__gt=old[3].pk).count() == 3  # with the purge's own
    purged = AuditEntry.objects.get(event="history_purged")
    assert (purged.actor_name, purged.additional_data["entries"]) == ("worker", gone)
    assert purged.reason == "Older than 2557 days (AUDIT_RETENTION_DAYS)."
    found = seals.verify()
    assert (found.problems, found.purged) == ([], gone)
    assert retention.purge() == 0


def test_nothing_young_is_purged() -> None:
    write(3)
    seals.seal()
    assert retention.purge() == 0


def test_a_batch_that_was_altered_is_not_purged(old: list[AuditEntry]) -> None:
    with unguarded():
        AuditEntry.objects.filter(pk=old[1].pk).update(actor_name="nobody")
    with pytest.raises(Refused, match="Nothing is purged: Batch"):
        retention.purge()
    assert AuditEntry.objects.filter(pk=old[1].pk).exists()


def test_a_purge_record_that_was_altered_is_found(old: list[AuditEntry]) -> None:
    retention.purge()
    with unguarded():
        AuditPurge.objects.update(actor_name="nobody")
    assert first_problem()[0] == ProblemKind.PURGE_ALTERED


def test_entries_that_come_back_after_a_purge_are_found(old: list[AuditEntry]) -> None:
    kept = AuditEntry.objects.get(pk=old[1].pk)
    retention.purge()
    forge(kept)
    assert first_problem() == (ProblemKind.INSERTED, batch_of(kept))


# --- Two at once -----------------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has one writer at a time")
def test_an_entry_with_a_lower_id_that_is_committed_later_is_waited_for() -> None:
    def run(act: Callable[[], Any]) -> Thread:
        def go() -> None:
            try:
                act()
            finally:
                connection.close()

        thread = Thread(target=go)
        thread.start()
        return thread

    outcome: list[seals.Sealed] = []
    with transaction.atomic():
        early = audit.record("looked_at", text="early")
        other = run(lambda: audit.record("looked_at", text="late"))
        other.join()
        late = AuditEntry.objects.get(object_repr="late")
        assert late.pk > early.pk
        sealer = run(lambda: outcome.append(seals.seal()))
        sealer.join()
        assert outcome == [seals.Sealed(0, 0, waiting=True)]
    assert seals.seal().entries >= 2
    assert AuditSeal.objects.first().last_entry >= late.pk
    assert seals.verify().is_sound


@pytest.mark.django_db(transaction=True)
def test_two_sealers_make_one_chain() -> None:
    write(40)

    def work() -> None:
        try:
            seals.seal(size=3)
        except Exception as error:  # noqa: BLE001
            broken.append(error)
        finally:
            connection.close()

    broken: list[Exception] = []
    threads = [Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []
    seals.seal()
    found = seals.verify()
    assert (found.problems, found.unsealed) == ([], 0)


def test_a_company_saved_after_a_seal_is_under_the_next(sealed: list[AuditEntry]) -> None:
    CompanyFactory()
    with pytest.raises(IntegrityError), transaction.atomic():
        AuditSeal.objects.all().delete()
    assert seals.seal().entries >= 1

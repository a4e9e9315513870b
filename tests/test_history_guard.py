"""The history is append-only: every way to change it is refused by the database, whoever asks and however.

`REFUSED` is the table of docs/audit.md; what gets past the triggers is found by `verify_audit`: services/test_seals.py.
"""
# ruff: noqa: S608

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from feeds import audit
from feeds.models import AuditEntry, AuditPurge, AuditSeal
from feeds.services import seals

pytestmark = pytest.mark.django_db
DOCS = Path(__file__).parent.parent / "docs" / "audit.md"
COLUMNS = "object_pk, object_repr, action, changes_text, fields, actor_name, source, reason, event"
VALUES = "'', 'forged', 3, '', '', 'nobody', 'admin', '', 'looked_at'"
BOTH = ("sqlite", "postgresql")
POSTGRESQL, SQLITE = ("postgresql",), ("sqlite",)


def sql(*statements: str) -> Callable[[], None]:
    """Run them one after the other; `{id}` is a sealed entry's."""

    def run() -> None:
        with connection.cursor() as cursor:
            for statement in statements:
                overriding = "OVERRIDING SYSTEM VALUE" if connection.vendor == "postgresql" else ""
                temp = "pg_temp" if connection.vendor == "postgresql" else "temp"
                cursor.execute(statement.format(id=sealed_entry().pk, overriding=overriding, temp=temp))

    return run


def sealed_entry() -> AuditEntry:
    """The first entry."""
    entry: AuditEntry = AuditEntry.objects.order_by("pk").first()
    return entry


def again(entry: AuditEntry, **values: object) -> AuditEntry:
    """The same entry, changed in memory."""
    for name, value in values.items():
        setattr(entry, name, value)
    return entry


Attempt = tuple[str, tuple[str, ...], Callable[[], object]]
EARLIER = "'2020-01-01 00:00:00'"
LATER = "'2099-01-01 00:00:00'"
SEAL = (
    "number, version, first_entry, last_entry, entries, oldest_at, newest_at, entries_sha256, previous_sha256, sha256"
)

REFUSED: list[Attempt] = [
    ("UPDATE of an entry", BOTH, sql("UPDATE feeds_auditentry SET reason = 'x' WHERE id = {id}")),
    ("UPDATE of its time", BOTH, sql(f"UPDATE feeds_auditentry SET timestamp = {EARLIER} WHERE id = {{id}}")),
    ("DELETE of an entry", BOTH, sql("DELETE FROM feeds_auditentry WHERE id = {id}")),
    ("DELETE of all entries", BOTH, sql("DELETE FROM feeds_auditentry")),
    ("TRUNCATE", POSTGRESQL, sql("TRUNCATE feeds_auditentry")),
    ("TRUNCATE ... CASCADE", POSTGRESQL, sql("TRUNCATE feeds_auditseal, feeds_auditpurge, feeds_auditentry CASCADE")),
    (
        "UPDATE in a session that calls itself a replica",
        POSTGRESQL,
        sql("SET LOCAL session_replication_role = replica", "UPDATE feeds_auditentry SET reason = 'x' WHERE id = {id}"),
    ),
    (
        "INSERT OR REPLACE over an entry",
        SQLITE,
        sql(f"INSERT OR REPLACE INTO feeds_auditentry (id, {COLUMNS}) VALUES ({{id}}, {VALUES})"),
    ),
    (
        "INSERT ... ON CONFLICT DO UPDATE",
        BOTH,
        sql(
            f"INSERT INTO feeds_auditentry (id, {COLUMNS}) {{overriding}} VALUES ({{id}}, {VALUES})"
            " ON CONFLICT (id) DO UPDATE SET reason = 'x'"
        ),
    ),
    (
        "INSERT with an earlier time",
        BOTH,
        sql(f"INSERT INTO feeds_auditentry ({COLUMNS}, timestamp) VALUES ({VALUES}, {EARLIER})"),
    ),
    (
        "INSERT with a later time",
        BOTH,
        sql(f"INSERT INTO feeds_auditentry ({COLUMNS}, timestamp) VALUES ({VALUES}, {LATER})"),
    ),
    (
        "INSERT with something that is no time",
        SQLITE,
        sql(f"INSERT INTO feeds_auditentry ({COLUMNS}, timestamp) VALUES ({VALUES}, 'now')"),
    ),
    (
        "INSERT below the last seal",
        BOTH,
        sql(f"INSERT INTO feeds_auditentry (id, {COLUMNS}) {{overriding}} VALUES (-5, {VALUES})"),
    ),
    (
        "INSERT with an id of one's own",
        POSTGRESQL,
        sql(f"INSERT INTO feeds_auditentry (id, {COLUMNS}) VALUES (999999999, {VALUES})"),
    ),
    (
        "DELETE behind a temporary table that claims a purge",
        BOTH,
        sql(
            "CREATE TEMPORARY TABLE feeds_auditpurge (id bigint, first_entry bigint, last_entry bigint,"
            " older_than text)",
            f"INSERT INTO {{temp}}.feeds_auditpurge VALUES (1, 0, 999999999, {LATER})",
            "DELETE FROM feeds_auditentry WHERE id = {id}",
        ),
    ),
    ("UPDATE of a seal", BOTH, sql("UPDATE feeds_auditseal SET sha256 = 'x'")),
    ("DELETE of a seal", BOTH, sql("DELETE FROM feeds_auditseal")),
    (
        "INSERT of a seal that does not follow",
        BOTH,
        sql(
            f"INSERT INTO feeds_auditseal ({SEAL}, sealed_at) SELECT 7, 1, {{id}}, {{id}}, 1, timestamp, timestamp,"
            " 'a', 'b', 'c', timestamp FROM feeds_auditentry WHERE id = {id}"
        ),
    ),
    (
        "INSERT of a purge of young entries",
        BOTH,
        sql(
            "INSERT INTO feeds_auditpurge (first_entry, last_entry, entries, first_seal, last_seal, seal_sha256,"
            " older_than, retention_days, actor_name, source, reason, purged_at, previous_sha256, sha256)"
            f" SELECT 1, last_entry, entries, 1, number, sha256, {LATER}, 0, 'x', 'x', 'x', sealed_at,"
            f" '{seals.GENESIS}', 'x' FROM feeds_auditseal"
        ),
    ),
    ("save() of an entry", BOTH, lambda: again(sealed_entry(), reason="x").save()),
    ("delete() of an entry", BOTH, lambda: sealed_entry().delete()),
    ("QuerySet.update()", BOTH, lambda: AuditEntry.objects.update(reason="x")),
    ("QuerySet.delete()", BOTH, lambda: AuditEntry.objects.all().delete()),
    ("QuerySet.bulk_update()", BOTH, lambda: AuditEntry.objects.bulk_update([sealed_entry()], ["reason"])),
    (
        "create() with an earlier time",
        BOTH,
        lambda: AuditEntry.objects.create(action=3, timestamp=timezone.now() - timedelta(hours=1)),
    ),
    (
        "bulk_create() with an earlier time",
        BOTH,
        lambda: AuditEntry.objects.bulk_create([AuditEntry(action=3, timestamp=timezone.now() - timedelta(minutes=1))]),
    ),
    ("delete() of a seal", BOTH, lambda: AuditSeal.objects.all().delete()),
    ("save() of a seal", BOTH, lambda: AuditSeal.objects.get().save()),
]


@pytest.fixture(autouse=True)
def _sealed() -> None:
    audit.record("looked_at", text="one")
    audit.record("looked_at", text="two")
    seals.seal()


@pytest.mark.parametrize(("name", "databases", "attempt"), REFUSED, ids=[attempt[0] for attempt in REFUSED])
def test_it_is_refused_and_nothing_changes(
    name: str, databases: tuple[str, ...], attempt: Callable[[], object]
) -> None:
    if connection.vendor not in databases:
        return
    before = list(AuditEntry.objects.order_by("pk").values()), list(AuditSeal.objects.values())
    with pytest.raises(DatabaseError) as refusal, transaction.atomic():
        attempt()
    assert isinstance(refusal.value, IntegrityError) or "GENERATED ALWAYS" in str(refusal.value), refusal.value
    assert (list(AuditEntry.objects.order_by("pk").values()), list(AuditSeal.objects.values())) == before
    assert not AuditPurge.objects.exists()
    assert seals.verify().is_sound


def test_the_documentation_has_the_same_table() -> None:
    rows = re.findall(r"^\| ([^|]+?) \| (refused|-|found) \| (refused|-|found) \|", DOCS.read_text(), re.MULTILINE)
    told = {(name, *words) for name, *words in rows if "found" not in words}
    done = {
        (name, *("refused" if database in databases else "-" for database in BOTH)) for name, databases, _it in REFUSED
    }
    assert told == done


def test_every_trigger_is_known_by_what_it_does() -> None:
    migration = import_module("feeds.migrations.0013_audit_guard")
    assert seals.guards() == seals.GUARDS[connection.vendor]
    assert set(seals.GUARDS["sqlite"]) == set(migration.SQLITE)
    assert set(seals.GUARDS["postgresql"]) == set(migration.POSTGRESQL_TRIGGERS)


DECOY = "CREATE TABLE decoy (id integer)"
HOLLOWED: list[tuple[str, str, tuple[str, ...]]] = [
    ("dropped", "sqlite", ("DROP TRIGGER audit_entry_no_update",)),
    (
        "dropped, with its name elsewhere", "sqlite",
        (
            "DROP TRIGGER audit_entry_no_update", DECOY,
            "CREATE TRIGGER audit_entry_no_update BEFORE UPDATE ON decoy BEGIN SELECT 1; END",
        ),
    ),
    (
        "made anew, refusing nothing", "sqlite",
        (
            "DROP TRIGGER audit_entry_no_update",
            "CREATE TRIGGER audit_entry_no_update BEFORE UPDATE ON feeds_auditentry BEGIN SELECT 1; END",
        ),
    ),
    (
        "another, which lets entries vanish", "sqlite",
        ("CREATE TRIGGER hush BEFORE INSERT ON feeds_auditentry BEGIN SELECT RAISE(IGNORE); END",),
    ),
    ("dropped", "postgresql", ("DROP TRIGGER audit_entry_no_update ON feeds_auditentry",)),
    ("switched off", "postgresql", ("ALTER TABLE feeds_auditentry DISABLE TRIGGER audit_entry_no_update",)),
    ("switched off for replicas", "postgresql", ("ALTER TABLE feeds_auditseal ENABLE TRIGGER audit_seal_no_change",)),
    (
        "dropped, with its name elsewhere", "postgresql",
        (
            "DROP TRIGGER audit_entry_no_update ON feeds_auditentry", DECOY,
            "CREATE TRIGGER audit_entry_no_update BEFORE UPDATE ON decoy EXECUTE FUNCTION feeds_audit_refuse()",
            "ALTER TABLE decoy ENABLE ALWAYS TRIGGER audit_entry_no_update",
        ),
    ),
    (
        "its function refusing nothing", "postgresql",
        (
            "CREATE OR REPLACE FUNCTION feeds_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RETURN NULL; END $$",
        ),
    ),
    (
        "another, which lets entries vanish", "postgresql",
        ("CREATE RULE hush AS ON INSERT TO feeds_auditentry DO INSTEAD NOTHING",),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("how", "database", "statements"), HOLLOWED, ids=[f"{it[0]}, {it[1]}" for it in HOLLOWED])
def test_a_guard_that_guards_no_more_is_found(how: str, database: str, statements: tuple[str, ...]) -> None:
    if connection.vendor != database:
        return
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    problems = seals.verify().problems
    assert {problem.kind for problem in problems} == {seals.ProblemKind.UNGUARDED}
    assert any(re.search(r"audit_entry_no_update|audit_seal_no_change|hush", problem.text) for problem in problems)


def test_the_time_is_the_databases_own() -> None:
    entry = audit.record("looked_at", text="now")
    assert abs(entry.timestamp - seals.database_now()) < timedelta(seconds=30)
    assert AuditEntry._meta.get_field("timestamp").has_db_default()


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="roles are PostgreSQL's")
class TestTheSecondRole:
    @pytest.fixture(autouse=True)
    def _as_the_documentation_says(self) -> Iterator[None]:
        (statements,) = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
        with connection.cursor() as cursor:
            cursor.execute(statements)
            cursor.execute("SET LOCAL ROLE backoffice_app")
            yield
            cursor.execute("RESET ROLE")

    def test_it_adds_entries_seals_them_and_verifies(self) -> None:
        audit.record("looked_at", text="three")
        assert seals.seal().entries == 1
        assert seals.verify().is_sound

    @pytest.mark.parametrize(
        "statement",
        [
            *(
                statement.format(f"feeds_{table}")
                for table in ("auditentry", "auditseal", "auditpurge")
                for statement in ("DELETE FROM {}", "TRUNCATE {}")
            ),
            "UPDATE feeds_auditentry SET reason = 'x'",
            "UPDATE feeds_auditseal SET sha256 = 'x'",
            "UPDATE feeds_auditpurge SET reason = 'x'",
            "ALTER TABLE feeds_auditentry DISABLE TRIGGER ALL",
            "DROP TRIGGER audit_entry_no_update ON feeds_auditentry",
            "DROP TABLE feeds_auditentry",
            "SET LOCAL session_replication_role = replica",
        ],
    )
    def test_it_can_do_nothing_else(self, statement: str) -> None:
        with (
            pytest.raises(DatabaseError, match=r"permission denied|must be owner"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)

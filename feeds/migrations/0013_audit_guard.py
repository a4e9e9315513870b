"""The database refuses to change the history: triggers on both databases.

- Entries, seals and purges are never updated; on PostgreSQL never truncated.
- Seals and purges are never deleted. An entry is, if a recorded purge covers it and it is older than a year.
- An entry's time is the database's, and its id is higher than any that is sealed: no back-dating.
- A seal follows the one before it. A purge names a seal that is there.

Whoever owns the tables can drop the triggers; then the seals tell (`verify_audit`). See docs/audit.md for a role that
cannot. A migration that makes SQLite rebuild one of these tables has to call `guard` again: the triggers go with the
old table, and a test looks for them.
"""

from django.db import migrations

ZEROS = "0" * 64
FLOOR_DAYS = 365
"""No entry younger than this can be deleted, whatever the retention is set to."""

SQLITE = {
    "audit_entry_no_update": """
        BEFORE UPDATE ON feeds_auditentry BEGIN
            SELECT RAISE(ABORT, 'the change history is append-only: no entry can be changed');
        END""",
    "audit_entry_no_delete": f"""
        BEFORE DELETE ON feeds_auditentry
        WHEN OLD.timestamp > strftime('%Y-%m-%d %H:%M:%f', 'now', '-{FLOOR_DAYS} days') OR NOT EXISTS (
            SELECT 1 FROM feeds_auditpurge
            WHERE last_entry >= OLD.id AND first_entry <= OLD.id AND OLD.timestamp < older_than
        ) BEGIN
            SELECT RAISE(ABORT, 'the change history is append-only: no recorded purge covers this entry');
        END""",
    # REPLACE deletes without asking the trigger above.
    "audit_entry_no_replace": """
        BEFORE INSERT ON feeds_auditentry WHEN EXISTS (SELECT 1 FROM feeds_auditentry WHERE id = NEW.id) BEGIN
            SELECT RAISE(ABORT, 'the change history is append-only: there is an entry with this id');
        END""",
    "audit_entry_now": """
        AFTER INSERT ON feeds_auditentry
        WHEN NEW.timestamp NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:*'
            OR coalesce(abs(julianday(NEW.timestamp) - julianday('now')) * 86400, 9) > 1 BEGIN
            SELECT RAISE(ABORT, 'the change history keeps the time of the database: no entry can be back-dated');
        END""",
    "audit_entry_after_seals": """
        AFTER INSERT ON feeds_auditentry WHEN NEW.id <= (SELECT max(last_entry) FROM feeds_auditseal) BEGIN
            SELECT RAISE(ABORT, 'the change history is sealed up to a higher id than this');
        END""",
    "audit_seal_no_update": """
        BEFORE UPDATE ON feeds_auditseal BEGIN
            SELECT RAISE(ABORT, 'no seal can be changed');
        END""",
    "audit_seal_no_delete": """
        BEFORE DELETE ON feeds_auditseal BEGIN
            SELECT RAISE(ABORT, 'no seal can be deleted');
        END""",
    "audit_seal_follows": f"""
        BEFORE INSERT ON feeds_auditseal
        WHEN NEW.number <> coalesce((SELECT max(number) FROM feeds_auditseal), 0) + 1
            OR NEW.previous_sha256 <> coalesce(
                (SELECT sha256 FROM feeds_auditseal ORDER BY number DESC LIMIT 1), '{ZEROS}')
            OR NEW.first_entry <= coalesce((SELECT max(last_entry) FROM feeds_auditseal), 0)
            OR NEW.last_entry < NEW.first_entry
            OR NOT EXISTS (SELECT 1 FROM feeds_auditentry WHERE id = NEW.last_entry)
            OR EXISTS (SELECT 1 FROM feeds_auditseal WHERE id = NEW.id OR sha256 = NEW.sha256)
            OR coalesce(abs(julianday(NEW.sealed_at) - julianday('now')) * 86400, 99) > 60 BEGIN
            SELECT RAISE(ABORT, 'a seal follows the one before it, now');
        END""",
    "audit_purge_no_update": """
        BEFORE UPDATE ON feeds_auditpurge BEGIN
            SELECT RAISE(ABORT, 'no recorded purge can be changed');
        END""",
    "audit_purge_no_delete": """
        BEFORE DELETE ON feeds_auditpurge BEGIN
            SELECT RAISE(ABORT, 'no recorded purge can be deleted');
        END""",
    "audit_purge_is_covered": f"""
        BEFORE INSERT ON feeds_auditpurge
        WHEN NEW.older_than > strftime('%Y-%m-%d %H:%M:%f', 'now', '-{FLOOR_DAYS} days')
            OR coalesce(abs(julianday(NEW.purged_at) - julianday('now')) * 86400, 99) > 60
            OR NEW.first_entry <= coalesce((SELECT max(last_entry) FROM feeds_auditpurge), 0)
            OR NEW.previous_sha256 <> coalesce(
                (SELECT sha256 FROM feeds_auditpurge ORDER BY last_entry DESC LIMIT 1), '{ZEROS}')
            OR EXISTS (SELECT 1 FROM feeds_auditpurge WHERE id = NEW.id OR sha256 = NEW.sha256)
            OR NOT EXISTS (
                SELECT 1 FROM feeds_auditseal
                WHERE number = NEW.last_seal AND last_entry = NEW.last_entry AND sha256 = NEW.seal_sha256
                    AND newest_at < NEW.older_than
            ) BEGIN
            SELECT RAISE(ABORT, 'a purge names the seal over entries that are older than the retention');
        END""",
}

# Tables are named with their schema: a temporary table of the same name must not answer in their place.
POSTGRESQL = """
CREATE FUNCTION {schema}.feeds_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the change history is append-only: % of % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE FUNCTION {schema}.feeds_audit_entry_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF abs(extract(epoch FROM NEW.timestamp - statement_timestamp())) > 1 THEN
        RAISE EXCEPTION 'the change history keeps the time of the database: no entry can be back-dated'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.id <= (SELECT max(last_entry) FROM {schema}.feeds_auditseal) THEN
        RAISE EXCEPTION 'the change history is sealed up to a higher id than this'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION {schema}.feeds_audit_entry_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.timestamp > now() - interval '{floor} days' OR NOT EXISTS (
        SELECT 1 FROM {schema}.feeds_auditpurge
        WHERE last_entry >= OLD.id AND first_entry <= OLD.id AND OLD.timestamp < older_than
    ) THEN
        RAISE EXCEPTION 'the change history is append-only: no recorded purge covers this entry'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN OLD;
END $$;

CREATE FUNCTION {schema}.feeds_audit_seal_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.number <> coalesce((SELECT max(number) FROM {schema}.feeds_auditseal), 0) + 1
        OR NEW.previous_sha256 <> coalesce(
            (SELECT sha256 FROM {schema}.feeds_auditseal ORDER BY number DESC LIMIT 1), '{zeros}')
        OR NEW.first_entry <= coalesce((SELECT max(last_entry) FROM {schema}.feeds_auditseal), 0)
        OR NEW.last_entry < NEW.first_entry
        OR NOT EXISTS (SELECT 1 FROM {schema}.feeds_auditentry WHERE id = NEW.last_entry)
        OR abs(extract(epoch FROM NEW.sealed_at - clock_timestamp())) > 60
    THEN
        RAISE EXCEPTION 'a seal follows the one before it, now' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION {schema}.feeds_audit_purge_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.older_than > now() - interval '{floor} days'
        OR abs(extract(epoch FROM NEW.purged_at - clock_timestamp())) > 60
        OR NEW.first_entry <= coalesce((SELECT max(last_entry) FROM {schema}.feeds_auditpurge), 0)
        OR NEW.previous_sha256 <> coalesce(
            (SELECT sha256 FROM {schema}.feeds_auditpurge ORDER BY last_entry DESC LIMIT 1), '{zeros}')
        OR NOT EXISTS (
            SELECT 1 FROM {schema}.feeds_auditseal
            WHERE number = NEW.last_seal AND last_entry = NEW.last_entry AND sha256 = NEW.seal_sha256
                AND newest_at < NEW.older_than
        )
    THEN
        RAISE EXCEPTION 'a purge names the seal over entries that are older than the retention'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

-- The two things that INSERT and SELECT alone do not allow, for an application whose role has no more than those.
CREATE FUNCTION {schema}.feeds_audit_horizon() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE horizon bigint;
BEGIN
    -- Waits until nobody is in the middle of adding entries: none with a lower id can be committed later.
    LOCK TABLE {schema}.feeds_auditentry IN SHARE MODE;
    SELECT max(id) INTO horizon FROM {schema}.feeds_auditentry;
    RETURN horizon;
END $$;
CREATE FUNCTION {schema}.feeds_audit_purge(purge bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE gone bigint;
BEGIN
    DELETE FROM {schema}.feeds_auditentry entry USING {schema}.feeds_auditpurge recorded
    WHERE recorded.id = purge AND entry.id BETWEEN recorded.first_entry AND recorded.last_entry;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
REVOKE EXECUTE ON FUNCTION {schema}.feeds_audit_horizon(), {schema}.feeds_audit_purge(bigint) FROM PUBLIC;

ALTER TABLE {schema}.feeds_auditentry ALTER COLUMN id SET GENERATED ALWAYS;
"""
POSTGRESQL_TRIGGERS = {
    "audit_entry_no_update": "BEFORE UPDATE ON {schema}.feeds_auditentry FOR EACH STATEMENT {refuse}",
    "audit_entry_no_truncate": "BEFORE TRUNCATE ON {schema}.feeds_auditentry FOR EACH STATEMENT {refuse}",
    "audit_entry_no_delete": (
        "BEFORE DELETE ON {schema}.feeds_auditentry FOR EACH ROW EXECUTE FUNCTION {schema}.feeds_audit_entry_delete()"
    ),
    "audit_entry_now": (
        "BEFORE INSERT ON {schema}.feeds_auditentry FOR EACH ROW EXECUTE FUNCTION {schema}.feeds_audit_entry_insert()"
    ),
    "audit_seal_no_change": "BEFORE UPDATE OR DELETE OR TRUNCATE ON {schema}.feeds_auditseal FOR EACH STATEMENT {refuse}",
    "audit_seal_follows": (
        "BEFORE INSERT ON {schema}.feeds_auditseal FOR EACH ROW EXECUTE FUNCTION {schema}.feeds_audit_seal_insert()"
    ),
    "audit_purge_no_change": (
        "BEFORE UPDATE OR DELETE OR TRUNCATE ON {schema}.feeds_auditpurge FOR EACH STATEMENT {refuse}"
    ),
    "audit_purge_is_covered": (
        "BEFORE INSERT ON {schema}.feeds_auditpurge FOR EACH ROW EXECUTE FUNCTION {schema}.feeds_audit_purge_insert()"
    ),
}
POSTGRESQL_FUNCTIONS = (
    "feeds_audit_refuse()",
    "feeds_audit_entry_insert()",
    "feeds_audit_entry_delete()",
    "feeds_audit_seal_insert()",
    "feeds_audit_purge_insert()",
    "feeds_audit_horizon()",
    "feeds_audit_purge(bigint)",
)


def guard(apps, schema_editor):
    """Make the triggers."""
    run = schema_editor.execute
    if schema_editor.connection.vendor == "sqlite":
        for name, body in SQLITE.items():
            run(f"CREATE TRIGGER {name} {body}", params=None)
        return
    schema = _schema(schema_editor)
    run(POSTGRESQL.format(schema=schema, zeros=ZEROS, floor=FLOOR_DAYS), params=None)
    for name, body in POSTGRESQL_TRIGGERS.items():
        refuse = f"EXECUTE FUNCTION {schema}.feeds_audit_refuse()"
        table = body.split(" ON ")[1].split()[0].format(schema=schema)
        run(f"CREATE TRIGGER {name} {body.format(schema=schema, refuse=refuse)}", params=None)
        # Also in a session that calls itself a replica, which skips ordinary triggers.
        run(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}", params=None)


def unguard(apps, schema_editor):
    """Drop the triggers."""
    run = schema_editor.execute
    if schema_editor.connection.vendor == "sqlite":
        for name in SQLITE:
            run(f"DROP TRIGGER IF EXISTS {name}", params=None)
        return
    schema = _schema(schema_editor)
    for name, body in POSTGRESQL_TRIGGERS.items():
        table = body.split(" ON ")[1].split()[0].format(schema=schema)
        run(f"DROP TRIGGER IF EXISTS {name} ON {table}", params=None)
    for function in POSTGRESQL_FUNCTIONS:
        run(f"DROP FUNCTION IF EXISTS {schema}.{function}", params=None)
    run(f"ALTER TABLE {schema}.feeds_auditentry ALTER COLUMN id SET GENERATED BY DEFAULT", params=None)


def _schema(schema_editor):
    """The schema of our tables, quoted."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT quote_ident(current_schema())")
        return cursor.fetchone()[0]


class Migration(migrations.Migration):

    dependencies = [
        ('feeds', '0012_audit_seals'),
    ]

    operations = [migrations.RunPython(guard, unguard)]

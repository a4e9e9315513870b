"""A version's text changes only while it is a draft, and only one that waits for approval becomes a draft again.

SQLite rebuilds a table when a later migration alters it, and its triggers go with the old one: such a migration has to
make them again. The tests try to change a text past the models, so that it is noticed.
"""

from django.db import migrations

TEXTS = ("title_en", "body_en", "title_fr", "body_fr")
OLD = ", ".join(f"OLD.{name}" for name in TEXTS)
NEW = ", ".join(f"NEW.{name}" for name in TEXTS)

CREATE = {
    "sqlite": f"""
        CREATE TRIGGER feeds_callout_text_frozen BEFORE UPDATE ON feeds_calloutversion
        WHEN (OLD.state <> 'draft' AND ({OLD}) IS NOT ({NEW}))
          OR (OLD.state NOT IN ('draft', 'submitted') AND NEW.state IN ('draft', 'submitted'))
        BEGIN SELECT RAISE(ABORT, 'callout_text_frozen'); END
    """,
    "postgresql": f"""
        CREATE FUNCTION feeds_callout_text_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          RAISE EXCEPTION 'callout_text_frozen' USING ERRCODE = 'check_violation';
        END $$;
        CREATE TRIGGER feeds_callout_text_frozen BEFORE UPDATE ON feeds_calloutversion FOR EACH ROW
        WHEN ((OLD.state <> 'draft' AND ({OLD}) IS DISTINCT FROM ({NEW}))
          OR (OLD.state NOT IN ('draft', 'submitted') AND NEW.state IN ('draft', 'submitted')))
        EXECUTE FUNCTION feeds_callout_text_frozen();
    """,
}
DROP = {
    "sqlite": "DROP TRIGGER feeds_callout_text_frozen",
    "postgresql": "DROP TRIGGER feeds_callout_text_frozen ON feeds_calloutversion; DROP FUNCTION feeds_callout_text_frozen()",
}


def create(apps, schema_editor):
    schema_editor.execute(CREATE[schema_editor.connection.vendor], params=None)


def drop(apps, schema_editor):
    schema_editor.execute(DROP[schema_editor.connection.vendor], params=None)


class Migration(migrations.Migration):

    dependencies = [
        ('feeds', '0009_callouts'),
    ]

    operations = [migrations.RunPython(create, drop)]

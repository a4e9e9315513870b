"""The table of Django's cache: rate limits of signing in, and codes that were used."""

from django.core.management import call_command
from django.db import migrations

TABLE = "feeds_cache"


def make(apps, schema_editor):
    call_command("createcachetable", TABLE, database=schema_editor.connection.alias, verbosity=0)


def drop(apps, schema_editor):
    schema_editor.execute(f"DROP TABLE IF EXISTS {schema_editor.quote_name(TABLE)}")


class Migration(migrations.Migration):
    dependencies = [
        ('feeds', '0019_preference'),
    ]

    operations = [migrations.RunPython(make, drop)]

"""When staff were told that a customer asks for a new link: once a day, no longer once for ever."""

from __future__ import annotations

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import F


def fill(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Those told before were told some minutes after they were asked."""
    keys = apps.get_model("feeds", "InvitationKey").objects.filter(staff_told=True, told_at__isnull=True)
    keys.update(told_at=F("asked_at"))


class Migration(migrations.Migration):
    dependencies = [
        ("feeds", "0032_invitation_withdrawn"),
    ]

    operations = [
        migrations.AddField(
            model_name="invitationkey",
            name="told_at",
            field=models.DateTimeField(
                editable=False,
                help_text="Of the last request that was told.",
                null=True,
                verbose_name="staff were told at",
            ),
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]

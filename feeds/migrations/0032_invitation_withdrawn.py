"""When a connected customer's invitation was withdrawn: its keys are kept, so that their holder can still ask."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("feeds", "0031_api_keys"),
    ]

    operations = [
        migrations.AddField(
            model_name="invitation",
            name="withdrawn_at",
            field=models.DateTimeField(
                blank=True,
                help_text="Since when the links of a connected customer's invitation open nothing any more.",
                null=True,
                verbose_name="links withdrawn",
            ),
        ),
    ]

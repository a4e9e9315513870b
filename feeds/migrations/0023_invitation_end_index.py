"""An index for the list of invitations by state."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ('feeds', '0022_invitations'),
    ]

    operations = [
        migrations.AddIndex(
            model_name="invitation",
            index=models.Index(fields=["end", "-id"], name="invitation_end"),
        ),
    ]

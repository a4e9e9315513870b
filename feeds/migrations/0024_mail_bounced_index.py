"""An index for the question whether mails to an address came back."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [
        ('feeds', '0023_invitation_end_index'),
    ]

    operations = [
        migrations.AddIndex(
            model_name="mail",
            index=models.Index(fields=["to"], name="mail_bounced", condition=Q(bounced_at__isnull=False)),
        ),
    ]

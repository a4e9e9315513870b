"""Indexes for how far customers get (by when they were invited) and for stuck invitations, longest waiting first."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import F, Q
from django.db.models.functions import Coalesce


class Migration(migrations.Migration):
    dependencies = [
        ("feeds", "0029_invitation_language"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="invitation",
            index=models.Index(fields=["created_at"], name="invitation_made"),
        ),
        migrations.AddIndex(
            model_name="invitation",
            index=models.Index(
                Coalesce("linked_at", "started_at", "opened_at", "sent_at", "created_at"),
                F("id"),
                condition=Q(ended_at__isnull=True),
                name="invitation_step_since",
            ),
        ),
        migrations.AddIndex(
            model_name="invitation",
            index=models.Index(
                F("made_by"),
                Coalesce("linked_at", "started_at", "opened_at", "sent_at", "created_at"),
                F("id"),
                condition=Q(ended_at__isnull=True),
                name="invitation_step_by",
            ),
        ),
    ]

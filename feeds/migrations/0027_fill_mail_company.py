"""Mails that exist already learn which customer they were written to or about."""

from django.db import migrations
from django.db.models import OuterRef, Subquery
from django.db.models.functions import Coalesce


def fill(apps, schema_editor):
    """One statement; mails about no customer in particular stay without one."""
    mails = apps.get_model("feeds", "Mail").objects.using(schema_editor.connection.alias)
    mails.filter(company=None).update(
        company=Coalesce(
            Subquery(_company_of(apps, "Invitation", "invitation")), Subquery(_company_of(apps, "Case", "case"))
        )
    )


def _company_of(apps, model, field):
    return apps.get_model("feeds", model).objects.filter(pk=OuterRef(field)).values("company")


class Migration(migrations.Migration):
    dependencies = [
        ("feeds", "0026_mail_company"),
    ]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ('axes', '0010_accessattemptexpiration'),
        ('feeds', '0020_cache_table'),
    ]

    operations = [
        migrations.CreateModel(
            name="SignInLock",
            fields=[],
            options={
                "verbose_name": "failed sign-in",
                "verbose_name_plural": "failed sign-ins",
                "ordering": ["-attempt_time", "-pk"],
                "permissions": [
                    ("unlock_signinlock", "Can unlock a sign-in"),
                    ("reset_second_factors", "Can reset a person's second factors"),
                ],
                "proxy": True,
                "default_permissions": ("view",),
                "indexes": [],
                "constraints": [],
            },
            bases=("axes.accessattempt",),
        ),
    ]

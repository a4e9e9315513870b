"""Emergency access to another manager's customer."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('feeds', '0017_who_sees_which_customer'),
    ]

    operations = [
        migrations.CreateModel(
            name='AccessGrant',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('user_name', models.CharField(max_length=200, verbose_name='who')),
                ('reason', models.TextField(verbose_name='reason')),
                ('created_at', models.DateTimeField(auto_now_add=True, verbose_name='since')),
                ('expires_at', models.DateTimeField(verbose_name='until')),
                ('ended_at', models.DateTimeField(blank=True, null=True, verbose_name='ended early')),
                ('ended_by_name', models.CharField(blank=True, max_length=200, verbose_name='ended by')),
                ('company', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='access_grants', to='feeds.company', verbose_name='company')),
                ('user', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='access_grants', to=settings.AUTH_USER_MODEL, verbose_name='who')),
            ],
            options={
                'verbose_name': 'emergency access',
                'verbose_name_plural': 'emergency accesses',
                'ordering': ['-id'],
                'permissions': [('break_glass', "Can open another manager's customer in an emergency"), ('end_accessgrant', 'Can end an emergency access before its time')],
                'default_permissions': ('view',),
                'indexes': [
                    models.Index(fields=['user', 'expires_at'], name='access_grant_user'),
                    models.Index(fields=['company', '-id'], name='access_grant_company'),
                    models.Index(fields=['expires_at'], name='access_grant_expires'),
                ],
                'constraints': [
                    models.CheckConstraint(condition=models.Q(('reason', ''), _negated=True), name='access_grant_has_reason'),
                    models.CheckConstraint(condition=models.Q(('expires_at__gt', models.F('created_at'))), name='access_grant_ends_later'),
                ],
            },
        ),
    ]

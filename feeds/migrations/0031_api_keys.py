"""Keys with which the bank's own application calls the API."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('feeds', '0030_invitation_indexes'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='ApiKey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(help_text='Which program uses it, such as: business portal.', max_length=80, verbose_name='name')),
                ('prefix', models.CharField(editable=False, max_length=12, unique=True, verbose_name='starts with')),
                ('digest', models.CharField(editable=False, max_length=64, unique=True)),
                ('scopes', models.CharField(max_length=200, verbose_name='what it may do')),
                ('created_at', models.DateTimeField(auto_now_add=True, verbose_name='made')),
                ('made_by_name', models.CharField(max_length=200, verbose_name='made by')),
                ('expires_at', models.DateTimeField(verbose_name='expires')),
                ('revoked_at', models.DateTimeField(blank=True, null=True, verbose_name='revoked')),
                ('revoked_by_name', models.CharField(blank=True, max_length=200, verbose_name='revoked by')),
                ('last_used_at', models.DateTimeField(blank=True, editable=False, null=True, verbose_name='last used')),
                ('calls', models.PositiveIntegerField(default=0, editable=False)),
                ('manager', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='manager of new customers')),
                ('replaced_by', models.OneToOneField(blank=True, editable=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='replaces', to='feeds.apikey', verbose_name='replaced by')),
            ],
            options={
                'verbose_name': 'API key',
                'verbose_name_plural': 'API keys',
                'ordering': ['-id'],
                'permissions': [('manage_api_keys', 'Can make, replace and revoke API keys')],
                'default_permissions': ('view',),
                'constraints': [models.CheckConstraint(condition=models.Q(('name', ''), _negated=True), name='api_key_has_name'), models.CheckConstraint(condition=models.Q(('scopes', ''), _negated=True), name='api_key_has_scope'), models.CheckConstraint(condition=models.Q(('expires_at__gt', models.F('created_at'))), name='api_key_expires_later'), models.CheckConstraint(condition=models.Q(models.Q(('revoked_at__isnull', True), ('revoked_by_name', '')), models.Q(('revoked_at__isnull', False), models.Q(('revoked_by_name', ''), _negated=True)), _connector='OR'), name='api_key_revoked_by_somebody')],
            },
        ),
    ]

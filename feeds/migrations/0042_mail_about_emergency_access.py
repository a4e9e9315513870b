"""One more kind of mail. Going back needs a table without such mails."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('feeds', '0041_access_grant'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='mail',
            name='mail_kind_known',
        ),
        migrations.AlterField(
            model_name='mail',
            name='kind',
            field=models.CharField(choices=[('broke', 'Feed broke'), ('recovered', 'Feed works again'), ('incident_opened', 'Incident opened'), ('incident_released', 'Incident released'), ('digest', 'Daily digest'), ('emergency_access', 'Emergency access')], max_length=20, verbose_name='about'),
        ),
        migrations.AddConstraint(
            model_name='mail',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['broke', 'recovered', 'incident_opened', 'incident_released', 'digest', 'emergency_access'])), name='mail_kind_known'),
        ),
    ]

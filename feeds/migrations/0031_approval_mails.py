from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('feeds', '0030_approvals'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='mail',
            name='mail_kind_known',
        ),
        migrations.AlterField(
            model_name='mail',
            name='kind',
            field=models.CharField(choices=[('broke', 'Feed broke'), ('recovered', 'Feed works again'), ('incident_opened', 'Incident opened'), ('incident_released', 'Incident released'), ('digest', 'Daily digest'), ('approval_asked', 'Approval asked for'), ('approval_decided', 'Approval decided')], max_length=20, verbose_name='about'),
        ),
        migrations.AddConstraint(
            model_name='mail',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['broke', 'recovered', 'incident_opened', 'incident_released', 'digest', 'approval_asked', 'approval_decided'])), name='mail_kind_known'),
        ),
    ]

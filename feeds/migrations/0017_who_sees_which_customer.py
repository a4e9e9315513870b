"""Rights about whose customers a person sees."""

from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('feeds', '0016_offboarding'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='company',
            options={'ordering': ['-id'], 'permissions': [('onboard_company', 'Can onboard a company to Codat'), ('refresh_company', "Can refresh a company's status from Codat"), ('import_company', 'Can import companies from a file'), ('remove_company', 'Can delete a company in Codat'), ('view_all_companies', 'Can see every customer, not only their own'), ('take_company', 'Can take over a company that has no manager'), ('reassign_company', 'Can give a company to another manager')], 'verbose_name': 'company', 'verbose_name_plural': 'companies'},
        ),
    ]

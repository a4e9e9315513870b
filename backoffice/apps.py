"""Django's admin with our own site class."""

from django.contrib.admin.apps import AdminConfig


class BackOfficeAdminConfig(AdminConfig):
    """Makes `backoffice.site.BackOfficeSite` the site that `@admin.register` uses."""

    default_site = "backoffice.site.BackOfficeSite"

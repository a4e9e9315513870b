"""The queue library's own screens are taken off the site.

They offer "Resubmit", and schedules whose function is free text (any importable function), without audit. What waits,
runs or failed is in the ledger, where a person can act on it; schedules are declared in code.
"""

from __future__ import annotations

from django.apps import apps

from feeds.admin.base import withdraw

withdraw("django_q", *apps.get_app_config("django_q").get_models())

"""The one app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class FeedsConfig(AppConfig):
    """Registers system checks and the models whose changes are kept."""

    name = "feeds"
    verbose_name = _("Bank feeds")

    def ready(self) -> None:
        """Import for effect: checks register themselves, audited models are named in one place."""
        from feeds import audit, checks, languages  # noqa: F401
        from feeds.sign_in import events

        audit.register_models()
        events.connect()
        languages.connect()

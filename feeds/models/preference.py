"""What a member of staff chose for themselves."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from feeds.models.base import TIMES, AuditedQuerySet, TimeStamped
from feeds.states import Language


class Preference(TimeStamped):
    """One row for each person who chose; who never did has none."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, verbose_name=_("person"), on_delete=models.CASCADE, related_name="preference"
    )
    language = models.CharField(_("language"), max_length=2, choices=Language.choices)

    objects = AuditedQuerySet["Preference"].as_manager()
    bookkeeping: ClassVar = TIMES

    class Meta:
        verbose_name = _("preference")
        verbose_name_plural = _("preferences")
        # Nobody works with another's: each chooses on any page, for themselves.
        default_permissions = ()
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(language__in=Language.values), name="preference_language_known")
        ]

    def __str__(self) -> str:
        return f"{self.user.get_username()}: {self.language}"

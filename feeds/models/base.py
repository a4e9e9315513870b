"""What several models share: timestamps of our own row and of the mirror of Codat's."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class TimeStamped(models.Model):
    """When our own row was made and last changed (aware UTC)."""

    created_at = models.DateTimeField(_("created"), auto_now_add=True, editable=False)
    updated_at = models.DateTimeField(_("changed"), auto_now=True, editable=False)

    class Meta:
        abstract = True


class Mirrored(models.Model):
    """Columns every mirror of a Codat object carries. They are written by services, never by a person."""

    read_at = models.DateTimeField(
        _("as of"), null=True, blank=True, editable=False, help_text=_("When Codat's answer was asked for.")
    )
    gone_at = models.DateTimeField(
        _("gone since"), null=True, blank=True, editable=False, help_text=_("When we saw that Codat no longer has it.")
    )
    raw = models.JSONField(_("Codat's answer"), default=dict, blank=True, editable=False)

    class Meta:
        abstract = True

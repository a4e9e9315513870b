"""How far a walk through Codat's complete list of companies has come."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class ListingWalk(models.Model):
    """One row for each purpose of walking the list; `services.listing` writes it after each page.

    Whoever holds the lease walks on from `next_page`, so a killed worker loses at most the page it was at. `seen` is
    what tells, at the end, what the list does not have: eight bytes for each company.
    """

    name = models.CharField(_("name"), max_length=20, primary_key=True)
    started_at = models.DateTimeField(_("started"), null=True, help_text=_("Empty while no walk is under way."))
    next_page = models.PositiveIntegerField(_("next page"), default=1)
    total = models.PositiveIntegerField(_("companies in the list"), default=0)
    seen = models.BinaryField(default=b"")
    known = models.PositiveIntegerField(default=0, help_text=_("How many of them are ours."))
    missing_connections = models.JSONField(default=list)
    lease_token = models.UUIDField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    complete_as_of = models.DateTimeField(
        _("complete as of"), null=True, help_text=_("When the last whole walk began.")
    )
    retry_at = models.DateTimeField(_("not again before"), null=True, help_text=_("After a walk that failed."))
    waiting_since = models.DateTimeField(
        _("waiting since"), null=True, help_text=_("It is due, and waits for links in customers' hands.")
    )
    fewest_links = models.PositiveIntegerField(null=True, help_text=_("The fewest that were out while it waited."))
    error = models.TextField(_("what went wrong"), blank=True)

    class Meta:
        verbose_name = _("walk through Codat's list")
        verbose_name_plural = _("walks through Codat's list")
        default_permissions: ClassVar = ()

    def __str__(self) -> str:
        return self.name

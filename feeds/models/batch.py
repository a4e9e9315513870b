"""One click, or one file, that asked for many companies at once."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from feeds.models.base import AuditedQuerySet
from feeds.models.company import Company


class Batch(models.Model):
    """A bulk onboarding; its progress is read from its companies, so it is never out of step with them."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    label = models.CharField(_("label"), max_length=200)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("asked by"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    requested_by_name = models.CharField(_("asked by (name)"), max_length=200, blank=True)
    source = models.CharField(_("source"), max_length=40, blank=True)
    created_at = models.DateTimeField(_("asked"), auto_now_add=True, db_index=True)
    companies: models.ManyToManyField[Company, BatchItem] = models.ManyToManyField(
        Company, through="BatchItem", related_name="batches"
    )

    objects = AuditedQuerySet["Batch"].as_manager()
    bookkeeping: ClassVar = frozenset({"requested_by", "source", "created_at"})

    class Meta:
        verbose_name = _("bulk onboarding")
        verbose_name_plural = _("bulk onboardings")
        ordering: ClassVar = ["-created_at"]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.label


class BatchItem(models.Model):
    """One company of a batch."""

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="items")
    company = models.ForeignKey(Company, on_delete=models.CASCADE, related_name="batch_items")

    class Meta:
        default_permissions = ()
        constraints: ClassVar = [models.UniqueConstraint(fields=["batch", "company"], name="batch_item_unique")]

    def __str__(self) -> str:
        return f"{self.batch_id} {self.company_id}"

"""What several models share: timestamps, the mirror of Codat's columns, and sets of rows that keep their history."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from django.db import models
from django.utils.translation import gettext_lazy as _

TIMES = frozenset({"created_at", "updated_at"})
READING = frozenset({"read_at", "raw"})
"""Columns that are no history of their own: see `AuditedQuerySet`."""
IN_MIGRATION = "__fake__"
"""The module of the models that a migration works with, other people's migrations of users included: a migration is a
release's change, not a person's."""


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


_Row = TypeVar("_Row", bound=models.Model, covariant=True)
_written_by_helper: ContextVar[bool] = ContextVar("audit_written_by_helper", default=False)


class Unaudited(TypeError):
    """A write in bulk that would leave no row in the change history: a mistake of the programmer's."""


@contextmanager
def entries_are_written() -> Iterator[None]:
    """For the helpers of `feeds.audit`: inside, writes in bulk pass, because their entries are written as well."""
    token = _written_by_helper.set(True)
    try:
        yield
    finally:
        _written_by_helper.reset(token)


class AuditedQuerySet(models.QuerySet[_Row]):
    """Rows whose changes are history. Writes in bulk send no signals, so they have to go through `feeds.audit`.

    `update` passes if it touches nothing but the model's `bookkeeping`: leases, due dates, times of readings.
    """

    def update(self, **values: Any) -> int:
        """Refused for audited columns: use `audit.update`."""
        refuse_unaudited(self.model, values, "audit.update")
        return super().update(**values)

    def bulk_create(self, *args: Any, **options: Any) -> Any:
        """Refused: use `audit.bulk_create`."""
        refuse_unaudited(self.model, None, "audit.bulk_create")
        return super().bulk_create(*args, **options)

    def bulk_update(self, objs: Any, fields: Any, *args: Any, **options: Any) -> int:
        """Refused for audited columns: use `audit.update_rows`."""
        fields = list(fields)
        refuse_unaudited(self.model, fields, "audit.update_rows")
        with entries_are_written():
            return super().bulk_update(objs, fields, *args, **options)


def refuse_unaudited(model: type[models.Model], names: Collection[str] | None, helper: str) -> None:
    """Raises Unaudited if writing `names` (None: whole rows) in bulk would go unseen; `helper` is what to use."""
    if _written_by_helper.get() or model.__module__ == IN_MIGRATION:
        return
    free: frozenset[str] = getattr(model, "bookkeeping", frozenset())
    audited = ["every column"] if names is None else sorted(name for name in names if name not in free)
    if audited:
        raise Unaudited(f"{model.__name__}: {', '.join(audited)} would change without history; use {helper}")

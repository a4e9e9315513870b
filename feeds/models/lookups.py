"""Lookups of our own."""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import CharField, Lookup
from django.db.models.sql.compiler import SQLCompiler


@CharField.register_lookup
class OneOf(Lookup[Any]):
    """`codat_id__one_of='["a", "b"]'`: is in a JSON array, passed as one parameter.

    `__in` prepares and binds each value by itself, which for five thousand costs more than finding the rows.
    """

    lookup_name = "one_of"
    prepare_rhs = False

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> tuple[str, list[Any]]:
        """The array as a table of its values."""
        return self._in(compiler, connection, "SELECT value FROM json_each(%s)")

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> tuple[str, list[Any]]:
        """The same."""
        return self._in(compiler, connection, "SELECT json_array_elements_text(%s::json)")

    def _in(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, values: str) -> tuple[str, list[Any]]:
        left, parameters = self.process_lhs(compiler, connection)
        return f"{left} IN ({values})", [*parameters, self.rhs]

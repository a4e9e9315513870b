"""Lookups of our own."""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import CharField, IntegerField, Lookup, TextField, Transform
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


@TextField.register_lookup
class Utf16Units(Transform):
    """`title__utf16_units__lte=50`: the length as browsers count it, exact on both databases.

    Databases count code points; one above U+FFFF is two units. PostgreSQL counts those by a pattern. SQLite has none,
    but in UTF-8 exactly they begin with a byte F0 to F4: their number is the bytes that go when these are taken out.
    """

    lookup_name = "utf16_units"
    output_field = IntegerField()

    _NO_TEXT = 1_000_000
    """SQLite keeps anything in any column, and its `length` stops at a NUL: such a value has no length that fits."""

    def as_sqlite(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_extra: Any
    ) -> tuple[str, tuple[str | int, ...]]:
        """Code points, and bytes with less bytes without the first of each four."""
        text, parameters = compiler.compile(self.lhs)
        without = text
        for byte in ("F0", "F1", "F2", "F3", "F4"):
            without = f"replace({without}, x'{byte}', '')"
        sql = (
            f"CASE WHEN typeof({text}) <> 'text' OR instr({text}, char(0)) > 0 THEN {self._NO_TEXT} "
            f"ELSE length({text}) + length(CAST({text} AS BLOB)) - length(CAST({without} AS BLOB)) END"
        )
        return sql, (*parameters,) * 5

    def as_postgresql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_extra: Any
    ) -> tuple[str, list[Any]]:
        """Code points, and once more those that are no code of sixteen bits."""
        text, parameters = compiler.compile(self.lhs)
        beyond = rf"regexp_replace({text}, '[^\U00010000-\U0010FFFF]', '', 'g')"
        return f"(char_length({text}) + char_length({beyond}))", [*parameters] * 2

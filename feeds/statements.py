"""Many rows in one statement, for work by the thousand such as a sweep: no models checked, no signals sent.

Django builds an expression for each value of each row, which took two thirds of the time of a page of changes; here a
statement is built once and the database is given the values. Who calls writes the history: see `feeds.audit`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

from django.db import connection, models
from django.db.models.expressions import DatabaseDefault

Field: TypeAlias = "models.Field[Any, Any]"
_Key = TypeVar("_Key")
_Item = TypeVar("_Item")


def insert_rows(rows: Collection[models.Model]) -> None:
    """Add new rows of one model, as `bulk_create` does, but without telling them their keys."""
    for left_out, group in _alike((_left_to_database(row), row) for row in rows):
        model = type(group[0])
        fields = [field for field in model._meta.local_concrete_fields if field not in left_out]
        columns = ", ".join(_quoted(field.column) for field in fields)
        marks = ", ".join(["%s"] * len(fields))
        _execute(
            f"INSERT INTO {_quoted(model._meta.db_table)} ({columns}) VALUES ({marks})",  # noqa: S608  # nosec B608 - own names
            [[field.get_db_prep_save(field.pre_save(row, True), connection) for field in fields] for row in group],
        )


def update_rows(model: type[models.Model], changes: Iterable[tuple[Any, Mapping[str, Any]]]) -> None:
    """Write columns of rows that are there. Each of `changes` is a row's key, and values by the name of their field."""
    by_name = {field.name: field for field in model._meta.local_concrete_fields}
    for names, group in _alike((tuple(values), (pk, values)) for pk, values in changes):
        fields = [by_name[name] for name in names]
        columns = ", ".join(f"{_quoted(field.column)} = %s" for field in fields)
        where = _quoted(model._meta.pk.column)
        _execute(
            f"UPDATE {_quoted(model._meta.db_table)} SET {columns} WHERE {where} = %s",  # noqa: S608  # nosec B608 - own names
            [
                [*(field.get_db_prep_save(values[field.name], connection) for field in fields), pk]
                for pk, values in group
            ],
        )


def _alike(keyed: Iterable[tuple[_Key, _Item]]) -> Iterable[tuple[_Key, list[_Item]]]:
    groups: dict[_Key, list[_Item]] = {}
    for key, item in keyed:
        groups.setdefault(key, []).append(item)
    return groups.items()


def _left_to_database(row: models.Model) -> tuple[Field, ...]:
    """The fields that the database fills in: the key, and what has a default there and none here."""
    return tuple(
        field
        for field in row._meta.local_concrete_fields
        if isinstance(field, models.AutoField)
        or (field.has_db_default() and isinstance(getattr(row, field.attname), DatabaseDefault))
    )


def _quoted(name: str | None) -> str:
    return connection.ops.quote_name(str(name))


def _execute(statement: str, parameters: list[list[Any]]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(statement, parameters)

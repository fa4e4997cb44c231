"""Schemas of a table's files: they must agree."""

from __future__ import annotations

import pyarrow as pa

from sparkopt.errors import SchemaError

__all__ = ["require_same"]


def require_same(known: pa.Schema, own: pa.Schema, first: str, name: str) -> None:
    """Refuse a file whose columns differ from those of the first one; their order may.

    Raises
    ------
    SchemaError
        Naming the column, both files and both types.
    """
    if known.equals(own):
        return
    for field in known:
        if field.name not in own.names:
            raise SchemaError(f"{name} has no column {field.name!r}, which {first} has. {HINT}")
        found = own.field(field.name).type
        if not _alike(field.type, found):
            raise SchemaError(f"column {field.name!r} is {found} in {name} and {field.type} in {first}. {HINT}")
    for field in own:
        if field.name not in known.names:
            raise SchemaError(f"{name} has a column {field.name!r}, which {first} has not. {HINT}")


HINT = "All files of a table need the same columns: rewrite the file, or leave it out."


def _alike(one: pa.DataType, two: pa.DataType) -> bool:
    """Whether two types are the same but for the names and nullability of what they hold."""
    if one.equals(two):
        return True
    if one.id != two.id or one.num_fields != two.num_fields or not one.num_fields:
        return False
    if pa.types.is_struct(one) and [field.name for field in one] != [field.name for field in two]:
        return False
    return all(_alike(one.field(i).type, two.field(i).type) for i in range(one.num_fields))

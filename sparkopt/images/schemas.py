"""Types of columns of images: those that may hold them, and those of results, in Spark's terms and in Arrow's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from sparkopt.errors import SchemaError
from sparkopt.io.arrow import plain_field
from sparkopt.io.pixel_structs import IMAGE_FIELDS, holds_pixels
from sparkopt.machine import Table
from sparkopt.machine.part import UNREADABLE, MemoryPart

if TYPE_CHECKING:
    from pyspark.sql.types import DataType, StructType

__all__ = [
    "check_image_column",
    "check_image_field",
    "check_key",
    "check_mapped_names",
    "is_key",
    "output_type",
    "with_nulls",
]


def output_type(output: str) -> DataType:
    """Return the Spark type for ``output``, one of "vector", "array", "tensor", "bytes" and "image"."""
    from pyspark.ml.linalg import VectorUDT
    from pyspark.sql.types import ArrayType, BinaryType, FloatType, IntegerType, StringType, StructType

    if output == "image":  # pyspark.ml.image asks a JVM for it
        image = StructType().add("origin", StringType())
        for name in IMAGE_FIELDS[1:5]:
            image = image.add(name, IntegerType(), nullable=False)
        return image.add("data", BinaryType(), nullable=False)
    tensor = StructType().add("shape", ArrayType(IntegerType())).add("dtype", StringType()).add("data", BinaryType())
    return {"vector": VectorUDT(), "array": ArrayType(FloatType()), "tensor": tensor, "bytes": BinaryType()}[output]


def check_image_column(schema: StructType, column: str) -> None:
    """Check, before any job, that a column exists and can hold images.

    Raises
    ------
    SchemaError
        If not; the message names the column, its type and the types it may have.
    """
    from pyspark.sql.types import BinaryType, NullType, StringType, StructType

    _check_name(schema.names, column)
    kind = schema[column].dataType
    is_image = isinstance(kind, StructType) and holds_pixels(kind.names)
    if not (is_image or isinstance(kind, BinaryType | StringType | NullType)):
        raise _wrong(column, kind.simpleString())


def check_image_field(schema: pa.Schema, column: str) -> None:
    """Check, before rows are read, that a column of a table exists and can hold images.

    Raises
    ------
    SchemaError
        As ``check_image_column`` does.
    """
    _check_name(schema.names, column)
    field = plain_field(schema.field(column))
    kind, unreadable = field.type, (field.metadata or {}).get(UNREADABLE)
    if unreadable is not None:
        raise _wrong(column, unreadable.decode())
    is_image = pa.types.is_struct(kind) and holds_pixels(one.name for one in kind)
    if not (is_image or str(kind) in (*_TEXT_OR_BINARY, "null")):
        raise _wrong(column, str(kind))


def with_nulls(table: Table, column: str) -> Table:
    """Return a table whose column of nothing but NaN, as pandas without images has it, holds nulls."""
    held = [part.held for part in table.partitions if isinstance(part, MemoryPart)]
    if column not in table.names or len(held) < len(table.partitions):
        return table
    if not pa.types.is_floating(table.schema.field(column).type):
        return table
    place, nothing = table.schema.get_field_index(column), pa.field(column, pa.null())
    if not all(pc.all(pc.is_null(rows[column], nan_is_null=True)).as_py() is not False for rows in held):
        return table
    parts = (
        MemoryPart(part.name, rows.set_column(place, nothing, pa.nulls(len(rows))))
        for part, rows in zip(table.partitions, held, strict=True)
    )
    return table.with_parts(parts, table.schema.set(place, nothing))


def check_key(column: str, kind: DataType | pa.DataType) -> None:
    """Check, before any job, that a column of this type, of Spark or of Arrow, can hold row keys.

    Raises
    ------
    SchemaError
        If not; the message names the column and its type.
    """
    if isinstance(kind, pa.DataType):
        found, fits = str(kind), is_key(kind)
        if pa.types.is_floating(kind):
            found = f"{found}, as pandas has integers of which some are missing: take astype('Int64')"
    else:
        found, fits = kind.simpleString(), kind.typeName() in _KEYS
    if not fits:
        raise SchemaError(f"the column of row keys, {column!r}, must hold integers, strings or binary. Got {found}.")


def is_key(kind: pa.DataType) -> bool:
    """Whether values of a type of Arrow can be row keys."""
    return pa.types.is_integer(kind) or str(kind) in _TEXT_OR_BINARY


_TEXT_OR_BINARY = ("string", "large_string", "binary", "large_binary")
_KEYS = ("byte", "short", "integer", "long", "string", "varchar", "char", "binary")


def check_mapped_names(names: Sequence[str]) -> None:
    """Check, before any job, that ``DataFrame.mapInArrow`` finds all columns: it reads a dot as a field of a struct.

    Raises
    ------
    SchemaError
        For the first name with a dot or a backtick; the message has what to do.
    """
    for name in names:
        if "." in name or "`" in name:
            plain = name.replace(".", "_").replace("`", "_")
            raise SchemaError(
                f"DataFrame.mapInArrow finds no column whose name has a dot or a backtick, as {name!r} has. Rename "
                f"it, df.withColumnRenamed({name!r}, {plain!r}), or take sparkopt.ml.ImageTransformer if no targets "
                "belong to the images."
            )


def _check_name(names: Sequence[str], column: str) -> None:
    if column not in names:
        raise SchemaError(f"there is no column {column!r}. The columns are {', '.join(names)}.")


def _wrong(column: str, kind: str) -> SchemaError:
    return SchemaError(
        f"column {column!r} must hold encoded images (binary), paths (string), Spark's image schema or tensors "
        f"(struct<shape, dtype, data>). Got {kind} instead."
    )

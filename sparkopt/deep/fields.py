"""From columns to tensors: which columns are the inputs of a network, and how their rows are held in memory.

Every column is one of six kinds. Vectors, arrays (nested to any depth), tensors (the struct that
:func:`sparkopt.images.udf` gives) and numbers become dense arrays of one shape; encoded images, given as bytes or by
their paths, stay bytes until a batch is decoded. A column is selected by Spark (``Field.expression``), or taken from
a table's Arrow batches (``Field.taken``), to the same values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DecimalType,
    FractionalType,
    IntegralType,
    StringType,
    StructType,
)

from sparkopt.blocks.columns import column_type, feature_matrix, is_number, quoted
from sparkopt.blocks.parquet import from_decimal
from sparkopt.errors import CorruptImageError, DataError, SchemaError
from sparkopt.typing import Array

__all__ = ["Field", "Fields", "MissingValueError", "dense"]

LABEL, WEIGHT = "label", "weight"
_IMAGES = {"bytes": "bytes", "path": "text, which are paths of images"}
"""Kinds of columns that hold images."""
TENSOR = ("shape", "dtype", "data")
HINT = "Filter or repair such rows before fitting."
INVALID_HINT = f"{HINT[:-1]}, or set handleInvalid='skip'."


class MissingValueError(DataError):
    """A null, a number that is not finite, or a file that is no image: what ``handleInvalid`` may leave out."""


class _MissingEntryError(MissingValueError):
    """A null entry of a row's array."""

    def __init__(self, row: int, entry: int) -> None:
        super().__init__(f"row {row} has a null entry")
        self.row, self.entry = row, entry


@dataclass(frozen=True)
class Field:
    """A column in a store.

    Attributes
    ----------
    name : str
        Its name there: ``input0``, ``input1`` …, ``label``, ``weight``.
    columns : tuple of str
        Where it comes from: one column of the DataFrame, or several numeric ones that are joined.
    kind : {"number", "vector", "array", "tensor", "bytes", "path"}
        What it holds; ``path`` is the path of an image's file.
    """

    name: str
    columns: tuple[str, ...]
    kind: str

    @property
    def role(self) -> str:
        """Its name in errors."""
        return self.name if self.name in (LABEL, WEIGHT) else "features"

    @property
    def title(self) -> str:
        """Its columns, as errors name them."""
        return ", ".join(self.columns)

    @property
    def is_image(self) -> bool:
        """Whether it holds encoded images."""
        return self.kind in _IMAGES

    @property
    def held(self) -> str:
        """What it holds, as errors name it."""
        return _IMAGES.get(self.kind, "numbers")

    def expression(self, schema: StructType) -> Column:
        """Return the column, or the columns joined, with numbers in a type that tensors have."""
        found = [schema[name].dataType for name in self.columns]
        columns = [F.col(quoted(name)) for name in self.columns]
        if len(columns) > 1:
            return F.array(*[column.cast("float") for column in columns]).alias(self.name)
        if self.kind == "number":
            return columns[0].cast(_number(found[0])).alias(self.name)
        if self.kind == "array":
            return columns[0].cast(_with_numbers(found[0])).alias(self.name)
        return columns[0].alias(self.name)

    def taken(self, batch: pa.RecordBatch) -> pa.Array:
        """Return what ``expression`` selects, from a batch of a table's rows."""
        columns = [_plain(batch.column(name)) for name in self.columns]
        if len(columns) > 1:
            return _side_by_side([_as_numbers(column).cast(pa.float32()) for column in columns])
        if self.kind in ("number", "array"):
            return _as_numbers(columns[0])
        return columns[0].cast(pa.binary()) if self.kind == "bytes" else columns[0]


@dataclass(frozen=True)
class Fields:
    """The inputs of a network, and its target.

    Parameters
    ----------
    inputs : tuple of Field
        One argument of the module's ``forward`` each.
    label, weight : Field or None
        Target and row weight, where they are needed.
    """

    inputs: tuple[Field, ...]
    label: Field | None = None
    weight: Field | None = None

    @classmethod
    def of(
        cls, schema: StructType, features: str | Sequence[str], label: str | None = None, weight: str | None = None
    ) -> Fields:
        """Find the columns in a schema.

        Parameters
        ----------
        schema : StructType
            Of the DataFrame.
        features : str or sequence of str
            One column; or several: if all are numeric they are joined to one input, else each is an input of its own.
        label, weight : str or None
            Target and row weight.

        Raises
        ------
        SchemaError
            Naming a column that is missing or has a type that no tensor can be made of.
        """
        names = [features] if isinstance(features, str) else list(features)
        if not names:
            raise SchemaError("featuresCols is empty: name at least one column.")
        kinds = [_kind(column_type(schema, name, "features"), name) for name in names]
        if len(names) > 1 and set(kinds) == {"number"}:
            inputs: tuple[Field, ...] = (Field("input0", tuple(names), "array"),)
        else:
            pairs = zip(names, kinds, strict=True)
            inputs = tuple(Field(f"input{i}", (name,), kind) for i, (name, kind) in enumerate(pairs))
        return cls(inputs, _target(schema, label), _weight(schema, weight))

    @property
    def all(self) -> tuple[Field, ...]:
        """Every field, inputs first."""
        return (*self.inputs, *(field for field in (self.label, self.weight) if field is not None))

    def select(self, df: DataFrame, *more: Column) -> DataFrame:
        """Return the fields of ``df``, and ``more``."""
        return df.select(*[field.expression(df.schema) for field in self.all], *more)


def _target(schema: StructType, label: str | None) -> Field | None:
    if label is None:
        return None
    field = Field(LABEL, (label,), _kind(column_type(schema, label, LABEL), label, LABEL))
    if field.is_image:
        raise SchemaError(
            f"label column {label!r} holds {field.held}; it must be a number, a vector, an array or a tensor. Names "
            "of classes become numbers by pyspark.ml's StringIndexer, say."
        )
    return field


def _weight(schema: StructType, weight: str | None) -> Field | None:
    if weight is None:
        return None
    if not is_number(found := column_type(schema, weight, WEIGHT)):
        raise SchemaError(f"weight column {weight!r} has type {found.simpleString()}; it must be numeric.")
    return Field(WEIGHT, (weight,), "number")


def _kind(found: DataType, name: str, role: str = "features") -> str:
    from pyspark.ml.linalg import VectorUDT  # here, since it imports pandas and tasks import this module

    if isinstance(found, VectorUDT):
        return "vector"
    if is_number(found):
        return "number"
    if isinstance(found, BinaryType):
        return "bytes"
    if isinstance(found, StringType):
        return "path"
    if isinstance(found, StructType) and set(TENSOR) <= set(found.names):
        return "tensor"
    if isinstance(found, ArrayType) and is_number(_innermost(found)):
        return "array"
    raise SchemaError(
        f"{role} column {name!r} has type {found.simpleString()}; it must be a number, a Vector, an array of numbers "
        "(nested or not), a tensor as sparkopt.images.udf gives, or bytes or paths of encoded images."
    )


def _innermost(found: DataType) -> DataType:
    return _innermost(found.elementType) if isinstance(found, ArrayType) else found


def _number(found: DataType) -> str:
    """Whole numbers stay whole; the rest is float32, the type of a network's weights."""
    return "bigint" if isinstance(found, IntegralType) else "float"


def _with_numbers(found: DataType) -> str:
    if isinstance(found, ArrayType):
        return f"array<{_with_numbers(found.elementType)}>"
    assert isinstance(found, (FractionalType, IntegralType, BooleanType, DecimalType))  # noqa: S101  # _kind saw to it
    return _number(found)


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _as_numbers(column: pa.Array) -> pa.Array:
    """Return a column of Arrow in the types that ``_number`` and ``_with_numbers`` are for Spark's."""
    if pa.types.is_decimal(column.type):
        return from_decimal(column).cast(pa.float32())
    if not _is_list(column.type):
        return column.cast(_arrow_number(column.type))
    innermost = column.type
    while _is_list(innermost):
        innermost = innermost.value_type
    if not pa.types.is_decimal(innermost):
        return column.cast(_lists_of(column.type, _arrow_number(innermost)))
    lists = column.cast(_lists_of(column.type, innermost)).take(pa.array(np.arange(len(column))))  # begins at 0
    missing = lists.is_null() if lists.null_count else None
    return pa.ListArray.from_arrays(lists.offsets, _as_numbers(lists.values), mask=missing)


def _is_list(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_one(kind) for is_one in kinds)


def _lists_of(kind: pa.DataType, innermost: pa.DataType) -> pa.DataType:
    return pa.list_(_lists_of(kind.value_type, innermost)) if _is_list(kind) else innermost


def _arrow_number(kind: pa.DataType) -> pa.DataType:
    return pa.int64() if pa.types.is_integer(kind) and kind != pa.uint64() else pa.float32()


def _side_by_side(columns: list[pa.Array]) -> pa.Array:
    """Return columns of numbers as one of lists, in which nulls stay."""
    values = np.stack([column.fill_null(0).to_numpy() for column in columns], axis=1)
    missing = np.stack([column.is_null().to_numpy(zero_copy_only=False) for column in columns], axis=1)
    offsets = np.arange(len(values) + 1, dtype=np.int32) * len(columns)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1), mask=missing.reshape(-1)))


def dense(field: Field, column: pa.Array) -> Array | pa.Array:
    """Return a column's rows as one array (n, …), float32, int64 or a tensor's own type; bytes stay Arrow.

    Raises
    ------
    DataError
        For a null, a number that is not finite, or rows of unlike shapes; the message starts with the row's number.
    """
    if column.null_count:
        raise MissingValueError(f"row {int(np.flatnonzero(column.is_null())[0])} is null")
    if field.kind == "bytes":
        return column
    if field.kind == "path":
        return _contents(column)
    try:
        values = _DENSE[field.kind](column)
    except _MissingEntryError as error:
        if len(field.columns) == 1:
            raise
        raise MissingValueError(f"row {error.row} is null in column {field.columns[error.entry]!r}") from None
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    if values.dtype.kind == "f" and not np.isfinite(values.sum()):
        bad = np.flatnonzero(~np.isfinite(values.reshape(-1)))
        if len(bad):
            row, position = divmod(int(bad[0]), math.prod(values.shape[1:]))
            at = f"position {position}" if len(field.columns) == 1 else f"column {field.columns[position]!r}"
            raise MissingValueError(f"row {row} is {values.reshape(-1)[bad[0]]} at {at}")
    if field.name == WEIGHT and (values < 0).any():
        row = int(np.flatnonzero(values < 0)[0])
        raise DataError(f"row {row} is {values[row]:g}; it must be >= 0")
    return values


def _contents(column: pa.Array) -> pa.Array:
    """Return the content of files, whose paths are in a column."""
    from sparkopt.images.sources import read_file  # here, since most networks need no OpenCV

    found = []
    for row, path in enumerate(column.to_pylist()):
        try:
            found.append(read_file(path))
        except CorruptImageError as error:
            raise MissingValueError(f"row {row} is {path!r}, {error}") from None
    return pa.array(found, pa.binary())


def _numbers(column: pa.Array) -> Array:
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _vectors(column: pa.Array) -> Array:
    found = feature_matrix(column)
    return found if isinstance(found, np.ndarray) else found.toarray()


def _arrays(column: pa.Array) -> Array:
    """Nested lists of equal lengths at each depth as one array."""
    shape = [len(column)]
    while pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = np.diff(column.offsets.to_numpy())
        odd = np.flatnonzero(lengths != lengths[:1])
        if len(odd):
            row = int(odd[0]) // math.prod(shape[1:])
            raise DataError(f"row {row} has {lengths[odd[0]]} entries where the rows before it have {lengths[0]}")
        column = column.flatten()
        if column.null_count:
            flat = int(np.flatnonzero(column.is_null())[0])
            raise _MissingEntryError(*divmod(flat, max(1, math.prod(shape[1:]) * int(lengths[0]))))
        shape.append(int(lengths[0]) if len(lengths) else 0)
    return _numbers(column).reshape(shape)


def _tensors(column: pa.Array) -> Array:
    shapes = column.field("shape").to_pylist()
    kinds = column.field("dtype").to_pylist()
    if not shapes:
        return np.empty((0,), np.float32)
    for row, own in enumerate(zip(shapes, kinds, strict=True)):
        if own != (shapes[0], kinds[0]):
            raise DataError(f"row {row} is a tensor {own} where the rows before it are {(shapes[0], kinds[0])}")
    kind = np.dtype(kinds[0])
    if kind not in (np.float32, np.float64, np.int64, np.uint8):
        raise DataError(f"row 0 is a tensor of {kind.name}; float32, float64, int64 and uint8 are read")
    data = column.field("data")
    size = math.prod(shapes[0]) * kind.itemsize
    lengths = pc.binary_length(data).to_numpy()
    if (lengths != size).any():
        row = int(np.flatnonzero(lengths != size)[0])
        raise DataError(f"row {row} has {lengths[row]} bytes; a tensor {shapes[0]} of {kind.name} has {size}")
    return np.frombuffer(b"".join(data.to_pylist()), kind).reshape(-1, *shapes[0])


_DENSE: dict[str, Any] = {"number": _numbers, "vector": _vectors, "array": _arrays, "tensor": _tensors}

"""Types of columns of masks, boxes, labels and keypoints, of Spark and of Arrow, which are refused before any job."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from sparkopt.errors import SchemaError
from sparkopt.io.pixel_structs import holds_tensor

__all__ = ["check_target"]

_WANTED: Mapping[str, str] = MappingProxyType(
    {
        "mask": "encoded masks (binary) or tensors (struct<shape, dtype, data>)",
        "boxes": "array<array<double>>, a list of [x_min, y_min, x_max, y_max] in pixels",
        "labels": "an array with one element for each box",
        "keypoints": "array<array<double>>, a list of [x, y] in pixels",
    }
)
_SIDES = (
    ("x_min", "xmin", "x1", "left", "x"),
    ("y_min", "ymin", "y1", "top", "y"),
    ("x_max", "xmax", "x2", "right", "width", "w"),
    ("y_max", "ymax", "y2", "bottom", "height", "h"),
)
_LENGTHS = ("width", "w", "height", "h")
_LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


def check_target(column: str, kind: Any, target: str) -> None:
    """Check that a column of this type, of Spark or of Arrow, can hold targets.

    Parameters
    ----------
    column : str
        The name.
    kind : pyspark.sql.types.DataType or pyarrow.DataType
        The type.
    target : {"mask", "boxes", "labels", "keypoints"}
        What the column is for.

    Raises
    ------
    SchemaError
        If not; the message has the type that is found, the one that is wanted, and how to make it.
    """
    is_arrow = isinstance(kind, pa.DataType)
    shape = (_of_arrow if is_arrow else _of_spark)(kind)
    if _holds(shape, target):
        return
    found = str(kind) if is_arrow else kind.simpleString()
    hint = "" if target in ("mask", "labels") else (_python if is_arrow else _sql)(column, shape, target)
    raise SchemaError(f"column {column!r} must hold {_WANTED[target]}. Got {found} instead{hint}.")


def _holds(shape: Any, target: str) -> bool:
    """Whether a shape, as ``_of_arrow`` returns it, is a target's; what is null alone tells nothing."""
    if shape == "null":
        return True
    if target == "mask":
        return shape == "binary" or (isinstance(shape, tuple) and holds_tensor(shape))
    if not isinstance(shape, list):
        return False
    if target == "labels" or shape == ["null"]:
        return True
    return shape in ([["number"]], [["null"]])


def _of_arrow(kind: pa.DataType) -> Any:
    """Return what a type holds: "number", "binary", "null" or "other", a list of one, or a struct's names."""
    if any(is_one(kind) for is_one in _LISTS):
        return [_of_arrow(kind.value_type)]
    if pa.types.is_struct(kind):
        return tuple(field.name for field in kind)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "binary"
    if pa.types.is_null(kind):
        return "null"
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return "number" if is_number else "other"


def _of_spark(kind: Any) -> Any:
    from pyspark.sql.types import ArrayType, BinaryType, NullType, NumericType, StructType

    if isinstance(kind, ArrayType):
        return [_of_spark(kind.elementType)]
    if isinstance(kind, StructType):
        return tuple(kind.names)
    names = ((NumericType, "number"), (BinaryType, "binary"), (NullType, "null"))
    return next((name for type_, name in names if isinstance(kind, type_)), "other")


def _sql(column: str, shape: Any, target: str) -> str:
    """Return how to make boxes or keypoints of the wanted form in Spark's SQL."""
    name = f"`{column}`" if not column.isidentifier() else column
    sides = _sides(shape, target)
    if sides:
        values = ", ".join(" + ".join(f"one.{field}" for field in side) for side in sides)
        return f"; make SF.expr('transform({name}, one -> array({values}))') of it"
    if shape == ["number"]:
        count = 4 if target == "boxes" else 2
        parts = f"transform(sequence(1, size({name}), {count}), i -> slice({name}, i, {count}))"
        many = f"SF.expr('if(size({name}) = 0, array(), {parts})')"
        return f"; make SF.array({column!r}) of one of them, {many} of {count} numbers each in a row"
    return ""


def _python(column: str, shape: Any, target: str) -> str:
    """Return how to make boxes or keypoints of the wanted form of rows in Python."""
    sides = _sides(shape, target)
    if sides:
        values = ", ".join(" + ".join(f"one[{field!r}]" for field in side) for side in sides)
        return f"; make [[[{values}] for one in row] for row in table[{column!r}].to_pylist()] of it"
    if shape == ["number"]:
        count = 4 if target == "boxes" else 2
        many = f"[np.reshape(row, (-1, {count})).tolist() for row in table[{column!r}].to_pylist()]"
        return f"; make {many} of it"
    return ""


def _sides(shape: Any, target: str) -> list[tuple[str, ...]]:
    """Return the fields of a list of structs whose sums are the numbers of a box or keypoint; none are known: []."""
    if not (isinstance(shape, list) and isinstance(shape[0], tuple)):
        return []
    known = {name.lower(): name for name in reversed(shape[0])}
    names = [next((known[one] for one in side if one in known), None) for side in _SIDES]
    x, y, right, bottom = names
    if x is None or y is None:
        return []
    if target == "keypoints":
        return [(x,), (y,)]
    if right is None or bottom is None:
        return []
    return [
        (x,),
        (y,),
        (x, right) if right.lower() in _LENGTHS else (right,),
        (y, bottom) if bottom.lower() in _LENGTHS else (bottom,),
    ]

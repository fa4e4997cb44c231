"""Columns of Arrow tables that models write, and of pandas that they read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt.errors import DataError
from sparkopt.io.arrow import array_of
from sparkopt.typing import Array

__all__ = ["from_objects", "is_list", "to_arrow"]


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds a list in each row."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def to_arrow(values: Array) -> pa.Array:
    """Return numbers (n,) as doubles, or rows (n, k) as lists of them."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 1:
        return array_of(values)
    n, k = values.shape
    offsets = array_of(np.arange(0, (n + 1) * k, k, dtype=np.int32) if k else np.zeros(n + 1, np.int32))
    return pa.ListArray.from_arrays(offsets, array_of(np.ascontiguousarray(values).reshape(-1)))


def from_objects(values: Sequence[Any], name: str) -> pa.Array:
    """Return features that are lists, arrays or pyspark.ml's Vectors as Arrow: lists, or Spark's structs of Vectors.

    Raises
    ------
    DataError
        For a row that is none of them.
    """
    from pyspark.ml.linalg import SparseVector  # here, since tasks import this module, and no pyspark.ml

    if any(isinstance(value, SparseVector) for value in values):
        return _structs(values, name)
    rows = [None if value is None else _numbers(value, name, row) for row, value in enumerate(values)]
    return pa.array(rows, pa.list_(pa.float64()))


def _numbers(value: Any, name: str, row: int) -> Array:
    try:
        # a dense Vector's numbers; a frame's or a dictionary's are a method
        inside = getattr(value, "values", None)
        found = np.asarray(inside if isinstance(inside, np.ndarray) else value, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.zeros(())
    if found.ndim != 1:
        raise DataError(f"features column {name!r}, row {row} is no list of numbers.")
    return found


STRUCT = pa.struct(
    [
        ("type", pa.int8()),
        ("size", pa.int32()),
        ("indices", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float64())),
    ]
)
"""Spark's type of Vectors, as Arrow has it."""


def _structs(values: Sequence[Any], name: str) -> pa.Array:
    rows: list[Any] = []
    for row, value in enumerate(values):
        if value is None:
            rows.append(None)
        elif hasattr(value, "indices"):
            rows.append({"type": 0, "size": value.size, "indices": value.indices, "values": value.values})
        else:
            rows.append({"type": 1, "size": None, "indices": None, "values": _numbers(value, name, row)})
    return pa.array(rows, STRUCT)

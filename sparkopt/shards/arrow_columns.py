"""A table's columns in the types that tensors have, as Spark's expressions select them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from sparkopt.blocks.parquet import from_decimal

__all__ = ["as_numbers", "plain", "side_by_side"]


def plain(column: pa.Array) -> pa.Array:
    """Return a column without dictionary encoding."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def as_numbers(column: pa.Array, whole: bool) -> pa.Array:
    """Return numbers, or lists of them, as int64 or as float32, as ``expression`` of a field casts Spark's.

    What float32 does not have is rounded, whole numbers above 2**24 too.
    """
    kind = pa.int64() if whole else pa.float32()
    if pa.types.is_decimal(column.type):
        return from_decimal(column).cast(kind)
    if not _is_list(column.type):
        return column.cast(kind, safe=whole)
    innermost = column.type
    while _is_list(innermost):
        innermost = innermost.value_type
    if not pa.types.is_decimal(innermost):
        return column.cast(_lists_of(column.type, kind), safe=whole)
    lists = column.cast(_lists_of(column.type, innermost)).take(pa.array(np.arange(len(column))))  # begins at 0
    missing = lists.is_null() if lists.null_count else None
    return pa.ListArray.from_arrays(lists.offsets, as_numbers(lists.values, whole), mask=missing)


def _is_list(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_one(kind) for is_one in kinds)


def _lists_of(kind: pa.DataType, innermost: pa.DataType) -> pa.DataType:
    return pa.list_(_lists_of(kind.value_type, innermost)) if _is_list(kind) else innermost


def side_by_side(columns: list[pa.Array]) -> pa.Array:
    """Return columns of numbers as one of lists, in which nulls stay."""
    values = np.stack([column.fill_null(0).to_numpy() for column in columns], axis=1)
    missing = np.stack([column.is_null().to_numpy(zero_copy_only=False) for column in columns], axis=1)
    offsets = np.arange(len(values) + 1, dtype=np.int32) * len(columns)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1), mask=missing.reshape(-1)))

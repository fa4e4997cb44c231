"""Invalid rows: those with null, NaN or infinity in a column that is read; ``handleInvalid`` says what follows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkopt.typing import Array

__all__ = ["HANDLE_INVALID", "finite_rows", "of_valid", "valid_features"]

HANDLE_INVALID = ("error", "skip", "keep")
"""What becomes of invalid rows: an error; left out; or left out of training, and given null when they are scored."""


def finite_rows(batch: pa.RecordBatch, features: str, others: dict[str, bool]) -> Array | None:
    """Return which rows have a finite number in each column; None where all have.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        Rows.
    features : str
        The column of lists or Vectors.
    others : dict of str to bool
        The columns of one value, and whether that is a number: others are only not null.
    """
    valid = valid_features(batch.column(features))
    for name, is_number in others.items():
        found = _finite(batch.column(name)) if is_number else _present(batch.column(name))
        valid = found if valid is None else valid if found is None else valid & found
    return valid


def valid_features(column: pa.Array) -> Array | None:
    """Return which rows of lists, or of Spark's Vectors, are there and have finite entries; None where all do."""
    present = _present(column)
    lists = column.field("values") if pa.types.is_struct(column.type) else column
    flat = lists.flatten()
    numbers = _finite(flat)
    if numbers is None:
        return present
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy()  # lists that are null have no entries in ``flat``
    valid = np.ones(len(column), bool) if present is None else present
    valid[np.repeat(np.arange(len(column)), lengths)[~numbers]] = False
    return valid


def of_valid(score: Callable[[pa.Array], pa.Array], rows: pa.Array, valid: Array | None) -> pa.Array:
    """Return what a function makes of valid rows, and null for the others; None are all valid."""
    if valid is None:
        return score(rows)
    return score(rows.filter(pa.array(valid))).take(pa.array(np.cumsum(valid) - 1, mask=~valid))


def _present(column: pa.Array) -> Array | None:
    """Return which values are not null; None where all are."""
    if not column.null_count:
        return None
    found: Array = column.is_valid().to_numpy(zero_copy_only=False)
    return found.copy()


def _finite(column: pa.Array) -> Array | None:
    """Return which numbers are finite; None where all are."""
    values = column.to_numpy(zero_copy_only=False)
    if not column.null_count and np.isfinite(values.sum()):  # one cheap test; only a sum that overflows needs another
        return None
    found: Array = np.isfinite(values) if values.dtype.kind == "f" else column.is_valid().to_numpy(False)
    return None if found.all() else found

"""Invalid rows: those with null, NaN or infinity in a column that is read; ``handleInvalid`` says what follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkopt.errors import DataError
from sparkopt.io.arrow import fixed_width_values
from sparkopt.matrices import Features, PartlyDense
from sparkopt.typing import Array

__all__ = [
    "HANDLE_INVALID",
    "InvalidRowError",
    "finite_features",
    "finite_numbers",
    "finite_rows",
    "invalid_entry",
    "of_valid",
    "valid_features",
]

HANDLE_INVALID = ("error", "skip", "keep")
"""What becomes of invalid rows: an error; left out; or left out of training, and given null when they are scored."""


SCORING_HINT = "Set handleInvalid='keep' for a null prediction, or 'skip' to leave such rows out."


class InvalidRowError(DataError):
    """An invalid row among those that are scored: which column, where, and what it holds.

    Parameters
    ----------
    column : str
        The column, with its role.
    row : int
        Number of the row among those that were given.
    problem : str
        What is wrong with it.
    """

    def __init__(self, column: str, row: int, problem: str) -> None:
        super().__init__(f"{column}, row {row} {problem}. {SCORING_HINT}")
        self._parts = column, row, problem

    def at(self, where: str, first: int) -> DataError:
        """Return the error of the rows that begin at row ``first`` of a partition."""
        column, row, problem = self._parts
        return DataError(f"{column}, {where}, row {first + row} {problem}. {SCORING_HINT}")


def invalid_entry(column: pa.Array, features: str | Sequence[str]) -> InvalidRowError | None:
    """Return the error of the first row of lists or Vectors that is null or has an entry that is not finite.

    Parameters
    ----------
    column : pyarrow.Array
        Lists, or Spark's Vectors.
    features : str or sequence of str
        The column that it is, or those that its entries are.
    """
    valid = valid_features(column)
    if valid is None:
        return None
    row = int(np.flatnonzero(~valid)[0])
    value = column[row].as_py()
    names = [features] if isinstance(features, str) else list(features)
    if value is None:
        return InvalidRowError(f"features column {', '.join(names)!r}", row, "is null")
    entries = value["values"] if isinstance(value, dict) else value
    place, entry = next((i, one) for i, one in enumerate(entries) if one is None or not np.isfinite(one))
    if isinstance(value, dict) and value["indices"] is not None:
        place = value["indices"][place]
    shown = "null" if entry is None else str(entry)
    if isinstance(features, str) or len(names) != len(entries):
        return InvalidRowError(f"features column {', '.join(names)!r}", row, f"is {shown} at feature {place}")
    return InvalidRowError(f"features column {names[place]!r}", row, f"is {shown}")


def finite_rows(batch: pa.RecordBatch, features: Array | None, others: dict[str, bool]) -> Array | None:
    """Return which rows have a finite number in each column; None where all have.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        Rows.
    features : ndarray of bool or None
        Which have finite features; None are all.
    others : dict of str to bool
        The columns of one value, and whether that is a number: others are only not null.
    """
    valid = features
    for name, is_number in others.items():
        found = _finite(batch.column(name)) if is_number else _present(batch.column(name))
        valid = found if valid is None else valid if found is None else valid & found
    return valid


def finite_features(X: Features) -> Array | None:
    """Return which rows of features are finite; None where all are."""
    if isinstance(X, PartlyDense):
        parts = [X.dense] if X.has_ones else [X.dense, X.rest]
        found = [valid for valid in map(finite_features, parts) if valid is not None]
        return np.logical_and.reduce(found) if found else None
    stored = X if isinstance(X, np.ndarray) else X.data
    if np.isfinite(stored.sum()):  # one cheap test; only a sum that overflows needs another
        return None
    finite = np.isfinite(stored)
    if finite.all():
        return None
    if isinstance(X, np.ndarray):
        return np.asarray(finite.all(axis=1))
    valid = np.ones(X.shape[0], bool)
    valid[np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))[~finite]] = False
    return valid


def finite_numbers(batch: pa.RecordBatch, numbers: Sequence[str], present: str) -> Array | None:
    """Return which rows have a finite number in some columns, and anything in another; None where all have."""
    valid = _present(batch.column(present))
    for name in numbers:
        found = _finite(batch.column(name))
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
    # lists that are null have no entries in ``flat``
    lengths = fixed_width_values(pc.list_value_length(lists).fill_null(0))
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
    found: Array = fixed_width_values(column.is_valid())
    return found.copy()


def _finite(column: pa.Array) -> Array | None:
    """Return which numbers are finite; None where all are."""
    values = column.to_numpy(zero_copy_only=False) if column.null_count else fixed_width_values(column)
    if not column.null_count and np.isfinite(values.sum()):  # one cheap test; only a sum that overflows needs another
        return None
    found: Array = np.isfinite(values) if values.dtype.kind == "f" else fixed_width_values(column.is_valid())
    return None if found.all() else found

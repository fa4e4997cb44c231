"""Tables of what is in memory: Arrow, pandas, and pairs (X, y) of NumPy or SciPy, whose memory they share."""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np
import pyarrow as pa
import scipy  # loads scipy.sparse where it is used

from sparkopt.errors import DataError, SchemaError
from sparkopt.machine.part import UNREADABLE, MemoryPart, TablePart

__all__ = [
    "FEATURES",
    "LABEL",
    "arrow_of_pair",
    "arrow_of_pandas",
    "from_arrow",
    "from_pair",
    "from_pandas",
    "parts_of",
    "refuse_names",
]

FEATURES, LABEL = "features", "label"
"""Columns of a pair (X, y), as the estimators' parameters call them by default."""

LEAST_ROWS, LEAST_BYTES, MOST_PARTS = 4096, 1 << 20, 32
"""Of a partition; and of a table. Sums are added by partition, so what they are must not depend on the machine."""


def parts_of(rows: int, size: int) -> list[tuple[int, int]]:
    """Return begin and end of each partition of so many rows and bytes: the same on every machine.

    Examples
    --------
    >>> parts_of(100, 800), len(parts_of(1_000_000, 400_000_000))
    ([(0, 100)], 32)
    """
    count = int(np.clip(min(rows // LEAST_ROWS, size // LEAST_BYTES), 1, MOST_PARTS))
    ends = [rows * part // count for part in range(count + 1)]
    return list(itertools.pairwise(ends))


def from_arrow(rows: pa.Table) -> tuple[pa.Schema, list[TablePart]]:
    """Return schema and partitions of an Arrow table."""
    cuts = parts_of(rows.num_rows, rows.nbytes)
    return rows.schema, [MemoryPart(_span(begin, end), rows.slice(begin, end - begin)) for begin, end in cuts]


def _span(begin: int, end: int) -> str:
    return f"rows {begin:,} to {max(begin, end - 1):,}"


def from_pandas(frame: Any) -> tuple[pa.Schema, list[TablePart]]:
    """Return schema and partitions of a pandas.DataFrame, without its index.

    Raises
    ------
    SchemaError
        For names that are not text, or not unique.
    """
    refuse_names(list(frame.columns))
    return from_arrow(arrow_of_pandas(frame))


def refuse_names(names: list[Any]) -> None:
    """Refuse names of columns that are not text, or not unique."""
    if not all(isinstance(name, str) for name in names):
        odd = next(name for name in names if not isinstance(name, str))
        raise SchemaError(f"the DataFrame has a column {odd!r}; columns need names that are text: rename it.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SchemaError(f"the DataFrame has several columns {twice!r}: rename all but one.")


def arrow_of_pandas(frame: Any) -> pa.Table:
    """Return the rows of a pandas.DataFrame, whose names are text, without its index."""
    fields, arrays = [], []
    for name in frame.columns:
        field, values = _column(name, frame[name])
        fields.append(field)
        arrays.append(values)
    return pa.table(arrays, schema=pa.schema(fields)) if fields else pa.table({})


def _column(name: str, series: Any) -> tuple[pa.Field, Any]:
    """Return a column of pandas; one that Arrow has no type for keeps the reason, and is refused where it is used."""
    dtype = series.dtype
    try:
        if isinstance(dtype, np.dtype) and dtype.kind in "fiub":  # as it is: a NaN is no null
            values = pa.array(np.asarray(series))
        else:
            values = _of_objects(series)
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = f"{dtype}: {' '.join(str(error).split())}"
        return pa.field(name, pa.null(), metadata={UNREADABLE: reason}), pa.nulls(len(series))
    return pa.field(name, values.type), values


def _of_objects(series: Any) -> pa.Array:
    """Return a column, with paths of pathlib, which Arrow has no type for, as text."""
    try:
        return pa.array(series, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        if not any(isinstance(value, os.PathLike) for value in series):
            raise
    texts = [os.fspath(value) if isinstance(value, os.PathLike) else value for value in series]
    return pa.array(texts, from_pandas=True)


def from_pair(X: Any, y: Any) -> tuple[pa.Schema, list[TablePart]]:
    """Return schema and partitions of features and labels: columns "features" and "label".

    Parameters
    ----------
    X : array-like or sparse array of shape (n, features)
        Numbers; float32 stays float32.
    y : array-like of shape (n,)
        Labels.

    Raises
    ------
    DataError
        Naming what does not fit.
    """
    labels = _labels(y)
    if scipy.sparse.issparse(X):
        rows, features = _canonical(scipy.sparse.csr_array(X)), _vectors
    else:
        rows, features = _matrix(X), _lists
    if rows.ndim != 2:
        raise DataError(f"X has shape {rows.shape}; it must be (rows, features).")
    if rows.shape[0] != len(labels):
        raise DataError(f"X has {rows.shape[0]:,} rows and y has {len(labels):,} labels; they must be as many.")
    size = rows.data.nbytes + rows.indices.nbytes if scipy.sparse.issparse(rows) else rows.nbytes
    parts = list[TablePart]()
    for begin, end in parts_of(len(labels), size + labels.nbytes):
        arrays = {FEATURES: features(rows, begin, end), LABEL: pa.array(labels[begin:end])}
        parts.append(MemoryPart(_span(begin, end), pa.table(arrays)))
    return parts[0].held.schema, parts  # type: ignore[attr-defined]


def arrow_of_pair(X: Any, y: Any) -> pa.Table:
    """Return the rows of features and labels, in one table."""
    return pa.concat_tables([part.held for part in from_pair(X, y)[1]])  # type: ignore[attr-defined]


def _labels(y: Any) -> np.ndarray[Any, Any]:
    labels = np.asanyarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"y has shape {labels.shape}; it must be (rows,).")
    if labels.dtype.kind not in "fiub":
        raise DataError(f"y has type {labels.dtype}; labels must be numbers.")
    return np.ascontiguousarray(_native(labels, "y"))


def _matrix(X: Any) -> np.ndarray[Any, Any]:
    try:
        rows = np.asanyarray(X)
    except ValueError as error:  # lists of different lengths
        raise DataError(f"X is no matrix: {' '.join(str(error).split())}") from None
    if rows.dtype.kind not in "fiub":
        raise DataError(f"X has type {rows.dtype}; features must be numbers.")
    return _native(rows, "X")


def _native(values: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """Return numbers as Arrow has them: in this machine's byte order, floats of 64 bits at most, none hidden."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataError(f"{name} is a masked array with hidden entries: fill them, or leave out their rows.")
    if values.dtype.itemsize > 8:
        return values.astype(np.float64)
    return np.asarray(values, values.dtype.newbyteorder("="))


def _canonical(X: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Return the rows with each entry once, in the order of features, as Spark's Vectors have them."""
    if X.has_canonical_format:
        return X
    X = X.copy()
    X.sum_duplicates()
    return X


def _lists(X: np.ndarray[Any, Any], begin: int, end: int) -> pa.Array:
    """Return rows of a matrix as lists; those of a matrix in C order share its memory."""
    flat = pa.array(np.ascontiguousarray(X[begin:end]).reshape(-1))
    width = X.shape[1]
    if not width:  # Arrow's lists of a fixed size of 0 do not know how many they are
        return pa.ListArray.from_arrays(pa.array(np.zeros(end - begin + 1, np.int32)), flat)
    return pa.FixedSizeListArray.from_arrays(flat, width)


def _vectors(X: scipy.sparse.csr_array, begin: int, end: int) -> pa.Array:
    """Return sparse rows as Spark's Vector structs."""
    rows = end - begin
    first, last = X.indptr[begin], X.indptr[end]
    offsets = pa.array((X.indptr[begin : end + 1] - first).astype(np.int32))
    indices = pa.array(X.indices[first:last].astype(np.int32, copy=False))
    values = X.data[first:last]
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    return pa.StructArray.from_arrays(
        [
            pa.array(np.zeros(rows, np.int8)),
            pa.array(np.full(rows, X.shape[1], np.int32)),
            pa.ListArray.from_arrays(offsets, indices),
            pa.ListArray.from_arrays(offsets, pa.array(values)),
        ],
        ["type", "size", "indices", "values"],
    )

"""Spark's Vectors on their way to Python: each as one array of doubles, since structs cost several times as much.

A dense Vector is its values. A sparse one is its size, its indices and its values, one after the other.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import scipy  # loads scipy.sparse where it is used
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkopt.errors import DataError
from sparkopt.io.arrow import fixed_width_values
from sparkopt.typing import Array

__all__ = ["KIND", "packed", "unpacked"]

KIND = "kind"
"""The column that says what a row's Vector is: 0 sparse, 1 dense."""


def packed(df: DataFrame, name: str) -> DataFrame:
    """Return a DataFrame whose column of Vectors is one of arrays, and that has ``KIND`` as its last column."""
    from pyspark.ml.functions import vector_to_array  # here, since it loads pandas and tasks import this module

    vector = F.unwrap_udt(F.col(name))
    kind = vector.getField("type")
    dense: Column = vector_to_array(F.col(name))
    size, indices = F.array(vector.getField("size").cast("double")), vector.getField("indices").cast("array<double>")
    array = F.when(kind == 1, dense).otherwise(F.concat(size, indices, vector.getField("values")))
    others = [F.col(other) for other in df.columns if other != name]
    return df.select(array.alias(name), *others, kind.alias(KIND))


def unpacked(column: pa.Array, kind: Array) -> scipy.sparse.csr_array:
    """Return packed Vectors, of which some are sparse, as a matrix.

    Parameters
    ----------
    column : pyarrow.Array
        Lists of doubles, as ``packed`` makes them.
    kind : ndarray of shape (n,)
        0 for a sparse row, 1 for a dense one.

    Raises
    ------
    DataError
        For rows of different lengths; the message starts with the row's number.

    Examples
    --------
    >>> import numpy as np, pyarrow as pa
    >>> rows = pa.array([[3.0, 1.0, 5.0], [7.0, 8.0, 9.0]])  # a 5 at index 1 of 3; 7, 8, 9
    >>> unpacked(rows, np.array([0, 1])).toarray()
    array([[0., 5., 0.],
           [7., 8., 9.]])
    """
    flat = fixed_width_values(column.flatten())
    ends = fixed_width_values(column.offsets) - column.offsets[0].as_py()
    lengths, is_sparse = np.diff(ends), kind == 0
    widths = lengths.copy()
    widths[is_sparse] = flat[ends[:-1][is_sparse]]
    if (widths != widths[0]).any():
        row = int(np.flatnonzero(widths != widths[0])[0])
        raise DataError(f"row {row} has {widths[row]} entries where the rows before it have {widths[0]}")
    stored = np.where(is_sparse, (lengths - 1) // 2, lengths)
    place = np.arange(len(flat)) - np.repeat(ends[:-1], lengths)
    of_sparse, last = np.repeat(is_sparse, lengths), np.repeat(stored, lengths)
    is_index = of_sparse & (place > 0) & (place <= last)
    is_value = ~of_sparse | (place > last)
    indices = np.empty(int(stored.sum()), np.int32)
    from_sparse = np.repeat(is_sparse, stored)
    indices[from_sparse] = flat[is_index]
    indices[~from_sparse] = np.tile(np.arange(widths[0], dtype=np.int32), int((~is_sparse).sum()))
    indptr = np.concatenate([[0], np.cumsum(stored)]).astype(np.int32)
    return scipy.sparse.csr_array((flat[is_value], indices, indptr), shape=(len(kind), int(widths[0])))

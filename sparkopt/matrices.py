"""Rows with words and numbers: the numbers are a matrix, and the words' features are sparse.

As sparse rows alone, each number comes with an index of four bytes, and each one that says that a word is there with
eight bytes of a value. Apart, the numbers are a matrix that BLAS multiplies, and ones need no values: a pass reads
half the bytes, and nothing has to be sorted while rows are encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import scipy  # loads scipy.sparse where it is used
from numpy.typing import NDArray

from sparkopt.typing import Array

__all__ = ["Features", "PartlyDense", "as_csr", "nbytes_of", "squared", "stored_by_row"]


class PartlyDense:
    """Rows of which some columns are a matrix, and the entries of the others sparse.

    It takes part in products as a ``csr_array`` does, and is indexed by rows.

    Parameters
    ----------
    columns : ndarray of shape (d,)
        Numbers of the dense columns, ascending.
    dense : ndarray of shape (n, d)
        Their values.
    rest : csr_array of shape (n, features)
        The other entries; none is in a dense column.
    has_ones : bool, default False
        Whether all other entries are ones, which are not stored for each block.
    """

    def __init__(
        self,
        columns: NDArray[np.int32],
        dense: Array,
        rest: scipy.sparse.csr_array,
        has_ones: bool = False,
    ) -> None:
        self.columns, self.dense, self.rest, self.has_ones = columns, dense, rest, has_ones

    @classmethod
    def of_ones(
        cls,
        columns: NDArray[np.int32],
        dense: Array,
        indices: NDArray[np.int32],
        starts: NDArray[np.int32],
        features: int,
    ) -> PartlyDense:
        """Return rows whose other entries are ones, at ``indices`` from ``starts`` on, (n + 1,)."""
        parts = _ones(len(indices), dense.dtype), indices, starts
        return cls(columns, dense, scipy.sparse.csr_array(parts, shape=(len(dense), features), copy=False), True)

    @classmethod
    def joined(cls, pieces: Sequence[PartlyDense]) -> PartlyDense:
        """Return the rows of some pieces, which have the same dense columns, one after another."""
        first = pieces[0]
        dense = np.concatenate([piece.dense for piece in pieces])
        has_ones = all(piece.has_ones for piece in pieces)
        if not has_ones:
            rest = scipy.sparse.vstack([piece.rest for piece in pieces], format="csr")
            return cls(first.columns, dense, rest)
        indices = np.concatenate([piece.rest.indices for piece in pieces])
        before = np.cumsum([0, *(piece.rest.nnz for piece in pieces)], dtype=np.int32)
        starts = [piece.rest.indptr[:-1] + begin for piece, begin in zip(pieces, before, strict=False)]
        return cls.of_ones(first.columns, dense, indices, np.concatenate([*starts, before[-1:]]), first.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and features."""
        rows, features = self.rest.shape
        return int(rows), int(features)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self.dense.dtype

    @property
    def nnz(self) -> int:
        """Number of entries that are stored."""
        return self.dense.size + int(self.rest.nnz)

    def __matmul__(self, matrix: Array) -> Array:
        """Return the product with a vector (features,) or a matrix (features, k)."""
        found: Array = self.dense @ matrix[self.columns]
        found += self.rest @ matrix
        return found

    def __getitem__(self, rows: Any) -> PartlyDense:
        """Return some of the rows, by a slice or an array of their numbers."""
        if self.has_ones and isinstance(rows, slice) and rows.step in (None, 1):  # without a copy of the ones
            start, stop, _ = rows.indices(len(self.dense))
            starts = self.rest.indptr[start : stop + 1]
            indices = self.rest.indices[starts[0] : starts[-1]]
            return self.of_ones(self.columns, self.dense[rows], indices, starts - starts[0], self.shape[1])
        return PartlyDense(self.columns, self.dense[rows], self.rest[rows], self.has_ones)

    def toarray(self) -> Array:
        """Return the rows with all their zeros."""
        found: Array = self.rest.toarray()
        found[:, self.columns] = self.dense
        return found

    def tocsr(self) -> scipy.sparse.csr_array:
        """Return the rows as sparse ones without zeros, whose entries are in the order of their columns."""
        rows, count = self.dense.shape
        indices = np.tile(self.columns, rows)
        starts = np.arange(rows + 1, dtype=np.int32) * count
        return scipy.sparse.csr_array((self.dense.reshape(-1), indices, starts), shape=self.shape) + self.rest


Features: TypeAlias = "Array | scipy.sparse.csr_array | PartlyDense"
"""Features of a block's rows, shape (n, features)."""


def as_csr(X: Features) -> scipy.sparse.csr_array:
    """Return rows as a ``csr_array``; dense ones store what is not 0."""
    return X.tocsr() if isinstance(X, PartlyDense) else scipy.sparse.csr_array(X)


def nbytes_of(X: Features) -> int:
    """Return the bytes of the arrays of rows."""
    if isinstance(X, np.ndarray):
        return int(X.nbytes)
    if isinstance(X, PartlyDense):
        return int(X.dense.nbytes) + nbytes_of(X.rest) - X.has_ones * int(X.rest.data.nbytes)
    return int(X.data.nbytes + X.indices.nbytes + X.indptr.nbytes)


def squared(X: Features) -> Features:
    """Return the same rows with each value squared."""
    if isinstance(X, np.ndarray):
        return X * X
    if isinstance(X, PartlyDense):
        return PartlyDense(X.columns, X.dense * X.dense, X.rest if X.has_ones else squared(X.rest), X.has_ones)
    return scipy.sparse.csr_array((X.data * X.data, X.indices, X.indptr), shape=X.shape)


def stored_by_row(X: scipy.sparse.csr_array | PartlyDense) -> NDArray[np.integer]:
    """Return how many entries each row stores, shape (n,)."""
    rest, others = (X.rest, X.dense.shape[1]) if isinstance(X, PartlyDense) else (X, 0)
    found: NDArray[np.integer] = np.diff(rest.indptr) + others
    return found


_known: dict[np.dtype[Any], Array] = {}


def _ones(count: int, kind: np.dtype[Any]) -> Array:
    """Return so many ones, which all blocks of a process share; they are not to be written to."""
    known = _known.get(kind)
    if known is None or len(known) < count:
        known = np.ones(max(count, 1 << 16), kind)
        known.flags.writeable = False
        _known[kind] = known
    return known[:count]

"""Encoder: raw columns to a matrix of named features, as a pure function of Arrow arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import scipy  # loads scipy.sparse where it is used

from sparkopt.features.encodings import ColumnEncoding, Entry, restored
from sparkopt.matrices import PartlyDense
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["VECTOR", "Encoder"]

VECTOR = pa.struct(
    [
        ("type", pa.int8()),
        ("size", pa.int32()),
        ("indices", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float64())),
    ]
)
"""Spark's type of Vectors, as Arrow has it."""
DENSE_FROM = 0.25
"""Share of entries from which rows are dense."""
STEP = 1 << 11
"""Rows whose entries are put in order at a time."""

T = TypeVar("T")


@dataclass(frozen=True)
class Encoder:
    """Raw columns to features. It can be pickled, and saved as JSON.

    Parameters
    ----------
    encodings : tuple of ColumnEncoding
        How each column is encoded.
    terms : tuple of tuple of int
        What the features are, in order: an encoding by its number, or the product of several.
    types : tuple of str, default ()
        Spark's names of the columns' types when the encodings were fitted; none of encoders of earlier versions.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from sparkopt.features import CategoryEncoding, Encoder, NumberEncoding
    >>> encoder = Encoder((NumberEncoding("age", 30.0), CategoryEncoding("town", ("Bonn", "Rome"))), ((0,), (1,)))
    >>> encoder.names
    ['age', 'town=Bonn', 'town=Rome']
    >>> encoder.matrix([pa.array([21, None]), pa.array(["Rome", "Oslo"])]).tolist()
    [[21.0, 0.0, 1.0], [30.0, 0.0, 0.0]]
    """

    encodings: tuple[ColumnEncoding, ...]
    terms: tuple[tuple[int, ...], ...]
    types: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return tuple(encoding.column for encoding in self.encodings)

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns that were text when the encodings were fitted."""
        known = zip(self.columns, self.types, strict=False)
        return tuple(name for name, kind in known if kind.partition("(")[0] in ("string", "varchar", "char"))

    @property
    def names(self) -> list[str]:
        """Names of the features."""
        found: list[str] = []
        for term in self.terms:
            names = self.encodings[term[0]].names
            for other in term[1:]:
                names = [f"{left}:{right}" for left in names for right in self.encodings[other].names]
            found += names
        return found

    @property
    def width(self) -> int:
        """Number of features."""
        return sum(self._widths)

    @cached_property
    def _widths(self) -> list[int]:
        sizes = [len(encoding.names) for encoding in self.encodings]
        return [int(np.prod([sizes[number] for number in term])) for term in self.terms]

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # without what is cached

    def matrix(self, columns: Sequence[pa.Array]) -> Array | PartlyDense:
        """Return the features of some rows: dense where a quarter of them are entries, else numbers alone are.

        Parameters
        ----------
        columns : sequence of pyarrow.Array
            The columns of ``columns``, in their order.

        Raises
        ------
        DataError
            For a value that does not fit its column's encoding.
        """
        return self._arranged(columns, _partly_dense)

    def _arranged(
        self, columns: Sequence[pa.Array], sparse: Callable[[list[Entry], tuple[int, int]], T]
    ) -> Array | T:
        """Return the features as a matrix, or what ``sparse`` makes of their entries where these are few."""
        rows = len(columns[0])
        known = [encoding.entries(values) for encoding, values in zip(self.encodings, columns, strict=True)]
        entries, start = list[Entry](), 0
        for term, width in zip(self.terms, self._widths, strict=True):
            entries += [entry.at(start) for entry in self._of_term(term, known)]
            start += width
        arrange = _dense if len(entries) >= DENSE_FROM * start else sparse
        return arrange(entries, (rows, start))

    def _of_term(self, term: tuple[int, ...], known: Sequence[list[Entry]]) -> list[Entry]:
        """Return the entries of one encoding, or of a product of several, in the order of their features."""
        found = known[term[0]]
        for number in term[1:]:
            width = len(self.encodings[number].names)
            found = [left.times(right, width) for left in found for right in known[number]]
        return found

    def vectors(self, columns: Sequence[pa.Array]) -> pa.StructArray:
        """Return the features of some rows as Spark's Vectors."""
        X = self._arranged(columns, _sparse)
        rows = X.shape[0]
        if isinstance(X, np.ndarray):
            offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * self.width)
            values = pa.ListArray.from_arrays(offsets, pa.array(X.reshape(-1)))
            parts = [pa.array(np.ones(rows, np.int8)), pa.nulls(rows, pa.int32()), pa.nulls(rows, VECTOR[2].type)]
            return pa.StructArray.from_arrays([*parts, values], fields=list(VECTOR))
        offsets = pa.array(X.indptr.astype(np.int32))
        indices, values = (pa.ListArray.from_arrays(offsets, pa.array(part)) for part in (X.indices, X.data))
        kind, size = pa.array(np.zeros(rows, np.int8)), pa.array(np.full(rows, self.width, np.int32))
        return pa.StructArray.from_arrays([kind, size, indices, values], fields=list(VECTOR))

    def to_json(self) -> str:
        """Return what describes it."""
        state = {
            "encodings": [encoding.state() for encoding in self.encodings],
            "terms": self.terms,
            "types": self.types,
        }
        return json.dumps(state, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Encoder:
        """Return the encoder that was described.

        Raises
        ------
        DataError
            For an encoding of a newer version.
        """
        state = json.loads(text)
        return cls(
            restored(state["encodings"]), tuple(tuple(term) for term in state["terms"]), tuple(state.get("types", ()))
        )


def _dense(entries: Sequence[Entry], shape: tuple[int, int]) -> Array:
    X: Array = np.zeros((shape[0], shape[1] + 1))  # the last column takes what has no place
    every = np.arange(shape[0])
    for place, value in entries:
        X[every, place] = 1.0 if value is None else value
    return np.ascontiguousarray(X[:, :-1])


def _sparse(entries: Sequence[Entry], shape: tuple[int, int]) -> scipy.sparse.csr_array:
    """Return rows without their zeros, a few thousand at a time: those stay in a core's cache."""
    pieces = [
        _sparse_piece(entries, start, min(start + STEP, shape[0])) for start in range(0, max(1, shape[0]), STEP)
    ]
    counts, indices, data = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return scipy.sparse.csr_array((data, indices, starts), shape=shape)


def _sparse_piece(entries: Sequence[Entry], start: int, stop: int) -> tuple[Array, Array, Array]:
    """Return how many entries rows have, and their places and values."""
    indices = np.empty((stop - start, len(entries)), np.int32)
    data = np.ones((stop - start, len(entries)))
    for number, (place, value) in enumerate(entries):
        indices[:, number] = place if isinstance(place, int) else place[start:stop]
        if value is not None:
            data[:, number] = value[start:stop]
    kept = (indices >= 0) & (data != 0)
    return kept.sum(axis=1), indices[kept], data[kept]


def _partly_dense(entries: Sequence[Entry], shape: tuple[int, int]) -> PartlyDense:
    """Return rows with their numbers as a matrix; categories, and numbers for each category, are sparse."""
    numbers = [entry for entry in entries if isinstance(entry.place, int)]
    others = [entry for entry in entries if not isinstance(entry.place, int)]
    columns, dense = np.array([place for place, _ in numbers], np.int32), np.empty((shape[0], len(numbers)))
    for number, (_, value) in enumerate(numbers):
        dense[:, number] = value
    if any(value is not None for _, value in others):
        return PartlyDense(columns, dense, _sparse(others, shape))
    indices = np.empty((shape[0], len(others)), np.int32)
    for number, (place, _) in enumerate(others):
        indices[:, number] = place
    kept = indices >= 0
    starts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    return PartlyDense.of_ones(columns, dense, indices[kept], starts, shape[1])

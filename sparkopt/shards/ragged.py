"""Rows of unlike lengths: sparse vectors, and lists that become rectangles batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["Ragged", "RowArray", "joined"]


@dataclass(frozen=True)
class Ragged:
    """Rows that are one after the other in one array; a slice, an order or a mask chooses some, as of an array.

    Parameters
    ----------
    values : ndarray of shape (entries, …)
        The entries of all rows.
    offsets : ndarray of shape (rows + 1,)
        Row i has the entries ``offsets[i]`` to ``offsets[i + 1] - 1``.
    places : ndarray of shape (entries,) or None, default None
        Of vectors of which some are sparse: the column of each entry.
    width : int, default 0
        Of vectors: the number of columns; 0 are lists.

    Examples
    --------
    >>> import numpy as np
    >>> rows = Ragged(np.array([5.0, 7.0]), np.array([0, 0, 2]), np.array([1, 2], np.int32), 3)
    >>> rows.dense()
    array([[0., 0., 0.],
           [0., 5., 7.]])
    >>> values, mask = Ragged(np.array([1, 2, 3]), np.array([0, 1, 3])).padded()
    >>> values.tolist(), mask.tolist()
    ([[1, 0], [2, 3]], [[True, False], [True, True]])
    """

    values: Array
    offsets: Array
    places: Array | None = None
    width: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, chosen: slice | Array) -> Ragged:
        if isinstance(chosen, slice):
            start, stop, _ = chosen.indices(len(self))
            ends = self.offsets[start : max(start, stop) + 1]
            entries: slice | Array = slice(ends[0], ends[-1])
            return self._of(entries, ends - ends[0])
        order = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        lengths = self.lengths[order]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        return self._of(np.arange(ends[-1]) + np.repeat(self.offsets[order] - ends[:-1], lengths), ends)

    def _of(self, entries: slice | Array, offsets: Array) -> Ragged:
        places = None if self.places is None else self.places[entries]
        return Ragged(self.values[entries], offsets, places, self.width)

    @property
    def is_list(self) -> bool:
        """Whether the rows are lists, and not vectors."""
        return self.width == 0

    @property
    def lengths(self) -> Array:
        """Entries of each row."""
        found: Array = np.diff(self.offsets)
        return found

    @property
    def spec(self) -> tuple[tuple[int, ...], str]:
        """Shape of a row, -1 where it differs, and type."""
        shape = (-1, *self.values.shape[1:]) if self.is_list else (self.width,)
        return shape, self.values.dtype.name

    @property
    def row_bytes(self) -> Array:
        """Bytes of each row in a store: of a sparse vector that has all columns, only its values."""
        entry = self.values.itemsize * int(np.prod(self.values.shape[1:]))
        if self.places is None:
            return self.lengths * entry
        return self.lengths * entry + np.where(self._is_full, 0, self.lengths * self.places.itemsize)

    @property
    def _is_full(self) -> Array:
        full: Array = self.lengths == self.width
        return full

    def dense(self) -> Array:
        """Return vectors as an array (rows, width)."""
        if self.places is None:
            return self.values.reshape(-1, self.width)
        found = np.zeros((len(self), self.width), self.values.dtype)
        found[np.repeat(np.arange(len(self)), self.lengths), self.places] = self.values
        return found

    def padded(self) -> tuple[Array, Array]:
        """Return lists as an array (rows, longest, …), with zeros at the end, and which of its entries are theirs."""
        mask = np.arange(max(1, int(self.lengths.max(initial=0))))[None, :] < self.lengths[:, None]
        found = np.zeros((*mask.shape, *self.values.shape[1:]), self.values.dtype)
        found[mask] = self.values
        return found, mask

    def encoded(self) -> pa.Array:
        """Return the rows as a store holds them: lists, or structs of places and values."""
        entries: pa.Array = pa.array(np.ascontiguousarray(self.values).reshape(-1))
        if self.values.ndim > 1:
            entries = pa.FixedSizeListArray.from_arrays(entries, int(np.prod(self.values.shape[1:])))
        values = pa.ListArray.from_arrays(pa.array(self.offsets.astype(np.int32)), entries)
        if self.is_list:
            return values
        lengths, kept = np.where(self._is_full, 0, self.lengths), np.empty(0, np.int32)
        if self.places is not None:
            kept = self.places[np.repeat(~self._is_full, self.lengths)]
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        places = pa.ListArray.from_arrays(pa.array(ends), pa.array(kept))
        return pa.StructArray.from_arrays([places, values], ["places", "values"])

    @classmethod
    def decoded(cls, column: pa.Array, shape: tuple[int, ...]) -> Ragged | Array:
        """Return what was ``encoded``; vectors of which none is sparse as one array.

        Parameters
        ----------
        column : pyarrow.Array
            Rows of a store.
        shape : tuple of int
            Of a row, as in ``spec``.
        """
        if not pa.types.is_struct(column.type):
            values, offsets = _entries(column)
            return cls(values.reshape(-1, *shape[1:]), offsets)
        (places, _), (values, offsets) = (_entries(one) for one in column.flatten())
        if len(values) == len(column) * shape[0] and not len(places):
            return values.reshape(-1, *shape)
        return _with_places(values, offsets, places, shape[0])


def _entries(column: pa.ListArray) -> tuple[Array, Array]:
    """Return the entries of lists, and where each list begins."""
    entries, offsets = column.flatten(), column.offsets.to_numpy()
    inner = entries.flatten() if pa.types.is_fixed_size_list(entries.type) else entries
    return inner.to_numpy(), (offsets - offsets[0]).astype(np.int64)


def _with_places(values: Array, offsets: Array, places: Array, width: int) -> Ragged:
    """Return sparse vectors; those with all columns have no places yet."""
    lengths = np.diff(offsets)
    of_full = np.repeat(lengths == width, lengths)
    found = np.empty(len(values), np.int32)
    found[~of_full] = places
    found[of_full] = np.tile(np.arange(width, dtype=np.int32), int((lengths == width).sum()))
    return Ragged(values, offsets, found, width)


RowArray: TypeAlias = "Array | Ragged"
"""Rows of a column, (rows, …)."""


def joined(parts: Sequence[RowArray]) -> RowArray:
    """Return rows one after the other: sparse vectors where some are, and the others are dense."""
    if len(parts) == 1:
        return parts[0]
    arrays = [one for one in parts if isinstance(one, np.ndarray)]
    if len(arrays) == len(parts):
        return np.concatenate(arrays)
    ragged = [_sparse(one) if isinstance(one, np.ndarray) else one for one in parts]
    starts = np.cumsum([0, *(len(one.values) for one in ragged)])
    offsets = [one.offsets[1:] + start for one, start in zip(ragged, starts[:-1], strict=True)]
    places = [one.places for one in ragged if one.places is not None]
    values, ends = np.concatenate([one.values for one in ragged]), np.concatenate([[0], *offsets])
    return Ragged(values, ends, np.concatenate(places) if places else None, ragged[0].width)


def _sparse(rows: Array) -> Ragged:
    """Return vectors as sparse ones with all columns."""
    count, width = rows.shape
    places = np.tile(np.arange(width, dtype=np.int32), count)
    return Ragged(rows.reshape(-1), np.arange(count + 1) * width, places, width)

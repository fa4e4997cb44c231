"""Spark's xxhash64 of Arrow columns: rows are divided alike with and without Spark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparkopt.errors import SchemaError
from sparkopt.io.arrow import fixed_width_values
from sparkopt.values import dataclass

__all__ = ["xxhash64"]

Words: TypeAlias = "NDArray[np.uint64]"
Rows: TypeAlias = "NDArray[np.int64]"

_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(prime)
    for prime in (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
)
SEED = 42
"""Spark's own: that of its function ``xxhash64``."""


def xxhash64(columns: Sequence[pa.Array], seed: int = SEED) -> NDArray[np.int64]:
    """Return, for each row, what Spark's ``xxhash64`` gives for these columns.

    Parameters
    ----------
    columns : sequence of pyarrow.Array
        Of equal lengths: numbers, booleans, dates, timestamps, text, bytes, lists and structs (pyspark.ml's Vectors
        are structs). A null leaves the hash as it was.
    seed : int, default 42
        What the first column's hash begins with.

    Raises
    ------
    SchemaError
        For a column of another type.

    Examples
    --------
    >>> import pyarrow as pa
    >>> xxhash64([pa.array([1, 2, None], pa.int32())]).tolist()
    [-6698625589789238999, 8420071140774656230, 42]
    """
    rows = len(columns[0])
    found = np.full(rows, np.int64(seed)).view(np.uint64)
    every = np.arange(rows)
    with np.errstate(over="ignore"):
        for column in columns:
            found = _node(column).hashed(every, found)
    return found.view(np.int64)


class _Node:
    """A column, or a part of one."""

    valid: NDArray[np.bool_] | None

    def hashed(self, rows: Rows, start: Words) -> Words:
        """Return the hashes of some rows, which begin with ``start``."""
        if self.valid is None or (valid := self.valid[rows]).all():
            return self.values_hashed(rows, start)
        found = start.copy()
        found[valid] = self.values_hashed(rows[valid], start[valid])
        return found

    def values_hashed(self, rows: Rows, start: Words) -> Words:
        """Do so for rows that are not null."""
        raise NotImplementedError


@dataclass
class _Numbers(_Node):
    """Numbers, as the 4 or 8 bytes that Spark hashes."""

    valid: NDArray[np.bool_] | None
    bits: NDArray[Any]

    def values_hashed(self, rows: Rows, start: Words) -> Words:
        values = self.bits[rows]
        return _of_four(values, start) if values.itemsize == 4 else _of_eight(values, start)


@dataclass
class _Lists(_Node):
    """Lists: their entries one after another."""

    valid: NDArray[np.bool_] | None
    starts: Rows
    lengths: Rows
    entries: _Node

    def values_hashed(self, rows: Rows, start: Words) -> Words:
        starts, lengths = self.starts[rows], self.lengths[rows]
        shortest, longest = (int(lengths.min()), int(lengths.max())) if len(lengths) else (0, 0)
        found = start
        for entry in range(shortest):
            found = self.entries.hashed(starts + entry, found)
        found = found.copy()
        for entry in range(shortest, longest):
            alive = lengths > entry
            found[alive] = self.entries.hashed(starts[alive] + entry, found[alive])
        return found


@dataclass
class _Structs(_Node):
    """Structs: their fields one after another."""

    valid: NDArray[np.bool_] | None
    fields: list[_Node]

    def values_hashed(self, rows: Rows, start: Words) -> Words:
        for field in self.fields:
            start = field.hashed(rows, start)
        return start


@dataclass
class _Bytes(_Node):
    """Bytes, or text as UTF-8."""

    valid: NDArray[np.bool_] | None
    starts: Rows
    lengths: Rows
    data: NDArray[np.uint8]

    def values_hashed(self, rows: Rows, start: Words) -> Words:
        """All rows at once, the longest first, so that those that are not at their end are the first ones."""
        lengths = self.lengths[rows]
        order = np.argsort(-lengths, kind="stable")
        lengths, at, seed = lengths[order], self.starts[rows][order], start[order]
        hashes = seed + _P5
        long = int((lengths >= 32).sum())
        if long:
            hashes[:long] = self._stripes(at[:long], lengths[:long] // 32, seed[:long])
        hashes += lengths.astype(np.uint64)
        at, rest = at + lengths // 32 * 32, lengths % 32
        for most, kind, update in ((8, "<u8", _word), (4, "<u4", _half_word), (1, "u1", _byte)):
            while (more := np.flatnonzero(rest >= most)).size:
                hashes[more] = update(hashes[more], self._read(at[more], most, kind)[:, 0])
                at[more] += most
                rest[more] -= most
        found = np.empty_like(hashes)
        found[order] = _mixed(hashes)
        return found

    def _stripes(self, at: Rows, stripes: Rows, seed: Words) -> Words:
        sums = np.stack([seed + _P1 + _P2, seed + _P2, seed, seed - _P1], axis=1)
        for stripe in range(int(stripes[0])):
            alive = int(np.searchsorted(-stripes, -stripe))
            words = self._read(at[:alive] + 32 * stripe, 32, "<u8")
            sums[:alive] = _turned(sums[:alive] + words * _P2, 31) * _P1
        found = np.zeros(len(at), np.uint64)
        for lane, turn in enumerate((1, 7, 12, 18)):
            found += _turned(sums[:, lane], turn)
        for lane in range(4):
            found = (found ^ (_turned(sums[:, lane] * _P2, 31) * _P1)) * _P1 + _P4
        return found

    def _read(self, at: Rows, size: int, kind: str) -> NDArray[Any]:
        """Return ``size`` bytes from each position, as numbers."""
        found: NDArray[Any] = self.data[at[:, None] + np.arange(size)].view(kind)
        return found


def _node(column: pa.Array) -> _Node:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _node(column.dictionary_decode())
    if isinstance(kind, pa.ExtensionType):
        return _node(column.storage)
    valid = None if not column.null_count else np.asarray(column.is_valid())
    if pa.types.is_struct(kind):
        return _Structs(valid, [_node(column.field(number)) for number in range(kind.num_fields)])
    if pa.types.is_fixed_size_list(kind):
        starts = (np.arange(len(column)) + column.offset) * kind.list_size
        return _Lists(valid, starts, np.full(len(column), kind.list_size), _node(column.values))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        starts, lengths = _extents(column.offsets.to_numpy())
        return _Lists(valid, starts, lengths, _node(column.values))
    if any(is_one(kind) for is_one in _TEXT):
        _, ends, data = column.buffers()
        width = np.int64 if pa.types.is_large_binary(kind) or pa.types.is_large_string(kind) else np.int32
        offsets = np.frombuffer(ends, width)[column.offset :][: len(column) + 1] if ends else np.zeros(1, width)
        return _Bytes(valid, *_extents(offsets), np.frombuffer(data or b"", np.uint8))
    return _Numbers(valid, _bits(column))


_TEXT: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_string,
    pa.types.is_binary,
    pa.types.is_large_string,
    pa.types.is_large_binary,
)


def _extents(offsets: NDArray[Any]) -> tuple[Rows, Rows]:
    wide = offsets.astype(np.int64)
    return wide[:-1], np.diff(wide)


def _bits(column: pa.Array) -> NDArray[Any]:
    """Return numbers as Spark hashes them: 4 bytes, or 8 of long, double, timestamps and decimals."""
    kind = column.type
    if pa.types.is_decimal(kind) and kind.precision <= 18:
        return _unscaled(column)
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64())
    elif pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif kind == pa.uint32():  # Spark's type for it is wider
        column = column.cast(pa.int64())
    elif kind == pa.float16():
        column = column.cast(pa.float32())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise SchemaError(f"values of type {kind} have no hash; give numbers, text, bytes, lists or structs of them.")
    # to fill nulls and ``to_numpy`` load pandas
    values = fixed_width_values(column.fill_null(0) if column.null_count else column)
    if values.dtype.kind == "f":  # one zero and one NaN
        values = np.where(np.isnan(values), np.array(np.nan, values.dtype), values + 0.0)
        return values.view(np.uint32 if values.itemsize == 4 else np.uint64)
    if values.itemsize == 8:
        return values.view(np.uint64)
    return values.astype(np.int32).view(np.uint32)


def _unscaled(column: pa.Array) -> NDArray[Any]:
    """Return the whole numbers that decimals of at most 18 digits are made of: the lower halves of 16 bytes."""
    whole = column.cast(pa.decimal128(column.type.precision, column.type.scale))
    lower: NDArray[Any] = np.frombuffer(whole.buffers()[1], np.uint64)[::2]
    return lower[whole.offset : whole.offset + len(whole)]


def _turned(words: Words, bits: int) -> Words:
    return (words << np.uint64(bits)) | (words >> np.uint64(64 - bits))


def _word(hashes: Words, words: Words) -> Words:
    return _turned(hashes ^ (_turned(words * _P2, 31) * _P1), 27) * _P1 + _P4


def _half_word(hashes: Words, words: NDArray[Any]) -> Words:
    return _turned(hashes ^ (words.astype(np.uint64) * _P1), 23) * _P2 + _P3


def _byte(hashes: Words, values: NDArray[Any]) -> Words:
    return _turned(hashes ^ (values.astype(np.uint64) * _P5), 11) * _P1


def _of_four(values: NDArray[Any], seed: Words) -> Words:
    return _mixed(_half_word(seed + _P5 + np.uint64(4), values))


def _of_eight(values: NDArray[Any], seed: Words) -> Words:
    return _mixed(_word(seed + _P5 + np.uint64(8), values))


def _mixed(hashes: Words) -> Words:
    hashes = (hashes ^ (hashes >> np.uint64(33))) * _P2
    hashes = (hashes ^ (hashes >> np.uint64(29))) * _P3
    return hashes ^ (hashes >> np.uint64(32))

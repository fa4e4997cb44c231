"""One file of a store that is being written: rows are collected until they make a group."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt.errors import DataError
from sparkopt.io.arrow import binary_values
from sparkopt.io.filesystem import STORAGE_ERRORS, Location
from sparkopt.shards.fields import HINT, Fields
from sparkopt.shards.places import ABOUT_ROWS
from sparkopt.shards.ragged import Ragged, RowArray
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["ShardWriter", "Written"]

GROUP_BYTES, GROUP_ROWS = 1 << 20, 512
"""A group has at most so many: small enough to shuffle well, large enough to be worth a request."""


@dataclass(frozen=True)
class Written:
    """A file that was written, or the error of a partition."""

    split: str = ""
    path: str = ""
    groups: Sequence[int] = ()
    bytes: int = 0
    digest: int = 0
    tensors: str = ""
    error: str | None = None
    skipped: int = 0
    labels: str = ""


class ShardWriter:
    """A shard that is being written: rows are collected until they make a group."""

    def __init__(self, folder: Location, name: str, fields: Fields) -> None:
        self.file, self.name, self.fields = folder.child(name), name, fields
        self.groups: list[int] = []
        self.digest = 0
        self._waiting: list[pa.RecordBatch] = []
        self._sizes: list[Array] = []
        self._tensors: dict[str, tuple[tuple[int, ...], str]] = {}
        self._stream: Any = None
        self._writer: Any = None

    def add(self, columns: dict[str, RowArray | pa.Array]) -> None:
        """Add rows."""
        for name, values in columns.items():
            found = _spec(values)
            if self._tensors.setdefault(name, found) != found:
                title = next(entry.title for entry in self.fields.all if entry.name == name)
                raise DataError(f"column {title!r} has rows of {found} after rows of {self._tensors[name]}. {HINT}")
        self._waiting.append(pa.RecordBatch.from_pydict({name: _encode(values) for name, values in columns.items()}))
        self._sizes.append(_row_sizes(columns))
        self._flush(last=False)

    def result(self, split: str, labels: str) -> Written:
        """Describe the file; ``labels`` are those of the partition."""
        size = self.file.filesystem.get_file_info(self.file.path).size
        tensors = json.dumps(self._tensors, sort_keys=True)
        return Written(split, self.name, self.groups, size, self.digest, tensors, labels=labels)

    def _flush(self, last: bool) -> None:
        """Write the groups that are complete, or at the end all rows.

        Where a group ends depends on its rows, and not on the batches that they came in.
        """
        ends = _group_ends(np.concatenate(self._sizes), last)
        if not ends:
            return
        table = pa.Table.from_batches(self._waiting).combine_chunks()
        for start, end in itertools.pairwise([0, *ends]):
            (batch,) = table.slice(start, end - start).to_batches()
            with self.file.usable():
                if self._writer is None:
                    self._stream = self.file.filesystem.open_output_stream(self.file.path)
                    self._writer = pa.ipc.new_file(self._stream, batch.schema)
                self._writer.write_batch(batch)
            self.groups.append(batch.num_rows)
            self.digest = _digest(batch, self.digest)
        self._waiting = table.slice(ends[-1]).to_batches()
        self._sizes = [np.concatenate(self._sizes)[ends[-1] :]]

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None and self._waiting:
            self._flush(last=True)
        with self.file.usable() if kind is None else contextlib.suppress(*STORAGE_ERRORS):  # the first one is told
            for opened in (self._writer, self._stream):
                if opened is not None:
                    opened.close()


def _spec(values: RowArray | pa.Array) -> tuple[tuple[int, ...], str]:
    if isinstance(values, Ragged):
        return values.spec
    return (values.shape[1:], values.dtype.name) if isinstance(values, np.ndarray) else ((), "bytes")


def _encode(values: RowArray | pa.Array) -> pa.Array:
    if isinstance(values, Ragged):
        return values.encoded()
    if not isinstance(values, np.ndarray):
        return values
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, math.prod(values.shape[1:]))


def _row_sizes(columns: dict[str, RowArray | pa.Array]) -> Array:
    """Return the bytes of each row, without what is about it: where groups end depends on values alone."""
    total: Any = 0
    for values in (found for name, found in columns.items() if name not in ABOUT_ROWS):
        if isinstance(values, Ragged):
            total = total + values.row_bytes
        elif isinstance(values, np.ndarray):
            total = total + np.full(len(values), math.prod(values.shape[1:]) * values.itemsize)
        else:
            total = total + np.diff(_binary_offsets(values))
    return np.asarray(total)


def _binary_offsets(column: pa.Array) -> Array:
    wide = pa.types.is_large_binary(column.type)
    offsets = np.frombuffer(column.buffers()[1], np.int64 if wide else np.int32)
    return offsets[column.offset : column.offset + len(column) + 1].astype(np.int64)


def _group_ends(sizes: Array, last: bool) -> list[int]:
    """Return where groups of rows of these sizes end: at ``GROUP_ROWS`` rows, or before ``GROUP_BYTES`` are exceeded.

    The rows of an unfinished group are left for later, unless these are the ``last`` ones.
    """
    totals, ends, start = np.concatenate([[0], np.cumsum(sizes)]), list[int](), 0
    while start < len(sizes):
        fitting = int(np.searchsorted(totals, totals[start] + GROUP_BYTES, side="right")) - 1
        end = min(max(fitting, start + 1), start + GROUP_ROWS)
        if end >= len(sizes) and not last and end < start + GROUP_ROWS:
            break  # more rows may belong to it
        ends.append(end)
        start = end
    return ends


def _digest(batch: pa.RecordBatch, start: int) -> int:
    """CRC-32 of a batch's values, independent of the buffers that hold them, and of what is about its rows."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        start = start if name in ABOUT_ROWS else _digest_of(column, start)
    return start


def _digest_of(column: pa.Array, start: int) -> int:
    if pa.types.is_struct(column.type):
        for child in column.flatten():
            start = _digest_of(child, start)
        return start
    if pa.types.is_list(column.type):
        lengths = np.diff(column.offsets.to_numpy())
        return _digest_of(column.flatten(), zlib.crc32(lengths.data, start) if len(column.values) else start)
    values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    if not pa.types.is_binary(values.type):
        return zlib.crc32(np.ascontiguousarray(values.to_numpy()).data, start)
    for value in binary_values(values):
        start = zlib.crc32(value, start)  # type: ignore[arg-type]  # a store has no nulls
    return start

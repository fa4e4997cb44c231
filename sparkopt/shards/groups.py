"""The reader of a store: groups of rows, the windows that are shuffled together, and the batches of a stream."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from sparkopt.errors import DataError
from sparkopt.io.arrow import binary_values
from sparkopt.shards.index import TRAINING, Index, TensorSpec
from sparkopt.shards.ragged import Ragged, RowArray, joined
from sparkopt.shards.sampler import EpochSampler, GroupSlice, ShuffleWindow
from sparkopt.typing import Array

__all__ = ["Columns", "RowGroups", "contents", "step_columns"]

Columns: TypeAlias = "dict[str, RowArray]"
"""Rows of each column; encoded images as :func:`contents` has them."""

MOST_OPEN = 64
"""Files that a reader keeps open."""


class RowGroups:
    """Reads the row groups of one split; not thread-safe."""

    def __init__(self, index: Index, split: str = TRAINING) -> None:
        self._index, self._split = index, split
        self._folder = index.location
        shards = index.shards(split)
        self._positions = [(shard.path, number) for shard in shards for number in range(len(shard.groups))]
        self._opened: OrderedDict[str, Any] = OrderedDict()

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each group."""
        return tuple(rows for shard in self._index.shards(self._split) for rows in shard.groups)

    def read(self, piece: GroupSlice) -> pa.RecordBatch:
        """Read rows of a group."""
        path, number = self._positions[piece.group]
        batch = self._open(path).get_batch(number)
        return batch.slice(piece.start, piece.stop - piece.start)

    def window(self, window: ShuffleWindow) -> _WindowRows:
        """Read a window's rows, to be taken in their order."""
        table = pa.Table.from_batches([self.read(piece) for piece in window.pieces])
        found: Columns = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            found[name] = joined([_rows_of(part, self._index.tensors[name]) for part in column.chunks])
        return _WindowRows(found, window.order)

    def _open(self, path: str) -> Any:
        if path not in self._opened:
            file = self._folder.child(path)
            try:
                source = pa.memory_map(file.path) if file.is_local else file.filesystem.open_input_file(file.path)
            except FileNotFoundError as error:
                raise DataError(
                    f"{file.path!r} cannot be seen from this machine. Set storePath to storage that the driver "
                    "and every executor share."
                ) from error
            self._opened[path] = pa.ipc.open_file(source)
            while len(self._opened) > MOST_OPEN:
                self._opened.popitem(last=False)
        self._opened.move_to_end(path)
        return self._opened[path]


class _WindowRows:
    """Rows of a window; a slice is copied, so that a batch's rows are in cache when the network is given them."""

    def __init__(self, columns: Columns, order: Array) -> None:
        self._columns, self._order = columns, order

    def __len__(self) -> int:
        return len(self._order)

    def cut(self, start: int, stop: int) -> Columns:
        """Return the columns of rows, in the order of the window."""
        chosen = self._order[start:stop]
        return {
            name: values.take(chosen, axis=0) if isinstance(values, np.ndarray) else values[chosen]
            for name, values in self._columns.items()
        }


def _rows_of(column: pa.Array, spec: TensorSpec) -> RowArray:
    if spec.dtype == "bytes":
        return contents(column)
    if pa.types.is_struct(column.type) or pa.types.is_list(column.type):
        return Ragged.decoded(column, spec.shape)
    values: Array = (column.flatten() if spec.shape else column).to_numpy()
    return values.reshape(-1, *spec.shape)


def step_columns(
    groups: RowGroups, sampler: EpochSampler, stream: int, first_step: int
) -> Iterator[tuple[Columns, int]]:
    """Yield the columns of each step's batch of one stream, and how many of its rows count."""
    size = sampler.batch_size
    step, tail, last = first_step, None, None
    for window in sampler.windows(stream, min(first_step * size, max(sampler.own_rows(stream) - 1, 0))):
        last = groups.window(window)
        rows, start = len(last), max(first_step * size - window.first, 0)
        if tail is not None:
            missing = size - _rows(tail)
            tail = _joined(tail, last.cut(start, min(start + missing, rows)))
            start += missing
            if _rows(tail) < size:
                continue
            yield tail, sampler.counted(stream, step)
            step, tail = step + 1, None
        while rows - start >= size:
            yield last.cut(start, start + size), sampler.counted(stream, step)
            step, start = step + 1, start + size
        if start < rows:
            tail = last.cut(start, rows)
    assert last is not None  # noqa: S101  # every stream has a row
    for rest in range(step, sampler.steps):
        counted = sampler.counted(stream, rest)
        yield (last.cut(0, 1) if counted == 0 or tail is None else _cut(tail, 0, counted)), counted


def _rows(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def _cut(columns: Columns, start: int, stop: int) -> Columns:
    return {name: values[start:stop] for name, values in columns.items()}


def _joined(one: Columns, two: Columns) -> Columns:
    return {name: joined([values, two[name]]) for name, values in one.items()}


def contents(column: pa.Array) -> Array:
    """Return a column of bytes as an array of buffers that share its memory, to be shuffled without a copy."""
    found = np.empty(len(column), object)
    for row, value in enumerate(binary_values(column)):  # one by one: NumPy would read the buffers as sequences
        found[row] = value
    return found

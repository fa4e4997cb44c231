"""Rows on shared storage: Arrow files that executors write once, side by side, and an index of them.

A file holds record batches of bounded size, the *groups*: the least that a rank reads. Files of attempts that failed
stay out of the index, which is written last: a store without one is not a store.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import Column, DataFrame

from sparkopt.deep.fields import HINT, Fields, dense
from sparkopt.deep.index import TRAINING, VALIDATION, Index, Shard, TensorSpec
from sparkopt.errors import DataError
from sparkopt.io.arrow import binary_values
from sparkopt.io.filesystem import Location, resolve
from sparkopt.io.worker import spare_modules
from sparkopt.typing import Array

__all__ = ["write_store"]

GROUP_BYTES, GROUP_ROWS = 1 << 20, 512
"""A group ends where either is reached: small enough to shuffle well, large enough to be worth a request."""

RESULT = "split string, path string, groups array<bigint>, bytes bigint, digest bigint, tensors string, error string"


def write_store(df: DataFrame, fields: Fields, uri: str, validation: Column | None = None) -> Index:
    """Write the rows of ``df``: one job, one file for each partition and split.

    Parameters
    ----------
    df : DataFrame
        The source.
    fields : Fields
        What to write.
    uri : str
        Where; shared by the driver and all executors.
    validation : Column or None, default None
        A boolean: rows where it is true go to the split "validation".

    Raises
    ------
    DataError
        For a row that cannot be trained on, or where there are none; nothing stays behind.
    """
    begin = time.perf_counter()
    folder = resolve(uri, "storePath")
    folder.filesystem.create_dir(folder.path, recursive=True)
    complete = False
    try:
        more = [] if validation is None else [validation.cast("boolean").alias(VALIDATION)]
        selected = fields.select(df, *more)
        found = selected.mapInArrow(_Write(fields, uri), RESULT).collect()
        index = _index(sorted(found, key=lambda row: row.path or ""), fields, uri, time.perf_counter() - begin)
        index.save()
        complete = True
    finally:
        if not complete:
            folder.filesystem.delete_dir(folder.path)
    return index


def _index(found: Sequence[Any], fields: Fields, uri: str, seconds: float) -> Index:
    errors = sorted(row.error for row in found if row.error)
    if errors:
        more = f" ({len(errors) - 1} more partitions have such rows)" if len(errors) > 1 else ""
        raise DataError(errors[0] + more)
    splits: dict[str, list[Shard]] = {TRAINING: [], VALIDATION: []}
    for row in found:
        splits[row.split].append(Shard(row.path, tuple(row.groups), row.bytes, row.digest))
    if not splits[TRAINING]:
        raise DataError("there are no rows to train on: the DataFrame is empty, or all of it is held out.")
    kinds = {row.tensors: row.path for row in found}
    if len(kinds) > 1:
        (one, first), (two, second) = sorted(kinds.items())[:2]
        raise DataError(f"rows differ in shape or type: {first} has {one}, {second} has {two}.")
    tensors = {
        name: TensorSpec(tuple(shape), dtype) for name, (shape, dtype) in json.loads(next(iter(kinds))).items()
    }
    return Index(uri, fields, tensors, tuple(splits[TRAINING]), tuple(splits[VALIDATION]), seconds)


@dataclass(frozen=True)
class _Write:
    """The task that writes a partition: Arrow batches in, one row for each file out."""

    fields: Fields
    uri: str

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None  # noqa: S101  # always there inside a task
        spare_modules()
        partition, attempt = context.partitionId(), context.taskAttemptId()
        folder = resolve(self.uri, "storePath")
        error, row = None, 0
        with ExitStack() as stack:
            files = {
                split: stack.enter_context(_File(folder, f"{split}-{partition:05d}-{attempt}.arrow", self.fields))
                for split in (TRAINING, VALIDATION)
            }
            for batch in batches:
                if error is not None:  # Spark discards a Python worker that has not read all of its input
                    continue
                try:
                    for split, columns in self._split(batch, partition, row):
                        files[split].add(columns)
                    row += batch.num_rows
                except DataError as problem:
                    error = str(problem)
        rows = [file.result(split) for split, file in files.items() if file.groups]
        failed = {**dict.fromkeys(_NAMES), "error": error}
        yield pa.RecordBatch.from_pylist([failed] if error is not None else rows, _RESULT_SCHEMA)

    def _split(self, batch: pa.RecordBatch, partition: int, row: int) -> Iterator[tuple[str, dict[str, Any]]]:
        if not batch.num_rows:
            return
        columns = {}
        for entry in self.fields.all:
            try:
                columns[entry.name] = dense(entry, batch.column(entry.name))
            except DataError as error:
                counted = f", counted from row {row}" if row else ""
                raise DataError(
                    f"{entry.role} column {entry.title!r}, partition {partition}, {error}{counted}. {HINT}"
                ) from None
        if VALIDATION not in batch.schema.names:
            yield TRAINING, columns
            return
        held_out = batch.column(VALIDATION).fill_null(False).to_numpy(zero_copy_only=False)
        for split, chosen in ((TRAINING, ~held_out), (VALIDATION, held_out)):
            if chosen.any():
                yield split, {name: _where(values, chosen) for name, values in columns.items()}


def _where(values: Array | pa.Array, chosen: Array) -> Array | pa.Array:
    return values[chosen] if isinstance(values, np.ndarray) else values.filter(pa.array(chosen))


_NAMES = ("split", "path", "groups", "bytes", "digest", "tensors", "error")
_RESULT_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("path", pa.string()),
        ("groups", pa.list_(pa.int64())),
        ("bytes", pa.int64()),
        ("digest", pa.int64()),
        ("tensors", pa.string()),
        ("error", pa.string()),
    ]
)


class _File:
    """A shard that is being written: rows are collected until they make a group."""

    def __init__(self, folder: Location, name: str, fields: Fields) -> None:
        self.file, self.name, self.fields = folder.child(name), name, fields
        self.groups: list[int] = []
        self.digest = 0
        self._waiting: list[pa.RecordBatch] = []
        self._tensors: dict[str, tuple[tuple[int, ...], str]] = {}
        self._stream: Any = None
        self._writer: Any = None

    def add(self, columns: dict[str, Array | pa.Array]) -> None:
        """Add rows."""
        for name, values in columns.items():
            found = (values.shape[1:], values.dtype.name) if isinstance(values, np.ndarray) else ((), "bytes")
            if self._tensors.setdefault(name, found) != found:
                title = next(entry.title for entry in self.fields.all if entry.name == name)
                raise DataError(f"column {title!r} has rows of {found} after rows of {self._tensors[name]}. {HINT}")
        batch = pa.RecordBatch.from_pydict({name: _encode(values) for name, values in columns.items()})
        self._waiting.append(batch)
        rows, size = sum(b.num_rows for b in self._waiting), sum(b.nbytes for b in self._waiting)
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            group = max(1, min(GROUP_ROWS, GROUP_BYTES * rows // max(1, size)))
            self._flush(rows - rows % group, group)

    def result(self, split: str) -> dict[str, Any]:
        """Describe the file."""
        size = self.file.filesystem.get_file_info(self.file.path).size
        tensors = json.dumps(self._tensors, sort_keys=True)
        values = (split, self.name, self.groups, size, self.digest, tensors, None)
        return dict(zip(_NAMES, values, strict=True))

    def _flush(self, rows: int, group: int) -> None:
        """Write the first ``rows`` waiting rows."""
        table = pa.Table.from_batches(self._waiting).combine_chunks()
        for start in range(0, rows, group):
            (batch,) = table.slice(start, min(group, rows - start)).to_batches()
            if self._writer is None:
                self._stream = self.file.filesystem.open_output_stream(self.file.path)
                self._writer = pa.ipc.new_file(self._stream, batch.schema)
            self._writer.write_batch(batch)
            self.groups.append(batch.num_rows)
            self.digest = _digest(batch, self.digest)
        self._waiting = table.slice(rows).to_batches()

    def __enter__(self) -> _File:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None and (rows := sum(batch.num_rows for batch in self._waiting)):
            self._flush(rows, rows)
        for opened in (self._writer, self._stream):
            if opened is not None:
                opened.close()


def _encode(values: Array | pa.Array) -> pa.Array:
    if not isinstance(values, np.ndarray):
        return values
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, math.prod(values.shape[1:]))


def _digest(batch: pa.RecordBatch, start: int) -> int:
    """CRC-32 of a batch's values, independent of the buffers that hold them."""
    for column in batch.columns:
        values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
        if pa.types.is_binary(values.type):
            for value in binary_values(values):
                start = zlib.crc32(value, start)  # type: ignore[arg-type]  # a store has no nulls
        else:
            start = zlib.crc32(np.ascontiguousarray(values.to_numpy()).data, start)
    return start

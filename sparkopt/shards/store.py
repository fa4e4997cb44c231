"""Rows on shared storage: Arrow files that tasks write once, side by side, and an index of them.

The tasks are Spark's for a DataFrame, and for a table this machine's processes, or those of the framework that holds
the rows: the same function writes the same files, so that a store does not tell who wrote it.

A file holds record batches of bounded size, the *groups*: the least that a rank reads. Files of attempts that failed
stay out of the index, which is written last: a store without one is not a store.
"""

from __future__ import annotations

import functools
import json
import operator
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame

from sparkopt.blocks.failures import data_errors
from sparkopt.errors import DataError
from sparkopt.io.filesystem import Location, resolve
from sparkopt.io.worker import spare_modules
from sparkopt.machine import ProcessPool, Table, TablePart
from sparkopt.shards.dense import dense, stored
from sparkopt.shards.fields import HINT, INVALID_HINT, LABEL, Fields, MissingValueError
from sparkopt.shards.held_out import HeldOut
from sparkopt.shards.index import TRAINING, VALIDATION, Index, LabelFacts, Shard, TensorSpec
from sparkopt.shards.missing import RowCheck
from sparkopt.shards.places import places
from sparkopt.shards.ragged import RowArray
from sparkopt.shards.shard_writer import ShardWriter, Written
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["write_store"]

IN_THIS_PROCESS = 16 << 20
"""Bytes of a table that are written sooner than other processes would be ready."""

RESULT = (
    "split string, path string, groups array<bigint>, bytes bigint, digest bigint, tensors string, error string, "
    "skipped bigint, labels string"
)


def write_store(
    rows: DataFrame | Table,
    fields: Fields,
    uri: str,
    held_out: HeldOut | None = None,
    check: RowCheck | None = None,
    ignored: int | None = None,
) -> Index:
    """Write rows: one job, one file for each partition and split.

    Parameters
    ----------
    rows : DataFrame or Table
        The source.
    fields : Fields
        What to write.
    uri : str
        Where; shared by the driver and all executors.
    held_out : HeldOut or None, default None
        Rows that go to the split "validation".
    check : RowCheck or None, default None
        Finds invalid rows, which are left out; None refuses them.
    ignored : int or None, default None
        A label whose rows do not count.

    Raises
    ------
    DataError
        For a row that cannot be trained on, or where there are none; nothing stays behind.
    ParameterError
        Where the folder cannot be written to: its disk is full, or a right is lacking.
    """
    begin = time.perf_counter()
    folder = resolve(uri, "storePath")
    complete = False
    try:
        with folder.usable():
            folder.make_folder()
        write = _Write(fields, folder, held_out, check, ignored)
        found = _by_processes(rows, write) if isinstance(rows, Table) else _by_tasks(rows, write)
        index = _index(sorted(found, key=lambda row: row.path or ""), fields, uri, time.perf_counter() - begin)
        with folder.usable():
            index.save()
        complete = True
    finally:
        if not complete:
            folder.delete()
    return index


def _by_tasks(rows: DataFrame, write: _Write) -> list[Written]:
    """Let Spark's tasks write."""
    more = [] if write.held_out is None else [write.held_out.condition(rows.schema).alias(VALIDATION)]
    with data_errors():
        found = write.fields.select(rows, *more).mapInArrow(_Task(write), RESULT).collect()
    return [Written(*row) for row in found]


def _by_processes(rows: Table, write: _Write) -> list[Written]:
    """Let this machine's processes write, or those that hold the rows; this one, where there is little to write."""
    if rows.cluster is not None:
        found = rows.cluster.run(_Part(write), list(enumerate(rows.partitions)))
        return [one for files in found for one in files]
    is_small = rows.bytes is not None and rows.bytes <= IN_THIS_PROCESS
    parts = list(enumerate(rows.partitions))
    if is_small or len(parts) < 2:
        found = [_Part(write)(part) for part in parts]
    else:
        with ProcessPool.shared() as pool:
            found = pool.run(_Part(write), parts)
    return [one for files in found for one in files]


def _index(found: Sequence[Written], fields: Fields, uri: str, seconds: float) -> Index:
    errors = sorted(row.error for row in found if row.error)
    if errors:
        more = f" ({len(errors) - 1} more partitions have such rows)" if len(errors) > 1 else ""
        raise DataError(errors[0] + more)
    splits: dict[str, list[Shard]] = {TRAINING: [], VALIDATION: []}
    skipped, found = sum(row.skipped for row in found), [row for row in found if row.path]
    for row in found:
        splits[row.split].append(Shard(row.path, tuple(row.groups), row.bytes, row.digest))
    if not splits[TRAINING]:
        why = f"all but those held out are invalid ({skipped:,})" if skipped else "all of them are held out"
        raise DataError(f"there are no rows to train on: there are none at all, or {why}.")
    kinds = {row.tensors: row.path for row in found}
    if len(kinds) > 1:
        (one, first), (two, second) = sorted(kinds.items())[:2]
        raise DataError(f"rows differ in shape or type: {first} has {one}, {second} has {two}.")
    tensors = {
        name: TensorSpec(tuple(shape), dtype) for name, (shape, dtype) in json.loads(next(iter(kinds))).items()
    }
    known = [LabelFacts(**json.loads(row.labels)) for row in found if row.labels]
    labels = functools.reduce(operator.add, known) if known else None
    return Index(uri, fields, tensors, tuple(splits[TRAINING]), tuple(splits[VALIDATION]), seconds, skipped, labels)


@dataclass(frozen=True)
class _Task:
    """The task of Spark that writes a partition: Arrow batches in, one row for each file out."""

    write: _Write

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None  # noqa: S101  # always there inside a task
        spare_modules()
        found = self.write(batches, context.partitionId(), context.taskAttemptId())
        yield pa.RecordBatch.from_pylist([asdict(one) for one in found], _RESULT_SCHEMA)


@dataclass(frozen=True)
class _Part:
    """The function that writes a partition of a table, in whatever process."""

    write: _Write

    def __call__(self, numbered: tuple[int, TablePart]) -> list[Written]:
        partition, part = numbered
        names = [name for entry in self.write.fields.all for name in entry.columns]
        if self.write.held_out is not None:
            names += self.write.held_out.columns
        batches = part.batches(list(dict.fromkeys(names)))
        return self.write(map(self._selected, batches), partition, os.getpid())

    def _selected(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return what Spark selects of its rows."""
        columns = {entry.name: entry.taken(batch) for entry in self.write.fields.all}
        if self.write.held_out is not None:
            columns[VALIDATION] = pa.array(self.write.held_out.rows(batch))
        return pa.RecordBatch.from_pydict(columns)


@dataclass(frozen=True)
class _Write:
    """Writes a partition's files."""

    fields: Fields
    folder: Location
    held_out: HeldOut | None = None
    check: RowCheck | None = None
    ignored: int | None = None

    def __call__(self, batches: Iterable[pa.RecordBatch], partition: int, attempt: int) -> list[Written]:
        """Write the rows of Arrow batches; return what was written, or the first error."""
        error, row, skipped, labels = None, 0, 0, LabelFacts()
        with ExitStack() as stack:
            files = {
                split: stack.enter_context(
                    ShardWriter(self.folder, f"{split}-{partition:05d}-{attempt}.arrow", self.fields)
                )
                for split in (TRAINING, VALIDATION)
            }
            for batch in batches:
                if error is not None:  # Spark discards a Python worker that has not read all of its input
                    continue
                try:
                    chosen = self._chosen(batch)
                    valid = batch if len(chosen) == batch.num_rows else batch.take(pa.array(chosen))
                    skipped += batch.num_rows - valid.num_rows
                    columns = self._dense(valid, partition, row)
                    labels += self._labels(columns, partition, chosen + row)
                    columns |= places(self.fields, valid, partition, chosen + row) if columns else {}
                    for split, part in self._split(valid, columns):
                        files[split].add(part)
                    row += batch.num_rows
                except DataError as problem:
                    error = str(problem)
        if error is not None:
            return [Written(error=error)]
        facts = json.dumps(asdict(labels)) if labels != LabelFacts() else ""
        written = [file.result(split, facts) for split, file in files.items() if file.groups]
        return [*written, Written(skipped=skipped)] if skipped else written

    def _chosen(self, batch: pa.RecordBatch) -> Array:
        """Return the rows that can be trained on, by their number."""
        if self.check is None or not batch.num_rows:
            return np.arange(batch.num_rows)
        valid = self.check.valid([batch.column(entry.name) for entry in self.check.fields])
        return np.arange(batch.num_rows) if valid is None else np.flatnonzero(valid)

    def _labels(self, columns: dict[str, Any], partition: int, rows: Array) -> LabelFacts:
        """Return what labels these rows have."""
        if self.fields.label is None or not len(rows):
            return LabelFacts()
        place = f"label column {self.fields.label.title!r}, partition {partition}"
        if self.fields.label.kind == "points":
            return LabelFacts.of_points(columns[LABEL], self.fields.label.target or "", place, rows)
        if self.fields.label.target is not None:  # a pipeline may add pixels that are ignored
            return LabelFacts(has_ignored=self.ignored is not None)
        return LabelFacts.of(columns[LABEL], place, rows, self.ignored)

    def _dense(self, batch: pa.RecordBatch, partition: int, row: int) -> dict[str, Any]:
        """Return the rows of each column as an array, or as bytes."""
        if not batch.num_rows:
            return {}
        columns = {}
        for entry in self.fields.all:
            try:
                read = stored if entry in self.fields.inputs else dense
                columns[entry.name] = read(entry, batch.column(entry.name))
            except DataError as error:
                counted = f", counted from row {row}" if row else ""
                hint = INVALID_HINT if isinstance(error, MissingValueError) else HINT
                raise DataError(
                    f"{entry.role} column {entry.title!r}, partition {partition}, {error}{counted}. {hint}"
                ) from None
        return columns

    def _split(self, batch: pa.RecordBatch, columns: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Divide the rows between training and validation."""
        if not columns:
            return
        if self.held_out is None:
            yield TRAINING, columns
            return
        held_out = HeldOut.flags(batch.column(VALIDATION))
        for split, chosen in ((TRAINING, ~held_out), (VALIDATION, held_out)):
            if chosen.any():
                yield split, {name: _where(values, chosen) for name, values in columns.items()}


def _where(values: RowArray | pa.Array, chosen: Array) -> RowArray | pa.Array:
    return values.filter(pa.array(chosen)) if isinstance(values, pa.Array) else values[chosen]


_RESULT_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("path", pa.string()),
        ("groups", pa.list_(pa.int64())),
        ("bytes", pa.int64()),
        ("digest", pa.int64()),
        ("tensors", pa.string()),
        ("error", pa.string()),
        ("skipped", pa.int64()),
        ("labels", pa.string()),
    ]
)

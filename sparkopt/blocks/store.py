"""BlockStore: a DataFrame's rows as memory-mapped blocks, beside the executors that compute on them.

One job writes each partition's rows once, into the executor's own local directory, and yields a small *handle* that
Spark caches. Spark's locality then sends each step's task to the executor that holds the file. When an executor
dies, its handles die with it: Spark recomputes them from lineage and the file is written anew elsewhere. Where a task
finds its file missing all the same, it says so, and that partition is read from its source for that step.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar

import pyarrow as pa
from pyspark import RDD, TaskContext
from pyspark.sql import DataFrame

from sparkopt.blocks.block import Blocks
from sparkopt.blocks.columns import Columns, Reader
from sparkopt.blocks.files import BlockFile, regroup, write_blocks
from sparkopt.blocks.moments import Moments
from sparkopt.errors import DataError
from sparkopt.validation import Interval
from sparkopt.work import Part

__all__ = ["BlockStore", "Held", "Located", "Result"]

logger = logging.getLogger(__name__)
T = TypeVar("T")
PartFunction: TypeAlias = Callable[[Part, Blocks], T]

HANDLE_SCHEMA = "partition int, path string, starts array<bigint>, validation array<int>, bytes bigint, error string"


@dataclass(frozen=True)
class Handle:
    """Where one partition's blocks are, or why there are none."""

    partition: int
    path: str
    starts: tuple[int, ...]
    validation: tuple[int, ...]
    bytes: int
    error: str | None


@dataclass(frozen=True)
class Result(Generic[T]):
    """What a task made of one partition; ``value`` is None where its file was missing."""

    partition: int
    value: T | None


@dataclass(frozen=True)
class Held:
    """One partition as a task holds it; ``blocks`` is None where its file is missing."""

    part: Part
    blocks: Blocks | None


@dataclass(frozen=True)
class Located:
    """All partitions' handles, for processes that choose by themselves which of them they open."""

    handles: Sequence[Handle]
    first_rows: Sequence[int]

    def here(self) -> list[bool]:
        """For each partition, whether this machine has its file; one without rows is everywhere."""
        return [not handle.path or os.path.exists(handle.path) for handle in self.handles]

    def open(self, partitions: Iterable[int]) -> list[Held]:
        """Open these partitions."""
        return [_open(self.handles[index], self.first_rows) for index in partitions]


TaskFunction: TypeAlias = Callable[[Iterator[Held]], Iterable[T]]


class BlockStore:
    """The rows of a DataFrame, ready for many passes.

    Made by ``write``. Use it as a context manager, or call ``release``: its files live as long as the store or the
    executor, whichever ends first.

    Attributes
    ----------
    columns : Columns
        The columns it was written from.
    moments : Moments
        Of features and target, over all training rows.
    validation : Moments or None
        The same over validation rows; None without a validation column.
    rows : list of int
        Training rows of each partition.
    bytes : int
        Size of all files.
    seconds : float
        What writing took.
    """

    def __init__(self, source: _Source, handles: RDD[Handle], facts: Sequence[_Facts], seconds: float) -> None:
        self._source, self._handles = source, handles
        self.columns, self.seconds = source.columns, seconds
        by_partition = {fact.handle.partition: fact for fact in facts}
        found = [by_partition.get(index) for index in range(handles.getNumPartitions())]
        self.rows = [fact.handle.starts[-1] if fact else 0 for fact in found]
        self.bytes = sum(fact.handle.bytes for fact in facts)
        self.moments = _total([fact.moments for fact in facts])
        self.validation = _total([fact.validation for fact in facts]) if self.columns.validation else None

    @classmethod
    def write(cls, df: DataFrame, columns: Columns, targets: Interval) -> BlockStore:
        """Read the DataFrame once and write its rows as blocks.

        Parameters
        ----------
        df : DataFrame
            The source; it is read again where an executor dies, so it should be deterministic.
        columns : Columns
            What to read.
        targets : Interval
            What a label may be.

        Raises
        ------
        SchemaError
            Before any job, for a wrong column.
        DataError
            For a row that cannot be trained on, or where there are no rows; no file stays behind.
        """
        begin = time.perf_counter()
        source = _Source(columns.select(df), columns, targets, f"sparkopt-{uuid.uuid4().hex}")
        handles = source.handles().cache()
        complete = False
        try:
            facts = sorted(handles.map(_Facts.read).collect(), key=lambda fact: fact.handle.partition)
            _refuse_bad(facts, columns)
            complete = True
        finally:
            if not complete:
                handles.unpersist()
                source.sweep()
        return cls(source, handles, facts, time.perf_counter() - begin)

    @property
    def context(self) -> Any:
        """The SparkContext that runs its jobs."""
        return self._source.context

    @property
    def partitions(self) -> int:
        """Number of partitions, empty ones included."""
        return len(self.rows)

    def map(self, function: PartFunction[T]) -> RDD[Result[T]]:
        """Apply ``function(part, blocks)`` to each partition, where its blocks are; lazily."""
        return self._handles.map(_Task(function, self._first_rows()))

    def map_tasks(self, function: TaskFunction[T], tasks: int) -> RDD[T]:
        """Apply ``function`` to the partitions of each of ``tasks`` tasks, near their blocks; lazily.

        A task takes several partitions where there are more of them than tasks.
        """
        return self._handles.coalesce(tasks).mapPartitions(_Gathered(function, self._first_rows()))

    def map_whole(self, function: TaskFunction[T]) -> RDD[T]:
        """Apply ``function`` to all partitions in one task; blocks on other machines are carried there. Lazily."""
        if self.context.master.startswith("local"):
            return self.map_tasks(function, 1)
        carried = self._handles.map(_carry).coalesce(1, shuffle=True)
        return carried.mapPartitions(_Gathered(function, self._first_rows()))

    def located(self) -> Located:
        """Return where every partition's file is now; those of lost executors are rebuilt first."""
        return Located(sorted(self._handles.collect(), key=lambda handle: handle.partition), self._first_rows())

    def recompute(self, function: PartFunction[T], partitions: Sequence[int]) -> list[Result[T]]:
        """Apply ``function`` to partitions whose file is missing, read from their source again."""
        logger.warning("blocks of partitions %s are missing; reading them from the source for this step", partitions)
        fresh = self._source.handles().map(_Task(function, self._first_rows()))
        results: list[Result[T]] = self._source.context.runJob(fresh, _identity, list(partitions))
        return results

    def release(self) -> None:
        """Delete the files and forget the handles; harmless when repeated."""
        self._handles.unpersist()
        self._source.sweep()

    def __enter__(self) -> BlockStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _first_rows(self) -> list[int]:
        firsts = [0]
        for rows in self.rows[:-1]:
            firsts.append(firsts[-1] + rows)
        return firsts


@dataclass(frozen=True)
class _Source:
    """The selected columns and how to write them."""

    df: DataFrame
    columns: Columns
    targets: Interval
    name: str

    @property
    def context(self) -> Any:
        return self.df.sparkSession.sparkContext

    def handles(self) -> RDD[Handle]:
        """Write when computed, wherever computed."""
        written = self.df.mapInArrow(_Write(self.columns, self.targets, self.name), HANDLE_SCHEMA)
        return written.rdd.map(_to_handle)

    def sweep(self) -> None:
        """Delete this store's folder on every executor that takes part."""
        slots = self.context.defaultParallelism
        self.context.parallelize(range(slots), slots).foreach(_Sweep(self.name))


@dataclass(frozen=True)
class _Facts:
    """What the driver learns of a partition right after it was written."""

    handle: Handle
    moments: Moments | None
    validation: Moments | None

    @classmethod
    def read(cls, handle: Handle) -> _Facts:
        """Read the moments beside the blocks: they are wide, and needed once, so handles go without them."""
        if not handle.path:
            return cls(handle, None, None)
        return cls(handle, *(Moments.load(path) for path in _moments_paths(handle.path)))


@dataclass(frozen=True)
class _Write:
    """The task that writes a partition: Arrow batches in, one handle out."""

    columns: Columns
    targets: Interval
    name: str

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None  # noqa: S101  # always there inside a task
        partition = context.partitionId()
        folder = _local_folder(self.name, partition)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"part-{partition:05d}-{context.taskAttemptId()}.arrow"
        try:
            yield _as_batch(self._write(path, partition, batches))
        except DataError as error:
            yield _as_batch(Handle(partition, "", (0,), (), 0, str(error)))

    def _write(self, path: Path, partition: int, batches: Iterator[pa.RecordBatch]) -> Handle:
        starts, validation = [0], []
        moments: dict[bool, Moments] = {}
        read = Reader(self.columns, self.targets, partition)
        for index, block in enumerate(write_blocks(path, regroup(read(batches)))):
            if block.is_validation:
                validation.append(index)
            else:
                starts.append(starts[-1] + block.rows)
            moments = moments or dict.fromkeys((False, True), Moments.zero(block.X.shape[1]))
            moments[block.is_validation] += Moments.of(block)
        if not moments:
            return Handle(partition, "", (0,), (), 0, None)
        for where, found in zip(_moments_paths(str(path)), moments.values(), strict=True):
            found.save(where)
        return Handle(partition, str(path), tuple(starts), tuple(validation), path.stat().st_size, None)


@dataclass(frozen=True)
class _Task(Generic[T]):
    """The task of a step: open the handle's blocks and work on them."""

    function: PartFunction[T]
    first_rows: Sequence[int]

    def __call__(self, handle: Handle) -> Result[T]:
        held = _open(handle, self.first_rows)
        return Result(handle.partition, None if held.blocks is None else self.function(held.part, held.blocks))


@dataclass(frozen=True)
class _Gathered(Generic[T]):
    """A task that holds several partitions."""

    function: TaskFunction[T]
    first_rows: Sequence[int]

    def __call__(self, handles: Iterable[Handle | tuple[Handle, bytes]]) -> Iterable[T]:
        return self.function(_open(handle, self.first_rows) for handle in handles)


def _carry(handle: Handle) -> tuple[Handle, bytes]:
    """Take a partition's file along with its handle; nothing where it is missing."""
    path = Path(handle.path)
    return handle, path.read_bytes() if handle.path and path.is_file() else b""


def _open(handle: Handle | tuple[Handle, bytes], first_rows: Sequence[int]) -> Held:
    handle, carried = handle if isinstance(handle, tuple) else (handle, b"")
    part = Part(handle.partition, first_rows[handle.partition])
    try:
        return Held(part, BlockFile(handle.path, handle.starts, handle.validation, carried))
    except FileNotFoundError:
        return Held(part, None)


@dataclass(frozen=True)
class _Sweep:
    """The task that deletes a store's folders."""

    name: str

    def __call__(self, _: int) -> None:
        for root in _local_roots():
            shutil.rmtree(root / self.name, ignore_errors=True)


def _refuse_bad(facts: Sequence[_Facts], columns: Columns) -> None:
    errors = [fact.handle.error for fact in facts if fact.handle.error]
    if errors:
        more = f" ({len(errors) - 1} more partitions have such rows)" if len(errors) > 1 else ""
        raise DataError(errors[0] + more)
    known = [fact for fact in facts if fact.moments is not None]
    if not known:
        raise DataError("there are no rows to train on: the DataFrame is empty.")
    widths = {fact.moments.features: fact.handle.partition for fact in known if fact.moments}
    if len(widths) > 1:
        (one, first), (two, second) = sorted(widths.items())[:2]
        raise DataError(
            f"features column {columns.feature_names!r} has {one} entries in partition {first} and {two} in "
            f"partition {second}. Every row needs the same number."
        )
    if 0 in widths:
        raise DataError(f"features column {columns.feature_names!r} has no entries.")
    if columns.validation is not None:
        _refuse_one_sided(facts, columns.validation)
    if sum(fact.moments.weight for fact in known if fact.moments) == 0:
        raise DataError(f"weight column {columns.weight!r} is 0 in every row.")


def _refuse_one_sided(facts: Sequence[_Facts], name: str) -> None:
    """Refuse data that has rows to train on, or to validate on, but not both."""
    if not any(fact.handle.starts[-1] for fact in facts):
        raise DataError(f"validation column {name!r} is true in every row: there are no rows to train on.")
    if not sum(fact.validation.weight for fact in facts if fact.validation):
        raise DataError(
            f"validation column {name!r} is false in every row that has a weight: nothing to validate on."
        )


def _total(moments: Iterable[Moments | None]) -> Moments:
    """Add up, in the order of partitions."""
    known = [found for found in moments if found is not None]
    return sum(known[1:], known[0])


def _local_roots() -> list[Path]:
    """Return the executor's own directories, which Spark deletes when the executor ends."""
    return [Path(root) for root in os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()).split(",")]


def _local_folder(name: str, partition: int) -> Path:
    roots = _local_roots()
    return roots[partition % len(roots)] / name


def _moments_paths(path: str) -> tuple[Path, Path]:
    """Where the moments of a partition's training and validation rows are."""
    return Path(path).with_suffix(".moments"), Path(path).with_suffix(".validation")


def _as_batch(handle: Handle) -> pa.RecordBatch:
    columns = {
        "partition": pa.array([handle.partition], pa.int32()),
        "path": [handle.path],
        "starts": pa.array([list(handle.starts)], pa.list_(pa.int64())),
        "validation": pa.array([list(handle.validation)], pa.list_(pa.int32())),
        "bytes": pa.array([handle.bytes], pa.int64()),
        "error": pa.array([handle.error], pa.string()),
    }
    return pa.RecordBatch.from_pydict(columns)


def _to_handle(row: Any) -> Handle:
    return Handle(row.partition, row.path, tuple(row.starts), tuple(row.validation), row.bytes, row.error)


def _identity(items: Iterable[T]) -> Iterable[T]:
    return items

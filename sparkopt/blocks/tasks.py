"""The tasks of a block store: writing a partition, opening it, deleting its files.

They are the same on Spark Classic, on Spark Connect and on one machine without Spark.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.errors import PySparkException

from sparkopt.blocks.block import Block, Blocks, InMemoryBlocks, Part
from sparkopt.blocks.columns import Columns, Reader
from sparkopt.blocks.files import BlockFile, in_fold_order, write_blocks
from sparkopt.blocks.jvm_errors import Py4JJavaError
from sparkopt.blocks.layout import regroup
from sparkopt.blocks.moments import Moments, MomentsSum, save
from sparkopt.blocks.parquet import FilePart, NotReadHere, ParquetReader
from sparkopt.errors import DataError
from sparkopt.io.worker import spare_modules
from sparkopt.validation import Interval

__all__ = [
    "HANDLE_SCHEMA",
    "GroupTask",
    "Handle",
    "Located",
    "MemoryHandle",
    "OpenInTask",
    "OpenPartition",
    "PartFunction",
    "PartitionTask",
    "ReadParquet",
    "Result",
    "Sweep",
    "TaskFunction",
    "WriteBlocks",
    "carry",
    "data_errors",
    "moments_paths",
]

T = TypeVar("T")
PartFunction: TypeAlias = Callable[[Part, Blocks], T]
"""What is computed from a partition and its blocks."""

HANDLE_SCHEMA = (
    "partition int, path string, starts array<bigint>, validation array<int>, folds array<int>, bytes bigint, "
    "error string, unread string, skipped bigint"
)


@dataclass(frozen=True)
class Handle:
    """Where one partition's blocks are, or why there are none.

    ``error`` is a value that cannot be trained on; ``unread`` is why the task left its files to Spark's reader;
    ``skipped`` is the number of invalid rows that were left out.
    """

    partition: int
    path: str
    starts: tuple[int, ...]
    validation: tuple[int, ...]
    folds: tuple[int, ...]
    bytes: int
    error: str | None
    unread: str | None = None
    skipped: int = 0

    @classmethod
    def empty(cls, partition: int, error: str | None = None, unread: str | None = None) -> Handle:
        """Return the handle of a partition without blocks."""
        return cls(partition, "", (0,), (), (), 0, error, unread)

    def to_batch(self) -> pa.RecordBatch:
        """Return one row of ``HANDLE_SCHEMA``."""
        columns = {
            "partition": pa.array([self.partition], pa.int32()),
            "path": [self.path],
            "starts": pa.array([list(self.starts)], pa.list_(pa.int64())),
            "validation": pa.array([list(self.validation)], pa.list_(pa.int32())),
            "folds": pa.array([list(self.folds)], pa.list_(pa.int32())),
            "bytes": pa.array([self.bytes], pa.int64()),
            "error": pa.array([self.error], pa.string()),
            "unread": pa.array([self.unread], pa.string()),
            "skipped": pa.array([self.skipped], pa.int64()),
        }
        return pa.RecordBatch.from_pydict(columns)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Handle:
        """Return the handle that such a row holds."""
        return cls(**{**row, **{name: tuple(row[name]) for name in ("starts", "validation", "folds")}})


@dataclass(frozen=True)
class MemoryHandle(Handle):
    """One partition's blocks themselves, in this process."""

    blocks: InMemoryBlocks = InMemoryBlocks(())
    moments: Mapping[bool, Mapping[int, Moments]] = field(default_factory=dict)
    """Of training rows (False) and of validation rows (True), by fold."""


@dataclass(frozen=True)
class Result(Generic[T]):
    """A task's result for one partition; ``value`` is None where its file was missing."""

    partition: int
    value: T | None


@dataclass(frozen=True)
class OpenPartition:
    """One partition, opened in a task; ``blocks`` is None where its file is missing."""

    part: Part
    blocks: Blocks | None


@dataclass(frozen=True)
class Located:
    """All partitions' handles, for processes that choose which of them they open."""

    handles: Sequence[Handle]
    first_rows: Sequence[int]

    def here(self) -> list[bool]:
        """For each partition, whether this machine has its file; a partition without rows is on every machine."""
        return [not handle.path or os.path.exists(handle.path) for handle in self.handles]

    def open(self, partitions: Iterable[int]) -> list[OpenPartition]:
        """Open these partitions."""
        return [open_blocks(self.handles[index], self.first_rows) for index in partitions]


@dataclass(frozen=True)
class OpenInTask:
    """Makes a partition's blocks in the task that reads its rows.

    Attributes
    ----------
    keep : callable
        A partition's number and batches to its handle.
    first_rows : sequence of int
        The number of the first row of each partition, and last the number of rows.
    """

    keep: Callable[[int, Iterator[pa.RecordBatch]], Handle]
    first_rows: Sequence[int]

    def __call__(self, partition: int, batches: Iterator[pa.RecordBatch]) -> OpenPartition:
        spare_modules()
        return open_blocks(self.keep(partition, batches), self.first_rows)


TaskFunction: TypeAlias = Callable[[Iterator[OpenPartition]], Iterable[T]]
"""What is computed from all partitions of a task."""


@dataclass(frozen=True)
class WriteBlocks:
    """The task that writes a partition: Arrow batches of ``Columns.select`` in, one handle out.

    Parameters
    ----------
    columns : Columns
        What is read.
    targets : Interval
        What a label may be.
    name : str
        The store's folder.
    only : frozenset of int or None, default None
        Partitions to write; the others are not read. None writes all.
    codec : str, default "none"
        Compression of blocks on disk, one of ``BLOCK_CODECS``.
    """

    columns: Columns
    targets: Interval
    name: str
    only: frozenset[int] | None = None
    codec: str = "none"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        spare_modules()
        partition = _context().partitionId()
        if self.only is None or partition in self.only:
            yield self.write(partition, batches).to_batch()

    def write(
        self, partition: int, batches: Iterator[pa.RecordBatch], folder: Path | None = None, shown: str = ""
    ) -> Handle:
        """Write a partition's rows, and return where they are or what is wrong with them.

        Parameters
        ----------
        partition : int
            Its number.
        batches : iterator of pyarrow.RecordBatch
            Its rows.
        folder : Path or None, default None
            Where to write; None is the executor's own directory.
        shown : str, default ""
            What the partition is, for errors, where it has a name.
        """
        folder = _local_folder(self.name, partition) if folder is None else folder
        folder.mkdir(parents=True, exist_ok=True)
        # A task that rebuilds several partitions has one number and one attempt for all of them.
        context = TaskContext.get()
        attempt = 0 if context is None else context.taskAttemptId()
        path = folder / f"part-{partition:05d}-{attempt}-{uuid.uuid4().hex[:8]}.arrow"
        try:
            return self._write(path, partition, batches, shown)
        except DataError as error:
            return Handle.empty(partition, str(error))
        except NotReadHere as reason:
            return Handle.empty(partition, unread=str(reason))

    def keep(self, partition: int, batches: Iterator[pa.RecordBatch], shown: str = "") -> Handle:
        """Return a partition's rows as blocks in this process's memory, or what is wrong with them."""
        read = Reader(self.columns, self.targets, partition, shown)
        try:
            found = _Written(regroup(read(batches)))
            blocks = list(found)
        except DataError as error:
            return Handle.empty(partition, str(error))
        if not blocks:
            return replace(Handle.empty(partition), skipped=read.skipped)
        held = InMemoryBlocks(
            [blocks[index] for index in found.training],
            [blocks[index] for index in in_fold_order(found.validation, found.folds)],
        )
        size = sum(block.nbytes for block in blocks)
        handle = MemoryHandle(
            partition, "", found.starts, tuple(found.validation), (), size, None, blocks=held, moments=found.moments
        )
        return replace(handle, skipped=read.skipped)

    def _write(self, path: Path, partition: int, batches: Iterator[pa.RecordBatch], shown: str) -> Handle:
        read = Reader(self.columns, self.targets, partition, shown)
        found = _Written(write_blocks(path, regroup(read(batches)), self.codec))
        for _ in found:
            pass
        if not found.rows:
            return replace(Handle.empty(partition), skipped=read.skipped)
        for where, by_fold in zip(moments_paths(str(path)), found.moments.values(), strict=True):
            save(by_fold, where)
        kept = () if self.columns.fold is None else tuple(found.folds)
        size = path.stat().st_size
        handle = Handle(partition, str(path), found.starts, tuple(found.validation), kept, size, None)
        return replace(handle, skipped=read.skipped)


class _Written:
    """Blocks as they pass by, and what is to be known of them."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._blocks = blocks
        self.rows, self.folds, self.validation = list[int](), list[int](), list[int]()
        self._sums: dict[bool, dict[int, MomentsSum]] = {False: {}, True: {}}

    def __iter__(self) -> Iterator[Block]:
        for index, block in enumerate(self._blocks):
            self.rows.append(block.rows)
            self.folds.append(block.fold)
            if block.is_validation:
                self.validation.append(index)
            self._sums[block.is_validation].setdefault(block.fold, MomentsSum()).add(block)
            yield block

    @property
    def moments(self) -> dict[bool, dict[int, Moments]]:
        """Of training rows (False) and of validation rows (True), by fold."""
        return {kind: {fold: found.total() for fold, found in sums.items()} for kind, sums in self._sums.items()}

    @property
    def training(self) -> list[int]:
        """The blocks of training rows, in the order in which they are read."""
        aside = set(self.validation)
        return in_fold_order([index for index in range(len(self.rows)) if index not in aside], self.folds)

    @property
    def starts(self) -> tuple[int, ...]:
        """The first row of each of these, then their number of rows."""
        return tuple(np.cumsum([0, *(self.rows[index] for index in self.training)]).tolist())


@dataclass(frozen=True)
class ReadParquet:
    """The task that reads a partition's files and writes its blocks."""

    reader: ParquetReader
    writer: WriteBlocks

    def __call__(self, partition: int, partitions: Iterable[Sequence[FilePart]]) -> Iterator[Handle]:
        spare_modules()
        return (self.writer.write(partition, self.reader(parts)) for parts in partitions)


@dataclass(frozen=True)
class PartitionTask(Generic[T]):
    """A task of one partition: opens the handle's blocks and applies a function to them."""

    function: PartFunction[T]
    first_rows: Sequence[int]

    def __call__(self, handle: Handle) -> Result[T]:
        spare_modules()
        held = open_blocks(handle, self.first_rows)
        return Result(handle.partition, None if held.blocks is None else self.function(held.part, held.blocks))


@dataclass(frozen=True)
class GroupTask(Generic[T]):
    """A task of several partitions."""

    function: TaskFunction[T]
    first_rows: Sequence[int]

    def __call__(self, handles: Iterable[Handle | tuple[Handle, bytes]]) -> Iterable[T]:
        spare_modules()
        return self.function(open_blocks(handle, self.first_rows) for handle in handles)


def carry(handle: Handle) -> tuple[Handle, bytes]:
    """Return a handle with its file's content, which is empty where the file is missing."""
    path = Path(handle.path)
    return handle, path.read_bytes() if handle.path and path.is_file() else b""


def open_blocks(handle: Handle | tuple[Handle, bytes], first_rows: Sequence[int]) -> OpenPartition:
    """Open a partition's file, or the content that came with its handle."""
    handle, carried = handle if isinstance(handle, tuple) else (handle, b"")
    if (changed := handle.error or handle.unread) is not None:  # it was written before without one
        raise DataError(
            f"the rows of partition {handle.partition} are not what they were when the fit began: {changed}"
        )
    part = Part(handle.partition, first_rows[handle.partition], first_rows[-1])
    if isinstance(handle, MemoryHandle):
        return OpenPartition(part, handle.blocks)
    try:
        return OpenPartition(part, BlockFile(handle.path, handle.starts, handle.validation, handle.folds, carried))
    except FileNotFoundError:
        return OpenPartition(part, None)


@contextlib.contextmanager
def data_errors() -> Iterator[None]:
    """Raise a task's DataError as itself, without the traces that Spark and Python put around it."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        found = re.search(r"^\S*\bDataError: (.+)$", str(error), re.MULTILINE)
        if found is None:
            raise
        raise DataError(found[1]) from None


@dataclass(frozen=True)
class Sweep:
    """The task that deletes a store's folders."""

    name: str

    def __call__(self, _: object) -> None:
        spare_modules()
        for root in _local_roots():
            shutil.rmtree(root / self.name, ignore_errors=True)


def _context() -> TaskContext:
    context = TaskContext.get()
    assert context is not None  # noqa: S101  # always there inside a task
    return context


def _local_roots() -> list[Path]:
    """Return the executor's own directories, which Spark deletes when the executor ends."""
    return [Path(root) for root in os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()).split(",")]


def _local_folder(name: str, partition: int) -> Path:
    roots = _local_roots()
    return roots[partition % len(roots)] / name


def moments_paths(path: str) -> tuple[Path, Path]:
    """Return the paths of the moments of a partition's training and validation rows."""
    return Path(path).with_suffix(".moments"), Path(path).with_suffix(".validation")

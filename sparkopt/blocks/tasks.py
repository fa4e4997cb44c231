"""The tasks of a block store: writing a partition, opening it, deleting its files.

They are the same on Spark Classic, on Spark Connect and on one machine without Spark.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from pyspark import TaskContext

from sparkopt.blocks.block import Block, Blocks, InMemoryBlocks, Part
from sparkopt.blocks.columns import Columns
from sparkopt.blocks.digest import rows_digest
from sparkopt.blocks.files import BlockFile, in_fold_order, write_blocks
from sparkopt.blocks.handles import Handle, KnownRows, MemoryHandle
from sparkopt.blocks.layout import regroup
from sparkopt.blocks.local import delete_local_folders, local_folder, used
from sparkopt.blocks.moments import Moments, MomentsSum, save
from sparkopt.blocks.parquet import FilePart, NotReadHere, ParquetReader
from sparkopt.blocks.reader import Reader
from sparkopt.errors import DataError
from sparkopt.io.worker import spare_modules
from sparkopt.validation import Interval
from sparkopt.values import dataclass

__all__ = [
    "GroupTask",
    "Located",
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
    "moments_paths",
]

T = TypeVar("T")
PartFunction: TypeAlias = Callable[[Part, Blocks], T]
"""What is computed from a partition and its blocks."""


@dataclass(frozen=True)
class Result(Generic[T]):
    """A task's result for one partition; ``value`` is None where its file was missing.

    ``handle`` is where the task found the blocks, if they had to be written again.
    """

    partition: int
    value: T | None
    handle: Handle | None = None


@dataclass(frozen=True)
class OpenPartition:
    """One partition, opened in a task; ``blocks`` is None where its file is missing."""

    part: Part
    blocks: Blocks | None


@dataclass(frozen=True)
class Located:
    """All partitions' handles, for processes that choose which of them they open."""

    handles: Sequence[Handle]
    known: KnownRows

    def here(self) -> list[bool]:
        """For each partition, whether this machine has its file; a partition without rows is on every machine."""
        return [not handle.path or any(map(os.path.exists, self._paths(handle))) for handle in self.handles]

    def _paths(self, handle: Handle) -> list[str]:
        return [handle.path, *(copy.path for copy in self.known.copies.get(handle.partition, ()))]

    def open(self, partitions: Iterable[int]) -> list[OpenPartition]:
        """Open these partitions."""
        return [open_blocks(self.handles[index], self.known) for index in partitions]


@dataclass(frozen=True)
class OpenInTask:
    """Makes a partition's blocks in the task that reads its rows.

    Attributes
    ----------
    keep : callable
        A partition's number and batches to its handle.
    known : KnownRows
        What the driver knows of the partitions.
    """

    keep: Callable[[int, Iterator[pa.RecordBatch]], Handle]
    known: KnownRows

    def __call__(self, partition: int, batches: Iterator[pa.RecordBatch]) -> OpenPartition:
        spare_modules()
        return open_blocks(self.keep(partition, batches), self.known)


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
        self,
        partition: int,
        batches: Iterator[pa.RecordBatch],
        folder: Path | None = None,
        shown: str = "",
        source: str = "",
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
        source : str, default ""
            What its rows are read from, where it has no name.
        """
        if folder is None:
            folder = local_folder(self.name, partition)
        else:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A task that rebuilds several partitions has one number and one attempt for all of them.
        context = TaskContext.get()
        attempt = 0 if context is None else context.taskAttemptId()
        path = folder / f"part-{partition:05d}-{attempt}-{uuid.uuid4().hex[:8]}.arrow"
        try:
            return replace(self._write(path, partition, batches, shown), source=shown or source)
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
        return replace(handle, skipped=read.skipped, digest=found.digest, source=shown)

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
        return replace(handle, skipped=read.skipped, digest=found.digest)


class _Written:
    """Blocks as they pass by, and what is to be known of them."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._blocks = blocks
        self.rows, self.folds, self.validation = list[int](), list[int](), list[int]()
        self._sums: dict[bool, dict[int, MomentsSum]] = {False: {}, True: {}}
        self._digest = 0

    def __iter__(self) -> Iterator[Block]:
        for index, block in enumerate(self._blocks):
            self.rows.append(block.rows)
            self.folds.append(block.fold)
            self._digest += rows_digest(block)
            if block.is_validation:
                self.validation.append(index)
            self._sums[block.is_validation].setdefault(block.fold, MomentsSum()).add(block)
            yield block

    @property
    def digest(self) -> int:
        """That of all rows, as a signed number of 64 bits."""
        return int(np.array(self._digest % 2**64, np.uint64).view(np.int64))

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
        return (self.writer.write(partition, self.reader(parts), source=_files(parts)) for parts in partitions)


def _files(parts: Sequence[FilePart]) -> str:
    """Return the name of the first file of a partition, and how many more there are."""
    names = list(dict.fromkeys(part.uri for part in parts))
    return f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}" if names else ""


@dataclass(frozen=True)
class PartitionTask(Generic[T]):
    """A task of one partition: opens the handle's blocks and applies a function to them."""

    function: PartFunction[T]
    known: KnownRows
    is_fresh: bool = False
    """Whether its partition is written again, so that the driver must be told where."""

    def __call__(self, handle: Handle) -> Result[T]:
        spare_modules()
        held = open_blocks(handle, self.known)
        value = None if held.blocks is None else self.function(held.part, held.blocks)
        return Result(handle.partition, value, handle if self.is_fresh else None)


@dataclass(frozen=True)
class GroupTask(Generic[T]):
    """A task of several partitions."""

    function: TaskFunction[T]
    known: KnownRows

    def __call__(self, handles: Iterable[Handle | tuple[Handle, bytes]]) -> Iterable[T]:
        spare_modules()
        return self.function(open_blocks(handle, self.known) for handle in handles)


def carry(handle: Handle) -> tuple[Handle, bytes]:
    """Return a handle with its file's content, which is empty where the file is missing."""
    path = Path(handle.path)
    return handle, path.read_bytes() if handle.path and path.is_file() else b""


def open_blocks(handle: Handle | tuple[Handle, bytes], known: KnownRows) -> OpenPartition:
    """Open a partition's file, or the content that came with its handle.

    Raises
    ------
    DataError
        Where its rows were read again and are others.
    """
    handle, carried = handle if isinstance(handle, tuple) else (handle, b"")
    known.check(handle)
    part = Part(handle.partition, known.first_rows[handle.partition], known.first_rows[-1])
    if isinstance(handle, MemoryHandle):
        return OpenPartition(part, handle.blocks)
    for each in (handle, *known.copies.get(handle.partition, ())):
        with contextlib.suppress(FileNotFoundError):
            blocks = BlockFile(each.path, each.starts, each.validation, each.folds, carried)
            used(each.path)
            return OpenPartition(part, blocks)
    return OpenPartition(part, None)


@dataclass(frozen=True)
class Sweep:
    """The task that deletes a store's folders, and returns the executor's own directories."""

    name: str

    def __call__(self, _: object) -> list[str]:
        spare_modules()
        return delete_local_folders(self.name)


def _context() -> TaskContext:
    context = TaskContext.get()
    assert context is not None  # noqa: S101  # always there inside a task
    return context


def moments_paths(path: str) -> tuple[Path, Path]:
    """Return the paths of the moments of a partition's training and validation rows."""
    return Path(path).with_suffix(".moments"), Path(path).with_suffix(".validation")

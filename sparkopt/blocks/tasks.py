"""What runs on the executors for a block store: writing a partition, working on it, deleting its files.

Nothing here knows how a task reaches its executor, so it is the same on Spark Classic and on Spark Connect.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import pyarrow as pa
from pyspark import TaskContext

from sparkopt.blocks.block import Blocks
from sparkopt.blocks.columns import Columns, Reader
from sparkopt.blocks.files import BlockFile, regroup, write_blocks
from sparkopt.blocks.moments import Moments
from sparkopt.errors import DataError
from sparkopt.validation import Interval
from sparkopt.work import Part

__all__ = ["HANDLE_SCHEMA", "Facts", "Handle", "PartFunction", "Result", "Sweep", "Task", "WriteBlocks"]

T = TypeVar("T")
PartFunction: TypeAlias = Callable[[Part, Blocks], T]

HANDLE_SCHEMA = "partition int, path string, starts array<bigint>, bytes bigint, error string"


@dataclass(frozen=True)
class Handle:
    """Where one partition's blocks are, or why there are none."""

    partition: int
    path: str
    starts: tuple[int, ...]
    bytes: int
    error: str | None

    def to_batch(self) -> pa.RecordBatch:
        """Return one row of ``HANDLE_SCHEMA``."""
        columns = {
            "partition": pa.array([self.partition], pa.int32()),
            "path": [self.path],
            "starts": pa.array([list(self.starts)], pa.list_(pa.int64())),
            "bytes": pa.array([self.bytes], pa.int64()),
            "error": pa.array([self.error], pa.string()),
        }
        return pa.RecordBatch.from_pydict(columns)


@dataclass(frozen=True)
class Result(Generic[T]):
    """What a task made of one partition; ``value`` is None where its file was missing."""

    partition: int
    value: T | None


@dataclass(frozen=True)
class Facts:
    """What the driver learns of a partition right after it was written."""

    handle: Handle
    moments: Moments | None

    @classmethod
    def read(cls, handle: Handle) -> Facts:
        """Read the moments beside the blocks: they are wide, and needed once, so handles go without them."""
        return cls(handle, Moments.load(_moments_path(Path(handle.path))) if handle.path else None)


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
        Partitions to write; the others are left unread. None writes all.
    """

    columns: Columns
    targets: Interval
    name: str
    only: frozenset[int] | None = None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None  # noqa: S101  # always there inside a task
        partition = context.partitionId()
        if self.only is not None and partition not in self.only:
            return
        folder = _local_folder(self.name, partition)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"part-{partition:05d}-{context.taskAttemptId()}.arrow"
        try:
            yield self._write(path, partition, batches).to_batch()
        except DataError as error:
            yield Handle(partition, "", (0,), 0, str(error)).to_batch()

    def _write(self, path: Path, partition: int, batches: Iterator[pa.RecordBatch]) -> Handle:
        starts, moments = [0], None
        read = Reader(self.columns, self.targets, partition)
        for block in write_blocks(path, regroup(read(batches))):
            starts.append(starts[-1] + block.rows)
            found = Moments.of(block)
            moments = found if moments is None else moments + found
        if moments is None:
            return Handle(partition, "", (0,), 0, None)
        moments.save(_moments_path(path))
        return Handle(partition, str(path), tuple(starts), path.stat().st_size, None)


@dataclass(frozen=True)
class Task(Generic[T]):
    """The task of a step: open the handle's blocks and work on them."""

    function: PartFunction[T]
    first_rows: Sequence[int]

    def __call__(self, handle: Handle) -> Result[T]:
        try:
            blocks = BlockFile(handle.path, handle.starts)
        except FileNotFoundError:
            return Result(handle.partition, None)
        return Result(
            handle.partition, self.function(Part(handle.partition, self.first_rows[handle.partition]), blocks)
        )


@dataclass(frozen=True)
class Sweep:
    """The task that deletes a store's folders."""

    name: str

    def __call__(self, _: object) -> None:
        for root in _local_roots():
            shutil.rmtree(root / self.name, ignore_errors=True)


def _local_roots() -> list[Path]:
    """Return the executor's own directories, which Spark deletes when the executor ends."""
    return [Path(root) for root in os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()).split(",")]


def _local_folder(name: str, partition: int) -> Path:
    roots = _local_roots()
    return roots[partition % len(roots)] / name


def _moments_path(path: Path) -> Path:
    return path.with_suffix(".moments")

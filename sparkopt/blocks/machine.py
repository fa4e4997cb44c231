"""A block store on one machine, without Spark: handles are a list, and functions run in worker processes."""

from __future__ import annotations

import math
import shutil
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sparkopt.blocks.backend import Backend, Carried, Shared
from sparkopt.blocks.columns import Columns
from sparkopt.blocks.disk import refuse_what_does_not_fit
from sparkopt.blocks.files import drop_deleted_files
from sparkopt.blocks.handles import Handle
from sparkopt.blocks.tables import TableReader
from sparkopt.blocks.tasks import WriteBlocks
from sparkopt.errors import IncompatibleError
from sparkopt.machine.folders import private_folders
from sparkopt.machine.limits import one_thread
from sparkopt.machine.parquet import ParquetPart
from sparkopt.machine.part import MemoryPart, TablePart
from sparkopt.machine.pool import ProcessPool
from sparkopt.machine.shared import SharedValue
from sparkopt.machine.table import Table
from sparkopt.machine.threads import Threads
from sparkopt.validation import Interval
from sparkopt.values import dataclass

__all__ = ["MachineBackend", "TableSource", "refuse_spark"]

A = TypeVar("A")
T = TypeVar("T")


def _nothing(_: object = None) -> None:
    pass


IN_MEMORY = 64 << 20
"""Most bytes of a table whose blocks stay in memory: small data need no files."""
IN_ONE_THREAD = 8 << 20
"""Most bytes of a table whose partitions are computed one after the other."""
HERE_SECONDS, WORKERS_SECONDS = 1e-4, 1e-3
"""Seconds that a pass costs in addition to its arithmetic, in this process and with workers."""


@dataclass(frozen=True)
class TableSource:
    """A table, and how to write its rows.

    Parameters
    ----------
    table : Table
        Read again where a file is lost.
    columns : Columns
        What is read.
    targets : Interval
        What a label may be.
    name : str
        The store's folder.
    codec : str, default "none"
        Compression of blocks there.
    """

    table: Table
    columns: Columns
    targets: Interval
    name: str
    codec: str = "none"

    @property
    def is_small(self) -> bool:
        """Whether its blocks stay in memory, and functions run in this process."""
        return is_small(self.table, self.codec)

    @property
    def reads_alone(self) -> bool:
        """Whether its rows are read by this package's code alone, without functions that were made for one thread."""
        plain = all(isinstance(part, ParquetPart | MemoryPart) for part in self.table.partitions)
        return plain and self.columns.encoder is None


def is_small(table: Table, codec: str = "none") -> bool:
    """Whether a table's blocks stay in this process's memory."""
    size = table.bytes
    return codec == "none" and size is not None and size <= IN_MEMORY


class MachineBackend(Backend):
    """Handles in a list; functions run in this machine's worker processes, or here where there is little to do.

    Small data stay in this process's memory, and the less small of them are computed in threads. Others become files,
    which a worker maps into its memory for the first pass and keeps there: a partition prefers the worker that had it
    before. Lost files are written again from their part of the table.
    """

    has_rdds = False
    needs_spark = False

    def __init__(self, source: TableSource) -> None:
        self._source = source
        self._write = WritePart(
            TableReader.of(source.table.schema, source.columns),
            WriteBlocks(source.columns, source.targets, source.name, codec=source.codec),
        )
        self._handles: list[Handle] | None = None
        with ProcessPool.shared() as shared:
            self._pool = ProcessPool(0) if source.is_small else shared
            is_much = (source.table.bytes or 0) >= IN_ONE_THREAD
            self._threads = Threads(shared.processes if source.is_small and is_much else 1, math.inf)
        self._close: Callable[[], object] = _nothing
        if not source.is_small:
            self._pool.start()
            refuse_what_does_not_fit(source.table, source.columns, source.targets, source.codec)
            folders = tuple(folder / source.name for folder in private_folders())
            self._write = replace(self._write, folders=folders)
            self._close = weakref.finalize(self, _delete, folders, self._pool)

    @property
    def name(self) -> str:
        """One machine, and where its functions run."""
        count = self._pool.processes
        return (
            f"one machine, {count} worker process{'es' if count > 1 else ''}" if count else "one machine, one process"
        )

    def run(self, function: Callable[[Handle], T], tasks: int | None = None) -> list[T]:
        """Apply the function to each handle; the first time, write the partitions too."""
        if self._handles is not None:
            return self._applied(function, self._handles, range(len(self._handles)))
        self._handles, results = self._written(function, range(len(self._source.table.partitions)))
        return results

    def run_fresh(self, function: Callable[[Handle], T], partitions: Sequence[int]) -> list[T]:
        """Read these partitions again."""
        return self._written(function, partitions)[1]

    def _written(self, function: Callable[[Handle], T], partitions: Sequence[int]) -> tuple[list[Handle], list[T]]:
        parts = [(index, self._source.table.partitions[index]) for index in partitions]
        write = replace(self._write, function=function)
        if self._pool.processes or self._threads.count < 2:
            found = self._applied(write, parts, partitions)
        elif not self._source.reads_alone:
            found = [write(part) for part in parts]
        else:
            with one_thread():  # around all of them: each restores what it found
                found = self._applied(write, parts, partitions)
        return [handle for handle, _ in found], [result for _, result in found]

    def _applied(self, function: Callable[[A], T], items: Sequence[A], partitions: Iterable[int]) -> list[T]:
        if self._pool.processes:
            return self._pool.run(function, items, on=self._keys(partitions))
        return self._threads.run(function, items)

    def _keys(self, partitions: Iterable[int]) -> list[tuple[str, int]]:
        return [(self._source.name, index) for index in partitions]

    def share(self, value: bytes) -> Shared:
        """Write it where all workers can read it, if there are any."""
        return SharedValue.of(value) if self._pool.processes else Carried(value)

    @property
    def pass_seconds(self) -> float:  # type: ignore[override]
        """Seconds of a pass that are neither arithmetic nor transport."""
        return WORKERS_SECONDS if self._pool.processes else HERE_SECONDS

    @property
    def slots(self) -> int:
        """How many partitions are computed at the same time."""
        return max(1, self._pool.processes, self._threads.count)

    @property
    def context(self) -> NoReturn:
        """Refuse: there is no Spark."""
        refuse_spark("a SparkContext")

    @property
    def handles(self) -> NoReturn:
        """Refuse: there are no RDDs."""
        refuse_spark("RDDs")

    def release(self) -> None:
        """Delete the files and drop the blocks."""
        self._handles = []
        self._close()


@dataclass(frozen=True)
class WritePart:
    """The task that writes a partition of a table, and applies a function to its handle.

    Parameters
    ----------
    read : TableReader
        How its rows are read.
    writer : WriteBlocks
        How they are written.
    folders : sequence of Path, default none
        Where, one partition after the other; without any, blocks are kept in memory.
    function : callable
        What is applied to the handle.
    """

    read: TableReader
    writer: WriteBlocks
    folders: tuple[Path, ...] = ()
    function: Callable[[Handle], Any] = _nothing

    def __call__(self, part: tuple[int, TablePart]) -> tuple[Handle, Any]:
        index, rows = part
        with one_thread():  # more of them would add moments up in another order
            if self.folders:
                folder = self.folders[index % len(self.folders)]
                handle = self.writer.write(index, self.read(rows), folder, rows.name)
            else:
                handle = self.writer.keep(index, self.read(rows), rows.name)
        return handle, self.function(handle)


def _delete(folders: Sequence[Path], pool: ProcessPool) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    pool.tell(drop_deleted_files)


def refuse_spark(what: str) -> NoReturn:
    """Refuse what only Spark has."""
    raise IncompatibleError(f"this needs {what}, and a table has no Spark. Use engine='auto'.")

"""A block store where a framework's workers hold the rows, such as Dask's or Ray's: blocks lie beside the workers.

A task writes a partition's blocks into its worker's own folder. Later passes go where the files are; a file that is
missing, since its worker is gone, is written again from its partition, which the framework rebuilds by its own means.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sparkopt.blocks.backend import Backend, Carried, Shared
from sparkopt.blocks.handles import Handle
from sparkopt.blocks.machine import TableSource, refuse_spark
from sparkopt.blocks.tables import TableReader
from sparkopt.blocks.tasks import WriteBlocks
from sparkopt.machine.cluster import Cluster
from sparkopt.machine.part import TablePart
from sparkopt.values import dataclass

__all__ = ["ClusterBackend"]

T = TypeVar("T")


class ClusterBackend(Backend):
    """Handles in a list; functions run in the tasks of the framework that holds the rows."""

    has_rdds = False
    needs_spark = False

    def __init__(self, source: TableSource, cluster: Cluster) -> None:
        self._source, self._cluster = source, cluster
        self._write = WriteThere(
            TableReader.of(source.table.schema, source.columns),
            WriteBlocks(source.columns, source.targets, source.name, codec=source.codec),
            cluster.folder(),
        )
        self._handles: list[Handle] | None = None
        self._close = weakref.finalize(self, _drop, cluster, source.name)

    @property
    def name(self) -> str:
        """The framework and its workers."""
        return self._cluster.name

    def run(self, function: Callable[[Handle], T], tasks: int | None = None) -> list[T]:
        """Apply the function to each handle; the first time, write the partitions too."""
        if self._handles is not None:
            return self._cluster.run(function, self._handles, on=self._keys(range(len(self._handles))))
        self._handles, results = self._written(function, range(len(self._source.table.partitions)))
        return results

    def run_fresh(self, function: Callable[[Handle], T], partitions: Sequence[int]) -> list[T]:
        """Read these partitions again, and know their new files from then on."""
        handles, results = self._written(function, partitions)
        if self._handles:
            for index, handle in zip(partitions, handles, strict=True):
                self._handles[index] = handle
        return results

    def _written(self, function: Callable[[Handle], T], partitions: Sequence[int]) -> tuple[list[Handle], list[T]]:
        parts = [(index, self._source.table.partitions[index]) for index in partitions]
        write = replace(self._write, function=function)
        found = self._cluster.run(write, parts, on=self._keys(partitions))
        return [handle for handle, _ in found], [result for _, result in found]

    def _keys(self, partitions: Sequence[int]) -> list[tuple[str, int]]:
        return [(self._source.name, index) for index in partitions]

    def share(self, value: bytes) -> Shared:
        """Let it travel with the function, which each worker receives once a pass."""
        return Carried(value)

    @property
    def pass_seconds(self) -> float:  # type: ignore[override]
        """Seconds of a pass that are neither arithmetic nor transport."""
        return self._cluster.pass_seconds

    @property
    def slots(self) -> int:
        """How many partitions are computed at the same time."""
        return self._cluster.slots

    @property
    def context(self) -> NoReturn:
        """Refuse: there is no Spark."""
        refuse_spark("a SparkContext")

    @property
    def handles(self) -> NoReturn:
        """Refuse: there are no RDDs."""
        refuse_spark("RDDs")

    def release(self) -> None:
        """Delete the files."""
        self._handles = []
        self._close()


def _nothing(_: object = None) -> None:
    pass


@dataclass(frozen=True)
class WriteThere:
    """The task that writes a partition in its worker's folder, and applies a function to its handle.

    Parameters
    ----------
    read : TableReader
        How its rows are read.
    writer : WriteBlocks
        How they are written.
    folder : callable
        Returns the folder of the worker that the task runs on.
    function : callable
        What is applied to the handle.
    """

    read: TableReader
    writer: WriteBlocks
    folder: Callable[[], Path]
    function: Callable[[Handle], Any] = _nothing

    def __call__(self, part: tuple[int, TablePart]) -> tuple[Handle, Any]:
        index, rows = part
        handle = self.writer.write(index, self.read(rows), self.folder() / self.writer.name, rows.name)
        return handle, self.function(handle)


def _drop(cluster: Cluster, name: str) -> None:
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # the framework may have ended before
        cluster.drop(name)

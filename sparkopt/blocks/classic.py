"""A block store on Spark Classic: handles are an RDD. The only module, besides the engines, that knows RDDs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from sparkopt.blocks.backend import Backend, RowSource, Shared
from sparkopt.blocks.tasks import HANDLE_SCHEMA, Handle, ReadParquet, Sweep

if TYPE_CHECKING:
    from pyspark import RDD

__all__ = ["ClassicBackend", "slots_of"]

T = TypeVar("T")


class ClassicBackend(Backend):
    """Handles in a cached RDD."""

    has_rdds = True
    shuffles = True

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._handles = self._written().cache()

    @property
    def name(self) -> str:
        """Return "Spark Classic"."""
        return "Spark Classic"

    def run(self, function: Callable[[Handle], T], tasks: int | None = None) -> list[T]:
        """Map and collect."""
        handles = self._handles if tasks is None else self._handles.coalesce(tasks)
        return handles.map(function).collect()

    def run_fresh(self, function: Callable[[Handle], T], partitions: Sequence[int]) -> list[T]:
        """Run a job on the given partitions of a new, uncached RDD."""
        results: list[T] = self.context.runJob(self._written().map(function), _identity, list(partitions))
        return results

    @property
    def handles(self) -> RDD[Handle]:
        """The cached RDD."""
        return self._handles

    def share(self, value: bytes) -> Shared:
        """Broadcast."""
        broadcast: Shared = self.context.broadcast(value)
        return broadcast

    @property
    def slots(self) -> int:
        """As the scheduler counts them, for tasks of the default size."""
        return slots_of(self.context)

    @cached_property
    def context(self) -> Any:
        """The SparkContext of the source's session."""
        return self._source.df.sparkSession.sparkContext

    @property
    def session(self) -> Any:
        """The session of the source."""
        return self._source.df.sparkSession

    def release(self) -> None:
        """Unpersist, then sweep with enough tasks to reach every executor."""
        self._handles.unpersist()
        tasks = self.context.defaultParallelism
        self.context.parallelize(range(tasks), tasks).foreach(Sweep(self._source.name))

    def _written(self) -> RDD[Handle]:
        """Return the handles, whose files are written when and where they are computed."""
        scan = self._source.scan
        if scan is not None:
            read = ReadParquet(scan.reader, self._source.writer())
            parts = self.context.parallelize(scan.partitions, len(scan.partitions))
            handles: RDD[Handle] = parts.mapPartitionsWithIndex(read)
            return handles
        written = self._source.df.mapInArrow(self._source.writer(), HANDLE_SCHEMA)
        return written.rdd.mapPartitionsWithIndex(_to_handles)


def slots_of(context: Any) -> int:
    """Return how many tasks can run at the same time."""
    scala = context._jsc.sc()
    profile = scala.resourceProfileManager().defaultResourceProfile()
    return max(1, int(scala.maxNumConcurrentTasks(profile)))


def _to_handles(partition: int, rows: Iterable[Any]) -> Iterable[Handle]:
    """Return handles under their own partition's number: a task that rebuilds several knows its own number only."""
    return (replace(Handle.of(row.asDict()), partition=partition) for row in rows)


def _identity(items: Iterable[T]) -> Iterable[T]:
    return items

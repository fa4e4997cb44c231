"""A block store on Spark Classic: handles are an RDD. The only module, besides the engines, that knows RDDs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from sparkopt.blocks.backend import Backend, Shared, Source
from sparkopt.blocks.tasks import HANDLE_SCHEMA, Handle, Sweep

if TYPE_CHECKING:
    from pyspark import RDD

__all__ = ["ClassicBackend"]

T = TypeVar("T")


class ClassicBackend(Backend):
    """Handles in a cached RDD."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.handles = self._written().cache()

    def run(self, function: Callable[[Handle], T]) -> list[T]:
        """Map and collect."""
        return self.map(function).collect()

    def run_fresh(self, function: Callable[[Handle], T], partitions: Sequence[int]) -> list[T]:
        """Run a job on the given partitions of a new, uncached RDD."""
        results: list[T] = self.context.runJob(self._written().map(function), _identity, list(partitions))
        return results

    def map(self, function: Callable[[Handle], T]) -> RDD[T]:
        """Map, lazily."""
        return self.handles.map(function)

    def share(self, value: bytes) -> Shared:
        """Broadcast."""
        broadcast: Shared = self.context.broadcast(value)
        return broadcast

    @property
    def slots(self) -> int:
        """Spark's default parallelism."""
        return int(self.context.defaultParallelism)

    @cached_property
    def context(self) -> Any:
        """The SparkContext of the source's session."""
        return self._source.df.sparkSession.sparkContext

    def release(self) -> None:
        """Unpersist, then sweep with as many tasks as run at the same time."""
        self.handles.unpersist()
        self.context.parallelize(range(self.slots), self.slots).foreach(Sweep(self._source.name))

    def _written(self) -> RDD[Handle]:
        """Write when computed, wherever computed."""
        return self._source.df.mapInArrow(self._source.writer(), HANDLE_SCHEMA).rdd.map(_to_handle)


def _to_handle(row: Any) -> Handle:
    return Handle(row.partition, row.path, tuple(row.starts), row.bytes, row.error)


def _identity(items: Iterable[T]) -> Iterable[T]:
    return items

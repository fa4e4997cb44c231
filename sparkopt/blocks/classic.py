"""A block store on Spark Classic: handles are an RDD. The only module, besides the engines, that knows RDDs."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import pyarrow as pa

from sparkopt.blocks.backend import Backend, Carried, RowSource, Shared
from sparkopt.blocks.handles import HANDLE_SCHEMA, Handle
from sparkopt.blocks.local import delete_local_folders
from sparkopt.blocks.parquet import FilePart, NotReadHere, ParquetReader
from sparkopt.blocks.scan import ParquetScan
from sparkopt.blocks.tasks import ReadParquet, Sweep
from sparkopt.io.worker import spare_modules
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark import RDD
    from pyspark.sql import DataFrame

__all__ = ["ClassicBackend", "description_of", "of_files", "set_description", "slots_of"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

CARRIED_BYTES = 1 << 16
"""Most bytes of a value that travels with the function: Spark itself broadcasts that once to each executor."""

DESCRIPTION = "spark.job.description"

_ROOTS: WeakKeyDictionary[Any, list[str]] = WeakKeyDictionary()
"""The executor's own directories, by the SparkContext of local mode."""


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

    @property
    def source(self) -> str:
        """The DataFrame's files."""
        return self._source.shown

    def run(self, function: Callable[[Handle], T], tasks: int | None = None) -> list[T]:
        """Map and collect."""
        handles = self.handles
        return (handles if tasks is None else handles.coalesce(tasks)).map(function).collect()

    def run_fresh(self, function: Callable[[Handle], T], partitions: Sequence[int]) -> list[T]:
        """Run a job on the given partitions of a new, uncached RDD."""
        results: list[T] = self.context.runJob(self._written().map(function), _identity, list(partitions))
        return results

    def added(self, piece: Callable[[Handle, int], T | None], add: Callable[[list[T]], T], pieces: int) -> list[T]:
        """Add up each piece on an executor; here, with a job a piece, where a file is missing."""
        gathered: RDD[Any] = self.handles.flatMap(_AllPieces(piece, pieces)).groupByKey(pieces, _same)
        found = sorted(gathered.map(_AddPieces(add)).collect(), key=itemgetter(0))
        sums = [each for _, each in found if each is not None]
        return sums if len(sums) == pieces else super().added(piece, add, pieces)

    @property
    def handles(self) -> RDD[Handle]:
        """The cached RDD; it is cached again where somebody has emptied the session's caches."""
        if not self._handles._jrdd.getStorageLevel().useMemory():
            logger.warning("the cache of a fit was emptied: all rows are read again")
            self._handles.cache()
        return self._handles

    def share(self, value: bytes) -> Shared:
        """Broadcast, or keep it inside the function where it is small: a broadcast takes some 20 ms more."""
        if len(value) <= CARRIED_BYTES:
            return Carried(value)
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
        """Unpersist, then sweep on every executor, also on those that rebuilt what a killed one had.

        In local mode the driver's JVM is the executor, with the same directories as long as it lives: the first
        sweep returns them, and later ones need no job.
        """
        self._handles.unpersist()
        if (roots := _ROOTS.get(self.context)) is not None:
            delete_local_folders(self._source.name, roots)
            return
        is_local, places = _executors(self.context)
        sweeps = _placed(self.context, list(range(len(places))), places).map(Sweep(self._source.name))
        with _in_no_group(self.context):
            swept = sweeps.collect()
        if is_local:
            _ROOTS[self.context] = swept[0]

    def _written(self) -> RDD[Handle]:
        """Return the handles, whose files are written when and where they are computed."""
        scan = self._source.scan
        if scan is not None:
            read = ReadParquet(scan.reader, self._source.writer())
            handles: RDD[Handle] = _files_rdd(self.context, scan).mapPartitionsWithIndex(read)
            return handles
        written = self._source.df.mapInArrow(self._source.writer(), HANDLE_SCHEMA)
        return written.rdd.mapPartitionsWithIndex(_to_handles)


@contextmanager
def _in_no_group(context: Any) -> Iterator[None]:
    """Run jobs outside of the caller's job group and tags, whose future jobs may have been cancelled."""
    known = {name: context.getLocalProperty(name) for name in ("spark.jobGroup.id", "spark.job.tags")}
    for name in known:
        context.setLocalProperty(name, None)
    try:
        yield
    finally:
        for name, value in known.items():
            context.setLocalProperty(name, value)


def _files_rdd(context: Any, scan: ParquetScan) -> RDD[Sequence[FilePart]]:
    """Return an RDD whose partitions have one element each: the parts of files that a partition reads.

    Its tasks prefer the machines that hold these files, as those of Spark's own reader do.
    """
    return _placed(context, scan.partitions, scan.hosts)


def _placed(context: Any, elements: Sequence[T], places: Sequence[Sequence[str]]) -> RDD[T]:
    """Return an RDD of one element a partition, whose tasks prefer these places: hosts, or executors."""
    if not any(places):
        return context.parallelize(elements, len(elements))  # type: ignore[no-any-return]
    from pyspark import RDD
    from pyspark.serializers import CPickleSerializer

    jvm = context._jvm
    pairs = [
        jvm.scala.Tuple2(bytearray(pickle.dumps(element)), jvm.PythonUtils.toSeq(list(near)))
        for element, near in zip(elements, places, strict=True)
    ]
    placed = context._jsc.sc().makeRDD(jvm.PythonUtils.toSeq(pairs), jvm.scala.reflect.ClassTag.Any())
    return RDD(placed.toJavaRDD(), context, CPickleSerializer())


def _executors(context: Any) -> tuple[bool, list[list[str]]]:
    """Return whether this is local mode, and a place for each task that is to reach every executor.

    A place is as Spark's scheduler names one. In local mode one task reaches all there is. Where no executor is known
    yet, or any more, tasks go anywhere.
    """
    scala = context._jsc.sc()
    if scala.isLocal():
        return True, [[]]
    listed = scala.statusStore().executorList(True)
    known = [listed.apply(number) for number in range(listed.size())]
    found = [[f"executor_{one.hostPort().rpartition(':')[0]}_{one.id()}"] for one in known if one.id() != "driver"]
    return False, found or [[] for _ in range(context.defaultParallelism)]


def description_of(session: Any) -> str | None:
    """Return the description of the jobs that this thread starts; None where there is none."""
    found: str | None = session.sparkContext.getLocalProperty(DESCRIPTION)
    return found


def set_description(session: Any, text: str | None) -> None:
    """Describe the jobs that this thread starts; None removes the description."""
    session.sparkContext.setLocalProperty(DESCRIPTION, text)


def slots_of(context: Any) -> int:
    """Return how many tasks can run at the same time."""
    scala = context._jsc.sc()
    profile = scala.resourceProfileManager().defaultResourceProfile()
    return max(1, int(scala.maxNumConcurrentTasks(profile)))


def of_files(df: DataFrame, scan: ParquetScan, function: Callable[[Iterator[pa.RecordBatch]], T]) -> list[T] | None:
    """Return what a function returns of each partition of files; None where they are left to Spark's reader.

    Parameters
    ----------
    df : DataFrame
        Its session runs the job.
    scan : ParquetScan
        The files.
    function : callable
        Of a partition's rows; it can be pickled.
    """
    parts = _files_rdd(df.sparkSession.sparkContext, scan)
    found = parts.mapPartitions(_OfFiles(scan.reader, function)).collect()
    return None if any(isinstance(one, NotReadHere) for one in found) else found


@dataclass(frozen=True)
class _OfFiles:
    """The task that reads a partition's files."""

    reader: ParquetReader
    function: Callable[[Iterator[pa.RecordBatch]], Any]

    def __call__(self, partitions: Iterable[Sequence[FilePart]]) -> Iterator[Any]:
        spare_modules()
        for parts in partitions:
            try:
                yield self.function(self.reader(parts))
            except NotReadHere as reason:
                yield reason


def _to_handles(partition: int, rows: Iterable[Any]) -> Iterable[Handle]:
    """Return handles under their own partition's number: a task that rebuilds several knows its own number only."""
    return (replace(Handle.of(row.asDict()), partition=partition) for row in rows)


@dataclass(frozen=True)
class _AllPieces(Generic[T]):
    """The task that cuts what a partition has into pieces, each with its number and the partition's."""

    piece: Callable[[Handle, int], T | None]
    pieces: int

    def __call__(self, handle: Handle) -> Iterator[tuple[int, tuple[int, T | None]]]:
        return ((index, (handle.partition, self.piece(handle, index))) for index in range(self.pieces))


@dataclass(frozen=True)
class _AddPieces(Generic[T]):
    """The task that adds up one piece of all partitions, in their order; None where one is missing."""

    add: Callable[[list[T]], T]

    def __call__(self, gathered: tuple[int, Iterable[tuple[int, T | None]]]) -> tuple[int, T | None]:
        index, parts = gathered[0], [part for _, part in sorted(gathered[1], key=itemgetter(0))]
        found = [part for part in parts if part is not None]
        return index, self.add(found) if len(found) == len(parts) else None


def _same(key: int) -> int:
    return key


def _identity(items: Iterable[T]) -> Iterable[T]:
    return items

"""A block store on Spark Connect: handles are a cached view, and functions are sent to it by ``mapInArrow``.

The session's server keeps the view's plan, so that a pass sends nothing but its function. A plan built from the
user's DataFrame would include it in each pass, with local rows, and would be found in the cache only as long as its
functions are pickled to the same bytes.
"""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, TypeVar

import pyarrow as pa
from pyspark import TaskContext
from pyspark.cloudpickle import dumps
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkopt.blocks.backend import Backend, Carried, RowSource, Shared
from sparkopt.blocks.chunks import CHUNK_SCHEMA, chunks_of, collected
from sparkopt.blocks.handles import HANDLE_SCHEMA, Handle
from sparkopt.blocks.sent import NUMBER, PART, in_parts, joined
from sparkopt.blocks.tasks import Sweep, WriteBlocks, carry
from sparkopt.errors import IncompatibleError
from sparkopt.values import dataclass

__all__ = ["ConnectBackend", "slots_of"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

WholeFunction: TypeAlias = Callable[[Iterable[tuple[Handle, bytes]]], Iterable[T]]
"""What is computed from all handles, each with its file's content."""

ENOUGH_ROWS = 1 << 16
"""Rows that leave no task of a range without one."""

PIECE_SCHEMA = f"piece int, {CHUNK_SCHEMA}"


class ConnectBackend(Backend):
    """Handles in a cached temporary view; where the server keeps nothing, every run reads the source again.

    Attributes
    ----------
    keeps : bool
        Whether handles and files stay on the server from one run to the next. Serverless compute refuses to cache,
        and on some clusters tasks do not share a local disk: the first run finds out, and how long reading takes.
    """

    has_rdds = False
    shuffles = True

    def __init__(self, source: RowSource) -> None:
        self._source, self._session = source, source.df.sparkSession
        self._view = source.name.replace("-", "_")
        self.keeps, self._is_probed = True, False
        source.df.mapInArrow(source.writer(), HANDLE_SCHEMA).createTempView(self._view)
        try:
            self._session.catalog.cacheTable(self._view)
        except PySparkException as error:
            self._keep_nothing(str(error).strip().partition("\n")[0])

    def _keep_nothing(self, reason: str) -> None:
        logger.warning("every job reads the rows again, since this server keeps none: %s", reason)
        self._session.catalog.dropTempView(self._view)
        self._source.df.createTempView(self._view)
        self.keeps = False

    @property
    def name(self) -> str:
        """Return "Spark Connect"."""
        return "Spark Connect"

    @property
    def source(self) -> str:
        """The DataFrame's files."""
        return self._source.shown

    def run(self, function: Callable[[Handle], T], tasks: int | None = None) -> list[T]:
        """Run over the view, which Spark schedules where its rows are cached."""
        begin = time.perf_counter()
        with self._sent(function) as (pickled, parts):
            results: list[T] = _collect(self._mapped(_OnHandles(pickled), parts))
        if not self.keeps and not self._is_probed:
            self.pass_seconds = time.perf_counter() - begin
        if self.keeps and not self._is_probed and any(isinstance(result, _NotHere) for result in results):
            self._keep_nothing("tasks do not find the files of other tasks")
            return self.run(function, tasks)
        self._is_probed = True
        return results

    def _sent(self, function: Callable[..., Any]) -> AbstractContextManager[tuple[bytes, DataFrame | None]]:
        """Return a pickled function, or its parts, as ``in_parts`` does; only rows of handles can carry these."""
        instead = "Use a Spark Classic session, or fewer features or classes."
        refusal = None if self.keeps else ("what a pass sends to a server that keeps no rows", instead)
        return in_parts(self._session, function, refusal)

    def _mapped(self, task: _OnHandles, parts: DataFrame | None = None, schema: str = CHUNK_SCHEMA) -> DataFrame:
        rows = self._session.table(self._view)
        if not self.keeps:
            return rows.mapInArrow(_ReadThen(self._source.writer(), task), schema)
        rows, mapped = joined(rows, parts, task if self._is_probed else replace(task, looks=True))
        return rows.mapInArrow(mapped, schema)

    def run_fresh(self, function: Callable[[Handle], T], partitions: Sequence[int]) -> list[T]:
        """Run over the source again; tasks of other partitions end at once."""
        written = self._source.df.mapInArrow(self._source.writer(frozenset(partitions)), HANDLE_SCHEMA)
        with in_parts(self._session, function) as (pickled, parts):
            rows, task = joined(written, parts, _OnHandles(pickled))
            return _collect(rows.mapInArrow(task, CHUNK_SCHEMA))

    def run_whole(self, function: WholeFunction[T]) -> list[T]:
        """Send all files to one task, and run ``function`` there: one job, which reads the source where it must."""
        carried = self._mapped(_OnHandles(dumps(carry)))
        with in_parts(self._session, function) as (pickled, parts):
            if parts is not None:
                first = F.lit(-1).alias("partition"), F.col(NUMBER).alias("number"), F.col(PART).alias("bytes")
                carried = carried.unionByName(parts.select(*first))
            return _collect(carried.repartition(1).mapInArrow(_InOneTask(pickled), CHUNK_SCHEMA))

    def run_grouped(
        self,
        function: Callable[[Handle], T],
        cut: Callable[[T], Iterable[tuple[int, T]]],
        fold: Callable[[tuple[int, Iterable[T]]], T],
        groups: int,
    ) -> list[T]:
        """Run, cut each result into pieces, each with a group's number, and fold every group on the server."""
        with self._sent(function) as (pickled, parts):
            pieces = self._mapped(_OnHandles(pickled, cut=dumps(cut)), parts, PIECE_SCHEMA)
            grouped = pieces.repartition(groups, "piece")
            return _collect(grouped.mapInArrow(_FoldGroups(dumps(fold)), CHUNK_SCHEMA))

    def read_in_task(self) -> tuple[DataFrame, Callable[[int, Iterator[pa.RecordBatch]], Handle]]:
        """Return the rows, and what makes a partition's blocks of them in the memory of the task that reads them."""
        return self._session.table(self._view), self._source.writer().keep

    def share(self, value: bytes) -> Shared:
        """Keep it inside the function: Connect has no broadcasts."""
        return Carried(value)

    @property
    def session(self) -> SparkSession:
        """The session of the source."""
        return self._session

    @cached_property
    def slots(self) -> int:
        """As many as Spark makes tasks of a range."""
        return slots_of(self._session)

    @property
    def context(self) -> NoReturn:
        """Refuse: there is none."""
        raise _refusal("a SparkContext")

    @property
    def handles(self) -> NoReturn:
        """Refuse: there are no RDDs."""
        raise _refusal("RDDs")

    def release(self) -> None:
        """Drop the view, which drops its cache too, then sweep with as many tasks as run at the same time."""
        self._session.catalog.dropTempView(self._view)
        if self.keeps:
            _on_each_slot(self._session, Sweep(self._source.name))


def _refusal(what: str) -> IncompatibleError:
    return IncompatibleError(
        f"this needs {what}, which Spark Connect does not have. Use engine='driver', or a Spark Classic session."
    )


def slots_of(session: SparkSession) -> int:
    """Return how many tasks can run at the same time, by one small job."""
    return _on_each_slot(session, _nothing)


def _on_each_slot(session: SparkSession, function: Callable[[object], object]) -> int:
    """Run a function in each task of a range; return their number."""
    return int(session.range(ENOUGH_ROWS).mapInArrow(_Once(function), "done int").toArrow().num_rows)


def _nothing(_: object) -> None:
    pass


@dataclass(frozen=True)
class _Once:
    """A task that calls a function once, whatever its rows."""

    function: Callable[[object], object]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            pass
        self.function(None)
        yield pa.RecordBatch.from_pydict({"done": pa.array([1], pa.int32())})


class _NotHere:
    """A result that there is none, since the task does not see the file that another one has just written."""


@dataclass(frozen=True)
class _OnHandles:
    """The task: rows of handles in, the function's results out, pickled and cut into chunks.

    ``cut`` divides each result into pieces, each of a group; ``looks`` says whether to look for the file first.
    """

    pickled: bytes
    cut: bytes | None = None
    looks: bool = False

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in batch.to_pylist():
                yield from self.of(Handle.of(row))

    def of(self, handle: Handle) -> Iterator[pa.RecordBatch]:
        """Yield the results for one handle."""
        if self.looks and handle.path and not os.path.exists(handle.path):
            yield from chunks_of(handle.partition, dumps(_NotHere()))
            return
        function = pickle.loads(self.pickled)  # noqa: S301  # written by this session's own driver
        result = function(handle)
        if self.cut is None:
            yield from chunks_of(handle.partition, dumps(result))
            return
        for piece, part in pickle.loads(self.cut)(result):  # noqa: S301  # as above
            for chunk in chunks_of(handle.partition, dumps(part)):
                pieces = pa.array([piece] * chunk.num_rows, pa.int32())
                yield pa.RecordBatch.from_arrays([pieces, *chunk.columns], ["piece", *chunk.schema.names])


@dataclass(frozen=True)
class _ReadThen:
    """The task where the server keeps nothing: rows in; blocks live as long as it does."""

    writer: WriteBlocks
    then: _OnHandles

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        partition = context.partitionId() if context is not None else 0
        with tempfile.TemporaryDirectory(prefix="sparkopt-") as folder:
            yield from self.then.of(self.writer.write(partition, batches, Path(folder)))


@dataclass(frozen=True)
class _InOneTask:
    """The task that has all files: chunks of handles with their files' contents in, the function's results out.

    A function that comes in chunks too is before all of them.
    """

    pickled: bytes

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        wholes = _whole(batches)
        pickled = self.pickled or wholes.pop(0)
        held = [pickle.loads(whole) for whole in wholes]  # noqa: S301  # this session's own tasks
        function = pickle.loads(pickled)  # noqa: S301  # written by this session's own driver
        for number, result in enumerate(function(held)):
            yield from chunks_of(number, dumps(result))


@dataclass(frozen=True)
class _FoldGroups:
    """The task that folds the groups that are sent to it."""

    fold: bytes

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        fold = pickle.loads(self.fold)  # noqa: S301  # written by this session's own driver
        groups: dict[int, list[pa.RecordBatch]] = defaultdict(list)
        for batch in batches:
            for row in range(batch.num_rows):
                one = batch.slice(row, 1)
                groups[one.column("piece")[0].as_py()].append(one.select(["partition", "number", "bytes"]))
        for group, chunks in sorted(groups.items()):
            members = [pickle.loads(whole) for whole in _whole(chunks)]  # noqa: S301  # this session's own tasks
            yield from chunks_of(group, dumps(fold((group, members))))


def _collect(chunks: DataFrame) -> list[Any]:
    return collected(chunks.toArrow())


def _whole(batches: Iterable[pa.RecordBatch]) -> list[bytes]:
    """Join the chunks of each partition, in the order of partitions."""
    found: dict[int, dict[int, bytes]] = defaultdict(dict)
    for batch in batches:
        columns = (batch.column(name).to_pylist() for name in ("partition", "number", "bytes"))
        for partition, number, part in zip(*columns, strict=True):
            found[partition][number] = part
    return [b"".join(parts[number] for number in sorted(parts)) for _, parts in sorted(found.items())]

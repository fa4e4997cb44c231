"""A block store on Spark Connect: handles are a cached view, and functions are sent to it by ``mapInArrow``.

The session's server keeps the view's plan, so that a pass sends nothing but its function. A plan built from the
user's DataFrame would include it in each pass, with local rows, and would be found in the cache only as long as its
functions are pickled to the same bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, TypeVar

import pyarrow as pa
from pyspark.cloudpickle import dumps
from pyspark.sql import SparkSession

from sparkopt.blocks.backend import Backend, RowSource, Shared
from sparkopt.blocks.chunks import CHUNK_SCHEMA, chunks_of, collected
from sparkopt.blocks.handles import HANDLE_SCHEMA, Handle
from sparkopt.blocks.tasks import Sweep
from sparkopt.errors import IncompatibleError

__all__ = ["ConnectBackend", "slots_of"]

T = TypeVar("T")

MOST_SENT = 120 << 20
"""Most bytes of a function sent to the server: gRPC's limit of 128 MiB, less room for the rest of the plan."""

ENOUGH_ROWS = 1 << 16
"""Rows that leave no task of a range without one."""


class ConnectBackend(Backend):
    """Handles in a cached temporary view."""

    has_rdds = False

    def __init__(self, source: RowSource) -> None:
        self._source, self._session = source, source.df.sparkSession
        self._view = source.name.replace("-", "_")
        source.df.mapInArrow(source.writer(), HANDLE_SCHEMA).createTempView(self._view)
        self._session.catalog.cacheTable(self._view)

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
        return collected(self._session.table(self._view).mapInArrow(_on_handles(function), CHUNK_SCHEMA).toArrow())

    def run_fresh(self, function: Callable[[Handle], T], partitions: Sequence[int]) -> list[T]:
        """Run over the source again; tasks of other partitions end at once."""
        written = self._source.df.mapInArrow(self._source.writer(frozenset(partitions)), HANDLE_SCHEMA)
        return collected(written.mapInArrow(_on_handles(function), CHUNK_SCHEMA).toArrow())

    def share(self, value: bytes) -> Shared:
        """Keep it inside the function: Connect has no broadcasts."""
        return _Carried(value)

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
        _on_each_slot(self._session, Sweep(self._source.name))


def _refusal(what: str) -> IncompatibleError:
    return IncompatibleError(
        f"this needs {what}, which Spark Connect does not have. Use engine='driver', or a Spark Classic session."
    )


def slots_of(session: SparkSession) -> int:
    """Return how many tasks can run at the same time, by one small job."""
    return _on_each_slot(session, _nothing)


def _on_each_slot(session: SparkSession, function: Callable[[object], None]) -> int:
    """Run a function in each task of a range; return their number."""
    return int(session.range(ENOUGH_ROWS).mapInArrow(_Once(function), "done int").toArrow().num_rows)


@dataclass(frozen=True)
class _Carried:
    """Bytes inside the function that needs them."""

    value: bytes

    def destroy(self) -> None:
        """Do nothing: there is no copy elsewhere."""


def _nothing(_: object) -> None:
    pass


@dataclass(frozen=True)
class _Once:
    """A task that calls a function once, whatever its rows."""

    function: Callable[[object], None]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            pass
        self.function(None)
        yield pa.RecordBatch.from_pydict({"done": pa.array([1], pa.int32())})


def _on_handles(function: Callable[[Handle], Any]) -> _OnHandles:
    """Pickle once, and check the size before the server refuses it.

    Raises
    ------
    IncompatibleError
        For a function that is too large for a message.
    """
    pickled = dumps(function)
    if len(pickled) > MOST_SENT:
        raise IncompatibleError(
            f"a pass sends {len(pickled) >> 20} MiB of coefficients to the tasks, and a message of Spark Connect "
            f"holds {MOST_SENT >> 20} MiB. Use a Spark Classic session, or fewer features or classes."
        )
    return _OnHandles(pickled)


@dataclass(frozen=True)
class _OnHandles:
    """The task: rows of handles in, the function's results out, pickled and cut into chunks."""

    pickled: bytes

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        function = pickle.loads(self.pickled)  # noqa: S301  # written by this session's own driver
        for batch in batches:
            for row in batch.to_pylist():
                handle = Handle.of(row)
                yield from chunks_of(handle.partition, dumps(function(handle)))

"""Rows that the workers of a framework hold, such as Dask's or Ray's, and who runs functions on them there.

A table of such rows has a `Cluster`. Its partitions are `RemotePart`: a name, and a reference that the framework
turns into rows where a task runs. There the rows take the place of the reference, so that whatever is computed of
partitions on one machine is computed there by the same code.
"""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from sparkopt.errors import LostProcessError, ParameterError, SchemaError, SparkoptError
from sparkopt.io.filesystem import brief
from sparkopt.machine.limits import one_thread
from sparkopt.machine.part import UNREADABLE, MemoryPart, TablePart
from sparkopt.values import dataclass

__all__ = [
    "Call",
    "Cluster",
    "FrameRows",
    "Mapped",
    "Outcome",
    "RemotePart",
    "as_field",
    "groups_of",
    "references",
    "results_of",
]

A = TypeVar("A")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class RemotePart(TablePart):
    """A partition whose rows a framework holds.

    Parameters
    ----------
    name : str
        What errors call it.
    form : callable
        From the framework's own partition to a pyarrow.Table; it can be pickled.
    reference : object, default None
        What the framework turns into its own partition where a task runs. It is not pickled with the part.
    load : callable, optional
        From the reference to the framework's own partition, here.
    """

    name: str
    form: Callable[[Any], pa.Table]
    reference: Any = field(default=None, repr=False)
    load: Callable[[Any], Any] | None = field(default=None, repr=False)
    rows = None
    bytes = None

    def holding(self, rows: Any) -> MemoryPart:
        """Return the part with the framework's own partition in memory."""
        return MemoryPart(self.name, self.form(rows))

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows, which are brought here; tasks have them already."""
        if self.load is None:
            raise ParameterError(f"{self.name} has no rows here: it stands for any partition.")
        return self.holding(self.load(self.reference)).batches(columns)

    def __reduce__(self) -> tuple[Callable[..., RemotePart], tuple[str, Callable[[Any], pa.Table]]]:
        """Pickle all but the reference, which the framework sends by itself."""
        return RemotePart, (self.name, self.form)


def references(item: Any) -> list[Any]:
    """Return what the framework has to turn into rows for an item: a part, or a tuple with parts."""
    if isinstance(item, tuple):
        return [found for each in item for found in references(each)]
    while hasattr(item, "part"):
        item = item.part
    return [item.reference] if isinstance(item, RemotePart) else []


def _bound(item: Any, rows: Iterator[Any]) -> Any:
    """Return an item with rows in place of its references."""
    if isinstance(item, tuple):
        return tuple(_bound(each, rows) for each in item)
    if isinstance(item, RemotePart):
        return item.holding(next(rows))
    return replace(item, part=_bound(item.part, rows)) if hasattr(item, "part") else item


@dataclass(frozen=True)
class Outcome:
    """What a task says of an item: where it ran, and its value or its error."""

    worker: Hashable
    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class Call:
    """The task: a function applied to items, on one of the framework's workers.

    Parameters
    ----------
    where : callable
        Returns the worker that it runs on.
    """

    where: Callable[[], Hashable]

    def __call__(self, function: Callable[[Any], Any], items: Sequence[Any], *rows: Any) -> list[Outcome]:
        """Return the outcome of each item; ``rows`` are what their references became, in their order."""
        held, worker = iter(rows), self.where()
        with single_threaded():
            return [_outcome(function, item, held, worker) for item in items]


def _outcome(function: Callable[[Any], Any], item: Any, rows: Iterator[Any], worker: Hashable) -> Outcome:
    try:
        return Outcome(worker, function(_bound(item, rows)))
    except Exception as error:  # noqa: BLE001  # raised again by ``results_of``, where the function was handed over
        return Outcome(worker, error=error)


def results_of(outcomes: Sequence[Outcome]) -> list[Any]:
    """Return the values of items, or raise what the first of them that failed raised."""
    for outcome in outcomes:
        if outcome.error is not None:
            quiet = isinstance(outcome.error, SparkoptError)
            raise outcome.error.with_traceback(None) if quiet else outcome.error
    return [outcome.value for outcome in outcomes]


class _Limited:
    """How many tasks of this process keep BLAS to one thread."""

    lock = threading.Lock()
    tasks = 0
    limit = contextlib.ExitStack()


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Let BLAS use one thread while any task of this process computes: the framework counts a core for each task."""
    with _Limited.lock:
        _Limited.tasks += 1
        if _Limited.tasks == 1:
            _Limited.limit.enter_context(one_thread())
    try:
        yield
    finally:
        with _Limited.lock:
            _Limited.tasks -= 1
            if not _Limited.tasks:
                _Limited.limit.close()


def groups_of(
    keys: Sequence[Hashable], homes: Mapping[Hashable, Hashable], slots: int
) -> list[tuple[Hashable | None, list[int]]]:
    """Return which items are one task, with the worker that had their keys before.

    A task costs a framework a millisecond or more, so items of a worker share one for each of its slots. Items
    without a worker are tasks of their own.

    Examples
    --------
    >>> groups_of([0, 1, 2, 3], {0: "a", 1: "b", 2: "a"}, slots=1)
    [('a', [0, 2]), ('b', [1]), (None, [3])]
    """
    by_worker: dict[Hashable, list[int]] = {}
    alone: list[tuple[Hashable | None, list[int]]] = []
    for index, key in enumerate(keys):
        if key in homes:
            by_worker.setdefault(homes[key], []).append(index)
        else:
            alone.append((None, [index]))
    groups: list[tuple[Hashable | None, list[int]]] = []
    for worker, indices in by_worker.items():
        count = min(len(indices), max(1, slots))
        groups += [(worker, indices[start::count]) for start in range(count)]
    return groups + alone


class Cluster(ABC):
    """Who runs functions on a table's partitions, where a framework holds its rows.

    Attributes
    ----------
    pass_seconds : float
        Seconds of a ``run`` on all partitions that are neither arithmetic nor transport.
    """

    pass_seconds: float

    def __init__(self) -> None:
        self._homes: dict[Hashable, Hashable] = {}

    @property
    @abstractmethod
    def name(self) -> str:
        """The framework and its workers, as receipts call it."""

    @property
    @abstractmethod
    def is_here(self) -> bool:
        """Whether all workers are on this machine, and share its files."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many tasks run at the same time."""

    @property
    @abstractmethod
    def slots_each(self) -> int:
        """How many tasks run at the same time where files are shared: in a process, or on a node."""

    def run(self, function: Callable[[A], T], items: Sequence[A], *, on: Sequence[Hashable] | None = None) -> list[T]:
        """Apply a function to each item, and return the results in the items' order.

        Parameters
        ----------
        function : callable
            Called with one item. It may be defined anywhere, also in the script or notebook that runs.
        items : sequence
            What it is applied to. Parts get their rows where it is called.
        on : sequence of hashable, optional
            A key for each item, of what a worker keeps for it: an item prefers the worker that had its key before.

        Raises
        ------
        Exception
            What the function raised for the first item that failed.
        LostProcessError
            Where workers ended unexpectedly, again and again, with the same item.
        """
        if not items:
            return []
        keys = [object() for _ in items] if on is None else list(on)
        groups = groups_of(keys, self._homes, self.slots_each)
        found = self._outcomes(function, [(worker, [items[index] for index in group]) for worker, group in groups])
        outcomes: list[Any] = [None] * len(items)
        for (_, group), results in zip(groups, found, strict=True):
            for index, outcome in zip(group, results, strict=True):
                outcomes[index] = outcome
                if on is not None:
                    self._homes[keys[index]] = outcome.worker
        return results_of(outcomes)

    @abstractmethod
    def _outcomes(
        self, function: Callable[[Any], Any], tasks: Sequence[tuple[Hashable | None, list[Any]]]
    ) -> list[list[Outcome]]:
        """Run tasks, each on a worker or on any, and return the outcomes of their items."""

    @abstractmethod
    def folder(self) -> Callable[[], Path]:
        """Return what returns, in a task, the folder of the worker that it runs on; it ends with the worker."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Delete a folder of this name in every worker's folder, as far as workers are there."""


class FrameRows(NamedTuple):
    """The rows of a framework's frame, for a table.

    Attributes
    ----------
    schema : pyarrow.Schema
        Names and types of the columns.
    parts : sequence of TablePart
        The partitions.
    cluster : Cluster or None
        Who runs functions on them where they are; None where they were brought to this machine.
    reader : str
        What reads the rows, and why.
    keeps : object, default None
        What the partitions need as long as they are used.
    """

    schema: pa.Schema
    parts: Sequence[TablePart]
    cluster: Cluster | None
    reader: str
    keeps: object = None


def as_field(column: pa.ChunkedArray, field: pa.Field) -> Any:
    """Return a column of a partition in the type that the frame says; null where it has none.

    Raises
    ------
    SchemaError
        Where its values do not fit.
    """
    if field.metadata and UNREADABLE in field.metadata:
        return pa.nulls(len(column))
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise SchemaError(
            f"column {field.name!r} is {column.type} in a partition and {field.type} in the frame: {error}"
        ) from None


def lost(error: Exception) -> LostProcessError:
    """Return the error of a task whose workers ended again and again."""
    return LostProcessError(f"workers ended unexpectedly, again and again, with the same task: {brief(error)}")


@dataclass(frozen=True)
class Mapped:
    """A partition of a frame with what was made of it: what a framework's ``mapped`` applies.

    Parameters
    ----------
    part : TablePart
        The only part of a table that was made of an outline.
    schema : pyarrow.Schema
        The columns of the result.
    """

    part: TablePart
    schema: pa.Schema

    def __call__(self, rows: Any) -> pa.Table:
        """Return the framework's own partition with what was made of it."""
        with single_threaded():
            batches = list(_bound(self.part, iter([rows])).batches(self.schema.names))
        return pa.Table.from_batches(batches, self.schema)

"""Where the loop runs. Here: on the driver, with one Spark aggregation per pass over the data."""

from __future__ import annotations

import pickle
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.cloudpickle import dumps

from sparkopt.blocks.backend import Shared
from sparkopt.blocks.block import Blocks
from sparkopt.blocks.store import BlockStore, Result
from sparkopt.objective import PartialSum, Query
from sparkopt.solve import Problem, Solution, minimise_many
from sparkopt.validation import Interval, check
from sparkopt.work import Part, Work

if TYPE_CHECKING:
    from pyspark import RDD

__all__ = ["Aggregator", "DriverAggregator", "Pass"]


@dataclass(frozen=True)
class Pass:
    """What one pass over a step's rows cost.

    Attributes
    ----------
    step : int
        The step that asked for it.
    seconds : float
        On the driver's clock, from the request to the sum.
    compute : float
        Of these, the arithmetic in the tasks: the longest task, or all tasks' seconds over the slots they share.
    reduce : float
        Of these, adding up on the driver.
    bytes_sent : int
        Sums that left the tasks, and coefficients that were sent to them.
    rows : int
        Rows touched.
    peak_memory : int
        Largest resident memory of a Python worker so far, in bytes.
    """

    step: int
    seconds: float
    compute: float
    reduce: float
    bytes_sent: int
    rows: int
    peak_memory: int


class Aggregator(ABC):
    """Runs the loop over a store's blocks."""

    name: str

    @abstractmethod
    def run(self, problems: Sequence[Problem], work: Work, store: BlockStore) -> tuple[list[Solution], list[Pass]]:
        """Minimise over the store's rows, sharing passes; return the solutions and what each pass cost."""


@dataclass(frozen=True)
class DriverAggregator(Aggregator):
    """The loop on the driver: coefficients go out with each task, sums come back.

    Sums are added in partition order, whatever order the tasks end in, so equal data, partitions and seed give
    bit-identical coefficients. Small sums are collected. Where the sums of all partitions together exceed
    ``collect_bytes``, they are added on the executors first, in groups, as ``RDD.treeAggregate`` does, but in a fixed
    order.

    Parameters
    ----------
    depth : int, default 2
        Levels of the tree.
    collect_bytes : int, default 64 MiB
        Most bytes of sums that the driver collects directly.
    """

    depth: int = 2
    collect_bytes: int = 64 << 20
    name = "driver"

    def __post_init__(self) -> None:
        check("aggregationDepth", self.depth, Interval(1, None, whole=True))

    def run(self, problems: Sequence[Problem], work: Work, store: BlockStore) -> tuple[list[Solution], list[Pass]]:
        """Run the loop here."""
        shared = store.share(dumps(work))
        passes: list[Pass] = []

        def reduce(query: Query) -> PartialSum:
            begin = time.perf_counter()
            task = _Step(shared, query)
            sums, reduced = self._sum(store, task)
            total = sums.partial
            slots = max(1, min(store.slots, store.partitions))
            passes.append(
                Pass(
                    query.step,
                    time.perf_counter() - begin,
                    max(sums.longest, sums.seconds / slots),
                    reduced,
                    store.partitions * (total.gradient.nbytes + query.coefs.nbytes),
                    total.rows,
                    sums.peak_memory,
                )
            )
            return total

        try:
            return minimise_many(reduce, problems), passes
        finally:
            shared.destroy()

    def _sum(self, store: BlockStore, task: _Step) -> tuple[_TaskSum, float]:
        """Return the sum over all partitions, and the seconds that the driver spent adding."""
        is_wide = task.query.coefs.nbytes * store.partitions > self.collect_bytes
        groups = self._groups(store.partitions) if is_wide and store.has_rdds else []
        results = _tree(store.map(task), groups).collect() if groups else store.collect(task)
        if any(result.value is None for result in results):  # a sum lacks a partition: take each by itself
            results = store.collect(task)
            for count in groups:
                results = _in_groups(results, count)
        begin = time.perf_counter()
        return _fold(results), time.perf_counter() - begin

    def _groups(self, partitions: int) -> list[int]:
        """Return the number of sums after each level of the tree, as ``RDD.treeAggregate`` chooses them."""
        scale = max(2, int(-(-(partitions ** (1.0 / self.depth)) // 1)))
        counts = []
        while partitions > scale + -(-partitions // scale):
            partitions //= scale
            counts.append(partitions)
        return counts


@dataclass(frozen=True)
class _TaskSum:
    """A task's sum, and what it cost there."""

    partial: PartialSum
    seconds: float
    longest: float
    peak_memory: int

    def __add__(self, other: _TaskSum) -> _TaskSum:
        return _TaskSum(
            self.partial + other.partial,
            self.seconds + other.seconds,
            max(self.longest, other.longest),
            max(self.peak_memory, other.peak_memory),
        )


@dataclass(frozen=True)
class _Step:
    """One partition's task in one pass."""

    work: Shared
    query: Query

    def __call__(self, part: Part, blocks: Blocks) -> _TaskSum:
        work: Work = pickle.loads(self.work.value)  # noqa: S301  # written by this job's own driver
        begin = time.perf_counter()
        partial = work(self.query, part, blocks)
        seconds = time.perf_counter() - begin
        return _TaskSum(partial, seconds, seconds, _peak_memory())


def _peak_memory() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _fold(results: Iterable[Result[_TaskSum]]) -> _TaskSum:
    """Add up in the order of partitions."""
    ordered = sorted(results, key=lambda result: result.partition)
    values = [result.value for result in ordered if result.value is not None]
    return sum(values[1:], values[0])


def _group(index: int, results: Sequence[Result[_TaskSum]]) -> Result[_TaskSum]:
    """Add up one group of the tree; a missing member makes the group missing."""
    if any(result.value is None for result in results):
        return Result(index, None)
    return Result(index, _fold(results))


def _in_groups(results: Sequence[Result[_TaskSum]], groups: int) -> list[Result[_TaskSum]]:
    """One level of the tree on the driver."""
    members = [[result for result in results if result.partition % groups == index] for index in range(groups)]
    return [_group(index, group) for index, group in enumerate(members) if group]


def _tree(results: RDD[Result[_TaskSum]], groups: Sequence[int]) -> RDD[Result[_TaskSum]]:
    """All levels of the tree on the executors."""
    for count in groups:
        keyed: RDD[Any] = results.map(_KeyBy(count)).groupByKey(count, _identity)
        results = keyed.map(_group_of)
    return results


@dataclass(frozen=True)
class _KeyBy:
    """Group number to result."""

    groups: int

    def __call__(self, result: Result[_TaskSum]) -> tuple[int, Result[_TaskSum]]:
        return result.partition % self.groups, result


def _identity(key: int) -> int:
    return key


def _group_of(pair: tuple[int, Iterable[Result[_TaskSum]]]) -> Result[_TaskSum]:
    return _group(pair[0], list(pair[1]))

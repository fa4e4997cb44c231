"""Where the loop runs. Here: on the driver, with one Spark aggregation per pass over the data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pyspark.cloudpickle import dumps

from sparkopt.blocks.cancelling import Cancellation, cancellable
from sparkopt.blocks.descriptions import described
from sparkopt.blocks.store import BlockStore, Result
from sparkopt.communication.autotune import reduce_by
from sparkopt.communication.encoder import Encoder, PassMessage
from sparkopt.communication.sums import Pass, Summation, driver_pass, fold
from sparkopt.engines.base import Engine, EngineRun, FitSize
from sparkopt.engines.reduction import Sums, levels, sliced, tree
from sparkopt.engines.step import Step
from sparkopt.launch.threads import task_threads
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.work import Work
from sparkopt.optim.request import Losses
from sparkopt.solver.loop import Reduce, minimise_many
from sparkopt.solver.problem import Problem
from sparkopt.validation import Interval, OneOf, check
from sparkopt.values import dataclass

__all__ = ["DriverEngine"]

REDUCTIONS = ("auto", "collect", "tree", "sharded")
SLICE_BYTES = 1 << 20
"""Least size of a slice: below it, a shuffle's cost per piece exceeds what slicing saves."""
DRIVER_BYTES = 5e8
"""Bytes of sums per second that Spark moves to its driver: pickled, and through the JVM."""
WIDE_TREE = 50
"""Sums that one process should add at most; more of them ask for a deeper tree."""


@dataclass(frozen=True)
class DriverEngine(Engine):
    """The loop on the driver: one Spark job a pass sends coefficients with each task, and collects the sums.

    Sums are added in a fixed order, whatever order the tasks end in, so equal data, partitions and seed give
    bit-identical coefficients.

    Parameters
    ----------
    depth : int, default 2
        Levels of the tree.
    reduction : {"auto", "collect", "tree", "sharded"}, default "auto"
        How the sums are added up. "auto" collects while the sums of all partitions together stay within
        ``collect_bytes``; above that, it cuts sums of several MiB into slices, and adds smaller ones up in a tree.
    collect_bytes : int, default 64 MiB
        Most bytes of sums that the driver collects directly.
    """

    depth: int = 2
    reduction: str = "auto"
    collect_bytes: int = 64 << 20
    name = "driver"
    startup_seconds = 0.0
    pass_seconds = 0.0  # in addition to a job of the store's backend
    needs_spark = needs_rdds = connects = False

    def __post_init__(self) -> None:
        check("aggregationDepth", self.depth, Interval(1, None, whole=True))
        check("reduction", self.reduction, OneOf(REDUCTIONS))

    @classmethod
    def of_depth(cls, depth: int) -> DriverEngine:
        """Return the engine with a tree of this depth."""
        return cls(depth)

    def senders(self, size: FitSize) -> int:
        """Return the number of partitions: each sends its sum."""
        return size.partitions

    def transport_seconds(self, size: FitSize) -> float:
        """Return the seconds in which the driver receives the sums, as many as it collects directly."""
        sums = min(size.partitions, max(1, self.collect_bytes // max(1, size.summed)))
        return sums * size.summed / DRIVER_BYTES

    def seconds(self, size: FitSize, passes: int) -> float:
        """Return the estimated seconds of a fit of so many passes, each of them a job."""
        return super().seconds(size, passes) + passes * size.job_seconds

    def advice(self, size: FitSize) -> list[str]:
        """Recommend a deeper tree where a process would add too many sums."""
        if size.partitions ** (1 / self.depth) <= WIDE_TREE:
            return []
        return [f"{size.partitions} partitions ask for a deeper tree: aggregationDepth={self.depth + 1}."]

    def run(
        self, problems: Sequence[Problem], work: Work, store: BlockStore, encoder: Encoder | None = None
    ) -> EngineRun:
        """Run the loop on the driver."""
        passes: list[Pass] = []
        # the optimiser's vectors are small for several threads, which wait for one another where others use the cores
        with task_threads(), self.reducing(Summation(work, encoder), store, passes) as reduce:
            return EngineRun(minimise_many(reduce, problems), passes, self.name)

    @contextmanager
    def reducing(self, summation: Summation, store: BlockStore, passes: list[Pass]) -> Iterator[Reduce]:
        """Yield a function that sums over the store, and appends to ``passes`` what each sum cost."""
        slots = min(store.slots, store.partitions)
        size = 8 * summation.work.objective.size
        if self._reduction_of(size, store) == "sharded":
            summation = summation.in_slices(_slices(size, slots))
        shared = store.share(dumps(summation))
        describe: Callable[[str], None]
        cancellation: Cancellation

        def send(message: PassMessage) -> PartialSum:
            cancellation.check()
            describe(f"pass {len(passes) + 1}")
            begin, query = time.perf_counter(), message.query
            how = self._reduction(query, store)
            slices = _slices(query.request.points.nbytes, slots) if how == "sharded" else 1
            sums = self._sums(store, Step(shared, message, slices), how, slots)
            adding = time.perf_counter()
            total = fold(sums)
            partial = total.sums.decoded()
            end = time.perf_counter()
            arrived = sum(result.value.sums.sent_bytes for result in sums if result.value)
            codec = summation.codec_name(message)
            passes.append(driver_pass(codec, query, (begin, adding, end), slots, total, arrived))
            return partial

        try:
            with cancellable(store.session) as cancellation, described(store.session) as describe:
                yield reduce_by(send, summation, passes)
        finally:
            shared.destroy()

    def _reduction(self, query: Query, store: BlockStore) -> str:
        is_small = isinstance(query.request, Losses)
        return "collect" if is_small else self._reduction_of(query.request.points.nbytes, store)

    def _reduction_of(self, size: int, store: BlockStore) -> str:
        if self.reduction != "auto":
            return self.reduction
        partitions = store.partitions
        if size * partitions <= self.collect_bytes or partitions == 1 or not store.shuffles:
            return "collect"
        if size >= 2 * SLICE_BYTES:
            return "sharded"
        return "tree" if store.has_rdds else "collect"

    def _sums(self, store: BlockStore, task: Step, how: str, slots: int) -> Sums:
        """Return sums that hold every partition, each once."""
        if how == "collect":
            return store.collect(task, slots)
        sums = tree(store.map(task), self.depth) if how == "tree" else sliced(store, task, task.slices)
        if all(result.value is not None for result in sums):
            return sums
        complete = store.collect(task)  # a sum lacks a partition: take each by itself
        return _as_tree(complete, levels(store.partitions, self.depth)) if how == "tree" else complete


def _slices(size: int, slots: int) -> int:
    """Return the number of slices for a sum of so many bytes."""
    return max(1, min(2 * slots, size // SLICE_BYTES))


def _as_tree(results: Sums, groups: Sequence[int]) -> Sums:
    """Add up here as the executors would have, level by level, so that not a bit differs."""
    for count in groups:
        members = [[result for result in results if result.partition % count == index] for index in range(count)]
        results = [Result(index, fold(group).leaving()) for index, group in enumerate(members) if group]
    return results

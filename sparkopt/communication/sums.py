"""What a task hands back: its partitions' sums and what they cost, added up in the order of partitions."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from sparkopt.blocks.block import Blocks, Part
from sparkopt.blocks.store import Result
from sparkopt.communication.encoding import Compressed, codec_of, compacted
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.work import Work
from sparkopt.optim.request import Losses
from sparkopt.solver.loop import Reduce

__all__ = ["Pass", "TaskSum", "driver_pass", "fold", "peak_memory", "pulling_back", "sum_of"]


@dataclass(frozen=True)
class Pass:
    """What one pass over a step's rows cost.

    Attributes
    ----------
    step : int
        The step that asked for it.
    seconds : float
        From the request to the sum, on the clock of the process that runs the loop.
    compute : float
        Of these, the arithmetic in the tasks: the longest task, or all tasks' seconds over the slots they share.
    reduce : float
        Of these, adding up.
    bytes_sent : int
        Sums that left the tasks, and coefficients that were sent to them.
    bytes_raw, bytes_encoded : int
        Of these the sums alone: as float64, and as they travelled, each time that they did.
    bytes_driver : int
        Sums that reached the driver, as they travelled.
    rows : int
        Rows touched.
    peak_memory : int
        Largest resident memory of a Python worker so far, in bytes.
    codec : str, default "none"
        How the sums travelled.
    """

    step: int
    seconds: float
    compute: float
    reduce: float
    bytes_sent: int
    bytes_raw: int
    bytes_encoded: int
    bytes_driver: int
    rows: int
    peak_memory: int
    codec: str = "none"


@dataclass(frozen=True)
class TaskSum:
    """A sum on its way, and what it cost so far.

    Attributes
    ----------
    partial : PartialSum
        The sum; its gradient may be encoded.
    seconds, longest : float
        The arithmetic in all, and that of the longest part.
    peak_memory : int
        Of the largest worker, in bytes.
    raw, encoded : int, default 0
        Bytes of gradients that left a process on the way here: as float64, and as they travelled.
    """

    partial: PartialSum
    seconds: float
    longest: float
    peak_memory: int
    raw: int = 0
    encoded: int = 0

    def __add__(self, other: TaskSum) -> TaskSum:
        return TaskSum(
            self.partial + other.partial,
            self.seconds + other.seconds,
            max(self.longest, other.longest),
            max(self.peak_memory, other.peak_memory),
            self.raw + other.raw,
            self.encoded + other.encoded,
        )

    def leaving(self, slices: int = 1) -> TaskSum:
        """Return it as it leaves a process that has added it up; sparse, in so many slices, where that is less."""
        partial = compacted(self.partial, slices)
        return replace(
            self,
            partial=partial,
            raw=self.raw + 8 * prod(partial.gradient.shape),
            encoded=self.encoded + partial.gradient.nbytes,
        )


def driver_pass(
    work: Work, query: Query, times: tuple[float, float, float], slots: int, total: TaskSum, arrived: int
) -> Pass:
    """Return what a pass cost whose sums came to the driver.

    Parameters
    ----------
    work : Work
        What was summed.
    query : Query
        What was asked; its coefficients went to each slot.
    times : tuple of float
        When it was asked, when all sums were there, and when they were added up.
    slots : int
        Tasks that ran at the same time.
    total : TaskSum
        The sum.
    arrived : int
        Bytes of sums that reached the driver.
    """
    begin, adding, end = times
    return Pass(
        step=query.step,
        seconds=end - begin,
        compute=max(total.longest, total.seconds / slots),
        reduce=end - adding,
        bytes_sent=slots * query.request.points.nbytes + total.encoded,
        bytes_raw=total.raw,
        bytes_encoded=total.encoded,
        bytes_driver=arrived,
        rows=total.partial.rows,
        peak_memory=total.peak_memory,
        codec=codec_of(work, query),
    )


def sum_of(work: Work, query: Query, part: Part, blocks: Blocks) -> TaskSum:
    """Let one partition answer a query, and time it."""
    begin = time.perf_counter()
    partial = work(query, part, blocks)
    seconds = time.perf_counter() - begin
    return TaskSum(partial, seconds, seconds, peak_memory())


def pulling_back(work: Work, reduce: Reduce) -> Reduce:
    """Return ``reduce`` with gradients in the features' coordinates on their way, and the chain rule at its end.

    Sums over sparse rows stay sparse that way: what centring adds to every feature is added once, here. Sums that
    are encoded with loss, and ways that stand for gradients, are left as they are.
    """

    def reduced(query: Query) -> PartialSum:
        is_way = work.is_local and query.request.is_step_gradient
        is_encoded = isinstance(work, Compressed) and work.codec_for(query) is not None
        if is_way or is_encoded or isinstance(query.request, Losses) or query.feature_coordinates:
            return reduce(query)
        sums = reduce(replace(query, feature_coordinates=True))
        return replace(sums, gradient=work.objective.pull_back(sums.gradient, query.held_out))

    return reduced


def fold(results: Iterable[Result[TaskSum]]) -> TaskSum:
    """Add up in the order of partitions: floating-point sums depend on it."""
    ordered: Sequence[Result[TaskSum]] = sorted(results, key=lambda result: result.partition)
    values = [result.value for result in ordered if result.value is not None]
    return sum(values[1:], values[0])


def peak_memory() -> int:
    """Return this process's largest resident memory so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

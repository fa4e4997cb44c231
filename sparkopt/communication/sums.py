"""What a task returns: its partitions' sums and what they cost, added up in the order of partitions."""

from __future__ import annotations

import pickle
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeAlias

from sparkopt.blocks.block import Blocks, Part
from sparkopt.blocks.tasks import Result
from sparkopt.codecs.gradient import GradientCodec
from sparkopt.communication.encoder import Encoder, PassMessage, Sender
from sparkopt.communication.encoding import CommunicatedSum
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.work import Work
from sparkopt.optim.request import Hessians, Losses
from sparkopt.values import dataclass

__all__ = [
    "Pass",
    "SendPass",
    "Summation",
    "TaskSum",
    "driver_pass",
    "fold",
    "peak_memory",
    "pulling_back",
    "summation_of",
]

SendPass: TypeAlias = Callable[[PassMessage], PartialSum]
"""Sends a message to all tasks, and returns the sum of their answers."""
PEAK_SECONDS = 0.01
"""Seconds between two questions for this process's peak of memory."""
KEPT_BYTES = 1 << 16
"""Most bytes of a summation that is kept for the next pass."""


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
        Of these the sums alone, each time that they were sent: as float64, and as they were communicated.
    bytes_driver : int
        Sums that reached the driver, as they were communicated.
    rows : int
        Rows touched.
    peak_memory : int
        Largest resident memory of a Python worker so far, in bytes.
    codec : str, default "none"
        How the sums were encoded.
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
    """Sums that a task returns, and what they cost so far.

    Attributes
    ----------
    sums : CommunicatedSum
        The sums.
    seconds, longest : float
        The arithmetic in all, and that of the longest part.
    peak_memory : int
        Of the largest worker, in bytes.
    raw, encoded : int, default 0
        Bytes of gradients that left a process so far: as float64, and as they were communicated.
    """

    sums: CommunicatedSum
    seconds: float
    longest: float
    peak_memory: int
    raw: int = 0
    encoded: int = 0

    def __add__(self, other: TaskSum) -> TaskSum:
        return TaskSum(
            self.sums + other.sums,
            self.seconds + other.seconds,
            max(self.longest, other.longest),
            max(self.peak_memory, other.peak_memory),
            self.raw + other.raw,
            self.encoded + other.encoded,
        )

    def leaving(self, slices: int = 1) -> TaskSum:
        """Return it as it leaves a process that has added it up; sparse, in so many slices, where that is less."""
        sums = self.sums.compacted(slices)
        raw, encoded = self.raw + sums.raw_bytes, self.encoded + sums.sent_bytes
        return TaskSum(sums, self.seconds, self.longest, self.peak_memory, raw, encoded)


@dataclass(frozen=True)
class Summation:
    """What tasks do in a pass: sum over their rows, and encode the sums.

    Parameters
    ----------
    work : Work
        What each partition sums.
    encoder : Encoder or None, default None
        Encodes the sums; None sends them as they are.
    """

    work: Work
    encoder: Encoder | None = None

    def __call__(self, message: PassMessage, part: Part, blocks: Blocks) -> TaskSum:
        """Let one partition answer a message, and time it."""
        begin = time.perf_counter()
        sums = self.work(message.query, part, blocks)
        sent = self.encoded(sums, message, Sender(f"part-{part.index}", part.index, blocks.path))
        seconds = time.perf_counter() - begin
        return TaskSum(sent, seconds, seconds, peak_memory())

    def encoded(self, sums: PartialSum, message: PassMessage, sender: Sender) -> CommunicatedSum:
        """Return sums as they are communicated."""
        return CommunicatedSum.of(sums) if self.encoder is None else self.encoder.encode(sums, message, sender)

    def codec_for(self, message: PassMessage) -> GradientCodec | None:
        """Return what encodes the answer to a message, or None for an answer that is sent as it is."""
        return None if self.encoder is None else self.encoder.codec_for(message)

    def codec_name(self, message: PassMessage) -> str:
        """Return the name of the codec in which the answer to a message is communicated."""
        codec = self.codec_for(message)
        return "none" if codec is None else codec.name

    def in_slices(self, slices: int) -> Summation:
        """Return the same with sums that are encoded in so many slices."""
        return self if self.encoder is None else replace(self, encoder=replace(self.encoder, slices=slices))


def summation_of(value: bytes | memoryview) -> Summation:
    """Return the summation of these bytes, which this job's own driver has pickled.

    Small ones are kept for the next pass: of a small partition, loading takes as long as summing.
    """
    return _kept(value) if isinstance(value, bytes) and len(value) <= KEPT_BYTES else _loaded(value)


def _loaded(value: bytes | memoryview) -> Summation:
    summation: Summation = pickle.loads(value)  # noqa: S301  # written by this job's own driver
    return summation


@lru_cache(maxsize=4)
def _kept(value: bytes) -> Summation:
    return _loaded(value)


def driver_pass(
    codec: str, query: Query, times: tuple[float, float, float], slots: int, total: TaskSum, arrived: int
) -> Pass:
    """Return what a pass cost whose sums the driver received.

    Parameters
    ----------
    codec : str
        How the sums were encoded.
    query : Query
        What was asked; its coefficients were sent to each slot.
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
        rows=total.sums.rest.rows,
        peak_memory=total.peak_memory,
        codec=codec,
    )


def pulling_back(summation: Summation, send: SendPass) -> SendPass:
    """Return ``send`` with gradients in the features' coordinates while they are sent, and the chain rule at its end.

    Sums over sparse rows stay sparse that way: what centring adds to every feature is added once, here. Sums that
    are encoded with loss, and local updates, are left as they are.
    """
    work = summation.work

    def answer(message: PassMessage) -> PartialSum:
        query = message.query
        is_local_update = work.is_local and query.request.is_step_gradient
        is_encoded = summation.codec_for(message) is not None
        is_own = isinstance(query.request, (Losses, Hessians))  # Hessians are in the solver's coordinates already
        if is_local_update or is_encoded or is_own or query.feature_coordinates:
            return send(message)
        sums = send(replace(message, query=replace(query, feature_coordinates=True)))
        return replace(sums, gradient=work.objective.pull_back(sums.gradient, query.held_out))

    return answer


def fold(results: Iterable[Result[TaskSum]]) -> TaskSum:
    """Add up in the order of partitions: floating-point sums depend on it."""
    ordered: Sequence[Result[TaskSum]] = sorted(results, key=lambda result: result.partition)
    values = [result.value for result in ordered if result.value is not None]
    return sum(values[1:], values[0])


def peak_memory() -> int:
    """Return this process's largest resident memory so far, in bytes.

    The system is asked for it every few milliseconds at most: in some containers that takes as long as a small pass.
    """
    now = time.monotonic()
    if now - _Peak.asked > PEAK_SECONDS:
        _Peak.asked, _Peak.bytes = now, _peak_memory()
    return _Peak.bytes


class _Peak:
    """The last answer, and when it was."""

    asked = float("-inf")
    bytes = 0


def _peak_memory() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

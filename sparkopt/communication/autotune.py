"""compression="auto": the first steps of a fit time each codec, and the others use the fastest.

Whether a codec pays depends on the network, codecs, cores and sizes that nobody knows beforehand, so nothing is
predicted: steps are taken with each candidate and timed. They count like any other, since what a codec leaves out is
sent with a later one. Where a pass hardly waits for its sums, nothing is tried, as in most set-ups (Agarwal et al.,
2022, *On the utility of gradient compression in distributed training systems*).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from typing import TypeAlias

from sparkopt.communication.encoder import PLAIN_AGAIN, PassMessage
from sparkopt.communication.sums import Pass, SendPass, Summation, pulling_back
from sparkopt.objective.query import PartialSum, Query
from sparkopt.solver.loop import Reduce

__all__ = ["CANDIDATES", "codecs_used", "reduce_by"]

logger = logging.getLogger(__name__)

CANDIDATES = {"fp16": 0.8, "int8": 0.8, "top-k": 0.4}
"""In this order, since each sends less than the one before it; with most that its pass may take, over a pass of the
best before it. What top-k leaves out, it leaves out for long: its steps must be much faster."""
LEAST_BYTES = 64 << 10
"""Sums below this are not worth a trial."""
PLAIN = 2
"""Passes before the first candidate; the faster one counts, since the first of a fit opens files."""
CLEAR = 1.25
"""A candidate whose first pass is this factor from the bound needs no second one."""
WAITING = 0.2
"""Least share of a pass that waits for sums, for a trial."""

Agree: TypeAlias = Callable[[int], int]


def reduce_by(send: SendPass, summation: Summation, passes: Sequence[Pass], agree: Agree = int) -> Reduce:
    """Return what the loop calls: each query becomes a message, whose codec is chosen by trial where that is open.

    Parameters
    ----------
    send : callable
        Sends a message to all tasks, and adds up their answers.
    summation : Summation
        What tasks do.
    passes : sequence of Pass
        To which each call of ``send`` appends its cost.
    agree : callable, default int
        Returns to every process that runs the loop what one of them measured: their clocks differ.
    """
    answer = pulling_back(summation, send)
    if summation.encoder is not None and summation.encoder.is_open:
        return _AutoTuner(answer, passes, agree)
    return lambda query: answer(PassMessage(query))


def codecs_used(passes: Sequence[Pass]) -> str:
    """Return the codecs of passes and how fast each was, in one line; "" where all used the same.

    Ranks choose far from the driver's log: this is what the driver knows of it.
    """
    seconds: dict[str, list[float]] = {}
    for one in passes:
        seconds.setdefault(one.codec, []).append(one.seconds)
    used = ", ".join(f"{name} {len(s)} (fastest {min(s) * 1e3:.3g} ms)" for name, s in seconds.items())
    return f"passes by codec: {used}" if len(seconds) > 1 else ""


class _AutoTuner:
    """Reduces, and finds out which codec pays."""

    def __init__(self, send: SendPass, passes: Sequence[Pass], agree: Agree) -> None:
        self._send, self._passes = send, passes
        self._trial: _Trial | None = _trial(agree)
        self._codec = next(self._trial)

    def __call__(self, query: Query) -> PartialSum:
        """Sum; a step's own gradients by the codec that the trial asks for, or that it ended with."""
        if not query.request.is_step_gradient:
            return self._send(PassMessage(query))
        sums = self._send(PassMessage(query, self._codec))
        if self._trial is not None:
            try:
                self._codec = self._trial.send((self._passes[-1], sums.gradient.nbytes))
            except StopIteration as end:
                self._trial, self._codec = None, end.value
        return sums


_Trial: TypeAlias = Generator[str | None, tuple[Pass, int], str | None]
"""Yields the codec of each pass, is sent the cost of the pass and the bytes of its sum, and returns the choice."""


def _trial(agree: Agree) -> _Trial:
    plain = []
    for _ in range(PLAIN):
        cost, size = yield None
        plain.append(cost)
    fastest = min(plain, key=lambda cost: cost.seconds)
    waiting = max(0.0, fastest.seconds - fastest.compute)
    found = (
        f"{size / 1e6:.3g} MB sums, passes of {fastest.seconds * 1e3:.3g} ms, {waiting * 1e3:.3g} ms of them waiting"
    )
    if not agree(size >= LEAST_BYTES and waiting > WAITING * fastest.seconds):
        logger.info("compression='auto' picks none: %s", found)
        return None
    best, seconds = -1, {"none": fastest.seconds}
    least = fastest.seconds
    for number, (codec, pays) in enumerate(CANDIDATES.items()):
        cost, _ = yield codec
        seconds[codec], bound = cost.seconds, pays * least
        if agree(bound / CLEAR < seconds[codec] < bound * CLEAR):
            cost, _ = yield codec
            seconds[codec] = min(seconds[codec], cost.seconds)
        if seconds[codec] <= bound:
            best, least = number, seconds[codec]
    best = agree(best)
    tried = ", ".join(f"{name} {took * 1e3:.3g} ms" for name, took in seconds.items())
    names = [*CANDIDATES, "none"]
    logger.info("compression='auto' picks %s: %s; a pass takes with %s", names[best], found, tried)
    if best < 0:
        yield PLAIN_AGAIN
        return None
    return names[best]

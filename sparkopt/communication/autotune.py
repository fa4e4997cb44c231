"""compression="auto": the first steps of a fit try how sums may travel, and the others do as the cheapest did.

Whether a codec pays depends on links, codecs, cores and sizes that nobody knows beforehand, so nothing is predicted:
steps are taken with each candidate and timed. They are steps like any other, since what a codec leaves out goes with
a later one. Where a pass hardly waits for its sums, nothing is tried, as in most set-ups (Agarwal et al., 2022,
*On the utility of gradient compression in distributed training systems*).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import TypeAlias

from sparkopt.communication.encoding import PLAIN_AGAIN, Compressed
from sparkopt.communication.sums import Pass
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.work import Work
from sparkopt.solver.loop import Reduce

__all__ = ["CANDIDATES", "told", "trying"]

logger = logging.getLogger(__name__)

CANDIDATES = {"fp16": 0.8, "int8": 0.8, "top-k": 0.4}
"""In this order, since each sends less than the one before it; with most that its pass may take, over a pass of the
best before it. What top-k leaves out, it leaves out for long: its steps must be much faster."""
LEAST_BYTES = 64 << 10
"""Sums below this are not worth a trial."""
PLAIN = 2
"""Passes before the first candidate; the faster one counts, since the first of a fit opens files."""
CLEAR = 1.25
"""A candidate that is this far from the bound after one pass needs no second one."""
WAITING = 0.2
"""Least share of a pass that waits for sums, for a trial."""

Agree: TypeAlias = Callable[[int], int]


def trying(work: Work, reduce: Reduce, passes: Sequence[Pass], agree: Agree = int) -> Reduce:
    """Return ``reduce`` itself, or with a trial before it where the work leaves its codec open.

    Parameters
    ----------
    work : Work
        What is summed.
    reduce : Reduce
        Sums it.
    passes : sequence of Pass
        What each call of ``reduce`` adds its cost to.
    agree : callable, default int
        Returns to every process that runs the loop what one of them found: their clocks differ.
    """
    is_open = isinstance(work, Compressed) and work.codec is None
    return _Trial(reduce, passes, agree) if is_open else reduce


def told(passes: Sequence[Pass]) -> str:
    """Return how passes travelled and how fast each way was, in one line; "" where all travelled alike.

    Ranks find out far from the driver's log: this is what the driver can tell of it.
    """
    fastest: dict[str, list[float]] = {}
    for one in passes:
        fastest.setdefault(one.codec, []).append(one.seconds)
    ways = ", ".join(f"{name} {len(s)} (fastest {min(s) * 1e3:.3g} ms)" for name, s in fastest.items())
    return f"passes by codec: {ways}" if len(fastest) > 1 else ""


class _Trial:
    """A way to sum that finds out which codec pays."""

    def __init__(self, reduce: Reduce, passes: Sequence[Pass], agree: Agree) -> None:
        self._reduce, self._passes = reduce, passes
        self._plan: _Plan | None = _plan(agree)
        self._codec = next(self._plan)

    def __call__(self, query: Query) -> PartialSum:
        """Sum; a step's own sums as the trial asks, or as it ended."""
        if not query.request.is_step_gradient:
            return self._reduce(query)
        sums = self._reduce(replace(query, codec=self._codec))
        if self._plan is not None:
            try:
                self._codec = self._plan.send((self._passes[-1], sums.gradient.nbytes))
            except StopIteration as end:
                self._plan, self._codec = None, end.value
        return sums


_Plan: TypeAlias = Generator[str | None, tuple[Pass, int], str | None]
"""Yields the codec of each pass, is sent what the pass cost and the bytes of its sum, and returns what to take."""


def _plan(agree: Agree) -> _Plan:
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

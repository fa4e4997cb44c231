"""Schedules: step number (from 0) to step size. Each is a frozen, picklable callable.

Examples
--------
>>> from sparkopt.optim import schedules
>>> rate = schedules.WarmUp(schedules.Cosine(1.0, steps=100), steps=4)
>>> [round(rate(step), 3) for step in (0, 1, 3, 4, 54, 104)]
[0.25, 0.5, 1.0, 1.0, 0.5, 0.0]
"""

from __future__ import annotations

import math

from sparkopt.typing import Schedule
from sparkopt.validation import Interval, OneOf, check
from sparkopt.values import dataclass

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "Frozen",
    "InverseTime",
    "StepDecay",
    "WarmUp",
    "as_schedule",
    "by_name",
]

POSITIVE = Interval(0, None, closed="neither")
AT_LEAST_ONE = Interval(1, None, whole=True)


@dataclass(frozen=True)
class Constant:
    """The same ``value`` (> 0) at every step."""

    value: float

    def __post_init__(self) -> None:
        check("learning rate", self.value, POSITIVE)

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class InverseTime:
    """initial / (1 + decay · step)^power.

    With power ½ this is the classical rate of stochastic gradient descent on convex functions, and the one of
    Spark's own SGD (Bottou, Curtis & Nocedal, 2018, *Optimization Methods for Large-Scale Machine Learning*, §4).
    """

    initial: float
    decay: float = 1.0
    power: float = 1.0

    def __post_init__(self) -> None:
        check("learning rate", self.initial, POSITIVE)
        check("decay", self.decay, Interval(0, None))
        check("power", self.power, POSITIVE)

    def __call__(self, step: int) -> float:
        return float(self.initial / (1.0 + self.decay * step) ** self.power)


@dataclass(frozen=True)
class StepDecay:
    """initial · factor^⌊step / every⌋."""

    initial: float
    factor: float = 0.5
    every: int = 100

    def __post_init__(self) -> None:
        check("learning rate", self.initial, POSITIVE)
        check("factor", self.factor, Interval(0, 1, closed="right"))
        check("every", self.every, AT_LEAST_ONE)

    def __call__(self, step: int) -> float:
        return float(self.initial * self.factor ** (step // self.every))


@dataclass(frozen=True)
class Exponential:
    """initial · factor^step."""

    initial: float
    factor: float = 0.99

    def __post_init__(self) -> None:
        check("learning rate", self.initial, POSITIVE)
        check("factor", self.factor, Interval(0, 1, closed="right"))

    def __call__(self, step: int) -> float:
        return self.initial * self.factor**step


@dataclass(frozen=True)
class Cosine:
    """From initial to final along half a cosine in ``steps`` (Loshchilov & Hutter, 2017, *SGDR*, eq. 5)."""

    initial: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        check("learning rate", self.initial, POSITIVE)
        check("steps", self.steps, AT_LEAST_ONE)
        check("final", self.final, Interval(0, self.initial))

    def __call__(self, step: int) -> float:
        done = min(step / self.steps, 1.0)
        return self.final + 0.5 * (self.initial - self.final) * (1.0 + math.cos(math.pi * done))


@dataclass(frozen=True)
class WarmUp:
    """Linear growth to another schedule's first value over ``steps``, then that schedule from its beginning."""

    then: Schedule
    steps: int

    def __post_init__(self) -> None:
        check("steps", self.steps, AT_LEAST_ONE)

    def __call__(self, step: int) -> float:
        if step < self.steps:
            return self.then(0) * (step + 1) / self.steps
        return self.then(step - self.steps)


@dataclass(frozen=True)
class Frozen:
    """The value of another schedule at ``step``, at every step."""

    then: Schedule
    step: int

    def __call__(self, step: int) -> float:
        return self.then(self.step)


def as_schedule(rate: float | Schedule) -> Schedule:
    """Return ``rate`` itself if it is callable, else a constant schedule."""
    return rate if callable(rate) else Constant(rate)


NAMES = ("constant", "inverse_time", "step", "exponential", "cosine", "warm_up")
"""The names that ``by_name`` takes."""


def by_name(name: str, initial: float, steps: int) -> Schedule:
    """Return the schedule called ``name`` over a run of ``steps`` steps, with its customary settings.

    Parameters
    ----------
    name : {"constant", "inverse_time", "step", "exponential", "cosine", "warm_up"}
        ``warm_up`` grows over a tenth of the run and then follows a cosine.
    initial : float
        The first (for ``warm_up``: the highest) value.
    steps : int
        Length of the run.
    """
    tenth = max(1, steps // 10)
    known: dict[str, Schedule] = {
        "constant": Constant(initial),
        "inverse_time": InverseTime(initial, decay=1.0 / tenth),
        "step": StepDecay(initial, every=max(1, steps // 3)),
        "exponential": Exponential(initial, factor=0.01 ** (1.0 / steps)),
        "cosine": Cosine(initial, steps),
        "warm_up": WarmUp(Cosine(initial, max(1, steps - tenth)), tenth),
    }
    return known[check("schedule", name, OneOf(NAMES))]

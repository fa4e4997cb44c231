"""Links that need no schedule, or no step size at all: they learn its length, or average the steps, as they go.

They are the last link of a chain, as ``scale_by_learning_rate`` is: what they return is added to the coefficients.
Where optax.contrib has the method, the arithmetic is the same, so that runs compare step by step.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparkopt.optim.base import GradientTransformation
from sparkopt.optim.schedules import Frozen, as_schedule
from sparkopt.typing import Floats, Schedule, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = [
    "DAdaptAdam",
    "Dog",
    "Dowg",
    "Prodigy",
    "ScheduleFree",
]

DECAY = Interval(0, 1, closed="left")
POSITIVE = Interval(0, None, closed="neither")


@dataclass(frozen=True)
class ScheduleFree(GradientTransformation):
    """Averages in place of a falling rate (Defazio et al., 2024, *The road less scheduled*, equations 1 to 3).

    Gradients are taken at y, between the steps' own sequence z and its mean x: y = (1 − beta) z + beta x. The links
    in ``then`` step z; the coefficients of the loop are y, and where the loop ends it takes x. Steps are weighted by
    the square of the largest rate so far, so that a warm-up counts for little.

    Parameters
    ----------
    then : GradientTransformation
        Turns the gradient into a step of z, its learning rate included; without momentum, whose place y takes.
    rate : float or Schedule
        The learning rate in ``then``.
    beta : float, default 0.9
        How near to the mean the gradients are taken, in (0, 1).
    """

    then: GradientTransformation
    rate: float | Schedule
    beta: float = 0.9

    keeps_bounds = False  # y may be projected, but z would leave the bounds further with every step

    def __post_init__(self) -> None:
        check("beta", self.beta, Interval(0, 1, closed="neither"))

    def init(self, coef: Floats) -> State:
        """Return step 0, weights of zero, and z where the coefficients are."""
        return {"step": 0, "weight": 0.0, "largest": 0.0, "z": coef, "then": self.then.init(coef)}

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Step z, add it to the mean, and return the way to the next y."""
        mean = self.finish(state, coef)
        largest = max(state["largest"], float(as_schedule(self.rate)(state["step"])))
        weight = state["weight"] + largest**2
        share = largest**2 / weight if weight > 0 else 0.0
        change, then = self.then.update(gradient, state["then"], coef)
        z = state["z"] + change
        ahead = self.beta * ((1 - share) * mean + share * z) + (1 - self.beta) * z
        after = {"step": state["step"] + 1, "weight": weight, "largest": largest, "z": z, "then": then}
        return ahead - coef, after

    def finish(self, state: State, coef: Floats) -> Floats:
        """Return the mean x, which y and z determine."""
        mean: Floats = (coef - (1 - self.beta) * state["z"]) / self.beta
        return mean

    def frozen_at(self, step: int) -> ScheduleFree:
        """Keep the rate of ``step``."""
        rate = Frozen(self.rate, step) if callable(self.rate) else self.rate
        return replace(self, then=self.then.frozen_at(step), rate=rate)

    def shaped(self, rows: int, columns: int) -> ScheduleFree:
        """Tell the links after it the matrix's shape."""
        return replace(self, then=self.then.shaped(rows, columns))


@dataclass(frozen=True)
class _LearntAdam(GradientTransformation):
    """Adam whose step size is an estimate that grows: the parameters of ``Prodigy`` and ``DAdaptAdam``."""

    rate: float | Schedule = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    first: float = 1e-6

    learns_length = True

    def __post_init__(self) -> None:
        check("beta1", self.beta1, DECAY)
        check("beta2", self.beta2, DECAY)
        check("epsilon", self.epsilon, POSITIVE)
        check("first", self.first, POSITIVE)

    def _length(self, distance: float, step: int) -> float:
        """Return the step size, with what corrects the bias of both moments."""
        bias = (1 - self.beta2 ** (step + 1)) ** 0.5 / (1 - self.beta1 ** (step + 1))
        return float(distance * as_schedule(self.rate)(step) * bias)


@dataclass(frozen=True)
class Prodigy(_LearntAdam):
    """Adam, its step size a growing estimate of the distance to go (Mishchenko & Defazio, 2023, algorithm 4).

    Parameters
    ----------
    rate : float or Schedule, default 1
        Multiplies the estimate.
    beta1, beta2 : float, default 0.9, 0.999
        Decay of the means of g and g², in [0, 1).
    epsilon : float, default 1e-8
        Added to the root.
    first : float, default 1e-6
        The first estimate, > 0: anything far below the distance.
    """

    def init(self, coef: Floats) -> State:
        """Return step 0, sums of zero, the first estimate and the place of the start."""
        zero = np.zeros_like(coef)
        sums = {"first": zero, "second": zero, "sum": zero, "numerator": 0.0}
        return {"step": 0, "distance": self.first, "start": coef, **sums}

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Update the moments of the gradients times the estimate, then the estimate, and step."""
        step, distance, decay = state["step"], state["distance"], self.beta2**0.5
        length = self._length(distance, step)
        scaled = distance * gradient
        first = self.beta1 * state["first"] + (1 - self.beta1) * scaled
        second = self.beta2 * state["second"] + (1 - self.beta2) * scaled * scaled
        total = decay * state["sum"] + length * scaled / self.first
        along = float(gradient @ (state["start"] - coef))
        numerator = decay * state["numerator"] + distance / self.first * length * along
        distance = _larger(distance, numerator, float(np.abs(total).sum()))
        change = -length * first / (np.sqrt(second) + distance * self.epsilon)
        sums = {"first": first, "second": second, "sum": total, "numerator": numerator}
        return change, {"step": step + 1, "distance": distance, "start": state["start"], **sums}


@dataclass(frozen=True)
class DAdaptAdam(_LearntAdam):
    """Adam, its step size a lower bound on the distance to the optimum (Defazio & Mishchenko, 2023, algorithm 5).

    *Learning-rate-free learning by D-Adaptation*. Parameters are as in ``Prodigy``, which followed it.
    """

    keeps_bounds = False  # the estimate takes the sum of the gradients for the way, which bounds shorten

    def init(self, coef: Floats) -> State:
        """Return step 0, sums of zero and the first estimate."""
        zero = np.zeros_like(coef)
        return {"step": 0, "distance": self.first, "first": zero, "second": zero, "sum": zero, "numerator": 0.0}

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Update the moments and the weighted sum of the gradients, then the estimate, and step."""
        step, decay = state["step"], self.beta2**0.5
        length = self._length(state["distance"], step)
        along = float(gradient @ (state["sum"] / (np.sqrt(state["second"]) + self.epsilon)))
        first = self.beta1 * state["first"] + (1 - self.beta1) * length * gradient
        second = self.beta2 * state["second"] + (1 - self.beta2) * gradient * gradient
        total = decay * state["sum"] + (1 - decay) * length * gradient
        numerator = decay * state["numerator"] + (1 - decay) * length * along
        distance = _larger(state["distance"], numerator, (1 - decay) * float(np.abs(total).sum()))
        sums = {"first": first, "second": second, "sum": total, "numerator": numerator}
        return -first / (np.sqrt(second) + self.epsilon), {"step": step + 1, "distance": distance, **sums}


@dataclass(frozen=True)
class Dog(GradientTransformation):
    """Distance over gradients: −r / √Σ‖g‖² · g, r the largest distance from the start (Ivgi, Hinder & Carmon, 2023).

    Parameters
    ----------
    first : float, default 1e-6
        The first distance, > 0, as a share of 1 + ‖coef‖ (theirs, §3.2).
    epsilon : float, default 1e-8
        Added to the sum.
    """

    first: float = 1e-6
    epsilon: float = 1e-8

    learns_length = True

    def __post_init__(self) -> None:
        check("first", self.first, POSITIVE)
        check("epsilon", self.epsilon, POSITIVE)

    def init(self, coef: Floats) -> State:
        """Return the start, the first distance and a sum of zero."""
        return {"start": coef, "distance": self.first * (1 + float(np.linalg.norm(coef))), "sum": 0.0}

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Measure the distance, add the square, step."""
        distance = max(state["distance"], float(np.linalg.norm(coef - state["start"])))
        total = state["sum"] + float(gradient @ gradient)
        change = -distance / np.sqrt(total + self.epsilon) * gradient
        return change, {"start": state["start"], "distance": distance, "sum": total}


@dataclass(frozen=True)
class Dowg(GradientTransformation):
    """Distance over weighted gradients: −r² / √Σr²‖g‖² · g (Khaled, Mishchenko & Jin, 2023, algorithm 1).

    Parameters
    ----------
    first : float, default 1e-4
        The first r², > 0.
    epsilon : float, default 1e-4
        Added to the root.
    """

    first: float = 1e-4
    epsilon: float = 1e-4

    learns_length = True

    def __post_init__(self) -> None:
        check("first", self.first, POSITIVE)
        check("epsilon", self.epsilon, POSITIVE)

    def init(self, coef: Floats) -> State:
        """Return the start, the first distance and a sum of zero."""
        return {"start": coef, "square": self.first, "sum": 0.0}

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Measure the distance, add the weighted square, step."""
        away = coef - state["start"]
        square = max(state["square"], float(away @ away))
        total = state["sum"] + square * float(gradient @ gradient)
        change = -square / (np.sqrt(total) + self.epsilon) * gradient
        return change, {"start": state["start"], "square": square, "sum": total}


def _larger(distance: float, numerator: float, denominator: float) -> float:
    """Return the new estimate where it is larger; gradients of zero give none."""
    return max(distance, numerator / denominator) if denominator > 0 else distance

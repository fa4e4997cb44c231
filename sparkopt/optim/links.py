"""Links that change the input or output of others: clipping, decay, averaging, accumulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparkopt.optim.base import GradientTransformation
from sparkopt.typing import Floats, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = [
    "Accumulate",
    "AddDecayedWeights",
    "Average",
    "ClipByNorm",
    "ClipByValue",
    "accumulate",
    "add_decayed_weights",
    "average",
    "clip_by_norm",
    "clip_by_value",
]

POSITIVE = Interval(0, None, closed="neither")


@dataclass(frozen=True)
class ClipByValue(GradientTransformation):
    """Each entry cut to [−limit, limit] (Mikolov, 2012, *Statistical language models based on neural networks*)."""

    limit: float

    def __post_init__(self) -> None:
        check("limit", self.limit, POSITIVE)

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Cut."""
        return np.clip(gradient, -self.limit, self.limit), state


@dataclass(frozen=True)
class ClipByNorm(GradientTransformation):
    """Scaled down to a norm of ``limit`` where it is longer (Pascanu, Mikolov & Bengio, 2013, algorithm 1)."""

    limit: float

    def __post_init__(self) -> None:
        check("limit", self.limit, POSITIVE)

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Shorten."""
        norm = float(np.linalg.norm(gradient))
        return (gradient * (self.limit / norm) if norm > self.limit else gradient), state


@dataclass(frozen=True)
class AddDecayedWeights(GradientTransformation):
    """g + weight_decay · coef, after the scaling (Loshchilov & Hutter, 2019, *Decoupled weight decay*, algorithm 2).

    Decay acts on every coordinate that the chain sees, the intercept included.
    """

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        check("weight_decay", self.weight_decay, Interval(0, None))

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Add the decay."""
        return gradient + self.weight_decay * coef, state


@dataclass(frozen=True)
class Average(GradientTransformation):
    """Return the mean of the coefficients instead of the last ones (Polyak & Juditsky, 1992).

    It changes no step. Where the loop ends, it takes the mean of all coefficients from step ``start`` on, which is
    far less noisy than the last of them where steps see only a part of the rows.

    Parameters
    ----------
    start : int, default 0
        Steps that are left out at the beginning, far from the optimum.
    """

    start: int = 0

    def __post_init__(self) -> None:
        check("start", self.start, Interval(0, None, whole=True))

    def init(self, coef: Floats) -> State:
        """Return step 0, and no mean."""
        return {"step": 0, "mean": None}

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Return the gradient, and add the coefficients to the mean."""
        return gradient, {"step": state["step"] + 1, "mean": self._mean(state, coef)}

    def finish(self, state: State, coef: Floats) -> Floats:
        """Return the mean, the last coefficients included."""
        mean = self._mean(state, coef)
        return coef if mean is None else mean

    def _mean(self, state: State, coef: Floats) -> Floats | None:
        count = state["step"] - self.start + 1
        if count < 1:
            return None
        return coef if state["mean"] is None else state["mean"] + (coef - state["mean"]) / count


@dataclass(frozen=True)
class Accumulate(GradientTransformation):
    """Take no step for ``every`` gradients, then one by their mean: one larger batch.

    Goyal et al., 2017, *Accurate, large minibatch SGD*, §2.1. It wraps the links after it, whose state stays the same
    while gradients are gathered. For mini-batches; where every step sees every row, nothing is gained. Not for
    nonsmooth penalties, whose proximal step would be taken at every gradient.

    Parameters
    ----------
    then : GradientTransformation
        Turns the mean into a step.
    every : int
        Gradients in a mean, ≥ 1.
    """

    then: GradientTransformation
    every: int

    def __post_init__(self) -> None:
        check("every", self.every, Interval(1, None, whole=True))

    @property
    def learns_length(self) -> bool:
        """Whether the links after it do."""
        return self.then.learns_length

    @property
    def keeps_bounds(self) -> bool:
        """Whether the links after it do."""
        return self.then.keeps_bounds

    def init(self, coef: Floats) -> State:
        """Return nothing gathered."""
        return {"count": 0, "sum": np.zeros_like(coef), "then": self.then.init(coef)}

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Gather, or step."""
        count, total = state["count"] + 1, state["sum"] + gradient
        if count < self.every:
            return np.zeros_like(coef), {"count": count, "sum": total, "then": state["then"]}
        step, after = self.then.update(total / count, state["then"], coef)
        return step, {"count": 0, "sum": np.zeros_like(coef), "then": after}

    def finish(self, state: State, coef: Floats) -> Floats:
        """Apply the ``finish`` of the links after it."""
        return self.then.finish(state["then"], coef)

    def frozen_at(self, step: int) -> Accumulate:
        """Freeze the links after it, which count one step for ``every`` of these."""
        return replace(self, then=self.then.frozen_at(step // self.every))

    def shaped(self, rows: int, columns: int) -> Accumulate:
        """Tell the links after it the matrix's shape."""
        return replace(self, then=self.then.shaped(rows, columns))


clip_by_value = ClipByValue
"""The same as :class:`ClipByValue`, as optax names it."""

clip_by_norm = ClipByNorm
"""The same as :class:`ClipByNorm`, as optax names it."""

add_decayed_weights = AddDecayedWeights
"""The same as :class:`AddDecayedWeights`, as optax names it."""

average = Average
"""The same as :class:`Average`, as optax names it."""

accumulate = Accumulate
"""The same as :class:`Accumulate`, as optax names it."""

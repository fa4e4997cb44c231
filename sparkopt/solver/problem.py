"""The problem that the loop solves for one model, and its solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from functools import cached_property

import numpy as np

from sparkopt.optim.base import Optimizer, Point
from sparkopt.optim.request import Hessians
from sparkopt.penalties import NoPenalty, Penalty
from sparkopt.solver.progress import Callback, Record, Snapshot, Stop
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = ["Problem", "Solution"]


@dataclass(frozen=True)
class Problem:
    """One model's problem: what to minimise, by which method, from where, and when to stop.

    Parameters
    ----------
    optimizer : Optimizer
        Takes the steps.
    initial : ndarray of shape (size,), or Snapshot
        Where to start, or the state of an earlier run to continue from.
    penalty : Penalty, default none
        Added to the mean loss.
    stop : Stop
        When to stop.
    callbacks : sequence of Callback
        Called after each step, in order.
    factors : ndarray of shape (size,) or None, default None
        Queries are at ``factors * coef``, so that problems in different coordinates share passes. None is 1.
    whole_at_end : bool, default False
        Where steps see a part of the rows: end with one pass over all of them, so that the objective of the solution
        can be compared with any other's.
    held_out : int or None, default None
        The fold whose rows this model does not see.
    """

    optimizer: Optimizer
    initial: Floats | Snapshot
    penalty: Penalty = NoPenalty()
    stop: Stop = Stop()
    callbacks: Sequence[Callback] = ()
    factors: Floats | None = None
    whole_at_end: bool = False
    held_out: int | None = None

    @property
    def size(self) -> int:
        """Number of coefficients."""
        return len(self.initial.at.coef if isinstance(self.initial, Snapshot) else self.initial)

    @property
    def width(self) -> int:
        """Most numbers, next to losses, that a pass returns at a point."""
        return self.optimizer.search.first_request(np.empty((1, self.size))).width(self.size)

    def scaled(self, values: Floats) -> Floats:
        """Return coefficients in the data's coordinates, or a gradient from there in this problem's own."""
        return values if self.factors is None else self.factors * values

    def point(
        self,
        coef: Floats,
        loss: float,
        gradient: Floats,
        validation: float | None = None,
        rows: int = 0,
        hessian: Floats | None = None,
    ) -> Point:
        """Add the penalty to the mean loss and gradient."""
        smooth = loss + self.penalty.smooth_value(coef)
        value = smooth if self.penalty.smooth else loss + self.penalty.value(coef)
        if len(gradient):
            gradient = self.scaled(gradient) + self.penalty.gradient(coef)
        return Point(coef, value, smooth, gradient, validation, hessian, rows)

    def curved_point(
        self, coef: Floats, loss: float, row: Floats, validation: float | None = None, rows: int = 0
    ) -> Point:
        """Add the penalty to the mean loss, gradient and Hessian, which an answer to ``Hessians`` has in one row."""
        gradient, hessian = Hessians.unpacked(row, self.size)
        if self.factors is not None:
            hessian *= np.outer(self.factors, self.factors)
        hessian += self._penalty_hessian
        return self.point(coef, loss, gradient, validation, rows, hessian)

    @cached_property
    def _penalty_hessian(self) -> Floats:
        """The Hessian of the penalty's smooth part, which is quadratic."""
        return np.array([self.penalty.hessian_product(unit) for unit in np.eye(self.size)])

    def product(self, coef: Floats, vector: Floats, product: Floats, rows: int = 0) -> Point:
        """Add the penalty to the product of the mean loss's Hessian with ``vector``."""
        return Point(coef, 0.0, 0.0, self.scaled(product) + self.penalty.hessian_product(vector), rows=rows)

    def gradient_norm(self, at: Point) -> float:
        """Norm of the proximal gradient step of length 1; of the gradient, where the penalty is smooth."""
        if self.penalty.smooth:
            return float(np.linalg.norm(at.gradient))
        return float(np.linalg.norm(at.coef - self.penalty.prox(at.coef - at.gradient, 1.0)))


@dataclass(frozen=True)
class Solution:
    """Where the loop ended, and how it got there.

    Attributes
    ----------
    coef : ndarray of shape (size,)
        The coefficients, in the solver's coordinates.
    history : tuple of Record
        Every step, the start included. Where the optimiser ends with a mean of its steps, the last record is of it.
    reason : {"tolerance", "gradient", "precision", "validation", "callback", "maxIter"}
        Why it ended; ``tolerance``: by ``Stop.tol``; ``precision``: no lower objective can be found within rounding.
    step : int
        The step that ``coef`` is from: the last one, or with validation rows the one with their lowest loss.
    """

    coef: Floats
    history: tuple[Record, ...] = field(repr=False)
    reason: str
    step: int

    @property
    def objective(self) -> float:
        """Objective at ``coef``."""
        return self.history[self.step].objective

    @property
    def gap(self) -> float | None:
        """Estimate of how far ``objective`` is above the optimum; None where the optimiser has none."""
        return self.history[self.step].gap

    @property
    def iterations(self) -> int:
        """Steps taken."""
        return self.history[-1].step

    @property
    def converged(self) -> bool:
        """Whether it ended before its step limit."""
        return self.reason != "maxIter"

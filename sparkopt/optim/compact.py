"""A limited-memory Hessian, and its quadratic model plus a nonsmooth penalty, minimised without the data.

The Hessian is that of L-BFGS in its compact form (Byrd, Nocedal & Schnabel, 1994, *Representations of quasi-Newton
matrices and their use in limited memory methods*, eq. 3.5): a multiple of the identity, corrected by a product of few
columns. Products with it, and with the inverse of any of its blocks, take operations in proportion to the
coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy  # loads scipy.linalg where it is used
from numpy.typing import NDArray

from sparkopt.optim.quadratic import PenalisedQuadratic
from sparkopt.typing import Floats

__all__ = ["CompactHessian", "CompactModel"]

ROUNDS = 50
"""Most steps of the semismooth Newton method."""
HALVINGS = 6
"""Lengths of such a step that are tried before a proximal gradient step is taken."""
PROXIMAL_STEPS = 100
"""Most proximal gradient steps, for penalties that are not separable."""
INEXACT = 1e-4
"""As ``PRECISION``, for these."""
PRECISION = 1e-10
"""Largest entry of the proximal gradient step at the minimum, over that at the start."""


class CompactHessian:
    """B = σ I − Wᵀ M W, positive definite, where W has two rows for each pair.

    Parameters
    ----------
    steps, changes : sequence of ndarray of shape (size,)
        Steps and the changes of the gradient along them, oldest first, each pair of positive curvature.
    sigma : float
        Curvature in the directions that no pair knows, > 0.
    """

    def __init__(self, steps: Sequence[Floats], changes: Sequence[Floats], sigma: float) -> None:
        self.sigma = sigma
        self._steps, self._changes = steps, changes

    @cached_property
    def _correction(self) -> tuple[Floats, Floats, Floats] | None:
        """M, its inverse, and W; computed where it is first needed, as several passes over all coefficients."""
        if not self._steps:
            return None
        S, Y = np.array(self._steps), np.array(self._changes)
        products = S @ Y.T
        curvatures, below = products.diagonal(), np.tril(products, -1)
        inverse = np.block([[-np.diag(curvatures), below.T], [below, self.sigma * (S @ S.T)]])
        # near the optimum, pairs are of many orders of magnitude: each is divided by the root of its curvature
        scales = np.tile(1 / np.sqrt(curvatures), 2)
        inverse = inverse * scales * scales[:, None]
        rows = np.concatenate([Y, self.sigma * S])
        rows *= scales[:, None]
        return scipy.linalg.inv(inverse, check_finite=False), inverse, rows

    def __matmul__(self, vector: Floats) -> Floats:
        """Return the product with a vector of shape (size,)."""
        product: Floats = self.sigma * vector
        if self._correction is not None:
            middle, _, rows = self._correction
            product -= (middle @ (rows @ vector)) @ rows
        return product

    __rmatmul__ = __matmul__  # it is symmetric
    __array_ufunc__ = None  # NumPy's arrays leave products with it to it

    def solved(self, free: NDArray[np.bool_], right: Floats) -> Floats:
        """Return x with B x = ``right`` for the block B of the ``free`` coordinates (Woodbury's formula)."""
        solution: Floats = right / self.sigma
        if self._correction is not None:
            _, inverse, rows = self._correction
            own = rows if free.all() else rows[:, free]
            inner = inverse - own @ own.T / self.sigma
            solution += scipy.linalg.solve(inner, own @ solution, check_finite=False) @ own / self.sigma
        return solution

    @property
    def largest(self) -> float:
        """Largest eigenvalue."""
        if self._correction is None:
            return self.sigma
        middle, _, rows = self._correction
        corrections = scipy.linalg.eigvals(middle @ (rows @ rows.T), check_finite=False)
        return self.sigma - min(0.0, float(corrections.real.min()))


@dataclass(frozen=True)
class CompactModel(PenalisedQuadratic):
    """The model with a limited-memory Hessian."""

    hessian: CompactHessian

    def minimum(self) -> Floats:
        size = len(self.at.coef)
        if self.penalty.smooth:
            return np.asarray(self.at.coef - self.hessian.solved(np.ones(size, bool), self.at.gradient))
        parts = self.penalty.separable(size)
        if parts is not None:
            return _Separable(self, *parts).minimum()
        first: list[float] = []

        def enough(moved: float, _: Floats) -> bool:
            first.append(moved)
            return moved <= INEXACT * first[0]

        return self._by_proximal_gradients(1.0 / self.hessian.largest, PROXIMAL_STEPS, enough)


@dataclass(frozen=True)
class _Iterate:
    """Coefficients u, the gradient of the quadratic part there, and the model's value over that at w."""

    coef: Floats
    gradient: Floats
    value: float


class _Separable:
    """A semismooth Newton method for Σ c |u| inside bounds (Hintermüller, Ito & Kunisch, 2002, for bounds alone).

    A proximal step says which coordinates will be zero or at a bound, and the signs of the others; over these the
    quadratic is minimised exactly. Once it says so rightly, this is the minimum. Where the model does not fall, a
    proximal gradient step is taken.
    """

    def __init__(self, model: CompactModel, weights: Floats, lower: Floats, upper: Floats) -> None:
        self.model, self.hessian = model, model.hessian
        self.weights, self.lower, self.upper = weights, lower, upper
        self.start = np.clip(model.at.coef, lower, upper)

    def minimum(self) -> Floats:
        now, first = self._at(self.start), None
        for _ in range(ROUNDS):
            near = self._prox(now, 1 / self.hessian.sigma)
            moved = float(np.abs(near - now.coef).max())
            first = moved if first is None else first
            if moved <= PRECISION * first:
                break
            after = self._newton(now, near) or self._at(self._prox(now, 1 / self.hessian.largest))
            if not after.value < now.value:
                break  # by less than the rounding of the value
            now = after
        return now.coef

    def _at(self, coef: Floats) -> _Iterate:
        at = self.model.at
        gradient, step = self.model.gradient(coef), coef - at.coef
        value = 0.5 * float(step @ (gradient + at.gradient)) + float(self.weights @ (np.abs(coef) - np.abs(at.coef)))
        return _Iterate(coef, gradient, value)

    def _prox(self, now: _Iterate, length: float) -> Floats:
        coef = now.coef - length * now.gradient
        shrunk = np.sign(coef) * np.maximum(np.abs(coef) - length * self.weights, 0.0)
        inside: Floats = np.clip(shrunk, self.lower, self.upper)
        return inside

    def _newton(self, now: _Iterate, near: Floats) -> _Iterate | None:
        """Minimise over the coordinates that ``near`` leaves free; None where no part of the step is lower."""
        penalised, sign = self.weights > 0, np.sign(near)
        free = (near > self.lower) & (near < self.upper) & ((near != 0) | ~penalised)
        step = np.where(free, 0.0, near - now.coef)
        slope = now.gradient + self.hessian @ step + self.weights * sign
        step[free] = -self.hessian.solved(free, slope[free])
        keeps = free & penalised
        lower = np.where(keeps & (sign > 0), np.maximum(self.lower, 0.0), self.lower)
        upper = np.where(keeps & (sign < 0), np.minimum(self.upper, 0.0), self.upper)
        to = np.clip(now.coef + step, lower, upper)
        for length in 0.5 ** np.arange(HALVINGS):
            after = self._at(to if length == 1 else now.coef + length * (to - now.coef))
            if after.value < now.value:
                return after
        return None

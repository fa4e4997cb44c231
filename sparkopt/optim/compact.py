"""A limited-memory Hessian, and its quadratic model plus a nonsmooth penalty, minimised without the data.

The Hessian is that of L-BFGS in its compact form (Byrd, Nocedal & Schnabel, 1994, *Representations of quasi-Newton
matrices and their use in limited memory methods*, eq. 3.5): a multiple of the identity, corrected by a product of few
columns. Products with it, and with the inverse of any of its blocks, take operations in proportion to the
coefficients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sparkopt.optim.quadratic import PenalisedQuadratic
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = ["CompactHessian", "CompactModel", "Pairs"]

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


PIECE = 1 << 13
"""Coefficients at a time: what several products need of a vector stays in a core's cache."""


def _pieces(size: int) -> Iterator[slice]:
    return (slice(start, start + PIECE) for start in range(0, size, PIECE))


def _products(rows: Sequence[Floats], vectors: Sequence[Floats]) -> Floats:
    """Return the inner product of each row with each vector, (rows, vectors)."""
    found = np.zeros((len(rows), len(vectors)))
    for piece in _pieces(len(vectors[0])):
        own = [vector[piece] for vector in vectors]
        found += [[part @ vector for vector in own] for part in (row[piece] for row in rows)]
    return found


@dataclass(frozen=True)
class Pairs:
    """Steps and the changes of the gradient along them, oldest first, each pair of positive curvature.

    Their inner products are kept, too: with millions of coefficients each costs as much as a step's arithmetic.

    Attributes
    ----------
    steps, changes : sequence of ndarray of shape (size,)
        The pairs.
    products : ndarray of shape (3, count, count)
        Of steps with steps, of steps with changes, and of changes with changes.
    """

    steps: Sequence[Floats]
    changes: Sequence[Floats]
    products: Floats

    @classmethod
    def of(cls, steps: Sequence[Floats], changes: Sequence[Floats]) -> Pairs:
        """Return pairs whose products are not known yet."""
        pairs = cls([], [], np.zeros((3, 0, 0)))
        for step, change in zip(steps, changes, strict=True):
            pairs = pairs.with_last(step, change, len(steps))
        return pairs

    def with_last(self, step: Floats, change: Floats, most: int) -> Pairs:
        """Return the last ``most`` pairs, with a new one at the end."""
        steps, changes = [*self.steps, step][-most:], [*self.changes, change][-most:]
        count = len(steps)
        products = np.empty((3, count, count))
        products[:, :-1, :-1] = self.products[:, -(count - 1) :, -(count - 1) :] if count > 1 else 0.0
        found = _products([*steps, *changes], [step, change])
        products[0, :, -1] = products[0, -1] = found[:count, 0]
        products[1, -1], products[1, :, -1] = found[count:, 0], found[:count, 1]
        products[2, :, -1] = products[2, -1] = found[count:, 1]
        return Pairs(steps, changes, products)

    @property
    def curvature(self) -> float:
        """Geometric mean over the pairs of their curvatures yᵀy / sᵀy.

        With the last pair's alone (Nocedal & Wright, 2006, eq. 7.20) a step was shortened more often.
        """
        _, mixed, of_changes = self.products
        return float(np.exp(np.mean(np.log(of_changes.diagonal()) - np.log(mixed.diagonal()))))


class CompactHessian:
    """B = σ I − Wᵀ M W, positive definite, where W has two rows for each pair.

    Parameters
    ----------
    pairs : Pairs
        What is known of the curvature.
    sigma : float
        Curvature in the directions that no pair knows, > 0.
    """

    def __init__(self, pairs: Pairs, sigma: float) -> None:
        self.sigma = sigma
        self._pairs = pairs

    @cached_property
    def _scales(self) -> Floats:
        """Near the optimum, pairs are of many orders of magnitude: each is divided by the root of its curvature."""
        return np.tile(1 / np.sqrt(self._pairs.products[1].diagonal()), 2)

    @cached_property
    def _inverse(self) -> Floats:
        """The inverse of M."""
        of_steps, mixed, _ = self._pairs.products
        below = np.tril(mixed, -1)
        inverse = np.block([[-np.diag(mixed.diagonal()), below.T], [below, self.sigma * of_steps]])
        return self._scaled(inverse)

    @cached_property
    def _middle(self) -> Floats:
        """M."""
        return np.asarray(np.linalg.inv(self._inverse), np.float64)

    @cached_property
    def _squares(self) -> Floats:
        """W Wᵀ."""
        of_steps, mixed, of_changes = self._pairs.products
        mixed = self.sigma * mixed
        return self._scaled(np.block([[of_changes, mixed.T], [mixed, self.sigma**2 * of_steps]]))

    @cached_property
    def _rows(self) -> Floats:
        """W."""
        rows = np.concatenate([self._pairs.changes, self.sigma * np.array(self._pairs.steps)])
        rows *= self._scales[:, None]
        return rows

    def _scaled(self, table: Floats) -> Floats:
        return np.asarray(table * self._scales * self._scales[:, None])

    def _of(self, vector: Floats) -> Floats:
        """Return W times a vector."""
        found = _products([*self._pairs.changes, *self._pairs.steps], [vector])[:, 0]
        found[len(self._pairs.steps) :] *= self.sigma
        return np.asarray(found * self._scales)

    def _add(self, factors: Floats, to: Floats) -> None:
        """Add Wᵀ times ``factors`` to a vector, in place: W itself would be a copy of all pairs."""
        scaled = factors * self._scales
        scaled[len(self._pairs.steps) :] *= self.sigma
        pairs = list(zip(scaled, [*self._pairs.changes, *self._pairs.steps], strict=True))
        for piece in _pieces(len(to)):
            own = to[piece]
            for factor, row in pairs:
                own += factor * row[piece]

    def __matmul__(self, vector: Floats) -> Floats:
        """Return the product with a vector of shape (size,)."""
        product: Floats = self.sigma * vector
        if self._pairs.steps:
            self._add(-(self._middle @ self._of(vector)), product)
        return product

    __rmatmul__ = __matmul__  # it is symmetric
    __array_ufunc__ = None  # NumPy's arrays leave products with it to it

    def along(self, vector: Floats) -> float:
        """Return vᵀ B v."""
        square = self.sigma * float(vector @ vector)
        if self._pairs.steps:
            parts = self._of(vector)
            square -= float(parts @ self._middle @ parts)
        return square

    def solved(self, free: NDArray[np.bool_], right: Floats) -> Floats:
        """Return x with B x = ``right`` for the block B of the ``free`` coordinates (Woodbury's formula)."""
        solution: Floats = right / self.sigma
        if not self._pairs.steps:
            return solution
        if free.all():
            inner = self._inverse - self._squares / self.sigma
            found: Floats = np.asarray(np.linalg.solve(inner, self._of(solution)) / self.sigma, np.float64)
            self._add(found, solution)
            return solution
        own = self._rows[:, free]
        inner = self._inverse - own @ own.T / self.sigma
        solution += np.linalg.solve(inner, own @ solution) @ own / self.sigma
        return solution

    @property
    def largest(self) -> float:
        """Largest eigenvalue."""
        if not self._pairs.steps:
            return self.sigma
        corrections = np.linalg.eigvals(self._middle @ self._squares)
        return self.sigma - min(0.0, float(corrections.real.min()))


@dataclass(frozen=True)
class CompactModel(PenalisedQuadratic):
    """The model with a limited-memory Hessian."""

    hessian: CompactHessian

    def decrease(self, to: Floats) -> float:
        return -self.slope(to) - 0.5 * self.hessian.along(to - self.at.coef)

    def least(self) -> tuple[Floats, float]:
        """Return the minimum, and by how much the model is lower there."""
        to = self.minimum()
        # where it is that of a quadratic function, half of what the slope says
        return to, -0.5 * self.slope(to) if self.penalty.smooth else self.decrease(to)

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

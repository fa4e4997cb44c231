"""The Gram matrix of every fold's rows, by one pass; from it a whole regularisation path follows without the data.

With squared error the objective is quadratic: its value, gradient and Hessian at one point are all of it. Sums of
folds add up, so the rows without a fold are all sums less the fold's (H2O's GLM and glmnet keep such sums too).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np

from sparkopt.blocks.block import NO_FOLD, Blocks, Part, every
from sparkopt.blocks.store import BlockStore
from sparkopt.communication.sums import Pass, Summation
from sparkopt.engines.driver import DriverEngine
from sparkopt.objective import kernels
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum, Query
from sparkopt.optim.base import Point
from sparkopt.optim.quadratic import QuadraticModel
from sparkopt.optim.request import Gradients, Hessians, Request
from sparkopt.penalties import Penalty
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = ["FoldSums", "Gram", "gram_sums", "held_out_losses", "null_gradient"]

RIDGE = 1e-13
"""Added to the curvature, over the largest: of features that determine each other, one solution is chosen."""


@dataclass(frozen=True)
class FoldSums:
    """What a partition sums: the answer to a query of one point, for the rows of each fold apart.

    Parameters
    ----------
    objective : LinearObjective
        The loss.
    folds : int
        How many folds are told apart; the rows of others, and of none, come after the last.
    """

    objective: LinearObjective
    folds: int
    is_exact = True
    share = 1.0
    is_local = False

    def __call__(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Return the sums at the first point, one row a fold."""
        total, rows = query.zero(), 0
        for fold, some in groupby(every(blocks), key=attrgetter("fold")):
            at = self.folds if fold == NO_FOLD else min(fold, self.folds)
            found = kernels.evaluate([self.objective], query.only([0]), some)
            total.loss[at] += found.loss[0]
            total.gradient[at] += found.gradient[0]
            total.weight[at] += found.weight[0]
            rows += found.rows
        return replace(total, rows=rows)


def gram_sums(store: BlockStore, objective: LinearObjective, start: Floats, folds: int) -> PartialSum:
    """Return loss, gradient and packed Hessian at ``start``, summed over each fold's rows; those in none are last."""
    return _summed(store, FoldSums(objective, folds), Hessians(np.repeat(start[None], folds + 1, axis=0)))


def null_gradient(store: BlockStore, objective: LinearObjective, start: Floats) -> Floats:
    """Return the mean gradient at ``start``, shape (size,)."""
    sums = _summed(store, FoldSums(objective, 0), Gradients(start[None]))
    return np.asarray(sums.gradient[0] / sums.weight[0])


def _summed(store: BlockStore, work: FoldSums, request: Request) -> PartialSum:
    """Return the answer to a request, in one pass."""
    passes: list[Pass] = []
    points, size = request.points.shape
    engine = DriverEngine()
    is_large = 8 * points * request.width(size) * store.partitions > engine.collect_bytes
    if is_large and store.shuffles and store.has_rdds:  # the driver would hold the sums of all partitions at once
        engine = replace(engine, reduction="tree")
    with engine.reducing(Summation(work), store, passes) as reduce:
        return reduce(Query(request))


@dataclass(frozen=True)
class Gram:
    """The mean squared error of some rows, without its intercept, as a quadratic function of the coefficients.

    Its value is value + gradientᵀ w + ½ wᵀ hessian w, in the coordinates of the objective that was summed.

    Attributes
    ----------
    value : float
        Half the mean square with the best intercept alone.
    gradient : ndarray of shape (features,)
        At no coefficients.
    hessian : ndarray of shape (features, features)
        Covariances of the features; second moments without an intercept.
    intercept : tuple of (float, ndarray of shape (features,)) or None
        The best intercept is the first, less the second times the coefficients; None where there is none.
    """

    value: float
    gradient: Floats
    hessian: Floats
    intercept: tuple[float, Floats] | None

    @classmethod
    def of(cls, sums: PartialSum, folds: Sequence[int], features: int) -> Gram:
        """Return the function of the rows of some folds."""
        loss, gradient, hessian = _joined(sums, folds)
        own, within, border = gradient[:features], hessian[:features, :features], hessian[:features, features:]
        if len(gradient) == features:
            return cls(loss, own, within, None)
        curvature, slope = float(hessian[-1, -1]), float(gradient[-1])
        sharing = border[:, 0] / curvature
        return cls(
            loss - 0.5 * slope * slope / curvature,
            own - sharing * slope,
            within - np.outer(sharing, border[:, 0]),
            (-slope / curvature, sharing),
        )

    def without(self, is_constant: Floats) -> Gram:
        """Return the same where some features do not vary: nothing depends on their coefficients but a bowl at 0."""
        gradient, hessian = np.where(is_constant, 0.0, self.gradient), self.hessian.copy()
        hessian[is_constant] = 0.0
        hessian[:, is_constant] = 0.0
        hessian[is_constant, is_constant] = 1.0
        return replace(self, gradient=gradient, hessian=hessian)

    def entering(self, is_free: Floats) -> Floats:
        """Return the gradient, shape (features,), where the free coefficients are the best and the others are 0."""
        free = np.flatnonzero(is_free)
        if not len(free):
            return self.gradient
        best = np.linalg.lstsq(self.hessian[np.ix_(free, free)], -self.gradient[free], rcond=None)[0]
        return np.asarray(self.gradient + self.hessian[:, free] @ best)

    def minimum(self, penalty: Penalty, start: Floats) -> Floats:
        """Return the coefficients that minimise this plus a penalty, shape (features,), from those nearby.

        By coordinate descent with an active set under L1, by a Cholesky factor under L2, by accelerated proximal
        gradient steps for groups: as `sparkopt.optim.ProximalNewton` minimises its models.
        """
        hessian, features = self.hessian.copy(), len(self.gradient)
        diagonal = np.diag_indices(features)
        hessian[diagonal] += RIDGE * (float(hessian[diagonal].max(initial=0.0)) or 1.0)
        hessian[diagonal] += penalty.hessian_product(np.ones(features))  # of the smooth part, L2: it is diagonal
        gradient = self.gradient + hessian @ start
        at = Point(start, 0.0, 0.0, gradient)
        return QuadraticModel(at, hessian, penalty).minimum()

    def loss(self, coef: Floats) -> float:
        """Return half the mean square, shape-less, at coefficients (features,), with the best intercept."""
        return self.value + float(self.gradient @ coef) + 0.5 * float(coef @ self.hessian @ coef)

    def whole(self, coef: Floats) -> Floats:
        """Return coefficients with the best intercept after them, as a distance from where the sums were taken."""
        if self.intercept is None:
            return coef
        best, sharing = self.intercept
        return np.append(coef, best - float(sharing @ coef))


def held_out_losses(sums: PartialSum, fold: int, moves: Floats) -> Floats:
    """Return half the mean square of a fold's rows at each row of ``moves``, distances from where sums were taken."""
    loss, gradient, hessian = _joined(sums, [fold])
    found: Floats = loss + moves @ gradient + 0.5 * np.einsum("ij,ij->i", moves @ hessian, moves)
    return found


def _joined(sums: PartialSum, folds: Sequence[int]) -> tuple[float, Floats, Floats]:
    """Return mean loss, gradient and Hessian of the rows of some folds together."""
    chosen, weight = list(folds), float(sums.weight[list(folds)].sum())
    row: Any = sums.gradient[chosen].sum(axis=0) / weight
    size = int((np.sqrt(9.0 + 8.0 * len(row)) - 3.0) / 2.0 + 0.5)
    gradient, hessian = Hessians.unpacked(row, size)
    return float(sums.loss[chosen].sum()) / weight, gradient, hessian

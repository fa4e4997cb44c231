"""The arithmetic of a pass for losses of projections: factorisation machines and networks.

It answers the same queries as ``kernels`` does, with matrix products over blocks, point by point: a point has several
projections, so that products of many points at once would gain little.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sparkopt.blocks.block import Block
from sparkopt.errors import IncompatibleError
from sparkopt.losses import Derivatives, ProjectionLoss
from sparkopt.matrices import Features, squared
from sparkopt.objective.accumulators import Accumulators, Objectives, add_product
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum, Query
from sparkopt.optim.request import HessianProducts, Hessians, Losses
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["evaluate_projected"]


def evaluate_projected(objectives: Objectives, query: Query, blocks: Iterable[Block]) -> PartialSum:
    """Return what the query asks for, summed over ``blocks``; there is one objective a point.

    Raises
    ------
    IncompatibleError
        For Hessians, which nobody makes of such a loss.
    """
    request, pull_back = query.request, not query.feature_coordinates
    if isinstance(request, Hessians):
        raise IncompatibleError(
            f"the {objectives[0].loss.name} has no Hessians. Use optimizer='lbfgs', or 'adam' for mini-batches."
        )
    if isinstance(request, HessianProducts):
        return _hessian_products(objectives, request.points, request.vectors, list(blocks), pull_back)
    if isinstance(request, Losses):
        return _losses(objectives, request.points, blocks)
    return _gradients(objectives, request.points, blocks, pull_back)


@dataclass(frozen=True)
class _Point:
    """A point's coefficients over the user's features, in the type of the rows."""

    loss: ProjectionLoss
    matrix: Array
    intercept: Array
    parameters: Floats
    target_scale: float

    @classmethod
    def of(cls, objective: LinearObjective, coef: Floats) -> _Point:
        matrix, intercept = objective.over_features(coef)
        return cls(_loss_of(objective), matrix, intercept, objective.auxiliary(coef), objective.target_scale)

    def derivatives(self, block: Block, squares: Features | None) -> Derivatives:
        """Return losses and derivatives of a block's rows."""
        X, matrix = block.X, self.matrix.astype(block.X.dtype, copy=False)
        projections = np.asarray(X @ matrix)
        projections += self.intercept.astype(projections.dtype, copy=False)
        along = None if squares is None else np.asarray(squares @ self.lengths.astype(X.dtype, copy=False))
        y = block.y if self.target_scale == 1.0 else block.y * self.target_scale
        return self.loss.derivatives(y, projections, along, self.parameters, block.weight)

    @property
    def lengths(self) -> Floats:
        """Σ_f v²ⱼ_f for each feature, shape (features,)."""
        vectors = self.matrix[:, self.loss.squared_from :]
        return np.asarray(np.einsum("jf,jf->j", vectors, vectors))


def _squares(block: Block, loss: ProjectionLoss) -> Features | None:
    """Return the block's features, squared, where the loss takes them."""
    return None if loss.squared_from is None else squared(block.X)


def _summed(value: Array, weight: Array | None) -> float:
    return float((value if weight is None else value * weight).sum(dtype=np.float64))


def _gradients(objectives: Objectives, points: Floats, blocks: Iterable[Block], pull_back: bool) -> PartialSum:
    """Sum losses and gradients at every row of ``points``, shape (m, size), in one pass."""
    at = [_Point.of(objective, coef) for objective, coef in zip(objectives, points, strict=True)]
    loss, m = at[0].loss, len(at)
    sums, along = Accumulators.zero(objectives[0], m), np.zeros((objectives[0].features, m))
    for block in blocks:
        squares = _squares(block, loss)
        found = [point.derivatives(block, squares) for point in at]
        for i, one in enumerate(found):
            sums.loss[i] += _summed(one.value, block.weight)
            sums.auxiliary[i] += one.parameters
        slopes = [one.projections for one in found]
        table = slopes[0] if m == 1 else np.concatenate(slopes, axis=1)
        add_product(block.X, table, sums.matrix)
        sums.intercept += table.sum(axis=0, dtype=np.float64)
        if squares is not None:
            own = [one.squares for one in found if one.squares is not None]
            add_product(squares, np.stack(own, axis=1), along)
        sums.count(block)
    if loss.squared_from is not None:  # the derivative of Σⱼ xⱼ² Σ_f v²ⱼ_f
        for i, point in enumerate(at):
            part = sums.matrix[:, i * loss.outputs : (i + 1) * loss.outputs]
            part[:, loss.squared_from :] += 2.0 * along[:, i, None] * point.matrix[:, loss.squared_from :]
    return sums.partial(objectives, pull_back)


def _loss_of(objective: LinearObjective) -> ProjectionLoss:
    if not isinstance(objective.loss, ProjectionLoss):
        raise TypeError(f"{objective.loss.name!r} is no loss of projections.")
    return objective.loss


def _losses(objectives: Objectives, points: Floats, blocks: Iterable[Block]) -> PartialSum:
    """Return losses alone at every row of ``points``; the gradients have no columns."""
    at = [_Point.of(objective, coef) for objective, coef in zip(objectives, points, strict=True)]
    sums = Accumulators.zero(objectives[0], len(at))
    for block in blocks:
        squares = _squares(block, at[0].loss)
        for i, point in enumerate(at):
            sums.loss[i] += _summed(point.derivatives(block, squares).value, block.weight)
        sums.count(block)
    return PartialSum(sums.loss, np.zeros((len(at), 0)), sums.weights, sums.rows)


def _hessian_products(
    objectives: Objectives, points: Floats, vectors: Floats, blocks: list[Block], pull_back: bool
) -> PartialSum:
    """Return the Hessian at every row of ``points`` times the same row of ``vectors``, by central differences.

    Of gradients (Nocedal & Wright, 2006, eq. 8.6), a step apart whose rounding and curvature are about equal.
    """
    is_narrow = any(block.X.dtype == np.float32 for block in blocks)
    precision = np.finfo(np.float32 if is_narrow else np.float64).eps
    lengths = np.maximum(np.linalg.norm(vectors, axis=1), np.finfo(np.float64).tiny)
    steps = np.cbrt(precision) * (1.0 + np.linalg.norm(points, axis=1)) / lengths
    up, down = (
        _gradients(objectives, points + sign * steps[:, None] * vectors, blocks, pull_back) for sign in (1.0, -1.0)
    )
    product = (up.gradient - down.gradient) / (2.0 * steps[:, None])
    return PartialSum(np.zeros(len(points)), product, up.weight, up.rows + down.rows)

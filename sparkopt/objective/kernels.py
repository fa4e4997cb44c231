"""The arithmetic of a pass: sums over blocks of rows, at many points at once.

Every point has an objective of its own; all are of one loss and over the same features, so that one product with the
rows serves them all. They may differ in how they scale and centre features and targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from sparkopt.blocks.block import Block
from sparkopt.losses import ProjectionLoss
from sparkopt.objective.accumulators import Accumulators, Objectives
from sparkopt.objective.curvature import BlockCurvature, Curvature
from sparkopt.objective.hessians import HessianSum, packed_total
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.projected import evaluate_projected
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.row_sample import EACH_ROW, RowSpacing
from sparkopt.optim.request import HessianProducts, Hessians, Losses
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["evaluate", "with_hessians"]

TOGETHER = 1 << 12
"""Most raw predictions of all points that a loss is given in one call: of few, calls take longer than arithmetic."""


@np.errstate(over="ignore", invalid="ignore")  # of coefficients that grow without bound: the loop reports it
def evaluate(
    objectives: Objectives, query: Query, blocks: Iterable[Block], spacing: RowSpacing = EACH_ROW
) -> PartialSum:
    """Return what the query asks for, summed over ``blocks``; there is one objective a point.

    Hessians are of one row of so many as ``spacing`` says, as if each stood for all of them.
    """
    request = query.request
    if isinstance(objectives[0].loss, ProjectionLoss):
        return evaluate_projected(objectives, query, blocks)
    if isinstance(request, Losses):
        return _losses(objectives, request.points, blocks)
    if isinstance(request, Hessians):
        hessians = [HessianSum(objective) for objective in objectives]
        found = with_hessians(objectives, request.points, blocks, hessians, spacing)
        return replace(found, gradient=packed_total(found.gradient, hessians))
    if isinstance(request, HessianProducts):
        sums = _hessian_products(objectives, request.points, request.vectors, blocks)
    else:
        sums = _gradients(objectives, request.points, blocks)
    return sums.partial(objectives, pull_back=not query.feature_coordinates)


def with_hessians(
    objectives: Objectives,
    points: Floats,
    blocks: Iterable[Block],
    hessians: Sequence[HessianSum],
    spacing: RowSpacing,
) -> PartialSum:
    """Return losses and gradients at every row of ``points``, shape (m, size), and add to the points' Hessians."""
    return _gradients(objectives, points, blocks, hessians, spacing).partial(objectives, pull_back=True)


def _gradients(
    objectives: Objectives,
    points: Floats,
    blocks: Iterable[Block],
    hessians: Sequence[HessianSum] = (),
    spacing: RowSpacing = EACH_ROW,
) -> Accumulators:
    """Sum losses and gradients at every row of ``points``, shape (m, size), in one pass; and Hessians, if any."""
    linear, sums = _LinearParts.of(objectives, points), Accumulators.zero(objectives[0], len(points))
    curve = Curvature(hessians, spacing)
    for block in blocks:
        found = linear.losses(block)
        sums.add(block, _counted(found, block, sums, curve.of_block(block) if hessians else None))
        sums.count(block)
    return sums


def _counted(
    found: Iterable[tuple[Array, Array, Array, Array]],
    block: Block,
    sums: Accumulators,
    curve: BlockCurvature | None,
) -> Iterator[Array]:
    """Yield the weighted slopes of each point, after adding its losses, and curvature where it is asked for."""
    for i, (y, raw, value, slope) in enumerate(found):
        sums.loss[i] += _weighted(value, block.weight).sum(dtype=np.float64)
        if curve is not None:
            curve.add(y, raw)
        yield _weighted(slope, block.weight)
    if curve is not None:
        curve.end()


def _hessian_products(
    objectives: Objectives, points: Floats, vectors: Floats, blocks: Iterable[Block]
) -> Accumulators:
    """Sum the Hessian at every row of ``points`` times the same row of ``vectors``, both (m, size).

    The Hessian of a sum over rows is Xᵀ D X with D the loss's second derivatives (Nocedal & Wright, 2006, §7.1), so a
    product costs what a gradient costs: two products with X. It takes the place of the gradient.
    """
    own, m = objectives[0], len(points)
    # one point, many directions: the Hessian itself
    alone = all(other is own for other in objectives) and bool((points == points[0]).all())
    linear = _LinearParts.of(objectives[:1], points[:1]) if alone else _LinearParts.of(objectives, points)
    directions, sums = _LinearParts.of(objectives, vectors), Accumulators.zero(own, m)
    for whole in blocks:
        raws = linear.raw(whole, whole.offset)
        block = whole
        if alone:
            block, raws = _curved(own, whole, raws[0])
            raws = raws * m
        rows = zip(directions.targets(block), raws, directions.raw(block), strict=True)
        sums.add(block, [_weighted(own.loss.hessian_product(y, raw, to), block.weight) for y, raw, to in rows])
        sums.count(whole)
    return sums


def _losses(objectives: Objectives, points: Floats, blocks: Iterable[Block]) -> PartialSum:
    """Return losses alone at every row of ``points``; the gradients have no columns."""
    linear, sums = _LinearParts.of(objectives, points), Accumulators.zero(objectives[0], len(points))
    for block in blocks:
        for i, (_, _, value, _) in enumerate(linear.losses(block)):
            sums.loss[i] += _weighted(value, block.weight).sum(dtype=np.float64)
        sums.count(block)
    return PartialSum(sums.loss, np.zeros((len(points), 0)), sums.weights, sums.rows)


def _curved(objective: LinearObjective, block: Block, raw: Array) -> tuple[Block, list[Array]]:
    """Return the rows whose loss has curvature at their raw predictions, and these; the others add nothing."""
    curved = objective.loss.curved(_targets(block, objective.target_scale), raw)
    if curved is None or 2 * np.count_nonzero(curved) > block.rows:
        return block, [raw]
    rows = np.flatnonzero(curved)
    return block.take(rows), [raw[rows]]


@dataclass(frozen=True)
class _LinearParts:
    """Coefficients of m points side by side, over the user's features and the solver's targets.

    Attributes
    ----------
    objectives : sequence of LinearObjective
        One a point.
    weights, intercepts : ndarray of shape (features, m·k), (m·k,)
        For each point its k outputs.
    auxiliary : list of ndarray
        Those of each point.
    scales : ndarray of shape (m·k,)
        Factor of the targets, and so of offsets.
    """

    objectives: Objectives
    weights: Floats
    intercepts: Floats
    auxiliary: list[Floats]
    scales: Floats

    @classmethod
    def of(cls, objectives: Objectives, coefs: Floats) -> _LinearParts:
        """Split the coefficients of every point."""
        pairs = list(zip(objectives, coefs, strict=True))
        matrices, intercepts = zip(*(objective.over_features(coef) for objective, coef in pairs), strict=True)
        return cls(
            objectives,
            matrices[0] if len(pairs) == 1 else np.concatenate(matrices, axis=1),
            np.concatenate(intercepts),
            [objective.auxiliary(coef) for objective, coef in pairs],
            np.repeat([objective.target_scale for objective in objectives], objectives[0].loss.outputs),
        )

    def targets(self, block: Block) -> list[Array]:
        """Return the targets in every point's unit."""
        known = {scale: _targets(block, scale) for scale in {objective.target_scale for objective in self.objectives}}
        return [known[objective.target_scale] for objective in self.objectives]

    def losses(self, block: Block) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Yield targets, raw predictions, losses and their derivatives, of one point after the other."""
        loss, targets, raws = self.objectives[0].loss, self.targets(block), self.raw(block, block.offset)
        if len(raws) == 1 or raws[0].ndim > 1 or len(raws) * block.rows > TOGETHER:
            for y, raw in zip(targets, raws, strict=True):
                yield y, raw, *loss.value_gradient(y, raw)
            return
        together = loss.value_gradient(np.concatenate(targets), np.concatenate(raws))
        values, slopes = (array.reshape(len(raws), block.rows) for array in together)
        yield from zip(targets, raws, values, slopes, strict=True)

    def raw(self, block: Block, offset: Array | None = None) -> list[Array]:
        """Return the raw predictions at every point, in the shape that the loss takes."""
        narrow = self.weights.astype(block.X.dtype, copy=False)
        single = narrow.shape[1] == 1  # a matrix-vector product is faster than a one-column matrix product
        raw = block.X @ (narrow[:, 0] if single else narrow)
        loss, m = self.objectives[0].loss, len(self.objectives)
        k = loss.outputs
        # of many points each one's are side by side in memory, since losses take them a point at a time
        order: Literal["C", "F"] = "F" if k == 1 and not loss.auxiliary else "C"
        moved = np.empty((block.rows, m * k), raw.dtype, order=order)
        raw = np.add(raw.reshape(moved.shape), self.intercepts.astype(raw.dtype), out=moved)
        if offset is not None:
            raw += np.outer(offset, self.scales).astype(raw.dtype)
        if k == 1 and not loss.auxiliary:
            return [raw[:, i] for i in range(m)]
        parts = [raw[:, i * k : (i + 1) * k] for i in range(m)]
        if not loss.auxiliary:
            return parts
        shape = (block.rows, loss.auxiliary)
        return [
            np.concatenate([part, np.broadcast_to(auxiliary.astype(raw.dtype), shape)], axis=1)
            for part, auxiliary in zip(parts, self.auxiliary, strict=True)
        ]


def _targets(block: Block, scale: float) -> Array:
    return block.y if scale == 1.0 else block.y * scale


def _weighted(rows: Array, weight: Array | None) -> Array:
    """Return numbers (n,) or rows (n, k) times the rows' weights."""
    if weight is None:
        return rows
    return rows * (weight if rows.ndim == 1 else weight[:, None])

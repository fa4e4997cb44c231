"""The arithmetic of a pass: sums over blocks of rows, at many places at once.

Every place has an objective of its own; all are of one loss and over the same features, so that one product with the
rows serves them all. They may differ in how they scale and centre features and targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sparkopt.blocks.block import Block
from sparkopt.objective.query import PartialSum, Query
from sparkopt.typing import Array, Floats

if TYPE_CHECKING:
    from sparkopt.objective.linear import LinearObjective

__all__ = ["answer", "gradients", "hessian_products", "losses"]

Objectives: TypeAlias = "Sequence[LinearObjective]"


def answer(objectives: Objectives, query: Query, blocks: Iterable[Block]) -> PartialSum:
    """Return what the query asks for, summed over ``blocks``; ``objectives`` are one a place."""
    if query.losses_only:
        return losses(objectives, query.coefs, blocks)
    if query.vectors is None:
        return gradients(objectives, query.coefs, blocks, query.unscaled)
    return hessian_products(objectives, query.coefs, query.vectors, blocks, query.unscaled)


def gradients(objectives: Objectives, coefs: Floats, blocks: Iterable[Block], unscaled: bool = False) -> PartialSum:
    """Return losses and gradients at every row of ``coefs``, shape (m, size), in one pass."""
    places = _Places.of(objectives, coefs)
    loss, sums = objectives[0].loss, _Sums.zero(objectives[0], len(coefs))
    for block in blocks:
        slopes = []
        for place, (y, raw) in enumerate(zip(places.targets(block), places.raw(block, block.offset), strict=True)):
            value, slope = loss.value_gradient(y, raw)
            sums.loss[place] += _weighted(value, block.weight).sum(dtype=np.float64)
            slopes.append(_weighted(slope, block.weight))
        sums.add(block, slopes)
        sums.count(block)
    return sums.partial(objectives, unscaled)


def hessian_products(
    objectives: Objectives, coefs: Floats, vectors: Floats, blocks: Iterable[Block], unscaled: bool = False
) -> PartialSum:
    """Return the Hessian at every row of ``coefs`` times the same row of ``vectors``, both (m, size).

    The Hessian of a sum over rows is Xᵀ D X with D the loss's second derivatives (Nocedal & Wright, 2006, §7.1), so a
    product costs what a gradient costs: two products with X. It comes back in the place of the gradient.
    """
    own, m = objectives[0], len(coefs)
    # one place, many directions: the Hessian itself
    alone = all(other is own for other in objectives) and bool((coefs == coefs[0]).all())
    places = _Places.of(objectives[:1], coefs[:1]) if alone else _Places.of(objectives, coefs)
    moves, sums = _Places.of(objectives, vectors), _Sums.zero(own, m)
    for whole in blocks:
        raws = places.raw(whole, whole.offset)
        block = whole
        if alone:
            block, raws = _curved(own, whole, raws[0])
            raws = raws * m
        rows = zip(moves.targets(block), raws, moves.raw(block), strict=True)
        sums.add(block, [_weighted(own.loss.hessian_product(y, raw, move), block.weight) for y, raw, move in rows])
        sums.count(whole)
    return sums.partial(objectives, unscaled)


def losses(objectives: Objectives, coefs: Floats, blocks: Iterable[Block]) -> PartialSum:
    """Return losses alone at every row of ``coefs``; the gradients have no columns."""
    places = _Places.of(objectives, coefs)
    loss, sums = objectives[0].loss, _Sums.zero(objectives[0], len(coefs))
    for block in blocks:
        for place, (y, raw) in enumerate(zip(places.targets(block), places.raw(block, block.offset), strict=True)):
            value, _ = loss.value_gradient(y, raw)
            sums.loss[place] += _weighted(value, block.weight).sum(dtype=np.float64)
        sums.count(block)
    return PartialSum(sums.loss, np.zeros((len(coefs), 0)), sums.weights, sums.rows)


def _curved(objective: LinearObjective, block: Block, raw: Array) -> tuple[Block, list[Array]]:
    """Return the rows whose loss is curved where they are, and their raw predictions; the others add nothing."""
    curved = objective.loss.curved(_targets(block, objective.target_scale), raw)
    if curved is None or 2 * np.count_nonzero(curved) > block.rows:
        return block, [raw]
    rows = np.flatnonzero(curved)
    return block.take(rows), [raw[rows]]


@dataclass(frozen=True)
class _Places:
    """Coefficients of m places side by side, over the user's features and the solver's targets.

    Attributes
    ----------
    objectives : sequence of LinearObjective
        One a place.
    weights, intercepts : ndarray of shape (features, m·k), (m·k,)
        For each place its k outputs.
    auxiliary : list of ndarray
        Those of each place.
    scales : ndarray of shape (m·k,)
        Factor of the targets, and so of offsets.
    """

    objectives: Objectives
    weights: Floats
    intercepts: Floats
    auxiliary: list[Floats]
    scales: Floats

    @classmethod
    def of(cls, objectives: Objectives, coefs: Floats) -> _Places:
        """Take the coefficients of every place apart."""
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
        """Return the targets as every place has them."""
        known = {scale: _targets(block, scale) for scale in {objective.target_scale for objective in self.objectives}}
        return [known[objective.target_scale] for objective in self.objectives]

    def raw(self, block: Block, offset: Array | None = None) -> list[Array]:
        """Return the raw predictions of every place, as the loss wants them."""
        narrow = self.weights.astype(block.X.dtype, copy=False)
        single = narrow.shape[1] == 1  # a matrix-vector product is faster than a one-column matrix product
        raw = block.X @ (narrow[:, 0] if single else narrow)
        raw = raw.reshape(block.rows, narrow.shape[1]) + self.intercepts.astype(raw.dtype)
        if offset is not None:
            raw += np.outer(offset, self.scales).astype(raw.dtype)
        loss, m = self.objectives[0].loss, len(self.objectives)
        k = loss.outputs
        if k == 1 and not loss.auxiliary:
            return [raw[:, place] for place in range(m)]
        parts = [raw[:, place * k : (place + 1) * k] for place in range(m)]
        if not loss.auxiliary:
            return parts
        shape = (block.rows, loss.auxiliary)
        return [
            np.concatenate([part, np.broadcast_to(auxiliary.astype(raw.dtype), shape)], axis=1)
            for part, auxiliary in zip(parts, self.auxiliary, strict=True)
        ]


@dataclass
class _Sums:
    """Accumulators of one pass, in the user's coordinates and float64."""

    loss: Floats
    matrix: Floats
    intercept: Floats
    auxiliary: Floats
    weight: float = 0.0
    rows: int = 0

    @classmethod
    def zero(cls, objective: LinearObjective, m: int) -> _Sums:
        """Return the accumulators for m places."""
        outputs, auxiliary = objective.loss.outputs, objective.loss.auxiliary
        matrix = np.zeros((objective.features, m * outputs))
        return cls(np.zeros(m), matrix, np.zeros(m * outputs), np.zeros((m, auxiliary)))

    @property
    def weights(self) -> Floats:
        """Σ weight, which is the same at every place."""
        return np.full(len(self.loss), self.weight)

    def add(self, block: Block, slopes: list[Array]) -> None:
        """Add a block's weighted slopes, one array of the loss's shape a place."""
        auxiliary, k = self.auxiliary.shape[1], self.matrix.shape[1] // len(slopes)
        if auxiliary:
            self.auxiliary += [slope[:, k:].sum(axis=0, dtype=np.float64) for slope in slopes]
            slopes = [slope[:, :k] for slope in slopes]
        if self.matrix.shape[1] == 1:
            slope = slopes[0].reshape(-1).astype(block.X.dtype, copy=False)
            self.matrix += (block.X.T @ slope)[:, None]
            self.intercept += slope.sum(dtype=np.float64)
        else:
            table = np.empty((block.rows, self.matrix.shape[1]), block.X.dtype)
            for place, slope in enumerate(slopes):
                table[:, place * k : (place + 1) * k] = slope.reshape(block.rows, k)
            self.matrix += block.X.T @ table
            self.intercept += table.sum(axis=0, dtype=np.float64)

    def count(self, block: Block) -> None:
        """Count a block's rows, also those that add nothing."""
        self.weight += block.rows if block.weight is None else float(block.weight.sum())
        self.rows += block.rows

    def partial(self, objectives: Objectives, unscaled: bool) -> PartialSum:
        """Return losses and gradients, the gradients in every place's own coordinates unless they stay unscaled."""
        own, m, (features, columns) = objectives[0], len(objectives), self.matrix.shape
        gradient, k = np.empty((m, own.size)), columns // m
        by_place = self.matrix.reshape(features, m, k).transpose(1, 0, 2)
        # For each place the matrix (features, k), row by row, then intercepts and auxiliary parameters.
        gradient[:, : features * k].reshape(m, features, k)[:] = by_place
        if own.fit_intercept:
            gradient[:, features * k : (features + 1) * k] = self.intercept.reshape(m, k)
        gradient[:, own.size - self.auxiliary.shape[1] :] = self.auxiliary
        if not unscaled:
            for objective, run in _runs(objectives):
                objective.pull_back(gradient[run])
        return PartialSum(self.loss, gradient, self.weights, self.rows)


def _runs(objectives: Objectives) -> Iterator[tuple[LinearObjective, slice]]:
    """Yield each objective with the places in a row that are its own."""
    first = 0
    for _, run in groupby(objectives, key=id):
        own = list(run)
        yield own[0], slice(first, first + len(own))
        first += len(own)


def _targets(block: Block, scale: float) -> Array:
    return block.y if scale == 1.0 else block.y * scale


def _weighted(rows: Array, weight: Array | None) -> Array:
    """Return numbers (n,) or rows (n, k) times the rows' weights."""
    if weight is None:
        return rows
    return rows * (weight if rows.ndim == 1 else weight[:, None])

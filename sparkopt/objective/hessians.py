"""Sums of Hessians: Xᵀ D X over blocks of rows, next to losses and gradients, at a few points at once.

D has the second derivatives of the loss with respect to the raw predictions (Nocedal & Wright, 2006, §7.1; for
canonical links the weights of iteratively reweighted least squares, McCullagh & Nelder, 1989, §2.5). Rows are
centred before the product, a few at a time: a Hessian of features that are far from zero would lose its digits in the
products, and centring afterwards would not bring them back. Scales are applied to the sum. Sparse rows whose means
are not far from zero are multiplied as they are, where that is less work, and their sum is centred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import scipy  # loads scipy.sparse where it is used
from numpy.typing import NDArray

from sparkopt.blocks.block import Block
from sparkopt.matrices import Features, as_csr, squared, stored_by_row
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.row_sample import RowSample
from sparkopt.optim.request import lower_triangle
from sparkopt.typing import Array, Floats

__all__ = ["HessianSum", "packed_total"]

PIECE = 1 << 19
"""Numbers of centred rows that are multiplied at a time: they fit a core's cache."""
PAIRS, ENTRIES = 60, 300
"""Time for a pair of numbers of a sparse row, and for an entry of a block's sum, over that for a dense pair."""
FAR = 30.0
"""Means over standard deviations beyond which a sum that is centred afterwards loses three digits or more."""


class HessianSum:
    """The sum of one point's Hessians over blocks, in the solver's coordinates.

    Parameters
    ----------
    objective : LinearObjective
        The point's own objective.
    """

    def __init__(self, objective: LinearObjective) -> None:
        loss = objective.loss
        self.objective = objective
        wide, auxiliary = objective.features + objective.fit_intercept, loss.auxiliary
        self._first = wide * loss.outputs
        self._blocks = np.zeros((wide, loss.outputs, wide, loss.outputs))
        self._border = np.zeros((wide, loss.outputs, auxiliary))
        self._corner = np.zeros((auxiliary, auxiliary))

    def add(self, block: Block, targets: Array, raw: Array) -> None:
        """Add a block's rows, given their targets and raw predictions in the loss's shape."""
        curved = self.objective.loss.curved(targets, raw)
        if curved is not None:
            rows = np.flatnonzero(curved)
            block, targets, raw = block.take(rows), targets[rows], raw[rows]
        if is_cheaper_sparse(self.objective, block.X):
            self._add_rows(_SparseRows(self.objective, as_csr(block.X)), targets, raw, block.weight)
            return
        step = max(1, PIECE // self._blocks.shape[0])
        for piece in (slice(start, start + step) for start in range(0, block.rows, step)):
            weight = None if block.weight is None else block.weight[piece]
            design = _DenseRows(centred(self.objective, block.X[piece]))
            self._add_rows(design, targets[piece], raw[piece], weight)

    def add_sample(
        self, sample: RowSample, candidates: NDArray[np.intp], block: Block, targets: Array, raw: Array
    ) -> None:
        """Estimate a block's sum from the rows that the sample takes of these candidates."""
        weight = None if block.weight is None else block.weight[candidates]
        curvatures = self._curvatures(targets[candidates], raw[candidates], weight)
        if sample.by_length:
            curvatures *= self.objective.features + squared_lengths(self.objective, block.X)
        taken, factors = sample.choose(curvatures)
        if len(taken):
            rows = candidates[taken]
            some = replace(block.take(rows), weight=factors if weight is None else factors * weight[taken])
            self.add(some, targets[rows], raw[rows])

    def add_design(self, design: Array, factor: float, signs: Array) -> None:
        """Add centred rows, whose second derivatives are ``factor`` with these signs, of a loss of one output."""
        gram = design.T @ design if signs.min() > 0 else weighted_gram(design, signs)
        self._blocks[:, 0, :, 0] += factor * gram

    def _curvatures(self, targets: Array, raw: Array, weight: Array | None) -> Floats:
        """Return the sum of each row's second derivatives by one column of the raw prediction each."""
        columns = range(self.objective.loss.outputs + self.objective.loss.auxiliary)
        found = sum(np.abs(self._column(a, targets, raw, weight)[:, a]) for a in columns)
        return np.asarray(found, dtype=np.float64)

    def _add_rows(self, design: _Design, targets: Array, raw: Array, weight: Array | None) -> None:
        loss, outputs = self.objective.loss, self.objective.loss.outputs
        for a in range(outputs + loss.auxiliary):
            derivatives = self._column(a, targets, raw, weight)
            for b in range(min(a + 1, outputs)):
                self._add_pair(a, b, design, derivatives[:, b])
            if a >= outputs:
                self._corner[a - outputs] += derivatives[:, outputs:].sum(axis=0, dtype=np.float64)

    def _add_pair(self, a: int, b: int, design: _Design, weights: Array) -> None:
        """Add the part of columns ``a`` and ``b`` of the raw prediction, of which ``b`` is an output."""
        outputs = self.objective.loss.outputs
        if a >= outputs:
            self._border[:, b, a - outputs] += design.sum(weights)
            return
        found = design.gram(weights)
        self._blocks[:, a, :, b] += found
        if a != b:
            self._blocks[:, b, :, a] += found

    def _column(self, a: int, targets: Array, raw: Array, weight: Array | None) -> Array:
        """Return the weighted second derivatives of each row's loss by column ``a`` and each column, (n, columns)."""
        direction = np.zeros_like(raw)
        direction[(slice(None), a) if raw.ndim > 1 else slice(None)] = 1
        found = self.objective.loss.hessian_product(targets, raw, direction)
        found = found.reshape(len(raw), -1)
        return found if weight is None else found * weight[:, None]

    def total(self) -> Floats:
        """Return the sum, shape (size, size)."""
        first, size, objective = self._first, self.objective.size, self.objective
        hessian = np.empty((size, size))
        hessian[:first, :first] = self._blocks.reshape(first, first)
        hessian[:first, first:] = self._border.reshape(first, size - first)
        hessian[first:, :first] = hessian[:first, first:].T
        hessian[first:, first:] = self._corner
        if objective.scale is not None:
            scales = np.ones(size)
            scales[: objective.features * objective.loss.outputs] = np.repeat(objective.scale, objective.loss.outputs)
            hessian *= scales * scales[:, None]
        return hessian


class _Design(Protocol):
    """Centred rows, with a last column of ones where there is an intercept."""

    def gram(self, weights: Array) -> Floats:
        """Return designᵀ · diag(weights) · design."""
        ...

    def sum(self, weights: Array) -> Floats:
        """Return designᵀ · weights."""
        ...


class _DenseRows:
    """Rows that have been centred."""

    def __init__(self, design: Array) -> None:
        self._design = design

    def gram(self, weights: Array) -> Floats:
        return weighted_gram(self._design, weights)

    def sum(self, weights: Array) -> Floats:
        found: Floats = self._design.T @ weights.astype(self._design.dtype, copy=False)
        return found


class _SparseRows:
    """Sparse rows as they are, whose sums are centred."""

    def __init__(self, objective: LinearObjective, X: scipy.sparse.csr_array) -> None:
        self._objective, self._X = objective, X
        self._counts = np.diff(X.indptr)

    def gram(self, weights: Array) -> Floats:
        X, objective = self._X, self._objective
        data = X.data * np.repeat(weights.astype(np.float64, copy=False), self._counts)
        plain = (X.T @ scipy.sparse.csr_array((data, X.indices, X.indptr), shape=X.shape)).toarray()
        own = objective.features
        found = np.empty((own + objective.fit_intercept,) * 2)
        sums = X.T @ weights
        if objective.center is not None:
            moved = np.outer(objective.center, sums - 0.5 * weights.sum() * objective.center)
            plain -= moved + moved.T
        found[:own, :own] = plain
        if objective.fit_intercept:
            found[own, :] = found[:, own] = self.sum(weights)
        return found

    def sum(self, weights: Array) -> Floats:
        whole, sums, center = weights.sum(dtype=np.float64), self._X.T @ weights, self._objective.center
        if center is not None:
            sums = sums - whole * center
        return np.append(sums, whole) if self._objective.fit_intercept else sums


def is_cheaper_sparse(objective: LinearObjective, X: Features) -> bool:
    """Whether rows are sparse, their products are less work as they are, and centring the sum keeps its digits."""
    if isinstance(X, np.ndarray):
        return False
    if objective.center is not None:
        spread = np.ones(objective.features) if objective.scale is None else objective.scale
        if float(np.abs(objective.center * spread).max(initial=0.0)) > FAR:
            return False
    pairs = float(np.square(stored_by_row(X), dtype=np.float64).sum())
    return bool(PAIRS * pairs + ENTRIES * objective.features**2 < X.shape[0] * objective.features**2)


def centred(objective: LinearObjective, X: Features) -> Array:
    """Return dense centred rows, with a last column of ones where there is an intercept."""
    rows = X.toarray() if not isinstance(X, np.ndarray) else X
    design = np.empty((rows.shape[0], objective.features + objective.fit_intercept), rows.dtype)
    center = 0 if objective.center is None else objective.center.astype(rows.dtype)
    np.subtract(rows, center, out=design[:, : objective.features])
    design[:, objective.features :] = 1
    return design


def squared_lengths(objective: LinearObjective, X: Features) -> Floats:
    """Return the squared length of each row in the solver's coordinates, shape (n,)."""
    scale = np.ones(objective.features) if objective.scale is None else objective.scale
    center = np.zeros(objective.features) if objective.center is None else objective.center
    if not isinstance(X, np.ndarray):  # rounded, where the means are far away
        squares = squared(X)
        moved: Floats = squares @ scale**2 - 2 * (X @ (scale**2 * center)) + np.square(scale * center).sum()
        return np.maximum(moved, 0.0, out=moved)
    found, step = np.empty(len(X)), max(1, PIECE // X.shape[1])
    for piece in (slice(start, start + step) for start in range(0, len(X), step)):
        rows = (X[piece] - center.astype(X.dtype)) * scale.astype(X.dtype)
        found[piece] = np.einsum("ij,ij->i", rows, rows)
    return found


def weighted_gram(design: Array, weights: Array) -> Floats:
    """Return designᵀ · diag(weights) · design; half the work where no weight is negative."""
    if (weights >= 0).all():
        rooted = design * np.sqrt(weights).astype(design.dtype, copy=False)[:, None]
        gram: Floats = rooted.T @ rooted  # NumPy sees that the product is symmetric
    else:
        gram = design.T @ (design * weights.astype(design.dtype, copy=False)[:, None])
    return gram


def packed_total(gradients: Floats, sums: Sequence[HessianSum]) -> Floats:
    """Return the rows of an answer: each point's gradient, and the lower triangle of its Hessian."""
    triangle = lower_triangle(gradients.shape[1])
    return np.concatenate([gradients, np.array([one.total()[triangle] for one in sums])], axis=1)

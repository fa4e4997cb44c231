"""The objective of a linear model over rows: loss, features, intercept and scaling, without penalty.

The solver works in its own coordinates, in which features are standardised *virtually*: no row is ever rewritten.
With scale s and centre c per feature, raw = Σ_j s_j (x_j − c_j) w_j + b, so the user's coefficients are s_j w_j and
the user's intercept is b − Σ_j c_j s_j w_j. Centring costs nothing, keeps sparse rows sparse, and makes the problem
far better conditioned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sparkopt.blocks.block import Block
from sparkopt.errors import DataError
from sparkopt.losses import Loss
from sparkopt.typing import Array, Floats

__all__ = ["LinearObjective", "PartialSum", "Query"]


@dataclass(frozen=True)
class Query:
    """What one pass asks of the rows.

    Attributes
    ----------
    coefs : ndarray of shape (m, size)
        The places.
    step : int, default 0
        Which step asks: it determines the rows of a mini-batch.
    vectors : ndarray of shape (m, size) or None, default None
        Ask for Hessian-vector products, one vector a place, instead of losses and gradients; they come back as
        ``PartialSum.gradient``.
    every_row : bool, default False
        Sum over all rows, also where the step works on a mini-batch.
    """

    coefs: Floats
    step: int = 0
    vectors: Floats | None = None
    every_row: bool = False


@dataclass(frozen=True)
class PartialSum:
    """Weighted sums over some rows at ``m`` places at once: a monoid, so sums may be taken in any grouping.

    Attributes
    ----------
    loss : ndarray of shape (m,)
        Σ weight · loss.
    gradient : ndarray of shape (m, size)
        Σ weight · gradient.
    weight : float
        Σ weight.
    rows : int
        Rows that were touched.
    validation_loss : ndarray of shape (m,) or None, default None
        Σ weight · loss over validation rows, where this pass looked at them.
    validation_weight : float, default 0
        Σ weight over these.
    """

    loss: Floats
    gradient: Floats
    weight: float
    rows: int
    validation_loss: Floats | None = None
    validation_weight: float = 0.0

    @classmethod
    def zero(cls, m: int, size: int) -> PartialSum:
        """Return the sum over no rows."""
        return cls(np.zeros(m), np.zeros((m, size)), 0.0, 0)

    def __add__(self, other: PartialSum) -> PartialSum:
        return PartialSum(
            self.loss + other.loss,
            self.gradient + other.gradient,
            self.weight + other.weight,
            self.rows + other.rows,
            _plus(self.validation_loss, other.validation_loss),
            self.validation_weight + other.validation_weight,
        )

    def mean(self) -> tuple[Floats, Floats]:
        """Return mean loss (m,) and mean gradient (m, size): the one division.

        Raises
        ------
        DataError
            Where no row has a weight.
        """
        if not self.weight > 0:
            raise DataError(
                f"the {self.rows} rows of this step weigh {self.weight:g} in all. Raise miniBatchFraction, or leave "
                f"rows of weight 0 out."
            )
        return self.loss / self.weight, self.gradient / self.weight

    def validation_mean(self) -> Floats | None:
        """Return the mean loss (m,) over validation rows, or None where this pass did not look at them."""
        return None if self.validation_loss is None else self.validation_loss / self.validation_weight


def _plus(one: Floats | None, other: Floats | None) -> Floats | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


@dataclass(frozen=True)
class LinearObjective:
    """Σ weight · loss(y, X·W + b) over blocks of rows, and its gradient.

    A coefficient vector has shape (size,): the matrix of shape (features, outputs) row by row, then, with an
    intercept, one entry per output.

    Parameters
    ----------
    loss : Loss
        The loss of a row.
    features : int
        Number of features.
    fit_intercept : bool, default True
        Whether there is an intercept.
    scale : ndarray of shape (features,) or None
        Factor of each feature, 1/std say; 0 removes a feature. None is 1.
    center : ndarray of shape (features,) or None
        What is subtracted from each feature; needs an intercept. None is 0.
    target_scale : float, default 1
        Factor of the targets.
    """

    loss: Loss
    features: int
    fit_intercept: bool = True
    scale: Floats | None = None
    center: Floats | None = None
    target_scale: float = 1.0

    @property
    def size(self) -> int:
        """Length of a coefficient vector."""
        return (self.features + self.fit_intercept) * self.loss.outputs

    def penalised(self) -> Floats:
        """Return 1 for coefficients and 0 for intercepts, shape (size,)."""
        mask = np.ones(self.size)
        mask[self.features * self.loss.outputs :] = 0.0
        return mask

    def unscale(self, coef: Floats) -> tuple[Floats, Floats]:
        """Return the user's coefficients (features, outputs) and intercepts (outputs,)."""
        matrix, intercept = self._split(coef)
        if self.scale is not None:
            matrix = matrix * self.scale[:, None]
        if self.center is not None:
            intercept = intercept - self.center @ matrix
        return matrix / self.target_scale, intercept / self.target_scale

    def rescale(self, matrix: Floats, intercept: Floats) -> Floats:
        """Return the solver's coefficients for the user's: the inverse of ``unscale``, for warm starts."""
        matrix, intercept = matrix * self.target_scale, intercept * self.target_scale
        if self.center is not None:
            intercept = intercept + self.center @ matrix
        if self.scale is not None:
            matrix = np.divide(matrix, self.scale[:, None], out=np.zeros_like(matrix), where=self.scale[:, None] != 0)
        return np.concatenate([matrix.ravel(), intercept]) if self.fit_intercept else matrix.ravel()

    def partial(self, coefs: Floats, blocks: Iterable[Block]) -> PartialSum:
        """Return the sums over ``blocks`` at every row of ``coefs``, shape (m, size), in one pass."""
        m, k = len(coefs), self.loss.outputs
        weights, intercepts = self._columns(coefs)
        sums = _Sums(m, np.zeros((self.features, m * k)), np.zeros(m * k))
        for block in blocks:
            self._add(sums, block, weights, intercepts)
        return PartialSum(sums.loss, self._gradient(sums), sums.weight, sums.rows)

    def losses(self, coefs: Floats, blocks: Iterable[Block]) -> tuple[Floats, float, int]:
        """Return Σ weight · loss (m,), Σ weight and the number of rows: without gradients, for validation rows."""
        weights, intercepts = self._columns(coefs)
        total, weight, rows, k = np.zeros(len(coefs)), 0.0, 0, self.loss.outputs
        for block in blocks:
            y = block.y * self.target_scale
            raw = np.asarray(block.X @ weights.astype(block.X.dtype, copy=False)) + intercepts
            for place in range(len(coefs)):
                columns = raw[:, place] if k == 1 else raw[:, place * k : (place + 1) * k]
                loss, _ = self.loss.value_gradient(y, columns)
                total[place] += float(loss.sum() if block.weight is None else loss @ block.weight)
            weight += block.rows if block.weight is None else float(block.weight.sum())
            rows += block.rows
        return total, weight, rows

    def _split(self, coef: Floats) -> tuple[Floats, Floats]:
        k = self.loss.outputs
        matrix = coef[: self.features * k].reshape(self.features, k)
        return matrix, coef[self.features * k :] if self.fit_intercept else np.zeros(k)

    def _columns(self, coefs: Floats) -> tuple[Floats, Floats]:
        """Every place's user-side matrix side by side, shape (features, m·k), and intercepts (m·k,)."""
        pairs = [self.unscale(coef) for coef in coefs]
        weights = np.concatenate([matrix for matrix, _ in pairs], axis=1) * self.target_scale
        return weights, np.concatenate([intercept for _, intercept in pairs]) * self.target_scale

    def _add(self, sums: _Sums, block: Block, weights: Floats, intercepts: Floats) -> None:
        y = block.y if self.target_scale == 1.0 else block.y * self.target_scale
        narrow = weights.astype(block.X.dtype, copy=False)
        single = narrow.shape[1] == 1  # a matrix-vector product is faster than a one-column matrix product
        raw = block.X @ (narrow[:, 0] if single else narrow)
        raw = raw.reshape(block.rows, narrow.shape[1]) + intercepts.astype(raw.dtype)
        slopes = np.empty(raw.shape, block.X.dtype)
        k = self.loss.outputs
        for place in range(sums.m):
            columns = slice(place * k, (place + 1) * k)
            loss, slope = self.loss.value_gradient(y, raw[:, place] if k == 1 else raw[:, columns])
            if block.weight is not None:
                loss = loss * block.weight
                slope = slope * (block.weight if k == 1 else block.weight[:, None])
            sums.loss[place] += loss.sum(dtype=np.float64)
            slopes[:, columns] = slope[:, None] if k == 1 else slope
        sums.matrix += (block.X.T @ slopes[:, 0])[:, None] if single else block.X.T @ slopes
        sums.intercept += slopes.sum(axis=0, dtype=np.float64)
        sums.weight += block.rows if block.weight is None else float(block.weight.sum())
        sums.rows += block.rows

    def _gradient(self, sums: _Sums) -> Floats:
        """The chain rule of ``unscale``, once at the end since it is linear."""
        matrix = sums.matrix
        if self.center is not None:
            matrix = matrix - self.center[:, None] * sums.intercept
        if self.scale is not None:
            matrix = matrix * self.scale[:, None]
        m, k = sums.m, self.loss.outputs
        gradient = np.empty((m, self.size))
        flat: Array = matrix.reshape(self.features, m, k).transpose(1, 0, 2)
        gradient[:, : self.features * k] = flat.reshape(m, -1)
        if self.fit_intercept:
            gradient[:, self.features * k :] = sums.intercept.reshape(m, k)
        return gradient


class _Sums:
    """Accumulators of one pass, in the user's coordinates and float64."""

    def __init__(self, m: int, matrix: Floats, intercept: Floats) -> None:
        self.m, self.matrix, self.intercept = m, matrix, intercept
        self.loss, self.weight, self.rows = np.zeros(m), 0.0, 0

"""The objective of a linear model over rows: loss, features, intercept and scaling, without penalty.

The solver works in its own coordinates, in which features are standardised *virtually*: no row is ever rewritten.
With scale s and centre c per feature, raw = Σ_j s_j (x_j − c_j) w_j + b, so the user's coefficients are s_j w_j and
the user's intercept is b − Σ_j c_j s_j w_j. Centring costs nothing, keeps sparse rows sparse, and makes the problem
far better conditioned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from sparkopt.blocks.block import Block
from sparkopt.errors import DataError
from sparkopt.losses import Loss, check_loss
from sparkopt.penalties import Coordinates
from sparkopt.typing import Array, Floats

__all__ = ["LinearObjective", "PartialSum", "Query"]

PIECE = 1 << 14
"""Numbers that are worked on at a time, where whole arrays would not fit a core's cache."""


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
    sample : int or None, default None
        About this many rows of each partition, evenly spaced, may stand for all of them.
    losses_only : bool, default False
        Ask for losses alone; the gradients that come back have no columns.
    codec : str or None, default None
        Name of the gradient codec in which this pass's sums travel, where that changes from pass to pass.
    unscaled : bool, default False
        Gradients over the features as they are stored, which have zeros where no row has an entry; whoever asks
        calls ``LinearObjective.pull_back`` with their sum.
    """

    coefs: Floats
    step: int = 0
    vectors: Floats | None = None
    every_row: bool = False
    sample: int | None = None
    losses_only: bool = False
    codec: str | None = None
    unscaled: bool = False

    @property
    def is_of_step(self) -> bool:
        """Whether it asks for a step's own sums, on the step's own rows: the ones that may travel with loss."""
        return self.vectors is None and not self.every_row and self.sample is None

    def nothing(self) -> PartialSum:
        """Return the answer of no rows."""
        places, size = self.coefs.shape
        return PartialSum.zero(places, 0 if self.losses_only else size)


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

    def scaled(self, factor: float) -> PartialSum:
        """Return the sums as if every row weighed ``factor`` times as much; as many rows were touched."""
        return replace(self, loss=self.loss * factor, gradient=self.gradient * factor, weight=self.weight * factor)

    def flat(self) -> Floats:
        """Return all of it as one vector, whose sums over ranks are the sums of the parts."""
        looked = self.validation_loss
        numbers = [self.weight, self.rows, self.validation_weight, looked is not None]
        validation = np.zeros_like(self.loss) if looked is None else looked
        return np.concatenate([self.loss, validation, numbers, self.gradient.ravel()], dtype=np.float64)

    @classmethod
    def from_flat(cls, vector: Floats, m: int, size: int) -> PartialSum:
        """Return what ``flat`` made a vector of."""
        loss, validation, numbers, gradient = np.split(vector, [m, 2 * m, 2 * m + 4])
        weight, rows, validation_weight, looked = numbers
        held_out = (validation, float(validation_weight)) if looked else (None, 0.0)
        return cls(loss, gradient.reshape(m, size), float(weight), int(rows), *held_out)

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
    intercept, one entry per output, then one entry per constant of the loss.

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

    def __post_init__(self) -> None:
        check_loss(self.loss)

    @property
    def size(self) -> int:
        """Length of a coefficient vector."""
        return (self.features + self.fit_intercept) * self.loss.outputs + self.loss.constants

    def penalised(self) -> Floats:
        """Return 1 for coefficients and 0 for intercepts and constants, shape (size,)."""
        mask = np.ones(self.size)
        mask[self.features * self.loss.outputs :] = 0.0
        return mask

    def coordinates(self, standardised: bool = True) -> Coordinates:
        """Return what a coefficient vector means to the user.

        Parameters
        ----------
        standardised : bool, default True
            Whether penalties measure the coefficients of the scaled features, or the user's.
        """
        first, intercepts = self.features * self.loss.outputs, self.loss.outputs * self.fit_intercept
        units = np.ones(self.size)
        if self.scale is not None:
            units[:first] = np.repeat(self.scale, self.loss.outputs)
        factors = self.penalised() if standardised else self.penalised() * units
        units[: first + intercepts] /= self.target_scale
        return Coordinates(self.features, self.loss.outputs, intercepts, factors, units)

    def unscale(self, coef: Floats) -> tuple[Floats, Floats]:
        """Return the user's coefficients (features, outputs) and intercepts (outputs,)."""
        matrix, intercept = self._unscaled(coef)
        return matrix / self.target_scale, intercept / self.target_scale

    def constants(self, coef: Floats) -> Floats:
        """Return the loss's own parameters, shape (constants,)."""
        return self._split(coef)[2]

    def rescale(self, matrix: Floats, intercept: Floats, constants: Floats | None = None) -> Floats:
        """Return the solver's coefficients for the user's: the inverse of ``unscale``, for warm starts.

        ``constants`` of shape (constants,) are the loss's own parameters, zeros where None.
        """
        matrix, intercept = matrix * self.target_scale, intercept * self.target_scale
        if self.center is not None:
            intercept = intercept + self.center @ matrix
        if self.scale is not None:
            matrix = np.divide(matrix, self.scale[:, None], out=np.zeros_like(matrix), where=self.scale[:, None] != 0)
        parts = [matrix.ravel()]
        if self.fit_intercept:
            parts.append(intercept)
        parts.append(np.zeros(self.loss.constants) if constants is None else constants)
        return np.concatenate(parts)

    def start(self, mean: Floats) -> Floats:
        """Return where to begin: no coefficients, and the intercept that fits the targets' mean, (outputs,)."""
        intercept = self.loss.start(mean * self.target_scale) / self.target_scale
        return self.rescale(np.zeros((self.features, self.loss.outputs)), intercept)

    def answer(self, query: Query, blocks: Iterable[Block]) -> PartialSum:
        """Return what the query asks for, summed over ``blocks``."""
        if query.losses_only:
            loss, weight, rows = self.losses(query.coefs, blocks)
            return PartialSum(loss, np.zeros((len(loss), 0)), weight, rows)
        if query.vectors is None:
            return self.partial(query.coefs, blocks, query.unscaled)
        return self.hessian_products(query.coefs, query.vectors, blocks, query.unscaled)

    def partial(self, coefs: Floats, blocks: Iterable[Block], unscaled: bool = False) -> PartialSum:
        """Return losses and gradients over ``blocks`` at every row of ``coefs``, shape (m, size), in one pass."""
        places = self._places(coefs)
        sums = _Sums.zero(self, len(coefs))
        for block in blocks:
            y = self._scaled_targets(block)
            raws = self._raw(places, block, block.offset)
            slopes = []
            for place, raw in enumerate(raws):
                loss, slope = self.loss.value_gradient(y, raw)
                sums.loss[place] += _weighted(loss, block.weight).sum(dtype=np.float64)
                slopes.append(_weighted(slope, block.weight))
            sums.add(block, slopes)
            sums.count(block)
        return PartialSum(sums.loss, self._gradient(sums, unscaled), sums.weight, sums.rows)

    def hessian_products(
        self, coefs: Floats, vectors: Floats, blocks: Iterable[Block], unscaled: bool = False
    ) -> PartialSum:
        """Return the Hessian at every row of ``coefs`` times the same row of ``vectors``, both (m, size).

        The Hessian of a sum over rows is Xᵀ D X with D the loss's second derivatives (Nocedal & Wright, 2006, §7.1),
        so a product costs what a gradient costs: two products with X. It comes back in the place of the gradient.
        """
        alone = bool((coefs == coefs[0]).all())  # one place, many directions: the Hessian itself
        places, moves = self._places(coefs[:1] if alone else coefs), self._places(vectors)
        sums = _Sums.zero(self, len(coefs))
        for whole in blocks:
            raws = self._raw(places, whole, whole.offset)
            block = whole
            if alone:
                block, raws = self._curved(whole, raws[0])
                raws = raws * len(coefs)
            y = self._scaled_targets(block)
            pairs = zip(raws, self._raw(moves, block), strict=True)
            sums.add(block, [_weighted(self.loss.hessian_product(y, raw, move), block.weight) for raw, move in pairs])
            sums.count(whole)
        return PartialSum(sums.loss, self._gradient(sums, unscaled), sums.weight, sums.rows)

    def _curved(self, block: Block, raw: Array) -> tuple[Block, list[Array]]:
        """Return the rows whose loss is curved where they are, and their raw predictions; the others add nothing."""
        curved = self.loss.curved(self._scaled_targets(block), raw)
        if curved is None or 2 * np.count_nonzero(curved) > block.rows:
            return block, [raw]
        rows = np.flatnonzero(curved)
        return block.take(rows), [raw[rows]]

    def losses(self, coefs: Floats, blocks: Iterable[Block]) -> tuple[Floats, float, int]:
        """Return Σ weight · loss (m,), Σ weight and the number of rows: without gradients, for validation rows."""
        places = self._places(coefs)
        total, weight, rows = np.zeros(len(coefs)), 0.0, 0
        for block in blocks:
            y = self._scaled_targets(block)
            for place, raw in enumerate(self._raw(places, block, block.offset)):
                loss, _ = self.loss.value_gradient(y, raw)
                total[place] += _weighted(loss, block.weight).sum(dtype=np.float64)
            weight += block.rows if block.weight is None else float(block.weight.sum())
            rows += block.rows
        return total, weight, rows

    def _split(self, coef: Floats) -> tuple[Floats, Floats, Floats]:
        k = self.loss.outputs
        matrix = coef[: self.features * k].reshape(self.features, k)
        rest = coef[self.features * k :]
        if not self.fit_intercept:
            return matrix, np.zeros(k), rest
        return matrix, rest[:k], rest[k:]

    def _unscaled(self, coef: Floats) -> tuple[Floats, Floats]:
        """Return coefficients (features, outputs) and intercepts (outputs,) over the user's features."""
        matrix, intercept, _ = self._split(coef)
        if self.scale is not None:
            matrix = matrix * self.scale[:, None]
        if self.center is not None:
            intercept = intercept - self.center @ (matrix[:, 0] if matrix.shape[1] == 1 else matrix)
        return matrix, intercept

    def _places(self, coefs: Floats) -> _Places:
        """Take the coefficients of every place apart, over the user's features and the solver's target."""
        matrices, intercepts = zip(*(self._unscaled(coef) for coef in coefs), strict=True)
        weights = matrices[0] if len(coefs) == 1 else np.concatenate(matrices, axis=1)
        return _Places(weights, np.concatenate(intercepts), [self.constants(coef) for coef in coefs])

    def _scaled_targets(self, block: Block) -> Array:
        return block.y if self.target_scale == 1.0 else block.y * self.target_scale

    def _raw(self, places: _Places, block: Block, offset: Array | None = None) -> list[Array]:
        """Return the raw predictions of every place, as the loss wants them."""
        narrow = places.weights.astype(block.X.dtype, copy=False)
        single = narrow.shape[1] == 1  # a matrix-vector product is faster than a one-column matrix product
        raw = block.X @ (narrow[:, 0] if single else narrow)
        raw = raw.reshape(block.rows, narrow.shape[1]) + places.intercepts.astype(raw.dtype)
        if offset is not None:
            raw += (offset * self.target_scale).astype(raw.dtype)[:, None]
        k = self.loss.outputs
        if self.loss.constants:
            parts = [raw[:, place * k : (place + 1) * k] for place in range(len(places.constants))]
            shape = (block.rows, self.loss.constants)
            return [
                np.concatenate([part, np.broadcast_to(constants.astype(raw.dtype), shape)], axis=1)
                for part, constants in zip(parts, places.constants, strict=True)
            ]
        return [
            raw[:, place * k : (place + 1) * k] if k > 1 else raw[:, place] for place in range(len(places.constants))
        ]

    def _gradient(self, sums: _Sums, unscaled: bool) -> Floats:
        """For each place the matrix (features, k), row by row, then intercepts and constants."""
        m, k = len(sums.loss), self.loss.outputs
        gradient = np.empty((m, self.size))
        flat = gradient[:, : self.features * k].reshape(m, self.features, k)
        flat[:] = sums.matrix.reshape(self.features, m, k).transpose(1, 0, 2)
        if self.fit_intercept:
            gradient[:, self.features * k : (self.features + 1) * k] = sums.intercept.reshape(m, k)
        gradient[:, self.size - self.loss.constants :] = sums.constants
        return gradient if unscaled else self.pull_back(gradient)

    def pull_back(self, gradient: Floats) -> Floats:
        """Apply the chain rule of ``unscale``: once, to a sum of unscaled gradients, since it is linear.

        Parameters
        ----------
        gradient : ndarray of shape (m, size)
            As ``Query.unscaled`` asks for it; it is overwritten, and returned.
        """
        m, k = len(gradient), self.loss.outputs
        flat = gradient[:, : self.features * k].reshape(m, self.features, k)
        intercept = gradient[:, self.features * k : (self.features + self.fit_intercept) * k].reshape(m, -1, k)
        # In place and by pieces: with millions of features every temporary array costs as much as the rows do.
        for start in range(0, self.features, piece := max(1, PIECE // (m * k))):
            rows = slice(start, start + piece)
            if self.center is not None:
                flat[:, rows] -= self.center[rows, None] * intercept
            if self.scale is not None:
                flat[:, rows] *= self.scale[rows, None]
        return gradient


@dataclass(frozen=True)
class _Places:
    """Coefficients of m places side by side: (features, m·k), intercepts (m·k,), and constants one by one."""

    weights: Floats
    intercepts: Floats
    constants: list[Floats]


@dataclass
class _Sums:
    """Accumulators of one pass, in the user's coordinates and float64."""

    loss: Floats
    matrix: Floats
    intercept: Floats
    constants: Floats
    weight: float = 0.0
    rows: int = 0

    @classmethod
    def zero(cls, objective: LinearObjective, m: int) -> _Sums:
        """Return the accumulators for m places."""
        outputs, constants = objective.loss.outputs, objective.loss.constants
        matrix = np.zeros((objective.features, m * outputs))
        return cls(np.zeros(m), matrix, np.zeros(m * outputs), np.zeros((m, constants)))

    def add(self, block: Block, slopes: list[Array]) -> None:
        """Add a block's weighted slopes, one array of the loss's shape a place."""
        constants, k = self.constants.shape[1], self.matrix.shape[1] // len(slopes)
        if constants:
            self.constants += [slope[:, k:].sum(axis=0, dtype=np.float64) for slope in slopes]
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


def _weighted(rows: Array, weight: Array | None) -> Array:
    """Return numbers (n,) or rows (n, k) times the rows' weights."""
    if weight is None:
        return rows
    return rows * (weight if rows.ndim == 1 else weight[:, None])

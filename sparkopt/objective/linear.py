"""The objective of a linear model over rows: loss, features, intercept and scaling, without penalty.

The solver works in its own coordinates, in which features are standardised *virtually*: no row is ever rewritten.
With scale s and centre c per feature, raw = Σ_j s_j (x_j − c_j) w_j + b, so the user's coefficients are s_j w_j and
the user's intercept is b − Σ_j c_j s_j w_j. Centring costs nothing, keeps sparse rows sparse, and makes the problem
far better conditioned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.losses import Loss, check_loss
from sparkopt.penalties import Coordinates
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = ["LinearObjective"]

PIECE = 1 << 14
"""Numbers that are changed at a time, where whole arrays would not fit a core's cache."""


@dataclass(frozen=True)
class LinearObjective:
    """Σ weight · loss(y, X·W + b) over blocks of rows, and its gradient.

    A coefficient vector has shape (size,): the matrix of shape (features, outputs) row by row, then, with an
    intercept, one entry per output, then one entry per auxiliary parameter of the loss.

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
        Subtracted from each feature; needs an intercept. None is 0.
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
        return (self.features + self.fit_intercept) * self.loss.outputs + self.loss.auxiliary

    def penalised(self) -> Floats:
        """Return 1 for coefficients, 0 for intercepts, and for auxiliary parameters what the loss says, (size,)."""
        mask = np.ones(self.size)
        mask[self.features * self.loss.outputs :] = 0.0
        mask[self.size - self.loss.auxiliary :] = self.loss.penalised_auxiliary
        return mask

    def coordinates(self, standardised: bool = True) -> Coordinates:
        """Return what the entries of a coefficient vector are, for penalties.

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
        matrix, intercept = self.over_features(coef)
        return matrix / self.target_scale, intercept / self.target_scale

    def auxiliary(self, coef: Floats) -> Floats:
        """Return the loss's own parameters, shape (auxiliary,)."""
        return self._split(coef)[2]

    def rescale(self, matrix: Floats, intercept: Floats, auxiliary: Floats | None = None) -> Floats:
        """Return the solver's coefficients for the user's: the inverse of ``unscale``, for warm starts.

        ``auxiliary`` of shape (auxiliary,) are the loss's own parameters, zeros where None.
        """
        matrix, intercept = matrix * self.target_scale, intercept * self.target_scale
        if self.center is not None:
            intercept = intercept + self.center @ matrix
        if self.scale is not None:
            matrix = np.divide(matrix, self.scale[:, None], out=np.zeros_like(matrix), where=self.scale[:, None] != 0)
        parts = [matrix.ravel()]
        if self.fit_intercept:
            parts.append(intercept)
        parts.append(np.zeros(self.loss.auxiliary) if auxiliary is None else auxiliary)
        return np.concatenate(parts)

    def start(self, mean: Floats) -> Floats:
        """Return where to begin: no coefficients, and the intercept that fits the targets' mean, (outputs,)."""
        intercept = self.loss.start(mean * self.target_scale) / self.target_scale
        return self.rescale(np.zeros((self.features, self.loss.outputs)), intercept)

    def start_at(self, coefficients: Floats, intercept: Floats, auxiliary: Floats | None = None) -> Floats:
        """Return the solver's coefficients for those of a model to start from.

        Auxiliary parameters of another loss are left out.

        Raises
        ------
        ParameterError
            For another number of features or outputs.
        """
        wanted = (self.features, self.loss.outputs)
        if coefficients.shape != wanted or intercept.shape != wanted[1:]:
            raise ParameterError(
                f"the initial model has {coefficients.shape[0]} features and {coefficients.shape[1]} outputs; these "
                f"rows and the {self.loss.name} loss need {wanted[0]} features and {wanted[1]} outputs."
            )
        own = auxiliary is not None and auxiliary.shape == (self.loss.auxiliary,)
        return self.rescale(coefficients, intercept, auxiliary if own else None)

    def factors_from(self, base: LinearObjective) -> Floats | None:
        """Return the factors from these coefficients to those of ``base``, or None where their scales are equal."""
        if self.scale is None or base.scale is None or np.array_equal(self.scale, base.scale):
            return None
        ratio = np.divide(self.scale, base.scale, out=np.zeros_like(base.scale), where=base.scale > 0)
        factors = np.ones(self.size)
        factors[: self.features * self.loss.outputs] = np.repeat(ratio, self.loss.outputs)
        return factors

    def _split(self, coef: Floats) -> tuple[Floats, Floats, Floats]:
        k = self.loss.outputs
        matrix = coef[: self.features * k].reshape(self.features, k)
        rest = coef[self.features * k :]
        if not self.fit_intercept:
            return matrix, np.zeros(k), rest
        return matrix, rest[:k], rest[k:]

    def over_features(self, coef: Floats) -> tuple[Floats, Floats]:
        """Return coefficients (features, outputs) and intercepts (outputs,) over the user's features."""
        matrix, intercept, _ = self._split(coef)
        if self.scale is not None:
            matrix = matrix * self.scale[:, None]
        if self.center is not None:
            intercept = intercept - self.center @ (matrix[:, 0] if matrix.shape[1] == 1 else matrix)
        return matrix, intercept

    def pull_back(self, gradient: Floats, held_out: Sequence[int | None] | None = None) -> Floats:
        """Apply the chain rule of ``over_features``; it is linear, so once is enough for a sum of gradients.

        Parameters
        ----------
        gradient : ndarray of shape (m, size)
            As a query with ``feature_coordinates`` returns it; it is overwritten, and returned.
        held_out : sequence, optional
            That of the query; these coordinates are the same for all folds.
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

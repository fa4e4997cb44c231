"""Losses of several projections of a row, and of parameters that all rows share: models that are not linear.

A `Loss` sees one raw prediction for each of its outputs, which is linear in the coefficients. A `ProjectionLoss` sees
as many *projections* x·w of a row as it has outputs, the sums of the row's squares where it asks for them, and its
auxiliary parameters once for all rows of a block; of these it makes the raw predictions of another loss, its base.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np

from sparkopt.losses.base import Loss
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["Derivatives", "FactorizationMachine", "ProjectionLoss"]


class Derivatives(NamedTuple):
    """Losses of some rows, and the derivatives of their weighted sum.

    Attributes
    ----------
    value : ndarray of shape (n,)
        Loss of each row, unweighted.
    projections : ndarray of shape (n, outputs)
        With respect to the projections, times the rows' weights.
    squares : ndarray of shape (n,) or None
        With respect to the projections of squares, times the weights; None where the loss takes none.
    parameters : ndarray of shape (auxiliary,)
        With respect to the auxiliary parameters, summed over the rows.
    """

    value: Array
    projections: Array
    squares: Array | None
    parameters: Floats


class ProjectionLoss(Loss):
    """A loss of projections of a row.

    As a `Loss` it is its base, of raw predictions.

    Attributes
    ----------
    base : Loss
        The loss of the raw predictions.
    squared_from : int or None
        Coefficients of the projections from this one on are squared and summed, and multiplied with the squares of
        the features: Σⱼ xⱼ² Σ_f v²ⱼ_f. None where the loss needs no such sum.
    """

    base: Loss
    squared_from: ClassVar[int | None] = None

    @property
    def curvature(self) -> float | None:
        """That of the base."""
        return self.base.curvature

    @property
    def smooth(self) -> bool:
        """As the base."""
        return self.base.smooth

    @property
    def targets(self) -> Interval:
        """Those of the base."""
        return self.base.targets

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Return the base's loss of raw predictions, and its derivative."""
        return self.base.value_gradient(y, raw)

    def predict(self, raw: Array) -> Array:
        """Return the base's prediction for raw predictions."""
        return self.base.predict(raw)

    @abstractmethod
    def raw(self, projections: Array, squares: Array | None, parameters: Floats) -> Array:
        """Return raw predictions, (n,) or (n, k), of the shape that the base takes.

        Parameters
        ----------
        projections : ndarray of shape (n, outputs)
            x·w, with intercepts.
        squares : ndarray of shape (n,) or None
            The projections of squares, where the loss takes them.
        parameters : ndarray of shape (auxiliary,)
            The auxiliary parameters.
        """

    @abstractmethod
    def derivatives(
        self, y: Array, projections: Array, squares: Array | None, parameters: Floats, weight: Array | None = None
    ) -> Derivatives:
        """Return losses and derivatives; arguments are those of ``raw``, with targets and weights of shape (n,)."""

    @abstractmethod
    def initial(self, scale: Floats, mean: Floats) -> tuple[Floats, Floats, Floats]:
        """Return coefficients (features, outputs), intercepts and auxiliary parameters to start from.

        Parameters
        ----------
        scale : ndarray of shape (features,)
            Factors of the features: the coefficients are of the features times these.
        mean : ndarray of shape (1,)
            Mean of the targets.
        """


def weighted(slope: Array, weight: Array | None) -> Array:
    """Return slopes (n,) or (n, k) times the rows' weights."""
    if weight is None:
        return slope
    factors = weight.astype(slope.dtype, copy=False)
    return np.asarray(slope * (factors if slope.ndim == 1 else factors[:, None]))


@dataclass(frozen=True)
class FactorizationMachine(ProjectionLoss):
    """The loss of a factorisation machine of second order (Rendle, 2010, *Factorization machines*, eq. 1).

    raw = b + x·w + Σ_{i<j} (vᵢ·vⱼ) xᵢ xⱼ, and the sum over pairs is ½ Σ_f ((x·v_f)² − Σⱼ xⱼ² v²ⱼ_f) (lemma 3.1): a
    row with z entries costs z · k operations. The first projection is x·w, the others are x·v_f, and the only
    auxiliary parameter is b.

    Parameters
    ----------
    base : Loss
        Of one raw prediction.
    factors : int
        k, the length of the vectors v, ≥ 1.
    fit_linear, fit_intercept : bool, default True
        Whether there are w and b; where not, their numbers are without effect, and have no gradient.
    initial_std : float, default 0.01
        Standard deviation of v at the start. At v = 0 their gradient is zero.
    seed : int, default 0
        Determines v at the start.

    Examples
    --------
    >>> import numpy as np
    >>> from sparkopt.losses import SquaredError
    >>> machine = FactorizationMachine(SquaredError(), factors=1)
    >>> x, w, v, b = np.array([[1.0, 2.0]]), np.array([0.5, 0.0]), np.array([3.0, 4.0]), np.array([0.25])
    >>> machine.raw(np.stack([x @ w, x @ v], axis=1), x**2 @ v**2, b)  # ¼ + ½ + 3 · 4 · 1 · 2
    array([24.75])
    """

    base: Loss
    factors: int = 8
    fit_linear: bool = True
    fit_intercept: bool = True
    initial_std: float = 0.01
    seed: int = 0
    name = "factorization machine"
    squared_from = 1

    def __post_init__(self) -> None:
        check("factors", self.factors, Interval(1, None, whole=True))
        check("initial_std", self.initial_std, Interval(0, None))

    @property
    def outputs(self) -> int:
        """One projection for w, and one for each factor."""
        return 1 + self.factors

    @property
    def auxiliary(self) -> int:
        """The intercept."""
        return 1

    def raw(self, projections: Array, squares: Array | None, parameters: Floats) -> Array:
        """Return b + x·w + ½ Σ_f ((x·v_f)² − Σⱼ xⱼ² v²ⱼ_f), shape (n,)."""
        along = projections[:, 1:]
        raw: Array = np.einsum("nf,nf->n", along, along)
        raw -= squares
        raw *= 0.5
        if self.fit_linear:
            raw += projections[:, 0]
        if self.fit_intercept:
            raw += parameters.astype(raw.dtype)[0]
        return raw

    def derivatives(
        self, y: Array, projections: Array, squares: Array | None, parameters: Floats, weight: Array | None = None
    ) -> Derivatives:
        """Return losses and derivatives: with g that of the raw prediction, g, g · x·v_f and −½ g."""
        value, slope = self.base.value_gradient(y, self.raw(projections, squares, parameters))
        slope = weighted(slope, weight).astype(projections.dtype, copy=False)
        found = projections * slope[:, None]
        found[:, 0] = slope if self.fit_linear else 0.0
        total = float(slope.sum(dtype=np.float64)) if self.fit_intercept else 0.0
        return Derivatives(value, found, -0.5 * slope, np.array([total]))

    def initial(self, scale: Floats, mean: Floats) -> tuple[Floats, Floats, Floats]:
        """Return vectors v of random entries in the features' units, and the intercept that fits the mean."""
        drawn = np.random.default_rng(self.seed).normal(0.0, self.initial_std, (len(scale), self.factors))
        inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0)
        matrix = np.concatenate([np.zeros((len(scale), 1)), drawn * inverse[:, None]], axis=1)
        intercept = self.base.start(mean) if self.fit_intercept else np.zeros(1)
        return matrix, np.zeros(self.outputs), intercept

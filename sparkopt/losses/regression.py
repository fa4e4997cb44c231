"""Losses of real targets: squared error, Huber with a fitted or a fixed scale, quantiles."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from sparkopt.losses.base import Loss, PiecewiseLinear, moreau_envelope, parabolic_smoothing
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["FixedHuber", "Huber", "Quantile", "SquaredError", "SquaredResidual", "increasing"]

POSITIVE = Interval(0, None, closed="neither")


class _IdentityLink(Loss):
    """A loss whose raw prediction is the prediction itself; fits start from the target's mean."""

    def predict(self, raw: Array) -> Array:
        """Return the raw prediction itself."""
        return raw

    def start(self, mean: Floats) -> Floats:
        """Return the mean."""
        return mean


@dataclass(frozen=True)
class SquaredError(_IdentityLink):
    """Half the squared residual, ½ (raw − y)².

    Examples
    --------
    >>> import numpy as np
    >>> SquaredError().value_gradient(np.array([1.0]), np.array([3.0]))
    (array([2.]), array([2.]))
    """

    name: ClassVar[str] = "squared_error"
    curvature = 1.0

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """½ (raw − y)² and raw − y."""
        residual = raw - y
        return 0.5 * residual * residual, residual

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return ``direction``."""
        return direction


@dataclass(frozen=True)
class SquaredResidual(_IdentityLink):
    """The squared residual, (raw − y)², without the half: what pyspark.ml's factorisation machines minimise.

    Examples
    --------
    >>> import numpy as np
    >>> SquaredResidual().value_gradient(np.array([1.0]), np.array([3.0]))
    (array([4.]), array([4.]))
    """

    name: ClassVar[str] = "squared_residual"
    curvature = 2.0

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """(raw − y)² and 2 (raw − y)."""
        residual = raw - y
        return residual * residual, 2.0 * residual

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return 2 ``direction``."""
        return 2.0 * direction


@dataclass(frozen=True)
class Huber(_IdentityLink):
    """Huber's loss together with the scale σ of its residuals r = raw − y (Huber, 1981, §7.7; Owen, 2007).

    ½ (σ + H(r/σ) σ) with H(z) = z² for |z| < ε and 2ε|z| − ε² beyond: the objective of pyspark.ml's
    ``LinearRegression(loss="huber")``, and half the mean of scikit-learn's ``HuberRegressor``, so the coefficients
    are the same. σ makes ε independent of the target's unit. It is fitted through an auxiliary parameter a: σ = 1 + a
    for a ≥ 0 and e^a below, so that no step makes σ negative and a = 0 means σ = 1.

    Parameters
    ----------
    epsilon : float, default 1.35
        ε > 1: residuals beyond ε·σ count linearly. 1.35 has 95% efficiency where the errors are normal.

    Examples
    --------
    A residual of 10σ counts like 2 · 1.35 · 10 − 1.35²:

    >>> import numpy as np
    >>> Huber().value_gradient(np.array([0.0]), np.array([[10.0, 0.0]]))[0].round(5)
    array([13.08875])
    """

    epsilon: float = 1.35
    name: ClassVar[str] = "huber"
    auxiliary = 1

    def __post_init__(self) -> None:
        check("epsilon", self.epsilon, Interval(1, None, closed="neither"))

    def scale(self, parameter: float) -> float:
        """Return σ for a value of the auxiliary parameter."""
        return float(increasing(np.array(parameter, dtype=np.float64))[0])

    def parameter(self, scale: float) -> float:
        """Return the auxiliary parameter for σ > 0: the inverse of ``scale``."""
        check("scale", scale, POSITIVE)
        return scale - 1.0 if scale >= 1.0 else float(np.log(scale))

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """½ (σ + H σ), and its derivatives with respect to the prediction and the auxiliary parameter."""
        scale, steep = increasing(raw[:, 1])
        value, slope = moreau_envelope(raw[:, 0] - y, -self.epsilon, self.epsilon, scale)
        return 0.5 * scale + value, np.stack([slope, 0.5 * (1.0 - slope * slope) * steep], axis=1)

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return the 2 × 2 Hessian of each row times ``direction``."""
        scale, steep = increasing(raw[:, 1])
        _, slope = moreau_envelope(raw[:, 0] - y, -self.epsilon, self.epsilon, scale)
        inner = np.abs(slope) < self.epsilon
        change = np.where(inner, direction[:, 0] - slope * steep * direction[:, 1], 0.0) / np.where(inner, scale, 1.0)
        second = np.where(raw[:, 1] < 0, scale, 0.0)
        return np.stack(
            [change, (0.5 * (1.0 - slope * slope) * second) * direction[:, 1] - slope * steep * change],
            axis=1,
        )


def increasing(parameter: Array) -> tuple[Array, Array]:
    """Return a positive function of every number, and its derivative: 1 + a for a >= 0, and e^a below."""
    below = np.exp(np.minimum(parameter, 0))
    return np.where(parameter >= 0, 1 + parameter, below), below


@dataclass(frozen=True)
class FixedHuber(_IdentityLink):
    """Huber's loss of residuals r = raw − y: ½r² up to ``delta``, delta·|r| − ½delta² beyond (Huber, 1964).

    ``delta`` is in the target's unit, as in torch's ``HuberLoss``. :class:`Huber` does not depend on that unit, and
    gives the coefficients of pyspark.ml and scikit-learn.

    Parameters
    ----------
    delta : float, default 1.35
        Residual at which the loss changes from squared to absolute, > 0.

    Examples
    --------
    >>> import numpy as np
    >>> FixedHuber(1.0).value_gradient(np.zeros(2), np.array([0.5, -10.0]))
    (array([0.125, 9.5  ]), array([ 0.5, -1. ]))
    """

    delta: float = 1.35
    name: ClassVar[str] = "fixed_huber"
    curvature = 1.0

    def __post_init__(self) -> None:
        check("delta", self.delta, POSITIVE)

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Huber's loss and its derivative."""
        return moreau_envelope(raw - y, -self.delta, self.delta, 1.0)

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return ``direction`` where the loss is squared, 0 elsewhere."""
        return np.where(np.abs(raw - y) < self.delta, direction, 0)


@dataclass(frozen=True)
class Quantile(_IdentityLink, PiecewiseLinear):
    """The check loss of quantile regression, r·q for r = y − raw ≥ 0 and r·(q − 1) below (Koenker & Bassett, 1978).

    With ``smoothing`` 0 it is exact and nonsmooth, and needs subgradient methods such as sgd. Otherwise a parabola
    replaces it around zero (Chen, 2007, *A finite smoothing algorithm for quantile regression*). The smoothed loss is
    above the exact one by at most smoothing / 8, at residuals within smoothing / 2.

    Parameters
    ----------
    q : float, default 0.5
        The quantile to predict, in (0, 1).
    smoothing : float, default 0
        Smoothing parameter, ≥ 0, in the target's unit: width of the parabola.

    Examples
    --------
    >>> import numpy as np
    >>> Quantile(0.9).value_gradient(np.array([1.0, -1.0]), np.zeros(2))
    (array([0.9, 0.1]), array([-0.9,  0.1]))
    """

    q: float = 0.5
    smoothing: float = 0.0
    name: ClassVar[str] = "quantile"

    def __post_init__(self) -> None:
        check("quantile", self.q, Interval(0, 1, closed="neither"))
        check("smoothing", self.smoothing, Interval(0, None))

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """The check loss and its derivative."""
        return parabolic_smoothing(raw - y, -self.q, 1.0 - self.q, self.smoothing)

    def distance(self, y: Array, raw: Array) -> Array:
        """Return the residuals."""
        residual: Array = raw - y
        return residual

    def smoothed(self, smoothing: float) -> Quantile:
        """Return the same loss with another smoothing parameter."""
        return replace(self, smoothing=smoothing)

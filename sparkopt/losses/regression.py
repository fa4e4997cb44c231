"""Losses of real targets: squared error, Huber with and without a scale of its own, quantiles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sparkopt.losses.base import Loss, envelope, rounded
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, check

__all__ = ["FixedHuber", "Huber", "Quantile", "SquaredError"]

POSITIVE = Interval(0, None, closed="neither")


@dataclass(frozen=True)
class SquaredError(Loss):
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

    def hessian_product(self, y: Array, raw: Array, move: Array) -> Array:
        """Return ``move``."""
        return move

    def predict(self, raw: Array) -> Array:
        """Return the raw prediction itself."""
        return raw

    def start(self, mean: Floats) -> Floats:
        """Return the mean."""
        return mean


@dataclass(frozen=True)
class Huber(Loss):
    """Huber's loss together with the scale σ of its residuals r = raw − y (Huber, 1981, §7.7; Owen, 2007).

    ½ (σ + H(r/σ) σ) with H(z) = z² for |z| < ε and 2ε|z| − ε² beyond: the objective of pyspark.ml's
    ``LinearRegression(loss="huber")``, and half the mean of scikit-learn's ``HuberRegressor``, so the coefficients
    are theirs. σ makes ε independent of the target's unit, and is fitted along: ``scale`` reads it off the constant
    c. σ = 1 + c for c ≥ 0 and e^c below: no step makes it negative, and a constant of 0 is a σ of 1.

    Parameters
    ----------
    epsilon : float, default 1.35
        ε > 1: beyond how many σ a residual counts in proportion to its size only. 1.35 loses 5% of efficiency where
        the errors are normal.

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

    def scale(self, constant: float) -> float:
        """Return σ for the fitted constant."""
        return float(_scale(np.array(constant, dtype=np.float64))[0])

    def constant(self, scale: float) -> float:
        """Return the constant for σ > 0: the inverse of ``scale``."""
        check("scale", scale, POSITIVE)
        return scale - 1.0 if scale >= 1.0 else float(np.log(scale))

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """½ (σ + H σ), and its derivatives with respect to the prediction and the constant."""
        scale, steep = _scale(raw[:, 1])
        value, slope = envelope(raw[:, 0] - y, -self.epsilon, self.epsilon, scale)
        return 0.5 * scale + value, np.stack([slope, 0.5 * (1.0 - slope * slope) * steep], axis=1)

    def hessian_product(self, y: Array, raw: Array, move: Array) -> Array:
        """Return the 2 × 2 Hessian of each row times ``move``."""
        scale, steep = _scale(raw[:, 1])
        _, slope = envelope(raw[:, 0] - y, -self.epsilon, self.epsilon, scale)
        inner = np.abs(slope) < self.epsilon
        change = np.where(inner, move[:, 0] - slope * steep * move[:, 1], 0.0) / np.where(inner, scale, 1.0)
        bend = np.where(raw[:, 1] < 0, scale, 0.0)
        return np.stack(
            [change, (0.5 * (1.0 - slope * slope) * bend) * move[:, 1] - slope * steep * change],
            axis=1,
        )

    def predict(self, raw: Array) -> Array:
        """Return the raw prediction itself."""
        return raw

    def start(self, mean: Floats) -> Floats:
        """Return the mean."""
        return mean


def _scale(constant: Array) -> tuple[Array, Array]:
    """Return σ and its derivative."""
    below = np.exp(np.minimum(constant, 0))
    return np.where(constant >= 0, 1 + constant, below), below


@dataclass(frozen=True)
class FixedHuber(Loss):
    """Huber's loss of residuals r = raw − y: ½r² up to ``delta``, delta·|r| − ½delta² beyond (Huber, 1964).

    ``delta`` is in the target's unit, as in torch's ``HuberLoss``. For pyspark.ml's and scikit-learn's coefficients,
    which do not depend on that unit, use :class:`Huber`.

    Parameters
    ----------
    delta : float, default 1.35
        Where the loss turns from squared to absolute, > 0.

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
        """The rounded absolute residual and its slope."""
        return envelope(raw - y, -self.delta, self.delta, 1.0)

    def hessian_product(self, y: Array, raw: Array, move: Array) -> Array:
        """Return ``move`` where the loss is squared, 0 elsewhere."""
        return np.where(np.abs(raw - y) < self.delta, move, 0)

    def predict(self, raw: Array) -> Array:
        """Return the raw prediction itself."""
        return raw

    def start(self, mean: Floats) -> Floats:
        """Return the mean."""
        return mean


@dataclass(frozen=True)
class Quantile(Loss):
    """The check loss of quantile regression, r·q for r = y − raw ≥ 0 and r·(q − 1) below (Koenker & Bassett, 1978).

    Exact where ``width`` is 0; then its kink asks for subgradient methods such as sgd. With a width it is rounded off
    around the kink (Chen, 2007, *A finite smoothing algorithm for quantile regression*) and lies above the exact loss
    by at most an eighth of the width, at residuals within half of it.

    Parameters
    ----------
    q : float, default 0.5
        Which quantile is predicted, in (0, 1).
    width : float, default 0
        Width of the rounding, ≥ 0, in the target's unit.

    Examples
    --------
    >>> import numpy as np
    >>> Quantile(0.9).value_gradient(np.array([1.0, -1.0]), np.zeros(2))
    (array([0.9, 0.1]), array([-0.9,  0.1]))
    """

    q: float = 0.5
    width: float = 0.0
    name: ClassVar[str] = "quantile"

    def __post_init__(self) -> None:
        check("quantile", self.q, Interval(0, 1, closed="neither"))
        check("width", self.width, Interval(0, None))

    @property
    def smooth(self) -> bool:  # type: ignore[override]  # derived here, stored elsewhere
        """Whether there is a width."""
        return self.width > 0

    @property
    def curvature(self) -> float | None:  # type: ignore[override]  # derived here, stored elsewhere
        """1 / width."""
        return 1.0 / self.width if self.width > 0 else None

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """The check loss and its slope."""
        return rounded(raw - y, -self.q, 1.0 - self.q, self.width)

    def hessian_product(self, y: Array, raw: Array, move: Array) -> Array:
        """Return ``move`` / width around the kink, 0 elsewhere (and everywhere for a width of 0)."""
        return np.where(self.curved(y, raw), move / (self.width or 1.0), 0)

    def curved(self, y: Array, raw: Array) -> NDArray[np.bool_]:
        """Return which rows are around the kink."""
        return np.asarray(2 * np.abs(raw - y) < self.width)

    def predict(self, raw: Array) -> Array:
        """Return the raw prediction itself: the quantile."""
        return raw

    def start(self, mean: Floats) -> Floats:
        """Return the mean, for want of the quantile."""
        return mean

    def smoothed(self, width: float) -> Quantile:
        """Return the same loss, rounded off over ``width``."""
        return replace(self, width=width)

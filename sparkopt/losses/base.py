"""The interface of a loss, and the two ways to smooth a nonsmooth one.

A loss sees targets and raw predictions, never features, coefficients or Spark. For each row it returns the loss and
its derivative with respect to the raw prediction. Weights, sums and penalties are added elsewhere.

Notation: ``n`` rows, ``k`` columns of raw predictions, ``k = outputs + auxiliary``. ``y`` has shape (n,). ``raw`` has
shape (n,) for losses of one column and (n, k) for losses of several. Results have the floating-point type of ``raw``
or a wider one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval

__all__ = ["Loss", "PiecewiseLinear", "moreau_envelope", "parabolic_smoothing"]

_REAL = Interval()


class Loss(ABC):
    """A loss per row and its derivative with respect to the raw prediction.

    A subclass overrides an attribute by a class attribute of the same name (``curvature = 0.25``), or by a property
    where it depends on parameters.

    Attributes
    ----------
    name : str
        Name of the loss in flags, receipts and errors.
    curvature : float or None
        Upper bound of the second derivative with respect to ``raw``; None where there is none. It bounds the safe
        step size of gradient descent.
    smooth : bool
        Whether the derivative is continuous, as methods with a line search require. See ``smoothed``.
    targets : Interval
        The targets for which the loss is defined.
    outputs : int
        Raw predictions per row that depend on the features.
    auxiliary : int
        Number of parameters of the loss itself: further columns of ``raw``, after the outputs, that hold the same
        number in every row. They are fitted along with the coefficients, and penalised where ``penalised_auxiliary``
        says so.
    """

    name: ClassVar[str]

    @property
    def curvature(self) -> float | None:
        """Upper bound of the second derivative; None where there is none."""
        return None

    @property
    def smooth(self) -> bool:
        """Whether the derivative is continuous."""
        return True

    @property
    def targets(self) -> Interval:
        """The targets for which the loss is defined: by default every finite number."""
        return _REAL

    @property
    def outputs(self) -> int:
        """Raw predictions per row that depend on the features."""
        return 1

    @property
    def auxiliary(self) -> int:
        """Number of auxiliary parameters."""
        return 0

    @property
    def penalised_auxiliary(self) -> Floats:
        """1 for each auxiliary parameter that is penalised, 0 for the others, shape (auxiliary,): by default 0."""
        return np.zeros(self.auxiliary)

    @abstractmethod
    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Return the loss of each row, shape (n,), and its derivative, shape of ``raw``; unweighted."""

    @abstractmethod
    def predict(self, raw: Array) -> Array:
        """Return the prediction for the outputs, shape (n,) or (n, outputs): for most losses the target's mean."""

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return each row's second derivative times ``direction``, both of the shape of ``raw``.

        The default takes central differences of the derivative in double precision, good to about ten digits.
        """
        raw, direction = raw.astype(np.float64), direction.astype(np.float64)
        length = np.cbrt(np.finfo(np.float64).eps) * (1 + np.abs(raw))
        if raw.ndim > 1:  # one length for all columns of a row
            length = length.max(axis=1, keepdims=True)
            length /= np.maximum(np.abs(direction).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        else:
            length /= np.maximum(np.abs(direction), np.finfo(np.float64).tiny)
        up, down = (self.value_gradient(y, raw + sign * length * direction)[1] for sign in (1, -1))
        product: Array = (up - down) / (2 * length)
        return product

    def curved(self, y: Array, raw: Array) -> NDArray[np.bool_] | None:
        """Return which rows have a nonzero second derivative, shape (n,); None where most or all have one."""
        return None

    def start(self, mean: Floats) -> Floats:
        """Return the best constant raw prediction: the intercept from which a fit starts.

        Parameters
        ----------
        mean : ndarray of shape (outputs,)
            Mean of the target; for classes, the share of each.

        Returns
        -------
        ndarray of shape (outputs,)
            By default zeros.
        """
        return np.zeros(self.outputs)

    def smoothed(self, smoothing: float) -> Loss:
        """Return a smooth loss that differs from this one by at most a multiple of ``smoothing``.

        A smooth loss returns itself. To minimise a nonsmooth loss by a method with a line search, minimise smoothed
        losses with decreasing smoothing parameters in turn, each from the optimum of the one before (Beck & Teboulle,
        2012, *Smoothing and first order methods*).
        """
        return self

    def remedy(self, method: str) -> str:
        """Return what to do where a derivative differs from finite differences, for the error that says so."""
        return f"Correct {method}."


class PiecewiseLinear(Loss):
    """A loss of two lines that meet at zero; with a positive smoothing parameter a parabola joins them.

    Attributes
    ----------
    smoothing : float
        Width of the parabola; 0 leaves the loss exact and nonsmooth.
    """

    smoothing: float

    @property
    def smooth(self) -> bool:
        """Whether the smoothing parameter is positive."""
        return self.smoothing > 0

    @property
    def curvature(self) -> float | None:
        """1 / smoothing."""
        return 1.0 / self.smoothing if self.smoothing > 0 else None

    @abstractmethod
    def distance(self, y: Array, raw: Array) -> Array:
        """Return each row's signed distance from the point where the lines meet, shape (n,)."""

    def curved(self, y: Array, raw: Array) -> NDArray[np.bool_]:
        """Return which rows are on the parabola."""
        return np.asarray(2 * np.abs(self.distance(y, raw)) < self.smoothing)

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return ``direction`` / smoothing on the parabola, 0 elsewhere."""
        return np.where(self.curved(y, raw), direction / (self.smoothing or 1.0), 0)


def parabolic_smoothing(x: Array, low: float, high: float, smoothing: float) -> tuple[Array, Array]:
    """Return max(low · x, high · x), smoothed around zero by a parabola, and its derivative.

    The parabola joins the two lines between −½ smoothing and ½ smoothing (Chen, 2007, *A finite smoothing algorithm
    for quantile regression*). The result is above the lines by at most smoothing · (high − low) / 8, with second
    derivative (high − low) / smoothing there, and equal to them elsewhere. A smoothing of 0 changes nothing; the
    derivative at zero is then the member of [low, high] next to zero.
    """
    reach = np.minimum(np.maximum(x + 0.5 * smoothing, 0.0), smoothing)  # of few rows, clip takes three times as long
    share = reach / smoothing if smoothing else np.heaviside(x, (np.clip(0.0, low, high) - low) / (high - low))
    positive = 0.5 * reach * share + np.maximum(x - 0.5 * smoothing, 0.0)
    return low * x + (high - low) * positive, low + (high - low) * share


def moreau_envelope(x: Array, low: float, high: float, smoothing: float | Array) -> tuple[Array, Array]:
    """Return the Moreau envelope of max(low · x, high · x), and its derivative.

    With s = clip(x / smoothing, low, high) it is x·s − ½ smoothing s² (Beck & Teboulle, 2012, §4.2): convex, below
    the function itself by at most ½ smoothing · max(low², high²), with second derivative 1 / smoothing around zero
    and 0 elsewhere. A smoothing of 0 changes nothing; the derivative at zero is then the member of [low, high] next
    to zero.
    """
    with np.errstate(over="ignore"):
        slope = np.clip(x / np.maximum(smoothing, np.finfo(np.float64).tiny), low, high)
    return x * slope - 0.5 * smoothing * slope * slope, slope

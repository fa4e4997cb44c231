"""What a loss is: rows in, rows out.

A loss sees targets and raw predictions, never features, coefficients or Spark. For each row it gives the loss and
the derivative with respect to the raw prediction; weights, sums and penalties belong to others.

Notation: ``n`` rows, ``k`` columns of raw predictions, ``k = outputs + auxiliary``. ``y`` has shape (n,); ``raw`` has
shape (n,) for losses of one column and (n, k) for losses of several. Results have the floating width of ``raw`` or
wider.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval

__all__ = ["Loss", "envelope", "rounded"]


class Loss(ABC):
    """A loss per row and its derivative with respect to the raw prediction.

    Attributes
    ----------
    name : str
        How the loss is called in flags, receipts and errors.
    curvature : float or None
        The largest second derivative with respect to ``raw``; None where there is none. It bounds the safe step
        size of gradient descent.
    smooth : bool
        Whether the derivative is continuous, as every method with a line search needs it. See ``smoothed``.
    targets : Interval
        The targets that the loss is defined for.
    outputs : int
        Raw predictions per row that depend on the features.
    auxiliary : int
        Parameters of the loss itself: further columns of ``raw``, after the outputs, that hold the same number in
        every row. They are fitted along with the coefficients, and never penalised.
    """

    name: ClassVar[str]
    curvature: float | None = None
    smooth: bool = True
    targets: Interval = Interval()
    outputs: int = 1
    auxiliary: int = 0

    @abstractmethod
    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Loss of each row, shape (n,), and its derivative, shape of ``raw``; unweighted."""

    @abstractmethod
    def predict(self, raw: Array) -> Array:
        """What is predicted given the outputs, shape (n,) or (n, outputs): the mean of the target for most losses."""

    def hessian_product(self, y: Array, raw: Array, move: Array) -> Array:
        """Return each row's second derivative times ``move``, both of the shape of ``raw``.

        Where a loss does not define it, by central differences of its derivative in double precision, which is good
        to about ten digits.
        """
        raw, move = raw.astype(np.float64), move.astype(np.float64)
        length = np.cbrt(np.finfo(np.float64).eps) * (1 + np.abs(raw))
        if raw.ndim > 1:  # one length for all columns of a row
            length = length.max(axis=1, keepdims=True)
            length /= np.maximum(np.abs(move).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        else:
            length /= np.maximum(np.abs(move), np.finfo(np.float64).tiny)
        up, down = (self.value_gradient(y, raw + sign * length * move)[1] for sign in (1, -1))
        return (up - down) / (2 * length)

    def curved(self, y: Array, raw: Array) -> NDArray[np.bool_] | None:
        """Return which rows have a second derivative at all there, shape (n,); None where most or all have."""
        return None

    def start(self, mean: Floats) -> Floats:
        """Return the raw prediction that fits best where every row is predicted alike: an intercept to start from.

        Parameters
        ----------
        mean : ndarray of shape (outputs,)
            Mean of the target; for classes, the share of each.

        Returns
        -------
        ndarray of shape (outputs,)
            Zeros, where the loss knows nothing better.
        """
        return np.zeros(self.outputs)

    def smoothed(self, width: float) -> Loss:
        """Return a smooth loss that is nowhere further than a multiple of ``width`` from this one.

        A smooth loss returns itself. To minimise a loss with kinks by a method with a line search, minimise smoothed
        ones of falling width in turn, each from where the one before it ended (Beck & Teboulle, 2012, *Smoothing and
        first order methods*).
        """
        return self


def rounded(x: Array, low: float, high: float, width: float) -> tuple[Array, Array]:
    """Return max(low · x, high · x), its kink at zero rounded off over ``width``, and the derivative.

    A parabola joins the two lines between −½ width and ½ width (Chen, 2007, *A finite smoothing algorithm for
    quantile regression*): above them by at most width · (high − low) / 8, with second derivative
    (high − low) / width, and equal to them elsewhere. A width of 0 rounds nothing; the derivative at the kink is then
    the member of [low, high] next to zero.
    """
    reach = np.clip(x + 0.5 * width, 0.0, width)
    share = reach / width if width else np.heaviside(x, (np.clip(0.0, low, high) - low) / (high - low))
    bend = 0.5 * reach * share + np.maximum(x - 0.5 * width, 0.0)
    return low * x + (high - low) * bend, low + (high - low) * share


def envelope(x: Array, low: float, high: float, width: float | Array) -> tuple[Array, Array]:
    """Return max(low · x, high · x), its kink at zero rounded off over ``width``, and the derivative.

    This is the Moreau envelope x·s − ½ width s² with s = clip(x / width, low, high) (Beck & Teboulle, 2012, §4.2):
    convex, below the unrounded function by at most ½ width · max(low², high²), with second derivative 1/width around
    the kink and 0 elsewhere. A width of 0 rounds nothing; the derivative at the kink is then the member of
    [low, high] next to zero.
    """
    with np.errstate(over="ignore"):
        slope = np.clip(x / np.maximum(width, np.finfo(np.float64).tiny), low, high)
    return x * slope - 0.5 * width * slope * slope, slope

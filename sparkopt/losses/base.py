"""What a loss is: rows in, rows out.

A loss sees targets and raw predictions, never features, coefficients or Spark. For each row it gives the loss and
the derivative with respect to the raw prediction; weights, sums and penalties belong to others.

Notation: ``n`` rows, ``k`` columns of raw predictions, ``k = outputs + constants``. ``y`` has shape (n,); ``raw`` has
shape (n,) for losses of one column and (n, k) for losses of several. Results have the floating width of ``raw`` or
wider.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from sparkopt.errors import IncompatibleError
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval

__all__ = ["Loss", "envelope"]


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
    constants : int
        Parameters of the loss itself: further columns of ``raw``, after the outputs, that hold the same number in
        every row. They are fitted along with the coefficients, and never penalised.
    """

    name: ClassVar[str]
    curvature: float | None = None
    smooth: bool = True
    targets: Interval = Interval()
    outputs: int = 1
    constants: int = 0

    @abstractmethod
    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Loss of each row, shape (n,), and its derivative, shape of ``raw``; unweighted."""

    @abstractmethod
    def predict(self, raw: Array) -> Array:
        """What is predicted given the outputs, shape (n,) or (n, outputs): the mean of the target for most losses."""

    def hessian_product(self, y: Array, raw: Array, move: Array) -> Array:
        """Return each row's second derivative times ``move``, both of the shape of ``raw``.

        Raises
        ------
        IncompatibleError
            Where the loss does not define it.
        """
        raise IncompatibleError(
            f"loss {self.name!r} has no second derivative. Define its hessian_product, or use optimizer='lbfgs'."
        )

    @property
    def has_hessian(self) -> bool:
        """Whether ``hessian_product`` is defined."""
        return type(self).hessian_product is not Loss.hessian_product

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

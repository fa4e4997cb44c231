"""What a penalty is: added to the mean loss, once, after the sum over the data.

A penalty is the sum of a smooth part, which has a gradient, and a part with kinks, which has a proximal operator
(Parikh & Boyd, 2014, *Proximal Algorithms*, §1.1). Either may be zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from sparkopt.typing import Floats

__all__ = ["Coordinates", "NoPenalty", "Penalty"]


@dataclass(frozen=True)
class Coordinates:
    """What a solver's coefficient vector means to the user.

    A vector holds ``outputs`` numbers for each feature, then the intercepts, then the loss's auxiliary parameters.

    Attributes
    ----------
    features, outputs : int
        The first features · outputs entries are coefficients.
    intercepts : int
        How many entries after them are intercepts.
    factors : ndarray of shape (size,)
        What a penalty measures is this times the solver's entry; 0 where nothing is penalised.
    units : ndarray of shape (size,)
        What the user reads is this times the solver's entry (for intercepts: where features are not centred).
    """

    features: int
    outputs: int
    intercepts: int
    factors: Floats
    units: Floats


class Penalty(ABC):
    """A convex function of the coefficients, all of shape (size,).

    Attributes
    ----------
    label : str
        How errors call it.
    smooth : bool
        True where the part with kinks is zero, so that ``prox`` returns its argument.
    is_bounds : bool
        The part with kinks is zero inside bounds on each coordinate and infinite outside, so that ``prox`` is the
        projection whatever the length, also in a metric of one scale per coordinate.
    bounds_intercept : bool
        Intercepts are bounded, so features must not be centred: that moves the intercept.
    curvature : float
        Largest second derivative of the smooth part.
    """

    label: str
    smooth: bool
    is_bounds: bool = False
    bounds_intercept: bool = False
    curvature: float = 0.0

    @abstractmethod
    def value(self, coef: Floats) -> float:
        """Both parts together."""

    @abstractmethod
    def smooth_value(self, coef: Floats) -> float:
        """The smooth part alone."""

    @abstractmethod
    def gradient(self, coef: Floats) -> Floats:
        """Gradient of the smooth part."""

    @abstractmethod
    def prox(self, coef: Floats, step: float) -> Floats:
        """Return the argmin over u of ½‖u − coef‖² + step · (the part with kinks)(u); for step 0 the projection."""

    @abstractmethod
    def times(self, strength: float) -> Penalty:
        """Return the penalty multiplied by ``strength``."""

    @abstractmethod
    def on(self, factors: Floats) -> Penalty:
        """Return the same penalty of ``factors * coef``: where the solver's coordinates are not the user's.

        A factor of 0 leaves its coordinate unpenalised (the intercept).
        """

    def hessian_product(self, vector: Floats) -> Floats:
        """Return the second derivative of the smooth part times ``vector``.

        Smooth parts are quadratic about zero, where that is the gradient at ``vector``; any other overrides this.
        """
        return self.gradient(vector)

    def at(self, coordinates: Coordinates) -> Penalty:
        """Return the penalty that means in the solver's coordinates what this one means in the user's."""
        return self.on(coordinates.factors)

    def l1_weights(self, size: int) -> Floats | None:
        """Return c, shape (size,), where the part with kinks is Σ c |coef|; None where it is anything else."""
        return np.zeros(size) if self.smooth else None


@dataclass(frozen=True)
class NoPenalty(Penalty):
    """No penalty: zero everywhere."""

    label = "no penalty"
    smooth = True

    def value(self, coef: Floats) -> float:
        """Return zero."""
        return 0.0

    smooth_value = value

    def gradient(self, coef: Floats) -> Floats:
        """Return zeros."""
        return np.zeros_like(coef)

    def prox(self, coef: Floats, step: float) -> Floats:
        """Return ``coef``."""
        return coef

    def times(self, strength: float) -> NoPenalty:
        """Return itself."""
        return self

    def on(self, factors: Floats) -> NoPenalty:
        """Return itself."""
        return self

"""The interface of a penalty: a smooth part with a gradient, and a nonsmooth part with a proximal operator.

Either part may be zero (Parikh & Boyd, 2014, *Proximal Algorithms*, §1.1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = ["Coordinates", "NoPenalty", "Penalty"]


@dataclass(frozen=True)
class Coordinates:
    """How a solver's coefficient vector relates to the user's coefficients.

    A vector holds ``outputs`` numbers for each feature, then the intercepts, then the loss's auxiliary parameters.

    Attributes
    ----------
    features, outputs : int
        The first features · outputs entries are coefficients.
    intercepts : int
        How many entries after them are intercepts.
    factors : ndarray of shape (size,)
        A penalty is of this times the solver's entry; 0 where nothing is penalised.
    units : ndarray of shape (size,)
        The user's coefficient is this times the solver's entry (for intercepts: where features are not centred).
    """

    features: int
    outputs: int
    intercepts: int
    factors: Floats
    units: Floats


class Penalty(ABC):
    """A convex function of the coefficients, all of shape (size,).

    A subclass overrides an attribute by a class attribute of the same name (``smooth = True``), or by a property
    where it depends on parameters.

    Attributes
    ----------
    label : str
        Name of the penalty in errors.
    smooth : bool
        Whether the nonsmooth part is zero, so that ``prox`` returns its argument.
    is_bounds : bool
        Whether the nonsmooth part is zero inside bounds on each coordinate and infinite outside. ``prox`` is then the
        projection whatever the step, also in a metric with one scale per coordinate.
    is_separable : bool
        Whether the nonsmooth part is a sum over coordinates.
    bounds_intercept : bool
        Whether intercepts are bounded. Features must not be centred then, since that changes the intercept.
    curvature : float
        Largest second derivative of the smooth part.
    """

    label: str

    @property
    @abstractmethod
    def smooth(self) -> bool:
        """Whether the nonsmooth part is zero."""

    @property
    def is_bounds(self) -> bool:
        """Whether the nonsmooth part is that of bounds."""
        return False

    @property
    def is_separable(self) -> bool:
        """Whether the nonsmooth part is a sum over coordinates, so that ``separable`` describes it."""
        return self.smooth or self.is_bounds

    @property
    def bounds_intercept(self) -> bool:
        """Whether intercepts are bounded."""
        return False

    @property
    def curvature(self) -> float:
        """Largest second derivative of the smooth part."""
        return 0.0

    @abstractmethod
    def value(self, coef: Floats) -> float:
        """Return the sum of both parts."""

    @abstractmethod
    def smooth_value(self, coef: Floats) -> float:
        """Return the smooth part."""

    @abstractmethod
    def gradient(self, coef: Floats) -> Floats:
        """Return the gradient of the smooth part."""

    @abstractmethod
    def prox(self, coef: Floats, step: float) -> Floats:
        """Return the argmin over u of ½‖u − coef‖² + step · (the nonsmooth part)(u); for step 0 the projection."""

    @abstractmethod
    def times(self, strength: float) -> Penalty:
        """Return the penalty multiplied by ``strength``."""

    @abstractmethod
    def on(self, factors: Floats) -> Penalty:
        """Return the same penalty of ``factors * coef``: a factor of 0 leaves its coordinate unpenalised."""

    def hessian_product(self, vector: Floats) -> Floats:
        """Return the second derivative of the smooth part times ``vector``.

        The default is right for a smooth part that is quadratic about zero: it is the gradient at ``vector``.
        """
        return self.gradient(vector)

    def at(self, coordinates: Coordinates) -> Penalty:
        """Return this penalty of the user's coefficients as a function of the solver's vector."""
        return self.on(coordinates.factors)

    def l1_weights(self, size: int) -> Floats | None:
        """Return c, shape (size,), where the nonsmooth part is Σ c |coef|; None where it is anything else."""
        return np.zeros(size) if self.smooth else None

    def separable(self, size: int) -> tuple[Floats, Floats, Floats] | None:
        """Return c, lower and upper, each (size,): a nonsmooth part of Σ c |coef| inside bounds, or None."""
        weights = self.l1_weights(size)
        return None if weights is None else (weights, np.full(size, -np.inf), np.full(size, np.inf))


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

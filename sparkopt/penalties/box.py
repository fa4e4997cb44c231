"""Bounds on coefficients and intercepts."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Any

import numpy as np

from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.penalties.base import Coordinates, NoPenalty, Penalty
from sparkopt.penalties.elastic_net import ElasticNet
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = ["Box"]


@dataclass(frozen=True)
class Box(Penalty):
    """Bounds on the coefficients, together with another penalty.

    Parameters
    ----------
    lower, upper : float or ndarray of shape (features,) or (features, outputs), default −∞, ∞
        Bounds on the coefficients, in the user's units whether or not features are standardised, as pyspark.ml's
        ``lowerBoundsOnCoefficients`` (whose matrices are transposed: one row per class).
    intercept_lower, intercept_upper : float or ndarray of shape (outputs,), default −∞, ∞
        Bounds on the intercepts.
    penalty : Penalty, default none
        Added inside the bounds: none, L2, L1 or elastic net.

    Examples
    --------
    >>> import numpy as np
    >>> Box(lower=0.0).prox(np.array([-1.0, 2.0]), step=1.0).tolist()
    [0.0, 2.0]
    """

    lower: Any = -np.inf
    upper: Any = np.inf
    intercept_lower: Any = -np.inf
    intercept_upper: Any = np.inf
    penalty: Penalty = field(default_factory=NoPenalty)
    label = "bounds on coefficients"
    smooth = False
    is_separable = True

    def __post_init__(self) -> None:
        if not isinstance(self.penalty, (NoPenalty, ElasticNet)):
            raise IncompatibleError(
                f"bounds on coefficients cannot be combined with {self.penalty.label}: the two have no common "
                f"proximal step. Use them with none, L2, L1 or ElasticNet."
            )
        for low, high, name in (
            (self.lower, self.upper, ""),
            (self.intercept_lower, self.intercept_upper, "intercept_"),
        ):
            if np.isnan(low).any() or np.isnan(high).any() or (np.asarray(low) > np.asarray(high)).any():
                raise ParameterError(f"{name}lower must be <= {name}upper everywhere. Got {low!r} and {high!r}.")

    @property
    def is_bounds(self) -> bool:
        """Whether the other penalty is smooth."""
        return self.penalty.smooth

    @property
    def bounds_intercept(self) -> bool:
        """Whether any intercept is bounded."""
        return bool(np.isfinite(self.intercept_lower).any() or np.isfinite(self.intercept_upper).any())

    @property
    def curvature(self) -> float:
        """Return that of the other penalty."""
        return self.penalty.curvature

    def value(self, coef: Floats) -> float:
        """Return the other penalty inside the bounds, infinity outside."""
        inside = (coef >= self.lower).all() and (coef <= self.upper).all()
        return self.penalty.value(coef) if inside else np.inf

    def smooth_value(self, coef: Floats) -> float:
        """Return that of the other penalty."""
        return self.penalty.smooth_value(coef)

    def gradient(self, coef: Floats) -> Floats:
        """Return that of the other penalty."""
        return self.penalty.gradient(coef)

    def prox(self, coef: Floats, step: float) -> Floats:
        """Return the other penalty's, projected: right for penalties that are separable by coordinate."""
        return np.clip(self.penalty.prox(coef, step), self.lower, self.upper)

    def separable(self, size: int) -> tuple[Floats, Floats, Floats] | None:
        """Return the L1 part of the other penalty, and the bounds."""
        weights = self.penalty.l1_weights(size)
        if weights is None:
            return None
        return (
            weights,
            np.broadcast_to(self.lower, size).astype(float),
            np.broadcast_to(self.upper, size).astype(float),
        )

    def times(self, strength: float) -> Box:
        """Multiply the other penalty."""
        return replace(self, penalty=self.penalty.times(strength))

    def on(self, factors: Floats) -> Box:
        """Bound ``factors * w``."""
        lower, upper = _divided(self.lower, self.upper, factors)
        return replace(self, lower=lower, upper=upper, penalty=self.penalty.on(factors))

    def at(self, coordinates: Coordinates) -> Box:
        """Return the bounds on the solver's coefficients and intercepts that bound the user's.

        Raises
        ------
        ParameterError
            Where the number of bounds is not that of coefficients or intercepts.
        """
        bounds = []
        for end, inner, outer in (
            (-np.inf, self.lower, self.intercept_lower),
            (np.inf, self.upper, self.intercept_upper),
        ):
            vector = np.full(len(coordinates.units), end)
            first = coordinates.features * coordinates.outputs
            vector[:first] = _bounds("coefficients", inner, (coordinates.features, coordinates.outputs)).ravel()
            vector[first : first + coordinates.intercepts] = _bounds("intercepts", outer, (coordinates.intercepts,))
            bounds.append(vector)
        lower, upper = _divided(bounds[0], bounds[1], coordinates.units)
        return Box(lower, upper, penalty=self.penalty.at(coordinates))


def _bounds(what: str, given: Any, shape: tuple[int, ...]) -> Floats:
    """Return bounds of ``shape``, given one number for all, one per feature, or all of them."""
    array = np.asarray(given, dtype=np.float64)
    if array.ndim == 1 and len(shape) == 2 and len(array) == shape[0]:
        array = array[:, None]
    if array.ndim == 0 or array.shape == shape or (array.ndim == 2 and array.shape == (shape[0], 1)):
        return np.broadcast_to(array, shape)
    raise ParameterError(
        f"bounds on {what} must be one number or have shape {shape}. Got shape {array.shape} instead."
    )


def _divided(lower: Any, upper: Any, factors: Floats) -> tuple[Floats, Floats]:
    """Return the bounds on w that bound ``factors * w`` to the last bit: none where the factor is zero."""
    free = factors == 0
    safe = np.where(free, 1.0, factors)
    low, high = np.broadcast_to(lower, factors.shape), np.broadcast_to(upper, factors.shape)
    one, other, inwards = low / safe, high / safe, np.copysign(np.inf, safe)
    is_range = low < high  # else rounding would leave nothing between
    one = np.where(is_range & (one * safe < low), np.nextafter(one, inwards), one)
    other = np.where(is_range & (other * safe > high), np.nextafter(other, -inwards), other)
    return np.where(free, -np.inf, np.minimum(one, other)), np.where(free, np.inf, np.maximum(one, other))

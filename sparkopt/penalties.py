"""Penalties: what is added to the mean loss, once, after the sum over the data.

A penalty is the sum of a smooth part, which has a gradient, and a part with kinks, which has a proximal operator
(Parikh & Boyd, 2014, *Proximal Algorithms*, §1.1). Either may be zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparkopt.typing import Floats
from sparkopt.validation import Interval, check

__all__ = ["L1", "L2", "ElasticNet", "NoPenalty", "Penalty"]


class Penalty(ABC):
    """A convex function of the coefficients, all of shape (size,).

    Attributes
    ----------
    smooth : bool
        True where the part with kinks is zero, so that ``prox`` returns its argument.
    curvature : float
        Largest second derivative of the smooth part.
    """

    smooth: bool
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
        """Return the argmin over u of ½‖u − coef‖² + step · (the part with kinks)(u)."""

    @abstractmethod
    def times(self, strength: float) -> Penalty:
        """Return the penalty multiplied by ``strength``."""

    @abstractmethod
    def on(self, factors: Floats) -> Penalty:
        """Return the same penalty of ``factors * coef``: where the solver's coordinates are not the user's.

        A factor of 0 leaves its coordinate unpenalised (the intercept).
        """


@dataclass(frozen=True)
class NoPenalty(Penalty):
    """No penalty: zero everywhere."""

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


@dataclass(frozen=True)
class ElasticNet(Penalty):
    """reg_param · (½ (1 − α) ‖w‖² + α ‖w‖₁) with α = elastic_net_param (Zou & Hastie, 2005, eq. 3).

    Parameters
    ----------
    reg_param : float
        Strength, ≥ 0.
    elastic_net_param : float, default 0
        Share of the L1 part, in [0, 1].
    factors : ndarray of shape (size,) or None, default None
        Penalise ``factors * w`` instead of ``w``.

    Examples
    --------
    >>> import numpy as np
    >>> penalty = ElasticNet(0.5, elastic_net_param=0.5)
    >>> penalty.value(np.array([2.0, 0.0])), penalty.prox(np.array([2.0, 0.1]), step=1.0).tolist()
    (1.0, [1.75, 0.0])
    """

    reg_param: float
    elastic_net_param: float = 0.0
    factors: Any = None

    def __post_init__(self) -> None:
        check("reg_param", self.reg_param, Interval(0, None))
        check("elastic_net_param", self.elastic_net_param, Interval(0, 1))

    @property
    def smooth(self) -> bool:  # type: ignore[override]  # derived here, stored elsewhere
        """Whether there is no L1 part."""
        return self._l1 == 0

    @property
    def curvature(self) -> float:  # type: ignore[override]  # derived here, stored elsewhere
        """Second derivative of the L2 part, for factors of 1."""
        return self._l2

    @property
    def _l1(self) -> float:
        return self.reg_param * self.elastic_net_param

    @property
    def _l2(self) -> float:
        return self.reg_param * (1 - self.elastic_net_param)

    def _scaled(self, coef: Floats) -> Floats:
        return coef if self.factors is None else coef * self.factors

    def value(self, coef: Floats) -> float:
        """Both parts together."""
        return self.smooth_value(coef) + self._l1 * float(np.abs(self._scaled(coef)).sum())

    def smooth_value(self, coef: Floats) -> float:
        """½ reg_param (1 − α) ‖w‖²."""
        return 0.5 * self._l2 * float(np.square(self._scaled(coef)).sum())

    def gradient(self, coef: Floats) -> Floats:
        """reg_param (1 − α) w."""
        scaled = self._scaled(coef)
        return self._l2 * (scaled if self.factors is None else scaled * self.factors)

    def prox(self, coef: Floats, step: float) -> Floats:
        """Soft threshold: sign(w) · max(|w| − step · reg_param · α, 0)."""
        if self.smooth:
            return coef
        threshold = step * self._l1 * (1.0 if self.factors is None else np.abs(self.factors))
        return np.sign(coef) * np.maximum(np.abs(coef) - threshold, 0.0)

    def times(self, strength: float) -> ElasticNet:
        """Multiply ``reg_param``."""
        return replace(self, reg_param=self.reg_param * strength)

    def on(self, factors: Floats) -> ElasticNet:
        """Penalise ``factors * w``."""
        return replace(self, factors=factors if self.factors is None else self.factors * factors)


def L1(reg_param: float) -> ElasticNet:
    """reg_param · ‖w‖₁ (the lasso; Tibshirani, 1996)."""
    return ElasticNet(reg_param, 1.0)


def L2(reg_param: float) -> ElasticNet:
    """½ reg_param · ‖w‖² (ridge; Hoerl & Kennard, 1970)."""
    return ElasticNet(reg_param, 0.0)

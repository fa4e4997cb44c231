"""The elastic net, with L1 and L2 as special cases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sparkopt.penalties.base import Penalty
from sparkopt.typing import Floats
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["L1", "L2", "ElasticNet"]


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
    label = "an L1 penalty (elasticNetParam > 0)"
    is_separable = True

    def __post_init__(self) -> None:
        check("reg_param", self.reg_param, Interval(0, None))
        check("elastic_net_param", self.elastic_net_param, Interval(0, 1))

    @property
    def smooth(self) -> bool:
        """Whether there is no L1 part."""
        return self._l1 == 0

    @property
    def curvature(self) -> float:
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
        """Return the sum of both parts."""
        return self.smooth_value(coef) + self._l1 * float(np.abs(self._scaled(coef)).sum())

    def smooth_value(self, coef: Floats) -> float:
        """Return ½ reg_param (1 − α) ‖w‖²."""
        return 0.5 * self._l2 * float(np.square(self._scaled(coef)).sum())

    def gradient(self, coef: Floats) -> Floats:
        """Return reg_param (1 − α) w."""
        scaled = self._scaled(coef)
        return self._l2 * (scaled if self.factors is None else scaled * self.factors)

    def prox(self, coef: Floats, step: float) -> Floats:
        """Return the soft threshold sign(w) · max(|w| − step · reg_param · α, 0)."""
        if self.smooth:
            return coef
        threshold = step * self.l1_weights(len(coef))
        return np.sign(coef) * np.maximum(np.abs(coef) - threshold, 0.0)

    def times(self, strength: float) -> ElasticNet:
        """Multiply ``reg_param``."""
        return replace(self, reg_param=self.reg_param * strength)

    def on(self, factors: Floats) -> ElasticNet:
        """Penalise ``factors * w``."""
        return replace(self, factors=factors if self.factors is None else self.factors * factors)

    def l1_weights(self, size: int) -> Floats:
        """Return reg_param · α · |factors|."""
        return self._l1 * (np.ones(size) if self.factors is None else np.abs(self.factors))


def L1(reg_param: float) -> ElasticNet:
    """Return reg_param · ‖w‖₁, the penalty of the lasso (Tibshirani, 1996).

    Parameters
    ----------
    reg_param : float
        Strength, ≥ 0.
    """
    return ElasticNet(reg_param, 1.0)


def L2(reg_param: float) -> ElasticNet:
    """Return ½ reg_param · ‖w‖², the penalty of ridge regression (Hoerl & Kennard, 1970).

    Parameters
    ----------
    reg_param : float
        Strength, ≥ 0.
    """
    return ElasticNet(reg_param, 0.0)

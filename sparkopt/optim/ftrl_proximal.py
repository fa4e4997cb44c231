"""FTRL-Proximal: online steps that keep coefficients exactly zero under an L1 penalty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparkopt.optim.base import Evaluate, Point, Search
from sparkopt.optim.request import Gradients
from sparkopt.optim.schedules import as_schedule
from sparkopt.typing import Floats, Schedule, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.penalties import Penalty

__all__ = ["FollowTheRegularizedLeader"]


@dataclass(frozen=True)
class FollowTheRegularizedLeader(Search):
    """Minimise all losses so far, linearised, plus the penalty (McMahan et al., 2013, *Ad click prediction*, alg. 1).

    Each coordinate has the rate rate / (beta + √Σg²) of AdaGrad. The penalty is that of the mean loss, so after t
    gradients it counts t times (McMahan, 2011, *Follow-the-regularized-leader and mirror descent*, §2), and the limit
    is the optimum of the penalised mean loss. The chain's direction is ignored.

    Parameters
    ----------
    rate : float or Schedule
        Step size; theirs is called alpha.
    beta : float, default 1
        Added to the root, ≥ 0: the larger, the shorter the first steps.
    """

    rate: float | Schedule
    beta: float = 1.0

    needs_exact = False

    def __post_init__(self) -> None:
        check("beta", self.beta, Interval(0, None))

    def serves(self, penalty: Penalty) -> bool:
        """Whether the penalty is a sum over coordinates."""
        return penalty.is_separable

    def init(self, coef: Floats) -> State:
        """Return step 0, the centre that keeps ``coef``, and no squares."""
        return {"step": 0, "sum": None, "squares": np.zeros_like(coef)}

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Add the gradient, solve for every coordinate."""
        step, before = state["step"] + 1, state["squares"]
        rate = float(as_schedule(self.rate)(state["step"]))
        squares = before + at.gradient * at.gradient
        curvature = (self.beta + np.sqrt(squares)) / rate
        # The start is the centre of the first step's quadratic, whose curvature the sum begins with.
        total = np.zeros_like(at.coef) if state["sum"] is None else state["sum"]
        last = np.zeros_like(at.coef) if state["sum"] is None else state["curvature"]
        total = total + at.gradient - (curvature - last) * at.coef
        coef = _minimum(total, curvature, penalty, step)
        (point,) = yield Gradients(coef[None])
        return point, {"step": step, "sum": total, "squares": squares, "curvature": curvature}


def _minimum(total: Floats, curvature: Floats, penalty: Penalty, count: int) -> Floats:
    """Return the argmin of total · w + ½ curvature · w² + count · (the nonsmooth part)(w), by coordinate."""
    centre = np.divide(-total, curvature, out=np.zeros_like(total), where=curvature > 0)
    parts = penalty.separable(len(total))
    if parts is None:
        return centre
    weights, lower, upper = parts
    threshold = np.divide(count * weights, curvature, out=np.zeros_like(total), where=curvature > 0)
    shrunk: Floats = np.sign(centre) * np.maximum(np.abs(centre) - threshold, 0.0)
    return np.maximum(np.minimum(shrunk, upper), lower)

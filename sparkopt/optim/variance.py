"""SVRG: mini-batch steps whose noise vanishes at the optimum, with a pass over all rows every so many steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparkopt.optim.base import Evaluate, Point, Search
from sparkopt.optim.request import EveryRow, Gradients
from sparkopt.optim.schedules import as_schedule
from sparkopt.typing import Floats, Schedule, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.penalties import Penalty

__all__ = ["VarianceReduced"]


@dataclass(frozen=True)
class VarianceReduced(Search):
    """w ← w − rate · (∇f_B(w) − ∇f_B(w̃) + ∇f(w̃)) (Johnson & Zhang, 2013, *Accelerating SGD*, figure 1).

    The gradient of the batch B is corrected by the batch's error at a snapshot w̃, where the gradient over all rows is
    known; the proximal step of a nonsmooth penalty follows (Xiao & Zhang, 2014). Both points of a batch are in one
    request, so a step costs one pass over its rows, and a snapshot one over all. The chain's direction is ignored.

    Parameters
    ----------
    rate : float or Schedule
        Step size.
    every : int
        Steps from one snapshot to the next, ≥ 1.
    """

    rate: float | Schedule
    every: int

    needs_exact = False

    def __post_init__(self) -> None:
        check("snapshot_every", self.every, Interval(1, None, whole=True))

    def serves(self, penalty: Penalty) -> bool:
        """Return True: a proximal step is taken for the nonsmooth part."""
        return True

    def init(self, coef: Floats) -> State:
        """Return step 0, and no snapshot."""
        return {"step": 0, "snapshot": None, "full": None, "batch": None}

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Take a snapshot where one is due, then one corrected step."""
        step, snapshot, full, batch = (state[key] for key in ("step", "snapshot", "full", "batch"))
        if step % self.every == 0:
            (whole,) = yield Gradients(at.coef[None], rows=EveryRow())
            snapshot, full, batch = at.coef, whole.gradient, at.gradient
        rate = as_schedule(self.rate)(step)
        coef = penalty.prox(at.coef - rate * (at.gradient - batch + full), rate)
        point, reference = yield Gradients(np.stack([coef, snapshot]))
        return point, {"step": step + 1, "snapshot": snapshot, "full": full, "batch": reference.gradient}

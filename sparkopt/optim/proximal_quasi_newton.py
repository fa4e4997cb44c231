"""Proximal L-BFGS: a limited-memory Hessian, and its penalised or bounded quadratic model minimised each step."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from sparkopt.optim.base import Evaluate, Point, Search
from sparkopt.optim.compact import CompactHessian, CompactModel, Pairs
from sparkopt.optim.request import Gradients, Request
from sparkopt.typing import Floats, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.penalties import Penalty

__all__ = ["ProximalQuasiNewton"]

EPSILON = float(np.finfo(float).eps)
ROUNDING = 1e-9
"""Relative rounding of an objective over float32 rows, below which the slope decides."""
RECENT = 3
"""Steps whose largest predicted decrease is the estimate of the gap."""
QUICK = 10.0
"""Predicted decreases of one step over the next, beyond which the estimate follows the last of them."""


@dataclass(frozen=True)
class ProximalQuasiNewton(Search):
    """A proximal quasi-Newton method (Lee, Sun & Saunders, 2014, *Proximal Newton-type methods*, algorithm 1).

    The Hessian of the smooth part is estimated from the last steps, as in L-BFGS. The quadratic model plus the
    penalty is minimised without a pass over the data: by a semismooth Newton method under L1 penalties and bounds, by
    proximal gradient steps else. The step is shortened until the objective decreases enough. Coefficients stay inside
    bounds, and those that are zero are exactly so. A step is one pass, unless it is shortened. The chain's direction
    is ignored.

    Parameters
    ----------
    memory : int, default 10
        Pairs of steps and gradient changes that are kept.
    decrease : float, default 1e-4
        Share of the decrease predicted by the slope that a step must reach.
    max_trials : int, default 30
        Lengths that are tried before the search gives up.
    """

    memory: int = 10
    decrease: float = 1e-4
    max_trials: int = 30

    converges_linearly = True

    def __post_init__(self) -> None:
        check("memory", self.memory, Interval(1, None, whole=True))
        check("decrease", self.decrease, Interval(0, 0.5, closed="neither"))
        check("max_trials", self.max_trials, Interval(1, None, whole=True))

    def serves(self, penalty: Penalty) -> bool:
        """Return True: the model is minimised with any penalty that has a proximal step."""
        return True

    def init(self, coef: Floats) -> State:
        """Return an empty memory."""
        return {"steps": [], "changes": [], "products": np.zeros((3, 0, 0)), "to": None, "gains": []}

    def gap(self, at: Point, penalty: Penalty, state: State) -> float | None:
        """Return what the models of the last steps had to gain, the most of them: one may not know a flat direction.

        Where the last model has far less to gain, steps converge quickly, and that is taken.
        """
        gains: list[float] = state["gains"]
        return min(max(gains), QUICK * gains[-1]) if gains else None

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Take a step to the minimum of the model, and minimise the model of the new point."""
        pairs, to = _pairs(state), state["to"]
        model = _model(at, pairs, penalty)
        if to is None:
            to, gain = model.least()
        else:  # the step before has found both
            gain = state["gains"][-1]
        if gain <= EPSILON * abs(at.value):
            return at, state  # what is left to gain is less than the objective's rounding
        point = yield from self._step(model, to)
        if point is None:
            return at, self.init(at.coef)
        step, change = point.coef - at.coef, point.gradient - at.gradient
        if step @ change > EPSILON * (change @ change):
            pairs = pairs.with_last(step, change, self.memory)
        after = _model(point, pairs, penalty)
        to, gain = after.least()
        gains = [*state["gains"], max(gain, 0.0)][-RECENT:]
        known = {"steps": pairs.steps, "changes": pairs.changes, "products": pairs.products}
        return point, {**known, "to": to, "gains": gains}

    def _step(self, model: CompactModel, to: Floats) -> Generator[Request, list[Point], Point | None]:
        """Try the whole step, then shorter ones; return None where none decreases the objective enough."""
        at, slope, length = model.at, model.slope(to), 1.0
        for _ in range(self.max_trials):
            (trial,) = yield Gradients((to if length == 1 else at.coef + length * (to - at.coef))[None])
            if trial.is_finite:
                if trial.value <= at.value + self.decrease * length * slope or _flattens(at, to, slope, trial):
                    return trial
                rise = trial.value - at.value - length * slope  # half the curvature of a parabola, times length²
                length *= float(np.clip(-0.5 * length * slope / rise, 0.1, 0.5))
            else:
                length *= 0.1
        return None


def _pairs(state: State) -> Pairs:
    """Return the pairs of a state; those of an older checkpoint come without their products."""
    steps, changes = state["steps"], state["changes"]
    return Pairs(steps, changes, state["products"]) if "products" in state else Pairs.of(steps, changes)


def _model(at: Point, pairs: Pairs, penalty: Penalty) -> CompactModel:
    """Return the model, whose curvature in other directions is the mean of that of the pairs."""
    if pairs.steps:
        sigma = pairs.curvature
    else:  # a step of length 1
        sigma = float(np.linalg.norm(at.coef - penalty.prox(at.coef - at.gradient, 1.0))) or 1.0
    return CompactModel(at, CompactHessian(pairs, sigma), penalty)


def _flattens(at: Point, to: Floats, slope: float, trial: Point) -> bool:
    """Whether the objective changed by rounding only, and little slope is left (Hager & Zhang, 2005, eq. 4.1)."""
    if trial.value > at.value + ROUNDING * abs(at.value) or abs(slope) > ROUNDING * abs(at.value):
        return False
    return abs(slope + float((trial.gradient - at.gradient) @ (to - at.coef))) <= 0.9 * abs(slope)

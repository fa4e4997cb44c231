"""Proximal Newton: the Hessian in the same pass as the gradient, and the penalised quadratic model solved exactly."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.optim.base import Evaluate, Point, Search
from sparkopt.optim.quadratic import FLAT, QuadraticModel, with_diagonal
from sparkopt.optim.request import Gradients, Hessians, Losses, Request
from sparkopt.typing import Floats, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.penalties import Penalty

__all__ = ["ProximalNewton", "trusted"]

Curved: TypeAlias = Callable[[Floats], Request]
"""From points, shape (m, size), to the request for what is needed there."""

EPSILON = float(np.finfo(float).eps)
ROUNDING = 1e-7
"""Relative rounding of an objective over float32 rows, below which the slope decides: that of a row, since of a few
thousand rows the mean is not much better."""

MOST = 4097
"""Coefficients: the 4,096 features and the intercept of pyspark.ml's normal equations. A Hessian has 128 MiB."""

FAR = 10.0
"""Decrease that a model may predict, over a positive objective: it cannot become much less than zero."""

STRONGER = 30.0
"""Factor between curvatures that are added."""

OLD = 0.01
"""Share of the predicted decrease that may be left after a step, for the Hessian to be kept."""


@dataclass(frozen=True)
class ProximalNewton(Search):
    """A proximal Newton method (Lee, Sun & Saunders, 2014, *Proximal Newton-type methods*, algorithm 1).

    One pass gives the loss, its gradient and its Hessian. Their quadratic model plus the penalty is minimised without
    another pass: by a Cholesky factor where the penalty is smooth, by coordinate descent with an active set under L1
    penalties and bounds, by proximal gradient steps else. For a generalised linear model this is iteratively
    reweighted least squares, as glmnet, glum and H2O have it (Friedman, Hastie & Tibshirani, 2010, §3). The step is
    shortened until the objective decreases enough; several lengths are tried in one pass. Near the optimum the
    Hessian changes little, and is kept. The chain's direction is ignored.

    Parameters
    ----------
    decrease : float, default 1e-4
        Share of the decrease predicted by the slope that a step must reach.
    shrink : float, default 0.5
        Factor between trial lengths.
    trials : int, default 10
        Lengths that are tried in one pass, after the whole step.
    max_trials : int, default 50
        Lengths that are tried before the search gives up.
    keep : float, default 1e-6
        Keep the Hessian for the next step once the model predicts a decrease of at most this, relative to the
        objective; as long as it does predict the decrease.
    """

    decrease: float = 1e-4
    shrink: float = 0.5
    trials: int = 10
    max_trials: int = 50
    keep: float = 1e-6
    halving = 4

    def __post_init__(self) -> None:
        check("decrease", self.decrease, Interval(0, 0.5, closed="neither"))
        check("shrink", self.shrink, Interval(0, 1, closed="neither"))
        check("trials", self.trials, Interval(1, None, whole=True))
        check("max_trials", self.max_trials, Interval(1, None, whole=True))
        check("keep", self.keep, Interval(0, None))

    def serves(self, penalty: Penalty) -> bool:
        """Return True: the model is minimised with any penalty that has a proximal step."""
        return True

    def init(self, coef: Floats) -> State:
        """Return that no model is known yet."""
        return {"hessian": None, "to": None, "gap": None, "is_old": False}

    def first_request(self, points: Floats) -> Request:
        """Return the Hessian too.

        Raises
        ------
        ParameterError
            For more coefficients than a Hessian is made of.
        """
        size = points.shape[1]
        if size > MOST:
            raise ParameterError(
                f"'proximal-newton' makes a Hessian with the square of {size:,} coefficients, and takes at most "
                f"{MOST:,}. Use optimizer='auto' or 'lbfgs' (solver='l-bfgs'), with an L1 penalty 'owlqn'."
            )
        return Hessians(points)

    def gap(self, at: Point, penalty: Penalty, state: State) -> float | None:
        """Return what the model at this point has to gain: half the square of the Newton decrement."""
        gap: float | None = state["gap"]
        return gap

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Minimise the model, take the step, and solve the model of the new point."""
        model, to = yield from self._model(at, penalty, state, Hessians)
        gain = model.decrease(to)
        if gain <= EPSILON * abs(at.value):
            return at, state  # what is left to gain is less than the objective's rounding
        keeps = gain <= self.keep * abs(at.value) and not state["is_old"]
        point, _ = yield from self._step(model, to, Gradients if keeps else Hessians, Hessians)
        if point is None:
            return at, self.init(at.coef)
        if point.hessian is None:
            after = QuadraticModel(point, model.hessian, penalty, model.factor)
            to = after.minimum()
        else:
            after, to = trusted(replace(point, hessian=None), point.hessian, penalty)  # the state has it
        gap = max(after.decrease(to), 0.0)
        is_old = point.hessian is None and gap > OLD * gain
        return after.at, {"hessian": after.hessian, "to": to, "gap": gap, "is_old": is_old}

    def _model(
        self, at: Point, penalty: Penalty, state: State, curved: Curved
    ) -> Generator[Request, list[Point], tuple[QuadraticModel, Floats]]:
        """Return the model at a point and its minimum, which the step before has found already.

        ``curved`` is the request for the Hessian.
        """
        if state["to"] is not None:
            return QuadraticModel(at, state["hessian"], penalty), state["to"]
        hessian = at.hessian
        if hessian is None:
            (here,) = yield curved(at.coef[None])
            hessian = here.hessian
        assert hessian is not None  # noqa: S101  # the loop answers ``Hessians`` so
        return trusted(at, hessian, penalty)

    def _step(
        self, model: QuadraticModel, to: Floats, whole: Curved, shortened: Curved
    ) -> Generator[Request, list[Point], tuple[Point | None, bool]]:
        """Try the whole step, then shorter ones; return None where none decreases the objective enough.

        ``whole`` is requested at the end of the whole step, ``shortened`` at that of another, once one is accepted.
        With the point is returned whether the step was shortened.
        """
        at = model.at
        (point,) = yield whole(to[None])
        slope = model.slope(to)
        if self._accepts(at, slope, point) or self._flattens(model, slope, point):
            return point, False
        lengths = self.shrink ** np.arange(1, self.max_trials + 1)
        for some in np.array_split(lengths, -(-self.max_trials // self.trials)):
            points = yield Losses(at.coef + some[:, None] * (to - at.coef))
            for length, trial in zip(some, points, strict=True):
                if self._accepts(at, float(length) * slope, trial):
                    (point,) = yield shortened(trial.coef[None])
                    return point, True
        return None, True

    def _accepts(self, at: Point, slope: float, trial: Point) -> bool:
        return trial.is_finite and trial.value <= at.value + self.decrease * slope

    def _flattens(self, model: QuadraticModel, slope: float, trial: Point) -> bool:
        """Whether the objective changed by rounding only, and little slope is left (Hager & Zhang, 2005, eq. 4.1)."""
        at = model.at
        if not trial.is_finite or trial.value > at.value + ROUNDING * abs(at.value):
            return False
        left = slope + float((trial.gradient - at.gradient) @ (trial.coef - at.coef))
        return abs(slope) <= ROUNDING * abs(at.value) and abs(left) <= 0.5 * abs(slope)


def trusted(at: Point, hessian: Floats, penalty: Penalty) -> tuple[QuadraticModel, Floats]:
    """Return the model and its minimum, with curvature added until it predicts no more than there is to lose.

    Where a smoothed loss has no curvature at any row, nearly all of the step would be along the flattest direction.
    """
    model = QuadraticModel.of(at, hessian, penalty)
    to = model.minimum()
    added = FLAT * (float(np.abs(hessian.diagonal()).max(initial=0.0)) or 1.0)
    while at.value > 0 and model.decrease(to) > FAR * at.value:
        model = QuadraticModel.of(at, with_diagonal(hessian, added), penalty)
        to = model.minimum()
        added *= STRONGER
    return model, to

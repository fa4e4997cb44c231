"""Sub-sampled Newton: exact gradients, and in the same pass a Hessian estimated from a sample of the rows."""

from __future__ import annotations

from dataclasses import field, replace
from functools import partial
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from sparkopt.optim.base import Evaluate, Point
from sparkopt.optim.newton_with_penalty import EPSILON, Curved, ProximalNewton, trusted
from sparkopt.optim.quadratic import QuadraticModel, with_diagonal
from sparkopt.optim.request import Gradients, Hessians, Request, SpacedRows
from sparkopt.typing import Floats, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.penalties import Penalty

__all__ = ["SubsampledNewton"]

POOR = 0.1
"""Share of the predicted decrease that may be left after a step near the optimum, for the sample to be kept."""

MORE = 4
"""Factor between the sizes of samples."""

RARE = 0.3
"""Least curvature along a coefficient at the start, over the median of all, for the sample to have seen its feature
often enough: the solver's features have equal curvature there."""

STEADY = 1e-7
"""Curvature that is added to a sample's in every direction, over the largest: the rounding of float32 rows would else
be all of it where the loss has none, as along equal intercepts of all classes."""

LEAST = 0.01
"""Least share of a gap that is taken to be estimated."""


@dataclass(frozen=True)
class SubsampledNewton(ProximalNewton):
    """A sub-sampled Newton method with exact gradients.

    Roosta-Khorasani & Mahoney, 2019, *Sub-sampled Newton methods*. With d coefficients and a sample of n rows, the
    Hessian's relative error is about √(d / n), so a step leaves about d / n of the gap that it found (their theorem
    2; Erdogdu & Montanari, 2015): a few hundredths of the rows, whose Hessian costs less than the pass, make nearly
    the steps of Newton's method. Once the error of the sample outweighs the change of the Hessian along a step, the
    Hessian is kept, and corrected by the change of the exact gradient along each step, as in the BFGS method (Byrd,
    Chin, Neveitt & Nocedal, 2011, have both).

    The sample is judged by what it predicts. Where a feature was hardly seen, a step had to be shortened, or leaves
    more of the gap than it should, rows are sampled by their lengths too, in which rare features are; then four
    times as many, up to all of them. If the first sample has all rows, this is ``ProximalNewton``.

    Parameters
    ----------
    keep : float, default 1e-3
        Keep the Hessian once the model predicts a decrease of at most this, relative to the objective.
    sample : int, default 30
        Rows for each coefficient, of all partitions together.
    share : float, default 0.03
        Share of the rows that is sampled at least: the Hessian then costs about a quarter of the gradient.
    """

    keep: float = 1e-3
    sample: int = field(default=30, kw_only=True)
    share: float = field(default=0.03, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check("sample", self.sample, Interval(1, None, whole=True))
        check("share", self.share, Interval(0, 1))

    def init(self, coef: Floats) -> State:
        """Return that no model is known yet, and the size of the first sample."""
        return {**super().init(coef), "times": 1, "by_length": False}

    def first_request(self, points: Floats) -> Request:
        """Return the Hessian of a sample too."""
        super().first_request(points)
        return Hessians(points, sample=self._sample(self.init(points[0]), points.shape[1]))

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Minimise the model, take the step, and solve the model of the new point."""
        size, kept = len(at.coef), {"times": state["times"], "by_length": state["by_length"]}
        if self._sample(state, size).spacing(at.rows) == 1:
            whole = ProximalNewton(self.decrease, self.shrink, self.trials, self.max_trials)
            end, after = yield from whole.run(at, direction, penalty, state)
            return end, {**kept, **after}
        if at.hessian is not None and _misses_features(at, penalty):
            at, state = replace(at, hessian=None), {**state, "by_length": True}
        model, to = yield from self._model(at, penalty, state, self._curved(state, size))
        if state["to"] is None:
            model, to = trusted(model.at, _steadied(model.hessian), penalty)
        gain = model.decrease(to)
        if gain <= EPSILON * abs(at.value):
            return at, state  # what is left to gain is less than the objective's rounding
        keeps = gain <= self.keep * abs(at.value) and not state["is_old"]
        more = {"times": state["times"] * (MORE if state["by_length"] else 1), "by_length": True}
        point, is_shortened = yield from self._step(
            model, to, Gradients if keeps else self._curved(state, size), self._curved(more, size)
        )
        if point is None:
            return (yield from self.run(at, direction, penalty, {**self.init(at.coef), **more}))
        if point.hessian is None:
            model = QuadraticModel.of(point, _corrected(model, point), penalty)
            to = model.minimum()
        else:
            model, to = trusted(replace(point, hessian=None), _steadied(point.hessian), penalty)
        left = max(model.decrease(to), 0.0)
        is_poor = gain <= self.keep * abs(at.value) and left > POOR * gain
        sample = more if is_poor or is_shortened else {name: state[name] for name in more}
        own = {"hessian": model.hessian, "to": to, "gap": _gap(left, gain), "is_old": is_poor}
        return model.at, {**own, **sample}

    def _sample(self, state: State, size: int) -> SpacedRows:
        return SpacedRows(
            self.sample * size * state["times"], min(1.0, self.share * state["times"]), state["by_length"]
        )

    def _curved(self, state: State, size: int) -> Curved:
        return partial(Hessians, sample=self._sample(state, size))


def _misses_features(at: Point, penalty: Penalty) -> bool:
    """Whether the sampled Hessian at the start has little curvature along some coefficients, which others have.

    A constant feature has neither curvature nor a gradient.
    """
    assert at.hessian is not None  # noqa: S101  # its caller has seen it
    curvatures = at.hessian.diagonal() - penalty.hessian_product(np.ones_like(at.coef))
    curvatures = curvatures[at.gradient != 0]
    return bool(len(curvatures) and curvatures.min() < RARE * np.median(curvatures))


def _steadied(hessian: Floats) -> Floats:
    return with_diagonal(hessian, STEADY * float(np.abs(hessian.diagonal()).max()))


def _corrected(model: QuadraticModel, after: Point) -> Floats:
    """Return the model's Hessian with the curvature that the step to ``after`` has shown; it stays positive definite.

    Nocedal & Wright, 2006, eq. 6.19.
    """
    hessian, step, change = model.hessian, after.coef - model.at.coef, after.gradient - model.at.gradient
    product, curvature = hessian @ step, float(step @ change)
    if not curvature > EPSILON * float(change @ change):
        return hessian
    corrected: Floats = hessian - np.outer(product, product / float(step @ product))
    corrected += np.outer(change, change / curvature)
    return corrected


def _gap(left: float, gain: float) -> float:
    """Return the gap where the model predicts a decrease of ``left``, one step after it predicted ``gain``.

    A curvature that is estimated to be b > 1 times as large as it is makes the prediction b times too small, and
    steps that leave (1 − 1/b)² of it.
    """
    return left / max(1.0 - sqrt(min(left / gain, 1.0)), LEAST)

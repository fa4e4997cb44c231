"""Quasi-Newton methods: L-BFGS, started with the Hessian of a few rows, and OWL-QN for L1 penalties."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.optim.base import Evaluate, Point, Search
from sparkopt.optim.request import Gradients, HessianProducts, Request, SampledRows, StepRows
from sparkopt.optim.search import StrongWolfe
from sparkopt.typing import Floats, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.penalties import Penalty

__all__ = ["InitialHessian", "OrthantWise", "QuasiNewton"]

EPSILON = float(np.finfo(float).eps)
UNIT = Interval(0, 1, closed="neither")
COUNT = Interval(1, None, whole=True)


@dataclass(frozen=True)
class InitialHessian:
    """How a quasi-Newton method estimates the Hessian at first.

    One pass over a sample of the rows gives the Hessian at the current point, as products with the unit vectors.
    Its inverse replaces the identity in the recursion (Nocedal & Wright, 2006, §7.2, leave that matrix open; Byrd,
    Chin, Neveitt & Nocedal, 2011, sample the rows). Where features are correlated, a descent then takes a fraction of
    the passes. An estimate made far from the optimum becomes inaccurate: a new one is made every so many steps.

    Parameters
    ----------
    up_to : int, default 256
        Most coefficients for which it is made: the matrix has their square of entries. 0 never makes one.
    rows : int or None, default 30
        Rows per coefficient that each partition contributes, evenly spaced; None is all its rows.
    every : int, default 20
        Steps from one estimate to the next.
    """

    up_to: int = 256
    rows: int | None = 30
    every: int = 20

    def __post_init__(self) -> None:
        check("up_to", self.up_to, Interval(0, None, whole=True))
        if self.rows is not None:
            check("rows", self.rows, COUNT)
        check("every", self.every, COUNT)

    def inverse(self, at: Point) -> Generator[Request, list[Point], Floats]:
        """Request the Hessian and return its inverse, made positive definite."""
        size = len(at.coef)
        rows = StepRows() if self.rows is None else SampledRows(self.rows * size)
        columns = yield HessianProducts(np.tile(at.coef, (size, 1)), np.eye(size), rows=rows)
        hessian = np.array([column.gradient for column in columns])
        gap = float(np.abs(hessian - hessian.T).max())
        if not gap <= 1e-3 * float(np.abs(hessian).max()) and not gap <= (yield from self._rounding(size, rows)):
            raise ParameterError(
                "reduce must answer HessianProducts by the Hessian times vectors, but its answer to all unit vectors "
                "is not symmetric. Use request.vectors, or optim.lbfgs(initial_hessian=InitialHessian(up_to=0))."
            )
        values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
        values = np.abs(values)  # the size of the curvature, not its sign (Dauphin et al., 2014, §4)
        values = np.maximum(values, _least_curvature(values, vectors.T @ at.gradient, at.smooth))
        inverse: Floats = (vectors / values) @ vectors.T
        return inverse

    @staticmethod
    def _rounding(size: int, rows: StepRows | SampledRows) -> Generator[Request, list[Point], float]:
        """Request the Hessian without coefficients, and return how far that of other points may be rounded.

        Where classes are separated, second derivatives vanish, and what is left of them is the rounding of sums of
        which each term is as large as there.
        """
        columns = yield HessianProducts(np.zeros((size, size)), np.eye(size), rows=rows)
        return 1e-10 * max(float(np.abs(column.gradient).max()) for column in columns)


def _least_curvature(values: Floats, slopes: Floats, objective: float) -> float:
    """Return the least curvature; that of flatter directions is raised to it.

    A direction that is flat on a sample of rows, or for a smoothed loss, need not be flat along the whole step: the
    predicted decrease ½ Σ slope² / curvature of a Newton step must not exceed a positive objective by far.
    """
    least = max(1e-6 * float(values.max()), float(np.finfo(float).tiny))
    if objective > 0:
        while 0.5 * float((slopes**2 / np.maximum(values, least)).sum()) > 10 * objective:
            least *= 10
    return least


EMPTY: State = {"coef": None, "gradient": None, "steps": [], "changes": [], "inverse": None, "age": 0}
"""State of a quasi-Newton method before its first step."""


def _learn(state: State, at: Point, memory: int, initial: InitialHessian) -> Generator[Request, list[Point], State]:
    """Add the last step and its change of the gradient, if its curvature is positive; renew the Hessian if due."""
    (steps, changes), inverse = _pairs(state, at, memory), state["inverse"]
    if state["age"] % initial.every == 0 and len(at.coef) <= initial.up_to:
        inverse = yield from initial.inverse(at)
    return {
        "coef": at.coef,
        "gradient": at.gradient,
        "steps": steps,
        "changes": changes,
        "inverse": inverse,
        "age": state["age"] + 1,
    }


def _pairs(state: State, at: Point, memory: int) -> tuple[list[Floats], list[Floats]]:
    """Return steps and changes of the gradient, with those of the step to ``at`` if its curvature is positive."""
    steps, changes = list(state["steps"]), list(state["changes"])
    if state["coef"] is not None:
        step, change = at.coef - state["coef"], at.gradient - state["gradient"]
        if step @ change > EPSILON * (change @ change):
            steps, changes = [*steps, step][-memory:], [*changes, change][-memory:]
    return steps, changes


def _apply(gradient: Floats, state: State) -> Floats:
    """Return H·gradient; where nothing is known about curvature, a gradient of unit length."""
    if not state["steps"] and state["inverse"] is None:
        return gradient / max(float(np.linalg.norm(gradient)), float(np.finfo(float).tiny))
    return two_loop(gradient, state["steps"], state["changes"], state["inverse"])


def two_loop(gradient: Floats, steps: list[Floats], changes: list[Floats], inverse: Floats | None = None) -> Floats:
    """Return H·gradient from the pairs of steps and changes, oldest first (Nocedal & Wright, 2006, algorithm 7.4).

    ``inverse`` is the matrix that the pairs correct, the identity where None; it is scaled to the last pair's
    curvature (their eq. 7.20, in the metric of that matrix).
    """
    direction = gradient.copy()
    alphas = []
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        alpha = (step @ direction) / (step @ change)
        direction -= alpha * change
        alphas.append(alpha)
    if inverse is not None:
        direction = inverse @ direction
    if steps:
        last = changes[-1] if inverse is None else inverse @ changes[-1]
        direction *= (steps[-1] @ changes[-1]) / (changes[-1] @ last)
    for step, change, alpha in zip(steps, changes, reversed(alphas), strict=True):
        direction += (alpha - (change @ direction) / (step @ change)) * step
    return direction


NO_INITIAL_HESSIAN = InitialHessian(up_to=0)


@dataclass(frozen=True)
class QuasiNewton(Search):
    """L-BFGS with a strong Wolfe search (Liu & Nocedal, 1989; Nocedal & Wright, 2006, algorithm 7.5).

    Pairs without positive curvature are left out. The chain's direction is ignored.

    Parameters
    ----------
    memory : int, default 10
        Pairs of steps and gradient changes that are kept.
    initial_hessian : InitialHessian
        The first estimate of the Hessian.
    line : StrongWolfe
        The line search.
    """

    memory: int = 10
    initial_hessian: InitialHessian = InitialHessian()
    line: StrongWolfe = StrongWolfe()

    def __post_init__(self) -> None:
        check("memory", self.memory, COUNT)

    def init(self, coef: Floats) -> State:
        """Return an empty memory."""
        return dict(EMPTY)

    def gap(self, at: Point, penalty: Penalty, state: State) -> float | None:
        """Return ½ gᵀHg, with H the inverse Hessian as it is estimated; None without an initial Hessian.

        Pairs of steps alone do not know the directions of least curvature, in which most of the gap may be.
        """
        if state["inverse"] is None:
            return None
        steps, changes = _pairs(state, at, self.memory)
        return 0.5 * float(at.gradient @ two_loop(at.gradient, steps, changes, state["inverse"]))

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Add the last step to the memory, then search along the quasi-Newton direction."""
        state = yield from _learn(state, at, self.memory, self.initial_hessian)
        point, _ = yield from self.line.run(at, -_apply(at.gradient, state), penalty, ())
        return point, state


@dataclass(frozen=True)
class OrthantWise(Search):
    """OWL-QN: L-BFGS for a smooth objective plus Σ c |w| (Andrew & Gao, 2007, algorithm 1).

    Inside one orthant |w| is linear, so each step stays in one: L-BFGS, whose pairs know the smooth part only, is
    applied to the pseudo-gradient, signs that disagree with it are dropped from the direction, and trials that leave
    the orthant are projected back to its border (their §3). The chain's direction is ignored. It starts without an
    initial Hessian: in a metric that couples coordinates, dropping some of them from a direction leaves little of it.

    Parameters
    ----------
    memory : int, default 10
        Pairs of steps and gradient changes that are kept.
    shrink : float, default 0.5
        Factor between trials.
    decrease : float, default 1e-4
        Share of the decrease predicted by the slope that a step must reach.
    max_trials : int, default 50
        Trials before the search gives up.
    """

    memory: int = 10
    shrink: float = 0.5
    decrease: float = 1e-4
    max_trials: int = 50

    def __post_init__(self) -> None:
        check("memory", self.memory, COUNT)
        check("shrink", self.shrink, UNIT)
        check("decrease", self.decrease, UNIT)
        check("max_trials", self.max_trials, COUNT)

    def serves(self, penalty: Penalty) -> bool:
        """Whether the nonsmooth part is a weighted L1 norm, or zero."""
        return penalty.l1_weights(1) is not None

    def init(self, coef: Floats) -> State:
        """Return an empty memory."""
        return dict(EMPTY)

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Backtrack along the border of the orthant."""
        weights = penalty.l1_weights(len(at.coef))
        assert weights is not None  # noqa: S101  # ``serves`` has refused every other penalty
        state = yield from _learn(state, at, self.memory, NO_INITIAL_HESSIAN)
        slope = _pseudo_gradient(at, weights)
        free = weights == 0
        direction = -_apply(slope, state)
        direction = np.where(free | (direction * slope < 0), direction, 0.0)
        orthant = np.where(at.coef != 0, np.sign(at.coef), -np.sign(slope))
        length = 1.0
        for _ in range(self.max_trials):
            coef = at.coef + length * direction
            coef = np.where(free | (coef * orthant > 0), coef, 0.0)
            predicted = float(slope @ (at.coef - coef))
            if predicted <= EPSILON * abs(at.value):
                break  # what is left to gain is less than the objective's rounding
            (point,) = yield Gradients(coef[None])
            if point.is_finite and point.value < at.value and point.value <= at.value - self.decrease * predicted:
                return point, state
            length *= self.shrink
        return at, state


def _pseudo_gradient(at: Point, weights: Floats) -> Floats:
    """Return the subgradient of least norm: its negative is the direction of steepest descent."""
    at_zero = np.sign(at.gradient) * np.maximum(np.abs(at.gradient) - weights, 0.0)
    return np.where(at.coef != 0, at.gradient + weights * np.sign(at.coef), at_zero)

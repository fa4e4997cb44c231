"""Sophia: momentum divided by an estimate of the Hessian's diagonal, each coordinate's step clipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparkopt.optim.base import Evaluate, Point, Search
from sparkopt.optim.request import Gradients, HessianProducts
from sparkopt.optim.schedules import as_schedule
from sparkopt.typing import Floats, Schedule, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.penalties import Penalty

__all__ = ["Sophia"]

DECAY = Interval(0, 1, closed="left")
POSITIVE = Interval(0, None, closed="neither")


@dataclass(frozen=True)
class Sophia(Search):
    """w ← w − rate · clip(m / max(gamma · h, epsilon), 1) (Liu et al., 2023, *Sophia*, algorithm 3).

    m is the mean of the gradients, h that of Hutchinson's estimates u ⊙ Hu of the Hessian's diagonal, with random
    signs u (algorithm 1 there). Every ``every`` steps one more pass gives a product with the Hessian. The chain's
    direction is ignored. Bounds are kept by projection.

    Parameters
    ----------
    rate : float or Schedule
        Most that a coefficient moves in a step.
    beta1, beta2 : float, default 0.965, 0.99
        Decay of the means of the gradients and of the diagonals, in [0, 1).
    gamma : float, default 0.01
        Share of the diagonal that divides, > 0: the smaller, the more coordinates move by the whole rate.
    epsilon : float, default 1e-12
        Least divisor, > 0.
    every : int, default 10
        Steps from one estimate of the diagonal to the next, ≥ 1.
    seed : int, default 0
        Of the random signs.
    """

    rate: float | Schedule
    beta1: float = 0.965
    beta2: float = 0.99
    gamma: float = 0.01
    epsilon: float = 1e-12
    every: int = 10
    seed: int = 0

    needs_exact = False

    def __post_init__(self) -> None:
        check("beta1", self.beta1, DECAY)
        check("beta2", self.beta2, DECAY)
        check("gamma", self.gamma, POSITIVE)
        check("epsilon", self.epsilon, POSITIVE)
        check("update_every", self.every, Interval(1, None, whole=True))

    def serves(self, penalty: Penalty) -> bool:
        """Whether there is no nonsmooth part but bounds."""
        return penalty.smooth or penalty.is_bounds

    def init(self, coef: Floats) -> State:
        """Return step 0 and means of zero."""
        return {"step": 0, "mean": np.zeros_like(coef), "diagonal": np.zeros_like(coef)}

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Estimate the diagonal where it is due, then step."""
        step, diagonal = state["step"], state["diagonal"]
        mean = self.beta1 * state["mean"] + (1 - self.beta1) * at.gradient
        if step % self.every == 0:
            signs = np.random.default_rng([self.seed, step]).choice([-1.0, 1.0], len(at.coef))
            (product,) = yield HessianProducts(at.coef[None], signs[None])
            diagonal = self.beta2 * diagonal + (1 - self.beta2) * signs * product.gradient
        ratio = np.clip(mean / np.maximum(self.gamma * diagonal, self.epsilon), -1.0, 1.0)
        coef = penalty.prox(at.coef - float(as_schedule(self.rate)(step)) * ratio, 0.0)
        (point,) = yield Gradients(coef[None])
        return point, {"step": step + 1, "mean": mean, "diagonal": diagonal}

"""The links that optimisers are chained from. Signs: links scale the gradient, the learning rate turns it around.

Where torch.optim has the same method, the arithmetic is the same, so that runs compare step by step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparkopt.optim.base import GradientTransformation
from sparkopt.optim.schedules import as_schedule
from sparkopt.typing import Floats, Schedule, State
from sparkopt.validation import Interval, check

__all__ = [
    "AddDecayedWeights",
    "ScaleByAdam",
    "ScaleByLbfgs",
    "ScaleByLearningRate",
    "ScaleByRms",
    "ScaleByRss",
    "Trace",
    "add_decayed_weights",
    "scale_by_adam",
    "scale_by_lbfgs",
    "scale_by_learning_rate",
    "scale_by_rms",
    "scale_by_rss",
    "trace",
]

DECAY = Interval(0, 1, closed="left")
POSITIVE = Interval(0, None, closed="neither")


@dataclass(frozen=True)
class ScaleByLearningRate(GradientTransformation):
    """−rate(step) · gradient: the last link of every chain without a line search.

    Parameters
    ----------
    rate : float or Schedule
        Step size, or a schedule of step sizes.
    """

    rate: float | Schedule

    def init(self, coef: Floats) -> State:
        """Return step number 0."""
        as_schedule(self.rate)
        return 0

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Scale and turn around."""
        return -as_schedule(self.rate)(state) * gradient, state + 1


@dataclass(frozen=True)
class Trace(GradientTransformation):
    """Momentum: m ← decay · m + g (Polyak, 1964, eq. 9), or its look-ahead g + decay · m.

    Parameters
    ----------
    decay : float, default 0.9
        In [0, 1).
    nesterov : bool, default False
        Nesterov's form as Sutskever et al. (2013, *On the importance of initialization and momentum*, eq. 3-4)
        rewrote it for the look-ahead coefficients.
    """

    decay: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        check("decay", self.decay, DECAY)

    def init(self, coef: Floats) -> State:
        """Return no momentum."""
        return np.zeros_like(coef)

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Accumulate."""
        momentum = self.decay * state + gradient
        return (gradient + self.decay * momentum if self.nesterov else momentum), momentum


@dataclass(frozen=True)
class ScaleByRss(GradientTransformation):
    """AdaGrad: g / (√Σg² + epsilon), elementwise (Duchi, Hazan & Singer, 2011, §1.3)."""

    epsilon: float = 1e-10

    def __post_init__(self) -> None:
        check("epsilon", self.epsilon, POSITIVE)

    def init(self, coef: Floats) -> State:
        """Return a sum of zero."""
        return np.zeros_like(coef)

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Add the square, divide by the root."""
        total = state + gradient * gradient
        return gradient / (np.sqrt(total) + self.epsilon), total


@dataclass(frozen=True)
class ScaleByRms(GradientTransformation):
    """RMSProp: g / (√v + epsilon) with v ← decay · v + (1 − decay) · g² (Tieleman & Hinton, 2012, lecture 6.5)."""

    decay: float = 0.99
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        check("decay", self.decay, DECAY)
        check("epsilon", self.epsilon, POSITIVE)

    def init(self, coef: Floats) -> State:
        """Return a mean of zero."""
        return np.zeros_like(coef)

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Update the mean square, divide by its root."""
        mean = self.decay * state + (1 - self.decay) * gradient * gradient
        return gradient / (np.sqrt(mean) + self.epsilon), mean


@dataclass(frozen=True)
class ScaleByAdam(GradientTransformation):
    """Adam: m̂ / (√v̂ + epsilon) with bias-corrected moments (Kingma & Ba, 2015, algorithm 1)."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        check("beta1", self.beta1, DECAY)
        check("beta2", self.beta2, DECAY)
        check("epsilon", self.epsilon, POSITIVE)

    def init(self, coef: Floats) -> State:
        """Return step 0 and moments of zero."""
        return 0, np.zeros_like(coef), np.zeros_like(coef)

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Update both moments, correct their bias, divide."""
        count, first, second = state
        count += 1
        first = self.beta1 * first + (1 - self.beta1) * gradient
        second = self.beta2 * second + (1 - self.beta2) * gradient * gradient
        corrected = first / (1 - self.beta1**count)
        root = np.sqrt(second / (1 - self.beta2**count))
        return corrected / (root + self.epsilon), (count, first, second)


@dataclass(frozen=True)
class AddDecayedWeights(GradientTransformation):
    """g + weight_decay · coef, after the scaling (Loshchilov & Hutter, 2019, *Decoupled weight decay*, algorithm 2).

    Decay acts on every coordinate that the chain sees, the intercept included.
    """

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        check("weight_decay", self.weight_decay, Interval(0, None))

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Add the decay."""
        return gradient + self.weight_decay * coef, state


@dataclass(frozen=True)
class ScaleByLbfgs(GradientTransformation):
    """−H·g with the limited-memory BFGS estimate H of the inverse Hessian.

    The two-loop recursion of Nocedal & Wright (2006, *Numerical Optimization*, algorithm 7.4) with the initial
    matrix γI of eq. 7.20. Pairs without positive curvature are left out. It already points downhill: a line search
    follows, no learning rate.

    Parameters
    ----------
    memory : int, default 10
        Pairs of steps and gradient changes that are kept.
    """

    memory: int = 10

    def __post_init__(self) -> None:
        check("memory", self.memory, Interval(1, None, whole=True))

    def init(self, coef: Floats) -> State:
        """Return an empty memory."""
        return {"coef": None, "gradient": None, "steps": [], "changes": []}

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Remember the last step, then apply the inverse Hessian."""
        steps, changes = list(state["steps"]), list(state["changes"])
        if state["coef"] is not None:
            step, change = coef - state["coef"], gradient - state["gradient"]
            if step @ change > np.finfo(float).eps * (change @ change):
                steps, changes = [*steps, step][-self.memory :], [*changes, change][-self.memory :]
        after = {"coef": coef, "gradient": gradient, "steps": steps, "changes": changes}
        if not steps:  # nothing is known about curvature: a first trial of unit length
            return -gradient / max(float(np.linalg.norm(gradient)), np.finfo(float).tiny), after
        return -two_loop(gradient, steps, changes), after


def two_loop(gradient: Floats, steps: list[Floats], changes: list[Floats]) -> Floats:
    """Return H·gradient from the remembered pairs, oldest first."""
    direction = gradient.copy()
    alphas = []
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        alpha = (step @ direction) / (step @ change)
        direction -= alpha * change
        alphas.append(alpha)
    direction *= (steps[-1] @ changes[-1]) / (changes[-1] @ changes[-1])
    for step, change, alpha in zip(steps, changes, reversed(alphas), strict=True):
        direction += (alpha - (change @ direction) / (step @ change)) * step
    return direction


trace = Trace
scale_by_learning_rate = ScaleByLearningRate
scale_by_rss = ScaleByRss
scale_by_rms = ScaleByRms
scale_by_adam = ScaleByAdam
add_decayed_weights = AddDecayedWeights
scale_by_lbfgs = ScaleByLbfgs

"""The links that optimisers are chained from. Links scale the gradient; the learning rate reverses its sign.

Where torch.optim has the same method, the arithmetic is the same, so that runs compare step by step.
"""

from __future__ import annotations

import numpy as np

from sparkopt.optim.base import GradientTransformation
from sparkopt.optim.schedules import Frozen, as_schedule
from sparkopt.typing import Floats, Schedule, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = [
    "ScaleByAdadelta",
    "ScaleByAdam",
    "ScaleByLearningRate",
    "ScaleByLion",
    "ScaleByNadam",
    "ScaleByRms",
    "ScaleByRss",
    "ScaleByTrustRatio",
    "Trace",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_nadam",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_trust_ratio",
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
        """Scale, and reverse the sign."""
        return -as_schedule(self.rate)(state) * gradient, state + 1

    def frozen_at(self, step: int) -> ScaleByLearningRate:
        """Keep the rate of ``step``."""
        return ScaleByLearningRate(Frozen(self.rate, step)) if callable(self.rate) else self


@dataclass(frozen=True)
class Trace(GradientTransformation):
    """Momentum: m ← decay · m + g (Polyak, 1964), or its look-ahead g + decay · m.

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
    """AdaGrad: g / (√Σg² + epsilon), elementwise (Duchi, Hazan & Singer, 2011)."""

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
class ScaleByAdadelta(GradientTransformation):
    """AdaDelta: g · √(u + epsilon) / √(v + epsilon) with decaying means v of g² and u of past steps² (Zeiler, 2012).

    Algorithm 1 there; the step has the coefficients' unit, so that a learning rate of 1 is meant.
    """

    decay: float = 0.9
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        check("decay", self.decay, DECAY)
        check("epsilon", self.epsilon, POSITIVE)

    def init(self, coef: Floats) -> State:
        """Return means of zero."""
        return np.zeros_like(coef), np.zeros_like(coef)

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Update the mean of gradients, step, update the mean of steps."""
        gradients, steps = state
        gradients = self.decay * gradients + (1 - self.decay) * gradient * gradient
        step = gradient * np.sqrt(steps + self.epsilon) / np.sqrt(gradients + self.epsilon)
        return step, (gradients, self.decay * steps + (1 - self.decay) * step * step)


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
    """Adam: m̂ / (√v̂ + epsilon) with bias-corrected moments (Kingma & Ba, 2015, algorithm 1).

    Parameters
    ----------
    beta1, beta2 : float, default 0.9, 0.999
        Decay of the means of g and g², in [0, 1).
    epsilon : float, default 1e-8
        Added to the root.
    amsgrad : bool, default False
        Divide by the largest v so far instead (Reddi, Kale & Kumar, 2018, algorithm 2), which repairs the proof of
        convergence.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    amsgrad: bool = False

    def __post_init__(self) -> None:
        _check_moments(self.beta1, self.beta2, self.epsilon)

    def init(self, coef: Floats) -> State:
        """Return step 0, moments of zero, and a largest second one of zero."""
        return 0, np.zeros_like(coef), np.zeros_like(coef), np.zeros_like(coef) if self.amsgrad else None

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Update both moments, correct their bias, divide."""
        count, first, second, largest = state
        count += 1
        first = self.beta1 * first + (1 - self.beta1) * gradient
        second = self.beta2 * second + (1 - self.beta2) * gradient * gradient
        if self.amsgrad:
            largest = np.maximum(largest, second)
        root = np.sqrt((largest if self.amsgrad else second) / (1 - self.beta2**count))
        return first / (1 - self.beta1**count) / (root + self.epsilon), (count, first, second, largest)


@dataclass(frozen=True)
class ScaleByNadam(GradientTransformation):
    """Adam with Nesterov's look-ahead (Dozat, 2016, *Incorporating Nesterov momentum into Adam*, algorithm 2).

    The momentum grows by the schedule μ_t = beta1 · (1 − ½ · 0.96^(t · momentum_decay)), as in torch's ``NAdam``.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    momentum_decay: float = 4e-3

    def __post_init__(self) -> None:
        _check_moments(self.beta1, self.beta2, self.epsilon)
        check("momentum_decay", self.momentum_decay, Interval(0, None))

    def init(self, coef: Floats) -> State:
        """Return step 0, a product of momenta of 1, and moments of zero."""
        return 0, 1.0, np.zeros_like(coef), np.zeros_like(coef)

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Update both moments, look ahead, correct their bias, divide."""
        count, product, first, second = state
        count += 1
        now, ahead = self._momentum(count), self._momentum(count + 1)
        product *= now
        first = self.beta1 * first + (1 - self.beta1) * gradient
        second = self.beta2 * second + (1 - self.beta2) * gradient * gradient
        look = (1 - now) * gradient / (1 - product) + ahead * first / (1 - product * ahead)
        root = np.sqrt(second / (1 - self.beta2**count))
        return look / (root + self.epsilon), (count, product, first, second)

    def _momentum(self, step: int) -> float:
        return float(self.beta1 * (1.0 - 0.5 * 0.96 ** (step * self.momentum_decay)))


@dataclass(frozen=True)
class ScaleByLion(GradientTransformation):
    """Lion: sign(beta1 · m + (1 − beta1) · g), then m ← beta2 · m + (1 − beta2) · g (Chen et al., 2023, algorithm 2).

    Every coordinate moves by the learning rate, so the rate must fall for the coefficients to settle.
    """

    beta1: float = 0.9
    beta2: float = 0.99

    def __post_init__(self) -> None:
        check("beta1", self.beta1, DECAY)
        check("beta2", self.beta2, DECAY)

    def init(self, coef: Floats) -> State:
        """Return no momentum."""
        return np.zeros_like(coef)

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Take the sign, then update the momentum."""
        step = np.sign(self.beta1 * state + (1 - self.beta1) * gradient)
        return step, self.beta2 * state + (1 - self.beta2) * gradient


@dataclass(frozen=True)
class ScaleByTrustRatio(GradientTransformation):
    """Scaled by trust · ‖coef‖ / ‖g‖, so that a step is a share of the coefficients (You, Gitman & Ginsburg, 2017).

    Equation 6 of *Large batch training of convolutional networks* without its decay, which a link before this one
    adds. A linear model is one layer, its intercept included. Where either norm is zero, g is left as it is.

    Parameters
    ----------
    trust : float, default 1
        The share, > 0.
    """

    trust: float = 1.0

    def __post_init__(self) -> None:
        check("trust", self.trust, POSITIVE)

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Scale to the length of the coefficients."""
        length, norm = float(np.linalg.norm(coef)), float(np.linalg.norm(gradient))
        return (self.trust * length / norm * gradient if length > 0 and norm > 0 else gradient), state


def _check_moments(beta1: float, beta2: float, epsilon: float) -> None:
    check("beta1", beta1, DECAY)
    check("beta2", beta2, DECAY)
    check("epsilon", epsilon, POSITIVE)


trace = Trace
"""The same as :class:`Trace`, as optax names it."""

scale_by_learning_rate = ScaleByLearningRate
"""The same as :class:`ScaleByLearningRate`, as optax names it."""

scale_by_rss = ScaleByRss
"""The same as :class:`ScaleByRss`, as optax names it."""

scale_by_adadelta = ScaleByAdadelta
"""The same as :class:`ScaleByAdadelta`, as optax names it."""

scale_by_rms = ScaleByRms
"""The same as :class:`ScaleByRms`, as optax names it."""

scale_by_adam = ScaleByAdam
"""The same as :class:`ScaleByAdam`, as optax names it."""

scale_by_nadam = ScaleByNadam
"""The same as :class:`ScaleByNadam`, as optax names it."""

scale_by_lion = ScaleByLion
"""The same as :class:`ScaleByLion`, as optax names it."""

scale_by_trust_ratio = ScaleByTrustRatio
"""The same as :class:`ScaleByTrustRatio`, as optax names it."""

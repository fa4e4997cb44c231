"""Links of Adam's family that keep a third moment, or fewer numbers than Adam does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparkopt.optim.base import GradientTransformation
from sparkopt.optim.schedules import Frozen, as_schedule
from sparkopt.typing import Floats, Schedule, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = [
    "Adafactor",
    "ScaleByAdan",
    "ScaleByAdemamix",
    "scale_by_adan",
    "scale_by_ademamix",
]

DECAY = Interval(0, 1, closed="left")
POSITIVE = Interval(0, None, closed="neither")


@dataclass(frozen=True)
class ScaleByAdemamix(GradientTransformation):
    """Adam with a second, slow mean of the gradients (Pagliardini, Ablin & Grangier, 2024, equation AdEMAMix).

    (m̂ + alpha · s) / (√v̂ + epsilon): the slow mean s, of about 10,000 steps, is not corrected for its bias.

    Parameters
    ----------
    beta1, beta2, beta3 : float, default 0.9, 0.999, 0.9999
        Decay of the fast mean of g, of that of g², and of the slow mean of g, in [0, 1).
    alpha : float, default 5
        Weight of the slow mean, ≥ 0.
    epsilon : float, default 1e-8
        Added to the root.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    beta3: float = 0.9999
    alpha: float = 5.0
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _check_decays(self.beta1, self.beta2, self.beta3)
        check("alpha", self.alpha, Interval(0, None))
        check("epsilon", self.epsilon, POSITIVE)

    def init(self, coef: Floats) -> State:
        """Return step 0 and means of zero."""
        zero = np.zeros_like(coef)
        return 0, zero, zero, zero

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Update the three means, correct two, divide."""
        count, fast, slow, second = state
        count += 1
        fast = self.beta1 * fast + (1 - self.beta1) * gradient
        slow = self.beta3 * slow + (1 - self.beta3) * gradient
        second = self.beta2 * second + (1 - self.beta2) * gradient * gradient
        root = np.sqrt(second / (1 - self.beta2**count))
        mixed = fast / (1 - self.beta1**count) + self.alpha * slow
        return mixed / (root + self.epsilon), (count, fast, slow, second)


@dataclass(frozen=True)
class ScaleByAdan(GradientTransformation):
    """Adan: Adam with Nesterov's look-ahead from differences of gradients (Xie et al., 2022, algorithm 1).

    Parameters
    ----------
    beta1, beta2, beta3 : float, default 0.98, 0.92, 0.99
        Decay of the means of g, of its differences, and of the square, in [0, 1); the paper writes 1 − beta.
    epsilon : float, default 1e-8
        Added to the root.
    """

    beta1: float = 0.98
    beta2: float = 0.92
    beta3: float = 0.99
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _check_decays(self.beta1, self.beta2, self.beta3)
        check("epsilon", self.epsilon, POSITIVE)

    def init(self, coef: Floats) -> State:
        """Return step 0, means of zero and no gradient before."""
        zero = np.zeros_like(coef)
        return {"step": 0, "mean": zero, "difference": zero, "square": zero, "before": None}

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Update the three means, correct their bias, divide."""
        count = state["step"] + 1
        change = np.zeros_like(gradient) if state["before"] is None else gradient - state["before"]
        mean = self.beta1 * state["mean"] + (1 - self.beta1) * gradient
        difference = self.beta2 * state["difference"] + (1 - self.beta2) * change
        square = self.beta3 * state["square"] + (1 - self.beta3) * (gradient + self.beta2 * change) ** 2
        ahead = mean / (1 - self.beta1**count) + self.beta2 * difference / (1 - self.beta2**count)
        step = ahead / (np.sqrt(square / (1 - self.beta3**count)) + self.epsilon)
        return step, {"step": count, "mean": mean, "difference": difference, "square": square, "before": gradient}


@dataclass(frozen=True)
class Adafactor(GradientTransformation):
    """Adafactor without momentum: steps that are a share of the coefficients (Shazeer & Stern, 2018, algorithms 4-6).

    The last link of a chain. Coefficients are one vector here, whose squares are kept unfactored, as algorithm 5 has
    it for vectors; the relative steps and the clipping of updates remain.

    Parameters
    ----------
    rate : float or Schedule, default 0.01
        Most that a step changes, as a share of the coefficients' root mean square; 1/√step where that is less.
    decay : float, default -0.8
        The mean of squares takes the share step^decay of the new ones, in (−1, 0).
    least : float, default 1e-3
        Least root mean square of the coefficients that counts: without it, zeros would stay zeros.
    clip : float, default 1
        Largest root mean square of an update, > 0.
    """

    rate: float | Schedule = 0.01
    decay: float = -0.8
    least: float = 1e-3
    clip: float = 1.0

    def __post_init__(self) -> None:
        check("decay", self.decay, Interval(-1, 0, closed="neither"))
        check("least", self.least, POSITIVE)
        check("clip", self.clip, POSITIVE)

    def init(self, coef: Floats) -> State:
        """Return step 0 and a mean of zero."""
        as_schedule(self.rate)
        return 0, np.zeros_like(coef)

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Update the mean square, divide by its root, clip, scale to the coefficients."""
        count, square = state
        count += 1
        square = square + count**self.decay * (gradient * gradient - square)
        update = gradient / np.sqrt(np.maximum(square, np.finfo(float).eps ** 2))
        size = max(len(coef), 1) ** 0.5
        length = min(float(as_schedule(self.rate)(count - 1)), count**-0.5)
        length *= max(self.least, float(np.linalg.norm(coef)) / size)
        return -length / max(1.0, float(np.linalg.norm(update)) / (size * self.clip)) * update, (count, square)

    def frozen_at(self, step: int) -> Adafactor:
        """Keep the rate of ``step``."""
        return replace(self, rate=Frozen(self.rate, step)) if callable(self.rate) else self


def _check_decays(*decays: float) -> None:
    for number, decay in enumerate(decays, 1):
        check(f"beta{number}", decay, DECAY)


scale_by_ademamix = ScaleByAdemamix
"""The same as :class:`ScaleByAdemamix`, as optax names it."""

scale_by_adan = ScaleByAdan
"""The same as :class:`ScaleByAdan`, as optax names it."""

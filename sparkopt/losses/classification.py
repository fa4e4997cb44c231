"""Losses of classes: logistic, multinomial, hinge and squared hinge."""

from __future__ import annotations

from dataclasses import field, replace
from typing import ClassVar

import numpy as np

from sparkopt.losses.base import Loss, PiecewiseLinear, parabolic_smoothing
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["Hinge", "Logistic", "MultiLabel", "Multinomial", "PlattLogistic", "SquaredHinge"]

BINARY = Interval(0, 1, whole=True)


@dataclass(frozen=True)
class Logistic(Loss):
    """Negative log-likelihood of a Bernoulli target in {0, 1} with log-odds ``raw``.

    log(1 + e^raw) − y·raw, written so that no intermediate overflows: with ε = e^−|raw| the loss is
    max(raw, 0) − y·raw + log(1 + ε), and the probability is 1/(1 + ε) or ε/(1 + ε) by the sign of ``raw``.

    Examples
    --------
    >>> import numpy as np
    >>> loss, gradient = Logistic().value_gradient(np.array([1.0, 1.0]), np.array([0.0, -1e4]))
    >>> loss.round(4).tolist(), gradient.tolist()
    ([0.6931, 10000.0], [-0.5, -1.0])
    """

    name: ClassVar[str] = "logistic"
    curvature = 0.25
    targets: Interval = field(default=BINARY, init=False, repr=False)

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Negative log-likelihood and probability − y."""
        y = y.astype(raw.dtype, copy=False)  # 0 and 1 are exact in every type; float64 would only cost time
        small = _exp_of_minus_abs(raw)
        # in place: this is what a pass with many models does most
        loss = np.maximum(raw, 0)
        loss -= y * raw
        loss += np.log1p(small)
        gradient = _probability(raw, small)
        gradient -= y
        return loss, gradient

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return p (1 − p) ``direction``."""
        small = np.exp(-np.abs(raw))
        product: Array = small / np.square(1 + small) * direction
        return product

    def predict(self, raw: Array) -> Array:
        """Return the probability of class 1."""
        return _probability(raw, _exp_of_minus_abs(raw))

    def start(self, mean: Floats) -> Floats:
        """Return the log-odds of the share of class 1, 0 where only one class occurs."""
        inside = (mean > 0) & (mean < 1)
        share = np.where(inside, mean, 0.5)
        log_odds: Floats = np.log(share / (1 - share))
        return log_odds


def _exp_of_minus_abs(raw: Array) -> Array:
    small: Array = np.abs(raw)
    np.negative(small, out=small)
    return np.exp(small, out=small)


def _probability(raw: Array, small: Array) -> Array:
    """1/(1 + e^−raw), given ``small`` = e^−|raw|; a maximum chooses fast, since it is at most 1."""
    probability: Array = (raw >= 0).astype(raw.dtype)
    np.maximum(small, probability, out=probability)
    probability /= 1 + small
    return probability


@dataclass(frozen=True)
class Multinomial(Loss):
    """Negative log-likelihood of a class 0 … k − 1 under softmax(raw), ``raw`` of shape (n, k).

    The curvature ½ bounds the largest eigenvalue of the softmax Hessian (Böhning, 1992, *Multinomial logistic
    regression algorithm*, §2).

    Parameters
    ----------
    classes : int
        Number of classes, k ≥ 2.

    Examples
    --------
    >>> import numpy as np
    >>> loss, gradient = Multinomial(3).value_gradient(np.array([2.0]), np.zeros((1, 3)))
    >>> loss.round(4).tolist(), gradient.round(2).tolist()
    ([1.0986], [[0.33, 0.33, -0.67]])
    """

    classes: int
    name: ClassVar[str] = "multinomial"
    curvature = 0.5

    def __post_init__(self) -> None:
        check("classes", self.classes, Interval(2, None, whole=True))

    @property
    def targets(self) -> Interval:
        """The numbers of the classes, from 0."""
        return Interval(0, self.classes - 1, whole=True)

    @property
    def outputs(self) -> int:
        """One for each class."""
        return self.classes

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Negative log-likelihood, shape (n,), and probabilities − indicator of the class, shape (n, k)."""
        rows, labels = np.arange(len(y)), y.astype(np.intp)
        shifted = raw - raw.max(axis=1, keepdims=True)
        target = shifted[rows, labels]
        gradient = np.exp(shifted, out=shifted)
        total = gradient.sum(axis=1)
        gradient /= total[:, None]
        gradient[rows, labels] -= 1
        return np.log(total) - target, gradient

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return (diag(p) − p pᵀ) ``direction`` for each row's probabilities p."""
        probability = self.predict(raw)
        mean = (probability * direction).sum(axis=1, keepdims=True)
        product: Array = probability * (direction - mean)
        return product

    def predict(self, raw: Array) -> Array:
        """Return the probability of each class, shape (n, k)."""
        probability: Array = np.exp(raw - raw.max(axis=1, keepdims=True))
        probability /= probability.sum(axis=1, keepdims=True)
        return probability

    def start(self, mean: Floats) -> Floats:
        """Return the logarithms of the classes' shares, centred; an absent class counts like the rarest one."""
        present = mean > 0
        if not present.any():
            return np.zeros(self.classes)
        logarithms = np.log(np.where(present, mean, mean[present].min()))
        centred: Floats = logarithms - logarithms.mean()
        return centred


@dataclass(frozen=True)
class PlattLogistic(Logistic):
    """`Logistic` with targets that are drawn in from 0 and 1, against overconfidence (Platt, 1999, §2.2).

    Parameters
    ----------
    low, high : float
        What takes the place of 0 and 1, in (0, 1).

    Examples
    --------
    >>> PlattLogistic.of(2.0, 2.0)
    PlattLogistic(low=0.25, high=0.75)
    """

    low: float = 0.0
    high: float = 1.0
    name: ClassVar[str] = "platt_logistic"

    @classmethod
    def of(cls, hits: float, misses: float) -> PlattLogistic:
        """Return the loss for so many rows, or their weight, of class 1 and of class 0."""
        return cls(1.0 / (misses + 2.0), (hits + 1.0) / (hits + 2.0))

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Negative log-likelihood of the drawn-in target, and probability − target."""
        return super().value_gradient(self.low + (self.high - self.low) * y, raw)

    def start(self, mean: Floats) -> Floats:
        """Return the log-odds of the mean target."""
        return super().start(self.low + (self.high - self.low) * mean)


@dataclass(frozen=True)
class MultiLabel(Loss):
    """The sum of the logistic losses of several labels, ``raw`` of shape (n, labels): their log-odds.

    The target is a number whose bits are the labels, the first one last.

    Parameters
    ----------
    labels : int
        Number of labels, 2 to 52: float64 holds as many bits.

    Examples
    --------
    A row that has the second label alone:

    >>> import numpy as np
    >>> loss, gradient = MultiLabel(2).value_gradient(np.array([2.0]), np.zeros((1, 2)))
    >>> loss.round(4).tolist(), gradient.tolist()
    ([1.3863], [[0.5, -0.5]])
    """

    labels: int
    name: ClassVar[str] = "multi_label"
    curvature = 0.25
    MOST: ClassVar[int] = 52

    def __post_init__(self) -> None:
        check("labels", self.labels, Interval(2, self.MOST, whole=True))

    @property
    def targets(self) -> Interval:
        """Every number of so many bits."""
        return Interval(0, 2**self.labels - 1, whole=True)

    @property
    def outputs(self) -> int:
        """One for each label."""
        return self.labels

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Negative log-likelihood, shape (n,), and probabilities − labels, shape (n, labels)."""
        bits = (y.astype(np.int64)[:, None] >> np.arange(self.labels)) & 1
        value, gradient = Logistic().value_gradient(bits, raw)
        return value.sum(axis=1), gradient

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return p (1 − p) ``direction``."""
        return Logistic().hessian_product(y, raw, direction)

    def predict(self, raw: Array) -> Array:
        """Return the probability of each label, shape (n, labels)."""
        return Logistic().predict(raw)

    def start(self, mean: Floats) -> Floats:
        """Return the log-odds of the labels' shares, 0 where all or no row have one."""
        return Logistic().start(mean)


def _signed(y: Array, raw: Array) -> tuple[Array, Array]:
    """Return −1 or 1 for y in {0, 1}, and each row's shortfall to a margin of 1."""
    sign = (2 * y - 1).astype(raw.dtype, copy=False)
    return sign, 1 - sign * raw


@dataclass(frozen=True)
class Hinge(PiecewiseLinear):
    """The loss of support vector machines, max(0, 1 − s·raw) with s = ±1 for y in {1, 0} (Cortes & Vapnik, 1995).

    With ``smoothing`` 0 it is exact and nonsmooth, and needs subgradient methods such as sgd. Otherwise a parabola
    replaces it around a margin of 1 (Chapelle, 2007, *Training a support vector machine in the primal*, §2.3). The
    smoothed loss is above the exact one by at most smoothing / 8, at margins within smoothing / 2 of 1.

    Parameters
    ----------
    smoothing : float, default 0
        Smoothing parameter, ≥ 0: width of the parabola.

    Examples
    --------
    >>> import numpy as np
    >>> Hinge().value_gradient(np.array([1.0, 0.0]), np.array([0.5, -2.0]))
    (array([0.5, 0. ]), array([-1.,  0.]))
    """

    smoothing: float = 0.0
    name: ClassVar[str] = "hinge"
    targets: Interval = field(default=BINARY, init=False, repr=False)

    def __post_init__(self) -> None:
        check("smoothing", self.smoothing, Interval(0, None))

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """The shortfall to a margin of 1, and its derivative."""
        sign, short = _signed(y, raw)
        value, slope = parabolic_smoothing(short, 0.0, 1.0, self.smoothing)
        return value, -sign * slope

    def distance(self, y: Array, raw: Array) -> Array:
        """Return each row's shortfall to a margin of 1."""
        return _signed(y, raw)[1]

    def predict(self, raw: Array) -> Array:
        """Return the class."""
        return (raw > 0).astype(raw.dtype)

    def smoothed(self, smoothing: float) -> Hinge:
        """Return the same loss with another smoothing parameter."""
        return replace(self, smoothing=smoothing)


@dataclass(frozen=True)
class SquaredHinge(Loss):
    """max(0, 1 − s·raw)² with s = ±1 for y in {1, 0} (Fan et al., 2008, *LIBLINEAR*).

    The default of scikit-learn and LIBLINEAR for support vector machines.

    Examples
    --------
    >>> import numpy as np
    >>> SquaredHinge().value_gradient(np.array([1.0]), np.array([0.5]))
    (array([0.25]), array([-1.]))
    """

    name: ClassVar[str] = "squared_hinge"
    curvature = 2.0
    targets: Interval = field(default=BINARY, init=False, repr=False)

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """The squared shortfall to a margin of 1, and its derivative."""
        sign, short = _signed(y, raw)
        missing = np.maximum(short, 0)
        return missing * missing, -2 * sign * missing

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return 2 · ``direction`` for margins below 1, 0 elsewhere."""
        _, short = _signed(y, raw)
        return np.where(short > 0, 2 * direction, 0)

    def predict(self, raw: Array) -> Array:
        """Return the class."""
        return (raw > 0).astype(raw.dtype)

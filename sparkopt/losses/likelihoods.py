"""Negative log-likelihoods with parameters of their own: survival times, ordered classes, overdispersed counts."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

import numpy as np
import scipy  # loads scipy.special where it is used

from sparkopt.losses.base import Loss
from sparkopt.losses.regression import increasing
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["AcceleratedFailureTime", "CumulativeLogit", "NegativeBinomial"]

SMALLEST = 1e-3
"""Least mean whose logarithm a fit starts from."""


@dataclass(frozen=True)
class AcceleratedFailureTime(Loss):
    """Negative log-likelihood of a survival time t under log t = raw + σ·ε, ε of the extreme value distribution.

    Times are then Weibull distributed (Wei, 1992, *The accelerated failure time model*; Kalbfleisch & Prentice,
    2002, §2.3). With ε = (log t − raw)/σ it is e^ε for a time that is censored, and e^ε − ε + log σ for one that was
    observed: pyspark.ml's objective, which leaves out log t. log σ is an auxiliary parameter.

    The target is t where the time was observed, and −t where it is censored.

    Examples
    --------
    A time of 1, observed, and one of at least e:

    >>> import numpy as np
    >>> AcceleratedFailureTime().value_gradient(np.array([1.0, -np.e]), np.zeros((2, 2)))[0].round(4).tolist()
    [1.0, 2.7183]
    """

    name: ClassVar[str] = "accelerated_failure_time"
    auxiliary = 1

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """The negative log-likelihood, and its derivatives by the prediction of log t and by log σ."""
        observed, deviation, power, scale = self._parts(y, raw)
        with np.errstate(over="ignore", invalid="ignore"):
            value = power + observed * (raw[:, 1] - deviation)
            gap = observed - power
            gradient = np.stack([gap / scale, observed + deviation * gap], axis=1)
        finite = np.isfinite(value) & np.isfinite(gradient).all(axis=1)
        return np.where(finite, value, np.inf), np.where(finite[:, None], gradient, 0)

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return the 2 × 2 Hessian of each row times ``direction``."""
        observed, deviation, power, scale = self._parts(y, raw)
        with np.errstate(over="ignore", invalid="ignore"):
            change = power * (1 + deviation) - observed
            first = power / scale * direction[:, 0] + change * direction[:, 1]
            second = change / scale * direction[:, 0] + deviation * change * direction[:, 1]
        found = np.stack([first / scale, second], axis=1)
        return np.where(np.isfinite(found).all(axis=1, keepdims=True), found, 0)

    def predict(self, raw: Array) -> Array:
        """Return e^raw: the time by which a share of 1 − 1/e has ended."""
        with np.errstate(over="ignore"):
            return np.exp(raw)

    def start(self, mean: Floats) -> Floats:
        """Return the logarithm of the mean's size."""
        return np.log(np.maximum(np.abs(mean), SMALLEST))

    @staticmethod
    def _parts(y: Array, raw: Array) -> tuple[Array, Array, Array, Array]:
        """Return 1 for observed times, ε, e^ε and σ."""
        kind = raw.dtype
        with np.errstate(over="ignore", divide="ignore"):
            scale = np.exp(raw[:, 1])
            deviation = (np.log(np.abs(y)).astype(kind, copy=False) - raw[:, 0]) / scale
            return (y > 0).astype(kind), deviation, np.exp(deviation), scale


@dataclass(frozen=True)
class CumulativeLogit(Loss):
    """Negative log-likelihood of an ordered class: the odds of a class up to j are e^(θⱼ − raw) to 1.

    The proportional odds model (McCullagh, 1980, *Regression models for ordinal data*). Thresholds ascend: θ₀ is 0,
    which the intercept makes up for, and each later one is above the one before it by a positive function of an
    auxiliary parameter: 1 + a for a ≥ 0 and e^a below. For two classes it is `Logistic`.

    Parameters
    ----------
    classes : int
        Number of classes, k ≥ 2.

    Examples
    --------
    >>> import numpy as np
    >>> loss = CumulativeLogit(3)
    >>> loss.probability(np.array([[0.0, 0.0]])).round(3).tolist()
    [[0.5, 0.231, 0.269]]
    """

    classes: int
    name: ClassVar[str] = "cumulative_logit"

    def __post_init__(self) -> None:
        check("classes", self.classes, Interval(2, None, whole=True))

    @property
    def targets(self) -> Interval:
        """The numbers of the classes, from 0."""
        return Interval(0, self.classes - 1, whole=True)

    @property
    def auxiliary(self) -> int:
        """One for each threshold after the first."""
        return self.classes - 2

    def thresholds(self, parameters: Floats) -> Floats:
        """Return θ, shape (classes − 1,), of auxiliary parameters."""
        return np.concatenate([np.zeros(1), np.cumsum(increasing(parameters)[0])])

    def probability(self, raw: Array) -> Array:
        """Return the probability of each class, shape (n, classes), of raw predictions with auxiliary parameters."""
        raw = raw.reshape(len(raw), -1)
        below = scipy.special.expit(self._thresholds(raw) - raw[:, :1])
        edges = np.concatenate([np.zeros_like(raw[:, :1]), below, np.ones_like(raw[:, :1])], axis=1)
        return np.diff(edges, axis=1)

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """The negative log-likelihood, and its derivatives by raw prediction and auxiliary parameters."""
        at = _Ordered(self, y, raw)
        value = np.logaddexp(0, -at.upper) + np.logaddexp(0, at.lower) - np.log(-np.expm1(-at.gap))
        slopes = at.to_parameters(at.by_upper, at.by_lower)
        return value, np.concatenate([at.by_raw[:, None], slopes], axis=1).reshape(raw.shape)

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return each row's second derivative times ``direction``."""
        at = _Ordered(self, y, raw)
        along = direction.reshape(len(raw), -1)
        steps = np.cumsum(at.steep * along[:, 1:], axis=1)
        steps = np.concatenate([np.zeros_like(along[:, :1]), steps], axis=1)
        up, low = at.of_class(steps, 0.0, 0.0)
        by_upper = at.curve_upper * (up - along[:, 0]) + at.bend * (up - low)
        by_lower = at.curve_lower * (low - along[:, 0]) - at.bend * (up - low)
        by_raw = -at.curve_upper * (up - along[:, 0]) - at.curve_lower * (low - along[:, 0])
        slopes = at.to_parameters(by_upper, by_lower)
        bent = np.where(at.parameters < 0, at.steep, 0) * along[:, 1:]
        slopes += bent * at.sums(at.by_upper, at.by_lower)
        return np.concatenate([by_raw[:, None], slopes], axis=1).reshape(raw.shape)

    def predict(self, raw: Array) -> Array:
        """Return the raw prediction: the odds between classes shift with it."""
        return raw

    def start(self, mean: Floats) -> Floats:
        """Return the log-odds of the mean's place between the first and the last class."""
        share = mean / (self.classes - 1)
        inside = np.where((share > 0) & (share < 1), share, 0.5)
        log_odds: Floats = np.log(inside / (1 - inside))
        return log_odds

    def _thresholds(self, raw: Array) -> Array:
        """Return each row's thresholds, shape (n, classes − 1)."""
        return np.concatenate(
            [np.zeros_like(raw[:, :1]), np.cumsum(increasing(raw[:, 1:])[0], axis=1)], axis=1, dtype=raw.dtype
        )


class _Ordered:
    """What the derivatives of `CumulativeLogit` are made of, for each row.

    Attributes
    ----------
    upper, lower : ndarray of shape (n,)
        Thresholds above and below the row's class, less its raw prediction; infinite at the ends.
    gap : ndarray of shape (n,)
        Upper less lower.
    by_raw, by_upper, by_lower : ndarray of shape (n,)
        Derivatives of the loss; by a threshold that there is not, 0.
    curve_upper, curve_lower, bend : ndarray of shape (n,)
        Second derivatives: of the two logistic terms, and of the term of the gap.
    """

    def __init__(self, loss: CumulativeLogit, y: Array, raw: Array) -> None:
        table = raw.reshape(len(raw), -1)
        self.parameters, self._class = table[:, 1:], y.astype(np.intp)
        self.steep = increasing(self.parameters)[1]
        up, low = self.of_class(loss._thresholds(table), np.inf, -np.inf)
        self.gap, self.upper, self.lower = up - low, up - table[:, 0], low - table[:, 0]
        above, below = scipy.special.expit(-self.upper), scipy.special.expit(self.lower)
        self.by_raw = above - below
        with np.errstate(over="ignore"):
            ratio = 1 / np.expm1(self.gap)
        self.by_upper, self.by_lower = -above - ratio, below + ratio
        self.curve_upper, self.curve_lower = above * (1 - above), below * (1 - below)
        self.bend = ratio * (1 + ratio)

    def of_class(self, thresholds: Array, last: float, first: float) -> tuple[Array, Array]:
        """Return what belongs to the thresholds above and below each row's class; at the ends what is given."""
        rows, k = np.arange(len(thresholds)), thresholds.shape[1]
        up = thresholds[rows, np.minimum(self._class, k - 1)]
        low = thresholds[rows, np.maximum(self._class - 1, 0)]
        kind = thresholds.dtype.type
        return np.where(self._class == k, kind(last), up), np.where(self._class == 0, kind(first), low)

    def sums(self, by_upper: Array, by_lower: Array) -> Array:
        """Return derivatives by the distances between thresholds, shape (n, auxiliary)."""
        place, distance = self._class[:, None], np.arange(1, self.parameters.shape[1] + 1)
        inside = place <= self.parameters.shape[1]  # the last class has no threshold above it
        found: Array = np.where(inside & (distance <= place), by_upper[:, None], 0)
        return found + np.where(distance <= place - 1, by_lower[:, None], 0)

    def to_parameters(self, by_upper: Array, by_lower: Array) -> Array:
        """Return derivatives by auxiliary parameters."""
        found: Array = self.steep * self.sums(by_upper, by_lower)
        return found


@dataclass(frozen=True)
class NegativeBinomial(Loss):
    """Negative log-likelihood of a count with mean μ = e^raw and variance μ + αμ² (Hilbe, 2011, *NB2*, §8).

    log α is an auxiliary parameter; towards −∞ the distribution is Poisson's.

    Examples
    --------
    Counts of 0 and 1 with mean 1 and α = 1, which is the geometric distribution:

    >>> import numpy as np
    >>> value, _ = NegativeBinomial().value_gradient(np.array([0.0, 1.0]), np.zeros((2, 2)))
    >>> np.exp(-value).round(4).tolist()
    [0.5, 0.25]
    """

    name: ClassVar[str] = "negative_binomial"
    auxiliary = 1
    targets: Interval = field(default=Interval(0, None, whole=True), init=False, repr=False)

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """The negative log-likelihood, and its derivatives by the logarithms of the mean and of α."""
        y, eta, a, size, total = self._parts(y, raw)
        special = scipy.special
        value = special.gammaln(size) + special.gammaln(y + 1) - special.gammaln(y + size)
        value += size * (a + total) + y * (total - eta)
        share = special.expit(eta + a)
        slope = size * share - y * (1 - share)
        return value, np.stack([slope, -size * self._by_size(y, a, size, total)], axis=1)

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return the 2 × 2 Hessian of each row times ``direction``."""
        y, eta, a, size, total = self._parts(y, raw)
        share = scipy.special.expit(eta + a)
        curve = (size + y) * share * (1 - share)
        mixed = curve - size * share
        inverse = np.exp(-total)  # 1/(size + μ)
        trigamma = scipy.special.polygamma(1, size) - scipy.special.polygamma(1, y + size)
        by_size = trigamma - 1 / size + 2 * inverse - (size + y) * inverse * inverse
        own = size * self._by_size(y, a, size, total) + size * size * by_size
        first = curve * direction[:, 0] + mixed * direction[:, 1]
        return np.stack([first, mixed * direction[:, 0] + own * direction[:, 1]], axis=1)

    def predict(self, raw: Array) -> Array:
        """Return the mean."""
        with np.errstate(over="ignore"):
            return np.exp(raw)

    def start(self, mean: Floats) -> Floats:
        """Return the logarithm of the mean."""
        return np.log(np.maximum(mean, SMALLEST))

    @staticmethod
    def _parts(y: Array, raw: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Return y, raw, log α, 1/α and log(1/α + μ): in doubles, since differences of large numbers follow."""
        table = raw.astype(np.float64, copy=False)
        eta, a = table[:, 0], table[:, 1]
        return y.astype(np.float64, copy=False), eta, a, np.exp(-a), np.logaddexp(-a, eta)

    @staticmethod
    def _by_size(y: Array, a: Array, size: Array, total: Array) -> Array:
        """Return the derivative by 1/α."""
        special = scipy.special
        found: Array = special.digamma(size) - special.digamma(y + size) + a - 1 + total + (size + y) * np.exp(-total)
        return found

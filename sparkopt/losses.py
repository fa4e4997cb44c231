"""Losses: rows in, rows out.

A loss sees targets and raw predictions, never features, coefficients or Spark. For each row it gives the loss and
the derivative with respect to the raw prediction; weights, sums and penalties belong to others.

Notation: ``n`` rows, ``k`` outputs. ``y`` has shape (n,); ``raw`` has shape (n,) for losses of one output and
(n, k) for losses of several. Results have the floating width of ``raw`` or wider.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from sparkopt.typing import Array
from sparkopt.validation import Interval, check

__all__ = ["Logistic", "Loss", "Multinomial", "SquaredError"]


class Loss(ABC):
    """A loss per row and its derivative with respect to the raw prediction.

    Attributes
    ----------
    name : str
        How the loss is called in flags, receipts and errors.
    curvature : float or None
        The largest second derivative with respect to ``raw``; None where there is none. It bounds the safe step
        size of gradient descent.
    targets : Interval
        The targets that the loss is defined for.
    outputs : int
        Raw predictions per row, ``k``.
    """

    name: ClassVar[str]
    curvature: ClassVar[float | None] = None
    targets: Interval = Interval()
    outputs: int = 1

    @abstractmethod
    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Loss of each row, shape (n,), and its derivative, shape of ``raw``; unweighted."""

    @abstractmethod
    def predict(self, raw: Array) -> Array:
        """Inverse link: the mean of the target given ``raw`` (probabilities for classifiers), shape of ``raw``."""


@dataclass(frozen=True)
class SquaredError(Loss):
    """Half the squared residual, ½ (raw − y)².

    Examples
    --------
    >>> import numpy as np
    >>> SquaredError().value_gradient(np.array([1.0]), np.array([3.0]))
    (array([2.]), array([2.]))
    """

    name: ClassVar[str] = "squared_error"
    curvature: ClassVar[float | None] = 1.0

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """½ (raw − y)² and raw − y."""
        residual = raw - y
        return 0.5 * residual * residual, residual

    def predict(self, raw: Array) -> Array:
        """Return the raw prediction itself."""
        return raw


@dataclass(frozen=True)
class Logistic(Loss):
    """Negative log-likelihood of a Bernoulli target in {0, 1} with log-odds ``raw``.

    log(1 + e^raw) − y·raw, written so that no intermediate overflows: with e = e^−|raw| the loss is
    max(raw, 0) − y·raw + log(1 + e), and the probability 1/(1 + e) or e/(1 + e) by the sign of ``raw``.

    Examples
    --------
    >>> import numpy as np
    >>> loss, gradient = Logistic().value_gradient(np.array([1.0, 1.0]), np.array([0.0, -1e4]))
    >>> loss.round(4).tolist(), gradient.tolist()
    ([0.6931, 10000.0], [-0.5, -1.0])
    """

    name: ClassVar[str] = "logistic"
    curvature: ClassVar[float | None] = 0.25
    targets: Interval = field(default=Interval(0, 1, whole=True), init=False, repr=False)

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Negative log-likelihood and probability − y."""
        y = y.astype(raw.dtype, copy=False)  # 0 and 1 are exact in every width; float64 would only cost time
        small = np.exp(-np.abs(raw))
        loss = np.maximum(raw, 0) - y * raw + np.log1p(small)
        return loss, _probability(raw, small) - y

    def predict(self, raw: Array) -> Array:
        """Return the probability of class 1."""
        return _probability(raw, np.exp(-np.abs(raw)))


def _probability(raw: Array, small: Array) -> Array:
    """1/(1 + e^−raw), given ``small`` = e^−|raw|."""
    return np.where(raw >= 0, raw.dtype.type(1), small) / (1 + small)


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
    curvature: ClassVar[float | None] = 0.5

    def __post_init__(self) -> None:
        check("classes", self.classes, Interval(2, None, whole=True))
        object.__setattr__(self, "targets", Interval(0, self.classes - 1, whole=True))
        object.__setattr__(self, "outputs", self.classes)

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

    def predict(self, raw: Array) -> Array:
        """Return the probability of each class, shape (n, k)."""
        exponential = np.exp(raw - raw.max(axis=1, keepdims=True))
        return exponential / exponential.sum(axis=1, keepdims=True)

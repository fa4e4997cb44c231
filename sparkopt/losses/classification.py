"""Losses of classes: logistic, multinomial, hinge and squared hinge."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sparkopt.losses.base import Loss, rounded
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, check

__all__ = ["Hinge", "Logistic", "Multinomial", "SquaredHinge"]

BINARY = Interval(0, 1, whole=True)


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
    curvature = 0.25
    targets: Interval = field(default=BINARY, init=False, repr=False)

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Negative log-likelihood and probability − y."""
        y = y.astype(raw.dtype, copy=False)  # 0 and 1 are exact in every width; float64 would only cost time
        small = np.exp(-np.abs(raw))
        loss = np.maximum(raw, 0) - y * raw + np.log1p(small)
        return loss, _probability(raw, small) - y

    def hessian_product(self, y: Array, raw: Array, move: Array) -> Array:
        """Return p (1 − p) ``move``."""
        small = np.exp(-np.abs(raw))
        return small / np.square(1 + small) * move

    def predict(self, raw: Array) -> Array:
        """Return the probability of class 1."""
        return _probability(raw, np.exp(-np.abs(raw)))

    def start(self, mean: Floats) -> Floats:
        """Return the log-odds of the share of class 1, 0 where only one class occurs."""
        inside = (mean > 0) & (mean < 1)
        share = np.where(inside, mean, 0.5)
        return np.log(share / (1 - share))


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
    curvature = 0.5

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

    def hessian_product(self, y: Array, raw: Array, move: Array) -> Array:
        """Return (diag(p) − p pᵀ) ``move`` for each row's probabilities p."""
        probability = self.predict(raw)
        mean = (probability * move).sum(axis=1, keepdims=True)
        return probability * (move - mean)

    def predict(self, raw: Array) -> Array:
        """Return the probability of each class, shape (n, k)."""
        exponential = np.exp(raw - raw.max(axis=1, keepdims=True))
        return exponential / exponential.sum(axis=1, keepdims=True)

    def start(self, mean: Floats) -> Floats:
        """Return the logarithms of the classes' shares, centred; for a class that never occurs, the rarest one's."""
        present = mean > 0
        if not present.any():
            return np.zeros(self.classes)
        logarithms = np.log(np.where(present, mean, mean[present].min()))
        return logarithms - logarithms.mean()


def _signed(y: Array, raw: Array) -> tuple[Array, Array]:
    """Return −1 or 1 for y in {0, 1}, and how far each row is short of a margin of 1."""
    sign = (2 * y - 1).astype(raw.dtype, copy=False)
    return sign, 1 - sign * raw


@dataclass(frozen=True)
class Hinge(Loss):
    """The support vector machine's loss max(0, 1 − s·raw), s = ±1 for y in {1, 0} (Cortes & Vapnik, 1995).

    Exact where ``width`` is 0; then its kink asks for subgradient methods such as sgd. With a width it is rounded off
    around a margin of 1 (Chapelle, 2007, *Training a support vector machine in the primal*, §2.3) and lies above the
    exact loss by at most an eighth of the width, at margins within half of it.

    Parameters
    ----------
    width : float, default 0
        Width of the rounding, ≥ 0.

    Examples
    --------
    >>> import numpy as np
    >>> Hinge().value_gradient(np.array([1.0, 0.0]), np.array([0.5, -2.0]))
    (array([0.5, 0. ]), array([-1.,  0.]))
    """

    width: float = 0.0
    name: ClassVar[str] = "hinge"
    targets: Interval = field(default=BINARY, init=False, repr=False)

    def __post_init__(self) -> None:
        check("width", self.width, Interval(0, None))

    @property
    def smooth(self) -> bool:  # type: ignore[override]  # derived here, stored elsewhere
        """Whether there is a width."""
        return self.width > 0

    @property
    def curvature(self) -> float | None:  # type: ignore[override]  # derived here, stored elsewhere
        """1 / width."""
        return 1.0 / self.width if self.width > 0 else None

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """What is missing to a margin of 1, and its slope."""
        sign, short = _signed(y, raw)
        value, slope = rounded(short, 0.0, 1.0, self.width)
        return value, -sign * slope

    def hessian_product(self, y: Array, raw: Array, move: Array) -> Array:
        """Return ``move`` / width in the rounding, 0 elsewhere (and everywhere for a width of 0)."""
        return np.where(self.curved(y, raw), move / (self.width or 1.0), 0)

    def curved(self, y: Array, raw: Array) -> NDArray[np.bool_]:
        """Return which rows are in the rounding."""
        _, short = _signed(y, raw)
        return np.asarray(2 * np.abs(short) < self.width)

    def predict(self, raw: Array) -> Array:
        """Return the class."""
        return (raw > 0).astype(raw.dtype)

    def smoothed(self, width: float) -> Hinge:
        """Return the same loss, rounded off over ``width``."""
        return replace(self, width=width)


@dataclass(frozen=True)
class SquaredHinge(Loss):
    """max(0, 1 − s·raw)², s = ±1 for y in {1, 0}: scikit-learn's and LIBLINEAR's default for support vector machines.

    Fan et al., 2008, *LIBLINEAR*.

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
        """The square of what is missing to a margin of 1, and its slope."""
        sign, short = _signed(y, raw)
        missing = np.maximum(short, 0)
        return missing * missing, -2 * sign * missing

    def hessian_product(self, y: Array, raw: Array, move: Array) -> Array:
        """Return twice ``move`` where the margin is short, 0 elsewhere."""
        _, short = _signed(y, raw)
        return np.where(short > 0, 2 * move, 0)

    def predict(self, raw: Array) -> Array:
        """Return the class."""
        return (raw > 0).astype(raw.dtype)

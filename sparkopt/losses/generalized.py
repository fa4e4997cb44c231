"""Losses of generalised linear models: half the unit deviance of a family, through a link.

Half the deviance is the negative log-likelihood for a dispersion of 1, less what depends on the target alone: it is
never negative, and zero for a perfect prediction (McCullagh & Nelder, 1989, *Generalized Linear Models*, §2.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import scipy  # loads scipy.special where it is used

from sparkopt.losses.base import Loss
from sparkopt.losses.classification import Logistic
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, OneOf, check
from sparkopt.values import dataclass

__all__ = ["LINKS", "Binomial", "BinomialLogit", "Gamma", "Gaussian", "Poisson", "Tweedie", "WorkingResponse"]

LINKS: Mapping[str, float] = MappingProxyType({"identity": 1.0, "log": 0.0, "inverse": -1.0, "sqrt": 0.5})
"""Links raw = μ^λ by name, with λ; 0 is the logarithm."""


class _Powers(Interval):
    """The variance powers of which a distribution exists: none is between 0 and 1 (Jørgensen, 1987, §2)."""

    def accepts(self, value: object) -> bool:
        return super().accepts(value) and (value == 0 or value >= 1)  # type: ignore[operator]

    def __str__(self) -> str:
        return "0 or >= 1"


@dataclass(frozen=True)
class Tweedie(Loss):
    """Half the deviance of a family with variance μ^p, through a link raw = μ^λ or log μ.

    One formula covers the normal (p = 0), Poisson (1), Gamma (2) and inverse Gaussian (3) families and those between
    (Jørgensen, 1987, *Exponential dispersion models*; Smyth & Jørgensen, 2002): with a power link the mean, the
    variance and the derivative are all powers of μ. A raw prediction without a mean in the family (not positive, for
    a power link) has an infinite loss and a derivative of 0; line searches shorten their step there.

    Parameters
    ----------
    power : float, default 1.5
        p: 0 or ≥ 1. Between 1 and 2 the target may be zero with positive probability.
    link : {"log", "identity", "inverse", "sqrt"} or float, default "log"
        A name, or λ as in pyspark.ml's linkPower.

    Examples
    --------
    >>> import numpy as np
    >>> Tweedie(1.5).value_gradient(np.array([4.0]), np.log(np.array([4.0, 1.0])))[0].round(12) + 0.0
    array([0., 2.])
    """

    power: float = 1.5
    link: str | float = "log"
    name: ClassVar[str] = "tweedie"

    def __post_init__(self) -> None:
        check("variancePower", self.power, _Powers())
        if isinstance(self.link, str):
            check("link", self.link, OneOf(LINKS))
        else:
            check("linkPower", self.link, Interval())

    @property
    def targets(self) -> Interval:
        """Every number for p = 0, non-negative ones below 2, positive ones from 2 on."""
        if self.power == 0:
            return Interval()
        return Interval(0, None, closed="both" if self.power < 2 else "neither")

    @property
    def _link_power(self) -> float:
        return LINKS[self.link] if isinstance(self.link, str) else float(self.link)

    @property
    def _slope(self) -> float:
        """dμ/draw is this times μ^(1 − λ)."""
        return 1.0 / self._link_power if self._link_power else 1.0

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Half the deviance, and (μ − y) μ^−p dμ/draw."""
        valid, raw = self._inside(raw)
        with np.errstate(over="ignore", invalid="ignore"):
            value = self._half_deviance(y, raw)
            exponent = 1 - self.power - self._link_power
            gradient = self._slope * (self._mean(raw, exponent + 1) - _times(y, self._mean(raw, exponent)))
        finite = valid & np.isfinite(value)  # the terms of what overflows may be infinite with opposite signs
        return np.where(finite, value, np.inf), np.where(finite, gradient, 0)

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return the second derivative times ``direction``; it may be negative for links that are not canonical."""
        valid, raw = self._inside(raw)
        power, exponent = self._link_power, 1 - self.power - self._link_power
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is infinite is left out below
            second = _times(exponent + 1, self._mean(raw, exponent + 1 - power))
            second = self._slope**2 * (second - _times(exponent * y, self._mean(raw, exponent - power)))
        return np.where(valid & np.isfinite(second), second, 0) * direction

    def predict(self, raw: Array) -> Array:
        """Return the mean; NaN where there is none."""
        valid, inside = self._inside(raw)
        with np.errstate(over="ignore"):
            return np.where(valid, self._mean(inside, 1.0), np.nan).astype(raw.dtype, copy=False)

    def start(self, mean: Floats) -> Floats:
        """Return the link of the mean, or of a small number where the mean is not inside the family's domain."""
        if self.power == 0 and self._link_power == 1:
            return mean
        mean = np.where(mean > 0, mean, 1e-3)
        return np.log(mean) if self._link_power == 0 else mean**self._link_power

    @property
    def is_defined_at_zero(self) -> bool:
        """Whether a raw prediction of 0 has a mean."""
        return bool(self._inside(np.zeros(1))[0][0])

    def _inside(self, raw: Array) -> tuple[Array, Array]:
        """Return which raw predictions have a mean, and the predictions with the others replaced by 1."""
        if self._link_power == 0 or (self.power == 0 and self._link_power == 1):
            return np.ones(raw.shape, bool), raw
        valid = raw != 0 if self.power == 0 and self._link_power == -1 else raw > 0
        return valid, np.where(valid, raw, raw.dtype.type(1))

    def _mean(self, raw: Array, exponent: float) -> Array:
        """μ^exponent."""
        if exponent == 0:
            return np.ones_like(raw)
        if self._link_power == 0:
            return np.exp(exponent * raw)
        power = exponent / self._link_power
        return raw if power == 1 else np.power(raw, power)

    def _log_mean(self, raw: Array) -> Array:
        return raw if self._link_power == 0 else np.log(raw) / self._link_power

    def _half_deviance(self, y: Array, raw: Array) -> Array:
        p = self.power
        if p == 0:
            half: Array = 0.5 * np.square(self._mean(raw, 1.0) - y)
            return half
        if p == 1:
            perfect = _times(y, np.log(np.where(y > 0, y, 1))) - y
            return perfect - _times(y, self._log_mean(raw)) + self._mean(raw, 1.0)
        if p == 2:
            return _times(y, self._mean(raw, -1.0)) - np.log(y) + self._log_mean(raw) - 1
        perfect = np.power(y, 2 - p) / ((1 - p) * (2 - p))
        return perfect - _times(y, self._mean(raw, 1 - p)) / (1 - p) + self._mean(raw, 2 - p) / (2 - p)


def _times(a: Array | float, b: Array) -> Array:
    """Return a · b with 0 · ∞ = 0, which is the limit in all uses here."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.equal(a, 0), 0, a * b)


@dataclass(frozen=True)
class WorkingResponse(Loss):
    """Squared distance from the link of the target, by working weights: the first step of R's ``glm``.

    Iteratively reweighted least squares begins at means μ₀ that are the targets, 0.1 more for a Poisson family, with
    weights (dμ/draw)² / μ^p there (McCullagh & Nelder, 1989, §2.5; R's ``family$initialize``).

    Parameters
    ----------
    family : Tweedie
        The family, with its link.
    """

    family: Tweedie = Tweedie()
    name: ClassVar[str] = "working_response"

    @property
    def targets(self) -> Interval:
        """Those of the family."""
        return self.family.targets

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """½ weight · (raw − link(μ₀))² and its derivative."""
        weight, response = self._working(y)
        residual = raw - response
        return 0.5 * weight * residual * residual, weight * residual

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return the weight times ``direction``."""
        return self._working(y)[0] * direction

    def predict(self, raw: Array) -> Array:
        """Return the family's mean."""
        return self.family.predict(raw)

    def start(self, mean: Floats) -> Floats:
        """Return the family's start."""
        return self.family.start(mean)

    def _working(self, y: Array) -> tuple[Array, Array]:
        power, link = self.family.power, self.family._link_power
        mean = y + 0.1 if 1 <= power < 2 else y
        if power == 0 and link == -1:
            mean = np.where(mean == 0, 1e-3, mean)
        elif power == 0 and link != 1:
            mean = np.maximum(mean, 1e-3)
        slope = self.family._slope * mean ** (1 - link)
        return slope * slope / mean**power, np.log(mean) if link == 0 else mean**link


@dataclass(frozen=True)
class Gaussian(Tweedie):
    """Half the squared residual of the mean, through a link; with the identity it is ``SquaredError``.

    Parameters
    ----------
    link : {"identity", "log", "inverse"}, default "identity"
        From mean to raw prediction.
    """

    power: float = field(default=0.0, init=False)
    link: str | float = "identity"
    name: ClassVar[str] = "gaussian"


@dataclass(frozen=True)
class Poisson(Tweedie):
    """Half the Poisson deviance of counts, y log(y/μ) − y + μ.

    Parameters
    ----------
    link : {"log", "identity", "sqrt"}, default "log"
        From mean to raw prediction.

    Examples
    --------
    >>> import numpy as np
    >>> Poisson().value_gradient(np.array([0.0, 3.0]), np.zeros(2))[1]
    array([ 1., -2.])
    """

    power: float = field(default=1.0, init=False)
    name: ClassVar[str] = "poisson"


@dataclass(frozen=True)
class Gamma(Tweedie):
    """Half the Gamma deviance of positive amounts, y/μ − log(y/μ) − 1.

    Parameters
    ----------
    link : {"log", "inverse", "identity"}, default "log"
        From mean to raw prediction. pyspark.ml's default is "inverse".

    Examples
    --------
    >>> import numpy as np
    >>> Gamma().value_gradient(np.array([1.0, 3.0]), np.zeros(2))[1]
    array([ 0., -2.])
    """

    power: float = field(default=2.0, init=False)
    name: ClassVar[str] = "gamma"


@dataclass(frozen=True)
class Binomial(Loss):
    """Half the deviance of a share of hits in [0, 1] through a link other than the log-odds.

    For targets 0 and 1 it is the negative log-likelihood; the row's weight is the number of trials of a share. For
    log-odds see :class:`BinomialLogit`.

    Parameters
    ----------
    link : {"probit", "cloglog"}, default "probit"
        raw = Φ⁻¹(μ) (Bliss, 1934), or log(−log(1 − μ)) (McCullagh & Nelder, 1989, §4.3.1).

    Examples
    --------
    >>> import numpy as np
    >>> Binomial("probit").predict(np.array([0.0, 1.96])).round(3)
    array([0.5  , 0.975])
    """

    link: str = "probit"
    name: ClassVar[str] = "binomial"
    targets: Interval = field(default=Interval(0, 1), init=False, repr=False)

    def __post_init__(self) -> None:
        check("link", self.link, OneOf(["probit", "cloglog"]))

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Half the deviance and its derivative."""
        value, gradient, _ = self._derivatives(y, raw)
        return value, gradient

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return the second derivative times ``direction``."""
        return self._derivatives(y, raw)[2] * direction

    def predict(self, raw: Array) -> Array:
        """Return the probability of class 1."""
        if self.link == "probit":
            probability: Array = scipy.special.ndtr(raw)
            return probability
        return -np.expm1(-np.exp(np.minimum(raw, 10)))  # beyond 10 the probability is 1 in every type

    def start(self, mean: Floats) -> Floats:
        """Return the link of the share of class 1, of a half where only one class occurs."""
        share = np.where((mean > 0) & (mean < 1), mean, 0.5)
        return scipy.special.ndtri(share) if self.link == "probit" else np.log(-np.log1p(-share))

    def _derivatives(self, y: Array, raw: Array) -> tuple[Array, Array, Array]:
        """Return the loss, and its first and second derivative."""
        raw = raw.astype(np.float64)  # the tails are differences of large numbers
        likelihood = _probit if self.link == "probit" else _cloglog
        if ((y == 0) | (y == 1)).all():
            return likelihood(y, raw)
        hit, miss = likelihood(np.ones_like(raw), raw), likelihood(np.zeros_like(raw), raw)
        value, first, second = (y * a + (1 - y) * b for a, b in zip(hit, miss, strict=True))
        return value - _entropy(y), first, second


@dataclass(frozen=True)
class BinomialLogit(Logistic):
    """Half the deviance of a share of hits in [0, 1] with log-odds ``raw``.

    For targets 0 and 1 it is `Logistic`; the row's weight is the number of trials of a share.

    Examples
    --------
    >>> import numpy as np
    >>> BinomialLogit().value_gradient(np.array([0.5, 1.0]), np.zeros(2))[0].round(4).tolist()
    [0.0, 0.6931]
    """

    name: ClassVar[str] = "binomial_logit"
    targets: Interval = field(default=Interval(0, 1), init=False, repr=False)

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Half the deviance, and probability − y."""
        value, gradient = super().value_gradient(y, raw)
        return value - _entropy(y).astype(value.dtype, copy=False), gradient


def _entropy(y: Array) -> Array:
    """−y log y − (1 − y) log(1 − y): what a perfect prediction of shares still costs."""
    y = y.astype(np.float64, copy=False)
    entropy: Array = scipy.special.entr(y) + scipy.special.entr(1 - y)
    return entropy


def _probit(y: Array, raw: Array) -> tuple[Array, Array, Array]:
    """−log Φ(x) for x = ±raw: the derivative is −h, h the inverse Mills ratio, whose derivative is −h (x + h)."""
    sign = 2 * y - 1
    x = sign * raw
    # φ/Φ through the scaled complementary error function, which does not underflow where both do
    ratio = np.sqrt(2 / np.pi) / scipy.special.erfcx(np.minimum(-x, 1e150) / np.sqrt(2))
    value = -scipy.special.log_ndtr(x)
    far = x < -1e3  # x + h, which is 1/|x| up to 2/|x|³ there, cancels
    with np.errstate(divide="ignore"):
        gap = np.where(far, -1 / x, x + ratio)
    return value, -sign * ratio, ratio * gap


def _cloglog(y: Array, raw: Array) -> tuple[Array, Array, Array]:
    """T = e^raw for y = 0; −log(1 − e^−t) for y = 1, with derivative −u, u = t / (e^t − 1)."""
    with np.errstate(over="ignore"):
        t = np.exp(raw)
    near = np.exp(np.clip(raw, -30, 6.5))  # below, u is 1 in every type; above, it is 0
    share = near / np.expm1(near)
    ones = y == 1
    hit = np.where(raw > 0, -np.log1p(-np.exp(-near)), -np.log(-np.expm1(-near)))
    hit = np.where(raw < -30, -raw, hit)
    return np.where(ones, hit, t), np.where(ones, -share, t), np.where(ones, share * (share + near - 1), t)

"""Families of generalised linear models row by row, and the sums over rows that their summaries are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy  # loads scipy.special where it is used

from sparkopt.losses import Loss
from sparkopt.ml.metrics.tallies import Tally
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["DevianceTally", "Family", "LikelihoodTally", "NullTally"]


@dataclass(frozen=True)
class Family:
    """A family of distributions with its link, row by row; all arrays have shape (n,).

    Parameters
    ----------
    loss : Loss
        Half the deviance, by target and linear prediction.
    power : float or None
        The variance is this power of the mean; None is the binomial family.
    """

    loss: Loss
    power: float | None

    def variance(self, mean: Array) -> Array:
        """Variance at the mean, for a dispersion of 1."""
        return mean * (1 - mean) if self.power is None else mean**self.power

    def deviance(self, y: Array, raw: Array) -> Array:
        """Unit deviance."""
        return 2 * self.loss.value_gradient(y, raw)[0]

    def information(self, raw: Array) -> Array:
        """Expected second derivative of half the deviance, (dμ/draw)² / variance: IRLS's working weight.

        Half the deviance's second derivative is linear in the target, so its expectation is its value at the mean;
        of a binary target it is only known for 0 and 1.
        """
        mean, one = self.loss.predict(raw), np.ones_like(raw)
        if self.power is not None:
            return self.loss.hessian_product(mean, raw, one)
        positive, negative = (self.loss.hessian_product(target, raw, one) for target in (one, 0 * one))
        return np.asarray(mean * positive + (1 - mean) * negative)

    def residuals(self, kind: str, y: Array, raw: Array, weight: Array) -> Array:
        """Residuals: "deviance", "pearson", "working" or "response"."""
        mean = self.loss.predict(raw)
        if kind == "response":
            found = y - mean
        elif kind == "pearson":
            found = (y - mean) * np.sqrt(weight / self.variance(mean))
        elif kind == "working":  # (y − μ) dη/dμ
            found = -self.loss.value_gradient(y, raw)[1] / self.information(raw)
        else:
            found = np.where(y > mean, 1.0, -1.0) * np.sqrt(weight * np.maximum(self.deviance(y, raw), 0))
        return np.asarray(found)

    def log_likelihood(self, y: Array, raw: Array, weight: Array, dispersion: float) -> Array:
        """Log-likelihood as pyspark.ml's AIC counts it: binomial weights are numbers of trials."""
        mean = self.loss.predict(raw)
        if self.power is None:
            trials, hits = np.round(weight), np.round(y * weight)
            orders = (
                scipy.special.gammaln(trials + 1)
                - scipy.special.gammaln(hits + 1)
                - scipy.special.gammaln(trials - hits + 1)
            )
            return np.asarray(orders + scipy.special.xlogy(hits, mean) + scipy.special.xlog1py(trials - hits, -mean))
        if self.power == 1:
            return np.asarray(weight * (scipy.special.xlogy(y, mean) - mean - scipy.special.gammaln(y + 1)))
        shape = 1 / dispersion
        density = (
            (shape - 1) * np.log(y) - y * shape / mean - scipy.special.gammaln(shape) + shape * np.log(shape / mean)
        )
        return np.asarray(weight * density)


class _Sums(Tally):
    """Sums by name."""

    names: tuple[str, ...]

    def merge(self, other: Any) -> None:
        for name in self.names:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class DevianceTally(_Sums):
    """Sums of targets and deviances; what a model says is its linear prediction, shape (n,).

    Attributes
    ----------
    family : Family
        The family.
    rows : int
        Number of rows.
    weight, weighted_label, log_weight : float
        Σ w, Σ w y and Σ log w.
    deviance, pearson : float
        Σ w · deviance, and the sum of squared Pearson residuals.
    """

    family: Family
    rows: int = 0
    weight: float = 0.0
    weighted_label: float = 0.0
    log_weight: float = 0.0
    deviance: float = 0.0
    pearson: float = 0.0

    names = ("rows", "weight", "weighted_label", "log_weight", "deviance", "pearson")

    def add(self, y: Floats, weight: Floats, found: Array) -> None:
        self.rows += len(y)
        self.weight += float(weight.sum())
        self.weighted_label += float(weight @ y)
        with np.errstate(divide="ignore"):
            self.log_weight += float(np.log(weight).sum())
        self.deviance += float(weight @ self.family.deviance(y, found))
        self.pearson += float(np.square(self.family.residuals("pearson", y, found, weight)).sum())

    @property
    def label(self) -> float:
        """Mean of the targets."""
        return self.weighted_label / self.weight


@dataclass
class NullTally(_Sums):
    """Sums of a model of an intercept alone; what is tallied are the offsets, shape (n,).

    Attributes
    ----------
    family : Family
        The family.
    intercept : float
        The intercept.
    deviance : float
        Σ w · deviance.
    slope, information : float
        Derivative of half of it by the intercept, and the expected second one.
    """

    family: Family
    intercept: float
    deviance: float = 0.0
    slope: float = 0.0
    information: float = 0.0

    names = ("deviance", "slope", "information")

    def add(self, y: Floats, weight: Floats, found: Array) -> None:
        raw = found + self.intercept
        self.deviance += float(weight @ self.family.deviance(y, raw))
        self.slope += float(weight @ self.family.loss.value_gradient(y, raw)[1])
        self.information += float(weight @ self.family.information(raw))


@dataclass
class LikelihoodTally(_Sums):
    """The sum of log-likelihoods; what a model says is its linear prediction, shape (n,)."""

    family: Family
    dispersion: float
    total: float = 0.0

    names = ("total",)

    def add(self, y: Floats, weight: Floats, found: Array) -> None:
        self.total += float(self.family.log_likelihood(y, found, weight, self.dispersion).sum())

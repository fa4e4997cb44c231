"""How well a generalised linear model fits: deviance, dispersion, AIC, residuals, and its coefficients' errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf
from scipy import special

from sparkopt.blocks.columns import features_column, quoted
from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.io.worker import spare_modules
from sparkopt.losses import Loss
from sparkopt.ml.summary.base import Summary, TrainingSummary
from sparkopt.ml.summary.inference import CoefficientTests, HasCoefficientTests, gram_matrix
from sparkopt.ml.summary.sums import totals
from sparkopt.typing import Array, Floats

__all__ = ["Family", "GeneralizedLinearRegressionSummary", "GeneralizedLinearRegressionTrainingSummary"]


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
            orders = special.gammaln(trials + 1) - special.gammaln(hits + 1) - special.gammaln(trials - hits + 1)
            return np.asarray(orders + special.xlogy(hits, mean) + special.xlog1py(trials - hits, -mean))
        if self.power == 1:
            return np.asarray(weight * (special.xlogy(y, mean) - mean - special.gammaln(y + 1)))
        shape = 1 / dispersion
        density = (shape - 1) * np.log(y) - y * shape / mean - special.gammaln(shape) + shape * np.log(shape / mean)
        return np.asarray(weight * density)


SCORINGS = 25
"""Most steps to the intercept of the null model, as pyspark.ml takes for a fit."""
RESIDUALS = ("deviance", "pearson", "working", "response")


@dataclass(frozen=True, eq=False)
class GeneralizedLinearRegressionSummary(HasCoefficientTests, Summary):
    """How well a generalised linear model fits some rows."""

    @cached_property
    def _family(self) -> Family:
        name = self.model.getOrDefault("family")
        powers = {"binomial": None, "gaussian": 0.0, "poisson": 1.0, "gamma": 2.0}
        return Family(self.model._family_loss(), powers.get(name, self.model.getOrDefault("variancePower")))

    @property
    def _raw(self) -> Column:
        return F.col(quoted(self._scorer.getLinkPredictionCol()))

    def _each(self, function: Callable[..., Array], *columns: Column) -> Column:
        """Apply a function of arrays to columns of doubles."""
        found: Column = _vectorised(function)(F.array(*columns))
        return found

    @cached_property
    def _sums(self) -> dict[str, float]:
        family, weight, label = self._family, self._weight, self._label
        deviance = self._each(family.deviance, label, self._raw)
        pearson = self._each(_Residual(family, "pearson"), label, self._raw, weight)
        return totals(
            self.predictions,
            weight=F.sum(weight),
            label=F.sum(weight * label) / F.sum(weight),
            log_weight=F.sum(F.log(weight)),
            deviance=F.sum(weight * deviance),
            pearson=F.sum(pearson * pearson),
        )

    @property
    def numInstances(self) -> int:
        """Number of rows."""
        return int(self._sums["rows"])

    @property
    def rank(self) -> int:
        """Number of fitted coefficients, the intercept included."""
        return int(self.model.numFeatures) + int(self.model.getFitIntercept())

    @property
    def degreesOfFreedom(self) -> int:
        """Rows less fitted coefficients."""
        return self.numInstances - self.rank

    @property
    def residualDegreeOfFreedom(self) -> int:
        """The same."""
        return self.degreesOfFreedom

    @property
    def residualDegreeOfFreedomNull(self) -> int:
        """The same for a model of the intercept alone."""
        return self.numInstances - int(self.model.getFitIntercept())

    @property
    def deviance(self) -> float:
        """Sum of the rows' deviances."""
        return self._sums["deviance"]

    @cached_property
    def nullDeviance(self) -> float:
        """Deviance of a model of the intercept alone; of a linear prediction of 0, without one."""
        raw = F.lit(self._null_intercept) + self._offset
        deviance = self._each(self._family.deviance, self._label, raw)
        return totals(self.predictions, deviance=F.sum(self._weight * deviance))["deviance"]

    @property
    def _offset(self) -> Column:
        name = self.model._columns().offset
        return F.lit(0.0) if name is None else F.col(quoted(name)).cast("double")

    @property
    def _null_intercept(self) -> float:
        """The intercept that fits best alone: of the targets' mean, or with an offset by Fisher scoring."""
        if not self.model.getFitIntercept():
            return 0.0
        intercept = float(self._family.loss.start(np.array([self._sums["label"]]))[0])
        if self.model._columns().offset is None:
            return intercept
        for _ in range(SCORINGS):
            raw = F.lit(intercept) + self._offset
            found = totals(
                self.predictions,
                slope=F.sum(self._weight * self._each(_Slope(self._family), self._label, raw)),
                information=F.sum(self._weight * self._each(self._family.information, raw)),
            )
            step = found["slope"] / found["information"]
            intercept -= step
            if abs(step) <= 1e-9 * (1 + abs(intercept)):
                break
        return intercept

    @property
    def dispersion(self) -> float:
        """1 for the binomial and Poisson families, else squared Pearson residuals over the degrees of freedom."""
        return 1.0 if self._is_unit_dispersion else self._sums["pearson"] / self.degreesOfFreedom

    @cached_property
    def aic(self) -> float:
        """Akaike's information criterion.

        Raises
        ------
        IncompatibleError
            For a Tweedie family, whose density has no closed form.
        """
        n, family = self.numInstances, self.model.getOrDefault("family")
        if family == "tweedie":
            raise IncompatibleError("family='tweedie' has no AIC: its density has no closed form. Use deviance.")
        if family == "gaussian":
            likelihood = n * (np.log(self.deviance / n * 2 * np.pi) + 1) - self._sums["log_weight"]
            return float(likelihood + 2 * (self.rank + 1))
        dispersion = self.deviance / self._sums["weight"]
        rows = self._each(_LogLikelihood(self._family, dispersion), self._label, self._raw, self._weight)
        found = totals(self.predictions, rows_likelihood=F.sum(rows))["rows_likelihood"]
        return -2 * found + 2 * (self.rank + int(family == "gamma"))

    def residuals(self, residualsType: str = "deviance") -> DataFrame:
        """Return the rows' residuals as one column, ``devianceResiduals`` and so on.

        Parameters
        ----------
        residualsType : {"deviance", "pearson", "working", "response"}, default "deviance"
            Which.
        """
        if residualsType not in RESIDUALS:
            raise ParameterError(
                f"residualsType must be one of {', '.join(RESIDUALS)}. Got {residualsType!r} instead."
            )
        each = self._each(_Residual(self._family, residualsType), self._label, self._raw, self._weight)
        return self.predictions.select(each.alias(f"{residualsType}Residuals"))

    @property
    def _is_unit_dispersion(self) -> bool:
        return self.model.getOrDefault("family") in ("binomial", "poisson")

    def _test_coefficients(self) -> CoefficientTests:
        features = features_column(self.dataset.schema, self.featuresCol)
        weight = self._weight * self._each(self._family.information, self._raw)
        information = gram_matrix(self.predictions, features, weight, intercept=self.model.getFitIntercept())
        degrees = None if self._is_unit_dispersion else self.degreesOfFreedom
        return CoefficientTests.of(self._estimates, information, self.dispersion, degrees)


@dataclass(frozen=True, eq=False)
class GeneralizedLinearRegressionTrainingSummary(TrainingSummary, GeneralizedLinearRegressionSummary):
    """Training, and the fit to the rows trained on; printed, it is R's table."""

    @property
    def numIterations(self) -> int:
        """Steps taken."""
        return self.totalIterations

    @property
    def solver(self) -> str:
        """The optimiser."""
        return self.receipt.optimizer

    def __str__(self) -> str:
        names = self.featuresCol
        if isinstance(names, str):
            names = [f"{names}_{i}" for i in range(self.model.numFeatures)]
        names = [*names, "(Intercept)"] if self.model.getFitIntercept() else names
        columns = zip(names, self._estimates, self.coefficientStandardErrors, self.tValues, self.pValues, strict=True)
        table = [["Feature", "Estimate", "Std Error", "T Value", "P Value"]]
        table += [[name, *(f"{number:.4f}" for number in numbers)] for name, *numbers in columns]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [" ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
        family = self.model.getOrDefault("family")
        lines += [
            "",
            f"(Dispersion parameter for {family} family taken to be {self.dispersion:.4f})",
            f"    Null deviance: {self.nullDeviance:.4f} on {self.residualDegreeOfFreedomNull} degrees of freedom",
            f"Residual deviance: {self.deviance:.4f} on {self.degreesOfFreedom} degrees of freedom",
        ]
        if family != "tweedie":
            lines.append(f"AIC: {self.aic:.4f}")
        return "\n".join(["Coefficients:", *lines])


@dataclass(frozen=True)
class _Residual:
    family: Family
    kind: str

    def __call__(self, y: Array, raw: Array, weight: Array) -> Array:
        return self.family.residuals(self.kind, y, raw, weight)


@dataclass(frozen=True)
class _Slope:
    family: Family

    def __call__(self, y: Array, raw: Array) -> Array:
        return self.family.loss.value_gradient(y, raw)[1]


@dataclass(frozen=True)
class _LogLikelihood:
    family: Family
    dispersion: float

    def __call__(self, y: Array, raw: Array, weight: Array) -> Array:
        return self.family.log_likelihood(y, raw, weight, self.dispersion)


def _vectorised(function: Callable[..., Array]) -> Any:
    """Return an Arrow UDF from an array of doubles to a double, for a function of as many NumPy arrays."""

    def apply(values: pa.Array) -> pa.Array:
        spare_modules()
        if not len(values):
            return pa.array([], pa.float64())
        table: Floats = values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)
        return pa.array(np.asarray(function(*table.T), dtype=np.float64))

    apply.__annotations__ = {"values": pa.Array, "return": pa.Array}
    return arrow_udf(apply, "double")  # type: ignore[call-overload]  # its stubs lack type strings

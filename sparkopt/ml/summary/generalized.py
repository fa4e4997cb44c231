"""How well a generalised linear model fits: deviance, dispersion, AIC, residuals, and its coefficients' errors."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.ml.metrics.judged import Judged
from sparkopt.ml.summary.base import Summary, TrainingSummary
from sparkopt.ml.summary.family import DevianceTally, Family, LikelihoodTally, NullTally
from sparkopt.ml.summary.inference import CoefficientTests, HasCoefficientTests, gram_matrix
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["GeneralizedLinearRegressionSummary", "GeneralizedLinearRegressionTrainingSummary"]


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
    def _rawCol(self) -> str:
        return str(self._scorer.getLinkPredictionCol())

    @cached_property
    def _sums(self) -> DevianceTally:
        judged = {"deviance": Judged(DevianceTally(self._family), self._rawCol)}
        sums: DevianceTally = self._tallied(judged)["deviance"]
        return sums

    @property
    def numInstances(self) -> int:
        """Number of rows."""
        return self._sums.rows

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
        return self._sums.deviance

    @cached_property
    def nullDeviance(self) -> float:
        """Deviance of a model of the intercept alone; of a linear prediction of 0, without one."""
        return self._null(self._null_intercept).deviance

    def _null(self, intercept: float) -> NullTally:
        """Return the sums of a model of this intercept, and of the offset where there is one."""
        offset = self.model._columns().offset
        judged = {"null": Judged(NullTally(self._family, intercept), offset)}
        found: NullTally = self._tallied(judged)["null"]
        return found

    @property
    def _null_intercept(self) -> float:
        """The intercept that fits best alone: of the targets' mean, or with an offset by Fisher scoring."""
        if not self.model.getFitIntercept():
            return 0.0
        intercept = float(self._family.loss.start(np.array([self._sums.label]))[0])
        if self.model._columns().offset is None:
            return intercept
        for _ in range(SCORINGS):
            found = self._null(intercept)
            step = found.slope / found.information
            intercept -= step
            if abs(step) <= 1e-9 * (1 + abs(intercept)):
                break
        return intercept

    @property
    def dispersion(self) -> float:
        """1 for the binomial and Poisson families, else squared Pearson residuals over the degrees of freedom."""
        return 1.0 if self._is_unit_dispersion else self._sums.pearson / self.degreesOfFreedom

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
            likelihood = n * (np.log(self.deviance / n * 2 * np.pi) + 1) - self._sums.log_weight
            return float(likelihood + 2 * (self.rank + 1))
        dispersion = self.deviance / self._sums.weight
        judged = {"rows": Judged(LikelihoodTally(self._family, dispersion), self._rawCol)}
        found: LikelihoodTally = self._tallied(judged)["rows"]
        return -2 * found.total + 2 * (self.rank + int(family == "gamma"))

    def residuals(self, residualsType: str = "deviance") -> Any:
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
        columns = (self.labelCol, self._rawCol, *([self.weightCol] if self.weightCol else []))
        return self._of_each_row(f"{residualsType}Residuals", _Residual(self._family, residualsType), columns)

    @property
    def _is_unit_dispersion(self) -> bool:
        return self.model.getOrDefault("family") in ("binomial", "poisson")

    def _test_coefficients(self) -> CoefficientTests:
        factor = (self._family.information, self._rawCol)
        intercept = self.model.getFitIntercept()
        information = gram_matrix(self._rows, self.featuresCol, self.weightCol, intercept=intercept, factor=factor)
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
        """The method under pyspark.ml's name where the estimator's optimizer was "auto", else that optimiser."""
        return str(self.model.getSolver()) if self.model.getOptimizer() == "auto" else self.receipt.optimizer

    def __str__(self) -> str:
        names = self.model.featureNames or self.featuresCol
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
    """Residuals of a kind; without weights, each is 1."""

    family: Family
    kind: str

    def __call__(self, y: Array, raw: Array, weight: Array | None = None) -> Array:
        return self.family.residuals(self.kind, y, raw, np.ones_like(raw) if weight is None else weight)

"""How close a regression's predictions are."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from sparkopt.errors import IncompatibleError
from sparkopt.ml.metrics.judged import Judged
from sparkopt.ml.metrics.tallies import ResidualTally
from sparkopt.ml.summary.base import Summary, TrainingSummary, as_list
from sparkopt.ml.summary.inference import CoefficientTests, HasCoefficientTests, gram_matrix
from sparkopt.values import dataclass

__all__ = [
    "LinearRegressionSummary",
    "LinearRegressionTrainingSummary",
    "QuantileRegressionSummary",
    "QuantileRegressionTrainingSummary",
    "RegressionSummary",
    "RegressionTrainingSummary",
]


@dataclass(frozen=True, eq=False)
class RegressionSummary(Summary):
    """How close a regression's predictions are."""

    @cached_property
    def _sums(self) -> ResidualTally:
        judged = {"residuals": Judged(ResidualTally(), self.predictionCol)}
        sums: ResidualTally = self._tallied(judged)["residuals"]
        return sums

    @property
    def numInstances(self) -> int:
        """Number of rows."""
        return self._sums.rows

    @property
    def meanSquaredError(self) -> float:
        """Mean of squared residuals."""
        return self._sums.squares / self._sums.weight

    @property
    def rootMeanSquaredError(self) -> float:
        """Square root of the mean squared error."""
        return float(np.sqrt(self.meanSquaredError))

    @property
    def meanAbsoluteError(self) -> float:
        """Mean of absolute residuals."""
        return self._sums.absolutes / self._sums.weight

    @property
    def explainedVariance(self) -> float:
        """Mean square of prediction − mean label, as pyspark.ml has it."""
        return self._sums.prediction_spread / self._sums.weight

    @property
    def r2(self) -> float:
        """Coefficient of determination; about zero, not about the mean, for a model without intercept.

        pyspark.ml's, but for rows of unequal weights, where it also depends on the weights' unit; this one does not,
        and equals scikit-learn's.
        """
        around = self._sums.spreads[0] if self.model.getFitIntercept() else self._sums.label_squares
        return float(1.0 - self._sums.squares / around)

    @property
    def r2adj(self) -> float:
        """R² adjusted for the number of features."""
        free = self.numInstances - int(self.model.getFitIntercept())
        return 1.0 - (1.0 - self.r2) * free / self.degreesOfFreedom

    @property
    def degreesOfFreedom(self) -> int:
        """Rows less fitted parameters."""
        return self.numInstances - int(self.model.numFeatures) - int(self.model.getFitIntercept())

    @property
    def residuals(self) -> Any:
        """Label less prediction, column ``residuals``."""
        return self._of_each_row("residuals", np.subtract, (self.labelCol, self.predictionCol))

    @property
    def devianceResiduals(self) -> list[float]:
        """Smallest and largest residual, each times the square root of its weight."""
        return as_list(self._sums.range)


@dataclass(frozen=True, eq=False)
class RegressionTrainingSummary(TrainingSummary, RegressionSummary):
    """Training, and the predictions on the rows trained on."""


@dataclass(frozen=True, eq=False)
class LinearRegressionSummary(HasCoefficientTests, RegressionSummary):
    """How close the predictions are, and how certain the coefficients of least squares are."""

    def _test_coefficients(self) -> CoefficientTests:
        if (loss := self.model.getOrDefault("loss")) != "squaredError":
            raise IncompatibleError(
                f"standard errors are those of least squares; this model has loss={loss!r}. "
                f"Fit with loss='squaredError'."
            )
        gram = gram_matrix(self._rows, self.featuresCol, self.weightCol, intercept=self.model.getFitIntercept())
        return CoefficientTests.of(
            self._estimates, gram, self._sums.squares / self.degreesOfFreedom, self.degreesOfFreedom
        )


@dataclass(frozen=True, eq=False)
class LinearRegressionTrainingSummary(TrainingSummary, LinearRegressionSummary):
    """Training, and the predictions on the rows trained on."""


@dataclass(frozen=True, eq=False)
class QuantileRegressionSummary(RegressionSummary):
    """How close the predictions are, by the quantile's own measure too."""

    @property
    def meanQuantileLoss(self) -> float:
        """Mean of q · residual where it is positive and (q − 1) · residual where not: what was minimised."""
        sums, q = self._sums, self.model.getOrDefault("quantile")
        return float(sums.absolutes / sums.weight / 2 + (q - 0.5) * (sums.means[0] - sums.means[1]))


@dataclass(frozen=True, eq=False)
class QuantileRegressionTrainingSummary(TrainingSummary, QuantileRegressionSummary):
    """Training, and the predictions on the rows trained on."""

"""Regression of survival times, some of which are censored: the accelerated failure time model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pyspark import keyword_only
from pyspark.ml.linalg import DenseVector, Vector
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import DataFrame
from pyspark.sql.types import DataType

from sparkopt.blocks.columns import Columns
from sparkopt.blocks.moments import Moments
from sparkopt.blocks.targets import CensoredTimes
from sparkopt.errors import ParameterError
from sparkopt.losses import AcceleratedFailureTime, Loss
from sparkopt.ml import expressions
from sparkopt.ml.arguments import LinearArguments, documented
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.expressions import Formulas
from sparkopt.ml.model import NUMBER, VECTOR, ScalarModel
from sparkopt.ml.params import LinearParams
from sparkopt.ml.responses import Response, SurvivalTimes
from sparkopt.ml.summary.survival import SurvivalSummary, SurvivalTrainingSummary
from sparkopt.training.trainer import Fit
from sparkopt.typing import Floats
from sparkopt.validation import Interval

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AFTSurvivalRegression", "AFTSurvivalRegressionModel"]

S = TypeVar("S", bound="_SurvivalParams")
A = TypeVar("A", bound="AFTSurvivalRegression")

QUANTILES = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99]
TIMES = Interval(0, None, closed="neither")


class _SurvivalParams(LinearParams):
    censorCol: Param[str] = Param(
        Params._dummy(),
        "censorCol",
        "column that is 1 where the time was observed (uncensored) and 0 where it is censored",
        typeConverter=TypeConverters.toString,
    )
    quantileProbabilities: Param[list[float]] = Param(
        Params._dummy(),
        "quantileProbabilities",
        "probabilities in (0, 1) of the quantiles in quantilesCol",
        typeConverter=TypeConverters.toListFloat,
    )
    quantilesCol: Param[str] = Param(
        Params._dummy(),
        "quantilesCol",
        'output column of quantiles; "" leaves it out',
        typeConverter=TypeConverters.toString,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(censorCol="censor", quantileProbabilities=list(QUANTILES))

    def getCensorCol(self) -> str:
        """Return censorCol."""
        return self.getOrDefault(self.censorCol)

    def getQuantileProbabilities(self) -> list[float]:
        """Return quantileProbabilities."""
        return self.getOrDefault(self.quantileProbabilities)

    def getQuantilesCol(self) -> str:
        """Return quantilesCol, "" where there is none."""
        return (self.getOrDefault(self.quantilesCol) or "") if self.isDefined(self.quantilesCol) else ""

    def setQuantileProbabilities(self: S, value: Sequence[float]) -> S:
        """Set the probabilities of the quantiles."""
        return self._set(quantileProbabilities=list(value))

    def setQuantilesCol(self: S, value: str) -> S:
        """Set the column of quantiles; "" leaves it out."""
        return self._set(quantilesCol=value)

    def _columns(self) -> Columns:
        return replace(super()._columns(), more_labels=(self.getCensorCol(),), combine=CensoredTimes())

    def _check_params(self) -> None:
        super()._check_params()
        values = self.getQuantileProbabilities()
        if not values or not Interval(0, 1, closed="neither").contains(np.array(values)).all():
            raise ParameterError(f"quantileProbabilities must be in (0, 1), at least one. Got {values} instead.")


class AFTSurvivalRegressionModel(ScalarModel[SurvivalTrainingSummary], _SurvivalParams):
    """Coefficients, intercept and scale of an accelerated failure time model."""

    _has_onnx = False

    @property
    def scale(self) -> float:
        """Scale σ of the logarithms of times: 1 for exponentially distributed ones."""
        return float(np.exp(self.auxiliary[0]))

    def predictQuantiles(self, features: Vector) -> DenseVector:
        """Return the quantiles of the time for one row's features, at quantileProbabilities."""
        return DenseVector(self._outputs_of(features)["quantiles"][0])

    def evaluate(self, dataset: DataFrame) -> SurvivalSummary:
        return SurvivalSummary(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[SurvivalTrainingSummary]:
        return SurvivalTrainingSummary

    @property
    def _factors(self) -> Floats:
        """Quantiles of a time whose logarithm is predicted as 0."""
        factors: Floats = np.exp(np.log(-np.log1p(-np.array(self.getQuantileProbabilities()))) * self.scale)
        return factors

    @property
    def _response(self) -> Response:
        return SurvivalTimes(self._factors)

    def _formulas(self, raw: str) -> Formulas | None:
        quantiles = expressions.array(f"(exp({raw}) * {expressions.number(one)})" for one in self._factors)
        return Formulas({"prediction": f"exp({raw})", "quantiles": quantiles})

    def _output_columns(self) -> dict[str, tuple[str, DataType]]:
        return {
            "quantiles": (self.getQuantilesCol(), VECTOR),
            "prediction": (self.getPredictionCol(), NUMBER),
        }


@documented
class AFTSurvivalRegression(LinearEstimator[AFTSurvivalRegressionModel], _SurvivalParams):
    """An accelerated failure time model of survival times, Weibull distributed, some of which are censored.

    log t = x·w + b + σ·ε with ε of the extreme value distribution (Wei, 1992, *The accelerated failure time model*).
    Minimises the mean negative log-likelihood, without the terms that depend on the time alone, + regParam ·
    (½(1−α)‖w‖² + α‖w‖₁): pyspark.ml's objective, which has no penalty.

    Parameters
    ----------
    censorCol : str, default "censor"
        Numeric column: 1 where the time in labelCol, > 0, was observed, and 0 where it is censored: the end came
        later.
    quantileProbabilities : list of float
        Probabilities in (0, 1) of the quantiles in quantilesCol; by default 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9,
        0.95 and 0.99.
    quantilesCol : str, optional
        Output column of the quantiles of the time.
    {shared}

    Notes
    -----
    The prediction is e^(x·w + b), as in pyspark.ml: the time by which a share of 1 − 1/e, 63%, has ended.

    Examples
    --------
    >>> from pyspark.sql import functions as F
    >>> from sparkopt.ml import AFTSurvivalRegression
    >>> ended = (F.col("minutes") < 20).cast("int").alias("ended")
    >>> times = df.select("features", F.exp(F.col("minutes") / 10).alias("time"), ended)
    >>> model = AFTSurvivalRegression(labelCol="time", censorCol="ended", quantilesCol="quantiles").fit(times)
    >>> model.scale > 0
    True
    """

    @keyword_only
    def __init__(
        self,
        *,
        censorCol: str = "censor",
        quantileProbabilities: list[float] = QUANTILES,  # which nothing changes; pyspark.ml's too
        quantilesCol: str | None = None,
        **shared: Unpack[LinearArguments],
    ) -> None:
        super().__init__()
        self._configure(self._input_kwargs)

    @keyword_only
    def setParams(
        self,
        *,
        censorCol: str = "censor",
        quantileProbabilities: list[float] = QUANTILES,
        quantilesCol: str | None = None,
        **shared: Unpack[LinearArguments],
    ) -> AFTSurvivalRegression:
        """Set the parameters that are given; names and types are the constructor's."""
        return self._configure(self._input_kwargs)

    def setCensorCol(self: A, value: str) -> A:
        """Set the column that is 1 where the time was observed."""
        return self._set(censorCol=value)

    @property
    def _targets(self) -> Interval:
        return TIMES

    @property
    def _label_hint(self) -> str:
        return "A time of 0 has no logarithm: leave such rows out, or measure in a finer unit."

    def _loss(self, moments: Moments) -> Loss:
        return AcceleratedFailureTime()

    def _model(self, fit: Fit) -> AFTSurvivalRegressionModel:
        return AFTSurvivalRegressionModel(fit.coefficients.T, fit.intercept, fit.auxiliary)

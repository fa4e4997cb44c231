"""Logistic regression, binomial and multinomial."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyspark import keyword_only
from pyspark.ml.linalg import DenseMatrix, DenseVector, Vector
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasProbabilityCol, HasRawPredictionCol
from pyspark.sql import DataFrame
from pyspark.sql.types import DataType

from sparkopt.blocks.moments import Moments
from sparkopt.errors import DataError
from sparkopt.losses import Logistic, Loss, Multinomial
from sparkopt.ml.base import NUMBER, VECTOR, LinearEstimator, LinearModel
from sparkopt.ml.summary import (
    BinaryLogisticRegressionSummary,
    BinaryLogisticRegressionTrainingSummary,
    LogisticRegressionSummary,
    LogisticRegressionTrainingSummary,
)
from sparkopt.trainer import Fit
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, OneOf, check

__all__ = ["LogisticRegression", "LogisticRegressionModel"]

LABELS = Interval(0, None, whole=True)
FAMILIES = OneOf(["auto", "binomial", "multinomial"])


class _ClassifierParams(HasRawPredictionCol, HasProbabilityCol):
    """Output columns of a classifier."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(rawPredictionCol="rawPrediction", probabilityCol="probability")

    def setRawPredictionCol(self, value: str) -> _ClassifierParams:
        """Set the column of raw predictions; "" leaves it out."""
        return self._set(rawPredictionCol=value)

    def setProbabilityCol(self, value: str) -> _ClassifierParams:
        """Set the column of class probabilities; "" leaves it out."""
        return self._set(probabilityCol=value)


class LogisticRegressionModel(LinearModel[LogisticRegressionTrainingSummary], _ClassifierParams):
    """Coefficients and intercepts of a logistic regression: one row for two classes, else one row a class."""

    def __init__(self, matrix: Floats | None = None, intercept: Floats | None = None) -> None:
        super().__init__(
            np.zeros((1, 0)) if matrix is None else matrix, np.zeros(1) if intercept is None else intercept
        )

    @property
    def numClasses(self) -> int:
        """Number of classes."""
        return max(2, self._matrix.shape[0])

    @property
    def coefficientMatrix(self) -> DenseMatrix:
        """Coefficients: 1 × features for two classes (binomial), else classes × features."""
        rows, columns = self._matrix.shape
        return DenseMatrix(rows, columns, self._matrix.ravel(order="F"))

    @property
    def interceptVector(self) -> DenseVector:
        """Intercepts: one for two classes (binomial), else one a class."""
        return DenseVector(self._intercept)

    @property
    def coefficients(self) -> DenseVector:
        """Coefficients of a binomial model.

        Raises
        ------
        AttributeError
            For a multinomial model.
        """
        self._require_binomial("coefficients", "coefficientMatrix")
        return DenseVector(self._matrix[0])

    @property
    def intercept(self) -> float:
        """Intercept of a binomial model.

        Raises
        ------
        AttributeError
            For a multinomial model.
        """
        self._require_binomial("intercept", "interceptVector")
        return float(self._intercept[0])

    def predictRaw(self, value: Vector) -> DenseVector:
        """Return the raw prediction of each class for one row's features."""
        return DenseVector(self._outputs(self._raw(value.toArray()[None, :]))["rawPrediction"][0])

    def predictProbability(self, value: Vector) -> DenseVector:
        """Return the probability of each class for one row's features."""
        return DenseVector(self._outputs(self._raw(value.toArray()[None, :]))["probability"][0])

    def evaluate(self, dataset: DataFrame) -> LogisticRegressionSummary:
        kind = LogisticRegressionSummary if self.numClasses > 2 else BinaryLogisticRegressionSummary
        return kind(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[LogisticRegressionTrainingSummary]:
        return LogisticRegressionTrainingSummary if self.numClasses > 2 else BinaryLogisticRegressionTrainingSummary

    def _require_binomial(self, name: str, instead: str) -> None:
        if self._matrix.shape[0] > 1:
            raise AttributeError(f"a multinomial model has no single vector of {name}: use {instead}.")

    def _outputs(self, raw: Array) -> dict[str, Array]:
        if raw.shape[1] == 1:
            margin = raw[:, 0]
            probability = Logistic().predict(margin)
            opposite = Logistic().predict(-margin)
            return {
                "rawPrediction": np.stack([-margin, margin], axis=1),
                "probability": np.stack([opposite, probability], axis=1),
                "prediction": (margin > 0).astype(np.float64),
            }
        return {
            "rawPrediction": raw,
            "probability": Multinomial(raw.shape[1]).predict(raw),
            "prediction": raw.argmax(axis=1).astype(np.float64),
        }

    def _output_columns(self) -> dict[str, tuple[str, DataType]]:
        return {
            "rawPrediction": (self.getRawPredictionCol(), VECTOR),
            "probability": (self.getProbabilityCol(), VECTOR),
            "prediction": (self.getPredictionCol(), NUMBER),
        }


class LogisticRegression(LinearEstimator[LogisticRegressionModel], _ClassifierParams):
    """Logistic regression with an elastic-net penalty.

    Minimises mean loss + regParam · (½(1−α)‖w‖² + α‖w‖₁), pyspark.ml's objective. Multinomial coefficients without
    penalty, and intercepts always, are determined up to a constant per feature only: they are centred to a mean of
    zero over the classes, as pyspark.ml does.

    Parameters
    ----------
    featuresCol, featuresCols, labelCol, weightCol, predictionCol, maxIter, tol, regParam, elasticNetParam, \
    fitIntercept, standardization, optimizer, stepSize, stepSizeSchedule, miniBatchFraction, seed, aggregationDepth, \
    engine
        As in :class:`sparkopt.ml.LinearRegression`. Labels are 0 … classes − 1.
    family : {"auto", "binomial", "multinomial"}, default "auto"
        "auto" is binomial for labels 0 and 1, else multinomial.
    rawPredictionCol : str, default "rawPrediction"
        Output column of raw predictions.
    probabilityCol : str, default "probability"
        Output column of class probabilities.

    Examples
    --------
    >>> from sparkopt.ml import LogisticRegression                                     # doctest: +SKIP
    >>> model = LogisticRegression(optimizer="adam", miniBatchFraction=0.1).fit(df)    # doctest: +SKIP
    >>> print(model.summary.receipt)                                                   # doctest: +SKIP
    """

    family: Param[str] = Param(
        Params._dummy(), "family", "auto, binomial or multinomial", typeConverter=TypeConverters.toString
    )

    @keyword_only
    def __init__(
        self,
        *,
        featuresCol: str = "features",
        featuresCols: list[str] | None = None,
        labelCol: str = "label",
        weightCol: str | None = None,
        predictionCol: str = "prediction",
        rawPredictionCol: str = "rawPrediction",
        probabilityCol: str = "probability",
        maxIter: int = 100,
        tol: float = 1e-6,
        regParam: float = 0.0,
        elasticNetParam: float = 0.0,
        fitIntercept: bool = True,
        standardization: bool = True,
        family: str = "auto",
        optimizer: str = "auto",
        stepSize: float | None = None,
        stepSizeSchedule: str = "constant",
        miniBatchFraction: float = 1.0,
        seed: int = 0,
        aggregationDepth: int = 2,
        engine: str = "auto",
    ) -> None:
        super().__init__()
        self._setDefault(family="auto")
        self._input_kwargs: dict[str, Any]
        self._set(**self._input_kwargs)

    def getFamily(self) -> str:
        """Return family."""
        return self.getOrDefault(self.family)

    def setFamily(self, value: str) -> LogisticRegression:
        """Set the family of distributions."""
        return self._set(family=value)

    def _check_params(self) -> None:
        super()._check_params()
        check("family", self.getFamily(), FAMILIES)

    @property
    def _targets(self) -> Interval:
        return Logistic().targets if self.getFamily() == "binomial" else LABELS

    def _loss(self, moments: Moments) -> Loss:
        classes = int(moments.target_max) + 1
        if classes > MOST_CLASSES:
            raise DataError(
                f"label column {self.getLabelCol()!r} has labels up to {classes - 1}, more than {MOST_CLASSES} "
                f"classes. Number the classes from 0 (pyspark.ml's StringIndexer does), or use LinearRegression."
            )
        if self.getFamily() == "binomial" or (self.getFamily() == "auto" and classes <= 2):
            return Logistic()
        return Multinomial(max(2, classes))

    def _model(self, fit: Fit) -> LogisticRegressionModel:
        matrix, intercept = fit.coefficients.T, fit.intercept
        if len(intercept) > 1:
            intercept = intercept - intercept.mean()
            if self.getRegParam() == 0:
                matrix = matrix - matrix.mean(axis=0)
        return LogisticRegressionModel(matrix, intercept)


MOST_CLASSES = 10_000
"""Beyond this, labels are far more likely to be row numbers or amounts than classes."""

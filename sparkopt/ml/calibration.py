"""Calibration: probabilities of the scores that a classifier gives, as a stage after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pyspark import keyword_only
from pyspark.ml.linalg import DenseVector, Vector
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasProbabilityCol
from pyspark.sql import DataFrame
from pyspark.sql.types import DataType

from sparkopt.blocks.moments import Moments
from sparkopt.blocks.rows import rows_to_fit, schema_of
from sparkopt.errors import DataError
from sparkopt.losses import Loss, PlattLogistic
from sparkopt.ml.arguments import LinearArguments, documented
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.expressions import Formulas
from sparkopt.ml.isotonic import isotonic_points
from sparkopt.ml.model import NUMBER, VECTOR, ScalarModel
from sparkopt.ml.params import LinearParams
from sparkopt.ml.refusals import illegal_arguments
from sparkopt.ml.responses import CalibratedShares, Response
from sparkopt.ml.summary.classification import CalibrationSummary, CalibrationTrainingSummary
from sparkopt.ml.training import stored
from sparkopt.training.trainer import Fit
from sparkopt.validation import Constraint, Interval, OneOf

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ProbabilityCalibration", "ProbabilityCalibrationModel"]

P = TypeVar("P", bound="_CalibrationParams")
C = TypeVar("C", bound="ProbabilityCalibration")

BIT = Interval(0, 1, whole=True)


class _CalibrationParams(LinearParams, HasProbabilityCol):
    method: Param[str] = Param(
        Params._dummy(),
        "method",
        "sigmoid (Platt's), or isotonic",
        typeConverter=TypeConverters.toString,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(
            method="sigmoid",
            featuresCol="rawPrediction",
            probabilityCol="calibratedProbability",
            predictionCol="calibratedPrediction",
        )

    def getMethod(self) -> str:
        """Return method."""
        return self.getOrDefault(self.method)

    def setProbabilityCol(self: P, value: str) -> P:
        """Set the column of calibrated probabilities; "" leaves it out."""
        return self._set(probabilityCol=value)

    def _domains(self) -> Mapping[str, Constraint]:
        return {**super()._domains(), "method": OneOf(["sigmoid", "isotonic"])}


class ProbabilityCalibrationModel(ScalarModel[CalibrationTrainingSummary], _CalibrationParams):
    """The function from scores to probabilities: a sigmoid, or the points of an ascending line."""

    _has_onnx = False

    @property
    def numClasses(self) -> int:
        """Number of classes."""
        return 2

    @property
    def points(self) -> list[tuple[float, float]]:
        """Scores and probabilities between which an isotonic line runs; empty for a sigmoid."""
        scores, values = self.auxiliary.reshape(2, -1).tolist()
        return list(zip(scores, values, strict=True))

    def predictProbability(self, value: Vector) -> DenseVector:
        """Return the probabilities of both classes for one row's score."""
        return DenseVector(self._outputs_of(value)["probability"][0])

    def evaluate(self, dataset: DataFrame) -> CalibrationSummary:
        return CalibrationSummary(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[CalibrationTrainingSummary]:
        return CalibrationTrainingSummary

    @property
    def _response(self) -> Response:
        return CalibratedShares(self.auxiliary.reshape(2, -1))

    def _formulas(self, raw: str) -> Formulas | None:
        return None

    def _output_columns(self) -> dict[str, tuple[str, DataType]]:
        return {
            "probability": (self.getProbabilityCol(), VECTOR),
            "prediction": (self.getPredictionCol(), NUMBER),
        }


@documented
class ProbabilityCalibration(LinearEstimator[ProbabilityCalibrationModel], _CalibrationParams):
    """Probabilities of the scores that a classifier of two classes gives: a stage after it.

    "sigmoid" is Platt's (1999, *Probabilistic outputs for support vector machines*): a logistic regression of the
    score, with targets that are drawn in from 0 and 1. "isotonic" is the ascending function that is nearest to the
    labels (Zadrozny & Elkan, 2002, *Transforming classifier scores into accurate multiclass probability estimates*),
    linear between its points and constant beyond. Both are those of scikit-learn's ``CalibratedClassifierCV`` for a
    classifier that was trained already. Fit on rows that the classifier was not trained on.

    Parameters
    ----------
    method : {"sigmoid", "isotonic"}, default "sigmoid"
        The function. A sigmoid needs few rows; an isotonic one takes any ascending shape, and some thousand rows.
    probabilityCol : str, default "calibratedProbability"
        Output column of both classes' probabilities; "" leaves it out.
    {shared}

    Notes
    -----
    Of a Vector, such as a classifier's "rawPrediction" or "probability", the last entry is the score of an isotonic
    function. A column of numbers goes into ``featuresCols=["score"]``. Parameters of the optimiser are of the
    sigmoid; an isotonic function is exact.

    Examples
    --------
    >>> from sparkopt.ml import LinearSVC, ProbabilityCalibration
    >>> scored = LinearSVC(regParam=0.01).fit(df).transform(held_out)
    >>> model = ProbabilityCalibration(method="isotonic").fit(scored)
    >>> model.transform(scored).first().calibratedProbability
    DenseVector([...])
    """

    @keyword_only
    def __init__(
        self,
        *,
        method: str = "sigmoid",
        probabilityCol: str = "calibratedProbability",
        **shared: Unpack[LinearArguments],
    ) -> None:
        super().__init__()
        self._configure(self._input_kwargs)

    @keyword_only
    def setParams(
        self,
        *,
        method: str = "sigmoid",
        probabilityCol: str = "calibratedProbability",
        **shared: Unpack[LinearArguments],
    ) -> ProbabilityCalibration:
        """Set the parameters that are given; names and types are the constructor's."""
        return self._configure(self._input_kwargs)

    def setMethod(self: C, value: str) -> C:
        """Set the function."""
        return self._set(method=value)

    def fitMultiple(
        self, dataset: DataFrame, paramMaps: Sequence[Any]
    ) -> Iterator[tuple[int, ProbabilityCalibrationModel]]:
        """Fit one model for each param map, one after the other."""
        return ((i, self.copy(values)._fit(dataset)) for i, values in enumerate(paramMaps))

    def _fit(self, dataset: DataFrame) -> ProbabilityCalibrationModel:
        self._check_params()
        if self.getMethod() == "sigmoid":
            return super()._fit(dataset)
        rows = rows_to_fit(dataset)
        with illegal_arguments():
            task = self._task(schema_of(rows))
        with stored(rows, task.reading) as store:
            self._check_classes(store.moments)
            points, features = isotonic_points(store), store.moments.features
        matrix = np.zeros((1, features))
        matrix[0, -1] = 1.0
        model = ProbabilityCalibrationModel(matrix, np.zeros(1), np.concatenate(points))
        return self._copyValues(model._resetUid(self.uid))

    def _check_classes(self, moments: Moments) -> None:
        if moments.target_min == moments.target_max:
            raise DataError(
                f"label column {self.getLabelCol()!r} is {moments.target_max:g} in every row: probabilities need "
                f"rows of both classes."
            )

    @property
    def _targets(self) -> Interval:
        return BIT

    def _loss(self, moments: Moments) -> Loss:
        self._check_classes(moments)
        hits = moments.weight * float(moments.mean[-1])
        return PlattLogistic.of(hits, moments.weight - hits)

    def _model(self, fit: Fit) -> ProbabilityCalibrationModel:
        return ProbabilityCalibrationModel(fit.coefficients.T, fit.intercept)

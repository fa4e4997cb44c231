"""Logistic regression, binomial and multinomial."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pyspark import keyword_only
from pyspark.ml.linalg import DenseMatrix, DenseVector
from pyspark.sql import DataFrame
from pyspark.sql.types import StructType

from sparkopt.blocks.moments import Moments
from sparkopt.blocks.names import path_of
from sparkopt.errors import DataError, IncompatibleError
from sparkopt.losses import Logistic, Loss, Multinomial
from sparkopt.ml import expressions
from sparkopt.ml.arguments import LinearArguments, documented
from sparkopt.ml.bounds import BoundSetters
from sparkopt.ml.class_weights import FROM_0, INFERRED_CLASSES, MOST_CLASSES, ClassWeightSetters
from sparkopt.ml.classification_params import LogisticRegressionParams
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.expressions import Formulas
from sparkopt.ml.probabilistic import ProbabilisticModel
from sparkopt.ml.responses import ClassShares, Response, TwoShares
from sparkopt.ml.summary.classification import (
    BinaryLogisticRegressionSummary,
    BinaryLogisticRegressionTrainingSummary,
    LogisticRegressionSummary,
    LogisticRegressionTrainingSummary,
)
from sparkopt.ml.training import TrainingTask
from sparkopt.penalties import Penalty
from sparkopt.training.coordinates import Initial
from sparkopt.training.trainer import Fit, Trainer
from sparkopt.validation import Interval

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["LogisticRegression", "LogisticRegressionModel"]

logger = logging.getLogger(__name__)

LABELS = Interval(0, None, whole=True)

B = TypeVar("B", bound="LogisticRegression")


class LogisticRegressionModel(ProbabilisticModel[LogisticRegressionTrainingSummary], LogisticRegressionParams):
    """Coefficients and intercepts of a logistic regression: one row for two classes, else one for each."""

    @property
    def numClasses(self) -> int:
        """Number of classes."""
        return max(2, int(self._matrix.shape[0]))

    def _facts(self) -> dict[str, Any]:
        return {"numClasses": self.numClasses}

    @property
    def coefficientMatrix(self) -> DenseMatrix:
        """Coefficients: 1 × features for two classes (binomial), else classes × features."""
        rows, columns = self._matrix.shape
        return DenseMatrix(rows, columns, self._matrix.ravel(order="F"))

    @property
    def interceptVector(self) -> DenseVector:
        """Intercepts: one for two classes (binomial), else one for each."""
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

    def evaluate(self, dataset: DataFrame) -> LogisticRegressionSummary:
        kind = LogisticRegressionSummary if self.numClasses > 2 else BinaryLogisticRegressionSummary
        return kind(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[LogisticRegressionTrainingSummary]:
        return LogisticRegressionTrainingSummary if self.numClasses > 2 else BinaryLogisticRegressionTrainingSummary

    def _require_binomial(self, name: str, instead: str) -> None:
        if self._matrix.shape[0] > 1:
            raise AttributeError(f"a multinomial model has no single vector of {name}: use {instead}.")

    @property
    def _response(self) -> Response:
        if len(self._matrix) == 1:
            return TwoShares(self._least_margin)
        return ClassShares(self._class_thresholds)

    def _formulas(self, raw: str) -> Formulas:
        if len(self._matrix) > 1:
            return self._class_formulas(raw)
        small = expressions.small_power(raw)  # Spark computes equal expressions of a projection once
        outputs = {
            "rawPrediction": f"array(-{raw}, {raw})",
            "probability": expressions.array(expressions.sigmoid(margin, small) for margin in (f"(-{raw})", raw)),
            "prediction": expressions.above(raw, self._least_margin),
        }
        return Formulas(outputs)

    def _class_formulas(self, raw: str) -> Formulas:
        """Return the output columns of several classes."""
        thresholds = self._class_thresholds
        steps: tuple[dict[str, str], ...] = ()
        if self.numClasses <= expressions.FEW:
            steps, each, probability = expressions.softmax_of_few(raw, self.numClasses)
            chosen = expressions.argmax_of_few(each)
        else:
            probability, chosen = expressions.softmax(raw), expressions.argmax(raw)
        if thresholds is not None:
            chosen = expressions.largest_share(probability, thresholds)
        return Formulas({"rawPrediction": raw, "probability": probability, "prediction": chosen}, steps)

    @property
    def _least_margin(self) -> float:
        """The log-odds of threshold."""
        with np.errstate(divide="ignore"):
            return float(np.log(self.getThreshold()) - np.log1p(-self.getThreshold()))


@documented
class LogisticRegression(
    LinearEstimator[LogisticRegressionModel], LogisticRegressionParams, BoundSetters, ClassWeightSetters
):
    """Logistic regression with an elastic-net penalty and bounds.

    Minimises mean loss + regParam · (½(1−α)‖w‖² + α‖w‖₁), pyspark.ml's objective. Multinomial coefficients without
    penalty, and intercepts always, are determined up to a constant per feature only: they are centred to a mean of
    zero over the classes, as pyspark.ml does, unless there are bounds.

    The number of classes is that of the label column's metadata, which StringIndexer writes, and labels beyond it are
    refused; without metadata it is the largest label + 1. Where all labels are the same, no step is taken: with an
    intercept the optimum has no coefficients and an infinite intercept. The last classes of the metadata have zero
    coefficients and an intercept of −∞ where they never occur: the optimum, again.

    Parameters
    ----------
    family : {"auto", "binomial", "multinomial"}, default "auto"
        "auto" is binomial for labels 0 and 1, else multinomial. Labels are 0 … classes − 1.
    threshold : float, default 0.5
        Two classes: the probability above which class 1 is predicted.
    thresholds : list of float, optional
        One number for each class: the class of the largest probability / threshold is predicted.
    rawPredictionCol : str, default "rawPrediction"
        Output column of raw predictions.
    probabilityCol : str, default "probability"
        Output column of class probabilities.
    lowerBoundsOnCoefficients, upperBoundsOnCoefficients : Matrix of shape (1 or classes, features), optional
        Bounds on the coefficients, in the features' units; one row for two classes, else one for each.
    lowerBoundsOnIntercepts, upperBoundsOnIntercepts : Vector of shape (1 or classes,), optional
        Bounds on the intercepts.
    classWeights : "balanced", list or dict of float, optional
        Factors of the row weights by label; "balanced" gives all classes the same weight.
    {shared}

    Examples
    --------
    >>> from sparkopt.ml import LogisticRegression
    >>> model = LogisticRegression(optimizer="adam", miniBatchFraction=0.1).fit(df)
    >>> model.summary.accuracy > 0.7, model.evaluate(held_out).areaUnderROC > 0.7
    (True, True)
    """

    _declared: int | None = None  # the number of classes by the label's metadata

    @keyword_only
    def __init__(
        self,
        *,
        rawPredictionCol: str = "rawPrediction",
        probabilityCol: str = "probability",
        family: str = "auto",
        threshold: float = 0.5,
        thresholds: list[float] | None = None,
        classWeights: Any = None,
        lowerBoundsOnCoefficients: Any = None,
        upperBoundsOnCoefficients: Any = None,
        lowerBoundsOnIntercepts: Any = None,
        upperBoundsOnIntercepts: Any = None,
        **shared: Unpack[LinearArguments],
    ) -> None:
        super().__init__()
        self._configure(self._input_kwargs)

    @keyword_only
    def setParams(
        self,
        *,
        rawPredictionCol: str = "rawPrediction",
        probabilityCol: str = "probability",
        family: str = "auto",
        threshold: float = 0.5,
        thresholds: list[float] | None = None,
        classWeights: Any = None,
        lowerBoundsOnCoefficients: Any = None,
        upperBoundsOnCoefficients: Any = None,
        lowerBoundsOnIntercepts: Any = None,
        upperBoundsOnIntercepts: Any = None,
        **shared: Unpack[LinearArguments],
    ) -> LogisticRegression:
        """Set the parameters that are given; names and types are the constructor's."""
        return self._configure(self._input_kwargs)

    def setFamily(self: B, value: str) -> B:
        """Set the family of distributions."""
        return self._set(family=value)

    def _check_arguments(self) -> None:
        self._check_thresholds()

    def _task(self, schema: StructType) -> TrainingTask[LogisticRegressionModel]:
        own = self.copy()
        own._declared = declared_classes(schema, self.getLabelCol())
        return LinearEstimator._task(own, schema)

    def _check_params(self) -> None:
        super()._check_params()
        if self.getFamily() == "binomial" and (self._declared or 0) > 2:
            raise IncompatibleError(
                f"family='binomial' is of 2 classes, and the metadata of label column {self.getLabelCol()!r} says "
                f"{self._declared}. Use family='multinomial'."
            )

    @property
    def _targets(self) -> Interval:
        if self.getFamily() == "binomial":
            return Logistic().targets
        return LABELS if self._declared is None else Interval(0, self._declared - 1, whole=True)

    @property
    def _label_hint(self) -> str:
        if self._declared is not None and self.getFamily() != "binomial":
            return f"Its metadata says that there are {self._declared} classes: correct the label or its metadata."
        more = " For more than two classes set family='multinomial'." if self.getFamily() == "binomial" else ""
        return f"{FROM_0}{more} For numbers that are no classes use LinearRegression."

    @property
    def _pushes_intercepts(self) -> bool:
        """Whether intercepts may be infinite: there are some, without bounds."""
        return bool(self.getFitIntercept()) and not self._has_bounds

    def _loss(self, moments: Moments) -> Loss:
        found = int(moments.target_max) + 1
        is_said = self.getFamily() == "multinomial" or self._declared is not None
        most = MOST_CLASSES if is_said else INFERRED_CLASSES
        if found > most:
            more = "" if is_said else "; for so many classes set family='multinomial'"
            raise DataError(
                f"label column {self.getLabelCol()!r} has labels up to {found - 1}, which are {found} classes, more "
                f"than {most}. Use LinearRegression for numbers that are no classes, or number the classes from 0, "
                f"as StringIndexer does{more}."
            )
        classes = max(found, self._declared or 0)
        if self.getFamily() == "binomial" or (self.getFamily() == "auto" and classes <= 2):
            return Logistic()
        return Multinomial(max(2, found if self._pushes_intercepts else classes))

    def _batch_loss(self, loss: Loss, schema: StructType, outputs: int | None) -> Loss:
        declared = declared_classes(schema, self.getLabelCol()) or 0
        classes = outputs or (declared if declared > 2 else loss.outputs)
        return Multinomial(classes) if classes > loss.outputs else loss

    def _trainer(self, moments: Moments) -> Trainer:
        if moments.target_min > 0 and moments.target_min != moments.target_max:
            logger.warning(
                "label column %r begins at %g, so the classes below have no rows. %s",
                self.getLabelCol(),
                moments.target_min,
                FROM_0,
            )
        return super()._trainer(moments)

    def _known(self, moments: Moments) -> Initial | None:
        if moments.target_min != moments.target_max or not self._pushes_intercepts:
            return None
        label, outputs = int(moments.target_max), self._loss(moments).outputs
        intercept = np.zeros(outputs)
        if outputs == 1:
            intercept[0] = np.inf if label else -np.inf
        else:
            intercept[label] = np.inf
        return np.zeros((moments.features, outputs)), intercept

    def _penalty(self) -> Penalty:
        return self._bounded(super()._penalty())

    def _model(self, fit: Fit) -> LogisticRegressionModel:
        matrix, intercept = fit.coefficients.T, fit.intercept
        if len(intercept) > 1 and not self._has_bounds:
            if np.isfinite(intercept).all():
                intercept = intercept - intercept.mean()
            if self.getRegParam() == 0:
                matrix = matrix - matrix.mean(axis=0)
            missing = max(0, (self._declared or 0) - len(intercept))  # the last classes, which never occur
            matrix = np.concatenate([matrix, np.zeros((missing, matrix.shape[1]))])
            intercept = np.append(intercept, np.full(missing, -np.inf if np.isfinite(intercept).all() else 0.0))
        return LogisticRegressionModel(matrix, intercept)


def declared_classes(schema: StructType, label: str) -> int | None:
    """Return the number of classes that the metadata of a label column says, or None where it says none."""
    path = path_of(schema, label, "label") or ()
    facts = schema[path[0]].metadata.get("ml_attr", {}) if len(path) == 1 else {}
    if facts.get("type") == "binary":
        return 2
    if facts.get("type") != "nominal":
        return None
    return len(facts["vals"]) if "vals" in facts else facts.get("num_vals")

"""Regression of ordered classes: the proportional odds model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pyspark import keyword_only
from pyspark.ml.linalg import DenseVector, Vector
from pyspark.ml.param.shared import HasProbabilityCol
from pyspark.sql import DataFrame
from pyspark.sql.types import DataType

from sparkopt.blocks.moments import Moments
from sparkopt.errors import DataError
from sparkopt.losses import CumulativeLogit, Loss
from sparkopt.ml.arguments import LinearArguments, documented
from sparkopt.ml.class_weights import FROM_0, INFERRED_CLASSES
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.expressions import Formulas
from sparkopt.ml.model import NUMBER, VECTOR, ScalarModel
from sparkopt.ml.params import LinearParams
from sparkopt.ml.responses import OrderedShares, Response
from sparkopt.ml.summary.classification import OrdinalRegressionSummary, OrdinalRegressionTrainingSummary
from sparkopt.training.trainer import Fit
from sparkopt.typing import Floats
from sparkopt.validation import Interval

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["OrdinalRegression", "OrdinalRegressionModel"]

P = TypeVar("P", bound="_OrdinalParams")


class _OrdinalParams(LinearParams, HasProbabilityCol):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(probabilityCol="probability")

    def setProbabilityCol(self: P, value: str) -> P:
        """Set the column of class probabilities; "" leaves it out."""
        return self._set(probabilityCol=value)


class OrdinalRegressionModel(ScalarModel[OrdinalRegressionTrainingSummary], _OrdinalParams):
    """Coefficients of a proportional odds model, and the cut points between its classes."""

    _has_onnx = False

    @property
    def numClasses(self) -> int:
        """Number of classes."""
        return len(self.auxiliary) + 2

    def _facts(self) -> dict[str, Any]:
        return {"numClasses": self.numClasses}

    @property
    def cutPoints(self) -> DenseVector:
        """Where the classes part, ascending: the log-odds of a class up to j are cutPoints[j] − x · coefficients."""
        return DenseVector(self._thresholds - self.intercept)

    def predictProbability(self, value: Vector) -> DenseVector:
        """Return the probability of each class for one row's features."""
        return DenseVector(self._outputs_of(value)["probability"][0])

    def evaluate(self, dataset: DataFrame) -> OrdinalRegressionSummary:
        return OrdinalRegressionSummary(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[OrdinalRegressionTrainingSummary]:
        return OrdinalRegressionTrainingSummary

    @property
    def _thresholds(self) -> Floats:
        return CumulativeLogit(self.numClasses).thresholds(self.auxiliary)

    @property
    def _response(self) -> Response:
        return OrderedShares(self._thresholds)

    def _formulas(self, raw: str) -> Formulas | None:
        return None

    def _output_columns(self) -> dict[str, tuple[str, DataType]]:
        return {
            "probability": (self.getProbabilityCol(), VECTOR),
            "prediction": (self.getPredictionCol(), NUMBER),
        }


@documented
class OrdinalRegression(LinearEstimator[OrdinalRegressionModel], _OrdinalParams):
    """Regression of classes 0, 1, … that are in an order, such as grades: the proportional odds model.

    The log-odds of a class up to j are θⱼ − x·w, with ascending cut points θ that are fitted too (McCullagh, 1980,
    *Regression models for ordinal data*). Minimises mean loss + regParam · (½(1−α)‖w‖² + α‖w‖₁); without a penalty
    these are the estimates of R's ``polr`` and statsmodels' ``OrderedModel``. The prediction is the most probable
    class. The number of classes is the largest label + 1.

    Parameters
    ----------
    probabilityCol : str, default "probability"
        Output column of class probabilities; "" leaves it out.
    {shared}

    Notes
    -----
    Without an intercept the first cut point is 0.

    Examples
    --------
    >>> from pyspark.sql import functions as F
    >>> from sparkopt.ml import OrdinalRegression
    >>> grades = df.withColumn("grade", F.expr("CASE WHEN minutes < 10 THEN 0 WHEN minutes < 20 THEN 1 ELSE 2 END"))
    >>> model = OrdinalRegression(labelCol="grade").fit(grades)
    >>> model.numClasses, len(model.cutPoints)
    (3, 2)
    """

    @keyword_only
    def __init__(self, *, probabilityCol: str = "probability", **shared: Unpack[LinearArguments]) -> None:
        super().__init__()
        self._configure(self._input_kwargs)

    @keyword_only
    def setParams(
        self, *, probabilityCol: str = "probability", **shared: Unpack[LinearArguments]
    ) -> OrdinalRegression:
        """Set the parameters that are given; names and types are the constructor's."""
        return self._configure(self._input_kwargs)

    @property
    def _targets(self) -> Interval:
        return Interval(0, None, whole=True)

    @property
    def _label_hint(self) -> str:
        return FROM_0

    def _loss(self, moments: Moments) -> Loss:
        classes = int(moments.target_max) + 1
        if classes > INFERRED_CLASSES:
            raise DataError(
                f"label column {self.getLabelCol()!r} has labels up to {classes - 1}, which are {classes} classes, "
                f"more than {INFERRED_CLASSES}. Use LinearRegression for numbers that are no classes. {FROM_0}"
            )
        if moments.rows and moments.target_min == moments.target_max:
            raise DataError(
                f"label column {self.getLabelCol()!r} is {moments.target_max:g} in every row: there is no class to "
                f"tell from another."
            )
        return CumulativeLogit(max(2, classes))

    def _model(self, fit: Fit) -> OrdinalRegressionModel:
        return OrdinalRegressionModel(fit.coefficients.T, fit.intercept, fit.auxiliary)

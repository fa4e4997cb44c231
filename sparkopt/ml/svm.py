"""Linear support vector machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pyspark import keyword_only
from pyspark.ml.linalg import DenseVector, Vector
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import DataFrame
from pyspark.sql.types import DataType

from sparkopt.blocks.moments import Moments
from sparkopt.losses import Hinge, Loss, SquaredHinge
from sparkopt.ml import expressions
from sparkopt.ml.arguments import LinearArguments, documented
from sparkopt.ml.class_weights import FROM_0, ClassWeightSetters, HasClassWeights
from sparkopt.ml.classification_params import RawPredictionParams
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.expressions import Formulas
from sparkopt.ml.model import NUMBER, VECTOR, ScalarModel
from sparkopt.ml.params import LinearParams
from sparkopt.ml.responses import Margins, Response
from sparkopt.ml.summary.classification import LinearSVCSummary, LinearSVCTrainingSummary
from sparkopt.training.trainer import Fit
from sparkopt.validation import Constraint, Interval, OneOf

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["LinearSVC", "LinearSVCModel"]

V = TypeVar("V", bound="_LinearSVCParams")


class _LinearSVCParams(LinearParams, RawPredictionParams, HasClassWeights):
    loss: Param[str] = Param(Params._dummy(), "loss", "hinge or squaredHinge", typeConverter=TypeConverters.toString)
    threshold: Param[float] = Param(
        Params._dummy(),
        "threshold",
        "the raw prediction above which class 1 is predicted; infinite ones predict one class always",
        typeConverter=TypeConverters.toFloat,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(loss="hinge", threshold=0.0, maxIter=500)

    def getLoss(self) -> str:
        """Return loss."""
        return self.getOrDefault(self.loss)

    def getThreshold(self) -> float:
        """Return threshold."""
        return self.getOrDefault(self.threshold)

    def setThreshold(self: V, value: float) -> V:
        """Set the raw prediction above which class 1 is predicted."""
        return self._set(threshold=value)

    def _domains(self) -> Mapping[str, Constraint]:
        return {
            **super()._domains(),
            "loss": OneOf(["hinge", "squaredHinge"]),
            "threshold": Interval(finite=False),
        }


class LinearSVCModel(ScalarModel[LinearSVCTrainingSummary], _LinearSVCParams):
    """Coefficients and intercept of a linear support vector machine."""

    @property
    def numClasses(self) -> int:
        """Number of classes, 2."""
        return 2

    def _facts(self) -> dict[str, Any]:
        return {"numClasses": self.numClasses}

    def predictRaw(self, value: Vector) -> DenseVector:
        """Return the raw prediction of each class for one row's features."""
        return DenseVector(self._outputs_of(value)["rawPrediction"][0])

    def evaluate(self, dataset: DataFrame) -> LinearSVCSummary:
        return LinearSVCSummary(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[LinearSVCTrainingSummary]:
        return LinearSVCTrainingSummary

    @property
    def _response(self) -> Response:
        return Margins(self.getThreshold())

    def _formulas(self, raw: str) -> Formulas:
        chosen = expressions.above(raw, self.getThreshold())
        return Formulas({"rawPrediction": f"array(-{raw}, {raw})", "prediction": chosen})

    def _output_columns(self) -> dict[str, tuple[str, DataType]]:
        return {
            "rawPrediction": (self.getRawPredictionCol(), VECTOR),
            "prediction": (self.getPredictionCol(), NUMBER),
        }


@documented
class LinearSVC(LinearEstimator[LinearSVCModel], _LinearSVCParams, ClassWeightSetters):
    """A linear support vector machine (Cortes & Vapnik, 1995) with an elastic-net penalty, for labels 0 and 1.

    Minimises mean loss + regParam · (½(1−α)‖w‖² + α‖w‖₁), for the hinge loss pyspark.ml's objective; regParam is
    scikit-learn's 1/(n·C).

    Parameters
    ----------
    loss : {"hinge", "squaredHinge"}, default "hinge"
        The loss of margins below 1.
    threshold : float, default 0
        The raw prediction above which class 1 is predicted.
    rawPredictionCol : str, default "rawPrediction"
        Output column of raw predictions.
    classWeights : "balanced", list or dict of float, optional
        Factors of the row weights by label; "balanced" gives all classes the same weight.
    {shared}

    Notes
    -----
    The hinge loss is nonsmooth, so methods with a line search minimise smoothed losses in turn: maxIter, 500 by
    default here, counts the steps of all of them.

    Examples
    --------
    >>> from sparkopt.ml import LinearSVC
    >>> model = LinearSVC(regParam=0.01).fit(df)
    >>> model.evaluate(held_out).areaUnderROC > 0.7
    True
    """

    @keyword_only
    def __init__(
        self,
        *,
        rawPredictionCol: str = "rawPrediction",
        loss: str = "hinge",
        threshold: float = 0.0,
        classWeights: Any = None,
        **shared: Unpack[LinearArguments],
    ) -> None:
        super().__init__()
        self._configure(self._input_kwargs)

    @keyword_only
    def setParams(
        self,
        *,
        rawPredictionCol: str = "rawPrediction",
        loss: str = "hinge",
        threshold: float = 0.0,
        classWeights: Any = None,
        **shared: Unpack[LinearArguments],
    ) -> LinearSVC:
        """Set the parameters that are given; names and types are the constructor's."""
        return self._configure(self._input_kwargs)

    def setLoss(self: V, value: str) -> V:
        """Set the loss of margins below 1."""
        return self._set(loss=value)

    @property
    def _targets(self) -> Interval:
        return Hinge().targets

    @property
    def _label_hint(self) -> str:
        return f"{FROM_0} For more than two classes use OneVsRest or LogisticRegression."

    def _loss(self, moments: Moments) -> Loss:
        return Hinge() if self.getLoss() == "hinge" else SquaredHinge()

    def _model(self, fit: Fit) -> LinearSVCModel:
        return LinearSVCModel(fit.coefficients.T, fit.intercept)

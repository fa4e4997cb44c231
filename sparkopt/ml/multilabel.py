"""Logistic regression of several labels at once, any number of which a row may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pyspark import keyword_only
from pyspark.ml.linalg import DenseMatrix, DenseVector, Vector
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasProbabilityCol, HasThreshold
from pyspark.sql import DataFrame
from pyspark.sql.types import DataType

from sparkopt.blocks.columns import Columns
from sparkopt.blocks.moments import Moments
from sparkopt.blocks.targets import LabelBits
from sparkopt.errors import DataError, ParameterError
from sparkopt.losses import Loss, MultiLabel
from sparkopt.ml import expressions
from sparkopt.ml.arguments import LinearArguments, documented
from sparkopt.ml.classification_params import RawPredictionParams
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.expressions import Formulas
from sparkopt.ml.model import VECTOR, LinearModel
from sparkopt.ml.params import LinearParams
from sparkopt.ml.responses import Response, SeveralLabels
from sparkopt.ml.summary.multilabel import MultiLabelSummary, MultiLabelTrainingSummary
from sparkopt.training.trainer import Fit
from sparkopt.validation import Constraint, Interval

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["MultiLabelLogisticRegression", "MultiLabelLogisticRegressionModel"]

P = TypeVar("P", bound="_MultiLabelParams")
M = TypeVar("M", bound="MultiLabelLogisticRegression")

BIT = Interval(0, 1, whole=True)


class _MultiLabelParams(LinearParams, RawPredictionParams, HasProbabilityCol, HasThreshold):
    labelCols: Param[list[str]] = Param(
        Params._dummy(),
        "labelCols",
        "numeric columns of 0 and 1, one for each label: in place of labelCol",
        typeConverter=TypeConverters.toListString,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(probabilityCol="probability", threshold=0.5)

    def getLabelCols(self) -> list[str]:
        """Return labelCols, labelCol alone where none are set."""
        return self.getOrDefault(self.labelCols) if self.isDefined(self.labelCols) else [self.getLabelCol()]

    def setProbabilityCol(self: P, value: str) -> P:
        """Set the column of the labels' probabilities; "" leaves it out."""
        return self._set(probabilityCol=value)

    def setThreshold(self: P, value: float) -> P:
        """Set the probability above which a label is predicted."""
        return self._set(threshold=value)

    def _columns(self) -> Columns:
        first, *more = self.getLabelCols()
        return replace(super()._columns(), label=first, more_labels=tuple(more), combine=LabelBits(len(more) + 1))

    def _domains(self) -> Mapping[str, Constraint]:
        return {**super()._domains(), "threshold": Interval(0, 1)}

    def _check_params(self) -> None:
        super()._check_params()
        names = self.getLabelCols()
        if len(set(names)) < len(names):
            raise ParameterError(f"labelCols must be different columns. Got {names} instead.")
        if not 2 <= len(names) <= MultiLabel.MOST:
            raise ParameterError(
                f"labelCols must be 2 to {MultiLabel.MOST} columns. Got {names}: for one label use "
                f"LogisticRegression."
            )


class MultiLabelLogisticRegressionModel(LinearModel[MultiLabelTrainingSummary], _MultiLabelParams):
    """Coefficients and intercepts of a logistic regression of several labels: a row for each label."""

    _has_onnx = False

    @property
    def numLabels(self) -> int:
        """Number of labels."""
        return len(self._matrix)

    def _facts(self) -> dict[str, Any]:
        return {"numLabels": self.numLabels}

    @property
    def coefficientMatrix(self) -> DenseMatrix:
        """Coefficients: labels × features."""
        rows, columns = self._matrix.shape
        return DenseMatrix(rows, columns, self._matrix.ravel(order="F"))

    @property
    def interceptVector(self) -> DenseVector:
        """Intercepts, one for each label."""
        return DenseVector(self._intercept)

    def predict(self, value: Vector) -> Any:
        """Return 1 for each label that is predicted for one row's features, 0 for the others."""
        return DenseVector(self._outputs_of(value)["prediction"][0])

    def predictProbability(self, value: Vector) -> DenseVector:
        """Return the probability of each label for one row's features."""
        return DenseVector(self._outputs_of(value)["probability"][0])

    def evaluate(self, dataset: DataFrame) -> MultiLabelSummary:
        return MultiLabelSummary(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[MultiLabelTrainingSummary]:
        return MultiLabelTrainingSummary

    @property
    def _least_margin(self) -> float:
        with np.errstate(divide="ignore"):
            return float(np.log(self.getThreshold()) - np.log1p(-self.getThreshold()))

    @property
    def _response(self) -> Response:
        return SeveralLabels(self._least_margin)

    def _formulas(self, raw: str) -> Formulas:
        one = expressions.sigmoid("margin", expressions.small_power("margin"))
        return Formulas(
            {
                "rawPrediction": raw,
                "probability": f"transform({raw}, margin -> {one})",
                "prediction": f"transform({raw}, margin -> {expressions.above('margin', self._least_margin)})",
            }
        )

    def _output_columns(self) -> dict[str, tuple[str, DataType]]:
        return {
            "rawPrediction": (self.getRawPredictionCol(), VECTOR),
            "probability": (self.getProbabilityCol(), VECTOR),
            "prediction": (self.getPredictionCol(), VECTOR),
        }


@documented
class MultiLabelLogisticRegression(LinearEstimator[MultiLabelLogisticRegressionModel], _MultiLabelParams):
    """Logistic regression of several labels, any number of which a row may have, in the same passes.

    Each label has coefficients of its own: those of a `LogisticRegression` of this label alone, since the loss is the
    sum of theirs ("binary relevance", Zhang & Zhou, 2014, *A review on multi-label learning algorithms*, §3.1.1).
    Minimises mean loss + regParam · (½(1−α)‖W‖² + α‖W‖₁).

    Parameters
    ----------
    labelCols : list of str
        Numeric columns, 2 to 52: 1 where a row has the label, 0 where not. They take the place of labelCol.
    rawPredictionCol : str, default "rawPrediction"
        Output column of the log-odds of each label; "" leaves it out.
    probabilityCol : str, default "probability"
        Output column of the probability of each label; "" leaves it out.
    threshold : float, default 0.5
        Probability above which a label is predicted, in [0, 1]. predictionCol holds a 0 or 1 for each label.
    {shared}

    Examples
    --------
    >>> from pyspark.sql import functions as F
    >>> from sparkopt.ml import MultiLabelLogisticRegression
    >>> rows = df.select("features", "label", (F.col("minutes") > 15).cast("int").alias("late"))
    >>> model = MultiLabelLogisticRegression(labelCols=["label", "late"]).fit(rows)
    >>> model.numLabels, len(model.transform(rows).first().probability)
    (2, 2)
    """

    @keyword_only
    def __init__(
        self,
        *,
        labelCols: list[str] | None = None,
        rawPredictionCol: str = "rawPrediction",
        probabilityCol: str = "probability",
        threshold: float = 0.5,
        **shared: Unpack[LinearArguments],
    ) -> None:
        super().__init__()
        self._configure(self._input_kwargs)

    @keyword_only
    def setParams(
        self,
        *,
        labelCols: list[str] | None = None,
        rawPredictionCol: str = "rawPrediction",
        probabilityCol: str = "probability",
        threshold: float = 0.5,
        **shared: Unpack[LinearArguments],
    ) -> MultiLabelLogisticRegression:
        """Set the parameters that are given; names and types are the constructor's."""
        return self._configure(self._input_kwargs)

    def setLabelCols(self: M, value: Sequence[str]) -> M:
        """Set the columns of labels."""
        return self._set(labelCols=list(value))

    @property
    def _targets(self) -> Interval:
        return BIT

    def _loss(self, moments: Moments) -> Loss:
        if moments.rows and moments.target_min == moments.target_max and not self.getRegParam():
            raise DataError(
                f"label columns {', '.join(self.getLabelCols())} are the same in every row: there is nothing to tell "
                f"apart. Set regParam, or leave such labels out."
            )
        return MultiLabel(len(self.getLabelCols()))

    def _model(self, fit: Fit) -> MultiLabelLogisticRegressionModel:
        return MultiLabelLogisticRegressionModel(fit.coefficients.T, fit.intercept)

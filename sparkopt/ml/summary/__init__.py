"""Summaries of models under pyspark.ml's names: how training went, and how good the predictions are."""

from sparkopt.ml.summary.base import Summary, TrainingSummary
from sparkopt.ml.summary.classification import (
    BinaryClassificationSummary,
    BinaryLogisticRegressionSummary,
    BinaryLogisticRegressionTrainingSummary,
    ClassificationSummary,
    LinearSVCTrainingSummary,
    LogisticRegressionSummary,
    LogisticRegressionTrainingSummary,
)
from sparkopt.ml.summary.generalized import (
    GeneralizedLinearRegressionSummary,
    GeneralizedLinearRegressionTrainingSummary,
)
from sparkopt.ml.summary.regression import (
    LinearRegressionSummary,
    LinearRegressionTrainingSummary,
    QuantileRegressionSummary,
    QuantileRegressionTrainingSummary,
    RegressionSummary,
)

__all__ = [
    "BinaryClassificationSummary",
    "BinaryLogisticRegressionSummary",
    "BinaryLogisticRegressionTrainingSummary",
    "ClassificationSummary",
    "GeneralizedLinearRegressionSummary",
    "GeneralizedLinearRegressionTrainingSummary",
    "LinearRegressionSummary",
    "LinearRegressionTrainingSummary",
    "LinearSVCTrainingSummary",
    "LogisticRegressionSummary",
    "LogisticRegressionTrainingSummary",
    "QuantileRegressionSummary",
    "QuantileRegressionTrainingSummary",
    "RegressionSummary",
    "Summary",
    "TrainingSummary",
]

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
from sparkopt.ml.summary.regression import (
    LinearRegressionSummary,
    LinearRegressionTrainingSummary,
    RegressionSummary,
)

__all__ = [
    "BinaryClassificationSummary",
    "BinaryLogisticRegressionSummary",
    "BinaryLogisticRegressionTrainingSummary",
    "ClassificationSummary",
    "LinearRegressionSummary",
    "LinearRegressionTrainingSummary",
    "LinearSVCTrainingSummary",
    "LogisticRegressionSummary",
    "LogisticRegressionTrainingSummary",
    "RegressionSummary",
    "Summary",
    "TrainingSummary",
]

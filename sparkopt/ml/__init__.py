"""Estimators and models with pyspark.ml's interface: they work in Pipeline, CrossValidator and its evaluators."""

from sparkopt.ml.classification import LogisticRegression, LogisticRegressionModel
from sparkopt.ml.generalized import GeneralizedLinearRegression, GeneralizedLinearRegressionModel
from sparkopt.ml.regression import (
    LinearRegression,
    LinearRegressionModel,
    QuantileRegression,
    QuantileRegressionModel,
)
from sparkopt.ml.svm import LinearSVC, LinearSVCModel
from sparkopt.ml.tuning import CrossValidator, CrossValidatorModel

__all__ = [
    "CrossValidator",
    "CrossValidatorModel",
    "GeneralizedLinearRegression",
    "GeneralizedLinearRegressionModel",
    "LinearRegression",
    "LinearRegressionModel",
    "LinearSVC",
    "LinearSVCModel",
    "LogisticRegression",
    "LogisticRegressionModel",
    "QuantileRegression",
    "QuantileRegressionModel",
]

"""Estimators and models with pyspark.ml's interface: they work in Pipeline, CrossValidator and its evaluators."""

from sparkopt.ml.classification import LogisticRegression, LogisticRegressionModel
from sparkopt.ml.regression import LinearRegression, LinearRegressionModel

__all__ = ["LinearRegression", "LinearRegressionModel", "LogisticRegression", "LogisticRegressionModel"]

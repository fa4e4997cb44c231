"""What linear models become in other libraries: scikit-learn's estimators, models of ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparkopt.errors import IncompatibleError, MissingDependencyError
from sparkopt.ml.onnx_export import save_onnx

__all__ = ["Exports"]


class Exports:
    """Mixin of linear models: they leave the package."""

    _has_onnx = True

    def toSklearn(self) -> Any:
        """Return a fitted estimator of scikit-learn that predicts the same.

        It is a ``LinearRegression``, ``HuberRegressor``, ``QuantileRegressor``, ``LogisticRegression`` or
        ``LinearSVC``; `from_sklearn` returns to this model's class.

        Raises
        ------
        MissingDependencyError
            Where scikit-learn is not installed.
        IncompatibleError
            For other models, and for thresholds, which scikit-learn's classifiers do not have.
        """
        return to_sklearn(self)

    def toOnnx(self, path: str, precision: str = "double") -> None:
        """Write the model in ONNX's format, for its runtimes in other languages, servers and devices.

        Its inputs are the features' column, rows × features, or one of rows × 1 for each of ``featuresCols``; its
        outputs are the output columns, under their names.

        Parameters
        ----------
        path : str
            The file, or its URI.
        precision : {"double", "float"}, default "double"
            Type of the numbers. In "double" predictions are equal to rounding.

        Raises
        ------
        MissingDependencyError
            Where the package onnx is not installed.
        IncompatibleError
            For a probit link, which ONNX's runtimes cannot compute in double precision.
        """
        save_onnx([self], path, precision)


def to_sklearn(model: Any) -> Any:
    """Return a fitted estimator of scikit-learn with a model's coefficients."""
    try:
        from sklearn import linear_model, svm
    except ImportError as error:
        raise MissingDependencyError.of("toSklearn", "scikit-learn", "demo") from error
    kind, (matrix, intercept) = type(model).__name__, model.arrays
    if kind == "LogisticRegressionModel":
        _require_default(model, "threshold", 0.5)
        if model.isSet(model.thresholds):
            raise IncompatibleError("thresholds have no counterpart in scikit-learn: clear them.")
        found = linear_model.LogisticRegression()
        found.classes_ = np.arange(model.numClasses, dtype=np.float64)
    elif kind == "LinearSVCModel":
        _require_default(model, "threshold", 0.0)
        found = svm.LinearSVC()
        found.classes_ = np.arange(2, dtype=np.float64)
    elif kind == "LinearRegressionModel" and model.getLoss() == "huber":
        found = linear_model.HuberRegressor(epsilon=model.getEpsilon())
        found.scale_ = model.scale
    elif kind == "QuantileRegressionModel":
        found = linear_model.QuantileRegressor(quantile=model.getQuantile())
    elif kind == "LinearRegressionModel":
        found = linear_model.LinearRegression()
    else:
        raise IncompatibleError(
            f"a {kind} has no counterpart in scikit-learn. LinearRegression, QuantileRegression, LogisticRegression "
            f"and LinearSVC have."
        )
    is_classifier = hasattr(found, "classes_")
    found.coef_ = np.array(matrix if is_classifier else matrix[0])
    found.intercept_ = np.array(intercept) if is_classifier else float(intercept[0])
    found.n_features_in_ = model.numFeatures
    names = model._features()
    if not isinstance(names, str):
        found.feature_names_in_ = np.array(names, dtype=object)
    return found


def _require_default(model: Any, name: str, value: float) -> None:
    if model.getOrDefault(name) != value:
        raise IncompatibleError(
            f"{name}={model.getOrDefault(name):g} has no counterpart in scikit-learn's estimator, which decides at "
            f"{value:g}. Set it to that, and decide by the scores."
        )

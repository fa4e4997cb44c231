"""Linear and logistic models of scikit-learn as sparkopt's: the predictions stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.losses import Huber
from sparkopt.ml.classification import LogisticRegressionModel
from sparkopt.ml.regression import LinearRegressionModel, QuantileRegressionModel
from sparkopt.ml.svm import LinearSVCModel
from sparkopt.typing import Floats

__all__ = ["from_sklearn"]

REGRESSIONS = (
    *("LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "Lars", "LassoLars"),
    *("BayesianRidge", "ARDRegression", "SGDRegressor", "TheilSenRegressor", "OrthogonalMatchingPursuit"),
)
"""Classes of scikit-learn whose predictions are linear."""


def from_sklearn(estimator: Any) -> Any:
    """Return the model of a fitted linear estimator of scikit-learn: it scores DataFrames and tables.

    Its features are the columns that the estimator was fitted to, where those had names, else the column "features".

    Parameters
    ----------
    estimator : estimator of scikit-learn
        A linear regression (``Ridge``, ``Lasso``, ``HuberRegressor``, ``QuantileRegressor``, ``SGDRegressor`` …),
        ``LogisticRegression``, ``LinearSVC``, or a ``Pipeline`` of ``StandardScaler`` and one of these. The labels of
        classifiers must be 0, 1, ….

    Returns
    -------
    LinearModel
        A LinearRegressionModel, QuantileRegressionModel, LogisticRegressionModel or LinearSVCModel.

    Raises
    ------
    ParameterError
        For an estimator that was not fitted.
    IncompatibleError
        For one whose predictions are not those of a linear model here.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import Ridge
    >>> from sparkopt.ml import from_sklearn
    >>> X, y = np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 5.0])
    >>> model = from_sklearn(Ridge(alpha=1e-9).fit(X, y))
    >>> model.transform(X)["prediction"].to_numpy().round(6).tolist()
    [1.0, 3.0, 5.0]
    """
    before, last = _steps(estimator)
    if not hasattr(last, "coef_"):
        what = type(last).__name__
        raise ParameterError(f"this {what} has no coefficients: fit it first, or give a linear estimator.")
    matrix, intercept = _unscaled(before, np.atleast_2d(np.asarray(last.coef_, dtype=np.float64)), last)
    model = _model(last, matrix, intercept)
    names = getattr(before[0] if before else last, "feature_names_in_", None)
    return model if names is None else model._set(featuresCols=[str(name) for name in names])


def _steps(estimator: Any) -> tuple[list[Any], Any]:
    """Return the scalers before a linear estimator, and that."""
    if type(estimator).__name__ != "Pipeline":
        return [], estimator
    *before, last = [step for _, step in estimator.steps if step not in (None, "passthrough")]
    for step in before:
        if type(step).__name__ != "StandardScaler":
            raise IncompatibleError(
                f"a Pipeline with {type(step).__name__} is no linear model here: StandardScaler may be before one."
            )
    return before, last


def _unscaled(before: list[Any], matrix: Floats, last: Any) -> tuple[Floats, Floats]:
    """Return coefficients and intercepts over the features as they come."""
    intercept = np.zeros(len(matrix)) + np.asarray(last.intercept_, dtype=np.float64)
    for scaler in reversed(before):
        matrix = matrix if scaler.scale_ is None else matrix / scaler.scale_
        intercept = intercept if not scaler.with_mean else intercept - matrix @ scaler.mean_
    return matrix, intercept


def _model(last: Any, matrix: Floats, intercept: Floats) -> Any:
    kind = type(last).__name__
    if hasattr(last, "classes_"):
        return (LogisticRegressionModel if _is_logistic(last, kind) else LinearSVCModel)(matrix, intercept)
    if len(matrix) > 1:
        raise IncompatibleError(f"this {kind} has {len(matrix)} targets; a model here has one. Give one for each.")
    if kind == "HuberRegressor":
        huber = Huber(float(last.epsilon))
        model = LinearRegressionModel(matrix, intercept, np.array([huber.parameter(float(last.scale_))]))
        return model._set(loss="huber", epsilon=float(last.epsilon))
    if kind == "QuantileRegressor":
        return QuantileRegressionModel(matrix, intercept)._set(quantile=float(last.quantile))
    if kind not in REGRESSIONS:
        raise IncompatibleError(f"a {kind} has no counterpart here. Linear regressions and classifiers have.")
    return LinearRegressionModel(matrix, intercept)


def _is_logistic(last: Any, kind: str) -> bool:
    """Whether a classifier's scores are log-odds; refuse those that are neither that nor a margin of two classes."""
    labels = np.asarray(last.classes_)
    if labels.dtype.kind not in "iufb" or not np.array_equal(labels.astype(float), np.arange(len(labels))):
        shown = ", ".join(map(str, labels[:5]))
        raise IncompatibleError(f"the labels of this {kind} are {shown}; here they are 0, 1, …: fit it to those.")
    if kind in ("LogisticRegression", "LogisticRegressionCV"):
        if len(labels) > 2 and "ovr" in (getattr(last, "multi_class", ""), *(["ovr"] * (last.solver == "liblinear"))):
            raise IncompatibleError("one logistic regression for each class is no multinomial model: see OneVsRest.")
        return True
    loss = getattr(last, "loss", None) if kind == "SGDClassifier" else None
    if len(labels) == 2 and (kind == "LinearSVC" or loss in ("hinge", "squared_hinge", "log_loss")):
        return loss == "log_loss"
    raise IncompatibleError(
        f"a {kind} of {len(labels)} classes has no counterpart here. LogisticRegression has, and LinearSVC and "
        f"SGDClassifier of two classes."
    )

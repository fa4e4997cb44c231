"""Estimators agree with scikit-learn, without Spark: coefficients to 1e-3 of the largest, objectives to 1e-6.

test_estimator_agreement.py has pyspark.ml's.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import linear_model, svm
from sklearn.datasets import load_diabetes, load_wine
from sklearn.metrics import log_loss

from sparkopt.errors import IncompatibleError, ParameterError, SchemaError
from sparkopt.losses import Hinge, Poisson, Quantile, SquaredHinge
from sparkopt.ml import (
    GeneralizedLinearRegression,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    QuantileRegression,
)
from tests import spark_data as data

EXACT = {"tol": 1e-10, "maxIter": 3000}


@pytest.fixture(scope="module")
def diabetes():
    return data.table(*load_diabetes(return_X_y=True))


@pytest.fixture(scope="module")
def cancer():
    return data.table(*data.breast_cancer_arrays())


def arrays(table):
    return np.stack(table["features"].to_numpy()), table["label"].to_numpy()


def assert_close(ours, theirs, tolerance=1e-3):
    """Coefficients and intercept, within a share of the largest."""
    found, expected = (np.concatenate([np.ravel(part) for part in parts]) for parts in (ours, theirs))
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def mean_loss(loss, raw, y):
    return float(loss.value_gradient(y, raw)[0].mean())


@pytest.mark.parametrize("q", [0.5, 0.9])
def test_quantiles_are_scikit_learns(diabetes, q):
    X, y = arrays(diabetes)
    theirs = linear_model.QuantileRegressor(quantile=q, alpha=0, solver="highs").fit(X, y)
    ours = QuantileRegression(quantile=q, **{**EXACT, "tol": 1e-8}).fit(diabetes)
    assert_close((ours.coefficients, [ours.intercept]), (theirs.coef_, [theirs.intercept_]))
    expected = mean_loss(Quantile(q), theirs.predict(X), y)
    assert ours.evaluate(diabetes).meanQuantileLoss == pytest.approx(expected, rel=1e-6)
    assert ours.summary.objectiveHistory[-1] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["hinge", "squaredHinge"])
def test_support_vector_machines_are_scikit_learns(cancer, name):
    X, y = arrays(cancer)
    options = {"loss": name if name == "hinge" else "squared_hinge", "fit_intercept": False, "tol": 1e-10}
    theirs = svm.LinearSVC(C=1 / (len(y) * 0.01), max_iter=1_000_000, **options).fit(X, y)
    model = LinearSVC(loss=name, regParam=0.01, fitIntercept=False, standardization=False, **EXACT).fit(cancer)
    assert_close((model.coefficients,), (theirs.coef_,))
    loss = Hinge() if name == "hinge" else SquaredHinge()

    def objective(w):
        return mean_loss(loss, X @ w, y) + 0.5 * 0.01 * w @ w

    assert objective(model.coefficients.toArray()) <= objective(theirs.coef_[0]) * (1 + 1e-6)


def test_a_missing_offset_column_is_named(diabetes):
    with pytest.raises(SchemaError, match="offset column 'nope' does not exist"):
        GeneralizedLinearRegression(offsetCol="nope").fit(diabetes)
    model = GeneralizedLinearRegression(offsetCol="weight", **EXACT).fit(diabetes)
    with pytest.raises(SchemaError, match="offset column 'weight' does not exist"):
        model.transform(diabetes.drop_columns("weight"))


def test_penalised_families_are_scikit_learns(diabetes):
    X, y = arrays(diabetes)
    theirs = linear_model.PoissonRegressor(alpha=0.01, tol=1e-10, max_iter=1000).fit(X, y)
    ours = GeneralizedLinearRegression(family="poisson", regParam=0.01, standardization=False, **EXACT).fit(diabetes)
    assert_close((ours.coefficients, [ours.intercept]), (theirs.coef_, [theirs.intercept_]))
    raw = X @ theirs.coef_ + theirs.intercept_
    expected = mean_loss(Poisson(), raw, y) + 0.5 * 0.01 * np.square(theirs.coef_).sum()
    assert ours.summary.objectiveHistory[-1] == pytest.approx(expected, rel=1e-6)


def test_wine_is_scikit_learns():
    X, y = load_wine(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    theirs = linear_model.LogisticRegression(C=1 / (len(y) * 0.01), tol=1e-10, max_iter=5000).fit(X, y)
    ours = LogisticRegression(regParam=0.01, standardization=False, **EXACT).fit(data.table(X, y))
    assert_close((ours.coefficientMatrix.toArray(),), (theirs.coef_,))
    expected = log_loss(y, theirs.predict_proba(X)) + 0.5 * 0.01 * np.square(theirs.coef_).sum()
    assert ours.summary.objectiveHistory[-1] == pytest.approx(expected, rel=1e-6)


def test_contradictions_are_refused(cancer, diabetes):
    with pytest.raises(IncompatibleError, match="link='logit' does not work with family='poisson'"):
        GeneralizedLinearRegression(family="poisson", link="logit").fit(diabetes)
    with pytest.raises(IncompatibleError, match="link does not apply to family='tweedie'"):
        GeneralizedLinearRegression(family="tweedie", link="log").fit(diabetes)
    with pytest.raises(ParameterError, match="threshold=0.9 contradicts thresholds"):
        LogisticRegression(threshold=0.9, thresholds=[0.5, 0.5]).fit(cancer)
    with pytest.raises(ParameterError, match="bounds on intercepts need fitIntercept=True"):
        LogisticRegression(lowerBoundsOnIntercepts=[0.0], fitIntercept=False).fit(cancer)


def test_docstrings_carry_the_shared_parameters():
    for kind in (LinearRegression, QuantileRegression, LogisticRegression, LinearSVC, GeneralizedLinearRegression):
        assert "{shared}" not in kind.__doc__
        assert all(f"    {name} :" in kind.__doc__ for name in ("featuresCol", "regParam", "validationIndicatorCol"))

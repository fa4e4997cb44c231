"""Estimators agree with pyspark.ml or scikit-learn: coefficients to 1e-3 of the largest, objectives to 1e-6."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.ml import classification, regression
from pyspark.sql import functions as F
from sklearn import linear_model, svm
from sklearn.datasets import load_wine
from sklearn.metrics import log_loss

from sparkopt.errors import IncompatibleError, ParameterError, SchemaError
from sparkopt.losses import Hinge, Huber, Poisson, Quantile, SquaredHinge
from sparkopt.ml import (
    GeneralizedLinearRegression,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    QuantileRegression,
)
from tests import spark_data as data

EXACT = {"tol": 1e-10, "maxIter": 3000, "engine": "local"}


def arrays(df):
    rows = df.toPandas()
    return np.stack([vector.toArray() for vector in rows["features"]]), rows["label"].to_numpy()


def assert_close(ours, theirs, tolerance=1e-3):
    """Coefficients and intercept, within a share of the largest."""
    found, expected = (np.concatenate([np.ravel(part) for part in parts]) for parts in (ours, theirs))
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def mean_loss(loss, raw, y):
    return float(loss.value_gradient(y, raw)[0].mean())


@pytest.mark.parametrize("options", [{}, {"regParam": 0.1, "weightCol": "weight"}], ids=str)
def test_huber_is_pyspark_mls(diabetes, options):
    theirs = regression.LinearRegression(loss="huber", tol=1e-12, maxIter=1000, **options).fit(diabetes)
    ours = LinearRegression(loss="huber", **EXACT, **options).fit(diabetes)
    assert_close((ours.coefficients, [ours.intercept]), (theirs.coefficients, [theirs.intercept]))
    assert ours.scale == pytest.approx(theirs.scale, rel=1e-4)
    if not options:
        X, y = arrays(diabetes)

        def objective(model):
            loss = Huber()
            constant = np.full(len(y), loss.parameter(model.scale))
            raw = np.stack([X @ model.coefficients.toArray() + model.intercept, constant], axis=1)
            return mean_loss(loss, raw, y)

        assert objective(ours) <= objective(theirs) * (1 + 1e-6)


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


FAMILIES = {
    "gaussian log": {"family": "gaussian", "link": "log", "weightCol": "weight"},
    "binomial probit": {"family": "binomial", "link": "probit"},
    "poisson weighted": {"family": "poisson", "weightCol": "weight"},
    "poisson sqrt": {"family": "poisson", "link": "sqrt"},
    "gamma inverse": {"family": "gamma"},
    "tweedie": {"family": "tweedie", "variancePower": 1.5, "linkPower": 0.0, "weightCol": "weight"},
}


@pytest.mark.parametrize("options", FAMILIES.values(), ids=FAMILIES)
def test_families_are_pyspark_mls(generalized, options):
    df, theirs = generalized(**options)
    ours = GeneralizedLinearRegression(**EXACT, **options).fit(df)
    assert_close((ours.coefficients, [ours.intercept]), (theirs.coefficients, [theirs.intercept]))
    assert ours.summary.deviance == pytest.approx(theirs.summary.deviance, rel=1e-6)


OFFSETS = {
    "poisson": {"family": "poisson"},
    "gamma log weighted": {"family": "gamma", "link": "log", "weightCol": "weight"},
    "binomial no intercept": {"family": "binomial", "fitIntercept": False},
}


@pytest.mark.parametrize("options", OFFSETS.values(), ids=OFFSETS)
def test_offsets_are_pyspark_mls(diabetes, options):
    y = F.col("label")
    label = F.when(y > 140.5, 1.0).otherwise(0.0) if options["family"] == "binomial" else y
    df = diabetes.select("features", "weight", label.alias("label"), F.log("weight").alias("exposure"))
    options = {**options, "offsetCol": "exposure"}
    theirs = regression.GeneralizedLinearRegression(tol=1e-12, maxIter=100, linkPredictionCol="link", **options)
    theirs = theirs.fit(df)
    ours = GeneralizedLinearRegression(**EXACT, linkPredictionCol="link", **options).fit(df)
    assert_close((ours.coefficients, [ours.intercept]), (theirs.coefficients, [theirs.intercept]))
    for name in ("deviance", "nullDeviance", "aic"):
        assert getattr(ours.summary, name) == pytest.approx(getattr(theirs.summary, name), rel=1e-6), name
    np.testing.assert_allclose(
        ours.summary.coefficientStandardErrors, theirs.summary.coefficientStandardErrors, rtol=1e-3
    )
    found, expected = (
        model.transform(df.limit(20)).select("prediction", "link").toPandas() for model in (ours, theirs)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_a_missing_offset_column_is_named(diabetes):
    with pytest.raises(SchemaError, match="offset column 'nope' does not exist"):
        GeneralizedLinearRegression(offsetCol="nope").fit(diabetes)
    model = GeneralizedLinearRegression(offsetCol="weight", **EXACT).fit(diabetes)
    with pytest.raises(SchemaError, match="offset column 'weight' does not exist"):
        model.transform(diabetes.drop("weight"))


def test_penalised_families_are_scikit_learns(diabetes):
    X, y = arrays(diabetes)
    theirs = linear_model.PoissonRegressor(alpha=0.01, tol=1e-10, max_iter=1000).fit(X, y)
    ours = GeneralizedLinearRegression(family="poisson", regParam=0.01, standardization=False, **EXACT).fit(diabetes)
    assert_close((ours.coefficients, [ours.intercept]), (theirs.coef_, [theirs.intercept_]))
    raw = X @ theirs.coef_ + theirs.intercept_
    expected = mean_loss(Poisson(), raw, y) + 0.5 * 0.01 * np.square(theirs.coef_).sum()
    assert ours.summary.objectiveHistory[-1] == pytest.approx(expected, rel=1e-6)


def test_bounds_are_pyspark_mls(cancer):
    options = {
        "lowerBoundsOnCoefficients": [[0.0] * 10],
        "upperBoundsOnCoefficients": [[1.0] * 10],
        "upperBoundsOnIntercepts": [-0.5],
        "regParam": 0.01,
    }
    from pyspark.ml.linalg import Matrices, Vectors

    bounds = {name: Matrices.dense(1, 10, value[0]) for name, value in options.items() if "Coefficients" in name}
    theirs = classification.LogisticRegression(
        tol=1e-12, maxIter=500, regParam=0.01, upperBoundsOnIntercepts=Vectors.dense([-0.5]), **bounds
    ).fit(cancer)
    ours = LogisticRegression(**EXACT, **options).fit(cancer)
    assert_close((ours.coefficients, [ours.intercept]), (theirs.coefficients, [theirs.intercept]))
    assert ours.summary.objectiveHistory[-1] == pytest.approx(theirs.summary.objectiveHistory[-1], rel=1e-6)
    assert min(ours.coefficients) >= 0


def test_wine_is_scikit_learns(spark):
    X, y = load_wine(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    theirs = linear_model.LogisticRegression(C=1 / (len(y) * 0.01), tol=1e-10, max_iter=5000).fit(X, y)
    ours = LogisticRegression(regParam=0.01, standardization=False, **EXACT).fit(data.frame(spark, X, y))
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

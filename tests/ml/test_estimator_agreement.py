"""Estimators agree with pyspark.ml: coefficients to 1e-3 of the largest, objectives to 1e-6."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.ml import classification, regression
from pyspark.sql import functions as F

from sparkopt.losses import Huber
from sparkopt.ml import (
    AFTSurvivalRegression,
    AFTSurvivalRegressionModel,
    GeneralizedLinearRegression,
    LinearRegression,
    LogisticRegression,
)

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


@pytest.mark.parametrize("intercept", [True, False])
def test_survival_regression_is_pyspark_mls(diabetes, intercept, tmp_path):
    """pyspark.ml takes no weights here, and its features must vary where there is no intercept."""
    rows = diabetes.select("features", "label", (F.col("label") < 200).cast("int").alias("censor"))
    options = {"fitIntercept": intercept, "quantileProbabilities": [0.25, 0.5], "quantilesCol": "quantiles"}
    theirs = regression.AFTSurvivalRegression(tol=1e-12, maxIter=1000, **options).fit(rows)
    ours = AFTSurvivalRegression(**EXACT, **options).fit(rows)
    assert_close((ours.coefficients, [ours.intercept]), (theirs.coefficients, [theirs.intercept]))
    assert ours.scale == pytest.approx(theirs.scale, rel=1e-3)
    found, expected = (
        model.transform(rows.limit(20)).select("prediction", "quantiles").toPandas() for model in (ours, theirs)
    )
    np.testing.assert_allclose(found["prediction"], expected["prediction"], rtol=1e-2)
    np.testing.assert_allclose(np.stack(found["quantiles"]), np.stack(expected["quantiles"]), rtol=1e-2)

    def written(model):
        path = str(tmp_path / type(model).__module__)
        (model.write().format("pyspark") if model is ours else model.write()).save(path)
        return path

    again = AFTSurvivalRegressionModel.load(written(theirs))
    assert (again.scale, again.intercept) == pytest.approx((theirs.scale, theirs.intercept))
    loaded = regression.AFTSurvivalRegressionModel.load(written(ours))
    assert (loaded.scale, loaded.intercept) == pytest.approx((ours.scale, ours.intercept))


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

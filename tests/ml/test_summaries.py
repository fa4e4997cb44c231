"""Summaries equal pyspark.ml's of the same coefficients, and scikit-learn's where pyspark.ml has none."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.ml import classification, regression
from sklearn import metrics

from sparkopt.errors import DataError, IncompatibleError
from sparkopt.ml import (
    GeneralizedLinearRegressionModel,
    LinearRegression,
    LinearRegressionModel,
    LogisticRegression,
    LogisticRegressionModel,
)
from sparkopt.ml.summary import classification as summaries

WEIGHTS = {"unweighted": {}, "weighted": {"weightCol": "weight"}}


def same_linear(theirs, **options):
    """Our model with the coefficients of pyspark.ml's."""
    return LinearRegressionModel(theirs.coefficients.toArray()[None], np.array([theirs.intercept]))._set(**options)


def same_logistic(theirs, **options):
    matrix, intercept = theirs.coefficientMatrix.toArray(), theirs.interceptVector.toArray()
    return LogisticRegressionModel(matrix, intercept)._set(**options)


def assert_close(found, expected, name="", rtol=1e-9):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-13, err_msg=name)  # small ones are 1 − large ones


def assert_same(ours, theirs, names, rtol=1e-9):
    for name in names:
        expected, found = getattr(theirs, name), getattr(ours, name)
        if callable(expected):
            expected, found = expected(0.5), found(0.5)
        assert_close(found, expected, name, rtol)


REGRESSION = [
    "numInstances",
    "degreesOfFreedom",
    "meanSquaredError",
    "rootMeanSquaredError",
    "meanAbsoluteError",
    "explainedVariance",
    "devianceResiduals",
    "coefficientStandardErrors",
    "tValues",
    "pValues",
]


@pytest.mark.parametrize("options", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("intercept", [True, False])
def test_regression(diabetes, options, intercept):
    options = {**options, "fitIntercept": intercept}
    theirs = regression.LinearRegression(solver="normal", **options).fit(diabetes)
    ours = same_linear(theirs, **options).evaluate(diabetes)
    assert_same(ours, theirs.summary, REGRESSION)
    if "weightCol" not in options:  # theirs depends on the unit of weights
        assert_same(ours, theirs.summary, ["r2", "r2adj"])
    elif intercept:
        scored = ours.predictions.toPandas()
        expected = metrics.r2_score(scored["label"], scored["prediction"], sample_weight=scored["weight"])
        assert ours.r2 == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(
        ours.residuals.toPandas()["residuals"], theirs.summary.residuals.toPandas()["residuals"], rtol=1e-9
    )


CLASSES = [
    "labels",
    "accuracy",
    "truePositiveRateByLabel",
    "falsePositiveRateByLabel",
    "precisionByLabel",
    "recallByLabel",
    "fMeasureByLabel",
    "weightedTruePositiveRate",
    "weightedFalsePositiveRate",
    "weightedRecall",
    "weightedPrecision",
    "weightedFMeasure",
]
CURVES = ["roc", "pr", "fMeasureByThreshold", "precisionByThreshold", "recallByThreshold"]


@pytest.mark.parametrize("options", WEIGHTS.values(), ids=WEIGHTS)
def test_two_classes(cancer, options):
    theirs = classification.LogisticRegression(maxIter=5, **options).fit(cancer)
    summary = theirs.evaluate(cancer)
    ours = same_logistic(theirs, **options).evaluate(cancer)
    assert_same(ours, summary, [*CLASSES, "areaUnderROC"])
    for name in CURVES:
        expected, found = getattr(summary, name).toPandas(), getattr(ours, name).toPandas()
        assert list(found.columns) == list(expected.columns), name
        assert_close(found, expected, name)


@pytest.mark.parametrize("options", WEIGHTS.values(), ids=WEIGHTS)
def test_many_classes(digits, options):
    theirs = classification.LogisticRegression(maxIter=3, **options).fit(digits)
    ours = same_logistic(theirs, **options).evaluate(digits)
    assert_same(ours, theirs.evaluate(digits), CLASSES)
    assert not hasattr(ours, "roc")


GENERALIZED = [
    "numInstances", "rank", "degreesOfFreedom", "residualDegreeOfFreedom", "residualDegreeOfFreedomNull", "deviance",
    "nullDeviance", "dispersion", "coefficientStandardErrors", "tValues", "pValues",
]  # fmt: skip
FAMILIES = {
    "gaussian log": {"family": "gaussian", "link": "log", "weightCol": "weight"},
    "binomial": {"family": "binomial"},
    "binomial probit": {"family": "binomial", "link": "probit"},
    "poisson": {"family": "poisson", "weightCol": "weight"},
    "gamma inverse": {"family": "gamma"},
    "tweedie": {"family": "tweedie", "variancePower": 1.5, "linkPower": 0.0, "weightCol": "weight"},
}


@pytest.mark.parametrize("options", FAMILIES.values(), ids=FAMILIES)
def test_generalized(generalized, options):
    df, theirs = generalized(**options)
    matrix, intercept = theirs.coefficients.toArray()[None], np.array([theirs.intercept])
    ours = GeneralizedLinearRegressionModel(matrix, intercept)._set(**options).evaluate(df)
    assert_same(ours, theirs.summary, GENERALIZED, rtol=1e-6)  # theirs: the weights of the step before the last
    if options["family"] == "tweedie":
        with pytest.raises(IncompatibleError, match="has no AIC"):
            _ = ours.aic
    else:
        assert ours.aic == pytest.approx(theirs.summary.aic, rel=1e-9)
    for kind in ("deviance", "pearson", "working", "response"):
        expected, found = theirs.summary.residuals(kind).toPandas(), ours.residuals(kind).toPandas()
        assert list(found.columns) == list(expected.columns)
        assert_close(found, expected, kind, rtol=1e-7)


def test_a_curve_of_many_scores_keeps_exact_points(cancer, monkeypatch):
    monkeypatch.setattr(summaries, "BINS", 20)
    model = LogisticRegressionModel(np.eye(1, 10), np.zeros(1))._set(weightCol="weight")
    found = model.evaluate(cancer)
    points = found.recallByThreshold.toPandas()
    assert 15 <= len(points) <= 21
    rows = found.predictions.toPandas()
    score = np.array([vector[1] for vector in rows["probability"]])
    positive = rows["weight"] * (rows["label"] == 1)
    expected = [positive[score >= threshold].sum() / positive.sum() for threshold in points["threshold"]]
    np.testing.assert_allclose(points["recall"], expected, rtol=1e-12)
    exact = metrics.roc_auc_score(rows["label"], score, sample_weight=rows["weight"])
    assert found.areaUnderROC == pytest.approx(exact, abs=2e-3)


def test_training_summary_looks_at_its_rows(cancer):
    model = LogisticRegression(maxIter=3, tol=0.0, predictionCol="", probabilityCol="").fit(cancer)
    assert model.transform(cancer).columns == [*cancer.columns, "rawPrediction"]
    summary, evaluated = model.summary, model.evaluate(cancer)
    assert summary.accuracy == evaluated.accuracy > 0.9
    assert summary.areaUnderROC == evaluated.areaUnderROC > 0.9
    assert {summary.predictionCol, summary.probabilityCol} < set(summary.predictions.columns)
    assert summary.totalIterations == 3
    assert model.copy().summary is summary


def test_an_empty_frame_is_refused(cancer):
    model = LogisticRegressionModel(np.eye(1, 10), np.zeros(1))
    with pytest.raises(DataError, match="there are no rows to evaluate"):
        _ = model.evaluate(cancer.limit(0)).accuracy
    with pytest.raises(DataError, match="there are no rows to evaluate"):
        _ = LinearRegressionModel(np.eye(1, 10), np.zeros(1)).evaluate(cancer.limit(0)).r2


def test_standard_errors_need_a_plain_fit(cancer, diabetes):
    model = LinearRegressionModel(np.eye(1, 10), np.zeros(1))._set(regParam=0.1)
    with pytest.raises(IncompatibleError, match=r"this one has regParam=0.1. Fit with regParam=0"):
        _ = model.evaluate(diabetes).pValues
    twice = diabetes.selectExpr("array(1.0D, label, label) AS features", "label")
    with pytest.raises(DataError, match="constant or linearly dependent"):
        _ = LinearRegression(maxIter=1, tol=0.0).fit(twice).summary.tValues


@pytest.mark.parametrize("kind", ["two classes", "many classes", "regression"])
def test_the_first_metric_is_read_with_all_others(spark, cancer, digits, diabetes, kind):
    rows, model, names = {
        "two classes": (cancer, LogisticRegressionModel(np.eye(1, 10), np.zeros(1)), [*CLASSES, "areaUnderROC"]),
        "many classes": (digits, LogisticRegressionModel(np.eye(10, 64), np.zeros(10)), CLASSES),
        "regression": (diabetes, LinearRegressionModel(np.eye(1, 10), np.zeros(1)), [*REGRESSION[:7], "r2", "r2adj"]),
    }[kind]
    (first, *others), summary = names, model.evaluate(rows)
    getattr(summary, first)
    spark.sparkContext.setJobGroup(kind, "metrics")
    try:
        for name in others:
            found = getattr(summary, name)
            assert (found() if callable(found) else found) is not None
    finally:
        spark.sparkContext.setJobGroup("", "")
    assert list(spark.sparkContext.statusTracker().getJobIdsForGroup(kind)) == []

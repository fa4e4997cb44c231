"""Coefficients and objectives equal pyspark.ml's, on real data."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.ml import classification, regression

from sparkopt.ml import LinearRegression, LogisticRegression
from tests.spark import data

L2 = {"regParam": 0.1}
ELASTIC = {"regParam": 0.05, "elasticNetParam": 0.5}
WEIGHTED = {"weightCol": "weight"}
NO_INTERCEPT = {"fitIntercept": False}
UNSCALED = {"standardization": False}

# Every penalty with and without each of weights, intercept and standardisation.
CASES = {
    "plain": {},
    "weighted no intercept": {**WEIGHTED, **NO_INTERCEPT},
    "l2": L2,
    "l2 weighted unscaled": {**L2, **WEIGHTED, **UNSCALED},
    "l2 no intercept": {**L2, **NO_INTERCEPT},
    "elastic weighted": {**ELASTIC, **WEIGHTED},
    "elastic unscaled no intercept": {**ELASTIC, **UNSCALED, **NO_INTERCEPT},
}


def assert_equal(ours, theirs):
    """Coefficients within 1e-4 of the largest, objectives within 1e-6."""
    reference = np.concatenate([np.ravel(part) for part in theirs[:2]])
    found = np.concatenate([np.ravel(part) for part in ours[:2]])
    assert np.abs(found - reference).max() <= 1e-4 * np.abs(reference).max()
    assert ours[2] == pytest.approx(theirs[2], rel=1e-6, abs=1e-9)


def linear(model):
    return model.coefficients.toArray(), [model.intercept], model.summary.objectiveHistory[-1]


def logistic(model):
    return model.coefficientMatrix.toArray(), model.interceptVector.toArray(), model.summary.objectiveHistory[-1]


@pytest.fixture(scope="module")
def diabetes(spark):
    return data.diabetes(spark)


@pytest.fixture(scope="module")
def breast_cancer(spark):
    return data.breast_cancer(spark)


@pytest.fixture(scope="module")
def a9a(spark, shared_data):
    return data.a9a(spark, shared_data)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_linear_regression(diabetes, options):
    theirs = regression.LinearRegression(solver="l-bfgs", tol=1e-12, maxIter=500, **options).fit(diabetes)
    ours = LinearRegression(tol=1e-11, maxIter=1000, **options).fit(diabetes)
    assert_equal(linear(ours), linear(theirs))


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_logistic_regression(breast_cancer, options):
    if not options.get("regParam"):
        options = {**options, "regParam": 1e-4}  # nearly separable: without any penalty MLlib itself wanders
    theirs = classification.LogisticRegression(tol=1e-12, maxIter=500, **options).fit(breast_cancer)
    ours = LogisticRegression(tol=1e-11, maxIter=1000, **options).fit(breast_cancer)
    assert_equal(logistic(ours), logistic(theirs))


@pytest.mark.parametrize("name", ["l2 weighted unscaled", "elastic weighted"])
def test_multinomial(spark, name):
    digits = data.digits(spark).limit(600).repartition(2)
    theirs = classification.LogisticRegression(tol=1e-10, maxIter=300, **CASES[name]).fit(digits)
    ours = LogisticRegression(tol=1e-11, maxIter=1000, **CASES[name]).fit(digits)
    assert_equal(logistic(ours), logistic(theirs))


@pytest.mark.parametrize("name", ["plain", "l2 weighted unscaled", "elastic weighted"])
def test_sparse(a9a, name):
    # without a penalty the rare features of a9a keep creeping outwards: a whisper of L2 gives it an optimum
    options = CASES[name] or {"regParam": 1e-3}
    theirs = classification.LogisticRegression(tol=1e-12, maxIter=500, **options).fit(a9a)
    ours = LogisticRegression(tol=1e-11, maxIter=1000, **options).fit(a9a)
    assert_equal(logistic(ours), logistic(theirs))

"""Coefficients and objectives equal pyspark.ml's, on real data, for every combination of options.

The normal run has a quarter of them for each estimator, among them every combination of any two options, and in all
three estimators three quarters.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from pyspark.ml import classification, regression

from sparkopt.ml import LinearRegression, LogisticRegression
from tests import spark_data as data
from tests.tiers import needs

PENALTIES = {"none": {}, "l2": {"regParam": 0.1}, "elastic net": {"regParam": 0.05, "elasticNetParam": 0.5}}
WEIGHTS = {"": {}, "weighted": {"weightCol": "weight"}}
INTERCEPTS = {"": {}, "no intercept": {"fitIntercept": False}}
SCALES = {"": {}, "unscaled": {"standardization": False}}
CHOICES = (PENALTIES, WEIGHTS, INTERCEPTS, SCALES)
CASES = {
    names: {key: value for table, name in zip(CHOICES, names, strict=True) for key, value in table[name].items()}
    for names in product(*CHOICES)
}
EXACT = {"tol": 1e-11, "maxIter": 2000, "engine": "local"}


def cases(rotation: int):
    """All combinations; those that the normal run leaves to the other estimators, or out, are marked.

    With one penalty, four pairs of complements are the eight choices of the other options. Each penalty has a pair of
    its own, so any two options occur together; the three estimators have three different pairs for each penalty.
    """
    marked = []
    for names, options in CASES.items():
        first, *others = map(bool, names[1:])
        pair = (first != others[0]) + 2 * (first != others[1])
        is_chosen = pair == (list(PENALTIES).index(names[0]) + rotation) % 4
        marks = [] if is_chosen else [needs("minutes")]
        marked.append(pytest.param(options, id=" ".join(filter(None, names)), marks=marks))
    return pytest.mark.parametrize("options", marked)


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
def a9a(spark, shared_data):
    return data.a9a(spark, shared_data)


@pytest.fixture(scope="module")
def some_digits(digits):
    return digits.limit(600).repartition(1).cache()


@pytest.fixture(scope="module")
def pyspark_fit():
    """pyspark.ml's answer, found once where standardisation cannot matter since there is no penalty."""
    known = {}

    def fit(estimator, df, read, options):
        used = {key: value for key, value in options.items() if options.get("regParam") or key != "standardization"}
        key = (type(estimator).__name__, id(df), *sorted(used.items()))
        if key not in known:
            params = {estimator.getParam(name): value for name, value in used.items()}
            known[key] = read(estimator.copy(params).fit(df))
        return known[key]

    return fit


@cases(0)
def test_linear_regression(diabetes, pyspark_fit, options):
    if "elasticNetParam" in options:
        options = {**options, "regParam": 1.0}  # over the target's spread of 77
    theirs = regression.LinearRegression(solver="l-bfgs", tol=1e-12, maxIter=500)
    ours = LinearRegression(solver="l-bfgs", **EXACT, **options).fit(diabetes)
    assert_equal(linear(ours), pyspark_fit(theirs, diabetes, linear, options))


@cases(1)
def test_logistic_regression(cancer, pyspark_fit, options):
    theirs = classification.LogisticRegression(tol=1e-12, maxIter=500)
    ours = LogisticRegression(**EXACT, **options).fit(cancer)
    assert_equal(logistic(ours), pyspark_fit(theirs, cancer, logistic, options))


@pytest.mark.parametrize(
    "names", [("l2", "", "", ""), ("elastic net", "weighted", "", "")], ids=lambda names: names[0]
)
def test_multinomial(some_digits, pyspark_fit, names):
    options = CASES[names]
    theirs = classification.LogisticRegression(tol=1e-10, maxIter=300)
    ours = LogisticRegression(**EXACT, **options).fit(some_digits)
    assert_equal(logistic(ours), pyspark_fit(theirs, some_digits, logistic, options))


@cases(2)
def test_sparse(a9a, pyspark_fit, options):
    theirs = classification.LogisticRegression(tol=1e-12, maxIter=500)
    ours = LogisticRegression(**EXACT, **options).fit(a9a)
    assert_equal(logistic(ours), pyspark_fit(theirs, a9a, logistic, options))

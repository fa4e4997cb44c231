"""Rows at the edge of what has an optimum, without Spark: separated classes, one label, no features.

test_edge_cases.py has those that pyspark.ml is asked for.
"""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pytest

from sparkopt import ml
from sparkopt.errors import NotConvergedWarning, ParameterError
from sparkopt.machine import Table
from tests.tables import joined


def rows_of(X, y, partitions=1):
    X, y = np.array(X, dtype=float), np.array(y, dtype=float)
    return joined([Table.of((X[rows], y[rows])) for rows in np.array_split(np.arange(len(X)), partitions)])


@pytest.mark.parametrize("partitions", [1, 2, 3])
def test_separated_classes_without_a_penalty_are_told_apart(partitions):
    rng = np.random.default_rng(0)
    X = np.round(rng.normal(size=(6, 4)) * (rng.random((6, 4)) < 0.5), 2)
    rows = rows_of(X, [0, 1, 2, 0, 1, 2], partitions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        model = ml.LogisticRegression().fit(rows)
    assert model.summary.accuracy == 1.0
    assert model.summary.objectiveHistory[-1] < 1e-6


def test_one_label_only_through_the_origin_or_inside_bounds_is_fitted():
    rows = rows_of([[1.0], [2.0]], [1, 1])
    model = ml.LogisticRegression(fitIntercept=False, regParam=0.1).fit(rows)
    assert model.intercept == 0.0 < model.coefficients[0] < np.inf
    bounded = ml.LogisticRegression(upperBoundsOnIntercepts=[3.0], regParam=0.1).fit(rows)
    assert bounded.intercept == pytest.approx(3.0)


def test_a_model_of_one_label_is_a_start_for_the_next_day():
    yesterday = ml.LogisticRegression().fit(rows_of([[1.0], [2.0]], [1, 1]))
    rows = rows_of([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])
    cold = ml.LogisticRegression(regParam=0.1, tol=1e-12).fit(rows)
    warm = ml.LogisticRegression(regParam=0.1, tol=1e-12, initialModel=yesterday).fit(rows)
    assert warm.intercept == pytest.approx(cold.intercept, abs=1e-4)


KINDS = {
    "least squares": (ml.LinearRegression, {}, 2 / 3),
    "logistic": (ml.LogisticRegression, {}, np.log(2)),
    "gaussian": (ml.GeneralizedLinearRegression, {}, 2 / 3),
    "poisson": (ml.GeneralizedLinearRegression, {"family": "poisson"}, np.log(2 / 3)),
    "median": (ml.QuantileRegression, {}, 1.0),
}


@pytest.mark.parametrize("name", KINDS)
def test_without_features_there_is_an_intercept(name):
    kind, options, intercept = KINDS[name]
    rows = rows_of(np.zeros((3, 0)), [0, 1, 1])
    model = kind(tol=1e-12, **options).fit(rows)
    assert model.numFeatures == 0
    assert model.intercept == pytest.approx(intercept, abs=1e-4)
    assert model.transform(rows).rows == 3
    with pytest.raises(ParameterError, match="neither features nor an intercept"):
        kind(fitIntercept=False, **options).fit(rows)


@pytest.mark.parametrize("unit", [1e6, 1e7, 1e9])
@pytest.mark.parametrize("kind", [ml.QuantileRegression, ml.LinearRegression])
def test_labels_of_millions_are_fitted_as_small_ones_are(kind, unit):
    rng = np.random.default_rng(4)
    X = rng.normal(size=(300, 2))
    y = X @ [1.0, -2.0] + 5.0 + rng.normal(size=300)
    small, large = (kind(tol=1e-12).fit(rows_of(X, values, 2)) for values in (y, unit * y))
    found, expected = (np.append(model.coefficients.toArray(), model.intercept) for model in (large, small))
    np.testing.assert_allclose(found / unit, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"optimizer": "lbfgs"}, {"optimizer": "subsampled-newton"}], ids=str)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_class_may_weigh_nothing_in_a_partition(classes, options):
    rng = np.random.default_rng(6)
    X = rng.normal(size=(300, 2)).round(3)
    y = np.argmax(X @ rng.normal(size=(2, classes)) + rng.gumbel(size=(300, classes)), axis=1)
    second, last = np.arange(300) >= 150, y == classes - 1
    weight = np.where(second & last, 0.0, 1.0)
    parts = [
        Table.of(pa.table({"features": list(X[rows]), "label": y[rows], "weight": weight[rows]}))
        for rows in (~second, second)
    ]
    rows = Table(parts[0].schema, (*parts[0].partitions, *parts[1].partitions))
    estimator = ml.LogisticRegression(regParam=0.01, tol=1e-12, maxIter=200, weightCol="weight", **options)
    found = estimator.fit(rows)
    kept = weight > 0
    expected = estimator.fit(pa.table({"features": list(X[kept]), "label": y[kept], "weight": weight[kept]}))
    np.testing.assert_allclose(
        found.coefficientMatrix.toArray(), expected.coefficientMatrix.toArray(), rtol=1e-4, atol=1e-5
    )

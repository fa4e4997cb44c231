"""Estimators on tables: no Spark, no Java, and to the bit what Spark gives on the same partitions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import linear_model

from sparkopt.ml import LinearRegression, LogisticRegression
from tests.partitions import as_spark_reads

rng = np.random.default_rng(5)
X = rng.normal(size=(3000, 4)).astype(np.float32)
raw = X @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.3
WEIGHT = rng.uniform(0.5, 2.0, len(X))
LABEL = (raw + rng.logistic(size=len(X)) > 0).astype(float)
NUMBER = raw + rng.normal(size=len(X))


def lists(rows: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


@pytest.fixture
def people(tmp_path):
    """A Parquet file of several row groups."""
    columns = {"features": lists(X), "label": LABEL, "number": NUMBER, "weight": WEIGHT}
    pq.write_table(pa.table(columns), tmp_path / "people.parquet", row_group_size=700)
    return tmp_path / "people.parquet"


def test_logistic_regression_agrees_with_scikit_learn(people):
    model = LogisticRegression(regParam=0.01, weightCol="weight", standardization=False, tol=1e-10).fit(people)
    other = linear_model.LogisticRegression(C=1 / (0.01 * WEIGHT.sum()), tol=1e-10).fit(
        X.astype(float), LABEL, WEIGHT
    )
    np.testing.assert_allclose(model.coefficients, other.coef_[0], rtol=1e-4)
    receipt = model.summary.receipt
    assert receipt.reader == "arrow: people.parquet, row groups 0 to 4"


def test_least_squares_on_arrays_and_arrow():
    exact = np.linalg.lstsq(np.column_stack([X, np.ones(len(X))]), NUMBER, rcond=None)[0]
    model = LinearRegression(tol=1e-12).fit((X, NUMBER))
    np.testing.assert_allclose([*model.coefficients, model.intercept], exact, rtol=1e-5)
    table = pa.table({"features": lists(X), "label": NUMBER})
    assert LinearRegression(tol=1e-12).fit(table).coefficients == model.coefficients


@pytest.mark.usefixtures("minutes")
def test_spark_gives_the_same_bits(spark, tmp_path):
    for part in range(3):
        columns = {"features": lists(X[part::3]), "label": LABEL[part::3], "weight": WEIGHT[part::3]}
        pq.write_table(pa.table(columns), tmp_path / f"{part}.parquet", row_group_size=700)
    df = spark.read.parquet(str(tmp_path))
    estimator = LogisticRegression(regParam=0.01, weightCol="weight", engine="driver")
    table = as_spark_reads(df, estimator._columns(), tmp_path)
    assert len(table.partitions) > 1
    here, there = estimator.fit(table), estimator.fit(df)
    assert here.coefficients == there.coefficients
    assert here.intercept == there.intercept

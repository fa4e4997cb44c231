"""Estimators on tables: no Spark, no Java, and to the bit what Spark gives on the same partitions."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import linear_model, svm

from sparkopt.errors import DataError, SchemaError
from sparkopt.ml import (
    GeneralizedLinearRegression,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    QuantileRegression,
)
from tests.partitions import as_spark_reads

ROOT = Path(__file__).parents[2]

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
    assert (receipt.engine, receipt.partitions) == ("driver", 1)
    assert "  run by    one machine, one process" in str(receipt)
    assert receipt.reader == "arrow: people.parquet, row groups 0 to 4"


def test_least_squares_on_arrays_and_arrow():
    exact = np.linalg.lstsq(np.column_stack([X, np.ones(len(X))]), NUMBER, rcond=None)[0]
    model = LinearRegression(tol=1e-12).fit((X, NUMBER))
    np.testing.assert_allclose([*model.coefficients, model.intercept], exact, rtol=1e-5)
    table = pa.table({"features": lists(X), "label": NUMBER})
    assert LinearRegression(tol=1e-12).fit(table).coefficients == model.coefficients


def test_every_source_of_the_same_rows_gives_the_same_model(people, tmp_path):
    """NumPy, pandas by columns, Arrow, CSV and Parquet."""
    names = ["a", "b", "c", "d"]
    frame = pd.DataFrame({**{name: X[:, i] for i, name in enumerate(names)}, "label": LABEL})
    frame.to_csv(tmp_path / "people.csv", index=False)
    by_column = LogisticRegression(featuresCols=names, regParam=0.1)
    models = [
        LogisticRegression(regParam=0.1).fit((X, LABEL)),
        LogisticRegression(regParam=0.1).fit((np.asfortranarray(X), LABEL.astype(int))),
        LogisticRegression(regParam=0.1).fit(str(people)),
        LogisticRegression(regParam=0.1).fit(pq.read_table(people)),
        LogisticRegression(regParam=0.1).fit(pq.read_table(people).to_reader(500)),
        by_column.fit(frame),
        by_column.fit(pa.Table.from_pandas(frame)),
        by_column.fit(tmp_path / "people.csv"),
    ]
    for model in models[:-1]:
        assert model.coefficients == models[0].coefficients
    np.testing.assert_allclose(models[-1].coefficients, models[0].coefficients, rtol=1e-6)  # read as doubles


@pytest.mark.parametrize("kind", [LinearRegression, GeneralizedLinearRegression])
def test_least_squares_of_every_estimator(kind):
    exact = np.linalg.lstsq(np.column_stack([X, np.ones(len(X))]), NUMBER, rcond=None)[0]
    model = kind(tol=1e-12).fit((X.astype(float), NUMBER))
    np.testing.assert_allclose([*model.coefficients, model.intercept], exact, rtol=1e-6)


def test_the_other_estimators_agree_with_scikit_learn():
    exact = X.astype(float)
    median = QuantileRegression(quantile=0.5, regParam=0.0, tol=1e-9).fit((exact, NUMBER))
    other = linear_model.QuantileRegressor(quantile=0.5, alpha=0).fit(exact, NUMBER)
    np.testing.assert_allclose([*median.coefficients, median.intercept], [*other.coef_, other.intercept_], atol=1e-3)
    count = np.exp(np.clip(raw, -3, 2)).round()
    poisson = GeneralizedLinearRegression(family="poisson", tol=1e-12).fit((exact, count))
    rates = linear_model.PoissonRegressor(alpha=0, tol=1e-12, max_iter=1000).fit(exact, count)
    np.testing.assert_allclose(poisson.coefficients, rates.coef_, rtol=1e-5)
    kinds = np.digitize(NUMBER, [-1, 1])
    many = LogisticRegression(regParam=0.01, standardization=False, tol=1e-12).fit((exact, kinds))
    soft = linear_model.LogisticRegression(C=1 / (0.01 * len(X)), tol=1e-12, max_iter=1000).fit(exact, kinds)
    np.testing.assert_allclose(many.coefficientMatrix.toArray(), soft.coef_, rtol=1e-4, atol=1e-6)
    hinge = LinearSVC(regParam=0.1, tol=1e-10, maxIter=500, standardization=False).fit((exact, LABEL))
    margin = (2 * LABEL - 1) * (exact @ hinge.coefficients + hinge.intercept)
    objective = np.maximum(0, 1 - margin).mean() + 0.05 * hinge.coefficients.dot(hinge.coefficients)
    support = svm.LinearSVC(C=1 / (0.1 * len(X)), loss="hinge", intercept_scaling=10, tol=1e-3, max_iter=10_000)
    w = support.fit(exact, LABEL).coef_[0]
    least = np.maximum(0, 1 - (2 * LABEL - 1) * (exact @ w + support.intercept_)).mean() + 0.05 * w @ w
    assert least / 1.01 < objective < least * 1.0001  # liblinear penalises the intercept, and ends at a tolerance


def test_balanced_classes_weigh_the_same(people):
    model = LogisticRegression(regParam=0.01, classWeights="balanced", weightCol="weight").fit(people)
    factors = WEIGHT * np.array([0.5 / WEIGHT[label == LABEL].sum() for label in (0, 1)])[LABEL.astype(int)]
    rows = pa.table({"features": lists(X), "label": LABEL, "weight": factors * WEIGHT.sum()})
    other = LogisticRegression(regParam=0.01, weightCol="weight").fit(rows)
    np.testing.assert_allclose(model.coefficients, other.coefficients, rtol=1e-6)


def test_validation_rows_stop_a_fit():
    rows = pa.table({"features": lists(X), "label": LABEL, "aside": np.arange(len(X)) % 3 == 0})
    estimator = LogisticRegression(validationIndicatorCol="aside", optimizer="gd", patience=2, maxIter=30)
    model = estimator.fit(rows)
    assert None not in model.summary.validationHistory
    assert model.summary.dataset.rows is None or model.summary.dataset.rows < len(X)


def test_starting_from_a_model_and_callbacks(people):
    first = LogisticRegression(regParam=0.01, tol=1e-10).fit(people)
    steps = []
    again = LogisticRegression(regParam=0.01, tol=1e-6, initialModel=first, callbacks=[lambda p: steps.append(p)])
    model = again.fit(people)
    assert model.summary.totalIterations <= 1
    assert len(steps) >= 1


def test_engines_of_spark_are_replaced(people, caplog):
    caplog.set_level(logging.INFO)
    expected = LogisticRegression(engine="driver").fit(people)
    for engine in ("resident", "allreduce", "local", "auto"):
        model = LogisticRegression(engine=engine).fit(people)
        assert model.coefficients == expected.coefficients
        assert model.summary.receipt.engine == "driver"
    assert "engine 'resident' runs Spark's tasks, and a table needs no Spark" in caplog.text
    assert "40 passes estimated at driver 0.0" in caplog.text


def test_plans_of_fits(people):
    plan = LogisticRegression(engine="resident").explain(people)
    assert "3,000 x 4 features, dense" in str(plan)
    assert "arrow: people.parquet, row groups 0 to 4" in str(plan)
    assert plan.engine.name == "driver"
    with pytest.raises(
        DataError, match=r"label column 'label', partition 0 .*row 1 is nan; it must be a whole number"
    ):
        LogisticRegression().explain((X[:2], [0.0, np.nan]))
    with pytest.raises(SchemaError, match="features column 'x' does not exist"):
        LogisticRegression(featuresCol="x").explain(people)


def test_what_is_no_table_is_refused():
    with pytest.raises(ValueError, match="a table is made of a path, Arrow, pandas, or a pair"):
        LogisticRegression().fit(3)


def test_no_java_is_needed():
    """Neither Java nor anything else is on the path."""
    environment = {"PATH": "/nowhere", "PYTHONPATH": str(ROOT), "HOME": os.environ.get("HOME", "/")}
    script = [sys.executable, str(ROOT / "tests" / "ml" / "no_java.py")]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1:] for line in done.stdout.splitlines()] == [["driver", "3"]] * 5


KILLED = """
import os, signal, sys
from sparkopt.ml import LogisticRegression
def kill(progress):
    if progress.record.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
LogisticRegression(optimizer="gd", maxIter=12, tol=0, checkpointDir=sys.argv[2], callbacks=[kill]).fit(sys.argv[1])
"""


def test_a_killed_fit_resumes(people, tmp_path):
    estimator = LogisticRegression(optimizer="gd", maxIter=12, tol=0.0, checkpointInterval=2)
    whole = estimator.fit(people)
    script = KILLED.replace("tol=0,", "tol=0.0, checkpointInterval=2,")
    arguments = [sys.executable, "-c", script, str(people), str(tmp_path / "checkpoints")]
    done = subprocess.run(arguments, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert done.returncode < 0, done.stderr
    resumed = estimator.copy().setCheckpointDir(str(tmp_path / "checkpoints")).fit(people)
    assert resumed.summary.receipt.resumed_at == 4
    assert resumed.coefficients == whole.coefficients


@pytest.mark.usefixtures("minutes")
def test_an_active_session_is_not_used(spark, people, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Spark was used")

    monkeypatch.setattr(type(spark.sparkContext._gateway._gateway_client), "send_command", refuse)
    model = LogisticRegression(regParam=0.1, classWeights="balanced").fit(people)
    assert model.summary.receipt.engine == "driver"


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

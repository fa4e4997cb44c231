"""handleInvalid: one meaning for fitting, scoring and evaluating, whatever holds the rows, with and without Spark."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkopt.errors import DataError, ParameterError
from sparkopt.ml import (
    CrossValidator,
    GeneralizedLinearRegression,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    OneVsRest,
    QuantileRegression,
    RegressionEvaluator,
)
from tests.tiers import needs

ROWS, NAMES = 200, ["a b", "c", "d"]
RNG = np.random.default_rng(11)
X = RNG.normal(size=(ROWS, 3)).round(3)
Y = (X @ [1.0, -2.0, 0.5] + RNG.logistic(size=ROWS) > 0).astype(float)
W = RNG.uniform(0.5, 2.0, ROWS)
BAD = {3: ("a b", None), 17: ("c", math.nan), 50: ("d", math.inf), 90: ("label", None), 120: ("w", math.nan)}
BROKEN = np.isin(np.arange(ROWS), [*BAD])
"""Rows of which one value cannot be trained on; the last two can be scored."""
SCORED = ~np.isin(np.arange(ROWS), [3, 17, 50])

ESTIMATORS = {
    "logistic": LogisticRegression(regParam=0.1),
    "linear": LinearRegression(regParam=0.1),
    "poisson": GeneralizedLinearRegression(family="poisson", regParam=0.1),
    "quantile": QuantileRegression(regParam=0.1),
    "svc": LinearSVC(regParam=0.1),
}


def columns() -> dict[str, list]:
    found = {name: X[:, place].tolist() for place, name in enumerate(NAMES)}
    found |= {"label": Y.tolist(), "w": W.tolist()}
    for row, (name, value) in BAD.items():
        found[name][row] = value
    return found


def table(kind: str, tmp_path=None):
    """The rows, and how an estimator names their features."""
    found = columns()
    if kind == "pandas":
        return pd.DataFrame(found), {"featuresCols": NAMES}
    rows = pa.table(found)
    if kind == "lists":
        rows = pa.table(
            {"features": [list(row) for row in zip(*(found[name] for name in NAMES), strict=True)]}
            | {name: found[name] for name in ("label", "w")}
        )
        return rows, {}
    if kind == "Parquet":
        pq.write_table(rows, tmp_path / "rows.parquet")
        return str(tmp_path / "rows.parquet"), {"featuresCols": NAMES}
    return rows, {"featuresCols": NAMES}


def clean(rows, kind: str):
    """The rows that can be trained on."""
    if kind == "pandas":
        return rows[~BROKEN]
    rows = pq.read_table(rows) if kind == "Parquet" else rows
    return rows.filter(pa.array(~BROKEN))


def predictions(scored) -> np.ndarray:
    """The predictions, NaN for null."""
    if isinstance(scored, pd.DataFrame):
        return scored["prediction"].to_numpy()
    if not isinstance(scored, pa.Table):
        scored = pa.Table.from_batches([batch for part in scored.partitions for batch in part.batches()])
    return np.asarray([math.nan if value is None else value for value in scored["prediction"].to_pylist()])


KINDS = ["pandas", "lists", "Parquet", "columns"]


@pytest.mark.parametrize("mode", ["skip", "keep"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_fit_leaves_out_what_is_invalid(name, kind, mode, tmp_path):
    rows, flags = table(kind, tmp_path)
    estimator = ESTIMATORS[name].copy()._set(weightCol="w", **flags)
    model = estimator.copy().setHandleInvalid(mode).fit(rows)
    expected = estimator.fit(clean(rows, kind))
    np.testing.assert_array_equal(model.coefficients.toArray(), expected.coefficients.toArray())
    assert (model.intercept, model.getHandleInvalid()) == (expected.intercept, mode)
    assert (model.summary.receipt.skipped, expected.summary.receipt.skipped) == (len(BAD), 0)
    assert "left out" in str(model.summary.receipt)
    scored = predictions(model.transform(rows))
    whole = predictions(expected.transform(clean(rows, kind)))
    np.testing.assert_array_equal(scored[~BROKEN] if mode == "keep" else scored[~BROKEN[SCORED]], whole)
    assert len(scored) == (ROWS if mode == "keep" else SCORED.sum())
    if mode == "keep":
        np.testing.assert_array_equal(np.isnan(scored), ~SCORED)


@pytest.mark.parametrize("mode", ["skip", "keep"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_leaves_out_what_is_invalid(kind, mode, tmp_path):
    rows, flags = table(kind, tmp_path)
    estimator = LinearRegression(weightCol="w", **flags)
    model = estimator.copy().setHandleInvalid(mode).fit(rows)
    expected = estimator.fit(clean(rows, kind)).summary
    for found in (model.summary, model.evaluate(rows)):
        assert found.rootMeanSquaredError == pytest.approx(expected.rootMeanSquaredError, rel=1e-12)
        assert found.r2 == pytest.approx(expected.r2, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", BAD)
def test_an_error_names_the_row(kind, row, tmp_path):
    rows, flags = table(kind, tmp_path)
    rows = pq.read_table(rows) if kind == "Parquet" else rows
    others = np.ones(ROWS, bool)
    others[[other for other in BAD if other != row]] = False
    rows = rows[others] if kind == "pandas" else rows.filter(pa.array(others))
    place = int(others[:row].sum())
    name, value = BAD[row]
    value = math.nan if value is None and kind == "pandas" else value
    entry = "null" if value is None else str(value)
    where = f"column '{name}', .*row {place} is {entry}"
    if kind == "lists" and name in NAMES:
        where = f"column 'features', .*row {place} is {entry} at feature {NAMES.index(name)}"
    with pytest.raises(DataError, match=where):
        LogisticRegression(weightCol="w", **flags).fit(rows)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_number_is_no_prediction(name):
    """NaN features were predicted as class 0, with a probability that is NaN."""
    rows, flags = table("columns")
    model = ESTIMATORS[name].copy()._set(weightCol="w", handleInvalid="skip", **flags).fit(rows)
    strict = model.copy().setHandleInvalid("error")
    with pytest.raises(DataError, match=r"features column 'a b', .*, row 3 is null. Set handleInvalid='keep'"):
        strict.transform(rows)
    with pytest.raises(DataError, match=r"features column 'c', .*, row 0 is nan. Set handleInvalid='keep'"):
        strict.transform(rows.slice(17))


def test_a_search_leaves_out_what_is_invalid():
    rows, flags = table("columns")
    fold = pa.array(np.arange(ROWS) % 3, pa.int32())
    rows = rows.append_column("fold", fold)
    found = []
    for mode, some in (("skip", rows), ("keep", rows), ("error", clean(rows, "columns"))):
        estimator = LinearRegression(weightCol="w", handleInvalid=mode, **flags)
        maps = [{estimator.regParam: strength} for strength in (0.0, 1.0)]
        search = CrossValidator(
            estimator=estimator, estimatorParamMaps=maps, evaluator=RegressionEvaluator(), numFolds=3, foldCol="fold"
        )
        found.append(search.fit(some).avgMetrics)
    np.testing.assert_allclose(found[0], found[2], rtol=1e-12)
    np.testing.assert_allclose(found[1], found[2], rtol=1e-12)


def test_one_model_for_each_class_leaves_out_what_is_invalid():
    rows, _ = table("lists")
    models = [
        OneVsRest(classifier=LogisticRegression(handleInvalid=mode, regParam=0.1)).fit(some)
        for mode, some in (("skip", rows.filter(pa.array(np.arange(ROWS) != 120))), ("error", clean(rows, "lists")))
    ]
    for one, other in zip(models[0].models, models[1].models, strict=True):
        np.testing.assert_array_equal(one.coefficients.toArray(), other.coefficients.toArray())
    assert models[0].transform(rows).num_rows == SCORED.sum()


def test_rows_that_are_all_invalid_and_modes_that_there_are_not():
    rows = pa.table({"features": [[math.nan], [1.0]], "label": [1.0, None]})
    with pytest.raises(DataError, match="no rows to train on: all 2 are invalid"):
        LinearRegression(handleInvalid="skip").fit(rows)
    with pytest.raises(ParameterError, match="handleInvalid must be one of 'error', 'skip', 'keep'. Got 'drop'"):
        LinearRegression(handleInvalid="drop").fit(rows)


def test_explain_counts_the_rows_that_are_left():
    rows, flags = table("columns")
    with pytest.raises(DataError, match="features column 'a b', .*, row 3 is null"):
        LogisticRegression(weightCol="w", **flags).explain(rows)
    plan = LogisticRegression(weightCol="w", handleInvalid="skip", **flags).explain(rows)
    assert sum(plan.data.rows) == ROWS - len(BAD)


@pytest.fixture(scope="module")
def frames(spark):
    from pyspark.ml.feature import VectorAssembler
    from pyspark.sql import functions as F

    frame = spark.createDataFrame(pa.table(columns()), ", ".join(f"`{name}` double" for name in columns())).coalesce(
        1
    )
    vectors = VectorAssembler(inputCols=NAMES[1:], outputCol="features", handleInvalid="keep").transform(frame)
    lists = frame.withColumn("features", F.array(*(F.col(f"`{name}`") for name in NAMES)))
    return {"columns": (frame, NAMES), "array": (lists, None), "vector": (vectors, None)}


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("columns", "keep"),
        ("vector", "skip"),
        *(pytest.param(*case, marks=needs("minutes")) for case in (("columns", "skip"), ("vector", "keep"))),
        *(pytest.param("array", mode, marks=needs("minutes")) for mode in ("skip", "keep")),
    ],
)
def test_on_spark(frames, kind, mode):
    frame, names = frames[kind]
    model = LogisticRegression(weightCol="w", regParam=0.1, handleInvalid=mode, featuresCols=names).fit(frame)
    bad = {row for row in BAD if row != 3 or kind != "vector"}
    left = np.ones(ROWS, bool)
    left[[*bad]] = False
    features = X[:, 1:] if kind == "vector" else X
    expected = LogisticRegression(regParam=0.1, weightCol="w").fit(
        pa.table({"features": [*features[left]], "label": Y[left], "w": W[left]})
    )
    np.testing.assert_array_equal(model.coefficients.toArray(), expected.coefficients.toArray())
    assert model.summary.receipt.skipped == len(bad)
    found = model.transform(frame).select("prediction", "probability").toPandas()
    invalid = len(bad & {3, 17, 50})
    assert len(found) == (ROWS if mode == "keep" else ROWS - invalid)
    assert found["prediction"].isna().sum() == found["probability"].isna().sum() == (invalid if mode == "keep" else 0)
    with pytest.raises(Exception, match=r"handleInvalid|null"):
        model.copy().setHandleInvalid("error").transform(frame).select("prediction").collect()
    assert model.evaluate(frame).accuracy == pytest.approx(expected.summary.accuracy)

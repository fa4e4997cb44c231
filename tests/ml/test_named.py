"""Names of columns without Spark: other cases, fields of structs, backticks, many columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql.types import DoubleType, StructField, StructType

from sparkopt import Columns, ml
from sparkopt.errors import SchemaError
from sparkopt.machine import Table
from tests.ml.named import CASES, LABEL, POINTS, WEIGHT, N, X, Z, plain
from tests.ml.wide import train_and_score


@pytest.mark.parametrize("name", CASES)
def test_columns_are_found_by_the_names_that_spark_finds(name, tmp_path):
    case = CASES[name]
    rows = case.table()
    case.require(rows, rows.column_names)
    pq.write_table(rows, tmp_path / "rows.parquet")
    model = case.estimator().fit(str(tmp_path / "rows.parquet"))
    np.testing.assert_array_equal(model.coefficients.toArray(), plain()[0])
    scored = model.transform(str(tmp_path / "rows.parquet")).to_arrow()
    assert scored.column_names[: rows.num_columns] == rows.column_names
    stream = model.transform(rows.to_reader()).read_all()
    assert stream["prediction"] == scored["prediction"]
    frame = model.transform(rows.to_pandas())
    assert frame["prediction"].tolist() == scored["prediction"].to_pylist()


WRONG = {
    "several columns": ({"xa": X, "Xa": Z}, ["XA"], "features column 'XA' may be any of xa, Xa: rename or drop"),
    "no field": ({"p": POINTS}, ["p.y"], "features column 'p.y' does not exist. Columns: label, weight, p"),
    "field of a number": ({"x": X}, ["x.y"], "features column 'x.y' does not exist"),
    "a struct": ({"p": POINTS}, ["p"], "features column 'p' has type struct<.*must be numeric"),
    "a map": (
        {"m": pa.array([[("a", 1)]] * N, pa.map_(pa.string(), pa.int64()))},
        ["m"],
        "features column 'm' has type map<string,bigint>; it must be numeric",
    ),
    "the label in another case": ({"x": X}, ["x", "Label"], "featuresCols names the label, 'label'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_names_that_are_none_or_several_are_one_line(name):
    columns, features, message = WRONG[name]
    with pytest.raises(SchemaError, match=message) as caught:
        ml.LinearRegression(featuresCols=features).fit(pa.table({"label": LABEL, "weight": WEIGHT, **columns}))
    assert "\n" not in str(caught.value)


def test_two_columns_of_one_name_are_refused_with_the_way_out():
    twice = pa.table([X, Z, LABEL, Z], names=["x", "d", "label", "d"])
    with pytest.raises(SchemaError, match="there are several columns 'd': rename or drop all but one"):
        Table.of(twice)
    frame = pd.DataFrame([[1.0, 2.0]], columns=["d", "d"])
    with pytest.raises(SchemaError, match="several columns 'd'"):
        Table.of(frame)


@pytest.mark.parametrize("roles", [(["x", "d"], "label"), (["x"], "d")])
def test_two_columns_of_one_name_in_a_dataframe_are_refused_likewise(roles):
    schema = StructType([StructField(name, DoubleType()) for name in ("x", "d", "label", "d")])
    with pytest.raises(SchemaError, match="column 'd' exists 2 times: rename or drop the others"):
        Columns(*roles).check(schema)


def test_raw_columns_are_found_likewise():
    rows = pa.table({"p": POINTS, "Town": ["a", "b", "c"] * 30, "label": LABEL})
    plain_rows = pa.table({"p.x1": X, "town": ["a", "b", "c"] * 30, "label": LABEL})
    models = [
        ml.Pipeline(stages=[ml.TableFeatures(inputCols=["p.x1", "town"]), ml.LogisticRegression(regParam=0.1)]).fit(
            one
        )
        for one in (rows, plain_rows)
    ]
    assert models[0].stages[1].coefficients == models[1].stages[1].coefficients
    assert models[0].stages[0].featureNames == models[1].stages[0].featureNames
    found = models[0].transform(rows)["prediction"]
    assert found == models[1].transform(plain_rows)["prediction"]


def test_searches_and_validation_rows_take_such_names_too():
    rows = pa.table({"p": POINTS, "label": LABEL, "Fold": pa.array(np.arange(N) % 3, pa.int32()), "Held": LABEL > 0})
    estimator = ml.LogisticRegression(featuresCols=["p.x1", "p.z"], regParam=0.1)
    found = []
    for given, fold in ((rows, "fold"), (rows.append_column("fold", rows["Fold"]), "fold")):
        search = ml.CrossValidator(
            estimator=estimator,
            estimatorParamMaps=[{}],
            numFolds=3,
            foldCol=fold,
            evaluator=ml.BinaryClassificationEvaluator(),
        )
        found.append(search.fit(given).avgMetrics)
    assert found[0] == found[1]
    held = ml.LinearRegression(featuresCols=["P.x1"], validationIndicatorCol="held").fit(rows)
    assert held.summary.receipt.rows == int((LABEL == 0).sum())


def test_twenty_thousand_columns():
    width = 20_000
    rows = pa.table({**{f"c{i}": np.arange(6.0) * (i % 5) for i in range(width)}, "label": [0.0, 1.0] * 3})
    model = ml.LinearRegression(featuresCols=rows.column_names[:-1], regParam=1.0).fit(rows)
    assert model.numFeatures == width
    assert model.transform(rows).num_columns == width + 2
    assert np.isfinite(model.evaluate(rows).r2)
    with pytest.raises(
        SchemaError, match=r"'nope' does not exist. Columns: c0, .*, c99, ... \(20,001 in all\)"
    ) as caught:
        ml.LinearRegression(featuresCols=["nope"]).fit(rows)
    assert len(str(caught.value)) < 1000


@pytest.mark.usefixtures("minutes")
@pytest.mark.timeout(1200)
def test_twenty_thousand_columns_on_spark(spark, tmp_path):
    train_and_score(spark, tmp_path)

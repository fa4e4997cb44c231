"""TableFeatures without Spark: fitted in a pipeline, saved, scored on every kind of rows, refused where need be."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression as Theirs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sparkopt.errors import DataError, ParameterError, SchemaError
from sparkopt.machine import Table
from sparkopt.ml import LogisticRegression, Pipeline, PipelineModel, TableFeatures, TableFeaturesModel
from tests.ml.behaviours.raw import raw_rows

ROWS = raw_rows(600)
STAGES = [TableFeatures(categorical=["zip"]), LogisticRegression(regParam=0.01)]


@pytest.fixture(scope="module")
def model():
    return Pipeline(stages=STAGES).fit(ROWS)


@pytest.fixture(scope="module")
def probability(model):
    return np.stack(model.transform(ROWS.to_pandas()).probability)


def test_the_loss_is_that_of_scikit_learn():
    """The same encodings by a ColumnTransformer: the same minimum."""
    frame = ROWS.select(["yaş", "城市", "zip", "label"]).to_pandas()
    numbers = SimpleImputer(add_indicator=True)
    columns = [("n", numbers, ["yaş"]), ("c", OneHotEncoder(), ["城市", "zip"])]
    theirs = make_pipeline(ColumnTransformer(columns), Theirs(C=1 / (0.01 * len(frame)), tol=1e-10, max_iter=5000))
    expected = theirs.fit(frame, frame.label).predict_proba(frame)
    last = LogisticRegression(regParam=0.01, standardization=False, tol=1e-12)
    found = Pipeline(stages=[TableFeatures(categorical=["zip"], drop="none"), last]).fit(frame)
    assert np.allclose(np.stack(found.transform(frame).probability), expected, atol=1e-5)


def test_a_pipeline_reads_no_rows_for_features_but_for_their_statistics(monkeypatch):
    table, reads = Table.of(ROWS), []
    part = table.partitions[0]
    own = type(part).batches

    def batches(self, columns=None):
        reads.append(tuple(columns))
        return own(self, columns)

    monkeypatch.setattr(type(part), "batches", batches)
    Pipeline(stages=STAGES).fit(table)
    assert len(reads) == 2 * len(table.partitions)  # statistics, and the blocks


def given_as(kind, folder):
    if kind == "pandas":
        frame = ROWS.to_pandas()
        return frame.set_axis(np.arange(len(frame))[::-1] // 2)
    if kind == "parquet":
        pq.write_table(ROWS, folder / "rows.parquet")
        return str(folder / "rows.parquet")
    return {"arrow": ROWS, "table": Table.of(ROWS), "batch": ROWS.combine_chunks().to_batches()[0]}[kind]


@pytest.mark.parametrize("kind", ["pandas", "arrow", "batch", "table", "parquet"])
def test_every_kind_of_rows_is_scored_alike(kind, model, probability, tmp_path):
    given = given_as(kind, tmp_path)
    found = model.transform(given)
    outputs = ["rawPrediction", "probability", "prediction"]
    if kind in ("table", "parquet"):
        assert isinstance(found, Table)
        assert found.names == [*ROWS.schema.names, "features", *outputs]
        found = found.to_arrow()
    else:
        assert type(found) is type(given)
        names = list(found.columns) if kind == "pandas" else found.schema.names
        assert names == [*ROWS.schema.names, *outputs]
    if kind == "pandas":
        assert found.index.equals(given.index)
        pd.testing.assert_frame_equal(found[given.columns], given)
        assert np.array_equal(np.stack(found.probability), probability)
    else:
        assert np.array_equal(np.array(found.column("probability").to_pylist()), probability)


def test_pandas_keeps_its_index_where_features_are_added(model, tmp_path):
    """A column of the result is assigned to the rows that it belongs to."""
    frame = given_as("pandas", tmp_path)
    found = model.stages[0].transform(frame)
    pd.testing.assert_frame_equal(found[frame.columns], frame)
    expected = model.stages[0].transform(ROWS)
    assert list(found.columns) == expected.column_names
    ours, theirs = ([one["values"] for one in rows] for rows in (found["features"], expected["features"].to_pylist()))
    np.testing.assert_array_equal(np.stack(ours), np.array(theirs))


def test_a_saved_pipeline_is_data_and_scores_the_same(model, probability, tmp_path):
    model.save(str(tmp_path / "model"))
    loaded = PipelineModel.load(str(tmp_path / "model"))
    assert loaded.stages[0].encoder == model.stages[0].encoder
    assert loaded.stages[0].featureNames == model.stages[0].featureNames
    assert np.array_equal(np.stack(loaded.transform(ROWS.to_pandas()).probability), probability)
    assert not list(tmp_path.rglob("*.pkl"))
    stage = str(tmp_path / "stage")
    estimator = TableFeatures(categorical=["zip"], impute="zero", formula="label ~ . - zip")
    estimator.save(stage)
    assert {p.name: v for p, v in TableFeatures.load(stage).extractParamMap().items()} == {
        p.name: v for p, v in estimator.extractParamMap().items()
    }
    model.stages[0].write().overwrite().save(stage)
    assert TableFeaturesModel.load(stage).numFeatures == model.stages[0].numFeatures
    row = pq.read_table(f"{stage}/data").to_pylist()[0]
    assert json.loads(row["encoder"])["encodings"][0]["column"] == "yaş"


def test_rows_of_other_types_and_an_empty_column_are_scored_as_trained(model, probability):
    """What a CSV of the newest day may come as: numbers as text, a column without values as nulls."""
    other = ROWS.set_column(0, "yaş", ROWS.column("yaş").cast(pa.string()))
    other = other.set_column(4, "zip", ROWS.column("zip").cast(pa.float64()))
    assert np.array_equal(np.stack(model.transform(other.to_pandas()).probability), probability)
    empty = ROWS.set_column(1, "城市", pa.nulls(ROWS.num_rows))
    text = ROWS.set_column(1, "城市", pa.nulls(ROWS.num_rows, pa.string()))
    assert model.transform(empty).column("prediction") == model.transform(text).column("prediction")


def test_partitions_do_not_change_what_is_learnt():
    halves = Table.of(ROWS.slice(0, 250)), Table.of(ROWS.slice(250))
    both = Table(ROWS.schema, halves[0].partitions + halves[1].partitions)
    fitted = [TableFeatures(categorical=["zip"], impute="median").fit(rows) for rows in (ROWS, both)]
    assert fitted[0].featureNames == fitted[1].featureNames
    assert fitted[0].encoder == fitted[1].encoder


def test_columns_without_features_are_left_out_with_a_word(caplog):
    rows = ROWS.append_column("tags", pa.array([["a"]] * ROWS.num_rows)).append_column(
        "void", pa.nulls(ROWS.num_rows)
    )
    assert TableFeatures(exclude=["zip"]).fit(rows).encoder.columns == tuple(ROWS.schema.names[:4])
    assert "column 'tags' of type array<string> is left out" in caplog.text


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"inputCols": ["yaş", "label"]}, ParameterError, "inputCols names the label, 'label'"),
        ({"inputCols": ["age"]}, SchemaError, "input column 'age' does not exist. Columns: yaş, 城市"),
        ({"categorical": ["age"]}, SchemaError, "categorical column 'age' does not exist"),
        ({"impute": "guess"}, ParameterError, "impute must be"),
        ({"minCount": 0}, ParameterError, "minCount must be"),
        ({"formula": "label ~ . - 1"}, ParameterError, "set fitIntercept=False"),
        ({"formula": "y ~ label"}, ParameterError, "the label, 'label', is among the features"),
        ({"formula": "y ~ age"}, SchemaError, "input column 'age' does not exist"),
        ({"outputCol": "zip"}, SchemaError, "output column 'zip' exists already"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(settings, error, message):
    with pytest.raises(error, match=message) as found:
        TableFeatures(**settings).fit(ROWS).transform(ROWS)
    assert "\n" not in str(found.value)


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="no rows"):
        TableFeatures().fit(ROWS.slice(0, 0))


def test_names_of_features_come_with_the_coefficients(model, tmp_path):
    last = model.stages[1]
    assert last.featureNames == model.stages[0].featureNames
    assert len(last.featureNames) == last.numFeatures
    model.write().overwrite().save(str(tmp_path / "model"))
    assert PipelineModel.load(str(tmp_path / "model")).stages[1].featureNames == last.featureNames
    assert LogisticRegression(featuresCols=["zip"]).fit(ROWS).featureNames == ["zip"]


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        ({"attrs": {"nominal": [{"idx": 1, "name": "b"}], "numeric": [{"idx": 0, "name": "a"}]}}, ["a", "b"]),
        ({"attrs": {"numeric": [{"idx": 0, "name": "a"}]}, "num_attrs": 2}, []),
        ({"num_attrs": 2}, []),
    ],
    ids=["named", "one of two", "only counted"],
)
def test_names_of_pysparks_stages_are_read_from_a_parquet_file_that_spark_wrote(attributes, names):
    """Spark keeps a column's ML attributes in the file's schema."""
    field = {"name": "features", "type": "x", "nullable": True, "metadata": {"ml_attr": attributes}}
    told = json.dumps({"type": "struct", "fields": [field]})
    rows = pa.table({"features": [[1.0, 2.0], [2.0, 1.0], [0.0, 1.0]], "label": [0.0, 1.0, 0.0]})
    rows = rows.replace_schema_metadata({"org.apache.spark.sql.parquet.row.metadata": told})
    assert LogisticRegression(regParam=0.1).fit(rows).featureNames == names

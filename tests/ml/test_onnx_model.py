"""Any model of ONNX as a stage: what onnxruntime gives for the same arrays, whatever the rows are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from sparkopt import Table
from sparkopt.errors import CorruptDataError, DataError, MissingDependencyError, ParameterError, SchemaError
from sparkopt.ml import LinearRegression, LogisticRegression, OnnxModel, Pipeline, PipelineModel, TableFeatures

ROWS = 25


@pytest.fixture(scope="module")
def runtime():
    pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")


def network(inputs, nodes, outputs, constants=()):
    """Bytes of a model."""
    from onnx import helper

    graph = helper.make_graph(nodes, "test", inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def info(name, kind, shape):
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape)


def node(kind, inputs, outputs, **attributes):
    from onnx import helper

    return helper.make_node(kind, inputs, outputs, **attributes)


@pytest.fixture(scope="module")
def dense(runtime):
    """A layer of float32: from (rows, 3) to (rows, 2), its larger entry's place, and the sum of a row."""
    from onnx import numpy_helper

    weights = np.array([[1.0, -1.0], [0.5, 2.0], [-0.25, 0.125]], np.float32)
    nodes = [
        node("MatMul", ["x", "w"], ["scores"]),
        node("ArgMax", ["scores"], ["chosen"], axis=1, keepdims=0),
        node("ReduceSum", ["scores", "one"], ["total"], keepdims=1),
    ]
    outputs = [
        info("scores", "FLOAT", ["n", 2]),
        info("chosen", "INT64", ["n"]),
        info("total", "FLOAT", ["n", 1]),
    ]
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([1]), "one")]
    return network([info("x", "FLOAT", ["n", 3])], nodes, outputs, constants), weights


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def rows(X):
    flat = pa.array(X.reshape(-1))
    return pa.table(
        {
            "lists": pa.array(X.tolist(), pa.list_(pa.float64())),
            "fixed": pa.FixedSizeListArray.from_arrays(flat, 3),
            "a": X[:, 0],
            "b": X[:, 1].astype(np.float64),
            "c": X[:, 2],
            "text": [f"row {i}" for i in range(ROWS)],
        }
    )


@pytest.mark.parametrize("columns", ["lists", "fixed", ["a", "b", "c"]], ids=str)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_outputs_are_the_runtimes(dense, rows, X, columns, size):
    model, weights = dense
    scored = OnnxModel(model=model, feedDict={"x": columns}, miniBatchSize=size).transform(rows)
    assert scored.column_names == [*rows.column_names, "scores", "chosen", "total"]
    found = np.array(scored["scores"].to_pylist())
    np.testing.assert_allclose(found, X @ weights, rtol=1e-5, atol=1e-6)
    assert scored["chosen"].to_pylist() == (X @ weights).argmax(axis=1).tolist()
    np.testing.assert_allclose(scored["total"].to_numpy(), found.sum(axis=1), rtol=1e-5, atol=1e-6)
    assert scored.schema.field("total").type == pa.float32()


def test_what_comes_as_pandas_or_a_table_goes_so(dense, rows, tmp_path):
    import pandas as pd
    from pyarrow import parquet

    stage = OnnxModel(model=dense[0], feedDict={"x": ["a", "b", "c"]}, fetchDict={"best": "chosen"})
    expected = stage.transform(rows)["best"].to_pylist()
    given = rows.to_pandas().set_axis(range(rows.num_rows, 0, -1))
    frame = stage.transform(given)
    pd.testing.assert_frame_equal(frame[given.columns], given)
    assert frame["best"].tolist() == expected
    parquet.write_table(rows, tmp_path / "rows.parquet")
    table = stage.transform(str(tmp_path / "rows.parquet"))
    assert isinstance(table, Table)
    assert table.names[-1] == "best"
    assert [
        one for part in table.partitions for b in part.batches(["best"]) for one in b["best"].to_pylist()
    ] == expected


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf")])
@pytest.mark.parametrize("columns", ["lists", ["a", "b", "c"]], ids=str)
def test_invalid_rows(dense, rows, X, columns, bad):
    values = X[:, 1].astype(float).tolist()
    values[4] = bad
    lists = [[row[0], value, row[2]] for row, value in zip(X.astype(float).tolist(), values, strict=True)]
    table = rows.set_column(0, "lists", pa.array(lists, pa.list_(pa.float64()))).set_column(3, "b", pa.array(values))
    stage = OnnxModel(model=dense[0], feedDict={"x": columns}, fetchDict={"best": "chosen"})
    name = columns if isinstance(columns, str) else "b"
    with pytest.raises(DataError, match=f"input column '{name}', row 4 "):
        stage.transform(table)
    kept = stage.setHandleInvalid("keep").transform(table)["best"].to_pylist()
    assert [i for i, one in enumerate(kept) if one is None] == [4]
    expected = OnnxModel(model=dense[0], feedDict={"x": "lists"}).transform(rows)["chosen"].to_pylist()
    assert kept[:4] + kept[5:] == expected[:4] + expected[5:]
    skipped = stage.setHandleInvalid("skip").transform(table)
    assert skipped["best"].to_pylist() == expected[:4] + expected[5:]
    assert skipped["text"].to_pylist() == rows["text"].to_pylist()[:4] + rows["text"].to_pylist()[5:]


def test_a_batch_of_invalid_rows_alone(dense, rows):
    table = rows.set_column(0, "lists", pa.nulls(ROWS, pa.list_(pa.float64())))
    stage = OnnxModel(model=dense[0], feedDict={"x": "lists"}, handleInvalid="keep")
    assert stage.transform(table)["scores"].null_count == ROWS
    assert stage.setHandleInvalid("skip").transform(table).num_rows == 0


def test_missing_values_that_the_model_knows(runtime, tmp_path):
    table = pa.table(
        {
            "age": pa.array([21.0, None, 50.0, 33.0, float("nan")]),
            "town": pa.array(["Bonn", "Rome", None, "Rome", "Oslo"]),
            "label": [0.0, 1.0, 1.0, 0.0, 1.0],
        }
    )
    model = Pipeline(stages=[TableFeatures(), LogisticRegression(regParam=0.1)]).fit(table)
    model.toOnnx(str(tmp_path / "model.onnx"))
    stage = OnnxModel(model=tmp_path / "model.onnx", missing=True)
    expected = model.transform(table)
    found = stage.transform(table)
    for name in ("prediction", "probability", "rawPrediction"):
        np.testing.assert_allclose(found[name].to_pylist(), expected[name].to_pylist(), rtol=1e-12)
    with pytest.raises(DataError, match="input column 'age', row 1 is null"):
        OnnxModel(model=tmp_path / "model.onnx").transform(table)


def test_shapes_types_and_fixed_batches(runtime):
    """Images of 2 × 2 × 3 bytes in batches of 4, and a text that is given back."""
    nodes = [
        node("Cast", ["image"], ["numbers"], to=1),
        node("ReduceMean", ["numbers"], ["mean"], axes=[1, 2, 3], keepdims=0),
        node("Identity", ["image"], ["same"]),
        node("Identity", ["word"], ["again"]),
    ]
    model = network(
        [info("image", "UINT8", [4, 2, 2, 3]), info("word", "STRING", [4])],
        nodes,
        [info("mean", "FLOAT", [4]), info("same", "UINT8", [4, 2, 2, 3]), info("again", "STRING", [4])],
    )
    pixels = np.random.default_rng(0).integers(0, 255, (10, 2, 2, 3)).astype(np.uint8)
    flat = pixels.reshape(10, -1).tolist()
    tensors = [{"shape": [2, 2, 3], "dtype": "uint8", "data": one.tobytes()} for one in pixels]
    words = [f"w{i}" for i in range(10)]
    kinds = pa.struct([("shape", pa.list_(pa.int32())), ("dtype", pa.string()), ("data", pa.binary())])
    table = pa.table({"flat": flat, "nested": pixels.tolist(), "tensor": pa.array(tensors, kinds), "word": words})
    for column in ("flat", "nested", "tensor"):
        found = OnnxModel(model=model, feedDict={"image": column}).transform(table)
        np.testing.assert_allclose(found["mean"].to_numpy(), pixels.mean(axis=(1, 2, 3)), rtol=1e-6)
        assert found["same"].to_pylist() == flat
        assert found["again"].to_pylist() == words
    narrow = table.set_column(0, "flat", pa.array([[1, 2, 3]] * 10))
    with pytest.raises(DataError, match=r"a row has 3 values; input 'image' takes 12, \(2, 2, 3\)"):
        OnnxModel(model=model, feedDict={"image": "flat"}).transform(narrow)
    with pytest.raises(DataError, match="takes numbers, and this is string"):
        OnnxModel(model=model, feedDict={"image": "word"}).transform(table)


def test_an_image_pipeline_in_front(runtime, tmp_path):
    pytest.importorskip("cv2")
    import cv2

    from sparkopt import images
    from sparkopt.ml import ImageTransformer

    pictures = np.random.default_rng(0).integers(0, 255, (6, 5, 4, 3)).astype(np.uint8)
    encoded = [cv2.imencode(".png", one)[1].tobytes() for one in pictures]
    model = network(
        [info("image", "FLOAT", ["n", 5, 4, 3])],
        [node("ReduceMax", ["image"], ["most"], axes=[1, 2, 3], keepdims=0)],
        [info("most", "FLOAT", ["n"])],
    )
    pipeline = images.Compose([images.Decode("rgb"), images.Rescale(1 / 255)])
    front = ImageTransformer(pipeline=pipeline, inputCol="content", outputCol="pixels", output="tensor")
    stages = PipelineModel([front, OnnxModel(model=model, feedDict={"image": "pixels"})])
    found = stages.transform(pa.table({"content": pa.array(encoded, pa.binary())}))
    np.testing.assert_allclose(found["most"].to_numpy(), pictures.max(axis=(1, 2, 3)) / 255, rtol=1e-6)


def test_features_of_raw_columns_in_front(dense, rows, X):
    front = TableFeatures(inputCols=["a", "b", "c"], labelCol="text").fit(rows)
    both = PipelineModel([front, OnnxModel(model=dense[0], feedDict={"x": "features"})]).transform(rows)
    np.testing.assert_allclose(np.array(both["scores"].to_pylist()), X @ dense[1], rtol=1e-5, atol=1e-6)


def test_saved_and_loaded(dense, rows, tmp_path):
    stage = OnnxModel(model=dense[0], feedDict={"x": ["a", "b", "c"]}, fetchDict={"best": "chosen"}, miniBatchSize=9)
    expected = stage.transform(rows)
    stage.save(str(tmp_path / "stage"))
    PipelineModel([stage]).save(str(tmp_path / "pipeline"))
    for loaded in (OnnxModel.load(str(tmp_path / "stage")), PipelineModel.load(str(tmp_path / "pipeline"))):
        assert loaded.transform(rows).equals(expected)
    assert OnnxModel.load(str(tmp_path / "stage")).modelPayload == dense[0]
    assert stage.copy({stage.miniBatchSize: 2}).transform(rows).equals(expected)
    other = OnnxModel(model=dense[0], feedDict={"x": "lists"})
    other.save(str(tmp_path / "other"))
    data = next((tmp_path / "stage" / "metadata").glob("part-*"))
    data.write_text(next((tmp_path / "other" / "metadata").glob("part-*")).read_text().replace('"lists"', '"a"'))
    with pytest.raises(CorruptDataError, match="digest"):
        OnnxModel.load(str(tmp_path / "stage"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"feedDict": {"y": "lists"}}, ParameterError, "feedDict: the model has no input 'y'. It has x."),
        (
            {"fetchDict": {"z": "none"}},
            ParameterError,
            "the model has no output 'none'. It has scores, ch",
        ),
        ({}, SchemaError, "input column 'x' does not exist"),
        ({"feedDict": {"x": "lists"}, "fetchDict": {"a": "chosen"}}, SchemaError, "output column 'a' exists already"),
        (
            {"feedDict": {"x": "lists"}, "miniBatchSize": 0},
            ParameterError,
            "miniBatchSize must be a whole number",
        ),
        ({"feedDict": {"x": "lists"}, "handleInvalid": "drop"}, ParameterError, "handleInvalid must be one of"),
        ({"feedDict": {"x": "text"}}, DataError, "takes numbers, and this is string"),
        ({"feedDict": {"x": ["a", "b"]}}, DataError, "a row has 2 values; input 'x' takes 3"),
    ],
)
def test_what_cannot_be_scored_is_refused(dense, rows, options, error, message):
    with pytest.raises(error, match=message):
        OnnxModel(model=dense[0], **options).transform(rows)


def test_a_model_that_fails_says_where(runtime):
    model = network(
        [info("x", "FLOAT", ["n", "m"]), info("y", "FLOAT", ["n", "k"])],
        [node("Add", ["x", "y"], ["z"])],
        [info("z", "FLOAT", ["n", "m"])],
    )
    table = pa.table({"x": [[1.0, 2.0]] * 5, "y": [[1.0, 2.0, 3.0]] * 5})
    with pytest.raises(DataError, match="rows from 0: the model failed: .*Add"):
        OnnxModel(model=model, miniBatchSize=2).transform(table)


def test_what_is_no_model_is_refused(runtime, rows, tmp_path):
    with pytest.raises(ParameterError, match="this is no model that ONNX Runtime runs"):
        OnnxModel(model=b"nonsense").transform(rows)
    with pytest.raises(ParameterError, match="model is not set"):
        OnnxModel().transform(rows)
    with pytest.raises(DataError, match="model: cannot read"):
        OnnxModel(model=str(tmp_path / "nowhere.onnx"))


def test_without_the_runtime_it_says_what_to_install(rows, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="OnnxModel needs onnxruntime"):
        OnnxModel(model=b"any").transform(rows)


def test_on_spark_it_is_the_same(spark, dense, rows, X, tmp_path):
    from pyspark.ml.functions import array_to_vector

    df = spark.createDataFrame(rows.to_pandas().drop(columns=["fixed"])).repartition(3)
    df = df.withColumn("vector", array_to_vector("lists"))
    expected = {
        text: tuple(scores) for text, scores in zip(rows["text"].to_pylist(), (X @ dense[1]).tolist(), strict=True)
    }
    for columns in ("lists", "vector", ["a", "b", "c"]):
        stage = OnnxModel(model=dense[0], feedDict={"x": columns}, miniBatchSize=4)
        found = {row["text"]: row["scores"] for row in stage.transform(df).select("text", "scores").collect()}
        assert found.keys() == expected.keys()
        for text, scores in found.items():
            np.testing.assert_allclose(scores, expected[text], rtol=1e-5, atol=1e-6)
    stage.write().overwrite().save(str(tmp_path / "stage"))
    again = OnnxModel.load(str(tmp_path / "stage")).transform(df)
    assert dict(again.dtypes)["chosen"] == "bigint"
    assert again.where("chosen = 1").count() == int(((X @ dense[1]).argmax(axis=1) == 1).sum())
    bad = df.withColumn("a", df["a"] * float("nan"))
    with pytest.raises(Exception, match=r"input column 'a', partition \d+, row 0 has null, NaN or infinity"):
        stage.transform(bad).collect()
    assert stage.setHandleInvalid("skip").transform(bad).count() == 0
    linear = LinearRegression(featuresCols=["a", "b"], labelCol="c").fit(df)
    linear.toOnnx(str(tmp_path / "linear.onnx"))
    both = OnnxModel(model=str(tmp_path / "linear.onnx"), fetchDict={"again": "prediction"}).transform(
        linear.transform(df)
    )
    assert both.where("abs(again - prediction) > 1e-12").count() == 0

"""Models as ONNX: what onnxruntime predicts is what ``transform`` does."""

from __future__ import annotations

import datetime
import sys

import numpy as np
import pyarrow as pa
import pytest

from sparkopt.errors import IncompatibleError, MissingDependencyError, ParameterError
from sparkopt.ml import (
    FMClassifier,
    FMRegressor,
    GeneralizedLinearRegression,
    GeneralizedLinearRegressionModel,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    LogisticRegressionModel,
    MultilayerPerceptronClassifier,
    MultilayerPerceptronRegressor,
    Pipeline,
    TableFeatures,
)

ROWS, NAMES = 120, ["x0", "x1", "x2"]
QUICK = {"maxIter": 5, "tol": 0.0}


@pytest.fixture(scope="module")
def runtime():
    pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, 3))
    columns = {name: X[:, i] for i, name in enumerate(NAMES)}
    columns["features"] = pa.array(X.tolist())
    columns["label"] = (X[:, 0] > 0).astype(float)
    columns["class"] = np.digitize(X[:, 1], [-0.5, 0.5]).astype(float)
    columns["amount"] = np.exp(0.3 * X[:, 0]) + 0.1
    columns["exposure"] = rng.uniform(0.1, 0.5, ROWS)
    return pa.table(columns)


def ran(runtime, path, feeds):
    """The outputs by their names."""
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert {one.name for one in session.get_inputs()} == set(feeds)
    found = session.run(None, feeds)
    return dict(zip([one.name for one in session.get_outputs()], found, strict=True))


def compare(found, scored, rtol=1e-12, atol=1e-14):
    for name, values in found.items():
        column = scored[name].combine_chunks()
        expected = np.array(column.to_pylist(), dtype=float)
        assert values.shape == expected.shape, name
        np.testing.assert_allclose(values, expected, rtol=rtol, atol=atol, err_msg=name)


MODELS = {
    "least squares": (LinearRegression, {"labelCol": "amount"}),
    "logistic": (LogisticRegression, {"threshold": 0.3}),
    "multinomial": (LogisticRegression, {"labelCol": "class"}),
    "multinomial, thresholds": (LogisticRegression, {"labelCol": "class", "thresholds": [0.2, 0.7, 0.0]}),
    "support vectors": (LinearSVC, {"threshold": 0.2}),
    "poisson": (
        GeneralizedLinearRegression,
        {"family": "poisson", "labelCol": "amount", "linkPredictionCol": "link"},
    ),
    "with an offset": (
        GeneralizedLinearRegression,
        {"family": "poisson", "labelCol": "amount", "offsetCol": "exposure"},
    ),
    "cloglog": (GeneralizedLinearRegression, {"family": "binomial", "link": "cloglog"}),
    "binomial": (GeneralizedLinearRegression, {"family": "binomial"}),
    "gaussian": (GeneralizedLinearRegression, {"labelCol": "amount"}),
    "gaussian, inverse": (GeneralizedLinearRegression, {"labelCol": "amount", "link": "inverse"}),
    "gamma": (GeneralizedLinearRegression, {"family": "gamma", "labelCol": "amount"}),
    "square root": (GeneralizedLinearRegression, {"family": "poisson", "link": "sqrt", "labelCol": "amount"}),
    "machine": (FMRegressor, {"labelCol": "amount", "factorSize": 2}),
    "machine of classes": (FMClassifier, {"factorSize": 2}),
    "machine of classes, thresholds": (FMClassifier, {"factorSize": 2, "thresholds": [0.7, 0.3]}),
    "network": (MultilayerPerceptronClassifier, {"labelCol": "class", "layers": [3, 4, 3]}),
    "network, thresholds": (
        MultilayerPerceptronClassifier,
        {"labelCol": "class", "layers": [3, 3], "thresholds": [0.2, 0.7, 0.0]},
    ),
    "network of numbers": (MultilayerPerceptronRegressor, {"labelCol": "amount", "layers": [3, 4, 2, 1]}),
    "tweedie": (
        GeneralizedLinearRegression,
        {"family": "tweedie", "variancePower": 1.5, "linkPower": 0.5, "labelCol": "amount"},
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("features", ["features", NAMES], ids=["lists", "columns"])
def test_predictions_are_equal(runtime, rows, tmp_path, name, features):
    kind, options = MODELS[name]
    chosen = {"featuresCol": features} if isinstance(features, str) else {"featuresCols": features}
    model = kind(**chosen, **QUICK, **options).fit(rows)
    model.toOnnx(str(tmp_path / "model.onnx"))
    feeds = (
        {"features": np.array(rows["features"].to_pylist())}
        if isinstance(features, str)
        else {column: rows[column].to_numpy()[:, None] for column in NAMES}
    )
    if "offsetCol" in options:
        feeds["exposure"] = rows["exposure"].to_numpy()[:, None]
    found = ran(runtime, tmp_path / "model.onnx", feeds)
    assert set(found) == {one for one, _ in model._output_columns().values() if one}
    compare(found, model.transform(rows))
    model.toOnnx(str(tmp_path / "float.onnx"), precision="float")
    found = ran(runtime, tmp_path / "float.onnx", {key: value.astype(np.float32) for key, value in feeds.items()})
    assert all(values.dtype == np.float32 for values in found.values())
    compare(found, model.transform(rows), rtol=1e-3, atol=1e-4)


def test_classes_without_rows_keep_a_probability_of_zero(runtime, tmp_path):
    model = LogisticRegressionModel(np.array([[1.0], [0.0], [-1.0]]), np.array([0.5, -np.inf, 0.0]))
    model.toOnnx(str(tmp_path / "model.onnx"))
    found = ran(runtime, tmp_path / "model.onnx", {"features": np.array([[0.3], [-2.0]])})
    odds = np.exp([[0.8, -np.inf, -0.3], [-1.5, -np.inf, 2.0]])
    np.testing.assert_allclose(found["probability"], odds / odds.sum(axis=1, keepdims=True), rtol=1e-12)
    assert found["prediction"].tolist() == [0.0, 2.0]


@pytest.fixture(scope="module")
def raw_rows():
    rng = np.random.default_rng(1)
    town = rng.choice(["Bonn", "Rome", "Oslo", "Lima", "Kyiv"], ROWS, p=[0.4, 0.3, 0.2, 0.08, 0.02])
    day = rng.integers(-40_000, 40_000, ROWS)
    when = [
        datetime.datetime(1970, 1, 1) + datetime.timedelta(days=int(d), seconds=int(d * 977 % 86_400)) for d in day
    ]
    return pa.table(
        {
            "age": pa.array(rng.normal(40, 9, ROWS), mask=rng.random(ROWS) < 0.1),
            "town": pa.array(town, mask=rng.random(ROWS) < 0.1),
            "code": rng.integers(0, 4, ROWS),
            "member": pa.array(rng.random(ROWS) < 0.5),
            "born": pa.array(day.astype("datetime64[D]"), mask=rng.random(ROWS) < 0.1),
            "seen": pa.array(when, pa.timestamp("us")),
            "label": (rng.random(ROWS) < 0.4).astype(float),
        }
    )


def feeds_of(rows):
    def days(name):
        micros = rows[name].cast(pa.timestamp("us")).cast(pa.int64()).to_pandas()
        return (micros / 86_400e6).to_numpy(np.float64)[:, None]

    def text(name):
        values = [
            ("" if one is None else str(one).lower() if isinstance(one, bool) else str(one))
            for one in rows[name].to_pylist()
        ]
        return np.array(values, dtype=object)[:, None]

    return {
        "age": rows["age"].to_pandas().to_numpy(np.float64)[:, None],
        "town": text("town"),
        "code": text("code"),
        "member": rows["member"].to_pandas().to_numpy(np.float64)[:, None],
        "born": days("born"),
        "seen": days("seen"),
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"drop": "first", "minCount": 5, "indicators": False, "impute": "median"},
        {"formula": "label ~ age + town + age:town + town:code + born:town + seen + member"},
    ],
)
def test_pipelines_of_raw_columns(runtime, raw_rows, tmp_path, options):
    stages = [TableFeatures(categorical=["code"], **options), LogisticRegression(regParam=0.01, **QUICK)]
    model = Pipeline(stages=stages).fit(raw_rows)
    model.toOnnx(str(tmp_path / "model.onnx"))
    new = pa.concat_tables([raw_rows, raw_rows.slice(0, 2).set_column(1, "town", pa.array(["Paris", None]))])
    found = ran(runtime, tmp_path / "model.onnx", feeds_of(new))
    compare(found, model.transform(new), rtol=1e-9, atol=1e-12)


def test_dates_have_the_calendars_months(runtime, tmp_path):
    days = np.concatenate([np.arange(-200_000, 200_000, 97), np.arange(10_950, 11_400)])
    table = pa.table({"day": days.astype("datetime64[D]"), "label": np.arange(len(days)) % 7.0})
    model = Pipeline(stages=[TableFeatures(), LinearRegression(regParam=0.01)]).fit(table)
    model.toOnnx(str(tmp_path / "model.onnx"))
    found = ran(runtime, tmp_path / "model.onnx", {"day": days.astype(float)[:, None]})
    compare(found, model.transform(table), rtol=1e-9, atol=1e-9)


def test_what_has_no_export_is_refused(rows, raw_rows, tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")
    path = str(tmp_path / "model.onnx")
    hashed = Pipeline(stages=[TableFeatures(maxCategories=2), LogisticRegression(**QUICK)]).fit(raw_rows)
    with pytest.raises(IncompatibleError, match="column 'town' is hashed, which ONNX cannot compute"):
        hashed.toOnnx(path)
    probit = GeneralizedLinearRegressionModel(np.ones((1, 2)), np.zeros(1))._set(family="binomial", link="probit")
    with pytest.raises(IncompatibleError, match="link='probit' has no export"):
        probit.toOnnx(path)
    with pytest.raises(ParameterError, match="precision must be"):
        LinearRegression(featuresCols=NAMES).fit(rows).toOnnx(path, precision="half")
    with pytest.raises(IncompatibleError, match="the last stage must be a linear model"):
        Pipeline(stages=[TableFeatures()]).fit(raw_rows).toOnnx(path)
    assert not list(tmp_path.iterdir())


def test_without_onnx_it_says_what_to_install(rows, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match="toOnnx needs onnx"):
        LinearRegression(featuresCols=NAMES).fit(rows).toOnnx(str(tmp_path / "model.onnx"))


def test_assembled_vectors(runtime, spark, rows, tmp_path):
    from pyspark.ml.feature import VectorAssembler

    from sparkopt.ml import PipelineModel

    assembler = VectorAssembler(inputCols=NAMES, outputCol="joined")
    model = LogisticRegression(featuresCols=NAMES, **QUICK).fit(rows)
    PipelineModel([assembler, model.setFeaturesCol("joined")]).toOnnx(str(tmp_path / "model.onnx"))
    feeds = {column: rows[column].to_numpy()[:, None] for column in NAMES}
    found = ran(runtime, tmp_path / "model.onnx", feeds)
    expected = model.transform(rows.append_column("joined", rows["features"]))
    compare(found, expected)

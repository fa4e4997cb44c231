"""Models in pyspark.ml's files: what either library saved scores the same in the other, with Spark and without it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from pyspark.ml import PipelineModel, classification, regression
from pyspark.ml.linalg import Vectors

from sparkopt import ml
from sparkopt.errors import DataError, IncompatibleError, ParameterError
from sparkopt.io.saved import FileSession

rng = np.random.default_rng(0)
MODELS = {
    "binomial": (ml.LogisticRegressionModel, 1, {"threshold": 0.3}),
    "multinomial": (ml.LogisticRegressionModel, 3, {"thresholds": [0.2, 0.3, 0.5]}),
    "hinge": (ml.LinearSVCModel, 1, {"threshold": 0.25}),
    "squared": (ml.LinearRegressionModel, 1, {"featuresCol": "x", "predictionCol": "y"}),
    "huber": (ml.LinearRegressionModel, 1, {"loss": "huber", "epsilon": 1.5}),
    "gamma": (ml.GeneralizedLinearRegressionModel, 1, {"family": "gamma", "link": "log", "maxIter": 7}),
    "machine": (ml.FMRegressionModel, 3, {"factorSize": 2}),
    "machine of classes": (ml.FMClassificationModel, 3, {"factorSize": 2, "thresholds": [0.7, 0.3]}),
    "network": (ml.MultilayerPerceptronClassificationModel, 2, {"layers": [3, 2, 3]}),
    "tweedie": (ml.GeneralizedLinearRegressionModel, 1, {"family": "tweedie", "variancePower": 1.5}),
}
every = pytest.mark.parametrize("name", MODELS)
POINTS = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.5], [0.0, 0.0, 0.0]])


def model(name):
    kind, outputs, options = MODELS[name]
    own = np.random.default_rng(len(name))
    auxiliary = {"huber": np.array([0.7]), "network": own.normal(size=9)}.get(name)
    intercept = own.normal(size=outputs) / 4 + 1
    if name.startswith("machine"):
        intercept, auxiliary = np.zeros(outputs), np.array([0.3])
    found = kind(own.normal(size=(outputs, 3)) / 4, intercept, auxiliary)
    return found._set(**options)


def saved(found, path):
    found.write().session(FileSession()).overwrite().format("pyspark").save(str(path))
    return str(path)


def scores(found, rows):
    table = found.transform(rows)
    names = [column for column in table.columns if column not in rows.columns]
    return {name: np.stack([np.atleast_1d(value) for value in table[name]]) for name in sorted(names)}


def frame(found):
    return pd.DataFrame({found.getFeaturesCol(): list(POINTS)})


@every
def test_a_model_is_written_for_pyspark_and_read_again(name, tmp_path):
    own = model(name)
    found = type(own).read().session(FileSession()).load(saved(own, tmp_path / "model"))
    assert found.uid == own.uid
    np.testing.assert_array_equal(found.arrays[0], own.arrays[0])
    np.testing.assert_array_equal(found.arrays[1], own.arrays[1])
    np.testing.assert_allclose(found.auxiliary, own.auxiliary, rtol=1e-15)
    for param, value in MODELS[name][2].items():
        assert found.getOrDefault(param) == value
    ours, theirs = (scores(each, frame(own)) for each in (own, found))
    assert ours.keys() == theirs.keys()
    for key, values in ours.items():
        np.testing.assert_array_equal(theirs[key], values)


def test_parameters_of_sparkopt_alone_are_left_out(tmp_path):
    own = model("binomial")._set(optimizer="adam", featuresCols=["a", "b", "c"])
    (part,) = (tmp_path / "model" / "metadata").glob("*") if saved(own, tmp_path / "model") else ()
    metadata = json.loads(part.read_text())
    assert metadata["class"] == "org.apache.spark.ml.classification.LogisticRegressionModel"
    assert metadata["paramMap"] == {"threshold": 0.3}
    assert "optimizer" not in metadata["defaultParamMap"]


def test_what_pyspark_has_not_is_refused(tmp_path):
    quantile = ml.QuantileRegressionModel(np.zeros((1, 2)), np.zeros(1))
    with pytest.raises(IncompatibleError, match=r"no QuantileRegressionModel.*format\('internal'\)"):
        quantile.write().overwrite().format("pyspark")  # before anything is overwritten
    assert not list(tmp_path.iterdir())
    with pytest.raises(ParameterError, match="format must be one of"):
        model("binomial").write().format("onnx")


def test_another_kind_of_model_is_refused(tmp_path):
    path = saved(model("binomial"), tmp_path / "model")
    with pytest.raises(DataError, match=r"holds a org.apache.spark.*LogisticRegressionModel, not a sparkopt"):
        ml.LinearSVCModel.read().session(FileSession()).load(path)


THEIRS = {
    "binomial": lambda: classification.LogisticRegression(maxIter=3, thresholds=[0.4, 0.6]),
    "multinomial": lambda: classification.LogisticRegression(maxIter=3, labelCol="kind"),
    "two classes, two outputs": lambda: classification.LogisticRegression(maxIter=3, family="multinomial"),
    "sparse": lambda: classification.LogisticRegression(maxIter=3, regParam=0.1, elasticNetParam=1.0),
    "bounds": lambda: classification.LogisticRegression(maxIter=3, lowerBoundsOnIntercepts=Vectors.dense(0.5)),
    "hinge": lambda: classification.LinearSVC(maxIter=3, threshold=0.1),
    "squared": lambda: regression.LinearRegression(labelCol="amount"),
    "huber": lambda: regression.LinearRegression(labelCol="amount", loss="huber", maxIter=3),
    "machine": lambda: regression.FMRegressor(labelCol="amount", factorSize=2, maxIter=3, stepSize=0.1),
    "machine of classes": lambda: classification.FMClassifier(factorSize=2, maxIter=3, stepSize=0.1, solver="gd"),
    "network": lambda: classification.MultilayerPerceptronClassifier(labelCol="kind", layers=[3, 4, 3], maxIter=3),
    "poisson": lambda: regression.GeneralizedLinearRegression(labelCol="amount", family="poisson"),
}


@pytest.fixture(scope="module")
def rows(spark):
    own = np.random.default_rng(1)
    pairs = [
        (Vectors.dense(x), float(x[0] > 0), float(number % 3), float(np.exp(x[1])))
        for number, x in enumerate(own.normal(size=(60, 3)))
    ]
    return spark.createDataFrame(pairs, ["features", "label", "kind", "amount"]).cache()


def compared(ours, theirs, rows):
    """Assert that two models score DataFrames the same."""
    columns = [c for c in ("rawPrediction", "probability", "prediction", "y") if c in theirs.transform(rows).columns]
    found, wanted = (
        [[np.ravel(value if np.isscalar(value) else value.toArray()) for value in row] for row in one.collect()]
        for one in (each.transform(rows).select(columns) for each in (ours, theirs))
    )
    for own, other in zip(found, wanted, strict=True):
        for a, b in zip(own, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("name", THEIRS)
def test_what_pyspark_saved_scores_the_same(name, rows, tmp_path):
    theirs = THEIRS[name]().fit(rows)
    theirs.save(str(tmp_path / "model"))
    PipelineModel(stages=[theirs]).save(str(tmp_path / "pipeline"))
    kind = getattr(ml, type(theirs).__name__)
    by_spark = kind.load(str(tmp_path / "model"))
    without = kind.read().session(FileSession()).load(str(tmp_path / "model"))
    piped = ml.PipelineModel.read().session(FileSession()).load(str(tmp_path / "pipeline"))
    assert by_spark.uid == without.uid == piped.stages[0].uid == theirs.uid
    compared(by_spark, theirs, rows)
    for one in (without, piped.stages[0]):
        np.testing.assert_array_equal(one.arrays[0], by_spark.arrays[0])
        assert one.extractParamMap().keys() == by_spark.extractParamMap().keys()


@pytest.mark.usefixtures("minutes")
@every
def test_pyspark_scores_the_same_with_what_we_wrote(name, rows, spark, tmp_path):
    own = model(name)
    rows = rows.withColumnRenamed("features", own.getFeaturesCol())
    module = (
        regression if "Regression" in type(own).__name__ and "Logistic" not in type(own).__name__ else classification
    )
    kind = getattr(module, type(own).__name__)
    own.write().format("pyspark").save(str(tmp_path / "with"))
    for path in (saved(own, tmp_path / "without"), str(tmp_path / "with")):
        compared(own, kind.load(path), rows)

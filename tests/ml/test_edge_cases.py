"""Rows at the edge of what has an optimum: separated classes, one label, missing classes, no features."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.ml import classification
from pyspark.ml.feature import StringIndexer
from pyspark.ml.linalg import SparseVector, Vectors
from pyspark.sql import functions as F

from sparkopt import ml
from sparkopt.errors import DataError, IncompatibleError

LOCAL = {"engine": "local"}


def frame(spark, X, y, partitions=1):
    rows = [(Vectors.dense(x), float(label)) for x, label in zip(X, y, strict=True)]
    return spark.createDataFrame(spark.sparkContext.parallelize(rows, partitions), ["features", "label"]).cache()


def declared(df, classes):
    return df.withMetadata("label", {"ml_attr": {"type": "nominal", "num_vals": classes}})


ONE_LABEL = {
    "binomial, 0": (0, {}),
    "binomial, 1": (1, {"regParam": 0.1}),
    "multinomial, 2": (2, {}),
    "multinomial, 1": (1, {"family": "multinomial", "regParam": 0.1}),
}


@pytest.mark.parametrize("name", ONE_LABEL)
def test_one_label_only_is_pysparks_infinite_intercept(spark, name, tmp_path):
    label, options = ONE_LABEL[name]
    rows = frame(spark, [[1.0, 2.0], [2.0, 1.0], [0.0, 0.5]], [label] * 3)
    theirs = classification.LogisticRegression(**options).fit(rows)
    ours = ml.LogisticRegression(**options, **LOCAL).fit(rows)
    assert ours.summary.totalIterations == 0
    assert ours.summary.converged
    assert ours.summary.objectiveHistory == [0.0]
    assert not ours.coefficientMatrix.toArray().any()
    # pyspark.ml's multinomial with a label of two classes has an intercept for one class only
    wanted = [0.0, np.inf] if name == "multinomial, 1" else theirs.interceptVector.toArray()
    assert ours.interceptVector.toArray().tolist() == list(wanted)
    ours.save(str(tmp_path / "model"))
    for model in (ours, ml.LogisticRegressionModel.load(str(tmp_path / "model"))):
        scored = model.transform(rows).toPandas()
        assert (scored["prediction"] == label).all()
        assert [row.values.max() for row in scored["probability"]] == [1.0] * 3
        assert [int(row.values.argmax()) for row in scored["probability"]] == [label] * 3


def test_metadata_says_how_many_classes_there_are(spark):
    X = np.random.default_rng(0).normal(size=(40, 2))
    rows = frame(spark, X, np.arange(40) % 2)
    options = {"regParam": 0.1, "tol": 1e-12, **LOCAL}
    model = ml.LogisticRegression(**options).fit(declared(rows, 4))
    alone = ml.LogisticRegression(family="multinomial", **options).fit(rows)
    assert model.numClasses == 4
    np.testing.assert_allclose(model.coefficientMatrix.toArray()[:2], alone.coefficientMatrix.toArray())
    np.testing.assert_allclose(model.interceptVector.toArray()[:2], alone.interceptVector.toArray())
    assert not model.coefficientMatrix.toArray()[2:].any()
    assert model.interceptVector.toArray()[2:].tolist() == [-np.inf, -np.inf]
    # pyspark.ml's finite intercepts are on their way there
    theirs = classification.LogisticRegression(regParam=0.1, tol=1e-12).fit(declared(rows, 4))
    assert theirs.numClasses == 4
    ours, other = (
        np.stack([p.toArray() for p in found.transform(rows).toPandas()["probability"]]) for found in (model, theirs)
    )
    np.testing.assert_allclose(ours, other, atol=1e-4)
    assert (ours[:, 2:] == 0).all()
    without = ml.LogisticRegression(fitIntercept=False, **options).fit(declared(rows, 4))
    assert without.numClasses == 4
    assert ml.LogisticRegression(**options).fit(declared(rows, 2)).numClasses == 2


def test_labels_beyond_the_metadata_are_refused(spark):
    rows = frame(spark, [[1.0], [2.0], [3.0]], [0, 1, 2])
    with pytest.raises(DataError, match="label"):
        ml.LogisticRegression(**LOCAL).fit(declared(rows, 2))
    with pytest.raises(IncompatibleError, match="says 3"):
        ml.LogisticRegression(family="binomial").fit(declared(rows, 3))


def test_a_string_indexer_says_how_many_classes_there_are(spark):
    rows = spark.createDataFrame(
        [("a", 1.0), ("a", 0.0), ("a", 3.0), ("b", 2.0), ("b", 4.0), ("c", 5.0)], ["name", "x"]
    ).coalesce(1)
    indexed = StringIndexer(inputCol="name", outputCol="label").fit(rows).transform(rows)
    day = indexed.where(F.col("name") != "c")
    model = ml.LogisticRegression(featuresCols=["x"], regParam=0.1, **LOCAL).fit(day)
    assert (model.numClasses, model.coefficientMatrix.numRows) == (3, 3)


@pytest.mark.parametrize("features", ["dense", "sparse", "float"])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_one_row_is_predicted_to_the_bit_as_many(spark, features, classes):
    """Products of whole batches round by the batch's size."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(33, 37)).astype(np.float32 if features == "float" else np.float64)
    matrix, intercept = rng.normal(size=(1 if classes < 3 else 3, 37)), rng.normal(size=1 if classes < 3 else 3)
    kind = ml.LinearRegressionModel if classes == 1 else ml.LogisticRegressionModel
    model = kind(matrix, intercept)
    if features == "sparse":
        X[rng.random(X.shape) < 0.9] = 0.0
        vectors = [SparseVector(37, np.flatnonzero(x), x[x != 0]) for x in X]
    else:
        vectors = [Vectors.dense(x.astype(float)) for x in X]
    rows = [(x.tolist(),) if features == "float" else (v,) for x, v in zip(X, vectors, strict=True)]
    schema = "features array<float>" if features == "float" else ["features"]
    scored = model.transform(spark.createDataFrame(rows, schema).coalesce(1)).collect()
    for row, vector in zip(scored, vectors, strict=True):
        assert row["prediction"] == model.predict(vector)
        if classes > 1:
            assert row["rawPrediction"] == model.predictRaw(vector)
            assert row["probability"] == model.predictProbability(vector)

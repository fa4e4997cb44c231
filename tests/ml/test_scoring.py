"""Scores: the same bits by every way to score, close to pyspark.ml's, each row once; and metrics of such rows."""

from __future__ import annotations

import logging
import re

import numpy as np
import pandas as pd
import pytest
from py4j.protocol import Py4JError
from pyspark.ml import classification, regression
from pyspark.ml.evaluation import BinaryClassificationEvaluator, Evaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import SparseVector, Vectors, VectorUDT
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from sparkopt import ml
from sparkopt.errors import ParameterError
from sparkopt.ml import arithmetic, jvm, local
from tests.tiers import needs

WIDTH, ROWS = 7, 40
RNG = np.random.default_rng(0)
MATRIX, INTERCEPT = RNG.normal(size=(3, WIDTH)), RNG.normal(size=3)
COLUMNS = [f"x{i}" for i in range(WIDTH)]


def glm(**options):
    return ml.GeneralizedLinearRegressionModel(MATRIX[:1] / 4, INTERCEPT[:1])._set(linkPredictionCol="eta", **options)


MODELS = {
    "linear": ml.LinearRegressionModel(MATRIX[:1], INTERCEPT[:1]),
    "huber": ml.LinearRegressionModel(MATRIX[:1], INTERCEPT[:1], np.array([0.3]))._set(loss="huber"),
    "quantile": ml.QuantileRegressionModel(MATRIX[:1], INTERCEPT[:1])._set(quantile=0.9),
    "logistic": ml.LogisticRegressionModel(MATRIX[:1], INTERCEPT[:1]),
    "logistic, threshold": ml.LogisticRegressionModel(MATRIX[:1], INTERCEPT[:1])._set(threshold=0.8),
    "one label": ml.LogisticRegressionModel(0 * MATRIX[:1], np.array([np.inf])),
    "classes": ml.LogisticRegressionModel(MATRIX, INTERCEPT),
    "classes, thresholds": ml.LogisticRegressionModel(MATRIX, INTERCEPT)._set(thresholds=[0.5, 0.0, 1.0]),
    "classes, one never": ml.LogisticRegressionModel(MATRIX, np.array([0.1, 0.2, -np.inf])),
    "many classes": ml.LogisticRegressionModel(RNG.normal(size=(40, WIDTH)), RNG.normal(size=40)),
    "support vectors": ml.LinearSVCModel(MATRIX[:1], INTERCEPT[:1])._set(threshold=0.5),
    "poisson": glm(family="poisson"),
    "poisson, offset": glm(family="poisson", offsetCol="offset"),
    "gaussian": glm(family="gaussian"),
    "binomial": glm(family="binomial", link="logit"),
    "probit, offset": glm(family="binomial", link="probit", offsetCol="offset"),
    "tweedie": glm(family="tweedie", variancePower=1.5, linkPower=-0.5),
}


@pytest.fixture(scope="module")
def table(spark):
    """The rows as columns, with a Vector and a text that only pass through."""
    X = np.round(RNG.normal(size=(ROWS, WIDTH)), 3)
    X[RNG.random(X.shape) < 0.4] = 0.0
    frame = pd.DataFrame(X.astype(np.float32).astype(float), columns=COLUMNS)
    frame["id"], frame["offset"], frame["name"] = np.arange(ROWS), RNG.normal(size=ROWS), "a"
    frame["label"], frame["fold"] = RNG.integers(0, 2, ROWS).astype(float), np.arange(ROWS) % 2
    rows = spark.createDataFrame(frame).repartition(2)
    passing = F.udf(lambda n: SparseVector(3, [1], [float(n)]), VectorUDT())
    return rows.withColumn("passing", passing("id")).cache()


@pytest.fixture(scope="module")
def inputs(spark, table, tmp_path_factory):
    """The same rows, by what holds their features and where they come from."""
    folder = tmp_path_factory.mktemp("rows")
    vector = F.udf(lambda *x: Vectors.dense(x), VectorUDT())
    sparse = F.udf(lambda *x: SparseVector(WIDTH, np.flatnonzero(x), [v for v in x if v]), VectorUDT())
    mixed = F.udf(lambda n, *x: Vectors.dense(x) if n % 2 else SparseVector(WIDTH, dict(enumerate(x))), VectorUDT())
    kept = [name for name in table.columns if name not in COLUMNS]

    def written(name, features):
        table.select(*kept, features.alias("features")).write.parquet(f"{folder}/{name}")
        return spark.read.parquet(f"{folder}/{name}")

    assembled = VectorAssembler(inputCols=COLUMNS, outputCol="features").transform(table)
    parquet = written("dense", vector(*COLUMNS))
    return {
        "Parquet": parquet,
        "cached": parquet.where("id >= 0").cache(),
        "assembled": assembled,
        "assembled and cached": assembled.where("id >= 0").cache(),
        "joined": parquet.drop("name").join(table.select("id", "name"), "id"),
        "sparse": written("sparse", sparse(*COLUMNS)),
        "mixed": written("mixed", mixed("id", *COLUMNS)),
        "array<float>": written("floats", F.array(*COLUMNS).cast("array<float>")),
        "array<double>": written("doubles", F.array(*COLUMNS)),
        "columns": table,
    }


INPUTS = [
    "Parquet", "cached", "assembled", "assembled and cached", "joined", "sparse", "mixed", "array<float>",
    "array<double>", "columns",
]  # fmt: skip
AT_ONCE = ("Parquet", "mixed", "columns")
"""Those that are tested with every commit, the others in the third tier."""


def plain(value):
    return value.toArray().tolist() if isinstance(value, (SparseVector, type(Vectors.dense([])))) else value


@pytest.fixture(scope="module")
def without_spark(table):
    """What each model says of the rows without Spark, by id."""
    frame = table.drop("passing").toPandas().set_index("id")
    frame["features"] = list(frame[COLUMNS].to_numpy())
    return {name: local.score(model, frame) for name, model in MODELS.items()}


@pytest.mark.parametrize(
    "source", [pytest.param(name, marks=[needs("minutes")] * (name not in (*AT_ONCE, "cached"))) for name in INPUTS]
)
def test_scores_have_the_same_bits_wherever_rows_come_from(inputs, without_spark, source):
    rows = inputs[source]
    for name, model in MODELS.items():
        scored = (model.copy()._set(featuresCols=COLUMNS) if source == "columns" else model).transform(rows)
        assert scored.columns[: len(rows.columns)] == rows.columns
        found = scored.drop("features").collect()
        assert len(found) == ROWS
        expected = without_spark[name]
        for row in found:
            assert plain(row["passing"]) == [0.0, float(row["id"]), 0.0]
            for column in expected:
                wanted = np.asarray(expected.loc[row["id"], column])
                np.testing.assert_array_equal(plain(row[column]), wanted, err_msg=f"{name}, {column}")


class MeanPassing(Evaluator):
    """Somebody's own evaluator, which sees Vectors that only pass through."""

    def _evaluate(self, dataset):
        return dataset.agg(F.avg(vector_to_array("passing")[1] * F.col("prediction"))).first()[0]


@pytest.fixture(scope="module")
def facts(inputs):
    """What a fit, its summary, an evaluation and searches say of each input: computed once each."""
    known = {}

    def of(source):
        if source not in known:
            names = {"featuresCols": COLUMNS} if source == "columns" else {}
            estimator = ml.LogisticRegression(maxIter=2, tol=0.0, regParam=0.1, engine="local", **names)
            model, rows = estimator.fit(inputs[source]), inputs[source]
            search = dict(estimator=estimator, estimatorParamMaps=[{}], numFolds=2, foldCol="fold")
            evaluators = (BinaryClassificationEvaluator(), MeanPassing())
            found = [ml.CrossValidator(evaluator=one, **search).fit(rows).avgMetrics[0] for one in evaluators]
            summaries = [model.summary, model.evaluate(rows)]
            found += [value for one in summaries for value in (one.accuracy, one.areaUnderROC, one.weightedRecall)]
            known[source] = [*model.coefficients, model.intercept, *found]
        return known[source]

    return of


@pytest.mark.parametrize(
    "source", [pytest.param(name, marks=[needs("minutes")] * (name not in AT_ONCE)) for name in INPUTS]
)
def test_fits_summaries_and_searches_are_the_same_wherever_rows_come_from(facts, source):
    # floats are trained on in single precision
    np.testing.assert_allclose(facts(source), facts("columns"), rtol=1e-4 if "float" in source else 1e-9)


def test_scores_are_pysparks(spark, inputs):
    rows = inputs["mixed"].cache()
    java = spark._jvm.org.apache.spark.ml
    vector, number = jvm._py2java(spark.sparkContext, Vectors.dense(MATRIX[0])), float(INTERCEPT[0])
    logistic = classification.LogisticRegressionModel(
        java.classification.LogisticRegressionModel("theirs", vector, number)
    )
    linear = regression.LinearRegressionModel(java.regression.LinearRegressionModel("theirs", vector, number))
    for ours, theirs in ((MODELS["logistic"], logistic), (MODELS["linear"], linear)):
        expected, found = (model.transform(rows).orderBy("id").toPandas() for model in (theirs, ours))
        for column in set(expected) - set(rows.columns):
            values = [np.array([plain(value) for value in frame[column]]) for frame in (found, expected)]
            np.testing.assert_allclose(*values, rtol=1e-12, atol=1e-14)


def plan(df):
    return df._jdf.queryExecution().executedPlan().toString()


SCORED = r"UDF\((?:features|static_invoke\([\w.]+\(struct\([^(]*(?:cast\()?features)|score\(__sparkopt_inputs"
"""A product of features in a plan: of Vectors, of arrays that are made Vectors, and in Python."""


@pytest.mark.parametrize("source", ["Parquet", "cached", "array<float>"])
@pytest.mark.parametrize("name", ["linear", "logistic", "classes", "poisson", "probit, offset"])
def test_each_row_is_scored_once_whatever_filters_follow(inputs, source, name):
    """Of the columns of features, the plan has one product, and filters of other columns are before it."""
    scored = MODELS[name].transform(inputs[source])
    outputs = [column for column in ("rawPrediction", "probability") if column in scored.columns]
    filters = [F.col("prediction") > 0, *[vector_to_array(column)[1] > 0 for column in outputs]]
    for condition in filters:
        for kept in (scored.where(condition & (F.col("name") == "a")), scored.where("name = 'a'").where(condition)):
            text = plan(kept.select("name", F.col("prediction") * 2, "prediction", *outputs))
            found = re.findall(SCORED, text)
            assert found, text
            assert len(found) == len(set(found)), text
            assert text.index("(name#") > text.index(found[-1])


def test_rows_that_stream_are_scored(spark, inputs, without_spark, tmp_path):
    inputs["Parquet"].write.parquet(str(tmp_path / "in"))
    stream = spark.readStream.schema(inputs["Parquet"].schema).parquet(str(tmp_path / "in"))
    query = (
        MODELS["logistic"]
        .transform(stream)
        .writeStream.format("memory")
        .queryName("scored_stream")
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    found = {row["id"]: row["prediction"] for row in spark.table("scored_stream").collect()}
    assert found == without_spark["logistic"]["prediction"].to_dict()


def test_features_may_have_any_name(inputs, without_spark):
    rows = inputs["Parquet"].withColumnRenamed("features", "my.`features`")
    model = MODELS["linear"].copy()._set(featuresCol="my.`features`")
    found = {row["id"]: row["prediction"] for row in model.transform(rows).collect()}
    assert found == without_spark["linear"]["prediction"].to_dict()


WRONG = {
    "another width": ([1.0, 2.0], "a row has 2 features; the model was trained on 7"),
    "null": (None, "a row's features are null"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_rows_are_refused(spark, name):
    value, message = WRONG[name]
    vector = None if value is None else Vectors.dense(value)
    schema = StructType([StructField("features", VectorUDT())])
    rows = spark.createDataFrame([(Vectors.dense([0.0] * WIDTH),), (vector,)], schema)
    for model in ("linear", "classes"):
        with pytest.raises(Exception, match=message):
            MODELS[model].transform(rows).collect()


def test_null_arrays_are_refused(spark):
    rows = spark.createDataFrame([([0.0] * WIDTH,), (None,)], "features array<double>").coalesce(1)
    with pytest.raises(Exception, match="features column 'features': a row is null. Set"):
        MODELS["linear"].transform(rows).collect()


def test_wide_rows_are_scored(spark):
    width = jvm.WIDE + 1
    w = RNG.normal(size=width)
    rows = [SparseVector(width, [0, 5, width - 1], [1.0, 2.0, 3.0]), Vectors.dense(RNG.normal(size=width))]
    model = ml.LinearRegressionModel(w[None], np.array([0.5]))
    scored = model.transform(spark.createDataFrame([(row,) for row in rows], ["features"]).coalesce(1)).collect()
    found = [row["prediction"] for row in scored]
    assert found[0] == model.predict(rows[0])
    assert found[1] == pytest.approx(model.predict(rows[1]), rel=1e-12)


def test_a_jvm_that_refuses_leaves_the_rows_to_python(spark, inputs, without_spark, monkeypatch, caplog):
    def refused(*_, **__):
        raise Py4JError("is not whitelisted")

    monkeypatch.setattr(jvm, "_of_numbers", refused)
    with caplog.at_level(logging.WARNING):
        new = MODELS["linear"].copy()  # no columns were made for it before
        scored = new.transform(inputs["mixed"]).select("id", "prediction").collect()
    assert {row["id"]: row["prediction"] for row in scored} == without_spark["linear"]["prediction"].to_dict()
    assert "scored by Python workers" in caplog.text


def test_expressions_that_cannot_be_had_leave_vectors_to_a_function(inputs, without_spark, monkeypatch, caplog):
    def refused(_):
        raise TypeError("'JavaPackage' object is not callable")

    monkeypatch.setattr(jvm, "_typed", refused)
    with caplog.at_level(logging.WARNING):
        scored = MODELS["logistic"].copy().transform(inputs["mixed"]).select("id", "probability").collect()
    assert {row["id"]: plain(row["probability"]) for row in scored} == {
        row: list(value) for row, value in without_spark["logistic"]["probability"].items()
    }
    assert "Vectors are made by array_to_vector" in caplog.text


def test_thresholds_of_other_classes_are_refused(inputs):
    with pytest.raises(ParameterError, match="one entry for each class, 3. Got 2"):
        MODELS["classes"].copy()._set(thresholds=[0.5, 0.5]).transform(inputs["Parquet"])


def test_the_exponential_function_is_javas(spark):
    normal, edges = RNG.normal(size=500), RNG.uniform(-750, -700, 200)
    x = np.concatenate([normal, 300 * normal, 1e-9 * normal, edges])
    x = np.concatenate([x, np.linspace(-1.1, 1.1, 200), [0.0, -0.0, np.inf, -np.inf, np.nan, 709.9, 1e300, -1e300]])
    rows = spark.createDataFrame([(float(value),) for value in x], "x double").coalesce(1)
    found = rows.select(F.exp("x").alias("e")).toPandas()
    np.testing.assert_array_equal(arithmetic.exp(x), found["e"])
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(arithmetic.exp(x), np.exp(x), rtol=1e-15)

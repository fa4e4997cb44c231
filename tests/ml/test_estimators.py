"""The estimators as pyspark.ml citizens: pipelines, cross-validation, evaluators, persistence, scoring."""

from __future__ import annotations

import numpy as np
import pytest
from chispa import assert_df_equality
from pyspark.errors import AnalysisException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator, MulticlassClassificationEvaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.linalg import Vectors
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression

from sparkopt.errors import DataError, NotConvergedWarning, SchemaError
from sparkopt.io.metadata import read_metadata
from sparkopt.ml import LinearRegression, LinearRegressionModel, LogisticRegression, LogisticRegressionModel
from sparkopt.report import Receipt

QUICK = dict(maxIter=5, tol=0.0)


@pytest.fixture(scope="module")
def multinomial(digits):
    return LogisticRegression(engine="driver", regParam=0.01, **QUICK).fit(digits)


def test_probabilities_are_scikit_learns(cancer):
    """Same objective (C = 1 / (n · regParam), no standardisation), another library."""
    model = LogisticRegression(regParam=0.01, standardization=False, tol=1e-10).fit(cancer)
    rows = cancer.toPandas()
    X, y = np.stack([v.toArray() for v in rows["features"]]), rows["label"]
    theirs = SklearnLogisticRegression(C=1 / (len(y) * 0.01), tol=1e-8, max_iter=1000).fit(X, y)
    ours = np.stack([p.toArray() for p in model.transform(cancer).toPandas()["probability"]])
    np.testing.assert_allclose(ours, theirs.predict_proba(X), atol=1e-5)


def test_scoring_agrees_with_the_model(multinomial, digits):
    scored = multinomial.transform(digits.limit(50)).toPandas()
    X = np.stack([v.toArray() for v in scored["features"]])
    raw = X @ multinomial.coefficientMatrix.toArray().T + multinomial.interceptVector.toArray()
    np.testing.assert_allclose(np.stack([v.toArray() for v in scored["rawPrediction"]]), raw, rtol=1e-10)
    np.testing.assert_allclose([v.toArray().sum() for v in scored["probability"]], 1.0)
    assert scored["prediction"].tolist() == raw.argmax(axis=1).tolist()
    first = digits.first()["features"]
    assert multinomial.predict(first) == multinomial.predictRaw(first).argmax()
    assert multinomial.predictProbability(first).values.argmax() == multinomial.predict(first)


def test_multinomial_models_are_centred(digits):
    model = LogisticRegression(**QUICK).fit(digits)
    np.testing.assert_allclose(model.coefficientMatrix.toArray().sum(axis=0), 0, atol=1e-10)
    assert sum(model.interceptVector) == pytest.approx(0, abs=1e-10)
    with pytest.raises(AttributeError, match="use coefficientMatrix"):
        _ = model.coefficients


def test_outputs_can_be_left_out_and_renamed(multinomial, digits):
    bare = multinomial.copy().setRawPredictionCol("").setProbabilityCol("").setPredictionCol("digit")
    assert bare.transform(digits).columns == [*digits.columns, "digit"]


def test_an_existing_output_column_is_refused(multinomial, digits):
    with pytest.raises(SchemaError, match="output column 'rawPrediction' exists already"):
        multinomial.transform(multinomial.transform(digits))


def test_rows_of_another_width_are_refused(spark, multinomial):
    with pytest.raises(DataError, match="a row has 2 features; the model was trained on 64"):
        multinomial.predict(Vectors.dense([1.0, 2.0]))


@pytest.mark.parametrize("kind", ["regression", "binomial", "multinomial"])
def test_models_survive_the_disk(kind, cancer, digits, multinomial, tmp_path):
    if kind == "multinomial":
        model, df, loader = multinomial, digits, LogisticRegressionModel
    elif kind == "binomial":
        model, df, loader = LogisticRegression(regParam=0.1, **QUICK).fit(cancer), cancer, LogisticRegressionModel
    else:
        model, df, loader = LinearRegression(predictionCol="p", **QUICK).fit(cancer), cancer, LinearRegressionModel
    model.write().overwrite().save(str(tmp_path / "model"))
    loaded = loader.load(str(tmp_path / "model"))
    assert all(np.array_equal(a, b) for a, b in zip(loaded.arrays, model.arrays, strict=True))
    assert loaded.uid == model.uid
    assert not loaded.hasSummary
    with pytest.raises(AttributeError, match="no summary"):
        _ = loaded.summary
    assert_df_equality(loaded.transform(df.limit(20)), model.transform(df.limit(20)))
    assert not [path for path in (tmp_path / "model").rglob("*") if path.suffix in (".pkl", ".pickle")]


def test_a_model_is_saved_on_the_disk_of_local_mode_without_a_job(spark, tmp_path):
    """To the same files as Spark writes, which refuses what it refuses."""
    model, context = LinearRegressionModel(np.array([[1.0, -2.5]]), np.array([0.5])), spark.sparkContext
    context.setJobGroup("saving here", "")
    try:
        model.save(str(tmp_path / "here"))
    finally:
        context.setJobGroup("", "")
    assert list(context.statusTracker().getJobIdsForGroup("saving here")) == []
    model.save(f"file:{tmp_path}/by Spark")
    facts = []
    for name in ("here", "by Spark"):
        loaded = LinearRegressionModel.load(f"{tmp_path}/{name}")
        assert all(np.array_equal(a, b) for a, b in zip(loaded.arrays, model.arrays, strict=True))
        facts.append(read_metadata(f"{tmp_path}/{name}"))
    assert facts[0] | {"timestamp": 0} == facts[1] | {"timestamp": 0}
    with pytest.raises(AnalysisException, match="already exists"):
        model.save(str(tmp_path / "here"))
    other = LinearRegressionModel(np.array([[3.0]]), np.array([0.0]))
    other.write().overwrite().save(str(tmp_path / "here"))
    assert LinearRegressionModel.load(str(tmp_path / "here")).numFeatures == 1


def test_loading_as_another_kind_is_refused(multinomial, tmp_path):
    multinomial.save(str(tmp_path / "model"))
    with pytest.raises(DataError, match="LogisticRegressionModel, not a .*LinearRegressionModel"):
        LinearRegressionModel.load(str(tmp_path / "model"))


def test_estimators_survive_the_disk(spark, tmp_path):
    estimator = LogisticRegression(regParam=0.3, optimizer="adam", stepSize=0.2, featuresCols=["a", "b"])
    estimator.save(str(tmp_path / "estimator"))
    loaded = LogisticRegression.load(str(tmp_path / "estimator"))
    assert {p.name: v for p, v in loaded.extractParamMap().items()} == {
        p.name: v for p, v in estimator.extractParamMap().items()
    }


def test_pipeline_and_cross_validator(spark, cancer, tmp_path):
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as F

    array = vector_to_array("features")
    columns = [array[i].alias(f"x{i}") for i in range(4)]
    table = cancer.select(*columns, F.col("label")).cache()
    estimator = LogisticRegression(featuresCol="assembled", **QUICK)
    pipeline = Pipeline(
        stages=[VectorAssembler(inputCols=[f"x{i}" for i in range(4)], outputCol="assembled"), estimator]
    )
    evaluator = BinaryClassificationEvaluator(metricName="areaUnderROC")
    grid = ParamGridBuilder().addGrid(estimator.regParam, [0.001, 10.0]).build()
    found = CrossValidator(estimator=pipeline, estimatorParamMaps=grid, evaluator=evaluator, numFolds=2, seed=1).fit(
        table
    )
    assert found.avgMetrics[0] > 0.95
    best = found.bestModel
    assert best.stages[-1].getOrDefault("regParam") if best.stages[-1].hasParam("regParam") else True
    best.save(str(tmp_path / "pipeline"))
    again = PipelineModel.load(str(tmp_path / "pipeline"))
    assert_df_equality(again.transform(table), best.transform(table))


def test_evaluators_read_every_output(multinomial, digits):
    scored = multinomial.transform(digits)
    for metric in ("accuracy", "f1"):
        assert MulticlassClassificationEvaluator(metricName=metric).evaluate(scored) > 0.9
    assert MulticlassClassificationEvaluator(metricName="logLoss").evaluate(scored) < 0.6


def test_columns_and_vectors_give_the_same_model(spark, cancer):
    from pyspark.ml.functions import vector_to_array

    wide = cancer.select(*[vector_to_array("features")[i].alias(f"x.{i}") for i in range(10)], "label")
    names = [f"x.{i}" for i in range(10)]  # dots in names are literal
    by_columns = LogisticRegression(featuresCols=names, **QUICK).fit(wide)
    by_vector = LogisticRegression(**QUICK).fit(cancer)
    assert by_columns.coefficients == by_vector.coefficients
    assert by_columns.transform(wide).columns[-1] == "prediction"


def test_too_few_steps_are_warned_of(cancer):
    known = r"'proximal-newton' stopped at maxIter=2 before its tolerance of 1e-06 .* is about \S+ above the optimum"
    with pytest.warns(NotConvergedWarning, match=known):
        LogisticRegression(maxIter=2).fit(cancer)
    unknown = r"'gd' stopped at maxIter=3 before its tolerance of 1e-06 .* fell by \S+ in the last 3 steps"
    with pytest.warns(NotConvergedWarning, match=unknown):
        LogisticRegression(maxIter=3, optimizer="gd").fit(cancer)


def test_callbacks_see_each_step_and_may_stop(cancer):
    seen = []
    estimator = LogisticRegression(maxIter=50, tol=0.0)
    estimator.callbacks = [lambda progress: seen.append(progress.record.step) or progress.record.step >= 3]
    model = estimator.fit(cancer)
    assert seen == [0, 1, 2, 3]
    assert model.summary.totalIterations == 3
    assert model.summary.receipt.reason == "callback"


def test_the_receipt_adds_up(multinomial, digits, tmp_path):
    receipt = multinomial.summary.receipt
    assert receipt.rows == digits.count()
    assert receipt.rows_touched == receipt.passes * receipt.rows
    phases = sum(receipt.seconds[name] for name in ("ingest", "compute", "reduce", "schedule", "optimizer"))
    assert phases == pytest.approx(receipt.seconds["total"], rel=0.05)
    assert receipt.objective == multinomial.summary.objectiveHistory
    assert receipt.objective[0] == pytest.approx(np.log(10))
    point, hessian = 650, 650 * 651 // 2  # coefficients go out; a gradient and the triangle of a Hessian come back
    assert receipt.bytes["sent"] == receipt.passes * receipt.partitions * (2 * point + hessian) * 8
    assert sum(receipt.sent) == receipt.bytes["sent"]
    assert len(receipt.sent) in (receipt.steps + 1, receipt.steps + 2)
    receipt.save(tmp_path / "receipt.json")
    import json

    assert Receipt.from_dict(json.loads((tmp_path / "receipt.json").read_text())) == receipt
    receipt.plot(tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert f"{receipt.rows:,}" in str(receipt)

"""The estimators as pyspark.ml citizens: pipelines, cross-validation, evaluators, columns of DataFrames."""

from __future__ import annotations

import numpy as np
import pytest
from chispa import assert_df_equality
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator, MulticlassClassificationEvaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.functions import vector_to_array
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder
from pyspark.sql import functions as F

from sparkopt.ml import LogisticRegression, LogisticRegressionModel

QUICK = dict(maxIter=5, tol=0.0)


@pytest.fixture(scope="module")
def multinomial(digits):
    return LogisticRegression(engine="driver", regParam=0.01, **QUICK).fit(digits)


def test_pipeline_and_cross_validator(spark, cancer, tmp_path):
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


def test_models_that_spark_wrote_are_the_same(multinomial, digits, tmp_path):
    multinomial.save(str(tmp_path / "model"))
    loaded = LogisticRegressionModel.load(str(tmp_path / "model"))
    assert all(np.array_equal(a, b) for a, b in zip(loaded.arrays, multinomial.arrays, strict=True))
    assert loaded.uid == multinomial.uid
    assert_df_equality(loaded.transform(digits.limit(20)), multinomial.transform(digits.limit(20)))
    assert not [path for path in (tmp_path / "model").rglob("*") if path.suffix in (".pkl", ".pickle")]


def test_evaluators_read_every_output(multinomial, digits):
    scored = multinomial.transform(digits)
    for metric in ("accuracy", "f1"):
        assert MulticlassClassificationEvaluator(metricName=metric).evaluate(scored) > 0.9
    assert MulticlassClassificationEvaluator(metricName="logLoss").evaluate(scored) < 0.6


def test_columns_and_vectors_give_the_same_model(spark, cancer):
    wide = cancer.select(*[vector_to_array("features")[i].alias(f"x.{i}") for i in range(10)], "label")
    names = [f"x.{i}" for i in range(10)]  # dots in names are literal
    by_columns = LogisticRegression(featuresCols=names, **QUICK).fit(wide)
    by_vector = LogisticRegression(**QUICK).fit(cancer)
    assert by_columns.coefficients == by_vector.coefficients
    assert by_columns.transform(wide).columns[-1] == "prediction"

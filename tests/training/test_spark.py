"""What training shares with pyspark.ml: its models as a start, its pipelines and searches over our estimators."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.ml import Pipeline, classification, regression
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.functions import array_to_vector
from pyspark.ml.tuning import CrossValidator, TrainValidationSplit

from sparkopt.ml import LinearRegression, LogisticRegression
from tests.training.test_training import EXACT, counted, flat, table  # noqa: F401  # fixtures


@pytest.fixture(scope="module")
def rows(spark, table):  # noqa: F811
    vectors = spark.createDataFrame(table).withColumn("features", array_to_vector("features"))
    return vectors.repartition(2).cache()


STARTS = {
    "logistic": (
        LogisticRegression(regParam=0.01, **EXACT),
        lambda: classification.LogisticRegression(regParam=0.01, tol=1e-10, maxIter=200),
    ),
    "huber": (
        LinearRegression(labelCol="weight", loss="huber", **EXACT),
        lambda: regression.LinearRegression(labelCol="weight", loss="huber", tol=1e-12, maxIter=300),
    ),
}


@pytest.mark.parametrize("name", STARTS)
def test_models_of_pyspark_ml_are_a_start(rows, name):
    """From the optimum there is nowhere to go, through copies and pipelines too."""
    estimator, theirs = STARTS[name]
    best = estimator.fit(rows).summary.objectiveHistory[-1]
    warm = estimator.copy({estimator.tol: 1e-8}).setInitialModel(theirs().fit(rows))
    (found,) = Pipeline(stages=[warm]).copy().fit(rows).stages
    assert found.summary.totalIterations <= 1
    assert found.summary.objectiveHistory[0] == pytest.approx(best, rel=1e-8)


@pytest.mark.parametrize("kind", [TrainValidationSplit, CrossValidator], ids=lambda kind: kind.__name__)
def test_searches_train_their_grid_together(rows, counted, kind):  # noqa: F811
    base = LogisticRegression(maxIter=3, tol=0.0)
    grid = [{base.regParam: strength} for strength in (1000.0, 0.1)]
    search = kind(estimator=base, estimatorParamMaps=grid, evaluator=BinaryClassificationEvaluator(), seed=1)
    folds = 1
    if kind is CrossValidator:
        folds, search = 2, search.setNumFolds(2).setParallelism(2)
    found = search.fit(rows)
    written, trained = counted
    assert (len(written), trained) == (folds + 1, [2] * folds + [1])
    metrics = found.avgMetrics if kind is CrossValidator else found.validationMetrics
    assert found.bestModel.getRegParam() == grid[int(np.argmax(metrics))][base.regParam]
    assert flat(found.bestModel).shape == (5,)

"""pyspark.ml's searches over every estimator: the metrics are those of fits one by one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pyspark.ml.evaluation import BinaryClassificationEvaluator, RegressionEvaluator
from pyspark.ml.tuning import CrossValidator, TrainValidationSplit
from pyspark.sql import functions as F

from sparkopt import ml
from tests.tiers import needs

QUICK = {"maxIter": 4, "tol": 0.0, "engine": "local"}
KINDS = {
    "least squares": (ml.LinearRegression, {"labelCol": "amount"}, RegressionEvaluator),
    "quantile": (ml.QuantileRegression, {"labelCol": "amount"}, RegressionEvaluator),
    "poisson": (ml.GeneralizedLinearRegression, {"labelCol": "n", "family": "poisson"}, RegressionEvaluator),
    "logistic": (ml.LogisticRegression, {}, BinaryClassificationEvaluator),
    "support vectors": (ml.LinearSVC, {}, BinaryClassificationEvaluator),
}


@pytest.fixture(scope="module")
def rows(spark):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    table = pd.DataFrame(
        {
            "x0": X[:, 0],
            "x1": X[:, 1],
            "x2": X[:, 2],
            "label": (X[:, 0] + rng.logistic(size=200) > 0).astype(float),
            "amount": X @ [1.0, 2.0, 0.0] + rng.normal(size=200),
            "n": rng.poisson(np.exp(0.5 * X[:, 1])).astype(float),
            "fold": np.arange(200, dtype=np.int32) % 2,
        }
    )
    return spark.createDataFrame(table).coalesce(1).cache()


@pytest.mark.parametrize(
    "name",
    # Fifteen fits each; tests/training/test_folds.py has our own searches over other losses.
    [pytest.param(name, marks=[needs("minutes")] * (name != "logistic")) for name in KINDS],
)
def test_searches_measure_what_single_fits_do(rows, name):
    kind, options, evaluator_kind = KINDS[name]
    estimator = kind(featuresCols=["x0", "x1", "x2"], **QUICK, **options)
    evaluator = evaluator_kind(labelCol=estimator.getLabelCol())
    grid = [{estimator.regParam: strength} for strength in (0.01, 10.0)]

    def alone(training, held_out):
        return [evaluator.evaluate(estimator.copy(values).fit(training).transform(held_out)) for values in grid]

    search = dict(estimator=estimator, estimatorParamMaps=grid, evaluator=evaluator)
    found = CrossValidator(**search, numFolds=2, foldCol="fold").fit(rows)
    folds = [alone(rows.where(F.col("fold") != fold), rows.where(F.col("fold") == fold)) for fold in range(2)]
    np.testing.assert_allclose(found.avgMetrics, np.mean(folds, axis=0), rtol=1e-9)
    split = TrainValidationSplit(**search, trainRatio=0.7, seed=5).fit(rows)
    drawn = rows.select("*", F.rand(5).alias("u"))
    expected = alone(drawn.where("u < 0.7"), drawn.where("u >= 0.7"))
    np.testing.assert_allclose(split.validationMetrics, expected, rtol=1e-9)
    best = np.argmax if evaluator.isLargerBetter() else np.argmin
    assert split.bestModel.getRegParam() == grid[int(best(expected))][estimator.regParam]

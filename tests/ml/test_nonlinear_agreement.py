"""Factorisation machines and networks beside pyspark.ml's: objectives as low, models and scores that change hands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.ml import Pipeline, PipelineModel, classification, regression
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession

from sparkopt import ml
from sparkopt.solver.progress import Progress
from tests.ml.tables import column

pytestmark = pytest.mark.filterwarnings("ignore::sparkopt.errors.NotConvergedWarning")
ROWS, USERS, FILMS = 400, 12, 9


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> DataFrame:
    """Users and films, one-hot, as of MovieLens: a rating that both effects and their vectors make."""
    rng = np.random.default_rng(0)
    user, film = rng.integers(0, USERS, ROWS), rng.integers(0, FILMS, ROWS)
    P, Q = rng.normal(size=(USERS, 2)), rng.normal(size=(FILMS, 2))
    rating = 3 + np.einsum("nk,nk->n", P[user], Q[film]) + rng.normal(0, 0.3, ROWS)
    rows = [
        (Vectors.sparse(USERS + FILMS, [int(u), USERS + int(f)], [1.0, 1.0]), float(r), float(r > 3), float(u % 3))
        for u, f, r in zip(user, film, rating, strict=True)
    ]
    return spark.createDataFrame(rows, ["features", "rating", "liked", "kind"]).cache()


@pytest.fixture(scope="module")
def points(spark: SparkSession) -> DataFrame:
    """Dense rows."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(ROWS, 4))
    rating = X[:, 0] * X[:, 1] - X[:, 2] + rng.normal(0, 0.3, ROWS)
    kind = np.digitize(X[:, 3] + X[:, 0] ** 2, [0.0, 1.5])
    rows = [(Vectors.dense(x), float(r), float(r > 0), float(k)) for x, r, k in zip(X, rating, kind, strict=True)]
    return spark.createDataFrame(rows, ["features", "rating", "liked", "kind"]).cache()


PAIRS: dict[str, tuple[Any, Any, str, dict[str, Any]]] = {
    "machine": (ml.FMRegressor, regression.FMRegressor, "rating", {"factorSize": 3}),
    "machine of classes": (ml.FMClassifier, classification.FMClassifier, "liked", {"factorSize": 3}),
}


def objective(model: Any, df: DataFrame, label: str, strength: float) -> float:
    """Mean loss, and the penalty without the intercept, of a model of either library."""
    ours = model if hasattr(model, "arrays") else copied(model)
    rows = ours.transform(df.toArrow())
    y = column(rows, label)
    if label == "rating":
        losses = (column(rows, "prediction") - y) ** 2
    else:
        chance = column(rows, "probability")
        losses = -np.log(chance[np.arange(len(y)), y.astype(int)])
    return float(losses.mean() + strength / 2 * np.square(ours.arrays[0]).sum())


def copied(model: Any) -> Any:
    """pyspark.ml's factorisation machine as sparkopt's."""
    kind = getattr(ml, type(model).__name__)
    matrix = np.concatenate([model.linear.toArray()[None], model.factors.toArray().T])
    return kind(matrix, np.zeros(len(matrix)), np.array([model.intercept]))


@pytest.mark.parametrize("rows", ["ratings", "points"])
@pytest.mark.parametrize("name", PAIRS)
def test_objectives_of_machines_are_at_least_as_low(
    name: str, rows: str, spark: SparkSession, request: pytest.FixtureRequest
) -> None:
    df = request.getfixturevalue(rows)
    ours, theirs, label, options = PAIRS[name]
    other = theirs(labelCol=label, maxIter=60, stepSize=0.1, **options).fit(df)
    reached = objective(other, df, label, 0.0)
    own = ours(labelCol=label, maxIter=300, **options)
    assert objective(own.fit(df), df, label, 0.0) <= reached
    # from where the other ended: it takes over its intercept, linear terms and vectors, and does not end higher
    start = own.copy().setMaxIter(0).setInitialModel(other).fit(df)
    assert objective(start, df, label, 0.0) == pytest.approx(reached, rel=1e-6)
    onwards = own.copy().setInitialModel(other).fit(df)
    assert onwards.summary.objectiveHistory[0] == pytest.approx(reached, rel=1e-6)
    assert onwards.summary.objectiveHistory[-1] <= reached
    found, wanted = (
        np.array([row.prediction for row in model.transform(df).select("prediction").collect()])
        for model in (start, other)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_networks_begin_with_the_same_objective_and_end_as_low(points: DataFrame) -> None:
    layers = [4, 5, 3]
    start = Vectors.dense(np.random.default_rng(2).normal(size=(4 + 1) * 5 + (5 + 1) * 3))
    options: dict[str, Any] = {"labelCol": "kind", "layers": layers, "initialWeights": start}
    ours = ml.MultilayerPerceptronClassifier(maxIter=60, **options).fit(points)
    # its objective is a mean over blocks of the means of their rows: one block has all of them
    whole = classification.MultilayerPerceptronClassifier(maxIter=60, blockSize=ROWS, **options)
    theirs = whole.fit(points.coalesce(1))
    before, after = theirs.summary().objectiveHistory[0], theirs.summary().objectiveHistory[-1]
    assert ours.summary.objectiveHistory[0] == pytest.approx(before, rel=1e-6)
    assert ours.summary.objectiveHistory[-1] <= after * 1.05
    again = ml.MultilayerPerceptronClassifier(maxIter=60, labelCol="kind", layers=layers, initialModel=theirs)
    history = again.fit(points).summary.objectiveHistory
    assert history[0] == pytest.approx(after, rel=1e-4)
    assert history[-1] <= after * (1 + 1e-9)


def test_pipelines_searches_and_summaries_serve(ratings: DataFrame) -> None:
    own = ml.FMClassifier(labelCol="liked", factorSize=2, maxIter=20)
    grid = [{own.regParam: value} for value in (0.001, 10.0)]
    evaluator = ml.BinaryClassificationEvaluator(labelCol="liked")
    searched = ml.CrossValidator(estimator=own, estimatorParamMaps=grid, evaluator=evaluator, numFolds=2).fit(ratings)
    assert searched.bestModel.getRegParam() == 0.001
    assert searched.avgMetrics[0] > searched.avgMetrics[1]
    summary = searched.bestModel.evaluate(ratings)
    rows = searched.bestModel.transform(ratings)
    assert summary.areaUnderROC == pytest.approx(evaluator.evaluate(rows), rel=1e-3)
    right = np.mean([row.prediction == row.liked for row in rows.select("prediction", "liked").collect()])
    assert summary.accuracy == pytest.approx(right)


def kill(progress: Progress) -> None:
    if progress.record.step == 5:
        raise RuntimeError("killed")


@pytest.mark.parametrize("engine", ["driver", "resident", "allreduce", "local"])
def test_a_killed_fit_resumes_on_every_engine(ratings: DataFrame, tmp_path: Path, engine: str) -> None:
    options = {"labelCol": "rating", "factorSize": 2, "engine": engine, "maxIter": 8, "tol": 0.0}
    whole = ml.FMRegressor(**options).fit(ratings)
    kept = {**options, "checkpointDir": str(tmp_path), "checkpointInterval": 2}
    with pytest.raises(RuntimeError, match="killed"):
        ml.FMRegressor(**kept, callbacks=[kill]).fit(ratings)
    resumed = ml.FMRegressor(**kept).fit(ratings)
    assert resumed.summary.receipt.resumed_at == 4
    for found, wanted in zip((*resumed.arrays, resumed.auxiliary), (*whole.arrays, whole.auxiliary), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_table_features_come_before_them_in_pipelines_of_pyspark(points: DataFrame, tmp_path: Path) -> None:
    raw = points.selectExpr("case when kind > 1 then 'many' when kind > 0 then null else 'none' end word", "kind")
    encoding = ml.TableFeatures(inputCols=["word"], outputCol="features")
    width = len(encoding.fit(raw).transform(raw).first().features)
    network = ml.MultilayerPerceptronClassifier(labelCol="kind", layers=[width, 3, 3], maxIter=200, regParam=1e-4)
    model = Pipeline(stages=[encoding, network]).fit(raw)
    model.write().save(str(tmp_path / "model"))
    rows = PipelineModel.load(str(tmp_path / "model")).transform(raw).select("kind", "prediction").collect()
    assert all(row.kind == row.prediction for row in rows)

"""What one machine refuses, Spark refuses in the same words; streams are scored and not trained on."""

from __future__ import annotations

import pytest

from sparkopt.errors import IncompatibleError
from tests.ml import refused
from tests.ml.behaviours.kinds import OURS, World
from tests.ml.behaviours.register import behaviour


@behaviour(refused.ON_SPARK)
def a_fit_refuses_and_explain_says_the_same(world: World, kind: str) -> None:
    case = refused.CASES[kind]
    table = case.table()
    whole = table if table.num_rows else refused.Refused(None, "", case.columns).table()  # Connect makes no empty one
    rows = world.spark.createDataFrame(whole).coalesce(1)
    case.require(rows if table.num_rows else rows.where("1 = 0"))


@behaviour(refused.UNKNOWN)
def labels_that_are_no_classes_are_not_evaluated(world: World, kind: str) -> None:
    labels, message = refused.UNKNOWN[kind]
    key = "refused", "model"
    if key not in world._known:
        world._known[key] = refused.logistic().fit(world.spark.createDataFrame(refused.CASES["zero: gamma"].table()))
    rows = refused.Refused(None, "", {"label": labels}).table()
    refused.unknown_labels(world._known[key], world.spark.createDataFrame(rows).coalesce(1), message)


@behaviour()
def streams_are_scored_and_not_trained_on(world: World) -> None:
    path = world.path("stream")
    world.rows.select("row", "label", "a", "b", "c").write.mode("overwrite").parquet(path)
    stream = world.spark.readStream.schema("row long, label double, a double, b double, c double").parquet(path)
    estimator = OURS.LogisticRegression(featuresCols=["a", "b", "c"], regParam=0.1)
    for wrong in (estimator.fit, estimator.explain):
        with pytest.raises(IncompatibleError, match="streaming DataFrame cannot be trained on.*foreachBatch"):
            wrong(stream)
    model = estimator.fit(world.spark.read.parquet(path))
    name = "scored_stream"
    query = model.transform(stream).writeStream.format("memory").queryName(name).trigger(availableNow=True).start()
    query.awaitTermination(60)
    found = {row.row: row.prediction for row in world.spark.table(name).collect()}
    expected = {row.row: row.prediction for row in model.transform(world.spark.read.parquet(path)).collect()}
    assert found == expected

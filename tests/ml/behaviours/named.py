"""Columns are found by the names by which Spark finds them, and other columns pass through as they are."""

from __future__ import annotations

import numpy as np
from pyspark.sql import functions as F

from tests.ml import named
from tests.ml.behaviours.kinds import OURS, World
from tests.ml.behaviours.register import behaviour


@behaviour(named.CASES)
def columns_have_the_names_that_spark_resolves(world: World, kind: str) -> None:
    case = named.CASES[kind]
    rows = world.spark.createDataFrame(case.table()).coalesce(1)
    case.require(rows, case.table().column_names)


@behaviour()
def columns_of_one_name_and_variants_pass_through(world: World) -> None:
    case = named.CASES["as they are"]
    rows = world.spark.createDataFrame(case.table()).coalesce(1)
    others = rows.select("*", F.lit(1).alias("d"), F.lit(2).alias("d"), F.parse_json(F.lit('{"a": 1}')).alias("v"))
    model = case.estimator().fit(others)
    np.testing.assert_array_equal(model.coefficients.toArray(), named.plain()[0])
    vector = OURS.LogisticRegression(featuresCol="both", regParam=0.1)
    assembled = others.withColumn("both", F.array("x", "z"))
    for one, frame in ((model, others), (vector.fit(assembled), assembled)):
        scored = one.transform(frame)
        assert scored.columns == [*frame.columns, "rawPrediction", "probability", "prediction"]
        first = scored.select("v", "prediction").toArrow()
        assert first.num_rows == named.N
        assert 0.5 < one.evaluate(frame).accuracy <= 1.0

"""What others met with rows in the field ends on Spark as it does on one machine."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkopt import ml
from tests.ml import field
from tests.ml.behaviours.kinds import World
from tests.ml.behaviours.register import behaviour


def collected(rows: DataFrame) -> pa.Table:
    """Return the rows in Arrow; PySpark makes none of Vectors that are null."""
    vectors = {one.name for one in rows.schema if one.dataType.typeName() == "vectorudt"}
    columns = [
        F.when(F.col(name).isNotNull(), vector_to_array(name)).alias(name) if name in vectors else F.col(name)
        for name in rows.columns
    ]
    return rows.select(columns).toArrow()


@behaviour(field.CASES)
def a_case_of_the_field_ends_well(world: World, kind: str) -> None:
    folder = Path(world.path("field", kind))
    folder.mkdir(parents=True)
    field.CASES[kind](
        field.Place(
            lambda table: world.spark.createDataFrame(table).coalesce(1),
            collected,
            (world.spark,),
            folder,
        )
    )


def joined(world: World) -> tuple[ml.LogisticRegressionModel, object]:
    """Rows that a join has given two columns of one name, and a model of others."""
    left = world.spark.createDataFrame(field.TABLE).coalesce(1)
    right = world.spark.createDataFrame(pa.table({"row": range(field.N), "town": ["Bonn", "Oslo"] * (field.N // 2)}))
    model = ml.LogisticRegression(featuresCols=["a", "b"], regParam=0.1).fit(left)
    return model, left.join(right, left["row"] == right["row"])


@behaviour()
def a_join_may_leave_two_columns_of_one_name(world: World) -> None:
    model, rows = joined(world)
    scored = model.transform(rows)
    assert scored.columns == [*rows.columns, "rawPrediction", "probability", "prediction"]
    expected = model.transform(field.TABLE)["prediction"].to_pylist()
    found = dict(zip(*scored.select("amount", "prediction").toArrow().to_pydict().values(), strict=True))
    assert found == dict(zip(field.AMOUNT.tolist(), expected, strict=True))
    again = ml.LogisticRegression(featuresCols=["a", "b"], regParam=0.1).fit(rows.coalesce(1))
    assert abs(again.intercept - model.intercept) < 1e-6
    assert model.evaluate(rows).accuracy == model.evaluate(field.TABLE).accuracy


@behaviour()
def a_filter_on_predictions_computes_them_once(world: World) -> None:
    model, _ = joined(world)
    rows = world.spark.createDataFrame(field.TABLE)
    wide = rows.withColumn("features", F.array("a", "b"))
    vector = ml.LogisticRegression(featuresCol="features", regParam=0.1).fit(wide)
    local = field.TABLE.append_column("features", pa.array(np.stack([field.A, field.B], 1).tolist()))
    for one, frame in ((model, rows), (vector, wide)):
        scored = one.transform(frame).where("prediction = 1").select("row", "prediction", "probability")
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            scored.explain()
        # the UDF that makes Vectors of arrays computes no prediction
        plan = re.findall(r"MapInArrow|EvalPython|UDF\((?!\S*\.(?:probability|rawPrediction))", text.getvalue())
        assert len(plan) <= 1, text.getvalue()
        assert scored.count() == sum(one.transform(local)["prediction"].to_pylist())


@behaviour()
def an_evaluator_refuses_what_it_cannot_judge_in_one_line(world: World) -> None:
    rows = world.spark.createDataFrame(field.TABLE).withColumn("rawPrediction", F.col("a"))
    named = {"ml_attr": {"type": "nominal", "name": "town", "vals": ["Bonn", "Oslo", "Rome"]}}
    three = rows.withColumn("town", F.col("row") % 3.0).withMetadata("town", named)
    evaluator = ml.BinaryClassificationEvaluator(labelCol="town")
    field.refused(
        "label column 'town' has 3 classes: areas under curves are of two", lambda: evaluator.evaluate(three)
    )
    field.refused("Got a NoneType instead", lambda: evaluator.evaluate(None))
    both = ml.LogisticRegression(featuresCols=["a", "A"])
    field.refused("featuresCols names column 'A' as 'a' too", lambda: both.fit(rows))
    late = ml.LogisticRegression(featuresCols=["a"], patience=3)
    field.refused("patience=3 stops a fit by its validation rows", lambda: late.fit(rows))

"""Folds are drawn once, whatever order a source has its rows in, and may be missing in partitions and batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.ml.evaluation import Evaluator
from pyspark.sql import functions as F

from sparkopt.blocks.backend import is_connect
from sparkopt.ml import RegressionEvaluator
from tests.ml.behaviours.kinds import OURS, World
from tests.ml.behaviours.register import behaviour

ROWS = 120


class Error(Evaluator):
    """The root of the mean squared error, which only this evaluator can compute."""

    def _evaluate(self, dataset: Any) -> float:
        rows = dataset.select("label", "prediction").toArrow()
        return float(np.sqrt(np.mean(np.square(rows["label"].to_numpy() - rows["prediction"].to_numpy()))))

    def isLargerBetter(self) -> bool:
        """Return false."""
        return False


def reordered(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the rows in another order each time."""
    for batch in batches:
        yield batch.take(pa.array(np.random.default_rng().permutation(batch.num_rows)))


def noise(world: World) -> Any:
    """Rows that a model knows by heart where it has seen them, and knows nothing of where it has not."""
    rng = np.random.default_rng(5)
    label = rng.permutation(np.arange(ROWS) % 2)
    one_of = F.transform(F.sequence(F.lit(0), F.lit(ROWS - 1)), lambda i: (i == F.col("row")).cast("double"))
    rows = world.spark.createDataFrame([(i, float(y)) for i, y in enumerate(label)], "row int, label double")
    return rows.repartition(2).mapInArrow(reordered, rows.schema).withColumn("features", one_of)


@behaviour()
def no_row_is_trained_on_and_measured_where_its_place_varies(world: World) -> None:
    rows = noise(world)
    linear = OURS.LinearRegression(regParam=1e-6, standardization=False)
    by_hand = OURS.CrossValidator(
        estimator=linear, estimatorParamMaps=[{}], evaluator=Error(), numFolds=3, seed=1, parallelism=1
    )
    assert by_hand.fit(rows).avgMetrics[0] > 0.45  # half the distance of the labels; 0.3 where rows are known
    balanced = OURS.LogisticRegression(regParam=1e-4, classWeights="balanced", standardization=False)
    apart = OURS.CrossValidator(
        estimator=balanced, estimatorParamMaps=[{}], evaluator=Error(), numFolds=3, seed=1, parallelism=1
    )
    assert apart.fit(rows).avgMetrics[0] > 0.6  # right by chance in half of the rows; 0.4 where rows are known


@behaviour()
def folds_may_be_missing_in_partitions(world: World) -> None:
    rows = world.rows.select("*", (F.col("row") % 10).cast("int").alias("tenth"))
    scattered, sorted_by_fold = (
        rows.repartition(16),
        rows.repartitionByRange(8, "tenth").sortWithinPartitions("tenth"),
    )
    found = []
    for frame in (rows, scattered, sorted_by_fold):
        for evaluator in (Error(), RegressionEvaluator()):
            search = OURS.CrossValidator(
                estimator=OURS.LinearRegression(regParam=0.1, tol=1e-12),
                estimatorParamMaps=[{}],
                evaluator=evaluator,
                numFolds=10,
                foldCol="tenth",
            )
            found.append(search.fit(frame).avgMetrics[0])
    np.testing.assert_allclose(found, found[0], rtol=1e-9)


@behaviour()
def a_class_may_weigh_nothing_in_a_partition(world: World) -> None:
    weight = F.when((F.col("group") == 2) & (F.col("row") >= ROWS // 4), 0.0).otherwise(F.col("weight"))
    rows = world.rows.withColumn("weight", weight)
    halves = rows.where(f"row < {ROWS // 4}").coalesce(1).union(rows.where(f"row >= {ROWS // 4}").coalesce(1))
    options = {"labelCol": "group", "weightCol": "weight", "regParam": 0.01, "tol": 1e-12, "maxIter": 200}
    expected = OURS.LogisticRegression(**options).fit(rows.where("weight > 0"))
    for engine in ("driver", "resident", "local") if not is_connect(world.spark) else ("driver", "local"):
        found = OURS.LogisticRegression(engine=engine, **options).fit(halves)
        np.testing.assert_allclose(
            found.coefficientMatrix.toArray(), expected.coefficientMatrix.toArray(), rtol=1e-4, atol=1e-5
        )

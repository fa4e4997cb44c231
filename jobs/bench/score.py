#!/usr/bin/env python
"""Time scoring by sparkopt's logistic regression beside pyspark.ml's model with the same coefficients.

    spark-submit --properties-file conf/local.conf jobs/bench/score.py --rows 300000 --features 100

Every output column is computed for every row, beside the columns that pass through, and thrown away. Inputs: a Vector
column from Parquet; assembled from columns; that, cached; an array<float> column from Parquet, which pyspark.ml needs
as Vectors; sparse Vectors. The two take turns, twice each, in a JVM that has run both as often; a ratio is the median
of the turns' ratios. pyspark.ml's beside itself is the machine's noise; reading the input without a model is the
floor that both stand on.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.ml import classification
from pyspark.ml.common import _py2java
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.ml.linalg import SparseVector, Vectors, VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkopt.launch.session import session
from sparkopt.ml import LogisticRegressionModel

Scoring = Callable[[DataFrame], DataFrame]
WARM = 3
"""Turns before those that are timed: until then, the JVM mostly compiles."""
PLACES = ((0, 2), (1, 3), (4,))
"""Of a turn's times, sparkopt's, pyspark.ml's, and those of reading alone."""


def generate(spark: SparkSession, folder: Path, rows: int, features: int) -> Path:
    """Write the rows once, in each form."""
    path = folder / f"score-{rows}x{features}"
    if (path / "_SUCCESS").exists():
        return path
    names = [f"x{i}" for i in range(features)]
    columns = spark.range(0, rows, 1, 8).select(
        *[F.randn(seed).alias(name) for seed, name in enumerate(names)], F.round(F.rand(-1)).alias("label")
    )
    columns.write.mode("overwrite").parquet(f"{path}/columns")
    dense = VectorAssembler(inputCols=names, outputCol="features").transform(spark.read.parquet(f"{path}/columns"))
    dense.select("features", "label").write.mode("overwrite").parquet(f"{path}/vectors")
    vectors = spark.read.parquet(f"{path}/vectors")
    floats = vector_to_array("features", "float32").alias("features")
    vectors.select(floats, "label").write.mode("overwrite").parquet(f"{path}/floats")

    def thin(label: float) -> SparseVector:
        rng = np.random.default_rng()
        places = np.sort(rng.choice(features * 100, 30, replace=False))
        return Vectors.sparse(features * 100, places, rng.normal(size=30))

    sparse = F.udf(thin, VectorUDT(), useArrow=False)("label").alias("features")
    vectors.select(sparse, "label").write.mode("overwrite").parquet(f"{path}/sparse")
    (path / "_SUCCESS").touch()
    return path


def models(spark: SparkSession, features: int) -> tuple[Any, Any]:
    """Return sparkopt's and pyspark.ml's model of the same coefficients."""
    coefficients, intercept = np.random.default_rng(0).normal(size=features) / np.sqrt(features), 0.25
    java = spark._jvm.org.apache.spark.ml.classification.LogisticRegressionModel  # type: ignore[union-attr]
    vector = _py2java(spark.sparkContext, Vectors.dense(coefficients))
    theirs = classification.LogisticRegressionModel(java("theirs", vector, intercept))
    return LogisticRegressionModel(coefficients[None], np.array([intercept])), theirs


def seconds(scoring: Scoring, rows: DataFrame) -> float:
    """Return how long it takes to compute all columns of all rows."""
    begin = time.perf_counter()
    scoring(rows).write.format("noop").mode("overwrite").save()
    return time.perf_counter() - begin


def compare(name: str, rows: DataFrame, ours: Scoring, theirs: Scoring, runs: int) -> str:
    """Time both in turn; return a row of the table."""
    kinds: list[Scoring] = [
        ours,
        theirs,
        ours,
        theirs,
        lambda df: df,
    ]  # the JVM compiles what has run often
    for scoring in kinds * WARM:
        seconds(scoring, rows)
    turns = [[seconds(scoring, rows) for scoring in kinds] for _ in range(runs)]
    mine, other, floor = (statistics.median([turn[at] for turn in turns for at in places]) for places in PLACES)
    ratios = [(turn[1] + turn[3]) / (turn[0] + turn[2]) for turn in turns]
    noise = [max(turn[1] / turn[3], turn[3] / turn[1]) for turn in turns]
    return (
        f"| {name} | {mine:.2f} | {other:.2f} | **{statistics.median(ratios):.2f}x** "
        f"({min(ratios):.2f}-{max(ratios):.2f}) | {floor:.2f} | {statistics.median(noise):.2f} |"
    )


def run(spark: SparkSession, rows: int, features: int, runs: int) -> None:
    """Print the table."""
    path = generate(spark, Path(".cache"), rows, features)
    ours, theirs = models(spark, features)
    wide = models(spark, features * 100)
    vectors, floats, sparse = (spark.read.parquet(f"{path}/{name}") for name in ("vectors", "floats", "sparse"))
    names = [f"x{i}" for i in range(features)]
    columns = spark.read.parquet(f"{path}/columns")
    assembled = VectorAssembler(inputCols=names, outputCol="features").transform(columns).select("features", "label")
    cached = assembled.where(F.col("label") >= 0).cache()  # another plan: the one without a cache stays without
    cached.count()

    def as_vectors(df: DataFrame) -> DataFrame:
        return df.withColumn("features", array_to_vector(F.col("features").cast("array<double>")))

    table = [
        compare("Vectors, Parquet", vectors, ours.transform, theirs.transform, runs),
        compare("assembled", assembled, ours.transform, theirs.transform, runs),
        compare("assembled and cached", cached, ours.transform, theirs.transform, runs),
        compare("array<float>, Parquet", floats, ours.transform, lambda df: theirs.transform(as_vectors(df)), runs),
        compare(f"sparse, {features * 100:,} features", sparse, wide[0].transform, wide[1].transform, runs),
    ]
    print(f"\n{rows:,} rows x {features} features, {spark.sparkContext.defaultParallelism} cores, {runs} turns\n")
    print("| input | sparkopt s | pyspark.ml s | faster by (range) | no model s | pyspark.ml beside itself |")
    print("| --- | --- | --- | --- | --- | --- |")
    print("\n".join(table))
    print("\nThe last column is the machine's noise: two runs of the same, the longer by the shorter.")


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=300_000)
    flags.add_argument("--features", type=int, default=100)
    flags.add_argument("--runs", type=int, default=5)
    args = flags.parse_args()
    spark = session(app_name="sparkopt bench")
    run(spark, args.rows, args.features, args.runs)
    spark.stop()


if __name__ == "__main__":
    main()

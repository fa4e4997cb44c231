#!/usr/bin/env python
"""Time from a table to a model, sparkopt's readers beside pyspark.ml, by how the table holds its features.

    spark-submit --properties-file conf/local.conf jobs/bench/ingest.py --rows 500000 --features 80

Each row of the table is the median of the ratios of runs in turn: sparkopt's, pyspark.ml's, sparkopt's … The spread
of sparkopt's own runs is the machine's noise.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from linear import vectors
from pyspark.ml.classification import LogisticRegression as SparkLogisticRegression
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkopt.blocks.scan import SETTING
from sparkopt.launch.session import session
from sparkopt.ml import LogisticRegression

OPTIONS: dict[str, Any] = {"regParam": 1e-3}
FILES = 4


def names(features: int) -> list[str]:
    """Return the columns' names."""
    return [f"x{index}" for index in range(features)]


def generate(spark: SparkSession, folder: Path, rows: int, features: int) -> Path:
    """Write the same rows, correlated features and two classes, once as a Vector, an array and columns."""
    path = folder / f"ingest-{rows}x{features}"
    if (path / "done").exists():
        return path
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(features, features)) / np.sqrt(features) + np.eye(features)
    truth = rng.normal(size=features) / np.sqrt(features)
    (path / "columns").mkdir(parents=True, exist_ok=True)
    for part in range(FILES):
        X = (rng.normal(size=(rows // FILES, features)) @ mixing).astype(np.float32)
        y = (X @ truth + rng.logistic(size=len(X)) > 0).astype(float)
        columns = {name: X[:, index] for index, name in enumerate(names(features))}
        pq.write_table(pa.table({**columns, "label": y}), path / "columns" / f"part-{part}.parquet")
    columns = spark.read.parquet(str(path / "columns"))
    array = columns.select(F.array(*names(features)).alias("features"), "label")
    array.write.mode("overwrite").parquet(str(path / "array"))
    vectors(array).write.mode("overwrite").parquet(str(path / "vector"))
    (path / "done").touch()
    return path


def assembled(df: DataFrame) -> DataFrame:
    """Return columns as pyspark.ml wants them."""
    maker = VectorAssembler(inputCols=[name for name in df.columns if name != "label"], outputCol="features")
    return maker.transform(df).select("features", "label")


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def ours(df: DataFrame) -> Any:
    """Fit sparkopt's."""
    columns = {} if "features" in df.columns else {"featuresCols": [name for name in df.columns if name != "label"]}
    return LogisticRegression(**OPTIONS, **columns).fit(df)


def theirs(df: DataFrame) -> Any:
    """Fit pyspark.ml's."""
    return SparkLogisticRegression(**OPTIONS).fit(df)


def compare(name: str, mine: DataFrame, other: DataFrame, runs: int) -> None:
    """Print a row of the table."""
    receipt = ours(mine).summary.receipt  # starts Python workers
    pairs = [(seconds(lambda: ours(mine)), seconds(lambda: theirs(other))) for _ in range(runs)]
    ratios = [theirs / mine for mine, theirs in pairs]
    times = [statistics.median(column) for column in zip(*pairs, strict=True)]
    own = [mine for mine, _ in pairs]
    print(
        f"| {name} | {receipt.reader.partition(':')[0]} | {times[0]:.2f} | {times[1]:.2f} | "
        f"**{statistics.median(ratios):.1f}x** ({min(ratios):.1f}-{max(ratios):.1f}) | "
        f"{(max(own) - min(own)) / times[0]:.0%} |",
        flush=True,
    )


def run(spark: SparkSession, rows: int, features: int, runs: int) -> None:
    """Print the table."""
    path = generate(spark, Path(".cache"), rows, features)
    stored = {kind: spark.read.parquet(str(path / kind)) for kind in ("vector", "array", "columns")}
    theirs(stored["vector"])  # warms up the JVM
    cores = spark.sparkContext.defaultParallelism
    print(f"\n{rows:,} rows x {features} features, {cores} cores, {runs} runs in turn, to the model\n")
    print("| from | read by | sparkopt s | pyspark.ml s | faster by (range) | noise |")
    print("| --- | --- | --- | --- | --- | --- |")
    compare("Parquet, a Vector", stored["vector"], stored["vector"], runs)
    compare("Parquet, array<float>", stored["array"], vectors(stored["array"]), runs)
    compare("Parquet, columns", stored["columns"], assembled(stored["columns"]), runs)
    compare("Parquet, VectorAssembler", assembled(stored["columns"]), assembled(stored["columns"]), runs)
    spark.conf.set(SETTING, "spark")
    compare("Parquet, a Vector, not by Arrow", stored["vector"], stored["vector"], runs)
    spark.conf.unset(SETTING)
    cached = stored["vector"].cache()
    cached.count()
    compare("cached, a Vector", cached, cached, runs)
    cached.unpersist()


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=500_000)
    flags.add_argument("--features", type=int, default=80)
    flags.add_argument("--runs", type=int, default=3)
    args = flags.parse_args()
    spark = session(app_name="sparkopt bench")
    run(spark, args.rows, args.features, args.runs)
    spark.stop()


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Time sparkopt's logistic regression against pyspark.ml's: same data, same objective, same Spark session.

    spark-submit --properties-file conf/local.conf jobs/bench/linear.py --rows 1000000 --features 100

Two comparisons, each repeated in turn (ours, theirs, ours …) and given as the median of the ratios:

- stored: from data that is already where each library wants it. Theirs: a cached DataFrame of Vectors. Ours: blocks.
  Once more at a tolerance at which ours ends with an objective below theirs: at the same one it ends far below.
- parquet: from files to model, reading included.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.classification import LogisticRegression as SparkLogisticRegression
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkopt import BlockStore, Columns, Trainer, losses
from sparkopt.launch.session import session
from sparkopt.ml import LogisticRegression
from sparkopt.penalties import L2
from sparkopt.report import Receipt
from sparkopt.solver.progress import Stop
from sparkopt.training.selection import with_cheapest_optimizers
from sparkopt.validation import Interval

REG_PARAM, MAX_ITER = 1e-3, 100
TOL = 1e-6
NEAR = 1e-3
"""A tolerance at which sparkopt ends below the objective that pyspark.ml ends with at 1e-6."""


def generate(folder: Path, rows: int, features: int, files: int = 8) -> Path:
    """Write a data set once: correlated Gaussian features, labels from a noisy linear rule."""
    path = folder / f"logistic-{rows}x{features}"
    if (path / "_SUCCESS").exists():
        return path
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(features, features)) / np.sqrt(features) + np.eye(features)
    truth = rng.normal(size=features)
    for part in range(files):
        count = rows // files + (part < rows % files)
        X = (rng.normal(size=(count, features)) @ mixing).astype(np.float32)
        y = (X @ truth / np.sqrt(features) + rng.logistic(size=count) > 0).astype(np.float64)
        values = pa.ListArray.from_arrays(np.arange(0, (count + 1) * features, features, dtype=np.int32), X.ravel())
        pq.write_table(pa.table({"features": values, "label": y}), path / f"part-{part}.parquet", compression="zstd")
    (path / "_SUCCESS").touch()
    return path


def timed(action: Callable[[], float]) -> tuple[float, float]:
    """Return seconds, and the objective that the action reached."""
    begin = time.perf_counter()
    objective = action()
    return time.perf_counter() - begin, objective


def vectors(df: DataFrame) -> DataFrame:
    """Return the data as pyspark.ml wants it."""
    return df.select(array_to_vector(F.col("features").cast("array<double>")).alias("features"), "label")


def theirs(df: DataFrame) -> float:
    """Fit pyspark.ml's."""
    estimator = SparkLogisticRegression(regParam=REG_PARAM, tol=TOL, maxIter=MAX_ITER)
    return float(estimator.fit(df).summary.objectiveHistory[-1])


def ours(df: DataFrame) -> float:
    """Fit sparkopt's from a DataFrame."""
    model = LogisticRegression(regParam=REG_PARAM, tol=TOL, maxIter=MAX_ITER).fit(df)
    return model.summary.objectiveHistory[-1]


def compare(name: str, runs: int, mine: Callable[[], float], other: Callable[[], float]) -> str:
    """Run both in turn; return a row of the table."""
    pairs = []
    for _ in range(runs):
        (my_seconds, my_objective), (their_seconds, their_objective) = timed(mine), timed(other)
        pairs.append((my_seconds, their_seconds))
    ratios = [theirs / mine for mine, theirs in pairs]
    seconds = [statistics.median(column) for column in zip(*pairs, strict=True)]
    gap = (my_objective - their_objective) / abs(their_objective)
    return (
        f"| {name} | {seconds[0]:.2f} | {seconds[1]:.2f} | **{statistics.median(ratios):.1f}x** "
        f"({min(ratios):.1f}-{max(ratios):.1f}) | {my_objective:.8f} | {gap:+.1e} |"
    )


def share(receipt: Receipt) -> str:
    """Return what a step of the last stored fit was made of."""
    seconds = {**receipt.seconds, "schedule": receipt.seconds["schedule"] - receipt.startup}
    passes = seconds["compute"] + seconds["reduce"] + seconds["schedule"]
    parts = ", ".join(f"{name} {seconds[name] / passes:.0%}" for name in ("compute", "reduce", "schedule"))
    each, startup = 1000 * passes / receipt.passes, 1000 * receipt.startup
    return (
        f"One pass over the data: {each:.0f} ms, of which {parts} ({receipt.passes} passes; the tasks start in "
        f"{startup:.0f} ms before them, and {1000 * seconds['optimizer']:.0f} ms are outside of both)."
    )


def run(spark: SparkSession, rows: int, features: int, runs: int) -> None:
    """Print the table."""
    path = generate(Path(".cache"), rows, features)
    source = spark.read.parquet(str(path))
    cached = vectors(source).cache()
    cached.count()
    receipts: list[Receipt] = []
    with BlockStore.write(source, Columns("features", "label"), Interval(0, 1, whole=True)) as store:

        def from_store(tol: float) -> float:
            trainer = Trainer(losses.Logistic(), penalty=L2(REG_PARAM), stop=Stop(MAX_ITER, tol))
            fit = with_cheapest_optimizers(store, [trainer], [True])[0].fit(store)  # as LogisticRegression does
            receipts.append(fit.receipt)
            return fit.solution.objective

        from_store(TOL)  # the first fit starts Python workers; theirs warms up the JVM likewise
        theirs(cached)
        stored = [
            compare(name, runs, partial(from_store, tol), lambda: theirs(cached))
            for name, tol in (("stored", TOL), ("stored, to their objective", NEAR))
        ]
    cached.unpersist()
    cores = spark.sparkContext.defaultParallelism
    parquet = compare("parquet to model", runs, lambda: ours(source), lambda: theirs(vectors(source)))
    print(f"\n{rows:,} rows x {features} features, float32, {cores} cores, {runs} runs\n")
    print("| from | sparkopt s | pyspark.ml s | faster by (range) | objective | relative to theirs |")
    print("| --- | --- | --- | --- | --- | --- |")
    print("\n".join([*stored, parquet]), f"\n\n{share(receipts[-1])}")


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=1_000_000)
    flags.add_argument("--features", type=int, default=100)
    flags.add_argument("--runs", type=int, default=3)
    args = flags.parse_args()
    spark = session(app_name="sparkopt bench")
    run(spark, args.rows, args.features, args.runs)
    spark.stop()


if __name__ == "__main__":
    main()

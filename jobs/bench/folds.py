#!/usr/bin/env python
"""Time cross-validation whose folds and regParams train in shared passes against fold after fold, and pyspark.ml's.

    spark-submit --properties-file conf/local.conf jobs/bench/folds.py --rows 200000 --features 50 --models 8

Three searches over the same folds, from Parquet to the best model, each with two threads for what it runs in threads:

- sparkopt: ``sparkopt.ml.CrossValidator`` over sparkopt's LogisticRegression;
- fold by fold: pyspark.ml's CrossValidator over the same estimator, whose regParams share passes within a fold;
- pyspark.ml: its CrossValidator over its own LogisticRegression.

The first and the last take turns, and the second runs once: its metrics are compared with the first, as are the
coefficients of every fold's models.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from grid import furthest, grid_of
from linear import generate
from pyspark.ml import classification, tuning
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.functions import array_to_vector
from pyspark.sql import SparkSession

from sparkopt import ml
from sparkopt.launch.session import session
from sparkopt.ml import search as search_module

MAX_ITER, TOL = 200, 1e-7
"""The rows are float32: with a smaller tolerance, line searches work within the rounding of sums."""


class Clock:
    """Seconds within a method, over all calls from its first to its last."""

    def __init__(self, kind: Any, name: str) -> None:
        self.kind, self.name, self.times = kind, name, list[float]()

    def __enter__(self) -> Clock:
        self.plain = getattr(self.kind, self.name)

        def timed(*args: Any) -> Any:
            self.times.append(time.perf_counter())
            result = self.plain(*args)
            self.times.append(time.perf_counter())
            return result

        setattr(self.kind, self.name, timed)
        return self

    def __exit__(self, *error: object) -> None:
        setattr(self.kind, self.name, self.plain)

    @property
    def seconds(self) -> float:
        """From the first call's begin to the last one's end."""
        return max(self.times) - min(self.times)


def timed(search: Any, source: Any) -> tuple[float, Any]:
    """Return the seconds that a search takes, and what it found."""
    begin = time.perf_counter()
    found = search.fit(source)
    return time.perf_counter() - begin, found


def run(spark: SparkSession, rows: int, features: int, folds: int, models: int, threads: int, runs: int) -> None:
    """Print the table."""
    data = spark.read.parquet(str(generate(Path(".cache"), rows, features)))
    vectors = data.withColumn("features", array_to_vector("features"))
    ours = ml.LogisticRegression(maxIter=MAX_ITER, tol=TOL)
    theirs = classification.LogisticRegression(maxIter=MAX_ITER, tol=TOL)
    shared: dict[str, Any] = {
        "evaluator": BinaryClassificationEvaluator(),
        "numFolds": folds,
        "seed": 1,
        "parallelism": threads,
        "collectSubModels": True,
    }

    def search(kind: Any, estimator: Any) -> Any:
        maps = [{estimator.regParam: strength} for strength in grid_of(models)]
        return kind(estimator=estimator, estimatorParamMaps=maps, **shared)

    warm = vectors.limit(2000).repartition(2)
    for kind, estimator in ((ml.CrossValidator, ours), (tuning.CrossValidator, theirs)):
        search(kind, estimator).setNumFolds(2).fit(warm)  # starts Python workers, compiles
    turns = []
    for _ in range(runs):
        with Clock(search_module, "held_out_metrics") as clock:
            mine_seconds, together = timed(search(ml.CrossValidator, ours), data)
        peer_seconds, peer = timed(search(tuning.CrossValidator, theirs), vectors)
        turns.append((mine_seconds, peer_seconds))
    fold_seconds, separate = timed(search(tuning.CrossValidator, ours), data)
    seconds, peer_seconds = (statistics.median(column) for column in zip(*turns, strict=True))
    ratios = [theirs_ / mine_ for mine_, theirs_ in turns]
    receipt = together.subModels[0][0].summary.receipt
    print(f"\n{rows:,} rows x {features} features, {folds} folds x {models} regParams, {threads} threads, ", end="")
    print(f"engine {receipt.engine}\n")
    print("| search | seconds | sparkopt's CrossValidator is faster by | areaUnderROC |\n| --- | --- | --- | --- |")
    for name, took, found in (
        ("sparkopt's CrossValidator", seconds, together),
        ("pyspark.ml's, over sparkopt's estimator", fold_seconds, separate),
        ("pyspark.ml's, over its own", peer_seconds, peer),
    ):
        ratio = "" if found is together else f"**{took / seconds:.1f}x**"
        if found is peer:
            ratio = f"**{statistics.median(ratios):.1f}x** ({min(ratios):.1f}-{max(ratios):.1f})"
        print(f"| {name} | {took:.1f} | {ratio} | {max(found.avgMetrics):.6f} |")
    spent = ", ".join(f"{name} {value:.1f}" for name, value in receipt.seconds.items())
    print(f"\nSeconds of sparkopt's search: {spent} for the {receipt.models} joint models; ", end="")
    print(f"{clock.seconds:.1f} for {folds * models} evaluations.")
    noise = [max(column) / min(column) for column in zip(*turns, strict=True)]
    spread = f"{noise[0]:.2f} of sparkopt's, {noise[1]:.2f} of pyspark.ml's"
    print(f"Medians of {runs} turns; the longest by the shortest: {spread}.")
    pairs = [fold for one in (together, separate) for fold in one.subModels]
    mine, alone = ([model.arrays[0] for fold in half for model in fold] for half in (pairs[:folds], pairs[folds:]))
    gap = np.abs(np.subtract(together.avgMetrics, separate.avgMetrics)).max()
    apart = np.abs(np.subtract(together.avgMetrics, peer.avgMetrics)).max()
    print(
        f"Largest difference from fold by fold: of a model {furthest(mine, alone):.1e}, of a metric {gap:.1e}; ",
        end="",
    )
    print(f"of a metric from pyspark.ml's: {apart:.1e}.")
    passes = [fold[0].summary.receipt.passes for fold in separate.subModels]
    print(f"Passes: {receipt.passes} for all folds, {' + '.join(map(str, passes))} for fold by fold.")


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=200_000)
    flags.add_argument("--features", type=int, default=50)
    flags.add_argument("--folds", type=int, default=3)
    flags.add_argument("--models", type=int, default=8)
    flags.add_argument("--threads", type=int, default=2)
    flags.add_argument("--runs", type=int, default=3)
    args = flags.parse_args()
    spark = session(app_name="sparkopt bench")
    run(spark, args.rows, args.features, args.folds, args.models, args.threads, args.runs)
    spark.stop()


if __name__ == "__main__":
    main()

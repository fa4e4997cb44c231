#!/usr/bin/env python
"""Time a grid of regParams that is trained in shared passes against one fit, and against a fit for each.

    spark-submit --properties-file conf/local.conf jobs/bench/grid.py --rows 200000 --features 50 --models 16

Two comparisons, each repeated in turn (one fit, the grid, one fit …) and given as medians of ratios:

- parquet: ``fit`` and ``fitMultiple`` of an estimator, from files to models;
- stored: passes only, on rows that are already stored as blocks.

Every model of the grid is compared with its separate fit: the largest difference of a coefficient, relative to the
largest coefficient.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from linear import generate
from pyspark.sql import SparkSession

from sparkopt import BlockStore, Columns, Trainer, losses
from sparkopt.launch.session import session
from sparkopt.ml import LogisticRegression
from sparkopt.penalties import L2
from sparkopt.solver.progress import Stop
from sparkopt.training.trainer import fit_many

MAX_ITER, TOL = 200, 1e-9


def grid_of(models: int) -> list[float]:
    """Return strengths of the penalty from strong to weak."""
    return np.logspace(0, -4, models).tolist()


def ratios(runs: int, single: Callable[[], Any], grid: Callable[[], Any]) -> tuple[float, float, list[float]]:
    """Return median seconds of one fit and of the grid, and each run's ratio."""
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        single()
        middle = time.perf_counter()
        grid()
        seconds.append((middle - begin, time.perf_counter() - middle))
    one, all_ = (statistics.median(column) for column in zip(*seconds, strict=True))
    return one, all_, [grid / single for single, grid in seconds]


def furthest(together: Sequence[np.ndarray], alone: Sequence[np.ndarray]) -> float:
    """Return the largest difference of a coefficient, relative to the largest coefficient of its model."""
    pairs = zip(together, alone, strict=True)
    return max(float(np.abs(one - other).max() / np.abs(other).max()) for one, other in pairs)


def row(name: str, models: int, one: float, all_: float, found: list[float]) -> str:
    """Return a row of the table."""
    ratio = statistics.median(found)
    spread = f"{min(found):.1f}-{max(found):.1f}"
    return f"| {name} | {one:.2f} | {all_:.2f} | **{ratio:.1f}x** ({spread}) | {models / ratio:.1f}x |"


def run(spark: SparkSession, rows: int, features: int, models: int, runs: int) -> None:
    """Print the table."""
    source = spark.read.parquet(str(generate(Path(".cache"), rows, features)))
    strengths = grid_of(models)
    typical = strengths[models // 2]
    base = LogisticRegression(maxIter=MAX_ITER, tol=TOL)
    maps = [{base.regParam: strength} for strength in strengths]
    base.fit(source, maps[models // 2])  # starts Python workers
    parquet = ratios(runs, lambda: base.fit(source, maps[models // 2]), lambda: base.fit(source, maps))
    trainer = Trainer(losses.Logistic(), stop=Stop(MAX_ITER, TOL), progress=False)
    trainers = [replace(trainer, penalty=L2(strength)) for strength in strengths]
    with BlockStore.write(source, Columns("features", "label"), trainer.loss.targets) as store:
        fits = fit_many(store, trainers)
        stored = ratios(
            runs, lambda: replace(trainer, penalty=L2(typical)).fit(store), lambda: fit_many(store, trainers)
        )
        begin = time.perf_counter()
        alone = [one.fit(store) for one in trainers]
        separate = time.perf_counter() - begin
    gap = furthest([fit.coefficients for fit in fits], [fit.coefficients for fit in alone])
    receipt = fits[0].receipt
    print(f"\n{rows:,} rows x {features} features, {models} models, engine {receipt.engine}, {runs} runs\n")
    print("| from | one fit s | grid s | grid / one fit (range) | cheaper than that many fits by |")
    print("| --- | --- | --- | --- | --- |")
    print(f"{row('Parquet to models', models, *parquet)}\n{row('stored', models, *stored)}")
    print(f"\nSeparate fits on the same store took {separate:.2f} s, the grid {stored[1]:.2f} s: ", end="")
    print(f"{separate / stored[1]:.1f}x. Largest difference of a model from its separate fit: {gap:.1e}.")
    passes = [fit.receipt.passes for fit in alone]
    print(f"Passes: {receipt.passes} for the grid, {min(passes)} to {max(passes)} for separate fits.")


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=200_000)
    flags.add_argument("--features", type=int, default=50)
    flags.add_argument("--models", type=int, default=16)
    flags.add_argument("--runs", type=int, default=3)
    args = flags.parse_args()
    spark = session(app_name="sparkopt bench")
    run(spark, args.rows, args.features, args.models, args.runs)
    spark.stop()


if __name__ == "__main__":
    main()

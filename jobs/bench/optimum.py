#!/usr/bin/env python
"""Measure how close to the optimum fits end at their defaults, ours and pyspark.ml's, in how many passes and seconds.

    spark-submit --properties-file conf/local.conf jobs/bench/optimum.py --rows 500000 --features 100

The optimum is the least objective that either reaches with a tolerance of 0 in a thousand steps. A gap is the
distance of the objective from it, relatively. `--output` names a page with the gap against passes and seconds, drawn.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.ml import classification, regression
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import DenseMatrix, SparseVector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy import sparse
from sklearn import datasets

from sparkopt.launch.session import session
from sparkopt.ml import LinearRegression, LogisticRegression
from sparkopt.report.facts import Facts, Lines, Series
from sparkopt.report.page import write_report

ELASTIC = {"regParam": 0.002, "elasticNetParam": 0.5}
PENALTIES: dict[str, dict[str, Any]] = {
    "none": {},
    "L2": {"regParam": 0.01},
    "L1": {"regParam": 0.01, "elasticNetParam": 1.0},
    "elastic net": ELASTIC,
    "lower 0": {"regParam": 0.01, "lowerBoundsOnCoefficients": 0.0},
    "±1": {"regParam": 0.01, "lowerBoundsOnCoefficients": -1.0, "upperBoundsOnCoefficients": 1.0},
}
LEAST = 1e-16
"""Gap that is drawn for one of zero."""


@dataclass(frozen=True)
class Outcome:
    """What one library's fit reached.

    Attributes
    ----------
    objectives : list of float
        After each step.
    passes : int
        Passes over the data; of pyspark.ml its steps, each of which takes at least one.
    seconds : float
        Median of the runs.
    optimizer : str
        The method.
    """

    objectives: list[float]
    passes: int
    seconds: float
    optimizer: str


def dense(spark: SparkSession, X: np.ndarray, y: np.ndarray) -> DataFrame:
    """Return rows in two partitions, cached."""
    frame = spark.createDataFrame([(x.tolist(), float(label)) for x, label in zip(X, y, strict=True)], ["x", "label"])
    return cached(frame.select(array_to_vector("x").alias("features"), "label").repartition(2))


def sparse_rows(spark: SparkSession, X: sparse.csr_array, y: np.ndarray) -> DataFrame:
    """Return rows of sparse Vectors in two partitions, cached."""
    cuts = zip(X.indptr[:-1], X.indptr[1:], y.tolist(), strict=True)
    rows = [(SparseVector(X.shape[1], X.indices[a:b], X.data[a:b]), label) for a, b, label in cuts]
    return cached(spark.createDataFrame(rows, ["features", "label"]).repartition(2))


def cached(frame: DataFrame) -> DataFrame:
    """Return the frame, in memory."""
    frame = frame.cache()
    frame.count()
    return frame


def small(name: str) -> Callable[[SparkSession], DataFrame]:
    """Return a maker of one of scikit-learn's data sets."""
    return lambda spark: dense(spark, *getattr(datasets, f"load_{name}")(return_X_y=True))


def a9a(spark: SparkSession, path: Path) -> DataFrame:
    """Return LIBSVM's a9a: 123 binary features."""
    text = gzip.decompress(path.read_bytes()).decode().splitlines()
    parts = [line.split() for line in text]
    columns = [np.array([int(pair.split(":")[0]) - 1 for pair in part[1:]]) for part in parts]
    starts = np.cumsum([0, *map(len, columns)])
    X = sparse.csr_array((np.ones(starts[-1]), np.concatenate(columns), starts), shape=(len(parts), 123))
    return sparse_rows(spark, X, np.array([float(part[0]) > 0 for part in parts], float))


def binary(spark: SparkSession) -> DataFrame:
    """Return 50,000 sparse rows of 300 binary features, most of them rare."""
    rng = np.random.default_rng(0)
    X = sparse.csr_array((rng.random((50_000, 300)) < 0.3 / np.arange(1, 301) ** 0.7).astype(float))
    return sparse_rows(spark, X, (X @ rng.normal(size=300) + rng.logistic(size=50_000) > 0).astype(float))


def words(spark: SparkSession) -> DataFrame:
    """Return 20,000 sparse rows of 5,000 features, as rare as words: too wide for a Hessian."""
    rng = np.random.default_rng(1)
    often = 0.5 / np.arange(1, 5001) ** 0.9
    columns = [np.flatnonzero(rng.random(5000) < often) for _ in range(20_000)]
    starts = np.cumsum([0, *map(len, columns)])
    counts = 1.0 + rng.poisson(0.3, starts[-1])
    X = sparse.csr_array((counts, np.concatenate(columns), starts), shape=(20_000, 5000))
    truth = rng.normal(size=5000) * (rng.random(5000) < 0.2)
    return sparse_rows(spark, X, (X @ truth + rng.logistic(size=20_000) > 0).astype(float))


def generated(spark: SparkSession, rows: int, features: int) -> DataFrame:
    """Return correlated features and two classes, generated in the executors."""
    columns = [F.randn(seed=j) for j in range(features)]
    base = spark.range(0, rows, numPartitions=2).select(F.array(*columns).alias("x"), F.rand(seed=-1).alias("u"))
    margin = F.aggregate(F.transform("x", lambda v, i: v * F.sin(i + 1)), F.lit(0.0), lambda a, v: a + v)
    label = (margin / float(np.sqrt(features)) + F.log(F.col("u") / (1 - F.col("u"))) > 0).cast("double")
    mixed = F.transform("x", lambda v, i: v + 0.9 * F.col("x")[0] * F.cos(i))
    return cached(base.select(array_to_vector(mixed).alias("features"), label.alias("label")))


def options_of(penalty: str, frame: DataFrame) -> dict[str, Any]:
    """Return the parameters of a penalty, bounds as matrices."""
    classes = int(frame.agg(F.max("label")).first()[0]) + 1
    shape = (1 if classes == 2 else classes, len(frame.first()["features"]))
    found = {}
    for name, value in PENALTIES[penalty].items():
        is_bound = name.endswith("OnCoefficients")
        found[name] = DenseMatrix(*shape, [value] * (shape[0] * shape[1])) if is_bound else value
    return found


def fitted(estimator: Any, frame: DataFrame, repeats: int) -> Outcome:
    """Fit, several times."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        model = estimator.fit(frame)
        times.append(time.perf_counter() - begin)
    summary = model.summary
    receipt = getattr(summary, "receipt", None)
    objectives = list(summary.objectiveHistory)
    passes = receipt.passes if receipt else summary.totalIterations
    return Outcome(objectives, passes, statistics.median(times), receipt.optimizer if receipt else "")


def compare(frame: DataFrame, penalty: str, is_regression: bool, repeats: int) -> tuple[Outcome, Outcome, float]:
    """Return our outcome, pyspark.ml's, and the least objective known."""
    options = options_of(penalty, frame)
    ours, theirs = LogisticRegression, classification.LogisticRegression
    if is_regression:
        ours, theirs, options = LinearRegression, regression.LinearRegression, {**options}
    solver = {"solver": "l-bfgs"} if is_regression else {}
    mine = fitted(ours(**options), frame, repeats)
    other = fitted(theirs(**options, **solver), frame, repeats)
    exact = {"tol": 0.0, "maxIter": 1000}
    best = [fitted(ours(**options, **exact), frame, 1), fitted(theirs(**options, **solver, **exact), frame, 1)]
    least = min(min(outcome.objectives) for outcome in (mine, other, *best))
    return mine, other, least


def chart(title: str, mine: Outcome, other: Outcome, least: float) -> Iterator[Lines]:
    """Yield the gap against passes and against seconds."""
    for label in ("passes", "seconds"):
        series = []
        for name, outcome in (("pyspark.ml", other), ("sparkopt", mine)):
            gaps = [max((value - least) / abs(least), LEAST) for value in outcome.objectives]
            end = outcome.passes if label == "passes" else outcome.seconds
            series.append(Series.of(name, np.linspace(0, end, len(gaps)).tolist(), gaps, dots=True))
        yield Lines(f"{title}: gap", label, "number", tuple(series))


def run(spark: SparkSession, args: argparse.Namespace) -> None:
    """Print the table, and write the page."""
    data: dict[str, Callable[[SparkSession], DataFrame]] = {
        "breast cancer": small("breast_cancer"),
        "iris": small("iris"),
        "digits": small("digits"),
        "diabetes": small("diabetes"),
        "50,000 x 300 binary": binary,
        "20,000 x 5,000 sparse": words,
        f"{args.rows:,} x {args.features}": lambda spark: generated(spark, args.rows, args.features),
    }
    if args.a9a.exists():
        data["a9a"] = lambda spark: a9a(spark, args.a9a)
    print("| data | penalty | optimizer | gap | passes | s | pyspark.ml's gap | steps | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    charts: list[Lines] = []
    for name, make in data.items():
        if args.only not in name:
            continue
        frame, is_regression = make(spark), name == "diabetes"
        for penalty, options in PENALTIES.items():
            is_bounded = any(option.endswith("OnCoefficients") for option in options)
            if (is_regression and is_bounded) or (penalty == "none" and name in ("breast cancer", "iris", "digits")):
                continue  # no bounds in pyspark.ml; separable classes have no optimum
            mine, other, least = compare(frame, penalty, is_regression, args.repeats)
            gaps = [(outcome.objectives[-1] - least) / abs(least) for outcome in (mine, other)]
            print(
                f"| {name} | {penalty} | {mine.optimizer} | {gaps[0]:.0e} | {mine.passes} | {mine.seconds:.2f} | "
                f"{gaps[1]:.0e} | {other.passes} | {other.seconds:.2f} |",
                flush=True,
            )
            charts += chart(f"{name}, {penalty}", mine, other, least)
        frame.unpersist()
    subtitle = "At the defaults of both libraries; the optimum is the least objective that either can reach."
    write_report(args.output, Facts("Distance from the optimum", subtitle, (), tuple(charts)), "")
    print(f"\n{args.output}")


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=500_000)
    flags.add_argument("--features", type=int, default=100)
    flags.add_argument("--repeats", type=int, default=3)
    flags.add_argument("--only", default="", help="data with this in its name")
    flags.add_argument("--a9a", type=Path, default=Path(".cache/a9a.gz"), help="LIBSVM's file, left out if absent")
    flags.add_argument("--output", type=Path, default=Path("optimum.html"), help="page with plots")
    args = flags.parse_args()
    spark = session(app_name="sparkopt bench")
    run(spark, args)
    spark.stop()


if __name__ == "__main__":
    main()

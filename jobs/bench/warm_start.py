#!/usr/bin/env python
"""Count the steps from yesterday's model against those from zero, on data with 1% new rows.

    spark-submit --properties-file conf/local.conf jobs/bench/warm_start.py --rows 100000 --features 30

Yesterday's rows come from one rule, the new ones from a rule that has drifted by a tenth. Each estimator is trained
on yesterday's rows, and then twice on all rows, to the same tolerance: from zero, and from yesterday's model. The gap
is the objective that the second one ends at above the first one's, relative to it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from sparkopt.launch.session import session
from sparkopt.ml import (
    GeneralizedLinearRegression,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    QuantileRegression,
)

TOL, MAX_ITER, SHARE = 1e-7, 2000, 0.01
ESTIMATORS: dict[str, tuple[Any, dict[str, Any]]] = {
    "LinearRegression, lbfgs": (LinearRegression, {"labelCol": "amount"}),
    "LinearRegression, lasso, fista": (LinearRegression, {"labelCol": "amount", "elasticNetParam": 1.0}),
    "LinearRegression, huber, lbfgs": (LinearRegression, {"labelCol": "amount", "loss": "huber"}),
    "LogisticRegression, lbfgs": (LogisticRegression, {}),
    "LogisticRegression, newton-cg": (LogisticRegression, {"optimizer": "newton-cg"}),
    "LogisticRegression, owlqn": (LogisticRegression, {"optimizer": "owlqn", "elasticNetParam": 0.5}),
    "LogisticRegression, gd": (LogisticRegression, {"optimizer": "gd"}),
    "LogisticRegression, nesterov": (LogisticRegression, {"optimizer": "nesterov"}),
    "LogisticRegression, three classes, lbfgs": (LogisticRegression, {"labelCol": "kind"}),
    "GeneralizedLinearRegression, poisson": (GeneralizedLinearRegression, {"labelCol": "n", "family": "poisson"}),
    "LinearSVC, squared hinge, lbfgs": (LinearSVC, {"loss": "squaredHinge"}),
    "LinearSVC, hinge, lbfgs": (LinearSVC, {"maxIter": MAX_ITER}),
    "QuantileRegression 0.9, lbfgs": (QuantileRegression, {"labelCol": "amount", "quantile": 0.9}),
}


def generate(folder: Path, rows: int, features: int) -> Path:
    """Write a data set once: correlated Gaussian features, and a target for each kind of estimator."""
    path = folder / f"drift-{rows}x{features}.parquet"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(features, features)) / np.sqrt(features) + np.eye(features)
    truth, drift = rng.normal(size=(2, features, 3)) / np.sqrt(features)
    new = np.arange(rows) >= rows * (1 - SHARE)
    X = rng.normal(size=(rows, features)) @ mixing
    raw = X @ truth + 0.1 * new[:, None] * (X @ drift)
    columns = {
        "features": pa.FixedSizeListArray.from_arrays(X.ravel(), features).cast(pa.list_(pa.float64())),
        "label": (raw[:, 0] + rng.logistic(size=rows) > 0).astype(float),
        "amount": raw[:, 1] + rng.standard_t(3, size=rows),
        "n": rng.poisson(np.exp(np.clip(0.3 * raw[:, 2], -3, 3))).astype(float),
        "kind": (raw + rng.gumbel(size=raw.shape)).argmax(axis=1).astype(float),
        "new": new,
    }
    pq.write_table(pa.table(columns), path, row_group_size=rows // 4)
    return path


def row(name: str, kind: Any, options: dict[str, Any], yesterday: DataFrame, today: DataFrame) -> str:
    """Return a row of the table."""
    estimator = kind(**{"regParam": 1e-3, "tol": TOL, "maxIter": MAX_ITER, **options})
    start = estimator.fit(yesterday)
    cold, warm = (estimator.copy().setInitialModel(model).fit(today).summary for model in (None, start))
    steps = [summary.totalIterations for summary in (cold, warm)]
    passes = [summary.receipt.passes for summary in (cold, warm)]
    objectives = [summary.objectiveHistory[-1] for summary in (cold, warm)]
    gap = (objectives[1] - objectives[0]) / abs(objectives[0])
    return (
        f"| {name} | {steps[0]} | {steps[1]} | {steps[1] / steps[0]:.2f} | {passes[0]} | {passes[1]} | {gap:+.0e} |"
    )


def run(spark: SparkSession, rows: int, features: int, names: str) -> None:
    """Print the table."""
    today = spark.read.parquet(str(generate(Path(".cache"), rows, features))).cache()
    yesterday = today.where("not new")
    print(f"\n{rows:,} rows x {features} features, {SHARE:.0%} of them new, tolerance {TOL:g}\n")
    print("| estimator | steps from zero | from yesterday | ratio | passes from zero | from yesterday | gap |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, (kind, options) in ESTIMATORS.items():
        if names in name:
            print(row(name, kind, options, yesterday, today), flush=True)


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=100_000)
    flags.add_argument("--features", type=int, default=30)
    flags.add_argument("--only", default="", help="estimators with this in their name")
    args = flags.parse_args()
    spark = session(app_name="sparkopt bench")
    run(spark, args.rows, args.features, args.only)
    spark.stop()


if __name__ == "__main__":
    main()

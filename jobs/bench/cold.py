#!/usr/bin/env python
"""Time whole processes, from Parquet to a saved model: sparkopt, pyspark.ml, scikit-learn, an empty application.

    python jobs/bench/cold.py --rows 500000 --features 80

Spark's processes are started by ``spark-submit``. The empty application counts the rows: what is above it is the fit.
The spread of its runs is the machine's noise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KINDS = ("vector", "array", "columns")
OPTIONS: dict[str, Any] = {"regParam": 1e-3}


def generated(path: str, out: str) -> None:
    """Write the tables, as `make bench-ingest` does."""
    from ingest import generate

    from sparkopt.launch.session import session

    rows, features = map(int, out.split("x"))
    generate(session(), Path(path), rows, features)


def empty(path: str, out: str) -> None:
    """Count the rows."""
    from pyspark.sql import SparkSession

    print(SparkSession.builder.getOrCreate().read.parquet(path).count())


def sparkopt(path: str, out: str) -> None:
    """Fit and save sparkopt's."""
    from sparkopt.launch.session import session
    from sparkopt.ml import LogisticRegression

    df = session().read.parquet(path)
    columns = {} if "features" in df.columns else {"featuresCols": [name for name in df.columns if name != "label"]}
    LogisticRegression(**OPTIONS, **columns).fit(df).save(out)


def pyspark(path: str, out: str) -> None:
    """Fit and save pyspark.ml's."""
    from ingest import assembled
    from linear import vectors
    from pyspark.ml.classification import LogisticRegression
    from pyspark.sql import SparkSession

    df = SparkSession.builder.getOrCreate().read.parquet(path)
    if "features" not in df.columns:
        df = assembled(df)
    elif df.schema["features"].dataType.typeName() == "array":
        df = vectors(df)
    LogisticRegression(**OPTIONS).fit(df).save(out)


def sklearn(path: str, out: str) -> None:
    """Fit and save scikit-learn's, from the same files by pyarrow."""
    import joblib
    import numpy as np
    import pyarrow.parquet as pq
    from sklearn.linear_model import LogisticRegression

    table = pq.read_table(path)
    y = table.column("label").to_numpy()
    if "features" not in table.column_names:
        names = [name for name in table.column_names if name != "label"]
        X = np.column_stack([table.column(name).to_numpy() for name in names])
    else:
        features = table.column("features").combine_chunks()
        values = features.field("values") if hasattr(features, "field") else features
        X = values.flatten().to_numpy().reshape(len(y), -1)
    X = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)  # as the others penalise it
    model = LogisticRegression(C=1 / (OPTIONS["regParam"] * len(y)), tol=1e-6).fit(X, y)
    os.makedirs(out)
    joblib.dump(model, f"{out}/model")


CHILDREN: dict[str, Callable[[str, str], None]] = {
    "generated": generated,
    "empty": empty,
    "sparkopt": sparkopt,
    "pyspark.ml": pyspark,
    "scikit-learn": sklearn,
}


def measured(child: str, path: Path, out: str) -> float:
    """Run a child in a process of its own; return its seconds."""
    submit = ["spark-submit", "--properties-file", str(ROOT / "conf/local.conf")]
    by = [sys.executable] if child == "scikit-learn" else submit
    begin = time.perf_counter()
    command = [*by, __file__, "--child", child, str(path), out]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # this file
    return time.perf_counter() - begin


def compare(kind: str, path: Path, runs: int, folder: Path) -> None:
    """Print a row of the table."""
    children = ("empty", "sparkopt", "pyspark.ml", "scikit-learn")
    times: dict[str, list[float]] = {child: [] for child in children}
    for number in range(runs):
        for child in children:
            times[child].append(measured(child, path, str(folder / f"{kind}-{child}-{number}")))
    medians = {child: statistics.median(found) for child, found in times.items()}
    ratio = statistics.median(t / o for t, o in zip(times["pyspark.ml"], times["sparkopt"], strict=True))
    above = [medians[child] - medians["empty"] for child in ("sparkopt", "pyspark.ml")]
    noise = (max(times["empty"]) - min(times["empty"])) / medians["empty"]
    shown = " | ".join(f"{medians[child]:.1f}" for child in children)
    print(f"| {kind} | {shown} | **{ratio:.2f}x** | {above[0]:.1f} | {above[1]:.1f} | {noise:.0%} |", flush=True)


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=500_000)
    flags.add_argument("--features", type=int, default=80)
    flags.add_argument("--runs", type=int, default=3)
    flags.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=["vector"], help="how the table holds the features"
    )
    flags.add_argument("--child", nargs=3, metavar=("WHAT", "PATH", "OUTPUT"), help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.child:
        what, path, out = args.child
        CHILDREN[what](path, out)
        return
    cache, size = ROOT / ".cache", f"{args.rows}x{args.features}"
    measured("generated", cache, size)
    folder = Path(tempfile.mkdtemp())
    print(f"\n{args.rows:,} rows x {args.features} features, {os.cpu_count()} cores, {args.runs} runs in turn\n")
    print(
        "| features | empty s | sparkopt s | pyspark.ml s | scikit-learn s | faster | above empty | theirs | noise |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind in args.kinds:
        compare(kind, cache / f"ingest-{size}" / kind, args.runs, folder)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()

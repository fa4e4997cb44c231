#!/usr/bin/env python
"""Time whole processes, from Parquet to a saved model: sparkopt, pyspark.ml, scikit-learn, an empty application.

    python jobs/bench/cold.py --rows 500000 --features 80

Spark's processes are started by ``spark-submit``. The empty application counts the rows: what is above it is the fit.
The spread of its runs is the machine's noise. Python keeps its bytecode, as it does where nobody forbids it.

A second table has what an application pays by phase, in runs of their own: each phase is a step there, so the sum is
above the first table's. "by python" are processes without ``spark-submit``, whose session starts the JVM: with the
archive of its classes, and without.
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


PHASE, BEGIN = "PHASE", "SPARKOPT_BENCH_BEGIN"


class Phases:
    """Prints how long each phase took, the first since the parent process began this one."""

    def __init__(self) -> None:
        self._last = float(os.environ[BEGIN])

    def __call__(self, name: str) -> None:
        now = time.time()
        print(PHASE, f"{now - self._last:.3f}", name, flush=True)
        self._last = now


def _same(number: int) -> int:
    return number


def sparkopt_phases(path: str, out: str) -> None:
    """Fit and save sparkopt's, phase by phase."""
    done = Phases()
    done(START)
    from sparkopt.launch.session import session
    from sparkopt.ml import LogisticRegression

    done("imports")
    spark = session(None if SUBMITTED in os.environ else ROOT / "conf/local.conf")
    done("session")
    df = spark.read.parquet(path)
    df.count()
    done("first job")
    spark.sparkContext.range(0, 2, 1, 2).map(_same).collect()
    done("first Python task")
    columns = {} if "features" in df.columns else {"featuresCols": [name for name in df.columns if name != "label"]}
    model = LogisticRegression(**OPTIONS, **columns).fit(df)
    done("fit")
    model.save(out)
    done("save")


def pyspark_phases(path: str, out: str) -> None:
    """Fit and save pyspark.ml's, phase by phase."""
    done = Phases()
    done(START)
    from ingest import assembled
    from linear import vectors
    from pyspark.ml.classification import LogisticRegression
    from pyspark.sql import SparkSession

    done("imports")
    spark = SparkSession.builder.getOrCreate()
    done("session")
    df = spark.read.parquet(path)
    df.count()
    done("first job")
    if "features" not in df.columns:
        df = assembled(df)
    elif df.schema["features"].dataType.typeName() == "array":
        df = vectors(df)
    model = LogisticRegression(**OPTIONS).fit(df)
    done("fit")
    model.save(out)
    done("save")


START, SUBMITTED = "start of the JVM, or of Python", "PYSPARK_GATEWAY_PORT"
NAMES = (START, "imports", "session", "first job", "first Python task", "fit", "save", "end")
CHILDREN: dict[str, Callable[[str, str], None]] = {
    "generated": generated,
    "empty": empty,
    "sparkopt": sparkopt,
    "pyspark.ml": pyspark,
    "scikit-learn": sklearn,
    "sparkopt, phases": sparkopt_phases,
    "pyspark.ml, phases": pyspark_phases,
}
SUBMIT = ("spark-submit", "--properties-file", str(ROOT / "conf/local.conf"))


def measured(child: str, path: Path, out: str) -> float:
    """Run a child in a process of its own; return its seconds."""
    by = [sys.executable] if child == "scikit-learn" else SUBMIT
    begin = time.perf_counter()
    command = [*by, __file__, "--child", child, str(path), out]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # this file
    return time.perf_counter() - begin


def phases(child: str, by: tuple[str, ...], path: Path, out: str, **environment: str) -> dict[str, float]:
    """Run a child that prints its phases; return their seconds."""
    begin = time.time()
    command = [*by, __file__, "--child", child, str(path), out]
    known = {**os.environ, BEGIN: str(begin), **environment}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=known)  # noqa: S603  # this file
    whole = time.time() - begin
    lines = [line.split(" ", 2) for line in done.stdout.splitlines() if line.startswith(f"{PHASE} ")]
    found = {name: float(seconds) for _, seconds, name in lines}
    return {**found, "end": whole - sum(found.values()), "whole": whole}


def compare_phases(kind: str, path: Path, runs: int, folder: Path) -> None:
    """Print a table of phases: medians of each."""
    python, off = (sys.executable,), {"SPARKOPT_CLASS_ARCHIVE": "off"}
    sides: dict[str, tuple[str, tuple[str, ...], dict[str, str]]] = {
        "sparkopt by spark-submit": ("sparkopt, phases", SUBMIT, {}),
        "pyspark.ml by spark-submit": ("pyspark.ml, phases", SUBMIT, {}),
        "sparkopt by python": ("sparkopt, phases", python, {}),
        "sparkopt by python, no class archive": ("sparkopt, phases", python, off),
    }
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number in range(runs):
        for place, (side, (child, by, more)) in enumerate(sides.items()):
            found[side].append(phases(child, by, path, str(folder / f"{kind}-phases-{place}-{number}"), **more))
    print(f"\n{kind}: seconds by phase\n")
    print(f"| phase | {' | '.join(sides)} |")
    print(f"| --- |{' --- |' * len(sides)}")
    for name in (*NAMES, "whole"):
        medians = [statistics.median(run.get(name, 0.0) for run in found[side]) for side in sides]
        print(f"| {name} | {' | '.join(f'{seconds:.2f}' for seconds in medians)} |", flush=True)


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
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # some containers set it: each start would compile all modules
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
    for kind in args.kinds:
        compare_phases(kind, cache / f"ingest-{size}" / kind, args.runs, folder)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()

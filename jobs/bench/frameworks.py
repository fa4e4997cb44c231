#!/usr/bin/env python
"""Time a logistic regression from a frame of Parquet files to the model: on Dask, Ray, Spark, and here.

    make test-dask && .venv-dask/bin/python jobs/bench/frameworks.py --sides sparkopt dask scikit-learn dask-ml

Each side runs in a process of its own, with two workers of one core each; their start and imports are left out. The
rows are read from Parquet within the time. ``dask-ml`` is its LogisticRegression by L-BFGS, where it is installed.
The objective of each is printed above the least one, relatively. The last table is what a pass costs that computes
nothing. Sides whose framework is not installed are left out. Runs are in turn; medians are compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]  # its sparse.py
STRENGTH = 1e-4
EMPTY_PASSES = 20


def write_rows(folder: Path, rows: int, features: int, parts: int = 8) -> None:
    """Write float32 columns and a label, in several files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    truth = rng.normal(size=features) / np.sqrt(features)
    folder.mkdir(parents=True)
    for part in range(parts):
        X = rng.normal(size=(rows // parts, features)).astype(np.float32)
        y = (X @ truth + rng.logistic(size=len(X)) > 0).astype(np.float64)
        columns = {f"x{j}": X[:, j] for j in range(features)}
        pq.write_table(pa.table({**columns, "label": y}), folder / f"part-{part}.parquet", row_group_size=len(X))


def names(folder: Path) -> list[str]:
    """Return the features."""
    import pyarrow.parquet as pq

    return [name for name in pq.read_schema(next(folder.glob("*.parquet"))).names if name != "label"]


def estimator(folder: Path) -> Any:
    """Return sparkopt's, on features as they are: the others do not scale them."""
    from sparkopt.ml import LogisticRegression

    return LogisticRegression(featuresCols=names(folder), regParam=STRENGTH, standardization=False)


def fitted(folder: Path, frame: Callable[[], Any], on_tables: bool = True) -> tuple[float, Any, float]:
    """Return seconds, coefficients with the intercept, and the seconds of a pass that computes nothing."""
    from sparkopt import Table

    one, begin = estimator(folder), time.perf_counter()
    model = one.fit(frame())
    seconds = time.perf_counter() - begin
    cluster = Table.of(frame()).cluster if on_tables else None
    empty = 0.0
    if cluster is not None:
        keys, laps = list(range(8)), []
        for _ in range(EMPTY_PASSES):
            begin = time.perf_counter()
            cluster.run(abs, keys, on=keys)
            laps.append(time.perf_counter() - begin)
        empty = statistics.median(laps)
    return seconds, [*model.coefficients.toArray(), model.intercept], empty


@contextmanager
def dask_client() -> Iterator[None]:
    """Start Dask's workers."""
    from distributed import Client

    with Client(n_workers=2, threads_per_worker=1, dashboard_address=":0") as client:
        client.wait_for_workers(2)
        client.run(_imported)
        yield


def _imported() -> None:
    import sparkopt.blocks.machine
    import sparkopt.ml  # noqa: F401


def on_dask(folder: Path) -> tuple[float, Any, float]:
    """Fit by sparkopt on Dask."""
    import dask.dataframe as dd

    with dask_client():
        return fitted(folder, lambda: dd.read_parquet(folder))


def on_ray(folder: Path) -> tuple[float, Any, float]:
    """Fit by sparkopt on Ray."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.execution_options.preserve_order = False, True
    ray.get([ray.remote(_imported).remote() for _ in range(2)])
    try:
        return fitted(folder, lambda: ray.data.read_parquet(str(folder)))
    finally:
        ray.shutdown()


def on_machine(folder: Path) -> tuple[float, Any, float]:
    """Fit by sparkopt's own processes."""
    from sparkopt.machine import ProcessPool

    with ProcessPool.shared() as pool:
        pool.run(abs, [1, 2])
    return fitted(folder, lambda: str(folder))


def on_spark(folder: Path) -> tuple[float, Any, float]:
    """Fit by sparkopt on Spark, in a session that has run a Python task before."""
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()

    def imported(batches: Iterator[Any]) -> Iterator[Any]:
        _imported()
        yield from batches

    spark.range(0, 2, 1, 2).mapInArrow(imported, "id long").collect()
    try:
        return fitted(folder, lambda: spark.read.parquet(str(folder)), on_tables=False)
    finally:
        spark.stop()


def sklearn(folder: Path) -> tuple[float, Any, float]:
    """Fit by scikit-learn in one process."""
    import pyarrow.parquet as pq
    from sklearn.linear_model import LogisticRegression

    begin = time.perf_counter()
    table = pq.read_table(folder)
    X = np.stack([table[name].to_numpy() for name in names(folder)], axis=1)
    y = table["label"].to_numpy()
    model = LogisticRegression(C=1 / (STRENGTH * len(y)), max_iter=200).fit(X, y)
    return time.perf_counter() - begin, [*model.coef_[0], model.intercept_[0]], 0.0


def dask_ml(folder: Path) -> tuple[float, Any, float]:
    """Fit by dask-ml on Dask."""
    import dask.dataframe as dd
    from dask_ml.linear_model import LogisticRegression

    with dask_client():
        begin = time.perf_counter()
        rows = dd.read_parquet(folder).to_dask_array(lengths=True)
        X, y = rows[:, :-1], rows[:, -1]
        model = LogisticRegression(C=1 / (STRENGTH * X.shape[0]), solver="lbfgs", max_iter=100).fit(X, y)
        return time.perf_counter() - begin, [*model.coef_.ravel(), float(np.ravel(model.intercept_)[0])], 0.0


SIDES: dict[str, tuple[str, Callable[[Path], tuple[float, Any, float]]]] = {
    "sparkopt": ("sparkopt", on_machine),
    "dask": ("distributed", on_dask),
    "ray": ("ray", on_ray),
    "spark": ("pyspark", on_spark),
    "scikit-learn": ("sklearn", sklearn),
    "dask-ml": ("dask_ml", dask_ml),
}
"""The package that each side needs, and what it does."""


def objective(folder: Path, coefficients: np.ndarray) -> float:
    """Return the mean logistic loss and the penalty."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder)
    X = np.stack([table[name].to_numpy() for name in names(folder)], axis=1)
    margin = (X @ coefficients[:-1] + coefficients[-1]) * (2 * table["label"].to_numpy() - 1)
    return float(np.logaddexp(0.0, -margin).mean() + STRENGTH / 2 * coefficients[:-1] @ coefficients[:-1])


def measured(side: str, folder: Path) -> tuple[float, Any, float]:
    """Run a side in a process of its own."""
    command = [sys.executable, __file__, "--one", side, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603  # this file
    seconds, coefficients, empty = json.loads(done.stdout.splitlines()[-1])
    return seconds, np.array(coefficients), empty


def main() -> None:
    """Compare."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=1_000_000)
    flags.add_argument("--features", type=int, default=100)
    flags.add_argument("--runs", type=int, default=3)
    flags.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    flags.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    flags.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.one:
        seconds, coefficients, empty = SIDES[args.one][1](args.folder)
        print(json.dumps([seconds, np.asarray(coefficients, float).tolist(), empty]))
        return
    sides = [side for side in args.sides if importlib.util.find_spec(SIDES[side][0]) is not None]
    for side in set(args.sides) - {*sides}:
        print(f"{side}: {SIDES[side][0]} is not installed here, so it is left out", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="frameworks-") as folder:
        rows = Path(folder) / "rows"
        write_rows(rows, args.rows, args.features)
        found = {side: list[Any]() for side in sides}
        for _ in range(args.runs):
            for side in sides:
                found[side].append(measured(side, rows))
        best = {side: objective(rows, runs[-1][1]) for side, runs in found.items()}
    own = statistics.median(seconds for seconds, _, _ in found[sides[0]])
    print(f"\n{args.rows:,} rows x {args.features} columns, {args.runs} runs in turn\n")
    print("| side | s | beside the first | gap | an empty pass, ms |\n| --- | --- | --- | --- | --- |")
    for side, runs in found.items():
        seconds, empty = (statistics.median(run[place] for run in runs) for place in (0, 2))
        gap = best[side] / min(best.values()) - 1
        print(f"| {side} | {seconds:.2f} | {seconds / own:.2f}x | {gap:.0e} | {1e3 * empty:.1f} |")


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Time a whole lasso path beside a fit for each of its points, and beside scikit-learn's in one process.

    python jobs/bench/path.py --rows 500000 --features 200 --runs 3

All sides read the same Parquet files, in a process of their own on the same cores, and are timed from the reading to
the coefficients; imports are left out. ``fits`` reads the rows once into a store and fits each point by OWL-QN, from
the point before. ``scikit-learn`` reads them with pyarrow and calls ``lasso_path`` with the Gram matrix. ``folds`` is
sparkopt's path with a cross-validation of 10 folds, ``LassoCV`` scikit-learn's. The objectives of all sides must
agree, else the benchmark fails. Runs are in turn; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

POINTS, FOLDS = 100, 10
LEEWAY = 1e-3
"""How much larger, relatively, an objective may be than the least: those of OWL-QN end by its default tolerance."""


def write_rows(folder: Path, rows: int, features: int, parts: int = 8) -> None:
    """Write correlated features, of which a quarter matters, as array<float> in several files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    truth = np.where(rng.random(features) < 0.25, rng.normal(size=features), 0.0)
    folder.mkdir(parents=True)
    for part in range(parts):
        X = rng.normal(size=(rows // parts, features)) + 0.5 * rng.normal(size=(rows // parts, 1))
        X = X.astype(np.float32)
        y = X @ truth + rng.normal(size=len(X)) * 3.0
        values = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), features).cast(pa.list_(pa.float32()))
        pq.write_table(pa.table({"features": values, "label": y}), folder / f"part-{part}.parquet")


def estimator(**options: Any) -> Any:
    """Return the lasso, on features as they are: scikit-learn does not scale them either."""
    from sparkopt.ml import LinearRegression

    return LinearRegression(elasticNetParam=1.0, standardization=False, **options)


def path(folder: Path, lambdas: Any) -> tuple[float, Any]:
    """Fit sparkopt's path."""
    lasso, begin = estimator(), time.perf_counter()
    found = lasso.fitPath(str(folder), lambdas=lambdas, numLambdas=POINTS)
    return time.perf_counter() - begin, (found.lambdas, found.coefficients)


def folds(folder: Path, lambdas: Any) -> tuple[float, Any]:
    """Fit sparkopt's path with a cross-validation."""
    lasso, begin = estimator(), time.perf_counter()
    found = lasso.fitPath(str(folder), lambdas=lambdas, numFolds=FOLDS)
    return time.perf_counter() - begin, (found.lambdas, found.coefficients)


def fits(folder: Path, lambdas: Any) -> tuple[float, Any]:
    """Fit each point by OWL-QN, from the point before, on rows that are read once."""
    lasso, begin = estimator(optimizer="owlqn", maxIter=500), time.perf_counter()
    found = lasso.fitPath(str(folder), lambdas=lambdas)
    return time.perf_counter() - begin, (found.lambdas, found.coefficients)


def arrays(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return features and label, centred, in float64."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder)
    y = table.column("label").to_numpy()
    X = table.column("features").combine_chunks().flatten().to_numpy().reshape(len(y), -1).astype(np.float64)
    X -= X.mean(axis=0)
    return X, y - y.mean()


def sklearn_path(folder: Path, lambdas: Any) -> tuple[float, Any]:
    """Fit scikit-learn's path with the Gram matrix."""
    from sklearn.linear_model import lasso_path

    begin = time.perf_counter()
    X, y = arrays(folder)
    found = lasso_path(X, y, alphas=np.array(lambdas), precompute=True, copy_X=False)[1]
    return time.perf_counter() - begin, (lambdas, found.T)


def sklearn_folds(folder: Path, lambdas: Any) -> tuple[float, Any]:
    """Fit scikit-learn's path with a cross-validation."""
    from sklearn.linear_model import LassoCV, lasso_path

    begin = time.perf_counter()
    X, y = arrays(folder)
    LassoCV(alphas=np.array(lambdas), cv=FOLDS, precompute=True, copy_X=False, n_jobs=2).fit(X, y)
    seconds = time.perf_counter() - begin
    return seconds, (lambdas, lasso_path(X, y, alphas=np.array(lambdas), precompute=True)[1].T)


SIDES: dict[str, Callable[[Path, Any], tuple[float, Any]]] = {
    "path": path,
    "fits": fits,
    "scikit-learn": sklearn_path,
    "folds": folds,
    "LassoCV": sklearn_folds,
}


def measured(side: str, folder: Path, lambdas: Any) -> tuple[float, Any]:
    """Run a side in a process of its own; return its seconds and its path."""
    command = [sys.executable, __file__, "--one", side, "--folder", str(folder)]
    text = json.dumps(None if lambdas is None else np.asarray(lambdas).tolist())
    done = subprocess.run(command, check=True, input=text, stdout=subprocess.PIPE, text=True)  # noqa: S603  # this file
    seconds, found = json.loads(done.stdout.splitlines()[-1])
    return float(seconds), tuple(np.array(one) for one in found)


def objectives(folder: Path, lambdas: Any, coefficients: Any) -> np.ndarray:
    """Return the lasso's objective at each point."""
    X, y = arrays(folder)
    gram, products = X.T @ X / len(y), X.T @ y / len(y)
    quadratic = 0.5 * np.einsum("ij,ij->i", coefficients @ gram, coefficients) - coefficients @ products
    return np.asarray(0.5 * float(y @ y) / len(y) + quadratic + lambdas * np.abs(coefficients).sum(axis=1))


def main() -> None:
    """Compare."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=500_000)
    flags.add_argument("--features", type=int, default=200)
    flags.add_argument("--runs", type=int, default=3)
    flags.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    flags.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    flags.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.one:
        seconds, found = SIDES[args.one](args.folder, json.loads(sys.stdin.read()))
        print(json.dumps([seconds, [np.asarray(one).tolist() for one in found]]))
        return
    with tempfile.TemporaryDirectory(prefix="path-") as folder:
        rows = Path(folder) / "rows"
        write_rows(rows, args.rows, args.features)
        lambdas = measured("path", rows, None)[1][0]
        times: dict[str, list[float]] = {side: [] for side in args.sides}
        best: dict[str, np.ndarray] = {}
        for _ in range(args.runs):
            for side in args.sides:
                seconds, (_, coefficients) = measured(side, rows, lambdas)
                times[side].append(seconds)
                best[side] = objectives(rows, lambdas, coefficients)
        least = np.min(list(best.values()), axis=0)
        medians = {side: statistics.median(found) for side, found in times.items()}
        own = medians[args.sides[0]]
        print(f"{'':14} {'seconds':>8} {'above the least objective':>26}   times {args.sides[0]}")
        for side, seconds in medians.items():
            above = float(np.max(best[side] / least - 1.0))
            print(f"{side:14} {seconds:8.2f} {above:26.1e}   {seconds / own:.2f}")
        if max(float(np.max(found / least - 1.0)) for found in best.values()) > LEEWAY:
            sys.exit("the objectives differ: the sides do not do the same.")


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Time whole processes on one machine without Spark, from Parquet to a saved model, beside what else does it.

    python -m venv ~/others
    ~/others/bin/pip install scikit-learn scikit-learn-intelex snapml glum celer skglm pyarrow
    python jobs/bench/machine.py --works logistic lasso --others ~/others/bin/python

Each row is a kind of model: sparkopt, scikit-learn with pyarrow, and in the environment of ``--others``
scikit-learn-intelex, snapml, glum, celer and skglm, where they have that model and are within reach; with
``--spark`` pyspark.ml by ``spark-submit``. Runs are in turn, and medians are compared; what takes longer than half a
minute runs once. The gap is how far an objective is above the least one found, relatively. The noise is the spread of
a process that only reads the labels. ``search`` is 24 models x 3 folds beside GridSearchCV, ``score`` is from Parquet
to Parquet, ``small`` is a fit of 100 rows in a running process.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
SIZES = {"sparse": (200_000, 1_000_000)}
REG_PARAMS = [10.0**power for power in np.linspace(-4, 0, 24)]
FOLDS = 3
POISSON: dict[str, Any] = {"family": "poisson"}


def keep(out: str, coef: Any, intercept: Any, model: Any = None) -> None:
    """Save a model, and its coefficients where the comparison finds them."""
    if model is not None:
        import joblib

        os.makedirs(out, exist_ok=True)
        joblib.dump(model, f"{out}/model")
    np.savez(f"{out}/coefficients.npz", coef=np.atleast_2d(coef), intercept=np.atleast_1d(intercept))


def labels(work: str, path: str, out: str) -> None:
    """Read the labels: its runs differ by the machine's noise alone."""
    import pyarrow.parquet as pq

    print(pq.read_table(path, columns=["label"]).num_rows)


def sparkopt(work: str, path: str, out: str) -> None:
    """Fit and save sparkopt's, as users write it."""
    from machine_tables import WORKS

    from sparkopt import ml

    reg_param = WORKS[work].reg_param
    estimator: Any = {
        "lasso": lambda: ml.LinearRegression(regParam=reg_param, elasticNetParam=1.0),
        "poisson": lambda: ml.GeneralizedLinearRegression(
            family="poisson", regParam=reg_param, standardization=False
        ),
        "sparse": lambda: ml.LogisticRegression(regParam=reg_param, standardization=False),
    }.get(work, lambda: ml.LogisticRegression(regParam=reg_param))()
    model = estimator.fit(path)
    model.save(out)
    if work == "multinomial":
        keep(out, model.coefficientMatrix.toArray(), model.interceptVector.toArray())
    else:
        keep(out, model.coefficients.toArray(), model.intercept)


def standardised(work: str, path: str) -> tuple[Any, Any, Any, Any]:
    """Read rows as others need them: features, labels, and by what features were moved and divided."""
    from machine_tables import WORKS, read

    X, y = read(path)
    if not WORKS[work].is_scaled:
        return X, y, 0.0, 1.0
    mean, deviation = X.mean(axis=0), X.std(axis=0, ddof=1)
    return (X - mean) / deviation, y, mean, deviation


def scikit(patch: bool) -> Callable[[str, str, str], None]:
    """Return the child that fits scikit-learn's models, accelerated by scikit-learn-intelex or not.

    By its default solvers: newton-cholesky took four times as long for Poisson, and longer for ten classes.
    """

    def child(work: str, path: str, out: str) -> None:
        if patch:
            from sklearnex import patch_sklearn

            patch_sklearn(verbose=False)
        from machine_tables import WORKS
        from sklearn import linear_model

        reg_param = WORKS[work].reg_param
        X, y, mean, deviation = standardised(work, path)
        if work == "lasso":
            model = linear_model.Lasso(alpha=reg_param, tol=1e-6)
        elif work == "poisson":
            model = linear_model.PoissonRegressor(alpha=reg_param, tol=1e-6, max_iter=1000)
        else:
            strength = 1 / (reg_param * len(y))
            model = linear_model.LogisticRegression(C=strength, tol=1e-6, max_iter=1000)
        model.fit(X, y)
        coef = np.atleast_2d(model.coef_) / deviation
        keep(out, coef, model.intercept_ - coef @ np.broadcast_to(mean, coef.shape[1:]), model)

    return child


def snapml(work: str, path: str, out: str) -> None:
    """Fit snapml's."""
    from machine_tables import WORKS
    from snapml import LogisticRegression

    X, y, mean, deviation = standardised(work, path)
    strength = WORKS[work].reg_param * len(y)
    model = LogisticRegression(
        regularizer=strength, fit_intercept=True, max_iter=1000, tol=1e-6, n_jobs=os.cpu_count(), use_gpu=False
    )
    model.fit(X, y)
    coef = np.atleast_2d(model.coef_) / deviation
    keep(out, coef, model.intercept_ - coef @ np.broadcast_to(mean, coef.shape[1:]), model)


def glum(work: str, path: str, out: str) -> None:
    """Fit glum's."""
    from glum import GeneralizedLinearRegressor
    from machine_tables import WORKS

    family = {"lasso": "normal", "poisson": "poisson"}.get(work, "binomial")
    X, y, mean, deviation = standardised(work, path)
    model = GeneralizedLinearRegressor(
        family=family, alpha=WORKS[work].reg_param, l1_ratio=float(WORKS[work].is_l1), gradient_tol=1e-6
    )
    model.fit(X, y)
    coef = np.atleast_2d(model.coef_) / deviation
    keep(out, coef, model.intercept_ - coef @ np.broadcast_to(mean, coef.shape[1:]), model)


def celer(work: str, path: str, out: str) -> None:
    """Fit celer's."""
    from celer import Lasso
    from machine_tables import WORKS

    X, y, mean, deviation = standardised(work, path)
    model = Lasso(alpha=WORKS[work].reg_param, tol=1e-6)
    model.fit(np.asfortranarray(X), y)
    coef = np.atleast_2d(model.coef_) / deviation
    keep(out, coef, model.intercept_ - coef @ np.broadcast_to(mean, coef.shape[1:]), model)


def skglm(work: str, path: str, out: str) -> None:
    """Fit skglm's."""
    from machine_tables import WORKS
    from skglm import Lasso

    X, y, mean, deviation = standardised(work, path)
    model = Lasso(alpha=WORKS[work].reg_param, tol=1e-6)
    model.fit(np.asfortranarray(X), y)
    coef = np.atleast_2d(model.coef_) / deviation
    keep(out, coef, model.intercept_ - coef @ np.broadcast_to(mean, coef.shape[1:]), model)


def pyspark(work: str, path: str, out: str) -> None:
    """Fit pyspark.ml's."""
    from linear import vectors
    from machine_tables import WORKS
    from pyspark.ml import classification, regression
    from pyspark.sql import SparkSession

    df = SparkSession.builder.getOrCreate().read.parquet(path)
    if work != "sparse":
        df = vectors(df)
    reg_param = WORKS[work].reg_param
    estimator: Any = {
        "lasso": lambda: regression.LinearRegression(regParam=reg_param, elasticNetParam=1.0),
        "poisson": lambda: regression.GeneralizedLinearRegression(family="poisson", regParam=reg_param),
        "sparse": lambda: classification.LogisticRegression(regParam=reg_param, standardization=False),
    }.get(work, lambda: classification.LogisticRegression(regParam=reg_param))()
    model = estimator.fit(df)
    model.save(out)
    if work == "multinomial":
        keep(out, model.coefficientMatrix.toArray(), model.interceptVector.toArray())
    else:
        keep(out, model.coefficients.toArray(), model.intercept)


def our_search(work: str, path: str, out: str) -> None:
    """Search with sparkopt's CrossValidator."""
    from pyspark.ml.tuning import ParamGridBuilder

    from sparkopt import ml
    from sparkopt.ml.evaluation import BinaryClassificationEvaluator

    estimator = ml.LogisticRegression()
    grid = ParamGridBuilder().addGrid(estimator.regParam, REG_PARAMS).build()
    evaluator = BinaryClassificationEvaluator()
    search = ml.CrossValidator(
        estimator=estimator, estimatorParamMaps=grid, evaluator=evaluator, numFolds=FOLDS, seed=1
    )
    search.fit(path).bestModel.save(out)


def their_search(work: str, path: str, out: str) -> None:
    """Search with scikit-learn's GridSearchCV in two processes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    X, y, _, _ = standardised("logistic", path)
    grid = {"C": [1 / (value * len(y) * (FOLDS - 1) / FOLDS) for value in REG_PARAMS]}
    search = GridSearchCV(LogisticRegression(tol=1e-6, max_iter=1000), grid, cv=FOLDS, n_jobs=2, scoring="roc_auc")
    search.fit(X, y)
    keep(out, search.best_estimator_.coef_, search.best_estimator_.intercept_, search.best_estimator_)


def our_scores(work: str, path: str, out: str) -> None:
    """Score with sparkopt's model, by the command."""
    from sparkopt.jobs.cli import main

    flags = ["--on", "machine", "--model", f"{work}/sparkopt", "--parquet", path, "--output", out]
    raise SystemExit(main(["score", *flags]))


def their_scores(work: str, path: str, out: str) -> None:
    """Score with scikit-learn's model, file after file by pyarrow."""
    import joblib
    import pyarrow as pa
    import pyarrow.parquet as pq
    from machine_tables import read

    model = joblib.load(f"{work}/scikit-learn/model")
    os.makedirs(out)
    for file in sorted(Path(path).glob("*.parquet")):
        X, _ = read(str(file))
        scores = np.column_stack([model.decision_function(X), model.predict_proba(X), model.predict(X)])
        table = pq.read_table(file, columns=["label"])
        for index, name in enumerate(("rawPrediction", "probability_0", "probability_1", "prediction")):
            table = table.append_column(name, pa.array(scores[:, index]))
        pq.write_table(table, f"{out}/{file.name}")


CHILDREN: dict[str, Callable[[str, str, str], None]] = {
    "labels": labels,
    "sparkopt": sparkopt,
    "scikit-learn": scikit(patch=False),
    "intelex": scikit(patch=True),
    "snapml": snapml,
    "glum": glum,
    "celer": celer,
    "skglm": skglm,
    "pyspark.ml": pyspark,
    "our_search": our_search,
    "their_search": their_search,
    "our_scores": our_scores,
    "their_scores": their_scores,
}
OTHERS = {
    "intelex": ("logistic", "lasso", "multinomial"),
    "snapml": ("logistic", "sparse"),
    "glum": ("logistic", "lasso", "poisson"),
    "celer": ("lasso",),
    "skglm": ("lasso",),
}
"""Which kinds of model they have, of those without a longer way to them."""


LONG = 30.0
"""Seconds from which on a process runs once: GridSearchCV, and others with ten classes, take minutes."""


class Failed(RuntimeError):
    """A child ended with an error."""


def measured(child: str, work: str, path: Path, out: str, python: str) -> tuple[float, float]:
    """Run a child in a process of its own; return its seconds, and those of the processor with its descendants."""
    submit = ["spark-submit", "--properties-file", str(ROOT / "conf/local.conf")]
    by = submit if child == "pyspark.ml" else [python]
    before, begin = os.times(), time.perf_counter()
    command = [*by, __file__, "--child", child, work, str(path), out]
    run = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  # this file
    if run.returncode:
        raise Failed(run.stderr.strip().splitlines()[-1] if run.stderr.strip() else f"exit code {run.returncode}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - begin, used


def in_turn(children: Sequence[tuple[str, str]], work: str, path: Path, runs: int, folder: Path) -> dict[str, Any]:
    """Run children in turn; return the median seconds of those that end well, and of their processors."""
    times: dict[str, list[tuple[float, float]]] = {child: [] for child, _ in children}
    for number in range(runs):
        for child, python in children:
            if child in times and not any(wall > LONG for wall, _ in times[child]):
                try:
                    times[child].append(
                        measured(child, work, path, str(folder / f"{Path(work).name}-{child}-{number}"), python)
                    )
                except Failed as why:
                    print(f"    {child}: {why}", flush=True)
                    del times[child]
    return {child: np.median(found, axis=0) for child, found in times.items()} | {
        "noise": _spread([wall for wall, _ in times["labels"]])
    }


def _spread(times: Sequence[float]) -> float:
    return (max(times) - min(times)) / statistics.median(times)


def compare(work: str, path: Path, runs: int, folder: Path, others: str | None, spark: bool) -> None:
    """Print the rows of a kind of model."""
    from machine_tables import WORKS, read

    children = [("labels", sys.executable), ("sparkopt", sys.executable), ("scikit-learn", sys.executable)]
    children += [(name, others) for name, works in OTHERS.items() if others and work in works]
    children += [("pyspark.ml", sys.executable)] if spark else []
    found = in_turn(children, work, path, runs, folder)
    X, y = read(str(path))
    objectives = {}
    for child in found.keys() - {"labels", "noise"}:
        with np.load(folder / f"{work}-{child}-0" / "coefficients.npz") as saved:
            objectives[child] = WORKS[work].objective(X, y, saved["coef"], saved["intercept"])
    least = min(objectives.values())
    for child, value in sorted(objectives.items(), key=lambda pair: found[pair[0]][0]):
        show(work, child, found, found["sparkopt"][0], f"{value / least - 1:.0e}")


def show(work: str, name: str, found: dict[str, Any], ours: float, gap: str = "") -> None:
    """Print a row."""
    wall, used = found[name]
    ratio, noise = f"{wall / ours:.2f}x", f"{found['noise']:.0%}"
    print(f"| {work} | {name} | {wall:.2f} | {used:.1f} | {ratio} | {gap} | {noise} |", flush=True)


def pair(work: str, names: tuple[str, str], argument: str, path: Path, runs: int, folder: Path) -> None:
    """Print two rows: ours and theirs."""
    found = in_turn([(name, sys.executable) for name in ("labels", *names)], argument, path, runs, folder)
    for name in names:
        if name in found:
            show(work, name, found, found[names[0]][0] if names[0] in found else np.nan)


def score(path: Path, runs: int, folder: Path) -> None:
    """Print the rows of scoring, with models that are fitted first."""
    models = folder / "models"
    for child in ("sparkopt", "scikit-learn"):
        measured(child, "logistic", path, str(models / child), sys.executable)
    pair("scores", ("our_scores", "their_scores"), str(models), path, runs, folder)


def small() -> None:
    """Print fits of 100 rows in this process."""
    from sparkopt import ml

    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 10))
    raw = X[:, 0]
    classes, numbers = (raw + rng.logistic(size=100) > 0).astype(float), raw + rng.normal(size=100)
    counts = rng.poisson(np.exp(raw / 3)).astype(float)
    kinds: dict[str, tuple[Any, Any]] = {
        "logistic": (ml.LogisticRegression(regParam=0.01), classes),
        "least squares": (ml.LinearRegression(regParam=0.01), numbers),
        "poisson": (ml.GeneralizedLinearRegression(family="poisson", regParam=0.01), counts),
        "support vectors": (ml.LinearSVC(regParam=0.01), classes),
        "quantile": (ml.QuantileRegression(regParam=0.01), numbers),
    }
    for name, (estimator, y) in kinds.items():
        times = []
        for _ in range(51):
            begin, used = time.perf_counter(), time.process_time()
            estimator.fit((X, y))
            times.append((time.perf_counter() - begin, time.process_time() - used))
        wall, used = np.median(times[1:], axis=0)
        print(f"| 100 rows, in a running process | {name} | {wall:.4f} | {used:.4f} | | | |")


WHAT = ("logistic", "lasso", "multinomial", "poisson", "sparse", "search", "score", "small")


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=1_000_000)
    flags.add_argument("--features", type=int, default=100)
    flags.add_argument("--runs", type=int, default=3)
    flags.add_argument("--works", nargs="+", choices=WHAT, default=WHAT)
    flags.add_argument("--others", metavar="PYTHON", help="of an environment with the others")
    flags.add_argument("--spark", action="store_true", help="run pyspark.ml too")
    flags.add_argument("--child", nargs=4, metavar=("WHAT", "WORK", "PATH", "OUTPUT"), help=argparse.SUPPRESS)
    args = flags.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # some containers set it: each start would compile all modules
    if args.child:
        what, *rest = args.child
        CHILDREN[what](*rest)
        return
    from machine_tables import WORKS, generate

    cache, folder = ROOT / ".cache", Path(tempfile.mkdtemp())
    cores = len(os.sched_getaffinity(0))
    print(f"\n{args.rows:,} rows x {args.features} features, {cores} cores, {args.runs} runs in turn\n")
    print("| work | library | s | processor s | beside sparkopt | gap | noise |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for work in args.works:
        rows, features = SIZES.get(work, (args.rows, args.features))
        if work in WORKS:
            compare(work, generate(cache, work, rows, features), args.runs, folder, args.others, args.spark)
        elif work == "search":
            work = f"{len(REG_PARAMS)} models x {FOLDS} folds"
            searched = generate(cache, "logistic", rows, features)
            pair(work, ("our_search", "their_search"), "search", searched, args.runs, folder)
        elif work == "score":
            score(generate(cache, "logistic", rows, features), args.runs, folder)
        elif work == "small":
            small()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Count the steps and rows that every optimiser needs at its defaults to come within 0.1% of the optimum. No Spark.

    python jobs/bench/optimizers.py --output optimizers.html

Nothing is tuned: no step size, no schedule. The objective is a penalised logistic loss of a9a, of the handwritten
digits, and of features whose scales differ by a factor of a million. The optimum is proximal Newton's, at tol=0.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn import datasets

from sparkopt.ml import LogisticRegression
from sparkopt.optim import OPTIMIZERS
from sparkopt.report.facts import Facts, Lines, Series
from sparkopt.report.page import write_report
from sparkopt.solver.progress import Progress

CLOSE = 1e-3
"""Share of the way from the start to the optimum that may be left."""
FAMILIES = {
    "all rows, searches": ("gd", "fista", "lbfgs", "owlqn", "newton-cg", "proximal-newton", "proximal-lbfgs"),
    "step sizes": ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "nadam", "adan", "ademamix", "ftrl"),
    "no step size": ("prodigy", "dadapt-adam", "dog", "dowg", "adadelta", "schedule-free-sgd", "schedule-free-adamw"),
}
"""What is drawn together; the table has all."""


@dataclass
class Reach:
    """A callback that stops a fit where it is close, and remembers how it came there.

    Attributes
    ----------
    target : float
        Objective that is close enough.
    objectives : list of float
        After each step.
    rows : int
        Rows that were touched.
    """

    target: float
    objectives: list[float]
    rows: int = 0

    def __call__(self, progress: Progress, /) -> bool:
        """Add a step; return True at the target."""
        self.objectives.append(progress.record.objective)
        self.rows += progress.record.rows
        return progress.record.objective <= self.target


def a9a(path: Path) -> tuple[Any, np.ndarray]:
    """Return LIBSVM's a9a: 123 binary features, most of them zero."""
    X, y = datasets.load_svmlight_file(str(path), n_features=123)
    return sparse.csr_array(X), (y > 0).astype(float)


def digits() -> tuple[Any, np.ndarray]:
    """Return scikit-learn's handwritten digits, those of 5 and more against the others."""
    X, y = datasets.load_digits(return_X_y=True)
    return X, (y >= 5).astype(float)


def badly_scaled() -> tuple[Any, np.ndarray]:
    """Return 20,000 correlated features of scales from a thousandth to a thousand."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(20_000, 30)) + rng.normal(size=(20_000, 1))
    margin = Z @ (rng.normal(size=30) / 3)
    return Z * np.logspace(-3, 3, 30), (margin + rng.logistic(size=20_000) > 0).astype(float)


def fitted(data: tuple[Any, np.ndarray], name: str, reach: Reach, steps: int) -> None:
    """Fit by one optimiser, until it is close or out of steps."""
    estimator = LogisticRegression(optimizer=name, regParam=1e-3, tol=0.0, maxIter=steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that maxIter was reached is what the table says
        estimator.setCallbacks([reach]).fit(data)


def measured(data: tuple[Any, np.ndarray], names: list[str], steps: int) -> tuple[float, dict[str, Reach]]:
    """Return the optimum, and what each optimiser reached."""
    best = Reach(-np.inf, [])
    fitted(data, "proximal-newton", best, 100)
    least, start = min(best.objectives), best.objectives[0]
    found = {}
    for name in names:
        found[name] = Reach(least + CLOSE * (start - least), [])
        fitted(data, name, found[name], steps)
    return least, found


def cell(reach: Reach) -> str:
    """Return steps and rows, or how much of the way is left."""
    if reach.objectives[-1] <= reach.target:
        return f"{len(reach.objectives) - 1} / {reach.rows:,}"
    return "not in " + f"{len(reach.objectives) - 1}"


def charts(title: str, least: float, found: dict[str, Reach]) -> list[Lines]:
    """Return a chart for each family: the gap by step."""
    drawn = []
    for family, names in FAMILIES.items():
        series = [
            Series.of(name, list(range(len(gaps))), gaps)
            for name in names
            if name in found and (gaps := [max(value - least, 1e-9) for value in found[name].objectives])
        ]
        if series:
            drawn.append(Lines(f"{title}, {family}: gap", "steps", "number", tuple(series)))
    return drawn


def run(
    problems: dict[str, Callable[[], tuple[Any, np.ndarray]]], names: list[str], steps: int, output: Path
) -> None:
    """Print the table, and write the page."""
    columns: dict[str, dict[str, Reach]] = {}
    drawn: list[Lines] = []
    for title, make in problems.items():
        least, columns[title] = measured(make(), names, steps)
        drawn += charts(title, least, columns[title])
    print(f"Steps / rows touched until at most {CLOSE:.1%} of the way to the optimum is left, at the defaults\n")
    print("| optimizer | " + " | ".join(columns) + " |\n| --- |" + " --- |" * len(columns))
    for name in names:
        print(f"| {name} | " + " | ".join(cell(found[name]) for found in columns.values()) + " |")
    subtitle = "Every optimiser at its defaults: nothing is tuned."
    write_report(output, Facts("Steps to the optimum", subtitle, (), tuple(drawn)), "")
    print(f"\n{output}")


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--steps", type=int, default=2000, help="most steps of a fit")
    flags.add_argument("--only", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS), help="these optimisers")
    flags.add_argument("--a9a", type=Path, default=Path(".cache/a9a.gz"), help="LIBSVM's file, left out if absent")
    flags.add_argument("--output", type=Path, default=Path("optimizers.html"), help="page with plots")
    args = flags.parse_args()
    problems: dict[str, Callable[[], tuple[Any, np.ndarray]]] = {"digits": digits, "badly scaled": badly_scaled}
    if args.a9a.exists():
        problems = {"a9a": lambda: a9a(args.a9a), **problems}
    run(problems, args.only, args.steps, args.output)


if __name__ == "__main__":
    main()

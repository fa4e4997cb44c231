"""Rows of a search, and the search; as a program it is killed in the middle. Run by test_randomized_search.py."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt.ml import LogisticRegression, MulticlassClassificationEvaluator, RandomizedSearch

NAMES = [f"x{i}" for i in range(12)]
STRENGTHS = [10.0 ** (-k / 2) for k in range(9)]


def rows() -> pa.Table:
    """Few rows, many features of noise: how much to regularise matters."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(240, len(NAMES)))
    y = (X[:, 0] - 0.5 * X[:, 1] + 0.8 * rng.logistic(size=240) > 0).astype(float)
    fold = np.arange(240, dtype=np.int32) % 3
    return pa.table({**{name: X[:, i] for i, name in enumerate(NAMES)}, "label": y, "fold": fold})


def search(callbacks: list[Any] | None = None, **options: Any) -> RandomizedSearch:
    """Nine strengths of the penalty, by log-loss."""
    estimator = LogisticRegression(featuresCols=NAMES, optimizer="lbfgs", maxIter=27, tol=0.0)
    estimator.setCallbacks(callbacks or [])
    given: dict[str, Any] = {
        "estimator": estimator,
        "evaluator": MulticlassClassificationEvaluator(metricName="logLoss"),
        "foldCol": "fold",
        "seed": 3,
        "minIter": 3,
        **options,
    }
    space = options.get("paramDistributions")
    if space is None:
        given["estimatorParamMaps"] = [{estimator.regParam: strength} for strength in STRENGTHS]
    else:
        given["paramDistributions"] = {estimator.getParam(name): values for name, values in space.items()}
    return RandomizedSearch(**given)


def main() -> None:
    """Search, and be killed after so many steps of the first model."""
    folder, last = sys.argv[1], int(sys.argv[2])
    steps = iter(range(10_000))

    def kill(progress: Any) -> None:
        if progress.model == 0 and progress.record.step > 0 and next(steps) + 1 == last:
            os.kill(os.getpid(), signal.SIGKILL)

    search([kill], checkpointDir=folder).fit(rows())


if __name__ == "__main__":
    main()

"""Train with checkpoints and kill this very process, the driver, right after a step. Run by test_resume.py."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkopt.ml import LinearSVC, LogisticRegression
from sparkopt.solver.progress import Progress

INTERVAL = 4
MODELS = {
    "mini-batches": (
        LogisticRegression,
        dict(optimizer="adam", stepSize=0.05, miniBatchFraction=0.1, seed=3, engine="driver"),
        [{}],
    ),
    "grid": (
        LogisticRegression,
        dict(optimizer="gd", stepSize=0.3),
        [{"regParam": 0.1}, {"regParam": 0.01}, {"regParam": 0.5, "maxIter": 3}, {"optimizer": "adam"}],
    ),
    "nonsmooth": (
        LinearSVC,
        dict(maxIter=500, tol=1e-6, optimizer="lbfgs"),
        [{"regParam": 0.1}, {"regParam": 0.01}, {"maxIter": 6, "tol": 0.0}],
    ),
}
"""Estimator, its parameters, and those of the models that it trains together."""


def rows(spark: SparkSession) -> DataFrame:
    """Equal in every process: partitions and random numbers depend on nothing else."""
    table = spark.range(0, 1000, 1, 2).select(F.array(*[F.randn(seed) for seed in range(3)]).alias("features"))
    return table.withColumn("label", (F.col("features")[0] + F.randn(7) > 0).cast("double"))


def estimator(name: str) -> tuple[Any, list[dict[Any, Any]]]:
    """The estimator, and the parameters of the models that it trains."""
    kind, options, grid = MODELS[name]
    found = kind(**{"maxIter": 40, "tol": 0.0, **options})
    return found, [{found.getParam(key): value for key, value in values.items()} for values in grid]


def coefficients(models: Sequence[Any]) -> list[np.ndarray]:
    """All numbers of all models."""
    return [np.append(model.coefficients.toArray(), model.intercept) for model in models]


def main() -> None:
    from sparkopt.launch.session import session

    name, folder, step = sys.argv[1], sys.argv[2], int(sys.argv[3])
    settings = {
        "spark.master": "local[2]",
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={Path.cwd()}/conf/log4j2.properties",
    }
    spark = session("conf/local.conf", settings=settings)

    steps = iter(range(10_000))  # of all stages, where there are several

    def kill(progress: Progress) -> None:
        if progress.model == 0 and progress.record.step > 0 and next(steps) + 1 == step:
            os.kill(os.getpid(), signal.SIGKILL)

    trained, grid = estimator(name)
    trained.setCheckpointDir(folder).setCheckpointInterval(INTERVAL).setCallbacks([kill]).fit(rows(spark), grid)


if __name__ == "__main__":
    main()

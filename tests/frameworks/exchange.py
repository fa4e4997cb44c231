"""Train models on one framework's rows, save them, and score those of others: ``python -m`` this, FRAMEWORK FOLDER.

The process says that its models are saved, waits for a line, and scores whatever models the folder has by then.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sparkopt.ml import (
    LinearRegression,
    LogisticRegression,
    LogisticRegressionModel,
    Pipeline,
    PipelineModel,
    TableFeatures,
)
from sparkopt.ml import LinearRegressionModel as LineModel
from tests.frameworks.conftest import CLUSTERS, NAMES, columns

SAVED = "models are saved"
"""What the process says."""
X: dict[str, Any] = {"featuresCols": NAMES, "regParam": 0.01}
MODELS: dict[str, tuple[Any, Any]] = {
    "three classes": (lambda: LogisticRegression(labelCol="three", **X), LogisticRegressionModel),
    "a line": (lambda: LinearRegression(labelCol="line", **X), LineModel),
    "raw columns": (
        lambda: Pipeline(
            stages=[TableFeatures(labelCol="label", exclude=["id", "three", "line"]), LogisticRegression()]
        ),
        PipelineModel,
    ),
}
"""Each estimator, and the class of its models. They are few: a Table of Flink is scored in a job for each."""


def rows() -> pd.DataFrame:
    """Features, and labels of several kinds."""
    found = columns("columns")
    found["three"] = np.where(found["x0"] > 0.1, 2.0, np.where(found["x1"] > 0, 1.0, 0.0))
    found["line"] = found[NAMES].sum(axis=1) + 0.1 * np.cos(found["id"])
    return found


Place = tuple[Callable[[pd.DataFrame], Any], Callable[[Any], pd.DataFrame]]
"""From pandas to a framework's frame, and back."""


@contextlib.contextmanager
def place(name: str) -> Iterator[Place]:
    """Start a framework, Spark, or nothing for this machine."""
    if name == "this machine":
        yield lambda frame: frame, lambda scored: scored
    elif name == "spark":
        from pyspark.sql import SparkSession

        settings = {"spark.ui.enabled": "false", "spark.sql.execution.arrow.pyspark.enabled": "true"}
        session = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
        yield session.createDataFrame, lambda scored: scored.toPandas()
        session.stop()
    else:
        with contextlib.contextmanager(CLUSTERS[name][1])() as framework:
            yield framework.frame, framework.pandas


def main(name: str, folder: Path) -> None:
    """Train and save; wait; score."""
    with place(name) as (frame_of, pandas_of):
        frame = frame_of(rows())
        for kind, (estimator, _) in MODELS.items():
            estimator().fit(frame).save(str(folder / "models" / name / kind))
        print(SAVED, flush=True)
        sys.stdin.readline()
        scores = {}
        for saved in sorted((folder / "models").glob("*/*")):
            scored = MODELS[saved.name][1].load(str(saved)).transform(frame)
            scores[f"{saved.parent.name}: {saved.name}"] = (
                pandas_of(scored).sort_values("id")["prediction"].to_numpy()
            )
        np.savez(folder / f"{name}.npz", **scores)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

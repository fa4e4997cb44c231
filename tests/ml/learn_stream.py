"""Learn from a stream of files, in a process that may be killed. Run by test_stream_killed.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt.ml import LogisticRegression

NAMES = ["a", "b", "c"]


def table(number: int, shift: float = 0.0) -> pa.Table:
    """The rows of a batch, of which there are a few more each time."""
    rng = np.random.default_rng(number)
    X = rng.normal(size=(40 + number, 3)) * [1.0, 4.0, 0.3] + [0.0, 2.0, 1.0]
    raw = X @ [1.0, -0.3, 2.0] - 1.5 - shift
    columns = {name: X[:, i] for i, name in enumerate(NAMES)}
    return pa.table({**columns, "label": (raw + rng.logistic(size=len(X)) > 0).astype(float)})


def estimator() -> Any:
    """The estimator."""
    return LogisticRegression(featuresCols=NAMES, optimizer="adam", stepSize=0.05, regParam=0.01)


def main() -> None:
    from sparkopt.launch.session import session

    arriving, path = sys.argv[1:]
    settings = {
        "spark.master": "local[2]",
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={Path.cwd()}/conf/log4j2.properties",
    }
    spark = session("conf/local.conf", settings=settings)
    schema = ", ".join(f"{name} double" for name in [*NAMES, "label"])
    stream = spark.readStream.schema(schema).option("maxFilesPerTrigger", 1).parquet(arriving)
    query = estimator().fitStream(stream, path, steps=2, trigger={"availableNow": True})
    query.awaitTermination()
    spark.stop()


if __name__ == "__main__":
    main()

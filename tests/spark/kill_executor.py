"""Fit twice on a cluster of two executor processes; in the second fit kill one of them. Run by test_cluster.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
from pyspark.sql import functions as F

from sparkopt.cluster.session import session
from sparkopt.ml import LogisticRegression
from sparkopt.solve import Progress


def executors() -> list[int]:
    """Process ids of the executors that descend from this process."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    processes = [line.split(None, 2) for line in table.splitlines()]
    family = {os.getpid()}
    for _ in range(5):
        family |= {int(pid) for pid, parent, *_ in processes if int(parent) in family}
    return [int(p[0]) for p in processes if int(p[0]) in family and "CoarseGrainedExecutorBackend" in p[-1]]


def main() -> None:
    spark = session(
        sys.argv[1],
        settings={
            "spark.master": "local-cluster[2,1,1024]",
            "spark.executor.memory": "1g",
            "spark.driver.memory": "1g",
        },
    )
    rows = spark.range(0, 4000, 1, 4).select(F.array(*[F.randn(seed) for seed in range(3)]).alias("features"))
    df = rows.withColumn("label", (F.col("features")[0] + F.randn(7) > 0).cast("double"))
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if progress.record.step == 4 and not killed:
            killed.append(executors()[0])
            os.kill(killed[0], signal.SIGKILL)

    def fit(*callbacks: object) -> list[float]:
        estimator = LogisticRegression(maxIter=8, tol=0.0)
        estimator.callbacks = callbacks
        model = estimator.fit(df)
        return np.append(model.coefficients.toArray(), model.intercept).tolist()

    print("RESULT " + json.dumps({"calm": fit(), "killed": fit(kill), "pids": killed}))
    spark.stop()


if __name__ == "__main__":
    main()

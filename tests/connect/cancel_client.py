"""Fits that are interrupted on Spark Connect, between two passes and within one. Run by test_connect_cancelled.py."""

from __future__ import annotations

import json
import sys
import threading

import numpy as np
from pyspark.sql import SparkSession

from sparkopt.ml import LinearRegression

CALLS = {
    "interruptAll": lambda spark: spark.interruptAll(),
    "interruptTag": lambda spark: spark.interruptTag("mine"),
    "another's tag": lambda spark: spark.interruptTag("yours"),
}


def ended(spark: SparkSession, rows, folder: str, engine: str, call: str) -> str:
    """Return how a fit ends that is interrupted at its 6th step."""

    def cancel(progress) -> None:
        if progress.record.step == 6:
            CALLS[call](spark)

    kept = {"checkpointDir": f"{folder}/{engine}-{call}", "checkpointInterval": 2}
    estimator = LinearRegression(engine=engine, optimizer="gd", maxIter=10, tol=0.0, callbacks=[cancel], **kept)
    try:
        return f"{estimator.fit(rows).summary.totalIterations} steps"
    except Exception as error:  # noqa: BLE001  # reported
        return f"{type(error).__name__}: {error}"


def ended_in_a_job(spark: SparkSession, rows) -> str:
    """Return how a fit ends whose one job is interrupted by another thread.

    Mini-batches of labels with noise never come to rest, so the fit cannot end before somebody interrupts it.
    """
    over = threading.Event()

    def cancel() -> None:
        while not over.wait(0.1):
            if spark.interruptAll():
                return

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        LinearRegression(engine="local", optimizer="sgd", miniBatchFraction=0.5, maxIter=10**7, tol=0.0).fit(rows)
    except Exception as error:  # noqa: BLE001  # reported
        return f"{type(error).__name__}: {error}"
    finally:
        over.set()
        thread.join()
    return "it ended by itself"


def main(remote: str, folder: str) -> None:
    spark = SparkSession.builder.remote(remote).getOrCreate()
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    pairs = [(x.tolist(), float(x[0] + noise)) for x, noise in zip(X, rng.normal(size=len(X)), strict=True)]
    rows = spark.createDataFrame(pairs, "features array<double>, label double")
    spark.addTag("mine")
    found = {f"driver {call}": ended(spark, rows, folder, "driver", call) for call in CALLS}
    found |= {"local, by another thread": ended_in_a_job(spark, rows)}
    print("RESULT " + json.dumps(found))
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])

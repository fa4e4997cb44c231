"""Learns from a structured stream, and scores one with the newest model, in a process without any JVM.

Run by test_connect_streams.py.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from sparkopt.errors import ParameterError
from sparkopt.ml import LatestModel, LogisticRegression

BATCHES, ROWS = 3, 40
ESTIMATOR: dict[str, Any] = {"featuresCols": ["a", "b"], "optimizer": "adam", "stepSize": 0.1}


def batches() -> list[pa.Table]:
    """The rows that arrive, a file each."""
    rng, found = np.random.default_rng(0), []
    for _ in range(BATCHES):
        a, b = rng.normal(size=(2, ROWS))
        found.append(pa.table({"a": a, "b": b, "label": (a > b).astype(float)}))
    return found


def read(spark: SparkSession, folder: Path) -> DataFrame:
    stream = spark.readStream.schema("a double, b double, label double").option("maxFilesPerTrigger", 1)
    return stream.parquet(str(folder))


def learn(spark: SparkSession, folder: Path) -> dict[str, Any]:
    """Learn from two files; then from a third, by the same call once more."""
    arriving, learnt, trigger = folder / "arriving", str(folder / "learnt"), {"availableNow": True}
    arriving.mkdir()
    counts = []
    for number, rows in enumerate(batches()):
        path = arriving / f"{number}.parquet"
        pq.write_table(rows, path)
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))  # Spark takes the oldest first
        if number > 0:
            query = LogisticRegression(**ESTIMATOR).fitStream(read(spark, arriving), learnt, steps=2, trigger=trigger)
            query.awaitTermination(120)
            counts.append(LatestModel(learnt).get().onlineState.batches)
    model = LatestModel(learnt).get()
    lines = [json.loads(path.read_text()) for path in sorted((folder / "learnt" / "batches").iterdir())]
    return {"counts": counts, "coefficients": model.coefficients.tolist(), "rows": [line["rows"] for line in lines]}


def warm(spark: SparkSession, folder: Path) -> int:
    """Learn from a model that was fitted on the client's rows."""
    rows = spark.createDataFrame(batches()[0])
    start = LogisticRegression(featuresCols=["a", "b"], regParam=0.1).fit(rows)
    own = LogisticRegression(**ESTIMATOR, initialModel=start)
    query = own.fitStream(read(spark, folder / "arriving"), str(folder / "warm"), trigger={"availableNow": True})
    query.awaitTermination(120)
    found: int = LatestModel(str(folder / "warm")).get().onlineState.batches
    return found


def score(spark: SparkSession, folder: Path) -> int:
    """Score a stream with the newest model, batch after batch."""
    latest, target = LatestModel(str(folder / "learnt")), str(folder / "scored")

    def scored(batch: DataFrame, number: int) -> None:
        latest.transform(batch).select("prediction").write.mode("append").parquet(target)

    writer = read(spark, folder / "arriving").writeStream.foreachBatch(scored).trigger(availableNow=True)
    writer.start().awaitTermination(120)
    return spark.read.parquet(target).count()


def main(remote: str, folder: str) -> None:
    spark = SparkSession.builder.remote(remote).getOrCreate()
    report: dict[str, Any] = learn(spark, Path(folder))
    report["warm"] = warm(spark, Path(folder))
    report["scored"] = score(spark, Path(folder))
    try:
        LogisticRegression(**ESTIMATOR).fitStream(spark.range(3), folder)
        report["refused"] = ""
    except ParameterError as error:
        report["refused"] = str(error)
    print(f"RESULT {json.dumps(report)}")
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])

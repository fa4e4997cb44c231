"""Every engine on Spark Connect, also where what serverless compute refuses is refused: test_connect_engines.py."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import numpy as np
from pyspark.ml.linalg import SparseVector
from pyspark.sql import DataFrame, SparkSession

from sparkopt import BlockStore, Columns, losses
from sparkopt.blocks import sent
from sparkopt.engines import DriverEngine
from sparkopt.ml import LinearRegression, LogisticRegression, LogisticRegressionModel
from sparkopt.solver.progress import Stop
from sparkopt.training.trainer import Trainer
from sparkopt.validation import Interval
from tests.connect import serverless
from tests.connect.connect_data import QUICK, dense, fitted, outcome, searched, trained

ENGINES = ("auto", "driver", "resident", "allreduce", "local")


FITTING = ("driver", "allreduce", "local")


def sharded(spark: SparkSession) -> dict[str, Any]:
    """Sums that are folded on the server, and collected."""
    found = {}
    for reduction in ("collect", "sharded"):
        trainer = Trainer(losses.Logistic(), stop=Stop(2, 0.0), engine=DriverEngine(reduction=reduction))
        with BlockStore.write(dense(spark, 2), Columns("features", "label"), Interval()) as store:
            found[reduction] = trainer.fit(store).coefficients.ravel().tolist()
    return found


def in_parts(engine: str, df: DataFrame) -> Any:
    """A fit whose functions are larger than a message may be."""
    most, part = sent.MOST_SENT, sent.PART_BYTES
    sent.MOST_SENT, sent.PART_BYTES = 512, 900
    try:
        return fitted(engine, df)
    finally:
        sent.MOST_SENT, sent.PART_BYTES = most, part


def wide(engine: str, spark: SparkSession, folder: str) -> dict[str, Any]:
    """Two million coefficients: fitted from a checkpoint, scored, saved and loaded."""
    width, rng, rows = 2_000_000, np.random.default_rng(0), []
    for row in range(200):
        places = np.unique([row % 2, *rng.choice(np.arange(10, width), 5)])
        rows.append((SparseVector(width, places.tolist(), [1.0] * len(places)), float(row % 2)))
    df = spark.createDataFrame(rows, ["features", "label"]).repartition(2)
    settings = {"engine": engine, "regParam": 0.01, "tol": 0.0, "checkpointDir": f"{folder}/wide-{engine}"}
    LogisticRegression(maxIter=1, checkpointInterval=1, **settings).fit(df)
    model = LogisticRegression(maxIter=2, checkpointInterval=1, **settings).fit(df)
    model.write().overwrite().save(f"{folder}/wide-model")
    loaded = LogisticRegressionModel.load(f"{folder}/wide-model")
    right = loaded.transform(df).where("prediction = label").count()
    return {
        "size": loaded.coefficients.size,
        "equal": bool((loaded.arrays[0] == model.arrays[0]).all()),
        "right": right,
        "sum": float(np.abs(model.arrays[0]).sum()),
    }


def called(engine: str, df: DataFrame) -> Any:
    """A callback in this process."""
    steps: list[int] = []
    model = LogisticRegression(
        engine=engine, callbacks=[lambda progress: steps.append(progress.record.step)], **QUICK
    ).fit(df)
    return {"steps": len(steps), "engine": model.summary.receipt.engine}


def wrong(engine: str, df: DataFrame) -> Any:
    """A loss that a rank or task raises for: a learning rate that diverges."""
    LinearRegression(engine=engine, optimizer="sgd", stepSize=1e200, maxIter=50, tol=0.0).fit(df)


def networks(df: DataFrame, folder: str) -> dict[str, Any]:
    """Networks by launcher: trained, saved, loaded and scored, or refused."""
    return {
        name: outcome(lambda case=case: trained(df, folder, **case))
        for name, case in {
            "torch": {},
            "local": {"launcher": "local", "numProc": 1},
            "too many": {"numProc": 50},
            "no store": {"storePath": None},
            "horovod": {"launcher": "horovod"},
            "callbacks": {"callbacks": [print]},
        }.items()
    }


def on(spark: SparkSession, folder: str) -> dict[str, Any]:
    df = dense(spark, 2)
    return {
        **{engine: outcome(lambda engine=engine: fitted(engine, df)) for engine in ENGINES},
        "two partitions": outcome(lambda: fitted("allreduce", df.repartition(2))),
        "callbacks": {engine: outcome(lambda engine=engine: called(engine, df)) for engine in ENGINES},
        "wrong": {engine: outcome(lambda engine=engine: wrong(engine, df)) for engine in ("local", "allreduce")},
        "searched": {engine: outcome(lambda engine=engine: searched(spark, engine)) for engine in ENGINES},
        "sharded": outcome(lambda: sharded(spark)),
        "in parts": {engine: outcome(lambda engine=engine: in_parts(engine, df)) for engine in FITTING},
        "networks": networks(df, folder),
        "plan": outcome(lambda: str(LogisticRegression().explain(df))),
    }


def main(remote: str, folder: str) -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    spark = SparkSession.builder.remote(remote).getOrCreate()
    plain = on(spark, folder)
    refusing, refuser = serverless.session(remote)
    found = {"connect": plain, "serverless": on(refusing, folder), "refused": sorted(set(refuser.refusals))}
    found["provoked"] = serverless.provoked(refusing)
    found["wide"] = {engine: outcome(lambda engine=engine: wide(engine, spark, folder)) for engine in FITTING}
    found["views"] = [table.name for table in [*spark.catalog.listTables(), *refusing.catalog.listTables()]]
    print("RESULT " + json.dumps(found))
    refusing.stop()  # gRPC waits forever for a channel that is closed while the interpreter ends
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])

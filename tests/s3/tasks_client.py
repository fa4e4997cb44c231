"""On Spark, whose session alone knows the S3 server: networks, checkpoints, columns of paths. Run by test_tasks.py.

``tasks_client ENDPOINT``: the environment has no keys, so that what tasks know they were given.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import numpy as np
from pyspark.sql import functions as F

from sparkopt import images
from sparkopt.launch.session import session
from sparkopt.ml.image import ImageTransformer
from tests import jvm
from tests.connect.connect_data import dense, network, outcome

ROOT = Path(__file__).parents[2]


class Interrupt(Exception):
    """What ends a training in the middle."""


def networks(df, launcher: str) -> dict:
    """Train on rows in the store, with checkpoints there; interrupt, and resume."""
    kept = {"store": "s3a://bucket/rows", "epochs": 3, "batchSize": 64, "checkpointInterval": 5}
    kept |= {"launcher": launcher, "numProc": 2 if launcher == "torch" else 1}
    calm = network(**kept).fit(df)

    def stop(progress) -> None:
        if progress.record.step == 12:
            raise Interrupt

    kept["checkpointDir"] = f"s3a://bucket/checkpoints-{launcher}"
    stopped = outcome(lambda: network(**kept, callbacks=[stop]).fit(df))
    resumed = network(**kept).fit(df)
    losses = [[one["loss"] for one in model.summary.history] for model in (calm, resumed)]
    return {"stopped": str(stopped), "losses": losses, "resumed": str(resumed.summary.receipt.resumed)}


def pictures(spark, names: list[str]) -> dict:
    """Images by their paths: an expression, a stage, and a network's input."""
    df = spark.createDataFrame([(name, float(place % 2)) for place, name in enumerate(names)], ["image", "label"])
    small = images.Compose([images.Decode("gray"), images.Resize(2, 2), images.Rescale(1 / 255)])
    by_udf = df.select(images.udf(small, output="array")("image").alias("x")).collect()
    stage = ImageTransformer(pipeline=small, inputCol="image", output="array").transform(df).collect()
    missing = df.select(F.lit("s3a://bucket/pictures/none.png").alias("image")).limit(1)
    errors = missing.select(images.udf(small, output="array", errors=True)("image").alias("x")).first()
    return {
        "udf": [float(np.mean(row.x)) for row in by_udf],
        "stage": [float(np.mean(row.features)) for row in stage],
        "missing": errors.x.error,
    }


def pictures_of_networks(spark, names: list[str], launcher: str) -> list[float]:
    """Train on images by their paths; the scores of the same paths."""
    import torch

    from sparkopt.deep import TorchEstimator

    df = spark.createDataFrame([(name, float(place % 2)) for place, name in enumerate(names)], ["image", "label"])
    small = images.Compose([images.Decode("gray"), images.Resize(2, 2), images.Rescale(1 / 255)])
    module = functools.partial(torch.nn.Sequential, torch.nn.Flatten(), torch.nn.Linear(4, 1))
    kept = {"launcher": launcher, "numProc": 2 if launcher == "torch" else 1, "storePath": "s3a://bucket/images"}
    estimator = TorchEstimator(
        module=module, loss="logistic", epochs=1, featuresCol="image", imagePipeline=small, **kept
    )
    estimator.progress = False
    return [row.prediction for row in estimator.fit(df).transform(df).select("prediction").collect()]


def main(endpoint: str) -> None:
    login = {"access.key": "test", "secret.key": "hidden", "endpoint": endpoint, "endpoint.region": "us-east-1"}
    settings = {f"spark.hadoop.fs.s3a.{name}": value for name, value in login.items()}
    settings |= {"spark.master": "local-cluster[2,1,1024]", "spark.executor.memory": "1g", **jvm.EXECUTORS}
    spark = session(ROOT / "conf" / "local.conf", settings={**settings, "spark.driver.memory": "1g"})
    names = [f"s3a://bucket/pictures/größe {number}.png" for number in range(8)]
    found = {"pictures": outcome(lambda: pictures(spark, names))}
    for launcher in ("local", "torch"):
        found[launcher] = outcome(lambda launcher=launcher: networks(dense(spark, 2), launcher))
        found[f"pictures, {launcher}"] = outcome(
            lambda launcher=launcher: pictures_of_networks(spark, names, launcher)
        )
    print("RESULT " + json.dumps(found))
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What a client of Spark Connect does with sparkopt, in a process without any JVM. Run by test_connect.py."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.sql import DataFrame, SparkSession

from sparkopt import BlockStore, Columns, Stop, Trainer, images, losses
from sparkopt.errors import IncompatibleError
from sparkopt.ml import LogisticRegression, LogisticRegressionModel
from sparkopt.ml.image import ImageNormalizer, ImageTransformer
from sparkopt.solver.progress import Progress
from sparkopt.validation import Interval
from tests.connect.connect_data import FITS, dense, numbers, paths, scored, searched, through_onnx


def fits(spark: SparkSession) -> dict[str, Any]:
    found = {}
    for name, case in FITS.items():
        estimator, df = case(spark)
        found[name] = numbers(estimator.fit(df))
    return found


def persistence(spark: SparkSession, folder: str) -> dict[str, Any]:
    """Save twice over each other, load, and use what was loaded."""
    df = dense(spark, 2)
    estimator = LogisticRegression(maxIter=2, tol=0.0)
    estimator.write().overwrite().save(f"{folder}/estimator")
    estimator.write().overwrite().save(f"{folder}/estimator")
    pipeline = Pipeline(stages=[LogisticRegression.load(f"{folder}/estimator")]).fit(df)
    model = pipeline.stages[0]
    for _ in range(2):
        model.write().overwrite().save(f"{folder}/model")
        pipeline.write().overwrite().save(f"{folder}/pipeline")
    scored = PipelineModel.load(f"{folder}/pipeline").transform(df)
    return {
        "saved": numbers(model),
        "loaded": numbers(LogisticRegressionModel.load(f"{folder}/model")),
        "predictions": [row.prediction for row in scored.select("prediction").collect()],
        "areaUnderROC": BinaryClassificationEvaluator().evaluate(scored),
    }


def survival(spark: SparkSession) -> dict[str, Any]:
    """Delete a file under a store, then kill the executor that holds its first partition in the middle of a fit."""
    df = dense(spark, 2)
    with BlockStore.write(df, Columns("features", "label"), Interval()) as store:
        trainer = Trainer(losses.Logistic(), stop=Stop(2, 0.0))
        calm = trainer.fit(store).coefficients.tolist()
        Path(store._backend.run(lambda handle: handle.path)[1]).unlink()
        mended = trainer.fit(store).coefficients.tolist()
        try:
            store.map(len)
            refusal = ""
        except IncompatibleError as error:
            refusal = str(error)
        before = executors(store)

        def kill(progress: Progress) -> None:
            if progress.record.step == 1:
                os.kill(before[0], signal.SIGKILL)

        killed = replace(trainer, callbacks=(kill,)).fit(store).coefficients.tolist()
        after = executors(store)
    return {"calm": calm, "mended": mended, "killed": killed, "before": before, "after": after, "refusal": refusal}


def executors(store: BlockStore) -> list[int]:
    """Process id of the JVM that holds each partition."""
    return [result.value for result in store.collect(lambda part, blocks: executor())]


def executor() -> int:
    """Process id of the JVM above this worker: its daemon's parent."""
    return int(Path(f"/proc/{os.getppid()}/stat").read_text().rsplit(")", 1)[1].split()[1])


def pictures(spark: SparkSession, folder: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shades = rng.integers(0, 2, 40)
    rows = [(cv2.imencode(".png", np.full((6, 5), 40 + 120 * s, np.uint8))[1].tobytes(), float(s)) for s in shades]
    df = spark.createDataFrame(rows, ["content", "label"]).coalesce(1)
    small = images.Compose([images.Decode("gray"), images.Resize(2, 2), images.Rescale(1 / 255)])
    vectors = df.select(images.udf(small, output="array")("content").alias("x")).collect()
    stage = ImageTransformer(pipeline=small, inputCol="content", mode="DROPMALFORMED")
    model = Pipeline(stages=[stage, LogisticRegression(maxIter=3, tol=0.0, regParam=0.01)]).fit(df)
    scored = model.transform(df).select("prediction").collect()
    batches = images.BatchFunction(images.ImageKernel(small, "array"), "content", "x", "error")
    mapped = df.mapInArrow(batches, batches.schema(df.schema)).where("error is null").select("x").collect()
    stage.write().overwrite().save(f"{folder}/stage")
    loaded = ImageTransformer.load(f"{folder}/stage")
    (tmp := Path(folder) / "pictures" / "dark").mkdir(parents=True)
    (tmp / "0.png").write_bytes(rows[0][0])
    (tmp / "1.png").write_bytes(b"")
    learnt = ImageNormalizer(pipeline=small, inputCol="content").fit(df).normalization
    return {
        "shades": shades.tolist(),
        "means": [float(np.mean(row.x)) for row in vectors],
        "predictions": [row.prediction for row in scored],
        "mapped": [float(np.mean(row.x)) for row in mapped],
        "loaded": [loaded.getPipeline() == small, loaded.transform(df).count()],
        "read": sorted([row.label, row.length > 0] for row in images.read(spark, str(tmp.parent)).collect()),
        "mean": learnt.mean[0],
    }


def leftovers(spark: SparkSession) -> list[str]:
    """Files and views that stores have left."""

    def listing(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            pass
        roots = os.environ["SPARK_LOCAL_DIRS"].split(",")
        paths = [str(path) for root in roots for path in Path(root).glob("sparkopt-*")]
        yield pa.RecordBatch.from_pydict({"path": pa.array(paths, pa.string())})

    found: DataFrame = spark.range(0, 100, 1, 4).mapInArrow(listing, "path string")
    return [row.path for row in found.collect()] + [table.name for table in spark.catalog.listTables()]


def engines(spark: SparkSession) -> dict[str, str]:
    """What each engine says, and what would be done by itself."""
    df, refusals = dense(spark, 2), {}
    for engine in ("resident",):
        try:
            LogisticRegression(engine=engine).fit(df)
        except IncompatibleError as error:
            refusals[engine] = str(error)
    return {**refusals, "plan": str(LogisticRegression().explain(df))}


def main(remote: str, folder: str) -> None:
    warnings.simplefilter("error")
    spark = SparkSession.builder.remote(remote).getOrCreate()
    found = {
        "fits": fits(spark),
        "persistence": persistence(spark, folder),
        "pictures": pictures(spark, folder),
        "engines": engines(spark),
        "searched": searched(spark),
        "scored": scored(spark, f"{folder}/scored"),
        "paths": paths(spark),
        "onnx": through_onnx(spark, f"{folder}/model.onnx"),
        "survival": survival(spark),
        "leftovers": leftovers(spark),
    }
    print("RESULT " + json.dumps(found))
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Fits that Spark Classic and Spark Connect both run, on the same rows in the same partitions."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.ml.linalg import SparseVector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkopt.errors import SparkoptError
from sparkopt.ml import CrossValidator, LinearRegression, LogisticRegression, LogisticRegressionModel, OnnxModel

QUICK = dict(maxIter=3, tol=0.0)


def dense(spark: SparkSession, classes: int) -> DataFrame:
    """Random features and labels in three partitions; Spark seeds each partition, so every session draws the same."""
    rows = spark.range(0, 1500, 1, 3).select(F.array(*[F.randn(seed) for seed in range(4)]).alias("features"))
    score = F.col("features")[0] - F.col("features")[1] + 0.5 * F.randn(9)
    return rows.withColumn("label", F.least(F.floor(F.abs(score)), F.lit(classes - 1)).cast("double"))


def sparse(spark: SparkSession, classes: int) -> DataFrame:
    """Thirty features, three of them stored in each row."""
    rng = np.random.default_rng(classes)
    rows = []
    for _ in range(300):
        places = np.sort(rng.choice(30, 3, replace=False))
        rows.append((SparseVector(30, places.tolist(), rng.normal(size=3).tolist()), float(places[0] % classes)))
    return spark.createDataFrame(rows, ["features", "label"]).coalesce(1)


FITS: dict[str, Callable[[SparkSession], tuple[Any, DataFrame]]] = {
    "dense binary": lambda spark: (LogisticRegression(**QUICK), dense(spark, 2)),
    "dense multinomial": lambda spark: (LogisticRegression(regParam=0.01, **QUICK), dense(spark, 3)),
    "sparse binary": lambda spark: (
        LogisticRegression(regParam=0.01, elasticNetParam=0.5, **QUICK),
        sparse(spark, 2),
    ),
    "sparse multinomial": lambda spark: (LogisticRegression(regParam=0.01, **QUICK), sparse(spark, 4)),
    "mini-batches": lambda spark: (
        LinearRegression(optimizer="adam", miniBatchFraction=0.2, seed=3, **QUICK),
        dense(spark, 3),
    ),
}


def searched(spark: SparkSession, engine: str = "driver") -> dict[str, Any]:
    """What a cross-validation finds, its folds in shared passes."""
    estimator = LogisticRegression(engine=engine, **QUICK)
    search = CrossValidator(
        estimator=estimator,
        estimatorParamMaps=[{estimator.regParam: strength} for strength in (0.01, 10.0)],
        evaluator=BinaryClassificationEvaluator(),
        numFolds=2,
        seed=3,
    )
    found = search.fit(dense(spark, 2))
    return {"metrics": found.avgMetrics, "best": numbers(found.bestModel)}


def network(store: str, **settings: Any) -> Any:
    """A network whose training depends on nothing but its rows and their partitions."""
    import functools  # the clients that train none need no PyTorch

    import torch

    from sparkopt.deep import TorchEstimator

    module = functools.partial(torch.nn.Linear, 4, 1)
    fixed = {"module": module, "loss": "logistic", "epochs": 2, "numProc": 2, "seed": 1, "storePath": store}
    estimator = TorchEstimator(**{**fixed, **settings})
    estimator.progress = False
    return estimator


def scored(spark: SparkSession, folder: str) -> dict[str, Any]:
    """Scores of Vectors from Parquet, dense and sparse, and metrics of them."""
    rng, found = np.random.default_rng(1), {}
    vectors = dense(spark, 2).withColumn("features", array_to_vector("features"))
    for name, rows, width in (("dense", vectors, 4), ("sparse", sparse(spark, 2), 30)):
        rows.write.mode("overwrite").parquet(f"{folder}/{name}")
        stored = spark.read.parquet(f"{folder}/{name}")
        for classes in (1, 3):
            model = LogisticRegressionModel(rng.normal(size=(classes, width)), rng.normal(size=classes))
            outputs = [vector_to_array(F.col(output)) for output in ("rawPrediction", "probability")]
            kept = model.transform(stored).where("prediction >= 0").select("prediction", *outputs).collect()
            found[f"{name}, {classes}"] = sorted([row[0], *row[1], *row[2]] for row in kept)
            if classes == 1:
                summary = model.evaluate(stored)
                found[f"{name}, metrics"] = [summary.accuracy, summary.areaUnderROC, summary.areaUnderPR]
    return found


def numbers(model: Any) -> list[float]:
    """Coefficients and intercepts of a model."""
    matrix, intercept = model.arrays
    return [*matrix.ravel().tolist(), *intercept.tolist()]


def outcome(action: Any) -> Any:
    """What an action returns, or its error: sparkopt's own in one line, or anything else by its type."""
    try:
        return action()
    except SparkoptError as error:  # those of pyspark.ml's estimators are pyspark's IllegalArgumentException too
        return f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001  # this is what must not happen; the test says so
        return f"raw {type(error).__name__}: {error}"[:3000]


def fitted(engine: str, df: DataFrame, **settings: Any) -> dict[str, Any]:
    model = LogisticRegression(engine=engine, regParam=0.01, **QUICK, **settings).fit(df)
    receipt = model.summary.receipt
    rows = model.transform(df).select("prediction").collect()
    return {"numbers": numbers(model), "engine": receipt.engine, "ones": sum(row.prediction for row in rows)}


def trained(df: DataFrame, folder: str, **settings: Any) -> dict[str, Any]:
    from sparkopt.deep import TorchModel

    model = network(f"{folder}/rows", **settings).fit(df)
    for _ in range(2):
        model.write().overwrite().save(f"{folder}/network")
    loaded = TorchModel.load(f"{folder}/network")
    found = loaded.transform(df).select("prediction").collect()
    losses = [record["loss"] for record in model.summary.history]
    left = sorted(path.name for path in Path(folder, "rows").iterdir())
    return {"losses": losses, "ones": sum(row.prediction for row in found), "left": left}


def paths(spark: Any) -> dict[str, Any]:
    """Return a regularisation path with its errors, and what two batches teach."""
    df = dense(spark, 2)
    found = LinearRegression(elasticNetParam=1.0).fitPath(df, numLambdas=4, numFolds=2, seed=1)
    estimator, model = LogisticRegression(optimizer="adam", stepSize=0.1), None
    for half in (df.where("label = 1 OR rand(1) < 0.5"), df):
        model = estimator.partialFit(half, model, steps=2)
    return {
        "coefficients": found.coefficients.tolist(),
        "errors": np.asarray(found.cvErrors).tolist(),
        "batches": numbers(model),
    }


def through_onnx(spark: Any, path: str) -> float | None:
    """Return how far probabilities of ONNX Runtime are from the model's; None where it is not installed."""
    if importlib.util.find_spec("onnx") is None or importlib.util.find_spec("onnxruntime") is None:
        return None
    df = dense(spark, 2)
    model = LogisticRegression(maxIter=3, tol=0.0).fit(df)
    model.toOnnx(path)
    stage = OnnxModel(model=path, fetchDict={"again": "probability"})
    rows = stage.transform(model.transform(df)).select("probability", "again").collect()
    return float(max(np.abs(row.probability.toArray() - row.again).max() for row in rows))

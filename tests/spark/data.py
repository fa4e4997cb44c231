"""Small real data sets as DataFrames."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import SparseVector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits


def frame(spark: SparkSession, X: np.ndarray, y: np.ndarray, partitions: int = 1, seed: int = 0) -> DataFrame:
    """Vectors, label, and a weight between ½ and 2, in the order given."""
    weight = np.random.default_rng(seed).uniform(0.5, 2.0, len(y))
    table = pa.table({"x": list(np.asarray(X, dtype=float)), "label": y.astype(float), "weight": weight})
    vectors = spark.createDataFrame(table).withColumn("features", array_to_vector(F.col("x"))).drop("x")
    return vectors.repartition(partitions).cache()


def diabetes(spark: SparkSession) -> DataFrame:
    return frame(spark, *load_diabetes(return_X_y=True))


def breast_cancer(spark: SparkSession) -> DataFrame:
    """The ten mean features, with spreads from a half to two.

    With all thirty the classes can be separated, so that no optimum would exist; with their own spreads, which differ
    by a factor of ten thousand, pyspark.ml does not reach the optimum of the unstandardised problem.
    """
    X, y = load_breast_cancer(return_X_y=True)
    X = X[:, :10] / X[:, :10].std(axis=0) * np.linspace(0.5, 2.0, 10)
    return frame(spark, X, y)


def digits(spark: SparkSession) -> DataFrame:
    X, y = load_digits(return_X_y=True)
    return frame(spark, X, y)


def a9a(spark: SparkSession, folder: Path) -> DataFrame:
    """The first 8,000 rows, sparse; labels −1 and 1 become 0 and 1."""
    rows = []
    with gzip.open(folder / "a9a" / "a9a.gz", "rt") as lines:
        for _, line in zip(range(8000), lines, strict=False):
            label, *entries = line.split()
            pairs = [entry.split(":") for entry in entries]
            vector = SparseVector(123, [int(i) - 1 for i, _ in pairs], [float(v) for _, v in pairs])
            rows.append((vector, float(label) > 0, 0.5 + len(rows) % 3))
    columns = spark.createDataFrame(rows, ["features", "positive", "weight"])
    return columns.withColumn("label", F.col("positive").cast("double")).repartition(2).cache()

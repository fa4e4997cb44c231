"""Small real data sets as DataFrames, and some as tables, which need no Spark."""

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
    rows = table(X, y, seed).rename_columns(["x", "label", "weight"])
    vectors = spark.createDataFrame(rows).withColumn("features", array_to_vector(F.col("x"))).drop("x")
    return vectors.repartition(partitions).cache()


def table(X: np.ndarray, y: np.ndarray, seed: int = 0) -> pa.Table:
    """Features, label, and a weight between ½ and 2."""
    weight = np.random.default_rng(seed).uniform(0.5, 2.0, len(y))
    return pa.table({"features": list(np.asarray(X, dtype=float)), "label": y.astype(float), "weight": weight})


def diabetes(spark: SparkSession) -> DataFrame:
    return frame(spark, *load_diabetes(return_X_y=True))


def breast_cancer(spark: SparkSession) -> DataFrame:
    return frame(spark, *breast_cancer_arrays())


def breast_cancer_arrays() -> tuple[np.ndarray, np.ndarray]:
    """The ten mean features, with spreads from a half to two and means of half a spread.

    With all thirty the classes can be separated, so that no optimum would exist; with their own spreads and means,
    which differ by a factor of ten thousand, pyspark.ml does not reach the optimum of the unstandardised problem, nor
    in 500 steps that without an intercept.
    """
    X, y = load_breast_cancer(return_X_y=True)
    X = (X[:, :10] - X[:, :10].mean(axis=0)) / X[:, :10].std(axis=0) + 0.5
    return X * np.linspace(0.5, 2.0, 10), y


def digits(spark: SparkSession) -> DataFrame:
    X, y = load_digits(return_X_y=True)
    return frame(spark, X, y)


def a9a(spark: SparkSession, folder: Path) -> DataFrame:
    """The first 4,000 rows, sparse; labels −1 and 1 become 0 and 1.

    Of the 123 columns, which are 14 attributes taken apart, those stay that are 1 in 5% to 50% of the rows and are no
    sum of earlier ones and a constant: the others make coefficients without penalty undetermined, or nearly so.
    """
    with gzip.open(folder / "a9a" / "a9a.gz", "rt") as lines:
        rows = [line.split() for _, line in zip(range(4000), lines, strict=False)]
    entries = [[int(entry.split(":")[0]) - 1 for entry in row[1:]] for row in rows]
    X = np.zeros((len(rows), 123))
    for number, row in enumerate(entries):
        X[number, row] = 1
    common = np.flatnonzero((X.mean(axis=0) > 0.05) & (X.mean(axis=0) <= 0.5))
    triangle = np.abs(np.diag(np.linalg.qr(np.column_stack([np.ones(len(X)), X[:, common]]), mode="r")))
    inside = np.isin(np.arange(123), common[triangle[1:] > 1e-6])
    kept = np.cumsum(inside) - 1
    vectors = [[kept[i] for i in row if inside[i]] for row in entries]
    found = [
        (SparseVector(int(inside.sum()), ones, [1.0] * len(ones)), float(float(row[0]) > 0), 0.5 + number % 3)
        for number, (ones, row) in enumerate(zip(vectors, rows, strict=True))
    ]
    return spark.createDataFrame(found, ["features", "label", "weight"]).coalesce(1).cache()

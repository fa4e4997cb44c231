"""One table in every form in which Spark holds rows, times every type of features, and what each must give.

All cells hold the same numbers, so that all give the same model: `Expected` has it from scikit-learn.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import Vectors, VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DoubleType, IntegerType, LongType, StructField, StructType
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.metrics import accuracy_score, roc_auc_score

from sparkopt.ml import CrossValidator, LogisticRegression

ROWS, WIDTH, FOLDS = 420, 6, 3
STRENGTHS = (0.01, 1.0)
NAMES = [f"x{j}" for j in range(WIDTH)]
OTHERS = ("id", "label", "fold")


@cache
def numbers() -> tuple[np.ndarray, np.ndarray]:
    """Features and labels: small integers, mostly zeros, which every type holds exactly."""
    rng = np.random.default_rng(7)
    X = rng.integers(-3, 4, (ROWS, WIDTH)) * (rng.random((ROWS, WIDTH)) < 0.3)
    y = X @ np.linspace(-1, 1, WIDTH) + rng.logistic(size=ROWS) > 0.2
    return X.astype(float), y.astype(float)


def _sparse(x: np.ndarray) -> Any:
    return Vectors.sparse(WIDTH, {int(j): float(x[j]) for j in np.flatnonzero(x)})


def _dense(x: np.ndarray) -> Any:
    return Vectors.dense(x.tolist())


Values = Callable[[int, np.ndarray], list[Any]]
KINDS: dict[str, tuple[list[str | DataType], Values]] = {
    "Vector, dense": ([VectorUDT()], lambda _, x: [_dense(x)]),
    "Vector, sparse": ([VectorUDT()], lambda _, x: [_sparse(x)]),
    "Vector, mixed": ([VectorUDT()], lambda i, x: [_sparse(x) if i % 3 else _dense(x)]),
    "array of float": (["array<float>"], lambda _, x: [x.tolist()]),
    "array of double": (["array<double>"], lambda _, x: [x.tolist()]),
    "columns": (["double", "float"] * (WIDTH // 2), lambda _, x: x.tolist()),
    "integers": (["tinyint", "smallint", "int", "bigint", "int", "int"], lambda _, x: list(map(int, x))),
    "decimals": (["decimal(5,2)", "decimal(15,3)"] * (WIDTH // 2), lambda _, x: [decimal.Decimal(int(v)) for v in x]),
    "big decimals": (["decimal(30,4)"] * WIDTH, lambda _, x: [decimal.Decimal(int(v)) for v in x]),
}
"""Types of the columns that hold the features, and a row's values; one column is "features"."""


def table(spark: SparkSession, kind: str) -> DataFrame:
    """Return the table of one kind, in memory."""
    types, values = KINDS[kind]
    X, y = numbers()
    schema = StructType([StructField("id", LongType()), StructField("label", DoubleType())])
    schema = schema.add("fold", IntegerType())
    for name, found in zip(columns(kind), types, strict=True):
        schema = schema.add(name, found if isinstance(found, DataType) else DataType.fromDDL(found))
    rows = [(i, float(y[i]), i % FOLDS, *values(i, x)) for i, x in enumerate(X)]
    return spark.createDataFrame(rows, schema)


def columns(kind: str) -> list[str]:
    """Return the names of the columns that hold the features."""
    return NAMES if len(KINDS[kind][0]) > 1 else ["features"]


def _stored(df: DataFrame, folder: Path, parts: int = 3) -> DataFrame:
    df.repartition(parts).write.parquet(str(folder))
    return df.sparkSession.read.parquet(str(folder))


def _assembled(df: DataFrame, folder: Path) -> DataFrame:
    named = [name for name in df.columns if name not in OTHERS]
    stored = _stored(df, folder).select(*OTHERS, *(F.col(name).alias(f"in {name}") for name in named))
    made = VectorAssembler(inputCols=[f"in {name}" for name in named], outputCol="features").transform(stored)
    return made.select(*OTHERS, "features")


def _joined(df: DataFrame, folder: Path) -> DataFrame:
    targets = _stored(df.select(*OTHERS), folder / "targets")
    return _stored(df.drop("label", "fold"), folder / "features").join(targets, "id")


def _view(df: DataFrame, folder: Path) -> DataFrame:
    _stored(df, folder).createOrReplaceTempView("inputs_view")
    return df.sparkSession.sql("SELECT *, 1 AS unused FROM inputs_view")


def _partitioned(df: DataFrame, folder: Path) -> DataFrame:
    df.write.partitionBy("fold", "label").parquet(str(folder))
    return df.sparkSession.read.parquet(str(folder))


def _orc(df: DataFrame, folder: Path) -> DataFrame:
    df.repartition(3).write.orc(str(folder))
    return df.sparkSession.read.schema(df.schema).orc(str(folder))  # the files do not say what is a Vector


def _csv(df: DataFrame, folder: Path) -> DataFrame:
    df.repartition(3).write.csv(str(folder), header=True)
    return df.sparkSession.read.csv(str(folder), header=True, schema=df.schema)


def _big(df: DataFrame, folder: Path) -> DataFrame:
    df.coalesce(1).write.option("parquet.block.size", 2048).parquet(str(folder))
    return df.sparkSession.read.parquet(str(folder))  # SETTINGS cut it into several partitions


def _empty_files(df: DataFrame, folder: Path) -> DataFrame:
    stored = _stored(df, folder)
    df.where("id < 0").coalesce(1).write.mode("append").parquet(str(folder))
    return stored.sparkSession.read.parquet(str(folder))


SOURCES: dict[str, Callable[[DataFrame, Path], DataFrame]] = {
    "Parquet": _stored,
    "cached": lambda df, folder: _stored(df, folder).cache(),
    "createDataFrame": lambda df, _: df,
    "assembled": _assembled,
    "joined": _joined,
    "view": _view,
    "partitioned": _partitioned,
    "ORC": _orc,
    "CSV": _csv,
    "many small files": lambda df, folder: _stored(df, folder, 24),
    "one big file": _big,
    "empty files": _empty_files,
}
SETTINGS = {"one big file": {"spark.sql.files.maxPartitionBytes": "3000", "spark.sql.files.openCostInBytes": "0"}}
IMPOSSIBLE = {
    **{
        ("CSV", kind): "CSV has no type for it: Spark refuses to write such a column"
        for kind in ("Vector, dense", "Vector, sparse", "Vector, mixed", "array of float", "array of double")
    },
    **{
        ("assembled", kind): "VectorAssembler takes numbers and Vectors: Spark refuses an array"
        for kind in ("array of float", "array of double")
    },
}
"""Combinations that Spark itself refuses."""
CELLS = [(source, kind) for source in SOURCES for kind in KINDS if (source, kind) not in IMPOSSIBLE]
SEARCHED = [cell for cell in CELLS if cell[0] == "Parquet" or cell[1] in ("Vector, sparse", "decimals")]
"""Cells in which CrossValidator is run: a row of the table and two of its columns, since a search is many fits."""
BY_ARROW = ("Parquet", "view", "partitioned", "many small files", "one big file", "empty files", "assembled")
"""Sources that are bare scans of Parquet files."""
NOT_BY_ARROW = [("assembled", kind) for kind in KINDS if kind.startswith("Vector")]
"""VectorAssembler over Vectors is Spark's to compute."""


def cell(spark: SparkSession, folder: Path, source: str, kind: str) -> dict[str, Any]:
    """Return what one cell of the table gives, as JSON values: model, scores, metrics, summary, search."""
    for name, value in SETTINGS.get(source, {}).items():
        spark.conf.set(name, value)
    df = SOURCES[source](table(spark, kind), folder / f"{source}, {kind}")
    try:
        return _of(df, (source, kind) in SEARCHED)
    finally:
        df.unpersist()
        for name in SETTINGS.get(source, {}):
            spark.conf.unset(name)


def _of(df: DataFrame, is_searched: bool) -> dict[str, Any]:
    features = {} if "features" in df.columns else {"featuresCols": NAMES}
    estimator = LogisticRegression(regParam=STRENGTHS[0], tol=1e-14, maxIter=100, **features)
    model = estimator.fit(df)
    outputs = [vector_to_array(F.col(name)) for name in ("rawPrediction", "probability")]
    scored = model.transform(df).select("id", *outputs, "prediction", "label").collect()
    evaluated = model.evaluate(df)
    summary = model.summary
    matrix, intercept = model.arrays
    found = {
        "coefficients": [*matrix[0].tolist(), float(intercept[0])],
        "reader": summary.receipt.reader,
        "scores": sorted([row[0], row[1][1], row[2][1], row[3], row[4]] for row in scored),
        "evaluate": [evaluated.accuracy, evaluated.areaUnderROC],
        "summary": [summary.accuracy, summary.areaUnderROC],
        "predicted": summary.predictions.where("prediction = 1").count(),
    }
    if is_searched:
        grid = [{estimator.regParam: strength} for strength in STRENGTHS]
        search = CrossValidator(
            estimator=estimator, estimatorParamMaps=grid, evaluator=BinaryClassificationEvaluator(),
            numFolds=FOLDS, foldCol="fold",
        )  # fmt: skip
        found["searched"] = list(search.fit(df).avgMetrics)
    return found


class Expected:
    """The model, its scores and metrics, by scikit-learn."""

    def __init__(self) -> None:
        X, y = numbers()
        everything = np.arange(ROWS)
        self.coefficients = self._fit(everything, STRENGTHS[0])
        raw = self._raw(X, self.coefficients)
        self.scores = np.column_stack([everything, raw, 1 / (1 + np.exp(-raw)), raw > 0, y])
        self.metrics = [accuracy_score(y, raw > 0), roc_auc_score(y, raw)]
        folds = everything % FOLDS
        self.searched = [
            np.mean([self._held_out(folds == fold, strength) for fold in range(FOLDS)]) for strength in STRENGTHS
        ]

    def _held_out(self, aside: np.ndarray, strength: float) -> float:
        X, y = numbers()
        return float(roc_auc_score(y[aside], self._raw(X[aside], self._fit(~aside, strength))))

    @staticmethod
    def _fit(rows: np.ndarray, strength: float) -> np.ndarray:
        X, y = (values[rows] for values in numbers())
        mean, std = X.mean(axis=0), X.std(axis=0, ddof=1)
        options = {"C": 1 / (strength * len(y)), "solver": "newton-cholesky", "tol": 1e-13, "max_iter": 200}
        model = Reference(**options).fit((X - mean) / std, y)
        coefficients = model.coef_[0] / std
        return np.append(coefficients, model.intercept_[0] - mean @ coefficients)

    @staticmethod
    def _raw(X: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        return np.asarray(X @ coefficients[:-1] + coefficients[-1])

    def check(self, found: dict[str, Any], kind: str) -> None:
        """Assert that a cell gives this; rows of floats are multiplied as floats."""
        near = 2e-6 if kind == "array of float" else 1e-8
        np.testing.assert_allclose(found["coefficients"], self.coefficients, rtol=near)
        own = self._raw(numbers()[0], np.array(found["coefficients"]))
        scores = np.array(found["scores"])
        np.testing.assert_allclose(scores[:, 1], own, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(scores, self.scores, rtol=0, atol=near)
        np.testing.assert_allclose(found["evaluate"], self.metrics, rtol=1e-12)
        np.testing.assert_allclose(found["summary"], self.metrics, rtol=1e-12)
        assert found["predicted"] == self.scores[:, 3].sum()
        if "searched" in found:
            np.testing.assert_allclose(found["searched"], self.searched, rtol=1e-12)

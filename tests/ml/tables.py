"""Rows of tables, and every kind of model of them: what the tests without Spark share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from sparkopt import ml
from sparkopt.machine import Table

N, WIDTH = 600, 4
NAMES = [f"x{i}" for i in range(WIDTH)]
rng = np.random.default_rng(11)
X = np.round(rng.normal(size=(N, WIDTH)), 3)
X[rng.random(X.shape) < 0.3] = 0.0
RAW = X @ [1.0, -1.0, 0.5, 0.0] + 0.2
COLUMNS = {
    "label": (RAW + rng.logistic(size=N) > 0).astype(float),
    "kind": np.argmax(X[:, :3] + rng.gumbel(size=(N, 3)), axis=1).astype(np.int64),
    "amount": RAW + rng.normal(size=N),
    "count": rng.poisson(np.exp(RAW / 2)).astype(np.int32),
    "weight": rng.uniform(0.5, 2.0, N),
    "offset": rng.normal(size=N) / 4,
    "fold": rng.integers(0, 3, N).astype(np.int32),
    "time": np.exp(RAW / 2 + np.log(rng.exponential(size=N))),
    "ended": rng.random(N) < 0.7,
    "grade": np.digitize(RAW + rng.logistic(size=N), [-1.0, 1.0]),
}
ROWS = pa.table({"features": list(X), **COLUMNS, **dict(zip(NAMES, X.T, strict=True)), "name": ["a"] * N})
QUICK: dict[str, Any] = {"weightCol": "weight"}
ESTIMATORS = {
    "least squares": ml.LinearRegression(labelCol="amount", **QUICK),
    "lasso of columns": ml.LinearRegression(
        labelCol="amount", featuresCols=NAMES, regParam=0.1, elasticNetParam=1.0, **QUICK
    ),
    "huber": ml.LinearRegression(labelCol="amount", loss="huber", **QUICK),
    "quantile": ml.QuantileRegression(labelCol="amount", quantile=0.8, **QUICK),
    "logistic": ml.LogisticRegression(threshold=0.4, **QUICK),
    "classes": ml.LogisticRegression(labelCol="kind", regParam=0.01, thresholds=[0.5, 0.3, 0.4], **QUICK),
    "support vectors": ml.LinearSVC(regParam=0.01, **QUICK),
    "poisson": ml.GeneralizedLinearRegression(
        family="poisson", labelCol="count", offsetCol="offset", linkPredictionCol="link", **QUICK
    ),
    "tweedie": ml.GeneralizedLinearRegression(
        family="tweedie", variancePower=1.5, linkPower=0.0, labelCol="count", **QUICK
    ),
    "survival": ml.AFTSurvivalRegression(labelCol="time", censorCol="ended", quantilesCol="quantiles", **QUICK),
    "ordinal": ml.OrdinalRegression(labelCol="grade", **QUICK),
    "factorization": ml.FMRegressor(labelCol="amount", factorSize=3, regParam=0.1, maxIter=500, tol=1e-9, **QUICK),
    "factorization of classes": ml.FMClassifier(
        factorSize=2, regParam=0.1, thresholds=[0.6, 0.4], maxIter=500, tol=1e-9, **QUICK
    ),
    "perceptron": ml.MultilayerPerceptronClassifier(
        labelCol="kind", layers=[WIDTH, 5, 3], regParam=0.01, maxIter=3000, tol=1e-9, **QUICK
    ),
    "perceptron of numbers": ml.MultilayerPerceptronRegressor(
        labelCol="amount", layers=[WIDTH, 4, 3, 1], regParam=0.01, maxIter=3000, tol=1e-9, **QUICK
    ),
    "negative binomial": ml.NegativeBinomialRegression(labelCol="count", offsetCol="offset", **QUICK),
}
EVALUATORS = {
    "logistic": ml.BinaryClassificationEvaluator(weightCol="weight", numBins=0),
    "support vectors": ml.BinaryClassificationEvaluator(weightCol="weight"),
    "factorization of classes": ml.BinaryClassificationEvaluator(weightCol="weight"),
    "perceptron": ml.MulticlassClassificationEvaluator(labelCol="kind", metricName="accuracy", weightCol="weight"),
    "classes": ml.MulticlassClassificationEvaluator(labelCol="kind", metricName="accuracy", weightCol="weight"),
    "ordinal": ml.MulticlassClassificationEvaluator(labelCol="grade", metricName="accuracy", weightCol="weight"),
}


def evaluator_of(name: str) -> Any:
    """The evaluator of an estimator's models."""
    label = ESTIMATORS[name].getLabelCol()
    return EVALUATORS.get(name, ml.RegressionEvaluator(labelCol=label, weightCol="weight"))


def vectors(rows: np.ndarray) -> pa.Array:
    """Rows as Spark's structs of Vectors, every other one sparse."""
    found = []
    for number, row in enumerate(rows):
        places = np.flatnonzero(row)
        by_place = {"type": 0, "size": len(row), "indices": places, "values": row[places]}
        found.append({"type": 1, "size": None, "indices": None, "values": row} if number % 2 else by_place)
    fields = [("type", pa.int8()), ("size", pa.int32()), ("indices", pa.list_(pa.int32()))]
    return pa.array(found, pa.struct([*fields, ("values", pa.list_(pa.float64()))]))


def _parquet(folder: Any) -> str:
    path = str(folder / "rows.parquet")
    pq.write_table(ROWS, path, row_group_size=150)
    return path


INPUTS = {
    "Arrow": lambda folder: ROWS,
    "chunks": lambda folder: pa.concat_tables([ROWS.slice(0, 7), ROWS.slice(7)]),
    "batch": lambda folder: ROWS.combine_chunks().to_batches()[0],
    "Vectors": lambda folder: ROWS.set_column(0, "features", vectors(X)),
    "pandas": lambda folder: ROWS.to_pandas().set_index(pd.Index(np.arange(N) * 2, name="id")),
    "table": lambda folder: Table.of(ROWS),
    "Parquet": _parquet,
}
"""The same rows as users have them."""


def arrow(data: Any) -> pa.Table:
    """Scored rows as Arrow."""
    if isinstance(data, Table):
        return pa.Table.from_batches([batch for part in data.partitions for batch in part.batches()], data.schema)
    if isinstance(data, pd.DataFrame):
        return pa.Table.from_pandas(data, preserve_index=False)
    if isinstance(data, pa.RecordBatchReader):
        return data.read_all()
    return data if isinstance(data, pa.Table) else pa.Table.from_batches([data])


def column(rows: Any, name: str) -> np.ndarray:
    """A column of scored rows as an array (n,) or (n, k)."""
    return np.array(arrow(rows)[name].to_pylist())


SPARSE = sparse.csr_array(X)

"""Tables of 20,000 numeric columns on Spark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from sparkopt import ml
from tests.ml import field

WIDTH = 20_000


def train_and_score(spark: SparkSession, folder: Path) -> None:
    """The model and what it predicts are those without Spark; a wrong name is told before the first job."""
    names = [f"c{number}" for number in range(WIDTH)]
    columns = {name: np.arange(6.0) * (place % 5) for place, name in enumerate(names)}
    rows = pa.table({**columns, "label": [0.0, 1.0] * 3})
    pq.write_table(rows, folder / "wide.parquet")
    df = spark.read.parquet(str(folder / "wide.parquet")).coalesce(1)
    estimator = ml.LinearRegression(featuresCols=names, regParam=1.0)
    found, expected = estimator.fit(df), estimator.fit(rows)
    np.testing.assert_allclose(found.coefficients.toArray(), expected.coefficients.toArray(), atol=1e-9)
    scored = found.transform(df).select("prediction").toArrow()
    np.testing.assert_allclose(scored["prediction"], expected.transform(rows)["prediction"], atol=1e-9)
    field.refused(
        r"'nope' does not exist. Columns: c0, c1, .* \(20,001 in all\)",
        lambda: ml.LinearRegression(featuresCols=[*names, "nope"]).fit(df),
    )

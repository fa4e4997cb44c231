"""Data that several modules look at: made and cached once a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyspark.ml import regression
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tests import spark_data as data


@pytest.fixture(scope="session")
def diabetes(spark) -> DataFrame:
    return data.diabetes(spark)


@pytest.fixture(scope="session")
def cancer(spark) -> DataFrame:
    return data.breast_cancer(spark)


@pytest.fixture(scope="session")
def digits(spark) -> DataFrame:
    return data.digits(spark)


@pytest.fixture(scope="session")
def generalized(diabetes) -> Callable[..., tuple[DataFrame, Any]]:
    """A function from options to rows with a label of that family, and pyspark.ml's model of them: fitted once."""
    binary = diabetes.withColumn("label", F.when(F.col("label") > 140.5, 1.0).otherwise(0.0)).cache()
    known: dict[str, Any] = {}

    def fit(**options: Any) -> tuple[DataFrame, Any]:
        rows, key = binary if options["family"] == "binomial" else diabetes, repr(sorted(options.items()))
        if key not in known:
            known[key] = regression.GeneralizedLinearRegression(tol=1e-12, maxIter=100, **options).fit(rows)
        return rows, known[key]

    return fit

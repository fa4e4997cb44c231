"""The suites' data sets as DataFrames, each made when a test first asks for it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from pyspark.ml.linalg import Vectors

from tests.ml.published import rows

OUTLIERS = {"slopes": [0.6, -1.2], "intercept": -2.1, "count": 100, "variance": (1.5, 0.8)}


def weighted(spark, X, y):
    return X, y, rows.weights(spark, len(y))


def small_variance(feature_variance):
    return [5.843, 3.057, 3.758, 10.199], [*rows.VARIANCE[:3], feature_variance]


SETS = {
    "flowers": lambda spark: weighted(spark, *rows.classes([rows.FLOWERS], rows.MEAN, rows.VARIANCE, 10_000)),
    "narrow": lambda spark: weighted(spark, *rows.classes([rows.FLOWERS], *small_variance(0.0001), 10_000)),
    "kinds": lambda spark: weighted(spark, *rows.classes(rows.KINDS, rows.MEAN, rows.VARIANCE, 10_000)),
    "narrow kinds": lambda spark: weighted(spark, *rows.classes(rows.KINDS, *small_variance(0.001), 50_000)),
    "constant kinds": lambda _: rows.classes([known[:3] for known in rows.KINDS], [5.843, 3.0], [0.6856, 0.0], 100),
    "lines": lambda _: rows.lines([4.7, 7.2], 6.3, 10_000),
    "lines through the origin": lambda _: rows.lines([4.7, 7.2], 0.0, 10_000),
    "outliers": lambda _: [
        np.concatenate(both) for both in zip(rows.lines([4.7, 7.2], 6.3, 900), rows.lines(**OUTLIERS), strict=True)
    ],
    "sides": lambda _: rows.sides([1.0, 2.0, 3.0, 4.0], 1.0, 10_000),
}


@pytest.fixture(scope="session")
def draws(spark):
    """Draws of a family, of ten thousand rows."""
    return cache(lambda family: rows.drawn(spark, family, 10_000))


@pytest.fixture(scope="session")
def frames(spark, draws):
    """A DataFrame by its name in ``SETS``, or by family and link; one partition, cached."""

    @cache
    def frame(name, link=None):
        X, y, *weight = SETS[name](spark) if link is None else rows.responses(link, draws(name))
        columns = {"label": y, "weight": weight[0] if weight else np.ones(len(y)), "features": list(X)}
        return spark.createDataFrame(pd.DataFrame(columns)).coalesce(1).cache()

    return frame


@pytest.fixture(scope="session")
def literal(spark):
    """A DataFrame of rows in ``small``."""
    known = {}

    def frame(rows):
        if id(rows) not in known:
            table = [(y, float(w), float(o), Vectors.dense(x)) for y, w, o, x in rows]
            made = spark.createDataFrame(table, ["label", "weight", "offset", "features"])
            known[id(rows)] = made.coalesce(1).cache()
        return known[id(rows)]

    return frame

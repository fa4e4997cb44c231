"""The suites' data sets, each made when a test first asks for it: DataFrames where Spark draws them, else tables."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

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
}
HERE = {
    "constant kinds": lambda: rows.classes([known[:3] for known in rows.KINDS], [5.843, 3.0], [0.6856, 0.0], 100),
    "lines": lambda: rows.lines([4.7, 7.2], 6.3, 10_000),
    "lines through the origin": lambda: rows.lines([4.7, 7.2], 0.0, 10_000),
    "outliers": lambda: [
        np.concatenate(both) for both in zip(rows.lines([4.7, 7.2], 6.3, 900), rows.lines(**OUTLIERS), strict=True)
    ],
    "sides": lambda: rows.sides([1.0, 2.0, 3.0, 4.0], 1.0, 10_000),
}


@pytest.fixture(scope="session")
def tables():
    """A table by its name in ``HERE``: no Spark is needed."""

    @cache
    def table(name):
        X, y = HERE[name]()
        return pa.table({"label": y, "weight": np.ones(len(y)), "features": list(X)})

    return table


@pytest.fixture(scope="session")
def draws(spark):
    """Draws of a family, of ten thousand rows."""
    return cache(lambda family: rows.drawn(spark, family, 10_000))


@pytest.fixture(scope="session")
def frames(spark, draws):
    """A DataFrame by its name in ``SETS`` or ``HERE``, or by family and link; one partition, cached."""

    @cache
    def frame(name, link=None):
        if link is not None:
            X, y, *weight = rows.responses(link, draws(name))
        else:
            X, y, *weight = HERE[name]() if name in HERE else SETS[name](spark)
        columns = {"label": y, "weight": weight[0] if weight else np.ones(len(y)), "features": list(X)}
        return spark.createDataFrame(pd.DataFrame(columns)).coalesce(1).cache()

    return frame


@pytest.fixture(scope="session")
def literal():
    """A table of rows in ``small``: no Spark is needed."""

    def table(rows):
        label, weight, offset, features = zip(*rows, strict=True)
        columns = {"label": label, "weight": weight, "offset": offset}
        numbers = {name: np.array(values, dtype=float) for name, values in columns.items()}
        lists = pa.array([list(map(float, x)) for x in features], pa.list_(pa.float64()))
        return pa.table({**numbers, "features": lists})

    return table

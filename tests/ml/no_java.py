"""Run by a test in a process of its own, where nobody finds Java: fits each estimator on a table."""

from __future__ import annotations

import warnings

import numpy as np
import pyspark.core.context
import pyspark.java_gateway

from sparkopt import Table
from sparkopt.ml import (
    GeneralizedLinearRegression,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    QuantileRegression,
)


def refuse(*_: object, **__: object) -> None:
    """Stand in for what starts a JVM."""
    raise AssertionError("a JVM was asked for")


pyspark.java_gateway.launch_gateway = refuse
pyspark.core.context.launch_gateway = refuse
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X = rng.normal(size=(60, 3))
table = Table.of((X, (X[:, 0] + rng.normal(size=60) > 0) * 1.0))
for kind in (LogisticRegression, LinearRegression, GeneralizedLinearRegression, QuantileRegression, LinearSVC):
    estimator = kind(maxIter=5)
    grid = [{estimator.regParam: 0.1}, {estimator.regParam: 0.2}]
    models = [estimator.fit(table), *dict(estimator.fitMultiple(table, grid)).values()]
    print(kind.__name__, estimator.explain(table).engine.name, len({str(model.coefficients) for model in models}))

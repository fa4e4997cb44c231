"""At the same tol and maxIter, the defaults, a model is at least as close to the optimum as pyspark.ml's, in no more
passes than pyspark.ml takes steps.

The optima are certified, by code of neither. tests/solver/test_parity.py has every pair of data and penalty without
Spark, and `make bench-optimum` more data.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from pyspark.ml import classification, regression
from pyspark.ml.linalg import DenseMatrix, Vectors
from sklearn import datasets

from sparkopt.ml import LinearRegression, LogisticRegression
from tests.optima import PenalisedModel

ROUNDING = 1e-14
"""Relative gap below which two answers are equally close."""


def bounds(low: float | None, high: float | None, shape: tuple[int, int]) -> dict[str, DenseMatrix]:
    ends = {"lowerBoundsOnCoefficients": low, "upperBoundsOnCoefficients": high}
    return {name: DenseMatrix(*shape, [end] * (shape[0] * shape[1])) for name, end in ends.items() if end is not None}


ELASTIC = {"regParam": 0.02, "elasticNetParam": 0.5}
CASES = {
    "breast_cancer, L2": ("breast_cancer", {"regParam": 0.01}, (None, None)),
    "breast_cancer, L2, raw": ("breast_cancer", {"regParam": 0.01, "standardization": False}, (None, None)),
    "breast_cancer, L1": ("breast_cancer", {"regParam": 0.01, "elasticNetParam": 1.0}, (None, None)),
    "breast_cancer, elastic net, origin": ("breast_cancer", {**ELASTIC, "fitIntercept": False}, (None, None)),
    "breast_cancer, lower": ("breast_cancer", {"regParam": 0.01}, (0.0, None)),
    "breast_cancer, both": ("breast_cancer", {"regParam": 0.01}, (-0.1, 0.1)),
    "iris, L2": ("iris", {"regParam": 0.01}, (None, None)),
    "iris, L1, raw": ("iris", {"regParam": 0.01, "elasticNetParam": 1.0, "standardization": False}, (None, None)),
    "iris, both": ("iris", {"regParam": 0.01}, (-1.0, 1.0)),
    "iris, upper": ("iris", {"regParam": 0.01}, (None, 0.5)),
    "diabetes, none": ("diabetes", {}, (None, None)),
    "diabetes, L2, raw": ("diabetes", {"regParam": 0.1, "standardization": False}, (None, None)),
    "diabetes, elastic net": ("diabetes", {"regParam": 1.0, "elasticNetParam": 0.5}, (None, None)),
}


@cache
def arrays(name: str) -> tuple[np.ndarray, np.ndarray]:
    data = getattr(datasets, f"load_{name}")()
    return data.data.astype(float), data.target.astype(float)


@pytest.fixture(scope="module")
def frames(spark):
    @cache
    def frame(name: str):
        X, y = arrays(name)
        pairs = [(Vectors.dense(x), float(label)) for x, label in zip(X, y, strict=True)]
        return spark.createDataFrame(pairs, ["features", "label"]).repartition(2).cache()

    return frame


def model_of(name: str, options: dict, ends: tuple[float | None, float | None]) -> PenalisedModel:
    X, y = arrays(name)
    unit, strength = 1.0, options.get("regParam", 0.0)
    if (
        name == "diabetes"
    ):  # the objective is over the target divided by its standard deviation, and so is the penalty
        unit = y.std(ddof=1)
        y = (y - y.mean()) / unit
    share = options.get("elasticNetParam", 0.0)
    low, high = (end if given is None else given for given, end in zip(ends, (-np.inf, np.inf), strict=True))
    kind = {"breast_cancer": "logistic", "iris": "multinomial", "diabetes": "squared"}[name]
    return PenalisedModel(
        X,
        y,
        kind,
        l1=strength * share / unit,
        l2=strength * (1 - share) / unit,
        lower=low,
        upper=high,
        standardised=options.get("standardization", True),
        intercept=options.get("fitIntercept", True),
    )


def gap(known: PenalisedModel, name: str, fitted) -> float:
    if name == "diabetes":
        _, y = arrays(name)
        unit = y.std(ddof=1)
        coefficients = np.array(fitted.coefficients)[:, None] / unit
        return known.gap(coefficients, np.array([(fitted.intercept - y.mean()) / unit]))
    return known.gap(fitted.coefficientMatrix.toArray().T, fitted.interceptVector.toArray())


@pytest.mark.parametrize("case", CASES)
def test_defaults_are_at_least_as_close_to_the_optimum_as_pyspark_ml(frames, case):
    name, options, ends = CASES[case]
    X, _ = arrays(name)
    rows = 1 if name == "breast_cancer" else 3
    bounded = bounds(*ends, (rows, X.shape[1]))
    if name == "diabetes":
        theirs = regression.LinearRegression(solver="l-bfgs", **options).fit(frames(name))
        ours = LinearRegression(**options).fit(frames(name))
    else:
        theirs = classification.LogisticRegression(**options, **bounded).fit(frames(name))
        ours = LogisticRegression(**options, **bounded).fit(frames(name))
    known = model_of(name, options, ends)
    our_gap, their_gap = gap(known, name, ours), gap(known, name, theirs)
    assert -1e-12 < our_gap < 1e-9
    assert our_gap <= max(their_gap, ROUNDING)
    assert ours.summary.receipt.passes <= max(theirs.summary.totalIterations, 2)
    assert ours.summary.receipt.gap is None or ours.summary.receipt.gap < 1e-9
    assert ours.summary.converged

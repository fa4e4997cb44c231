"""At the same tol and maxIter, the defaults, a model is at least as close to the optimum as pyspark.ml's, in no more
passes than pyspark.ml takes steps.

The optima are certified, by code of neither. Some pairs of data and penalty are tested at once, all of them in the
third tier. tests/solver/test_parity.py has them without Spark, and `make bench-optimum` more data.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
import pytest
from pyspark.ml import classification, regression
from pyspark.ml.linalg import DenseMatrix, SparseVector, Vectors
from sklearn import datasets

from sparkopt.ml import LinearRegression, LogisticRegression
from tests.optima import PenalisedModel
from tests.tiers import needs

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


CLASSES = {"breast_cancer": 2, "iris": 3, "wine": 3, "digits": 10, "a9a": 2}
"""Of each data set for classification; diabetes is for regression."""
STRENGTHS: dict[str, tuple[dict, tuple[float | None, float | None]]] = {
    "L2": ({"regParam": 0.01}, (None, None)),
    "L1": ({"regParam": 0.01, "elasticNetParam": 1.0}, (None, None)),
    "elastic net": (ELASTIC, (None, None)),
    "lower": ({"regParam": 0.01}, (0.0, None)),
    "upper": ({"regParam": 0.01}, (None, 0.05)),
    "both": ({"regParam": 0.01}, (-0.05, 0.05)),
}


def grid() -> Iterator[tuple[str, tuple]]:
    """Yield every data set with every penalty that both libraries have, on both scales, with and without intercept.

    Without a penalty the classes are separable: there is no optimum.
    """
    for name, is_standardised, has_intercept in product([*CLASSES, "diabetes"], (True, False), (True, False)):
        known = {"none": ({}, (None, None)), **STRENGTHS} if name == "diabetes" else STRENGTHS
        for penalty, (options, ends) in known.items():
            if name == "diabetes" and ends != (None, None):
                continue  # pyspark.ml's regression has no bounds
            frame = {"standardization": is_standardised, "fitIntercept": has_intercept}
            title = f"{name}, {penalty}{'' if is_standardised else ', raw'}{'' if has_intercept else ', origin'}"
            yield title, (name, {**options, **frame}, ends)


GRID = dict(grid())


@pytest.fixture(scope="module")
def rows(request):
    """Features, dense, and labels of a data set."""

    @cache
    def load(name: str) -> tuple[np.ndarray, np.ndarray]:
        if name == "a9a":
            file = request.getfixturevalue("shared_data") / "a9a" / "a9a.gz"
            X, y = datasets.load_svmlight_file(str(file), n_features=123)
            return X.toarray(), (y > 0).astype(float)
        data = getattr(datasets, f"load_{name}")()
        return data.data.astype(float), data.target.astype(float)

    return load


@pytest.fixture(scope="module")
def frames(spark, rows):
    @cache
    def frame(name: str):
        X, y = rows(name)
        kind = sparse_vector if name == "a9a" else Vectors.dense
        pairs = [(kind(x), float(label)) for x, label in zip(X, y, strict=True)]
        return spark.createDataFrame(pairs, ["features", "label"]).repartition(2).cache()

    return frame


def sparse_vector(x: np.ndarray) -> SparseVector:
    (entries,) = np.nonzero(x)
    return SparseVector(len(x), entries, x[entries])


@pytest.fixture(scope="module")
def models(rows):
    """What is minimised, by data and options: its optimum is found once."""

    @cache
    def model(name: str, options: tuple, ends: tuple[float | None, float | None], ddof: int) -> PenalisedModel:
        return model_of(name, *rows(name), dict(options), ends, ddof)

    return lambda name, options, ends, ddof: model(name, tuple(options.items()), ends, ddof)


def model_of(
    name: str, X: np.ndarray, y: np.ndarray, options: dict, ends: tuple[float | None, float | None], ddof: int
) -> PenalisedModel:
    unit, strength = 1.0, options.get("regParam", 0.0)
    if name == "diabetes":  # the target is divided by its standard deviation, and so is the penalty
        unit = y.std(ddof=ddof)
        y = (y - y.mean()) / unit
    share = options.get("elasticNetParam", 0.0)
    low, high = (end if given is None else given for given, end in zip(ends, (-np.inf, np.inf), strict=True))
    kind = "squared" if name == "diabetes" else "logistic" if CLASSES[name] == 2 else "multinomial"
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
        ddof=ddof,
    )


def gap(known: PenalisedModel, y: np.ndarray, fitted) -> float:
    if known.kind == "squared":
        unit = y.std(ddof=known.ddof)
        coefficients = np.array(fitted.coefficients)[:, None] / unit
        return known.gap(coefficients, np.array([(fitted.intercept - y.mean() * known.intercept) / unit]))
    return known.gap(fitted.coefficientMatrix.toArray().T, fitted.interceptVector.toArray())


@pytest.fixture
def compare(frames, rows, models):
    """Fit with both libraries, and compare what they reached."""

    def run(name: str, options: dict, ends: tuple[float | None, float | None]) -> None:
        X, y = rows(name)
        if name == "diabetes":
            theirs = regression.LinearRegression(solver="l-bfgs", **options).fit(frames(name))
            ours = LinearRegression(**options).fit(frames(name))
        else:
            bounded = bounds(*ends, (1 if CLASSES[name] == 2 else CLASSES[name], X.shape[1]))
            theirs = classification.LogisticRegression(**options, **bounded).fit(frames(name))
            ours = LogisticRegression(**options, **bounded).fit(frames(name))
        known = models(name, options, ends, 1)  # pyspark.ml's L-BFGS divides variances by n - 1
        their_gap = gap(known, y, theirs)
        # and its normal equations, which it takes for least squares, and whose objective ours is, by n
        our_gap = gap(models(name, options, ends, 0) if name == "diabetes" else known, y, ours)
        assert -1e-12 < our_gap < 1e-9
        assert our_gap <= max(their_gap, ROUNDING)
        assert ours.summary.receipt.passes <= max(theirs.summary.totalIterations, 2)
        assert ours.summary.receipt.gap is None or ours.summary.receipt.gap < 1e-9
        assert ours.summary.converged

    return run


AT_ONCE = ("breast_cancer, L1", "breast_cancer, lower", "iris, L2", "iris, both", "diabetes, elastic net")
"""Pairs that are tested with every commit."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[needs("minutes")] * (case not in AT_ONCE)) for case in CASES]
)
def test_defaults_are_at_least_as_close_to_the_optimum_as_pyspark_ml(compare, case):
    compare(*CASES[case])


@pytest.mark.parametrize("case", GRID)
def test_so_they_are_on_every_data_set_and_penalty(compare, minutes, case):
    compare(*GRID[case])

"""Least squares and Huber regression, as R, glmnet and scikit-learn print them."""

from __future__ import annotations

import numpy as np
import pytest

from sparkopt import ml
from tests.ml.published import TIGHT
from tests.ml.published.cases import RAW, SAME, STANDARDISED, Case
from tests.ml.published.small import PRIMES

WEIGHTED = [
    ("primes", PRIMES, 18.08, [6.08, -0.6]),
    ("primes through the origin", PRIMES, None, [-3.7271, 3.01]),
    ("constant", [(17.0, w, o, x) for _, w, o, x in PRIMES], 17.0, [0.0, 0.0]),
    ("constant through the origin", [(17.0, w, o, x) for _, w, o, x in PRIMES], None, [-9.221298, 3.394343]),
    ("zero", [(0.0, w, o, x) for _, w, o, x in PRIMES], 0.0, [0.0, 0.0]),
    ("zero through the origin", [(0.0, w, o, x) for _, w, o, x in PRIMES], None, [0.0, 0.0]),
]


@pytest.mark.parametrize("solver", ["auto", "normal", "l-bfgs"])
@pytest.mark.parametrize("case", WEIGHTED, ids=lambda case: case[0])
def test_weighted_least_squares_are_rs(solver, case, literal):
    _, rows, intercept, slopes = case
    estimator = ml.LinearRegression(weightCol="weight", solver=solver, fitIntercept=intercept is not None, **TIGHT)
    model = estimator.fit(literal(rows))
    np.testing.assert_allclose(model.coefficients, slopes, atol=1e-4)
    assert model.intercept == pytest.approx(intercept or 0.0, abs=1e-4)


def test_a_weighted_regressions_summary_is_rs(literal):
    summary = ml.LinearRegression(weightCol="weight", **TIGHT).fit(literal(PRIMES)).summary
    np.testing.assert_allclose(summary.coefficientStandardErrors, [5.556, 1.960, 9.608], atol=1e-3)
    np.testing.assert_allclose(summary.tValues, [1.094, -0.306, 1.882], atol=1e-3)
    np.testing.assert_allclose(summary.pValues, [0.471, 0.811, 0.311], atol=1e-3)
    np.testing.assert_allclose(summary.devianceResiduals, [-1.358, 1.920], atol=1e-3)


def test_a_weighted_regression_through_the_origins_summary_is_rs(literal):
    summary = ml.LinearRegression(weightCol="weight", fitIntercept=False, **TIGHT).fit(literal(PRIMES)).summary
    np.testing.assert_allclose(summary.coefficientStandardErrors, [2.9032, 0.6022], atol=1e-4)
    np.testing.assert_allclose(summary.tValues, [-1.284, 4.998], atol=1e-3)
    np.testing.assert_allclose(summary.pValues, [0.3279, 0.0378], atol=1e-4)
    np.testing.assert_allclose(summary.devianceResiduals, [-4.600, 2.344], atol=1e-3)


def test_least_squares_of_spark_s_generated_rows_are_rs(tables):
    """To all digits, so the rows are Spark's."""
    model = ml.LinearRegression(**TIGHT).fit(tables("lines"))
    np.testing.assert_allclose([model.intercept, *model.coefficients], [6.3022157, 4.6982442, 7.1994344], atol=1e-7)
    summary = model.summary
    assert summary.meanSquaredError == pytest.approx(0.00985449, abs=1e-8)
    assert summary.meanAbsoluteError == pytest.approx(0.07961668, abs=1e-8)
    assert summary.r2 == pytest.approx(0.9998737, abs=1e-7)
    assert summary.r2adj == pytest.approx(0.9998736, abs=1e-7)
    np.testing.assert_allclose(summary.tValues, [3980, 7961, 3388], atol=0.5)
    np.testing.assert_allclose(summary.pValues, 0, atol=1e-16)
    np.testing.assert_allclose(summary.coefficientStandardErrors, [0.0011805, 0.0009044, 0.0018600], atol=1e-7)
    np.testing.assert_allclose(summary.devianceResiduals, [-0.47082, 0.34635], atol=1e-5)


UNPENALISED = [
    ("lines", 6.298698, [4.700706, 7.199082], 1e-3),
    ("lines", None, [6.973403, 5.284370], 1e-2),
    ("lines through the origin", None, [4.70011, 7.19943], 1e-3),
]


@pytest.mark.parametrize("solver", ["auto", "normal", "l-bfgs"])
@pytest.mark.parametrize(("rows", "intercept", "slopes", "tolerance"), UNPENALISED, ids=str)
def test_least_squares_are_glmnets(solver, rows, intercept, slopes, tolerance, tables):
    """As close as Spark asks: glmnet was run on an earlier draw of these rows."""
    for standardization in (True, False):
        options = {"solver": solver, "standardization": standardization, "fitIntercept": intercept is not None}
        model = ml.LinearRegression(**options, **TIGHT).fit(tables(rows))
        np.testing.assert_allclose(
            [model.intercept, *model.coefficients], [intercept or 0.0, *slopes], rtol=tolerance
        )


GLMNET = [
    (0.0, 0.57, 1.0, True, 6.242284, [4.019605, 6.679538], 1e-2),
    (0.0, 0.57, 1.0, False, 6.416948, [3.893869, 6.724286], 1e-3),
    (None, 0.57, 1.0, True, 0.0, [6.272927, 4.782604], 1e-2),
    (None, 0.57, 1.0, False, 0.0, [6.207817, 4.775780], 1e-2),
    (0.0, 2.3, 0.0, True, 5.260103, [3.725522, 5.711203], 1e-2),
    (0.0, 2.3, 0.0, False, 5.790885, [3.432373, 5.919196], 1e-2),
    (None, 2.3, 0.0, True, 0.0, [5.493430, 4.223082], 1e-2),
    (None, 2.3, 0.0, False, 0.0, [5.244324, 4.203106], 1e-2),
    (0.0, 1.6, 0.3, True, 5.689855, [3.661181, 6.000274], 1e-2),
    (0.0, 1.6, 0.3, False, 6.113890, [3.407021, 6.152512], 1e-2),
    (None, 1.6, 0.3, True, 0.0, [5.643748, 4.331519], 1e-2),
    (None, 1.6, 0.3, False, 0.0, [5.455902, 4.312266], 1e-2),
]


@pytest.mark.parametrize("solver", ["auto", "normal", "l-bfgs"])
def test_penalised_least_squares_of_spark_s_generated_rows_are_glmnets(solver, tables):
    """As close as Spark asks: glmnet was run on an earlier draw of these rows."""
    for through, strength, share, standardization, intercept, slopes, tolerance in GLMNET:
        model = ml.LinearRegression(
            fitIntercept=through is not None,
            regParam=strength,
            elasticNetParam=share,
            standardization=standardization,
            solver=solver,
            **TIGHT,
        ).fit(tables("lines"))
        np.testing.assert_allclose([model.intercept, *model.coefficients], [intercept, *slopes], rtol=tolerance)


HUBER = [
    # the last coefficient is the scale
    Case("huber", SAME, "outliers", {}, 6.30024044, [4.68998007, 7.19429011, 0.07781016]),
    Case("huber", SAME, "outliers", {}, None, [6.71756703, 5.08873222, 2.55602099]),
    Case("huber, L2", STANDARDISED, "outliers", {"regParam": 0.21}, 3.75275814, [1.97732633, 3.38816722, 3.78736367]),
    Case("huber, L2", RAW, "outliers", {"regParam": 0.21}, 4.30171347, [1.73346444, 3.63746999, 3.64727428]),
    Case("huber, L2", STANDARDISED, "outliers", {"regParam": 0.21}, None, [2.59679008, 2.26973102, 4.57663119]),
    Case("huber, L2", RAW, "outliers", {"regParam": 0.21}, None, [2.28423908, 2.25196887, 4.59796435]),
]


@pytest.mark.parametrize("case", HUBER, ids=str)
def test_huber_regression_is_scikit_learns(case, tables):
    for model in case.fitted(ml.LinearRegression, tables(case.rows), loss="huber", **TIGHT):
        case.agrees(model.intercept, [*model.coefficients, model.scale])


def test_huber_regression_without_outliers_is_least_squares(tables):
    huber = ml.LinearRegression(loss="huber", epsilon=1e5, **TIGHT).fit(tables("outliers"))
    squared = ml.LinearRegression(**TIGHT).fit(tables("outliers"))
    np.testing.assert_allclose(
        [huber.intercept, *huber.coefficients], [squared.intercept, *squared.coefficients], rtol=1e-6
    )

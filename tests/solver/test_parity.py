"""At its defaults the default optimiser ends within 1e-9 of a certified optimum, in a few passes.

The loop runs over blocks in memory. tests/ml/test_optimum.py has the same beside pyspark.ml, and `make
bench-optimum` every pair of data and penalty.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from sklearn import datasets

from sparkopt import optim
from sparkopt.blocks.moments import Moments, total
from sparkopt.losses import Logistic, Loss, Multinomial, SquaredError
from sparkopt.objective.work import FullGradient
from sparkopt.penalties import L1, L2, Box, ElasticNet, NoPenalty, Penalty
from sparkopt.solver.loop import minimise
from sparkopt.solver.problem import Problem, Solution
from sparkopt.solver.progress import Record, Stop
from sparkopt.training.coordinates import SolverCoordinates
from tests.optima import PenalisedModel
from tests.problems import in_blocks, reduce_over

LOSSES: dict[str, tuple[str, Loss]] = {
    "breast_cancer": ("logistic", Logistic()),
    "iris": ("multinomial", Multinomial(3)),
    "digits": ("multinomial", Multinomial(10)),
    "diabetes": ("squared", SquaredError()),
}
PENALTIES: dict[str, tuple[Penalty, dict[str, float]]] = {
    "none": (NoPenalty(), {}),
    "L2": (L2(0.01), {"l2": 0.01}),
    "L1": (L1(0.01), {"l1": 0.01}),
    "elastic net": (ElasticNet(0.02, 0.5), {"l1": 0.01, "l2": 0.01}),
    "lower": (Box(0.0, penalty=L2(0.01)), {"l2": 0.01, "lower": 0.0}),
    "upper": (Box(upper=0.02, penalty=L2(0.01)), {"l2": 0.01, "upper": 0.02}),
    "both": (
        Box(-0.05, 0.05, penalty=ElasticNet(0.02, 0.5)),
        {"l1": 0.01, "l2": 0.01, "lower": -0.05, "upper": 0.05},
    ),
}
MOST_PASSES = 15
MOST_OF_MEMORY = 70
"""Passes of proximal L-BFGS: it takes 66 for the L1 penalty on digits."""


@cache
def rows(name: str) -> tuple[np.ndarray, np.ndarray]:
    data = getattr(datasets, f"load_{name}")()
    X, y = data.data.astype(float), data.target.astype(float)
    if name == "digits":  # the middle rows of pixels: some of the others are constant
        X, y = X[:400, 18:30], y[:400]
    return X, (y - y.mean()) / y.std(ddof=1) if name == "diabetes" else y


def solve(name: str, penalty: Penalty, optimizer: optim.Optimizer, **frame: bool) -> tuple[Solution, tuple]:
    (X, y), (_, loss) = rows(name), LOSSES[name]
    halves = [in_blocks(X[part], y[part], rows=256) for part in (slice(0, len(y) // 2), slice(len(y) // 2, None))]
    moments = total([Moments.of(half[i]) for half in halves for i in range(len(half.starts) - 1)])
    own = SolverCoordinates.of(loss, penalty, moments, scale_target=False, **frame)
    reduce = reduce_over(FullGradient(own.objective), halves)
    solution = minimise(reduce, Problem(optimizer, own.start(None), own.penalty))
    return solution, own.objective.unscale(solution.coef)


@cache
def model(name: str, penalty: str, standardised: bool, intercept: bool) -> PenalisedModel:
    X, y = rows(name)
    return PenalisedModel(
        X, y, LOSSES[name][0], **PENALTIES[penalty][1], standardised=standardised, intercept=intercept
    )


@pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "origin"])
@pytest.mark.parametrize("standardised", [True, False], ids=["standardised", "raw"])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", LOSSES)
def test_proximal_newton_ends_at_the_optimum(name, penalty, standardised, intercept):
    if penalty == "none" and name != "diabetes":
        pytest.skip("without a penalty these classes are separable, or nearly: there is no optimum")
    frame = {"standardization": standardised, "fit_intercept": intercept}
    solution, found = solve(name, PENALTIES[penalty][0], optim.proximal_newton(), **frame)
    known = model(name, penalty, standardised, intercept)
    assert solution.reason in ("tolerance", "gradient", "precision")
    assert -1e-12 < known.gap(*found) < 1e-9
    assert solution.objective == pytest.approx(known.optimum, rel=1e-9)
    assert sum(record.evaluations for record in solution.history) <= MOST_PASSES
    assert solution.gap is None or solution.gap < 1e-9 * abs(known.optimum)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", LOSSES)
def test_a_limited_memory_ends_at_the_optimum(name, penalty):
    if penalty == "none" and name != "diabetes":
        pytest.skip("without a penalty these classes are separable, or nearly: there is no optimum")
    frame = {"standardization": True, "fit_intercept": True}
    solution, found = solve(name, PENALTIES[penalty][0], optim.proximal_lbfgs(), **frame)
    assert solution.reason in ("tolerance", "gradient")
    assert -1e-12 < model(name, penalty, True, True).gap(*found) < 1e-9
    assert sum(record.evaluations for record in solution.history) <= MOST_OF_MEMORY


@pytest.mark.parametrize("name", LOSSES)
def test_lbfgs_ends_at_the_optimum(name):
    solution, found = solve(name, L2(0.01), optim.lbfgs(), standardization=True, fit_intercept=True)
    assert solution.reason == "tolerance"
    assert -1e-12 < model(name, "L2", True, True).gap(*found) < 1e-9
    assert solution.gap < 1e-9 * abs(solution.objective)


GAPS = {
    "falls fast": ([1e-3, 1e-6, 1e-9, 1e-11, 1e-12, 3e-13], None),
    "falls by half in two steps": ([1e-8 * 2 ** (-step / 2) for step in range(20)], None),
    "no longer falls": ([1e-3, 1e-6, 1e-9, 2e-9, 1e-9, 2e-9, 1e-9], "precision"),
    "varies": ([1e-3, 1e-6, 1e-10, 2e-9, 3e-10, 1e-8, 6e-11], "precision"),
    "has begun to vary": ([1e-3, 1e-6, 1e-10, 2e-9, 3e-10, 1e-8], None),
    "is large": ([1e-3, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5], None),
    "is not known": ([1e-3, 1e-9, 1e-9, 1e-9, 1e-9, 1e-9, None], None),
}


@pytest.mark.parametrize("name", GAPS)
def test_a_small_gap_that_no_longer_falls_is_that_of_rounding(name):
    gaps, expected = GAPS[name]
    history = [Record(step, 1.0 + (gap or 0.0), 1.0, 1, 10, 0.0, None, gap) for step, gap in enumerate(gaps)]
    assert Stop(max_iter=100).reason(history, halving=4) == expected
    assert Stop(max_iter=100, tol=0.0).reason(history, halving=4) is None


@pytest.mark.parametrize("seed", range(3))
def test_float32_rows_end_where_their_rounding_begins(seed):
    X, y = datasets.load_digits(return_X_y=True)
    kept = np.random.default_rng(seed).random(len(y)) < 0.8
    X, y = X[kept] / 16, y[kept].astype(float)
    moments, frame = Moments.of(in_blocks(X, y, rows=len(y))[0]), {"standardization": True, "fit_intercept": True}
    own = SolverCoordinates.of(Multinomial(10), L2(0.001), moments, scale_target=False, **frame)

    def solved(rows: np.ndarray) -> Solution:
        reduce = reduce_over(FullGradient(own.objective), [in_blocks(rows, y, rows=256)])
        return minimise(reduce, Problem(optim.proximal_newton(), own.start(None), own.penalty))

    found, exact = solved(X.astype(np.float32)), solved(X)
    assert found.reason in ("tolerance", "precision")
    assert found.objective == pytest.approx(exact.objective, rel=1e-6)

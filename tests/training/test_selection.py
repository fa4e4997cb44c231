"""Which optimiser is cheapest: by width, rows, models, engine and penalty; and what explain shows of it."""

from __future__ import annotations

import numpy as np
import pytest

from sparkopt.engines import DriverEngine, LocalEngine, ResidentEngine
from sparkopt.engines.base import FitSize
from sparkopt.losses import Hinge, Logistic, Multinomial, SquaredError
from sparkopt.objective.linear import LinearObjective
from sparkopt.penalties import L1, L2, Box, GroupLasso, NoPenalty
from sparkopt.training.selection import WIDEST, choose_optimizer, hessian_cost, sparse_hessian_cost

EVERY = [LocalEngine(), DriverEngine(), ResidentEngine()]


def chosen(features, rows, penalty, loss=None, engines=EVERY, models=1, density=1.0) -> str:
    objective = LinearObjective(loss or Logistic(), features)
    size = FitSize(round(density * rows * features * (8 if density == 1 else 12)), 8 * objective.size, 8, 8)
    return choose_optimizer(objective, penalty, size, engines, models, rows).name


@pytest.mark.parametrize("penalty", [NoPenalty(), L2(0.1), L1(0.1), Box(0.0), GroupLasso(0.1, [[0, 1]])], ids=repr)
def test_few_rows_are_left_to_newton(penalty):
    assert chosen(30, 1000, penalty) == "proximal-newton"


@pytest.mark.parametrize("penalty", [NoPenalty(), L2(0.1), L1(0.1), Box(0.0), GroupLasso(0.1, [[0, 1]])], ids=repr)
def test_a_hessian_that_is_too_wide_is_never_made(penalty):
    assert chosen(WIDEST + 1, 1000, penalty) == "proximal-lbfgs"
    assert chosen(100_000, 1000, penalty) == "proximal-lbfgs"


def test_much_arithmetic_is_left_to_gradients_and_slow_passes_to_newton():
    assert chosen(200, 1_000_000, L2(0.1), engines=[ResidentEngine()], models=3) == "subsampled-newton"
    assert chosen(200, 10_000, L2(0.1), engines=[ResidentEngine()], models=300) == "lbfgs"
    assert chosen(1000, 1_000_000, L2(0.1), engines=[ResidentEngine()]) == "subsampled-newton"
    assert chosen(1500, 300_000, L2(0.1), engines=[ResidentEngine()]) == "proximal-lbfgs"
    assert chosen(300, 10_000, L2(0.1), engines=[DriverEngine()]) == "proximal-newton"


@pytest.mark.parametrize("penalty", [L2(0.1), L1(0.1), Box(0.0)], ids=repr)
def test_many_classes_are_left_to_newton_so_long_as_it_is_short(penalty):
    assert chosen(64, 1800, penalty, Multinomial(10)) == "proximal-newton"
    assert chosen(64, 5_000_000, penalty, Multinomial(10), [ResidentEngine()]) != "proximal-newton"
    assert chosen(64, 1800, penalty, Multinomial(10), models=20) != "proximal-newton"


def test_many_rows_are_left_to_a_sample_unless_passes_are_slow():
    for loss in (Logistic(), Multinomial(5)):
        for penalty in (NoPenalty(), L2(0.1), L1(0.1), Box(0.0), GroupLasso(0.1, [[0, 1]])):
            assert chosen(80, 1_000_000, penalty, loss, [ResidentEngine()]) == "subsampled-newton"
    assert chosen(80, 100_000, L2(0.1), engines=[DriverEngine()]) == "proximal-newton"
    assert chosen(80, 4000, L2(0.1), engines=[ResidentEngine()]) == "proximal-newton"


def test_outputs_are_counted():
    """The rows have as many bytes, but the arithmetic is more."""
    objectives = [LinearObjective(loss, 50) for loss in (Logistic(), Multinomial(10))]
    size = FitSize(10**9, 400, 8, 8)
    one, ten = (choose_optimizer(each, L1(0.1), size, [LocalEngine()], 1, 2_500_000).seconds for each in objectives)
    assert all(ten[name] > 4 * one[name] for name in one)


def test_an_exact_model_needs_two_passes():
    assert chosen(300, 30_000, L1(0.1), SquaredError(), [ResidentEngine()]) == "proximal-newton"
    assert chosen(30, 1_000_000, L1(0.1), SquaredError(), [DriverEngine()]) == "proximal-newton"
    assert chosen(300, 1_000_000, L1(0.1), SquaredError(), [ResidentEngine()]) == "subsampled-newton"
    assert chosen(1500, 1_000_000, L1(0.1), Logistic(), [ResidentEngine()]) == "proximal-lbfgs"


def test_models_share_the_reading_of_rows_but_not_hessians():
    assert chosen(60, 1_000_000, L2(0.1), engines=[ResidentEngine()], models=50) == "subsampled-newton"
    assert chosen(30, 10_000, L1(0.1), engines=[DriverEngine()], models=50) == "proximal-newton"


def test_the_cost_of_a_hessian_is_what_was_measured():
    costs = [hessian_cost(features, Logistic()) for features in (30, 100, 300, 1000)]
    np.testing.assert_allclose(costs, [5.8, 8, 17, 46], rtol=0.1)
    assert hessian_cost(100, Multinomial(3)) > hessian_cost(100, Logistic())


def test_explain_shows_the_estimates(spark):
    from sparkopt.ml import LinearSVC, LogisticRegression

    df = spark.range(40).selectExpr("array(double(id), double(id % 3)) AS features", "double(id % 2) AS label")
    text = str(LogisticRegression().explain(df))
    assert "optimizer      proximal-newton; seconds with about as many passes as each needs: proximal-newton" in text
    assert str(LinearSVC().explain(df)).splitlines()[-1].startswith("optimizer      proximal-newton; seconds with")
    lasso = LinearSVC(regParam=0.1, elasticNetParam=1.0)
    estimates = str(lasso.explain(df)).splitlines()[-1]
    assert estimates.startswith("optimizer      proximal-newton; seconds with")
    assert "proximal-lbfgs" in estimates
    assert "optimizer      gd" in str(LogisticRegression(optimizer="gd").explain(df))
    assert Hinge().smooth is False


def test_what_a_hessian_of_sparse_rows_costs():
    """Dense products do not leave out their zeros; products of the rows as they are do."""
    assert chosen(60, 1_000_000, L1(0.1), engines=[ResidentEngine()]) == "subsampled-newton"
    assert chosen(300, 1_000_000, L1(0.1), engines=[ResidentEngine()], density=0.3) == "subsampled-newton"
    assert chosen(200, 1_000_000, L1(0.1), engines=[ResidentEngine()], density=0.05) == "subsampled-newton"
    assert chosen(1000, 1_000_000, L1(0.1), engines=[ResidentEngine()], density=0.005) == "proximal-lbfgs"
    assert sparse_hessian_cost(300, 4.7, Logistic()) == pytest.approx(15, rel=0.1)
    assert sparse_hessian_cost(123, 14, Logistic()) == pytest.approx(10, rel=0.1)

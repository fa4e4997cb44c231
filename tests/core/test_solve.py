"""The one loop: when it stops, what it records, what it refuses, and how many problems share a pass."""

from __future__ import annotations

import numpy as np
import pytest

from sparkopt import optim
from sparkopt.errors import DivergedError, IncompatibleError, ParameterError
from sparkopt.penalties import L1, L2, NoPenalty
from sparkopt.solve import Problem, Stop, check_compatible, minimise, minimise_many
from tests.core.problems import quadratic

BOWL = quadratic("bowl", np.array([1.0, 0.4, 0.1]))


def solve(optimizer=None, stop=None, **options):
    return minimise(BOWL.reduce, Problem(optimizer or optim.lbfgs(), BOWL.start, stop=stop or Stop(), **options))


def test_max_iter_counts_steps():
    solution = solve(optim.gd(0.1), Stop(7, 0.0))
    assert (solution.iterations, solution.reason, solution.converged) == (7, "maxIter", False)
    assert [record.step for record in solution.history] == list(range(8))


def test_no_step_at_all_returns_the_start():
    solution = solve(stop=Stop(0))
    assert np.array_equal(solution.coef, BOWL.start)
    assert solution.objective == pytest.approx(BOWL.value(BOWL.start))


def test_tolerance_is_the_relative_change_of_the_objective():
    solution = solve(optim.gd(0.5), Stop(1000, 1e-3))
    last, before = solution.history[-1].objective, solution.history[-2].objective
    earlier, one_before = solution.history[-2].objective, solution.history[-3].objective
    assert solution.reason == "tolerance"
    assert abs(before - last) <= 1e-3 * before
    assert abs(one_before - earlier) > 1e-3 * one_before


def test_gradient_tolerance():
    solution = solve(optim.gd(0.5), Stop(1000, 0.0, gradient_tol=1e-3))
    norms = [record.gradient_norm for record in solution.history]
    assert solution.reason == "gradient"
    assert norms[-1] <= 1e-3 < norms[-2]


def test_windows_compare_means():
    noise = np.random.default_rng(0).normal(size=1000)

    def reduce(coefs, step):
        sums = BOWL.reduce(coefs, step)
        return type(sums)(sums.loss * 0 + 10 + 0.01 * noise[step], sums.gradient, sums.weight, sums.rows)

    def steps(window):
        stop = Stop(300, 1e-4, window=window)
        return minimise(reduce, Problem(optim.gd(1e-6), BOWL.start, stop=stop)).iterations

    assert steps(50) >= 99  # two whole windows


def test_a_callback_may_stop():
    solution = solve(stop=Stop(100, 0.0), callbacks=[lambda p: p.record.step == 2])
    assert (solution.iterations, solution.reason) == (2, "callback")


def test_line_searches_end_at_the_precision_of_the_numbers():
    solution = solve(optim.lbfgs(), Stop(500, 0.0))
    assert solution.reason in ("precision", "gradient")
    assert BOWL.gap(solution.coef) < 1e-12


@pytest.mark.parametrize("name", ["sgd", "momentum"])
def test_divergence_names_step_and_way_out(name):
    with pytest.raises(DivergedError, match=rf"'{name}' diverged at step \d+: the objective was .* smaller stepSize"):
        solve(optim.by_name(name, 1e3), Stop(1000, 0.0))


def test_a_start_without_objective_is_refused():
    with pytest.raises(DivergedError, match="not finite at the initial coefficients"):
        minimise(BOWL.reduce, Problem(optim.lbfgs(), np.full(3, np.nan)))


def test_many_problems_share_each_pass():
    passes = []

    def reduce(coefs, step):
        passes.append(len(coefs))
        return BOWL.reduce(coefs, step)

    names = ["gd", "momentum", "adam"]
    problems = [
        Problem(optim.by_name(n, 0.1), BOWL.start, L2(0.1 * i), Stop(10 + i, 0.0)) for i, n in enumerate(names)
    ]
    together = minimise_many(reduce, problems)
    assert passes == [3] * 11 + [2, 1]
    for problem, solution in zip(problems, together, strict=True):
        np.testing.assert_allclose(solution.coef, minimise(BOWL.reduce, problem).coef, rtol=1e-12)


@pytest.mark.parametrize("penalty", [NoPenalty(), L2(0.1), L1(0.1)], ids=["none", "l2", "l1"])
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
@pytest.mark.parametrize("is_exact", [True, False], ids=["all rows", "mini-batch"])
def test_pairs_work_or_are_refused_by_name(name, penalty, is_exact):
    optimizer = optim.by_name(name)
    refused = (not penalty.smooth and not optimizer.search.has_prox) or (
        not is_exact and optimizer.search.needs_exact
    )
    if refused:
        with pytest.raises(IncompatibleError, match=f"'{name}'.*Use"):
            check_compatible(optimizer, penalty, is_exact=is_exact)
    else:
        check_compatible(optimizer, penalty, is_exact=is_exact)


def test_stop_rules_have_domains():
    with pytest.raises(ParameterError, match="maxIter must be a whole number >= 0"):
        Stop(max_iter=-1)
    with pytest.raises(ParameterError, match="tol must be >= 0"):
        Stop(tol=-1.0)

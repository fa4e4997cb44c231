"""The one loop: when it stops, what it records, what it refuses, and how many problems share a pass."""

from __future__ import annotations

import numpy as np
import pytest

from sparkopt import optim
from sparkopt.errors import DivergedError, IncompatibleError, ParameterError
from sparkopt.losses import Logistic, SquaredError
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.work import FullGradient, MiniBatch
from sparkopt.penalties import L1, L2
from sparkopt.solver.loop import minimise, minimise_many
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Progress, Stop
from tests.problems import in_blocks, lasso, logistic, quadratic, reduce_over, regression_rows

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


def logistic_task(optimizer: optim.Optimizer, **stop) -> Problem:
    return Problem(optimizer, logistic().start, logistic().penalty, Stop(1000, **stop))


def test_without_an_estimate_tolerance_is_the_change_over_the_last_ten_steps():
    """One small step is no sign of the optimum: pyspark.ml looks at the worst of its last ten, too."""
    solution = minimise(logistic().reduce, logistic_task(optim.gd(0.05), tol=1e-4))
    values = [record.objective for record in solution.history]
    assert solution.reason == "tolerance"
    assert solution.gap is None
    assert solution.history[-1].gradient_norm > 1e-4 * values[-1]
    assert max(values[-11:]) - values[-1] <= 1e-4 * values[-1]
    assert max(values[-12:-1]) - values[-2] > 1e-4 * values[-2]


@pytest.mark.parametrize("name", ["soap", "prodigy", "dadapt-adam", "dog", "dowg"])
def test_first_steps_that_are_tiny_or_none_are_not_the_optimum(name):
    """Of an objective that they hardly change; from the optimum, the gradient ends the run at once."""

    def reduce(query):
        residual = query.request.points - 3.0
        return PartialSum(100 + 0.5 * (residual**2).sum(axis=1), residual, 1.0, 1)

    optimizer = optim.by_name(name)
    solution = minimise(reduce, Problem(optimizer, np.zeros(2), stop=Stop(3000, 1e-6)))
    assert solution.objective < 101
    assert minimise(reduce, Problem(optimizer, np.full(2, 3.0))).reason == "gradient"


def test_without_an_estimate_a_small_gradient_is_near_too():
    solution = minimise(logistic().reduce, logistic_task(optim.owlqn(), tol=1e-6))
    shares = [record.gradient_norm / record.objective for record in solution.history]
    assert solution.reason == "tolerance"
    assert shares[-1] <= 1e-6 < min(shares[:-1])


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("optimizer", [optim.lbfgs(), optim.proximal_newton()], ids=lambda o: o.name)
def test_where_the_gap_is_estimated_tolerance_is_its_square_root(optimizer, tol):
    problem = logistic()
    solution = minimise(problem.reduce, logistic_task(optimizer, tol=tol))
    assert solution.reason == "tolerance"
    gaps = [record.gap for record in solution.history[1:]]
    assert gaps[-1] == solution.gap <= 0.1 * tol**2 * solution.objective
    assert all(gap > 0.1 * tol**2 * solution.objective for gap in gaps[:-1])


@pytest.mark.parametrize("optimizer", [optim.lbfgs(), optim.proximal_newton()], ids=lambda o: o.name)
def test_the_estimated_gap_is_the_gap(optimizer):
    """Within a factor of four, near the optimum and above the rounding of the objective."""
    problem = logistic()
    best = minimise(problem.reduce, logistic_task(optim.newton_cg(), tol=0.0)).objective
    history = minimise(problem.reduce, logistic_task(optimizer, tol=0.0)).history
    near = [record for record in history if 1e-11 < record.objective - best < 1e-3]
    assert near
    for record in near:
        assert record.gap == pytest.approx(record.objective - best, rel=3)
        assert record.gap > (record.objective - best) / 4


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_where_steps_converge_linearly_a_share_of_the_tolerance_is_enough(tol):
    """The estimate may be a tenth of the gap, or ten times as much."""
    problem = logistic()
    best = minimise(problem.reduce, logistic_task(optim.newton_cg(), tol=0.0)).objective
    solution = minimise(problem.reduce, logistic_task(optim.proximal_lbfgs(), tol=tol))
    assert solution.reason == "tolerance"
    assert solution.gap <= 1e-4 * tol * solution.objective
    assert solution.objective - best <= 10 * solution.gap
    near = [record for record in solution.history[3:] if record.objective - best > 1e-12]
    assert all(0.1 < record.gap / (record.objective - best) < 30 for record in near)


def test_an_objective_that_falls_towards_zero_is_near_enough_in_the_end():
    """Separable classes without a penalty have no optimum: the objective's scale is then that of the start."""
    X, y = np.linspace(-1.0, 1.0, 40)[:, None], np.repeat([0.0, 1.0], 20)
    reduce = reduce_over(FullGradient(LinearObjective(Logistic(), 1)), [in_blocks(X, y)])
    solution = minimise(reduce, Problem(optim.proximal_newton(), np.zeros(2)))
    assert solution.reason == "tolerance"
    assert 0 < solution.objective < 1e-12


def test_gradient_tolerance():
    solution = solve(optim.gd(0.5), Stop(1000, 0.0, gradient_tol=1e-3))
    norms = [record.gradient_norm for record in solution.history]
    assert solution.reason == "gradient"
    assert norms[-1] <= 1e-3 < norms[-2]


def test_windows_compare_means():
    noise = np.random.default_rng(0).normal(size=1000)

    def reduce(query):
        sums = BOWL.reduce(query)
        return type(sums)(sums.loss * 0 + 10 + 0.01 * noise[query.step], sums.gradient, sums.weight, sums.rows)

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


@pytest.mark.parametrize("tol", [0.0, 1e-6])
@pytest.mark.parametrize("name", ["sgd", "momentum"])
def test_divergence_names_step_and_way_out(name, tol):
    """With a tolerance too: the gradient of a diverging run becomes small beside the objective."""
    with pytest.raises(DivergedError, match=rf"'{name}' diverged at step \d+: the objective was .* smaller stepSize"):
        solve(optim.by_name(name, 1e3), Stop(1000, tol))


def test_a_hessian_of_too_many_coefficients_is_refused_before_the_first_pass():
    def never(query):
        raise AssertionError("a pass was made")

    wide = Problem(optim.proximal_newton(), np.zeros(4098))
    with pytest.raises(ParameterError, match=r"4,098 coefficients, and takes at most 4,097. Use optimizer='auto'"):
        minimise(never, wide)
    with pytest.raises(ParameterError, match="4,098"):
        _ = wide.width
    assert Problem(optim.proximal_newton(), np.zeros(4097)).width == 4097 + 4097 * 4098 // 2


def test_a_start_without_objective_is_refused():
    with pytest.raises(DivergedError, match="not finite at the initial coefficients"):
        minimise(BOWL.reduce, Problem(optim.lbfgs(), np.full(3, np.nan)))


def test_many_problems_share_each_pass():
    passes = []

    def reduce(query):
        passes.append({point.tobytes() for point in query.request.points})
        assert len(passes[-1]) == len(query.request.points)  # models at the same point share the answer
        return BOWL.reduce(query)

    names = ["gd", "momentum", "adam"]
    problems = [
        Problem(optim.by_name(n, 0.1), BOWL.start, L2(0.1 * i), Stop(10 + i, 0.0)) for i, n in enumerate(names)
    ]
    together = minimise_many(reduce, problems)
    shared, passes[:] = list(passes), []
    for problem, solution in zip(problems, together, strict=True):
        np.testing.assert_allclose(solution.coef, minimise(reduce, problem).coef, rtol=1e-12)
    alone = np.split(np.array(passes), [11, 11 + 12])
    assert shared == [set().union(*(run[step] for run in alone if step < len(run))) for step in range(13)]
    assert [len(points) for points in shared[:1] + shared[-3:]] == [1, 3, 2, 1]


def test_stop_rules_have_domains():
    with pytest.raises(ParameterError, match="maxIter must be a whole number >= 0"):
        Stop(max_iter=-1)
    with pytest.raises(ParameterError, match="tol must be >= 0"):
        Stop(tol=-1.0)


class Counted:
    """A reduction that remembers the step and the number of points of each pass."""

    def __init__(self, reduce) -> None:
        self.reduce, self.passes, self.points = reduce, [], set()

    def __call__(self, query: Query) -> PartialSum:
        self.passes.append((query.step, len(query.request.points), isinstance(query.request, optim.HessianProducts)))
        self.points |= {(query.step, type(query.request), point.tobytes()) for point in query.request.points}
        return self.reduce(query)


def many() -> list[Problem]:
    start = logistic().start
    return [
        Problem(optim.lbfgs(), start, L2(0.01), Stop(8, tol=0)),
        Problem(optim.lbfgs(), start, L2(0.1), Stop(20, tol=0, gradient_tol=1e-6)),
        Problem(optim.adam(), start + 1, L2(0.1), Stop(12, tol=0)),
        Problem(optim.fista(), start, L1(0.05), Stop(15, tol=0)),
        Problem(optim.gd(), start, L2(0.1), Stop(3, tol=0)),
    ]


def test_history_has_every_step_and_the_objective_of_each():
    seen: list[Progress] = []
    solution = minimise(
        BOWL.reduce, Problem(optim.gd(0.5), BOWL.start, stop=Stop(30, tol=0), callbacks=[seen.append])
    )
    assert [record.step for record in solution.history] == list(range(31))
    assert [progress.record for progress in seen] == list(solution.history)
    for progress in seen:
        assert progress.record.objective == pytest.approx(BOWL.value(progress.coef), rel=1e-12)
        gradient = BOWL.reduce(Query(optim.Gradients(progress.coef[None]))).gradient[0]
        assert progress.record.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-12)
        assert progress.max_iter == 30
    seconds = [record.seconds for record in solution.history]
    assert seconds == sorted(seconds)
    assert solution.objective == solution.history[-1].objective
    assert (solution.iterations, solution.reason, solution.converged) == (30, "maxIter", False)


@pytest.mark.parametrize(
    "optimizer", [optim.gd(0.5), optim.gd(), optim.lbfgs(), optim.fista(8.0), optim.proximal_lbfgs()], ids=repr
)
def test_evaluations_are_the_passes_over_the_data(optimizer):
    reduce = Counted(BOWL.reduce)
    solution = minimise(reduce, Problem(optimizer, BOWL.start, stop=Stop(max_iter=20, tol=0)))
    for record in solution.history:
        assert record.evaluations == record.rows == sum(step == record.step for step, *_ in reduce.passes)


class Stumbling(optim.Search):
    """Fixed steps, but for one that makes two requests and then gives up, unless its state is the initial one."""

    def run(self, at, direction, penalty, state):
        yield optim.Gradients(at.coef[None])
        if state == 3:
            yield optim.Gradients(at.coef[None])
            return at, state
        (point,) = yield optim.Gradients((at.coef + direction)[None])
        return point, state + 1

    def init(self, coef):
        return 0


def test_a_step_that_is_tried_again_counts_all_its_passes():
    optimizer = optim.Optimizer("stumbling", optim.scale_by_learning_rate(0.1), Stumbling())
    solution = minimise(BOWL.reduce, Problem(optimizer, BOWL.start, stop=Stop(5, tol=0)))
    assert [record.step for record in solution.history] == [0, 1, 2, 3, 4, 5]
    assert [record.evaluations for record in solution.history] == [1, 2, 2, 2, 4, 2]


def test_a_mini_batch_without_a_gradient_does_not_end_the_run():
    """A row that already fits has a gradient of exactly zero; the other rows still have something to say."""
    X, y = np.ones((2, 1)), np.array([0.0, 4.0])
    work = MiniBatch(LinearObjective(SquaredError(), 1, fit_intercept=False), 0.5)
    reduce = reduce_over(work, [in_blocks(X, y)])
    assert any(reduce(Query(optim.Gradients(np.zeros((1, 1))), step)).gradient[0, 0] == 0 for step in range(10))
    stop = Stop(max_iter=200, tol=0, window=20)
    solution = minimise(reduce, Problem(optim.sgd(optim.schedules.InverseTime(1.0)), np.zeros(1), stop=stop))
    assert solution.reason == "maxIter"
    assert solution.coef[0] == pytest.approx(2.0, abs=0.5)


def test_the_gradient_norm_of_a_nonsmooth_objective_vanishes_at_its_optimum():
    problem = lasso()
    stop = Stop(1000, tol=0, gradient_tol=1e-10)
    solution = minimise(problem.reduce, Problem(optim.fista(), problem.start, problem.penalty, stop))
    assert solution.reason == "gradient"
    assert problem.gap(solution.coef) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("optimizer", [optim.gd(), optim.lbfgs()], ids=lambda o: o.name)
def test_a_search_ends_with_precision_where_rounding_hides_any_descent(optimizer):
    """The gradient lies: it never vanishes, but the objective cannot fall."""

    def reduce(query):
        return PartialSum(np.ones(len(query.request.points)), np.ones(query.request.points.shape), 1.0, 1)

    solution = minimise(reduce, Problem(optimizer, np.zeros(2), stop=Stop(50, tol=0)))
    assert solution.reason == "precision"
    assert solution.iterations == 0
    np.testing.assert_array_equal(solution.coef, np.zeros(2))


def test_mini_batches_are_seen_at_the_same_steps_by_all():
    X, y = regression_rows()
    work = MiniBatch(LinearObjective(SquaredError(), 5), 0.2, seed=3)
    reduce = reduce_over(work, [in_blocks(X, y)])
    problems = [
        Problem(optim.sgd(rate), np.zeros(6), stop=Stop(steps, tol=0)) for rate, steps in ((0.1, 9), (0.01, 20))
    ]
    for together, problem in zip(minimise_many(reduce, problems), problems, strict=True):
        np.testing.assert_allclose(together.coef, minimise(reduce, problem).coef, rtol=1e-10)


def test_the_same_run_twice_is_bit_identical():
    runs = [minimise(logistic().reduce, many()[0]) for _ in range(2)]
    assert runs[0].coef.tobytes() == runs[1].coef.tobytes()


def test_minimise_refuses_what_cannot_work_before_the_first_pass():
    reduce = Counted(BOWL.reduce)
    with pytest.raises(IncompatibleError):
        minimise(reduce, Problem(optim.adam(), BOWL.start, L1(0.1)))
    assert reduce.passes == []


def test_many_problems_share_their_passes():
    """A step costs as many passes as its most searching problem needs, not their sum."""
    alone, points = [], set()
    for problem in many():
        reduce = Counted(logistic().reduce)
        minimise(reduce, problem)
        alone.append(reduce.passes)
        points |= reduce.points
    together = Counted(logistic().reduce)
    minimise_many(together, many())
    steps = range(1 + max(step for passes in alone for step, *_ in passes))

    def of(passes, step, kind):
        return sum(at == step and what == kind for at, _, what in passes)

    for kind in (True, False):
        most = [max(of(passes, step, kind) for passes in alone) for step in steps]
        assert [of(together.passes, step, kind) for step in steps] == most
    shared = {point for point in points if point[1] is not optim.HessianProducts}
    assert sum(p for _, p, kind in together.passes if not kind) == len(shared)  # one answer for each point


def test_models_at_the_same_point_of_other_folds_have_their_own_answers():
    asked = []

    def reduce(query):
        asked.append(list(query.folds))
        folds = np.array([0.0 if fold is None else 1.0 + fold for fold in query.folds])
        residual = query.request.points - folds[:, None]
        return PartialSum(0.5 * (residual**2).sum(axis=1), residual, 1.0, 1)

    problems = [
        Problem(optim.gd(0.3), np.zeros(1), L2(strength), Stop(99, 0.0), held_out=fold)
        for fold in (None, 0, 1)
        for strength in (0.0, 1.0)
    ]
    solutions = minimise_many(reduce, problems)
    assert asked[0] == [None, 0, 1]
    assert [0, 0, 1, 1] in asked  # both models of all rows began at their optimum
    optima = [0.0, 0.0, 1.0, 0.5, 2.0, 1.0]
    np.testing.assert_allclose([solution.coef[0] for solution in solutions], optima, atol=1e-12)

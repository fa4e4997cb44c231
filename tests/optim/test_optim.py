"""Optimisers: the textbook's or torch's updates step by step, and the known optimum of every problem in the table."""

from __future__ import annotations

import numpy as np
import pytest

from sparkopt import optim
from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.losses import Hinge, Logistic, SquaredError
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.work import FullGradient, MiniBatch
from sparkopt.penalties import L2, NoPenalty
from sparkopt.solver.loop import minimise
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Stop
from tests.problems import (
    KnownProblem,
    in_blocks,
    known_problems,
    lasso,
    logistic,
    quadratic,
    reduce_over,
    regression_rows,
)

START = np.array([1.0, -2.0, 0.5])
STEPS = 25


def path(
    optimizer: optim.Optimizer, problem: KnownProblem, start=START, steps: int = STEPS, penalty=None
) -> np.ndarray:
    """Return the coefficients after each step."""
    seen = []
    stop = Stop(steps, 0.0)
    task = Problem(optimizer, start, penalty or NoPenalty(), stop, [lambda progress: seen.append(progress.coef)])
    minimise(problem.reduce, task)
    return np.array(seen)


def bowl() -> KnownProblem:
    return quadratic("bowl", np.array([1.0, 0.3, 0.05]))


TORCH = {
    "sgd": ("SGD", {"lr": 0.1}, optim.sgd(0.1)),
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}, optim.momentum(0.1)),
    "nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, optim.nesterov(0.1)),
    "adagrad": ("Adagrad", {"lr": 0.1}, optim.adagrad(0.1)),
    "adadelta": ("Adadelta", {"lr": 1.0}, optim.adadelta()),
    "rmsprop": ("RMSprop", {"lr": 0.1}, optim.rmsprop(0.1)),
    "adam": ("Adam", {"lr": 0.1}, optim.adam(0.1)),
    "amsgrad": ("Adam", {"lr": 0.1, "amsgrad": True}, optim.amsgrad(0.1)),
    "nadam": ("NAdam", {"lr": 0.1}, optim.nadam(0.1)),
    "adamw": ("AdamW", {"lr": 0.1, "weight_decay": 0.01}, optim.adamw(0.1)),
    "adam, other settings": (
        "Adam",
        {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-3},
        optim.adam(0.02, beta1=0.7, beta2=0.9, epsilon=1e-3),
    ),
}


@pytest.fixture
def torch():
    """Torch with scalars of double precision: NAdam keeps its product of momenta in one."""
    library = pytest.importorskip("torch")
    before = library.get_default_dtype()
    library.set_default_dtype(library.float64)
    yield library
    library.set_default_dtype(before)


@pytest.mark.parametrize("name", TORCH)
def test_steps_are_those_of_torch(torch, name):
    problem = bowl()
    method, settings, optimizer = TORCH[name]
    parameter = torch.nn.Parameter(torch.tensor(START))
    theirs = getattr(torch.optim, method)([parameter], **settings)
    expected = [START.copy()]
    for _ in range(STEPS):
        coef = parameter.detach().numpy().copy()
        parameter.grad = torch.tensor(problem.reduce(Query(optim.Gradients(coef[None]))).gradient[0])
        theirs.step()
        expected.append(parameter.detach().numpy().copy())
    np.testing.assert_allclose(path(optimizer, problem), expected, rtol=1e-10, atol=1e-12)


def gd(g, w, s, t):
    return w - 0.1 * g, s


def lion(g, w, s, t):
    """Chen et al. (2023), algorithm 2, with β₁ = 0.9, β₂ = 0.99, λ = 0.01."""
    m = s.get("m", 0)
    update = np.sign(0.9 * m + 0.1 * g)
    return w - 0.1 * (update + 0.01 * w), {"m": 0.99 * m + 0.01 * g}


def lars(g, w, s, t):
    """You, Gitman & Ginsburg (2017), algorithm 1, with momentum 0.9, η = 0.5, β = 0.01."""
    decayed = g + 0.01 * w
    rate = 0.5 * np.linalg.norm(w) / np.linalg.norm(decayed)
    v = 0.9 * s.get("v", 0) + 0.1 * rate * decayed
    return w - v, {"v": v}


def lamb(g, w, s, t):
    """You et al. (2020), algorithm 2, with φ the identity, λ = 0.01."""
    m = 0.9 * s.get("m", 0) + 0.1 * g
    v = 0.999 * s.get("v", 0) + 0.001 * g**2
    r = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6)
    u = r + 0.01 * w
    return w - 0.1 * np.linalg.norm(w) / np.linalg.norm(u) * u, {"m": m, "v": v}


PAPERS = {
    "gd": (gd, optim.gd(0.1)),
    "lion": (lion, optim.lion(0.1, weight_decay=0.01)),
    "lars": (lars, optim.lars(0.1, trust=0.5, weight_decay=0.01)),
    "lamb": (lamb, optim.lamb(0.1, weight_decay=0.01)),
}


@pytest.mark.parametrize("name", PAPERS)
def test_steps_are_those_of_the_paper(name):
    problem = bowl()
    step, optimizer = PAPERS[name]
    coef, state, expected = START, {}, [START]
    for t in range(1, STEPS + 1):
        coef, state = step(problem.reduce(Query(optim.Gradients(coef[None]))).gradient[0], coef, state, t)
        expected.append(coef)
    np.testing.assert_allclose(path(optimizer, problem), expected, rtol=1e-12, atol=1e-14)


def test_a_trust_ratio_of_nothing_is_one():
    link = optim.scale_by_trust_ratio(0.5)
    gradient = np.array([3.0, 4.0])
    assert link.update(gradient, (), np.zeros(2))[0].tolist() == [3.0, 4.0]
    assert link.update(np.zeros(2), (), gradient)[0].tolist() == [0.0, 0.0]
    assert link.update(gradient, (), np.array([0.0, 2.0]))[0].tolist() == pytest.approx([0.6, 0.8])


# How the fixed-step methods are set for the table: a step that the largest curvature allows, or one that falls.
MOST = 1000
SETTINGS = {
    "sgd": lambda c: optim.sgd(1.0 / c),
    "momentum": lambda c: optim.momentum(0.5 / c),
    "nesterov": lambda c: optim.nesterov(0.5 / c),
    "adagrad": lambda c: optim.adagrad(0.5),
    "adadelta": lambda c: optim.adadelta(optim.schedules.Cosine(3.0, MOST)),
    "rmsprop": lambda c: optim.rmsprop(optim.schedules.Cosine(0.05, MOST)),
    "adam": lambda c: optim.adam(optim.schedules.Cosine(0.1, MOST)),
    "amsgrad": lambda c: optim.amsgrad(optim.schedules.Cosine(0.1, MOST)),
    "nadam": lambda c: optim.nadam(optim.schedules.Cosine(0.1, MOST)),
    "adamw": lambda c: optim.adamw(optim.schedules.Cosine(0.1, MOST), weight_decay=0.0),
    "lion": lambda c: optim.lion(optim.schedules.Exponential(0.03, 0.99)),
    "lars": lambda c: optim.lars(optim.schedules.Exponential(0.03, 0.99)),
    "lamb": lambda c: optim.lamb(optim.schedules.Exponential(0.05, 0.99)),
    "svrg": lambda c: optim.svrg(1.0 / c),
    "ademamix": lambda c: optim.ademamix(optim.schedules.Cosine(0.1, MOST), beta3=0.99, alpha=1.0),
    "adan": lambda c: optim.adan(optim.schedules.Cosine(0.1, MOST)),
    "adafactor": lambda c: optim.adafactor(optim.schedules.Cosine(0.5, MOST)),
    "muon": lambda c: optim.muon(optim.schedules.Exponential(0.05, 0.99)),
    "soap": lambda c: optim.soap(optim.schedules.Cosine(0.1, MOST)),
    "sophia": lambda c: optim.sophia(optim.schedules.Cosine(0.05, MOST)),
    "ftrl": lambda c: optim.ftrl(2.0 / c**0.5),
    "schedule-free-sgd": lambda c: optim.schedule_free_sgd(1.0 / c),
    "schedule-free-adamw": lambda c: optim.schedule_free_adamw(0.1),
    **{name: lambda c, name=name: optim.by_name(name) for name in ("prodigy", "dog", "dowg")},
    "dadapt-adam": lambda c: optim.dadapt_adam(optim.schedules.Cosine(1.0, MOST)),
}
PROBLEMS = known_problems()
PATIENT = {"schedule-free-sgd", "dog", "dowg", "ftrl"}
"""Methods whose steps shrink as they go, or are averaged: a badly conditioned problem takes them more steps."""


def tuned(name: str, curvature: float) -> optim.Optimizer:
    return SETTINGS[name](curvature) if name in SETTINGS else optim.by_name(name)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_every_optimiser_reaches_the_optimum_or_is_refused(name, problem):
    optimizer = tuned(name, problem.curvature)
    most = 5 * MOST if name in PATIENT else MOST
    task = Problem(optimizer, problem.start, problem.penalty, Stop(most, 0.0, gradient_tol=1e-9))
    passes = []

    def reduce(query):
        passes.append(query.step)
        return problem.reduce(query)

    if not optimizer.search.serves(problem.penalty):
        with pytest.raises(IncompatibleError, match=f"'{name}' cannot serve an L1 penalty.*Use optimizer='fista'"):
            minimise(reduce, task)
        assert passes == []
        return
    solution = minimise(reduce, task)
    # A valley so curved is a matter of more steps for methods that do not measure curvature or chance longer steps.
    slow = problem.name == "rosenbrock" and (name in SETTINGS or name == "gd")
    assert -1e-10 < problem.gap(solution.coef) < (0.1 if slow else 1e-4 if name in SETTINGS else 1e-8)
    assert solution.objective == pytest.approx(problem.value(solution.coef), rel=1e-12, abs=1e-14)
    assert [record.step for record in solution.history] == list(range(solution.iterations + 1))
    assert [record.evaluations for record in solution.history][: solution.iterations] == [
        passes.count(step) for step in range(solution.iterations)
    ]


def is_data(state) -> bool:
    if isinstance(state, dict):
        return all(isinstance(key, str) for key in state) and all(map(is_data, state.values()))
    if isinstance(state, (tuple, list)):
        return all(map(is_data, state))
    return state is None or isinstance(state, (bool, int, float, str, np.ndarray))


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_states_are_data_and_are_never_changed(name):
    """So that a state is a checkpoint, and a step that is taken twice is the same twice."""
    problem, optimizer = bowl(), tuned(name, 1.0)
    task = Problem(optimizer, START)

    def evaluate(request):
        found = problem.reduce(Query(request))
        point = task.curved_point if isinstance(request, optim.Hessians) else task.point
        return [point(*row) for row in zip(request.points, found.loss.tolist(), found.gradient, strict=True)]

    def step(at, states):
        direction, after = optimizer.transform.update(at.gradient, states[0], at.coef)
        search, points = optimizer.search.run(at, direction, NoPenalty(), states[1]), None
        while True:
            try:
                points = evaluate(search.send(points))
            except StopIteration as end:
                return end.value[0], (after, end.value[1])

    (at,) = evaluate(optimizer.search.first_request(START[None]))
    states = optimizer.transform.init(START), optimizer.search.init(START)
    for _ in range(3):
        before = repr(states)
        once, twice = step(at, states), step(at, states)
        assert repr(once) == repr(twice)
        assert repr(states) == before
        at, states = once
        assert is_data(states)


def chained(*links: optim.GradientTransformation) -> optim.Optimizer:
    return optim.Optimizer("chained", optim.chain(*links), optim.Fixed())


def test_clipping():
    gradient = np.array([3.0, -4.0])
    assert optim.clip_by_value(3.5).update(gradient, (), gradient)[0].tolist() == [3.0, -3.5]
    assert optim.clip_by_norm(2.5).update(gradient, (), gradient)[0].tolist() == [1.5, -2.0]
    assert optim.clip_by_norm(6.0).update(gradient, (), gradient)[0].tolist() == [3.0, -4.0]
    moves = np.diff(path(chained(optim.clip_by_norm(0.3), optim.scale_by_learning_rate(0.5)), bowl()), axis=0)
    assert np.linalg.norm(moves, axis=1).max() == pytest.approx(0.15)


def test_decay_before_the_rate_is_an_l2_penalty():
    decayed = chained(optim.add_decayed_weights(0.2), optim.scale_by_learning_rate(0.3))
    np.testing.assert_allclose(path(decayed, bowl()), path(optim.gd(0.3), bowl(), penalty=L2(0.2)), rtol=1e-12)


@pytest.mark.parametrize("start", [0, 4])
def test_averaging_ends_with_the_mean_and_changes_no_step(start):
    averaged = chained(optim.scale_by_learning_rate(0.3), optim.average(start))
    steps = path(averaged, bowl(), steps=9)
    np.testing.assert_allclose(steps, path(optim.gd(0.3), bowl(), steps=9), rtol=1e-12)
    solution = minimise(bowl().reduce, Problem(averaged, START, stop=Stop(9, 0.0)))
    np.testing.assert_allclose(solution.coef, steps[start:].mean(axis=0), rtol=1e-12)
    assert solution.objective == pytest.approx(bowl().value(solution.coef))
    assert [record.step for record in solution.history] == list(range(10))
    assert [record.evaluations for record in solution.history] == [1] * 9 + [2]


def test_averaging_that_has_not_begun_ends_with_the_last_step():
    averaged = chained(optim.scale_by_learning_rate(0.3), optim.average(50))
    solution = minimise(bowl().reduce, Problem(averaged, START, stop=Stop(9, 0.0)))
    np.testing.assert_array_equal(solution.coef, path(averaged, bowl(), steps=9)[-1])
    assert len(solution.history) == 10


def noisy() -> tuple[KnownProblem, MiniBatch]:
    """Least squares whose rows disagree, and a twentieth of the rows a step."""
    X, y = regression_rows(rows=200, noise=2.0)
    objective = LinearObjective(SquaredError(), X.shape[1], fit_intercept=False)
    least = np.linalg.lstsq(X, y, rcond=None)[0]
    problem = KnownProblem(
        "noisy",
        reduce_over(FullGradient(objective), [in_blocks(X, y)]),
        objective.size,
        0.5 * float(np.mean((X @ least - y) ** 2)),
        float(np.linalg.norm(X, 2) ** 2 / len(y)),
    )
    return problem, reduce_over(MiniBatch(objective, 0.05), [in_blocks(X, y)])


def gap(optimizer: optim.Optimizer, steps: int) -> float:
    problem, reduce = noisy()
    return problem.gap(minimise(reduce, Problem(optimizer, problem.start, stop=Stop(steps, 0.0, window=20))).coef)


def test_averaging_takes_out_the_noise_of_mini_batches():
    last, mean = gap(optim.sgd(0.1), 1500), gap(chained(optim.scale_by_learning_rate(0.1), optim.average(100)), 1500)
    assert mean < last / 10
    assert mean < 1e-2


def test_variance_reduction_converges_at_a_constant_rate():
    assert gap(optim.sgd(0.05), 800) > 1e-3
    assert gap(optim.svrg(0.05, snapshot_every=40), 800) < 1e-9


def test_variance_reduction_pays_for_all_rows_at_snapshots_only():
    problem, reduce = noisy()
    rows = []

    def counted(query):
        sums = reduce(query)
        rows.append((query.step, sums.rows, len(query.request.points)))
        return sums

    minimise(counted, Problem(optim.svrg(0.05, snapshot_every=4), problem.start, stop=Stop(9, 0.0, window=20)))
    snapshots = [step for step, touched, _ in rows if touched == 200]
    assert snapshots == [1, 5, 9]
    assert [touched for step, touched, points in rows if points == 2] == [10] * 9


def test_accumulation_steps_on_the_mean_of_several_gradients():
    gradients = np.random.default_rng(0).normal(size=(7, 3))

    def reduce(query):
        return PartialSum(np.array([float(query.step)]), gradients[query.step][None], 1.0, 1)

    link = optim.accumulate(optim.chain(optim.trace(0.9), optim.scale_by_learning_rate(0.1)), 3)
    steps = path(optim.Optimizer("x", link, optim.Fixed()), KnownProblem("", reduce, 3, 0, 1), steps=6)
    first = -0.1 * gradients[:3].mean(axis=0)
    second = 0.9 * first - 0.1 * gradients[3:6].mean(axis=0)
    expected = START + np.array([0 * first, 0 * first, 0 * first, first, first, first, first + second])
    np.testing.assert_allclose(steps, expected, rtol=1e-12)


def test_accumulation_lets_an_average_finish():
    link = optim.accumulate(optim.chain(optim.scale_by_learning_rate(0.3), optim.average()), 2)
    optimizer = optim.Optimizer("x", link, optim.Fixed())
    steps = path(optimizer, bowl(), steps=6)
    solution = minimise(bowl().reduce, Problem(optimizer, START, stop=Stop(6, 0.0)))
    np.testing.assert_allclose(solution.coef, steps[[0, 2, 4, 6]].mean(axis=0), rtol=1e-12)


def correlated() -> tuple[KnownProblem, Problem]:
    """Logistic regression on features that depend on each other."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 40)) @ (rng.normal(size=(40, 40)) / np.sqrt(40) + np.eye(40))
    y = (X @ rng.normal(size=40) / 6 + rng.logistic(size=3000) > 0).astype(float)
    objective = LinearObjective(Logistic(), 40)
    halves = [in_blocks(X[:2000], y[:2000], rows=512), in_blocks(X[2000:], y[2000:], rows=512)]
    penalty = L2(1e-3).at(objective.coordinates())
    reduce = reduce_over(FullGradient(objective), halves)
    return reduce, Problem(optim.lbfgs(), np.zeros(41), penalty, Stop(200, 1e-7))


def passes(problem: Problem, reduce) -> int:
    return sum(record.evaluations for record in minimise(reduce, problem).history)


def test_an_initial_hessian_saves_passes_and_changes_no_optimum():
    reduce, problem = correlated()
    plain = Problem(
        optim.lbfgs(initial_hessian=optim.InitialHessian(up_to=0)), problem.initial, problem.penalty, problem.stop
    )
    assert passes(problem, reduce) < 0.5 * passes(plain, reduce)
    seeded, unseeded = minimise(reduce, problem), minimise(reduce, plain)
    assert seeded.objective <= unseeded.objective
    np.testing.assert_allclose(seeded.coef, unseeded.coef, atol=1e-2)
    # one pass over a few rows: 10 for each of 41 coefficients in each of two partitions
    sparing = Problem(
        optim.lbfgs(initial_hessian=optim.InitialHessian(rows=10)), problem.initial, problem.penalty, Stop(1, 0.0)
    )
    assert minimise(reduce, sparing).history[1].rows == 2 * 410 + 3000


def test_no_initial_hessian_is_made_for_too_many_coefficients():
    reduce, problem = correlated()
    small = Problem(
        optim.lbfgs(initial_hessian=optim.InitialHessian(up_to=40)), problem.initial, problem.penalty, problem.stop
    )
    plain = Problem(
        optim.lbfgs(initial_hessian=optim.InitialHessian(up_to=0)), problem.initial, problem.penalty, problem.stop
    )
    assert passes(small, reduce) == passes(plain, reduce)


def test_a_reduction_that_ignores_vectors_is_found_out():
    problem = bowl()

    def ignorant(query):
        return problem.reduce(Query(optim.Gradients(query.request.points)))

    with pytest.raises(
        ParameterError, match=r"reduce must answer .* vectors .*lbfgs\(initial_hessian=InitialHessian\(up_to=0\)\)"
    ):
        minimise(ignorant, Problem(optim.lbfgs(), START))
    minimise(ignorant, Problem(optim.lbfgs(initial_hessian=optim.InitialHessian(up_to=0)), START))


def test_newton_needs_few_steps_and_counts_its_products():
    problem = logistic()
    seen = []

    def reduce(query):
        seen.append(isinstance(query.request, optim.HessianProducts))
        return problem.reduce(query)

    stop = Stop(100, 0.0, gradient_tol=1e-10)
    solution = minimise(reduce, Problem(optim.newton_cg(), problem.start, problem.penalty, stop))
    assert solution.iterations <= 8
    assert sum(seen) > solution.iterations
    assert sum(record.evaluations for record in solution.history) == len(seen)


@pytest.mark.parametrize("smoothing", [1.0, 0.1])
def test_newton_starts_where_a_smoothed_loss_has_no_curvature(smoothing):
    """All margins are then far from the parabola, and only the penalty is curved: not along the intercept."""
    X, _ = regression_rows(400)
    y = (X.sum(axis=1) + 0.3 > 0).astype(float)
    y[:40] = 1 - y[:40]
    objective = LinearObjective(Hinge(smoothing), X.shape[1])
    reduce = reduce_over(FullGradient(objective), [in_blocks(X, y)])
    penalty = L2(1e-4).on(objective.penalised())
    found = [
        minimise(reduce, Problem(optimizer, np.zeros(objective.size), penalty, Stop(500))).objective
        for optimizer in (optim.proximal_newton(), optim.lbfgs())
    ]
    assert found[0] < 0.9
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_orthant_wise_zeros_are_exact_and_those_of_fista():
    problem = lasso()
    found = [
        minimise(problem.reduce, Problem(optimizer, problem.start, problem.penalty, Stop(500, 0.0, 1e-12))).coef
        for optimizer in (optim.owlqn(), optim.proximal_lbfgs(), optim.fista())
    ]
    assert (found[0] == 0).any()
    for other in found[1:]:
        np.testing.assert_array_equal(found[0] == 0, other == 0)
        np.testing.assert_allclose(found[0], other, atol=1e-9)


def test_unknown_names_and_useless_rates_are_refused():
    with pytest.raises(ParameterError, match="optimizer must be one of gd, sgd.*newton-cg"):
        optim.by_name("sdg")
    for name in ("lbfgs", "owlqn", "newton-cg", "proximal-lbfgs"):
        with pytest.raises(ParameterError, match=f"'{name}' finds its own step sizes"):
            optim.by_name(name, 0.1)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_names_are_the_optimisers_own(name):
    assert optim.by_name(name).name == name


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.clip_by_norm(0.0),
        lambda: optim.clip_by_value(-1.0),
        lambda: optim.average(-1),
        lambda: optim.accumulate(optim.trace(), 0),
        lambda: optim.InitialHessian(up_to=-1),
        lambda: optim.svrg(snapshot_every=0),
        lambda: optim.newton_cg(0),
        lambda: optim.lbfgs(memory=0),
        lambda: optim.owlqn(memory=0),
        lambda: optim.proximal_lbfgs(memory=0),
        lambda: optim.lion(beta1=1.0),
        lambda: optim.nadam(momentum_decay=-1.0),
        lambda: optim.adadelta(decay=1.0),
        lambda: optim.lars(trust=0.0),
    ],
)
def test_settings_have_domains(make):
    with pytest.raises(ParameterError, match="must be"):
        make()

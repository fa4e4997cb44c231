"""Local steps: closed forms on one partition, NumPy's own averages on several, and what batches share with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sparkopt import optim
from sparkopt.blocks.block import Block, InMemoryBlocks, Part
from sparkopt.errors import DivergedError, IncompatibleError, ParameterError
from sparkopt.losses import Logistic, Multinomial, SquaredError
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import Query
from sparkopt.objective.work import FullGradient, LocalSteps, LocalUpdate, MiniBatch, Validated
from sparkopt.penalties import L1, L2
from sparkopt.solver.compatibility import Method, check_compatible
from sparkopt.solver.loop import minimise
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Stop
from tests.problems import classification_rows, in_blocks, reduce_over, regression_rows

X, Y = regression_rows(rows=120)
WEIGHT = np.random.default_rng(5).uniform(0.5, 2.0, 120)
OBJECTIVE = LinearObjective(SquaredError(), 5)
STRENGTH, RATE = 0.1, 0.2
CUTS = [slice(0, 50), slice(50, 70), slice(70, 120)]
PARTS = [in_blocks(X[cut], Y[cut], WEIGHT[cut], rows=16) for cut in CUTS]
ONE = [in_blocks(X, Y, WEIGHT, rows=16)]


def local(rounds, batches=None, optimizer=None, penalty=None):
    batches, optimizer = batches or FullGradient(OBJECTIVE), optimizer or optim.sgd(RATE)
    return LocalUpdate(batches, optimizer, rounds, penalty or penalised())


def penalised(strength=STRENGTH):
    return L2(strength).on(OBJECTIVE.penalised())


def run(work, parts, steps, optimizer=None, **options):
    """The solution, with the coefficients after every step."""
    seen = []
    problem = Problem(
        optimizer or optim.averaging(),
        np.zeros(6),
        penalised(),
        Stop(steps, 0.0),
        [lambda progress: seen.append(progress.coef)],
        **options,
    )
    return minimise(reduce_over(work, parts), problem), np.array(seen)


def slope(coef, cut=slice(None)):
    """The gradient over some rows, penalty included."""
    Z = np.column_stack([X[cut], np.ones(len(Y[cut]))])
    loss = Z.T @ (WEIGHT[cut] * (Z @ coef - Y[cut])) / WEIGHT[cut].sum()
    return loss + STRENGTH * np.append(coef[:5], 0.0)


def walk(coef, cut, steps, rate=RATE, decay=0.0):
    """Gradient descent with momentum, by hand."""
    trace = np.zeros_like(coef)
    for _ in range(steps):
        trace = decay * trace + slope(coef, cut)
        coef = coef - rate * trace
    return coef


def averaged(coef, steps, **options):
    """The partitions' mean, each weighted by what its rows weigh."""
    weights = [WEIGHT[cut].sum() for cut in CUTS]
    return np.average([walk(coef, cut, steps, **options) for cut in CUTS], axis=0, weights=weights)


def test_on_one_partition_local_steps_are_plain_steps():
    _, rounds = run(local(LocalSteps(7)), ONE, 4)
    _, plain = run(FullGradient(OBJECTIVE), ONE, 28, optim.gd(RATE))
    np.testing.assert_allclose(rounds, plain[::7], rtol=1e-12, atol=1e-14)


def test_on_a_quadratic_the_distance_to_the_optimum_shrinks_as_the_closed_form_says():
    """H steps on ½ a (w − c)² leave (1 − rate · a)^H of the distance."""
    x, y = 1.5, 3.0
    objective = LinearObjective(SquaredError(), 1, fit_intercept=False)
    work = LocalUpdate(FullGradient(objective), optim.sgd(0.1), LocalSteps(5))
    reduce = reduce_over(work, [in_blocks(np.full((4, 1), x), np.full(4, y))])
    found = minimise(reduce, Problem(optim.averaging(), np.zeros(1), stop=Stop(3, 0.0)))
    np.testing.assert_allclose(found.coef, (y / x) * (1 - (1 - 0.1 * x * x) ** 15), rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_rounds_end_at_the_mean_of_the_partitions(steps):
    _, rounds = run(local(LocalSteps(steps)), PARTS, 6)
    coef = np.zeros(6)
    for found in rounds[1:]:
        coef = averaged(coef, steps)
        np.testing.assert_allclose(found, coef, rtol=1e-11, atol=1e-13)


def test_post_local_steps_begin_one_by_one():
    _, rounds = run(local(LocalSteps(8, warm_up=3)), PARTS, 6)
    coef = np.zeros(6)
    for steps, found in zip([1, 1, 1, 8, 8, 8], rounds[1:], strict=True):
        coef = averaged(coef, steps)
        np.testing.assert_allclose(found, coef, rtol=1e-11, atol=1e-13)


def test_diloco_keeps_momentum_from_round_to_round():
    """w ← w − 0.7 (d + 0.9 m) with m ← 0.9 m + d and d = w − mean of the partitions' coefficients."""
    _, rounds = run(local(LocalSteps(4, outer=optim.diloco())), PARTS, 8, optim.diloco())
    coef, trace = np.zeros(6), np.zeros(6)
    for found in rounds[1:]:
        update = coef - averaged(coef, 4)
        trace = 0.9 * trace + update
        coef = coef - 0.7 * (update + 0.9 * trace)
        np.testing.assert_allclose(found, coef, rtol=1e-10, atol=1e-12)


def test_an_inner_momentum_is_reset_in_each_round():
    _, rounds = run(local(LocalSteps(6), optimizer=optim.momentum(0.05, 0.9)), PARTS, 3)
    coef = np.zeros(6)
    for found in rounds[1:]:
        coef = averaged(coef, 6, rate=0.05, decay=0.9)
        np.testing.assert_allclose(found, coef, rtol=1e-10, atol=1e-12)


def test_schedules_count_rounds():
    rate = optim.schedules.Exponential(RATE, 0.5)
    _, rounds = run(local(LocalSteps(3), optimizer=optim.sgd(rate)), PARTS, 4)
    coef = np.zeros(6)
    for number, found in enumerate(rounds[1:]):
        coef = averaged(coef, 3, rate=RATE * 0.5**number)
        np.testing.assert_allclose(found, coef, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    "optimizer",
    [optim.nadam(0.1), optim.Optimizer("three", optim.accumulate(optim.sgd(0.1).transform, 3), optim.Fixed())],
    ids=lambda optimizer: optimizer.name,
)
def test_a_held_link_without_a_schedule_is_itself(optimizer):
    gradient, coef = np.ones(3), np.zeros(3)
    held = optimizer.transform.frozen_at(7)
    np.testing.assert_array_equal(
        held.update(gradient, held.init(coef), coef)[0],
        optimizer.transform.update(gradient, optimizer.transform.init(coef), coef)[0],
    )


def test_an_accumulating_link_counts_its_own_steps():
    three = optim.accumulate(optim.scale_by_learning_rate(optim.schedules.Exponential(1.0, 0.5)), 3)
    held = three.frozen_at(7)  # the third batch of gradients, so two have been before
    state = held.init(np.zeros(1))
    for _ in range(3):
        step, state = held.update(np.ones(1), state, np.zeros(1))
    assert step == -0.25


@pytest.mark.parametrize("parts", [ONE, PARTS], ids=["one", "three"])
def test_rounds_of_one_step_are_mini_batch_steps(parts):
    batches = MiniBatch(OBJECTIVE, 0.2, seed=3)
    found, rounds = run(local(LocalSteps(1), batches), parts, 20)
    expected, plain = run(batches, parts, 20, optim.sgd(RATE))
    np.testing.assert_allclose(rounds, plain, rtol=1e-10, atol=1e-12)
    for one, other in zip(found.history, expected.history, strict=True):
        assert one.objective == pytest.approx(other.objective, rel=1e-10)
        assert one.rows == other.rows


def test_batches_are_numbered_through_all_rounds():
    """On one partition, rounds of any length are the same mini-batch steps."""
    batches = MiniBatch(OBJECTIVE, 0.2, seed=3)
    _, rounds = run(local(LocalSteps(4, warm_up=2), batches), ONE, 6)
    _, plain = run(batches, ONE, 18, optim.sgd(RATE))
    np.testing.assert_allclose(rounds, plain[[0, 1, 2, 6, 10, 14, 18]], rtol=1e-10, atol=1e-12)


def test_the_cost_of_a_round_is_that_of_its_batches():
    work = local(LocalSteps(5, warm_up=1), MiniBatch(OBJECTIVE, 0.1, seed=1))
    rows = [
        sum(work(Query(optim.Gradients(np.zeros((1, 6))), number), Part(0, 0), ONE[0]).rows for _ in range(1))
        for number in (0, 1)
    ]
    assert abs(rows[0] - 12) <= 1
    assert abs(rows[1] - 60) <= 5
    assert work.share == pytest.approx(0.5)


def test_the_objective_is_the_one_of_all_schedules():
    """Where each round began, penalty included; of the first batch, and at the end of all rows."""

    def value(coef):
        residual = X @ coef[:5] + coef[5] - Y
        return 0.5 * np.average(residual**2, weights=WEIGHT) + 0.5 * STRENGTH * coef[:5] @ coef[:5]

    exact, rounds = run(local(LocalSteps(6)), PARTS, 4)
    np.testing.assert_allclose([r.objective for r in exact.history], [value(coef) for coef in rounds], rtol=1e-12)
    for work in (local(LocalSteps(6), MiniBatch(OBJECTIVE, 0.2)), MiniBatch(OBJECTIVE, 0.2)):
        optimizer = optim.averaging() if work.is_local else optim.sgd(0.05)
        found, rounds = run(work, PARTS, 4, optimizer, whole_at_end=True)
        assert found.objective == pytest.approx(value(rounds[-1]), rel=1e-12)
        assert found.history[-2].objective != pytest.approx(value(rounds[-2]), rel=1e-3)
        assert found.history[-1].rows == pytest.approx(found.history[-2].rows + 120, abs=6)


def test_the_best_step_on_validation_rows_is_measured_too():
    blocks = replace(ONE[0], validation_blocks=in_blocks(X[:40], Y[:40] + 1.0).blocks)
    work = Validated(local(LocalSteps(6), MiniBatch(OBJECTIVE, 0.2)))
    seen = []
    problem = Problem(
        optim.averaging(),
        np.zeros(6),
        penalised(),
        Stop(60, 0.0, patience=3),
        [lambda progress: seen.append(progress.coef)],
        whole_at_end=True,
    )
    found = minimise(reduce_over(work, [blocks]), problem)
    assert found.reason == "validation"
    assert found.step < found.iterations
    np.testing.assert_array_equal(found.coef, seen[found.step])
    exact = float(reduce_over(FullGradient(OBJECTIVE), ONE)(Query(optim.Gradients(found.coef[None]))).mean()[0][0])
    assert found.objective == pytest.approx(exact + penalised().value(found.coef), rel=1e-12)
    assert (work.is_local, work.is_exact, work.share) == (True, False, pytest.approx(1.2))


@pytest.mark.parametrize("case", ["multinomial", "sparse", "float32"], ids=str)
def test_every_kind_of_rows(case):
    """One partition: three rounds of four steps are twelve plain ones, for all kinds of rows."""
    from scipy import sparse

    features, labels = classification_rows(3)
    loss = Multinomial(3) if case == "multinomial" else Logistic()
    labels = labels if case == "multinomial" else np.minimum(labels, 1)
    features = features * (np.abs(features) > 1) if case == "sparse" else features
    rows = sparse.csr_array(features) if case == "sparse" else features.astype(np.float32)
    objective = LinearObjective(loss, 4)
    reduce = reduce_over(
        LocalUpdate(FullGradient(objective), optim.sgd(0.3), LocalSteps(4)), [in_blocks(rows, labels)]
    )
    plain = reduce_over(FullGradient(objective), [in_blocks(rows, labels)])
    start = np.zeros(objective.size)
    found = minimise(reduce, Problem(optim.averaging(), start, stop=Stop(3, 0.0)))
    expected = minimise(plain, Problem(optim.gd(0.3), start, stop=Stop(12, 0.0)))
    np.testing.assert_allclose(found.coef, expected.coef, rtol=1e-5 if case != "sparse" else 1e-10)


def test_partitions_without_rows_have_no_say():
    _, rounds = run(local(LocalSteps(3)), [*PARTS, InMemoryBlocks([])], 3)
    _, without = run(local(LocalSteps(3)), PARTS, 3)
    np.testing.assert_array_equal(rounds, without)
    sums = local(LocalSteps(3))(Query(optim.Gradients(np.zeros((1, 6)))), Part(3, 120), InMemoryBlocks([]))
    assert (sums.weight, sums.rows, sums.gradient.shape) == (0.0, 0, (1, 6))


def test_rows_of_weight_zero_have_no_say():
    idle = InMemoryBlocks([Block(X, Y, np.zeros(120))])
    _, rounds = run(local(LocalSteps(3)), [*PARTS, idle], 3)
    np.testing.assert_array_equal(rounds, run(local(LocalSteps(3)), PARTS, 3)[1])


def test_several_points_each_take_their_own_steps():
    work, points = local(LocalSteps(3)), np.random.default_rng(0).normal(size=(2, 6))
    both = work(Query(optim.Gradients(points), 1), Part(0, 0), ONE[0])
    alone = [work(Query(optim.Gradients(point[None]), 1), Part(0, 0), ONE[0]) for point in points]
    np.testing.assert_array_equal(both.gradient, np.concatenate([one.gradient for one in alone]))
    assert both.rows == sum(one.rows for one in alone)


def test_a_local_update_that_diverges_is_reported():
    with pytest.raises(
        DivergedError, match="'average' diverged in its first steps from the initial .* a smaller stepSize"
    ):
        run(local(LocalSteps(500), optimizer=optim.sgd(1e3)), PARTS, 5)
    with pytest.raises(DivergedError, match="'average' diverged at step 3: the objective was .* a smaller stepSize"):
        run(local(LocalSteps(500, warm_up=3), optimizer=optim.sgd(1e3)), PARTS, 5)


@pytest.mark.parametrize(
    "name", ["gd", "lbfgs", "owlqn", "newton-cg", "proximal-newton", "proximal-lbfgs", "fista", "svrg"]
)
def test_what_needs_gradients_takes_neither_local_nor_outer_steps(name):
    with pytest.raises(IncompatibleError, match=f"^optimizer='{name}' needs gradients.*localSteps=1"):
        check_compatible(Method(optim.by_name(name), local_steps=LocalSteps(2)))
    with pytest.raises(IncompatibleError, match=f"^as outer optimizer, optimizer='{name}' needs gradients.*Use "):
        check_compatible(Method(optim.sgd(), local_steps=LocalSteps(2, outer=optim.by_name(name))))


def test_nonsmooth_penalties_are_refused_with_a_way_out():
    with pytest.raises(IncompatibleError, match=r"local steps cannot serve an L1 penalty.*localSteps=1.*such as L2"):
        check_compatible(Method(optim.sgd(), L1(0.1), local_steps=LocalSteps(2)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalSteps(0), "localSteps must be"),
        (lambda: LocalSteps(2.5), "localSteps must be"),
        (lambda: LocalSteps(2, -1), "localStepsWarmUp must be"),
        (lambda: optim.outer_by_name("mean"), "optimizer must be one of"),
    ],
)
def test_wrong_schedules_are_refused(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


def test_what_joins_ways_has_names():
    assert [optim.outer_by_name(name).name for name in (*optim.OUTER, "nesterov")] == [
        "average",
        "diloco",
        "nesterov",
    ]
    gradient, coef = np.ones(2), np.zeros(2)
    for name, expected in (("average", -1.0), ("diloco", -0.7 * 1.9)):
        chain = optim.outer_by_name(name).transform
        np.testing.assert_allclose(chain.update(gradient, chain.init(coef), coef)[0], expected)
    assert optim.outer_by_name("diloco", 0.3).transform.links[-1].rate == 0.3

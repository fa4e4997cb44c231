"""A run that goes on from a snapshot takes the very steps of one that was never interrupted."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest

from sparkopt import optim
from sparkopt.checkpoint.format import dump, load
from sparkopt.losses import Logistic, SquaredError
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.work import FullGradient, MiniBatch, Validated
from sparkopt.penalties import L1, L2
from sparkopt.solver.loop import minimise, minimise_many
from sparkopt.solver.problem import Problem, Solution
from sparkopt.solver.progress import Progress, Snapshot, Stop, runs_in_loop_process
from tests.problems import classification_rows, in_blocks, quadratic, reduce_over, regression_rows

BOWL = quadratic("bowl", np.array([1.0, 0.4, 0.1]))
STEPS = 12


def over_disk(snapshot: Snapshot) -> Snapshot:
    (restored,) = load(dump({}, [snapshot]))[1]
    return restored


def snapshots_of(reduce, problem: Problem) -> tuple[Solution, list[Snapshot]]:
    """Solve, and take the state after every step as a checkpoint would."""
    taken: list[Snapshot] = []
    solution = minimise(reduce, replace(problem, callbacks=[lambda progress: taken.append(progress.snapshot())]))
    return solution, taken


def same(one: Solution, other: Solution) -> bool:
    """Equal to the last bit, but for the seconds."""
    histories = [[replace(record, seconds=0.0) for record in found.history] for found in (one, other)]
    ends = [(found.coef.tobytes(), found.reason, found.step) for found in (one, other)]
    return histories[0] == histories[1] and ends[0] == ends[1]


def reductions():
    X, y = regression_rows()
    objective = LinearObjective(SquaredError(), X.shape[1])
    return {
        "all rows": reduce_over(FullGradient(objective), [in_blocks(X[:70], y[:70]), in_blocks(X[70:], y[70:])]),
        "mini-batches": reduce_over(MiniBatch(objective, 0.2, seed=5), [in_blocks(X, y)]),
    }


@pytest.mark.parametrize("rows", ["all rows", "mini-batches"])
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_every_optimiser_goes_on_from_every_step(name, rows):
    optimizer = optim.by_name(name)
    if rows == "mini-batches" and optimizer.search.needs_exact:
        pytest.skip("refused: a line search on mini-batches")
    reduce = reductions()[rows]
    problem = Problem(optimizer, np.zeros(6), L2(0.01), Stop(STEPS, tol=0))
    undisturbed, taken = snapshots_of(reduce, problem)
    assert [snapshot.step for snapshot in taken] == list(range(undisturbed.iterations + 1))
    for snapshot in taken:
        assert same(minimise(reduce, replace(problem, initial=over_disk(snapshot))), undisturbed), snapshot.step


def linked(*links: optim.GradientTransformation) -> optim.Optimizer:
    return optim.Optimizer("linked", optim.chain(*links, optim.scale_by_learning_rate(0.1)), optim.Fixed())


OTHERS = {
    "schedule and kinks": (optim.sgd(optim.schedules.by_name("cosine", 0.3, STEPS)), L1(0.05)),
    "accelerated and kinks": (optim.fista(), L1(0.05)),
    "limited memory and kinks": (optim.proximal_lbfgs(), L1(0.05)),
    "average": (linked(optim.average(3)), L2(0.05)),
    "accumulation": (
        optim.Optimizer("three", optim.accumulate(optim.scale_by_learning_rate(0.1), 3), optim.Fixed()),
        L2(0.05),
    ),
}


@pytest.mark.parametrize(("optimizer", "penalty"), OTHERS.values(), ids=OTHERS)
def test_schedules_kinks_and_links_go_on_too(optimizer, penalty):
    problem = Problem(optimizer, np.zeros(3), penalty, Stop(STEPS, tol=0))
    undisturbed, taken = snapshots_of(BOWL.reduce, problem)
    for snapshot in taken:
        assert same(minimise(BOWL.reduce, replace(problem, initial=over_disk(snapshot))), undisturbed)


def many() -> list[Problem]:
    """Problems that end at different steps and for different reasons."""
    start = np.zeros(3)
    return [
        Problem(optim.lbfgs(), start, L2(0.1), Stop(4, tol=0)),
        Problem(optim.lbfgs(), start, stop=Stop(50, tol=0)),
        Problem(optim.adam(), start + 1, L2(0.1), Stop(9, tol=0), factors=np.array([2.0, 1.0, 0.5])),
        Problem(optim.fista(), start, L1(0.05), Stop(7, tol=0)),
    ]


def test_many_problems_go_on_together():
    latest: dict[int, Snapshot] = {}
    at_step: dict[int, dict[int, Snapshot]] = {}

    def watch(progress: Progress) -> None:
        latest[progress.model] = progress.snapshot()
        at_step[progress.record.step] = dict(latest)

    undisturbed = minimise_many(BOWL.reduce, [replace(problem, callbacks=[watch]) for problem in many()])
    for step in (1, 3, 5, 8):
        resumed = [replace(problem, initial=over_disk(at_step[step][model])) for model, problem in enumerate(many())]
        again = minimise_many(BOWL.reduce, resumed)
        assert all(same(one, other) for one, other in zip(again, undisturbed, strict=True))


def test_a_finished_run_asks_nothing():
    solution, taken = snapshots_of(BOWL.reduce, Problem(optim.gd(0.5), np.zeros(3), stop=Stop(5, tol=0)))

    def refuse(query):
        raise AssertionError("a pass")

    again = minimise(refuse, Problem(optim.gd(0.5), taken[-1], stop=Stop(5, tol=0)))
    assert same(again, solution)


def test_more_steps_than_the_first_run_had():
    _, taken = snapshots_of(BOWL.reduce, Problem(optim.adam(), np.zeros(3), stop=Stop(5, tol=0)))
    longer = Problem(optim.adam(), taken[-1], stop=Stop(11, tol=0))
    assert same(minimise(BOWL.reduce, longer), minimise(BOWL.reduce, replace(longer, initial=np.zeros(3))))


def test_a_snapshot_may_be_taken_later():
    seen: list[Progress] = []
    minimise(BOWL.reduce, Problem(optim.lbfgs(), np.zeros(3), stop=Stop(6, tol=0), callbacks=[seen.append]))
    assert [progress.snapshot().step for progress in seen] == [progress.record.step for progress in seen]
    with pytest.raises(RuntimeError, match="in_loop_process = True"):
        replace(seen[0], take=None).snapshot()


def test_seconds_go_on_and_the_elapsed_begin_anew():
    _, taken = snapshots_of(BOWL.reduce, Problem(optim.gd(0.1), np.zeros(3), stop=Stop(3, tol=0)))
    earlier = dataclasses.replace(taken[-1].history[-1], seconds=1000.0)
    snapshot = replace(taken[-1], history=(*taken[-1].history[:-1], earlier))
    seen: list[Progress] = []
    minimise(BOWL.reduce, Problem(optim.gd(0.1), snapshot, stop=Stop(4, tol=0), callbacks=[seen.append]))
    assert seen[0].record.seconds >= 1000
    assert seen[0].elapsed < 1000


def test_where_callbacks_run():
    class InLoopProcess:
        in_loop_process = True

        def __call__(self, progress):
            return None

    assert runs_in_loop_process(InLoopProcess())
    assert not runs_in_loop_process(lambda progress: None)


def test_coordinates_of_their_own_do_not_change_the_steps():
    """The problem in coordinates z with w = d · z, asked through another's coordinates w, is itself."""
    X, y = classification_rows(2)
    rows = [in_blocks(X, y)]
    d = np.array([3.0, 0.2, 1.0, 0.7])
    plain = reduce_over(FullGradient(LinearObjective(Logistic(), 4, fit_intercept=False)), rows)
    scaled = reduce_over(FullGradient(LinearObjective(Logistic(), 4, fit_intercept=False, scale=d)), rows)
    own = minimise(scaled, Problem(optim.lbfgs(), np.zeros(4), L2(0.1), Stop(8, tol=0)))
    asked = minimise(plain, Problem(optim.lbfgs(), np.zeros(4), L2(0.1), Stop(8, tol=0), factors=d))
    np.testing.assert_allclose(asked.coef, own.coef, rtol=1e-10)


def held_out(interval: int = 1):
    """A model with more coefficients than it has rows to learn them from, and rows to see that on."""
    rng = np.random.default_rng(4)
    X, noise = rng.normal(size=(60, 20)), rng.normal(size=60)
    y = X[:, 0] + noise
    blocks = in_blocks(X[:25], y[:25])
    blocks = replace(blocks, validation_blocks=in_blocks(X[25:], y[25:]).blocks)
    work = Validated(FullGradient(LinearObjective(SquaredError(), 20, fit_intercept=False)), interval)
    return reduce_over(work, [blocks]), lambda coef: 0.5 * np.mean((X[25:] @ coef - y[25:]) ** 2)


def test_the_step_with_the_lowest_validation_loss_is_returned():
    reduce, loss = held_out()
    seen = []
    problem = Problem(optim.gd(0.1), np.zeros(20), stop=Stop(2000, tol=0, patience=5))
    solution = minimise(reduce, replace(problem, callbacks=[lambda p: seen.append(p.coef)]))
    losses = [record.validation for record in solution.history]
    np.testing.assert_allclose(losses, [loss(coef) for coef in seen], rtol=1e-12)
    assert solution.reason == "validation"
    assert solution.step == int(np.argmin(losses)) < solution.iterations
    assert solution.iterations == solution.step + 5
    assert solution.coef.tobytes() == seen[solution.step].tobytes()
    assert solution.objective == solution.history[solution.step].objective
    assert solution.history[0].rows == 25 + 35


def test_a_gain_below_min_delta_does_not_count():
    reduce, _ = held_out()
    steps = [
        minimise(
            reduce, Problem(optim.gd(0.01), np.zeros(20), stop=Stop(500, tol=0, patience=5, min_delta=delta))
        ).iterations
        for delta in (0.0, 1e-3, 10.0)
    ]
    assert steps[0] > steps[1] > steps[2] == 5


def test_validation_rows_are_looked_at_every_so_many_steps():
    reduce, _ = held_out(interval=4)
    solution = minimise(reduce, Problem(optim.gd(0.1), np.zeros(20), stop=Stop(400, tol=0, patience=3)))
    looked = [record.step for record in solution.history if record.validation is not None]
    assert looked == list(range(0, solution.iterations + 1, 4))
    assert solution.step % 4 == 0
    assert [record.rows for record in solution.history[:5]] == [60, 25, 25, 25, 60]


def test_the_best_step_survives_a_restart():
    reduce, _ = held_out()
    problem = Problem(optim.gd(0.1), np.zeros(20), stop=Stop(2000, tol=0, patience=5))
    undisturbed, taken = snapshots_of(reduce, problem)
    for snapshot in (taken[1], taken[undisturbed.step], taken[undisturbed.step + 3]):
        assert same(minimise(reduce, replace(problem, initial=over_disk(snapshot))), undisturbed)


def test_validation_rows_do_not_train():
    reduce, _ = held_out()
    work = FullGradient(LinearObjective(SquaredError(), 20, fit_intercept=False))
    rng = np.random.default_rng(4)
    X, noise = rng.normal(size=(60, 20)), rng.normal(size=60)
    without = reduce_over(work, [in_blocks(X[:25], (X[:, 0] + noise)[:25])])
    problem = Problem(optim.lbfgs(), np.zeros(20), L2(0.1), Stop(4, tol=0))
    with_rows, alone = minimise(reduce, problem), minimise(without, problem)
    assert [r.objective for r in with_rows.history] == [r.objective for r in alone.history]

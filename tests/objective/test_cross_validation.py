"""Models that each leave a fold out, summed in the same passes: the sums are those over their own rows alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from sparkopt import optim
from sparkopt.blocks.block import NO_FOLD, Block, InMemoryBlocks, Part
from sparkopt.losses import Huber, Logistic, Multinomial, SquaredError
from sparkopt.objective.cross_validation import FoldedObjective, evaluate
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.work import FullGradient, LocalSteps, LocalUpdate, MiniBatch, Validated
from sparkopt.penalties import L2
from sparkopt.solver.loop import minimise, minimise_many
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Stop
from tests.problems import gradients_of, reduce_over

FEATURES, ROWS = 3, 90
rng = np.random.default_rng(0)
X = rng.normal(size=(ROWS, FEATURES)) * (rng.random((ROWS, FEATURES)) < 0.7)
Y = rng.integers(0, 2, ROWS).astype(float)
WEIGHT, OFFSET = rng.uniform(0.5, 2.0, ROWS), rng.normal(size=ROWS)
FOLD = rng.choice([0, 1, 2, NO_FOLD], ROWS)
HELD_OUT = [1, 0, None, 0, 2]
each_loss = pytest.mark.parametrize("loss", [SquaredError(), Logistic(), Multinomial(2), Huber()], ids=str)


def blocks(rows: np.ndarray, form=np.asarray) -> list[Block]:
    """Return rows in blocks of eight at most, fold after fold."""
    found = []
    for fold in np.unique(FOLD[rows]):
        own = rows[FOLD[rows] == fold]
        for first in range(0, len(own), 8):
            cut = own[first : first + 8]
            found.append(Block(form(X[cut]), Y[cut], WEIGHT[cut], offset=OFFSET[cut], fold=int(fold)))
    return found


def seen(held_out: int | None) -> np.ndarray:
    return np.flatnonzero(np.ones(ROWS, bool) if held_out is None else held_out != FOLD)


def objectives(loss) -> dict[int | None, LinearObjective]:
    """Return one of other coordinates for each fold."""
    found = {}
    for number, fold in enumerate([None, 0, 1, 2]):
        scale, center = rng.uniform(0.5, 2.0, FEATURES), rng.normal(size=FEATURES)
        factor = 1.0 if loss.outputs > 1 else 1.0 + 0.5 * number  # targets of several outputs are classes
        found[fold] = LinearObjective(loss, FEATURES, scale=scale, center=center, target_scale=factor)
    return found


def assert_points(together: PartialSum, alone: list[PartialSum]) -> None:
    for point, one in enumerate(alone):
        np.testing.assert_allclose(together.loss[point], one.loss[0], rtol=1e-12)
        np.testing.assert_allclose(together.gradient[point], one.gradient[0], rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(together.weight[point], one.weight[0], rtol=1e-12)


@each_loss
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
@pytest.mark.parametrize("kind", ["gradient", "losses", "product", "products at one point"])
def test_every_point_sums_over_its_own_rows(loss, form, kind):
    own = objectives(loss)
    size = own[None].size
    coefs, vectors = rng.normal(size=(2, len(HELD_OUT), size))
    if kind == "products at one point":
        coefs[:] = coefs[0]
    if "product" in kind:
        query = Query(optim.HessianProducts(coefs, vectors))
    else:
        query = Query(optim.Losses(coefs) if kind == "losses" else optim.Gradients(coefs))
    together = evaluate(FoldedObjective(own), replace(query, held_out=HELD_OUT), blocks(np.arange(ROWS), form))
    alone = [
        evaluate(own[fold], query.only([point]), blocks(seen(fold), form)) for point, fold in enumerate(HELD_OUT)
    ]
    assert_points(together, alone)
    assert together.rows == ROWS


def test_blocks_that_no_point_sees_are_not_summed():
    query = Query(optim.Gradients(np.zeros((2, FEATURES + 1))), held_out=[1, 1])
    sums = evaluate(FoldedObjective(objectives(Logistic())), query, blocks(np.arange(ROWS)))
    assert sums.rows == len(seen(1))


WORKS = {
    "all rows": FullGradient,
    "mini-batches": lambda objective: MiniBatch(objective, 0.5, 3),
    "local steps": lambda objective: LocalUpdate(FullGradient(objective), optim.gd(0.1), LocalSteps(3), L2(0.1)),
}


@pytest.mark.parametrize("name", WORKS)
def test_a_step_never_sees_what_is_held_out(name):
    """Whatever the held-out rows are, the answer is the same."""
    objective = LinearObjective(Logistic(), FEATURES)
    work = WORKS[name](FoldedObjective({0: objective}))
    query = Query(optim.Gradients(np.ones((1, objective.size))), step=2, held_out=[0])
    sane = blocks(np.arange(ROWS))
    absurd = [Block(block.X * 1e3, 1 - block.y, fold=0) if block.fold == 0 else block for block in sane]
    one, other = (work(query, Part(0, 0), InMemoryBlocks(some)) for some in (sane, absurd))
    np.testing.assert_array_equal(one.gradient, other.gradient)
    np.testing.assert_array_equal(one.weight, other.weight)


def test_validation_rows_of_a_fold_are_held_out_too():
    objective = LinearObjective(Logistic(), FEATURES)
    parts = InMemoryBlocks(blocks(np.arange(0, ROWS, 2)), blocks(np.arange(1, ROWS, 2)))
    coefs = rng.normal(size=(2, objective.size))
    work = Validated(FullGradient(FoldedObjective({0: objective, 1: objective})))
    sums = work(Query(optim.Gradients(coefs), held_out=[0, 1]), Part(0, 0), parts)
    for point, fold in enumerate([0, 1]):
        rows = blocks(np.intersect1d(seen(fold), np.arange(1, ROWS, 2)))
        odd = gradients_of(objective, coefs[point : point + 1], rows)
        assert sums.validation_mean()[point] == pytest.approx(odd.mean()[0][0])


@pytest.mark.parametrize("optimizer", [optim.lbfgs(), optim.newton_cg(), optim.gd(0.3)], ids=lambda one: one.name)
def test_models_take_the_steps_that_they_take_alone(optimizer):
    own = objectives(Logistic())
    problems = [Problem(optimizer, np.zeros(own[None].size), L2(0.1), Stop(6, 0.0), held_out=f) for f in HELD_OUT]
    reduce = reduce_over(FullGradient(FoldedObjective(own)), [InMemoryBlocks(blocks(np.arange(ROWS)))])
    together = minimise_many(reduce, problems)
    for fold, problem, found in zip(HELD_OUT, problems, together, strict=True):
        alone = minimise(
            reduce_over(FullGradient(own[fold]), [InMemoryBlocks(blocks(seen(fold)))]),
            Problem(optimizer, problem.initial, problem.penalty, problem.stop),
        )
        np.testing.assert_allclose(found.coef, alone.coef, rtol=1e-6, atol=1e-8)
        assert found.objective == pytest.approx(alone.objective, rel=1e-10)

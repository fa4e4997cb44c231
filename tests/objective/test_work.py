"""What a partition does in a step: all rows, or a random share whose cost grows with the share."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sparkopt.blocks.block import Block, InMemoryBlocks, Part, take
from sparkopt.errors import ParameterError
from sparkopt.losses import SquaredError
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import Query
from sparkopt.objective.work import FullGradient, MiniBatch
from sparkopt.optim import EveryRow, Gradients, HessianProducts, SampledRows
from tests.problems import gradients_of, in_blocks, products_of, reduce_over


class CountingBlocks:
    """Blocks that remember which of them were opened."""

    def __init__(self, blocks: InMemoryBlocks) -> None:
        self.blocks, self.opened = blocks, []

    @property
    def starts(self) -> np.ndarray:
        return self.blocks.starts

    def __getitem__(self, index: int) -> Block:
        self.opened.append(index)
        return self.blocks[index]


def numbered(rows: int, block: int = 8, first: int = 0) -> InMemoryBlocks:
    """Return rows whose i-th has a one in column i, so a gradient shows which rows were drawn."""
    total = first + rows
    return in_blocks(np.eye(total)[first:], -np.ones(rows), rows=block)


def draw_of(fraction: float, sizes: list[int], seed: int = 0) -> Callable[[int], np.ndarray]:
    """Return a function of the step, which tells how often each row was drawn in it."""
    total = sum(sizes)
    work = MiniBatch(LinearObjective(SquaredError(), total, fit_intercept=False), fraction, seed)
    firsts = [sum(sizes[:index]) for index in range(len(sizes))]
    parts = [
        (Part(index, first), in_blocks(np.eye(total)[first : first + size], -np.ones(size), rows=4))
        for index, (first, size) in enumerate(zip(firsts, sizes, strict=True))
    ]

    def draw(step: int) -> np.ndarray:
        query = Query(Gradients(np.zeros((1, total))), step)
        return sum((work(query, part, blocks).gradient[0] for part, blocks in parts), np.zeros(total))

    return draw


def drawn(fraction: float, sizes: list[int], step: int, seed: int = 0) -> np.ndarray:
    """Return how often each row was drawn in a step."""
    return draw_of(fraction, sizes, seed)(step)


@given(
    fraction=st.floats(0.01, 1),
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=5),
    step=st.integers(0, 1000),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_a_step_draws_its_share_of_all_rows_without_replacement(fraction, sizes, step, seed):
    counts = drawn(fraction, sizes, step, seed)
    assert set(counts.tolist()) <= {0.0, 1.0}
    share = fraction * sum(sizes)
    assert math.floor(share - 1e-9) <= counts.sum() <= math.ceil(share + 1e-9) + (sum(sizes) > 0 and share % 1 == 0)


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.62])
@pytest.mark.parametrize("sizes", [[12], [4, 8], [1, 2, 3, 5]], ids=str)
def test_every_row_is_equally_likely(fraction, sizes):
    steps = 3000
    counts = sum(map(draw_of(fraction, sizes), range(steps)))
    spread = math.sqrt(steps * fraction * (1 - fraction))
    # Six standard deviations: a fair draw fails once in 10⁸ runs, and the draw is the same in each run.
    np.testing.assert_allclose(counts, steps * fraction, atol=6 * spread)


@pytest.mark.parametrize("size", [4, 5, 8])
def test_rows_of_the_first_partition_do_not_depend_on_how_many_are_drawn(size):
    """Of the pairs that a partition may draw, each is as likely as the others."""
    fraction, steps = 1.5 / size, 4000
    ones, pairs = np.zeros(size), np.zeros((size, size))
    for draw in map(draw_of(fraction, [size]), range(steps)):
        rows = np.flatnonzero(draw)
        if len(rows) == 1:
            ones[rows] += 1
        else:
            pairs[rows[0], rows[1]] += 1
    assert stats.chisquare(ones).pvalue > 1e-6
    assert stats.chisquare(pairs[np.triu_indices(size, 1)]).pvalue > 1e-6


def test_draws_depend_on_seed_step_and_partition_and_on_nothing_else():
    np.testing.assert_array_equal(drawn(0.4, [30, 30], 3, 7), drawn(0.4, [30, 30], 3, 7))
    assert (drawn(0.4, [30, 30], 3, 7) != drawn(0.4, [30, 30], 4, 7)).any()
    assert (drawn(0.4, [30, 30], 3, 7) != drawn(0.4, [30, 30], 3, 8)).any()
    halves = drawn(0.5, [30, 30], 3).reshape(2, 30)
    assert (halves[0] != halves[1]).any()


def test_draws_do_not_depend_on_the_points_or_on_their_number():
    objective = LinearObjective(SquaredError(), 40, fit_intercept=False)
    work, blocks = MiniBatch(objective, 0.3), numbered(40)
    alone = work(Query(Gradients(np.zeros((1, 40))), 5), Part(0, 0), blocks)
    both = work(Query(Gradients(np.stack([np.zeros(40), np.ones(40)])), 5), Part(0, 0), blocks)
    np.testing.assert_array_equal(alone.gradient[0], both.gradient[0])
    assert alone.rows == both.rows


@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.1])
def test_the_cost_of_a_step_is_its_share_of_the_rows_and_their_blocks(fraction):
    X, y = np.ones((4000, 2)), np.ones(4000)
    blocks = CountingBlocks(in_blocks(X, y, rows=8))
    work = MiniBatch(LinearObjective(SquaredError(), 2), fraction)
    for step in range(20):
        blocks.opened.clear()
        rows = work(Query(Gradients(np.zeros((1, 3))), step), Part(0, 0), blocks).rows
        assert abs(rows - fraction * 4000) <= 1
        assert len(blocks.opened) <= rows
        assert len(set(blocks.opened)) == len(blocks.opened)


def test_take_opens_only_the_blocks_that_hold_the_rows():
    blocks = CountingBlocks(in_blocks(np.arange(20.0)[:, None], np.arange(20.0), np.arange(20.0), rows=4))
    taken = list(take(blocks, np.array([1, 2, 13, 19])))
    assert blocks.opened == [0, 3, 4]
    assert np.concatenate([block.y for block in taken]).tolist() == [1, 2, 13, 19]
    assert np.concatenate([block.X[:, 0] for block in taken]).tolist() == [1, 2, 13, 19]
    assert np.concatenate([block.weight for block in taken]).tolist() == [1, 2, 13, 19]


def test_all_rows_are_the_sum_over_all_blocks():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    objective = LinearObjective(SquaredError(), 3)
    coefs = rng.normal(size=(2, 4))
    whole = gradients_of(objective, coefs, [Block(X, y)])
    reduce = reduce_over(FullGradient(objective), [in_blocks(X[:13], y[:13], rows=5), in_blocks(X[13:], y[13:])])
    np.testing.assert_allclose(reduce(Query(Gradients(coefs), 0)).gradient, whole.gradient, rtol=1e-12)
    assert reduce(Query(Gradients(coefs), 9)).rows == 30


@pytest.mark.parametrize("work", [FullGradient, lambda objective: MiniBatch(objective, 0.3)], ids=["full", "batch"])
def test_hessian_products_and_passes_over_every_row(work):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    objective = LinearObjective(SquaredError(), 3)
    reduce = reduce_over(work(objective), [in_blocks(X, y)])
    coefs, vectors = rng.normal(size=(2, 2, 4))
    whole = products_of(objective, coefs, vectors, [Block(X, y)])
    every = reduce(Query(HessianProducts(coefs, vectors, rows=EveryRow()), 4))
    np.testing.assert_allclose(every.gradient, whole.gradient, rtol=1e-10)
    step = reduce(Query(HessianProducts(coefs, vectors), 4))
    assert step.rows == reduce(Query(Gradients(coefs), 4)).rows
    # of the same rows: least squares has the gradient H w − Xᵀy
    difference = reduce(Query(Gradients(coefs + vectors), 4)).gradient - reduce(Query(Gradients(coefs), 4)).gradient
    np.testing.assert_allclose(step.gradient, difference, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("points", [2, 300])
def test_sums_are_estimated_from_a_sample_of_evenly_spaced_rows(points):
    rng = np.random.default_rng(0)
    X, y, weight = rng.normal(size=(40, 3)), rng.normal(size=40), rng.uniform(1, 2, 40)
    objective = LinearObjective(SquaredError(), 3)
    blocks = CountingBlocks(in_blocks(X, y, weight, rows=10))
    coefs, vectors = rng.normal(size=(2, points, 4))
    found = FullGradient(objective)(Query(HessianProducts(coefs, vectors, rows=SampledRows(4))), Part(0, 0), blocks)
    taken = np.array([0, 13, 26, 39])
    expected = products_of(objective, coefs, vectors, [Block(X[taken], y[taken], weight[taken])])
    np.testing.assert_allclose(found.gradient, 10 * expected.gradient, rtol=1e-12)
    assert (found.weight, found.rows) == (pytest.approx(10 * weight[taken].sum()), 4)
    whole = FullGradient(objective)(Query(HessianProducts(coefs, vectors, rows=SampledRows(40))), Part(0, 0), blocks)
    np.testing.assert_allclose(whole.gradient, products_of(objective, coefs, vectors, [Block(X, y, weight)]).gradient)
    assert whole.rows == 40


def test_a_fraction_of_one_is_every_row():
    assert drawn(1.0, [7, 0, 5], 2).tolist() == [1.0] * 12


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_fractions_outside_their_domain_are_refused(fraction):
    with pytest.raises(ParameterError, match=r"miniBatchFraction must be in \(0, 1\]"):
        MiniBatch(LinearObjective(SquaredError(), 1), fraction)

"""Moments of blocks: their sums against NumPy's, whatever weighs nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from sparkopt.blocks.block import Block
from sparkopt.blocks.moments import Moments, MomentsSum, total

RNG = np.random.default_rng(3)
ROWS, FEATURES = 60, 4
X = RNG.normal(1000.0, 1.0, (ROWS, FEATURES)) * (RNG.random((ROWS, FEATURES)) < 0.7)
Y = np.sort(RNG.integers(0, 3, ROWS)).astype(float)
WEIGHTS = {
    "none": None,
    "some": RNG.uniform(0.5, 2.0, ROWS),
    "a block's are 0": np.where(np.arange(ROWS) < 20, 0.0, 1.5),
    "a class's are 0": np.where(Y == 2, 0.0, 0.5),
}


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_moments_of_blocks_add_up(weights, is_sparse):
    w = WEIGHTS[weights]
    cuts = np.array_split(np.arange(ROWS), 6)
    blocks = [
        Block(sparse.csr_array(X[rows]) if is_sparse else X[rows], Y[rows], None if w is None else w[rows])
        for rows in cuts
    ]
    found = total(map(Moments.of, blocks))
    known = np.ones(ROWS) if w is None else w
    mean = np.average(X, axis=0, weights=known)
    np.testing.assert_allclose(found.mean[:-1], mean, rtol=1e-12)
    np.testing.assert_allclose(found.squares[:-1], known @ (X - mean) ** 2, rtol=1e-9)
    assert (found.rows, found.target_min, found.target_max) == (ROWS, 0.0, 2.0)
    assert found.weight == pytest.approx(known.sum())
    assert found.mean[-1] == pytest.approx(np.average(Y, weights=known))


def test_no_rows_are_the_zero():
    block = Block(np.empty((0, 2)), np.empty(0))
    assert (Moments.of(block).rows, Moments.of(block).target_max) == (0, -np.inf)
    assert total([]) is None


@pytest.mark.parametrize("width", [FEATURES, 400, 20_000])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_dense_and_sparse_blocks_take_turns(weights, width):
    """Sparse blocks of few entries change only what they store; zeros are counted at the end."""
    w = WEIGHTS[weights]
    rows = np.zeros((ROWS, width))
    rows[:, :: width // FEATURES] = X
    rows[:, 1] = 3.0  # always stored
    found = MomentsSum()
    for number, part in enumerate(np.array_split(np.arange(ROWS), 12)):
        some = rows[part]
        found.add(Block(some if number % 3 == 1 else sparse.csr_array(some), Y[part], None if w is None else w[part]))
    known = np.ones(ROWS) if w is None else w
    mean = known @ rows / known.sum()
    moments = found.total()
    np.testing.assert_allclose(moments.mean[:-1], mean, rtol=1e-12)
    np.testing.assert_allclose(moments.squares[:-1], known @ (rows - mean) ** 2, rtol=1e-9, atol=1e-9)
    assert moments.std[1] == 0.0
    assert moments.rows == ROWS
    assert moments.mean[-1] == pytest.approx(np.average(Y, weights=known))

"""Hessians of a sample of rows are near those of all, whatever the order, the weights and the partitions of these."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from sparkopt.blocks.block import Block, InMemoryBlocks, Part
from sparkopt.losses import Hinge, Logistic, Multinomial, Poisson, SquaredError
from sparkopt.objective.cross_validation import FoldedObjective
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import Query
from sparkopt.objective.row_sample import RowSample, RowSpacing
from sparkopt.objective.work import FullGradient
from sparkopt.optim import Gradients, Hessians, SpacedRows
from tests.problems import in_blocks, reduce_over

ROWS, FEATURES = 24_000, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, FEATURES)) @ (np.eye(FEATURES) + 0.3)
RAW = X @ np.linspace(-1, 1, FEATURES) - 1
LOSSES = {
    "logistic": (Logistic(), (RAW + RNG.logistic(size=ROWS) > 0).astype(float)),
    "multinomial": (Multinomial(3), RNG.integers(0, 3, ROWS).astype(float)),
    "poisson": (Poisson(), RNG.poisson(np.exp(0.3 * RAW)).astype(float)),
    "squared error": (SquaredError(), RAW + RNG.normal(size=ROWS)),
    "smoothed hinge": (Hinge(2.0), (RAW > 0).astype(float)),
}
WEIGHTS = {
    "unweighted": None,
    "weighted": RNG.gamma(0.5, size=ROWS),
    "mostly without weight": np.where(np.arange(ROWS) % 50 == 7, 1.0, 0.0),
}
ORDERS = {
    "as they came": np.arange(ROWS),
    "sorted by label": np.argsort(LOSSES["logistic"][1], kind="stable"),
    "sorted by a feature": np.argsort(X[:, 0]),
    "with a period": np.argsort(np.argsort(RAW) % 12, kind="stable").reshape(12, -1).T.ravel(),
}
SAMPLE = SpacedRows(2000)


def answers(loss, X, y, weight, sample, parts: int = 2, rows: int = 1500, far: float = 0.3):
    """Return gradient and Hessian at a point, by each point."""
    objective = LinearObjective(loss, X.shape[1], center=np.full(X.shape[1], 0.1), scale=np.full(X.shape[1], 0.9))
    points = far * np.random.default_rng(1).normal(size=(2, objective.size))
    cuts = np.array_split(np.arange(len(y)), parts)
    partitions = [in_blocks(X[cut], y[cut], None if weight is None else weight[cut], rows) for cut in cuts]
    reduce = reduce_over(FullGradient(objective), partitions)
    found, plain = reduce(Query(Hessians(points, sample=sample))), reduce(Query(Gradients(points)))
    np.testing.assert_array_equal(found.gradient[:, : objective.size], plain.gradient)
    np.testing.assert_array_equal(found.loss, plain.loss)
    return [Hessians.unpacked(row, objective.size)[1] for row in found.mean()[1]]


def error(found: np.ndarray, exact: np.ndarray) -> float:
    """Largest relative error of a curvature."""
    values, vectors = np.linalg.eigh(exact)
    kept = values > 1e-9 * values[-1]  # softmax has directions without curvature
    root = vectors[:, kept] / np.sqrt(values[kept])
    return float(np.abs(np.linalg.eigvalsh(root.T @ found @ root) - 1).max())


@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_sample_estimates_the_hessian(name, weights, form):
    (loss, y), weight = LOSSES[name], WEIGHTS[weights]
    rows = X if form == "dense" else sparse.csr_array(X * (RNG.random(X.shape) < 0.3))
    found, exact = (answers(loss, rows, y, weight, sample) for sample in (SAMPLE, None))
    for one, other in zip(found, exact, strict=True):
        assert error(one, other) < (0.3 if name == "multinomial" else 0.25)
        np.testing.assert_array_equal(one, one.T)


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_the_rows_does_not_matter(order):
    loss, y = LOSSES["logistic"]
    rows = ORDERS[order]
    for sample in (SAMPLE, SpacedRows(2000, by_length=True)):
        found, exact = (answers(loss, X[rows], y[rows], None, one) for one in (sample, None))
        assert max(map(error, found, exact)) < 0.25


@pytest.mark.parametrize(("parts", "rows"), [(1, 24_000), (7, 100), (240, 100), (4000, 6)])
def test_nor_do_partitions_and_blocks(parts, rows):
    loss, y = LOSSES["logistic"]
    found, exact = (answers(loss, X, y, None, one, parts, rows) for one in (SAMPLE, None))
    assert max(map(error, found, exact)) < 0.3


def test_rare_features_are_found_by_their_length():
    loss, y = LOSSES["logistic"]
    rare = np.zeros((ROWS, 4))
    for j in range(4):
        rare[100 + 977 * j :: 4000, j] = 1
    rare /= rare.std(axis=0)
    rows = np.hstack([X, rare])
    exact = answers(loss, rows, y, None, None, far=0.01)
    plain, by_length = (
        answers(loss, rows, y, None, SpacedRows(2000, by_length=one), far=0.01) for one in (False, True)
    )
    as_sparse = answers(loss, sparse.csr_array(rows), y, None, SAMPLE, far=0.01)
    assert max(map(error, plain, exact)) > 0.9  # some were not met at all
    assert max(map(error, by_length, exact)) < 0.5
    assert max(map(error, as_sparse, exact)) < 0.5


def test_undecided_rows_are_preferred():
    """One row in 500 has nearly all of the curvature."""
    far = np.where(np.arange(ROWS) % 500 == 3, 0.1, 30.0)[:, None] * np.sign(X[:, :1])
    y = (far[:, 0] > 0).astype(float)
    objective = LinearObjective(Logistic(), 1, fit_intercept=False)
    reduce = reduce_over(FullGradient(objective), [in_blocks(far, y, rows=2000)])
    exact, found = (reduce(Query(Hessians(np.ones((1, 1)), sample=one))).gradient[0, 1] for one in (None, SAMPLE))
    assert found == pytest.approx(exact, rel=0.3)


def test_every_row_is_taken_where_the_sample_has_as_many():
    loss, y = LOSSES["logistic"]
    exact = answers(loss, X, y, WEIGHTS["weighted"], None)
    for sample in (SpacedRows(ROWS), SpacedRows(1, 1.0), SpacedRows(10 * ROWS, by_length=True)):
        np.testing.assert_array_equal(answers(loss, X, y, WEIGHTS["weighted"], sample), exact)
    assert SpacedRows(1, 0.1).spacing(1000) == 10
    assert SpacedRows(200, 0.1).spacing(1000) == 5
    assert SpacedRows(200, 0.1).spacing(0) == 1


def test_a_fold_that_is_left_out_is_not_sampled():
    loss, y = LOSSES["logistic"]
    objective = LinearObjective(loss, FEATURES)
    absurd = np.where(np.arange(ROWS) % 2 == 1, 1e3, 1.0)[:, None]
    blocks = [
        Block(X[fold::2][first : first + 1000] * absurd[fold::2][:1000], y[fold::2][first : first + 1000], fold=fold)
        for fold in (0, 1)
        for first in range(0, ROWS // 2, 1000)
    ]
    points = 0.3 * np.random.default_rng(3).normal(size=(2, objective.size))
    work = FullGradient(FoldedObjective({0: objective, 1: objective}))
    found, exact = (
        work(Query(Hessians(points, sample=one), held_out=[1, 0]), Part(0, 0), InMemoryBlocks(blocks))
        for one in (SAMPLE, None)
    )
    for row, other in zip(found.gradient, exact.gradient, strict=True):
        hessian, expected = (Hessians.unpacked(one, objective.size)[1] for one in (row, other))
        assert error(hessian, expected) < 0.5


@pytest.mark.parametrize("spacing", [1.0, 1.5, 7.3, 8.0, 12.0, 60.0, 1000.0])
def test_candidates_are_in_order_and_as_many_as_asked(spacing):
    sample, seen, chosen = RowSample(RowSpacing(spacing, 12345)), 0, 0
    for rows in (1000, 1, 0, 37, 5000):
        candidates = sample.candidates(rows)
        assert (np.diff(candidates) >= 0).all()
        assert ((candidates >= 0) & (candidates < rows)).all()
        seen += len(candidates)
        taken, factors = sample.choose(np.ones(len(candidates)))
        assert (factors > 0).all()
        chosen += len(taken)
    assert seen == pytest.approx(6038 / max(1.0, spacing / 8), abs=3)
    assert chosen == pytest.approx(6038 / spacing, rel=0.05, abs=3)

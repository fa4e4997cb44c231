"""Sums of Hessians: the columns are the products with unit vectors, in every coordinates and grouping of the rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from sparkopt.blocks.block import Block
from sparkopt.losses import Hinge, Huber, Logistic, Loss, Multinomial, Poisson, SquaredError
from sparkopt.objective import hessians
from sparkopt.objective.cross_validation import FoldedObjective, evaluate
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum, Query
from sparkopt.optim import Hessians
from tests.problems import gradients_of, products_of

ROWS, FEATURES = 40, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, FEATURES)) * (RNG.random((ROWS, FEATURES)) < 0.6)
WEIGHT = RNG.uniform(0.1, 3, size=ROWS)
LOSSES: dict[str, tuple[Loss, np.ndarray]] = {
    "squared error": (SquaredError(), RNG.normal(size=ROWS)),
    "logistic": (Logistic(), RNG.integers(0, 2, ROWS).astype(float)),
    "multinomial": (Multinomial(3), RNG.integers(0, 3, ROWS).astype(float)),
    "huber": (Huber(), RNG.normal(size=ROWS)),
    "poisson": (Poisson(), RNG.poisson(2.0, ROWS).astype(float)),
    "smoothed hinge": (Hinge(0.5), RNG.integers(0, 2, ROWS).astype(float)),
}
FRAMES = {
    "plain": {"fit_intercept": False},
    "scaled": {"fit_intercept": False, "scale": np.array([2.0, 0.5, 0.0, 0.1])},
    "centred": {"scale": np.array([2.0, 0.5, 1.0, 0.1]), "center": np.array([0.3, -1.0, 0.0, 2.0])},
}


def hessians_of(objective, points: np.ndarray, blocks) -> PartialSum:
    return evaluate(objective, Query(Hessians(points)), blocks)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("form", ["dense", "csr, made dense", "csr"])
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", LOSSES)
def test_columns_are_products_with_unit_vectors(name, frame, form, weight, monkeypatch):
    monkeypatch.setattr(hessians, "PIECE", 7 * FEATURES)  # a few rows at a time
    if form == "csr":
        monkeypatch.setattr(hessians, "PAIRS", 0)
        monkeypatch.setattr(hessians, "ENTRIES", 0)
    loss, y = LOSSES[name]
    block = Block(X if form == "dense" else sparse.csr_array(X), y, weight)
    objective = LinearObjective(loss, FEATURES, **FRAMES[frame])
    assert hessians.is_cheaper_sparse(objective, block.X) == (form == "csr")
    points = 0.3 * np.random.default_rng(1).normal(size=(2, objective.size))
    found = hessians_of(objective, points, [block])
    plain = gradients_of(objective, points, [block])
    np.testing.assert_allclose(found.loss, plain.loss, rtol=1e-14)
    for point, row, gradient in zip(points, found.gradient, plain.gradient, strict=True):
        ours, hessian = Hessians.unpacked(row, objective.size)
        np.testing.assert_allclose(ours, gradient, rtol=1e-13, atol=1e-13)
        at = np.tile(point, (objective.size, 1))
        columns = products_of(objective, at, np.eye(objective.size), [block]).gradient
        np.testing.assert_allclose(hessian, columns, rtol=1e-7, atol=1e-7 * np.abs(columns).max())
        np.testing.assert_array_equal(hessian, hessian.T)


def test_sums_may_be_taken_in_any_grouping():
    loss, y = LOSSES["multinomial"]
    objective = LinearObjective(loss, FEATURES)
    points = np.random.default_rng(2).normal(size=(3, objective.size))
    blocks = [Block(X[part], y[part], WEIGHT[part]) for part in (slice(0, 7), slice(7, 8), slice(8, None))]
    whole = hessians_of(objective, points, [Block(X, y, WEIGHT)])
    parts = Query(Hessians(points)).zero()
    for block in blocks:
        parts = parts + hessians_of(objective, points, [block])
    np.testing.assert_allclose(parts.gradient, whole.gradient, rtol=1e-12, atol=1e-12)
    flat = PartialSum.from_flat(whole.flat(), *whole.gradient.shape)
    np.testing.assert_array_equal(flat.gradient, whole.gradient)


def test_each_fold_is_left_out_by_its_own_point():
    loss, y = LOSSES["logistic"]
    objective = LinearObjective(loss, FEATURES)
    blocks = [Block(X[fold::2], y[fold::2], fold=fold) for fold in (0, 1)]
    points = np.random.default_rng(3).normal(size=(2, objective.size))
    query = Query(Hessians(points), held_out=[0, 1])
    found = evaluate(FoldedObjective({0: objective, 1: objective}), query, blocks)
    for point, seen in ((0, blocks[1]), (1, blocks[0])):
        alone = hessians_of(objective, points[[point]], [seen])
        np.testing.assert_allclose(found.gradient[point], alone.gradient[0], rtol=1e-13)


def test_rows_are_multiplied_as_they_are_where_few_numbers_are_not_zero_and_means_are_near():
    rare, often = (
        sparse.random_array((500, 50), density=density, rng=np.random.default_rng(5)) for density in (0.02, 0.5)
    )
    near = LinearObjective(Logistic(), 50, center=np.full(50, 0.1), scale=np.full(50, 10.0))
    far = LinearObjective(Logistic(), 50, center=np.full(50, 100.0))
    assert hessians.is_cheaper_sparse(near, rare.tocsr())
    assert not hessians.is_cheaper_sparse(near, often.tocsr())
    assert not hessians.is_cheaper_sparse(far, rare.tocsr())
    assert not hessians.is_cheaper_sparse(near, rare.toarray())


def test_features_far_from_zero_keep_their_digits_in_single_precision():
    X32 = (1000 + np.random.default_rng(4).normal(size=(500, 3))).astype(np.float32)
    mean, std = X32.mean(axis=0, dtype=float), X32.std(axis=0, dtype=float)
    objective = LinearObjective(SquaredError(), 3, scale=1 / std, center=mean)
    found = hessians_of(objective, np.zeros((1, 4)), [Block(X32, np.zeros(500))])
    hessian = Hessians.unpacked(found.gradient[0], 4)[1] / 500
    exact = np.cov(X32.astype(float).T, ddof=0) / np.outer(std, std)
    np.testing.assert_allclose(hessian[:3, :3], exact, atol=1e-4)

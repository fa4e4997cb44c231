"""The limited-memory Hessian: the dense BFGS recursion; and the minimum of its model: SciPy's, and the conditions."""

from __future__ import annotations

import numpy as np
import pytest

from sparkopt.optim import Point
from sparkopt.optim.compact import CompactHessian, CompactModel, Pairs
from sparkopt.penalties import GroupLasso, NoPenalty
from tests.optim.test_quadratic import CASES, SIZE, by_scipy, value

SIGMA = 0.4


def random_pairs(seed: int, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pairs of a quadratic function, of sizes as unlike as near an optimum."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(SIZE, SIZE))
    steps = [rng.normal(size=SIZE) * 10.0**-i for i in range(count)]
    return steps, [root.T @ root @ step / SIZE for step in steps]


def dense(steps: list[np.ndarray], changes: list[np.ndarray]) -> np.ndarray:
    """Nocedal & Wright (2006), eq. 6.19."""
    B = SIGMA * np.eye(SIZE)
    for s, y in zip(steps, changes, strict=True):
        B = B - np.outer(B @ s, B @ s) / (s @ B @ s) + np.outer(y, y) / (y @ s)
    return B


@pytest.mark.parametrize("count", [0, 1, 4, 8])
def test_it_is_the_matrix_of_bfgs(count):
    pairs = random_pairs(0, count)
    B, compact = dense(*pairs), CompactHessian(Pairs.of(*pairs), SIGMA)
    vector = np.random.default_rng(1).normal(size=SIZE)
    np.testing.assert_allclose(compact @ vector, B @ vector, rtol=1e-8)
    assert compact.along(vector) == pytest.approx(vector @ B @ vector, rel=1e-8)
    assert compact.largest == pytest.approx(np.linalg.eigvalsh(B)[-1], rel=1e-8)
    free = np.arange(SIZE) % 3 > 0
    np.testing.assert_allclose(
        compact.solved(free, vector[free]), np.linalg.solve(B[np.ix_(free, free)], vector[free]), rtol=1e-7
    )


def test_the_oldest_pair_is_forgotten_with_its_products():
    steps, changes = random_pairs(2, 6)
    pairs = Pairs.of(steps[:3], changes[:3])
    for step, change in zip(steps[3:], changes[3:], strict=True):
        pairs = pairs.with_last(step, change, 4)
    S, Y = np.array(steps[2:]), np.array(changes[2:])
    np.testing.assert_array_equal(pairs.steps, S)
    np.testing.assert_allclose(pairs.products, [S @ S.T, S @ Y.T, Y @ Y.T], rtol=1e-12)


def random_model(seed: int, penalty) -> CompactModel:
    rng = np.random.default_rng(seed)
    coef = penalty.prox(rng.normal(size=SIZE) * (rng.random(SIZE) < 0.7), 0.0)
    return CompactModel(
        Point(coef, 1.0, 1.0, rng.normal(size=SIZE)), CompactHessian(Pairs.of(*random_pairs(seed, 5)), SIGMA), penalty
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", CASES)
def test_separable_penalties(name, seed):
    penalty, strength, low, high = CASES[name]
    model = random_model(seed, penalty)
    found, expected = model.minimum(), by_scipy(model, strength, low, high)
    assert value(model, found) <= value(model, expected) + 1e-12
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert np.isfinite(penalty.value(found))
    if strength:
        assert (found == 0).sum() >= (np.abs(expected) < 1e-9).sum() - 1


def test_a_smooth_penalty_has_the_quasi_newton_step():
    model = random_model(0, NoPenalty())
    expected = model.at.coef - np.linalg.solve(dense(*random_pairs(0, 5)), model.at.gradient)
    np.testing.assert_allclose(model.minimum(), expected, rtol=1e-8)


def test_groups_become_zero_together():
    model = random_model(1, GroupLasso(0.7, [[0, 1, 2], [3, 4], [5], [6, 7, 8, 9]]))
    found = model.minimum()
    step = found - model.penalty.prox(found - model.gradient(found), 1.0)
    assert np.abs(step).max() < 1e-2 * np.abs(model.at.gradient).max()
    groups = ([0, 1, 2], [3, 4], [5], [6, 7, 8, 9])
    assert any(not found[group].any() for group in groups)
    assert any(found[group].all() for group in groups)

"""The minimum of a quadratic model plus a penalty: SciPy's, closed forms, and the conditions of optimality."""

from __future__ import annotations

import numpy as np
import pytest
import scipy
from scipy import optimize

from sparkopt.optim import Point, quadratic
from sparkopt.optim.quadratic import QuadraticModel
from sparkopt.penalties import L1, Box, ElasticNet, GroupLasso, NoPenalty

SIZE = 12


def random_model(seed: int, penalty, rank: int = SIZE) -> QuadraticModel:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(rank, SIZE))
    coef = penalty.prox(rng.normal(size=SIZE) * (rng.random(SIZE) < 0.7), 0.0)
    at = Point(coef, 1.0, 1.0, rng.normal(size=SIZE))
    return QuadraticModel.of(at, root.T @ root / SIZE, penalty)


def value(model: QuadraticModel, to: np.ndarray) -> float:
    return -model.decrease(to)


def by_scipy(model: QuadraticModel, strength: float, low: float, high: float) -> np.ndarray:
    """Minimise over positive and negative parts."""

    def split(both):
        u = both[:SIZE] - both[SIZE:]
        slope = model.at.gradient + model.hessian @ (u - model.at.coef)
        half = 0.5 * (model.at.gradient + slope) @ (u - model.at.coef)
        return half + strength * both.sum(), np.concatenate([slope, -slope]) + strength

    ends = [(max(low, 0), max(high, 0))] * SIZE + [(max(-high, 0), max(-low, 0))] * SIZE
    start = np.clip(np.full(2 * SIZE, 0.1), *np.array(ends).T)
    options = {"ftol": 1e-16, "gtol": 1e-12, "maxiter": 20_000, "maxfun": 50_000}
    found = optimize.minimize(split, start, jac=True, method="L-BFGS-B", bounds=ends, options=options).x
    return found[:SIZE] - found[SIZE:]


def solved(model: QuadraticModel, near: np.ndarray, strength: float, low: float, high: float) -> np.ndarray:
    """Solve for the coordinates that are neither zero nor at a bound there: SciPy stops short on flat ground."""
    corners = [corner for corner in (low, high, 0.0 if strength else np.nan) if np.isfinite(corner)]
    exact = near.copy()
    free = np.ones(SIZE, bool)
    for corner in corners:
        there = np.abs(near - corner) < 1e-6
        exact[there], free[there] = corner, False
    slope = model.at.gradient + model.hessian @ (exact - model.at.coef) + strength * np.sign(exact)
    exact[free] -= np.linalg.solve(model.hessian[np.ix_(free, free)], slope[free])
    return exact


CASES = {
    "L1": (L1(0.3), 0.3, -np.inf, np.inf),
    "elastic net": (ElasticNet(0.6, 0.5), 0.3, -np.inf, np.inf),
    "lower": (Box(0.0), 0.0, 0.0, np.inf),
    "upper": (Box(upper=-0.1), 0.0, -np.inf, -0.1),
    "both": (Box(-0.2, 0.3), 0.0, -0.2, 0.3),
    "both and L1": (Box(-0.5, 0.3, penalty=L1(0.1)), 0.1, -0.5, 0.3),
}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", CASES)
def test_separable_penalties(name, seed):
    penalty, strength, low, high = CASES[name]
    model = random_model(seed, penalty)
    found, expected = model.minimum(), by_scipy(model, strength, low, high)
    assert value(model, found) <= value(model, expected) + 1e-12
    np.testing.assert_allclose(found, solved(model, expected, strength, low, high), atol=2e-4)
    assert np.isfinite(penalty.value(found))
    if strength:
        assert (found == 0).sum() >= (np.abs(expected) < 1e-9).sum() - 1


def test_a_smooth_penalty_has_the_newton_step():
    model = random_model(0, NoPenalty())
    expected = model.at.coef - np.linalg.solve(model.hessian, model.at.gradient)
    np.testing.assert_allclose(model.minimum(), expected, rtol=1e-10)


def test_groups_become_zero_together():
    """The smooth part's gradient over a group is against its coefficients, or no longer than the penalty allows."""
    groups = [[0, 1, 2], [3, 4], [5], [6, 7, 8, 9]]
    model = random_model(1, GroupLasso(0.7, groups))
    found = model.minimum()
    slope = model.at.gradient + model.hessian @ (found - model.at.coef)
    assert any(not found[group].any() for group in groups)
    assert any(found[group].all() for group in groups)
    np.testing.assert_allclose(slope[10:], 0, atol=1e-7)  # in no group
    for group in groups:
        strength = 0.7 * np.sqrt(len(group))
        if found[group].any():
            direction = found[group] / np.linalg.norm(found[group])
            np.testing.assert_allclose(slope[group], -strength * direction, atol=1e-7)
        else:
            assert np.linalg.norm(slope[group]) <= strength + 1e-7


@pytest.mark.parametrize("penalty", [NoPenalty(), L1(0.3), Box(-1.0, 1.0)], ids=repr)
def test_directions_without_curvature_do_not_lead_away(penalty):
    """A gradient in the range of a singular Hessian: the minimum is not unique, but finite."""
    model = random_model(2, penalty, rank=5)
    inside = model.hessian @ np.random.default_rng(3).normal(size=SIZE)
    flat = QuadraticModel(Point(model.at.coef, 1.0, 1.0, inside), model.hessian, penalty, model.factor)
    found = flat.minimum()
    assert np.abs(found).max() < 1e3
    assert flat.decrease(found) > 0


def test_negative_curvature_is_taken_by_its_size():
    at = Point(np.zeros(2), 1.0, 1.0, np.array([1.0, 1.0]))
    model = QuadraticModel.of(at, np.diag([2.0, -4.0]), NoPenalty())
    np.testing.assert_allclose(model.minimum(), [-0.5, -0.25], rtol=1e-9)


def test_lapack_by_itself_is_scipys(monkeypatch):
    hessian = np.array([[4.0, 1.0], [1.0, 3.0]])
    alone = quadratic._lapack.__wrapped__()
    monkeypatch.setattr(quadratic.PathFinder, "find_spec", lambda *_: None)  # a SciPy that has it elsewhere
    public = quadratic._lapack.__wrapped__()
    assert public is scipy.linalg.lapack
    for ours, theirs in zip(alone.dpotrf(hessian, clean=0), public.dpotrf(hessian, clean=0), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(quadratic._solved(quadratic._cholesky(hessian), np.ones(2)), [2 / 11, 3 / 11])
    assert quadratic._cholesky(-hessian) is None

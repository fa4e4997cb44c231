"""Sub-sampled Newton ends at the optimum that Newton's method with all rows finds, and knows how near it is.

It does so whatever hides from a sample: rows in order, weights of zero, rare classes and features.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import sparse

from sparkopt import optim
from sparkopt.blocks.block import Block, InMemoryBlocks
from sparkopt.blocks.moments import Moments, total
from sparkopt.checkpoint.format import dump, load
from sparkopt.losses import Huber, Logistic, Loss, Multinomial, Poisson
from sparkopt.objective.cross_validation import FoldedObjective
from sparkopt.objective.work import FullGradient
from sparkopt.penalties import L1, L2, Box, ElasticNet, GroupLasso, NoPenalty, Penalty
from sparkopt.solver.loop import minimise, minimise_many
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Stop
from sparkopt.training.coordinates import SolverCoordinates
from tests.problems import reduce_over

ROWS, FEATURES = 20_000, 8
SAMPLED = optim.subsampled_newton(sample=30, share=0.01)
EXACT = optim.proximal_newton()


@cache
def plain() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, FEATURES)) @ (np.eye(FEATURES) + 0.4 * rng.normal(size=(FEATURES, FEATURES)))
    return X, X @ np.linspace(-0.8, 0.8, FEATURES)


def rare_features(X: np.ndarray) -> np.ndarray:
    rare = np.zeros((ROWS, 5))
    for j, every in enumerate((300, 700, 1500, 3000, 6000)):
        rare[17 * j :: every, j] = 1
    return np.hstack([X, rare])


def case(name: str) -> tuple[Loss, np.ndarray | sparse.csr_array, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return loss, features, targets, weights and offsets."""
    (X, raw), rng = plain(), np.random.default_rng(1)
    labels = (raw + rng.logistic(size=ROWS) > 0).astype(float)
    weight = rng.gamma(0.3, size=ROWS)
    if name == "sorted by label":
        rows = np.argsort(labels, kind="stable")
        return Logistic(), X[rows], labels[rows], None, None
    if name == "sorted by a feature":
        rows = np.argsort(X[:, 0])
        return Logistic(), X[rows], labels[rows], None, None
    known = {
        "plain": (Logistic(), X, labels, None, None),
        "weights": (Logistic(), X, labels, weight, None),
        "most weigh nothing": (Logistic(), X, labels, np.where(np.arange(ROWS) % 25 == 0, weight, 0.0), None),
        "offsets": (Logistic(), X, labels, None, rng.normal(size=ROWS)),
        "rare class": (Logistic(), X, (0.6 * raw + rng.logistic(size=ROWS) > 8).astype(float), None, None),
        "rare features": (Logistic(), rare_features(X), labels, None, None),
        "rare features, sparse": (Logistic(), sparse.csr_array(rare_features(X)), labels, weight, None),
        "ill-conditioned": (Logistic(), X * np.logspace(0, -3, FEATURES) + X[:, :1], labels, None, None),
        "heavy tails": (Logistic(), rng.standard_t(2.1, size=(ROWS, FEATURES)), labels, None, None),
        "float32": (Logistic(), X.astype(np.float32), labels, None, None),
        "multinomial": (Multinomial(4), X, rng.integers(0, 4, ROWS) * labels, weight, None),
        "poisson": (Poisson(), X, rng.poisson(np.exp(0.3 * raw)).astype(float), None, rng.normal(size=ROWS)),
        "huber": (Huber(), X, raw + rng.standard_t(2, size=ROWS), weight, None),
    }
    return known[name]


NAMES = (
    "plain",
    "sorted by label",
    "sorted by a feature",
    "weights",
    "most weigh nothing",
    "offsets",
    "rare class",
    "rare features",
    "rare features, sparse",
    "ill-conditioned",
    "heavy tails",
    "float32",
    "multinomial",
    "poisson",
    "huber",
)
PENALTIES: dict[str, Penalty] = {
    "none": NoPenalty(),
    "L2": L2(1e-3),
    "L1": L1(1e-3),
    "elastic net": ElasticNet(2e-3, 0.5),
    "bounds": Box(-0.05, 0.1, penalty=L2(1e-3)),
    "groups": GroupLasso(1e-3, [[0, 1, 2], [3, 4]]),
}


def task(loss, X, y, weight, offset, penalty, folds: int = 1, held_out: int | None = None):
    """Return what is reduced and the coordinates of the model, over two partitions of many blocks."""
    halves = []
    for half in np.array_split(np.arange(ROWS), 2):
        blocks = []
        for fold in range(folds):
            for rows in np.array_split(half[fold::folds], 20):
                parts = (None if part is None else part[rows] for part in (weight, offset))
                w, o = parts
                blocks.append(Block(X[rows], y[rows], w, offset=o, fold=fold if folds > 1 else -1))
        halves.append(InMemoryBlocks(blocks))
    seen = [block for half in halves for block in half.blocks if held_out is None or block.fold != held_out]
    own = SolverCoordinates.of(
        loss,
        penalty,
        total([Moments.of(block) for block in seen]),
        fit_intercept=True,
        standardization=True,
        scale_target=False,
    )
    return halves, own


def solve(optimizer: optim.Optimizer, name: str, penalty: str):
    halves, own = task(*case(name), PENALTIES[penalty])
    asked = []
    plain_reduce = reduce_over(FullGradient(own.objective), halves)

    def reduce(query):
        asked.append(query.request)
        return plain_reduce(query)

    return minimise(reduce, Problem(optimizer, own.start(None), own.penalty)), asked


@pytest.mark.parametrize("penalty", ["L2", "L1", "bounds"])
@pytest.mark.parametrize("name", NAMES)
def test_it_ends_where_newton_does_and_knows_the_gap(name, penalty):
    found, asked = solve(SAMPLED, name, penalty)
    exact, _ = solve(EXACT, name, penalty)
    rounding = 1e-8 if name == "float32" else 1e-12
    gap = (found.objective - exact.objective) / abs(exact.objective)
    assert found.reason in ("tolerance", "gradient", "precision")
    assert gap < max(1e-10, rounding)
    assert gap < 30 * (found.gap or 0.0) / abs(exact.objective) + rounding
    assert len(asked) <= 3 * sum(record.evaluations for record in exact.history) + 4
    sampled = [one for one in asked if isinstance(one, optim.Hessians)]
    assert sampled[0].sample is not None
    assert len(sampled) < len(asked)  # it is kept near the optimum


@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_penalty(penalty):
    found, _ = solve(SAMPLED, "plain", penalty)
    exact, _ = solve(EXACT, "plain", penalty)
    assert found.objective == pytest.approx(exact.objective, rel=1e-10)
    np.testing.assert_allclose(found.coef, exact.coef, atol=2e-5)
    np.testing.assert_array_equal(found.coef == 0, exact.coef == 0)


def test_few_rows_are_newtons_own():
    """If the sample has all rows, the steps are those of Newton's method, bit by bit."""
    large = optim.subsampled_newton(sample=10_000)
    (found, asked), (exact, known) = (solve(one, "plain", "L1") for one in (large, EXACT))
    np.testing.assert_array_equal(found.coef, exact.coef)
    assert len(asked) == len(known)


def test_a_sample_that_predicts_badly_grows():
    """Three rows for each coefficient are too few; the steps say so."""
    poor = optim.subsampled_newton(sample=3, share=0.0)
    found, asked = solve(poor, "rare features", "L2")
    exact, _ = solve(EXACT, "rare features", "L2")
    assert found.objective == pytest.approx(exact.objective, rel=1e-10)
    samples = [one.sample for one in asked if isinstance(one, optim.Hessians) and one.sample]
    assert samples[-1].by_length
    assert samples[-1].count > samples[0].count


@pytest.mark.parametrize("penalty", ["L2", "L1"])
def test_it_continues_from_a_checkpoint_to_the_same_bits(penalty):
    halves, own = task(*case("weights"), PENALTIES[penalty])
    reduce = reduce_over(FullGradient(own.objective), halves)
    kept = []
    problem = Problem(SAMPLED, own.start(None), own.penalty, Stop(), [lambda now: kept.append(now.snapshot())])
    whole = minimise(reduce, problem)
    assert len(kept) > 4
    for snapshot in kept[:-1]:
        (stored,) = load(dump([], [snapshot])).snapshots
        again = minimise(reduce, replace(problem, initial=stored, callbacks=()))
        np.testing.assert_array_equal(again.coef, whole.coef)
        assert len(again.history) == len(whole.history)


def test_models_of_folds_share_passes_and_end_where_each_does_alone():
    loss, X, y, weight, offset = case("weights")
    penalties = [L2(0.1), L2(1e-3), L1(3e-3)]
    objectives, problems, alone = {}, [], []
    for held_out in (0, 1, 2):
        for penalty in penalties:
            halves, own = task(loss, X, y, weight, offset, penalty, 3, held_out)
            objectives[held_out] = own.objective
            problems.append(Problem(SAMPLED, own.start(None), own.penalty, held_out=held_out))
            seen = [InMemoryBlocks([block for block in half.blocks if block.fold != held_out]) for half in halves]
            alone.append(
                minimise(reduce_over(FullGradient(own.objective), seen), replace(problems[-1], optimizer=EXACT))
            )
    together = minimise_many(reduce_over(FullGradient(FoldedObjective(objectives)), halves), problems)
    for one, other in zip(together, alone, strict=True):
        assert one.objective == pytest.approx(other.objective, rel=1e-10)
        np.testing.assert_allclose(one.coef, other.coef, atol=2e-5)

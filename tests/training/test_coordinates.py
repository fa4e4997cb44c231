"""The solver's own coordinates leave the optimum where it is: checked against scikit-learn."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from sparkopt import losses, optim, penalties
from sparkopt.blocks.block import Block
from sparkopt.blocks.moments import Moments
from sparkopt.objective.cross_validation import evaluate
from sparkopt.solver.loop import minimise
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Stop
from sparkopt.training.trainer import Trainer


def test_an_unstandardised_penalty_on_raw_pixels():
    """Pixels at the rim are nearly constant: in standardised coordinates this problem takes thousands of steps."""
    strength = 0.1
    X, y = (part[:600] for part in load_digits(return_X_y=True))
    weight = np.random.default_rng(0).uniform(0.5, 2.0, 600)
    block = Block(X, y.astype(float), weight)
    trainer = Trainer(losses.Multinomial(10), penalty=penalties.L2(strength), standardization=False)
    coordinates = trainer._coordinates(Moments.of(block))
    objective, penalty = coordinates.objective, coordinates.penalty
    problem = Problem(optim.lbfgs(), np.zeros(objective.size), penalty, Stop(1000, 1e-13))
    solution = minimise(lambda query: evaluate(objective, query, [block]), problem)
    matrix, intercept = objective.unscale(solution.coef)
    theirs = LogisticRegression(C=1 / (weight.sum() * strength), tol=1e-10, max_iter=20_000)
    theirs.fit(X, y, sample_weight=weight)
    assert solution.converged
    np.testing.assert_allclose(matrix.T, theirs.coef_, atol=1e-4 * np.abs(theirs.coef_).max())
    centred = theirs.intercept_ - theirs.intercept_.mean()
    np.testing.assert_allclose(intercept - intercept.mean(), centred, atol=1e-3)

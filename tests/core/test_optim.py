"""Optimisers: the textbook's updates step by step, and the known optimum of every problem in the table."""

from __future__ import annotations

import numpy as np
import pytest

from sparkopt import optim
from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.objective import Query
from sparkopt.solve import Problem, Stop, minimise
from tests.core.problems import convex_problems, quadratic

RATE, STEPS = 0.1, 25


def gd(g, w, s, t):
    return w - RATE * g, s


def heavy_ball(g, w, s, t):
    v = 0.9 * s.get("v", 0) + g
    return w - RATE * v, {"v": v}


def nesterov(g, w, s, t):
    v = 0.9 * s.get("v", 0) + g
    return w - RATE * (g + 0.9 * v), {"v": v}


def adagrad(g, w, s, t):
    total = s.get("total", 0) + g**2
    return w - RATE * g / (np.sqrt(total) + 1e-10), {"total": total}


def rmsprop(g, w, s, t):
    mean = 0.99 * s.get("mean", 0) + 0.01 * g**2
    return w - RATE * g / (np.sqrt(mean) + 1e-8), {"mean": mean}


def adam(g, w, s, t, decay=0.0):
    m = 0.9 * s.get("m", 0) + 0.1 * g
    v = 0.999 * s.get("v", 0) + 0.001 * g**2
    step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w - RATE * (step + decay * w), {"m": m, "v": v}


def adamw(g, w, s, t):
    return adam(g, w, s, t, decay=0.01)


TEXTBOOK = {
    "gd": gd, "sgd": gd, "momentum": heavy_ball, "nesterov": nesterov,
    "adagrad": adagrad, "rmsprop": rmsprop, "adam": adam, "adamw": adamw,
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTBOOK)
def test_steps_are_the_textbooks(name):
    problem = quadratic("q", np.array([1.0, 0.3, 0.05]))
    coef, state, expected = np.array([1.0, -2.0, 0.5]), {}, []
    for t in range(1, STEPS + 1):
        gradient = problem.reduce(Query(coef[None])).gradient[0]
        coef, state = TEXTBOOK[name](gradient, coef, state, t)
        expected.append(coef)
    seen = []
    minimise(
        problem.reduce,
        Problem(
            optim.by_name(name, RATE),
            np.array([1.0, -2.0, 0.5]),
            stop=Stop(STEPS, 0.0),
            callbacks=[lambda progress: seen.append(progress.coef)],
        ),
    )
    np.testing.assert_allclose(seen[1:], expected, rtol=1e-12, atol=1e-14)


# How the fixed-step methods must be set for the table: a step that its largest curvature allows, and time.
SETTINGS = {
    "momentum": lambda c: optim.momentum(0.5 / c),
    "nesterov": lambda c: optim.nesterov(0.5 / c),
    "sgd": lambda c: optim.sgd(1.0 / c),
    "adagrad": lambda c: optim.adagrad(0.5),
    "rmsprop": lambda c: optim.rmsprop(optim.schedules.Exponential(0.05, 0.995)),
    "adam": lambda c: optim.adam(optim.schedules.Cosine(0.1, 3000)),
    "adamw": lambda c: optim.adamw(optim.schedules.Cosine(0.1, 3000), weight_decay=0.0),
}
EXACT = ("lbfgs", "fista", "gd", "momentum", "nesterov", "sgd")


@pytest.mark.parametrize("problem", convex_problems(), ids=str)
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_every_optimiser_reaches_the_optimum_or_is_refused(name, problem):
    optimizer = SETTINGS[name](problem.curvature) if name in SETTINGS else optim.by_name(name)
    task = Problem(optimizer, problem.start, problem.penalty, Stop(3000, 0.0, gradient_tol=1e-10))
    if not problem.penalty.smooth and not optimizer.search.has_prox:
        with pytest.raises(IncompatibleError, match=f"{name}.*L1.*Use optimizer='fista'"):
            minimise(problem.reduce, task)
        return
    solution = minimise(problem.reduce, task)
    assert problem.gap(solution.coef) < (1e-6 if name in EXACT else 1e-3)
    assert problem.gap(solution.coef) > -1e-8


def test_lbfgs_solves_rosenbrock():
    """A curved valley, far from convex: the strong Wolfe search must do real work."""
    from scipy.optimize import rosen, rosen_der

    from sparkopt.objective import PartialSum

    def reduce(query):
        values, slopes = [rosen(c) for c in query.coefs], [rosen_der(c) for c in query.coefs]
        return PartialSum(np.array(values), np.array(slopes), 1.0, 1)

    found = minimise(reduce, Problem(optim.lbfgs(), np.array([-1.2, 1.0, -0.5, 0.8]), stop=Stop(200, 0.0, 1e-9)))
    np.testing.assert_allclose(found.coef, 1.0, atol=1e-6)


def test_unknown_names_and_useless_rates_are_refused():
    with pytest.raises(ParameterError, match="optimizer must be one of gd, sgd"):
        optim.by_name("sdg")
    with pytest.raises(ParameterError, match="'lbfgs' finds its own step sizes"):
        optim.by_name("lbfgs", 0.1)

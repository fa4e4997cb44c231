"""Newer methods step as optax, PyTorch or their papers do; those without a step size need none at any scale."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sparkopt import optim
from sparkopt.losses import Logistic
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.work import FullGradient, MiniBatch
from sparkopt.penalties import L1, NoPenalty
from sparkopt.solver.loop import minimise
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Stop
from tests.optim.test_optim import START, STEPS, path
from tests.problems import KnownProblem, in_blocks, minimise_l1, reduce_over

CURVATURES = np.array([1.0, 0.3, 0.05])
OPTAX = json.loads((Path(__file__).parent / "optax_steps.json").read_text())


def bowl() -> KnownProblem:
    """½ Σ curvature · w²: what ``record_optax_steps.py`` minimises."""

    def reduce(query: Query) -> PartialSum:
        points = query.request.points
        if isinstance(query.request, optim.HessianProducts):
            return PartialSum(np.zeros(len(points)), query.request.vectors * CURVATURES, 1.0, 1)
        return PartialSum(0.5 * points**2 @ CURVATURES, points * CURVATURES, 1.0, 1)

    return KnownProblem("bowl", reduce, 3, 0.0, 1.0)


@pytest.mark.parametrize("name", [name for name in OPTAX if not name.endswith("mean")])
def test_steps_are_those_of_optax(name):
    np.testing.assert_allclose(path(optim.by_name(name), bowl()), OPTAX[name], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", ["schedule-free-sgd", "schedule-free-adamw"])
def test_schedule_free_methods_end_with_the_mean_of_optax(name):
    solution = minimise(bowl().reduce, Problem(optim.by_name(name), START, stop=Stop(STEPS, 0.0)))
    np.testing.assert_allclose(solution.coef, OPTAX[f"{name} mean"], rtol=1e-9)


def adan(g, w, s, t):
    """Xie et al. (2022), algorithm 1, bias-corrected as in the authors' code: β = 0.02, 0.08, 0.01, η = 0.05."""
    before = s.get("g", g)
    m = 0.98 * s.get("m", 0) + 0.02 * g
    v = 0.92 * s.get("v", 0) + 0.08 * (g - before)
    n = 0.99 * s.get("n", 0) + 0.01 * (g + 0.92 * (g - before)) ** 2
    u = m / (1 - 0.98**t) + 0.92 * v / (1 - 0.92**t)
    return w - 0.05 / (np.sqrt(n / (1 - 0.99**t)) + 1e-8) * u, {"g": g, "m": m, "v": v, "n": n}


def sophia(g, w, s, t):
    """Liu et al. (2023), algorithm 3, η = 0.05, γ = 0.01, k = 10: Hutchinson's estimate is exact for this Hessian."""
    m = 0.965 * s.get("m", 0) + 0.035 * g
    h = s.get("h", 0)
    if t % 10 == 1:
        h = 0.99 * h + 0.01 * CURVATURES
    return w - 0.05 * np.clip(m / np.maximum(0.01 * h, 1e-12), -1, 1), {"m": m, "h": h}


def ftrl(g, w, s, t):
    """McMahan et al. (2013), algorithm 1 with α = 0.5, β = 1 and no λ, from a start of w instead of zero."""
    n = s.get("n", 0.0)
    sigma = (np.sqrt(n + g**2) - np.sqrt(n)) / 0.5 if "z" in s else (1 + np.abs(g)) / 0.5
    z = s.get("z", 0.0) + g - sigma * w
    n = n + g**2
    return -z / ((1 + np.sqrt(n)) / 0.5), {"z": z, "n": n}


PAPERS = {"adan": adan, "sophia": sophia, "ftrl": ftrl}


@pytest.mark.parametrize("name", PAPERS)
def test_steps_are_those_of_the_paper(name):
    coef, state, expected = START, {}, [START]
    for t in range(1, STEPS + 1):
        coef, state = PAPERS[name](CURVATURES * coef, coef, state, t)
        expected.append(coef)
    np.testing.assert_allclose(path(optim.by_name(name), bowl()), expected, rtol=1e-12, atol=1e-14)


def test_adafactor_steps_as_pytorch_does():
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    theirs, expected = torch.optim.Adafactor([parameter], lr=0.05, eps=(2.0**-52, 1e-3), weight_decay=0.0), [START]
    for _ in range(STEPS):
        parameter.grad = torch.tensor(CURVATURES) * parameter.detach()
        theirs.step()
        expected.append(parameter.detach().numpy().copy())
    np.testing.assert_allclose(path(optim.adafactor(0.05), bowl()), expected, rtol=1e-10)


def click_rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(400, 8))
    return X, (X[:, 0] - 0.5 * X[:, 1] + rng.logistic(size=400) > 0).astype(float)


def test_ftrl_keeps_coefficients_at_zero_under_l1_and_ends_at_the_optimum():
    X, y = click_rows()
    objective = LinearObjective(Logistic(), X.shape[1], fit_intercept=False)

    def smooth(w):
        margin = X @ w
        return float(np.mean(np.logaddexp(0, margin) - y * margin)), X.T @ (1 / (1 + np.exp(-margin)) - y) / len(y)

    best = minimise_l1(smooth, 8, 0.05)
    reduce = reduce_over(FullGradient(objective), [in_blocks(X, y)])
    solution = minimise(reduce, Problem(optim.ftrl(), np.zeros(8), L1(0.05), Stop(400, 0.0)))
    np.testing.assert_allclose(solution.coef, best, atol=1e-4)
    assert ((solution.coef == 0) == (np.abs(best) < 1e-9)).all()
    assert (solution.coef == 0).sum() >= 4


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("name", ["prodigy", "dadapt-adam", "dog", "dowg"])
def test_no_step_size_is_needed_whatever_the_distance(name, scale):
    """The optimum is a thousandth, one or a thousand away: nothing is set, and all come within a thousandth of it."""
    curvatures = np.array([1.0, 0.3, 0.05])
    best = scale * np.array([1.0, -2.0, 0.5])

    def reduce(query: Query) -> PartialSum:
        away = query.request.points - best
        return PartialSum(0.5 * away**2 @ curvatures, away * curvatures, 1.0, 1)

    solution = minimise(reduce, Problem(optim.by_name(name), np.zeros(3), NoPenalty(), Stop(2000, 0.0)))
    start = 0.5 * best**2 @ curvatures
    assert 0.5 * (solution.coef - best) ** 2 @ curvatures < 1e-3 * start


@pytest.mark.parametrize(("name", "constant"), [("schedule-free-sgd", "sgd"), ("schedule-free-adamw", "adam")])
def test_schedule_free_methods_need_no_falling_rate_in_mini_batches(name, constant):
    """At the same rate, the mean is far nearer to the optimum than the last steps."""
    X, y = click_rows()
    objective = LinearObjective(Logistic(), X.shape[1], fit_intercept=False)
    exact = reduce_over(FullGradient(objective), [in_blocks(X, y)])
    best = minimise(exact, Problem(optim.lbfgs(), np.zeros(8), stop=Stop(100, 1e-12))).objective
    reduce = reduce_over(MiniBatch(objective, 0.1), [in_blocks(X, y)])

    def gap(method: str) -> float:
        rate = 1.0 if method.endswith("sgd") else 0.05
        found = minimise(reduce, Problem(optim.by_name(method, rate), np.zeros(8), stop=Stop(800, 0.0, window=50)))
        return float(exact(Query(optim.Gradients(found.coef[None]))).loss[0]) / len(y) - best

    assert gap(name) < gap(constant) / 4

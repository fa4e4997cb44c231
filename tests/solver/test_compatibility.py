"""Every pair of optimiser, penalty and schedule of rows is solved to the known optimum, or refused by both names."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import optimize

from sparkopt import optim
from sparkopt.errors import IncompatibleError
from sparkopt.losses import Hinge, Logistic, Quantile, SquaredError
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import Query
from sparkopt.objective.work import FullGradient, LocalSteps, LocalUpdate, MiniBatch
from sparkopt.penalties import L1, L2, Box, ElasticNet, GroupLasso, NoPenalty, Penalty
from sparkopt.solver.compatibility import Method, check_compatible
from sparkopt.solver.loop import minimise
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Stop
from tests.problems import in_blocks, minimise_l1, reduce_over, regression_rows

X, Y = regression_rows(rows=160, noise=0.1)
OBJECTIVE = LinearObjective(SquaredError(), 5, fit_intercept=False)
GROUPS = [[0, 1], [2], [3, 4]]
PENALTIES: dict[str, Penalty] = {
    "none": NoPenalty(),
    "L2": L2(0.1),
    "L1": L1(0.1),
    "elastic net": ElasticNet(0.1, 0.5),
    "group lasso": GroupLasso(0.1, GROUPS),
    "bounds": Box(-0.5, 0.7),
    "bounds and L2": Box(-0.5, 0.7, penalty=L2(0.1)),
    "bounds and L1": Box(-0.5, 0.7, penalty=L1(0.1)),
}
WORKS = {"all rows": FullGradient(OBJECTIVE), "mini-batches": MiniBatch(OBJECTIVE, 0.5)}
ROUNDS = {
    "average": LocalSteps(8),
    "post-local": LocalSteps(8, warm_up=20),
    "diloco": LocalSteps(8, outer=optim.diloco()),
}
STEPS, TAKEN_ROUNDS = 200, 100


def smooth(coef: np.ndarray, strength: float = 0.0) -> tuple[float, np.ndarray]:
    residual = X @ coef - Y
    value = 0.5 * np.mean(residual**2) + 0.5 * strength * coef @ coef
    return value, X.T @ residual / len(Y) + strength * coef


@cache
def optimum(name: str) -> np.ndarray:
    """Return where SciPy finds it, or a linear equation."""
    if name in ("none", "L2"):
        strength = 0.1 if name == "L2" else 0.0
        return np.linalg.solve(X.T @ X / len(Y) + strength * np.eye(5), X.T @ Y / len(Y))
    if name == "L1":
        return minimise_l1(smooth, 5, 0.1)
    if name == "elastic net":
        return minimise_l1(lambda w: smooth(w, 0.05), 5, 0.05)
    if name == "group lasso":
        return group_optimum(0.1)
    if name == "bounds and L1":  # as the difference of two numbers between 0 and the bounds
        return bounded(lambda both: split(both, 0.1), [(0, 0.7)] * 5 + [(0, 0.5)] * 5)
    return bounded(lambda w: smooth(w, 0.1 if name.endswith("L2") else 0.0), [(-0.5, 0.7)] * 5)


def split(both: np.ndarray, strength: float) -> tuple[float, np.ndarray]:
    value, gradient = smooth(both[:5] - both[5:])
    return value + strength * both.sum(), np.concatenate([gradient, -gradient]) + strength


def bounded(f, bounds) -> np.ndarray:
    options = {"ftol": 1e-16, "gtol": 1e-12, "maxiter": 10_000}
    start = np.full(len(bounds), 0.1)
    found = optimize.minimize(f, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return found if len(found) == 5 else found[:5] - found[5:]


def group_optimum(strength: float) -> np.ndarray:
    """Minimise over coefficients w and bounds t ≥ ‖w of group‖, where the objective is smooth."""

    def f(both):
        value, gradient = smooth(both[:5])
        weights = strength * np.sqrt([len(group) for group in GROUPS])
        return value + weights @ both[5:], np.concatenate([gradient, weights])

    def cone(both):
        return np.array([t**2 - np.sum(both[:5][group] ** 2) for t, group in zip(both[5:], GROUPS, strict=True)])

    found = optimize.minimize(
        f,
        np.ones(8),
        jac=True,
        method="SLSQP",
        bounds=[(None, None)] * 5 + [(0, None)] * 3,
        constraints={"type": "ineq", "fun": cone},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return found.x[:5]


STEP_SIZE_FREE = {"prodigy", "dadapt-adam", "dog", "dowg"}
LEARNING = STEP_SIZE_FREE | {"soap"}
"""Their first steps are tiny, or none."""
FALLING = optim.schedules.InverseTime(0.3, decay=0.02)
SETTINGS = {
    "sgd": lambda steps: optim.sgd(FALLING),
    "momentum": lambda steps: optim.momentum(optim.schedules.InverseTime(0.05, decay=0.02)),
    "nesterov": lambda steps: optim.nesterov(optim.schedules.InverseTime(0.05, decay=0.02)),
    "svrg": lambda steps: optim.svrg(0.3, snapshot_every=10),
    **{
        name: lambda steps, name=name: optim.by_name(name, optim.schedules.Cosine(0.1, steps))
        for name in ("rmsprop", "adam", "amsgrad", "nadam", "lars", "lamb")
    },
    "adagrad": lambda steps: optim.adagrad(0.5),
    "adadelta": lambda steps: optim.adadelta(optim.schedules.Cosine(10.0, steps)),
    "adamw": lambda steps: optim.adamw(optim.schedules.Cosine(0.1, steps), weight_decay=0.0),
    "lion": lambda steps: optim.lion(optim.schedules.Cosine(0.05, steps)),
    "ademamix": lambda steps: optim.ademamix(optim.schedules.Cosine(0.1, steps), beta3=0.99, alpha=1.0),
    "adan": lambda steps: optim.adan(optim.schedules.Cosine(0.1, steps)),
    "adafactor": lambda steps: optim.adafactor(optim.schedules.Cosine(0.5, steps)),
    "muon": lambda steps: optim.muon(optim.schedules.Cosine(0.05, steps)),
    "soap": lambda steps: optim.soap(optim.schedules.Cosine(0.1, steps)),
    "sophia": lambda steps: optim.sophia(optim.schedules.Cosine(0.05, steps)),
    "ftrl": lambda steps: optim.ftrl(0.5),
    "schedule-free-sgd": lambda steps: optim.schedule_free_sgd(0.3),
    "schedule-free-adamw": lambda steps: optim.schedule_free_adamw(0.1),
    **{name: lambda steps, name=name: optim.by_name(name) for name in ("dog", "dowg")},
    **{
        name: lambda steps, name=name: optim.by_name(name, optim.schedules.Cosine(1.0, steps))
        for name in ("prodigy", "dadapt-adam")
    },
}
BOUNDED = {"bounds", "bounds and L2"}
NEWTON = {"proximal-newton", "subsampled-newton"}
LINE_SEARCHES = {"gd", "fista", "lbfgs", "owlqn", "newton-cg", "proximal-lbfgs"} | NEWTON
# Methods that learn their step, average their steps, or move by small ones: more of them lead to the same optimum.
PATIENT = STEP_SIZE_FREE | {"adan", "sophia", "schedule-free-sgd", "schedule-free-adamw"}
NO_BOUNDS = LINE_SEARCHES | {"schedule-free-sgd", "schedule-free-adamw", "dadapt-adam", "muon", "soap"}
EXACT_GRADIENTS = LINE_SEARCHES | {"svrg", "sophia", "ftrl"}
PROXIMAL = {"gd", "sgd", "svrg", "fista", "proximal-lbfgs"} | NEWTON


def works(name: str, penalty: str, rows: str) -> bool:
    """The table, written down."""
    if rows == "mini-batches" and name in LINE_SEARCHES:
        return False
    if penalty in ("none", "L2"):
        return True
    if penalty in ("L1", "elastic net"):
        return name in PROXIMAL | {"owlqn", "ftrl"}
    if penalty == "bounds and L1":
        return name in PROXIMAL | {"ftrl"}
    return name in PROXIMAL or (penalty in BOUNDED and name not in NO_BOUNDS)


@pytest.mark.parametrize("rows", WORKS)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_every_pair_is_solved_or_refused(name, penalty, rows):
    steps = 5 * STEPS if name in PATIENT else STEPS
    optimizer = SETTINGS[name](steps) if name in SETTINGS else optim.by_name(name)
    chosen, work = PENALTIES[penalty], WORKS[rows]
    if not works(name, penalty, rows):
        way_out = "miniBatchFraction" if rows == "mini-batches" else chosen.label.split(" (")[0]
        with pytest.raises(IncompatibleError, match=f"'{name}'.*({way_out}|{chosen.label.split(' (')[0]}).* Use "):
            check_compatible(Method(optimizer, chosen, SquaredError(), is_exact=work.is_exact))
        return
    check_compatible(Method(optimizer, chosen, SquaredError(), is_exact=work.is_exact))
    reduce = reduce_over(work, [in_blocks(X[:90], Y[:90], rows=90), in_blocks(X[90:], Y[90:], rows=90)])
    window = 1 if work.is_exact else 2
    found = minimise(reduce, Problem(optimizer, np.zeros(5), chosen, Stop(steps, 0.0, 1e-9, window)))
    best, start = (objective(chosen, at) for at in (optimum(penalty), np.zeros(5)))
    gap = (objective(chosen, found.coef) - best) / (start - best)
    assert gap > -1e-7  # SciPy's optimum is the optimum
    assert gap < (1e-6 if name in LINE_SEARCHES | {"svrg"} else 1e-4 if work.is_exact else 2e-3)


@pytest.mark.parametrize("schedule", ROUNDS)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_every_pair_with_local_steps_is_solved_or_refused(name, penalty, schedule):
    """Falling rates end at the optimum of all rows, though each partition has another."""
    optimizer = SETTINGS[name](TAKEN_ROUNDS) if name in SETTINGS else optim.by_name(name)
    chosen, rounds = PENALTIES[penalty], ROUNDS[schedule]
    if penalty not in ("none", "L2") or name in EXACT_GRADIENTS | LEARNING:
        with pytest.raises(IncompatibleError, match=f"('{name}'|local steps) (cannot serve|needs).* Use "):
            check_compatible(Method(optimizer, chosen, local_steps=rounds))
        return
    check_compatible(Method(optimizer, chosen, local_steps=rounds))
    work = LocalUpdate(WORKS["all rows"], optimizer, rounds, chosen)
    reduce = reduce_over(work, [in_blocks(X[:90], Y[:90], rows=90), in_blocks(X[90:], Y[90:], rows=90)])
    found = minimise(reduce, Problem(rounds.outer, np.zeros(5), chosen, Stop(TAKEN_ROUNDS, 0.0, 1e-9)))
    best, start = (objective(chosen, at) for at in (optimum(penalty), np.zeros(5)))
    gap = (objective(chosen, found.coef) - best) / (start - best)
    assert -1e-7 < gap < 2e-3
    assert found.objective == pytest.approx(objective(chosen, found.coef), rel=1e-9)


def objective(penalty: Penalty, coef: np.ndarray) -> float:
    return smooth(coef)[0] + penalty.value(coef)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
@pytest.mark.parametrize("what", ["local", "lossy"])
def test_local_steps_and_lossy_codecs_go_with_fixed_steps_only(what, name, penalty):
    optimizer, chosen = SETTINGS[name](STEPS) if name in SETTINGS else optim.by_name(name), PENALTIES[penalty]
    fits = works(name, penalty, "all rows") and name not in EXACT_GRADIENTS
    fits &= what == "lossy" or (penalty in ("none", "L2") and name not in LEARNING)
    method = Method(optimizer, chosen, **({"is_lossy": True} if what == "lossy" else {"local_steps": LocalSteps(8)}))
    if fits:
        check_compatible(method)
        return
    with pytest.raises(IncompatibleError, match=f"('{name}'|local steps) (cannot serve|needs).* Use "):
        check_compatible(method)


@pytest.mark.parametrize("loss", [Hinge(), Quantile(0.3), Hinge(0.1), Quantile(0.3, 0.1), Logistic()], ids=repr)
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_nonsmooth_losses_are_not_for_line_searches(name, loss):
    optimizer = optim.by_name(name)
    if loss.smooth or name not in LINE_SEARCHES:
        check_compatible(Method(optimizer, loss=loss))
        return
    with pytest.raises(
        IncompatibleError, match=f"'{name}' needs .* loss '{loss.name}' is nonsmooth. Use its smoothed"
    ):
        check_compatible(Method(optimizer, loss=loss))


def test_a_fixed_rate_of_gradient_descent_serves_what_its_search_does_not():
    check_compatible(Method(optim.gd(0.1), L1(0.1), is_exact=False))
    with pytest.raises(IncompatibleError, match="miniBatchFraction"):
        check_compatible(Method(optim.gd(), L1(0.1), is_exact=False))


def test_minimise_refuses_before_the_first_pass():
    def reduce(query: Query):
        raise AssertionError("a pass was made")

    with pytest.raises(IncompatibleError, match="'lbfgs' cannot serve bounds on coefficients"):
        minimise(reduce, Problem(optim.lbfgs(), np.zeros(2), Box(0.0)))

"""Test problems with known optima, found by closed forms or by SciPy, never by the code under test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from scipy import optimize, sparse, special

from sparkopt.blocks.block import Block, InMemoryBlocks, Part
from sparkopt.losses import Logistic, Multinomial, SquaredError
from sparkopt.objective.cross_validation import Objective, evaluate
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.work import FullGradient, Work
from sparkopt.optim import Gradients, HessianProducts, Hessians
from sparkopt.penalties import L1, L2, NoPenalty, Penalty
from sparkopt.solver.loop import Reduce

Floats = np.ndarray


@dataclass(frozen=True)
class KnownProblem:
    """A problem, its optimum, and the largest curvature of its smooth part."""

    name: str
    reduce: Reduce
    size: int
    optimum: float
    curvature: float
    penalty: Penalty = field(default_factory=NoPenalty)
    start: Floats = field(default=None)

    def __post_init__(self) -> None:
        if self.start is None:
            object.__setattr__(self, "start", np.zeros(self.size))

    def __str__(self) -> str:
        return self.name

    def value(self, coef: Floats) -> float:
        return float(self.reduce(Query(Gradients(coef[None]))).mean()[0][0]) + self.penalty.value(coef)

    def gap(self, coef: Floats) -> float:
        """Share of the distance from the start's objective to the optimum that is still to go."""
        return (self.value(coef) - self.optimum) / (self.value(self.start) - self.optimum)


def named(value: object) -> str | None:
    """Return a test's id, the same in every process: what shows its address is left to pytest to name."""
    text = repr(value)
    return None if " at 0x" in text else text


def finite_difference(f: Callable[[Floats], float], at: Floats, step: float = 1e-6) -> Floats:
    """Return the gradient by central differences."""
    moves = step * np.eye(len(at))
    return np.array([(f(at + move) - f(at - move)) / (2 * step) for move in moves])


def reduce_over(work: Work, partitions: Sequence[InMemoryBlocks]) -> Reduce:
    """Sum a work over partitions in order, as the driver does."""
    rows = np.cumsum([0, *(int(blocks.starts[-1]) for blocks in partitions)])

    def reduce(query: Query) -> PartialSum:
        total = query.zero()
        for index, blocks in enumerate(partitions):
            total = total + work(query, Part(index, int(rows[index]), int(rows[-1])), blocks)
        return total

    return reduce


def in_blocks(X: Floats, y: Floats, weight: Floats | None = None, rows: int = 32) -> InMemoryBlocks:
    """Cut rows into blocks."""
    X = sparse.csr_array(X) if sparse.issparse(X) else X
    cuts = [slice(first, first + rows) for first in range(0, len(y), rows)]
    return InMemoryBlocks([Block(X[cut], y[cut], None if weight is None else weight[cut]) for cut in cuts])


def quadratic(name: str, curvatures: Floats) -> KnownProblem:
    """½ (w − c)ᵀ A (w − c) with the eigenvalues given: the optimum is 0, at c."""
    rng = np.random.default_rng(1)
    size = len(curvatures)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    A, c = basis * curvatures @ basis.T, rng.normal(size=size)

    def reduce(query: Query) -> PartialSum:
        away = query.request.points - c
        if isinstance(query.request, HessianProducts):
            return PartialSum(np.zeros(len(away)), query.request.vectors @ A, 1.0, 1)
        values, slopes = 0.5 * np.einsum("mi,ij,mj->m", away, A, away), away @ A
        if isinstance(query.request, Hessians):
            slopes = np.array([Hessians.packed(slope, A) for slope in slopes])
        return PartialSum(values, slopes, 1.0, 1)

    return KnownProblem(name, reduce, size, 0.0, float(curvatures.max()))


def rosenbrock() -> KnownProblem:
    """A curved valley, far from convex (Rosenbrock, 1960): the optimum is 0, at 1."""

    def reduce(query: Query) -> PartialSum:
        points = query.request.points
        values = np.array([optimize.rosen(coef) for coef in points])
        if isinstance(query.request, Hessians):
            slopes = [Hessians.packed(optimize.rosen_der(coef), optimize.rosen_hess(coef)) for coef in points]
        elif not isinstance(query.request, HessianProducts):
            slopes = [optimize.rosen_der(coef) for coef in points]
        else:
            pairs = zip(points, query.request.vectors, strict=True)
            slopes = [optimize.rosen_hess_prod(coef, vector) for coef, vector in pairs]
        return PartialSum(values, np.array(slopes), 1.0, 1)

    start = np.array([-1.2, 1.0])
    curvature = float(np.linalg.eigvalsh(optimize.rosen_hess(start)).max())
    return KnownProblem("rosenbrock", reduce, 2, 0.0, curvature, start=start)


def regression_rows(rows: int = 120, features: int = 5, noise: float = 0.3) -> tuple[Floats, Floats]:
    """Return features and targets of a linear model whose last coefficients are zero."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(rows, features))
    truth = np.where(np.arange(features) < features - 2, np.linspace(1.5, -1, features), 0.0)
    return X, X @ truth + noise * rng.normal(size=rows)


@cache
def lasso(strength: float = 0.1) -> KnownProblem:
    """Least squares with an L1 penalty; the optimum by bounded minimisation over positive and negative parts."""
    X, y = regression_rows()
    objective = LinearObjective(SquaredError(), X.shape[1], fit_intercept=False)

    def value(coef: Floats) -> float:
        return float(0.5 * np.mean((X @ coef - y) ** 2) + strength * np.abs(coef).sum())

    return KnownProblem(
        "lasso",
        reduce_over(FullGradient(objective), [in_blocks(X, y)]),
        objective.size,
        value(minimise_l1(lambda w: (0.5 * np.mean((X @ w - y) ** 2), X.T @ (X @ w - y) / len(y)), 5, strength)),
        float(np.linalg.norm(X, 2) ** 2 / len(y)),
        L1(strength),
    )


def minimise_l1(f: Callable[[Floats], tuple[float, Floats]], size: int, strength: float) -> Floats:
    """Minimise f(w) + strength · ‖w‖₁ as a smooth problem in w = u − v with u, v ≥ 0."""

    def split(both: Floats) -> tuple[float, Floats]:
        value, gradient = f(both[:size] - both[size:])
        return value + strength * both.sum(), np.concatenate([gradient, -gradient]) + strength

    found = optimize.minimize(
        split,
        np.full(2 * size, 0.1),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * (2 * size),
        options={"ftol": 1e-16, "gtol": 1e-12, "maxiter": 10_000},
    )
    return found.x[:size] - found.x[size:]


def classification_rows(classes: int, rows: int = 120, features: int = 4) -> tuple[Floats, Floats]:
    """Return features and labels 0 … classes − 1 that overlap."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(rows, features))
    raw = X @ rng.normal(size=(features, classes)) + rng.gumbel(size=(rows, classes))
    return X, raw.argmax(axis=1).astype(float)


@cache
def logistic(strength: float = 0.05) -> KnownProblem:
    """Logistic regression with an intercept and an L2 penalty on all coefficients."""
    X, y = classification_rows(2)
    objective = LinearObjective(Logistic(), X.shape[1])
    Z = np.column_stack([X, np.ones(len(y))])

    def value(coef: Floats) -> float:
        raw = Z @ coef
        return float(-np.mean(special.log_expit(np.where(y == 1, raw, -raw))) + 0.5 * strength * coef @ coef)

    return KnownProblem(
        "logistic",
        reduce_over(FullGradient(objective), [in_blocks(X, y)]),
        objective.size,
        smooth_optimum(value, objective.size),
        float(np.linalg.norm(Z, 2) ** 2 / len(y) / 4 + strength),
        L2(strength),
    )


@cache
def multinomial(strength: float = 0.05) -> KnownProblem:
    """Multinomial regression without intercept, with an L2 penalty."""
    X, y = classification_rows(3)
    objective = LinearObjective(Multinomial(3), X.shape[1], fit_intercept=False)

    def value(coef: Floats) -> float:
        raw = X @ coef.reshape(X.shape[1], 3)
        chosen = raw[np.arange(len(y)), y.astype(int)]
        return float(np.mean(special.logsumexp(raw, axis=1) - chosen) + 0.5 * strength * coef @ coef)

    return KnownProblem(
        "multinomial",
        reduce_over(FullGradient(objective), [in_blocks(X, y)]),
        objective.size,
        smooth_optimum(value, objective.size),
        float(np.linalg.norm(X, 2) ** 2 / len(y) / 2 + strength),
        L2(strength),
    )


@cache
def sparse_logistic(strength: float = 0.02) -> KnownProblem:
    """Logistic regression over rows of zeros but for a few features, most of them rare."""
    rng = np.random.default_rng(4)
    rows, features = 150, 12
    often = 1 / np.arange(2, features + 2)
    X = rng.normal(size=(rows, features)) * (rng.random((rows, features)) < often)
    y = (X @ rng.normal(size=features) + rng.logistic(size=rows) > 0).astype(float)
    objective = LinearObjective(Logistic(), features, fit_intercept=False)

    def value(coef: Floats) -> float:
        raw = X @ coef
        return float(-np.mean(special.log_expit(np.where(y == 1, raw, -raw))) + 0.5 * strength * coef @ coef)

    return KnownProblem(
        "sparse",
        reduce_over(FullGradient(objective), [in_blocks(sparse.csr_array(X), y)]),
        features,
        smooth_optimum(value, features),
        float(np.linalg.norm(X, 2) ** 2 / rows / 4 + strength),
        L2(strength),
    )


def smooth_optimum(value: Callable[[Floats], float], size: int) -> float:
    """Return the minimum by SciPy's BFGS on differences of the values alone: accurate to about 1e-12."""
    found = optimize.minimize(value, np.zeros(size), method="BFGS", jac="3-point", options={"gtol": 1e-8})
    return float(found.fun)


def known_problems() -> list[KnownProblem]:
    """Every problem of the table."""
    return [
        quadratic("quadratic", np.array([1.0, 0.7, 0.5])),
        quadratic("ill-conditioned", np.array([1.0, 0.1, 0.003])),
        rosenbrock(),
        logistic(),
        multinomial(),
        sparse_logistic(),
        lasso(),
    ]


def gradients_of(objective: Objective, points: Floats, blocks: Sequence[Block]) -> PartialSum:
    """Return losses and gradients at every row of ``points``, summed over blocks."""
    return evaluate(objective, Query(Gradients(points)), blocks)


def products_of(objective: Objective, points: Floats, vectors: Floats, blocks: Sequence[Block]) -> PartialSum:
    """Return the Hessian at every row of ``points`` times that of ``vectors``, summed over blocks."""
    return evaluate(objective, Query(HessianProducts(points, vectors)), blocks)

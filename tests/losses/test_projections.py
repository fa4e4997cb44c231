"""Losses of models that are not linear: derivatives by finite differences, by PyTorch, and by definition."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from sparkopt.blocks.block import Block
from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.losses import (
    Derivatives,
    FactorizationMachine,
    Logistic,
    MultilayerPerceptron,
    Multinomial,
    ProjectionLoss,
    SquaredError,
    SquaredResidual,
    check_loss,
)
from sparkopt.objective import FoldedObjective, LinearObjective, Query, evaluate
from sparkopt.optim.request import Gradients, HessianProducts, Hessians, Losses

ROWS, WIDTH = 60, 6
MACHINES = {
    "machine": (FactorizationMachine(SquaredResidual(), 3), False),
    "machine of classes": (FactorizationMachine(Logistic(), 2), False),
    "pairs alone": (FactorizationMachine(SquaredError(), 2, fit_linear=False, fit_intercept=False), False),
    "network": (MultilayerPerceptron(Multinomial(3), (5, 4, 3)), True),
    "network of numbers": (MultilayerPerceptron(SquaredError(), (4, 1)), True),
    "one layer": (MultilayerPerceptron(Multinomial(3), (3,)), True),
}
every = pytest.mark.parametrize("name", MACHINES)
each_form = pytest.mark.parametrize("form", ["dense", "sparse"])


def problem(name: str, form: str = "dense", dtype: Any = np.float64) -> tuple[LinearObjective, list[Block]]:
    """Return an objective with scaled features, centred where it may be, and weighted rows in two blocks."""
    loss, is_centred = MACHINES[name]
    rng = np.random.default_rng(7)
    X = (rng.normal(size=(ROWS, WIDTH)) * (rng.random((ROWS, WIDTH)) < 0.5)).astype(dtype)
    y = rng.integers(0, 2, ROWS).astype(float) if loss.targets.whole else rng.normal(size=ROWS)
    weight = rng.uniform(0.5, 2.0, ROWS)
    center = rng.normal(size=WIDTH) if is_centred else None
    objective = LinearObjective(loss, WIDTH, is_centred, rng.uniform(0.5, 2.0, WIDTH), center)
    rows = sparse.csr_array(X) if form == "sparse" else X
    parts = [slice(0, 25), slice(25, ROWS)]
    return objective, [Block(rows[part], y[part], weight[part], fold=i) for i, part in enumerate(parts)]


def by_definition(objective: LinearObjective, coef: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Return raw predictions from sums over pairs of features, and from layers."""
    loss = objective.loss
    matrix, intercept = objective.over_features(coef)
    parameters = objective.auxiliary(coef)
    if isinstance(loss, FactorizationMachine):
        pairs = [
            (matrix[i, 1:] @ matrix[j, 1:]) * X[:, i] * X[:, j]
            for i, j in itertools.combinations(range(X.shape[1]), 2)
        ]
        linear = X @ matrix[:, 0] if loss.fit_linear else 0.0
        return np.asarray(loss.fit_intercept * parameters[0] + linear + sum(pairs))
    assert isinstance(loss, MultilayerPerceptron)
    sums, at = X @ matrix + intercept, 0
    for before, after in itertools.pairwise(loss.units):
        layer = parameters[at : at + before * after].reshape(before, after)
        bias = parameters[at + before * after : at + (before + 1) * after]
        sums, at = 1 / (1 + np.exp(-sums)) @ layer + bias, at + (before + 1) * after
    return np.asarray(sums if loss.units[-1] > 1 else sums[:, 0])


@every
@each_form
def test_sums_are_those_of_the_definition_and_gradients_their_differences(name: str, form: str) -> None:
    objective, blocks = problem(name, form)
    rng = np.random.default_rng(1)
    points, step = rng.normal(size=(2, objective.size)), 1e-6
    found = evaluate(objective, Query(Gradients(points)), blocks)
    for coef, loss, gradient in zip(points, found.loss, found.gradient, strict=True):
        total = 0.0
        for block in blocks:
            X = block.X.toarray() if form == "sparse" else block.X
            assert block.weight is not None
            total += block.weight @ objective.loss.value_gradient(block.y, by_definition(objective, coef, X))[0]
        assert loss == pytest.approx(total, rel=1e-12)
        moved = np.concatenate([coef + step * np.eye(len(coef)), coef - step * np.eye(len(coef))])
        up, down = np.split(evaluate(objective, Query(Losses(moved)), blocks).loss, 2)
        np.testing.assert_allclose(gradient, (up - down) / (2 * step), rtol=1e-5, atol=1e-5)
    assert found.rows == ROWS


@every
@each_form
def test_rows_in_single_precision_give_nearly_the_same(name: str, form: str) -> None:
    points = np.random.default_rng(1).normal(size=(3, problem(name)[0].size))
    exact, narrow = (
        evaluate(problem(name, form, dtype)[0], Query(Gradients(points)), problem(name, form, dtype)[1])
        for dtype in (np.float64, np.float32)
    )
    np.testing.assert_allclose(narrow.loss, exact.loss, rtol=1e-5)
    np.testing.assert_allclose(narrow.gradient, exact.gradient, rtol=1e-4, atol=1e-3)


@every
def test_products_with_the_hessian_are_differences_of_gradients(name: str) -> None:
    objective, blocks = problem(name)
    rng = np.random.default_rng(2)
    points, vectors = rng.normal(size=(2, 3, objective.size))
    found = evaluate(objective, Query(HessianProducts(points, vectors)), blocks).gradient
    up, down = (
        evaluate(objective, Query(Gradients(points + sign * 1e-5 * vectors)), blocks).gradient for sign in (1, -1)
    )
    np.testing.assert_allclose(found, (up - down) / 2e-5, rtol=1e-4, atol=1e-3)
    with pytest.raises(IncompatibleError, match="has no Hessians. Use optimizer='lbfgs'"):
        evaluate(objective, Query(Hessians(points)), blocks)


@every
def test_models_of_a_cross_validation_leave_their_fold_out(name: str) -> None:
    objective, blocks = problem(name)
    coef = np.random.default_rng(3).normal(size=(1, objective.size))
    folded = FoldedObjective({0: objective, 1: objective})
    found = evaluate(folded, Query(Gradients(np.repeat(coef, 2, axis=0)), held_out=[0, 1]), blocks)
    for fold in (0, 1):
        alone = evaluate(objective, Query(Gradients(coef)), [blocks[1 - fold]])
        np.testing.assert_allclose(found.gradient[fold], alone.gradient[0], rtol=1e-12)


@every
def test_pytorch_has_the_same_gradients(name: str) -> None:
    torch = pytest.importorskip("torch", reason="gradients of PyTorch to compare with")
    objective, (block, _) = problem(name)
    loss: Any = objective.loss
    coef = np.random.default_rng(4).normal(size=objective.size)
    matrix, intercept = objective.over_features(coef)
    X, y, weight = (torch.tensor(array) for array in (block.X, block.y, block.weight))
    W, b, rest = (torch.tensor(array, requires_grad=True) for array in (matrix, intercept, objective.auxiliary(coef)))
    if isinstance(loss, FactorizationMachine):
        V = W[:, 1:]
        raw = (
            loss.fit_intercept * rest[0]
            + loss.fit_linear * (X @ W[:, 0])
            + 0.5 * ((X @ V).square() - X.square() @ V.square()).sum(1)
        )
    else:
        raw, at = X @ W + b, 0
        for before, after in itertools.pairwise(loss.units):
            layer, bias = rest[at : at + before * after], rest[at + before * after : at + (before + 1) * after]
            raw, at = torch.sigmoid(raw) @ layer.reshape(before, after) + bias, at + (before + 1) * after
    functional = torch.nn.functional
    if isinstance(loss.base, Multinomial):
        each = functional.cross_entropy(raw, y.long(), reduction="none")
    elif isinstance(loss.base, Logistic):
        each = functional.binary_cross_entropy_with_logits(raw, y, reduction="none")
    else:
        half = 0.5 if isinstance(loss.base, SquaredError) else 1.0
        each = half * (raw.reshape(-1) - y).square()
    (weight @ each).backward()
    query = Query(Gradients(coef[None]), feature_coordinates=True)
    found = evaluate(objective, query, [block]).gradient[0]
    parts = [W.grad.numpy().ravel(), *([b.grad.numpy()] if objective.fit_intercept else []), rest.grad]
    theirs = np.concatenate([np.zeros(0) if part is None else np.asarray(part) for part in parts])
    np.testing.assert_allclose(found, theirs, rtol=1e-9, atol=1e-9)


def test_starts_are_drawn_by_the_seed_and_fit_the_mean() -> None:
    scale, mean = np.array([2.0, 0.0, 0.5]), np.array([3.0])
    matrix, intercepts, parameters = FactorizationMachine(SquaredError(), 4, seed=1).initial(scale, mean)
    drawn = matrix[:, 1:] * scale[:, None]  # in the user's units
    assert parameters.tolist() == [3.0]
    assert not intercepts.any()
    assert not matrix[:, 0].any()
    assert not drawn[1].any()
    assert 0.002 < drawn[[0, 2]].std() < 0.05
    again = FactorizationMachine(SquaredError(), 4, seed=2).initial(scale, mean)[0]
    assert not np.array_equal(matrix, again)
    network = MultilayerPerceptron(SquaredError(), (3, 1))
    assert network.initial(scale, mean)[2][-1] == 3.0
    assert network.penalised_auxiliary.tolist() == [1.0, 1.0, 1.0, 0.0]


def test_what_is_wrong_is_named() -> None:
    class Wrong(FactorizationMachine):
        name = "wrong"

        def derivatives(self, *arguments: Any) -> Derivatives:
            found = super().derivatives(*arguments)
            return found._replace(parameters=2 * found.parameters)

    assert issubclass(Wrong, ProjectionLoss)
    with pytest.raises(ParameterError, match="loss 'wrong': its derivatives give .* but finite differences"):
        check_loss(Wrong(SquaredError()))
    with pytest.raises(ParameterError, match="the last layer has 3, one for each raw prediction"):
        MultilayerPerceptron(Multinomial(3), (5, 2))

"""Muon and SOAP step as optax, PyTorch and the authors' code do, and see the matrix of a multinomial model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sparkopt import optim
from sparkopt.ml import LogisticRegression
from sparkopt.optim import ScaleByMuon, ScaleBySoap, orthogonalised

RECORDED = json.loads((Path(__file__).parent / "matrix_steps.json").read_text())
STEPS = 25


def problem(rows, columns):
    """That of ``record_matrix_steps.py``."""
    rng = np.random.default_rng(rows)
    A = np.eye(rows) + 0.3 * rng.normal(size=(rows, rows))
    B = np.eye(columns) + 0.3 * rng.normal(size=(columns, columns))
    return rng.normal(size=(rows, columns)), rng.normal(size=columns), A, B, rng.normal(size=(rows, columns))


def gradient(coef, A, B, C):
    W, b = coef[: C.size].reshape(C.shape), coef[C.size :]
    return np.concatenate([(A.T @ (A @ W @ B - C) @ B.T).ravel(), b - 1.0])


def path(optimizer, rows, columns, steps=STEPS):
    W, b, *rest = problem(rows, columns)
    coef = np.concatenate([W.ravel(), b])
    transform = optimizer.shaped(rows, columns).transform
    state, found = transform.init(coef), []
    for _ in range(steps):
        step, state = transform.update(gradient(coef, *rest), state, coef)
        coef = coef + step
        found.append(coef)
    return np.array(found)


@pytest.mark.parametrize("name", RECORDED)
def test_steps_are_those_of_optax_and_of_the_authors(name):
    kind, rows, _, columns = name.split()
    optimizer = optim.by_name(kind, 0.05)
    np.testing.assert_allclose(path(optimizer, int(rows), int(columns)), RECORDED[name], rtol=1e-7, atol=1e-8)


def soap(rows, columns, most):
    """Vyas et al. (2024), algorithm 3, as the authors' soap.py has it, with loops and full bases."""
    W, b, *rest = problem(rows, columns)
    coef = np.concatenate([W.ravel(), b])
    m, v, found = np.zeros_like(W), np.zeros_like(W), []
    mb, vb = np.zeros_like(b), np.zeros_like(b)
    L, R = np.zeros((rows, rows)), np.zeros((columns, columns))
    QL, QR = np.eye(rows), np.eye(columns)
    for t in range(STEPS):
        g = gradient(coef, *rest)
        G, gb = g[: W.size].reshape(W.shape), g[W.size :]
        L, R = 0.95 * L + 0.05 * G @ G.T, 0.95 * R + 0.05 * G.T @ G
        if t == 0:
            QL = np.linalg.eigh(L)[1][:, ::-1] if rows <= most else QL
            QR = np.linalg.eigh(R)[1][:, ::-1] if columns <= most else QR
            found.append(coef)
            continue
        P = QL.T @ G @ QR
        m, v = 0.95 * m + 0.05 * P, 0.95 * v + 0.05 * P**2
        mb, vb = 0.95 * mb + 0.05 * gb, 0.95 * vb + 0.05 * gb**2
        rate = 0.05 * np.sqrt(1 - 0.95**t) / (1 - 0.95**t)
        coef = coef - rate * np.concatenate(
            [(QL @ (m / (np.sqrt(v) + 1e-8)) @ QR.T).ravel(), mb / (np.sqrt(vb) + 1e-8)]
        )
        if t % 10 == 0:
            m = QL @ m @ QR.T
            if rows <= most:
                order = np.argsort(-np.diag(QL.T @ L @ QL))
                v, QL = v[order], np.linalg.qr(L @ QL[:, order])[0]
            if columns <= most:
                order = np.argsort(-np.diag(QR.T @ R @ QR))
                v, QR = v[:, order], np.linalg.qr(R @ QR[:, order])[0]
            m = QL.T @ m @ QR
        found.append(coef)
    return np.array(found)


@pytest.mark.parametrize(("rows", "columns", "most"), [(3, 3, 9), (2, 5, 4), (5, 3, 4), (6, 5, 0)])
def test_soap_is_the_papers(rows, columns, most):
    """Also where a side is too long for a basis. (Of gradients without full rank, the basis is not unique.)"""
    chained = optim.chain(ScaleBySoap(most=most), optim.scale_by_learning_rate(0.05))
    found = path(optim.Optimizer("soap", chained, optim.Fixed()), rows, columns)
    np.testing.assert_allclose(found, soap(rows, columns, most), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(4, 3), (3, 5)])
def test_muon_is_that_of_pytorch(monkeypatch, rows, columns, nesterov):
    """Without corrections for the start, and in double precision."""
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon: 2.9 and newer have")
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())
    W, b, *rest = problem(rows, columns)
    theirs = torch.nn.Parameter(torch.tensor(W.T.copy()))  # (outputs, inputs)
    method = torch.optim.Muon([theirs], lr=0.05, weight_decay=0.0, nesterov=nesterov, eps=1e-12)
    link = ScaleByMuon(nesterov=nesterov, bias_correction=False, epsilon=1e-12)
    ours = path(
        optim.Optimizer("muon", optim.chain(link, optim.scale_by_learning_rate(0.05)), optim.Fixed()), rows, columns
    )
    for step in ours:
        coef = np.concatenate([theirs.detach().numpy().T.ravel(), b])
        theirs.grad = torch.tensor(gradient(coef, *rest)[: W.size].reshape(W.shape).T.copy())
        method.step()
        np.testing.assert_allclose(theirs.detach().numpy().T.ravel(), step[: W.size], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (1, 4), (4, 1)])
def test_orthogonalised_matrices_have_singular_values_about_one(shape):
    matrix = np.random.default_rng(1).normal(size=shape)
    values = np.linalg.svd(orthogonalised(matrix), compute_uv=False)
    assert ((values > 0.6) & (values < 1.3)).all()
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    np.testing.assert_allclose(np.abs(np.diag(u.T @ orthogonalised(matrix) @ v.T)), np.sort(values)[::-1], atol=0.3)
    np.testing.assert_allclose(orthogonalised(100 * matrix), orthogonalised(matrix), rtol=1e-6)
    assert not orthogonalised(np.zeros(shape)).any()


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(150, 4))
    label = np.argmax(X @ rng.normal(size=(4, 3)) + rng.gumbel(size=(150, 3)), axis=1)
    return pa.table({**{f"x{i}": X[:, i] for i in range(4)}, "label": label.astype(float)})


@pytest.mark.parametrize("name", ["muon", "soap"])
def test_the_matrix_is_that_of_a_multinomial_model(rows, name):
    """Steps by NumPy's gradient, on the matrix (features, classes) and three intercepts."""
    estimator = LogisticRegression(
        featuresCols=["x0", "x1", "x2", "x3"], optimizer=name, stepSize=0.05, standardization=False
    )
    found = estimator.partialFit(rows, steps=6)
    X, y = np.stack([rows[f"x{i}"] for i in range(4)], axis=-1), np.array(rows["label"], int)
    link = (ScaleByMuon if name == "muon" else ScaleBySoap)(rows=4, columns=3)
    coef = np.zeros(15)
    state = link.init(coef)
    for _ in range(6):
        raw = X @ coef[:12].reshape(4, 3) + coef[12:]
        p = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True) - np.eye(3)[y]
        step, state = link.update(np.concatenate([(X.T @ p / 150).ravel(), p.mean(axis=0)]), state, coef)
        coef = coef - 0.05 * step
    expected = coef[:12].reshape(4, 3)
    ours = found.arrays[0].T
    np.testing.assert_allclose(
        ours - ours.mean(axis=1, keepdims=True), expected - expected.mean(axis=1, keepdims=True), rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("name", ["muon", "soap"])
def test_a_fit_ends_at_the_optimum(rows, name):
    options = dict(featuresCols=["x0", "x1", "x2", "x3"], regParam=0.01)
    best = LogisticRegression(tol=1e-10, **options).fit(rows)
    found = LogisticRegression(
        optimizer=name, stepSize=0.1, stepSizeSchedule="cosine", maxIter=400, tol=0.0, **options
    ).fit(rows)
    gap = found.summary.objectiveHistory[-1] - best.summary.objectiveHistory[-1]
    assert 0 <= gap < 1e-4 * best.summary.objectiveHistory[-1]

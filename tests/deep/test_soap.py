"""SOAP for the matrices of a network: the authors' steps, in NumPy and as pytorch-optimizer has them."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from sparkopt.deep import soap
from sparkopt.errors import DivergedError, ParameterError
from tests.deep.labelled import REAL, estimator, one, table

LR, BETA, EPS, DECAY, EVERY = 0.02, 0.95, 1e-8, 0.1, 3
MOST = 8


def network():
    """Matrices, of which one has a side that is too long for a basis; a kernel; biases, norms and an embedding."""
    torch.manual_seed(3)
    return nn.ModuleDict(
        {
            "embed": nn.Embedding(12, 4),
            "hidden": nn.Linear(4, 6),
            "kernel": nn.Conv2d(2, 3, 2),
            "norm": nn.LayerNorm(6),
            "last": nn.Linear(6, 1),
        }
    )


def gradients(module, step):
    torch.manual_seed(step)
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)


class Authors:
    """Vyas et al. (2024), algorithm 3, in double precision, for one tensor; the momentum is in its own basis."""

    def __init__(self, w):
        self.w, self.m, self.v = w, np.zeros_like(w), np.zeros_like(w)
        self.sides = [i for i, n in enumerate(w.shape) if n <= MOST] if w.ndim > 1 else []
        self.means = {i: np.zeros((w.shape[i], w.shape[i])) for i in self.sides}
        self.bases = {}
        self.t = -1

    def turned(self, x, back=False):
        for i in self.sides:
            Q = self.bases[i] if back else self.bases[i].T
            x = np.moveaxis(np.tensordot(Q, x, axes=(1, i)), 0, i)
        return x

    def step(self, g):
        self.t += 1
        for i in self.sides:
            rows = np.moveaxis(g, i, 0).reshape(g.shape[i], -1)
            self.means[i] = BETA * self.means[i] + (1 - BETA) * rows @ rows.T
        if self.t == 0:
            self.bases = {i: np.linalg.eigh(self.means[i])[1][:, ::-1] for i in self.sides}
            return
        self.m = BETA * self.m + (1 - BETA) * g
        self.v = BETA * self.v + (1 - BETA) * self.turned(g) ** 2
        rate = LR * np.sqrt(1 - BETA**self.t) / (1 - BETA**self.t)
        self.w = self.w - rate * self.turned(self.turned(self.m) / (np.sqrt(self.v) + EPS), back=True)
        self.w = self.w - LR * DECAY * self.w
        if self.t % EVERY == 0:
            for i in self.sides:
                order = np.argsort(-np.diag(self.bases[i].T @ self.means[i] @ self.bases[i]))
                self.v = np.take(self.v, order, axis=i)
                self.bases[i] = np.linalg.qr(self.means[i] @ self.bases[i][:, order])[0]


def ours(module, **changes):
    return soap(module.named_parameters(), **{**dict(lr=LR, weight_decay=DECAY, every=EVERY, most=MOST), **changes})


def test_steps_are_those_of_the_paper():
    """In double precision, for tensors whose gradients have full rank: of others the basis is not unique."""
    torch.manual_seed(3)
    module = nn.ParameterDict({name: torch.randn(shape, dtype=torch.double) for name, shape in SHAPES.items()})
    theirs = {name: Authors(parameter.detach().numpy().copy()) for name, parameter in module.items()}
    own = ours(module)
    for step in range(20):
        gradients(module, step)
        own.step()
        for name, parameter in module.items():
            theirs[name].step(parameter.grad.numpy())
            np.testing.assert_allclose(parameter.detach().numpy(), theirs[name].w, rtol=1e-9, atol=1e-9, err_msg=name)


SHAPES = {"square": (5, 5), "too long": (9, 4), "kernel": (3, 4, 2, 3), "bias": (6,), "without a basis": (9, 10)}


def test_steps_are_those_of_pytorch_optimizer():
    """In single precision, also those after the state was saved and loaded, under a scheduler."""
    reason = "pytorch-optimizer, whose SOAP is compared, is not installed"
    kind = pytest.importorskip("pytorch_optimizer", reason=reason).SOAP
    mine, others = network(), network()
    settings = dict(precondition_frequency=EVERY, max_precondition_dim=MOST, weight_decay=DECAY)
    theirs, own = kind(others.parameters(), lr=LR, **settings), ours(mine)
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(each, 0.95) for each in (theirs, own)]
    for step in range(25):
        for module, each in ((mine, own), (others, theirs)):
            gradients(module, step)
            each.step()
        for scheduler in schedulers:
            scheduler.step()
        if step == 10:
            state, own = copy.deepcopy(own.state_dict()), ours(mine, lr=1.0, every=1)
            own.load_state_dict(state)
            schedulers[-1].optimizer = own
        for (name, found), expected in zip(mine.named_parameters(), others.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: name + text)


def test_kinds_of_parameters():
    kinds = {group["kind"]: len(group["params"]) for group in ours(network()).param_groups}
    assert kinds == {"soap": 4, "adam": 5}
    assert [group["kind"] for group in soap([("bias", nn.Parameter(torch.zeros(3)))]).param_groups] == ["adam"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (dict(lr=-1.0), "lr"),
        (dict(betas=(0.9, 1.0)), r"betas\[1\]"),
        (dict(eps=0.0), "eps"),
        (dict(weight_decay=-1.0), "weight_decay"),
        (dict(every=0), "every"),
        (dict(most=-1), "most"),
    ],
)
def test_settings_are_checked(settings, named):
    with pytest.raises(ParameterError, match=named):
        ours(network(), **settings)


def test_sparse_gradients_are_refused():
    module = nn.Embedding(5, 4, sparse=True)
    own = soap(module.named_parameters())
    module(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(ParameterError, match="sparse=False"):
        own.step()


def test_fewer_steps_than_adam_where_features_are_correlated():
    """What it is for: least squares whose curvature is far from diagonal."""
    torch.manual_seed(0)
    mixing = torch.linalg.qr(torch.randn(20, 20))[0] * torch.logspace(0, -2, 20)
    x = torch.randn(500, 20) @ mixing @ torch.linalg.qr(torch.randn(20, 20))[0]
    y = x @ torch.randn(20, 5) * 10

    def loss_after(make):
        torch.manual_seed(1)
        module = nn.Linear(20, 5, bias=False)
        optimizer = make(module)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
        for _ in range(300):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(module(x), y)
            loss.backward()
            optimizer.step()
            schedule.step()
        return float(loss.detach())

    adam = min(loss_after(lambda module, lr=lr: torch.optim.Adam(module.parameters(), lr)) for lr in (0.03, 0.1, 0.3))
    found = min(loss_after(lambda module, lr=lr: soap(module.named_parameters(), lr)) for lr in (0.03, 0.1, 0.3))
    assert found < 0.5 * adam


def test_an_estimator_takes_it():
    model = estimator(one, "huber", optimizer=partial(soap, lr=0.1)).fit(table(REAL))
    assert isinstance(model.module, nn.Linear)
    torch.manual_seed(1)
    assert not torch.equal(nn.Linear(4, 1).weight, model.module.weight)


def endless(output, target):
    return (output - target) * torch.inf


def test_gradients_that_are_not_finite_are_one_error():
    with pytest.raises(DivergedError, match="the loss is"):
        estimator(one, endless, optimizer=soap, task="values").fit(table(REAL))

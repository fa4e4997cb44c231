"""Muon for the matrices of a network: torch.optim.Muon and AdamW step by step, also after a checkpoint."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn

from sparkopt.deep import muon
from tests.deep.labelled import REAL, estimator, one, table

if not hasattr(torch.optim, "Muon"):
    pytest.skip("this PyTorch has no Muon: 2.9 and newer have", allow_module_level=True)


def network():
    torch.manual_seed(3)
    return nn.ModuleDict(
        {"embed": nn.Embedding(5, 4), "hidden": nn.Linear(4, 6), "norm": nn.LayerNorm(6), "last": nn.Linear(6, 3)}
    )


def gradients(module, step):
    torch.manual_seed(step)
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)


def test_steps_are_those_of_pytorch():
    """Also those after the state was saved and loaded, under a scheduler."""
    ours, theirs = network(), network()
    named = dict(theirs.named_parameters())
    matrices = [named["hidden.weight"], named["last.weight"]]
    others = [parameter for name, parameter in named.items() if name not in ("hidden.weight", "last.weight")]
    both = [
        torch.optim.Muon(matrices, lr=0.03, weight_decay=0.1),
        torch.optim.AdamW(others, lr=0.01, weight_decay=0.1),
    ]
    own = muon(ours.named_parameters(), lr=0.03, adam_lr=0.01, weight_decay=0.1)
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(each, 0.9) for each in (*both, own)]
    for step in range(8):
        gradients(ours, step)
        gradients(theirs, step)
        for each in (*both, own):
            each.step()
        for scheduler in schedulers:
            scheduler.step()
        if step == 4:
            state, own = copy.deepcopy(own.state_dict()), muon(ours.named_parameters())
            own.load_state_dict(state)
            schedulers[-1].optimizer = own
        for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(found, expected)


def test_an_estimator_takes_it():
    model = estimator(one, "huber", optimizer=partial(muon, lr=0.1)).fit(table(REAL))
    assert isinstance(model.module, nn.Linear)
    torch.manual_seed(1)
    assert not torch.equal(nn.Linear(4, 1).weight, model.module.weight)

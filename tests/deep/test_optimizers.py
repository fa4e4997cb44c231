"""Optimisers, schedulers and initial weights mean what they mean in PyTorch."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from tests.deep.labelled import REAL, estimator, one, table


def halves(named_parameters):
    """Weights and biases in groups of their own, and no third."""
    named = dict(named_parameters)
    groups = [{"params": [p for name, p in named.items() if name.endswith("weight")], "lr": 0.3}]
    return torch.optim.SGD([*groups, {"params": [p for name, p in named.items() if name.endswith("bias")]}], lr=0.1)


def twice(parameters):
    """Reads its argument more than once, as the constructor of an optimiser of one's own may."""
    count = sum(parameter.numel() for parameter in parameters)
    return torch.optim.SGD(parameters, lr=0.1 / count)


def only_first(parameters):
    return torch.optim.SGD(parameters[:1], lr=0.1)


OPTIMIZERS = {"named": (halves, []), "twice": (twice, []), "first": (only_first, ["bias"])}


@pytest.mark.parametrize(("optimizer", "absent"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_optimiser_gets_a_list_and_who_is_left_out_is_said(optimizer, absent, caplog):
    with caplog.at_level(logging.WARNING):
        model = estimator(one, "huber", optimizer=optimizer).fit(table(REAL))
    torch.manual_seed(1)
    start, found = nn.Linear(4, 1), model.module
    assert not torch.equal(start.weight, found.weight)
    assert torch.equal(start.bias, found.bias) == bool(absent)
    said = [record.getMessage() for record in caplog.records if "no group of the optimiser" in record.getMessage()]
    assert said == [f"no group of the optimiser has {name}: they are not trained." for name in absent]


@pytest.mark.parametrize(("interval", "expected"), [("step", 14), ("epoch", 2)])
def test_a_scheduler_may_ask_how_many_steps_it_takes(interval, expected):
    asked = []

    def one_cycle(optimizer, steps):
        asked.append(steps)
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=steps)

    model = estimator(one, "huber", scheduler=one_cycle, schedulerInterval=interval).fit(table(REAL))
    assert asked == [expected]
    assert model.summary.totalIterations == 14


def test_weights_of_a_state_dict_are_started_from():
    given = nn.Linear(4, 1)
    model = estimator(one, "huber", epochs=0, initialModel=given.state_dict()).fit(table(REAL))
    assert torch.equal(model.module.weight, given.weight)

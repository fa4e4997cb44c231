"""Losses of PyTorch mean what they mean in PyTorch, over the rows of all processes."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparkopt.blocks.tables import spark_schema
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.data_loader import RankDataLoader
from sparkopt.deep.losses import RowLoss
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.worker import train
from sparkopt.launch import LocalCommunicator, LocalLauncher, ProcessLauncher
from sparkopt.launch.checkpoints import module_state
from sparkopt.shards.fields import Fields
from sparkopt.shards.store import write_store
from tests.deep.labelled import (
    LABEL,
    POSITIONS,
    REAL,
    SEVERAL,
    SGD,
    SHARES,
    WEIGHTS,
    LogShares,
    Positions,
    X,
    column,
    linear,
    one,
    some,
)
from tests.deep.rows import parted


class Scaled(nn.Module):
    """A loss that learns its own scale."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, output, target):
        return (output - target) ** 2 * torch.exp(-self.log_scale) + self.log_scale


LOSSES = {
    "class weights": (linear, nn.CrossEntropyLoss(weight=WEIGHTS), LABEL),
    "class weights of a function": (linear, functools.partial(F.cross_entropy, weight=WEIGHTS), LABEL),
    "class weights and smoothing": (linear, nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.2), LABEL),
    "class weights of shares": (linear, nn.CrossEntropyLoss(weight=WEIGHTS), SHARES),
    "shares": (linear, nn.CrossEntropyLoss(), SHARES),
    "the ignored label": (linear, nn.CrossEntropyLoss(), some(LABEL, -100)),
    "another ignored label": (linear, nn.CrossEntropyLoss(WEIGHTS, ignore_index=255), some(LABEL, 255)),
    "log-probabilities": (LogShares, nn.NLLLoss(WEIGHTS, ignore_index=1), LABEL),
    "positions": (Positions, nn.CrossEntropyLoss(WEIGHTS, ignore_index=-1), some(POSITIONS, [0, -1, 2, -1, 1])),
    "positions as reals": (
        Positions,
        nn.CrossEntropyLoss(WEIGHTS, ignore_index=-1),
        some(POSITIONS, [0, -1, 2, -1, 1]).astype(np.float32),
    ),
    "lists of one class as reals": (
        linear,
        nn.CrossEntropyLoss(WEIGHTS, ignore_index=255),
        some(LABEL, 255)[:, None].astype(np.float32),
    ),
    "sum": (one, nn.MSELoss(reduction="sum"), REAL),
    "sum of class weights": (linear, nn.CrossEntropyLoss(WEIGHTS, reduction="sum"), LABEL),
    "batchmean": (LogShares, nn.KLDivLoss(reduction="batchmean"), SHARES),
    "mean over all entries": (linear, nn.L1Loss(), SHARES),
    "margins": (linear, nn.MultiMarginLoss(weight=WEIGHTS), LABEL),
    "positive weight": (one, nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)), SEVERAL[:, 0]),
    "labels": (linear, nn.BCEWithLogitsLoss(), SEVERAL),
    "a loss with parameters": (one, Scaled(), REAL),
}


def stored(folder, label, loss=None):
    """Rows in two partitions."""
    rows = parted({"features": list(X), "label": column(label)}, [90])
    fields = Fields.of(spark_schema(rows.schema), "features", "label")
    return write_store(rows, fields, str(folder), ignored=None if loss is None else RowLoss(loss, "classes").ignored)


def plain_loop(config, recipe):
    """PyTorch's own loss of all of a step's rows, and an optimiser over module and loss."""
    module, loss = recipe.build_module(config.seed), recipe.loss
    loss = type(loss)() if isinstance(loss, Scaled) else loss
    own = list(loss.parameters()) if isinstance(loss, nn.Module) else []
    optimizer = SGD([*module.parameters(), *own])
    rows = RankDataLoader(config, LocalCommunicator(), torch.device("cpu"))
    losses = []
    for epoch in range(config.epochs):
        with rows.training(epoch, 0) as batches:
            for batch in batches:
                rows_loss = RowLoss(recipe.loss, recipe.task_name)
                output, target = rows_loss.aligned(module(batch.inputs[0]), batch.target)
                value = loss(output, target).mean()
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                is_sum = getattr(loss, "reduction", "") == "sum"
                counts = rows_loss.counts(target, output.shape[1:])
                losses.append(value.item() / (counts.sum().item() if is_sum else 1))
    return losses, module.state_dict()


@pytest.mark.parametrize(("build", "loss", "label"), LOSSES.values(), ids=LOSSES)
def test_a_loss_is_reduced_as_pytorch_reduces_it(tmp_path, build, loss, label):
    """Also where streams end unevenly."""
    index = stored(tmp_path / "rows", label, loss)
    config, recipe = TrainConfig(index.uri, 3, 8, 2, seed=1), Recipe(build, loss, SGD)
    found = LocalLauncher().run(train, config, recipe)[0]
    check(found, *plain_loop(config, recipe))


@pytest.mark.parametrize("name", ["another ignored label", "a loss with parameters"])
def test_so_it_is_over_two_processes(tmp_path, name):
    build, loss, label = LOSSES[name]
    index = stored(tmp_path / "rows", label, loss)
    config, recipe = TrainConfig(index.uri, 2, 8, 2, seed=1), Recipe(build, loss, SGD)
    found = ProcessLauncher(2).run(train, config, recipe)
    check(found[0], *plain_loop(config, recipe))


def check(found, losses, state):
    np.testing.assert_allclose(found.losses, losses, rtol=2e-5, atol=1e-6)
    for name, tensor in module_state(found.weights).items():
        np.testing.assert_allclose(tensor, state[name], rtol=2e-4, atol=2e-6)


def test_parameters_of_a_loss_come_back_from_a_checkpoint(tmp_path):
    index = stored(tmp_path / "rows", REAL)
    whole = TrainConfig(index.uri, 4, 16, 1, seed=1)
    recipe = Recipe(one, Scaled(), SGD)
    expected = LocalLauncher().run(train, whole, recipe)[0]
    for epochs in (2, 4):
        config = TrainConfig(index.uri, epochs, 16, 1, seed=1, checkpoints=str(tmp_path / "checkpoints"))
        found = LocalLauncher().run(train, config, recipe)[0]
    assert (found.losses, found.weights) == (expected.losses, expected.weights)


@pytest.mark.parametrize("count", [33, 34, 48])
def test_repeated_rows_never_reach_running_statistics(tmp_path, count):
    """33 rows leave a last batch of one, which has no variance: PyTorch would refuse it."""
    rows = parted({"features": list(X[:count]), "label": column(REAL[:count])})
    index = write_store(rows, Fields.of(spark_schema(rows.schema), "features", "label"), str(tmp_path / "rows"))
    config = TrainConfig(index.uri, 1, 16, 1, seed=1)

    def build():
        return nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1))

    found = module_state(LocalLauncher().run(train, config, Recipe(build, "huber", SGD))[0].weights)
    norm = nn.BatchNorm1d(4)
    with RankDataLoader(config, LocalCommunicator(), torch.device("cpu")).training(0, 0) as batches:
        for batch in batches:
            assert len(batch.weight) == batch.counted
            if batch.counted > 1:
                norm(batch.inputs[0])
    np.testing.assert_allclose(found["0.running_mean"], norm.running_mean, rtol=1e-6)
    np.testing.assert_allclose(found["0.running_var"], norm.running_var, rtol=1e-6)
    assert found["0.num_batches_tracked"] == norm.num_batches_tracked

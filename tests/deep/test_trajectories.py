"""Networks of several kinds: what trains them, local, torch or Horovod, their trajectory is that of a plain loop."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from sparkopt.blocks.tables import spark_schema
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.data_loader import RankDataLoader
from sparkopt.deep.losses import RowLoss
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.worker import train
from sparkopt.launch import HorovodLauncher, LocalCommunicator, LocalLauncher, ProcessLauncher, RankInfo
from sparkopt.launch.checkpoints import module_state
from sparkopt.shards.fields import Fields
from sparkopt.shards.store import write_store
from tests.deep import networks
from tests.deep.rows import parted
from tests.tiers import needs

ROWS, PADDING = 130, 0
RNG = np.random.default_rng(8)
WORDS = RNG.integers(1, 20, (ROWS, 7))
WORDS[np.arange(7)[None, :] >= RNG.integers(2, 8, ROWS)[:, None]] = PADDING
COLUMNS = {
    "words": list(WORDS),
    "series": [[list(step) for step in row] for row in RNG.normal(size=(ROWS, 6, 3))],
    "image": [[[list(line) for line in row]] for row in RNG.normal(size=(ROWS, 6, 6))],
    "user": RNG.integers(0, 20, ROWS),
    "item": RNG.integers(0, 30, ROWS),
    "price": RNG.random(ROWS),
    "age": RNG.random(ROWS),
    "x": list(RNG.normal(size=(ROWS, 8))),
    "class": RNG.integers(0, 3, ROWS),
    "value": RNG.normal(size=ROWS),
}


class Recurrent(nn.Module):
    """An LSTM and its last state."""

    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, series):
        return self.out(self.lstm(series)[1][0][-1])


class Attentive(nn.Module):
    """A transformer that attends to words, and not to padding."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 8, padding_idx=PADDING)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.out = nn.Linear(8, 3)

    def forward(self, words):
        padding = words == PADDING
        found = self.encoder(self.words(words), src_key_padding_mask=padding)
        kept = (~padding)[..., None]
        return self.out((found * kept).sum(1) / kept.sum(1))


class Residual(nn.Module):
    """A convolution around which its input passes, with batch normalisation."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.out = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, image):
        x = torch.relu(self.norm(self.first(image)))
        return self.out(torch.relu(x + self.second(x)).mean((2, 3)))


def autoencoder():
    return nn.Sequential(nn.Linear(8, 3), nn.Tanh(), nn.Linear(3, 8))


SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
ADAM = functools.partial(torch.optim.Adam, lr=0.01)
KINDS = {
    "lstm": (Recurrent, "multinomial", SGD, "series", "class"),
    "transformer": (Attentive, "multinomial", ADAM, "words", "class"),
    "two towers": (networks.Towers, "squared_error", ADAM, ["user", "item", "price", "age"], "value"),
    "resnet": (Residual, "multinomial", SGD, "image", "class"),
    "autoencoder": (autoencoder, "squared_error", ADAM, "x", "x"),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store for each kind."""
    rows, folder = parted(COLUMNS, [70]), tmp_path_factory.mktemp("kinds")
    schema = spark_schema(rows.schema)
    return {
        kind: write_store(rows, Fields.of(schema, features, label), str(folder / kind.replace(" ", "-"))).uri
        for kind, (_, _, _, features, label) in KINDS.items()
    }


def config(stores, kind):
    return TrainConfig(stores[kind], 2, 16, 2, seed=3)


def trained(communicator, stores):
    """Train all, one after the other."""
    found = {}
    for kind, (build, loss, optimizer, _, _) in KINDS.items():
        found[kind] = train(communicator, config(stores, kind), Recipe(build, loss, optimizer))
    return found


@pytest.fixture(scope="module")
def outcomes(stores):
    """By name of the launcher: the number of ranks, and what they came to."""
    return {
        "local": (1, LocalLauncher().run(trained, stores)[0]),
        "torch": (2, ProcessLauncher(2).run(trained, stores)[0]),
    }


def plain_loop(settings, kind, ranks):
    """Batches of the ranks, each normalised by itself, and one mean over all rows."""
    build, loss, optimizer, _, _ = KINDS[kind]
    recipe = Recipe(build, loss, optimizer)
    module, losses = recipe.build_module(settings.seed), []
    rows_loss = RowLoss(nn.CrossEntropyLoss() if loss == "multinomial" else nn.MSELoss(), recipe.task_name)
    stepping = optimizer(list(module.parameters()))
    for epoch in range(settings.epochs):
        for batches in zip(*[batches_of(settings, rank, ranks, epoch) for rank in range(ranks)], strict=True):
            parts = [(rows_loss(module(*b.inputs), b.target) * b.weight).sum() for b in batches if b.counted]
            value = sum(parts) / sum(batch.counted for batch in batches)
            stepping.zero_grad()
            value.backward()
            stepping.step()
            losses.append(value.item())
    return losses, dict(module.named_parameters())


def batches_of(settings, rank, ranks, epoch):
    communicator = LocalCommunicator()
    communicator.info = RankInfo(rank, ranks)
    with RankDataLoader(settings, communicator, torch.device("cpu")).training(epoch, 0) as batches:
        return [batch.to(torch.device("cpu")) for batch in batches]


def check(stores, kind, ranks, found):
    losses, parameters = plain_loop(config(stores, kind), kind, ranks)
    np.testing.assert_allclose(found.losses, losses, rtol=1e-4, atol=1e-6)
    state = module_state(found.weights)
    for name, expected in parameters.items():
        torch.testing.assert_close(state[name], expected.detach(), rtol=2e-3, atol=2e-5)


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("launcher", ["local", "torch"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_trajectory_is_that_of_a_plain_loop(outcomes, stores, kind, launcher):
    ranks, found = outcomes[launcher]
    check(stores, kind, ranks, found[kind])


@pytest.fixture(scope="module")
def by_horovod(spark, stores):
    return HorovodLauncher(spark.sparkContext, 2).run(trained, stores)[0]


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=needs("horovod")) for kind in KINDS])
def test_so_it_is_by_horovod(by_horovod, stores, kind):
    check(stores, kind, 2, by_horovod[kind])

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
from sparkopt.deep.row_step import StepBatch
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
    "sentence": [RNG.integers(1, 20, length) for length in RNG.integers(1, 9, ROWS)],
    "steps": [[list(step) for step in RNG.normal(size=(length, 3))] for length in RNG.integers(1, 7, ROWS)],
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


class Reader(Attentive):
    """The same, of lists that are padded in a batch, with their mask."""

    def forward(self, words, mask):
        found = self.encoder(self.words(words), src_key_padding_mask=~mask)
        return self.out((found * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


class RaggedRecurrent(Recurrent):
    """An LSTM of series of unlike lengths, and the state after each one's last step."""

    def forward(self, series, mask):
        states, _ = self.lstm(series)
        return self.out(states[torch.arange(len(mask)), mask.sum(1) - 1])


class Pairs(networks.Towers):
    """Two towers, whose products with all others of a batch a step compares."""

    def step(self, batch):
        user, item, properties = batch.inputs
        scores = self.users(user) @ (self.items(item) + self.properties(properties)).T
        return nn.functional.cross_entropy(scores, torch.arange(len(batch)), reduction="none")


class TwoHeads(nn.Module):
    """A class and a value."""

    def __init__(self):
        super().__init__()
        self.body, self.kind, self.value = nn.Linear(8, 6), nn.Linear(6, 3), nn.Linear(6, 1)

    def forward(self, x):
        hidden = torch.tanh(self.body(x))
        return {"kind": self.kind(hidden), "value": self.value(hidden)[:, 0]}


class Coder(nn.Module):
    """An autoencoder that gives its code too."""

    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(8, 3), nn.Linear(3, 8)

    def forward(self, x):
        code = torch.tanh(self.encode(x))
        return self.decode(code), code


def contrast(module, batch):
    return module.step(batch)


def both(module, batch):
    found, (kind, value) = module(*batch.inputs), batch.labels
    of_kind = nn.functional.cross_entropy(found["kind"], kind, reduction="none")
    return of_kind + 0.5 * (found["value"] - value) ** 2


def generate(module, batch):
    (x,) = batch.inputs
    rebuilt, code = module(x)
    return ((rebuilt - x) ** 2).mean(1) + 0.01 * code.abs().sum(1)


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
    "transformer of lists": (Reader, "multinomial", ADAM, "sentence", "class"),
    "lstm of lists": (RaggedRecurrent, "multinomial", SGD, "steps", "class"),
    "contrastive": (Pairs, contrast, ADAM, ["user", "item", "price", "age"], []),
    "two labels": (TwoHeads, both, ADAM, "x", ["class", "value"]),
    "generative": (Coder, generate, SGD, "x", []),
}
"""By name: module, loss or step, optimiser, features and label; a step has a list of labels."""
OUTPUTS = {"two labels": "value", "generative": "0"}
PADDED = ("sentence", "steps")


def fields_of(schema, features, label):
    padded = [name for name in PADDED if name == features]
    if isinstance(label, list):
        return Fields.of(schema, features, labels=label, padded=padded)
    return Fields.of(schema, features, label, padded=padded)


def recipe_of(kind):
    build, loss, optimizer, _, _ = KINDS[kind]
    own = dict(step=loss, output=OUTPUTS.get(kind)) if callable(loss) else dict(loss=loss)
    return Recipe(**{"loss": "squared_error", **own}, module=build, optimizer=optimizer)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store for each kind."""
    rows, folder = parted(COLUMNS, [70]), tmp_path_factory.mktemp("kinds")
    schema = spark_schema(rows.schema)
    return {
        kind: write_store(rows, fields_of(schema, features, label), str(folder / kind.replace(" ", "-"))).uri
        for kind, (_, _, _, features, label) in KINDS.items()
    }


def config(stores, kind):
    return TrainConfig(stores[kind], 2, 16, 2, seed=3)


def trained(communicator, stores):
    """Train all, one after the other."""
    return {kind: train(communicator, config(stores, kind), recipe_of(kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def outcomes(stores):
    """By name of the launcher: the number of ranks, and what they came to."""
    return {
        "local": (1, LocalLauncher().run(trained, stores)[0]),
        "torch": (2, ProcessLauncher(2).run(trained, stores)[0]),
    }


def plain_loop(settings, kind, ranks):
    """Batches of the ranks, each normalised by itself, and one mean over all rows; steps see a stream's rows."""
    _, loss, optimizer, _, _ = KINDS[kind]
    recipe = recipe_of(kind)
    module, losses = recipe.build_module(settings.seed), []
    rows_loss = RowLoss(nn.CrossEntropyLoss() if loss == "multinomial" else nn.MSELoss(), recipe.task_name)
    stepping = optimizer(list(module.parameters()))

    def losses_of(batch):
        if callable(loss):
            return torch.cat([loss(module, StepBatch(one.inputs, one.labels)) for one in batch.by_stream()])
        return rows_loss(module(*batch.inputs), batch.target)

    for epoch in range(settings.epochs):
        for batches in zip(*[batches_of(settings, rank, ranks, epoch) for rank in range(ranks)], strict=True):
            parts = [(losses_of(b) * b.weight).sum() for b in batches if b.counted]
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


@pytest.mark.usefixtures("minutes")
def test_a_step_sees_the_same_rows_on_any_number_of_processes(outcomes):
    """So that a contrastive loss, of which each row is compared with its batch, does not depend on it."""
    (_, local), (_, other) = outcomes["local"], outcomes["torch"]
    np.testing.assert_allclose(local["contrastive"].losses, other["contrastive"].losses, rtol=1e-5)

"""Whatever runs the ranks, unusual networks are trained alike, or one line says which launcher cannot, and why."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from sparkopt.blocks.tables import spark_schema
from sparkopt.deep import TorchEstimator
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.worker import train
from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.launch import HorovodLauncher, LocalLauncher, ProcessLauncher
from sparkopt.launch.checkpoints import module_state
from sparkopt.shards.fields import Fields
from sparkopt.shards.store import write_store
from tests.deep import networks
from tests.deep.rows import parted
from tests.tiers import needs

ROWS = 128
RNG = np.random.default_rng(4)
X = RNG.normal(size=(ROWS, 4)).astype(np.float32)
IDS = RNG.integers(0, 12, (ROWS, 3))
LABEL = RNG.integers(0, 3, ROWS)


class Unused(networks.Mlp):
    """With a layer that is in no graph."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(4, 4)


class Conditional(networks.Mlp):
    """With a layer that some batches need, but (``first``) not the first rows."""

    def __init__(self, first=False):
        super().__init__()
        self.side, self.first, self.seen = nn.Linear(4, 3), first, 0

    def forward(self, x):
        found = super().forward(x)
        self.seen += self.training
        return found + self.side(x) if (self.seen % 3 == 0) != (self.first and self.seen > 0) else found


class Sparse(nn.Module):
    """With gradients of a few rows of a table."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(12, 5, sparse=True), nn.Linear(5, 3)

    def forward(self, ids):
        return self.out(self.table(ids).mean(1))


class Averaging(networks.Mlp):
    """With running means of other types than float32."""

    def __init__(self):
        super().__init__()
        self.register_buffer("spectrum", torch.zeros(3, dtype=torch.complex64))
        self.register_buffer("level", torch.zeros((), dtype=torch.bfloat16))

    def forward(self, x):
        if self.training:
            self.spectrum += torch.fft.rfft(x.detach()).mean(0)
            self.level += x.detach().mean().bfloat16()
        return super().forward(x)


class Half(nn.Module):
    """With weights in bfloat16."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3, dtype=torch.bfloat16)

    def forward(self, x):
        return self.layer(x.bfloat16())


class Waves(nn.Module):
    """With complex weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, dtype=torch.complex64) / 3)

    def forward(self, x):
        return (torch.fft.rfft(x) @ self.weight).abs()


class OnlyTable(nn.Module):
    """All of whose gradients are sparse."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(12, 3, sparse=True)

    def forward(self, ids):
        return self.table(ids).mean(1)


def lazy():
    return nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.LazyLinear(3))


DECAYING = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1)
CASES = {
    "unused": (Unused, DECAYING, "x"),
    "unused in the first step": (Conditional, DECAYING, "x"),
    "sparse": (Sparse, functools.partial(torch.optim.SGD, lr=0.1), "ids"),
    "sparse by Adam": (OnlyTable, functools.partial(torch.optim.SparseAdam, lr=0.1), "ids"),
    "buffers": (Averaging, DECAYING, "x"),
    "bfloat16": (Half, DECAYING, "x"),
    "complex": (Waves, DECAYING, "x"),
    "lazy": (lazy, DECAYING, "x"),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Batches of 16 rows on each of two streams, without a rest."""
    rows = parted({"x": list(X), "ids": list(IDS), "label": LABEL}, [64])
    folder = tmp_path_factory.mktemp("agree")
    return {
        name: write_store(rows, Fields.of(spark_schema(rows.schema), name, "label"), str(folder / name)).uri
        for name in ("x", "ids")
    }


def trained(communicator, stores, names):
    """Train one after the other; an error is a result too."""
    found = {}
    for name in names:
        build, optimizer, columns = CASES[name]
        config = TrainConfig(stores[columns], 2, 16, 2, seed=1)
        try:
            found[name] = train(communicator, config, Recipe(build, "multinomial", optimizer))
        except IncompatibleError as error:
            found[name] = str(error)
    return found


@pytest.fixture(scope="module")
def by_processes(stores):
    return ProcessLauncher(2).run(trained, stores, list(CASES))[0]


@pytest.fixture(scope="module")
def by_horovod(spark, stores):
    return HorovodLauncher(spark.sparkContext, 2).run(trained, stores, list(CASES))[0]


def check(name, found, stores):
    expected = LocalLauncher().run(trained, stores, [name])[0][name]
    loose = dict(rtol=0.05, atol=0.02) if name == "bfloat16" else dict(rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(found.losses, expected.losses, **loose)
    own, theirs = module_state(found.weights), module_state(expected.weights)
    for key in theirs:
        torch.testing.assert_close(own[key].to(torch.complex64), theirs[key].to(torch.complex64), **loose)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one(by_processes, stores, name):
    check(name, by_processes[name], stores)


HOROVOD_CANNOT = {
    "sparse": "launcher='horovod' averages dense gradients, and that of 'table.weight' is sparse. Take launcher=",
    "sparse by Adam": "launcher='horovod' averages dense gradients",
    "bfloat16": "Horovod averages no bfloat16, which parameter 'layer.weight' is",
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs("horovod")) for name in CASES])
def test_horovod_is_one_too(by_horovod, stores, name):
    if name in HOROVOD_CANNOT:
        assert HOROVOD_CANNOT[name] in by_horovod[name]
    else:
        check(name, by_horovod[name], stores)


def test_what_takes_part_later_no_more_is_said(stores):
    config = TrainConfig(stores["x"], 2, 16, 2, seed=1)
    recipe = Recipe(functools.partial(Conditional, first=True), "multinomial", DECAYING)
    assert len(LocalLauncher().run(train, config, recipe)[0].losses) == 8
    with pytest.raises(IncompatibleError, match="some parameters took part in the first step and in a later one not"):
        ProcessLauncher(2).run(train, config, recipe)


def estimator(**options):
    given = dict(module=networks.mlp, loss="multinomial", featuresCol="x", epochs=2, batchSize=8, launcher="local")
    return TorchEstimator(**{**given, **options})


def table():
    return pa.table({"x": list(X), "label": LABEL})


@pytest.mark.parametrize("options", [dict(launcher="local"), dict(launcher="torch", numProc=2)], ids=["local", "two"])
def test_a_callback_that_raises_ends_the_fit(options):
    called = []

    def failing(progress):
        called.append(progress.record.step)
        if progress.record.step == 3:
            raise KeyError("no such metric")

    with pytest.raises(KeyError, match="no such metric"):
        estimator(callbacks=[failing], epochs=50, **options).fit(table())
    assert called == [1, 2, 3]


UNPICKLABLE = {
    "module": dict(module=lambda lock=threading.Lock(): networks.Mlp()),  # noqa: B008
    "loss": dict(loss=lambda output, target, lock=threading.Lock(): (output - target) ** 2),  # noqa: B008
}


@pytest.mark.parametrize("name", UNPICKLABLE)
def test_what_cannot_be_pickled_is_named(name):
    message = (
        rf"{name} cannot be pickled, to be sent to the processes: TypeError: cannot pickle '_thread.lock' object"
    )
    with pytest.raises(ParameterError, match=message):
        estimator(launcher="torch", numProc=2, **UNPICKLABLE[name]).fit(table())


def test_seeds_hold_in_threads():
    """Of one process, whose generators are shared; and they are left as they were."""
    options = dict(module=networks.dropping, epochs=6)
    seeds = [1, 2, 3, 1]
    alone = {seed: estimator(seed=seed, **options).fit(table()).weights for seed in set(seeds)}
    before = torch.get_rng_state()
    with ThreadPoolExecutor(len(seeds)) as pool:
        found = list(pool.map(lambda seed: estimator(seed=seed, **options).fit(table()).weights, seeds))
    assert found == [alone[seed] for seed in seeds]
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(alone.values())) == 3

"""Networks that are divided over ranks: trajectories are those of DDP and of a plain loop, in half of the memory."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from sparkopt.blocks.tables import spark_schema
from sparkopt.deep import TorchEstimator
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.data_loader import RankDataLoader
from sparkopt.deep.events import StepsDone, from_report
from sparkopt.deep.learner import Learner
from sparkopt.deep.matrix_optimizers import muon, soap
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.sharding import units_of
from sparkopt.deep.worker import train
from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.launch import LocalLauncher, ProcessLauncher
from sparkopt.launch.checkpoint_rows import Rows
from sparkopt.launch.checkpoints import CheckpointFolder, module_state
from sparkopt.shards.fields import Fields
from sparkopt.shards.held_out import HeldOut
from sparkopt.shards.store import write_store
from tests.deep import killing, networks
from tests.deep.rows import parted
from tests.deep.test_local_steps import sent_bytes
from tests.deep.test_train import compare, plain_loop

CROSS_ENTROPY = nn.CrossEntropyLoss()
ADAM = functools.partial(torch.optim.AdamW, lr=0.02)
SGD = functools.partial(torch.optim.SGD, lr=0.2, momentum=0.9)
SOAP = functools.partial(soap, lr=0.02, every=3)


class Blocks(nn.Module):
    """A transformer of two layers over four words of one number each."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(1, 8)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True) for _ in range(2)
        )
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x[..., None])
        for layer in self.layers:
            x = layer(x)
        return self.out(x.mean(1))


class Last(nn.Module):
    """The last state of an LSTM, which keeps a list of its own of its weights; no view, of which PyTorch warns."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 6, batch_first=True)

    def forward(self, x):
        return self.lstm(x[..., None])[1][0][-1].clone()


class Recurrent(nn.Sequential):
    def __init__(self):
        super().__init__(Last(), nn.Linear(6, 3))


class Tied(nn.Module):
    """Two layers with one weight, which has fewer rows than ranks in its last."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.out(torch.tanh(self.two(torch.tanh(self.one(x)))))


class Adapted(networks.Mlp):
    """With a part that is not trained, and one that is in no graph."""

    def __init__(self):
        super().__init__()
        self.hidden.requires_grad_(False).bias.zero_()  # the same ones each time
        self.hidden.weight.copy_(torch.linspace(-3, 3, 32).sin().reshape(8, 4))
        self.unused = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.scale * super().forward(x)


class Bursting(networks.Mlp):
    """Of which one number, in the second rank's part, has an infinite gradient from some rows."""

    def __init__(self):
        super().__init__()
        self.extra = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        factors = torch.tensor([1.0, 1.0, 1.0, 3e38]) * (x[:, :1] > 2)
        shift = (self.extra * factors).sum(1, keepdim=True)
        return super().forward(x) + shift * torch.tensor([0.0, 0.0, 1.0])


class Scaled(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, output, target):
        return nn.functional.cross_entropy(self.factor * output, target, reduction="none")


def compared(module, batch):
    """A step that uses an inner module of the network alone."""
    (x,), (label,) = batch.inputs, batch.labels
    return nn.functional.cross_entropy(module.out(torch.tanh(module.hidden(x))), label, reduction="none")


LINEAR = ("Linear",)
KINDS = {
    "adam": (networks.mlp, "adam", {}),
    "momentum, wrapped": (networks.mlp, SGD, dict(wrapped=LINEAR)),
    "muon": (networks.mlp, muon, {}),
    "soap": (networks.mlp, SOAP, {}),
    "clipped": (networks.mlp, SGD, dict(max_norm=0.1, wrapped=LINEAR)),
    "accumulated": (networks.mlp, SGD, dict(accumulation=3, wrapped=LINEAR)),
    "bf16": (networks.mlp, ADAM, dict(precision="bf16")),
    "fp16": (networks.mlp, ADAM, dict(precision="fp16", max_norm=0.5)),
    "fp16 that overflows": (Bursting, SGD, dict(precision="fp16", epochs=1)),
    "fp16 that overflows, fused": (Bursting, "adam", dict(precision="fp16", epochs=1)),
    "several streams": (networks.mlp, ADAM, dict(streams=4)),
    "transformer": (Blocks, ADAM, dict(wrapped=("layers.*",))),
    "lstm": (Recurrent, ADAM, dict(wrapped=("Last",))),
    "normalised": (networks.Normalised, SGD, {}),
    "dropout": (networks.dropping, ADAM, {}),
    "tied": (Tied, ADAM, dict(wrapped=LINEAR)),
    "part of it": (Adapted, ADAM, dict(wrapped=LINEAR)),
    "loss with a parameter": (networks.mlp, ADAM, dict(loss=Scaled())),
    "step": (networks.mlp, ADAM, dict(step=compared)),
    "stopped early": (networks.mlp, functools.partial(torch.optim.SGD, lr=3.0), dict(patience=1, epochs=4)),
}
"""By name: network, optimiser and settings."""


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """333 rows with weights, of which every tenth is held out: an odd number of batches for two ranks."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(333, 4))
    columns = {"features": list(X), "label": (2 * X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 1)}
    rows = parted({**columns, "weight": rng.integers(1, 4, 333) / 2, "aside": np.arange(333) % 10 == 0}, [300])
    fields = Fields.of(spark_schema(rows.schema), "features", "label", "weight")
    return write_store(rows, fields, str(tmp_path_factory.mktemp("divided") / "rows"), HeldOut(("aside",)))


def config(index, **changes):
    return TrainConfig(**{**dict(store=index.uri, epochs=2, batch_size=16, streams=2, seed=1), **changes})


def case(index, kind, strategy):
    build, optimizer, changes = KINDS[kind]
    own = {name: value for name, value in changes.items() if name not in ("loss", "step", "wrapped")}
    wrapped = changes.get("wrapped", ()) if strategy == "fsdp" else ()
    recipe = Recipe(
        build,
        changes.get("loss", CROSS_ENTROPY),
        optimizer,
        metrics={"accuracy": "accuracy"},
        step=changes.get("step"),
        task="classes",
    )
    return config(index, strategy=strategy, wrapped=wrapped, **own), recipe


def trained(communicator, index):
    """Train all kinds, by both strategies."""
    return {
        (kind, strategy): train(communicator, *case(index, kind, strategy))
        for kind in KINDS
        for strategy in ("ddp", "fsdp")
    }


@pytest.fixture(scope="module")
def outcomes(index):
    return {ranks: ProcessLauncher(ranks).run(trained, index) for ranks in (1, 2)}


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_trajectory_is_that_of_ddp(outcomes, kind, ranks):
    ours, *others = [found[kind, "fsdp"] for found in outcomes[ranks]]
    theirs = outcomes[ranks][0][kind, "ddp"]
    tolerance = dict(rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(ours.losses, theirs.losses, **tolerance)
    expected = module_state(theirs.weights)
    found = module_state(ours.weights)
    assert found.keys() == expected.keys()  # safetensors keeps no order
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], **tolerance)
    assert len(ours.history) == len(theirs.history)
    for one, two in zip(ours.history, theirs.history, strict=True):
        assert one["validation"] == pytest.approx(two["validation"], rel=1e-3)
        assert one["accuracy"] == pytest.approx(two["accuracy"])
    assert (ours.stopped, ours.output_shape) == (theirs.stopped, theirs.output_shape)
    assert all((one.losses, one.weights) == (ours.losses, b"") for one in others)


@pytest.mark.usefixtures("minutes")
def test_a_trajectory_is_that_of_a_plain_loop(outcomes, index):
    for kind in ("momentum, wrapped", "clipped", "accumulated"):
        settings, _ = case(index, kind, "fsdp")
        compare(outcomes[2][0][kind, "fsdp"], plain_loop(settings, optimizer=SGD), rtol=2e-5, atol=2e-6)


def held(communicator, index, strategy):
    """Take a step, and count what this rank has of parameters, gradients and the optimiser's state."""
    settings, device = config(index, strategy=strategy, wrapped=LINEAR, max_norm=1.0), torch.device("cpu")
    data = RankDataLoader(settings, communicator, device)
    learner = Learner(Recipe(networks.wide, CROSS_ENTROPY, ADAM), settings, communicator, device, 9, data.sample()[0])
    with data.training(0, 0) as batches:
        learner.step([next(batches)], 32.0, 0)
    states = [one for state in learner._optimizer.state.values() for name, one in state.items() if name != "step"]
    parameters = list(learner.module.parameters())
    return {
        "parameters": _own(parameters),
        "gradients": _own([one.grad for one in parameters]),
        "state": _own(states),
        "memory": sum(one.untyped_storage().nbytes() for one in map(_local, [*parameters, *states])),
    }


def _local(tensor):
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _own(tensors):
    return sum(_local(one).numel() for one in tensors)


def test_two_ranks_have_half_each(index):
    parameters = list(networks.wide().parameters())
    whole = sum(one.numel() for one in parameters)
    parts = [sum(one.chunk(2)[rank].numel() for one in parameters) for rank in range(2)]
    assert max(parts) < 0.52 * whole
    ddp = ProcessLauncher(2).run(held, index, "ddp")
    fsdp = ProcessLauncher(2).run(held, index, "fsdp")
    assert [(one["parameters"], one["gradients"], one["state"]) for one in ddp] == [(whole, whole, 2 * whole)] * 2
    assert [(one["parameters"], one["gradients"], one["state"]) for one in fsdp] == [(n, n, 2 * n) for n in parts]
    assert [one["memory"] for one in ddp] == [4 * 3 * whole] * 2
    assert all(4 * 3 * parts[1] <= one["memory"] <= 4 * 3 * parts[0] for one in fsdp)


def counted(communicator, settings):
    before = sent_bytes()
    found = train(communicator, settings, Recipe(functools.partial(networks.Mlp, hidden=4000), CROSS_ENTROPY, SGD))
    return found.sent, sent_bytes() - before


@pytest.mark.usefixtures("minutes")
def test_bytes_on_the_wire(index):
    settings = config(index, strategy="fsdp", wrapped=LINEAR, epochs=6)
    sent, wire = ProcessLauncher(2).run(counted, settings)[1]
    assert sent < wire < 1.5 * sent  # with the parameters for rows held out, and the final ones


def stop_after(steps):
    return lambda report: isinstance(event := from_report(report), StepsDone) and event.total >= steps


RECIPE = Recipe(networks.dropping, CROSS_ENTROPY, ADAM)


@pytest.fixture(scope="module")
def stopped(index, tmp_path_factory):
    """A training of two ranks that was stopped, and what it comes to if it is not."""
    folder = tmp_path_factory.mktemp("checkpoints")
    settings = config(index, strategy="fsdp", wrapped=LINEAR, epochs=3, streams=6, patience=9, report_steps=1)
    kept = dataclasses.replace(settings, checkpoints=str(folder), checkpoint_steps=1)
    assert ProcessLauncher(2, stop_after(6)).run(train, kept, RECIPE)[0].stopped == "callback"
    return kept, ProcessLauncher(2).run(train, settings, RECIPE)[0]


def copy_of(stopped, folder):
    """Return settings with a copy of the checkpoints."""
    settings, _ = stopped
    names = CheckpointFolder(settings.checkpoints).names()
    for name in names:
        (folder / name).mkdir()
        for path in (type(folder)(settings.checkpoints) / name).iterdir():
            (folder / name / path.name).write_bytes(path.read_bytes())
    return dataclasses.replace(settings, checkpoints=str(folder)), names


def test_a_checkpoint_is_in_parts(stopped):
    folder = CheckpointFolder(stopped[0].checkpoints)
    path = type(folder)(folder.uri).names()[-1]
    one, two, whole = folder.load(path, 0, 2), folder.load(path, 1, 2), folder.load(path)
    for name, rows in whole.model.items():
        assert isinstance(rows, Rows)
        assert torch.equal(torch.cat([one.model[name].local, two.model[name].local]), rows.local)
        assert rows.local.shape == rows.shape
        assert len(two.model[name].local) <= len(one.model[name].local) < len(rows.local)
    states = [found.state["optimizer"]["state"][0]["exp_avg"].local for found in (one, two, whole)]
    assert torch.equal(torch.cat(states[:2]), states[2])


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_stopped_run_goes_on_with_any_number_of_ranks(stopped, tmp_path, ranks):
    settings, names = copy_of(stopped, tmp_path)
    whole = stopped[1]
    found = ProcessLauncher(ranks).run(train, settings, RECIPE)[0]
    assert found.resumed == names[-1]
    if ranks == 2:
        assert (found.weights, found.losses) == (whole.weights, whole.losses)
    else:  # dropout draws other numbers
        assert found.losses[:6] == whole.losses[:6]
        np.testing.assert_allclose(found.losses, whole.losses, rtol=0.5)
    assert CheckpointFolder(settings.checkpoints).load("epoch-000003-step-000000000", 0, ranks).is_divided


@pytest.mark.usefixtures("minutes")
def test_so_do_exact_ones(index, tmp_path):
    """Without dropout, steps on other numbers of ranks are the same."""
    settings = config(index, strategy="fsdp", epochs=2, streams=6, batch_size=8, max_norm=1.0)
    recipe = Recipe(networks.mlp, CROSS_ENTROPY, ADAM)
    whole = ProcessLauncher(2).run(train, settings, recipe)[0]
    for ranks in (1, 3):
        kept = dataclasses.replace(settings, checkpoints=str(tmp_path / str(ranks)))
        ProcessLauncher(ranks).run(train, dataclasses.replace(kept, epochs=1), recipe)
        found = ProcessLauncher(2).run(train, kept, recipe)[0]
        assert found.resumed == "epoch-000001-step-000000000"
        compare(found, (whole.losses, module_state(whole.weights)), rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("ranks", [2, 3])
def test_bases_are_divided_too(index, tmp_path, ranks):
    """Those of other numbers of ranks go on as well; where gradients lack rank, another rounding is another basis."""
    settings = config(index, strategy="fsdp", epochs=3, streams=6, batch_size=8)
    recipe = Recipe(networks.mlp, CROSS_ENTROPY, SOAP)
    whole = ProcessLauncher(2).run(train, settings, recipe)[0]
    kept = dataclasses.replace(settings, checkpoints=str(tmp_path))
    ProcessLauncher(ranks).run(train, dataclasses.replace(kept, epochs=1), recipe)
    folder = CheckpointFolder(str(tmp_path))
    parts = [folder.load(folder.names()[-1], rank, ranks).state["optimizer"]["state"][0] for rank in range(ranks)]
    basis = torch.cat([part["basis_0"].local for part in parts])
    torch.testing.assert_close(basis.T @ basis, torch.eye(8), rtol=0.0, atol=1e-5)
    found = ProcessLauncher(2).run(train, kept, recipe)[0]
    assert found.resumed == "epoch-000001-step-000000000"
    if ranks == 2:
        assert (found.weights, found.losses) == (whole.weights, whole.losses)
    else:
        np.testing.assert_allclose(found.losses, whole.losses, rtol=0.05)


@pytest.mark.usefixtures("minutes")
def test_adapters_are_divided_and_saved_alone(index, tmp_path):
    recipe = Recipe(Adapted, CROSS_ENTROPY, ADAM, saved="trainable")
    settings = config(index, strategy="fsdp", wrapped=LINEAR)
    whole = ProcessLauncher(2).run(train, settings, recipe)[0]
    kept = dataclasses.replace(settings, checkpoints=str(tmp_path))
    ProcessLauncher(2).run(train, dataclasses.replace(kept, epochs=1), recipe)
    found = ProcessLauncher(2).run(train, kept, recipe)[0]
    assert (found.resumed, found.weights) == ("epoch-000001-step-000000000", whole.weights)
    plain = ProcessLauncher(2).run(train, config(index), recipe)[0]
    assert "hidden.weight" not in module_state(whole.weights)
    for name, tensor in module_state(plain.weights).items():
        torch.testing.assert_close(module_state(whole.weights)[name], tensor, rtol=2e-6, atol=2e-6)


def _altered(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


DAMAGES = {
    "missing": ("rows-00001-of-00002.safetensors", lambda path: path.unlink()),
    "altered": ("rows-00001-of-00002.safetensors", _altered),
    "cut": ("rows-00000-of-00002.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-9])),
    "no manifest": ("checkpoint.json", lambda path: path.unlink()),
}


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_passed_over(stopped, tmp_path, damage):
    settings, names = copy_of(stopped, tmp_path)
    name, break_it = DAMAGES[damage]
    break_it(tmp_path / names[-1] / name)
    found = ProcessLauncher(2).run(train, settings, RECIPE)[0]
    assert found.resumed == names[-2]
    assert found.weights == stopped[1].weights


def test_a_checkpoint_of_the_other_strategy_is_refused(stopped):
    settings = dataclasses.replace(stopped[0], strategy="ddp", wrapped=())
    with pytest.raises(IncompatibleError, match=r"strategy \(then fsdp, now none\) differ"):
        LocalLauncher().run(train, settings, RECIPE)


@pytest.mark.usefixtures("kills")
def test_after_a_killed_process_all_restart_from_the_parts(tmp_path):
    X = np.random.default_rng(3).normal(size=(640, 3)).astype(np.float32)
    rows = pa.table({"features": list(X), "label": (X[:, 0] > 0).astype(np.int64)})
    options = dict(strategy="fsdp", wrappedModules=["Linear"], maxRestarts=1)
    found = killing.estimator(tmp_path, "torch", **options).fit(rows)
    assert (tmp_path / "witness").exists()
    assert found.summary.receipt.restarts == 1
    assert found.summary.receipt.resumed == "epoch-000001-step-000000010"
    calm = killing.estimator(killing.calm(tmp_path / "calm"), "torch", **options).fit(rows)
    assert (calm.summary.receipt.restarts, calm.weights) == (0, found.weights)


def layers(count, *others):
    return nn.Sequential(nn.ModuleList(nn.TransformerEncoderLayer(192, 4, 400) for _ in range(count)), *others)


UNITS = {
    "layers that repeat": (lambda: layers(2, nn.Linear(192, 2)), (), ["TransformerEncoderLayer"] * 2),
    "large leaves": (lambda: layers(1, nn.Embedding(2000, 192)), (), ["Embedding"]),
    "small ones": (networks.wide, (), []),
    "a class": (networks.wide, ("Linear",), ["Linear"] * 3),
    "inner ones first": (
        lambda: layers(1),
        ("Linear", "TransformerEncoderLayer"),
        ["Linear", "Linear", "TransformerEncoderLayer"],
    ),
    "a name": (networks.wide, ("2",), ["Linear"]),
    "a pattern is of one level": (Blocks, ("layers.*",), ["TransformerEncoderLayer"] * 2),
    "one of two levels": (Blocks, ("layers.*.linear?",), ["Linear"] * 4),
    "shared weights are with the whole": (Tied, ("Linear",), ["Linear"]),
}


@pytest.mark.parametrize(("build", "names", "expected"), UNITS.values(), ids=UNITS)
def test_modules_that_are_gathered_by_themselves(build, names, expected):
    found = units_of(nn.ModuleDict({"module": build()}), names)
    kinds = [type(one).__name__ for one in found]
    assert [kind for kind in kinds if kind != "NonDynamicallyQuantizableLinear"] == expected


class Bare(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.out = nn.Linear(4, 3)
        self.odd = nn.Parameter(kind)

    def forward(self, x):
        return self.out(x) + self.odd.real.sum()


TABLE = pa.table({"features": list(np.random.default_rng(1).normal(size=(90, 4)).astype(np.float32)),
                  "label": np.arange(90) % 3})  # fmt: skip
WRONG = {
    "strategy": (dict(strategy="zero"), ParameterError, "strategy must be one of 'ddp', 'fsdp'. Got 'zero'"),
    "local": (dict(launcher="local", numProc=1), IncompatibleError, "launcher='local' does not divide networks"),
    "horovod": (dict(launcher="horovod"), IncompatibleError, "launcher='horovod' does not divide networks"),
    "rounds": (
        dict(localSteps=2),
        IncompatibleError,
        "does not go with localSteps or outerOptimizer: in local steps",
    ),
    "compression": (dict(compression="fp16"), IncompatibleError, "does not go with compression='fp16'"),
    "elastic": (dict(minProc=1, maxRestarts=1), IncompatibleError, "does not go with minProc: a lost process has"),
    "alone": (dict(numProc=1), IncompatibleError, "over processes, and there is one. Set numProc, or strategy='ddp'"),
    "names without it": (
        dict(strategy="ddp", wrappedModules=["Linear"]),
        ParameterError,
        "wrappedModules is for networks that are divided: set strategy='fsdp'",
    ),
}


@pytest.mark.parametrize(("changes", "kind", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_work_is_refused(changes, kind, message):
    estimator = TorchEstimator(
        module=networks.mlp, loss="multinomial", **{"numProc": 2, "strategy": "fsdp", **changes}
    )
    with pytest.raises(kind, match=message):
        estimator.fit(TABLE)


def sparse():
    return nn.Sequential(nn.Linear(4, 3), Bag())


class Bag(nn.Module):
    """Adds an embedding with sparse gradients."""

    def __init__(self):
        super().__init__()
        self.bag = nn.Embedding(5, 3, sparse=True)

    def forward(self, x):
        return x + self.bag(torch.zeros(len(x), dtype=torch.int64))


ADAFACTOR = functools.partial(torch.optim.Adafactor, lr=0.1)
ODD = {
    "a name that is none": (networks.mlp, ["Block"], ParameterError, "wrappedModules has 'Block', which is neither"),
    "an optimiser that PyTorch cannot divide": (
        networks.mlp,
        None,
        IncompatibleError,
        "optimizer Adafactor cannot take a step on divided parameters",
    ),
    "sparse": (sparse, None, IncompatibleError, "that of '1.bag.weight' is sparse"),
    "a number": (functools.partial(Bare, torch.tensor(1.0)), None, IncompatibleError, "'odd' is a single number"),
    "complex": (
        functools.partial(Bare, torch.ones(2, dtype=torch.complex64)),
        None,
        IncompatibleError,
        "'odd' is complex",
    ),
    "types": (
        functools.partial(Bare, torch.ones(2, dtype=torch.float64)),
        None,
        IncompatibleError,
        "there are float32 and float64",
    ),
}


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize(("build", "names", "kind", "message"), ODD.values(), ids=ODD)
def test_networks_that_cannot_be_divided(build, names, kind, message):
    steps = []
    estimator = TorchEstimator(
        module=build, loss="multinomial", numProc=2, strategy="fsdp", wrappedModules=names, callbacks=[steps.append]
    )
    if "Adafactor" in message:
        estimator.setOptimizer(ADAFACTOR)
    with pytest.raises(kind, match=message):
        estimator.fit(TABLE)
    assert not steps


def test_an_estimator_divides_and_is_saved(tmp_path):
    estimator = TorchEstimator(
        module=networks.Mlp,
        loss="multinomial",
        numProc=2,
        epochs=2,
        strategy="fsdp",
        wrappedModules=["Linear"],
        checkpointDir=str(tmp_path / "checkpoints"),
    )
    model = estimator.fit(TABLE)
    assert model.transform(TABLE).num_rows == 90
    plain = estimator.copy().setStrategy("ddp").setWrappedModules([]).setCheckpointDir("").fit(TABLE)
    for name, tensor in module_state(model.weights).items():
        torch.testing.assert_close(tensor, module_state(plain.weights)[name], rtol=1e-5, atol=1e-6)
    estimator.save(str(tmp_path / "estimator"))
    again = TorchEstimator.load(str(tmp_path / "estimator"))
    assert (again.value("strategy"), again.value("wrappedModules")) == ("fsdp", ["Linear"])

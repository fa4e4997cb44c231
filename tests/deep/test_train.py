"""Training: whatever runs the ranks, the losses are those of a plain PyTorch loop over all of a step's rows."""

from __future__ import annotations

import dataclasses
import functools
import json

import numpy as np
import pytest
import torch
from torch import nn

from sparkopt.blocks.tables import spark_schema
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.data_loader import RankDataLoader
from sparkopt.deep.events import EpochEnded, StepsDone, from_report
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.worker import train
from sparkopt.errors import DivergedError, IncompatibleError, ParameterError
from sparkopt.launch import (
    HorovodLauncher,
    LocalCommunicator,
    LocalLauncher,
    ProcessLauncher,
    RankInfo,
    TorchLauncher,
)
from sparkopt.launch.checkpoints import CheckpointFolder, module_state
from sparkopt.shards.fields import Fields
from sparkopt.shards.held_out import HeldOut
from sparkopt.shards.store import write_store
from tests.deep import networks
from tests.deep.rows import parted
from tests.tiers import needs

SGD = functools.partial(torch.optim.SGD, lr=0.2, momentum=0.9)
CROSS_ENTROPY = nn.CrossEntropyLoss()


def uneven():
    """670 rows in partitions of 500, 0 and 170, of which every tenth is for validation."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(670, 4))
    label = (2 * X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 1)
    weight, aside = rng.integers(0, 3, 670) / 2, np.arange(670) % 10 == 0
    return parted({"features": list(X), "label": label, "weight": weight, "aside": aside}, [500, 500])


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Rows of which 67 are held out, and the same with weights, of which none is."""
    rows, folder = uneven(), str(tmp_path_factory.mktemp("train"))
    schema = spark_schema(rows.schema)
    plain = write_store(rows, Fields.of(schema, "features", "label"), f"{folder}/plain", HeldOut(("aside",)))
    weighted = write_store(rows, Fields.of(schema, "features", "label", "weight"), f"{folder}/weighted")
    return {"plain": plain, "weighted": weighted}


def config(index, **changes):
    return TrainConfig(**{**dict(store=index.uri, epochs=2, batch_size=32, streams=2, seed=1), **changes})


def run(config, recipe, watcher=None):
    return LocalLauncher(watcher).run(train, config, recipe)[0]


def joined(batches):
    """All rows that count: inputs, labels, weights."""
    x, y, w = (torch.cat(parts) for parts in zip(*[(b.inputs[0], b.target, b.weight) for b in batches], strict=True))
    return x[w > 0], y[w > 0], w[w > 0]


def plain_loop(config, build=networks.mlp, loss=CROSS_ENTROPY, optimizer=SGD):
    """The same training without any of the machinery: batches of all streams' rows, one process."""
    module = Recipe(build, loss).build_module(config.seed)
    optimizer = optimizer(module.parameters())
    rows = RankDataLoader(config, LocalCommunicator(), torch.device("cpu"))
    losses = []
    for epoch in range(config.epochs):
        with rows.training(epoch, 0) as taken:
            batches = list(taken)
        for first in range(0, len(batches), config.accumulation):
            part = batches[first : first + config.accumulation]
            x, y, w = joined(part)
            value = (nn.functional.cross_entropy(module(x), y, reduction="none") * w).sum() / w.sum()
            optimizer.zero_grad()
            value.backward()
            if config.max_norm is not None:
                nn.utils.clip_grad_norm_(module.parameters(), config.max_norm)
            optimizer.step()
            losses.append(value.item())
    return losses, module.state_dict()


def compare(outcome, expected, **tolerance):
    losses, state = expected
    np.testing.assert_allclose(outcome.losses, losses, **tolerance)
    for name, tensor in module_state(outcome.weights).items():
        np.testing.assert_allclose(tensor, state[name], **tolerance)


@pytest.mark.parametrize("launcher", [LocalLauncher(), ProcessLauncher(2)], ids=["local", "processes"])
def test_losses_and_weights_are_those_of_a_plain_loop(index, launcher):
    check_against_a_plain_loop(index, launcher)


@pytest.mark.parametrize("launcher", [TorchLauncher, pytest.param(HorovodLauncher, marks=needs("horovod"))])
def test_so_they_are_on_spark(spark, index, launcher):
    check_against_a_plain_loop(index, launcher(spark.sparkContext, 2))


def check_against_a_plain_loop(index, launcher):
    settings = config(index["plain"], accumulation=3, max_norm=0.5)
    recipe = Recipe(networks.mlp, CROSS_ENTROPY, SGD, metrics={"accuracy": "accuracy"})
    outcomes = launcher.run(train, settings, recipe)
    assert len(outcomes) == getattr(launcher, "processes", 1)
    compare(outcomes[0], plain_loop(settings), rtol=2e-5, atol=1e-6)
    assert len({outcome.losses for outcome in outcomes}) == 1  # every rank knows every loss
    state = module_state(outcomes[0].weights)
    module = networks.mlp()
    module.load_state_dict(state)
    rows = RankDataLoader(settings, LocalCommunicator(), torch.device("cpu"))
    with rows.validation() as batches:
        x, y, _ = joined(batches)
    output, last = module(x), outcomes[0].history[-1]
    assert len(output) == 67
    assert last["validation"] == pytest.approx(CROSS_ENTROPY(output, y).item(), rel=1e-5)
    assert last["accuracy"] == pytest.approx((output.argmax(1) == y).double().mean().item())


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_row_weights(index, streams):
    settings = config(index["weighted"], streams=streams, accumulation=2)
    compare(run(settings, Recipe(networks.mlp, CROSS_ENTROPY, SGD)), plain_loop(settings), rtol=2e-5, atol=1e-6)


def test_ranks_that_share_the_streams_unevenly(spark, index):
    """As where some ranks are lost: three streams, of which one rank has two."""
    settings = config(index["plain"], streams=3, accumulation=2)
    found = TorchLauncher(spark.sparkContext, 2).run(train, settings, Recipe(networks.mlp, CROSS_ENTROPY, SGD))
    compare(found[0], plain_loop(settings), rtol=2e-5, atol=1e-6)


def test_rows_fewer_than_streams(index):
    """Thousand streams: most batches have one row, and some streams none."""
    settings = config(index["plain"], streams=1000, batch_size=1)
    compare(run(settings, Recipe(networks.mlp, CROSS_ENTROPY, SGD)), plain_loop(settings), rtol=2e-5, atol=1e-6)


def test_running_statistics_are_the_mean_over_ranks(spark, index):
    settings = config(index["plain"], epochs=1)
    recipe = Recipe(networks.Normalised, CROSS_ENTROPY, SGD)
    found = module_state(TorchLauncher(spark.sparkContext, 2).run(train, settings, recipe)[0].weights)
    means = []
    for stream in range(2):  # the statistics of the inputs do not depend on the weights
        norm, rank = nn.BatchNorm1d(4), LocalCommunicator()
        rank.info = RankInfo(stream, 2)
        with RankDataLoader(settings, rank, torch.device("cpu")).training(0, 0) as batches:
            for batch in batches:
                norm(batch.inputs[0])
        means.append(norm.running_mean)
    np.testing.assert_allclose(found["norm.running_mean"], (means[0] + means[1]) / 2, rtol=1e-4, atol=1e-6)


def test_compressed_gradients_stay_close(spark, index):
    settings = config(index["plain"], compression="fp16")
    outcome = TorchLauncher(spark.sparkContext, 2).run(train, settings, Recipe(networks.mlp, CROSS_ENTROPY, SGD))[0]
    losses, _ = plain_loop(settings)
    np.testing.assert_allclose(outcome.losses, losses, atol=0.01)
    assert not np.allclose(outcome.losses, losses, atol=1e-7)


@pytest.mark.parametrize("launcher", ["torch", pytest.param("horovod", marks=needs("horovod"))])
def test_low_rank_gradients_go_on_from_a_checkpoint(spark, index, tmp_path, launcher):
    """What was left out of earlier steps is part of it. One launcher resumes what the other began."""
    recipe = Recipe(networks.wide, CROSS_ENTROPY, functools.partial(torch.optim.SGD, lr=0.2))
    settings = config(index["plain"], compression="powersgd", checkpoints=str(tmp_path))
    kinds = {"torch": TorchLauncher, "horovod": HorovodLauncher}
    run_by = {name: kind(spark.sparkContext, 2).run for name, kind in kinds.items()}
    run_by["torch"](train, dataclasses.replace(settings, epochs=1), recipe)
    resumed = run_by[launcher](train, settings, recipe)[0]
    assert resumed.resumed == "epoch-000001-step-000000000"
    whole = run_by["torch"](train, dataclasses.replace(settings, checkpoints=None), recipe)[0]
    np.testing.assert_allclose(resumed.losses, whole.losses, rtol=1e-4)
    losses, _ = plain_loop(settings, networks.wide, optimizer=recipe.optimizer)
    np.testing.assert_allclose(resumed.losses, losses, atol=0.1)
    assert not np.allclose(resumed.losses, losses, atol=1e-4)


def test_compression_that_the_device_lacks_is_refused(spark, index):
    recipe = Recipe(networks.mlp, CROSS_ENTROPY, SGD)
    with pytest.raises(IncompatibleError, match="by 'bf16' on GPUs only"):
        TorchLauncher(spark.sparkContext, 2).run(train, config(index["plain"], compression="bf16"), recipe)


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.03), ("fp16", 0.01)])
def test_reduced_precision_stays_close(index, precision, tolerance):
    outcome = run(config(index["plain"], precision=precision), Recipe(networks.mlp, CROSS_ENTROPY, SGD))
    losses, _ = plain_loop(config(index["plain"]))
    np.testing.assert_allclose(outcome.losses, losses, atol=tolerance)
    assert not np.allclose(outcome.losses, losses, atol=1e-6)


def stop_after(steps):
    """A watcher that asks to stop once so many reports have come."""
    count = []
    return lambda report: count.append(report) or len(count) >= steps


@pytest.mark.parametrize("scheduler", ["cosine", "constant"])
def test_a_stopped_run_continues_to_the_same_weights(index, tmp_path, scheduler):
    """Dropout, momentum, schedule and the order of rows continue as if nothing had happened."""
    recipe = Recipe(networks.dropping, CROSS_ENTROPY, SGD, scheduler)
    settings = config(index["plain"], epochs=3, report_steps=3)
    whole = run(dataclasses.replace(settings, checkpoints=str(tmp_path / "whole")), recipe)
    parted = dataclasses.replace(settings, checkpoints=str(tmp_path / "parted"))
    first = run(parted, recipe, stop_after(6))  # asked at step 3 of the second epoch, heard at step 6
    assert first.stopped == "callback"
    assert CheckpointFolder(parted.checkpoints).latest() == "epoch-000001-step-000000006"
    rest = run(parted, recipe)
    assert (rest.stopped, rest.resumed) == ("epochs", "epoch-000001-step-000000006")
    assert rest.weights == whole.weights
    assert rest.losses == whole.losses
    assert [r["loss"] for r in rest.history] == [r["loss"] for r in whole.history]
    again = run(parted, recipe)  # there is nothing left to do
    assert (again.weights, again.resumed) == (whole.weights, "epoch-000003-step-000000000")


def test_checkpoints_within_an_epoch_change_nothing(index, tmp_path):
    recipe = Recipe(networks.Normalised, CROSS_ENTROPY, SGD)
    settings = config(index["plain"])
    kept = run(dataclasses.replace(settings, checkpoints=str(tmp_path), checkpoint_steps=2), recipe)
    assert kept.weights == run(settings, recipe).weights
    assert CheckpointFolder(str(tmp_path)).names() == ["epoch-000001-step-000000008", "epoch-000002-step-000000000"]


CHANGES = {
    "other rows": (dict(store="weighted"), r"rows \(then \w+, now \w+\) differ"),
    "other batches": (dict(batch_size=16), r"batch_size \(then 32, now 16\) differ"),
    "other order": (dict(seed=5, streams=4), r"seed \(then 1, now 5\); streams \(then 2, now 4\) differ"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_of_another_run_is_refused(index, tmp_path, change, message):
    recipe = Recipe(networks.mlp, CROSS_ENTROPY, SGD)
    run(config(index["plain"], epochs=1, checkpoints=str(tmp_path)), recipe)
    change = {key: index[value].uri if key == "store" else value for key, value in change.items()}
    with pytest.raises(IncompatibleError, match=f"{message}. Set another checkpointDir, or resume=False"):
        run(config(index["plain"], checkpoints=str(tmp_path), **change), recipe)


def test_patience_ends_training_with_the_best_state(index, tmp_path):
    def rising(optimizer):  # a rate that soon undoes what was learned
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 4.0**epoch)

    recipe = Recipe(networks.mlp, CROSS_ENTROPY, functools.partial(torch.optim.SGD, lr=0.05), rising)
    settings = config(index["plain"], epochs=20, patience=2, checkpoints=str(tmp_path))
    outcome = run(settings, recipe)
    losses = [record["validation"] for record in outcome.history]
    best = int(np.argmin(losses))
    assert outcome.stopped == "patience"
    assert len(losses) == best + 3 < 20
    module = networks.mlp()
    module.load_state_dict(module_state(outcome.weights))
    rows = RankDataLoader(settings, LocalCommunicator(), torch.device("cpu"))
    with rows.validation() as batches:
        x, y, _ = joined(batches)
    assert CROSS_ENTROPY(module(x), y).item() == pytest.approx(losses[best], rel=1e-5)
    assert run(settings, recipe).weights == outcome.weights  # also when it is asked again


def test_a_plateau_lowers_the_rate(index):
    def plateau(optimizer):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, "min", 0.5, patience=0, threshold=10.0, threshold_mode="abs"
        )

    outcome = run(config(index["plain"], epochs=4), Recipe(networks.mlp, CROSS_ENTROPY, SGD, plateau))
    assert [record["rate"] for record in outcome.history] == [0.2, 0.2, 0.1, 0.05]


def test_warm_start(index):
    recipe = Recipe(networks.mlp, CROSS_ENTROPY, SGD)
    first = run(config(index["plain"]), recipe)
    second = run(config(index["plain"], seed=9), dataclasses.replace(recipe, weights=first.weights))
    assert second.losses[0] < 0.7 * first.losses[0]


def test_divergence_is_one_clear_error(index):
    recipe = Recipe(networks.mlp, "squared_error", functools.partial(torch.optim.SGD, lr=1e20))
    with pytest.raises(ParameterError, match="must give one value a row|label has"):
        run(config(index["plain"]), Recipe(networks.mlp, lambda output, target: output.mean(), SGD))
    wide = Recipe(functools.partial(networks.Mlp, classes=1), recipe.loss, recipe.optimizer)
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step \d+ of epoch 0. Lower the learning rate"):
        run(config(index["plain"]), wide)


def test_every_step_is_reported_once(index):
    reports = []
    outcome = run(config(index["plain"], report_steps=4), Recipe(networks.mlp, CROSS_ENTROPY, SGD), reports.append)
    events = [from_report(json.loads(json.dumps(report))) for report in reports]
    steps = [event for event in events if isinstance(event, StepsDone)]
    assert [loss for event in steps for loss in event.losses] == list(outcome.losses)
    assert sum(sum(event.rows) for event in steps) == 2 * 603
    ends = [event for event in events if isinstance(event, EpochEnded)]
    assert [event.record() for event in ends] == list(outcome.history)
    assert len(steps) + len(ends) == len(events)
